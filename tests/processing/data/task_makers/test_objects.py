"""Detection, grounding, captions: against the boxes and instance maps of rendered rooms, and scenes with ties."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import parse_boxes, parse_frame
from gap_mllm.processing.camera_geometry_gap_mllm import box_corners
from gap_mllm.processing.data.task_makers import TaskScene, make_tasks
from gap_mllm.processing.data.task_makers.descriptions import captions, describe, names_of, place_clauses
from tests.processing.data.task_makers.scenes import (
    box_scene,
    look_at,
    of_type,
    piece_of,
    true_shares,
)


def nearest(a, b):
    """Smallest distance of two clouds, thinned out."""
    a, b = a[:: max(1, len(a) // 400)], b[:: max(1, len(b) // 400)]
    return np.linalg.norm(a[:, None] - b, axis=-1).min()


def test_detection_lists_the_boxes_of_all_that_is_visible_in_first_seen_order(rooms, made):
    found = of_type(rooms, made, "detection3d")
    assert len(found) > 25
    for room, row in found:
        pieces = [piece_of(box) for box in row.boxes]
        shares = true_shares(room)
        assert set(np.flatnonzero((shares >= 0.012).any(1))) <= set(pieces)
        assert set(pieces) <= set(np.flatnonzero((shares >= 0.004).any(1)))
        answer = parse_boxes(row.answer, require_label=True)
        assert not answer.rejected and [item.label for item in answer.items] == [room.labels[i] for i in pieces]
        truth = box_corners(room.boxes_in_first_view()[pieces], "zxy")
        stored = box_corners(np.stack([box.numbers for box in row.boxes]), "zxy")
        np.testing.assert_allclose(stored, truth, atol=1e-5)
        np.testing.assert_allclose(
            [item.bbox_3d for item in answer.items], [box.numbers for box in row.boxes], atol=0.0051
        )
        earliest = np.where((shares >= 0.004).any(1), (shares >= 0.004).argmax(1), 9)[pieces]
        latest = np.where((shares >= 0.02).any(1), (shares >= 0.02).argmax(1), 9)[pieces]
        assert all((earliest[: place + 1] <= latest[place]).all() for place in range(len(pieces)))
        for box, piece in zip(row.boxes, pieces, strict=True):
            if shares[piece, 0] < 0.004 or shares[piece, 0] > 0.012:
                assert box.in_reference == (shares[piece, 0] > 0.012)


def is_true(room, piece, description):
    """Whether a description fits this piece and no other visible one, by clouds and maps instead of boxes."""
    label = room.labels[piece]
    kin = {
        "chair": {"chair", "stool"},
        "stool": {"chair", "stool"},
        "table": {"table", "desk"},
        "desk": {"table", "desk"},
    }
    seen = [i for i in range(len(room.labels)) if (room.instance_ids == i + 1).any()]
    rivals = [i for i in seen if i != piece and room.labels[i] in kin.get(label, {label})]
    if found := re.fullmatch(rf"the {label} closest to the (\w+)", description):
        (anchor,) = [i for i in seen if room.labels[i] == found[1]]
        return all(room_gap(room, piece, anchor) < room_gap(room, i, anchor) for i in rivals)
    if description == f"the tallest {label}":
        return all(room.boxes[piece, 5] > 1.2 * room.boxes[i, 5] for i in rivals)
    if found := re.fullmatch(rf"the (left|right)most {label} in the first frame", description):
        sign = 1 if found[1] == "left" else -1
        shown = [i for i in rivals if (room.instance_ids[0] == i + 1).any()]
        columns = {i: np.nonzero(room.instance_ids[0] == i + 1)[1].mean() for i in [piece, *shown]}
        return bool(shown) and all(sign * columns[piece] < sign * columns[i] for i in shown)
    if description == f"the {label}":
        return not rivals
    assert description.startswith(f"the {label} "), description
    return not rivals and clause_is_true(room, piece, description.removeprefix(f"the {label} "))


def room_gap(room, a, b):
    """Distance of the footprints' samples, in the world; all furniture stands on the floor."""
    return nearest(outline(room.boxes[a]), outline(room.boxes[b]))


