"""The card of a trained model: its licence by the recipe, that of its beginning, or ours; ready for the Hub."""

from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import metadata_load
from transformers import Trainer, TrainingArguments

from gap_mllm import GapMllmForPreTraining
from gap_mllm.hub import save_for_hub
from gap_mllm.pushing.folder_checks import card_problems
from gap_mllm.training.adapters import add_lora
from gap_mllm.training.model_cards import card_metadata, complete_card
from gap_mllm.training.resuming import ResumingMixin
from gap_mllm.training.run_folder import RunFolder


OTHER = {"license": "other", "license_name": "mine", "license_link": "https://example.org/terms"}


def recipe(**given):
    usual = dict.fromkeys(("license", "license_name", "license_link", "model_path", "geometry_encoder_path"))
    return SimpleNamespace(**{**usual, "data": {}, **given})


@pytest.fixture
def folder(tmp_path):
    """A function (name, **metadata) -> folder with a card that says so."""

    def write(name, **metadata):
        (tmp_path / name).mkdir()
        lines = "".join(f"{key}: {value}\n" for key, value in metadata.items())
        (tmp_path / name / "README.md").write_text(f"---\n{lines}---\n# {name}\n", encoding="utf-8")
        return str(tmp_path / name)

    return write


def test_the_licence_is_that_of_the_recipe_of_the_beginning_or_ours(folder, tmp_path):
    encoder, model = folder("encoder", license="mit"), folder("model", **OTHER)
    rooms = {"datasets": ["synthetic_rooms"]}
    assert card_metadata(recipe()) == {"license": "apache-2.0", **rooms}
    assert card_metadata(recipe(geometry_encoder_path=encoder)) == {"license": "mit", **rooms}
    assert card_metadata(recipe(model_path=model)) == {**OTHER, **rooms}
    assert card_metadata(recipe(model_path=model, license="mit", license_name="old")) == {"license": "mit", **rooms}
    assert card_metadata(recipe(model_path=encoder, **OTHER)) == {**OTHER, **rooms}
    # What two beginnings say otherwise, or one does not say, is for a person to decide.
    assert card_metadata(recipe(model_path=model, geometry_encoder_path=encoder)) == rooms
    assert card_metadata(recipe(model_path=str(tmp_path), geometry_encoder_path=encoder)) == rooms
    assert card_metadata(recipe(model_path="owner/model")) == rooms


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ({"name": "scannet", "data_dir": "a"}, ["scannet"]),
        ({"one": {"name": "vsi590k"}, "two": {"name": "chat"}, "three": {"name": "chat"}}, ["chat", "vsi590k"]),
    ],
)
def test_the_data_are_named(data, names):
    assert card_metadata(recipe(data=data))["datasets"] == names


def test_a_card_is_completed_and_nothing_in_it_changed(folder, tmp_path):
    adapters = folder("adapters", library_name="peft", tags="[lora]", pipeline_tag="text-generation")
    complete_card(adapters, {"license": "mit", "datasets": ["scannet"]})
    told = metadata_load(f"{adapters}/README.md")
    assert (told["license"], told["pipeline_tag"], told["language"]) == ("mit", "text-generation", "en")
    own = folder("own", license="bsd-3-clause", datasets="[mine]")
    before = (tmp_path / "own" / "README.md").read_text()
    complete_card(own, {"license": "mit", "datasets": ["scannet"]})
    assert (tmp_path / "own" / "README.md").read_text() == before
    complete_card(tmp_path, {"license": "mit"})
    assert not (tmp_path / "README.md").exists()


class SavingTrainer(ResumingMixin, Trainer):
    """A trainer that is asked to save, and no more."""


def save(model, args, terms):
    SavingTrainer(model, args, run=RunFolder(args, card=terms)).save_model()


@pytest.mark.parametrize("terms", [{"license": "apache-2.0", "datasets": ["synthetic_rooms"]}, OTHER])
def test_what_a_run_saves_and_what_is_saved_of_it_goes_up(tiny_model, tiny_processor, tmp_path, terms):
    args = TrainingArguments(str(tmp_path / "run"), use_cpu=True, report_to="none")
    save(tiny_model(model_class=GapMllmForPreTraining), args, terms)
    told = metadata_load(tmp_path / "run" / "README.md")
    assert {name: told[name] for name in terms} == terms and card_problems(tmp_path / "run")[0] == []
    assert "licences of the base models" not in (tmp_path / "run" / "README.md").read_text()
    model = GapMllmForPreTraining.from_pretrained(tmp_path / "run")
    save_for_hub(model, tiny_processor, tmp_path / "model")
    again = metadata_load(tmp_path / "model" / "README.md")
    assert {name: again[name] for name in terms} == terms
    assert card_problems(tmp_path / "model")[0] == []


def test_a_card_of_ones_own_stays(tiny_model, tmp_path):
    (tmp_path / "README.md").write_text("my own")
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    save(tiny_model(model_class=GapMllmForPreTraining), args, {"license": "apache-2.0"})
    assert (tmp_path / "README.md").read_text() == "my own"


def test_adapters_have_a_licence(tiny_model, tmp_path):
    model = tiny_model(model_class=GapMllmForPreTraining)
    model.save_pretrained(tmp_path / "base")
    model = add_lora(GapMllmForPreTraining.from_pretrained(tmp_path / "base", dtype=torch.float32), r=2)
    args = TrainingArguments(str(tmp_path / "run"), use_cpu=True, report_to="none")
    save(model, args, {"license": "apache-2.0", "datasets": ["synthetic_rooms"]})
    told = metadata_load(tmp_path / "run" / "README.md")
    assert told["license"] == "apache-2.0" and told["library_name"] == "peft"
    problems = card_problems(tmp_path / "run")[0]
    assert all("base_model" in problem for problem in problems)  # which is a folder here


def test_a_model_that_nobody_licensed_says_so(tiny_model, tmp_path):
    tiny_model(model_class=GapMllmForPreTraining).save_pretrained(tmp_path / "model")
    text = (tmp_path / "model" / "README.md").read_text()
    assert "license:" not in text and "The licences of the base models' weights apply." in text
    problem = card_problems(tmp_path / "model")[0][0]
    assert "lacks license" in problem and "--license ID" in problem
