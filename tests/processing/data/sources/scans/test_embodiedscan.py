"""EmbodiedScan's infos: scenes with boxes that their depth lies in, detection questions, and infos without scans."""

import json
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.answers_gap_mllm import parse_boxes
from gap_mllm.processing.camera_geometry_gap_mllm import box_corners, euler_to_matrix, project_points
from gap_mllm.processing.data import RecordError, SceneSample, load_multiview, read_report
from gap_mllm.processing.data.sources.scans import embodiedscan_infos
from gap_mllm.processing.data.sources.scans.embodiedscan_infos import EmbodiedScanInfos
from tests.processing.data.formats import FORMATS, load_damaged, rows_equal
from tests.processing.data.scene_geometry import points_in_boxes


INFOS = FORMATS / "embodiedscan"
MEDIA = str(FORMATS / "scannet_posed_images")
DETECTION = FORMATS / "gap_mllm" / "data" / "train" / "scannet_det_train_4frames.json"


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return load_multiview("embodiedscan", INFOS, media_dir=MEDIA, cache_dir=tmp_path_factory.mktemp("cache"))


def read_infos():
    return pickle.loads((INFOS / "embodiedscan_infos_train.pkl").read_bytes())


def write_infos(folder, infos):
    folder.mkdir(exist_ok=True)
    (folder / "embodiedscan_infos_train.pkl").write_bytes(pickle.dumps(infos))
    return folder


def load_changed(tmp_path, change, **options):
    """The rows after `change(infos)`, and what was reported."""
    infos = read_infos()
    change(infos)
    folder, report = write_infos(tmp_path / "infos", infos), tmp_path / "report.jsonl"
    options = {"media_dir": MEDIA, "cache_dir": tmp_path / "cache", "report_file": report, **options}
    rows = load_multiview("embodiedscan", folder, "train", **options)
    return rows, read_report(report)


def test_rows_are_scenes_with_boxes(splits):
    assert {split: rows["id"] for split, rows in splits.items()} == {
        "train": ["scannet/scene9000_00", "matterport3d/zz9toyZZtoy/region0"],
        "val": ["scannet/scene9001_00", "matterport3d/zz9toyZZtoy/region0"],
    }
    sample = SceneSample.from_row(splits["train"][0])
    assert (sample.scene_id, sample.task, sample.pose_frame) == ("scene9000_00", "scene", "scan")
    assert [(box.label, box.instance_id, box.euler_order) for box in sample.boxes] == [
        ("table", "0", "ZXY"),
        ("chair", "1", "ZXY"),
        ("cabinet", "2", "ZXY"),
    ]
    assert [box.in_reference for box in sample.boxes] == [True, True, False]
    assert np.allclose(sample.boxes[1].numbers, [-0.9, -0.4, 0.45, 0.5, 0.5, 0.9, 0.5, 0, 0])
    shown = sample.metadata["visible_instances"]
    assert shown["scannet/posed_images/scene9000_00/00050.jpg"] == ["0", "1", "2"]
    assert list(shown) == sorted(view.image_path for view in sample.views)


def test_depth_lies_in_the_boxes_that_a_view_shows(splits):
    for rows in splits.values():
        sample = SceneSample.from_row(rows[0])
        counts = points_in_boxes(sample)
        for view, inside in zip(sample.views, counts, strict=True):
            shown = [int(name) for name in sample.metadata["visible_instances"][view.image_path]]
            assert (inside[shown] >= 3).all()


def test_streamed_rows_equal_prepared_ones(splits, tmp_path):
    for split, rows in splits.items():
        streamed = load_multiview("embodiedscan", INFOS, split, streaming=True, media_dir=MEDIA, cache_dir=tmp_path)
        assert rows_equal(rows, streamed) == 2


