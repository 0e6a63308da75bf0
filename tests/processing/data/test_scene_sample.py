"""Typed rows: round trips of every kind of picture, boxes and points in the camera asked for, messages, and errors."""

import io

import datasets
import numpy as np
import pytest
from PIL import Image, ImageFile

from gap_mllm.processing.camera_geometry_gap_mllm import box_corners, invert_rigid, transform_points
from gap_mllm.processing.data import RecordError, SceneSample, complete_row, scene_features
from gap_mllm.processing.data.scene_sample import Box, Point, SceneMark, View


def pose(yaw, position):
    matrix = np.eye(4)
    cos, sin = np.cos(yaw), np.sin(yaw)
    matrix[:3, :3] = [[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]
    matrix[:3, 3] = position
    return matrix


POSES = [pose(0.3, (1, 2, 3)), pose(-1.2, (0, 1, 2))]
ALIGNMENT = np.array([[0.0, -1, 0, 2], [1, 0, 0, -1], [0, 0, 1, 0.5], [0, 0, 0, 1]])
BOX = np.array([0.5, 0.1, 2, 1, 0.6, 0.4, 0.2, -0.3, 1.0])


def sample_with(poses=POSES, pose_frame="scan", alignment=ALIGNMENT, **fields):
    views = tuple(View(camera_to_world=matrix) for matrix in poses)
    return SceneSample(id="s", views=views, pose_frame=pose_frame, world_to_aligned=alignment, **fields)


# Rows and samples


def test_a_row_becomes_a_sample_and_a_row_again():
    view = {"image_path": "a.jpg", "frame_id": 3, "timestamp": 0.5, "depth_scale": 1000, "intrinsics": np.eye(3)}
    box = {"center": (1, 2, 3), "size": (1, 1, 2), "euler": (0.5, 0, 0), "euler_order": "zxy", "frame": "camera"}
    row = complete_row(
        id="r",
        source="toy",
        task="scene_qa",
        question="What?",
        answer="A chair.",
        references=["A chair.", "chair"],
        views=[{**view, "camera_to_world": POSES[0], "image": {"path": "a.jpg", "bytes": None}}, {}],
        boxes=[{**box, "frame_index": 1, "label": "chair", "in_reference": False}],
        points=[{"view": 0, "pixel": (3, 4), "xyz": (0.5, 0.25, 2), "frame": "scan", "confidence": 0.5}, {"view": 1}],
        marks=[{"view": 0, "kind": "cross", "color": "red", "xy": (3, 4), "unit": "pixel"}],
        world_to_aligned=ALIGNMENT,
        pose_frame="scan",
        target_frame=1,
        choices=["a", "b"],
        choice_index=0,
        number=2.5,
        metadata={"é": [1, None]},
    )
    sample = SceneSample.from_row(row)
    assert sample.to_row() == row
    assert sample.boxes[0].numbers.tolist() == [1, 2, 3, 1, 1, 2, 0.5, 0, 0]
    assert (sample.points[0].pixel, sample.points[1].xyz, sample.metadata) == ((3.0, 4.0), None, {"é": [1, None]})
    assert np.array_equal(sample.views[0].camera_to_world, POSES[0]) and sample.views[1].intrinsics is None


def test_an_empty_row_is_a_sample():
    sample = SceneSample.from_row(complete_row())
    assert sample == SceneSample() and sample.to_row() == complete_row(metadata={})


def test_metadata_that_is_no_json_is_refused():
    with pytest.raises(RecordError, match="metadata is no JSON") as caught:
        SceneSample.from_row(complete_row(id="r", metadata="{"))
    assert (caught.value.field, caught.value.record_id) == ("metadata", "r")


# Pictures


def stored(picture):
    """A picture as a row keeps it, read back."""
    kept = View(picture=picture).row()["image"]
    return Image.open(io.BytesIO(kept["bytes"])) if kept["bytes"] else Image.open(kept["path"])


def colours(mode="RGB"):
    values = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_decoded_pictures_are_stored_exactly(mode):
    assert np.array_equal(stored(colours(mode)), colours(mode))


@pytest.mark.parametrize("mode", ["P", "CMYK", "1", "LA"])
def test_other_pictures_are_stored_as_they_look(mode):
    assert np.array_equal(stored(colours(mode)), np.asarray(View(picture=colours(mode)).image))


def test_pictures_on_disk_stay_there(tmp_path):
    colours().save(tmp_path / "a.png")
    for picture in (str(tmp_path / "a.png"), Image.open(tmp_path / "a.png"), {"path": str(tmp_path / "a.png")}):
        view = View(picture=picture)
        assert view.row()["image"]["path"] == str(tmp_path / "a.png")
        assert np.array_equal(view.image, colours())
    assert View().row()["image"] is None


@pytest.mark.parametrize("as_32_bit", [False, True])
def test_depth_is_stored_exactly(as_32_bit):
    millimetres = np.array([[0, 1500, 65535]], np.uint16)
    picture = Image.fromarray(millimetres.astype(np.int32) if as_32_bit else millimetres)
    kept = View(depth_picture=picture, depth_scale=1000).row()["depth"]
    view = View(depth_picture=kept, depth_scale=1000)
    assert view.depth_m.dtype == np.float32 and view.depth_m.tolist() == [[0, 1.5, np.float32(65.535)]]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(kept["bytes"]))), millimetres)
    assert View().depth_m is None


