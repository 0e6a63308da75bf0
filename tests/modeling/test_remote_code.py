"""Export for the Hub: a saved folder loads by every Auto class in a fresh process that cannot import the package."""

import ast
import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

import gap_mllm
from gap_mllm import GapMllmForConditionalGeneration, GapMllmForPreTraining, GapMllmProcessor
from gap_mllm.conversion import convert_checkpoint
from gap_mllm.hub import remote_code_files, save_for_hub
from gap_mllm.modeling_gap_mllm import GapMllmModel
from gap_mllm.processing import build_tiny_processor
from gap_mllm.publishing_gap_mllm import AUTO_MAPS


REFERENCE = Path(__file__).parents[1] / "fixtures" / "gap_reference" / "checkpoint"
NEW_TOKENS = 6
MODEL_AUTO_MAP = AUTO_MAPS["gap_mllm"]
ALLOWED_MODULES = {*sys.stdlib_module_names, "torch", "numpy", "PIL", "transformers", "huggingface_hub", "safetensors"}

# Runs with nothing but the folder.
FRESH_PROCESS = """
from PIL import Image

folder, other_folder, small_folder, pictures, out = *sys.argv[1:4], sys.argv[4:-1], sys.argv[-1]
result = {"classes": {}, "tokens": {}}
try:
    transformers.AutoConfig.from_pretrained(folder)
except ValueError as error:
    result["untrusted"] = str(error)
config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
result["classes"]["AutoConfig"] = type(config).__name__
result["sub_configs"] = [type(config.geometry_config).__name__, type(config.gap_fusion_config).__name__]
processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
result["classes"]["AutoProcessor"] = type(processor).__name__
wide = processor.apply_visual_prompt([Image.new("RGB", (320, 240))], [0, 160, 120])[0]
result["cross"] = [wide.crop((0, row, 320, row + 1)).tobytes().count(255) for row in (120, 125)]
content = [{"type": "image", "image": Image.open(picture)} for picture in pictures]
messages = [{"role": "user", "content": [*content, {"type": "text", "text": "which object is marked?"}]}]
inputs = processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
result["input_ids"] = inputs["input_ids"].tolist()
for name in json.load(open(f"{folder}/config.json"))["auto_map"]:
    if name == "AutoConfig":
        continue
    model, info = getattr(transformers, name).from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    result["classes"][name] = type(model).__name__
    # the heads of pre-training start afresh on an inference folder, and are named in the report
    missing = [key for key in info["missing_keys"] if not key.startswith("point_map_heads.")]
    result.setdefault("missing", []).extend(sorted(missing))
    result["tokens"][name] = model.generate(**inputs, max_new_tokens=6, do_sample=False).tolist()
model = transformers.AutoModelForPreTraining.from_pretrained(other_folder, trust_remote_code=True)
result["head_sum"] = sum(parameter.sum().item() for parameter in model.point_map_heads.parameters())
model, info = transformers.AutoModel.from_pretrained(other_folder, trust_remote_code=True, output_loading_info=True)
result["other"] = [type(model).__name__, model.generate(**inputs, max_new_tokens=6, do_sample=False).tolist()]
small = transformers.AutoModel.from_pretrained(small_folder, trust_remote_code=True)
result["small"] = small.generate(**inputs, max_new_tokens=6, do_sample=False).tolist()
pipe = transformers.pipeline("image-text-to-text", model=folder, trust_remote_code=True)
answers = pipe(text=messages, max_new_tokens=6, generate_kwargs={"do_sample": False}, return_full_text=False)
result["pipeline"] = answers[0]["generated_text"]
model.save_pretrained(f"{out}.again")
again = transformers.AutoModel.from_pretrained(f"{out}.again", trust_remote_code=True)
result["saved_again"] = again.generate(**inputs, max_new_tokens=6, do_sample=False).tolist()
for name in ("AutoModelForImageTextToText", "AutoModel"):
    kind = getattr(transformers, name)
    converted = kind.from_pretrained(f"{folder}.converted", trust_remote_code=True, dtype="float32")
    ids = torch.arange(5)[None]
    result.setdefault("converted", []).append([type(converted).__name__, converted(input_ids=ids).logits.sum().item()])
result["leaked"] = [name for name in sys.modules if name.split(".")[0] == "gap_mllm"]
json.dump(result, open(out, "w"))
"""


