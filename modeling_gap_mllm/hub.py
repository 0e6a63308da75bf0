"""Export of a model and its processor to a folder that loads from the Hub with `trust_remote_code=True` alone."""

import copy
import json
import shutil
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedModel
from transformers.dynamic_module_utils import get_relative_import_files

from .processing.processing_gap_mllm import GapMllmProcessor, check_image_statistics


CODE_FOLDER = Path(__file__).parent
MODEL_CLASSES = ("GapMllmForConditionalGeneration", "GapMllmForPreTraining")
GEOMETRY_PREFIX = "model.geometry."
VGGT_REPOSITORY = "facebook/VGGT-1B"

# Fixed, whatever class is saved: a notebook user who asks for AutoModel calls generate.
MODEL_AUTO_MAP = {
    "AutoConfig": "configuration_gap_mllm.GapMllmConfig",
    "AutoModel": "modeling_gap_mllm.GapMllmForConditionalGeneration",
    "AutoModelForImageTextToText": "modeling_gap_mllm.GapMllmForConditionalGeneration",
    "AutoModelForMultimodalLM": "modeling_gap_mllm.GapMllmForConditionalGeneration",
    "AutoModelForPreTraining": "pretraining_gap_mllm.GapMllmForPreTraining",
    "AutoProcessor": "processing_gap_mllm.GapMllmProcessor",
}
PROCESSOR_AUTO_MAP = {"AutoProcessor": MODEL_AUTO_MAP["AutoProcessor"]}

CARD = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
tags: [gap-mllm, geometry, 3d, qwen3_vl, vggt]
---

# GAP-MLLM

A multimodal language model that sees the geometry of a scene: Qwen3-VL with a VGGT encoder, fused level by level
(arXiv:2603.16461). The licences of the base models' weights apply.

```python
from transformers import AutoModelForImageTextToText, AutoProcessor

folder = "{name}"
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)

content = [{{"type": "image", "path": "view_0.jpg"}}, {{"type": "image", "path": "view_1.jpg"}}]
content.append({{"type": "text", "text": "What stands next to the table?"}})
inputs = processor.apply_chat_template(
    [{{"role": "user", "content": content}}],
    add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
)
answer = model.generate(**inputs, max_new_tokens=128)[:, inputs["input_ids"].shape[1]:]
print(processor.batch_decode(answer, skip_special_tokens=True)[0])
```
"""
CARD_WITHOUT_GEOMETRY = """
The weights of the geometry encoder are not in this repository. They are read from `{source}` when the model loads;
`from_pretrained(..., geometry_weights=FOLDER)` reads them from a folder or another repository instead.
"""


def save_for_hub(
    model: PreTrainedModel,
    processor: GapMllmProcessor,
    folder: str | Path,
    include_geometry_weights: bool = True,
    geometry_weights: str = VGGT_REPOSITORY,
) -> Path:
    """Save a model, its processor and their code, ready for `huggingface_hub.upload_folder`.

    The folder loads without this package: AutoConfig, AutoModel, AutoModelForImageTextToText and
    AutoModelForMultimodalLM (all three generate), AutoModelForPreTraining and AutoProcessor. The model, its config and
    its classes are left as they are. A README.md that is in the folder is kept.

    Args:
        model (`GapMllmForConditionalGeneration` or `GapMllmForPreTraining`): the model.
        processor (`GapMllmProcessor`): the processor that its inputs are made with.
        folder (`str` or `Path`): where to write; made if need be.
        include_geometry_weights (`bool`, defaults to True): False leaves out the geometry encoder's weights, for an
            encoder that was not trained and that is published elsewhere.
        geometry_weights (`str`, defaults to `VGGT_REPOSITORY`): repository or folder from which `from_pretrained`
            reads the encoder's weights, with `include_geometry_weights=False`; a user may pass another as
            `geometry_weights`.
    Returns:
        `Path`: the folder.
    Raises:
        TypeError: if the model is of another class (such as one with adapters: merge them first).
        ValueError: if the processor normalises pixels otherwise than the model's config says.
    """
    if not any(kind.__name__ in MODEL_CLASSES for kind in type(model).__mro__):
        raise TypeError(
            f"model must be one of {list(MODEL_CLASSES)}, got {type(model).__name__}. Merge adapters first, with "
            "merge_and_unload()."
        )
    check_image_statistics(processor, model.config)
    folder = Path(folder)
    state_dict = model.state_dict()
    if not include_geometry_weights:
        state_dict = {name: value for name, value in state_dict.items() if not name.startswith(GEOMETRY_PREFIX)}
    with _own_config(model) as config, _no_auto_class(type(model), type(config), type(processor)):
        config.geometry_weights = None if include_geometry_weights else geometry_weights
        model.save_pretrained(folder, state_dict=state_dict)
        processor.save_pretrained(folder)
    add_remote_code(folder)
    if not (folder / "README.md").exists():
        card = CARD.format(name=folder.name)
        if not include_geometry_weights:
            card += CARD_WITHOUT_GEOMETRY.format(source=geometry_weights)
        (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def add_remote_code(folder: str | Path) -> None:
    """Let a saved folder load without this package: copy the code, and name its classes in the folder's configs.

    Args:
        folder (`str` or `Path`): folder with the config.json of a model, and perhaps a processor.
    Raises:
        FileNotFoundError: if there is no config.json.
    """
    folder = Path(folder)
    _add_auto_map(folder / "config.json", MODEL_AUTO_MAP)
    if (folder / "processor_config.json").exists():
        _add_auto_map(folder / "processor_config.json", PROCESSOR_AUTO_MAP)
    for file in remote_code_files():
        shutil.copyfile(file, folder / file.name)


def remote_code_files() -> list[Path]:
    """Return the source files that a saved folder needs, entry files and what they import, in order of name."""
    files = set()
    for module in {reference.split(".")[0] for reference in MODEL_AUTO_MAP.values()}:
        entries = (CODE_FOLDER / f"{module}.py", Path(_processing_folder()) / f"{module}.py")
        entry = next(file for file in entries if file.exists())
        files.update(Path(file) for file in (entry, *get_relative_import_files(entry)))
    return sorted(files, key=lambda file: file.name)


def _processing_folder():
    from . import processing

    return processing.__path__[0]


@contextmanager
def _own_config(model):
    """Lend the model a copy of its config, since saving writes dtype, architectures and more into it."""
    config = model.config
    model.config = copy.deepcopy(config)
    try:
        yield model.config
    finally:
        model.config = config


@contextmanager
def _no_auto_class(*classes):
    """Keep transformers from copying code and writing its own, incomplete auto_map, for the time of saving."""
    registered = [(kind, kind.__dict__.get("_auto_class")) for kind in classes]
    for kind in classes:
        kind._auto_class = None
    try:
        yield
    finally:
        for kind, auto_class in registered:
            if auto_class is None:
                del kind._auto_class
            else:
                kind._auto_class = auto_class


def _add_auto_map(file, auto_map):
    data = json.loads(file.read_text(encoding="utf-8"))
    data["auto_map"] = auto_map
    file.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")


__all__ = ["MODEL_AUTO_MAP", "add_remote_code", "remote_code_files", "save_for_hub"]
