"""Frozen geometry after the encoder, or what its features depend on, was changed: followed or refused, never old."""

import copy

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from gap_mllm import GapMllmForConditionalGeneration, GapMllmModel
from gap_mllm.processing.data import RoomVariety, load_multiview
from gap_mllm.training import FrozenGeometry, GeometryFollower, SceneCollator, SceneQuestionDataset
from gap_mllm.training.encoder_keys import encoder_key
from gap_mllm.training.frozen_geometry import MarkedFeatures


PLACES = (("loader", False), ("loader", True), ("model", True))
REFUSED = "not those of the geometry encoder as it is now"
SMALL = RoomVariety(sizes=((64, 64),), size_shares=(1.0,), num_views=(2,), num_views_shares=(1.0,))


@pytest.fixture(scope="module")
def questions():
    rooms = load_multiview("rendered_rooms", split="train", num_rooms=2, variety=SMALL)
    return SceneQuestionDataset(rooms, tasks=("reconstruction",), num_views=2)


@pytest.fixture
def model(make_pretraining_model):
    model = make_pretraining_model()
    model.model.geometry.requires_grad_(False)
    return model.train()


@pytest.fixture
def collator(tiny_processor, tmp_path):
    """A function (model, place, whether it has a cache) -> a collator of pre-training."""

    def make(model, where, is_kept, **options):
        geometry = FrozenGeometry(model, where, cache_dir=tmp_path / "kept" if is_kept else None)
        return SceneCollator(tiny_processor, **{"for_pretraining": True, "geometry": geometry, **options})

    return make


def look(model, batch):
    """The features that the model takes of a batch."""
    views = [batch[name] for name in ("pixel_values", "image_grid_thw", "scene_lengths")]
    return batch["geometry_features"](model.model, *views)


def features_of(model, batch):
    views = [batch[name] for name in ("pixel_values", "image_grid_thw")]
    return model.model.get_geometry_features(*views, scene_lengths=batch["scene_lengths"])


def assert_followed(model, batch):
    torch.testing.assert_close(look(model, batch), features_of(model, batch), rtol=1e-4, atol=1e-5)


def weight(model):
    """The largest weight of the encoder."""
    return max(model.model.geometry.parameters(), key=torch.Tensor.numel)


def change_in_place(model):
    with torch.no_grad():
        weight(model).mul_(1.5)


