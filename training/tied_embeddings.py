"""Adapters on embeddings that input and output share: what merging must take apart, since each adapter has its own."""

from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging


logger = logging.get_logger(__name__)


def untie_embeddings(model: PreTrainedModel) -> bool:
    """Give the output embeddings (`lm_head`) weights of their own, equal to those of the input embeddings.

    Adapters of PEFT on one of the two change both when they are merged. Call this before `get_peft_model` where
    `merge_and_unload` shall follow; `add_lora` and `merge_adapter` do so by themselves.

    Args:
        model (`GapMllmForConditionalGeneration`, or a `PeftModel` of one): changed in place, and its config with it.
    Returns:
        `bool`: whether they were tied.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration
        >>> from gap_mllm.training import untie_embeddings
        >>> model = GapMllmForConditionalGeneration.from_pretrained(folder)
        >>> untie_embeddings(model), model.config.tie_word_embeddings
        (True, False)

        ```
    """
    model = _base(model)
    source, target = map(innermost, _embeddings(model))
    if not is_tied(model):
        return False
    target.weight = nn.Parameter(source.weight.detach().clone(), requires_grad=source.weight.requires_grad)
    _note(model, False)
    return True


def is_tied(model: PreTrainedModel) -> bool:
    """Whether input and output embeddings are one parameter, adapters left aside."""
    source, target = _embeddings(_base(model))
    return target is not None and innermost(source).weight is innermost(target).weight


@contextmanager
def untied_for_merging(model: PreTrainedModel):
    """Merge adapters inside this `with` block: embeddings that they change are untied, and tied again if they agree.

    Args:
        model (`peft.PeftModel`): model with its adapters on; the configs say afterwards what the embeddings are.
    """
    base = _base(model)
    is_adapted = any(_has_deltas(layer) for layer in _embeddings(base))
    was_untied = is_adapted and untie_embeddings(base)
    yield
    source, target = _embeddings(base)
    if was_untied and source.weight.equal(target.weight):  # both got the same adapter
        target.weight = source.weight
    elif was_untied:
        logger.warning("The adapter changes input or output embeddings, which were tied: the merged model has both.")
    _note(base, is_tied(base))


def innermost(layer: nn.Module) -> nn.Module:
    """The layer of the base model within the wrappers of PEFT."""
    inner = next((getattr(layer, name) for name in ("base_layer", "original_module") if hasattr(layer, name)), None)
    return layer if inner is None else innermost(inner)


def _base(model):
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _embeddings(model):
    return model.get_input_embeddings(), model.get_output_embeddings()


def _has_deltas(layer):
    """Whether adapters are added to a layer, rather than a copy of it trained in its place."""
    return any(hasattr(part, "base_layer") and hasattr(part, "merge") for part in layer.modules())


def _note(model, tied):
    """Say in a model's configs whether its embeddings are tied."""
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = tied
