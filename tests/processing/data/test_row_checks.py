"""Cameras that do not fit their pictures, and answers that contradict their points; rounding is no contradiction."""

import json
import pickle
import shutil
import struct

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.data import SOURCES, RecordError, SceneSample, complete_row, load_multiview
from gap_mllm.processing.data.inspection import inspect_source
from gap_mllm.processing.data.row_checks import answer_contradictions, check_row, depth_contradictions
from gap_mllm.processing.data.source_files import check_intrinsics, read_pickle
from tests.processing.data.formats import FORMATS
from tests.processing.data.toy_source import write_rows


K = [[40.0, 0, 19.5], [0, 40.0, 14.5], [0, 0, 1]]


@pytest.fixture
def folder(tmp_path):
    """Two views, the second a metre to the right of the first, both looking at a wall two metres away."""
    Image.new("RGB", (40, 30)).save(tmp_path / "0.jpg")
    Image.fromarray(np.full((30, 40), 2000, np.uint16)).save(tmp_path / "0.png")
    return tmp_path


def row_of(folder, **fields):
    poses = [np.eye(4), np.eye(4)]
    poses[1][0, 3] = 1.0
    picture, depth = ({"path": str(folder / name), "bytes": None} for name in ("0.jpg", "0.png"))
    camera = {"image": picture, "depth": depth, "depth_scale": 1000.0, "intrinsics": K, "depth_intrinsics": K}
    views = [{**camera, "camera_to_world": pose} for pose in poses]
    row = {"id": "r", "task": "reconstruction", "pose_frame": "scan", "views": views, "question": "Where?"}
    return complete_row(**{**row, **fields})


def marked(folder, xyz, pixel, view=0, answer=None):
    point = {"view": view, "pixel": pixel, "xyz": xyz, "frame": "camera", "label": "wall"}
    said = xyz if answer is None else answer
    return row_of(folder, points=[point], answer=json.dumps({"label": "wall", "pointmap": said}))


# Cameras


def test_intrinsics_are_those_of_a_camera_and_of_its_picture():
    check_intrinsics(K, (40, 30))
    check_intrinsics(np.eye(4) * 500)  # the size is not known
    for place, value in (((0, 0), -40.0), ((1, 1), 0.0), ((0, 2), np.nan), ((1, 2), np.inf)):
        wrong = np.array(K)
        wrong[place] = value
        with pytest.raises(RecordError, match="expected finite numbers, and focal lengths above 0") as caught:
            check_intrinsics(wrong, field="cam2img", file="a.jpg")
        assert (caught.value.field, caught.value.file) == ("cam2img", "a.jpg")
    for size in ((80, 60), (20, 15), (160, 30), (60, 45), (27, 20)):  # the last two: 1.5 times as large or small
        with pytest.raises(RecordError, match=r"\(19.5, 14.5\): these are intrinsics of another size"):
            check_intrinsics(K, size)


def damage(values, place, value):
    values = np.array(values)
    values[place] = value
    return values


@pytest.mark.parametrize(("place", "value", "says"), [((0, 0), -70.0, "focal"), ((0, 2), 400.0, "another size")])
@pytest.mark.parametrize(
    ("source", "fixture", "pattern"),
    [
        ("scannet", "scannet_sens_export", "intrinsic_color.txt"),
        ("scannet", "scannet_sens_export", "intrinsic_depth.txt"),
        ("scannet_posed", "scannet_posed_images", "intrinsic.txt"),
        ("scannet_posed", "scannet_posed_images", "depth_intrinsic.txt"),
        ("gap_mllm", "gap_mllm", "intrinsic.txt"),
        ("spar", "spar", "intrinsic_color.txt"),
    ],
)
def test_intrinsics_beside_pictures_are_checked(source, fixture, pattern, place, value, says, tmp_path):
    shutil.copytree(FORMATS / fixture, tmp_path / "data", ignore=shutil.ignore_patterns("*.sens"))
    for file in (tmp_path / "data").rglob(pattern):
        file.chmod(0o644)
        np.savetxt(file, damage(np.loadtxt(file), place, value))
    with pytest.raises(RecordError, match=says) as caught:
        load_multiview(source, tmp_path / "data", cache_dir=tmp_path / "cache")
    assert caught.value.field.endswith("intrinsics")


