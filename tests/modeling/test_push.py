"""`gap-mllm push`: what goes up, what never does, every refusal, and what is told to the Hub; without a network."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

import gap_mllm_cli
from gap_mllm.pushing import plan_upload, push_folder, uploading
from gap_mllm.pushing.folder_checks import load_as_stranger


TINY = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
language: en
tags: [3d]
base_model: Qwen/Qwen3-VL-2B-Instruct
datasets: [scannet]
---
# Mine, as me/mine
"""
GARBAGE = {
    "optimizer.pt": "state of a training",
    "scheduler.pt": "state of a training",
    "rng_state_0.pth": "state of a training",
    "training_args.bin": "state of a training",
    "trainer_state.json": "state of a training",
    "checkpoint-20/": "checkpoint of a training",
    "provenance.json": "about a run, with paths of this machine",
    "recipe.yaml": "about a run, with paths of this machine",
    "log.jsonl": "about a run, with paths of this machine",
    "pytorch_model.bin": "pickled, runs code where it is read; safetensors do not",
    "__pycache__/": "hidden file or cache",
    ".cache/": "hidden file or cache",
    ".env": "hidden file or cache",
    "own.py": "code that no settings name",
    "other.safetensors": "weights that are not loaded from this folder",
    "curves.png": "picture that the card does not show",
    "notes.txt": "no part of a published model",
    "data/": "no part of a published model",
}


@pytest.fixture
def folder(tmp_path):
    """The shipped folder as somebody's own, with a card of theirs and no figures."""
    shutil.copytree(TINY, tmp_path / "mine")
    (tmp_path / "mine" / "metrics.json").unlink()
    (tmp_path / "mine" / "README.md").write_text(CARD)
    return tmp_path / "mine"


