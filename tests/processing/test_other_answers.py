"""Answers in conventions of others: text out, back to the printed decimals, and no text that breaks the reader."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gap_mllm.processing import GapMllmProcessor, build_tiny_processor
from gap_mllm.processing.boxes import (
    CONVENTIONS,
    ImageBox,
    ImagePoint,
    LabelledBox,
    LabelledPoint,
    format_answer,
    parse_boxes,
    parse_image_boxes,
    parse_points,
)
from gap_mllm.processing.camera_geometry_gap_mllm import box_corners
from tests.processing.test_box_conventions import PICTURE, random_boxes


WITH_BOXES = [name for name, convention in CONVENTIONS.items() if convention.box]
WITH_POINTS = [name for name, convention in CONVENTIONS.items() if convention.point]
SIZE = {"image_size": (640, 480)}


@pytest.mark.parametrize("name", WITH_BOXES)
def test_boxes_come_back_from_text(name):
    boxes = random_boxes()
    boxes[:, 6:] = 0 if name == "spar" else boxes[:, 6:]
    boxes[:, :2] *= 0.2
    items = [LabelledBox(None if place % 3 == 0 else f"chair {place}", tuple(box)) for place, box in enumerate(boxes)]
    read = parse_boxes(format_answer(items, name, decimals=6, **PICTURE), convention=name, **PICTURE)
    assert not read.rejected and not read.truncated
    assert [item.label for item in read.items] == [item.label for item in items]
    back = np.array([item.bbox_3d for item in read.items])
    # six decimals, of half turns at worst, seen from 3 m away from the middle of a box
    np.testing.assert_allclose(box_corners(back, "zxy"), box_corners(boxes, "zxy"), atol=2e-5)
    again = parse_boxes(format_answer(read.items, name, **PICTURE), convention=name, **PICTURE)  # usual decimals
    np.testing.assert_allclose([item.bbox_3d[3:6] for item in again.items], boxes[:, 3:6], atol=0.0051)


def test_texts_as_they_are_published():
    answer = '```json\n[\n{"bbox_3d":[0.5,0.1,2,1,2,0.5,0,0,1.57],"label":"chair"}\n]\n```'
    yaw = parse_boxes(answer, convention="qwen3-vl-text").first
    assert yaw.label == "chair" and yaw.bbox_3d[6:] == pytest.approx((0, 0, 1.57))
    by_code = parse_boxes(answer.replace("0,0,1.57", "0,0.5,0"), convention="qwen3-vl-code").first
    assert by_code.bbox_3d[6:] == pytest.approx((0, 0, np.pi / 2))
    seed = parse_boxes(
        "3dbbox: <3dbbox>0.74 3.57 0.53 0.82 0.99 0.61 0 0 0.29</3dbbox>", convention="seed1.5-vl"
    ).first
    assert seed.label is None and seed.bbox_3d[6:] == pytest.approx((0.29 * np.pi, 0, 0))
    record = '{"center_cam": [0, 0, 2], "dimensions": [1, 2, 3], "R_cam": [[1,0,0],[0,1,0],[0,0,1]], "label": "bed"}'
    assert parse_boxes(record, convention="omni3d").first == LabelledBox("bed", (0, 0, 2, 3, 2, 1, 0, 0, 0))
    gemini = parse_boxes('[{"label": "bed", "box_3d": [0, 2, 0.5, 1, 2, 3, -90, 0, 0]}]', convention="gemini").first
    assert gemini.bbox_3d == pytest.approx((0, -0.5, 2, 1, 2, 3, 0, 0, 0), abs=1e-12)
    spar = parse_boxes("The lamp: frame 0, at (500, 500), depth 2.0, size (1, 2, 3)", convention="spar", **PICTURE)
    assert spar.first.bbox_3d == pytest.approx((0, 0, 2, 1, 2, 3, 0, 0, 0))


def test_points_in_pixels_of_a_picture():
    gemini = parse_points('[{"point": [250, 500], "label": "cup"}]', convention="gemini", **SIZE).first
    assert gemini == ImagePoint("cup", 0, (320.0, 120.0))  # y first
    qwen = parse_points('{"point_2d": [250, 500], "label": "cup"}', convention="qwen3-vl-text", **SIZE).first
    assert qwen == ImagePoint("cup", 0, (160.0, 240.0))  # x first
    text = '<points coords="1 1 250 500 2 300 600\t2 3 000 1000">cup</points>'
    molmo = parse_points(text, convention="molmo", image_size=[(640, 480), (100, 200)]).items
    assert [(point.view, point.pixel) for point in molmo] == [(0, (160, 240)), (0, (192, 288)), (1, (0, 200))]
    first = parse_points('<point x="50.0" y="25" alt="a cup">cup</point>', convention="molmo", **SIZE).first
    assert first == ImagePoint("cup", 0, (320.0, 120.0))
    assert parse_points("There are none.", convention="molmo", **SIZE).items == ()


@pytest.mark.parametrize("name", ["gemini", "molmo", "qwen3-vl-code", "spar"])
def test_points_with_depth_are_points_in_space(name):
    depth = np.full((120, 160), 2.5)  # a quarter of the picture's size
    point = LabelledPoint("cup", (0.4, -0.2, 2.5))
    text = format_answer([point], name, decimals=3 if name != "molmo" else None, **PICTURE)
    read = parse_points(text, convention=name, depth_m=depth, **PICTURE).first
    assert read.label == "cup"
    # Molmo's thousandths are whole numbers: 0.32 pixels at worst, at 500 pixels of focal length
    assert read.point == pytest.approx(point.point, abs=0.003 if name == "molmo" else 1e-4)


def test_points_of_other_views_come_to_the_first():
    poses = np.stack([np.eye(4), np.eye(4)])
    poses[1, :3, 3] = 1, 0, 0
    seen = {**PICTURE, "camera_to_world": poses, "depth_m": np.full((2, 480, 640), 2.0)}
    answer = '{"point_2d": [500, 500], "label": "cup"}'
    assert parse_points(answer, convention="qwen3-vl-text", view=1, **seen).first.point == pytest.approx((1, 0, 2))
    ours = '{"label": "cup", "pointmap": [0, 0, 2]}'
    assert parse_points(ours, view=1, camera_to_world=poses).first.point == pytest.approx((1, 0, 2))
    box = '{"bbox_3d": [0, 0, 2, 1, 1, 1, 0, 0, 0]}'
    read = parse_boxes(box, convention="qwen3-vl-text", view=1, camera_to_world=poses)
    assert read.first.bbox_3d == pytest.approx((1, 0, 2, 1, 1, 1, 0, 0, 0))
    assert "[0.0, 0.0, 2.0, " in format_answer(read.items, "qwen3-vl-text", view=1, camera_to_world=poses)


@pytest.mark.parametrize("name", ["gemini", "molmo", "qwen3-vl-text"])
def test_image_points_come_back(name):
    points = [ImagePoint("cup", 0, (160.0, 120.0)), ImagePoint("jar", 0, (320.0, 240.0))]
    assert parse_points(format_answer(points, name, **SIZE), convention=name, **SIZE).items == tuple(points)


def test_boxes_in_pictures():
    box = ImageBox("cup", 0, (64.0, 48.0, 320.0, 240.0))
    assert '"bbox_2d": [100, 100, 500, 500]' in format_answer([box], "qwen3-vl-text", **SIZE)
    for name in ("qwen3-vl-text", "gemini"):
        assert parse_image_boxes(format_answer([box], name, **SIZE), name, **SIZE).first == box
    wrong = parse_image_boxes('{"bbox_2d": [500, 0, 100, 100]}', "qwen3-vl-text", **SIZE)
    assert "no box within" in wrong.rejected[0].reason
    with pytest.raises(ValueError, match="molmo.*no boxes in pictures"):
        parse_image_boxes("", "molmo", **SIZE)


@pytest.mark.parametrize(
    "text, name, reason",
    [
        ("<3dbbox>1 2 3</3dbbox>", "seed1.5-vl", "holds 3 entries"),
        ("<3dbbox>0 0 2 1 1 __import__('os') 0 0 0</3dbbox>", "seed1.5-vl", "not a number"),
        ("<3dbbox>0 0 2 1 -1 1 0 0 0</3dbbox>", "seed1.5-vl", "not positive"),
        ("<3dbbox>0 0 2 1", "seed1.5-vl", "never closed"),
        ('{"bbox_3d": [0, 0, 2, 1, 1, 1, 0, 0, "1"]}', "qwen3-vl-text", "not a number"),
        ('{"center_cam": [0, 0, 2], "dimensions": [1, 2, 3]}', "omni3d", "R_cam is missing"),
        ("frame 0, (500, 500), depth 2.0", "spar", "no sizes"),
        ("frame 7, (500, 500), depth 2.0, size (1, 1, 1)", "spar", "camera_to_world"),
    ],
)
def test_boxes_that_cannot_be_read_are_told(text, name, reason):
    read = parse_boxes(text, convention=name, **PICTURE)
    assert not read.items and reason in read.rejected[0].reason


@pytest.mark.parametrize(
    "text, name, reason",
    [
        ('{"point": [1001, 5], "label": "a"}', "gemini", "outside the picture"),
        ('<points coords="1 1 200">a</points>', "molmo", "expected id, x, y"),
        ('<points coords="0.5 1 200 200">a</points>', "molmo", "times of videos"),
        ('<points x1="1" y2="3">a</points>', "molmo", "without y"),
        ("<points>a</points>", "molmo", "no coordinates"),
    ],
)
def test_points_that_cannot_be_read_are_told(text, name, reason):
    read = parse_points(text, convention=name, **SIZE)
    assert not read.items and reason in read.rejected[0].reason


def test_missing_labels_and_depth_are_told():
    assert (
        parse_boxes("<3dbbox>0 0 2 1 1 1 0 0 0</3dbbox>", True, "seed1.5-vl").rejected[0].reason == "label is missing"
    )
    text, depth = '{"point": [500, 500]}', np.zeros((48, 64))
    assert "no depth" in parse_points(text, convention="gemini", depth_m=depth, **PICTURE).rejected[0].reason


def test_what_is_missing_is_an_error_with_its_name():
    with pytest.raises(ValueError, match="unknown convention 'qwen'; known for a box are ours.*gemini"):
        parse_boxes("", convention="qwen")
    with pytest.raises(ValueError, match="spar.*needs image_size and intrinsics"):
        parse_boxes("", convention="spar")
    with pytest.raises(ValueError, match="gemini.*needs image_size"):
        parse_points("", convention="gemini")
    with pytest.raises(ValueError, match="omni3d.*has no point"):
        parse_points("", convention="omni3d")
    with pytest.raises(TypeError, match="all alike"):
        format_answer([LabelledPoint("a", (0, 0, 1)), ImagePoint("a", 0, (0, 0))], "gemini", **SIZE)
    with pytest.raises(ValueError, match="writes 3D points"):
        format_answer([ImagePoint("a", 0, (0, 0))], "ours")
    with pytest.raises(ValueError, match="outside its picture"):
        format_answer([ImagePoint("a", 0, (700, 0))], "gemini", **SIZE)
    with pytest.raises(ValueError, match="is in view 1.*JSON names none"):
        format_answer([ImagePoint("a", 1, (0, 0))], "gemini", **SIZE)
    with pytest.raises(TypeError, match="one generated answer"):
        parse_boxes(None, convention="seed1.5-vl")


@settings(max_examples=150, deadline=None)
@given(
    st.text(alphabet='<>/3dbox pintscr="{}[]:,.0123456789-efram()\n', max_size=120),
    st.sampled_from(WITH_BOXES + WITH_POINTS),
)
def test_no_text_raises(text, name):
    if CONVENTIONS[name].box:
        parse_boxes(text, convention=name, **PICTURE)
    if CONVENTIONS[name].point:
        parse_points(text, convention=name, **PICTURE)


@pytest.mark.parametrize("piece", ["<3dbbox>", '<points coords="1 ', "frame 1, (1, ", "x: frame", '{"box_3d": [', "<"])
def test_reading_long_texts_takes_no_time(piece):
    started = time.perf_counter()
    for name in ("seed1.5-vl", "spar", "gemini"):
        parse_boxes(piece * 4000, convention=name, **PICTURE)
    parse_points(piece * 4000, convention="molmo", **SIZE)
    assert time.perf_counter() - started < 5  # a quadratic reader takes minutes


def test_processor_reads_named_conventions():
    processor = build_tiny_processor()
    assert isinstance(processor, GapMllmProcessor)
    boxes = processor.post_process_boxes(["<3dbbox>0 0 2 1 1 1 0 0 0.5</3dbbox>"], convention="seed1.5-vl")
    assert boxes[0].first.bbox_3d[6] == pytest.approx(np.pi / 2)
    points = processor.post_process_points(['{"point": [250, 500]}'], convention="gemini", image_size=(640, 480))
    assert points[0].first.pixel == (320.0, 120.0)
