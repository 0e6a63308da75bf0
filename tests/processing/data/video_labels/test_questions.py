"""Questions about a reconstruction: every answer is checked against the rendered room, and margins are kept."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import parse_choice, parse_points
from gap_mllm.processing.camera_geometry_gap_mllm import project_points, scale_intrinsics, view_to_first_view
from gap_mllm.processing.data import SceneSample, render_room
from gap_mllm.processing.data.source_files import encode_png
from gap_mllm.processing.data.video_labels.pixels import find_label_pixels
from gap_mllm.processing.data.video_labels.questions import DIRECTIONS, LabelClip, NoQuestionError, QuestionRules
from gap_mllm.processing.data.video_labels.questions import QUESTIONS as ASK
from gap_mllm.processing.data.video_labels.rows import (
    default_questions,
    encode_depth,
    label_views,
    make_rows,
    plan_clips,
)
from gap_mllm.processing.data.video_labels.teacher_windows import reconstruct_in_windows
from gap_mllm.processing.data.view_selection import select_views, spread_views
from tests.processing.data.rendered_teacher import RenderedTeacher, room_inputs, room_pictures


SIZE = (224, 168)  # the pictures are twice as large as the teacher's
NUM_VIEWS = 7


@pytest.fixture(scope="module")
def room():
    return render_room(1_100_013, num_views=NUM_VIEWS, height=84, width=112)


@pytest.fixture(scope="module")
def scene(room):
    """Label pixels, pictures and views of the room."""
    images = [picture.resize(SIZE) for picture in room_pictures(room)]
    reconstruction, _ = reconstruct_in_windows(RenderedTeacher(room), room_inputs(room))
    pixels = find_label_pixels(reconstruction, [SIZE] * NUM_VIEWS)
    views, _ = label_views([{"image": encode_png(np.asarray(image))} for image in images], pixels)
    return pixels, images, views


def rows_of(scene, kind, number=24, **options):
    pixels, images, views = scene
    return make_rows(views, images, pixels, "room", {"teacher": "t"}, questions_per_clip={kind: number}, **options)


def truth_at(room, view, pixel):
    """The rendered point nearest to a pixel of a picture of `SIZE`, in the camera of view 0, and its depth."""
    x, y = ((int(round(value)) + 0.5) * 0.5 - 0.5 for value in pixel)
    row, column = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
    return room.points_in_first_view()[view, row, column], float(room.depth_m[view, row, column])


def test_a_marked_pixel_has_the_point_that_it_sees(room, scene):
    rows, counts = rows_of(scene, "marked_pixel")
    assert counts["marked_pixel"]["written"] == len(rows) == 24
    intrinsics = scale_intrinsics(room.intrinsics, 2, 2)
    poses = view_to_first_view(room.camera_to_world)
    views_marked = Counter()
    for row in rows:
        sample = SceneSample.from_row(row)
        (mark,), point = sample.marks, sample.points[0]
        views_marked[mark.view] += 1
        assert (mark.kind, mark.color, mark.unit, mark.view) == ("cross", "red", "pixel", point.view)
        assert mark.xy == point.pixel and all(value == int(value) for value in mark.xy)
        expected, _ = truth_at(room, point.view, point.pixel)
        assert np.linalg.norm(point.xyz - expected) < 0.06  # half a pixel beside its centre
        (answer,) = parse_points(row["answer"]).items
        assert answer.label is None and answer.point == pytest.approx(np.round(point.xyz, 2), abs=1e-6)
        assert '"label"' not in row["question"] and row["task"] == "reconstruction"
        for seen in sample.points:
            pixel, z = project_points(sample.point_in_view(seen, seen.view), intrinsics[seen.view])
            np.testing.assert_allclose(pixel, seen.pixel, atol=0.02)
            assert z > 0
            np.testing.assert_allclose(sample.views[seen.view].camera_to_world, poses[seen.view], atol=1e-6)
        assert len({seen.view for seen in sample.points}) == len(sample.points) <= 4
        ids = {seen.instance_id for seen in sample.points}
        assert len(ids) == 1 and (None in ids) == (len(sample.points) == 1)
    assert set(views_marked) == set(range(NUM_VIEWS)) and max(views_marked.values()) == 4  # 24 over 7 views


def test_a_label_comes_from_the_labeller_only(room, scene):
    asked = []

    def labeller(image, pixel):
        asked.append((image.size, pixel))
        x, y = pixel
        return 'a "chair"' if x < 112 else None

    rows, _ = rows_of(scene, "marked_pixel", labeller=labeller)
    assert len(asked) >= len(rows) and {size for size, _ in asked} == {SIZE}
    named = [row for row in rows if row["marks"][0]["xy"][0] < 112]
    assert 0 < len(named) < len(rows)
    for row in rows:
        (answer,) = parse_points(row["answer"]).items
        assert answer.label == ('a "chair"' if row in named else None)
        assert ('"label"' in row["question"]) == (row in named)
        assert {point["label"] for point in row["points"]} == {answer.label}


def test_a_correspondence_is_one_place_and_the_other_marks_are_elsewhere(room, scene):
    rows, counts = rows_of(scene, "correspondence")
    assert len(rows) == 24
    for row in rows:
        first, *others = row["marks"]
        right = row["choices"][row["choice_index"]].removeprefix(f"{row['answer']}. ")
        assert first["color"] == "red" and len({mark["color"] for mark in others}) == len(others) >= 2
        assert {mark["view"] for mark in others} != {first["view"]} and len({mark["view"] for mark in others}) == 1
        place, _ = truth_at(room, first["view"], first["xy"])
        for mark in others:
            distance = np.linalg.norm(truth_at(room, mark["view"], mark["xy"])[0] - place)
            assert (distance < 0.15) == (mark["color"] == right)
        known, seen = row["points"]
        assert known["instance_id"] == seen["instance_id"] is not None and known["xyz"] == seen["xyz"]
        assert (known["view"], seen["view"]) == (first["view"], others[0]["view"])
        assert 0 < seen["confidence"] <= known["confidence"]
    reasons = set(counts["correspondence"]) - {"written"}
    assert reasons <= {
        "outside_picture",
        "unusable_pixel",
        "depth_disagrees",
        "behind_camera",
        "reprojection_off",
        "no_room_for_wrong_marks",
        "no_room_at_the_border",
    }
    for row in rows:
        for mark in row["marks"]:  # the whole cross can be seen
            assert all(10 <= value <= side - 11 for value, side in zip(mark["xy"], SIZE, strict=True))


def test_depth_order_follows_the_rendered_depth_with_its_margin(room, scene):
    rows, counts = rows_of(scene, "depth_order", rules=QuestionRules(depth_margin=0.3))
    assert len(rows) == 24 and counts["depth_order"]["within_depth_margin"] > 0
    wordings = Counter()
    for row in rows:
        depths = {mark["color"]: truth_at(room, mark["view"], mark["xy"])[1] for mark in row["marks"]}
        assert max(depths.values()) > 1.25 * min(depths.values())  # the margin, less half a pixel
        is_nearer = "nearer" in row["question"] or "closer" in row["question"]
        expected = (min if is_nearer else max)(depths, key=depths.get)
        assert row["choices"][row["choice_index"]] == f"{row['answer']}. {expected}"
        wordings[row["question"].split("\n")[0]] += 1
        gap = np.hypot(*np.subtract(row["marks"][0]["xy"], row["marks"][1]["xy"]))
        assert gap >= 0.15 * np.hypot(*SIZE)
    assert len(wordings) == 4


def test_camera_motion_is_the_main_direction_of_the_true_motion(room, scene):
    rows, counts = rows_of(scene, "camera_motion")
    poses = view_to_first_view(room.camera_to_world)
    assert len(rows) > 10 and counts["camera_motion"]["between_two_directions"] > 0
    for row in rows:
        start, end = row["marks"]
        assert (start["color"], end["color"]) == ("red", "blue")
        assert start["xy"] == end["xy"] == [(SIZE[0] - 1) // 2, (SIZE[1] - 1) // 2]
        motion = (np.linalg.inv(poses[start["view"]]) @ poses[end["view"]])[:3, 3]
        axis = int(np.argmax(np.abs(motion)))
        expected = DIRECTIONS[2 * axis + (motion[axis] < 0)]
        assert row["choices"][row["choice_index"]] == f"{row['answer']}. {expected}"
        assert sorted(choice[3:] for choice in row["choices"]) == sorted(DIRECTIONS)
        assert parse_choice(row["answer"]).first == row["answer"]
        size = np.sort(np.abs(motion))
        assert size[2] >= 1.49 * size[1]


def test_the_farthest_view_is_farthest_by_a_margin(room, scene):
    rows, _ = rows_of(scene, "farthest_view")
    centers = room.camera_to_world[:, :3, 3]
    assert len(rows) > 10
    for row in rows:
        base, *others = row["marks"]
        assert base["color"] == "red"
        distance = {m["color"]: np.linalg.norm(centers[m["view"]] - centers[base["view"]]) for m in others}
        farthest = max(distance, key=distance.get)
        assert row["choices"][row["choice_index"]] == f"{row['answer']}. the frame with the {farthest} cross"
        assert len(row["choices"]) == len(distance) == 3
        ordered = sorted(distance.values())
        assert ordered[-1] >= 1.24 * ordered[-2]


def test_questions_hold_when_views_are_dropped(scene):
    pixels, images, views = scene
    rows, _ = make_rows(views, images, pixels, "room", {})
    for row in rows:
        assert not re.search(r"\d", row["question"].replace("3D", ""))  # no frame is meant by its number
        before = SceneSample.from_row(row)
        after = select_views(before, spread_views(before, 5))
        assert len(after.views) == 5 and after.answer == before.answer
        for mark, old in zip(after.marks, before.marks, strict=True):
            assert after.views[mark.view].picture == before.views[old.view].picture
        for point, old in zip(after.points, before.points, strict=True):
            np.testing.assert_array_equal(after.point_in_view(point, point.view), before.point_in_view(old, old.view))


def test_what_cannot_be_asked_says_why(scene):
    pixels, images, _ = scene
    rng = np.random.default_rng(0)

    def clip(views, **rules):
        return LabelClip(pixels, views, [images[view] for view in views], rules=QuestionRules(**rules))

    for kind, given, reason in [
        ("farthest_view", clip([0, 1]), "too_few_views"),
        ("farthest_view", clip([0, 1, 2], min_motion=50), "camera_stands_still"),
        ("farthest_view", clip([0, 1, 2], distance_margin=1e6), "about_as_far"),
        ("camera_motion", clip([0, 1], min_motion=50), "camera_stands_still"),
        ("camera_motion", clip([0, 1], motion_margin=1e6, min_motion=0), "between_two_directions"),
        ("depth_order", clip([0, 1], depth_margin=100), "within_depth_margin"),
        ("depth_order", clip([0, 1], mark_gap=2), "marks_too_close"),
        ("correspondence", clip([0, 0], place_gap=100), "no_room_for_wrong_marks"),
    ]:
        with pytest.raises(NoQuestionError, match=reason):
            ASK[kind](given, rng, 0)
    bare = type(pixels)(
        pixels.reconstruction, pixels.image_sizes, 2.0, [np.zeros_like(part) for part in pixels.usable], {}
    )
    with pytest.raises(NoQuestionError, match="view_without_usable_pixel"):
        ASK["marked_pixel"](LabelClip(bare, [0, 1], images[:2]), rng, 0)


@pytest.mark.parametrize(
    ("rules", "error"),
    [
        ({"depth_margin": -0.1}, "depth_margin is -0.1; expected a finite number of at least 0"),
        ({"motion_margin": 0.9}, "motion_margin is 0.9; expected a finite number of at least 1"),
        ({"distance_margin": float("inf")}, "distance_margin is inf; expected a finite number of at least 1"),
        ({"min_motion": float("nan")}, "min_motion is nan; expected a number"),
        ({"place_gap": "0.1"}, "place_gap is '0.1'; expected a number"),
        ({"max_matches": 1.5}, "max_matches is 1.5; expected an integer"),
        ({"decimals": True}, "decimals is True; expected an integer"),
    ],
)
def test_rules_out_of_range_are_refused(rules, error):
    with pytest.raises(ValueError, match=error):
        QuestionRules(**rules)


# Rows


def test_clips_cover_the_video_in_equal_lengths():
    assert plan_clips(7, 8) == [list(range(7))]
    assert plan_clips(8, 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert plan_clips(7, 3) == [[0, 1, 2], [3, 4, 5], [4, 5, 6]]
    with pytest.raises(ValueError, match="views_per_row is 1; expected at least 2"):
        plan_clips(7, 1)


def test_points_of_a_later_clip_are_in_the_camera_of_its_own_first_view(room, scene):
    rows, _ = rows_of(scene, "marked_pixel", number=6, views_per_row=3)
    assert [json.loads(row["metadata"])["video_views"] for row in rows[::6]] == [[0, 1, 2], [3, 4, 5], [4, 5, 6]]
    poses = view_to_first_view(room.camera_to_world)
    for row in rows:
        sample = SceneSample.from_row(row)
        views = sample.metadata["video_views"]
        point = sample.points[0]
        expected, _ = truth_at(room, views[point.view], point.pixel)
        in_world = poses[views[0]] @ np.append(point.xyz, 1)
        assert np.linalg.norm(in_world[:3] - expected) < 0.06


def test_same_seed_same_rows(scene):
    first, _ = rows_of(scene, "correspondence", number=5, seed=3)
    again, _ = rows_of(scene, "correspondence", number=5, seed=3)
    other, _ = rows_of(scene, "correspondence", number=5, seed=4)
    assert first == again != other


def test_ids_are_unique_and_rows_say_where_they_come_from(scene):
    pixels, images, views = scene
    rows, counts = make_rows(views, images, pixels, "my room", {"teacher": "t"}, split="val", views_per_row=4)
    assert len({row["id"] for row in rows}) == len(rows) == sum(kind["written"] for kind in counts.values())
    assert set(counts) == set(default_questions()) == set(ASK)
    for row in rows:
        assert (row["source"], row["split"], row["scene_id"]) == ("video_labels", "val", "my room")
        assert row["pose_frame"] == "scan" and row["world_to_aligned"] is None and len(row["views"]) == 4
        assert json.loads(row["metadata"])["teacher"] == "t"
        if row["choices"]:
            assert row["task"] == "spatial_qa" and row["choices"][row["choice_index"]].startswith(row["answer"])
            assert all(choice in row["question"].split("\n") for choice in row["choices"])


def test_unknown_kinds_and_negative_numbers_are_refused(scene):
    for wanted in ({"colour": 3}, {"depth_order": -1}):
        pixels, images, views = scene
        with pytest.raises(ValueError, match="questions_per_clip is .*expected numbers of at least 0 for"):
            make_rows(views, images, pixels, "room", {}, questions_per_clip=wanted)


# Depth


def test_depth_keeps_its_precision_in_16_bits():
    rng = np.random.default_rng(0)
    for far in (0.02, 3.0, 500.0):
        depth = rng.uniform(0.1 * far, far, (40, 50)).astype(np.float32)
        codes, scale, counts = encode_depth(depth, depth > 0.2 * far)
        valid = depth > 0.2 * far
        assert codes.dtype == np.uint16 and codes.max() == 65535 and counts == {"too_far": 0, "too_near": 0}
        assert (codes[~valid] == 0).all() and (codes[valid] > 0).all()
        stored = codes[valid].astype(np.float32) / np.float32(scale)
        np.testing.assert_allclose(stored, depth[valid], rtol=5e-5)
        assert np.float32(scale) == scale


def test_depth_beyond_what_16_bits_resolve_is_left_out_and_counted():
    depth = np.full((10, 10), 2.0, np.float32)
    depth[0, 0], depth[0, 1], depth[0, 2] = 1e6, 250.0, 1e-5
    codes, scale, counts = encode_depth(depth, np.ones_like(depth, bool))
    assert counts == {"too_far": 1, "too_near": 1} and codes[0, 0] == 0 == codes[0, 2]
    assert codes[0, 1] / scale == pytest.approx(250, rel=1e-4)
    assert codes[5, 5] / scale == pytest.approx(2.0, abs=1 / 500)
    nothing = encode_depth(depth, np.zeros_like(depth, bool))
    assert not nothing[0].any() and nothing[1] == 1.0
