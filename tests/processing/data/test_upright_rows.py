"""Rows of pictures that EXIF turns: all that belongs to the stored picture is turned with it, or refused by name."""

import io
import json
import shutil

import datasets
import numpy as np
import pytest
from PIL import Image, ImageOps

from gap_mllm.processing.answers_gap_mllm import parse_boxes, parse_points
from gap_mllm.processing.camera_geometry_gap_mllm import box_corners, euler_to_matrix, project_points
from gap_mllm.processing.data import RecordError, SceneSample, complete_row, load_multiview, scene_features
from gap_mllm.processing.data.inspection import inspect_source
from gap_mllm.processing.data.parquet_export import convert_to_parquet, write_parquet
from gap_mllm.processing.data.row_checks import check_row
from gap_mllm.processing.data.source_files import encode_png, picture_header
from gap_mllm.processing.data.upright_pictures import MAX_PNG_PIXELS, picture_orientation, store_upright
from gap_mllm.processing.data.upright_rows import upright_row
from gap_mllm.processing.view_files_gap_mllm import EXIF_ORIENTATION, Orientation
from tests.processing.data.formats import FORMATS, rows_equal


WIDTH, HEIGHT = 40, 30
INTRINSICS = np.array([[50.0, 0, 18.5], [0, 45.0, 15.5], [0, 0, 1]])
POSE = np.eye(4)
POSE[:3] = np.c_[euler_to_matrix(np.array([0.4, -0.3, 0.2]), "zxy"), [1.0, 2.0, 3.0]]
ROTATIONS, MIRRORED = (3, 6, 8), (2, 4, 5, 7)
POINT_TEXT = '```json\n{"label": "lamp", "pointmap": [0.52, -0.16, 1.0]}\n```'


def pixels_of(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def encoded(pixels, value, kind="PNG", **options):
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[EXIF_ORIENTATION] = value
    Image.fromarray(pixels).save(buffer, kind, exif=exif, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def depth_codes():
    return np.random.default_rng(1).integers(900, 2000, (HEIGHT, WIDTH)).astype(np.uint16)


def places(value):
    """For each upright pixel the column and row of the stored one, as Pillow turns a picture of them."""
    columns, rows = np.meshgrid(np.arange(WIDTH, dtype=np.uint8), np.arange(HEIGHT, dtype=np.uint8))
    stored = encoded(np.stack([columns, rows, rows], -1), value)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(stored["bytes"]))))
    return upright[..., 0].astype(int), upright[..., 1].astype(int)


def turned_view(value, **fields):
    view = {"image": encoded(pixels_of(), value), "image_path": "room/7.png", "intrinsics": INTRINSICS}
    depth = {"depth": encode_png(depth_codes()), "depth_scale": 1000.0, "depth_intrinsics": INTRINSICS}
    return {**view, **depth, **fields}


def back_projected(camera, column, row, depth):
    return np.linalg.solve(np.asarray(camera, float), np.array([column, row, 1.0])) * depth


# All eight orientations


@pytest.mark.parametrize("value", range(1, 9))
def test_pixels_depth_and_cameras_are_turned_together(value):
    pose = None if value in MIRRORED else POSE
    row = complete_row(id="1", views=[turned_view(value, camera_to_world=pose)], pose_frame="scan")
    for sample in (SceneSample.from_row(row), SceneSample.from_row(upright_row(row))):
        view, (columns, rows) = sample.views[0], places(value)
        assert view.size == view.image.size == (columns.shape[1], columns.shape[0])
        np.testing.assert_array_equal(np.asarray(view.image), pixels_of()[rows, columns])
        np.testing.assert_array_equal(np.rint(view.depth_m * 1000), depth_codes()[rows, columns])
        for at_row, at_column in ((0, 0), (3, 20), (25, 2)):
            stored_place, depth = (
                (columns[at_row, at_column], rows[at_row, at_column]),
                view.depth_m[at_row, at_column],
            )
            stored = back_projected(INTRINSICS, *stored_place, depth)
            found = back_projected(view.intrinsics, at_column, at_row, depth)
            np.testing.assert_allclose(found, back_projected(view.depth_intrinsics, at_column, at_row, depth))
            if pose is None:  # a mirror image of what the stored camera sees
                np.testing.assert_allclose(np.sort(np.abs(found)), np.sort(np.abs(stored)), atol=1e-6)
            else:
                world = view.camera_to_world[:3, :3] @ found + view.camera_to_world[:3, 3]
                np.testing.assert_allclose(world, POSE[:3, :3] @ stored + POSE[:3, 3], atol=1e-6)