def outline(box):
    line = np.linspace(-0.5, 0.5, 40)
    edge = np.concatenate([np.stack([line, 0 * line + s], -1) for s in (-0.5, 0.5)])
    points = np.concatenate([edge, edge[:, ::-1]]) * box[3:5]
    c, s = np.cos(box[6]), np.sin(box[6])
    return points @ np.array([[c, s], [-s, c]]) + box[:2]


def seen_piece(room, label):
    """The only piece of this label that a view shows."""
    (piece,) = [i for i, name in enumerate(room.labels) if name == label and (room.instance_ids == i + 1).any()]
    return piece


def clause_is_true(room, piece, clause):
    if found := re.fullmatch(r"next to the (\w+)", clause):
        return room_gap(room, piece, seen_piece(room, found[1])) < 0.35
    found = re.fullmatch(r"to the (left|right) of the (\w+) in the first frame", clause)
    assert found, clause
    columns = [np.nonzero(room.instance_ids[0] == i + 1)[1] for i in (piece, seen_piece(room, found[2]))]
    mine, other = (np.percentile(column, (10, 90)) for column in columns)
    return mine[1] < other[0] if found[1] == "left" else mine[0] > other[1]


def test_grounding_answers_the_first_clear_view_and_the_box_of_what_the_text_fits_alone(rooms, made):
    frames, descriptions = set(), []
    for room, row in of_type(rooms, made, "grounding_frame", "grounding_box"):
        (box,) = row.boxes
        piece, description = piece_of(box), row.metadata["maker_facts"]["description"]
        assert description in row.question
        assert is_true(room, piece, description), (room.seed, description)
        descriptions.append(description)
        shares = true_shares(room)[piece]
        if row.task == "grounding_frame":
            frame = parse_frame(row.answer, len(row.views)).first
            assert frame == row.target_frame and shares[frame] >= 0.012 and (shares[:frame] < 0.012).all()
            assert row.question.startswith("Frame-0: <image>Frame-1: <image>")
            frames.add(frame)
        else:
            answer = parse_boxes(row.answer).first
            np.testing.assert_allclose(answer.bbox_3d, box.numbers, atol=0.0051)
            np.testing.assert_allclose(box.numbers[:6], room.boxes_in_first_view()[piece, :6], atol=1e-5)
            assert shares.max() >= 0.012
    kinds = {re.sub(r"the \w+", "the X", text) for text in descriptions}
    assert frames >= {0, 1, 2} and len(kinds) >= 4 and len(descriptions) > 80


def test_captions_are_true_and_their_place_is_the_middle_of_one_object(rooms, made):
    found = of_type(rooms, made, "dense_caption")
    assert len(found) > 20
    for room, row in found:
        (box,) = row.boxes
        piece = piece_of(box)
        location = json.loads(re.search(r"\[.*?\]", row.question)[0])
        np.testing.assert_allclose(location, room.boxes_in_first_view()[piece, :3], atol=0.0051)
        assert row.answer == row.references[0] and len(set(row.references)) == len(row.references) >= 2
        for text in row.references:
            assert room.labels[piece] in text
            for clause in re.findall(r"next to the \w+|to the (?:left|right) of the \w+ in the first frame", text):
                assert clause_is_true(room, piece, clause)
            for height in re.findall(r"about ([\d.]+) metres tall", text):
                assert float(height) == pytest.approx(room.boxes[piece, 5], abs=0.051)


POSE = look_at((0, -3.0, 1.4), (0, 0, 0.5))
STOOL = [0.4, 0.4, 0.5, 0]


def scene_with(**boxes):
    sample, _ = box_scene({name.replace("_", "#"): box for name, box in boxes.items()}, [POSE])
    return TaskScene(sample)


