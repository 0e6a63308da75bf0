"""Plots: projected boxes by hand, and files that hold what they should."""

import sys

import numpy as np
import pytest
from PIL import Image

from gap_mllm.evaluation import AnswerExample, draw_answers, plot_curves, project_wireframe, render_split
from gap_mllm.processing import format_boxes, format_point
from gap_mllm.processing.data import make_question
from gap_mllm.processing.drawing import (
    ANSWER_COLOR,
    BLIND_COLOR,
    TRUE_COLOR,
    VIEW_COLOR,
    _convex_hull,
    _draw_words,
    _Level,
    _main_view,
    _words,
)


INTRINSICS = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])


def count_pixels(path, color):
    wanted = [int(color[index : index + 2], 16) for index in (1, 3, 5)]
    return int((np.asarray(Image.open(path).convert("RGB")) == wanted).all(-1).sum())


def test_a_box_ahead_is_projected_by_hand():
    segments = project_wireframe([0, 0, 3, 2, 2, 2, 0, 0, 0], INTRINSICS, np.eye(4))
    assert segments.shape == (12, 2, 2)
    # Corners at x, y = +-1 and z = 2 or 4: 50 and 25 pixels from the principal point.
    corners = {tuple(corner) for corner in segments.reshape(-1, 2).round(6).tolist()}
    assert corners == {(50 + sx * r, 40 + sy * r) for r in (50.0, 25.0) for sx in (-1, 1) for sy in (-1, 1)}


def test_edges_are_cut_at_the_near_plane():
    assert project_wireframe([0, 0, -3, 1, 1, 1, 0, 0, 0], INTRINSICS, np.eye(4)).shape == (0, 2, 2)
    segments = project_wireframe([0, 0, 0, 2, 2, 2, 0, 0, 0], INTRINSICS, np.eye(4))
    assert segments.shape == (8, 2, 2)  # the far face, and four edges towards the camera
    assert np.isfinite(segments).all()
    assert np.abs(segments - [50, 40]).max() == pytest.approx(100 / 0.05)  # cut 5 cm before the camera
    moved = np.eye(4)
    moved[2, 3] = 10.0
    assert project_wireframe([0, 0, -3, 1, 1, 1, 0, 0, 0], INTRINSICS, moved).shape == (12, 2, 2)


def test_hull_and_level_frame(test_rooms):
    hull = _convex_hull(np.array([[0, 0], [2, 0], [1, 1], [2, 2], [0, 2], [1, 0]]))
    np.testing.assert_array_equal(hull, [[0, 0], [2, 0], [2, 2], [0, 2]])
    room = test_rooms[0]
    level, pose = _Level(room), room.camera_to_world[0]
    np.testing.assert_allclose(level.from_camera([0.0, 0, 0]), 0, atol=1e-12)
    ahead = level.from_camera([0.0, 0, 1])
    assert abs(ahead[0]) < 1e-9 and ahead[1] > 0.9 and ahead[2] < 0  # straight ahead, and a little down
    np.testing.assert_allclose(level.from_world(pose[:3, 3] + [0, 0, 1.5]), [0, 0, 1.5], atol=1e-12)
    assert level.from_camera([1.0, 0, 0])[0] > 0.9
    assert _words((-0.4, 2.1, -0.75)) == "2.1 m ahead, 0.4 m left, 0.8 m below camera 0"


def test_answers_are_drawn(test_rooms, tmp_path):
    room = test_rooms[0]
    point, boxes = make_question(room, "reconstruction", 1), make_question(room, "detection3d")
    box = make_question(room, "grounding_box")
    unread, read = tmp_path / "unread.png", tmp_path / "read.png"
    examples = [
        AnswerExample(room, point, format_point("lamp", np.array(point.truth.items[0].numbers) + 0.2)),
        AnswerExample(
            room, boxes, format_boxes([box.label for box in boxes.boxes], [box.numbers + 0.1 for box in boxes.boxes])
        ),
        AnswerExample(room, box, "price: $5 and {unfinished"),
    ]
    draw_answers([AnswerExample(room, point, "$\\frac{")], unread)
    draw_answers(examples, read)
    width, height = Image.open(read).size
    assert width > 1200 and height > 1000
    assert count_pixels(unread, TRUE_COLOR) > 100
    assert count_pixels(read, ANSWER_COLOR) > 3 * count_pixels(unread, ANSWER_COLOR) > 0
    # An answer far outside of the room is put on the border of the plan.
    draw_answers([AnswerExample(room, point, format_point("lamp", [1e6, 0, -1e6]))], unread)


