"""Where the views show what is answered, and the read-out targets that follow from it."""

from dataclasses import replace

import numpy as np
import pytest

from gap_mllm.processing.data import RenderedRooms, RoomVariety, make_tasks
from gap_mllm.processing.visual_prompt_gap_mllm import Mark
from gap_mllm.training import SceneCollator
from gap_mllm.training.answered_places import answered_places, mentioned_places


VIEWS = RoomVariety(sizes=((128, 128),), size_shares=(1.0,), num_views=(3,), num_views_shares=(1.0,))
TASKS = ("detection3d", "grounding_box", "grounding_frame", "dense_caption", "reconstruction", "object_count")


@pytest.fixture(scope="module")
def questions():
    scene = RenderedRooms("train", 4, VIEWS, 1)[1]
    made = {sample.question_type: sample for sample in make_tasks(scene, TASKS, phrasings="first")}
    assert set(made) == set(TASKS) and len(made["detection3d"].boxes) > 2
    return made


def shown(sample, place):
    instances = sample.views[place.view].instances
    return str(instances.ids_at(np.array(place.pixel), sample.views[place.view].size))


def test_places_of_boxes_show_their_objects_in_the_order_of_the_answer(questions):
    for task in ("detection3d", "grounding_box", "dense_caption"):
        sample = questions[task]
        places = answered_places(sample, with_boxes=True)
        assert [shown(sample, place) for place in places] == [box.instance_id for box in sample.boxes], task
        most = [
            max(range(3), key=lambda view: (sample.views[view].instances.ids == int(box.instance_id)).sum())
            for box in sample.boxes
        ]
        assert [place.view for place in places] == most, task
    frame = questions["grounding_frame"]
    (place,) = answered_places(frame, with_boxes=True)
    assert place.view == frame.truth.frame and shown(frame, place) == frame.boxes[0].instance_id


def test_marks_go_before_boxes_and_boxes_count_where_asked_for(questions):
    marked = questions["reconstruction"]
    assert answered_places(marked) == answered_places(marked, with_boxes=True) != []
    assert answered_places(questions["detection3d"]) == []
    assert answered_places(replace(questions["object_count"], boxes=marked.boxes * 2), with_boxes=True) == []


def test_boxes_are_found_without_maps_unless_something_stands_in_front(questions):
    sample = questions["grounding_box"]
    bare = replace(sample, views=tuple(replace(view, instances=None) for view in sample.views))
    (place,) = answered_places(bare, with_boxes=True)
    numbers = sample.box_in_view(sample.boxes[0], place.view)
    focal = sample.views[place.view].intrinsics
    expected = focal[:2, :2] @ (numbers[:2] / numbers[2]) + focal[:2, 2]
    assert np.abs(np.array(place.pixel) - expected).max() <= 1
    walled = tuple(replace(view, depth_picture=np.full((128, 128), 0.2, np.float32)) for view in bare.views)
    assert answered_places(replace(bare, views=walled), with_boxes=True) == []
    unposed = tuple(replace(view, camera_to_world=None, intrinsics=None) for view in bare.views)
    assert answered_places(replace(bare, views=unposed), with_boxes=True) == []


def test_read_out_targets_are_the_tokens_of_the_objects(questions, tiny_processor):
    sample = questions["detection3d"]
    plain = SceneCollator(tiny_processor, "block_mask", for_pretraining=True)([sample])
    batch = SceneCollator(tiny_processor, "block_mask", for_pretraining=True, readout_boxes=True)([sample])
    assert (plain["readout_targets"] == -1).all()
    targets, image = batch["readout_targets"][0], tiny_processor.image_token_id
    visual = (batch["input_ids"][0] == image).nonzero().flatten().tolist()
    rows = (batch["labels"][0] >= 0).nonzero().flatten() - 1  # each predicts the token that follows
    assert (targets[rows] >= 0).all() and (targets >= 0).sum() == len(rows)
    told = list(dict.fromkeys(targets[rows].tolist()))
    assert (batch["input_ids"][0, told] == image).all()

    def token(place: Mark):
        x, y = place.pixel
        columns = batch["image_grid_thw"][0, 2].item() // 2
        return visual[place.view * columns**2 + y * columns // 128 * columns + x * columns // 128]

    assert told == list(dict.fromkeys(token(place) for place in answered_places(sample, with_boxes=True)))
    with pytest.raises(ValueError, match="readout_boxes and readout_mentions are for pre-training"):
        SceneCollator(tiny_processor, readout_boxes=True)


def test_questions_name_their_objects_in_the_views_that_they_name():
    scene = RenderedRooms("train", 4, VIEWS, 1)[1]
    sample = make_tasks(scene, ("front_behind",), phrasings="first")[0]
    (view,), labels = sample.metadata["named_views"], [box.label for box in sample.boxes]
    assert len(set(labels)) == 2 and all(label in sample.question for label in labels)
    places = mentioned_places(sample)
    assert list(places) == labels and {place.view for place in places.values()} == {view}
    assert [shown(sample, place) for place in places.values()] == [box.instance_id for box in sample.boxes]
    alike = replace(sample, boxes=tuple(replace(box, label="bed") for box in sample.boxes))
    assert mentioned_places(alike) == {}  # which of the two is meant cannot be told
    assert mentioned_places(replace(sample, metadata={})).keys() == places.keys()  # any view


@pytest.mark.parametrize("layout", ["block_mask", "padded", "packed"])
def test_words_that_name_objects_look_at_them(tiny_processor, layout):
    scene = RenderedRooms("train", 4, VIEWS, 1)[1]
    sample = make_tasks(scene, ("front_behind",), phrasings="first")[0]
    batch = SceneCollator(tiny_processor, layout, for_pretraining=True, readout_mentions=True)([sample, sample])
    ids, targets = batch["input_ids"], batch["readout_targets"]
    image, columns = tiny_processor.image_token_id, batch["image_grid_thw"][0, 2].item() // 2
    rows, positions = (targets >= 0).nonzero(as_tuple=True)
    places, told = mentioned_places(sample), []
    for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
        document = batch["document_ids"][row, position].item()
        seen = ids[row] == image
        if layout == "packed":  # each question behind views of its own
            seen &= batch["document_ids"][row] == document
        visual, target = seen.nonzero().flatten().tolist(), targets[row, position].item()
        word = tiny_processor.tokenizer.decode(ids[row, position : position + 1]).strip()
        (x, y), view = places[word].pixel, places[word].view
        assert target == visual[view * columns**2 + y * columns // 128 * columns + x * columns // 128]
        told.append(word)
    assert sorted(told) == sorted(2 * list(places))
    assert (batch["labels"][targets >= 0] == -100).all()  # of the question, not of the answer
    with pytest.raises(ValueError, match="readout_mentions are for pre-training"):
        SceneCollator(tiny_processor, readout_mentions=True)