@pytest.mark.parametrize("value", range(2, 9))
def test_a_marked_pixel_its_point_and_its_answer_are_turned_together(value):
    """A point 1 m deep; in the stored picture it is at column 44 / 50, row 2 of the file."""
    xyz = (0.42, -0.3, 1.0)
    column, row_of_pixel = 50 * 0.42 + 18.5, 45 * -0.3 + 15.5
    row = complete_row(
        id="1",
        task="reconstruction",
        question="<image>A red cross marks one pixel.",
        answer='{"label": "lamp", "pointmap": [0.42, -0.3, 1.0]}',
        views=[turned_view(value)],
        points=[{"view": 0, "pixel": (column, row_of_pixel), "xyz": xyz, "frame": "camera", "label": "lamp"}],
        marks=[{"view": 0, "kind": "cross", "color": "red", "xy": (39, 2), "unit": "pixel"}],
    )
    check_row(row)
    upright = upright_row(row)
    check_row(upright)
    sample, (columns, rows) = SceneSample.from_row(upright), places(value)
    view, point, mark = sample.views[0], sample.points[0], sample.marks[0]
    pixel, depth = project_points(point.xyz, view.intrinsics)
    np.testing.assert_allclose(pixel, point.pixel, atol=1e-4)
    assert depth == 1.0
    at = int(mark.xy[1]), int(mark.xy[0])
    assert (columns[at], rows[at]) == (39, 2)
    assert view.depth_m[at] * 1000 == pytest.approx(depth_codes()[2, 39])
    assert parse_points(sample.answer).first.point == pytest.approx(point.xyz, abs=1e-6)
    assert parse_points(sample.answer).first.label == "lamp"


def test_the_numbers_of_a_quarter_turn_by_hand():
    """EXIF 6 turns the stored picture clockwise: its right is below, its bottom is left."""
    point = {"view": 0, "pixel": (10, 20), "xyz": (0.36, -0.32, 1.0), "frame": "camera"}
    row = complete_row(id="1", task="reconstruction", views=[turned_view(6)], points=[point])
    upright = upright_row(row)
    assert upright["points"][0]["pixel"] == [9.0, 10.0]  # 30 - 1 - 20
    np.testing.assert_allclose(upright["points"][0]["xyz"], [0.32, 0.36, 1.0], atol=1e-6)
    np.testing.assert_allclose(upright["views"][0]["intrinsics"], [[45, 0, 13.5], [0, 50, 18.5], [0, 0, 1]])


@pytest.mark.parametrize("value", range(2, 9))
def test_marks_in_thousandths_and_boxes_are_turned(value):
    marks = [
        {"view": 0, "kind": "point", "color": "red", "xy": (262.5, 100), "unit": "permille"},
        {"view": 0, "kind": "box", "color": "red", "xy": (4, 5, 14, 11), "unit": "pixel"},
        {"view": 0, "kind": "box", "color": "blue", "xy": (100, 200, 350, 400), "unit": "permille"},
    ]
    row = complete_row(id="1", task="spatial_qa", views=[turned_view(value)], marks=marks)
    columns, rows = places(value)
    sample = SceneSample.from_row(row)
    point, box, permille = sample.marks
    at = int(point.xy[1] / 1000 * columns.shape[0]), int(point.xy[0] / 1000 * columns.shape[1])
    assert (columns[at], rows[at]) == (10, 3)
    left, top, right, bottom = map(int, box.xy)
    assert left < right and top < bottom
    for corner in ((top, left), (top, right), (bottom, left), (bottom, right)):
        assert columns[corner] in (4, 14) and rows[corner] in (5, 11)
    (height, width), (left, top, right, bottom) = columns.shape, permille.xy
    sides = sorted([(right - left) * width / 1000, (bottom - top) * height / 1000])
    assert sides == pytest.approx([6.0, 10.0], abs=1e-4)