class FakeHub:
    """Takes the calls of `HfApi`, notes them, and keeps what is uploaded; `fails` names a call and its error."""

    def __init__(self):
        self.calls, self.files, self.is_private, self.fails = [], {}, True, {}

    def __getattr__(self, name):
        def call(*args, **kwargs):
            if name in self.fails:
                raise self.fails[name]
            self.calls.append((name, *args, kwargs))
            if name == "upload_folder":
                root = Path(kwargs.pop("folder_path"))
                self.files = {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*.*")}
            private, url = self.is_private, "https://hub/commit/1"
            return type("Answer", (), {"repo_id": "me/mine", "private": private, "commit_url": url})

        return call


@pytest.fixture
def hub(monkeypatch):
    fake = FakeHub()
    monkeypatch.setattr(uploading, "HfApi", lambda: fake)
    monkeypatch.setattr(ModelCard, "validate", lambda card, **kwargs: fake.validate())
    return fake


@pytest.fixture
def loads(monkeypatch):
    """Nothing is loaded: other tests do."""
    loaded = {"model": "GapMllmForConditionalGeneration", "processor": "GapMllmProcessor", "parameters": 4_100_000}
    monkeypatch.setattr(uploading, "load_as_stranger", lambda folder: loaded)


def run(*words):
    return gap_mllm_cli.main(["push", *map(str, words)])


def test_what_goes_up_and_what_stays_with_the_reason(folder):
    expected = {file.name for file in folder.iterdir()}
    for name in GARBAGE:
        if name.endswith("/"):
            (folder / name).mkdir()
            (folder / name / "optimizer.pt").write_bytes(b"12345")
        else:
            (folder / name).write_bytes(b"12345")
    plan = plan_upload(folder)
    assert set(plan.files) == expected and plan.files["README.md"] == len(CARD)
    assert plan.left_out == {name: (5, reason) for name, reason in GARBAGE.items()}
    assert "       5 B  optimizer.pt: state of a training" in str(plan)
    assert f"in {len(expected)} files" in str(plan)


def test_pictures_of_the_card_go_up_and_those_outside_do_not(folder, tmp_path):
    (folder / "figures").mkdir()
    for name in ("curves.png", "figures/rooms.png", "figures/other.png", "../secret.png"):
        (folder / name).write_bytes(b"png")
    shown = "![a](curves.png) <img width=3 src='figures/rooms.png'> ![b](../secret.png) ![c](https://a.b/c.png)"
    (folder / "README.md").write_text(CARD + shown)
    plan = plan_upload(folder)
    assert {name for name in plan.files if name.endswith("png")} == {"curves.png", "figures/rooms.png"}
    assert plan.left_out == {"figures/": (3, "no part of a published model")}


def test_a_dry_run_lists_checks_and_uploads_nothing(folder, hub, loads, capsys):
    (folder / "optimizer.pt").write_bytes(b"1")
    for flags in ([], ["--dry-run"]):
        assert run(folder, "me/mine", *flags) == 0
        said = capsys.readouterr().out
        assert "model.safetensors" in said and "optimizer.pt: state of a training" in said
        assert "loads without this package: GapMllmForConditionalGeneration with GapMllmProcessor, 4.1 M" in said
        assert said.endswith("nothing was uploaded; --yes uploads\n")
    assert hub.calls == []


@pytest.mark.slow
def test_the_shipped_folder_loads_as_a_stranger_loads_it_with_figures_in_its_card():
    cards = []

    def update_card(card, folder):
        assert {file.name for file in folder.iterdir()} == set(plan_upload(TINY).files)
        cards.append(card)
        return [1, 2]

    before = (TINY / "README.md").read_bytes()
    report = push_folder(TINY, "me/tiny", update_card=update_card)
    assert report.url is None and len(cards) == 1 and (TINY / "README.md").read_bytes() == before
    assert report.loaded["model"] == "GapMllmForConditionalGeneration"
    assert report.loaded["processor"] == "GapMllmProcessor" and report.loaded["parameters"] > 1e6
    assert report.notes[-2:] == [
        "README.md goes up with 2 figures of metrics.json as its model-index",
        "README.md does not name me/tiny: does its example load this repository?",
    ]


def test_yes_uploads_the_listed_files_with_what_was_asked_for(folder, hub, loads, capsys):
    (folder / "optimizer.pt").write_bytes(b"1")
    flags = ["--private", "--revision", "v2", "--message", "Better weights"]
    assert run(folder, "me/mine", "--yes", *flags) == 0
    assert set(hub.files) == set(plan_upload(folder).files)
    assert hub.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert hub.calls == [
        ("whoami", {}),
        ("validate", {}),
        ("create_repo", "me/mine", {"private": True, "exist_ok": True}),
        ("repo_info", "me/mine", {}),
        ("create_branch", "me/mine", {"branch": "v2", "exist_ok": True}),
        ("upload_folder", {"repo_id": "me/mine", "revision": "v2", "commit_message": "Better weights"}),
    ]
    assert capsys.readouterr().out.endswith("uploaded: https://hub/commit/1\n")


def test_the_card_goes_up_with_the_figures_of_metrics_json(folder, hub, loads):
    shutil.copyfile(TINY / "metrics.json", folder / "metrics.json")
    assert run(folder, "me/mine", "--yes") == 0
    card = ModelCard(hub.files["README.md"].decode())
    figures = {(each.dataset_split, each.metric_type): each.metric_value for each in card.data.eval_results}
    told = json.loads((TINY / "metrics.json").read_text())["tasks"]["points"]["model"]["point_error_m"]
    assert figures["test", "point_error_m"] == told and card.data.license == "apache-2.0"
    assert (folder / "README.md").read_text() == CARD


def refused(words, capsys):
    assert run(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("license: apache-2.0\n", "", "README.md lacks license: write between its first two --- lines, say, license:"),
        ("library_name: transformers\npipeline_tag: image-text-to-text\n", "", "lacks library_name, pipeline_tag:"),
        ("apache-2.0", "other", "license: other; that needs license_name and license_link as well"),
        ("[3d]", "3d", "tags of README.md is '3d'; expected a list"),
        ("[scannet]", "scannet", "datasets of README.md is 'scannet'; expected a list"),
        ("Qwen/Qwen3-VL-2B-Instruct", "/data/qwen", "base_model of README.md is '/data/qwen'; expected a repository"),
        ("license:", "license: [", "the metadata of README.md cannot be read: "),
        ("language: en", "language: en\nmodel-index: [{name: a, results: [{}]}]", "the metadata of README.md cannot"),
    ],
)
def test_cards_that_are_refused(folder, loads, capsys, old, new, message):
    (folder / "README.md").write_text(CARD.replace(old, new, 1))
    assert message in refused([folder, "me/mine"], capsys)


def change(file, **values):
    file.write_text(json.dumps({**(json.loads(file.read_text()) if file.exists() else {}), **values}))


def test_folders_that_are_refused(folder, loads, capsys, tmp_path):
    assert f"{tmp_path / 'none'} is no folder; expected" in refused([tmp_path / "none", "me/mine"], capsys)
    assert "neither config.json nor adapter_config.json" in refused([tmp_path, "me/mine"], capsys)
    assert "'a/b/c'" in refused([folder, "a/b/c"], capsys)
    change(folder / "config.json", geometry_weights=str(tmp_path), note=["see", str(tmp_path / "x.txt")])
    line = refused([folder, "me/mine"], capsys)
    assert f"geometry_weights of config.json is '{tmp_path}', which strangers do not have" in line
    assert f"config.json names '{tmp_path}/x.txt', a place on this machine" in line
    change(folder / "adapter_config.json", base_model_name_or_path="outputs/run/final")
    assert "base_model_name_or_path of adapter_config.json is 'outputs/run/final'" in refused([folder, "a/b"], capsys)
    (folder / "README.md").unlink()
    assert "there is no README.md; write one" in refused([folder, "me/mine"], capsys)
    (folder / "config.json").write_text("{")
    assert "config.json cannot be read as JSON" in refused([folder, "me/mine"], capsys)