def test_matterport_has_a_camera_for_each_picture_and_its_own_depth_scale(tmp_path):
    folder = tmp_path / "media" / "matterport3d" / "zz9toyZZtoy"
    for name in ("matterport_color_images", "matterport_depth_images"):
        (folder / name).mkdir(parents=True)
    Image.new("RGB", (162, 121)).save(folder / "matterport_color_images" / "toy_i0_0.jpg")
    depth = Image.fromarray(np.full((121, 162), 8000, np.uint16))
    depth.save(folder / "matterport_depth_images" / "toy_d0_0.png")

    def keep_matterport(infos):
        del infos["data_list"][0]

    rows, events = load_changed(tmp_path, keep_matterport, media_dir=str(tmp_path / "media"))
    sample = SceneSample.from_row(rows[0])
    view = sample.views[0]
    assert sample.scene_id == "zz9toyZZtoy/region0" and view.frame_id is None
    assert np.allclose(view.intrinsics[0], [146.27, 0, 80.97]) and np.allclose(view.depth_intrinsics, view.intrinsics)
    assert (view.depth_m == 2).all() and not events


def test_infos_without_scans_are_an_index(tmp_path):
    report = tmp_path / "report.jsonl"
    rows = load_multiview("embodiedscan", INFOS, report_file=report, cache_dir=tmp_path)["train"]
    view = rows[0]["views"][3]
    assert view["image"] is None and view["depth"] is None and view["frame_id"] == 30
    assert view["image_path"] == "scannet/posed_images/scene9000_00/00030.jpg"
    assert view["camera_to_world"] is not None and view["intrinsics"] is not None
    assert [event["event"] for event in read_report(report)] == ["missing_picture"] * 4  # two scenes, two splits


def test_depth_that_was_never_exported_is_counted(tmp_path):
    shutil.copytree(MEDIA, tmp_path / "media")
    for path in (tmp_path / "media").rglob("scene9000_00/*.png"):
        path.unlink()
    rows, events = load_changed(tmp_path, lambda infos: infos["data_list"].pop(), media_dir=str(tmp_path / "media"))
    assert rows[0]["views"][0]["depth"] is None and rows[0]["views"][0]["image"] is not None
    assert [event["event"] for event in events] == ["missing_depth"]


@pytest.mark.parametrize(("suffix", "field"), [("jpg", "img_path"), ("png", "depth_path")])
def test_a_single_missing_file_is_a_bad_frame(suffix, field, tmp_path):
    shutil.copytree(MEDIA, tmp_path / "media")
    next((tmp_path / "media").rglob(f"scene9000_00/00030.{suffix}")).unlink()
    with pytest.raises(RecordError, match=f"00030.{suffix} is not there") as caught:
        load_changed(tmp_path, lambda infos: None, media_dir=str(tmp_path / "media"))
    assert (caught.value.record_id, caught.value.field) == ("scannet/scene9000_00", f"images[3].{field}")
    rows, events = load_changed(tmp_path, lambda infos: None, media_dir=str(tmp_path / "media"), skip_bad_samples=True)
    assert [view["frame_id"] for view in rows[0]["views"]] == [0, 10, 20, *range(40, 120, 10)]
    assert [event["event"] for event in events] == ["skipped", "missing_picture"]


def test_views_are_thinned_before_their_pictures_are_read(tmp_path):
    rows, _ = load_changed(tmp_path, lambda infos: None, max_views=4)
    assert [view["frame_id"] for view in rows[0]["views"]] == [0, 30, 70, 110]
    assert len(json.loads(rows[0]["metadata"])["visible_instances"]) == 4


# Detection questions


def test_windows_are_the_released_detection_questions(tmp_path):
    """The questions and answers of the file that the released data has for this scene, word for word."""
    records = json.loads(DETECTION.read_text())
    rows = load_multiview("embodiedscan", INFOS, "train", media_dir=MEDIA, windows=(4, 3), cache_dir=tmp_path)
    made = {tuple(view["image_path"] for view in row["views"]): row for row in rows}
    assert len(rows) == 3 and len(made) == 3  # 12 frames, windows of 10
    for record in records:
        row = made[tuple(record["images"])]
        assert row["question"] == record["conversations"][0]["value"]
        # -3.14 and 3.14 are one angle, and half a turn is where the table's and the chair's fall
        assert row["answer"].replace("-3.14", "3.14") == record["conversations"][1]["value"].replace("-3.14", "3.14")
        assert row["task"] == "detection3d" and row["scene_id"] == "scene9000_00"
        for box, given in zip(row["boxes"], record["boxes"], strict=True):
            assert np.allclose([*box["center"], *box["size"]], given["bbox_3d"][:6], atol=1e-5)
            assert (box["label"], box["euler_order"], box["frame_index"]) == (given["label"], "zxy", 0)


