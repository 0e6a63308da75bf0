"""LoRA with PEFT: adapters on a GAP-MLLM, over weights of 4 or 8 bits where asked for, and merged into a whole model.

A plain `LoraConfig` with `get_peft_model` works as well; what is here knows which modules of the model learn.
"""

import json
from collections.abc import Sequence
from dataclasses import fields
from inspect import signature
from pathlib import Path

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel, TrainingArguments
from transformers.utils import is_bitsandbytes_available, is_peft_available

from ..hub import save_for_hub
from ..model_loading import load_pretrained, model_folder
from ..modeling_gap_mllm import GapMllmForConditionalGeneration
from ..pretraining_gap_mllm import GapMllmForPreTraining
from ..processing import GapMllmProcessor
from ..processing.argument_checks import check_kinds, check_names, check_output_folder
from .geometry_aligned_trainer import trained_groups
from .module_groups import groups_of
from .recipes import number_keys
from .tied_embeddings import untie_embeddings, untied_for_merging


# By place: vision tower, encoder and fusion have linear layers, too.
LANGUAGE_LINEARS = r".*language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"


def add_lora(
    model: PreTrainedModel, trained: Sequence[str] = ("mergers", "fusion", "language"), **lora: object
) -> PreTrainedModel:
    """Put LoRA on the linear layers of the language model; fusion and mergers are trained whole, and saved with it.

    Args:
        model (`GapMllmForConditionalGeneration` or `GapMllmForPreTraining`): model that was loaded from a folder or
            repository; its weights are frozen.
        trained (`Sequence[str]`, defaults to `("mergers", "fusion", "language")`): groups of `MODULE_GROUPS`, or
            "heads", that learn: those that `target_modules` adapts by their adapters, the others but for "language"
            whole.
        **lora: fields of `peft.LoraConfig`; `target_modules` and `modules_to_save` say what is adapted and what is
            trained whole otherwise.
    Returns:
        `peft.PeftModel`: for `Trainer`, `GeometryAlignedTrainer`, TRL's trainers, or a loop of your own.
    Raises:
        ImportError: without peft. ValueError: for an unknown field, group or kind of number, or if `target_modules`
            adapts a group that is not among those trained.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration
        >>> from gap_mllm.training import add_lora
        >>> model = GapMllmForConditionalGeneration.from_pretrained(folder)
        >>> model = add_lora(model, r=16, lora_alpha=32)
        >>> model.print_trainable_parameters()
        trainable params: ...
        >>> model.save_pretrained("adapter")  # and merge_adapter("adapter", "merged")

        ```
    """
    config = lora_config(model, trained, **lora)
    from peft import get_peft_model

    return get_peft_model(model, config)


def lora_config(
    model: PreTrainedModel, trained: Sequence[str] = ("mergers", "fusion", "language"), **lora: object
) -> object:
    """Make the `peft.LoraConfig` that `add_lora` uses, for trainers that put adapters on by themselves.

    Arguments and errors are those of `add_lora`. The model's `name_or_path`, by which adapters find their base again,
    becomes absolute, or what the field `base_model_name_or_path` says. Tied embeddings that get adapters are untied,
    see `untie_embeddings`, unless `ensure_weight_tying` is True.
    """
    check_lora(lora)
    known = groups_of(model)
    check_names("trained", trained, known)
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    base = lora.get("base_model_name_or_path") or model.name_or_path
    model.name_or_path = str(Path(base).resolve()) if base and Path(base).is_dir() else base
    config = LoraConfig(**{"target_modules": LANGUAGE_LINEARS, "task_type": "CAUSAL_LM", **lora})
    modules = dict(model.named_modules())
    adapted = [f"{name}." for name in modules if check_target_module_exists(config, name)]
    groups = {group for group, starts in known.items() if any(name.startswith(starts) for name in adapted)}
    if not groups <= set(trained):
        raise ValueError(
            f"lora.target_modules adapts modules of {sorted(groups - set(trained))}, which are not trained; trained "
            f"are {list(trained)}. Give these groups a learning rate (module_learning_rates), or adapt other modules."
        )
    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    if not getattr(config, "ensure_weight_tying", False) and any(modules[name[:-1]] in embeddings for name in adapted):
        untie_embeddings(model)  # each gets an adapter of its own, which a merge must not add to the other
    if "modules_to_save" not in lora:
        starts = [start for group in trained if group not in {*groups, "language"} for start in known[group]]
        parts = {start: modules[start[:-1]] for start in starts if start[:-1] in modules}
        config.modules_to_save = [name for start, part in parts.items() for name in _saved_names(start, part)] or None
    return config


def _saved_names(start, module):
    """A module by its name, or the members of a list or dict, which has no forward for PEFT to wrap."""
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        return [start + name for name, _ in module.named_children()]
    return [start[:-1]]


