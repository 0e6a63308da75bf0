"""Clips of a labelled video as scenes: what the task makers ask of them is checked against the rendered room."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from gap_mllm.processing.answers_gap_mllm import parse_choice, parse_points
from gap_mllm.processing.camera_geometry_gap_mllm import project_points, scale_intrinsics, view_to_first_view
from gap_mllm.processing.data import make_tasks, render_room
from gap_mllm.processing.data.rooms.room_scenes import room_sample
from gap_mllm.processing.data.scene_sample import SceneSample, View
from gap_mllm.processing.data.task_makers import TASK_MAKERS, TaskMargins
from gap_mllm.processing.data.video_labels.label_options import DEFAULT_QUESTIONS
from gap_mllm.processing.data.video_labels.labelled_scenes import (
    ask_about_clip,
    clip_scenes,
    encode_depth,
    label_views,
    plan_clips,
)
from gap_mllm.processing.data.video_labels.sure_pixels import find_label_pixels
from gap_mllm.processing.data.video_labels.teacher_windows import reconstruct_in_windows
from gap_mllm.processing.data.view_selection import named_views, select_views, spread_views
from tests.processing.data.rendered_teacher import RenderedTeacher, room_inputs, room_pictures


SIZE = (224, 168)  # the pictures are twice as large as the teacher's
NUM_VIEWS = 7
KIND = "reconstruction"
WITHOUT_BOXES = (
    "reconstruction", "sparse_points", "camera_distance", "point_distance", "depth_order", "camera_motion",
    "camera_turn", "camera_path", "camera_angle", "farthest_view", "point_match",
)  # fmt: skip


@pytest.fixture(scope="module")
def room():
    return render_room(1_100_013, num_views=NUM_VIEWS, height=84, width=112)


def labelled(room, size=SIZE, views_per_row=NUM_VIEWS, metadata=None, **teacher):
    """Clips of the room, and the pixels that they were made of."""
    images = [picture.resize(size) for picture in room_pictures(room)]
    reconstruction, _ = reconstruct_in_windows(RenderedTeacher(room, **teacher), room_inputs(room))
    pixels = find_label_pixels(reconstruction, [size] * NUM_VIEWS)
    views, _ = label_views([View(picture=np.asarray(image)) for image in images], pixels)
    return clip_scenes(views, "room", metadata or {"teacher": "t"}, views_per_row=views_per_row), pixels


@pytest.fixture(scope="module")
def clip(room):
    (scene,), pixels = labelled(room)
    return scene, pixels


def asked(clip, kind, number=12, **options):
    return ask_about_clip(*clip, {kind: number}, **options)[0]


def truth_at(room, view, pixel):
    """The rendered point nearest to a pixel of a picture of `SIZE`, in the camera of view 0, and its depth."""
    x, y = ((int(round(value)) + 0.5) * 0.5 - 0.5 for value in pixel)
    row, column = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
    return room.points_in_first_view()[view, row, column], float(room.depth_m[view, row, column])


def true_option(question):
    return question.choices[question.truth.choice].split(". ", 1)[1]


# The same questions as those about the room


def test_a_true_teacher_gives_the_questions_of_the_room_itself(room):
    """Marks, words and choices are the same; numbers are, but for the 16 bits of stored depth."""
    (scene,), pixels = labelled(room, size=(112, 84))
    views = tuple(replace(view, instances=None) for view in room_sample(room).views)
    own = replace(room_sample(room), id=scene.id, boxes=(), views=views)
    wanted = dict.fromkeys(WITHOUT_BOXES, 6)
    (found, refused), expected = ask_about_clip(scene, pixels, wanted), make_tasks(own, wanted)
    assert refused == expected.refused and [one.id for one in found] == [one.id for one in expected]
    assert {one.metadata["maker"] for one in found} >= {*WITHOUT_BOXES} - {"camera_turn"}
    for one, other in zip(found, expected, strict=True):
        assert (one.question, one.choices, one.marks) == (other.question, other.choices, other.marks)
        assert one.truth.choice == other.truth.choice and one.metadata["keep_views"] == other.metadata["keep_views"]
        for item, true in zip(one.truth.items, other.truth.items, strict=True):
            np.testing.assert_allclose(item.numbers, true.numbers, atol=1e-3)
        assert one.truth.number == pytest.approx(other.truth.number, abs=1e-3)
        for point, true in zip(one.points, other.points, strict=False):  # and where else a marked pixel is seen
            np.testing.assert_allclose(point.xyz, true.xyz, atol=1e-3)


def test_truths_of_an_imperfect_teacher_are_off_by_no_more_than_it_is(room):
    error = 0.03

    def spoil(answer, views):  # waves, as no edge comes of them
        across = torch.linspace(0, 9, answer.depth.shape[2])[None, None, :, None]
        answer.depth *= 1 + error * torch.sin(across)

    (scene,), pixels = labelled(room, size=(112, 84), change=spoil)
    centers = view_to_first_view(room.camera_to_world)[:, :3, 3]
    truths, rows = room.points_in_first_view(), ask_about_clip(scene, pixels, dict.fromkeys(WITHOUT_BOXES, 6))[0]
    worst = 0.0
    for question in rows:
        true = {m.color: (m.view, truths[m.view, int(m.xy[1]), int(m.xy[0])]) for m in question.marks}
        reach = {color: np.linalg.norm(point - centers[view]) for color, (view, point) in true.items()}
        maker, items = question.metadata["maker"], question.truth.items
        if maker in ("reconstruction", "sparse_points"):
            for item, mark in zip(items, question.marks, strict=True):
                off = np.linalg.norm(np.array(item.numbers) - true[mark.color][1])
                assert off <= 1.01 * error * reach[mark.color] + 1e-3
                worst = max(worst, off / reach[mark.color])
        elif maker == "camera_distance":
            assert question.truth.number == pytest.approx(*reach.values(), rel=1.01 * error)
        elif maker == "depth_order":
            order = true_option(question).split(", ")
            assert order == sorted(order, key=lambda color: reach[color])
        elif maker == "point_match":
            distance = {c: np.linalg.norm(p - true["red"][1]) for c, (_, p) in true.items() if c != "red"}
            assert min(distance, key=distance.get) == true_option(question)
    assert worst > error / 3  # the teacher was wrong, and it shows


def test_a_clip_is_asked_any_question_that_its_labels_allow(clip):
    scene, _ = clip
    made = make_tasks(scene)
    assert {question.metadata["maker"] for question in made} <= set(WITHOUT_BOXES)
    objects = {maker: reason for maker, reason in made.refused if maker not in WITHOUT_BOXES}
    assert set(objects) == set(TASK_MAKERS) - set(WITHOUT_BOXES)
    assert set(objects.values()) <= {"the row has no boxes of objects", "the direction of gravity is not known"}


def test_without_a_scale_nothing_is_asked_in_metres_and_margins_follow_the_scene(room):
    """A teacher whose unit is 50 m: with margins in metres, nothing would be far enough for a mark."""
    (scene,), pixels = labelled(room, metadata={"is_metric": False}, scales=(0.02,))
    made, refused = ask_about_clip(scene, pixels, dict.fromkeys(WITHOUT_BOXES, 2))
    reasons = dict(refused.keys())
    lengths = {"camera_distance", "point_distance", "camera_path"}
    assert {
        maker for maker, reason in reasons.items() if reason == "lengths of the scene are not in metres"
    } == lengths
    makers = {question.metadata["maker"] for question in made}
    assert makers >= {"reconstruction", "depth_order", "point_match", "camera_motion", "camera_angle"}
    for question in made:
        for point in question.points[:1]:
            np.testing.assert_allclose(point.xyz / 0.02, truth_at(room, point.view, point.pixel)[0], atol=0.06)
    metric, _ = ask_about_clip(replace(scene, metadata={**scene.metadata, "is_metric": True}), pixels, {KIND: 2})
    assert not metric


# Each of the usual questions, against the room


def test_a_marked_pixel_has_the_point_that_it_sees(room, clip):
    questions = asked(clip, KIND, 24)
    assert len(questions) == 24
    intrinsics = scale_intrinsics(room.intrinsics, 2, 2)
    poses = view_to_first_view(room.camera_to_world)
    views_marked, num_matched = Counter(), 0
    for sample in questions:
        (mark,), point = sample.marks, sample.points[0]
        views_marked[mark.view] += 1
        assert (mark.kind, mark.unit, mark.view, mark.xy) == ("cross", "pixel", point.view, point.pixel)
        assert all(value == int(value) for value in mark.xy) and mark.color in sample.question
        expected, _ = truth_at(room, point.view, point.pixel)
        assert np.linalg.norm(point.xyz - expected) < 0.06  # half a pixel beside its centre
        (answer,) = parse_points(sample.answer).items
        assert answer.label is None and answer.point == pytest.approx(np.round(point.xyz, 2), abs=1e-6)
        assert '"label"' not in sample.question and sample.task == KIND
        for seen in sample.points:
            pixel, z = project_points(sample.point_in_view(seen, seen.view), intrinsics[seen.view])
            np.testing.assert_allclose(pixel, seen.pixel, atol=0.02)
            assert z > 0 and seen.confidence == 2.0
            assert np.linalg.norm(truth_at(room, seen.view, seen.pixel)[0] - point.xyz) < 0.12  # a pixel of a far wall
            np.testing.assert_allclose(sample.views[seen.view].camera_to_world, poses[seen.view], atol=1e-6)
        assert len({seen.view for seen in sample.points}) == len(sample.points) <= 4
        ids = {seen.instance_id for seen in sample.points}
        assert len(ids) == 1 and (None in ids) == (len(sample.points) == 1)
        num_matched += len(sample.points) > 1
    assert len(views_marked) >= NUM_VIEWS - 1 and num_matched > 12


def test_a_label_comes_from_the_labeller_only(clip):
    seen = []

    def labeller(image, pixel):
        seen.append((image.size, pixel))
        x, y = pixel
        return 'a "chair"' if x < 112 else None

    questions = asked(clip, KIND, 24, labeller=labeller)
    assert len(seen) >= len(questions) and {size for size, _ in seen} == {SIZE}
    named = [sample for sample in questions if sample.marks[0].xy[0] < 112]
    assert 0 < len(named) < len(questions)
    for sample in questions:
        (answer,) = parse_points(sample.answer).items
        assert answer.label == ('a "chair"' if sample in named else None)
        assert sample.metadata["template"].startswith("reconstruction/") == (sample in named)
        assert {point.label for point in sample.points} == {answer.label}


def test_a_point_match_is_one_place_and_the_other_marks_are_elsewhere(room, clip):
    questions = asked(clip, "point_match")
    assert len(questions) == 12
    for sample in questions:
        first, *others = sample.marks
        assert first.color == "red" and len({mark.color for mark in others}) == len(others) >= 2
        assert {mark.view for mark in others} != {first.view} and len({mark.view for mark in others}) == 1
        place, _ = truth_at(room, first.view, first.xy)
        for mark in others:
            distance = np.linalg.norm(truth_at(room, mark.view, mark.xy)[0] - place)
            assert (distance < 0.15) == (mark.color == true_option(sample))


def test_depth_order_follows_the_rendered_depth_with_its_margin(room, clip):
    questions = asked(clip, "depth_order", margins=TaskMargins(depth_ratio=1.3))
    assert len(questions) > 6
    for sample in questions:
        depths = {mark.color: truth_at(room, mark.view, mark.xy)[1] for mark in sample.marks}
        order = true_option(sample).split(", ")
        assert order == sorted(depths, key=depths.get)
        for near, far in pairwise(order):
            assert depths[far] > 1.25 * depths[near]  # the margin, less half a pixel
    assert {len(sample.marks) for sample in questions} == {2, 3}  # two where no three are clear


def test_camera_motion_is_the_main_direction_of_the_true_motion(room, clip):
    poses, questions = view_to_first_view(room.camera_to_world), asked(clip, "camera_motion")
    directions = ("to the right", "to the left", "down", "up", "forward", "backward")
    assert questions
    for sample in questions:
        start, end = sample.metadata["maker_facts"]["views"]
        motion = (np.linalg.inv(poses[start]) @ poses[end])[:3, 3]
        axis = int(np.argmax(np.abs(motion)))
        assert true_option(sample) == directions[2 * axis + (motion[axis] < 0)]
        assert parse_choice(sample.answer).first == sample.answer
        size = np.sort(np.abs(motion))
        assert size[2] >= 1.99 * size[1]


def test_the_farthest_view_is_farthest_by_a_margin(room, clip):
    questions, centers = asked(clip, "farthest_view"), room.camera_to_world[:, :3, 3]
    assert len(questions) > 2
    for sample in questions:
        base = sample.metadata["maker_facts"]["view"]
        options = [int(choice.split("Frame-")[1]) for choice in sample.choices]
        distance = {view: np.linalg.norm(centers[view] - centers[base]) for view in options}
        assert base not in options and true_option(sample) == f"Frame-{max(distance, key=distance.get)}"
        ordered = sorted(distance.values())
        assert ordered[-1] >= 1.24 * ordered[-2] and ordered[-1] >= ordered[-2] + 0.149


def test_questions_hold_when_views_are_dropped(clip):
    dropped = 0
    for before in ask_about_clip(*clip, DEFAULT_QUESTIONS)[0]:
        if len(named_views(before)) > 5:
            continue
        after = select_views(before, spread_views(before, 5))
        dropped += 1
        assert len(after.views) == 5 and after.answer == before.answer
        for mark, old in zip(after.marks, before.marks, strict=True):
            assert after.views[mark.view].picture is before.views[old.view].picture
        for point, old in zip(after.points, before.points, strict=True):
            np.testing.assert_array_equal(after.point_in_view(point, point.view), before.point_in_view(old, old.view))
    assert dropped > 8


def test_what_cannot_be_asked_says_why(clip):
    scene, pixels = clip
    two = replace(scene, views=scene.views[:2], metadata={"video_views": [0, 1]})
    blind = [replace(view, depth_picture=0 * view.depth_picture) for view in scene.views]
    for kind, given, margins, reason in [
        ("farthest_view", two, {}, "fewer than three views have a pose"),
        ("farthest_view", scene, {"move_m": 50}, "no view is clearly farther from another than a third"),
        ("farthest_view", scene, {"closer_ratio": 1e6}, "no view is clearly farther from another than a third"),
        ("camera_motion", scene, {"move_m": 50}, "the camera does not clearly move in one direction"),
        ("camera_motion", scene, {"dominance": 1e6}, "the camera does not clearly move in one direction"),
        ("depth_order", scene, {"depth_ratio": 100}, "no two pixels of a view lie clearly behind each other"),
        ("point_match", scene, {"point_gap_m": 100}, "no marked point was found again in another view"),
        (KIND, replace(scene, views=tuple(blind)), {}, "no view has both a pose and a depth map"),
        (KIND, scene, {"near_m": 9.9}, "no pixel is away from depth edges, the border and other marks"),
    ]:
        made, refused = ask_about_clip(given, pixels, {kind: 1}, TaskMargins(**margins))
        assert not made and refused == {(kind, reason): 1}


# Clips


def test_clips_cover_the_video_in_equal_lengths():
    assert plan_clips(7, 8) == [list(range(7))]
    assert plan_clips(8, 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert plan_clips(7, 3) == [[0, 1, 2], [3, 4, 5], [4, 5, 6]]
    with pytest.raises(ValueError, match="views_per_row is 1; expected at least 2"):
        plan_clips(7, 1)


def test_points_of_a_later_clip_are_in_the_camera_of_its_own_first_view(room):
    scenes, pixels = labelled(room, views_per_row=3)
    assert [scene.metadata["video_views"] for scene in scenes] == [[0, 1, 2], [3, 4, 5], [4, 5, 6]]
    poses = view_to_first_view(room.camera_to_world)
    for scene in scenes:
        for sample in asked((scene, pixels), KIND, 6):
            views, point = sample.metadata["video_views"], sample.points[0]
            expected, _ = truth_at(room, views[point.view], point.pixel)
            in_world = poses[views[0]] @ np.append(point.xyz, 1)
            assert np.linalg.norm(in_world[:3] - expected) < 0.06


def test_same_seed_same_questions(clip):
    def texts(seed):
        return [(sample.question, sample.marks, sample.answer) for sample in asked(clip, "point_match", 5, seed=seed)]

    assert texts(3) == texts(3) != texts(4)


def test_ids_are_unique_and_samples_say_where_they_come_from(room):
    scenes, pixels = labelled(room, views_per_row=4, metadata={"teacher": "t"})
    samples = [sample for scene in scenes for sample in (scene, *ask_about_clip(scene, pixels, DEFAULT_QUESTIONS)[0])]
    assert len({sample.id for sample in samples}) == len(samples) > 2 * len(scenes) == 4
    for sample in samples:
        assert (sample.source, sample.split, sample.scene_id) == ("video_labels", "train", "room")
        assert sample.pose_frame == "scan" and sample.world_to_aligned is None and len(sample.views) == 4
        assert sample.metadata["teacher"] == "t" and sample.metadata["clip"] in (0, 1)
        if sample.choices:
            assert sample.task == "spatial_qa" and sample.choices[sample.choice_index].startswith(sample.answer)
            assert all(choice in sample.question.split("\n") for choice in sample.choices)
    assert [sample.task for sample in samples].count("scene") == 2


def test_a_scene_has_the_same_questions_when_it_was_stored(clip):
    """Depth is asked about as it is stored, and the row says what margins need to know."""
    scene, _ = clip
    stored = SceneSample.from_row(scene.to_row())
    wanted = dict.fromkeys(WITHOUT_BOXES, 3)
    for one, other in zip(make_tasks(scene, wanted), make_tasks(stored, wanted), strict=True):
        assert (one.id, one.question, one.answer, one.marks) == (other.id, other.question, other.answer, other.marks)


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
