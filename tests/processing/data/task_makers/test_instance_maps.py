"""Rooms with instance maps: what makers say by the maps is what they say by depth and boxes, and every maker asks."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import parse_points
from gap_mllm.processing.data import render_room
from gap_mllm.processing.data.augmentation import AugmentationConfig, SceneAugmentation
from gap_mllm.processing.data.instance_maps import InstanceMap
from gap_mllm.processing.data.rooms.room_scenes import room_sample
from gap_mllm.processing.data.task_makers import TASK_MAKERS, TaskScene, make_tasks


@pytest.fixture(scope="module")
def mapped(rooms):
    """The rooms as scenes with maps and colours."""
    return [room_sample(room) for room in rooms]


@pytest.fixture(scope="module")
def asked(mapped):
    return [make_tasks(scene, num_per_task=2, seed=7) for scene in mapped]


def bare(scene):
    """The same scene with boxes and depth alone, and colours to name by."""
    return replace(scene, views=tuple(replace(view, instances=None) for view in scene.views))


def test_shares_are_those_of_the_maps_and_boxes_say_nearly_the_same(rooms, mapped):
    surely, counted = 0, 0
    for room, scene in zip(rooms, mapped, strict=True):
        exact, guessed = TaskScene(scene).objects, TaskScene(bare(scene)).objects
        true = np.stack([(room.instance_ids == i + 1).mean((1, 2)) for i in range(len(room.labels))])
        np.testing.assert_allclose(exact.share, true)
        np.testing.assert_allclose(exact.loose, true)
        assert (guessed.share <= exact.share + 0.01).all()  # boxes leave out what may be floor or wall
        # what one calls clear, the other never calls absent
        assert not (exact.is_clear & guessed.is_absent).any() and not (guessed.is_clear & exact.is_absent).any()
        counted += exact.is_clear.sum()
        surely += (exact.is_clear & guessed.is_visible).sum()
    assert counted > 150 and surely > 0.9 * counted


@pytest.mark.slow
def test_answers_agree_with_those_from_depth_and_boxes(mapped):
    """Of questions that need no drawing among pixels: where both ways ask the same, they answer the same."""
    makers = ("detection3d", "object_count", "grounding_box", "object_distance", "object_height", "camera_motion")
    same, seen = Counter(), Counter()
    for scene in mapped:
        pair = [make_tasks(one, makers, num_per_task=6, seed=3, phrasings="first") for one in (scene, bare(scene))]
        told = [{row.question: row for row in made} for made in pair]
        for text in told[0].keys() & told[1].keys():
            rows = [made[text] for made in told]
            maker = rows[0].metadata["maker"]
            seen[maker] += 1
            if maker == "detection3d":  # the boxes leave out what hardly shows
                ours, theirs = ({box.instance_id for box in row.boxes} for row in rows)
                same[maker] += theirs <= ours
            elif rows[0].truth.kind == "choice":
                texts = [row.choices[row.choice_index][3:] for row in rows]
                same[maker] += texts[0] == texts[1]
            else:
                same[maker] += rows[0].answer == rows[1].answer
    assert set(seen) == set(makers) and min(seen.values()) >= 15
    assert same == seen


def test_marks_show_what_the_maps_say_on_objects_and_around_them(rooms, asked):
    on_objects, labels = [], Counter()
    for room, made in zip(rooms, asked, strict=True):
        points = room.points_in_first_view()
        for row in made:
            if row.metadata["maker"] not in ("reconstruction", "sparse_points"):
                continue
            answers = parse_points(row.answer).items
            for point, answer in zip(row.points, answers, strict=True):
                x, y = map(int, point.pixel)
                shown = room.instance_ids[point.view, y, x]
                assert answer.label == point.label == room.label_of(shown)
                np.testing.assert_allclose(point.xyz, points[point.view, y, x], atol=1e-5)
                around = room.instance_ids[point.view, [y, y, y - 1, y + 1], [x - 1, x + 1, x, x]]
                assert (around == shown).all()
                labels[answer.label] += 1
                if row.metadata["maker"] == "reconstruction":
                    on_objects.append(shown > 0)
    assert {"floor", "wall", "bed"} <= set(labels)
    assert len(on_objects) == 60 and 0.42 < np.mean(on_objects) < 0.78  # 0.6, three deviations


def test_objects_of_one_kind_are_told_apart_by_their_colours(mapped, asked):
    scene = next(scene for scene in mapped if len({box.label for box in scene.boxes}) < len(scene.boxes))
    objects = TaskScene(scene).objects
    assert not any(objects.rivals)
    names = [item.name for item in objects.items]
    assert len(set(names)) == len(names) and all(item.name.endswith(item.label) for item in objects.items)
    texts = [row.metadata["maker_facts"]["description"] for made in asked for row in made if row.truth.description]
    assert any(" tall " in text or " large " in text for text in texts)
    assert any(text.endswith("against the wall") for text in texts)
    captions = [row.answer for made in asked for row in made if row.metadata["maker"] == "dense_caption"]
    assert len(captions) > 40 and all(any(color in text for color in COLORS) for text in captions)


COLORS = ("red", "yellow", "green", "blue", "purple", "brown", "white", "black")


def test_maps_follow_the_picture_when_it_is_cropped_mirrored_and_resized():
    scene = room_sample(render_room(3, 2, 72, 96))
    crop = AugmentationConfig(crop_probability=1.0, min_crop_share=0.6, flip_probability=1.0)
    changed = SceneAugmentation(crop)(scene)
    assert changed.views[0].size != scene.views[0].size
    exact, guessed = TaskScene(changed).objects, TaskScene(bare(changed)).objects
    assert exact.is_clear.any() and not (exact.is_clear & guessed.is_absent).any()
    small = InstanceMap(np.array([[0, 1], [2, 3]]), {})
    pixels = np.array([[0, 0], [3, 1], [1, 3], [3, 3]])
    assert small.ids_at(pixels, (4, 4)).tolist() == [0, 1, 2, 3]  # a picture twice as large
    assert small.cropped((2, 0, 2, 2), (4, 4)).ids.tolist() == [[1, 1], [1, 1]]
    assert small.mirrored().ids.tolist() == [[1, 0], [3, 2]]


def test_questions_that_share_pictures_have_crosses_of_their_own_colours(mapped):
    colors = ("red", "green", "cyan", "magenta")
    made = make_tasks(mapped[0], {"reconstruction": 3, "point_distance": 2}, mark_colors=colors, share_views=True)
    drawn = [mark.color for row in made for mark in row.marks]
    assert [row.metadata["maker"] for row in made] == ["reconstruction"] * 3
    assert len(set(drawn)) == len(drawn) == 3 and set(drawn) < set(colors)
    assert made.refused == {("point_distance", "too few colours of crosses are left"): 2}
    with pytest.raises(ValueError, match=r"mark_colors is \['pink'\]; expected one or more of red"):
        make_tasks(mapped[0], mark_colors=("pink",))


def test_every_maker_asks_about_rooms(asked):
    found = Counter(row.metadata["maker"] for made in asked for row in made)
    assert set(TASK_MAKERS) - set(found) == {"above_below"}  # all furniture stands on the floor
