"""Training with a cache of geometry features: the same losses as without, and no encoding in the second round."""

import copy
import json

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.processing.data import RoomVariety, load_multiview
from gap_mllm.processing.data.augmentation import AugmentationConfig, SceneAugmentation
from gap_mllm.training import FrozenGeometry, SceneCollator, SceneQuestionDataset, SceneQuestionStream
from gap_mllm.training.frozen_geometry import KnownScenes
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from gap_mllm.training.train_geometry_aligned import train_geometry_aligned


VARIETY = RoomVariety(
    sizes=((64, 64), (64, 96)), size_shares=(0.5, 0.5), num_views=(1, 3), num_views_shares=(0.5, 0.5)
)
VIEWS = ("pixel_values", "image_grid_thw", "scene_lengths")


def rooms(num_rooms=4, **options):
    return load_multiview("rendered_rooms", split="train", num_rooms=num_rooms, variety=VARIETY, **options)


@pytest.fixture(scope="module")
def questions():
    return RoomQuestionDataset(rooms(), RoomQuestions(counts={"reconstruction": 2}))


@pytest.fixture
def model(make_pretraining_model):
    model = make_pretraining_model()
    model.model.geometry.requires_grad_(False)
    return model.train()


@pytest.fixture
def collator(tiny_processor):
    """A function (model, arguments of FrozenGeometry) -> a collator of pre-training."""

    def make(model, *place, layout="block_mask", **options):
        return SceneCollator(
            tiny_processor, layout, for_pretraining=True, geometry=FrozenGeometry(model, *place, **options)
        )

    return make


@pytest.fixture
def calls(model):
    """Number of views in each call of the model's encoder."""
    return count_views(model.model.geometry)


def count_views(encoder):
    calls = []
    encoder.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    return calls


def loss(model, batch):
    names = ("input_ids", "attention_mask", "position_ids", "labels", "mm_token_type_ids", "geometry_features")
    return model(**{name: batch[name] for name in (*names, *VIEWS) if name in batch}).loss


# What is kept


def test_the_loader_finds_what_it_has_made(model, collator, questions, tmp_path):
    plain, kept = collator(model), collator(model, "loader", cache_dir=tmp_path)
    calls, items = count_views(kept.geometry.encoder), [questions[0], questions[1]]
    for number in range(2):
        assert torch.equal(kept(items)["geometry_features"], plain(items)["geometry_features"])
        assert len(calls) == 1 and kept.counts["scenes_from_cache"] == 2 * number
    assert kept.counts["scenes_encoded"] == 2 and not plain.counts


def test_the_model_makes_what_the_loader_does_not_find(model, collator, questions, calls, tmp_path):
    collate, items = collator(model, cache_dir=tmp_path), [questions[0], questions[1], questions[2]]
    lengths = [len(item[0].views) for item in items]
    first = collate(items[:2])
    assert isinstance(first["geometry_features"], KnownScenes) and not calls
    without = {name: value for name, value in first.items() if name != "geometry_features"}
    assert torch.equal(loss(model, first), loss(model, without)) and calls == [sum(lengths[:2])] * 2
    made = model.model.get_geometry_features(**{name: first[name] for name in VIEWS})
    again = collate(items[:2])
    assert torch.equal(again["geometry_features"], made) and torch.equal(loss(model, again), loss(model, first))
    calls.clear()
    loss(model, collate([items[2], items[0]]))
    assert calls == [lengths[2]]
    found = collate([items[0], items[2]])["geometry_features"]
    torch.testing.assert_close(  # by rounding: another scene was encoded along with each
        found, model.model.get_geometry_features(**{name: collate([items[0], items[2]])[name] for name in VIEWS})
    )


def test_both_places_find_what_the_other_made(model, collator, questions, tmp_path):
    collator(model, "loader", cache_dir=tmp_path)([questions[0]])
    calls = count_views(model.model.geometry)
    batch = collator(model, "model", cache_dir=tmp_path)([questions[0]])
    assert isinstance(batch["geometry_features"], torch.Tensor) and not calls


def other_weights(model):
    next(iter(model.model.geometry.parameters())).data.view(-1)[0].add_(1)


def other_frame(model):
    model.config.reference_frame = "last"


def other_numbers(model):
    model.model.geometry.to(torch.bfloat16)


def other_rotation(model):
    model.model.geometry.config.rope_theta = 50.0


