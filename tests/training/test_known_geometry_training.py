"""Known geometry in training: from samples to the model by each way, in the cache, and a run that learns from it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from gap_mllm import GapMllmForPreTraining, GapMllmGeometryMapsModel, GapMllmVggtPointsModel, KnownGeometry
from gap_mllm.processing.data import load_multiview, render_room
from gap_mllm.processing.data.scene_sample import View
from gap_mllm.training import FrozenGeometry, SceneCollator, SceneQuestionDataset
from gap_mllm.training.dry_run import dry_run_recipe
from gap_mllm.training.geometry_aligned_trainer import freeze
from gap_mllm.training.point_targets import scene_targets
from gap_mllm.training.recorded_geometry import check_known_geometry, recorded_geometry
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from gap_mllm.training.train_geometry_aligned import build_model, train_geometry_aligned
from gap_mllm.training.train_grpo import train_grpo
from tests.training.conftest import RATES, TINY


MAPS = {
    "model_type": "gap_mllm_geometry_maps",
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "layer_scale_init_value": 0.5,
    "initializer_range": 0.1,
}
ALL = ("intrinsics", "poses", "depth")
VIEWS = ("pixel_values", "image_grid_thw", "scene_lengths")
INPUTS = (*VIEWS, "input_ids", "labels", "position_ids", "attention_mask")


@pytest.fixture
def maps_model(tiny_processor):
    """Of depth and normal maps, without a teacher."""
    torch.manual_seed(0)
    return build_model({**TINY, "geometry_config": MAPS}, None, tiny_processor).eval()


@pytest.fixture(scope="module")
def questions():
    rooms = load_multiview("rendered_rooms", split="train", num_rooms=2)
    return list(RoomQuestionDataset(rooms, RoomQuestions(counts={"reconstruction": 1})))


def views_of(room, count=2):
    return room.as_sample().views[:count]


def changed(view, **fields):
    return View(**{**{name: getattr(view, name) for name in view.__dataclass_fields__}, **fields})


def test_what_was_recorded_comes_at_the_size_of_the_views():
    views = views_of(render_room(0))
    known = recorded_geometry(views, [(64, 96), (128, 128)], ALL)
    checked = known.checked([(64, 96), (128, 128)], [2])
    expected = scene_targets(views, [(64, 96), (128, 128)])
    for points, true, valid in zip(checked.points(), expected["points"], expected["valid"], strict=True):
        torch.testing.assert_close(points[valid], true[valid], rtol=1e-4, atol=1e-4)
    lost = [views[0], changed(views[1], camera_to_world=None, depth_picture=None)]
    known = recorded_geometry(lost, [(64, 64)] * 2, ALL)
    assert known.depth[1] is None and known.poses[1] is None and known.intrinsics[1] is not None
    blind = recorded_geometry([changed(views[0], intrinsics=None, depth_intrinsics=None)], [(64, 64)], ALL)
    assert blind.depth == [None] and blind.intrinsics == [None]
    assert recorded_geometry(views, [(64, 64)] * 2, ["depth"]).intrinsics is None


def test_batches_carry_it_to_the_model(maps_model, questions, tiny_processor):
    collate = SceneCollator(tiny_processor, "block_mask", for_pretraining=True, known_geometry=ALL)
    batch = collate(questions)
    known = batch["geometry_features"]
    assert isinstance(known, KnownGeometry) and len(known.depth) == len(batch["image_grid_thw"])
    inputs = {name: batch[name] for name in INPUTS}
    loss = maps_model(**inputs, geometry_features=known).loss
    made = maps_model.model.get_geometry_features(
        **{name: batch[name] for name in VIEWS}, intrinsics=known.intrinsics, poses=known.poses, depth=known.depth
    )
    assert torch.equal(maps_model(**inputs, geometry_features=made).loss, loss)
    moved = KnownGeometry(known.intrinsics, known.poses, [depth + 1 for depth in known.depth])
    assert not torch.equal(maps_model(**inputs, geometry_features=moved).loss, loss)
    plain = SceneCollator(tiny_processor, known_geometry=["depth", "intrinsics"])(questions[:1])
    assert plain["geometry_features"].poses is None and plain["geometry_features"].to("cpu").depth is not None


def test_views_without_depth_are_counted(maps_model, questions, tiny_processor):
    sample = questions[0][0] if isinstance(questions[0], list) else questions[0]
    lost = replace(sample, views=(*sample.views[:-1], changed(sample.views[-1], depth_picture=None)))
    collate = SceneCollator(tiny_processor, known_geometry=ALL)
    batch = collate([lost])
    assert collate.counts["views_without_depth"] == 1 and batch["geometry_features"].depth[-1] is None
    maps_model(**batch)


@pytest.mark.parametrize("where", ["loader", "model"])
def test_the_cache_knows_scenes_by_what_is_known(maps_model, questions, tiny_processor, tmp_path, where):
    maps_model.requires_grad_(False)
    geometry = FrozenGeometry(maps_model, where, cache_dir=tmp_path)
    collate = SceneCollator(tiny_processor, "block_mask", for_pretraining=True, geometry=geometry, known_geometry=ALL)
    first, counts = collate(questions), collate.counts
    inputs = {name: first[name] for name in INPUTS}
    direct = SceneCollator(tiny_processor, "block_mask", for_pretraining=True, known_geometry=ALL)(questions)
    expected = maps_model(**inputs, geometry_features=direct["geometry_features"]).loss
    torch.testing.assert_close(maps_model(**inputs, geometry_features=first["geometry_features"]).loss, expected)
    assert (counts["scenes_encoded"], counts["scenes_from_cache"]) == (2, 0)
    again = collate(questions)
    assert (counts["scenes_encoded"], counts["scenes_from_cache"]) == (2, 2)
    torch.testing.assert_close(maps_model(**inputs, geometry_features=again["geometry_features"]).loss, expected)
    fewer = SceneCollator(
        tiny_processor, "block_mask", for_pretraining=True, geometry=geometry, known_geometry=["intrinsics", "depth"]
    )
    fewer(questions)
    assert (fewer.counts["scenes_encoded"], fewer.counts["scenes_from_cache"]) == (2, 0)


@pytest.mark.slow
def test_a_tiny_encoder_of_maps_learns_from_known_depth(maps_model, make_trainer, tiny_processor):
    rooms = load_multiview("rendered_rooms", split="train", num_rooms=2)
    dataset = SceneQuestionDataset(rooms, tasks=("reconstruction",), num_views=2)
    collate = SceneCollator(
        tiny_processor,
        "block_mask",
        for_pretraining=True,
        known_geometry=ALL,
        point_map_side=4,
        max_view_pixels=64 * 64,
    )
    model = maps_model.train()
    before = {name: each.clone() for name, each in model.model.geometry.named_parameters()}
    trainer = make_trainer(
        model,
        dataset,
        collate,
        module_learning_rates={**RATES, "geometry": 3e-3, "point_maps": 3e-3},
        point_map_weight=4.0,
        max_steps=40,
        per_device_train_batch_size=2,
        logging_steps=1,
        use_cpu=True,
    )
    trainer.train()
    losses = [entry["loss_point_map"] for entry in trainer.state.log_history if "loss_point_map" in entry]
    assert len(losses) == 40 and sum(losses[-5:]) < 0.8 * sum(losses[:5])
    after = dict(model.model.geometry.named_parameters())
    assert all(not torch.equal(each, after[name]) for name, each in before.items() if "k_norm.bias" not in name)
    batch = collate(list(dataset))
    known, inputs = batch["geometry_features"], {name: batch[name] for name in INPUTS}
    farther = KnownGeometry(known.intrinsics, known.poses, [1.5 * depth for depth in known.depth])
    with torch.no_grad():
        points = [model.eval()(**inputs, geometry_features=each).point_maps["visual"] for each in (known, farther)]
    assert (points[0] - points[1]).norm(dim=-1).mean() > 0.05  # metres


def recipe_of_maps(recipe, **changes):
    values = yaml.safe_load(Path(recipe()).read_text())
    changes = {"known_geometry": list(ALL), "module_learning_rates": {"geometry": 0.001}, "max_steps": 2} | changes
    changes["model_config"] = {**values["model_config"], "geometry_config": MAPS, **changes.pop("model_config", {})}
    return recipe(**changes)


@pytest.mark.slow
def test_recipes_train_it_around_a_teacher_or_without(recipe, tmp_path, encoder_folder):
    rooms = {"data": {"name": "rendered_rooms", "num_rooms": 2}, "eval_data": {"split": "selection", "num_rooms": 1}}
    rooms |= {"scene_tasks": {"tasks": ["reconstruction"], "num_views": 1}, "variety": {}, "questions": {}}
    rooms |= {"eval_strategy": "steps", "eval_steps": 2, "collation": {"max_view_pixels": 4096}}
    path = recipe_of_maps(recipe, geometry_encoder_path=None, **rooms)
    trainer, _ = train_geometry_aligned(path, ["--lr_scheduler_type", "constant"])
    assert any("eval_loss_point_map" in entry for entry in trainer.state.log_history)
    encoder = trainer.model.model.geometry
    assert isinstance(encoder, GapMllmGeometryMapsModel) and encoder.teacher is None
    loaded = GapMllmForPreTraining.from_pretrained(tmp_path / "run")
    assert torch.equal(loaded.model.geometry.camera_embed.weight, encoder.camera_embed.weight)
    encoder.save_pretrained(tmp_path / "maps")
    torch.manual_seed(0)
    options = {
        "frozen_geometry": {"where": "loader"},
        "module_learning_rates": {},
        "known_geometry": ["depth", "intrinsics"],
    }
    path = recipe_of_maps(recipe, geometry_encoder_path=str(tmp_path / "maps"), **options)
    trainer, _ = train_geometry_aligned(path, ["--output_dir", str(tmp_path / "b"), "--lr_scheduler_type", "constant"])
    assert torch.equal(trainer.model.model.geometry.camera_embed.weight, encoder.camera_embed.weight)
    evaluation = {"num_selection_rooms": 1, "eval_strategy": "steps", "eval_steps": 2}
    path = recipe_of_maps(recipe, known_geometry=[], **evaluation)
    trainer, _ = train_geometry_aligned(path, ["--output_dir", str(tmp_path / "c"), "--lr_scheduler_type", "constant"])
    teacher = trainer.model.model.geometry.teacher
    assert teacher is not None and not any(each.requires_grad for each in teacher.parameters())
    trainer.model.model.geometry.requires_grad_(False)
    trainer.args.bf16, trainer.args.module_learning_rates["geometry"] = True, 0.0
    freeze(trainer.model, trainer.args)
    assert teacher.camera_head.embed_pose.weight.dtype == torch.float32
    assert teacher.aggregator.camera_token.dtype == torch.bfloat16


def test_positions_train_with_vggt(recipe, tmp_path):
    fusion = {"method": "gated", "merger_hidden_size": 128, "position_encoding": "position_3d"}
    path = recipe_of_maps(
        recipe, module_learning_rates={}, model_config={"geometry_config": {}, "gap_fusion_config": fusion}
    )
    trainer, _ = train_geometry_aligned(path, ["--lr_scheduler_type", "constant"])
    assert trainer.model.model.fusion.position.strength.abs().sum() > 0
    trained = GapMllmForPreTraining.from_pretrained(tmp_path / "run").model.fusion.position.strength
    assert torch.equal(trained, trainer.model.model.fusion.position.strength)


@pytest.mark.slow
def test_positions_of_vggts_own_points_train_without_anything_known(recipe):
    fusion = {"method": "gated", "merger_hidden_size": 128, "position_encoding": "position_3d"}
    config = {"geometry_config": {"model_type": "gap_mllm_vggt_points"}, "gap_fusion_config": fusion}
    evaluation = {"num_selection_rooms": 1, "eval_strategy": "steps", "eval_steps": 2}
    path = recipe_of_maps(recipe, known_geometry=[], module_learning_rates={}, model_config=config, **evaluation)
    trainer, _ = train_geometry_aligned(path, ["--lr_scheduler_type", "constant"])
    assert isinstance(trainer.model.model.geometry, GapMllmVggtPointsModel)
    assert trainer.model.model.fusion.position.strength.abs().sum() > 0


def test_what_a_recipe_cannot_have_is_refused(recipe, make_pretraining_model, maps_model, tiny_processor, tmp_path):
    config = make_pretraining_model().config
    with pytest.raises(ValueError, match="known_geometry is given, but VGGT reads pixels alone"):
        check_known_geometry(config, ALL)
    with pytest.raises(ValueError, match=r"known_geometry has the unknown key 'pose' .did you mean 'poses'"):
        check_known_geometry(config, ["pose"])
    with pytest.raises(ValueError, match="needs depth that is known. Give known_geometry"):
        check_known_geometry(maps_model.config, [])
    with pytest.raises(ValueError, match="num_selection_rooms and eval_rewards have the model answer from pixels"):
        evaluation = {"num_selection_rooms": 1, "eval_strategy": "steps", "eval_steps": 2}
        train_geometry_aligned(recipe_of_maps(recipe, geometry_encoder_path=None, **evaluation))
    with pytest.raises(ValueError, match="known_geometry has the unknown key 'normals'"):
        SceneCollator(tiny_processor, known_geometry=["normals"])
    with pytest.raises(ValueError, match="known_geometry is given, but TRL's trainer hands the model pixels alone"):
        train_grpo("tiny_grpo", ["--known_geometry", "depth", "--model_path", "any", "--output_dir", str(tmp_path)])
    maps_model.save_pretrained(tmp_path / "maps")
    with pytest.raises(ValueError, match="needs depth that is known, and TRL's trainer hands it pixels alone"):
        train_grpo("tiny_grpo", ["--model_path", str(tmp_path / "maps"), "--output_dir", str(tmp_path / "grpo")])


def test_a_dry_run_counts_it(recipe):
    told = dry_run_recipe(recipe_of_maps(recipe, geometry_encoder_path=None))
    assert told["parameters"]["geometry"]["trainable"] > 0 and told["flops"]["per_step"] > 0
