"""`make_tasks`: rows of the schema, the same ones again, reasons for what was not asked, errors."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import parse_boxes, parse_choice, parse_frame, parse_points
from gap_mllm.processing.data import RecordError, SceneSample, render_room
from gap_mllm.processing.data.schema import POINT_TASKS, TASKS
from gap_mllm.processing.data.task_makers import TASK_MAKERS, MadeTasks, TaskMargins, TaskScene, make_tasks
from gap_mllm.processing.data.task_makers.making import REPEATED
from gap_mllm.processing.data.task_makers.templates import PHRASINGS
from tests.processing.data.task_makers.scenes import box_scene, look_at, scene_of_room


POSES = [look_at((0, -3.0, 1.4), (0, 0, 0.5)), look_at((1.5, -2.6, 1.4), (0, 0, 0.5))]
BOXES = {"stool": [-0.8, 0, 0.25, 0.4, 0.4, 0.5, 0], "cabinet": [0.7, 1.8, 0.6, 1.0, 0.5, 1.2, 0]}


def same(a, b):
    """Whether two lists of samples hold the same questions, apart from the views."""
    rows = [[{**row.to_row(), "views": None} for row in rows] for rows in (a, b)]
    return rows[0] == rows[1]


def test_every_maker_asked_something_in_thirty_rooms(made):
    asked = {row.metadata["maker"] for rows in made for row in rows}
    assert set(TASK_MAKERS) - asked <= {"above_below", "occlusion", "appearance_order"}  # rooms have few of these
    for rows in made:
        assert isinstance(rows, MadeTasks)
        assert len(rows) + rows.refused.total() == 2 * len(TASK_MAKERS)
        assert all(maker in TASK_MAKERS and reason for maker, reason in rows.refused)


def test_every_answer_reads_back(made):
    for rows in made:
        for row in rows:
            assert row.task in TASKS and row.question_type
            if row.task in POINT_TASKS:
                parsed = parse_points(row.answer)
                assert len(parsed.items) == len(row.points) and not parsed.rejected and not parsed.truncated
            elif row.task in ("detection3d", "grounding_box"):
                parsed = parse_boxes(row.answer, require_label=row.task == "detection3d")
                assert len(parsed.items) == len(row.boxes) and not parsed.rejected
            elif row.task == "grounding_frame":
                assert parse_frame(row.answer, len(row.views)).first == row.target_frame
            elif row.task == "dense_caption":
                assert row.answer in row.references
            elif row.choices:
                letters = "ABCDEFGH"[: len(row.choices)]
                assert letters.index(parse_choice(row.answer, letters).first) == row.choice_index
                assert len(set(row.choices)) == len(row.choices)
            else:
                assert float(row.answer.split()[0]) == row.number and np.isfinite(row.number)


def test_rows_are_rows_of_the_schema_and_messages_with_all_views(made, scenes):
    for scene, rows in zip(scenes[:4], made, strict=False):
        for row in rows:
            again = SceneSample.from_row(row.to_row())
            assert again.answer == row.answer and again.metadata == SceneSample.from_row(again.to_row()).metadata
            assert (row.source, row.split, row.scene_id) == ("rooms", "train", scene.scene_id)
            assert row.id.startswith(f"{scene.id}/{row.metadata['maker']}-")
            assert row.metadata["scene_row"] == scene.id and row.metadata["template"].count("/") == 1
            content = row.messages()[1]["content"]
            assert sum(part["type"] == "image" for part in content) == len(scene.views)
            for box in row.boxes:
                assert (box.frame, box.frame_index, box.euler_order) == ("camera", 0, "zxy")
            assert all(point.frame == "camera" for point in row.points)
    ids = [row.id for rows in made for row in rows]
    assert len(set(ids)) == len(ids)


def test_views_that_a_text_names_carry_their_numbers(made):
    num_numbered = 0
    for rows in made:
        for row in rows:
            text = row.question.replace("Frame-0: <image>", "")
            for view in range(1, len(row.views)):
                if f"Frame-{view}" in text.replace(f"Frame-{view}: <image>", ""):
                    assert f"Frame-{view}: <image>" in row.question and view in row.metadata["named_views"]
                    num_numbered += 1
    assert num_numbered > 100


def test_rows_say_which_views_they_cannot_lose(made):
    for rows in made:
        for row in rows:
            keep = row.metadata["keep_views"]
            assert keep == list(range(len(keep))) and set(row.metadata.get("named_views", ())) <= set(keep)
            if row.boxes:
                assert len(keep) == len(row.views)
            elif row.question_type == "reconstruction":
                assert keep == [0]


def test_the_same_seed_gives_the_same_questions_and_another_seed_others(scenes, made):
    assert same(make_tasks(scenes[5], num_per_task=2, seed=7), made[5])
    assert not same(make_tasks(scenes[5], num_per_task=2, seed=8), made[5])
    other = make_tasks(replace(scenes[5], id="another"), num_per_task=2, seed=7)
    assert [row.marks for row in other] != [row.marks for row in made[5]]


def test_a_makers_questions_do_not_depend_on_other_makers_or_on_how_many_are_asked(scenes, made):
    some = make_tasks(scenes[5], ("point_match", "detection3d", "reconstruction"), num_per_task=2, seed=7)
    by_id = {row.id: row for row in made[5]}
    assert [row.metadata["maker"] for row in some][0] == "point_match"
    assert same(some, [by_id[row.id] for row in some])
    few = make_tasks(scenes[5], ("reconstruction", "object_distance"), num_per_task=1, seed=7)
    assert same(few, [by_id[row.id] for row in few])


@pytest.mark.slow
def test_questions_are_the_same_in_another_process(tmp_path):
    program = (
        "import sys; sys.path.insert(0, '.')\n"
        "from gap_mllm.processing.data import render_room\n"
        "from gap_mllm.processing.data.task_makers import make_tasks\n"
        "from tests.processing.data.task_makers.scenes import scene_of_room\n"
        "rows = make_tasks(scene_of_room(render_room(2, 3, 48, 64)), seed=1)\n"
        "print(hash('x') and repr([(row.id, row.question, row.answer) for row in rows]))"
    )
    here = make_tasks(scene_of_room(render_room(2, 3, 48, 64)), seed=1)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr([(row.id, row.question, row.answer) for row in here])


def test_what_was_asked_once_is_not_asked_again():
    sample, _ = box_scene(BOXES, POSES)
    rows = make_tasks(sample, ("detection3d", "object_distance"), num_per_task=5)
    assert [row.metadata["maker"] for row in rows] == ["detection3d", "object_distance", "object_distance"]
    assert rows.refused == {("detection3d", REPEATED): 4, ("object_distance", REPEATED): 3}


def test_the_world_frame_does_not_change_the_questions():
    sample, _ = box_scene(BOXES, POSES)
    turn = look_at((1.0, 2.0, 0.5), (3.0, 1.0, 1.0))
    scan_to_aligned = np.linalg.inv(turn)
    views = tuple(replace(view, camera_to_world=turn @ view.camera_to_world) for view in sample.views)
    moved = replace(sample, views=views, pose_frame="scan", world_to_aligned=scan_to_aligned)
    here, there = make_tasks(sample, seed=3), make_tasks(moved, seed=3)
    assert [(row.id, row.question) for row in here] == [(row.id, row.question) for row in there]
    for a, b in zip(here, there, strict=True):
        if "-3.14" not in a.answer and "3.14" not in a.answer:  # half turns are written either way
            assert a.answer == b.answer


def test_the_first_phrasings_are_the_packages_prompts():
    sample, _ = box_scene(BOXES, POSES)
    rows = make_tasks(sample, num_per_task=2, phrasings="first")
    assert all(row.metadata["template"].endswith("/0") for row in rows)
    (detection,) = [row for row in rows if row.task == "detection3d"]
    assert detection.question.startswith("Detect the 3D bounding boxes in the camera coordinate system of the first")


def test_wordings_change_nothing_else():
    sample, _ = box_scene(BOXES, POSES)
    drawn, first, held_out, mixed = (make_tasks(sample, num_per_task=2, phrasings=each) for each in PHRASINGS)
    for rows in (drawn, held_out, mixed):
        assert [(row.id, row.answer, row.choices, row.marks) for row in rows] == [
            (row.id, row.answer, row.choices, row.marks) for row in first
        ]
    assert all("/held_out_" in row.metadata["template"] for row in held_out)
    assert not {row.question for row in held_out} & {row.question for row in (*first, *drawn)}
    assert {row.question for row in mixed} - {row.question for row in (*first, *drawn)}
    again = make_tasks(sample, num_per_task=2, phrasings="held_out")
    assert [row.question for row in held_out] == [row.question for row in again]


def test_a_row_without_anything_to_ask_gives_no_question_and_says_why():
    sample, _ = box_scene(BOXES, POSES)
    views = tuple(replace(view, camera_to_world=None) for view in sample.views)
    made = make_tasks(replace(sample, views=views))
    assert not made and made.refused == {(maker, "view 0 has no pose or no intrinsics"): 1 for maker in TASK_MAKERS}


def test_margins_decide_what_is_asked():
    sample, _ = box_scene(BOXES, POSES)
    assert make_tasks(sample, ("front_behind",))
    strict = make_tasks(sample, ("front_behind",), margins=TaskMargins(depth_gap_m=3.0))
    assert not strict and strict.refused.total() == 1
    wide = TaskScene(sample, TaskMargins(visible_share=0.3, clear_share=0.4))
    assert not wide.objects.is_visible.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ("detection3d", "walls")}, "tasks names 'walls'; known are reconstruction"),
        ({"num_per_task": 0}, "num_per_task is 0"),
        ({"seed": -1}, "seed -1"),
        ({"phrasings": "none"}, "phrasings is 'none'; expected one of all, first"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options, message):
    sample, _ = box_scene(BOXES, POSES)
    with pytest.raises(ValueError, match=message):
        make_tasks(sample, **options)


def test_a_sample_without_a_name_is_refused():
    sample, _ = box_scene(BOXES, POSES)
    with pytest.raises(ValueError, match="neither id nor scene_id"):
        make_tasks(replace(sample, id=None, scene_id=None))
    assert make_tasks(replace(sample, id=None), ("detection3d",))[0].id == "boxes/detection3d-0"


def test_a_depth_map_that_cannot_be_read_is_an_error(tmp_path):
    sample, _ = box_scene(BOXES, POSES)
    broken = tmp_path / "depth.png"
    broken.write_bytes(b"no picture")
    views = (replace(sample.views[0], depth_picture={"path": str(broken), "bytes": None}), sample.views[1])
    with pytest.raises(RecordError, match="depth.png"):
        make_tasks(replace(sample, views=views))