@pytest.mark.parametrize("order", ["zxy", "ZXY"])
@pytest.mark.parametrize("value", ROTATIONS)
def test_boxes_in_a_camera_are_turned_in_their_own_order(value, order):
    numbers = np.array([0.3, -0.2, 2.0, 0.5, 0.7, 0.9, 0.3, -0.4, 1.1])
    fields = {"center": numbers[:3], "size": numbers[3:6], "euler": numbers[6:], "euler_order": order}
    box = {**fields, "frame": "camera", "frame_index": 0, "label": "bed"}
    text = json.dumps([{"label": "bed", "bbox_3d": numbers.tolist()}])
    row = complete_row(
        id="1",
        task="detection3d",
        answer=text,
        references=[text],
        views=[turned_view(value, camera_to_world=POSE)],
        pose_frame="scan",
        boxes=[box],
    )
    stored, upright = SceneSample.as_stored(row), SceneSample.from_row(row)
    corners = [
        box_corners(sample.boxes[0].numbers, order) @ sample.views[0].camera_to_world[:3, :3].T
        + sample.views[0].camera_to_world[:3, 3]
        for sample in (stored, upright)
    ]
    np.testing.assert_allclose(corners[1], corners[0], atol=1e-5)
    assert parse_boxes(upright.answer).first.bbox_3d == pytest.approx(upright.boxes[0].numbers, abs=0.06)
    assert parse_boxes(upright.answer).first.bbox_3d != pytest.approx(tuple(numbers), abs=0.06)
    assert upright.references == (upright.answer,)


def test_a_box_in_the_camera_of_the_answered_view_turns_with_that_view():
    numbers = [0.3, -0.2, 2.0, 0.5, 0.7, 0.9, 0.0, 0.0, 0.0]
    box = {"center": numbers[:3], "size": numbers[3:6], "euler": numbers[6:], "euler_order": "zxy"}
    row = complete_row(
        id="1",
        task="grounding",
        question="<image><image>Find the bed. Give its box in the frame's coordinates.",
        answer=json.dumps({"frame": 1, "bbox_3d": numbers}),
        views=[{"image": encode_png(pixels_of())}, turned_view(3)],
        boxes=[{**box, "frame": "camera", "frame_index": 1}],
        target_frame=1,
    )
    sample = SceneSample.from_row(row)
    assert json.loads(sample.answer)["frame"] == 1
    assert json.loads(sample.answer)["bbox_3d"][:3] == [-0.3, 0.2, 2.0]


def test_the_place_in_the_question_of_a_caption_turns_exactly():
    question = "<image>\nDescribe the object located at [0.52, -0.16, 1.0] in detail."
    row = complete_row(id="1", task="dense_caption", question=question, answer="A lamp.", views=[turned_view(6)])
    assert "located at [0.16, 0.52, 1.0] in" in SceneSample.from_row(row).question
    row = {**row, "question": question.replace("-0.16, 1.0", "1")}
    with pytest.raises(RecordError, match=r"location '\[0.52, 1\]' of its question is not three numbers"):
        upright_row(row)


# What cannot follow


