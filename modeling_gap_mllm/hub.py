"""Export of a model and its processor in one folder, with what plain saving does not do: parts left out, other names.

What every saved folder has (code, the table of its classes, a card) is in publishing_gap_mllm.py.
"""

import copy
import inspect
import json
from pathlib import Path

from transformers import PreTrainedModel
from transformers.dynamic_module_utils import get_relative_import_files

from .configuration_gap_mllm import GapMllmConfig
from .processing import GapMllmProcessor, check_image_statistics
from .publishing_gap_mllm import QUANTIZATION_SKIP_MODULES, SKIP_LISTS


MODEL_CLASSES = ("GapMllmForConditionalGeneration", "GapMllmForPreTraining")
GEOMETRY_PREFIX, HEADS_PREFIX = "model.geometry.", "training_heads."
VGGT_REPOSITORY = "facebook/VGGT-1B"


def save_for_hub(
    model: PreTrainedModel,
    processor: GapMllmProcessor,
    folder: str | Path,
    include_geometry_weights: bool = True,
    geometry_weights: str = VGGT_REPOSITORY,
    stock_processor: bool = False,
    include_training_heads: bool = False,
) -> Path:
    """Save a model and its processor in one folder, ready for `huggingface_hub.upload_folder`.

    `save_pretrained` of both does the same, but for the two options and the check that they belong together. The
    model, its config and its classes are left as they are. A README.md that is in the folder is kept.

    Args:
        model (`GapMllmForConditionalGeneration` or `GapMllmForPreTraining`): the model.
        processor (`GapMllmProcessor`): the processor that its inputs are made with.
        folder (`str` or `Path`): where to write; made if need be.
        include_geometry_weights (`bool`, defaults to True): False leaves out the geometry encoder's weights, for an
            encoder that was not trained and that is published elsewhere.
        geometry_weights (`str`, defaults to `VGGT_REPOSITORY`): repository or folder from which `from_pretrained`
            reads the encoder's weights, with `include_geometry_weights=False`; a user may pass another as
            `geometry_weights`.
        stock_processor (`bool`, defaults to False): True names Qwen3-VL's own `Qwen3VLProcessor` as the folder's, for
            stacks that ask for it by name (verl, EasyR1). It needs torchvision, makes the same inputs, and knows
            neither prompts nor crosses; `GapMllmProcessor.from_pretrained` still reads the folder.
        include_training_heads (`bool`, defaults to False): True keeps the heads on hidden states (`training_heads` of
            the config), to go on with the training; inference needs none.
    Returns:
        `Path`: the folder.
    Raises:
        TypeError: if the model is of another class: one with adapters, or a part of a model.
        ValueError: if the processor normalises pixels otherwise than the model's config says, or the weights to be
            left out are quantised.
    """
    if not any(kind.__name__ in MODEL_CLASSES for kind in type(model).__mro__):
        advice = "A part of a model, such as its encoder, is published by its own save_pretrained(folder)."
        if hasattr(model, "merge_and_unload"):
            advice = "Merge adapters first, with merge_and_unload(), or save them alone, with save_pretrained(folder)."
        raise TypeError(f"model must be one of {list(MODEL_CLASSES)}, got {type(model).__name__}. {advice}")
    check_image_statistics(processor, model.config)
    quantization = getattr(model.config, "quantization_config", None)
    skipped = {name for key in SKIP_LISTS for name in getattr(quantization, key, None) or ()}
    if quantization is not None and not include_geometry_weights and not skipped & set(QUANTIZATION_SKIP_MODULES[:1]):
        raise ValueError(
            "The geometry encoder is quantised, so its weights cannot be left out and read from elsewhere. Pass "
            f"include_geometry_weights=True, or quantise with {list(QUANTIZATION_SKIP_MODULES)} skipped."
        )
    folder, config, state_dict = Path(folder), model.config, None
    model.config = copy.deepcopy(config)  # saving writes dtype, architectures and more into it
    left_out = () if include_training_heads else (HEADS_PREFIX,)
    if left_out:
        model.config.training_heads = None
    if not include_geometry_weights:
        model.config.geometry_weights = geometry_weights
        left_out = (*left_out, GEOMETRY_PREFIX)
    if not include_geometry_weights or (left_out and config.training_heads):
        state_dict = {name: value for name, value in model.state_dict().items() if not name.startswith(left_out)}
    try:
        model.save_pretrained(folder, state_dict=state_dict)
    finally:
        model.config = config
    if stock_processor:
        save_stock_processor(processor, folder)
    else:
        processor.save_pretrained(folder)
    return folder


def save_stock_processor(processor: GapMllmProcessor, folder: str | Path) -> None:
    """Save a processor under the name of Qwen3-VL's own; see `stock_processor` of `save_for_hub`."""
    processor.save_pretrained(folder)
    for file in (Path(folder) / "processor_config.json", Path(folder) / "tokenizer_config.json"):
        settings = json.loads(file.read_text(encoding="utf-8")) | {"processor_class": "Qwen3VLProcessor"}
        settings.pop("auto_map", None)
        file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def remote_code_files() -> list[Path]:
    """Return the source files that a saved folder needs, entry files and what they import, in order of name."""
    entries = [inspect.getfile(kind) for kind in (GapMllmConfig, GapMllmProcessor)]
    files = {Path(file) for entry in entries for file in (entry, *get_relative_import_files(entry))}
    return sorted(files, key=lambda file: file.name)