def check_lora(lora: dict) -> None:
    """Refuse what is no field of `peft.LoraConfig`, or no number where one is needed. Raises as `add_lora`."""
    if not is_peft_available():
        raise ImportError("LoRA needs peft: pip install 'gap-mllm[train]'.")
    from peft import LoraConfig

    check_names("lora", lora, [field.name for field in fields(LoraConfig)])
    if lora.get("target_modules") == "all-linear":
        raise ValueError(
            "lora.target_modules='all-linear' would adapt geometry encoder and fusion, too. Leave it out for the "
            "linear layers of the language model, or give a regular expression of module names."
        )
    try:
        check_kinds(LoraConfig, {name: lora[name] for name in number_keys(LoraConfig) if name in lora})
    except ValueError as error:
        raise type(error)(f"lora.{error}") from None


def check_tuning(recipe_args: object) -> None:
    """Refuse, before anything is read, sections `lora` and `quantization` of a recipe that cannot be.

    Args:
        recipe_args: arguments of a recipe, perhaps with `lora` and `quantization`.
    Raises:
        ImportError, ValueError: as `add_lora`; for an unknown key of `quantization`, or if it comes without `lora`.
    """
    lora, quantization = (getattr(recipe_args, name, None) for name in ("lora", "quantization"))
    if quantization:
        check_names("quantization", quantization, [*signature(BitsAndBytesConfig).parameters][:-1])
        if lora is None:
            raise ValueError("quantization needs adapters, since its weights do not learn: give lora, as {r: 16}.")
    if lora is not None:
        check_lora(lora)


def lora_options(recipe_args: object, args: TrainingArguments) -> dict:
    """Arguments of `add_lora` by a recipe with `lora`: what its learning rates train, over its `model_path`.

    Args:
        recipe_args: arguments of a recipe, with `lora` and `model_path`.
        args (`TrainingArguments`): its training arguments, with `group_learning_rates`.
    """
    base = {"base_model_name_or_path": recipe_args.model_path}
    return {"trained": trained_groups(args), **base, **recipe_args.lora}


def quantized_loading(quantization: dict, device: torch.device) -> dict:
    """Options of `from_pretrained` that load weights in 4 or 8 bits.

    Args:
        quantization (`dict`): fields of `transformers.BitsAndBytesConfig`; without any, nothing is quantised.
        device (`torch.device`): where the weights go.
    Returns:
        `dict`: options, empty without fields.
    Raises:
        ImportError: without bitsandbytes.
    """
    if not quantization:
        return {}
    if not is_bitsandbytes_available():
        raise ImportError("quantization needs bitsandbytes: pip install 'gap-mllm[quantization]'.")
    return {"quantization_config": BitsAndBytesConfig(**quantization), "device_map": {"": device}}


def merge_adapter(adapter: str | Path, output: str | Path, base: str | Path | None = None) -> Path:
    """Merge an adapter into its base model, and save both as one folder that loads without PEFT, ready for the Hub.

    Args:
        adapter (`str` or `Path`): folder that `gap-mllm train --lora` or PEFT wrote, or a repository on the Hub.
        output (`str` or `Path`): folder to write; made if need be.
        base (`str` or `Path`, *optional*): folder or repository of the base model, by default the one that the adapter
            names. It is loaded in its own dtype, never quantised.
    Returns:
        `Path`: the folder, with the adapter's processor where it has one, else the base model's. Where the adapter
            makes tied input and output embeddings differ, the merged model has both (`tie_word_embeddings` is False).
    Raises:
        ImportError: without peft. FileNotFoundError: if the adapter or the base model is nowhere. ValueError: as
            `load_pretrained`. NotADirectoryError: if `output` is a file.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration
        >>> from gap_mllm.training import add_lora, merge_adapter
        >>> model = GapMllmForConditionalGeneration.from_pretrained(folder)
        >>> add_lora(model, r=2).save_pretrained("adapter")
        >>> merge_adapter("adapter", "merged").name
        'merged'
        >>> merged = GapMllmForConditionalGeneration.from_pretrained("merged")

        ```
    """
    if not is_peft_available():
        raise ImportError("Adapters need peft: pip install 'gap-mllm[train]'.")
    from peft import PeftConfig, PeftModel

    output, adapter = check_output_folder("output", output), model_folder(adapter, "adapter_config.json")
    config = PeftConfig.from_pretrained(str(adapter))
    folder = model_folder(base or config.base_model_name_or_path)
    architectures = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    has_heads = any(name.startswith("point_map_heads.") for name in config.modules_to_save or ())
    kind = GapMllmForConditionalGeneration
    if has_heads or GapMllmForPreTraining.__name__ in architectures:
        kind = GapMllmForPreTraining
    model = load_pretrained(kind, folder, may_lack=("point_map_heads.", "training_heads."), dtype="auto")
    adapted = PeftModel.from_pretrained(model, str(adapter))
    with untied_for_merging(adapted):
        merged = adapted.merge_and_unload(safe_merge=True)
    source = adapter if (Path(adapter) / "processor_config.json").is_file() else folder
    return save_for_hub(merged, GapMllmProcessor.from_pretrained(source), output)
