"""Bounds on pixels hold after the image processor's own rounding, for every row by itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gap_mllm.processing.data import RecordError, SceneSample
from gap_mllm.processing.data.scene_sample import SceneMark, View
from gap_mllm.processing.processing_gap_mllm import default_image_processor
from gap_mllm.processing.tiny_tokenizer import build_tiny_processor
from gap_mllm.training.scene_collator import SceneCollator
from gap_mllm.training.view_sizes import fit_views, resized_pixels


CELL = 32 * 32
PUBLISHED = default_image_processor()  # enlarges small pictures
SIDE = st.integers(40, 1500)


def sample(sizes, name="row", marks=()):
    views = tuple(View(picture=Image.new("RGB", size, (90, 120, 40))) for size in sizes)
    return SceneSample(id=name, views=views, question="What is this?", answer="A wall.", marks=marks)


def real_pixels(batch):
    """Pixels of each row, from what the model gets."""
    views = (batch["image_grid_thw"].prod(1) * 256).tolist()
    lengths, rows = batch["scene_lengths"].tolist(), []
    for length in lengths:
        rows.append(views[:length])
        views = views[length:]
    return rows


def published_processor():
    processor = build_tiny_processor()
    processor.image_processor = default_image_processor()
    return processor


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=5), st.integers(50_000, 700_000), st.integers(4, 250))
def test_the_processors_own_sizes_stay_within_both_bounds(sizes, row, cells):
    view = cells * CELL + 17
    try:
        bounds, wanted, total = fit_views(PUBLISHED, sizes, view, row, "row")
    except RecordError as error:
        least = fit_least(sizes)
        assert "row" in str(error) and (max(least) > view or sum(least) > row)
        return
    pixels = [resized_pixels(PUBLISHED, size, bounds) for size in sizes]
    assert max(pixels) <= view and sum(pixels) == total <= min(row, wanted)


def fit_least(sizes):
    return [resized_pixels(PUBLISHED, size, {"shortest_edge": CELL, "longest_edge": CELL}) for size in sizes]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=3), min_size=2, max_size=3))
def test_batches_hold_what_was_promised(rows):
    collator = SceneCollator(published_processor(), max_view_pixels=150_000, max_sample_pixels=300_000)
    for views in real_pixels(collator([sample(sizes) for sizes in rows])):
        assert max(views) <= 150_000 and sum(views) <= 300_000


def test_bounds_that_were_overrun():
    """The processor enlarges small pictures: 800,000 pixels for a bound of 400,000, 64,512 for one of 50,000."""
    processor = published_processor()
    four = sample([(128, 96)] * 4)
    (views,) = real_pixels(SceneCollator(processor)([four]))
    assert sum(views) > 700_000
    (views,) = real_pixels(SceneCollator(processor, max_sample_pixels=400_000)([four]))
    assert 250_000 < sum(views) <= 400_000
    (views,) = real_pixels(SceneCollator(processor, max_view_pixels=50_000)([four]))
    assert views == [49_152] * 4  # 256 x 192


def test_a_bound_acts_on_its_row_alone():
    processor = published_processor()
    rows = [sample([(640, 480)], "one"), sample([(640, 480)] * 6, "six"), sample([(320, 240)] * 2, "two")]
    collator = SceneCollator(processor, max_sample_pixels=500_000)
    together = collator(rows)
    apart = [real_pixels(SceneCollator(processor, max_sample_pixels=500_000)([row]))[0] for row in rows]
    free = [real_pixels(SceneCollator(processor)([row]))[0] for row in rows]
    assert real_pixels(together) == apart
    assert apart[0] == free[0] and apart[2] == free[2] and sum(apart[1]) <= 500_000 < sum(free[1])
    assert collator.counts == {"pixels_reduced": 1}


def test_without_a_bound_nothing_changes():
    views = sample([(128, 96), (700, 300)])
    free = SceneCollator(published_processor())([views])
    loose = SceneCollator(published_processor(), max_sample_pixels=10**9)([views])
    assert torch.equal(free["pixel_values"], loose["pixel_values"])


@pytest.mark.parametrize(
    ("sizes", "bounds", "message"),
    [
        ([(64, 64)], {"max_view_pixels": 900}, "record row,.*a view takes at least 1024 pixels.*max_view_pixels=900"),
        (
            [(3200, 32)],
            {"max_view_pixels": 4096},
            "a view takes at least 10240 pixels.*max_view_pixels=4096",
        ),
        (
            [(64, 64)] * 5,
            {"max_sample_pixels": 5000},
            "record row,.*5 views take at least 5120 pixels, more than max_sample_pixels=5000",
        ),
        ([(9000, 32)], {"max_sample_pixels": 5000}, "record row,.*a view cannot be resized: .*aspect ratio"),
    ],
)
def test_a_bound_that_cannot_be_met_is_named(sizes, bounds, message, tiny_processor):
    with pytest.raises(RecordError, match=message):
        SceneCollator(tiny_processor, **bounds)([sample(sizes), sample([(64, 64)], "other")])


def test_marks_and_targets_follow_the_resize(tiny_processor):
    """A plane 2 m ahead; the marked pixel is the same place of a smaller grid, and sees the same point."""
    mark = SceneMark(1, "cross", "red", (120.0, 8.0))
    intrinsics = np.array([[128.0, 0, 63.5], [0, 128.0, 63.5], [0, 0, 1]])
    views = [
        View(
            picture=Image.new("RGB", (128, 128)),
            depth_picture=np.full((128, 128), 2000, np.uint16),
            depth_scale=1000.0,
            intrinsics=intrinsics,
            camera_to_world=np.eye(4),
        )
        for _ in range(2)
    ]
    row = SceneSample(id="row", views=tuple(views), question="?", answer="x", marks=(mark,))
    for pixels, side in ((None, 4), (2 * 64 * 64, 2)):
        collator = SceneCollator(
            tiny_processor, for_pretraining=True, point_map_side=1, max_sample_pixels=pixels, max_view_pixels=128 * 128
        )
        batch = collator([row])
        assert batch["image_grid_thw"].tolist() == [[1, 2 * side, 2 * side]] * 2
        column = int(batch["readout_targets"].max())
        token = int((batch["input_ids"][0][:column] == tiny_processor.image_token_id).sum())
        assert token == side * side + side - 1  # view 1, first row, last column
        x = (128 - 64 / side - 0.5 - 63.5) / 128 * 2  # centre of the last of `side` cells
        torch.testing.assert_close(batch["point_map_targets"][token, 0, 0, 0], torch.tensor(x, dtype=torch.float32))