def damage_arkitscenes(folder):
    for file in folder.rglob("*.pincam"):
        width, height, fx, *rest = file.read_text().split()
        file.chmod(0o644)
        file.write_text(" ".join([width, height, f"-{fx}", *rest]))


def damage_vlm3r(folder):
    [file] = folder.rglob("*_frame_metadata_*.json")
    scenes = json.loads(file.read_text())
    for scene in scenes.values():
        scene["camera_intrinsics"]["fy"] *= -1
        for frame in scene["frames"]:  # the fixture has its colour pictures as a video only
            picture = file.parents[2] / frame["file_path_color"]
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (80, 60)).save(picture)
    file.chmod(0o644)
    file.write_text(json.dumps(scenes))


def damage_embodiedscan(folder):
    for file in folder.glob("*.pkl"):
        infos = read_pickle(file)
        for item in infos["data_list"]:
            for camera in (item, *item["images"]):
                if "cam2img" in camera:
                    camera["cam2img"] = -np.array(camera["cam2img"])
        file.chmod(0o644)
        file.write_bytes(pickle.dumps(infos))


def damage_scannet(folder):
    [file] = folder.rglob("*.sens")
    content = bytearray(file.read_bytes())
    (length,) = struct.unpack_from("<Q", content, 4)
    (focal,) = struct.unpack_from("<f", content, 12 + length)
    struct.pack_into("<f", content, 12 + length, -focal)
    file.chmod(0o644)
    file.write_bytes(content)


def damage_gap_mllm(folder):
    for file in folder.rglob("*.json"):
        records = [{**record, "cam2img": (-np.eye(4)).tolist()} for record in json.loads(file.read_text())]
        file.chmod(0o644)
        file.write_text(json.dumps(records))


@pytest.mark.parametrize(
    ("source", "fixture", "damaged", "options"),
    [
        ("arkitscenes", "arkitscenes", damage_arkitscenes, {}),
        ("vlm3r", "vlm3r", damage_vlm3r, {"frames": "processed"}),
        ("embodiedscan", "embodiedscan", damage_embodiedscan, {}),
        ("scannet", "scannet_sens_export", damage_scannet, {"frames": "sens"}),
        ("gap_mllm", "gap_mllm", damage_gap_mllm, {}),
    ],
)
def test_intrinsics_in_annotations_are_checked(source, fixture, damaged, options, tmp_path):
    shutil.copytree(FORMATS / fixture, tmp_path / "data")
    for path in (tmp_path / "data").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    damaged(tmp_path / "data")
    with pytest.raises(RecordError, match="focal lengths above 0") as caught:
        load_multiview(source, tmp_path / "data", cache_dir=tmp_path / "cache", **options)
    assert caught.value.field.endswith(("intrinsics", "cam2img"))


@pytest.mark.parametrize(("place", "value", "says"), [((0, 0), -70.0, "focal"), ((0, 2), 400.0, "another size")])
def test_intrinsics_of_any_row_are_checked(place, value, says, folder):
    wrong = damage(K, place, value).tolist()
    for name in ("intrinsics", "depth_intrinsics"):
        row = row_of(folder)
        row["views"][1][name] = wrong
        with pytest.raises(RecordError, match=says) as caught:
            check_row(row)
        assert caught.value.field == f"views[1].{name}"
    content = (folder / "0.jpg").read_bytes()
    row = row_of(folder, views=[{"image": {"bytes": content, "path": None}, "intrinsics": wrong}])
    with pytest.raises(RecordError, match=says):
        check_row(row)


# Answers


