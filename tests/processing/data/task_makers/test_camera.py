"""Motion of the camera: against poses that a test sets, and those of rendered rooms."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gap_mllm.processing.data.task_makers import TaskScene, make_tasks
from gap_mllm.processing.data.task_makers.camera import motion_between
from tests.processing.data.task_makers.scenes import box_scene, look_at, of_type, true_choice


START = look_at((0, -3.0, 1.4), (0, 0, 1.4))
BOXES = {"stool": [0, 0, 0.25, 0.4, 0.4, 0.5, 0]}


def moved(path=(0, 0, 0), axis="x", degrees=0.0):
    """A pose beside `START`, by a path and a turn in its camera's axes."""
    step = np.eye(4)
    step[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
    step[:3, 3] = path
    return START @ step


def ask(task, *poses, num=4):
    sample, _ = box_scene(BOXES, [START, *poses])
    return make_tasks(sample, (task,), num_per_task=num)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ((0.5, 0.1, 0.1), "to the right"),
        ((-0.5, 0.1, 0.1), "to the left"),
        ((0.1, 0.5, 0.1), "down"),
        ((0.1, -0.5, 0.1), "up"),
        ((0.1, 0.1, 0.5), "forward"),
        ((0.1, 0.1, -0.5), "backward"),
    ],
)
def test_the_camera_moves_as_its_earlier_self_sees_it(path, word):
    (row,) = ask("camera_motion", moved(path, "y", 40), num=1)
    assert true_choice(row) == word and len(set(row.choices)) == 4
    assert "the first frame" in row.question and "Frame-1" in row.question.split("\n", 1)[1]


@pytest.mark.parametrize(
    ("axis", "degrees", "word"),
    [("y", 30, "to the right"), ("y", -30, "to the left"), ("x", 30, "up"), ("x", -30, "down")],
)
def test_the_camera_turns_to_the_right_about_the_downward_axis(axis, degrees, word):
    (row,) = ask("camera_turn", moved((1, 1, 1), axis, degrees), num=1)
    assert true_choice(row) == word and len(row.choices) == 4
    (row,) = ask("camera_angle", moved((1, 1, 1), axis, degrees), num=1)
    assert row.number == 30 and row.answer.split()[0] == "30"


def test_a_roll_alone_is_no_turn():
    made = ask("camera_turn", moved((0, 0, 0), "z", 45))
    assert not made and made.refused.total() == 4
    assert not ask("camera_angle", moved((0, 0, 0), "z", 45))


@pytest.mark.parametrize(
    ("task", "pose"),
    [
        ("camera_motion", moved((0.5, 0, 0.3))),  # between right and forward
        ("camera_motion", moved((0.1, 0, 0))),
        ("camera_path", moved((0.1, 0, 0))),
        ("camera_turn", moved((1, 0, 0), "y", 9)),
        ("camera_turn", moved((1, 0, 0), "y", 150)),  # right or left?
        ("camera_turn", moved((1, 0, 0), "xy", (20, 20))),  # up and to the right
        ("camera_angle", moved((1, 0, 0), "y", 9)),
    ],
)
def test_motions_without_a_clear_answer_are_not_asked_about(task, pose):
    made = ask(task, pose)
    assert not made and made.refused.total() == 4


def test_a_single_view_has_no_motion():
    made = ask("camera_path")
    assert made.refused == {("camera_path", "fewer than two views have a pose"): 4}


def test_the_farthest_view_is_farther_by_a_ratio_and_a_length():
    """From each of the first two only the third is far; from the third the others are about as far."""
    made = ask("farthest_view", moved((0.1, 0, 0)), moved((1.0, 0, 0)), num=12)
    assert made and made.refused.total() + len(made) == 12
    for row in made:
        base = row.metadata["maker_facts"]["view"]
        assert base in (0, 1) and true_choice(row) == "Frame-2" and len(row.choices) == 2
        assert not any(choice.endswith(f"Frame-{base}") for choice in row.choices)
        assert row.question.count("<image>") == 3 and row.metadata["keep_views"] == [0, 1, 2]
    unclear = "no view is clearly farther from another than a third"
    for poses, reason in [
        ((moved((0.2, 0, 0)),), "fewer than three views have a pose"),
        ((moved((0.5, 0, 0)), moved((0.25, 0.5, 0))), unclear),  # a triangle
        ((moved((0.05, 0, 0)), moved((0, 0.1, 0))), unclear),  # twice as far, but 6 cm
    ]:
        assert ask("farthest_view", *poses, num=1).refused == {("farthest_view", reason): 1}


def test_motion_needs_no_depth_and_leaves_out_views_without_a_pose():
    sample, _ = box_scene(BOXES, [START, moved((1, 0, 0)), moved((0, 0, 2))], depths={0: None, 1: None, 2: None})
    views = (sample.views[0], replace(sample.views[1], camera_to_world=None), sample.views[2])
    rows = make_tasks(replace(sample, views=views), ("camera_path",), num_per_task=3)
    assert [row.number for row in rows] == [2.0]
    assert tuple(rows[0].metadata["maker_facts"]["views"]) == (0, 2)


def test_motions_of_rooms_are_those_of_their_poses(rooms, made):
    found = of_type(rooms, made, "camera_motion", "camera_turn", "camera_path", "camera_angle")
    assert len(found) > 150
    for room, row in found:
        before, after = (room.camera_to_world[view] for view in row.metadata["maker_facts"]["views"])
        path = before[:3, :3].T @ (after[:3, 3] - before[:3, 3])
        ahead = before[:3, :3].T @ after[:3, 2]
        if row.question_type == "camera_path":
            assert row.number == pytest.approx(np.linalg.norm(path), abs=0.0051) and row.number >= 0.15
        elif row.question_type == "camera_angle":
            assert row.number == pytest.approx(np.degrees(np.arccos(ahead[2])), abs=0.51) and row.number >= 10
        elif row.question_type == "camera_motion":
            names = ["to the right", "down", "forward", "to the left", "up", "backward"]
            both = np.r_[path, -path]
            assert true_choice(row) == names[int(np.argmax(both))] and np.sort(both)[-2] <= both.max() / 2
        else:
            names = ["to the right", "down", "to the left", "up"]
            assert true_choice(row) == names[int(np.argmax([ahead[0], ahead[1], -ahead[0], -ahead[1]]))]


def test_the_path_and_turn_are_in_the_earlier_camera():
    scene = TaskScene(box_scene(BOXES, [moved((0, 0, 1), "y", 20), START])[0])
    path, turn, angle = motion_between(scene, 0, 1)
    np.testing.assert_allclose(path, Rotation.from_euler("y", -20, degrees=True).apply([0, 0, -1]), atol=1e-9)
    np.testing.assert_allclose(turn, [-20, 0], atol=1e-6)
    assert angle == pytest.approx(20)