@pytest.mark.parametrize("value", MIRRORED)
def test_a_pose_or_box_of_a_mirrored_picture_is_refused(value):
    posed = complete_row(id="1", views=[turned_view(value, camera_to_world=POSE)])
    with pytest.raises(RecordError, match=rf"room/7.png\) is stored with EXIF orientation {value}, .* no rigid pose"):
        upright_row(posed)
    box = {"center": (0, 0, 1), "size": (1, 1, 1), "euler": (0, 0, 0), "euler_order": "zxy", "frame": "camera"}
    boxed = complete_row(id="1", views=[turned_view(value)], boxes=[box])
    with pytest.raises(RecordError, match=f"EXIF orientation {value}, and a box is in its camera"):
        SceneSample.from_row(boxed)


def test_answers_that_no_field_explains_are_refused():
    fields = {"id": "7", "source": "mine", "task": "reconstruction", "views": [turned_view(6)]}
    row = complete_row(**fields, answer=POINT_TEXT)
    with pytest.raises(RecordError, match="record 7.*EXIF orientation 6.*numbers that cannot be turned.*Save the pic"):
        SceneSample.from_row(row)
    row = complete_row(**{**fields, "task": "spatial_qa"}, question="What is at pixel (12, 30)?", answer="A lamp.")
    with pytest.raises(RecordError, match=r"EXIF orientation 6, and its text holds '\(12, 30\)'"):
        upright_row(row)


def test_rows_without_numbers_of_their_pictures_pass_as_they_are():
    view = {"image": encoded(pixels_of(), 6, "JPEG")}
    row = complete_row(id="1", task="scene_qa", question="Which of (1, 2)?", answer="1", views=[view])
    assert upright_row(row) is row
    assert SceneSample.from_row(row).views[0].size == (HEIGHT, WIDTH)
    plain = complete_row(id="1", views=[turned_view(1)])
    assert upright_row(plain) is plain


def test_intrinsics_of_the_upright_picture_and_skew_are_refused():
    upright = np.array([[45.0, 0, 14.5], [0, 50.0, 19.5], [0, 0, 1]])
    with pytest.raises(RecordError, match=r"principal point \(14.5, 19.5\), the middle of the upright picture"):
        upright_row(complete_row(id="1", views=[turned_view(6, intrinsics=upright)]))
    skewed = INTRINSICS + np.array([[0, 0.5, 0], [0, 0, 0], [0, 0, 0]])
    with pytest.raises(RecordError, match="skew 0.5"):
        upright_row(complete_row(id="1", views=[turned_view(8, intrinsics=skewed)]))
    with pytest.raises(RecordError, match="depth_intrinsics have skew 0.5"):
        upright_row(complete_row(id="1", views=[turned_view(8, depth_intrinsics=skewed)]))


# Depth maps


def test_a_depth_map_that_is_upright_already_stays():
    turn = Orientation.from_exif(6)
    camera = turn.intrinsics(INTRINSICS, (WIDTH, HEIGHT))
    depth = encode_png(turn.array(depth_codes()))
    row = complete_row(id="1", views=[turned_view(6, depth=depth, depth_intrinsics=camera)])
    same = complete_row(id="1", views=[turned_view(6)])
    found, expected = (SceneSample.from_row(each).views[0] for each in (row, same))
    np.testing.assert_array_equal(found.depth_m, expected.depth_m)
    np.testing.assert_allclose(found.depth_intrinsics, expected.depth_intrinsics)


@pytest.mark.parametrize("picture_value", [1, 6])
def test_a_depth_map_with_exif_of_its_own_is_turned_once(picture_value):
    codes = depth_codes() if picture_value == 6 else Orientation.from_exif(8).array(depth_codes())
    camera = INTRINSICS if picture_value == 6 else Orientation.from_exif(8).intrinsics(INTRINSICS, (WIDTH, HEIGHT))
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    Image.fromarray(codes).save(buffer, "PNG", exif=exif)
    depth = {"bytes": buffer.getvalue(), "path": None}
    row = complete_row(id="1", views=[turned_view(picture_value, depth=depth, depth_intrinsics=camera)])
    expected = Orientation.from_exif(picture_value)
    view = SceneSample.from_row(upright_row(row)).views[0]
    np.testing.assert_array_equal(np.rint(view.depth_m * 1000), expected.array(depth_codes()))
    np.testing.assert_allclose(view.depth_intrinsics, expected.intrinsics(INTRINSICS, (WIDTH, HEIGHT)), atol=1e-5)