@pytest.mark.parametrize(
    ("xyz", "pixel", "view"),
    [
        ((0, 0, 2), (19.5, 14.5), 0),
        ((0.5, 0.25, 2.0), (29.5, 19.5), 0),
        ((0.5, 0.25, 2.0), (9.5, 19.5), 1),
        ((0.5, 0.25, 2.0), (31, 18), 0),  # a pixel or two aside
        ((0.0, 0.0, 0.005), (25, 20), 0),  # so near that rounding decides
    ],
)
def test_a_point_that_its_camera_sees_at_its_pixel_is_right(xyz, pixel, view, folder):
    check_row(marked(folder, xyz, pixel, view))


@pytest.mark.parametrize(
    ("xyz", "pixel", "view", "says"),
    [
        ((0.5, 0.25, 2.0), (9.5, 19.5), 0, r"is seen at pixel \(30, 20\) of view 0, but its pixel is \(9.5, 19.5\)"),
        ((0.5, 0.25, 2.0), (29.5, 19.5), 1, r"is seen at pixel \(10, 20\) of view 1"),
        ((0.5, 0.25, -2.0), (29.5, 19.5), 0, "lies 2.00 m behind the camera of view 0"),
    ],
)
def test_a_point_that_its_camera_sees_elsewhere_is_refused(xyz, pixel, view, says, folder):
    with pytest.raises(RecordError, match=says) as caught:
        check_row(marked(folder, xyz, pixel, view))
    assert caught.value.field == "points[0].xyz"


def test_without_pose_or_intrinsics_nothing_is_known_of_a_point(folder):
    for name, view in (("camera_to_world", 1), ("intrinsics", 0)):
        row = marked(folder, (0.5, 0.25, 2.0), (1, 1), view)
        row["views"][view][name] = None
        check_row(row)


def box(center, label="chair", **fields):
    parts = {"center": center, "size": (1, 1, 1), "euler": (0.5, 0, 0), "euler_order": "zxy", "frame": "camera"}
    return {**parts, "frame_index": 0, "label": label, **fields}


def said(center, label="chair"):
    return {"label": label, "bbox_3d": [*center, 1, 1, 1, 0.5, 0, 0]}


@pytest.mark.parametrize(
    ("fields", "answer", "says"),
    [
        (
            {"task": "detection3d", "boxes": [box((0, 0, 2)), box((3, 0, 2))]},
            [said((0, 0, 2)), said((1, 0, 2))],
            "box",
        ),
        ({"task": "detection3d", "boxes": [box((0, 0, 2))]}, [said((0, 0, 2), "table")], "box table"),
        ({"task": "grounding_box", "boxes": [box((0, 0, 2), None)]}, said((0, 0.5, 2)), "box"),
        ({"task": "grounding_frame", "target_frame": 1}, {"frame": 0}, "frame 0, but the target is in frame 1"),
        ({"task": "grounding", "target_frame": 1}, {"frame": 0, **said((0, 0, 2))}, "frame 0"),
    ],
)
def test_boxes_and_frames_that_the_fields_contradict_are_for_the_inspection(fields, answer, says, folder):
    row = row_of(folder, answer=json.dumps(answer), **fields)
    check_row(row)  # scores read the fields: edited boxes must be readable
    [error] = answer_contradictions(row)
    assert says in error.reason and "contradict each other" in error.reason and error.field == "answer"


def test_a_point_that_its_own_text_contradicts_is_refused(folder):
    fields = {"task": "reconstruction", "points": [{"xyz": (0, 0, 2), "frame": "camera"}]}
    with pytest.raises(RecordError, match="point.*contradict each other") as caught:
        check_row(row_of(folder, answer='{"pointmap": [0, 0, 4]}', **fields))
    assert caught.value.field == "answer"


