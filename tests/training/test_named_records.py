"""Whatever is wrong with a row stops a training with the name of the row, wherever it is found."""

from dataclasses import replace

import numpy as np
import pytest

from gap_mllm.processing.data import SceneSample, load_multiview, make_question, render_room
from gap_mllm.processing.data.cannot_ask import CannotAskError
from gap_mllm.processing.data.record_errors import RecordError, naming_record
from gap_mllm.training import SceneCollator, SceneGeometryDataset, SceneQuestionDataset


NAME = "the-bad-room"


@pytest.fixture(scope="module")
def question():
    return replace(make_question(render_room(0, num_views=2, height=64, width=64), "detection3d"), id=NAME)


def with_views(sample, **changes):
    """The sample with another field of its second view."""
    return replace(sample, views=(sample.views[0], replace(sample.views[1], **changes)))


def skewed(sample):
    pose = np.array(sample.views[1].camera_to_world)
    pose[:3, :3] *= 1.2
    return with_views(sample, camera_to_world=pose)


def mirrored(sample):
    return with_views(sample, camera_to_world=sample.views[1].camera_to_world @ np.diag([-1.0, 1, 1, 1]))


def lost(sample):
    return with_views(sample, camera_to_world=np.full((4, 4), -np.inf))


def too_small(sample):
    return with_views(sample, camera_to_world=np.eye(3))


POSES = (skewed, mirrored, lost, too_small)


def point_maps(processor, sample):
    return SceneCollator(processor, for_pretraining=True, point_map_side=2)([sample])


def known_geometry(processor, sample):
    return SceneCollator(processor, known_geometry=("poses", "depth", "intrinsics"))([sample])


def encoder_targets(processor, sample):
    return SceneGeometryDataset([sample])[0]


@pytest.mark.parametrize("damage", POSES)
@pytest.mark.parametrize("place", [point_maps, known_geometry, encoder_targets])
def test_a_pose_that_is_not_rigid_names_its_row(place, damage, question, tiny_processor):
    place(tiny_processor, question)
    with pytest.raises(RecordError, match=f"record {NAME}") as error:
        place(tiny_processor, damage(question))
    assert error.value.record_id == NAME and error.value.source == question.source


def test_an_augmentation_or_a_question_names_its_row(question):
    scene = replace(too_small(question), task="scene", question=None, answer=None)
    with pytest.raises(RecordError, match=NAME):
        SceneQuestionDataset([scene], tasks=("detection3d",))[0]

    def augment(sample, epoch):
        raise ValueError("turned over")

    with pytest.raises(RecordError, match=f"source {question.source}, record {NAME}: turned over"):
        SceneQuestionDataset([question], augmentation=augment)[0]


def test_teachers_and_texts_name_their_row(question, tiny_processor):
    def teach(views, grids, samples, tokenizer):
        raise ValueError("not taught")

    with pytest.raises(RecordError, match=f"record {NAME}, field views: not taught"):
        SceneCollator(tiny_processor, for_pretraining=True, teaching=teach)([question])
    with pytest.raises(RecordError, match=f"record {NAME}"):
        SceneCollator(tiny_processor)([replace(question, question="<image> <image> <image> which?")])


@pytest.mark.parametrize("camera", [np.diag([-1.0, 50, 1]), np.array([[50.0, 0, 900], [0, 50, 32], [0, 0, 1]])])
def test_intrinsics_that_the_model_would_refuse_name_their_row(camera, question, tiny_processor):
    damaged = with_views(question, intrinsics=camera, depth_intrinsics=None, depth_picture=None)
    with pytest.raises(RecordError, match=f"record {NAME}"):
        known_geometry(tiny_processor, damaged)


def test_a_matrix_that_is_none_names_its_row(question):
    row = next(iter(load_multiview("rendered_rooms", split="train", num_rooms=1))).to_row()
    row["views"][0]["camera_to_world"] = [[1.0, 0], [0, 1, 2]]
    with pytest.raises(RecordError, match=row["id"]):
        SceneSample.from_row(row)


def test_what_asks_again_is_not_changed():
    with pytest.raises(CannotAskError), naming_record("source", "row"):
        raise CannotAskError("no", "reason")
    with pytest.raises(RecordError, match="source a, record b, field c: wrong") as error, naming_record("a", "b"):
        raise RecordError("wrong", "c")
    assert error.value.file is None