def test_a_depth_map_of_another_shape_is_refused():
    depth = encode_png(np.full((30, 30), 1000, np.uint16))
    row = complete_row(id="1", views=[turned_view(6, depth=depth, depth_intrinsics=None)])
    with pytest.raises(RecordError, match="30 x 30 pixels, and room/7.png 40 x 30 as stored, 30 x 40 upright"):
        upright_row(row)
    turned = encode_png(depth_codes().T.copy())
    row = complete_row(id="1", views=[turned_view(1, depth=turned, depth_intrinsics=None)])
    with pytest.raises(
        RecordError, match="depth map has 30 x 40 pixels and its picture 40 x 30.*turned by 90 degrees"
    ):
        check_row(row)


# Pictures


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_orientations_are_read_from_headers_of_every_kind(kind, tmp_path):
    for value in (1, 3, 6, 7):
        stored = encoded(pixels_of(), value, kind)
        path = tmp_path / f"{value}.{kind.lower()}"
        path.write_bytes(stored["bytes"])
        for picture in (stored, {"bytes": None, "path": str(path)}, str(path)):
            assert picture_orientation(picture).exif_value == value
        assert picture_header(str(path))[0] == (WIDTH, HEIGHT)
        assert SceneSample.from_row({"views": [{"image": stored}]}).views[0].size[0] == (
            HEIGHT if value > 4 else WIDTH
        )
        if value > 1:
            upright = store_upright(str(path))
            assert picture_orientation(upright).is_upright
            expected = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(upright["bytes"]))), np.asarray(expected))


def test_an_orientation_in_xmp_counts_and_other_texts_do_not(tmp_path):
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    buffer = io.BytesIO()
    Image.fromarray(pixels_of()).save(buffer, "JPEG", xmp=xmp)
    assert picture_orientation({"bytes": buffer.getvalue()}).exif_value == 6
    for picture in (None, {"bytes": b"none", "path": None}, str(tmp_path / "gone.jpg"), np.zeros((2, 2, 3), np.uint8)):
        assert picture_orientation(picture).is_upright
    with pytest.raises(RecordError, match="cannot be decoded"):
        store_upright({"bytes": b"none", "path": None})


def test_a_mended_file_is_read_again_and_large_pictures_become_jpeg(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(pixels_of(), 6)["bytes"])
    assert picture_orientation(str(path)).exif_value == 6
    path.write_bytes(encoded(pixels_of(1), 3)["bytes"] + b" ")
    assert picture_orientation(str(path)).exif_value == 3
    side = int(MAX_PNG_PIXELS**0.5) + 1
    large = store_upright(encoded(np.full((side, side, 3), 90, np.uint8), 6))
    with Image.open(io.BytesIO(large["bytes"])) as image:
        assert image.format == "JPEG" and image.getexif().get(EXIF_ORIENTATION) is None
        assert np.asarray(image).min() == np.asarray(image).max() == 90


def test_samples_are_stored_with_upright_pictures(tmp_path):
    """What a sample says is of the upright picture, whatever file it names."""
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(pixels_of(), 6, "JPEG")["bytes"])
    mark = {"view": 0, "kind": "cross", "color": "red", "xy": (12.0, 35.0), "unit": "pixel"}
    row = {"id": "1", "views": [{"image": {"bytes": None, "path": str(path)}}], "marks": [mark]}
    sample = SceneSample.as_stored(row)  # stands for one that a user made
    stored = sample.to_row()
    assert picture_orientation(stored["views"][0]["image"]).is_upright
    assert SceneSample.from_row(stored).marks[0].xy == (12.0, 35.0)