@pytest.mark.parametrize("change", [other_weights, other_frame, other_numbers, other_rotation])
def test_another_encoder_finds_nothing(model, collator, questions, tmp_path, change):
    loss(model, collator(model, "model", cache_dir=tmp_path)([questions[0]]))
    changed = copy.deepcopy(model)
    change(changed)
    for each, num_found in ((model, 1), (changed, 0)):
        collate = collator(each, "model", cache_dir=tmp_path)
        collate([questions[0]])
        assert collate.counts["scenes_from_cache"] == num_found


def test_other_marks_sizes_and_orders_of_views_are_other_scenes(model, tiny_processor, tmp_path):
    questions = RoomQuestionDataset(rooms(seed=1), RoomQuestions(counts={"reconstruction": 2}))
    item = next(questions[index] for index in range(4) if len(questions[index][0].views) == 3)
    geometry = FrozenGeometry(model, "loader", cache_dir=tmp_path)
    options = {"for_pretraining": True, "geometry": geometry}
    collate, smaller = (
        SceneCollator(tiny_processor, "block_mask", **options, max_view_pixels=n) for n in (None, 2048)
    )
    collate([item])
    for collator, changed in ((collate, item[:1]), (smaller, item), (collate, item)):
        collator([changed])
    assert collate.counts == {"scenes_encoded": 2, "scenes_from_cache": 1} and smaller.counts["scenes_encoded"] == 1
    batch = collate([item])
    pixels = batch["pixel_values"].view(3, -1, batch["pixel_values"].shape[1])
    turned = {name: batch[name] for name in VIEWS} | {"pixel_values": pixels.flip(0).flatten(0, 1)}
    geometry.look_up(**turned, events=collate.events)
    assert collate.counts["scenes_encoded"] == 3


def test_features_are_kept_in_half_the_space_and_used_so_at_once(model, collator, questions, tmp_path):
    collate = collator(model, "loader", cache_dir=tmp_path, dtype="bfloat16")
    first, second = (collate([questions[0]])["geometry_features"] for _ in range(2))
    assert first.dtype == torch.bfloat16 and torch.equal(first, second)
    assert torch.equal(first, collator(model)([questions[0]])["geometry_features"].bfloat16())


