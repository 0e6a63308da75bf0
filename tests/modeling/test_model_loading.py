"""Model folders that cannot be used: what is wrong is said in a sentence, at once, by every command in one line."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from gap_mllm import GapMllmForConditionalGeneration, GapMllmForPreTraining, GapMllmVggtModel
from gap_mllm.model_loading import check_kind, load_pretrained, model_folder
from gap_mllm_cli import main


ASSETS = Path(__file__).parents[2] / "examples" / "assets"
MODEL, ENCODER = ASSETS / "tiny_gap_mllm", ASSETS / "tiny_geometry_encoder"
HEADS = ("point_map_heads.",)


@pytest.fixture
def copied(tmp_path):
    """A copy of the shipped model, to be damaged."""
    return Path(shutil.copytree(MODEL, tmp_path / "model"))


@pytest.fixture
def cut(copied):
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    return copied


@pytest.fixture
def misshapen(copied):
    config = json.loads((copied / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 256
    (copied / "config.json").write_text(json.dumps(config))
    return copied


def test_a_whole_folder_loads():
    model = load_pretrained(GapMllmForPreTraining, MODEL, HEADS, dtype="float32")
    name = "model.language_model.norm.weight"
    assert torch.equal(model.state_dict()[name], load_file(MODEL / "model.safetensors")[name].float())
    check_kind(GapMllmVggtModel, ENCODER)


def test_a_cut_file_is_named(cut):
    with pytest.raises(ValueError, match=r"model/model.safetensors is not .* damaged or cut off: .*download it again"):
        load_pretrained(GapMllmForConditionalGeneration, cut)


def test_weights_of_other_shapes_are_named(misshapen):
    message = r"18 weights .*layers.0.mlp.down_proj.weight \(128, 384\) instead of \(128, 256\)"
    with pytest.raises(ValueError, match=message):
        load_pretrained(GapMllmForConditionalGeneration, misshapen)


def test_missing_weights_are_named(copied):
    weights = load_file(copied / "model.safetensors")
    del weights["model.language_model.norm.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights of GapMllmForCond.*, as model.language_model.norm.weight"):
        load_pretrained(GapMllmForConditionalGeneration, copied)


def test_other_models_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match="is of model_type 'gap_mllm_vggt'; expected 'gap_mllm', a GapMllmFor"):
        load_pretrained(GapMllmForConditionalGeneration, ENCODER)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not a JSON object"):
        load_pretrained(GapMllmForConditionalGeneration, tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        model_folder(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="adapters of PEFT. Merge them: gap-mllm merge .* --output DIR"):
        model_folder(tmp_path)


def test_names_are_folders_or_repositories(tmp_path, monkeypatch):
    assert model_folder(str(MODEL)) == MODEL
    for name in (tmp_path / "gone", str(tmp_path / "gone"), "a/b/c"):
        with pytest.raises(FileNotFoundError, match="is no folder; expected a folder with config.json, or the name"):
            model_folder(name)
    monkeypatch.setattr(huggingface_hub.constants, "is_offline_mode", lambda: True)
    with pytest.raises(FileNotFoundError, match="nobody/nothing is no folder, .*: the Hub is switched off by HF"):
        model_folder("nobody/nothing")


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch):
    asked = []

    def model_info(self, name, timeout):
        asked.append(("model_info", timeout))
        raise HTTPError("Name or service not known")

    def snapshot_download(name, local_files_only=False):
        asked.append(("snapshot_download", local_files_only))
        raise LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(huggingface_hub.constants, "is_offline_mode", lambda: False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(FileNotFoundError, match="no repository that can be read: Name or service not known"):
        model_folder("nobody/nothing")
    assert asked == [("model_info", 10), ("snapshot_download", True)]


# The commands


def one_line(capsys):
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gap-mllm: error: ")]
    assert len(lines) == 1
    return lines[0]


def evaluate(folder, tmp_path, *words):
    rooms = [f"--option={key}=1" for key in ("num_test", "num_train", "questions_per_task")]
    rooms += ["--option=height=64", "--option=width=64", "--cache-dir", str(tmp_path / "cache")]
    return main(["evaluate", "--model", str(folder), "--output", str(tmp_path / "out"), "--no-report", *rooms, *words])


def test_a_run_without_answers_does_not_bar_its_folder(copied, tmp_path, capsys):
    """Weights that do not fit are noticed behind the plan; the same folder then takes the right model."""
    weights = copied / "model.safetensors"
    right = weights.read_bytes()
    save_file({"model.language_model.norm.weight": torch.ones(128)}, weights, {"format": "pt"})
    assert evaluate(copied, tmp_path) == 2 and "lacks" in capsys.readouterr().err
    weights.write_bytes(right)
    assert evaluate(copied, tmp_path) == 0


def test_commands_name_the_cut_file(cut, tmp_path, capsys):
    assert evaluate(cut, tmp_path) == 2
    assert "model.safetensors is not a safetensors file" in one_line(capsys)
    assert not (tmp_path / "out" / "plan.json").exists()
    flags = ["--model_path", str(cut), "--output_dir", str(tmp_path / "run"), "--use_cpu", "true"]
    assert main(["train", "quickstart", *flags]) == 2
    assert "model.safetensors is not a safetensors file" in one_line(capsys)
    shutil.copyfile(cut / "model.safetensors", tmp_path / "vggt.safetensors")
    assert (
        main(["convert", "--qwen", str(cut), "--vggt", str(tmp_path / "vggt.safetensors"), str(tmp_path / "o")]) == 2
    )
    one_line(capsys)


def test_commands_name_weights_that_do_not_fit(misshapen, tmp_path, capsys):
    assert evaluate(misshapen, tmp_path, "--baselines") == 2
    assert "instead of (128, 256)" in one_line(capsys)
    flags = ["--model_path", str(misshapen), "--output_dir", str(tmp_path / "run"), "--use_cpu", "true"]
    assert main(["train", "quickstart", *flags]) == 2
    assert "instead of (128, 256)" in one_line(capsys)


def test_commands_say_at_once_that_there_is_no_such_model(tmp_path, capsys):
    assert evaluate("nobody/nothing", tmp_path) == 2
    assert "nobody/nothing is no folder" in one_line(capsys)
    for flag in ("--model_path", "--geometry_encoder_path"):
        flags = [flag, "nobody/nothing", "--output_dir", str(tmp_path / "run"), "--use_cpu", "true"]
        assert main(["train", "quickstart", *flags]) == 2
        assert "nobody/nothing is no folder" in one_line(capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_commands_refuse_a_device_that_is_not_there(tmp_path, capsys):
    for words in ((), ("--processes", "2")):
        assert evaluate(MODEL, tmp_path, "--device", "cuda", *words) == 2
        assert "device is 'cuda', which cannot be used here" in one_line(capsys)
    video = ["data", "label", str(ASSETS), "--teacher", str(ENCODER), "--output", str(tmp_path / "labels")]
    assert main([*video, "--device", "cuda"]) == 2
    assert "device is 'cuda', which cannot be used here" in one_line(capsys)
