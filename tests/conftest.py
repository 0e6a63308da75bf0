"""Fixtures that many tests share: the tiny tokenizer, processor and model, and small pictures from a seed.

Sizes of the model are the smallest that keep every mechanism alive: four taps for three DeepStack levels and the final
tokens, four text layers to take the DeepStack levels in, and weights large enough that each part changes the output.
"""

import copy
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gap_mllm import GapMllmConfig, GapMllmForConditionalGeneration
from gap_mllm.configuration_gap_mllm import FUSION_FIELDS_OF
from gap_mllm.processing.tiny_tokenizer import build_tiny_processor, build_tiny_tokenizer


WRITE_CODE = Path(__file__).parents[1] / "examples" / "assets" / "write_code.py"


def pytest_configure(config):
    """The code of the shipped folders, which git does not keep, is that of this version."""
    if not hasattr(config, "workerinput") and WRITE_CODE.is_file():  # once, before there are several processes
        runpy.run_path(str(WRITE_CODE), run_name="__main__")


# Runs scripts, each in a process of its own that has transformers but neither the package nor the Hub. The processes
# are copies of this one, since importing transformers takes longer than most of the scripts.
WITHOUT_PACKAGE = """
import json, os, signal, sys, traceback
from importlib.abc import MetaPathFinder

class NoPackage(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("gap_mllm", "modeling_gap_mllm", "processing"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoPackage())
import torch, transformers
import transformers.models.qwen3_vl.modeling_qwen3_vl

torch.set_num_threads(1)
for line in sys.stdin:
    script, errors, *arguments = json.loads(line)
    child = os.fork()
    if not child:
        signal.alarm(300)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
        os.dup2(2, 1)
        sys.argv[1:] = arguments
        try:
            exec(script, globals())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

# Each folder by every class that it names, then saved from the remote code, and that folder likewise. To be quick,
# only the first is also asked by further names of a class.
LOAD_FOLDERS = """
from pathlib import Path

*folders, out = sys.argv[1:]
folders, result = [Path(folder) for folder in folders], {}
while folders:
    folder = folders.pop(0)
    again = folder.with_name(folder.name + "_again")
    found = result[folder.name] = {"classes": {}, "numbers": []}
    if (folder / "config.json").exists():
        auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
        for name in sorted(auto_map):
            if len(result) > 1 and auto_map[name] in [auto_map[before] for before in found["classes"]]:
                continue
            loaded = getattr(transformers, name).from_pretrained(folder, trust_remote_code=True)
            found["classes"][name] = type(loaded).__name__
            if name == "AutoConfig":
                continue
            if hasattr(loaded, "generate"):
                found["numbers"].append(loaded(input_ids=torch.arange(5)[None]).logits.double().sum().item())
            if name == "AutoModel":
                found["sum"] = sum(parameter.double().sum().item() for parameter in loaded.parameters())
                if not folder.name.endswith("_again"):
                    loaded.save_pretrained(again)
    if (folder / "processor_config.json").exists():
        loaded = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        found["classes"]["AutoProcessor"] = type(loaded).__name__
        found["cross"] = loaded.mark_arm
        if not folder.name.endswith("_again"):
            loaded.save_pretrained(again)
    if again.exists():
        folders.append(again)
result["leaked"] = [name for name in sys.modules if name.split(".")[0] == "gap_mllm"]
json.dump(result, open(out, "w"))
"""


@pytest.fixture(scope="session")
def run_without_package(tmp_path_factory):
    """A function (script, *arguments) -> what the script writes as JSON to its last argument, a path."""
    home = tmp_path_factory.mktemp("without_package")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(home), "HF_MODULES_CACHE": str(home / "modules")}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command, pipe = [sys.executable, "-c", WITHOUT_PACKAGE], subprocess.PIPE
    with subprocess.Popen(command, cwd=home, env=environment, stdin=pipe, stdout=pipe, text=True) as server:

        def run(script, *arguments):
            work = tmp_path_factory.mktemp("run")
            paths = [str(part) for part in (work / "errors", *arguments, work / "result.json")]
            print(json.dumps([script, *paths]), file=server.stdin, flush=True)
            assert server.stdout.readline() == "0\n", (work / "errors").read_text()[-4000:]
            return json.loads((work / "result.json").read_text())

        yield run


@pytest.fixture(scope="session")
def load_without_package(run_without_package):
    """A function (*folders) -> by the name of each, and of what was saved from it: its classes, and numbers."""
    return lambda *folders: run_without_package(LOAD_FOLDERS, *folders)


@pytest.fixture(scope="session")
def tiny_tokenizer():
    return build_tiny_tokenizer()


@pytest.fixture(scope="session")
def tiny_processor():
    """Session-wide: tests must not change it."""
    return build_tiny_processor()


@pytest.fixture(scope="session")
def enable_checkpointing():
    """A function (model) that switches activation checkpointing on, by the name of either release."""

    def enable(model):
        name = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"  # before 5.23
        getattr(model, f"{name}_checkpointing_enable")()

    return enable


@pytest.fixture
def make_image():
    """A function (width, height, seed) -> RGB picture of smooth random colours."""

    def make(width: int = 160, height: int = 120, seed: int = 0) -> Image.Image:
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

    return make


def _merge(base, changes):
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        is_part = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = _merge(merged[key], value) if is_part else value
    return merged


@pytest.fixture(scope="session")
def tiny_config(tiny_tokenizer):
    """A function (**changes) -> `GapMllmConfig` of tiny sizes; dicts change single keys of the parts."""
    token = tiny_tokenizer.convert_tokens_to_ids
    base = {
        "text_config": {
            "vocab_size": len(tiny_tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 2048,
            "initializer_range": 0.2,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
        },
        "vision_config": {
            "depth": 4,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1, 2],
            "initializer_range": 0.2,
        },
        "geometry_config": {
            "hidden_size": 16,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": 56,
            "layer_scale_init_value": 1.0,
            "patch_embed_depth": 1,
            "patch_embed_num_heads": 2,
            "camera_num_heads": 2,
            "dpt_features": 16,
            "dpt_out_channels": [8, 8, 8, 8],
            "initializer_range": 0.2,
            "special_token_std": 1.0,
        },
        "gap_fusion_config": {
            "init": "reference",
            "initializer_range": 0.2,
        },
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
    }

    def make(**changes):
        config = _merge(base, changes)
        fusion = config["gap_fusion_config"]
        method, sizes = fusion.get("method", "gated"), {}
        for (choice, values), names in FUSION_FIELDS_OF.items():
            if choice == "method":
                small = {"merger_hidden_size": 32, "num_attention_heads": 2, "dropout": 0.0}
                sizes.update({name: small[name] for name in names if name in small and method in values})
        config["gap_fusion_config"] = {**sizes, **fusion}
        return GapMllmConfig(**config)

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_config):
    """A function (seed=0, model_class=GapMllmForConditionalGeneration, **changes) -> a new tiny model in eval mode."""

    def make(seed=0, model_class=GapMllmForConditionalGeneration, **changes):
        torch.manual_seed(seed)
        model = model_class(tiny_config(**changes)).eval()
        # No end of turn: what is generated has the full length, whatever the random weights like to say.
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        return model

    return make
