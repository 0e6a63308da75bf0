"""What is saved beside weights and settings, so that every folder loads with `trust_remote_code=True` alone.

Saving a config, and with it a model, copies the code (transformers does so for classes with an `_auto_class`) and
names the classes that the folder loads as; saving a model also writes a card where there is none.

How weights are read, all of them or an error that names what is missing, and what differs between releases of
transformers stand here, too: every file of a folder needs them.
"""

import json
import re
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from huggingface_hub import ModelCard, metadata_load
from huggingface_hub.errors import EntryNotFoundError
from transformers.utils import logging


TESTED_TRANSFORMERS = ("5.19.0", "5.21.1", "5.23.0")  # lowest, one between, newest: `make test-versions` runs them


def _release(version):
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in version.split(".")[:3])


_INSTALLED = _release(transformers.__version__)
_INSTALL_TESTED = f"Run: pip install 'transformers>={TESTED_TRANSFORMERS[0]},<={TESTED_TRANSFORMERS[-1]}'"

# Before, generate() hands the features of all images to the first chunk of the prompt, or loses them: read and run.
CHUNKS_TAKE_IMAGES = _INSTALLED >= (5, 23, 0)

if _INSTALLED < _release(TESTED_TRANSFORMERS[0]):
    raise ImportError(
        f"GAP-MLLM needs transformers >= {TESTED_TRANSFORMERS[0]}, but {transformers.__version__} is installed. "
        f"{_INSTALL_TESTED}"
    )
if _INSTALLED > _release(TESTED_TRANSFORMERS[-1]):
    # By one name wherever this file was copied to, so that it is said once.
    logging.get_logger("gap_mllm").warning_once(
        f"transformers {transformers.__version__} is newer than all that GAP-MLLM was tested with "
        f"({', '.join(TESTED_TRANSFORMERS)}). If something fails or differs, go back. {_INSTALL_TESTED}"
    )


@contextmanager
def needed_from_transformers():
    """Import inside a `with` block what is not part of transformers' documented interface, and may go.

    Raises:
        ImportError: names the symbol that is missing, the installed release, and what to install.
    """
    try:
        yield
    except ImportError as error:
        if not (error.name or "").startswith("transformers"):
            raise  # something that transformers itself needs
        raise ImportError(
            f"{error}. GAP-MLLM needs it, and transformers {transformers.__version__} does not have it. "
            f"{_INSTALL_TESTED}"
        ) from error


def sub_config_specs(classes: dict):
    """Return the value of a config's `sub_configs_defaults`, from its `sub_configs` (name -> class).

    5.19 reads `sub_configs` alone, 5.20 asks for specs in the other, later releases make these of classes themselves.
    """
    spec = getattr(transformers.configuration_utils, "SubConfigSpec", None)
    return classes if spec is None else {name: spec(config_class=kind) for name, kind in classes.items()}


with needed_from_transformers():
    from safetensors import safe_open
    from transformers.modeling_utils import load_state_dict
    from transformers.quantizers import AutoQuantizationConfig


# The encoder's features and the fusion work in metres, on ranges that low-bit weights do not hold; heads as usual.
# With and without the prefix of the base model.
QUANTIZATION_SKIP_MODULES = (
    *("model.geometry", "model.fusion", "geometry", "fusion"),
    *("lm_head", "point_map_heads", "training_heads"),
)
SKIP_LISTS = ("llm_int8_skip_modules", "modules_to_not_convert")  # of bitsandbytes, of the other configs


HALF_PRECISION = (torch.float16, torch.bfloat16)
ROTARY_BUFFERS = ("inv_freq", "original_inv_freq")  # in half precision long prompts would lose their positions


class WholeModel:
    """For models: `from_pretrained` refuses to go on with random numbers in the place of missing weights.

    What it keeps in float32 (`_keep_in_fp32_modules_strict`, and the frequencies of rotary positions) stays so when
    the loaded model is cast, by `half()` or `to(torch.bfloat16)`, too.
    """

    _may_start_afresh = ()  # beginnings of names of weights that a checkpoint may lack

    def _apply(self, fn, *args, **kwargs):
        """As in torch; moves what stays in float32, but does not cast it to half precision."""
        kept = self._float32_tensors()

        def convert(tensor):
            converted = fn(tensor)
            if id(tensor) in kept and tensor.dtype == torch.float32 and converted.dtype in HALF_PRECISION:
                return tensor.to(converted.device)
            return converted

        return super()._apply(convert, *args, **kwargs)

    def _float32_tensors(self):
        """Tensors that stay in float32, with their gradients, by identity."""
        parts = [f".{name}." for name in self._keep_in_fp32_modules_strict or ()]
        kept = [each for name, each in self.named_parameters() if any(part in f".{name}" for part in parts)]
        kept += [each for name, each in self.named_buffers() if name.split(".")[-1] in ROTARY_BUFFERS]
        kept += [each.grad for each in kept if each.grad is not None]
        return {id(each): each for each in kept}  # the tensors live on, so that no other gets the identity

    @classmethod
    def _finalize_model_loading(cls, model, load_config, loading_info):
        """As in transformers; `ignore_mismatched_sizes=True` lets missing weights start at random, too.

        Raises:
            ValueError: if weights are missing; they are named.
        """
        loading_info = super()._finalize_model_loading(model, load_config, loading_info)
        for module in model.modules():
            if getattr(module, "stays_frozen", False):  # loading has put trainable parameters in place of its own
                module.requires_grad_(False)
        missing = sorted(name for name in loading_info.missing_keys if not name.startswith(cls._may_start_afresh))
        if missing and not load_config.ignore_mismatched_sizes:
            names = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
            is_plain = all(re.match(r"(model\.)?(geometry|fusion)\.", name) for name in missing)
            raise ValueError(
                f"{load_config.pretrained_model_name_or_path} lacks {len(missing)} weights of {cls.__name__}, which "
                f"would be random: {names}. Load a folder that holds them, or pass ignore_mismatched_sizes=True to "
                f"let them start at random{', or use_geometry=False for plain Qwen3-VL' if is_plain else ''}."
            )
        return loading_info


def with_skip_list(quantization_config):
    """Return a quantisation config that leaves `QUANTIZATION_SKIP_MODULES` as they are, unless it has a list.

    Args:
        quantization_config (`QuantizationConfigMixin` or `dict`): config of any method, left as it is.
    """
    if isinstance(quantization_config, dict):
        quantization_config = AutoQuantizationConfig.from_dict(quantization_config)
    for name in SKIP_LISTS:
        if getattr(quantization_config, name, ()) is None:
            quantization_config = copy(quantization_config)
            setattr(quantization_config, name, list(QUANTIZATION_SKIP_MODULES))
    return quantization_config


def stored_weights(file: str) -> dict:
    """Return the weights of a checkpoint's file by name: of safetensors slices that are read when they are used."""
    if not file.endswith(".safetensors"):
        return load_state_dict(file)
    with safe_open(file, "pt") as opened:
        return {name: opened.get_slice(name) for name in opened.keys()}


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
        "AutoModel": "vggt_heads_gap_mllm.GapMllmVggtPointsModel",
    },
    "gap_mllm_geometry_maps": {
        "AutoConfig": "configuration_gap_mllm.GapMllmGeometryMapsConfig",
        "AutoModel": "known_geometry_gap_mllm.GapMllmGeometryMapsModel",
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
