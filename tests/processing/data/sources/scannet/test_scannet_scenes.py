"""ScanNet scenes by their id: views, boxes in both id spaces, labels, axis alignment, and what is not there."""

import pickle
import shutil

import numpy as np
import pytest

from gap_mllm.processing.data import RecordError
from gap_mllm.processing.data.sources.scannet.scenes import ScannetScenes
from tests.processing.data.formats import FORMATS


POSED = FORMATS / "scannet_posed_images"
AABBS = POSED / "scannet" / "pcd_with_object_aabbs"
EXPORT = FORMATS / "scannet_sens_export"
INFOS = [FORMATS / "embodiedscan" / f"embodiedscan_infos_{split}.pkl" for split in ("train", "val")]


@pytest.fixture
def posed_copy(tmp_path):
    shutil.copytree(POSED, tmp_path / "data")
    return tmp_path / "data"


def test_views_are_the_frames_by_number_or_evenly_some_of_them():
    scenes = ScannetScenes(POSED)
    assert scenes.scene_ids() == ["scene9000_00", "scene9001_00"] and "scene9000_00" in scenes
    assert [view["frame_id"] for view in scenes.views("scene9000_00")] == list(range(0, 120, 10))
    # linspace(0, 11, 5, dtype=int) = 0, 2, 5, 8, 11
    assert [view["frame_id"] for view in scenes.views("scannet/scene9000_00", 5)] == [0, 20, 50, 80, 110]
    assert len(scenes.views("scene9000_00", 40)) == 12
    view = scenes.views("scene9000_00", 1)[0]
    assert view["intrinsics"][0, 0] == pytest.approx(146.27) and view["depth_intrinsics"][0, 0] == pytest.approx(72.23)


def test_lost_frames_leave_before_any_are_chosen(posed_copy):
    folder = posed_copy / "scannet" / "posed_images" / "scene9000_00"
    for name in ("00000.txt", "00010.txt"):
        (folder / name).write_text("\n".join(["-inf -inf -inf -inf"] * 4))
    seen = []
    scenes = ScannetScenes(posed_copy, on_lost=lambda path: seen.append(path.name))
    # 10 frames are left, 20..110; linspace(0, 9, 4, dtype=int) = 0, 3, 6, 9
    assert [view["frame_id"] for view in scenes.views("scene9000_00", 4)] == [20, 50, 80, 110]
    scenes.views("scene9000_00")
    assert seen == ["00000.txt", "00010.txt"]


def test_numeric_names_are_not_sorted_as_text(posed_copy):
    folder = posed_copy / "scannet" / "posed_images" / "scene9000_00"
    for path in list(folder.glob("0*")):
        path.rename(path.with_name(f"{int(path.stem)}{path.suffix}"))
    assert [view["frame_id"] for view in ScannetScenes(posed_copy).views("scene9000_00")] == list(range(0, 120, 10))


def test_infos_choose_the_frames(tmp_path):
    infos = pickle.loads(INFOS[0].read_bytes())
    infos["data_list"][0]["images"] = infos["data_list"][0]["images"][4:1:-1]
    (tmp_path / "infos.pkl").write_bytes(pickle.dumps(infos))
    views = ScannetScenes(POSED, tmp_path / "infos.pkl").views("scene9000_00")
    assert [view["frame_id"] for view in views] == [40, 30, 20]
    assert views[0]["image_path"] == "scannet/posed_images/scene9000_00/00040.jpg"


def test_boxes_of_both_id_spaces():
    exact, oriented = ScannetScenes(POSED, aabb_root=AABBS), ScannetScenes(POSED, INFOS)
    assert (exact.id_space, oriented.id_space, ScannetScenes(POSED).id_space) == ("scannet", "embodiedscan", None)
    box = oriented.boxes("scene9000_00")["1"]
    assert box["label"] == "chair" and box["euler_order"] == "ZXY" and box["instance_id"] == "1"
    assert np.allclose([*box["center"], *box["size"], *box["euler"]], [-0.9, -0.4, 0.45, 0.5, 0.5, 0.9, 0.5, 0, 0])
    around = exact.boxes("scene9000_00")["1"]
    side = 0.5 * (np.cos(0.5) + np.sin(0.5))  # bounds of a square turned by half a radian
    assert np.allclose(around["center"], box["center"]) and np.allclose(around["size"], [side, side, 0.9])
    assert exact.has_boxes("scene9000_00") and not exact.has_boxes("scene9999_00")


def test_oriented_boxes_are_joined_by_overlap_not_by_id(tmp_path):
    infos = pickle.loads(INFOS[0].read_bytes())
    instances = infos["data_list"][0]["instances"]
    for number, instance in zip((7, 8, 9), instances, strict=True):
        instance["bbox_id"] = number
    instances[2]["bbox_3d"] = [9.0, 9.0, 0.5, 1, 1, 1, 0, 0, 0]  # far from every object
    (tmp_path / "infos.pkl").write_bytes(pickle.dumps(infos))
    joined = ScannetScenes(POSED, tmp_path / "infos.pkl", AABBS).oriented_boxes("scene9000_00")
    assert {key: (box["label"], box["instance_id"]) for key, box in joined.items()} == {
        "0": ("table", "0"),
        "1": ("chair", "1"),
    }
    assert joined["1"]["euler"][0] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="both"):
        ScannetScenes(POSED, INFOS).oriented_boxes("scene9000_00")