# Sources


def add_exif(folder, value):
    """Every JPEG below says to be turned; all numbers beside it are left as they are."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = value
    for path in folder.rglob("*.jpg"):
        image = Image.open(path)
        image.load()
        image.save(path, exif=exif, quality=90)


def copied(name, tmp_path, value):
    folder = tmp_path / name
    shutil.copytree(FORMATS / name, folder)
    add_exif(folder, value)
    return folder


def world_points(view):
    """What the depth map of a view says of the world."""
    rows, columns = (grid.reshape(-1) for grid in np.indices(view.depth_m.shape))
    rays = np.linalg.inv(view.depth_intrinsics) @ np.stack([columns, rows, np.ones_like(rows)])
    points = (view.camera_to_world[:3, :3] @ (rays * view.depth_m.reshape(-1))).T
    return (points + view.camera_to_world[:3, 3])[view.depth_m.reshape(-1) > 0]


@pytest.mark.parametrize("value", [3, 6])
def test_posed_frames_of_a_source_see_the_same_world(value, tmp_path):
    name = "scannet_posed_images"
    folder = copied(name, tmp_path, value)
    options = {"split": "train", "streaming": True, "max_views": 2}
    before = next(iter(load_multiview("scannet_posed", FORMATS / name / "scannet", **options)))
    rows = load_multiview("scannet_posed", folder / "scannet", **options)
    after = next(iter(rows))
    old, new = SceneSample.from_row(before), SceneSample.from_row(after)
    turn = Orientation.from_exif(value)
    for one, other in zip(old.views, new.views, strict=True):
        assert other.size == turn.size(one.size) and other.depth_m.shape[::-1] == turn.size(one.depth_m.shape[::-1])
        before, after = world_points(one), world_points(other)
        assert len(after) == len(before) > 1000
        np.testing.assert_allclose(np.sort(after, axis=0), np.sort(before, axis=0), atol=1e-4)


@pytest.fixture(scope="module")
def gap_mllm_folder(tmp_path_factory):
    return copied("gap_mllm", tmp_path_factory.mktemp("turned"), 6)


def test_answers_points_and_boxes_of_a_source_are_turned(gap_mllm_folder):
    count = 0
    for split in ("train", "val"):
        options = {"split": split, "streaming": True}
        before = load_multiview("gap_mllm", FORMATS / "gap_mllm", **options)
        after = load_multiview("gap_mllm", gap_mllm_folder, **options)
        for old, new in zip(map(SceneSample.from_row, before), map(SceneSample.from_row, after), strict=True):
            axes = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])  # stored down is left, stored right is below
            for point, other in zip(old.points, new.points, strict=True):
                pixel, _ = project_points(new.point_in_view(other, other.view), new.views[other.view].intrinsics)
                assert np.abs(pixel - other.pixel).max() < 2
                np.testing.assert_allclose(other.xyz, axes @ point.xyz, atol=1e-6)
                assert parse_points(new.answer).first.point == pytest.approx(other.xyz, abs=1e-6)
                count += 1
            for box, other in zip(old.boxes, new.boxes, strict=True):
                if box.frame == "camera" or old.world_to_aligned is not None:
                    first, second = old.box_in_view(box, 0), new.box_in_view(other, 0)
                    np.testing.assert_allclose(second[:3], axes @ first[:3], atol=1e-4)
                    turned = axes @ euler_to_matrix(first[6:], box.euler_order)
                    np.testing.assert_allclose(euler_to_matrix(second[6:], other.euler_order), turned, atol=1e-4)
                    count += 1
            for said, box in zip(parse_boxes(new.answer or "").items, new.boxes, strict=False):
                if new.task == "detection3d":
                    np.testing.assert_allclose(said.bbox_3d[:6], box.numbers[:6], atol=0.03)
    assert count > 20


def test_prepared_streamed_and_exported_rows_of_turned_pictures_are_the_same(gap_mllm_folder, tmp_path):
    options = {"split": "train", "cache_dir": tmp_path / "cache"}
    rows = load_multiview("gap_mllm", gap_mllm_folder, **options)
    streamed = load_multiview("gap_mllm", gap_mllm_folder, streaming=True, **options)
    assert rows_equal(rows, streamed) == len(rows)
    convert_to_parquet("gap_mllm", gap_mllm_folder, tmp_path / "out", split="train", cache_dir=tmp_path / "cache")
    read = load_multiview("parquet", tmp_path / "out", split="train", streaming=True)
    assert rows_equal(rows, read) == len(rows)


def test_mirrored_pictures_of_a_source_are_refused_by_name_or_left_out(tmp_path):
    folder = copied("scannet_posed_images", tmp_path, 5) / "scannet"
    with pytest.raises(RecordError, match=r"source scannet_posed.*EXIF orientation 5.*no rigid pose"):
        list(load_multiview("scannet_posed", folder, split="train", streaming=True, max_views=2))
    found = inspect_source("scannet_posed", folder, split="train", num_samples=0, max_views=2)
    assert found.broken_records and "EXIF orientation 5" in found.broken_records[0]["reason"]


def test_rows_of_others_are_turned_when_they_are_read_or_written(tmp_path):
    mark = {"view": 0, "kind": "cross", "color": "red", "xy": (10, 20), "unit": "pixel"}
    rows = [
        complete_row(id=str(value), task="spatial_qa", views=[turned_view(value)], marks=[mark]) for value in (1, 6)
    ]
    made = datasets.Dataset.from_list(rows, features=scene_features())
    made.to_parquet(str(tmp_path / "mine" / "train.parquet"))
    write_parquet({"train": made}, tmp_path / "written")
    for folder in ("mine", "written"):
        read = list(load_multiview("parquet", tmp_path / folder, split="train", cache_dir=tmp_path / "cache"))
        assert [row["marks"][0]["xy"] for row in read] == [[10.0, 20.0], [9.0, 10.0]]
        assert read[1]["views"][0]["image"].size == (HEIGHT, WIDTH)
        assert read[1]["views"][0]["depth"].size == (HEIGHT, WIDTH)
    raw = datasets.load_dataset("parquet", data_files=str(tmp_path / "written/data/*.parquet"), split="train")
    stored = raw.with_format("arrow")[1].to_pylist()[0]
    assert stored["marks"][0]["xy"] == [9.0, 10.0] and picture_orientation(stored["views"][0]["image"]).is_upright
    assert SceneSample.open(made, 1).marks[0].xy == (9.0, 10.0)


def test_rows_that_cannot_be_turned_are_left_out_when_they_are_written(tmp_path):
    from gap_mllm.processing.data.record_errors import ReadReport, read_report

    rows = [complete_row(id=str(value), views=[turned_view(value, camera_to_world=POSE)]) for value in (1, 2)]
    made = datasets.Dataset.from_list(rows, features=scene_features())
    with pytest.raises(RecordError, match="EXIF orientation 2"):
        write_parquet({"train": made}, tmp_path / "strict")
    written = write_parquet({"train": made}, tmp_path / "lenient", report=ReadReport(tmp_path / "report.jsonl"))
    assert (written["train"].num_rows, written["train"].num_left_out) == (1, 1)
    assert "EXIF orientation 2" in read_report(tmp_path / "report.jsonl")[0]["reason"]


def test_fill_bytes_before_exif_do_not_hide_it():
    content = encoded(pixels_of(), 6, "JPEG")
    content = content["bytes"] if isinstance(content, dict) else content
    place = content.index(b"\xff\xe1")
    filled = content[:place] + b"\xff" + content[place:]
    assert picture_orientation({"bytes": filled, "path": None}) == Orientation.from_exif(6)