def test_figures_that_are_not_ours_are_refused(folder, loads, capsys):
    change(folder / "metrics.json", accuracy=1.0)
    assert "metrics.json holds no figures of `gap-mllm evaluate`" in refused([folder, "me/mine"], capsys)


def test_a_folder_that_strangers_cannot_load_is_refused(folder, hub, capsys):
    (folder / "prompts_gap_mllm.py").write_text("import gap_mllm\n")
    line = refused([folder, "me/mine", "--yes"], capsys)
    assert "cannot go up: it does not load where this package is not installed: " in line and "gap_mllm" in line
    assert hub.calls == []


@pytest.mark.slow
def test_a_part_loads_and_needs_no_language(tiny_model, tmp_path):
    tiny_model().model.fusion.save_pretrained(tmp_path / "fusion")
    assert load_as_stranger(tmp_path / "fusion")["model"] == "GapMllmFusion"
    card = tmp_path / "fusion" / "README.md"
    card.write_text(card.read_text().replace("---\n", "---\nlicense: mit\n", 1))
    assert push_folder(tmp_path / "fusion", "me/fusion").loaded["parameters"] > 0


def hub_error(status):
    request = type("Request", (), {"method": "POST", "url": "https://hub"})
    response = type("Response", (), {"status_code": status, "headers": {}, "request": request})()
    return HfHubHTTPError("no", response=response, server_message="too large")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ("whoami", LocalTokenNotFoundError("none"), "there is no login for the Hub: run `hf auth login`"),
        ("whoami", hub_error(401), "the Hub does not accept the login"),
        ("whoami", HTTPError("Name or service not known"), "cannot be reached (Name or service not known); nothing"),
        ("whoami", OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set"),
        ("validate", ValueError("license must be one of"), "license must be one of"),
        ("create_repo", hub_error(403), "the login has no right to write to me/mine"),
        ("create_branch", hub_error(404), "the Hub has no me/mine, or does not show it"),
        ("upload_folder", hub_error(413), "the Hub refused: too large."),
    ],
)
def test_errors_of_the_hub_are_one_line(folder, hub, loads, capsys, call, error, message):
    hub.fails[call] = error
    assert message in refused([folder, "me/mine", "--yes", "--revision", "v2"], capsys)
    assert hub.files == {}


def test_a_public_repository_does_not_take_what_shall_be_private(folder, hub, loads, capsys):
    hub.is_private = False
    line = refused([folder, "me/mine", "--yes", "--private"], capsys)
    assert "me/mine is there, and public; --private cannot hide it" in line and hub.files == {}


def test_a_licence_is_given_for_what_goes_up(folder, hub, loads, capsys):
    bare = CARD.replace("license: apache-2.0\n", "")
    (folder / "README.md").write_text(bare)
    assert run(folder, "me/mine", "--yes") == 2 and "or give --license ID" in capsys.readouterr().err
    assert run(folder, "me/mine", "--yes", "--license", "mit") == 0
    card = hub.files["README.md"].decode()
    assert "license: mit\n" in card and card.endswith(bare.split("---\n")[-1])
    assert (folder / "README.md").read_text() == bare  # nothing in the folder is changed
    other = ["--license", "other", "--license-name", "mine", "--license-link", "https://example.org"]
    assert run(folder, "me/mine", *other[:2]) == 2 and "--license-name, --license-link" in capsys.readouterr().err
    assert run(folder, "me/mine", "--yes", *other) == 0 and b"license_name: mine\n" in hub.files["README.md"]


def test_a_licence_of_before_goes_with_its_name(folder, hub, loads):
    named = "license: other\nlicense_name: mine\nlicense_link: https://example.org\n"
    (folder / "README.md").write_text(CARD.replace("license: apache-2.0\n", named))
    assert run(folder, "me/mine", "--yes", "--license", "mit") == 0
    assert b"license: mit\n" in hub.files["README.md"] and b"mine\nlicense_link" not in hub.files["README.md"]


def test_a_name_of_a_licence_goes_with_a_licence(folder):
    with pytest.raises(ValueError, match="license_name and license_link go with license"):
        push_folder(folder, "me/mine", license_name="mine")