def test_depth_that_does_not_fit_is_not_stored():
    with pytest.raises(ValueError, match="int32"):
        View(depth_picture=Image.fromarray(np.full((2, 2), 70000, np.int32))).row()


@pytest.mark.parametrize("scale", [None, 0, -1])
def test_depth_without_a_scale_is_refused(scale):
    with pytest.raises(RecordError, match=f"depth_scale is {scale}") as caught:
        _ = View(depth_picture=Image.fromarray(np.ones((2, 2), np.uint16)), depth_scale=scale).depth_m
    assert caught.value.field == "depth_scale"


@pytest.mark.parametrize("array", [np.ones((2, 2), np.uint8), np.ones((2, 2, 3), np.uint8), np.ones((2, 2), bool)])
def test_depth_of_other_kinds_is_refused(array):
    with pytest.raises(RecordError, match="expected one 16-bit channel"):
        _ = View(depth_picture=Image.fromarray(array), depth_scale=1000).depth_m


def test_pictures_are_rgb_and_upright():
    assert View(picture=colours("RGBA")).image.mode == "RGB" == View(picture=colours("L")).image.mode
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    colours().save(turned, "JPEG", exif=exif)
    assert View(picture={"bytes": turned.getvalue(), "path": None}).image.size == (6, 8)


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path):
    path = tmp_path / "a.jpg"
    colours().resize((300, 200)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(RecordError, match="a.jpg cannot be decoded") as caught:
        _ = View(picture=str(path)).image
    assert (caught.value.field, caught.value.file) == ("image", str(path))
    with pytest.raises(RecordError, match="the image b.jpg cannot be decoded"):
        _ = View(picture={"bytes": b"no picture", "path": None}, image_path="b.jpg").image
    with pytest.raises(RecordError, match="the view c.jpg has no picture"):
        _ = View(image_path="c.jpg").image
    with pytest.raises(RecordError, match="none.jpg cannot be decoded"):
        _ = View(picture=str(tmp_path / "none.jpg")).image


# Geometry


def test_boxes_and_points_in_the_camera_of_each_view():
    """Whatever the frame, a box is at the same place of the scan world."""
    sample = sample_with()
    to_world = {"scan": np.eye(4), "aligned": invert_rigid(ALIGNMENT)}
    for frame, index in (("scan", None), ("aligned", None), ("camera", 0), ("camera", 1), ("camera", None)):
        box = Box(BOX, "zxy", frame, index)
        in_world = transform_points(to_world.get(frame, POSES[index or 0]), box_corners(BOX, "zxy"))
        for view in (0, 1):
            corners = box_corners(sample.box_in_view(box, view), "zxy")
            assert np.allclose(transform_points(POSES[view], corners), in_world, atol=1e-9)
            point = Point(1, None, BOX[:3], frame)
            if index != 1:  # a point in "camera" is in that of view 0
                assert np.allclose(transform_points(POSES[view], sample.point_in_view(point, view)), in_world.mean(0))


def test_poses_in_both_worlds():
    assert np.allclose(sample_with().camera_to("aligned", 1), ALIGNMENT @ POSES[1])
    assert sample_with().camera_to("scan", 1) is POSES[1]
    aligned = sample_with(pose_frame="aligned")
    assert aligned.camera_to("aligned", 0) is POSES[0]
    assert np.allclose(ALIGNMENT @ aligned.camera_to("scan", 0), POSES[0])


def test_the_camera_of_a_box_needs_no_pose():
    sample = sample_with(poses=[None, None], pose_frame=None, alignment=None)
    assert np.array_equal(sample.frame_to_camera("camera", 1, 1), np.eye(4))
    assert np.allclose(sample.box_in_view(Box(BOX, "zxy", "camera", 0), 0), BOX)


def test_what_is_needed_and_not_there_is_named():
    without_alignment = sample_with(alignment=None)
    assert np.allclose(without_alignment.frame_to_camera("scan", None, 0), invert_rigid(POSES[0]))
    with pytest.raises(RecordError, match="'scan' world, but world_to_aligned is not there to reach 'aligned'"):
        without_alignment.frame_to_camera("aligned", None, 0)
    with pytest.raises(RecordError, match="view 1 has no pose") as caught:
        sample_with(poses=[POSES[0], None]).frame_to_camera("camera", 0, 1)
    assert (caught.value.field, caught.value.record_id) == ("camera_to_world", "s")
    with pytest.raises(RecordError, match="unknown frame 'world'"):
        sample_with().frame_to_camera("world", None, 0)
    for view in (2, -1):
        with pytest.raises(RecordError, match=f"view {view} is spoken of, but there are 2"):
            sample_with().frame_to_camera("camera", view, view)
        with pytest.raises(RecordError, match=f"view {view} is spoken of, but there are 2"):
            sample_with().frame_to_camera("scan", None, view)
    with pytest.raises(RecordError, match="the point has no xyz"):
        sample_with().point_in_view(Point(0, (1, 2), None))


# Marks and messages


def test_marks_are_drawn_on_copies():
    views = tuple(View(picture=Image.new("RGB", (60, 40), "white")) for _ in range(2))
    sample = SceneSample(id="s", views=views, marks=(SceneMark(1, "cross", "red", (30, 20)),))
    plain, marked = sample.marked_images()
    assert marked.getpixel((30, 20)) == (255, 0, 0) and plain.getpixel((30, 20)) == (255, 255, 255)
    assert sample.views[1].image.getpixel((30, 20)) == (255, 255, 255)


def test_a_mark_that_cannot_be_drawn_names_the_sample():
    views = (View(picture=Image.new("RGB", (60, 40))),)
    sample = SceneSample(id="s", source="toy", views=views, marks=(SceneMark(3, "cross", "red", (30, 20)),))
    with pytest.raises(RecordError) as caught:
        sample.marked_images()
    assert (caught.value.field, caught.value.source, caught.value.record_id) == ("marks", "toy", "s")


def test_tags_place_the_views():
    views = tuple(View(picture=Image.new("RGB", (4, 4), color)) for color in ("red", "blue"))
    sample = SceneSample(views=views, question="See <image> and <image>.", answer="Yes.", system="Be short.")
    system, user, assistant = sample.messages()
    assert system == {"role": "system", "content": [{"type": "text", "text": "Be short."}]}
    assert [part["type"] for part in user["content"]] == ["text", "image", "text", "image", "text"]
    assert user["content"][3]["image"] is views[1].image and user["content"][4]["text"] == "."
    assert assistant == {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}


def test_without_tags_views_come_first():
    views = tuple(View(picture=Image.new("RGB", (4, 4))) for _ in range(2))
    sample = SceneSample(id="s", views=views, question="What?")
    content = sample.messages(with_answer=False)[1]["content"]
    assert [part["type"] for part in content] == ["image", "image", "text"]
    others = [Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4))]
    shown = sample.messages(images=others, with_answer=False)[1]["content"]
    assert [part["image"] for part in shown[:2]] == others
    assert sample.messages(with_answer=False)[0]["content"][0]["text"] == "You are a helpful assistant."


