"""Dropping and reordering views: what is said in the camera of view 0 follows, whoever becomes view 0."""

import re
from dataclasses import replace

import numpy as np
import pytest

from gap_mllm.processing.answers_gap_mllm import format_box, format_boxes, format_point, parse_boxes, parse_points
from gap_mllm.processing.camera_geometry_gap_mllm import euler_to_matrix, matrix_to_euler
from gap_mllm.processing.data.augmentation import (
    AugmentationRefused,
    drop_views,
    droppable_views,
    random_order,
    reorder_views,
)
from gap_mllm.processing.data.augmentation.texts import asks_first_clear
from gap_mllm.processing.data.augmentation.visible_boxes import count_box_pixels
from gap_mllm.processing.data.scene_sample import SceneMark, SceneSample
from gap_mllm.processing.data.task_makers.templates import phrase
from gap_mllm.processing.prompts_gap_mllm import prompt_text
from tests.processing.data.room_samples import (
    NUM_VIEWS,
    check_geometry,
    corner_pixels,
    room,
    room_sample,
    same_corners,
)


ORDERS = ([1, 0, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [0, 2, 1, 3])
TAGS = "Frame-0: <image>Frame-1: <image>Frame-2: <image>Frame-3: <image>"


def refused(match):
    return pytest.raises(AugmentationRefused, match=match)


def truth(seed, order, instance_ids):
    """The boxes of a reordered room, from the renderer; Frame: camera of its first view."""
    return room(seed).reorder_views(order).boxes_in_first_view()[[int(name) - 1 for name in instance_ids]]


def assert_boxes(items, expected, step=0.01):
    """Read boxes are the expected ones up to rounding."""
    assert len(items) == len(expected)
    for item, box in zip(items, expected, strict=True):
        numbers = np.array(item.bbox_3d)
        assert np.abs(numbers[:6] - box[:6]).max() < 0.5 * step + 1e-4
        apart = euler_to_matrix(numbers[6:], "zxy") - euler_to_matrix(box[6:], "zxy")
        assert np.abs(apart).max() < 1.5 * step


@pytest.mark.parametrize("order", ORDERS)
def test_detection_follows_the_first_view(order):
    for seed in range(3):
        sample = room_sample("detection3d", seed)
        moved = reorder_views(sample, order)
        expected = truth(seed, order, [box.instance_id for box in sample.boxes])
        assert_boxes(parse_boxes(moved.answer).items, expected)
        labels = [box.label for box in sample.boxes]
        assert moved.answer == format_boxes(labels, [box.numbers for box in moved.boxes])
        for new, old in enumerate(order):
            assert same_corners(corner_pixels(moved, new), corner_pixels(sample, old))
            assert moved.views[new] is sample.views[old]
        assert [box.in_reference for box in moved.boxes] == (
            [box.in_reference for box in sample.boxes] if order[0] == 0 else [None] * len(labels)
        )


@pytest.mark.parametrize("order", ORDERS)
def test_a_marked_pixel_follows_the_first_view(order):
    for number in range(6):
        sample = room_sample("reconstruction", number % 3, number)
        moved = reorder_views(sample, order)
        assert check_geometry(moved) == 1
        (point,), (mark,) = moved.points, moved.marks
        assert order[mark.view] == sample.marks[0].view == order[point.view]
        assert (mark.xy, point.label) == (sample.marks[0].xy, sample.points[0].label)
        in_new_first = np.linalg.inv(room(number % 3).camera_to_world[order[0]])
        expected = in_new_first @ room(number % 3).camera_to_world[0] @ [*sample.points[0].xyz, 1]
        assert np.abs(point.xyz - expected[:3]).max() < 1e-5
        assert moved.answer == format_point(point.label, point.xyz)


def test_points_that_need_fewer_decimals_get_two():
    sample = room_sample("reconstruction", 1)
    xyz = np.array([1.0, 0.5, 2.0])
    point = replace(sample.points[0], xyz=xyz)
    even = replace(sample, points=(point,), answer=format_point("bed", xyz))
    assert "[1.0, 0.5, 2.0]" in even.answer
    moved = reorder_views(even, [1, 0, 2, 3])
    assert moved.answer == format_point("bed", moved.points[0].xyz, 2)
    coarse = replace(even, points=(replace(point, xyz=xyz + 0.03),))
    moved = reorder_views(coarse, [1, 0, 2, 3])
    assert moved.answer == format_point("bed", moved.points[0].xyz, 1)


def test_grounding_answers_follow():
    order = [2, 0, 3, 1]
    sample = room_sample("grounding_box", 1, target_frame=1)
    moved = reorder_views(sample, order, view_words="keep")
    expected = truth(1, order, [sample.boxes[0].instance_id])
    assert_boxes(parse_boxes(moved.answer).items, expected)
    assert moved.answer.startswith("```json\n\t{") and order[moved.target_frame] == sample.target_frame

    frame = room_sample("grounding_frame", 1, target_frame=1, answer='```json\n\t{"frame": 1}\n```')
    moved = reorder_views(frame, [1, 3, 0, 2], view_words="keep")
    assert (moved.answer, moved.target_frame) == ('```json\n\t{"frame": 0}\n```', 0)
    assert moved.question == frame.question  # the tags count the places
    with refused("first clear view, which is 1, and view 3 would come before it"):
        reorder_views(frame, [3, 1, 0, 2], view_words="keep")
    for question in ("Which frame is the first to show it clearly?", "Stop at the first one with a clear view."):
        with refused("first clear view, which is 1, and view 3 would come before it"):
            reorder_views(replace(frame, question=question), [3, 1, 0, 2])
    wrong = replace(frame, target_frame=2)
    with refused("its answer says frame 1, but target_frame is 2"):
        reorder_views(wrong, [0, 2, 1, 3])
    assert drop_views(wrong, [3]).answer == wrong.answer  # the numbers of the others stay


def one_stage(frame=2):
    """One-stage grounding: the box is in the camera of the answered view."""
    sample = room_sample("grounding_box", 1)
    box = sample.boxes[0]
    numbers = sample.box_in_view(box, frame)
    answer = format_box(numbers).replace("{", f'{{"frame": {frame}, ')
    question = TAGS + (
        '\nLocalize the frame of the chair.\nOutput a JSON dictionary with the frame index in "frame" and its 3D '
        'bounding box in "bbox_3d" in the frame\'s coordinates.\n'
    )
    boxes = (replace(box, numbers=numbers, frame_index=frame),)
    return replace(sample, task="grounding", question=question, answer=answer, boxes=boxes, target_frame=frame)


@pytest.mark.parametrize("frame", [0, 2])
def test_one_stage_grounding_keeps_the_box_in_its_own_camera(frame):
    sample = one_stage(frame)
    order = [3, 2, 1, 0]
    moved = reorder_views(sample, order)
    place = order.index(frame)
    assert moved.answer == sample.answer.replace(f'"frame": {frame}', f'"frame": {place}')
    assert moved.boxes[0].frame_index == moved.target_frame == place
    assert same_corners(corner_pixels(moved, 0), corner_pixels(sample, 3))
    with refused("speak of view"):
        drop_views(sample, [frame])


def test_one_stage_grounding_in_the_first_camera_moves():
    sample = one_stage()
    question = sample.question.replace("the frame's coordinates", "the camera coordinate system of the first frame")
    first = room_sample("grounding_box", 1)
    answer = format_box(first.boxes[0].numbers).replace("{", '{"frame": 2, ')
    sample = replace(sample, question=question, answer=answer, boxes=first.boxes)
    moved = reorder_views(sample, [2, 3, 0, 1])
    assert '"frame": 0' in moved.answer and moved.boxes[0].frame_index == 0
    assert_boxes(parse_boxes(moved.answer).items, truth(1, [2, 3, 0, 1], [first.boxes[0].instance_id]))


def test_world_boxes_stay_and_their_answers_move():
    sample = room_sample("detection3d", 2)
    boxes = tuple(
        replace(box, numbers=room(2).boxes[int(box.instance_id) - 1], frame="aligned", frame_index=None)
        for box in sample.boxes
    )
    sample = replace(sample, boxes=boxes)
    moved = reorder_views(sample, [3, 2, 1, 0])
    assert [(box.numbers == old.numbers).all() for box, old in zip(moved.boxes, boxes, strict=True)]
    assert_boxes(parse_boxes(moved.answer).items, truth(2, [3, 2, 1, 0], [box.instance_id for box in boxes]))


def test_the_other_euler_order_is_written_as_it_was():
    sample = room_sample("detection3d", 2)
    boxes = []
    for box in sample.boxes:
        angles = matrix_to_euler(euler_to_matrix(box.numbers[6:], "zxy"), "ZXY")
        boxes.append(replace(box, numbers=np.r_[box.numbers[:6], angles], euler_order="ZXY"))
    answer = format_boxes([box.label for box in boxes], [box.numbers for box in boxes])
    moved = reorder_views(replace(sample, boxes=tuple(boxes), answer=answer), [3, 2, 1, 0])
    for item, box in zip(parse_boxes(moved.answer).items, moved.boxes, strict=True):
        apart = euler_to_matrix(np.array(item.bbox_3d[6:]), "ZXY") - euler_to_matrix(box.numbers[6:], "ZXY")
        assert box.euler_order == "ZXY" and np.abs(apart).max() < 0.015
    for new, old in enumerate([3, 2, 1, 0]):
        assert same_corners(corner_pixels(moved, new), corner_pixels(sample, old))


@pytest.mark.parametrize(
    ("decimals", "form"),
    [
        (3, "{answer}"),
        (1, "{bare}"),
        (2, "Here they are: {bare}."),
        (2, "```json\n{bare}\n```"),
        (4, "{spaced}"),
        (2, "{padded}"),
    ],
)
def test_the_form_of_an_answer_stays(decimals, form):
    sample = room_sample("detection3d", 1)
    labels, numbers = [box.label for box in sample.boxes], [box.numbers for box in sample.boxes]
    answer = format_boxes(labels, numbers, decimals)
    bare = answer.removeprefix("```json\n").removesuffix("```")
    padded = answer
    for item in parse_boxes(answer).items:
        written = ", ".join(f"{number:.2f}" for number in item.bbox_3d)
        padded = padded.replace(", ".join(map(str, item.bbox_3d)), written)
    spaced = bare.replace(": ", ":").replace("{", "{ ")
    texts = {"answer": answer, "bare": bare, "spaced": spaced, "padded": padded}
    sample = replace(sample, answer=form.format(**texts))
    moved = reorder_views(sample, [1, 0, 2, 3])
    expected = truth(1, [1, 0, 2, 3], [box.instance_id for box in sample.boxes])
    assert_boxes(parse_boxes(moved.answer).items, expected, 10**-decimals)
    blank = [char for char in sample.answer if not char.isdigit() and char not in "-."]
    assert [char for char in moved.answer if not char.isdigit() and char not in "-."] == blank
    digits = [len(part) for part in re.findall(r"\d\.(\d+)", moved.answer)]
    assert max(digits) == decimals
    assert decimals == 1 or (min(digits) == decimals) == ("padded" in form)


def test_captions_move_their_location():
    sample = room_sample("dense_caption", 2)
    sample = replace(sample, answer="A chair.", references=("A chair.",))
    moved = reorder_views(sample, [2, 1, 0, 3])
    center = truth(2, [2, 1, 0, 3], [sample.boxes[0].instance_id])[0][:3]
    assert moved.question == prompt_text("dense_caption", location=moved.boxes[0].numbers[:3])
    assert np.abs(moved.boxes[0].numbers[:3] - center).max() < 1e-5
    tagged = replace(sample, question="<image>" * NUM_VIEWS + sample.question, boxes=())
    moved = reorder_views(tagged, [2, 1, 0, 3])
    written = np.array(read_location(moved.question))
    assert moved.question.startswith("<image>" * NUM_VIEWS) and np.abs(written - center).max() < 0.015
    with refused("is not three numbers"):
        reorder_views(replace(sample, question="An object located at [1, 2]."), [1, 0, 2, 3])


@pytest.mark.parametrize("task", ["reconstruction", "detection3d", "grounding_box", "dense_caption"])
def test_questions_may_be_worded_in_any_of_our_ways(task):
    sample, rng = room_sample(task, 2), np.random.default_rng(0)
    words = {"reconstruction": {"color": "red"}, "detection3d": {}, "grounding_box": {"description": "the bed"}}
    words["dense_caption"] = {"location": sample.boxes[0].numbers[:3] if sample.boxes else None}
    told = {"answer": "A chair.", "references": ()} if task == "dense_caption" else {}
    own = reorder_views(replace(sample, **told, question=phrase(task, rng, "first", **words[task])[1]), [2, 1, 0, 3])
    for text in {phrase(task, rng, **words[task])[1] for _ in range(200)}:
        moved = reorder_views(replace(sample, **told, question=text), [2, 1, 0, 3])
        assert moved.answer == own.answer
        if task == "dense_caption":
            assert (
                re.findall(r"\[.*\]", moved.question)
                == re.findall(r"\[.*\]", own.question)
                != re.findall(r"\[.*\]", text)
            )
        else:
            assert moved.question == text


def test_the_first_clear_view_is_asked_for_in_any_of_our_ways():
    sample, rng = room_sample("grounding_frame", 2), np.random.default_rng(0)
    for phrasings in ("all", "held_out"):
        for text in {phrase("grounding_frame", rng, phrasings, description="the bed")[1] for _ in range(100)}:
            assert asks_first_clear(replace(sample, question=text)), text


def read_location(question):
    """The numbers behind "located at"."""
    return [float(number) for number in question.split("located at [")[1].split("]")[0].split(",")]


def test_tags_with_numbers_and_names_of_frames_follow():
    question = TAGS + "\nIs the bed of Frame-3 also in Frame-1?"
    sample = replace(room_sample("scene"), task="scene_qa", question=question, answer="yes, as in Frame-3", boxes=())
    moved = reorder_views(sample, [0, 3, 2, 1])
    assert moved.question == TAGS + "\nIs the bed of Frame-1 also in Frame-3?"
    assert moved.answer == "yes, as in Frame-1"
    dropped = drop_views(sample, [2], check_visibility=False)
    assert dropped.question == TAGS.replace("Frame-3: <image>", "") + "\nIs the bed of Frame-2 also in Frame-1?"
    for view in (1, 3):
        with refused(f"speak of view {view}"):
            drop_views(sample, [view], check_visibility=False)
    named = replace(sample, question=TAGS + "Is there a bed in Frame-0?", answer="yes")
    with refused("speak of view 0"):
        drop_views(named, [0], check_visibility=False)
    with refused("Frame-3, but <image> tags do not say"):
        droppable_views(replace(sample, question="Is there a bed in Frame-3?"))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"question": "What is in the second image?"}, "speaks of 'second image'"),
        ({"question": "What is in frame 3?"}, "speaks of 'frame 3'"),
        ({"answer": "image 2"}, "speaks of 'image 2'"),
        ({"choices": ("A. view 1", "B. view 2")}, "speaks of 'view 1'"),
        ({"question": "Is the bed left of the desk?"}, "'left', which may be meant from the first view"),
        ({"question": "How far is it from the camera?"}, "'camera'"),
        (
            {"question": "What is at [1.0, 2.0, 3.0]?"},
            "2.0, 3.0.*, coordinates that would have to move",
        ),
        ({"question": "What appears first?"}, "'appears', which may be meant of the order"),
        ({"task": "video_qa"}, "the order of the views is the time"),
        ({"task": "counting"}, "task 'counting' refused|task is not known"),
        ({"task": "detection3d", "answer": "three boxes: 1, 2, 3"}, "its answer cannot be read"),
        ({"question": "<image><image>What is it?"}, "2 <image> tags for 4 views"),
        ({"views": ()}, "no views"),
    ],
)
def test_orders_that_would_make_a_text_false_are_refused(changes, match):
    sample = replace(room_sample("scene"), task="scene_qa", question="What is soft?", answer="the bed", boxes=())
    assert reorder_views(sample, [3, 1, 2, 0]).answer == "the bed"
    changed = replace(sample, **changes)
    with refused(match):
        reorder_views(changed, [3, 2, 1, 0] if changed.views else [])


