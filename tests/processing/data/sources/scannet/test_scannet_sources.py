"""ScanNet's scenes in the posed_images layout and as its publishers give them out, and every damaged frame."""

import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.data import RecordError, SceneSample, load_multiview, read_report
from gap_mllm.processing.data.sources.scannet.scenes import ScannetScenes
from tests.processing.data.formats import FORMATS, load_damaged, rows_equal
from tests.processing.data.scene_geometry import color_errors, points_in_boxes


POSED = FORMATS / "scannet_posed_images"
EXPORT = FORMATS / "scannet_sens_export"
INFOS = [FORMATS / "embodiedscan" / f"embodiedscan_infos_{split}.pkl" for split in ("train", "val")]


def lost(path):
    path.write_text("\n".join(["-inf -inf -inf -inf"] * 4))


@pytest.fixture
def posed_copy(tmp_path):
    shutil.copytree(POSED, tmp_path / "data")
    return tmp_path / "data"


# The posed_images layout


@pytest.fixture(scope="module")
def posed(tmp_path_factory):
    return load_multiview("scannet_posed", POSED, cache_dir=tmp_path_factory.mktemp("cache"))


def test_a_row_is_a_scene(posed):
    assert {split: rows["id"] for split, rows in posed.items()} == {"train": ["scene9000_00"], "val": ["scene9001_00"]}
    sample = SceneSample.from_row(posed["train"][0])
    assert (sample.task, sample.pose_frame, sample.question, sample.answer) == ("scene", "scan", None, None)
    assert [view.frame_id for view in sample.views] == list(range(0, 120, 10))
    assert [box.instance_id for box in sample.boxes] == ["0", "1", "2"]
    assert sample.metadata["sceneType"] == "Apartment" and sample.metadata["object_ids"] == "scannet"
    assert "axisAlignment" not in sample.metadata


def test_posed_rows_stream_as_they_are_prepared(posed, tmp_path):
    for split, rows in posed.items():
        assert rows_equal(rows, load_multiview("scannet_posed", POSED, split, streaming=True, cache_dir=tmp_path)) == 1


def test_depth_lies_in_the_boxes(posed):
    for rows in posed.values():
        counts = points_in_boxes(SceneSample.from_row(rows[0]))
        assert (counts.max(0) > 100).all()


def test_a_point_has_one_colour_in_two_views(posed):
    """Depth of one view, projected into the next, meets the same colours (JPEG and edges leave a few grey levels)."""
    error, num_seen = color_errors(SceneSample.from_row(posed["train"][0]), 0, 1)
    assert num_seen > 1000 and error < 8


def test_infos_give_oriented_boxes(tmp_path):
    infos = tuple(str(path) for path in INFOS)
    row = load_multiview("scannet_posed", POSED, "train", infos_file=infos, max_views=4, cache_dir=tmp_path)[0]
    sample = SceneSample.from_row(row)
    assert [view.frame_id for view in sample.views] == [0, 30, 70, 110]  # linspace(0, 11, 4, dtype=int)
    assert sample.metadata["object_ids"] == "embodiedscan" and sample.boxes[1].euler_order == "ZXY"
    assert (points_in_boxes(sample).max(0) > 50).all()


def test_a_loaded_source_goes_to_a_worker(tmp_path):
    rows = load_multiview("scannet_posed", POSED, "train", streaming=True, max_views=2, cache_dir=tmp_path)
    first = next(iter(rows))
    assert next(iter(pickle.loads(pickle.dumps(rows))))["id"] == first["id"]


def damaged(folder, tmp_path, **options):
    rows = load_damaged("scannet_posed", folder, tmp_path, **options)["train"]
    return SceneSample.from_row(rows[0]), read_report(tmp_path / "report.jsonl")


@pytest.mark.parametrize(
    ("folder", "field", "file", "says"),
    [
        ("pose_shape", "camera_to_world", "00010.txt", r"\(3, 4\)"),
        ("pose_not_rigid", "camera_to_world", "00010.txt", "determinant -1.0000"),
        ("depth_other_size", "depth_intrinsics", "00010.png", "40 x 30"),
        ("depth_8bit", "depth", "00010.png", "'L'"),
        ("image_truncated", "image", "00010.jpg", "cannot be decoded"),
    ],
)
def test_a_broken_frame_is_named_or_left_out(folder, field, file, says, tmp_path):
    with pytest.raises(RecordError, match=says) as caught:
        load_damaged("scannet_posed", folder, tmp_path)
    error = caught.value
    assert (error.source, error.field, error.record_id) == ("scannet_posed", field, "scene9000_00")
    assert error.file.endswith(file)

    sample, events = damaged(folder, tmp_path, skip_bad_samples=True, report_file=tmp_path / "report.jsonl")
    assert [view.frame_id for view in sample.views] == [0]
    assert [event["field"] for event in events if event["event"] == "skipped"] == [field]