def change_one_value_through_data(model):
    values = weight(model).data.view(-1)
    values[len(values) // 2 + 1] += 5


def swap_values_through_data(model):
    """Whose sum stays."""
    values = weight(model).data.view(-1)
    values[1::4], values[3::4] = values[3::4].clone(), values[1::4].clone()


def load_others(model):
    state = {name: value * 1.5 for name, value in model.model.geometry.state_dict().items()}
    model.model.geometry.load_state_dict(state)


def put_others(model):
    part = next(
        part for part in model.model.geometry.modules() if isinstance(getattr(part, "weight", None), torch.Tensor)
    )
    part.weight = torch.nn.Parameter(part.weight * 1.5, requires_grad=False)


def change_the_frame(model):
    model.config.reference_frame = "last"


def change_the_rotation(model):
    model.model.geometry.config.rope_theta = 50.0


def change_the_statistics(model):
    model.config.image_mean = [0.4, 0.5, 0.6]


def change_the_kernel(model):
    model.model.geometry.set_attn_implementation("eager")


CHANGES = (
    change_in_place,
    change_one_value_through_data,
    swap_values_through_data,
    load_others,
    put_others,
    change_the_frame,
    change_the_rotation,
    change_the_statistics,
    change_the_kernel,
)


@pytest.mark.parametrize(("where", "is_kept"), PLACES)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_refused_and_then_followed(model, collator, questions, change, where, is_kept):
    collate, items = collator(model, where, is_kept), [questions[0]]
    look(model, collate(items))  # and, with a cache, kept
    made_before, key = collate(items), collate.geometry.key
    change(model)
    for batch in (made_before, collate(items)):
        with pytest.raises(ValueError, match=REFUSED):
            look(model, batch)
        with pytest.raises(ValueError, match=REFUSED):
            model(**{name: batch[name] for name in MODEL_FIELDS if name in batch})
    assert collate.geometry.follow(model) and collate.geometry.key != key
    for _ in range(2):  # the second is found, with a cache
        assert_followed(model, collate(items))
    with pytest.raises(ValueError, match=REFUSED):
        look(model, made_before)
    assert FrozenGeometry(model, where, cache_dir=collate.geometry.cache and collate.geometry.cache.folder).key != key


MODEL_FIELDS = (
    "input_ids",
    "attention_mask",
    "position_ids",
    "labels",
    "mm_token_type_ids",
    "pixel_values",
    "image_grid_thw",
    "scene_lengths",
    "geometry_features",
)


@pytest.mark.parametrize(("where", "is_kept"), PLACES)
def test_an_encoder_that_is_swapped_back_needs_no_following(model, collator, questions, where, is_kept):
    """Batches say themselves of which weights they are: those of before are right again."""
    collate, items = collator(model, where, is_kept), [questions[0]]
    before, expected = copy.deepcopy(model.model.geometry.state_dict()), None
    look(model, collate(items))
    made, expected = collate(items), features_of(model, collate(items))
    load_others(model)
    with pytest.raises(ValueError, match=REFUSED):
        look(model, made)
    model.model.geometry.load_state_dict(before)  # the same values, put there anew
    assert torch.equal(look(model, made), expected) and not collate.geometry.follow(model)


def test_nothing_that_is_made_with_other_settings_gets_the_old_name(model, collator, questions):
    """In the loader the settings are those of the key, also in the process that changes the model's."""
    collate = collator(model, "loader", True)
    expected = features_of(model, collator(model, "loader", False)([questions[0]]))
    model.config.reference_frame = "last"
    collate([questions[0]])
    model.config.reference_frame = "first"
    assert torch.equal(look(model, collate([questions[0]])), expected) and collate.counts["scenes_from_cache"] == 1


def test_a_copy_in_the_loader_has_the_weights_of_a_cast_encoder(model, collator, questions):
    collate = collator(model, "loader", False)
    model.model.geometry.to(torch.bfloat16)
    with pytest.raises(ValueError, match="is torch.bfloat16 now, but was torch.float32"):
        look(model, collate([questions[0]]))
    collate.geometry.follow(model)
    copied, own = collate.geometry.encoder.state_dict(), model.model.geometry.state_dict()
    assert all(torch.equal(copied[name], own[name].float()) for name in own)
    assert look(model, collate([questions[0]])).dtype == torch.float32


def test_everything_that_features_depend_on_is_in_the_key(model):
    encoder, config = model.model.geometry, model.config
    encoder.register_buffer("not_saved", torch.zeros(2), persistent=False)
    keys = [encoder_key(encoder, config, "model", None)]

    def note():
        keys.append(encoder_key(encoder, config, "model", None))

    encoder.not_saved += 1
    note()
    config.gap_fusion_config.position_encoding = "position_3d"
    note()
    config.vision_config.patch_size = 14
    note()
    config.image_std = [0.2, 0.2, 0.2]
    note()
    encoder.config.chunk_size_feed_forward = 3  # of any config, which an encoder may read, too
    note()
    keys += [encoder_key(encoder, config, "model", torch.bfloat16)]
    encoder.to(torch.float64)
    note()
    assert len(set(keys)) == len(keys)
    encoder.config._name_or_path, encoder.config.architectures = "elsewhere", ["Other"]
    note()
    assert keys[-1] == keys[-2]  # where it came from changes nothing


def test_features_keep_their_mark_on_their_way(model, collator, questions):
    collate = collator(model, "loader", False)
    (batch,) = DataLoader([questions[0]], batch_size=1, collate_fn=collate, num_workers=1)
    features = batch["geometry_features"]
    for each in (features, features.to("cpu"), features.to(torch.bfloat16), copy.deepcopy(features)):
        assert isinstance(each, MarkedFeatures) and each.mark == collate.geometry.mark
    assert type(features + 1) is type(look(model, batch)) is torch.Tensor
    change_in_place(model)
    with pytest.raises(ValueError, match=REFUSED):
        look(model, batch)


def test_an_adapter_that_is_merged_into_the_encoder_is_followed(model, collator, questions):
    from peft import LoraConfig, get_peft_model

    names = [
        name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear) and ".geometry." in name
    ]
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=names[:1], init_lora_weights=False))
    adapted.requires_grad_(False)
    collate = collator(adapted, "loader", True)
    before = look(model, collate([questions[0]]))
    with adapted.disable_adapter(), pytest.raises(ValueError, match=REFUSED):
        look(model, collate([questions[0]]))
    assert torch.equal(look(model, collate([questions[0]])), before)
    adapted.merge_adapter()
    with pytest.raises(ValueError, match=REFUSED):
        look(model, collate([questions[0]]))
    assert collate.geometry.follow(adapted)
    assert_followed(model, collate([questions[0]]))


# Trainings