def test_words_of_direction_are_kept_if_asked():
    question = "Is the bed left of the desk?"
    sample = replace(room_sample("scene"), task="scene_qa", question=question, answer="no", boxes=())
    assert reorder_views(sample, [1, 0, 2, 3], view_words="keep").question == question
    assert reorder_views(sample, [0, 3, 2, 1]).question == question
    with pytest.raises(ValueError, match="view_words is 'drop'"):
        reorder_views(sample, [1, 0, 2, 3], view_words="drop")


def test_answers_that_no_box_explains_are_refused():
    sample = room_sample("detection3d", 1)
    box = sample.boxes[0]
    wrong = replace(sample, boxes=(replace(box, numbers=box.numbers + 0.1), *sample.boxes[1:]))
    with refused("no box of the sample has the numbers"):
        reorder_views(wrong, [1, 0, 2, 3])
    assert reorder_views(wrong, [0, 2, 1, 3]).answer == sample.answer  # nothing has to move
    cut = replace(sample, answer=sample.answer[:-30])
    with refused("its answer cannot be read"):
        reorder_views(cut, [1, 0, 2, 3])
    point = room_sample("reconstruction")
    with refused("no point of the sample has the numbers"):
        reorder_views(replace(point, points=()), [1, 0, 2, 3])
    views = [replace(view, camera_to_world=None) for view in sample.views]
    with refused("cannot follow: .*has no pose"):
        reorder_views(replace(sample, views=tuple(views)), [1, 0, 2, 3])
    assert reorder_views(replace(sample, views=tuple(views)), [0, 3, 2, 1]).answer == sample.answer


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 4]])
def test_orders_are_checked(order):
    with pytest.raises(ValueError, match="expected every view from 0 to 3 once"):
        reorder_views(room_sample("scene"), order)