def test_labels_come_from_the_aggregation_or_the_infos(posed_copy):
    shutil.copytree(EXPORT / "scans", posed_copy / "scannet" / "scans", dirs_exist_ok=True)
    scenes = ScannetScenes(posed_copy, aabb_root=posed_copy / "scannet" / "pcd_with_object_aabbs")
    assert scenes.labels("scene9000_00") == {"0": "table", "1": "chair", "2": "cabinet"}
    assert scenes.boxes("scene9000_00")["2"]["label"] == "cabinet"
    assert scenes.labels("scene9001_00") == {} and scenes.boxes("scene9001_00")["2"]["label"] is None
    assert ScannetScenes(POSED, INFOS).labels("scene9001_00") == {"0": "table", "1": "chair", "2": "cabinet"}


def test_axis_alignment_has_three_answers(posed_copy):
    seen = []
    expected = [0.939693, -0.342020, 0, 0.31]
    assert np.allclose(ScannetScenes(POSED).world_to_aligned("scene9000_00")[0], expected)
    scans = posed_copy / "scannet" / "scans"
    text = (scans / "scene9000_00" / "scene9000_00.txt").read_text()
    (scans / "scene9000_00" / "scene9000_00.txt").write_text("\n".join(text.splitlines()[1:]))
    shutil.rmtree(scans / "scene9001_00")
    scenes = ScannetScenes(posed_copy, on_unaligned=seen.append)
    assert np.array_equal(scenes.world_to_aligned("scene9000_00"), np.eye(4))
    assert scenes.world_to_aligned("scene9001_00") is None and scenes.world_to_aligned("scene9001_00") is None
    assert [path.name for path in seen] == ["scene9000_00.txt", "scene9001_00.txt"]
    assert np.allclose(ScannetScenes(posed_copy, INFOS).world_to_aligned("scene9000_00")[0], expected, atol=1e-5)


@pytest.mark.parametrize("scene_id", ["scene9999_00", "../scene9000_00", "", 3])
def test_a_scene_that_is_not_there_is_named(scene_id):
    with pytest.raises(RecordError, match="no folder|leads out|no scene id"):
        ScannetScenes(POSED).views(scene_id)
    assert scene_id not in ScannetScenes(POSED)


def test_boxes_that_are_not_there_are_named(tmp_path):
    with pytest.raises(RecordError, match="scene9999_00.pth"):
        ScannetScenes(POSED, aabb_root=AABBS).boxes("scene9999_00")
    with pytest.raises(RecordError, match="in none of .*infos_train"):
        ScannetScenes(POSED, INFOS).boxes("scene9999_00")
    with pytest.raises(ValueError, match="aabb_root or an infos_file"):
        ScannetScenes(POSED).boxes("scene9000_00")
    with pytest.raises(FileNotFoundError, match="posed_images"):
        ScannetScenes(tmp_path)
    with pytest.raises(FileNotFoundError, match="aabb_root"):
        ScannetScenes(POSED, aabb_root=tmp_path / "nothing")


def test_a_number_of_views_below_one_is_refused():
    with pytest.raises(ValueError, match="at most 0 frames"):
        ScannetScenes(POSED).views("scene9000_00", 0)


def test_an_alignment_that_is_none_is_named(posed_copy):
    file = posed_copy / "scannet" / "scans" / "scene9000_00" / "scene9000_00.txt"
    file.write_text("axisAlignment = 1 0 0\n")
    with pytest.raises(RecordError, match="expected 16 numbers") as caught:
        ScannetScenes(posed_copy).world_to_aligned("scene9000_00")
    assert caught.value.file == str(file)
    file.write_text(f"axisAlignment = {' '.join(['2'] * 16)}\n")
    with pytest.raises(RecordError, match="no rigid transform"):
        ScannetScenes(posed_copy).world_to_aligned("scene9000_00")


def test_infos_that_are_not_there_or_not_fetched_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.pkl"):
        ScannetScenes(POSED, tmp_path / "nothing.pkl")
    (tmp_path / "pointer.pkl").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(RecordError, match="git-lfs"):
        ScannetScenes(POSED, tmp_path / "pointer.pkl")


def test_a_listed_picture_that_is_gone_is_named(posed_copy):
    (posed_copy / "scannet" / "posed_images" / "scene9000_00" / "00040.jpg").unlink()
    with pytest.raises(RecordError, match="the picture is not there") as caught:
        ScannetScenes(posed_copy, INFOS).views("scene9000_00")
    assert caught.value.file.endswith("00040.jpg")
    errors = []
    views = ScannetScenes(posed_copy, INFOS, on_bad_frame=errors.append).views("scene9000_00")
    assert len(views) == 11 and [error.field for error in errors] == ["image"]