def test_two_chairs_alike_get_no_name_unless_something_tells_them_apart():
    scene = scene_with(chair=[-1, 0, 0.25, *STOOL], chair_2=[1, 0, 0.25, *STOOL])
    assert [names_of(scene, item) for item in scene.objects.items] == [
        ["the leftmost chair in the first frame"],
        ["the rightmost chair in the first frame"],
    ]
    tie = scene_with(chair=[-1, 0, 0.25, *STOOL], chair_2=[1, 0, 0.25, *STOOL], table=[0, 0.6, 0.4, 0.8, 0.8, 0.8, 0])
    assert all("closest" not in name for item in tie.objects.items for name in names_of(tie, item))
    near = scene_with(
        chair=[-1.6, 0, 0.25, *STOOL], chair_2=[1, 0, 0.25, *STOOL], table=[0, 0.6, 0.4, 0.8, 0.8, 0.8, 0]
    )
    assert "the chair closest to the table" in names_of(near, near.objects.items[1])
    assert "the chair closest to the table" not in names_of(near, near.objects.items[0])
    tall = scene_with(chair=[-1, 0, 0.25, *STOOL], chair_2=[1, 0, 0.4, 0.4, 0.4, 0.8, 0])
    assert "the tallest chair" in names_of(tall, tall.objects.items[1])
    alike = scene_with(chair=[-1, 0, 0.25, *STOOL], chair_2=[1, 0, 0.3, 0.4, 0.4, 0.6, 0])
    assert "the tallest chair" not in names_of(alike, alike.objects.items[1])
    row = make_tasks(scene.sample, ("grounding_box",), num_per_task=5)
    assert {box.instance_id for question in row for box in question.boxes} == {"0", "1"}


def test_two_chairs_in_line_cannot_be_told_apart_and_give_no_question():
    scene = scene_with(chair=[0, 0, 0.25, *STOOL], chair_2=[0.1, 1.0, 0.25, *STOOL])
    made = make_tasks(scene.sample, ("grounding_frame", "grounding_box"))
    assert not made
    assert {reason for _, reason in made.refused} == {"no visible object is singled out by a description"}


def test_places_follow_gravity_and_the_first_picture():
    scene = scene_with(
        cabinet=[0, 0, 0.5, 1.0, 0.5, 1.0, 0], box=[0, 0, 1.15, 0.4, 0.4, 0.3, 0], stool=[0.85, 0, 0.25, *STOOL]
    )
    cabinet, box, stool = scene.objects.items
    assert place_clauses(scene, box) == ["above the cabinet", "to the left of the stool in the first frame"]
    assert "below the box" in place_clauses(scene, cabinet)
    assert "next to the cabinet" in place_clauses(scene, stool)
    assert captions(scene, box)[0] == (
        "This is a box. It is above the cabinet and to the left of the stool in the first frame."
    )
    rng = np.random.default_rng(0)
    told = {describe(scene, box, rng) for _ in range(30)}
    assert told == {"the box", *(f"the box {clause}" for clause in place_clauses(scene, box))}


def test_two_middles_in_one_place_are_not_asked_about():
    scene = scene_with(cabinet=[0, 0, 0.5, 1.0, 0.5, 1.0, 0], box=[0, -0.1, 0.5, 0.4, 0.4, 0.3, 0])
    made = make_tasks(scene.sample, ("dense_caption",))
    assert not made and sum(made.refused.values()) == 1


def test_an_earlier_view_that_nearly_shows_the_object_gives_no_frame():
    stool = {"stool": [0, 0, 0.25, *STOOL]}
    poses = [look_at((0, -distance, 1.0), (0, 0, 0.3)) for distance in (3.6, 1.5)]
    sample, ids = box_scene(stool, poses, focal=60.0)
    shares = (ids == 0).mean((1, 2))
    assert 0.006 < shares[0] < 0.012 < shares[1]
    made = make_tasks(sample, ("grounding_frame",))
    assert not made and made.refused["grounding_frame", "no object has a first view that shows it clearly"] == 1
    (row,) = make_tasks(replace(sample, views=sample.views[1:]), ("grounding_frame",))
    assert row.target_frame == 0