@pytest.mark.parametrize("views", [[4], [1, 1], [0, 1, 2, 3]])
def test_dropped_views_are_checked(views):
    with pytest.raises(ValueError, match="expected different views below 4, and not all"):
        drop_views(room_sample("scene"), views)


# Dropping


def test_dropping_the_first_view_moves_what_it_was_the_frame_of():
    sample = room_sample("grounding_box", 1, target_frame=None)
    dropped = drop_views(sample, [0], view_words="keep")
    assert len(dropped.views) == 3 and dropped.views[0] is sample.views[1]
    assert_boxes(parse_boxes(dropped.answer).items, truth(1, [1, 2, 3], [sample.boxes[0].instance_id]))
    marked = room_sample("reconstruction", 0)
    view = marked.marks[0].view
    with refused(f"speak of view {view}"):
        drop_views(marked, [view])
    kept = drop_views(marked, [other for other in range(NUM_VIEWS) if other != view])
    assert len(kept.views) == 1 and kept.marks[0].view == 0 and check_geometry(kept) == 1
    assert len(parse_points(kept.answer).items) == 1
    assert view not in droppable_views(marked) and 0 not in droppable_views(marked)


def test_objects_that_no_view_shows_leave_the_answer():
    found = 0
    for seed in range(8):
        sample = room_sample("detection3d", seed)
        shares = count_box_pixels(sample)
        least = np.minimum(0.004, shares.max(1) / 2)
        for keep in range(NUM_VIEWS):
            seen = shares[:, keep] >= least
            gone = [view for view in range(NUM_VIEWS) if view != keep]
            if not seen.any():
                with refused("would no longer be visible"):
                    drop_views(sample, gone)
                continue
            dropped = drop_views(sample, gone)
            kept = [box for box, is_seen in zip(sample.boxes, seen, strict=True) if is_seen]
            assert [box.instance_id for box in dropped.boxes] == [box.instance_id for box in kept]
            items = parse_boxes(dropped.answer).items
            assert [item.label for item in items] == [box.label for box in kept]
            assert_boxes(items, truth(seed, [keep], [box.instance_id for box in kept]))
            found += len(sample.boxes) - len(kept)
    assert found > 5


