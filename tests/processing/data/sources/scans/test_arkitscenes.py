"""ARKitScenes: poses out of a world-to-camera path, times that nearly agree, boxes whose axes are rows."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.camera_geometry_gap_mllm import euler_to_matrix
from gap_mllm.processing.data import RecordError, SceneSample, load_multiview, read_report
from gap_mllm.processing.data.sources.scans.arkitscenes_source import (
    read_oriented_boxes,
    rotation_matrices,
    sky_direction,
)
from tests.processing.data.formats import FORMATS, rows_equal
from tests.processing.data.scene_geometry import points_in_boxes


ARKIT = FORMATS / "arkitscenes"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return load_multiview("arkitscenes", ARKIT, "train", cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def scan(tmp_path):
    shutil.copytree(ARKIT, tmp_path / "data")
    return tmp_path / "data" / "raw" / "Training" / "99000001"


def load_scan(scan, tmp_path, **options):
    """The row of a scan, and what was reported."""
    report = tmp_path / "report.jsonl"
    root = next(folder for folder in scan.parents if folder.name == "data")
    rows = load_multiview(
        "arkitscenes", root, "train", report_file=report, cache_dir=tmp_path / "cache", refresh=True, **options
    )
    return rows, read_report(report)


def test_a_scan_is_a_row(rows):
    sample = SceneSample.from_row(rows[0])
    assert rows["id"] == ["99000001"] and (sample.task, sample.pose_frame) == ("scene", "scan")
    assert [view.timestamp for view in sample.views] == [5417.167, 5417.267, 5417.367]
    assert sample.views[0].image_path == "lowres_wide/99000001_5417.167.png"
    assert np.allclose(sample.views[1].intrinsics, [[72.23, 0, 39.94], [0, 72.23, 29.94], [0, 0, 1]], atol=1e-4)
    assert [(box.label, box.instance_id, box.frame) for box in sample.boxes] == [
        ("table", "toy-0", "scan"),
        ("chair", "toy-1", "scan"),
        ("cabinet", "toy-2", "scan"),
    ]
    assert np.array_equal(sample.world_to_aligned, np.eye(4)) and sample.metadata["sky_direction"] == "Up"
    assert sample.metadata["objects"][2]["objectId"] == 3 and sample.metadata["skipped"] is False


def test_depth_lies_in_the_boxes(rows):
    """Only if poses are inverted and axes are rows: the table is turned by 0.3 rad."""
    sample = SceneSample.from_row(rows[0])
    assert sample.boxes[0].numbers[6] == pytest.approx(0.3, abs=1e-6)
    counts = points_in_boxes(sample)
    assert counts.sum() > 500 and (counts.max(0) > 50).all()


def test_streamed_rows_equal_prepared_ones(rows, tmp_path):
    assert rows_equal(rows, load_multiview("arkitscenes", ARKIT, "train", streaming=True, cache_dir=tmp_path)) == 1


def test_views_are_thinned(tmp_path, scan):
    row = load_scan(scan, tmp_path, max_views=2)[0][0]
    assert [view["timestamp"] for view in row["views"]] == [5417.167, 5417.367]


def test_rotation_vectors_turn_about_their_axis():
    matrices = rotation_matrices(np.array([[0, 0, np.pi / 2], [0, 0, 0], [np.pi, 0, 0]]))
    assert np.allclose(matrices[0], [[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert np.allclose(matrices[1], np.eye(3)) and np.allclose(matrices[2], np.diag([1, -1, -1]))
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    matrices = rotation_matrices(vectors)
    assert np.allclose(matrices @ matrices.swapaxes(1, 2), np.eye(3)) and np.allclose(np.linalg.det(matrices), 1)
    assert np.allclose((matrices @ vectors[..., None])[..., 0], vectors)


def test_a_frame_takes_the_nearest_pose_within_50_ms(scan, tmp_path):
    lines = (scan / "lowres_wide.traj").read_text().splitlines()
    times = [5417.167 - 0.045, 5417.267, 5417.367 + 0.055]
    lines = [f"{time:.8f} {line.split(maxsplit=1)[1]}" for time, line in zip(times, lines, strict=True)]
    (scan / "lowres_wide.traj").write_text("\n".join(lines))
    rows, events = load_scan(scan, tmp_path)
    assert [view["timestamp"] for view in rows[0]["views"]] == [5417.167, 5417.267]
    assert [event["event"] for event in events] == ["no_pose"] and "55 ms" in events[0]["reason"]


def test_a_pose_of_nan_is_lost_tracking_of_that_frame(scan, tmp_path):
    first, second, third = (scan / "lowres_wide.traj").read_text().splitlines()
    lines = [first, f"{second.split()[0]} nan nan nan nan nan nan", third.rpartition(" ")[0] + " -inf"]
    (scan / "lowres_wide.traj").write_text("\n".join(lines))
    rows, events = load_scan(scan, tmp_path)
    assert [view["timestamp"] for view in rows[0]["views"]] == [5417.167]
    assert [event["event"] for event in events] == ["lost_tracking"] * 2


def test_intrinsics_are_those_named_within_a_millisecond(scan, tmp_path):
    folder = scan / "lowres_wide_intrinsics"
    (folder / "99000001_5417.268.pincam").rename(folder / "99000001_5417.269.pincam")
    rows, events = load_scan(scan, tmp_path)
    assert [view["timestamp"] for view in rows[0]["views"]] == [5417.167, 5417.367]
    assert [event["event"] for event in events] == ["no_intrinsics"]


def test_frames_without_depth_stay(scan, tmp_path):
    (scan / "lowres_depth" / "99000001_5417.267.png").unlink()
    Image.fromarray(np.zeros((60, 80), np.uint16)).save(scan / "lowres_depth" / "99000001_5417.367.png")
    rows, events = load_scan(scan, tmp_path)
    assert [view["depth"] is None for view in rows[0]["views"]] == [False, True, False]
    assert [event["event"] for event in events] == ["no_depth_reading"]


def test_larger_pictures_have_their_own_intrinsics(scan, tmp_path):
    for name in ("vga_wide", "vga_wide_intrinsics"):
        (scan / name).mkdir()
    for path in (scan / "lowres_wide").iterdir():
        Image.open(path).resize((160, 120)).save(scan / "vga_wide" / path.name)
        (scan / "vga_wide_intrinsics" / f"{path.stem}.pincam").write_text("160 120 144.46 144.46 80.38 60.38")
    view = SceneSample.from_row(load_scan(scan, tmp_path, stream="vga_wide")[0][0]).views[0]
    assert view.intrinsics[0, 0] == pytest.approx(144.46, abs=1e-3) and view.image.size == (160, 120)
    assert view.depth_intrinsics[0, 0] == pytest.approx(72.23, abs=1e-3) and view.depth_m.shape == (60, 80)


def test_depth_of_another_size_gets_scaled_intrinsics(scan, tmp_path):
    for path in (scan / "lowres_depth").iterdir():
        Image.open(path).resize((160, 120), Image.Resampling.NEAREST).save(path)
    view = SceneSample.from_row(load_scan(scan, tmp_path)[0][0]).views[0]
    # integer pixel centres: u' = (u + 0.5) 2 - 0.5
    assert view.depth_intrinsics[0, 0] == pytest.approx(144.46, abs=1e-3)
    assert view.depth_intrinsics[0, 2] == pytest.approx(39.94 * 2 + 0.5, abs=1e-3)


def test_the_3dod_layout_is_read(scan, tmp_path):
    root = scan.parents[2]
    target = root / "3dod" / "Validation" / "99000002"
    target.mkdir(parents=True)
    (scan / "99000001_3dod_annotation.json").rename(target / "99000002_3dod_annotation.json")
    shutil.move(scan, target / "99000002_frames")
    shutil.rmtree(root / "raw")
    splits = load_multiview("arkitscenes", root, cache_dir=tmp_path / "cache")
    assert {split: rows["id"] for split, rows in splits.items()} == {"val": ["99000002"]}
    assert (points_in_boxes(SceneSample.from_row(splits["val"][0])).max(0) > 50).all()


def test_a_scan_without_annotation_is_counted(scan, tmp_path):
    (scan / "99000001_3dod_annotation.json").unlink()
    rows, events = load_scan(scan, tmp_path)
    assert rows[0]["boxes"] == [] and [event["event"] for event in events] == ["no_annotation"]


def test_the_sky_is_where_metadata_or_the_poses_say(scan, tmp_path):
    up = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # the camera's -y is the world's z
    turn = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # of the camera, about its axis
    poses = [up, up @ turn, up @ turn @ turn, up @ turn @ turn @ turn]
    assert [sky_direction(pose[None]) for pose in poses] == ["Up", "Left", "Down", "Right"]
    (scan.parents[1] / "metadata.csv").write_text("video_id,visit_id,fold,sky_direction\n99000001,1,Training,Left\n")
    rows, _ = load_scan(scan, tmp_path)
    assert json.loads(rows[0]["metadata"])["sky_direction"] == "Left"


def annotation(**shape):
    values = {"centroid": [0, 0, 0], "axesLengths": [1, 2, 3], "normalizedAxes": np.eye(3).ravel().tolist(), **shape}
    return {"data": [{"label": "bed", "uid": "a", "segments": {"obbAligned": values}}]}


def test_axes_are_rows_and_may_be_left_handed():
    rotation = euler_to_matrix(np.array([0.7, 0.1, -0.2]), "zxy")
    box = read_oriented_boxes(annotation(normalizedAxes=rotation.T.ravel().tolist()), "a.json")[0]
    assert np.allclose(euler_to_matrix(box["euler"], "zxy"), rotation)
    mirrored = rotation * [1, 1, -1]
    box = read_oriented_boxes(annotation(normalizedAxes=mirrored.T.ravel().tolist()), "a.json")[0]
    assert np.allclose(euler_to_matrix(box["euler"], "zxy"), rotation)


@pytest.mark.parametrize(
    ("shape", "field", "says"),
    [
        ({"axesLengths": [1, 0, 1]}, "data[0].segments.obbAligned.axesLengths", "sizes"),
        ({"normalizedAxes": [1] * 9}, "data[0].segments.obbAligned.normalizedAxes", "right angles"),
        ({"normalizedAxes": [1, 0, 0]}, "data[0].segments.obbAligned.normalizedAxes", r"\(3,\)"),
        ({"centroid": [0, 0, float("nan")]}, "data[0].segments.obbAligned.centroid", "NaN"),
    ],
)
def test_a_broken_box_is_named(shape, field, says, tmp_path):
    with pytest.raises(RecordError, match=says) as caught:
        read_oriented_boxes(annotation(**shape), "a.json")
    assert (caught.value.field, caught.value.file) == (field, "a.json")
    with pytest.raises(RecordError, match="list data"):
        read_oriented_boxes({"boxes": []}, "a.json")


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("lowres_wide.traj", "5417.1 0 0 0 1 2", "7 numbers"),
        ("lowres_wide.traj", "", "7 numbers"),
        ("lowres_wide.traj", "5417.1 0 0 0 1 2 x", "numbers"),
        ("lowres_wide.traj", "5417.1 0 0 0 1 2 inf", "infinite"),
        ("lowres_wide_intrinsics/99000001_5417.167.pincam", "80 60 72", "w h fx"),
        ("lowres_wide_intrinsics/99000001_5417.167.pincam", "80 60 72 72 a b", "w h fx"),
        ("lowres_wide_intrinsics/99000001_5417.167.pincam", "80 80 72 72 40 30", "another shape"),
        ("lowres_wide_intrinsics/calibration.pincam", "80 60 72 72 40 30", "no time in its name"),
    ],
)
def test_broken_files_are_named(file, text, says, scan, tmp_path):
    (scan / file).write_text(text)
    with pytest.raises(RecordError, match=says) as caught:
        load_scan(scan, tmp_path)
    assert (caught.value.source, caught.value.record_id) == ("arkitscenes", "99000001")
    assert caught.value.file.endswith(file)


def test_a_broken_frame_is_left_out_in_lenient_reading(scan, tmp_path):
    path = scan / "lowres_wide" / "99000001_5417.267.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RecordError, match="cannot be decoded"):
        load_scan(scan, tmp_path)
    rows, events = load_scan(scan, tmp_path, skip_bad_samples=True)
    assert [view["timestamp"] for view in rows[0]["views"]] == [5417.167, 5417.367]
    assert [event["event"] for event in events] == ["skipped"]


def test_a_scan_without_pictures_is_refused(scan, tmp_path):
    shutil.rmtree(scan / "lowres_wide")
    with pytest.raises(RecordError, match="no pictures"):
        load_scan(scan, tmp_path)


def test_a_scan_without_poses_near_its_pictures_is_refused(scan, tmp_path):
    (scan / "lowres_wide.traj").write_text("1.0 0 0 0 0 0 0")
    with pytest.raises(RecordError, match="none of 3 frames"):
        load_scan(scan, tmp_path)


def test_another_folder_or_stream_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(FileNotFoundError, match="raw/"):
        load_multiview("arkitscenes", tmp_path / "data", cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match="stream is 'ultrawide'"):
        load_multiview("arkitscenes", ARKIT, stream="ultrawide", cache_dir=tmp_path / "cache")
