"""What is saved beside weights and settings, so that every folder loads with `trust_remote_code=True` alone.

Saving a config, and with it a model, copies the code (transformers does so for classes with an `_auto_class`) and
names the classes that the folder loads as; saving a model also writes a card where there is none.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import ModelCard, metadata_load
from huggingface_hub.errors import EntryNotFoundError


if TYPE_CHECKING:
    # Never run: transformers reads these lines as text, and so keeps all files of the model together, be it the config
    # alone that is saved or loaded.
    from .pretraining_gap_mllm import GapMllmForPreTraining  # noqa: F401
    from .vggt_heads_gap_mllm import GapMllmVggtForReconstruction  # noqa: F401


# By model_type: what each Auto class gives, whatever class is saved. A notebook user who asks for AutoModel calls
# generate(); adapters of the task type CAUSAL_LM look for AutoModelForCausalLM.
AUTO_MAPS = {
    "gap_mllm": {
        "AutoConfig": "configuration_gap_mllm.GapMllmConfig",
        "AutoModel": "modeling_gap_mllm.GapMllmForConditionalGeneration",
        "AutoModelForCausalLM": "modeling_gap_mllm.GapMllmForConditionalGeneration",
        "AutoModelForImageTextToText": "modeling_gap_mllm.GapMllmForConditionalGeneration",
        "AutoModelForMultimodalLM": "modeling_gap_mllm.GapMllmForConditionalGeneration",
        "AutoModelForPreTraining": "pretraining_gap_mllm.GapMllmForPreTraining",
    },
    "gap_mllm_vggt": {
        "AutoConfig": "configuration_gap_mllm.GapMllmVggtConfig",
        "AutoModel": "vggt_gap_mllm.GapMllmVggtModel",
        "AutoModelForDepthEstimation": "vggt_heads_gap_mllm.GapMllmVggtForReconstruction",
    },
    "gap_mllm_vggt_points": {
        "AutoConfig": "configuration_gap_mllm.GapMllmVggtPointsConfig",
        "AutoModel": "vggt_points_gap_mllm.GapMllmVggtPointsModel",
    },
    "gap_mllm_geometry_maps": {
        "AutoConfig": "configuration_gap_mllm.GapMllmGeometryMapsConfig",
        "AutoModel": "geometry_maps_gap_mllm.GapMllmGeometryMapsModel",
    },
    "gap_mllm_fusion": {
        "AutoConfig": "configuration_gap_mllm.GapMllmFusionConfig",
        "AutoModel": "fusion_gap_mllm.GapMllmFusion",
    },
}

CARD = "README.md"
LICENSE_FIELDS = ("license", "license_name", "license_link")
MODEL_CARD = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
language: en
tags: [gap-mllm, geometry, 3d, qwen3_vl, vggt]
{metadata}---

# GAP-MLLM

A multimodal language model that sees the geometry of a scene: Qwen3-VL with a VGGT encoder, fused level by level
(arXiv:2603.16461). {terms}

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
WITHOUT_GEOMETRY = """
The weights of the geometry encoder are not in this repository. They are read from `{source}` when the model loads;
`from_pretrained(..., geometry_weights=FOLDER)` reads them from a folder or another repository instead.
"""
_BASE_TERMS = "The licences of the base models' weights apply."
_PART_TERMS = "The licence of the weights that it began with applies."
PART_CARD = """\
---
library_name: transformers
tags: [gap-mllm, geometry, 3d]
{metadata}---

# {architecture}

A part of GAP-MLLM (arXiv:2603.16461), by itself. {terms}

```python
from transformers import AutoModel

model = AutoModel.from_pretrained("{name}", trust_remote_code=True)
```
"""


class PublishedConfig:
    """For configs: a saved one comes with its code and the whole table of its classes."""

    _auto_class = "AutoConfig"  # so that transformers copies the code

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """As in transformers, with `auto_map` as in `AUTO_MAPS`: not that of the repository it was loaded from."""
        table = AUTO_MAPS.get(type(self).model_type)  # a subclass of one's own has none
        if table is not None:
            self.auto_map = dict(table)
        super().save_pretrained(save_directory, push_to_hub, **kwargs)


class PublishedModel:
    """For models: a saved one has a card.

    What `card_metadata` of the model says goes into it, as {"license": "apache-2.0"}; by default licence and data sets
    in the card of the folder that the model was loaded from.
    """

    card_metadata = None

    def save_pretrained(self, save_directory, is_main_process: bool = True, *args, **kwargs):
        """As in transformers, with the code, and a README.md where there is none.

        A model without training heads, though it was read from a folder with them, says nothing of them.
        """
        heads = getattr(self.config, "training_heads", None)
        if heads and not hasattr(self, "training_heads"):
            self.config.training_heads = None
        try:
            super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        finally:
            if heads:
                self.config.training_heads = heads
        # Last, after anything is uploaded: a card that is on the Hub already stays.
        card = Path(save_directory) / CARD
        if is_main_process and not card.exists():
            card.write_text(_card(self, card.absolute().parent.name), encoding="utf-8")

    def _upload_modified_files(self, working_dir, repo_id, *args, **kwargs):
        """As in transformers; where the Hub has no card, ours in place of the template written for it."""
        try:
            ModelCard.load(repo_id, token=kwargs.get("token"))
        except EntryNotFoundError:
            path = Path(working_dir) / CARD
            card, tags = ModelCard(_card(self, repo_id)), ModelCard(path.read_text(encoding="utf-8")).data.tags
            card.data.tags = list(dict.fromkeys(card.data.tags + (tags or [])))
            card.save(path)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)


def _card(model, name):
    is_part = type(model.config).model_type != "gap_mllm"
    told = _metadata(model)
    terms = _PART_TERMS if is_part else _BASE_TERMS
    if "license" in told:
        terms = f"Licence of these weights: {told.get('license_name') or told['license']}."
    lines = "".join(f"{key}: {_yaml(value)}\n" for key, value in told.items())
    filled = {"name": name, "metadata": lines, "terms": terms}
    if is_part:
        return PART_CARD.format(architecture=type(model).__name__, **filled)
    source = model.config.geometry_weights
    return MODEL_CARD.format(**filled) + (WITHOUT_GEOMETRY.format(source=source) if source else "")


def _metadata(model):
    """What a card says beyond that which is the same for all: what the model was given, else what its folder says."""
    told = model.card_metadata
    if told is None:
        before = read_card(model.name_or_path)
        told = {name: before.get(name) for name in (*LICENSE_FIELDS, "datasets")}
    return {name: value for name, value in told.items() if value}


def read_card(folder: str | Path) -> dict:
    """Return the metadata of a local folder's card; empty where there is none that can be read.

    Args:
        folder (`str` or `Path`): folder of a model.
    Returns:
        `dict`.
    """
    file = Path(folder) / CARD
    if not str(folder) or not file.is_file():
        return {}
    try:
        return metadata_load(file) or {}
    except Exception:  # huggingface_hub raises whatever yaml and its own checks do
        return {}


def _yaml(value):
    """A value in one line of YAML, which JSON is; plain words without quotes."""
    is_plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./:+-]*", value) and not value.endswith(":")
    return value if is_plain else json.dumps(value)


__all__ = ["AUTO_MAPS", "CARD", "LICENSE_FIELDS", "PublishedConfig", "PublishedModel", "read_card"]
