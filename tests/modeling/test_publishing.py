"""Saving is publishing: what the ordinary calls write loads by every class that it names, without the package."""

import json
import shutil

import peft
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import EntryNotFoundError
from transformers import AutoModel, AutoProcessor, Qwen3VLProcessor

from gap_mllm import (
    GapMllmConfig,
    GapMllmForPreTraining,
    GapMllmProcessor,
    GapMllmVggtConfig,
    GapMllmVggtForReconstruction,
)
from gap_mllm.hub import remote_code_files, save_for_hub
from gap_mllm.processing import build_tiny_processor
from gap_mllm.publishing_gap_mllm import AUTO_MAPS


WHOLE = {name: reference.split(".")[1] for name, reference in AUTO_MAPS["gap_mllm"].items()}


SHORT = ("AutoConfig", "AutoModel", "AutoModelForPreTraining")  # a name of each class


def names(model_type):
    return {name: reference.split(".")[1] for name, reference in AUTO_MAPS[model_type].items()}


def parameter_sum(model):
    return sum(parameter.double().sum().item() for parameter in model.parameters())


@pytest.fixture(scope="module")
def model(tiny_model):
    """One that is no other test's, since saving a part notes its class in the whole's config."""
    return tiny_model()


@pytest.fixture(scope="module")
def processor():
    """One that is no other test's, with a cross of its own."""
    made = build_tiny_processor()
    made.set_training_views({"height": 120, "width": 160}, mark_arm=6)
    return made


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The Hub as a folder: what is committed lies there, by repository."""
    folder = tmp_path_factory.mktemp("hub")

    def create_repo(self, repo_id, **kwargs):
        (folder / repo_id).mkdir(parents=True, exist_ok=True)
        return type("RepoUrl", (), {"repo_id": repo_id})

    def create_commit(self, repo_id, operations, **kwargs):
        for operation in operations:
            shutil.copyfile(operation.path_or_fileobj, folder / repo_id / operation.path_in_repo)

    def load_card(repo_id, **kwargs):
        if not (folder / repo_id / "README.md").exists():
            raise EntryNotFoundError("no card")
        return ModelCard((folder / repo_id / "README.md").read_text())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HfApi, "create_repo", create_repo)
        patch.setattr(HfApi, "create_commit", create_commit)
        patch.setattr("transformers.utils.hub.ModelCard.load", load_card)
        yield folder


@pytest.fixture(scope="module")
def folders(model, tiny_model, processor, hub, tmp_path_factory):
    """By name, what each ordinary way of saving wrote."""
    base = tmp_path_factory.mktemp("saved")
    model.save_pretrained(base / "model")
    processor.save_pretrained(base / "model")
    processor.save_pretrained(base / "processor")
    pretraining = tiny_model(model_class=GapMllmForPreTraining)
    pretraining.load_state_dict(model.state_dict(), strict=False)
    pretraining.save_pretrained(base / "pretraining")
    model.model.save_pretrained(base / "base_model")
    model.model.geometry.save_pretrained(base / "encoder")
    model.model.fusion.save_pretrained(base / "fusion")
    torch.manual_seed(0)
    GapMllmVggtForReconstruction(model.config.geometry_config).save_pretrained(base / "reconstruction")
    model.config.save_pretrained(base / "config")
    model.push_to_hub("me/pushed")
    processor.push_to_hub("me/pushed")
    model.save_pretrained(base / "other", push_to_hub=True, repo_id="me/other")
    shutil.copytree(hub / "me" / "pushed", base / "pushed")
    shutil.rmtree(base / "other")
    shutil.copytree(hub / "me" / "other", base / "other")
    return {folder.name: folder for folder in base.iterdir()}


@pytest.fixture(scope="module")
def loaded(folders, load_without_package):
    return load_without_package(*(folder for name, folder in folders.items() if name != "config"))


@pytest.mark.slow
@pytest.mark.parametrize("again", ["", "_again"])
@pytest.mark.parametrize("name", ["model", "pretraining", "base_model", "pushed", "other"])
def test_a_saved_model_loads_by_every_class_and_so_does_what_is_saved_from_it(name, again, loaded, model):
    found, expected = loaded[name + again], model(input_ids=torch.arange(5)[None]).logits.double().sum().item()
    has_processor = name in ("model", "pushed")
    classes = WHOLE if name + again == "model" else {key: WHOLE[key] for key in SHORT}
    assert found["classes"] == classes | ({"AutoProcessor": "GapMllmProcessor"} if has_processor else {})
    assert len(found["numbers"]) == len(classes) - 1
    assert found["numbers"] == pytest.approx([expected] * len(found["numbers"]), rel=1e-6)
    assert not has_processor or found["cross"] == 6
    assert loaded["leaked"] == []


@pytest.mark.slow
@pytest.mark.parametrize("again", ["", "_again"])
def test_parts_and_the_processor_load_alone(again, loaded, model):
    parts = {"encoder": (model.model.geometry, "gap_mllm_vggt"), "fusion": (model.model.fusion, "gap_mllm_fusion")}
    for name, (part, model_type) in parts.items():
        assert loaded[name + again]["classes"] == names(model_type)
        assert loaded[name + again]["sum"] == pytest.approx(parameter_sum(part), rel=1e-6)
    assert loaded["reconstruction" + again]["classes"] == names("gap_mllm_vggt")
    assert loaded["processor" + again] == {
        "classes": {"AutoProcessor": "GapMllmProcessor"},
        "numbers": [],
        "cross": 6,
    }


def test_a_config_alone_brings_all_files_of_the_model(folders):
    code = {file.name for file in remote_code_files()}
    kept = {file.name for file in folders["config"].glob("*.py")}
    assert {reference.split(".")[0] + ".py" for table in AUTO_MAPS.values() for reference in table.values()} <= kept
    assert kept | {file.name for file in folders["processor"].glob("*.py")} == code


def test_the_table_of_the_repository_it_came_from_is_not_kept(tiny_config, tmp_path):
    """A config may name the classes of another repository, whose code may differ."""
    config = tiny_config(auto_map={name: f"me/old--{reference}" for name, reference in AUTO_MAPS["gap_mllm"].items()})
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == AUTO_MAPS["gap_mllm"]
    assert "AutoProcessor" not in GapMllmConfig.from_pretrained(tmp_path).auto_map


def test_classes_of_ones_own_keep_their_names(tiny_config, tmp_path):
    """A config that was read from a folder of Qwen3-VL says so until it is saved; a subclass may be another type."""
    config = tiny_config(model_type="qwen3_vl")
    config.save_pretrained(tmp_path / "qwen")
    assert json.loads((tmp_path / "qwen" / "config.json").read_text())["auto_map"] == AUTO_MAPS["gap_mllm"]

    class OwnConfig(GapMllmVggtConfig):
        model_type = "own_vggt"

    OwnConfig(**tiny_config().geometry_config.to_dict()).save_pretrained(tmp_path / "own")
    saved = json.loads((tmp_path / "own" / "config.json").read_text())
    assert saved["model_type"] == "own_vggt" and list(saved["auto_map"]) == ["AutoConfig"]


def test_a_card_is_written_where_there_is_none(folders, model, tmp_path):
    for name in ("model", "encoder", "fusion", "pushed"):
        assert ModelCard((folders[name] / "README.md").read_text()).data.library_name == "transformers"
    assert "AutoModelForImageTextToText" in (folders["model"] / "README.md").read_text()
    assert "# GapMllmVggtModel" in (folders["encoder"] / "README.md").read_text()
    (tmp_path / "README.md").write_text("my own")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "my own"
    model.save_pretrained(tmp_path / "other", is_main_process=False)
    assert not (tmp_path / "other" / "README.md").exists()


def test_a_repository_without_a_card_gets_ours_with_its_name_and_the_tags_of_the_model(hub, folders, tiny_model):
    for name in ("pushed", "other"):
        assert f'folder = "me/{name}"' in (hub / "me" / name / "README.md").read_text()
    tagged = tiny_model()
    tagged.add_model_tags(["indoor", "3d"])
    tagged.push_to_hub("me/tagged")
    card = ModelCard((hub / "me" / "tagged" / "README.md").read_text())
    assert card.data.tags == ["gap-mllm", "geometry", "3d", "qwen3_vl", "vggt", "indoor"]
    assert card.data.pipeline_tag == "image-text-to-text" and "automatically generated" not in card.text


def test_a_card_on_the_hub_stays(hub, model, tmp_path):
    (hub / "me" / "mine").mkdir(parents=True)
    own = "---\nlicense: mit\n---\nmy own"
    (hub / "me" / "mine" / "README.md").write_text(own)
    model.push_to_hub("me/mine")
    model.save_pretrained(tmp_path / "mine", push_to_hub=True, repo_id="me/mine")
    assert (hub / "me" / "mine" / "README.md").read_text() == own


def test_saving_changes_neither_classes_nor_settings(tiny_model, tmp_path):
    model, processor = tiny_model(), build_tiny_processor()
    classes = (type(model), type(model.config), type(model.model.geometry), GapMllmProcessor)
    before = [kind._auto_class for kind in classes]
    settings = processor.to_dict()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert [kind._auto_class for kind in classes] == before == [None, "AutoConfig", None, "AutoProcessor"]
    after = processor.to_dict()
    assert after["image_processor"].pop("auto_map") == after.pop("auto_map")  # which transformers notes in both
    assert after == settings
    assert "auto_map" not in processor.tokenizer.init_kwargs


FROM_THE_HUB = """
import os, shutil
from pathlib import Path