@pytest.mark.parametrize("folder", ["pose_inf", "pose_nan"])
@pytest.mark.parametrize("skip", [False, True])
def test_lost_tracking_is_counted_in_both_modes(folder, skip, tmp_path):
    report = tmp_path / "report.jsonl"
    sample, events = damaged(folder, tmp_path, skip_bad_samples=skip, report_file=report)
    assert [view.frame_id for view in sample.views] == [0]
    marks = [event for event in events if event["event"] == "lost_tracking"]
    assert len(marks) == 1 and marks[0]["file"].endswith("00010.txt")


def test_a_depth_map_without_readings_is_counted_and_gives_no_points(tmp_path):
    sample, events = damaged("depth_all_zero", tmp_path, report_file=tmp_path / "report.jsonl")
    assert [view.frame_id for view in sample.views] == [0, 10] and sample.views[1].image.size == (162, 121)
    assert not sample.views[1].depth_m.any() and sample.views[0].depth_m.any()
    assert [event["event"] for event in events].count("no_depth_reading") == 1


def test_grey_and_transparent_pictures_become_rgb(tmp_path):
    sample, _ = damaged("image_grey_alpha", tmp_path, report_file=tmp_path / "report.jsonl")
    assert [view.image.mode for view in sample.views] == ["RGB", "RGB"]
    grey = np.asarray(sample.views[0].image)
    assert (grey[..., 0] == grey[..., 1]).all()


def test_a_scene_without_a_usable_frame_is_refused(posed_copy, tmp_path):
    for path in (posed_copy / "scannet" / "posed_images" / "scene9000_00").glob("0*.txt"):
        lost(path)
    with pytest.raises(RecordError, match="no usable frame: tracking was lost in 12") as caught:
        load_multiview("scannet_posed", posed_copy, cache_dir=tmp_path / "cache")
    assert (caught.value.record_id, caught.value.field) == ("scene9000_00", "views")
    report = tmp_path / "report.jsonl"
    splits = load_multiview(
        "scannet_posed", posed_copy, skip_bad_samples=True, report_file=report, cache_dir=tmp_path / "cache"
    )
    assert len(splits["train"]) == 0 and splits["val"]["id"] == ["scene9001_00"]
    events = [event["event"] for event in read_report(report)]
    assert events.count("lost_tracking") == 12 and events.count("skipped") == 1


def test_pictures_of_another_size_than_their_intrinsics_are_refused(posed_copy, tmp_path):
    path = posed_copy / "scannet" / "posed_images" / "scene9000_00" / "00000.jpg"
    Image.open(path).resize((81, 60)).save(path)
    with pytest.raises(RecordError, match="81 x 60") as caught:
        load_multiview("scannet_posed", posed_copy, cache_dir=tmp_path / "cache")
    assert caught.value.field == "intrinsics"


def test_a_frame_without_a_pose_file_is_refused(posed_copy, tmp_path):
    (posed_copy / "scannet" / "posed_images" / "scene9000_00" / "00030.txt").unlink()
    with pytest.raises(RecordError, match="no pose file"):
        load_multiview("scannet_posed", posed_copy, cache_dir=tmp_path / "cache")


def test_bytes_after_a_picture_are_harmless(posed_copy):
    path = posed_copy / "scannet" / "posed_images" / "scene9000_00" / "00000.jpg"
    path.write_bytes(path.read_bytes() + b"\0\0\0")
    assert len(ScannetScenes(posed_copy).views("scene9000_00")) == 12


def test_a_missing_alignment_is_counted(posed_copy, tmp_path):
    shutil.rmtree(posed_copy / "scannet" / "scans")
    report = tmp_path / "report.jsonl"
    rows = load_multiview("scannet_posed", posed_copy, report_file=report, cache_dir=tmp_path / "cache")
    assert rows["train"][0]["world_to_aligned"] is None
    assert [event["event"] for event in read_report(report)] == ["no_axis_alignment"] * 2


# Official exports


def export_rows(data_dir, cache, **options):
    return load_multiview("scannet", data_dir, "train", cache_dir=cache, **options)


@pytest.fixture
def export_copy(tmp_path):
    shutil.copytree(EXPORT, tmp_path / "data")
    return tmp_path / "data"


def test_an_export_is_read(tmp_path):
    rows = export_rows(EXPORT, tmp_path)
    sample = SceneSample.from_row(rows[0])
    assert [view.frame_id for view in sample.views] == [0, 1, 2]
    assert [view.image.size for view in sample.views] == [(162, 121)] * 3
    assert sample.views[0].depth_m.shape == (60, 80)
    assert sample.views[0].intrinsics[0, 0] == pytest.approx(146.27, abs=1e-4)
    assert sample.views[0].depth_intrinsics[0, 0] == pytest.approx(72.23, abs=1e-4)
    assert sample.metadata["objects"] == {"0": "table", "1": "chair", "2": "cabinet"} and not sample.boxes
    error, num_seen = color_errors(sample, 0, 2)
    assert num_seen > 1000 and error < 8
    assert rows_equal(rows, load_multiview("scannet", EXPORT, "train", streaming=True, cache_dir=tmp_path)) == 1