def test_boxes_of_windows_land_on_what_they_show(tmp_path):
    rows = load_multiview("embodiedscan", INFOS, "val", media_dir=MEDIA, windows=(3, 2), cache_dir=tmp_path)
    assert len(rows) == 12 - 4
    for row in rows:
        sample = SceneSample.from_row(row)
        assert len(parse_boxes(sample.answer).items) == len(sample.boxes)
        counts = points_in_boxes(sample)
        assert (counts.max(0) >= 3).all()
        for place, box in enumerate(sample.boxes):
            if box.in_reference:
                pixels, depth = project_points(box_corners(box.numbers, "zxy"), sample.views[0].intrinsics)
                assert (depth > 0).all()  # part of the box is in the picture, if no corner
                assert (pixels.max(0) > 0).all() and (pixels.min(0) < sample.views[0].image.size).all()
                assert counts[0, place] >= 3


def test_windows_stay_within_runs_and_their_number_is_limited(tmp_path):
    def gap(infos):
        del infos["data_list"][0]["images"][5]

    rows, events = load_changed(tmp_path, gap, windows=(2, 1))
    starts = [row["views"][0]["frame_id"] for row in rows]
    assert starts == [0, 10, 20, 30, 60, 70, 80, 90, 100]
    assert [event["event"] for event in events] == ["missing_picture", "no_frame_order"]
    rows, _ = load_changed(tmp_path, gap, windows=(2, 1), windows_per_scene=3, refresh=True)
    assert [row["views"][0]["frame_id"] for row in rows] == [0, 60, 100]
    assert rows["id"][0] == "scannet/scene9000_00-00000"


def test_walls_and_the_like_are_not_asked_for(tmp_path):
    def rename(infos):
        infos["metainfo"]["categories"] = {"wall": 4, "chair": 2, "object": 1}

    rows, _ = load_changed(tmp_path, rename, windows=(4, 3))
    assert {box["label"] for row in rows for box in row["boxes"]} == {"chair"}


def test_tasks_choose_between_scenes_and_windows(tmp_path):
    def counts(**options):
        rows, _ = load_changed(tmp_path, lambda infos: None, refresh=True, **options)
        return [rows["task"].count(task) for task in ("scene", "detection3d")]

    assert counts() == [2, 0]
    assert counts(windows=(4, 3)) == [0, 3]
    assert counts(tasks=["detection3d"]) == [0, 3]
    assert counts(tasks=["scene", "detection3d"]) == [2, 3]


def test_test_scenes_have_no_answers(tmp_path):
    def hide(infos):
        for item in infos["data_list"]:
            del item["instances"]
            for image in item["images"]:
                del image["visible_instance_ids"]

    rows, _ = load_changed(tmp_path, hide, windows=(4, 3))
    assert len(rows) == 3 and rows["answer"] == [None] * 3 and rows[0]["boxes"] == []


def test_a_broken_frame_leaves_its_windows_out_in_lenient_reading(tmp_path):
    shutil.copytree(MEDIA, tmp_path / "media")
    path = next((tmp_path / "media").rglob("scene9000_00/00000.jpg"))
    path.write_bytes(path.read_bytes()[:900])
    options = {"windows": (4, 3), "media_dir": str(tmp_path / "media")}
    with pytest.raises(RecordError, match="cannot be decoded"):
        load_changed(tmp_path, lambda infos: None, **options)
    rows, events = load_changed(tmp_path, lambda infos: None, skip_bad_samples=True, **options)
    assert [row["views"][0]["frame_id"] for row in rows] == [10, 20]
    assert [event["event"] for event in events].count("skipped") == 1