def test_an_answer_that_rounds_its_fields_is_right(folder):
    def contradictions(**fields):
        return answer_contradictions(row_of(folder, **fields))

    boxes = [box((0.004, 0, 2.0049)), box((1, 0, 2), "table")]
    answer = json.dumps([said((0, 0, 2)), said((1, 0, 2), "table")])
    assert contradictions(task="detection3d", boxes=boxes, answer=answer) == []
    assert contradictions(task="detection3d", boxes=[box((0, 0, 2), frame="aligned")], answer=answer) == []
    assert contradictions(task="detection3d", boxes=boxes[:1], answer=answer) == []  # one object more is said
    assert contradictions(task="grounding_frame", target_frame=1, answer='{"frame": 1}') == []
    assert contradictions(task="scene_qa", answer='{"frame": 0}', target_frame=1) == []


# What the depth map says


def test_a_depth_that_the_map_does_not_have_is_a_contradiction(folder):
    def of(*args):
        return depth_contradictions(SceneSample.from_row(marked(folder, *args)))

    assert of((0.5, 0.25, 2.0), (29.5, 19.5)) == [] == of((0.5, 0.25, 2.3), (29.5, 19.5))
    [error] = of((1.0, 0.5, 4.0), (29.5, 19.5))  # on the same ray, twice as far
    assert "4.00 m deep in view 0, where the depth map reads 2.00 m" in error.reason and error.field == "points[0].xyz"
    values = np.full((30, 40), 2000, np.uint16)
    values[:, 31:] = 4000  # an edge beside the pixel
    Image.fromarray(values).save(folder / "0.png")
    assert of((1.0, 0.5, 4.0), (29.5, 19.5)) == []
    Image.fromarray(np.zeros((30, 40), np.uint16)).save(folder / "0.png")
    assert of((1.0, 0.5, 4.0), (29.5, 19.5)) == []  # no reading


def test_contradictions_are_seen_in_a_published_form(tmp_path):
    """A point moved aside ends strict reading; one moved along its ray is for the inspection, which has its depth."""
    shutil.copytree(FORMATS / "gap_mllm", tmp_path / "data")
    file = tmp_path / "data" / "data" / "train" / "scannet_recons_train_4frames.json"
    records = json.loads(file.read_text())
    x, y, z = json.loads(records[0]["conversations"][-1]["value"].strip("`json\n"))["pointmap"]
    records[0]["conversations"][-1]["value"] = json.dumps({"label": "table", "pointmap": [x + 2, y, z]})
    file.chmod(0o644)
    file.write_text(json.dumps(records))
    with pytest.raises(RecordError, match="contradict each other") as caught:
        load_multiview("gap_mllm", tmp_path / "data", cache_dir=tmp_path / "cache")
    assert caught.value.record_id == "scannet_recons_train_4frames-0000000"
    found = inspect_source("gap_mllm", tmp_path / "data")
    assert found.problems == {"broken records": 1}


def test_moved_boxes_are_listed_whatever_is_decoded(tmp_path):
    shutil.copytree(FORMATS / "gap_mllm", tmp_path / "data")
    file = tmp_path / "data" / "data" / "evaluation" / "threedod" / "scannet_det_val_4frames.json"
    records = json.loads(file.read_text())
    records[0]["boxes"][0]["bbox_3d"][0] += 50
    file.chmod(0o644)
    file.write_text(json.dumps(records))
    found = inspect_source("gap_mllm", tmp_path / "data", split="val")
    assert found.problems == {"contradictions": 1}
    assert "but the row has box" in found.contradictions[0]["reason"]


def test_an_inspection_lists_contradictions(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(SOURCES, "toy", ("tests.processing.data.toy_source", "ToySource"))
    (tmp_path / "data").mkdir()
    row = marked(folder, (1.0, 0.5, 4.0), (29.5, 19.5))
    wanted = ("task", "views", "points", "answer", "pose_frame")
    write_rows(tmp_path / "data" / "train.jsonl", {name: row[name] for name in wanted})
    for decode_all in (False, True):
        found = inspect_source("toy", tmp_path / "data", decode_all=decode_all)
        assert found.problems == {"contradictions": 1}
        assert "depth map reads 2.00 m" in found.summary() and len(found.as_dict()["contradictions"]) == 1
