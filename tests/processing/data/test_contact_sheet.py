"""The contact sheet: every view is there with its objects, texts are shortened, and broken views become notes."""

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.data import SceneSample
from gap_mllm.processing.data import contact_sheet as module
from gap_mllm.processing.data.contact_sheet import contact_sheet
from gap_mllm.processing.data.scene_sample import Box, Point, View
from gap_mllm.processing.data.view_overlay import OBJECT_COLORS


INTRINSICS = np.array([[75.0, 0, 49.5], [0, 75, 37], [0, 0, 1]])


def sample_with(num_views=2, num_boxes=1, **fields):
    views = tuple(
        View(Image.new("RGB", (100, 75), (0, 40, 60)), intrinsics=INTRINSICS, camera_to_world=np.eye(4))
        for _ in range(num_views)
    )
    boxes = tuple(
        Box(np.array([0, 0, 3.0, 1, 1, 1, 0.5, 0, 0]), "zxy", "camera", 0, label=f"chair{index}")
        for index in range(num_boxes)
    )
    return SceneSample(id="s", task="detection3d", views=views, boxes=boxes, pose_frame="scan", **fields)


@pytest.fixture
def texts(monkeypatch):
    """All texts that are written on a sheet."""
    written, write = [], module.text_strip

    def record(text, *args, **kwargs):
        written.append(text)
        return write(text, *args, **kwargs)

    monkeypatch.setattr(module, "text_strip", record)
    return written


def count_pixels(sheet, color):
    return int((np.abs(np.asarray(sheet, int) - color).max(-1) < 40).sum())


def test_every_view_is_shown_with_its_boxes():
    one, four = contact_sheet([sample_with(1)]), contact_sheet([sample_with(4)])
    assert one.size[0] == four.size[0] == 1600 and one.mode == "RGB"
    paper = (0, 40, 60)
    assert count_pixels(one, paper) > 0.8 * 517 * 388  # a third of the width, at its own proportions
    assert 3.5 < count_pixels(four, paper) / (count_pixels(one, paper) * (386 / 517) ** 2) < 4.5
    assert count_pixels(four, OBJECT_COLORS[0]) > 3.5 * 386 / 517 * count_pixels(one, OBJECT_COLORS[0]) * 0.7


def test_texts_say_what_is_shown(texts):
    question = "".join(f"Frame-{view}: <image>" for view in range(2)) + "\nWhere is <image> it?"
    sample = sample_with(
        split="val",
        scene_id="room",
        question_type="hard",
        question=question,
        answer='```json\n{"frame": 1}```',
        references=("A", "B"),
        choices=("x", "y"),
        choice_index=1,
        number=2.5,
        target_frame=1,
        points=(Point(1, (3, 4), np.array([0, 0, 2.0]), label="wall"), Point(1, (3, 4), None)),
    )
    contact_sheet([sample], "Headline")
    shown = "\n".join(text for text in texts if text)
    for expected in (
        "Headline",
        "1 of 1: s\ntask detection3d | type hard | split val | scene room | views 2",
        "view 0 (reference)",
        "view 1 TARGET FRAME",
        "box 0 chair0: 1.00 x 1.00 x 1.00 m, given in the camera of view 0 with angles zxy; in views 0, 1",
        "point 0 wall: at (0.00, 0.00, 2.00) m in the camera of view 0; in views 0, 1",
        "point 1: without a place; in no view that is shown",
        "Question: [2 pictures] Where is <image> it?",
        "Choices: x / y",
        'Answer (number 2.5, choice 1, target frame 1): {"frame": 1}',
        "Accepted: A / B",
    ):
        assert expected in shown


def test_a_scene_has_no_question(texts):
    contact_sheet([sample_with()])
    assert not any("Question" in (text or "") for text in texts)


def test_what_cannot_be_drawn_is_said_once(texts):
    sample = sample_with(3)
    lost = tuple(View(view.picture, intrinsics=INTRINSICS) for view in sample.views)
    contact_sheet([SceneSample(id="s", views=lost, boxes=sample.boxes)])
    assert "Not in view 1 could everything be drawn: view 1 has no pose." in texts
    without = tuple(View(view.picture) for view in sample.views)
    contact_sheet([SceneSample(id="s", views=without, boxes=sample.boxes)])
    assert texts.count("In no view could everything be drawn: no intrinsics") == 1


def test_a_broken_view_becomes_a_note(texts, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    good = sample_with(1).views[0]
    views = (good, View(str(tmp_path / "a.jpg")), View(image_path="b.jpg"))
    sheet = contact_sheet([SceneSample(id="s", views=views)])
    assert any("cannot be shown: the image" in (text or "") and "a.jpg" in text for text in texts)
    assert "cannot be shown: the view b.jpg has no picture." in texts
    assert count_pixels(sheet, (0, 40, 60)) > 100_000


def test_rows_without_views(texts):
    contact_sheet([SceneSample(id="s", question="What?", video="a/b.mp4"), SceneSample(id="t")])
    assert "This row has no views; its video is a/b.mp4." in texts and "This row has no views." in texts
    contact_sheet([])
    assert "There are no rows to show." in texts


def test_of_many_views_those_spoken_of_are_shown(texts):
    contact_sheet([sample_with(20, target_frame=13)], max_views=4)
    shown = [text for text in texts if text and text.startswith("view ")]
    assert shown == ["view 0 (reference)", "view 9", "view 13 TARGET FRAME", "view 19"]
    assert "4 of 20 views are shown." in texts
    texts.clear()
    contact_sheet([sample_with(20, points=tuple(Point(view, None, None) for view in range(9)))], max_views=3)
    assert [text for text in texts if text and text.startswith("view ")] == ["view 0 (reference)", "view 1", "view 2"]


def test_many_objects_and_long_texts_are_cut(texts):
    sheet = contact_sheet([sample_with(2, num_boxes=60, question="word " * 5000, answer="x" * 20_000)])
    assert "and 36 more." in texts and sheet.height < 2500


@pytest.mark.parametrize("arguments", [{"width": 399}, {"max_views": 0}])
def test_wrong_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match="expected at least 400 and 1"):
        contact_sheet([], **arguments)


def test_a_narrow_sheet_and_pictures_of_any_shape():
    views = tuple(View(Image.new("RGB", size, "red")) for size in ((10, 400), (400, 10), (1, 1)))
    assert contact_sheet([SceneSample(id="s", views=views)], width=400).width == 400
