"""Task makers on rows as sources give them: scenes of EmbodiedScan and ARKitScenes, detection rows of rooms."""

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import parse_boxes, parse_points
from gap_mllm.processing.camera_geometry_gap_mllm import box_corners, euler_to_matrix
from gap_mllm.processing.data import SceneSample, SyntheticRooms, load_multiview, render_room, room_seed
from gap_mllm.processing.data.rooms.room_scenes import make_question, scene_row, scene_views
from gap_mllm.processing.data.task_makers import make_tasks
from tests.processing.data.formats import FORMATS


def scenes_of(name, folder, cache, **options):
    data = load_multiview(name, FORMATS / folder, streaming=True, skip_bad_samples=True, cache_dir=cache, **options)
    return [SceneSample.from_row(row) for rows in data.values() for row in rows]


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    media = str(FORMATS / "scannet_posed_images")
    scenes = scenes_of("embodiedscan", "embodiedscan", cache, media_dir=media)
    scenes = [scene for scene in scenes if scene.id.startswith("scannet")]
    return scenes + scenes_of("arkitscenes", "arkitscenes", cache)


def test_marked_pixels_agree_with_the_depth_pixel_that_the_two_intrinsics_name(scans):
    assert len(scans) == 3
    for scene in scans:
        rows = make_tasks(scene, ("reconstruction",), num_per_task=12)
        assert len(rows) == 12
        for row in rows:
            (point,) = row.points
            view = scene.views[point.view]
            x, y = point.pixel
            ray = np.linalg.inv(view.intrinsics) @ (x, y, 1)
            column, line, _ = np.rint(view.depth_intrinsics @ ray).astype(int)
            depth = view.depth_m[line, column]
            local = scene.frame_to_camera("camera", 0, point.view) @ np.r_[point.xyz, 1]
            assert local[2] == pytest.approx(depth, rel=0.03)
            np.testing.assert_allclose((view.intrinsics @ local[:3] / local[2])[:2], (x, y), atol=1e-3)
            assert 0 <= x < view.image.width and 0 <= y < view.image.height
            answer = parse_points(row.answer).first
            if answer.label is not None:
                (box,) = [box for box in scene.boxes if box.instance_id == point.instance_id]
                assert answer.label == box.label
                inside = np.abs(_local(scene.box_in_view(box, 0), box.euler_order, point.xyz))
                assert (inside <= box.numbers[3:6] / 2 + 0.031).all()


def _local(box, order, point):
    return euler_to_matrix(box[6:9], order).T @ (point - box[:3])


def test_detection_moves_the_boxes_of_the_scene_to_view_0(scans):
    for scene in scans:
        (row,) = make_tasks(scene, ("detection3d",))
        stored = {box.instance_id: box for box in scene.boxes}
        assert parse_boxes(row.answer, require_label=True).items and len(row.boxes) <= len(scene.boxes)
        for box in row.boxes:
            original = stored[box.instance_id]
            truth = box_corners(scene.box_in_view(original, 0), original.euler_order)
            np.testing.assert_allclose(box_corners(box.numbers, "zxy"), truth, atol=1e-5)


def test_scans_allow_most_kinds_of_questions(scans):
    for scene in scans:
        made = make_tasks(scene)
        kinds = {row.question_type for row in made}
        assert len(kinds) >= 20, made.refused
        assert {"detection3d", "grounding_box", "left_right", "object_gap", "camera_motion"} <= kinds


def test_detection_rows_of_rooms_list_their_objects_and_other_rows_do_not():
    room = render_room(room_seed("test", 3), num_views=4, height=72, width=96)
    views = scene_views(room)
    rows = {
        task: SceneSample.from_row(scene_row(room, make_question(room, task), views, "test", f"room-{task}"))
        for task in ("detection3d", "grounding_box", "reconstruction")
    }
    made = make_tasks(rows["detection3d"], ("detection3d", "object_count", "reconstruction"))
    assert [row.question_type for row in made] == ["detection3d", "object_count", "reconstruction"]
    for task in ("grounding_box", "reconstruction"):
        made = make_tasks(rows[task], ("detection3d", "reconstruction"))
        assert [row.question_type for row in made] == ["reconstruction"]
        assert made.refused == {("detection3d", "boxes of this task need not be all objects of the scene"): 1}


def test_rows_that_were_prepared_and_stored_give_the_same_questions(tmp_path):
    options = {"num_train": 1, "num_selection": 0, "num_test": 0, "height": 48, "width": 64, "tasks": ("detection3d",)}
    builder = SyntheticRooms(cache_dir=tmp_path, **options)
    builder.download_and_prepare()
    (stored,) = builder.as_dataset(split="train")
    room = render_room(room_seed("train", 0), num_views=4, height=48, width=64)
    row = scene_row(room, make_question(room, "detection3d"), scene_views(room), "train", stored["id"])
    a, b = (make_tasks(SceneSample.from_row(each)) for each in (stored, row))
    assert len(a) > 10 and [(x.id, x.question, x.answer) for x in a] == [(x.id, x.question, x.answer) for x in b]
