"""Geometry encoded by the collator: the same features, targets and gradients as in the model."""

import copy

import pytest
import torch
from torch.utils.data import DataLoader

from gap_mllm import GapMllmForPreTraining
from gap_mllm.processing.data import RenderedRooms, RoomVariety, SceneSample
from gap_mllm.training import FrozenGeometry, SceneCollator
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from gap_mllm.training.scene_collator import LOSS_FIELDS


VARIETY = RoomVariety(
    sizes=((64, 64), (64, 96)), size_shares=(0.5, 0.5), num_views=(1, 3), num_views_shares=(0.5, 0.5)
)


@pytest.fixture(scope="module")
def frozen_model(pretraining_model):
    model = copy.deepcopy(pretraining_model)
    model.model.geometry.requires_grad_(False)
    return model.train()


@pytest.fixture(scope="module")
def dataset():
    return RoomQuestionDataset(RenderedRooms("train", 4, VARIETY, 1), RoomQuestions(counts={"reconstruction": 2}))


@pytest.mark.parametrize("layout", ["block_mask", "padded", "packed"])
def test_features_are_those_of_the_model(frozen_model, tiny_processor, dataset, layout):
    geometry = FrozenGeometry(frozen_model)
    batch = SceneCollator(tiny_processor, layout, for_pretraining=True, geometry=geometry)(
        [dataset[0], dataset[1], dataset[2]]
    )
    expected = frozen_model.model.get_geometry_features(
        batch["pixel_values"], batch["image_grid_thw"], scene_lengths=batch["scene_lengths"]
    )
    assert torch.equal(batch["geometry_features"], expected)


def test_a_process_of_the_loader_makes_them(frozen_model, tiny_processor, dataset):
    collator = SceneCollator(tiny_processor, "block_mask", for_pretraining=True, geometry=FrozenGeometry(frozen_model))
    (batch,) = DataLoader(dataset, batch_size=4, collate_fn=collator, num_workers=1)
    assert torch.equal(
        batch["geometry_features"], collator([dataset[index] for index in range(4)])["geometry_features"]
    )


def test_gradients_are_those_of_the_model(frozen_model, tiny_processor, dataset):
    batch = SceneCollator(tiny_processor, "block_mask", for_pretraining=True, geometry=FrozenGeometry(frozen_model))(
        [dataset[0], dataset[1]]
    )
    inputs = {name: value for name, value in batch.items() if name not in LOSS_FIELDS}
    gradients = []
    for dropped in ("geometry_features", "nothing"):
        frozen_model.zero_grad()
        output = frozen_model(**{name: value for name, value in inputs.items() if name != dropped})
        output.answer_logits.square().sum().backward()
        gradients.append([p.grad.clone() for p in frozen_model.model.fusion.parameters() if p.grad is not None])
    assert gradients[0] and any(gradient.any() for gradient in gradients[0])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_camera_tokens_are_made_and_kept_with_the_patches(tiny_model, tiny_processor, dataset, tmp_path):
    model = tiny_model(model_class=GapMllmForPreTraining, gap_fusion_config={"method": "vlm3r"})
    model.model.geometry.requires_grad_(False)
    plain = tiny_model(model_class=GapMllmForPreTraining)
    plain.model.geometry.load_state_dict(model.model.geometry.requires_grad_(False).state_dict())
    plain.model.geometry.requires_grad_(False)
    rows, keys = [], []
    for each in (model, plain):  # one cache, in which the two have different keys
        geometry = FrozenGeometry(each, "loader", cache_dir=tmp_path)
        keys.append(geometry.key)
        collator = SceneCollator(tiny_processor, "block_mask", for_pretraining=True, geometry=geometry)
        batches = [collator([dataset[0], dataset[1]]) for _ in range(2)]
        expected = each.model.get_geometry_features(
            batches[0]["pixel_values"], batches[0]["image_grid_thw"], scene_lengths=batches[0]["scene_lengths"]
        )
        for batch in batches:
            torch.testing.assert_close(batch["geometry_features"], expected, rtol=1e-5, atol=1e-5)
        assert collator.counts["scenes_from_cache"] >= 1
        rows.append(expected.shape[1])
    assert keys[0] != keys[1] and rows[0] - rows[1] == len(batches[0]["image_grid_thw"])


def test_text_alone_has_no_geometry(frozen_model, tiny_processor):
    collator = SceneCollator(tiny_processor, "block_mask", for_pretraining=True, geometry=FrozenGeometry(frozen_model))
    assert "geometry_features" not in collator([SceneSample(id="s", question="where?", answer="there")])


def test_the_copy_stays_as_it_was(frozen_model):
    model = copy.deepcopy(frozen_model)
    geometry = FrozenGeometry(model)
    before = copy.deepcopy(geometry.encoder.state_dict())
    for parameter in model.model.geometry.parameters():
        parameter.data.add_(1)
    assert all(torch.equal(before[name], value) for name, value in geometry.encoder.state_dict().items())


def test_a_trained_encoder_is_refused(pretraining_model):
    model = copy.deepcopy(pretraining_model)
    model.model.geometry.requires_grad_(True)
    with pytest.raises(ValueError, match="The geometry encoder is trained"):
        FrozenGeometry(model)


def test_a_model_without_geometry_is_refused(frozen_model):
    with frozen_model.geometry_disabled(), pytest.raises(ValueError, match="does not use its geometry encoder"):
        FrozenGeometry(frozen_model)