def test_wrong_messages_are_refused():
    views = (View(picture=Image.new("RGB", (4, 4))),)
    with pytest.raises(ValueError, match="sample 's' has no answer"):
        SceneSample(id="s", views=views, question="What?").messages()
    with pytest.raises(ValueError, match="<image>"):
        SceneSample(id="s", views=views, question="<image><image>").messages(with_answer=False)


def test_rows_are_opened_undecoded_whatever_their_format(tmp_path, monkeypatch):
    """Arrow, torch and numpy formats, lists of rows and of samples give the same sample; a transform is respected."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).save(tmp_path / "a.png")
    views = [{"image": str(tmp_path / "a.png"), "camera_to_world": np.eye(4), "frame_id": 3}]
    row = complete_row(id="r", views=views, metadata={"note": 1}, answer="A bed.")
    rows = datasets.Dataset.from_list([complete_row(id="q"), row], features=scene_features())
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", None)  # decoding fails
        opened = [SceneSample.open(rows.with_format(name), 1) for name in (None, "torch", "numpy", "arrow")]
        opened += [
            SceneSample.open([None, row], 1),
            SceneSample.open([None, opened[0]], 1),
            SceneSample.open(rows, -1),
        ]
        for sample in opened:
            assert (sample.id, sample.answer, sample.metadata) == ("r", "A bed.", {"note": 1})
            assert sample.views[0].frame_id == 3 and (sample.views[0].camera_to_world == np.eye(4)).all()
            assert sample.views[0].size == (8, 6)
    assert opened[0].views[0].image.size == (8, 6)
    changed = rows.with_transform(lambda batch: {"id": [f"{name}!" for name in batch["id"]]})
    assert SceneSample.open(changed, 1).id == "r!"
    with pytest.raises(IndexError):
        SceneSample.open(rows, 2)


def test_depth_in_metres_is_taken_as_it_is_and_stored_in_millimetres():
    depth = np.array([[0, 1.2345], [0.0004, 8]], np.float32)
    view = View(picture=np.zeros((2, 2, 3), np.uint8), depth_picture=depth)
    assert (view.depth_m == depth).all() and view.size == (2, 2)
    stored = SceneSample.from_row(complete_row(views=[view.row()])).views[0]
    assert stored.depth_scale == 1000 and np.abs(stored.depth_m - depth).max() < 0.000501
    far = View(depth_picture=np.array([[250.0, np.nan, -1]])).encoded()
    assert np.allclose(far.depth_m, [[250, 0, 0]], atol=0.004)
    assert view.encoded().encoded().picture == view.encoded().picture  # once is enough


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png"])
def test_sizes_are_those_of_upright_pictures(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / name, exif=exif)
    stored = {"path": None, "bytes": (tmp_path / name).read_bytes()}
    for picture in (str(tmp_path / name), stored):
        assert View(picture).size == View(picture).image.size == (30, 40)