@pytest.fixture(scope="module")
def pretraining_model(tiny_model, model):
    made = tiny_model(model_class=GapMllmForPreTraining)
    made.load_state_dict(model.state_dict(), strict=False)
    return made


@pytest.fixture(scope="module")
def folders(model, pretraining_model, tmp_path_factory):
    """One folder from each of the model classes, with the same weights but for the heads."""
    base, processor = tmp_path_factory.mktemp("hub"), build_tiny_processor()
    processor.set_training_views({"height": 120, "width": 160}, mark_arm=6, mark_half_thickness=1)
    return [
        save_for_hub(made, processor, base / name)
        for name, made in (("inference", model), ("pretraining", pretraining_model))
    ]


@pytest.fixture(scope="module")
def converted_folder(folders):
    """A folder that `gap-mllm convert` wrote; the fresh process finds it beside the first."""
    return convert_checkpoint(REFERENCE, f"{folders[0]}.converted")


@pytest.fixture(scope="module")
def messages(picture):
    content = [{"type": "image", "image": picture(64, 96, seed)} for seed in (1, 2)]
    return [{"role": "user", "content": [*content, {"type": "text", "text": "which object is marked?"}]}]


@pytest.fixture(scope="module")
def inputs(tiny_processor, messages):
    return tiny_processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


@pytest.fixture(scope="module")
def fresh_process(folders, converted_folder, small_folder, picture, run_without_package, tmp_path_factory):
    work = tmp_path_factory.mktemp("fresh")
    pictures = [work / f"view_{seed}.png" for seed in (1, 2)]
    for path, seed in zip(pictures, (1, 2), strict=True):
        picture(64, 96, seed).save(path)
    return run_without_package(FRESH_PROCESS, *folders, small_folder, *pictures)


def test_every_auto_class_loads_without_the_package(fresh_process):
    expected = {name: value.split(".")[1] for name, value in MODEL_AUTO_MAP.items()}
    assert fresh_process["classes"] == {**expected, "AutoProcessor": "GapMllmProcessor"}
    assert fresh_process["sub_configs"] == ["GapMllmVggtConfig", "GapMllmFusionConfig"]
    assert fresh_process["leaked"] == [] and fresh_process["missing"] == []
    assert "trust_remote_code=True" in fresh_process["untrusted"]


def test_the_processor_knows_its_cross_without_the_package(fresh_process):
    """Arms of 6 and bars of 3 pixels on a view of 160 are 12 and 7 on one of 320: a bar has a middle line."""
    assert fresh_process["cross"] == [2 * 12 + 1, 2 * 3 + 1]


