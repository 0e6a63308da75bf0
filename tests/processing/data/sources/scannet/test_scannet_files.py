"""ScanNet's box files, split lists, meshes and `.sens` recordings, and what is wrong with broken ones."""

import json
import shutil
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch

from gap_mllm.processing.data import RecordError, SceneSample, load_multiview, read_report
from gap_mllm.processing.data.sources.scannet.mesh import read_ply_vertices
from gap_mllm.processing.data.sources.scannet.scan_files import read_aabbs, scannet_splits
from gap_mllm.processing.data.sources.scannet.sens_file import SensFile
from tests.processing.data.formats import FORMATS


POSED = FORMATS / "scannet_posed_images"
EXPORT = FORMATS / "scannet_sens_export"
SENS = EXPORT / "scans" / "scene9000_00" / "scene9000_00.sens"


@pytest.fixture
def export_copy(tmp_path):
    shutil.copytree(EXPORT, tmp_path / "data")
    return tmp_path / "data"


# Box files


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_a_box_file_runs_no_code(tmp_path, capsys):
    torch.save({"aabb_obj_ids": Evil(), "aabb_corner_xyz": np.zeros((1, 8, 3))}, tmp_path / "a.pth")
    with pytest.raises(RecordError, match="UnpicklingError") as caught:
        read_aabbs(tmp_path / "a.pth")
    assert caught.value.file.endswith("a.pth") and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"xyz": np.zeros(3)}, "KeyError"),
        ({"aabb_obj_ids": np.arange(2), "aabb_corner_xyz": np.ones((1, 8, 3))}, r"\(1, 8, 3\)"),
        ({"aabb_obj_ids": np.array([4]), "aabb_corner_xyz": np.ones((1, 8, 3))}, "object 4 has sizes"),
        ({"aabb_obj_ids": np.array([4]), "aabb_corner_xyz": np.full((1, 8, 3), np.nan)}, "NaN"),
    ],
)
def test_a_broken_box_file_is_named(content, says, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(RecordError, match=says) as caught:
        read_aabbs(tmp_path / "a.pth")
    assert caught.value.file.endswith("a.pth")


def test_box_files_of_tensors_are_read(tmp_path):
    corners = torch.tensor([[[0.0, 0, 0], [2, 4, 6]] * 4])
    torch.save({"aabb_obj_ids": torch.tensor([12]), "aabb_corner_xyz": corners}, tmp_path / "a.pth")
    box = read_aabbs(tmp_path / "a.pth", {"12": "lamp"})["12"]
    assert box["center"].tolist() == [1, 2, 3] and box["size"].tolist() == [2, 4, 6] and box["label"] == "lamp"


# Splits


def test_splits_follow_the_official_lists(tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "scannetv2_train.txt").write_text("scene9001_00\n")
    assert scannet_splits([lists], ["scene9000_00", "scene9001_00"]) == {
        "train": ["scene9001_00"],
        "unlisted": ["scene9000_00"],
    }
    assert scannet_splits([tmp_path], ["scene9000_00"]) == {"train": ["scene9000_00"]}
    assert scannet_splits([tmp_path, POSED / "scannet"], ["scene9001_00"]) == {"val": ["scene9001_00"]}


# Boxes of ScanNet's own annotation


def write_mesh(folder, form="binary_little_endian"):
    """Two cubes of 0.4 and 0.6 m in the scan frame, segments 5 and 7, and one vertex that belongs to nothing."""
    corners = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T
    vertices = np.concatenate([corners * 0.4, corners * 0.6 + [2, 0, 0], [[9, 9, 9]]]).astype("<f4")
    header = (
        f"ply\nformat {form} 1.0\ncomment made by hand\nelement vertex {len(vertices)}\nproperty float x\n"
        "property float y\nproperty float z\nproperty uchar red\nelement face 0\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    if form == "ascii":
        body = "".join(f"{x} {y} {z} 255\n" for x, y, z in vertices).encode()
    else:
        order = "<" if "little" in form else ">"
        table = np.zeros(len(vertices), [("xyz", f"{order}f4", 3), ("red", "u1")])
        table["xyz"] = vertices
        body = table.tobytes()
    (folder / f"{folder.name}_vh_clean_2.ply").write_bytes(header.encode() + body)
    segments = [5] * 8 + [7] * 8 + [1]
    (folder / f"{folder.name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps({"segIndices": segments}))
    groups = [
        {"id": 0, "objectId": 0, "segments": [5], "label": "box"},
        {"id": 1, "objectId": 3, "segments": [7, 99], "label": "crate"},
        {"id": 2, "objectId": 4, "segments": [1], "label": "speck"},
    ]
    (folder / f"{folder.name}.aggregation.json").write_text(json.dumps({"segGroups": groups}))
    return vertices


def test_boxes_are_the_aligned_bounds_of_the_mesh(export_copy, tmp_path):
    folder = export_copy / "scans" / "scene9000_00"
    vertices = write_mesh(folder)
    report = tmp_path / "report.jsonl"
    sample = SceneSample.from_row(
        load_multiview("scannet", export_copy, "train", report_file=report, cache_dir=tmp_path / "cache")[0]
    )
    assert [(box.label, box.instance_id, box.frame) for box in sample.boxes] == [
        ("box", "0", "aligned"),
        ("crate", "3", "aligned"),
    ]
    aligned = vertices @ sample.world_to_aligned[:3, :3].T + sample.world_to_aligned[:3, 3]
    for box, part in zip(sample.boxes, (aligned[:8], aligned[8:16]), strict=True):
        assert np.allclose(box.numbers[:3] - box.numbers[3:6] / 2, part.min(0), atol=1e-5)
        assert np.allclose(box.numbers[:3] + box.numbers[3:6] / 2, part.max(0), atol=1e-5)
    assert [(event["event"], event["reason"]) for event in read_report(report)] == [("no_box", "4")]


@pytest.mark.parametrize("form", ["ascii", "binary_big_endian", "binary_little_endian"])
def test_meshes_are_read_in_every_form(form, tmp_path):
    vertices = write_mesh(tmp_path, form)
    assert np.allclose(read_ply_vertices(tmp_path / f"{tmp_path.name}_vh_clean_2.ply"), vertices)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data[:-5], "ends before 17"),
        (lambda data: data.replace(b"vertex 17", b"vertex 99999999999"), "ends before"),
        (lambda data: data.replace(b"ply\n", b"obj\n", 1), "obj"),
        (lambda data: data.replace(b"float z", b"float w"), "vertices with"),
        (lambda data: data.replace(b"element vertex", b"element corner"), "corner"),
        (lambda data: data.replace(b"little_endian", b"middle_endian"), "middle"),
        (lambda data: data.replace(b"property uchar red", b"property list uchar int red"), "no number"),
        (lambda data: data[:60], "first element is vertices"),
        (lambda data: data[:-13] + np.float32(np.nan).tobytes() * 3 + b"\0", "NaN"),
    ],
)
def test_a_broken_mesh_is_named(change, says, tmp_path):
    write_mesh(tmp_path)
    path = tmp_path / f"{tmp_path.name}_vh_clean_2.ply"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(RecordError, match=says) as caught:
        read_ply_vertices(path)
    assert caught.value.file == str(path)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("_vh_clean_2.0.010000.segs.json", {"segIndices": [5] * 8}, "not of one mesh"),
        ("_vh_clean_2.0.010000.segs.json", {"segIndices": "5"}, "whole numbers"),
        (".aggregation.json", {"groups": []}, "segGroups"),
        (".aggregation.json", {"segGroups": [{"objectId": 1}]}, "label"),
    ],
)
def test_annotation_that_does_not_fit_is_named(file, content, says, export_copy, tmp_path):
    folder = export_copy / "scans" / "scene9000_00"
    write_mesh(folder)
    (folder / f"scene9000_00{file}").write_text(json.dumps(content))
    with pytest.raises(RecordError, match=says) as caught:
        load_multiview("scannet", export_copy, cache_dir=tmp_path / "cache")
    assert caught.value.file.endswith(file) and caught.value.record_id == "scene9000_00"


