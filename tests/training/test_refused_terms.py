"""What a recipe or its data get wrong about terms: one error each, which names what came and what to do."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.processing.data.record_errors import RecordError
from gap_mllm.training import GeometryAlignedTrainingArguments, SceneCollator, set_training_heads
from gap_mllm.training.losses import chamfer_loss, feature_distillation_loss, scale_invariant_depth_loss
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from gap_mllm.training.teachers import RecordedTeacher, TeacherTargets
from gap_mllm.training.terms import make_terms


VIEWS = RoomVariety(sizes=((64, 64),), size_shares=(1.0,), num_views=(2,), num_views_shares=(1.0,))
ON = {"weight": 1.0}


@pytest.fixture(scope="module")
def room():
    return RoomQuestionDataset(RenderedRooms("train", 1, VIEWS, 1), RoomQuestions(counts={"reconstruction": 1}))[0]


@pytest.fixture
def collate(make_pretraining_model, tiny_processor):
    """A function (terms, item, teachers) -> the batch, as a training would make it."""

    def make(terms, item, teachers=None):
        args = GeometryAlignedTrainingArguments("unused", terms=copy.deepcopy(terms), report_to="none")
        teaching = set_training_heads(make_pretraining_model(), args, teachers)
        collator = SceneCollator(tiny_processor, "block_mask", for_pretraining=True, teaching=teaching)
        return collator([item]), collator.counts

    return make


def changed(room, index, **fields):
    views = list(room[0].views)
    views[index] = replace(views[index], **fields)
    return [replace(room[0], views=tuple(views))]


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"shpae": ON}, r"terms has the unknown key 'shpae' \(did you mean 'shape'\?\)"),
        ({"shape": {"wieght": 1.0}}, r"terms.shape has the unknown key 'wieght' \(did you mean 'weight'\?\)"),
        ({"shape": {**ON, "layers": [9]}}, "training_heads.shape.layers: layer 9 is none of the language model"),
        ({"depth": {**ON, "layers": -1}}, "terms.depth.layers is -1; expected a list of an integer"),
        ({"depth": {**ON, "layers": ["last"]}}, r"terms.depth.layers is \['last'\]; expected a list of an integer"),
        ({"shape": {**ON, "teacher": "recoded"}}, r"terms.shape.teacher is 'recoded' \(did you mean 'recorded'\?\)"),
        ({"shape": {**ON, "teacher": None}}, "terms.shape.teacher is None; expected a text or a mapping"),
        ({"shape": {**ON, "teacher": {"name": "recorded", "pose": True}}}, "unknown key 'pose'.*did you mean 'poses'"),
        ({"shape": {"weight": {"kind": "stepp", 0: 1.0}}}, r"kind is 'stepp' \(did you mean 'step'\?\)"),
        ({"shape": {"weight": "liner"}}, r"terms.shape.weight is 'liner'.*did you mean 'linear'"),
    ],
)
def test_what_is_not_known_is_named_with_the_nearest(make_pretraining_model, terms, message):
    with pytest.raises((ValueError, TypeError), match=message):
        args = GeometryAlignedTrainingArguments("unused", terms=terms, report_to="none")
        set_training_heads(make_pretraining_model(), args)


def test_a_tuple_is_a_list_of_layers(make_pretraining_model):
    args = GeometryAlignedTrainingArguments("unused", terms={"depth": {**ON, "layers": (1, -1)}}, report_to="none")
    model = make_pretraining_model()
    set_training_heads(model, args)
    assert model.config.training_heads["depth"]["layers"] == [1, -1]


@pytest.mark.parametrize("name", ["depth", "camera", "shape", "correspondence"])
def test_a_mirrored_pose_is_named_with_its_view_and_sample(collate, room, name):
    mirrored = room[0].views[1].camera_to_world @ np.diag([-1.0, 1.0, 1.0, 1.0])
    message = "record room-train-0.*camera_to_world: matrix 1 is not rigid .determinant of its rotation -1.0000"
    with pytest.raises(RecordError, match=message):
        collate({name: ON}, changed(room, 1, camera_to_world=mirrored))


@pytest.mark.parametrize("name", ["depth", "shape", "correspondence"])
def test_a_map_of_another_shape_than_its_view_is_refused(collate, room, name):
    narrow = room[0].views[1].depth_m[:, :40].copy()
    message = "record room-train-0.*depth map of view 1 has 40 x 64 pixels and its picture 64 x 64"
    with pytest.raises(RecordError, match=message):
        collate({name: ON}, changed(room, 1, depth_picture=narrow, depth_intrinsics=None))


def test_depth_that_is_nowhere_valid_is_counted_and_said(collate, room, caplog):
    terms = {"depth": ON, "normals": ON, "metric_scale": ON, "shape": ON, "correspondence": ON, "consistency": ON}
    nothing = changed(room, 0, depth_picture=np.full((64, 64), np.nan, np.float32))
    nothing = changed(nothing, 1, depth_picture=np.zeros((64, 64), np.float32))
    batch, counts = collate(terms, nothing)
    assert counts["views_without_depth"] >= 2 and "views_without_depth" in caplog.text
    assert batch["teacher_targets"]["depth"]["depth"] == [None, None]
    assert not any(batch["teacher_targets"][name]["count"][0] for name in ("shape", "correspondence", "consistency"))


def test_grids_of_teacher_and_student_that_differ_are_refused(collate, room):
    def coarse(views):
        return TeacherTargets(features={"layer_0": [torch.ones(1, 3, 6) for _ in views]})

    terms = {"distillation": {**ON, "teacher": "vggt", "feature_size": 6}}
    with pytest.raises(RecordError, match="view 0 has 2 x 2 visual tokens, but the teacher's grid is 1 x 3"):
        collate(terms, room, {"vggt": coarse})
    with pytest.raises(ValueError, match=r"prediction has shape \(2, 8\) and target \(3, 8\).*grid or picture size"):
        feature_distillation_loss(torch.ones(2, 8), torch.ones(3, 8))
    with pytest.raises(ValueError, match=r"\(1, 4, 4\).*\(1, 5, 4\); expected the same"):
        scale_invariant_depth_loss(torch.ones(1, 4, 4), torch.ones(1, 5, 4))
    with pytest.raises(ValueError, match=r"expected \(N, P, 3\) and \(N, Q, 3\)"):
        chamfer_loss(torch.ones(4, 3), torch.ones(4, 3))


def test_a_teacher_that_does_not_tell_depth_is_refused(collate, room):
    def blind(views):
        return TeacherTargets(features={"layer_0": [torch.ones(4, 4, 6) for _ in views]})

    with pytest.raises(RecordError, match="record room-train-0.*the teacher does not tell depth"):
        collate({"shape": {**ON, "teacher": "vggt"}}, room, {"vggt": blind})


def test_a_term_that_a_scene_has_nothing_for_is_counted(collate, room):
    first, pose = room[0].views[0], room[0].views[0].camera_to_world.copy()
    pose[:3, 3] += 50.0  # in metres: the second view sees no spot of the first
    for second, number in ((first, 0), (replace(first, camera_to_world=pose), 1)):
        item = [replace(room[0], views=(first, second))]
        batch, counts = collate({"correspondence": {**ON, "voxel_size_m": 0.5}}, item)
        assert counts["terms_without_items"] == number
        assert (sum(batch["teacher_targets"]["correspondence"]["count"]) == 0) == bool(number)


@pytest.mark.parametrize("layer", [2, -1])
def test_a_frozen_layer_is_not_distilled_into(make_pretraining_model, make_trainer, layer):
    terms, model = {"distillation": {**ON, "layers": [layer]}}, make_pretraining_model()
    options = {"terms": terms, "module_learning_rates": {"language": 0.0}}
    set_training_heads(model, GeometryAlignedTrainingArguments("unused", report_to="none", **copy.deepcopy(options)))
    with pytest.raises(ValueError, match=rf"distils into layer {layer}, which is frozen. Train the language model"):
        make_trainer(model, **options)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"depth": {"side": 0}}, "terms.depth.side is 0"),
        ({"depth": {"features": 30}}, "terms.depth.features is 30; expected a multiple of 4"),
        ({"correspondence": {"voxel_size_m": 0}}, "terms.correspondence.voxel_size_m is 0"),
        ({"consistency": {"voxel_size_m": -0.1}}, "terms.consistency.voxel_size_m is -0.1"),
    ],
)
def test_settings_without_sense_are_refused_before_any_data(make_pretraining_model, terms, message):
    terms = {name: {**ON, **settings} for name, settings in terms.items()}
    args = GeometryAlignedTrainingArguments("unused", report_to="none", terms=terms)
    with pytest.raises(ValueError, match=message):
        set_training_heads(make_pretraining_model(), args)


def test_fused_tokens_of_a_frozen_language_model_are_distilled_into(make_pretraining_model, make_trainer):
    terms, model = {"distillation": {**ON, "layers": [0]}}, make_pretraining_model()
    options = {"terms": terms, "module_learning_rates": {"language": 0.0}}
    set_training_heads(model, GeometryAlignedTrainingArguments("unused", report_to="none", **copy.deepcopy(options)))
    make_trainer(model, **copy.deepcopy(options))
    options["module_learning_rates"] = dict.fromkeys(("language", "fusion", "vision", "mergers"), 0.0)
    with pytest.raises(ValueError, match="distils into layer 0, which is frozen. Train the vision tower or fusion"):
        make_trainer(model, **options)


@pytest.mark.parametrize("name", ["depth", "shape", "relations"])
def test_a_weight_without_a_head_is_refused(make_pretraining_model, make_trainer, name):
    with pytest.raises(ValueError, match=f"The term '{name}' has a weight, but the model has no head '{name}'"):
        make_trainer(make_pretraining_model(), terms={name: ON})


@pytest.mark.parametrize("weight", [-1, {0: 1.0, 0.5: -0.5}])
def test_a_weight_below_0_is_refused(weight):
    with pytest.raises(ValueError, match="terms.depth.weight.* is -"):
        make_terms(GeometryAlignedTrainingArguments("unused", report_to="none"), {"depth": {"weight": weight}})


def test_normalised_lengths_have_a_mean_of_one(room):
    views = room[0].views
    told, plain = RecordedTeacher(normalise=True)(views), RecordedTeacher()(views)
    distance = torch.cat([points.norm(dim=-1).flatten() for points in told.points()])
    assert distance.mean().item() == pytest.approx(1.0) and not told.is_metric
    unit = (plain.depth[0] / told.depth[0]).mean()
    assert torch.allclose(told.camera_to_first[1, :3, 3] * unit, plain.camera_to_first[1, :3, 3], atol=1e-5)
    bare = [replace(view, depth_picture=None) for view in views]
    assert not any(depth.any() for depth in RecordedTeacher(normalise=True)(bare).depth)
    with pytest.raises(ValueError, match="does not tell camera_to_first"):
        RecordedTeacher(poses=False, normalise=True)(views)