folder, out = sys.argv[1:]
commit = "0" * 40
repository = Path(os.environ["HF_HOME"], "hub", "models--me--pushed")
shutil.copytree(folder, repository / "snapshots" / commit)
(repository / "refs").mkdir()
(repository / "refs" / "main").write_text(commit)
result = []
for name, again in (("me/pushed", "again"), ("again", None)):
    found = [type(transformers.AutoConfig.from_pretrained(name, trust_remote_code=True)).__module__.split(".")[1]]
    processor = transformers.AutoProcessor.from_pretrained(name, trust_remote_code=True)
    for auto in (transformers.AutoModelForPreTraining, transformers.AutoModel):
        model = auto.from_pretrained(name, trust_remote_code=True)
        found.append(model(input_ids=torch.arange(5)[None]).logits.double().sum().item())
    result.append([*found, processor.mark_arm])
    if again:
        model.save_pretrained(again)
        processor.save_pretrained(again)
        shutil.rmtree(repository)
json.dump(result, open(out, "w"))
"""


def test_what_was_loaded_from_the_hub_is_saved_with_its_code(folders, model, run_without_package):
    """Files are fetched and cached one by one, as their imports are read; what is saved does not need them there."""
    first, again = run_without_package(FROM_THE_HUB, folders["pushed"])
    expected = model(input_ids=torch.arange(5)[None]).logits.double().sum().item()
    assert (first.pop(0), again.pop(0)) == ("me", "again")  # where the code came from
    assert first == again == pytest.approx([expected, expected, 6], rel=1e-6)


# Adapters


def test_adapters_load_over_their_base_model(folders, run_without_package, tmp_path):
    base = AutoModel.from_pretrained(folders["model"])
    targets = r".*language_model.*\.(q_proj|v_proj)"
    torch.manual_seed(0)
    lora = peft.LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False)
    ids, expected = torch.arange(5)[None], [base(input_ids=torch.arange(5)[None]).logits.sum().item()]
    adapted = peft.get_peft_model(base, lora).eval()
    own = AutoModel.from_pretrained(folders["model"])
    own.add_adapter(lora)  # as transformers does it, without a wrapper
    for name, model in (("wrapped", adapted), ("own", own)):
        model.save_pretrained(tmp_path / name)
        assert (tmp_path / name / "README.md").exists() and not (tmp_path / name / "config.json").exists()
        expected.append(model(input_ids=ids).logits.sum().item())
        assert abs(expected[-1] - expected[0]) > 1e-2
    script = """