# Recordings


def fields_of(data):
    """Where the fields of a recording begin."""
    places, position = {"version": 0, "name_length": 4}, 12 + int.from_bytes(data[4:12], "little")
    for name, size in (("matrices", 256), ("codecs", 8), ("sizes", 16), ("shift", 4), ("count", 8), ("frame", 0)):
        places[name] = position
        position += size
    return places


def broken(tmp_path, change):
    """A recording after `change(data, places)`; opened, so that its header is read."""
    data = bytearray(SENS.read_bytes())
    data = change(data, fields_of(data)) or data
    path = tmp_path / "broken.sens"
    path.write_bytes(data)
    return path


def put(name, layout, *values, offset=0):
    """A change of one field."""

    def change(data, places):
        struct.pack_into(layout, data, places[name] + offset, *values)

    return change


def test_a_recording_lists_its_frames():
    sens = SensFile(SENS)
    assert (sens.color_size, sens.depth_size, sens.depth_shift, len(sens.frames)) == ((162, 121), (80, 60), 1000, 3)
    assert sens.intrinsics_color[0, 0] == pytest.approx(146.27)
    assert sens.depth(sens.frames[1]).shape == (60, 80) and sens.color(sens.frames[1]).startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        (put("version", "<I", 3), "version", "version 3.*expected version 4"),
        (put("name_length", "<Q", 2**62), "sensor_name", "too soon"),
        (put("matrices", "<f", np.nan), "intrinsics", "not finite"),
        (put("codecs", "<i", 0), "codecs", "codec 0"),
        (put("codecs", "<i", 2, offset=4), "codecs", "depth with codec 2"),
        (put("sizes", "<I", 4_000_000_000), "size", "4000000000 x 121"),
        (put("sizes", "<I", 0, offset=8), "size", "0 x 60"),
        (put("shift", "<f", 0), "depth_shift", "positive"),
        (put("count", "<Q", 2**60), "num_frames", "do not fit"),
        (put("frame", "<Q", 2**63, offset=80), "frames[0]", "9223372036854775808|announced"),
        (lambda data, places: data[: places["count"] + 3], "num_frames", "too soon"),
        (lambda data, places: data[: len(data) // 2], "frames[1]", "download complete"),
        (lambda data, places: data[:2], "version", "too soon"),
    ],
)
def test_a_broken_recording_is_named_and_allocates_nothing(change, field, says, tmp_path):
    path = broken(tmp_path, change)
    tracemalloc.start()
    with pytest.raises(RecordError, match=says) as caught:
        SensFile(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.field == field and caught.value.file == str(path)
    assert peak < 2**20


def test_a_depth_map_cannot_swell(tmp_path):
    """A small size in the header and data that unpack to far more: no more than the header's size is unpacked."""
    bomb = zlib.compress(bytes(50_000_000), 9)
    data = bytearray(SENS.read_bytes())
    places = fields_of(data)
    struct.pack_into("<Q", data, places["count"], 1)
    jpeg = SensFile(SENS).color(SensFile(SENS).frames[0])
    frame = data[places["frame"] : places["frame"] + 80] + struct.pack("<2Q", len(jpeg), len(bomb)) + jpeg + bomb
    path = tmp_path / "bomb.sens"
    path.write_bytes(data[: places["frame"]] + frame)
    sens = SensFile(path)
    tracemalloc.start()
    with pytest.raises(RecordError, match="more than 9600") as caught:
        sens.depth(sens.frames[0])
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert caught.value.field == "frames[0].depth"


@pytest.mark.parametrize(
    ("offset", "content", "read", "says"),
    [
        (0, b"\0" * 40, "color", "cannot be decoded"),
        ("depth", b"\xff" * 20, "depth", "cannot be unpacked"),
    ],
)
def test_broken_pictures_of_a_recording_are_named(offset, content, read, says, tmp_path):
    first = SensFile(SENS).frames[0]
    start = first.offset + (first.color_bytes if offset == "depth" else 0)
    data = bytearray(SENS.read_bytes())
    data[start : start + len(content)] = content
    path = tmp_path / "broken.sens"
    path.write_bytes(data)
    sens = SensFile(path)
    with pytest.raises(RecordError, match=says) as caught:
        getattr(sens, read)(sens.frames[0])
    assert caught.value.field == f"frames[0].{read}"


def test_pictures_of_another_size_than_the_header_says_are_refused(tmp_path):
    sens = SensFile(broken(tmp_path, put("sizes", "<4I", 160, 120, 40, 30)))
    with pytest.raises(RecordError, match=r"\(162, 121\), the header says \(160, 120\)"):
        sens.color(sens.frames[0])
    with pytest.raises(RecordError, match="more than 2400"):
        sens.depth(sens.frames[0])


def test_a_cut_off_picture_inside_a_recording_is_refused(tmp_path):
    first = SensFile(SENS).frames[0]
    data = bytearray(SENS.read_bytes())
    data[first.offset + first.color_bytes // 2 : first.offset + first.color_bytes] = bytes(
        first.color_bytes - first.color_bytes // 2
    )
    path = tmp_path / "broken.sens"
    path.write_bytes(data)
    sens = SensFile(path)
    with pytest.raises(RecordError, match="cannot be decoded"):
        sens.color(sens.frames[0])


def test_a_broken_frame_of_a_recording_is_left_out_in_lenient_reading(export_copy, tmp_path):
    path = export_copy / "scans" / "scene9000_00" / "scene9000_00.sens"
    frame = SensFile(path).frames[1]
    data = bytearray(path.read_bytes())
    data[frame.offset : frame.offset + 40] = bytes(40)
    path.write_bytes(data)
    options = {"frames": "sens", "cache_dir": tmp_path / "cache"}
    with pytest.raises(RecordError, match="cannot be decoded") as caught:
        load_multiview("scannet", export_copy, **options)
    assert (caught.value.record_id, caught.value.field) == ("scene9000_00", "frames[1].color")
    report = tmp_path / "report.jsonl"
    rows = load_multiview("scannet", export_copy, "train", skip_bad_samples=True, report_file=report, **options)
    assert [view["frame_id"] for view in rows[0]["views"]] == [0, 2]
    assert [event["event"] for event in read_report(report)] == ["skipped"]


def test_a_recording_too_large_for_a_row_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("gap_mllm.processing.data.sources.scannet.scannet_source.MAX_SENS_ROW_BYTES", 10_000)
    with pytest.raises(RecordError, match="max_views or frame_step"):
        load_multiview("scannet", EXPORT, frames="sens", cache_dir=tmp_path)
    rows = load_multiview("scannet", EXPORT, "train", frames="sens", max_views=1, cache_dir=tmp_path)
    assert len(rows[0]["views"]) == 1