# Euler order


def test_the_euler_order_is_the_publishers_or_the_users(splits, tmp_path):
    assert {box["euler_order"] for row in splits["train"] for box in row["boxes"]} == {"ZXY"}
    rows, _ = load_changed(tmp_path, lambda infos: None, euler_order="zxy")
    assert {box["euler_order"] for row in rows for box in row["boxes"]} == {"zxy"}


def test_no_box_of_the_aligned_frame_tells_its_euler_order():
    """Why the order is not detected: how far a box leans is the same in both orders, whatever its angles."""
    angles = np.random.default_rng(0).uniform(-np.pi, np.pi, (100, 3))
    leans = [euler_to_matrix(angles, order)[:, 2, 2] for order in ("zxy", "ZXY")]
    assert np.allclose(*leans)


# Bad input


@pytest.mark.parametrize("skip", [False, True])
def test_a_pickle_that_wants_to_import_is_refused(skip, tmp_path, capsys):
    with pytest.raises(RecordError, match="builtins.print") as caught:
        load_damaged("embodiedscan", "pickle_unsafe", tmp_path, skip_bad_samples=skip)
    assert caught.value.source == "embodiedscan" and caught.value.file.endswith("embodiedscan_infos_train.pkl")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("skip", [False, True])
def test_visible_ids_past_the_instances_are_dropped_and_counted(skip, tmp_path):
    report = tmp_path / "report.jsonl"
    splits = load_damaged(
        "embodiedscan", "embodiedscan_visible_id", tmp_path, skip_bad_samples=skip, report_file=report
    )
    sample = SceneSample.from_row(splits["train"][0])
    assert list(sample.metadata["visible_instances"].values()) == [[]] and not sample.boxes
    marks = [event for event in read_report(report) if event["event"] == "visible_instance_id"]
    assert len(marks) == 1 and "instance 5 of 0" in marks[0]["reason"] and marks[0]["record"] == "scannet/scene9000_00"


def first(infos):
    return infos["data_list"][0]


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        (lambda infos: first(infos)["instances"][1].update(bbox_3d=[0] * 7), "instances[1].bbox_3d", r"\(7,\)"),
        (
            lambda infos: first(infos)["instances"][0].update(bbox_3d=[0, 0, 0, 1, -1, 1, 0, 0, 0]),
            "instances[0].bbox_3d",
            "-1",
        ),
        (lambda infos: first(infos)["instances"][0].update(bbox_label_3d=77), "instances[0].bbox_label_3d", "77"),
        (lambda infos: first(infos)["instances"][0].pop("bbox_id"), "instances[0].bbox_id", "no bbox_id"),
        (lambda infos: first(infos).update(axis_align_matrix=np.diag([1, 1, -1, 1.0])), "axis_align_matrix", "-1.0"),
        (lambda infos: first(infos).update(cam2img=np.eye(2)), "cam2img", r"\(2, 2\)"),
        (lambda infos: first(infos).update(images=[]), "images", "no frame"),
        (lambda infos: first(infos).pop("sample_idx"), "sample_idx", "no sample_idx"),
        (lambda infos: first(infos)["images"][2].update(cam2global=np.eye(3)), "images[2].cam2global", r"\(3, 3\)"),
        (lambda infos: first(infos)["images"][2].update(cam2global="eye"), "images[2].cam2global", "not made of"),
        (lambda infos: first(infos)["images"][2].update(img_path="../../a.jpg"), "images[2].img_path", "leads out"),
        (lambda infos: first(infos).update(cam2img=np.diag([300.0, 300, 1, 1])), "intrinsics", "another size"),
    ],
)
def test_a_bad_item_is_named(change, field, says, tmp_path):
    with pytest.raises(RecordError, match=says) as caught:
        load_changed(tmp_path, change)
    error = caught.value
    assert (error.source, error.field) == ("embodiedscan", field)
    assert error.record_id in ("scannet/scene9000_00", "embodiedscan_infos_train-0000000")
    rows, events = load_changed(tmp_path, change, skip_bad_samples=True)
    assert "matterport3d/zz9toyZZtoy/region0" in rows["id"]
    assert field in {event.get("field") for event in events if event["event"] == "skipped"}


