"""Every item of a room dataset can be asked about: other rooms stand in, always the same ones, and are counted."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import DataLoader

import gap_mllm.processing.data.rooms.rendered_rooms as rendered_rooms
import gap_mllm.training.rooms as rooms
from gap_mllm.processing.data import CannotAskError, RenderedRooms, RoomVariety
from gap_mllm.processing.data.rooms import room_seed
from gap_mllm.training.recipes import find_recipe
from gap_mllm.training.rooms import RoomGeometryDataset, RoomQuestionDataset, RoomQuestions
from gap_mllm_cli import main
from tests.processing.data.room_samples import check_stream
from tests.slow_cases import slow_but
from tests.training.conftest import TINY
from tests.training.walk_rooms import ENCODER_RECIPE, QUESTION_RECIPES, make_dataset, walk


EARLIER_ROOMS = Path(__file__).parents[1] / "fixtures" / "recipes" / "earlier_rooms.yaml"  # of tiny_gap_mllm
BLOCK = 4
# One low and wide view: about every fourth room shows no furniture in it.
BARE = RoomVariety(sizes=((8, 64), (8, 32)), size_shares=(0.7, 0.3), num_views=(1, 2), num_views_shares=(0.8, 0.2))
COUNTS = {"reconstruction": 1, "grounding_box": 1}
REASON = "no object is clearly visible"


def recipe_dataset(name, seed=None, **changes):
    recipe = yaml.safe_load((EARLIER_ROOMS if name == "earlier" else find_recipe(name)).read_text())
    options = {"block_size": recipe["per_device_train_batch_size"], "seed": recipe["seed"] if seed is None else seed}
    variety = RoomVariety(**recipe["variety"])
    rooms = RenderedRooms("train", 12_000, variety, **options, **changes)
    return RoomQuestionDataset(rooms, RoomQuestions(**recipe["questions"]))


def bare_dataset(num_scenes=64, **questions):
    return RoomQuestionDataset(RenderedRooms("train", num_scenes, BARE, BLOCK), RoomQuestions(**questions))


def name_of(samples):
    return samples[0].id.split("/")[0]


def told(samples):
    """The name of a room, what is asked and answered, and its marks."""
    conversations = [sample.messages([None] * len(sample.views)) for sample in samples]
    for part in (part for messages in conversations for turn in messages for part in turn["content"]):
        part.pop("image", None)
    marks = [None if not s.marks else s.marks[0] for s in samples]
    marks = [mark and (mark.view, tuple(map(int, mark.xy)), mark.color) for mark in marks]
    return repr((name_of(samples), conversations, marks))


def depth(samples):
    return np.stack([view.depth_m for view in samples[0].views])


def num_redrawn(samples):
    return samples[0].metadata["rooms_redrawn"]


def is_same(first, second):
    pairs = list(zip(first[0].views, second[0].views, strict=True))
    arrays = all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for one, other in pairs
        for name in ("picture", "depth_m", "intrinsics", "camera_to_world")
    )
    return arrays and first[0].cross_size == second[0].cross_size and told(first) == told(second)


def test_the_room_that_ended_runs_is_asked_about():
    """Room 7955 of the earlier recipe with seed 7 shows a bare wall in its only view."""
    dataset = recipe_dataset("earlier", seed=7)
    with pytest.raises(CannotAskError, match="room-train-7955 in its 1 views cannot be asked"):
        dataset.ask(7955)
    sample = recipe_dataset("earlier", seed=7)[7955]
    number = room_seed("train", 7955, attempt=1)
    assert name_of(sample) == f"room-train-{number}" and number != 7955
    assert len(sample[0].views) == 1 and len(sample) == 7
    assert depth(sample).shape == depth(dataset[7954]).shape  # rooms of a block share size and views
    assert dataset.redrawn == {} and is_same(dataset[7955], sample)
    assert dataset.redrawn.total() == num_redrawn(sample) == 1


@pytest.mark.parametrize(("recipe", "digest"), [("quickstart", "a7189b29d7a7c18d"), ("earlier", "31a92f0a1976d5b6")])
def test_recipes_ask_what_they_always_did(recipe, digest):
    """20 rooms of each variety; the size of crosses is part of the stream."""
    items = [recipe_dataset(recipe, use_colors=False)[index] for index in range(20)]
    arms = [(item[0].cross_size.arm, item[0].cross_size.half_thickness, name_of(item)) for item in items]
    first = replace(items[0][0], references=(repr(arms),))
    check_stream([first, *sum(items, [])], digest)


@pytest.mark.parametrize("questions", [{"counts": COUNTS}, {"counts": COUNTS, "grounding_frame_share": 0.5}])
def test_rooms_that_stand_in_depend_on_seed_and_index_alone(questions):
    dataset = bare_dataset(**questions)
    samples = [dataset[index] for index in range(40)]
    redrawn = [index for index in range(40) if name_of(samples[index]) != f"room-train-{index}"]
    assert redrawn == [index for index in range(40) if num_redrawn(samples[index])] and len(redrawn) > 4
    assert dataset.redrawn.total() == sum(map(num_redrawn, samples)) and dataset.redrawn[REASON]
    for index in (39, *reversed(redrawn), 0):
        assert is_same(bare_dataset(**questions)[index], samples[index])
    longer = bare_dataset(num_scenes=400, **questions)
    assert all(is_same(longer[index], samples[index]) for index in redrawn)
    for start in range(0, 40, BLOCK):
        assert len({depth(sample).shape for sample in samples[start : start + BLOCK]}) == 1
    other = RoomQuestionDataset(RenderedRooms("train", 64, BARE, BLOCK, seed=1), RoomQuestions(**questions))
    assert any(told(other[index]) != told(samples[index]) for index in redrawn)


@pytest.mark.slow
def test_later_visits_are_always_the_same_too():
    dataset, fresh = (bare_dataset(num_scenes=96, counts=COUNTS, visits=2) for _ in range(2))
    samples = [dataset[index] for index in range(96)]
    assert dataset.redrawn[REASON] > 10
    for index in (95, 72, 71, 40, 8, 3, 0):
        assert is_same(fresh[index], samples[index])


def test_loader_processes_make_the_same_and_say_what_they_redrew():
    dataset = bare_dataset(24, counts=COUNTS)
    samples = [dataset[index] for index in range(24)]
    theirs = list(DataLoader(bare_dataset(24, counts=COUNTS), batch_size=None, num_workers=2))
    assert all(is_same(*pair) for pair in zip(samples, theirs, strict=True))
    assert [num_redrawn(sample) for sample in theirs] == [num_redrawn(sample) for sample in samples]
    assert dataset.redrawn[REASON] >= 2


def test_what_needs_no_furniture_is_never_redrawn():
    dataset = bare_dataset(counts={"reconstruction": 1, "camera_distance": 1})
    assert [name_of(dataset[index]) for index in range(64)] == [f"room-train-{index}" for index in range(64)]
    assert dataset.redrawn == {}


def test_without_colours_the_same_is_asked():
    """What the walk leaves out decides nothing."""
    variety = RoomVariety(color_strength=0.0, sizes=((32, 48),), size_shares=(1.0,))
    for index in range(6):
        asked, again = (
            RoomQuestionDataset(RenderedRooms("train", 8, variety, use_colors=use), RoomQuestions(COUNTS)).ask(index)
            for use in (True, False)
        )
        for view, black in zip(asked[0].views, again[0].views, strict=True):
            assert view.picture.any() and not black.picture.any()
            assert np.array_equal(view.instances.ids, black.instances.ids)
            assert np.array_equal(view.depth_m, black.depth_m)
        assert [question.answer for question in asked] == [question.answer for question in again]


@pytest.mark.parametrize("visits", [1, 2])
def test_where_nothing_ever_shows_furniture_the_cause_is_named(monkeypatch, visits):
    hide_furniture(monkeypatch)
    dataset = bare_dataset(counts=COUNTS, visits=visits)
    with pytest.raises(CannotAskError, match=r"32 rooms in .* no object is clearly visible.* Ask for more views"):
        dataset[0]
    assert dataset.redrawn == {REASON: 32}


def hide_furniture(monkeypatch):
    def render(*args, **kwargs):
        scene = render_room(*args, **kwargs)
        scene.instance_ids = np.minimum(scene.instance_ids, 0)
        return scene

    render_room = rendered_rooms.render_room
    monkeypatch.setattr(rendered_rooms, "render_room", render)


# The command


def command(folder, encoder_folder, variety, *flags):
    recipe = yaml.safe_load(find_recipe("quickstart").read_text())
    recipe |= {"variety": {**recipe["variety"], **variety}, "questions": {"counts": COUNTS}, "logging_steps": 1}
    recipe |= {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "frozen_geometry": {}}
    recipe |= {"model_config": TINY}
    (folder / "mine.yaml").write_text(yaml.safe_dump(recipe))
    flags += ("--output_dir", str(folder / "run"), "--geometry_encoder_path", str(encoder_folder))
    flags += ("--use_cpu", "true", "--lr_scheduler_kwargs", '{"num_decay_steps": 1}')
    return main(["train", str(folder / "mine.yaml"), *flags])


@pytest.mark.slow
def test_a_run_passes_such_a_room_and_logs_it_and_so_does_a_resumed_one(tmp_path, encoder_folder, capsys):
    """Room 6, of the second step, shows no furniture in a single view of 32 x 128 pixels."""
    variety = {"sizes": [[32, 128]], "num_views": [1]}
    assert command(tmp_path, encoder_folder, variety) == 0
    logs = capsys.readouterr().out
    assert "rooms_redrawn 1" in logs
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run" / "checkpoint-2")
    (tmp_path / "run" / "provenance.json").unlink()  # as if ended before the last save
    assert command(tmp_path, encoder_folder, variety) == 0
    assert (tmp_path / "run" / "checkpoint-2").is_dir()
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights


def test_an_error_of_a_loader_process_is_one_line_of_the_command(tmp_path, encoder_folder, capsys, monkeypatch):
    hide_furniture(monkeypatch)
    assert command(tmp_path, encoder_folder, {"sizes": [[32, 32]]}, "--disable_tqdm", "true") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("gap-mllm: error: 32 rooms in a row cannot be asked about; the last: room-train-")
    assert line.endswith("Ask for more views, larger pictures or other tasks.") and "Traceback" not in line


# The walk; the whole one is a script


@pytest.mark.parametrize("recipe", slow_but(("tiny_gap_mllm",), [*QUESTION_RECIPES, ENCODER_RECIPE]))
def test_a_walk_finds_nothing_that_breaks(recipe):
    report = walk(make_dataset(recipe, 100), range(20, 50))
    most = 10 if recipe == "tiny_gap_mllm" else 3  # which asks about three objects at once, and of few views
    assert report["rooms"] == 30 and report["failures"] == [] and len(report["stood_in_for"]) < most


def test_a_walk_reports_what_stands_in_and_what_breaks(monkeypatch):
    dataset = make_dataset(EARLIER_ROOMS, 8_000, seed=7)
    report = walk(dataset, range(7_954, 7_956))
    assert sum(report["redrawn"].values()) == 1 and report["stood_in_for"] == [7_955]
    monkeypatch.setattr(rooms, "make_tasks", lambda *args, **kwargs: {}["broken"])
    assert walk(dataset, [3])["failures"] == [[3, "KeyError: 'broken'"]]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [*QUESTION_RECIPES, ENCODER_RECIPE])
def test_thousands_of_rooms_can_be_asked_about(recipe):
    num_rooms = 1_000 if recipe == ENCODER_RECIPE else 10_000
    assert walk(make_dataset(recipe, num_rooms), range(num_rooms))["failures"] == []


def test_geometry_targets_are_finite_where_no_furniture_shows():
    shape = {"sizes": ((32, 128),), "size_shares": (1.0,), "num_views": (1,), "num_views_shares": (1.0,)}
    item = RoomGeometryDataset(RenderedRooms("train", 64, RoomVariety(**shape, shuffle_views=False)))[6]
    assert all(torch.isfinite(item[name]).all() for name in ("images", "depth", "points", "pose_enc"))
