"""Where the views show what is answered, and the read-out targets that follow from it."""

from dataclasses import replace

import numpy as np
import pytest

from gap_mllm.processing.data import RenderedRooms, RoomVariety, make_tasks
from gap_mllm.processing.visual_prompt_gap_mllm import Mark
from gap_mllm.training import SceneCollator
from gap_mllm.training.answered_places import answered_places


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
    with pytest.raises(ValueError, match="teaching and readout_boxes are for pre-training"):
        SceneCollator(tiny_processor, readout_boxes=True)
