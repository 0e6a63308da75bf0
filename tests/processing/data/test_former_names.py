"""Tasks under the names that they had before: read wherever they are given, written nowhere, drawn as ever."""

import json
import re

import datasets
import pytest

from gap_mllm.processing.data import (
    SceneSample,
    SyntheticRooms,
    load_multiview,
    make_question,
    make_tasks,
    render_room,
)
from gap_mllm.processing.data.former_names import FORMER_NAMES, with_task_names
from gap_mllm.processing.data.rooms.room_scenes import room_sample
from gap_mllm.processing.data.schema import TASKS, scene_features
from gap_mllm.processing.data.task_makers import TASK_MAKERS, TEMPLATES
from gap_mllm.processing.prompts_gap_mllm import TASKS as PROMPT_TASKS
from gap_mllm.training import SceneQuestionDataset
from gap_mllm.training.recipe_sections import check_sections
from gap_mllm.training.rooms import RoomQuestions
from gap_mllm.training.train_geometry_aligned import GeometryAlignedModelArguments
from tests.processing.data.formats import FORMATS


@pytest.fixture(scope="module")
def room():
    return render_room(1)


def texts(sample):
    """All that a question says of itself, in one text."""
    return json.dumps([sample.id, sample.task, sample.question_type, sample.metadata], default=str)


def test_a_task_has_one_name():
    assert (
        set(PROMPT_TASKS) <= set(TASKS)
        and set(PROMPT_TASKS) <= set(TASK_MAKERS)
        and set(PROMPT_TASKS) <= set(TEMPLATES)
    )
    assert set(FORMER_NAMES.values()) <= set(PROMPT_TASKS)
    assert not set(FORMER_NAMES) & {*TASKS, *TASK_MAKERS, *TEMPLATES}


def test_makers_are_asked_by_either_name_and_answer_with_the_one(room):
    scene = room_sample(room)
    now = make_tasks(scene, {"reconstruction": 2, "detection3d": 1, "dense_caption": 1})
    for tasks in ({"marked_pixel": 2, "detection": 1, "object_caption": 1}, {"reconstruction": 1, "detection": 1}):
        then = make_tasks(scene, tasks)
        kept = [sample for sample in now if sample.id in {one.id for one in then}]
        assert [texts(one) for one in then] == [texts(one) for one in kept] and len(then) == sum(tasks.values())
        assert [(one.question, one.marks, one.truth.text) for one in then] == [
            (one.question, one.marks, one.truth.text) for one in kept
        ]
    former = re.compile(rf"\b({'|'.join(FORMER_NAMES)})\b")
    assert not [one.id for one in now if former.search(texts(one))]
    assert {one.question_type for one in now} == {"reconstruction", "detection3d", "dense_caption"}


def test_questions_are_drawn_as_under_the_former_names():
    """The draws go by name: those of the former names stand, so that trained rooms are asked what they were."""
    scene = load_multiview("rendered_rooms", split="train", num_rooms=1)[0]
    made = make_tasks(scene, {"reconstruction": 3}, share_views=True, phrasings="first")
    assert [(mark.color, mark.view, mark.xy) for one in made for mark in one.marks] == [
        ("yellow", 1, (85, 117)),
        ("magenta", 1, (24, 114)),
        ("white", 2, (79, 21)),
    ]


def test_options_take_either_name(tmp_path, room):
    scene = room_sample(room)
    assert SceneQuestionDataset([scene], tasks=("marked_pixel", "detection")).tasks == (
        "reconstruction",
        "detection3d",
    )
    assert RoomQuestions(counts={"marked_pixel": 2, "grounding_box": 1}).counts == {
        "reconstruction": 2,
        "grounding_box": 1,
    }
    assert make_question(room, "detection").question_type == "detection3d"
    assert SyntheticRooms(tasks=("object_caption",), cache_dir=tmp_path).config.tasks == ("dense_caption",)
    rows = load_multiview("gap_mllm", FORMATS / "gap_mllm", "train", tasks=["detection"], cache_dir=tmp_path)
    assert set(rows["task"]) == {"detection3d"}
    check_sections(GeometryAlignedModelArguments(questions={"counts": {"marked_pixel": 1, "object_caption": 1}}))
    with pytest.raises(ValueError, match=r"unknown key 'detection2d' .*it takes reconstruction, ") as error:
        check_sections(GeometryAlignedModelArguments(questions={"counts": {"detection2d": 1}}))
    assert "marked_pixel" not in str(error.value)


def test_stored_rows_are_read_with_the_one_name(tmp_path, room):
    """Rows that were written before, as parquet and as they are."""
    rows = []
    for name, made in zip(FORMER_NAMES, make_tasks(room_sample(room), tuple(FORMER_NAMES)), strict=True):
        row = {**made.to_row(), "question_type": name, "id": f"room/{name}-0"}
        rows.append({**row, "metadata": json.dumps({**made.metadata, "maker": name, "template": f"{name}/1"})})
    folder = tmp_path / "rows"
    folder.mkdir()
    datasets.Dataset.from_list(rows, features=scene_features()).to_parquet(folder / "train.parquet")
    read = load_multiview("parquet", folder, "train", cache_dir=tmp_path / "cache")
    for samples in (map(SceneSample.from_row, rows), (SceneSample.open(read, index) for index in range(len(read)))):
        for sample, name in zip(samples, FORMER_NAMES.values(), strict=True):
            assert sample.question_type == sample.task == sample.metadata["maker"] == name
            assert sample.metadata["template"] == f"{name}/1"
    assert read["question_type"] == list(FORMER_NAMES.values())
    assert read["id"] == [row["id"] for row in rows]  # an id is no name of a task


def test_words_of_other_sources_stay():
    assert with_task_names("video_qa", "detection", {"maker": "detection"}) == {}
    assert with_task_names("detection3d", "marked_pixel", {}) == {}