def test_seen_shares_agree_with_the_instance_maps():
    for seed in range(3):
        sample = room_sample("detection3d", seed)
        shares, ids = count_box_pixels(sample), room(seed).instance_ids
        for index, box in enumerate(sample.boxes):
            exact = (ids == int(box.instance_id)).mean((1, 2))
            assert (shares[index] >= exact - 0.002).all()  # all that is on the object, and what floor lies in its box
            assert (shares[index][exact == 0] < 0.03).all()


def test_visibility_is_checked_only_if_asked():
    sample = room_sample("detection3d", 1)
    blind = replace(sample, views=tuple(replace(view, depth_picture=None) for view in sample.views))
    with refused("cannot be told: .*view 0 has no depth map"):
        drop_views(blind, [3])
    assert drop_views(blind, [3], check_visibility=False).answer == sample.answer
    question = replace(sample, task="scene_qa", question="What is soft?", answer="the bed", boxes=())
    with refused("what its question is about may no longer be visible"):
        drop_views(question, [3])
    marked = replace(question, marks=(SceneMark(1, "point", "red", (5, 5)),))
    assert len(drop_views(marked, [3]).views) == 3
    assert len(drop_views(room_sample("scene"), [3]).views) == 3


def test_random_orders_keep_the_first_clear_view_so():
    sample = room_sample("grounding_frame", 0)
    sample = replace(sample, target_frame=1, answer='{"frame": 1}')
    firsts = set()
    for seed in range(30):
        order = random_order(sample, np.random.default_rng(seed))
        assert sorted(order) == list(range(NUM_VIEWS))
        moved = reorder_views(sample, order, view_words="keep")
        assert moved.answer == f'{{"frame": {order.index(1)}}}'
        firsts.add(order[0])
    assert firsts == {0, 1}
    free = {tuple(random_order(room_sample("scene"), np.random.default_rng(seed))) for seed in range(200)}
    assert len(free) == 24


def test_references_in_numbers_follow_and_rows_survive():
    sample = room_sample("grounding_box", 1)
    sample = replace(sample, references=(sample.answer, "no box"))
    moved = reorder_views(sample, [2, 1, 0, 3], view_words="keep")
    assert moved.references == (moved.answer, "no box")
    again = SceneSample.from_row(moved.to_row())
    assert again.answer == moved.answer and again.target_frame == moved.target_frame
    assert np.abs(again.boxes[0].numbers - moved.boxes[0].numbers).max() < 1e-6