@pytest.fixture
def taken(monkeypatch):
    """For each step whether the features that the model took are those of its encoder then."""
    found, views = [], {}
    encode, given = GapMllmModel.get_image_features, GapMllmModel._given_geometry

    def get_image_features(self, pixel_values, image_grid_thw, *args, **kwargs):
        views.update(pixel_values=pixel_values, image_grid_thw=image_grid_thw, scene_lengths=kwargs["scene_lengths"])
        return encode(self, pixel_values, image_grid_thw, *args, **kwargs)

    def given_geometry(self, features, image_grid_thw):
        found.append(torch.allclose(features, self.get_geometry_features(**views), rtol=1e-4, atol=1e-5))
        return given(self, features, image_grid_thw)

    monkeypatch.setattr(GapMllmModel, "get_image_features", get_image_features)
    monkeypatch.setattr(GapMllmModel, "_given_geometry", given_geometry)
    return found


@pytest.fixture
def checkpoint(model, collator, make_trainer, questions, tmp_path):
    """One step's checkpoint of `GeometryAlignedTrainer`, with other weights of the encoder than the model has."""
    changed = copy.deepcopy(model)
    load_others(changed)
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1, "output_dir": str(tmp_path / "other")}
    make_trainer(changed, questions, collator(changed, "loader", False), **options).train()
    return str(tmp_path / "other" / "checkpoint-1")


RUN = {"max_steps": 3, "per_device_train_batch_size": 1}
WORKERS = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True, "dataloader_prefetch_factor": 1}
RUNS = tuple((*place, workers) for place in PLACES for workers in ({}, WORKERS))


@pytest.mark.parametrize("place", RUNS)
def test_a_resumed_training_takes_the_weights_of_the_checkpoint(
    model, collator, make_trainer, questions, checkpoint, taken, place
):
    where, is_kept, workers = place
    collate = collator(model, where, is_kept)
    for item in questions:
        look(model, collate([item]))  # kept under the weights of before
    taken.clear()
    trainer = make_trainer(model, questions, collate, **RUN, **workers)
    trainer.train(resume_from_checkpoint=checkpoint)
    assert taken == [True] * 2


@pytest.mark.parametrize("place", RUNS)
@pytest.mark.parametrize("has_follower", [True, False])
def test_a_plain_trainer_follows_or_refuses(
    model, collator, make_plain_trainer, questions, tmp_path, taken, place, has_follower
):
    where, is_kept, workers = place
    plain = GapMllmForConditionalGeneration(model.config)
    plain.load_state_dict(model.state_dict(), strict=False)
    plain.model.geometry.requires_grad_(False)
    rows, changed = list(questions), copy.deepcopy(plain)
    load_others(changed)
    saving = make_plain_trainer(changed, rows, collator(changed, "loader", False, for_pretraining=False), max_steps=1)
    saving.train()
    saving._save_checkpoint(changed, None)
    checkpoint = f"{saving.args.output_dir}/checkpoint-1"
    taken.clear()
    collate = collator(plain, where, is_kept, for_pretraining=False)
    resumed = make_plain_trainer(plain, rows, collate, rows, **RUN, **workers)
    if has_follower:
        resumed.add_callback(GeometryFollower(collate))
        resumed.train(resume_from_checkpoint=checkpoint)
        resumed.evaluate()
        assert taken and all(taken)
    else:
        with pytest.raises(ValueError, match=REFUSED):
            resumed.train(resume_from_checkpoint=checkpoint)
        assert not taken


class ChangeAt(TrainerCallback):
    """Changes the encoder after a step."""

    def __init__(self, model, step):
        self.model, self.step = model, step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            load_others(self.model)


def test_a_change_during_a_training_is_refused(model, collator, make_trainer, questions, taken):
    trainer = make_trainer(model, questions, collator(model, "model", True), **RUN)
    trainer.add_callback(ChangeAt(model, 1))
    with pytest.raises(ValueError, match=REFUSED):
        trainer.train()
    assert taken == [True]


@pytest.mark.parametrize("place", RUNS)
def test_evaluations_follow(model, collator, make_trainer, questions, taken, place):
    """Also with processes that were started before."""
    where, is_kept, workers = place
    trainer = make_trainer(model, questions, collator(model, where, is_kept), **RUN, **workers)
    trainer.eval_dataset = list(questions)
    trainer.evaluate()
    load_others(model)
    trainer.evaluate()
    trainer.predict(list(questions))
    assert len(taken) >= 3 and all(taken)


def test_the_best_checkpoint_is_followed(model, collator, make_trainer, questions, taken):
    options = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, **RUN}
    options |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_best", "max_steps": 2}
    options |= {"greater_is_better": True, "eval_on_start": False}
    scores = iter([1.0, 0.0])
    trainer = make_trainer(
        model, questions, collator(model, "model", True), lambda _: {"best": next(scores)}, **options
    )
    trainer.add_callback(ChangeAt(model, 2))
    trainer.train()  # whose last evaluation follows the change, and which then loads what was before it
    batch = trainer.data_collator([questions[0]])
    assert_followed(model, batch)
    assert taken == [True] * 2