def test_an_encoder_that_is_cast_later_is_an_error(model, collator, questions, tmp_path):
    collate = collator(model, cache_dir=tmp_path)
    model.model.geometry.to(torch.bfloat16)
    with pytest.raises(ValueError, match="is torch.bfloat16 now, but was torch.float32"):
        loss(model, collate([questions[0]]))
    collate.geometry.follow(model)
    loss(model, collate([questions[0]]))
    assert collate([questions[0]])["geometry_features"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"where": "gpu"}, "where is 'gpu'; expected one of loader, model"),
        ({"where": "model"}, "cache_dir is missing"),
        ({"max_gb": 3}, "cache_dir is missing"),
        ({"cache_dir": "kept", "dtype": "int8"}, "dtype is 'int8'; expected one of float32, bfloat16"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        FrozenGeometry(model, **arguments)


def pixels(samples):
    return [[view.picture.tobytes() for view in sample.views] for sample in samples]


@pytest.mark.parametrize("rounds", [None, 2])
def test_as_many_rounds_differ_as_are_asked_for(rounds):
    scenes = list(rooms(3))
    augment = SceneAugmentation(AugmentationConfig(flip_probability=0.5, color_probability=1.0))
    options = {"tasks": ("object_count",), "num_views": 1, "augmentation": augment, "rounds": rounds}
    dataset = SceneQuestionDataset(scenes, length=12, **options)
    stream, shown = SceneQuestionStream(scenes, **options), []
    for number in range(4):
        stream.set_epoch(number)
        shown.append(pixels(stream))
    in_rounds = [pixels(dataset[3 * number + row] for row in range(3)) for number in range(4)]
    for found in (in_rounds, shown):
        assert found[0] != found[1]
        assert (found[:2] == found[2:]) == (rounds == 2)


# Trainings


def run(make_trainer, model, collator, dataset, **options):
    """Losses, shares of scenes that were found, and that of all, of a training of two rounds."""
    options = {"num_train_epochs": 2, "per_device_train_batch_size": 2, "logging_steps": 1, "seed": 3} | options
    trainer = make_trainer(copy.deepcopy(model), dataset, collator, **options)
    trainer.train()
    *steps, end = trainer.state.log_history
    return (
        [entry["loss"] for entry in steps],
        [entry.get("cache_hit_rate") for entry in steps],
        end.get("train_cache_hit_rate"),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("where", "workers"), [("loader", 2), ("model", 0), ("model", 1)])
def test_training_has_the_same_losses_and_encodes_once(
    make_trainer, model, collator, questions, tmp_path, where, workers
):
    terms = {"point_map_weight": 1.0, "dataloader_num_workers": workers}
    plain = run(make_trainer, model, collator(model), questions, **terms)
    assert plain[1:] == ([None] * 4, None)
    kept = run(make_trainer, model, collator(model, where, cache_dir=tmp_path), questions, **terms)
    assert kept == (plain[0], [0.0, 0.0, 1.0, 1.0], 0.5)


@pytest.mark.slow
def test_a_training_in_half_precision_keeps_features_in_it(make_trainer, model, collator, questions, tmp_path):
    collate = collator(model, cache_dir=tmp_path)  # before the trainer casts the encoder
    _, rates, _ = run(make_trainer, model, collate, questions, bf16=True, use_cpu=True)
    assert rates == [0.0, 0.0, 1.0, 1.0]
    assert collate([questions[0]])["geometry_features"].dtype == torch.bfloat16


@pytest.mark.slow
def test_adapters_and_a_plain_trainer_find_them_too(pretraining_model, tiny_processor, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = GapMllmForConditionalGeneration(pretraining_model.config)
    model.model.geometry.requires_grad_(False)
    calls = count_views(model.model.geometry)
    collate = SceneCollator(tiny_processor, geometry=FrozenGeometry(model, cache_dir=tmp_path / "kept"))
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    questions = SceneQuestionDataset(rooms(2), tasks=("reconstruction",), num_views=1)
    args = TrainingArguments(
        str(tmp_path),
        num_train_epochs=2,
        remove_unused_columns=False,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
    )
    Trainer(adapted, args, train_dataset=questions, data_collator=collate).train()
    assert calls == [2] and collate.counts["scenes_from_cache"] == 2


@pytest.mark.parametrize("options", [{}, {"questions_per_scene": 2}])
def test_the_second_round_shows_the_same_pixels(model, tiny_processor, tmp_path, options):
    dataset = SceneQuestionDataset(rooms(), tasks=("reconstruction", "object_count"), num_views=2, **options)
    collate = SceneCollator(tiny_processor, geometry=FrozenGeometry(model, "loader", cache_dir=tmp_path))
    kept = []
    for seed, num_workers in ((0, 0), (1, 2)):
        loader = DataLoader(
            dataset,
            shuffle=True,
            generator=torch.Generator().manual_seed(seed),
            collate_fn=collate,
            num_workers=num_workers,
        )
        assert len([batch["geometry_features"] for batch in loader]) == len(dataset)
        kept.append(sorted(tmp_path.glob("*/*/*")))
    assert kept[0] == kept[1] and len(kept[0]) == collate.counts["scenes_encoded"] >= len(dataset)


def test_a_recipe_names_place_and_cache(encoder_folder, tmp_path):
    sizes = {"sizes": [[64, 64]], "size_shares": [1.0], "num_views": [1], "num_views_shares": [1.0]}
    flags = ["--variety", json.dumps(sizes), "--geometry_encoder_path", str(encoder_folder), "--num_rooms", "2"]
    flags += [
        "--dataloader_num_workers",
        "0",
        "--max_steps",
        "4",
        "--per_device_train_batch_size",
        "1",
        "--use_cpu",
        "1",
    ]
    flags += ["--output_dir", str(tmp_path / "run"), "--frozen_geometry.max_gb", "0.1", "--logging_steps", "2"]
    flags += ["--lr_scheduler_type", "constant", "--lr_scheduler_kwargs", "{}", "--frozen_geometry.cache_dir"]
    trainer, _ = train_geometry_aligned("quickstart", [*flags, str(tmp_path / "kept")])
    assert [entry.get("cache_hit_rate") for entry in trainer.state.log_history] == [0.0, 1.0, None]
    assert trainer.state.log_history[-1]["train_cache_hit_rate"] == 0.5
    geometry = trainer.data_collator.geometry
    assert geometry.where == "loader" and geometry.cache.max_bytes == 1e8  # the recipe's place stays
    trainer, _ = train_geometry_aligned("quickstart", [*flags, str(tmp_path / "elsewhere")])
    assert trainer.was_finished  # and another folder is no other run
    with pytest.raises(ValueError, match="frozen_geometry has the unknown key 'cache'.*did you mean 'cache_dir'"):
        train_geometry_aligned("quickstart", [*flags, "x", "--frozen_geometry.cache", "x"])
