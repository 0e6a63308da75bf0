"""Colours, crops, sizes, and the drawn composition: pixels, depth, boxes and answers stay true to one another."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.answers_gap_mllm import parse_boxes, parse_points
from gap_mllm.processing.camera_geometry_gap_mllm import scale_pixels
from gap_mllm.processing.data import ROOM_TASKS
from gap_mllm.processing.data.augmentation import (
    AugmentationConfig,
    AugmentationRefused,
    SceneAugmentation,
    crop_views,
    jitter_colors,
    jitter_views,
    random_crop,
    resize_views,
)
from gap_mllm.processing.data.augmentation.visible_boxes import count_box_pixels
from gap_mllm.processing.data.scene_sample import SceneMark, SceneSample
from tests.processing.data.room_samples import (
    HEIGHT,
    NUM_VIEWS,
    WIDTH,
    check_geometry,
    corner_pixels,
    room,
    room_sample,
    same_corners,
    world_points,
)


WINDOWS = [(10, 5, 70, 60), (0, 0, 96, 72), (3, 20, 93, 50), None]


def small_depth(sample):
    """The same sample with depth maps of half the size, which start at pixel (0, 1) of the picture."""
    half = np.diag([0.5, 0.5, 1.0])
    half[1, 2] = -0.5
    views = [
        replace(
            view,
            depth_picture=np.rint(view.depth_m * 1000).astype(np.uint16)[1::2, ::2],
            depth_intrinsics=half @ view.intrinsics,
        )
        for view in sample.views
    ]
    return replace(sample, views=tuple(views))


def refused(match):
    return pytest.raises(AugmentationRefused, match=match)


# Colours


def test_colours_of_a_list_are_those_of_the_stack():
    images = np.random.default_rng(0).integers(0, 256, (3, 10, 14, 3), dtype=np.uint8)
    stack = jitter_colors(images, np.random.default_rng(1))
    assert stack.shape == images.shape and stack.dtype == np.uint8 and (stack != images).any()
    for one, other in zip(jitter_colors(list(images), np.random.default_rng(1)), stack, strict=True):
        assert (one == other).all()
    assert (jitter_colors(images, np.random.default_rng(1), strength=0.0) == images).all()
    with pytest.raises(ValueError, match="strength=2"):
        jitter_colors(images, np.random.default_rng(1), strength=2)


def test_views_change_colours_alike_or_each_on_its_own():
    sample = room_sample("reconstruction")
    grey = Image.new("RGB", (40, 30), (120, 90, 60))
    sample = replace(sample, views=tuple(replace(view, picture=grey) for view in sample.views))
    alike = jitter_views(sample, np.random.default_rng(3))
    means = np.array([np.asarray(view.image).mean((0, 1)) for view in alike.views])
    assert np.ptp(means, axis=0).max() < 1  # noise alone
    assert np.abs(means[0] - (120, 90, 60)).max() > 3
    apart = jitter_views(sample, np.random.default_rng(3), is_per_view=True)
    means = np.array([np.asarray(view.image).mean((0, 1)) for view in apart.views])
    assert np.ptp(means, axis=0).max() > 3
    assert alike.answer == sample.answer and alike.points is sample.points
    assert alike.views[0].intrinsics is sample.views[0].intrinsics
    with refused("no views"):
        jitter_views(replace(sample, views=()), np.random.default_rng(3))


# Crops


def test_crop_moves_intrinsics_points_and_marks():
    for number in range(12):
        sample = room_sample("reconstruction", number % 3, number)
        try:
            cropped = crop_views(sample, WINDOWS)
        except AugmentationRefused:
            continue
        assert [view.image.size for view in cropped.views] == [(70, 60), (96, 72), (93, 50), (96, 72)]
        assert check_geometry(cropped) == 1
        (mark,), (point,) = cropped.marks, cropped.points
        assert mark.xy == point.pixel
        assert cropped.answer == sample.answer and (point.xyz == sample.points[0].xyz).all()
        for before, after, window in zip(sample.views, cropped.views, WINDOWS, strict=True):
            left, top, width, height = window or (0, 0, WIDTH, HEIGHT)
            part = (slice(top, top + height), slice(left, left + width))
            assert (np.asarray(after.image) == np.asarray(before.image)[part]).all()
            assert np.abs(world_points(after) - world_points(before)[part]).max() < 1e-6


def test_crop_of_smaller_depth_maps():
    sample = small_depth(room_sample("detection3d"))
    cropped = crop_views(sample, WINDOWS)
    for before, after, window in zip(sample.views, cropped.views, WINDOWS, strict=True):
        if window is None:
            assert after is before
            continue
        points, whole = world_points(after).reshape(-1, 3), world_points(before).reshape(-1, 3)
        assert len(points) < len(whole) or window == (0, 0, WIDTH, HEIGHT)
        nearest = np.linalg.norm(points[:, None] - whole[None], axis=-1).argmin(1)
        assert np.abs(points - whole[nearest]).max() < 1e-6  # a part of the same points
        pixels = (after.intrinsics @ np.linalg.inv(after.depth_intrinsics)) @ _corners(after.depth_m.shape)
        left, top = pixels[:2].min(1)
        right, bottom = pixels[:2].max(1)
        # The depth map covers the picture, and less than one depth pixel (two of the picture) more on any side.
        assert -2.5 < left <= -0.5 + 1e-3 and after.image.width - 1.5 <= right < after.image.width + 1.5
        assert -2.5 < top <= 0.5 + 1e-3 and after.image.height - 1.5 <= bottom < after.image.height + 1.5


def _corners(shape):
    """Outer corners of a map in its own pixels, `(3, 4)`."""
    height, width = shape
    return np.array([[x, y, 1.0] for x in (-0.5, width - 0.5) for y in (-0.5, height - 0.5)]).T


def test_crop_without_depth_intrinsics_uses_the_resized_picture():
    sample = room_sample("scene")
    views = tuple(replace(view, depth_intrinsics=None) for view in small_depth(sample).views)
    cropped = crop_views(replace(sample, views=views), (12, 8, 60, 40)).views[0]
    expected = np.diag([0.5, 0.5, 1.0]) @ sample.views[0].intrinsics
    expected[:2, 2] += -0.25 - np.array([6, 4])
    np.testing.assert_allclose(cropped.depth_intrinsics, expected, atol=1e-5)
    assert cropped.depth_m.shape == (20, 30)
    blind = tuple(replace(view, intrinsics=None) for view in views)
    with refused("no intrinsics to cut it by"):
        crop_views(replace(sample, views=blind), (12, 8, 60, 40))


def test_crop_moves_box_corners():
    sample = room_sample("scene")
    cropped = crop_views(sample, WINDOWS)
    for view, window in enumerate(WINDOWS):
        shift = np.array(window[:2] if window else (0, 0))
        assert same_corners(corner_pixels(cropped, view), corner_pixels(sample, view) - shift)


@pytest.mark.parametrize("unit", ["pixel", "permille"])
@pytest.mark.parametrize("kind", ["cross", "point", "box"])
def test_marks_are_drawn_on_the_same_pixels_after_a_crop(kind, unit):
    xy = {"cross": (40, 30), "point": (41, 33), "box": (34, 32, 60, 44)}[kind]
    if unit == "permille":
        sides = (WIDTH, HEIGHT) * 2
        xy = tuple((value + 0.3) * 1000 / side for value, side in zip(xy, sides, strict=False))
    sample = room_sample("scene", marks=(SceneMark(1, kind, "blue", xy, unit),))
    cropped = crop_views(sample, (13, 11, 70, 50))
    before, after = (np.asarray(part.marked_images()[1]) for part in (sample, cropped))
    assert (after == before[11:61, 13:83]).all()
    assert (before != np.asarray(sample.views[1].image)).any()


def test_crop_removes_unseen_objects_from_detection():
    sample = room_sample("detection3d", 1)
    shares = count_box_pixels(sample)
    assert (shares.max(1) > 0).all() and len(sample.boxes) > 2
    column = np.nanmean(corner_pixels(sample, 0), axis=1)[:, 0]
    side = int(column[np.isfinite(column)].min() > WIDTH / 2)
    cropped = crop_views(sample, (side * WIDTH // 2, 0, WIDTH // 2, HEIGHT))
    left = count_box_pixels(crop_views(sample, (side * WIDTH // 2, 0, WIDTH // 2, HEIGHT), check_visibility=False))
    seen = [bool(after >= min(0.004, before / 2)) for after, before in zip(left.max(1), shares.max(1), strict=True)]
    assert 0 < sum(seen) < len(seen)
    kept = [box for box, is_seen in zip(sample.boxes, seen, strict=True) if is_seen]
    assert [box.instance_id for box in cropped.boxes] == [box.instance_id for box in kept]
    read = parse_boxes(cropped.answer)
    assert not read.rejected and [item.label for item in read.items] == [box.label for box in kept]
    assert {item.bbox_3d for item in read.items} < {item.bbox_3d for item in parse_boxes(sample.answer).items}


def test_crop_refuses_what_it_cannot_keep_true():
    sample = room_sample("reconstruction")
    view, x = sample.marks[0].view, int(sample.marks[0].xy[0])
    windows = [None] * NUM_VIEWS
    windows[view] = (x + 1, 0, WIDTH - x - 1, HEIGHT) if x < WIDTH / 2 else (0, 0, x, HEIGHT)
    with refused("cross mark at .* leaves the window"):
        crop_views(sample, windows)
    with refused("point at pixel .* leaves the window"):
        crop_views(replace(sample, marks=()), windows)
    with refused("'center of the image', a place or coordinates"):
        crop_views(replace(sample, task="scene_qa", question="What is in the center of the image?"), (0, 0, 9, 9))
    with refused("task is not known"):
        crop_views(replace(sample, task="poetry"), (0, 0, 9, 9))
    with refused("no views"):
        crop_views(replace(sample, views=(), marks=(), points=()), (0, 0, 9, 9))
    with refused("pass check_visibility=False"):
        crop_views(replace(sample, task="scene_qa", marks=(), points=(), question="How many beds?"), (0, 0, 90, 70))
    ground = room_sample("grounding_box", 1)
    no_depth = replace(ground, views=tuple(replace(view, depth_picture=None) for view in ground.views))
    with refused("cannot be told: .*view 0 has no depth map"):
        crop_views(no_depth, (0, 0, 90, 70))
    with refused("would no longer be visible"):
        crop_views(ground, [(0, 0, 2, 2)] * NUM_VIEWS)
    with refused("would no longer be visible"):
        crop_views(room_sample("detection3d"), [(0, 0, 2, 2)] * NUM_VIEWS)
    assert crop_views(no_depth, (0, 0, 90, 70), check_visibility=False).answer == ground.answer


def test_crop_refuses_depth_that_sees_nothing_of_the_object():
    sample = room_sample("grounding_box", 1)
    views = [replace(view, depth_picture=np.zeros((HEIGHT, WIDTH), np.uint16)) for view in sample.views]
    with refused("no depth was measured on box 0"):
        crop_views(replace(sample, views=tuple(views)), (0, 0, 90, 70))
    far = [
        replace(view, depth_intrinsics=view.intrinsics + [[0, 0, 500], [0, 0, 0], [0, 0, 0]]) for view in sample.views
    ]
    with refused("depth map of view 0 does not reach into"):
        crop_views(room_sample("scene", 1, views=tuple(far)), (0, 0, 9, 9))


@pytest.mark.parametrize(
    ("windows", "match"),
    [
        ((0, 0, 97, 72), "does not lie in its picture of 96 x 72"),
        ((-1, 0, 9, 9), "is no left, top, width and height"),
        ((0, 0, 0, 9), "is no left, top, width and height"),
        ((0, 0, 9.5, 9), "expected 4 whole numbers"),
        ([(0, 0, 9, 9)], "expected 4 whole numbers"),
    ],
)
def test_crop_windows_are_checked(windows, match):
    with pytest.raises(ValueError, match=match):
        crop_views(room_sample("scene"), windows)


def test_random_crop_keeps_marks_and_sizes():
    for seed in range(20):
        sample = room_sample("reconstruction", seed % 4, seed)
        cropped = random_crop(sample, np.random.default_rng(seed), 0.3)
        assert check_geometry(cropped) == 1
        assert all(0.29 * WIDTH < view.image.width <= WIDTH for view in cropped.views)
        again = random_crop(sample, np.random.default_rng(seed), 0.3)
        assert [view.image.size for view in again.views] == [view.image.size for view in cropped.views]
    shared = random_crop(room_sample("scene"), np.random.default_rng(0), 0.5, is_shared=True)
    assert len({view.image.size for view in shared.views}) == 1
    apart = random_crop(room_sample("scene"), np.random.default_rng(0), 0.5)
    assert len({view.image.size for view in apart.views}) == NUM_VIEWS
    with pytest.raises(ValueError, match="min_share is 0"):
        random_crop(sample, np.random.default_rng(0), 0)
    with refused("place or coordinates"):
        random_crop(replace(sample, question="What is at pixel (3, 4)?"), np.random.default_rng(0))


# Sizes


def test_resize_moves_intrinsics_points_and_marks():
    sample = room_sample("reconstruction", 1)
    sizes = [(48, 36), (192, 144), (60, 80), (96, 72)]
    resized = resize_views(sample, sizes)
    assert [view.image.size for view in resized.views] == sizes
    assert check_geometry(resized) == 1
    (mark,), (point,) = resized.marks, resized.points
    assert all(float(value).is_integer() for value in mark.xy)
    assert np.abs(np.array(mark.xy) - point.pixel).max() <= 0.5
    for index, (before, after) in enumerate(zip(sample.views, resized.views, strict=True)):
        scale = sizes[index][0] / WIDTH, sizes[index][1] / HEIGHT
        boxed = room_sample("scene", 1), resize_views(room_sample("scene", 1), sizes)
        old, new = (corner_pixels(part, index) for part in boxed)
        assert same_corners(new, scale_pixels(old, *scale))
        assert (world_points(after) == world_points(before)).all()
    assert resized.marked_images()[mark.view].size == sizes[mark.view]
    assert resize_views(sample, (50, 40)).views[2].image.size == (50, 40)


def test_resize_gives_depth_its_own_intrinsics():
    sample = room_sample("scene")
    views = tuple(replace(view, depth_intrinsics=None) for view in sample.views)
    resized = resize_views(replace(sample, views=views), (48, 36))
    np.testing.assert_allclose(resized.views[0].depth_intrinsics, sample.views[0].intrinsics, atol=1e-9)
    marks = (SceneMark(0, "point", "red", (500.0, 250.0), "permille"), SceneMark(0, "box", "red", (10, 10, 30, 20)))
    resized = resize_views(replace(sample, marks=marks), (48, 36))
    assert resized.marks[0] == marks[0] and resized.marks[1].xy == (4.75, 4.75, 14.75, 9.75)
    for sizes, match in (
        ((0, 5), "at least 1 pixel"),
        ([None] * NUM_VIEWS, "at least 1"),
        ([(5, 5)], "expected 2 whole"),
    ):
        with pytest.raises(ValueError, match=match):
            resize_views(sample, sizes)
    with refused("place or coordinates"):
        resize_views(replace(sample, question="What is at (3, 4)?"), (48, 36))
    with refused("no views"):
        resize_views(replace(sample, views=()), (48, 36))


# The composition


def test_drawn_changes_keep_every_task_true():
    augment = SceneAugmentation(AugmentationConfig(resize_probability=0.5, crop_probability=0.8))
    points = 0
    for seed in range(4):
        for task in ROOM_TASKS:
            for epoch in range(3):
                sample = room_sample(task, seed)
                changed = augment(sample, epoch)
                points += check_geometry(changed)
                _check_answer(changed)
                row = changed.to_row()
                again = SceneSample.from_row(row)
                assert again.answer == changed.answer and again.views[0].image.size == changed.views[0].image.size
                log = changed.metadata["augmentation"]
                assert json.loads(row["metadata"])["augmentation"] == log
    assert points >= 12
    assert all(augment.counts[step, "done"] for step in ("drop_views", "reorder_views", "flip_horizontally"))
    assert all(augment.counts[step, "done"] for step in ("crop_views", "resize_views", "jitter_views"))


def _check_answer(sample):
    """The numbers of an answer are those of the boxes and points beside it."""
    if sample.task == "reconstruction":
        (item,) = parse_points(sample.answer).items
        assert np.abs(np.array(item.point) - sample.point_in_view(sample.points[0], 0)).max() < 0.0055
    if sample.task in ("detection3d", "grounding_box"):
        items = parse_boxes(sample.answer).items
        assert len(items) == len(sample.boxes)
        for item, box in zip(items, sample.boxes, strict=True):
            assert np.abs(np.array(item.bbox_3d) - sample.box_in_view(box, 0))[:6].max() < 0.0105
    if sample.task == "grounding_frame":
        assert json.loads(sample.answer.strip("`json\n\t "))["frame"] == sample.target_frame


def test_draws_depend_on_seed_id_and_epoch_alone():
    first, second = room_sample("reconstruction", 0), room_sample("reconstruction", 1)

    def drawn(config, sample, epoch=0, before=()):
        augment = SceneAugmentation(config)
        for other in before:
            augment(other)
        return [np.asarray(view.image).tobytes() for view in augment(sample, epoch).views]

    config = AugmentationConfig(seed=3)
    assert drawn(config, first) == drawn(config, first, before=(second, second))
    assert drawn(config, first) != drawn(AugmentationConfig(seed=4), first)
    assert drawn(config, first) != drawn(config, first, epoch=1)
    assert drawn(config, first) != drawn(config, replace(first, id="another"))
    with pytest.raises(ValueError, match="no id"):
        SceneAugmentation()(replace(first, id=None))


def test_refused_steps_are_skipped_and_counted():
    sample = room_sample("detection3d", 0)
    sample = replace(sample, task="scene_qa", question="What is written on the map?", answer="exit", boxes=())
    always = dict.fromkeys(
        ("drop_probability", "reorder_probability", "flip_probability", "crop_probability", "color_probability"), 1.0
    )
    augment = SceneAugmentation(AugmentationConfig(**always))
    changed = augment(sample)
    log = changed.metadata["augmentation"]
    assert log["done"] == ["reorder_views", "jitter_views"]
    assert set(log["refused"]) == {"drop_views", "flip_horizontally", "crop_views"}
    assert "writing" in log["refused"]["flip_horizontally"]
    assert augment.counts["flip_horizontally", "refused"] == 1 and augment.counts["reorder_views", "done"] == 1
    left = replace(sample, question="What is left of the bed?")
    orders = set()
    for epoch in range(6):
        changed = SceneAugmentation(AugmentationConfig(**{**always, "drop_probability": 0.0}))(left, epoch)
        poses = [view.camera_to_world for view in changed.views]
        assert sum(np.abs(pose - left.views[0].camera_to_world).max() < 1e-9 for pose in poses) <= 1
        if "flip_horizontally" not in changed.metadata["augmentation"]["done"]:
            assert (poses[0] == left.views[0].camera_to_world).all()  # the order of the others changes
        orders.add(tuple(np.round(poses[1][:3, 3], 6)))
    assert len(orders) > 1
    unchanged = SceneAugmentation(AugmentationConfig(**dict.fromkeys(always, 0.0)))(sample)
    assert unchanged.views is sample.views and unchanged.metadata["augmentation"] == {"done": [], "refused": {}}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"crop_probability": 1.5}, "crop_probability is 1.5"),
        ({"min_crop_share": 0.0}, "min_crop_share is 0"),
        ({"view_words": "drop"}, "view_words is 'drop'"),
        ({"resize_range": (2.0, 1.0)}, "resize_range is"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_config_is_checked(options, match):
    with pytest.raises(ValueError, match=match):
        AugmentationConfig(**options)


def test_refusals_cross_process_borders():
    with pytest.raises(AugmentationRefused) as caught:
        crop_views(replace(room_sample("scene"), task="poetry", id="a-7"), (0, 0, 9, 9))
    error = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(error, ValueError) and "crop_views is refused for sample 'a-7' of task 'poetry'" in str(error)
    assert (error.step, error.sample_id, error.task) == ("crop_views", "a-7", "poetry")
    assert room(0).images.shape == (NUM_VIEWS, HEIGHT, WIDTH, 3)