from peft import AutoPeftModelForCausalLM, PeftModel

base, *adapters, out = sys.argv[1:]
trust, ids, result = {"trust_remote_code": True}, torch.arange(5)[None], []
for adapter in adapters:
    models = [AutoPeftModelForCausalLM.from_pretrained(adapter, **trust)]
    models.append(PeftModel.from_pretrained(transformers.AutoModel.from_pretrained(base, **trust), adapter))
    models.append(transformers.AutoModelForImageTextToText.from_pretrained(adapter, **trust))
    result += [model.eval()(input_ids=ids).logits.sum().item() for model in models]
json.dump(result, open(out, "w"))
"""
    found = run_without_package(script, folders["model"], tmp_path / "wrapped", tmp_path / "own")
    assert found == pytest.approx([expected[1]] * 3 + [expected[2]] * 3, rel=1e-4)


# A processor under the stock name


def test_the_stock_processor_is_found_by_name_and_makes_the_same_inputs(
    model, processor, picture, tmp_path, monkeypatch
):
    save_for_hub(model, processor, tmp_path, stock_processor=True)
    messages = build_tiny_processor().build_messages("reconstruction", [picture(64, 96)])
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    expected = processor.apply_chat_template(messages, **options)
    own = GapMllmProcessor.from_pretrained(tmp_path)
    assert own.mark_arm == 6 and own.to_dict()["video_processor"] == processor.to_dict()["video_processor"]
    # Its video processor cannot be built where torchvision is not installed, and no video is shown here.
    monkeypatch.setattr(Qwen3VLProcessor, "get_attributes", classmethod(lambda cls: ["image_processor", "tokenizer"]))
    monkeypatch.setattr(
        "transformers.processing_utils.ProcessorMixin.check_argument_for_proper_class", lambda *arguments: None
    )
    for options_of_stack in ({}, {"trust_remote_code": True}):  # these stacks pass it, since the model needs it
        found = AutoProcessor.from_pretrained(tmp_path, **options_of_stack)
        assert type(found) is Qwen3VLProcessor
        inputs = found.apply_chat_template(messages, **options)
        assert inputs.keys() == expected.keys() and all(torch.equal(inputs[key], expected[key]) for key in inputs)