@pytest.mark.slow
def test_blind_guesses_and_answers_in_words_are_drawn(test_rooms, tmp_path):
    room = test_rooms[0]
    point, box = make_question(room, "reconstruction", 1), make_question(room, "grounding_box")
    number = make_question(room, "object_count")
    guess = format_point("wall", np.array(point.truth.items[0].numbers) + 0.5)
    for example, blind in ((point, guess), (box, box.answer), (number, number.answer)):
        draw_answers([AnswerExample(room, example, "nothing", blind)], tmp_path / "with.png")
        draw_answers([AnswerExample(room, example, "nothing")], tmp_path / "without.png")
        assert count_pixels(tmp_path / "with.png", BLIND_COLOR) > count_pixels(tmp_path / "without.png", BLIND_COLOR)
    lines = _draw_words(AnswerExample(room, number, number.answer, "99"), None, None)
    assert lines[1:] == [
        f"Truth: {number.answer}", f"Model: {number.answer} (right)", "Blind baseline: 99 (wrong)"
    ]  # fmt: skip
    assert _main_view(AnswerExample(room, point, "")) == point.marks[0].view
    seen = [(room.instance_ids[view] == int(box.boxes[0].instance_id)).sum() for view in range(len(room.images))]
    assert seen[_main_view(AnswerExample(room, box, ""))] == max(seen) > 0


def test_answers_that_cannot_be_drawn(test_rooms, tmp_path):
    with pytest.raises(ValueError, match="no answers"):
        draw_answers([], tmp_path / "no.png")
    caption = make_question(test_rooms[0], "dense_caption")
    with pytest.raises(ValueError, match="task is 'dense_caption'"):
        draw_answers([AnswerExample(test_rooms[0], caption, "")], tmp_path / "no.png")


def test_curves_are_drawn(tmp_path):
    history = [{"step": step, "loss": 3 / step, "loss_text": 2 / step, "grad_norm": 1.0} for step in range(1, 30)]
    plot_curves(history, tmp_path / "losses.png")
    history += [{"step": 10 * k, "eval_point_error_m": 2 - 0.1 * k, "eval_parse_rate": 0.5} for k in range(1, 4)]
    history += [{"step": 30, "eval_point_error_m": float("inf"), "eval_runtime": 1.0, "train_runtime": 9.0}]
    plot_curves(history, tmp_path / "all.png", {"point_error_m": {"constant": 1.54, "pixel prior": 1.03}})
    losses, everything = (Image.open(tmp_path / name) for name in ("losses.png", "all.png"))
    assert everything.size[0] == 3 * losses.size[0] and everything.size[1] == losses.size[1]
    assert len(np.unique(np.asarray(everything.convert("L")))) > 50
    with pytest.raises(ValueError, match="neither losses nor evaluation"):
        plot_curves([{"step": 1, "grad_norm": 2.0}], tmp_path / "none.png")


def test_a_missing_matplotlib_is_named(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install gap-mllm\[eval\]"):
        plot_curves([{"step": 1, "loss": 1.0}], tmp_path / "curves.png")


def test_a_single_step_is_seen(tmp_path):
    """A run shorter than `logging_steps` has one entry, which as a line alone would not show."""
    plot_curves([{"step": 9, "loss": 2.0, "loss_text": 1.0, "loss_point_map": 4.0}], tmp_path / "one.png")
    picture = np.asarray(Image.open(tmp_path / "one.png").convert("RGB")).astype(int)
    height, width = picture.shape[:2]
    axes = picture[height // 5 : 4 * height // 5, width // 3 : 2 * width // 3]  # without the legend and the labels
    assert (axes.sum(-1) < 60).sum() > 10  # the black point of the sum
    plot_curves([{"step": 9, "loss": 2.0, "learning_rate": 1e-4}], tmp_path / "rate.png")
    assert count_pixels(tmp_path / "rate.png", VIEW_COLOR) > 5


def test_views_are_counted_from_zero_as_everywhere(tmp_path, monkeypatch):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    room = next(render_split("test", 1))
    question = make_question(room, "reconstruction")
    shown = []
    for kind in (Axes, Figure):
        write = kind.text
        monkeypatch.setattr(kind, "text", lambda *words, write=write, **style: shown.append(words[3]) or write(*words))
    draw_answers([AnswerExample(room, question, question.answer)], tmp_path / "answers.png")
    view = question.marks[0].view
    assert f"view {view}" in shown and f"What is at the red cross in view {view}, and where is it?" in shown
    assert {str(other) for other in range(len(room.images)) if other != view} <= set(shown)  # views and cameras
    assert not [text for text in shown if "camera 1" in text or f"view {len(room.images)}" in text]