def test_a_recording_holds_what_was_exported_from_it(tmp_path):
    exported = SceneSample.from_row(export_rows(EXPORT, tmp_path, frames="export")[0])
    rows = export_rows(EXPORT, tmp_path, frames="sens")
    recorded = SceneSample.from_row(rows[0])
    for view, other in zip(exported.views, recorded.views, strict=True):
        assert np.array_equal(np.asarray(view.image), np.asarray(other.image))
        assert np.array_equal(view.depth_m, other.depth_m) and view.frame_id == other.frame_id
        assert np.allclose(view.camera_to_world, other.camera_to_world, atol=1e-5)
        assert np.allclose(view.intrinsics, other.intrinsics) and other.depth_scale == 1000
        assert np.allclose(view.depth_intrinsics, other.depth_intrinsics)
    assert [view.timestamp for view in recorded.views] == sorted(view.timestamp for view in recorded.views)
    assert recorded.views[2].image_path == "scene9000_00.sens/2"
    streamed = load_multiview("scannet", EXPORT, "train", streaming=True, frames="sens", cache_dir=tmp_path)
    assert rows_equal(rows, streamed) == 1


def test_frames_are_thinned_by_step_and_number(tmp_path):
    for form in ("export", "sens"):
        row = export_rows(EXPORT, tmp_path, frames=form, frame_step=2)[0]
        assert [view["frame_id"] for view in row["views"]] == [0, 2]
        row = export_rows(EXPORT, tmp_path, frames=form, max_views=2)[0]
        assert [view["frame_id"] for view in row["views"]] == [0, 2]


def test_a_recording_alone_is_read_and_its_lost_frames_counted(export_copy, tmp_path):
    folder = export_copy / "scans" / "scene9000_00"
    for name in ("color", "depth", "pose", "intrinsic"):
        shutil.rmtree(folder / name)
    data = bytearray((folder / "scene9000_00.sens").read_bytes())
    start = pose_offset(data)
    data[start : start + 64] = np.full(16, -np.inf, "<f4").tobytes()
    (folder / "scene9000_00.sens").write_bytes(data)
    report = tmp_path / "report.jsonl"
    row = export_rows(export_copy, tmp_path / "cache", report_file=report)[0]
    assert [view["frame_id"] for view in row["views"]] == [1, 2]
    assert [(event["event"], event["reason"]) for event in read_report(report)] == [
        ("lost_tracking", "frames[0].pose")
    ]


def pose_offset(data):
    """Where the first frame's pose begins: after name, four matrices, codecs, sizes, shift and count."""
    name_length = int.from_bytes(data[4:12], "little")
    return 12 + name_length + 4 * 64 + 8 + 16 + 4 + 8


def test_a_missing_export_is_said(export_copy, tmp_path):
    shutil.rmtree(export_copy / "scans" / "scene9000_00" / "color")
    with pytest.raises(RecordError, match="SensReader"):
        export_rows(export_copy, tmp_path / "cache", frames="export")


def test_missing_intrinsics_are_said(export_copy, tmp_path):
    (export_copy / "scans" / "scene9000_00" / "intrinsic" / "intrinsic_color.txt").unlink()
    with pytest.raises(RecordError, match="intrinsics of the pictures"):
        export_rows(export_copy, tmp_path / "cache")


def test_moved_cameras_and_scans_of_the_test_set_are_counted(export_copy, tmp_path):
    shutil.copytree(export_copy / "scans" / "scene9000_00", export_copy / "scans_test" / "scene9002_00")
    folder = export_copy / "scans_test" / "scene9002_00"
    (folder / "scene9000_00.txt").rename(folder / "scene9002_00.txt")
    text = (folder / "scene9002_00.txt").read_text().splitlines()
    (folder / "scene9002_00.txt").write_text("\n".join(text[1:]))
    (folder / "intrinsic" / "extrinsic_color.txt").write_text("1 0 0 0.1\n0 1 0 0\n0 0 1 0\n0 0 0 1")
    report = tmp_path / "report.jsonl"
    splits = load_multiview("scannet", export_copy, report_file=report, cache_dir=tmp_path / "cache")
    assert {split: rows["id"] for split, rows in splits.items()} == {
        "train": ["scene9000_00"],
        "test": ["scene9002_00"],
    }
    assert splits["test"][0]["world_to_aligned"] == np.eye(4).tolist()
    assert sorted(event["event"] for event in read_report(report)) == ["moved_camera", "no_axis_alignment"]


@pytest.mark.parametrize("options", [{"frames": "video"}, {"frame_step": 0}])
def test_options_are_checked(options, tmp_path):
    with pytest.raises(ValueError, match=next(iter(options))):
        export_rows(EXPORT, tmp_path, **options)


def test_a_folder_without_scans_is_refused(tmp_path):
    (tmp_path / "data" / "scans").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="scans/<scene>"):
        export_rows(tmp_path / "data", tmp_path / "cache")