@torch.no_grad()
def test_every_auto_class_generates_the_same_tokens_as_in_this_process(
    fresh_process, model, inputs, tiny_processor, pretraining_model
):
    expected = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    assert expected.shape[1] == inputs["input_ids"].shape[1] + NEW_TOKENS
    assert fresh_process["input_ids"] == inputs["input_ids"].tolist()
    assert fresh_process["tokens"] == {name: expected.tolist() for name in MODEL_AUTO_MAP if name != "AutoConfig"}
    text = tiny_processor.decode(expected[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert fresh_process["pipeline"] == text and text
    assert fresh_process["other"] == ["GapMllmForConditionalGeneration", expected.tolist()]
    assert fresh_process["saved_again"] == fresh_process["small"] == expected.tolist()
    heads = sum(parameter.sum().item() for parameter in pretraining_model.point_map_heads.parameters())
    assert fresh_process["head_sum"] == pytest.approx(heads, rel=1e-6)


@torch.no_grad()
def test_a_converted_folder_loads_without_the_package(fresh_process, converted_folder):
    model = GapMllmForConditionalGeneration.from_pretrained(converted_folder, dtype="float32")
    total = model(input_ids=torch.arange(5)[None]).logits.sum().item()
    for name, value in fresh_process["converted"]:
        assert name == "GapMllmForConditionalGeneration" and value == pytest.approx(total, rel=1e-4)


def test_both_model_classes_write_the_same_config_but_for_architectures(folders):
    configs = [json.loads((folder / "config.json").read_text()) for folder in folders]
    assert [config.pop("architectures") for config in configs] == [
        ["GapMllmForConditionalGeneration"],
        ["GapMllmForPreTraining"],
    ]
    assert configs[0] == configs[1] and configs[0]["auto_map"] == MODEL_AUTO_MAP
    assert configs[0]["geometry_weights"] is None
    processor = json.loads((folders[0] / "processor_config.json").read_text())
    assert processor["auto_map"] == {"AutoProcessor": "processing_gap_mllm.GapMllmProcessor"}


def test_saving_changes_neither_the_model_nor_its_classes(tiny_model, tiny_processor, tmp_path):
    model = tiny_model()
    config, before = model.config, copy.deepcopy(model.config.__dict__)
    classes = (GapMllmForConditionalGeneration, type(config), GapMllmProcessor)
    try:
        GapMllmForConditionalGeneration.register_for_auto_class("AutoModelForCausalLM")
        save_for_hub(model, tiny_processor, tmp_path)
        assert [kind._auto_class for kind in classes] == ["AutoModelForCausalLM", "AutoConfig", "AutoProcessor"]
    finally:
        GapMllmForConditionalGeneration._auto_class = None
    assert model.config is config and config.__dict__.keys() == before.keys()
    assert all(str(config.__dict__[name]) == str(value) for name, value in before.items())
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == MODEL_AUTO_MAP


def test_folder_holds_exactly_the_code_it_needs(folders):
    saved = {file.name for file in folders[0].glob("*.py")}
    entries = {f"{value.split('.')[0]}.py" for value in MODEL_AUTO_MAP.values()}
    assert saved == {file.name for file in remote_code_files()} >= entries
    assert all(name.endswith("_gap_mllm.py") for name in saved)
    for file in remote_code_files():
        assert (folders[1] / file.name).read_bytes() == file.read_bytes()


def test_readme_is_a_card_the_hub_reads_and_an_own_one_is_kept(folders, model, tiny_processor, tmp_path):
    card = ModelCard.load(folders[0] / "README.md")
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "image-text-to-text"
    code = card.text.split("```python")[1].split("```")[0]
    ast.parse(code)
    assert 'folder = "inference"' in code and "trust_remote_code=True" in code
    (tmp_path / "README.md").write_text("my own")
    save_for_hub(model, tiny_processor, tmp_path)
    assert (tmp_path / "README.md").read_text() == "my own"


def test_processor_that_normalises_otherwise_is_refused(tiny_model, tiny_processor, tmp_path):
    with pytest.raises(ValueError, match="image_mean"):
        save_for_hub(tiny_model(image_mean=[0.4, 0.5, 0.5]), tiny_processor, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_classes_are_refused(tiny_config, tiny_processor, tmp_path):
    model = GapMllmModel(tiny_config())
    for part in (model, model.geometry):
        with pytest.raises(TypeError, match=rf"got {type(part).__name__}\. A part of a model, .*save_pretrained"):
            save_for_hub(part, tiny_processor, tmp_path / "out")
    model.merge_and_unload = None  # as a model of PEFT has it
    with pytest.raises(TypeError, match="got GapMllmModel.*Merge adapters first, with merge_and_unload"):
        save_for_hub(model, tiny_processor, tmp_path / "out")


# Rules of remote code


def _source_files():
    package = Path(gap_mllm.__file__).parent
    processing = Path(gap_mllm.processing.__file__).parent
    return sorted([*package.glob("*_gap_mllm.py"), *processing.glob("*_gap_mllm.py")])


def test_base_names_of_remote_files_are_unique_over_both_folders():
    names = [file.name for file in _source_files()]
    assert len(names) == len(set(names)) and {file.name for file in remote_code_files()} <= set(names)


@pytest.mark.parametrize("file", _source_files(), ids=lambda file: file.name)
def test_remote_files_import_only_what_every_user_has(file):
    siblings = {sibling.stem for sibling in file.parent.glob("*_gap_mllm.py")}
    source = file.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= ALLOWED_MODULES
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module.split(".")[0] in ALLOWED_MODULES
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1 and node.module in siblings
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # The loader scans text: such a line in a docstring would count as an import.
            assert not any(line.lstrip().startswith(("from .", "import .")) for line in node.value.splitlines())