def test_a_scene_without_a_pose_is_refused_and_single_ones_counted(tmp_path):
    def lose(infos, count):
        for image in first(infos)["images"][:count]:
            image["cam2global"] = np.full((4, 4), -np.inf)

    rows, events = load_changed(tmp_path, lambda infos: lose(infos, 2))
    assert [view["frame_id"] for view in rows[0]["views"]][:2] == [20, 30]
    assert [event["event"] for event in events] == ["lost_tracking", "lost_tracking", "missing_picture"]
    with pytest.raises(RecordError, match="none of 12 frames is usable"):
        load_changed(tmp_path, lambda infos: lose(infos, 12), refresh=True)


def test_windows_need_an_axis_alignment(tmp_path):
    with pytest.raises(RecordError, match="axis alignment") as caught:
        load_changed(tmp_path, lambda infos: first(infos).pop("axis_align_matrix"), windows=(4, 3))
    assert caught.value.field == "axis_align_matrix"


def test_another_pickle_is_refused(tmp_path):
    folder = write_infos(tmp_path / "infos", ["not", "infos"])
    with pytest.raises(RecordError, match="data_list"):
        load_multiview("embodiedscan", folder, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    "options", [{"windows": (4,)}, {"windows": (0, 3)}, {"windows_per_scene": 0}, {"euler_order": "xyz"}]
)
def test_options_are_checked(options, tmp_path):
    with pytest.raises(ValueError, match=next(iter(options))):
        load_multiview("embodiedscan", INFOS, cache_dir=tmp_path, **options)


# The index of large files


def test_a_large_file_is_read_from_an_index(tmp_path, monkeypatch):
    file = INFOS / "embodiedscan_infos_train.pkl"
    plain = EmbodiedScanInfos(file)
    monkeypatch.setattr(embodiedscan_infos, "INDEX_FROM_BYTES", 0)
    EmbodiedScanInfos(file, tmp_path)
    monkeypatch.setattr(embodiedscan_infos, "read_pickle", None)  # the second opening must not need it
    indexed = EmbodiedScanInfos(file, tmp_path)
    assert indexed.scene_ids == plain.scene_ids and len(indexed) == 2 and indexed.categories == plain.categories
    item, other = plain["scannet/scene9000_00"], indexed["scannet/scene9000_00"]
    assert np.array_equal(item["images"][5]["cam2global"], other["images"][5]["cam2global"])
    assert [str(box) for box in plain.boxes(item)] == [str(box) for box in indexed.boxes(other)]
    assert len(list(indexed)) == 2 and "scannet/scene9001_00" not in indexed
    with pytest.raises(RecordError, match="is not in"):
        indexed["scannet/scene9001_00"]


def test_rows_from_an_index_are_the_same(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(embodiedscan_infos, "INDEX_FROM_BYTES", 0)
    rows = load_multiview(
        "embodiedscan", INFOS, media_dir=MEDIA, index_dir=str(tmp_path / "index"), cache_dir=tmp_path / "cache"
    )
    assert rows_equal(splits["train"], rows["train"]) == rows_equal(splits["val"], rows["val"]) == 2


def test_an_index_follows_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(embodiedscan_infos, "INDEX_FROM_BYTES", 0)
    infos = read_infos()
    folder = write_infos(tmp_path / "infos", infos)
    file = folder / "embodiedscan_infos_train.pkl"
    assert len(EmbodiedScanInfos(file, tmp_path)) == 2
    infos["data_list"].pop()
    write_infos(folder, infos)
    assert len(EmbodiedScanInfos(file, tmp_path)) == 1
