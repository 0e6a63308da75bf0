"""Coarse Correspondences: one number on one thing in every view, inside of it, without overlaps."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.camera_geometry_gap_mllm import project_points
from gap_mllm.processing.data.augmentation.coarse_correspondences import (
    CORRESPONDENCE_PROMPT,
    MIN_RADIUS_PX,
    coarse_correspondences,
    draw_numbers,
    marked_sample,
)
from gap_mllm.processing.data.augmentation.correspondence_candidates import square_cover
from gap_mllm.processing.data.record_errors import RecordError
from gap_mllm.processing.data.scene_sample import Point, SceneSample
from gap_mllm.processing.visual_prompt_gap_mllm import draw_scene_marks
from tests.processing.data.room_samples import HEIGHT, NUM_VIEWS, WIDTH, room, room_sample


def grey_sample(**changes):
    """The views of a room with plain pictures, so that what is drawn can be told."""
    grey = Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90))
    sample = room_sample("scene", 0, **changes)
    return replace(sample, views=tuple(replace(view, picture=grey) for view in sample.views))


def id_maps(*views):
    """Maps with squares: for each view {id: (left, top, side)}."""
    maps = np.zeros((len(views), HEIGHT, WIDTH), np.int32)
    for ids, squares in zip(maps, views, strict=True):
        for number, (left, top, side) in squares.items():
            ids[top : top + side, left : left + side] = number
    return maps


def test_things_in_most_views_come_first_then_the_larger():
    maps = id_maps(
        {7: (2, 2, 30), 5: (40, 2, 30), 9: (2, 40, 30), 3: (50, 40, 20)},
        {7: (2, 2, 30), 5: (40, 2, 30), 9: (2, 40, 24)},
        {5: (40, 2, 30), 4: (10, 40, 30)},
        {},
    )
    found = coarse_correspondences(grey_sample(), 3, "instances", instance_ids=maps)
    assert [(thing.number, thing.key, thing.views) for thing in found.things] == [
        (1, "5", [0, 1, 2]),
        (2, "7", [0, 1]),
        (3, "9", [0, 1]),
    ]
    assert found.things[0].pixels == {0: (54, 16), 1: (54, 16), 2: (54, 16)}  # the first of the four middle pixels
    assert (np.asarray(found.images[3]) == 90).all() and (np.asarray(found.images[2]) != 90).any()
    two = coarse_correspondences(grey_sample(), 2, "instances", instance_ids=maps)
    assert [thing.key for thing in two.things] == ["5", "7"]
    three_views = coarse_correspondences(grey_sample(), 9, "instances", instance_ids=maps, min_views=3)
    assert [thing.key for thing in three_views.things] == ["5"]


def test_discs_lie_inside_apart_and_off_the_border():
    for seed in range(6):
        sample, ids = room_sample("scene", seed), room(seed).instance_ids
        found = coarse_correspondences(sample, 8, "instances", instance_ids=ids)
        radius = found.radius_px[0]
        assert radius == MIN_RADIUS_PX
        for view in range(NUM_VIEWS):
            centres = []
            for thing in found.things:
                if view not in thing.pixels:
                    continue
                x, y = thing.pixels[view]
                mask = ids[view] == int(thing.key)
                square = mask[y - radius : y + radius + 1, x - radius : x + radius + 1]
                assert square.shape == (2 * radius + 1,) * 2 and mask[y, x] and square.mean() >= 0.5
                best = square_cover(mask, radius)[radius:-radius, radius:-radius].max()
                assert square.mean() == pytest.approx(best) or len(centres)  # discs before it may be in the way
                centres.append((x, y))
            apart = [np.hypot(a[0] - b[0], a[1] - b[1]) for a in centres for b in centres if a != b]
            assert min(apart, default=99) > 2 * radius + 2
        labels = {str(number + 1): label for number, label in enumerate(room(seed).labels)}
        marked = {box.instance_id for box in sample.boxes}
        for thing in found.things:
            assert thing.label == (labels[thing.key] if thing.key in marked else None)


def test_a_crowded_place_gives_its_number_to_the_next():
    tight = {1: (30, 20, 13), 2: (38, 20, 8), 6: (2, 50, 16)}  # no room for two discs side by side
    maps = id_maps(tight, tight, {}, {})
    maps[:2, 20:33, 30:43] = 1
    maps[:2, 22:31, 37:43] = 2
    found = coarse_correspondences(grey_sample(), 5, "instances", instance_ids=maps)
    assert [(thing.number, thing.key) for thing in found.things] == [(1, "6"), (2, "1")]


def test_squares_are_counted_exactly():
    mask = np.random.default_rng(0).random((9, 12)) < 0.5
    cover = square_cover(mask, 2)
    padded = np.pad(mask, 2)
    for row, column in ((0, 0), (4, 5), (8, 11)):
        assert cover[row, column] == pytest.approx(padded[row : row + 5, column : column + 5].mean())


def test_points_that_share_an_instance_are_one_thing():
    pixels = {("a", 0): (20, 20), ("a", 1): (30.4, 21.6), ("a", 3): (70, 50), ("b", 0): (60, 40), ("b", 2): (50, 40)}
    points = [
        Point(view, pixel, None, label=f"the {name}", instance_id=name) for (name, view), pixel in pixels.items()
    ]
    points += [
        Point(0, (24, 24), None, instance_id="a", confidence=0.2),
        Point(1, (9, 9), None, instance_id="alone"),
        Point(None, None, np.zeros(3), instance_id="b"),
        Point(0, (40, 40), None),
        Point(0, (24, 22), None, instance_id="c"),
        Point(2, (80, 60), None, instance_id="c"),
    ]
    found = coarse_correspondences(grey_sample(points=tuple(points)), 9)
    assert [(thing.key, thing.label, thing.pixels) for thing in found.things] == [
        ("a", "the a", {0: (20, 20), 1: (30, 22), 3: (70, 50)}),
        ("b", "the b", {0: (60, 40), 2: (50, 40)}),
    ]  # "c" would overlap "a" in view 0 and then is in one view only


def test_the_surest_of_several_points_is_marked():
    points = [
        Point(0, (20, 20), None, instance_id="a", confidence=0.2),
        Point(0, (50, 20), None, instance_id="a", confidence=0.9),
        Point(1, (30, 30), None, instance_id="a", confidence=0.5),
    ]
    (thing,) = coarse_correspondences(grey_sample(points=tuple(points))).things
    assert thing.pixels == {0: (50, 20), 1: (30, 30)}


def test_tracks():
    tracks = {
        "bed": {0: (20, 20), 2: (40, 30)},
        "lamp": {0: (60, 40), 1: (60, 41), 2: (61, 50)},
        "edge": {0: (1, 1), 1: (9, 9)},
    }
    found = coarse_correspondences(grey_sample(), 5, "tracks", tracks=tracks)
    assert [(thing.number, thing.label, thing.views) for thing in found.things] == [
        (1, "lamp", [0, 1, 2]),
        (2, "bed", [0, 2]),
    ]
    unnamed = coarse_correspondences(grey_sample(), 5, "tracks", tracks=list(tracks.values()))
    assert [thing.label for thing in unnamed.things] == [None, None]


def test_geometry_marks_one_surface_in_all_views():
    total = 0
    for seed in range(4):
        sample, scene = room_sample("scene", seed), room(seed)
        found = coarse_correspondences(sample, 6, "geometry")
        places = []
        for thing in found.things:
            spots = []
            for view, (x, y) in thing.pixels.items():
                ray = np.linalg.inv(scene.intrinsics[view]) @ [x, y, 1]
                pose = scene.camera_to_world[view]
                spots.append(pose[:3, :3] @ (ray * scene.depth_m[view, y, x]) + pose[:3, 3])
            pixel_m = max(
                scene.depth_m[view, y, x] / scene.intrinsics[view][0, 0] for view, (x, y) in thing.pixels.items()
            )
            assert np.ptp(spots, axis=0).max() < 4 * pixel_m + 0.1  # rounded pixels on slanted surfaces
            places.append(np.mean(spots, axis=0))
            ids = {int(scene.instance_ids[view, y, x]) for view, (x, y) in thing.pixels.items()}
            assert len(ids - {-5, -1, -3, -4}) <= 1  # what hangs on a wall has its depth
            total += len(thing.pixels)
        gaps = [np.linalg.norm(a - b) for i, a in enumerate(places) for b in places[:i]]
        assert min(gaps, default=9) > 0.2
    assert total > 30


def test_geometry_sees_what_stands_in_front():
    """A wall 4 m away, seen by two cameras 0.4 m apart; a board 1 m away hides a part of it in the second view."""
    camera = np.array([[80.0, 0, 47.5], [0, 80.0, 35.5], [0, 0, 1]])
    wall = np.full((HEIGHT, WIDTH), 4000, np.uint16)
    hidden = wall.copy()
    hidden[:, 60:] = 1000
    poses = [np.eye(4), np.eye(4)]
    poses[1][0, 3] = 0.4
    sample = grey_sample()
    views = [
        replace(view, depth_picture=depth, intrinsics=camera, depth_intrinsics=camera, camera_to_world=pose)
        for view, depth, pose in zip(sample.views, (wall, hidden), poses, strict=False)
    ]
    sample = replace(sample, views=tuple(views))
    found = coarse_correspondences(sample, 20, "geometry")
    assert len(found.things) > 5
    for thing in found.things:
        (left, top), (right, low) = thing.pixels[0], thing.pixels[1]
        assert (left - right, top - low) == (8, 0)  # 80 px * 0.4 m / 4 m
        assert right < 60 - found.radius_px[1]
    poses[1][0, 3] = np.nan
    blind = replace(sample, views=(sample.views[0], replace(sample.views[1], camera_to_world=None)))
    with pytest.raises(RecordError, match="1 of 2 views have depth, intrinsics and a pose; two are needed"):
        coarse_correspondences(blind, 5, "geometry")
    assert project_points(np.array([0.0, 0, 4]), camera)[0].tolist() == [47.5, 35.5]


def test_what_is_drawn():
    picture = draw_numbers(Image.new("RGB", (60, 60), (90, 90, 90)), {8: (30, 25)}, 12)
    pixels = np.asarray(picture).astype(int)
    ys, xs = np.ogrid[:60, :60]
    inside = (xs - 30) ** 2 + (ys - 25) ** 2 <= 11**2
    outside = (xs - 30) ** 2 + (ys - 25) ** 2 > 13**2
    assert (pixels[outside] == 90).all()
    red = pixels[inside]
    assert (red[:, 0] == 255).all() and (red[:, 1] == red[:, 2]).all()  # from red to white
    ink = np.argwhere((pixels[..., 1] > 200) & inside)
    assert len(ink) > 20
    assert np.abs(ink.mean(0) - (25, 30)).max() < 1.5 and np.ptp(ink[:, 0]) > 8  # in the middle, and large
    light = np.asarray(draw_numbers(Image.new("RGB", (60, 60)), {12: (30, 30)}, 14, "yellow")).astype(int)
    inside = (xs - 30) ** 2 + (ys - 30) ** 2 <= 12**2
    assert ((light.sum(-1) == 0) & inside).sum() > 20 and (light[..., 2] == 0).all()  # black digits
    assert light[30, 17].tolist() == [255, 255, 0]
    untouched = Image.new("RGB", (9, 9))
    assert draw_numbers(untouched, {}, 5) is untouched


def test_sizes_follow_the_picture_and_marks_go_to_samples():
    sample = grey_sample()
    big = replace(sample, views=tuple(replace(view, picture=Image.new("RGB", (800, 600))) for view in sample.views))
    tracks = [{0: (100, 100), 1: (200, 300)}]
    found = coarse_correspondences(big, 1, "tracks", tracks=tracks)
    assert found.radius_px == (18,) * NUM_VIEWS
    assert coarse_correspondences(big, 1, "tracks", tracks=tracks, mark_size=0.1).radius_px[0] == 60
    assert [(mark.view, mark.xy, mark.text, mark.kind) for mark in found.marks] == [
        (0, (100.0, 100.0), "1", "point"),
        (1, (200.0, 300.0), "1", "point"),
    ]
    drawn = draw_scene_marks([view.image for view in big.views], found.marks, radius=18)
    assert drawn[0].getpixel((100, 85)) == found.images[0].getpixel((100, 85)) == (255, 0, 0)


def test_the_marked_sample_says_what_the_numbers_are():
    sample = replace(
        grey_sample(), task="scene_qa", question="<image><image><image><image>\nWhere is it?", answer="there"
    )
    found = coarse_correspondences(sample, 1, "tracks", tracks={"bed": {0: (20, 20), 2: (40, 30)}})
    marked = marked_sample(sample, found)
    assert marked.question == f"<image><image><image><image>\n{CORRESPONDENCE_PROMPT}\nWhere is it?"
    assert marked.views[0].image is found.images[0] and marked.views[0].intrinsics is sample.views[0].intrinsics
    again = SceneSample.from_row(marked.to_row())
    assert again.metadata["coarse_correspondences"] == [
        {
            "number": 1,
            "key": "0",
            "label": "bed",
            "pixels": [{"view": 0, "pixel": [20, 20]}, {"view": 2, "pixel": [40, 30]}],
        }
    ]
    assert json.loads(marked.to_row()["metadata"]) == again.metadata
    assert (np.asarray(again.views[2].image) == np.asarray(found.images[2])).all()
    assert marked_sample(replace(sample, question="Where?"), found, prompt="").question == "Where?"
    assert marked_sample(replace(sample, question="Where?"), found).question == f"{CORRESPONDENCE_PROMPT}\nWhere?"
    with pytest.raises(ValueError, match="4 marked pictures for 2 views"):
        marked_sample(replace(sample, views=sample.views[:2]), found)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"source": "guesses"}, "source is 'guesses'; expected one of instances, points, tracks, geometry"),
        ({"num_marks": 0}, "num_marks is 0"),
        ({"min_views": 1}, "min_views 1"),
        ({"mark_size": 0.0}, "mark_size 0.0"),
        ({"color": "pink"}, "color is 'pink'"),
        ({"source": "instances"}, "instance_ids holds none maps for 4 views"),
        ({"source": "instances", "instance_ids": np.zeros((3, HEIGHT, WIDTH), int)}, "holds 3 maps for 4 views"),
        ({"source": "instances", "instance_ids": np.zeros((4, 9, 9), int)}, r"int64 of shape \(9, 9\)"),
        ({"source": "instances", "instance_ids": np.zeros((4, HEIGHT, WIDTH))}, "is float64 of shape"),
        ({"instance_ids": np.zeros((4, 9, 9), int)}, "instance_ids is given, but source is 'points'"),
        ({"source": "geometry", "tracks": [{}]}, "tracks is given, but source is 'geometry'"),
        ({"source": "tracks"}, "tracks is empty"),
        ({"source": "tracks", "tracks": [{4: (1, 1)}]}, "track 0 names view 4 of 4 views"),
        ({"source": "tracks", "tracks": [{0: (96, 1)}]}, r"track 0: pixel \(96, 1\) lies outside view 0"),
    ],
)
def test_what_is_given_is_checked(options, match):
    with pytest.raises(ValueError, match=match):
        coarse_correspondences(grey_sample(), **options)


def test_nothing_in_common_is_no_error():
    found = coarse_correspondences(grey_sample(points=()))
    assert found.things == () and found.marks == () and len(found.images) == NUM_VIEWS
    assert marked_sample(grey_sample(), found).question is None
