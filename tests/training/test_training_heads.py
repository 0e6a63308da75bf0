"""Heads on hidden states of visual tokens, their terms and teachers: what is read, what is learnt, what is refused."""

import copy
import weakref
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from transformers import HfArgumentParser

from gap_mllm import GapMllmForConditionalGeneration, GapMllmForPreTraining
from gap_mllm.hub import save_for_hub
from gap_mllm.processing.data import RenderedRooms, RoomVariety, render_room
from gap_mllm.training import (
    GeometryAlignedTrainingArguments,
    SceneCollator,
    dry_run_recipe,
    set_training_heads,
)
from gap_mllm.training.losses import normals_from_depth
from gap_mllm.training.recipe_sections import check_sections
from gap_mllm.training.recipes import read_recipe
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from gap_mllm.training.teachers import RecordedTeacher, TeacherTargets
from gap_mllm.training.terms import NormalsTerm, make_terms
from gap_mllm.training.train_geometry_aligned import GeometryAlignedModelArguments, train_geometry_aligned
from gap_mllm.training_heads_gap_mllm import TOWER_INDEX, GapMllmDepthHead, layer_index, map_layers, read_hidden_states
from gap_mllm.vggt_heads_gap_mllm import nearest


ENCODER = Path(__file__).parents[2] / "examples" / "assets" / "tiny_geometry_encoder"
SMALL = RoomVariety(sizes=((64, 64),), size_shares=(1.0,), num_views=(2, 1), num_views_shares=(0.5, 0.5))
OWN = {"distillation": {"weight": 1.0, "layers": [1, -1]}}


@pytest.fixture(scope="module")
def rooms():
    dataset = RoomQuestionDataset(RenderedRooms("train", 2, SMALL, 1), RoomQuestions(counts={"reconstruction": 2}))
    return [dataset[index] for index in range(2)]


@pytest.fixture
def prepare(make_teaching_trainer, rooms):
    """`make_teaching_trainer` on these rooms."""

    def make(model, terms, teachers=None, layout="block_mask", **options):
        return make_teaching_trainer(model, terms, rooms, teachers, layout, **options)

    return make


def logged(trainer):
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("checkpointed", [False, True])
def test_hidden_states_are_those_of_transformers(pretraining_model, enable_checkpointing, checkpointed):
    model = copy.deepcopy(pretraining_model)
    expected = model(input_ids=torch.arange(6)[None], output_hidden_states=True).hidden_states
    if checkpointed:
        enable_checkpointing(model)
        model.train()
    num_layers = len(expected) - 1
    with read_hidden_states(model.model.language_model, [0, 1, -1]) as kept:
        model(input_ids=torch.arange(6)[None])
    assert sorted(kept) == [0, 1, num_layers]  # and no others
    for index, value in kept.items():
        assert torch.allclose(value, expected[index], atol=1e-5), index
    kept.clear()
    model(input_ids=torch.arange(6)[None])
    assert not kept  # the hooks are gone


def test_layers_that_are_not_read_are_not_kept(pretraining_model):
    """Of all layers alone the one that is read lives on; with `output_hidden_states` all would."""
    model, born = copy.deepcopy(pretraining_model), []
    language = model.model.language_model
    for layer in language.layers:
        layer.register_forward_hook(lambda module, args, output: born.append(weakref.ref(output)))
    with torch.no_grad(), read_hidden_states(language, [1]) as kept:
        model(input_ids=torch.arange(6)[None])
    assert [reference() is not None for reference in born] == [True] + [False] * (len(born) - 1)
    assert kept[1] is born[0]()
    with torch.no_grad():
        output = model(input_ids=torch.arange(6)[None], output_hidden_states=True)
    assert len(output.hidden_states) == len(language.layers) + 1


def test_layers_by_index_and_by_depth():
    assert [layer_index(layer, 4) for layer in (0, 4, -1, -2, -5, "tower")] == [0, 4, 4, 3, 0, TOWER_INDEX]
    for wrong in (5, -6, 1.0, True, "last"):
        with pytest.raises(ValueError, match="none of the language model; expected 0, its embeddings, to 4"):
            layer_index(wrong, 4)


@pytest.mark.parametrize("layer", ["tower", 0])
def test_a_head_on_the_tower_reads_tokens_that_know_no_geometry(make_pretraining_model, prepare, layer):
    model = make_pretraining_model()
    trainer = prepare(model, {"label_map": {"weight": 1.0, "layers": [layer]}})
    batch = trainer.data_collator([trainer.train_dataset[0]])
    seen = []
    head = model.training_heads["label_map"]
    head.register_forward_pre_hook(lambda module, args: seen.append(args[0][0].detach()))
    given = model.model.get_geometry_features(
        batch["pixel_values"], batch["image_grid_thw"], scene_lengths=batch["scene_lengths"]
    )
    names = (
        "input_ids",
        "labels",
        "position_ids",
        "attention_mask",
        "pixel_values",
        "image_grid_thw",
        "scene_lengths",
    )
    inputs = {name: batch[name] for name in names}
    with torch.no_grad():
        for scale in (1.0, -3.0):
            model(**inputs, geometry_features=scale * given)
        plain = model.model.visual(batch["pixel_values"], batch["image_grid_thw"]).pooler_output
    assert torch.equal(*seen) == (layer == "tower") == torch.equal(seen[0], plain)
    trainer.train()
    assert trainer.state.log_history[0]["loss_label_map"] > 0


# Of GeoVR's code: teacher, decoder layers of the language model, its layers that stand for the teacher's.
GEOVR_LAYERS = (
    ("da3_depth", 24, [12, 17, 20, 24]),
    ("da3_depth", 28, [14, 20, 24, 28]),
    ("da3_depth", 32, [16, 22, 27, 32]),
    ("da3_depth", 36, [18, 25, 31, 36]),
    ("da3_distill", 24, [11, 16, 20, 23]),
    ("da3_distill", 28, [13, 19, 23, 27]),
    ("da3_distill", 32, [15, 22, 26, 31]),
    ("da3_distill", 36, [17, 24, 30, 35]),
    ("geo24", 24, [5, 12, 18, 24]),
    ("geo24", 28, [6, 14, 21, 28]),
    ("geo24", 32, [7, 16, 24, 32]),
    ("geo24", 36, [8, 18, 27, 36]),
)
GEOVR_TEACHERS = {
    "geo24": ([4, 11, 17, 23], 24),
    "da3_depth": ([19, 27, 33, 39], 40),
    "da3_distill": ([18, 26, 32, 38], 40),
}


@pytest.mark.parametrize(("teacher", "num_layers", "expected"), GEOVR_LAYERS)
def test_layers_as_deep_as_those_of_a_teacher(teacher, num_layers, expected):
    assert map_layers(num_layers, *GEOVR_TEACHERS[teacher]) == expected


@pytest.mark.slow
def test_distillation_of_the_own_encoder_trains_and_is_the_same_for_every_split(make_pretraining_model, prepare):
    entries = []
    for batch in (2, 1):
        trainer = prepare(
            make_pretraining_model(), OWN, per_device_train_batch_size=batch, gradient_accumulation_steps=2 // batch
        )
        entries.append(logged(trainer)[0])
    whole, split = entries
    assert 0 < whole["loss_distillation"] < 2
    assert whole["loss"] == pytest.approx(whole["loss_text"] + whole["loss_distillation"], rel=1e-4)
    for name in ("loss", "loss_text", "loss_distillation", "grad_norm"):
        assert split[name] == pytest.approx(whole[name], rel=1e-4), name


def test_features_of_the_own_encoder_are_averaged_over_the_tokens(make_pretraining_model, prepare, rooms):
    model = make_pretraining_model()
    trainer = prepare(model, OWN)
    batch = trainer.data_collator(copy.deepcopy(rooms))
    _, outputs = trainer.compute_terms(model, batch)
    views = {name: batch[name] for name in ("pixel_values", "image_grid_thw", "scene_lengths")}
    flat = model.model.get_geometry_features(**views)[-1]
    height, width = batch["image_grid_thw"][0, 1:].tolist()
    first = flat[: height * width].unflatten(0, (height, width))[:2, :2].mean((0, 1))
    assert torch.allclose(outputs.encoder_features["layer_3"][0], first, atol=1e-6)
    tokens = int(batch["image_grid_thw"].prod(-1).sum()) // 4
    assert tokens == len(outputs.head_outputs["distillation"][0])
    assert trainer.count_items(batch)["distillation"] == tokens * len(rooms[0])  # each question about a room counts


class Stub:
    """A teacher with features of width 6 on a grid of the asked size; those of each view are its number."""

    def __init__(self, side=4):
        self.side, self.asked = side, 0

    def __call__(self, views):
        self.asked += 1
        ones = torch.ones(self.side, self.side, 6)
        return TeacherTargets(features={"layer_0": [ones * (view + 1) for view in range(len(views))]})


@pytest.mark.parametrize("layout", ["block_mask", "padded"])
def test_a_teacher_in_the_collator_is_asked_once_for_each_scene(make_pretraining_model, prepare, rooms, layout):
    terms = {"distillation": {"weight": 1.0, "teacher": "vggt", "feature_size": 6, "squared_distance": True}}
    stub, model = Stub(), make_pretraining_model()
    trainer = prepare(model, terms, {"vggt": stub}, layout)
    batch = trainer.data_collator(copy.deepcopy(rooms))
    scenes = len(batch["scene_lengths"])
    assert stub.asked == scenes
    sums, outputs = trainer.compute_terms(model, batch)
    predicted = outputs.head_outputs["distillation"][0]
    expected = 2 * (1 - torch.nn.functional.cosine_similarity(predicted, torch.ones_like(predicted))).sum()
    assert torch.allclose(sums["distillation"], expected * len(rooms[0]), rtol=1e-5)
    before = copy.deepcopy(model.training_heads.state_dict())
    logged(trainer)
    assert all(not torch.equal(value, before[name]) for name, value in model.training_heads.state_dict().items())


def test_what_cannot_be_distilled_is_refused(make_pretraining_model, prepare, make_trainer, tiny_processor, rooms):
    model = make_pretraining_model()

    def refused(message, teachers=None, **settings):
        with pytest.raises(ValueError, match=message):
            prepare(model, {"distillation": {"weight": 1.0, **settings}}, teachers)

    refused("layer 9 is none of the language model; expected 0, its embeddings, to 3", layers=[9])
    refused(r"terms.distillation.teacher is 'vgtt' \(did you mean 'vggt'\?\)", teacher="vgtt")
    refused("has 1 layers and 2 teacher_layers", teacher_layers=["layer_0", "layer_1"])
    refused(r"encoder has no features \['layer_9'\]", teacher_layers=["layer_9"])
    with pytest.raises(ValueError, match=r"terms.distillation.teacher: teacher vggt needs path; give its settings"):
        prepare(model, {"distillation": {"weight": 1.0, "teacher": "vggt"}})
    with pytest.raises(ValueError, match="distils into layer -1, which is frozen"):
        prepare(model, {"distillation": {"weight": 1.0}}, module_learning_rates={"language": 0.0})
    told = {"teacher": "vggt", "feature_size": 6}
    trainer = prepare(make_pretraining_model(), {"distillation": {"weight": 1.0, **told}}, {"vggt": Stub(side=1)})
    with pytest.raises(ValueError, match="2 x 2 visual tokens, but the teacher's grid is 1 x 1"):
        trainer.data_collator(copy.deepcopy(rooms))
    model = make_pretraining_model()
    trainer = prepare(model, {"distillation": {"weight": 1.0, "teacher": "vggt"}}, {"vggt": Stub()})
    with pytest.raises(ValueError, match="Set terms.distillation.feature_size to the teacher's width"):
        trainer.compute_terms(model, trainer.data_collator(copy.deepcopy(rooms)))
    with pytest.raises(ValueError, match="the model has no head 'distillation'"):
        make_trainer(make_pretraining_model(), terms=OWN)
    collator = SceneCollator(tiny_processor, "block_mask", for_pretraining=True)
    with pytest.raises(ValueError, match="the collator asks no teacher"):
        make_trainer(model, data_collator=collator, terms={"distillation": {"weight": 1.0}})


def test_targets_that_a_batch_lacks_are_counted_and_not_made_up(make_pretraining_model, prepare, rooms):
    model = make_pretraining_model()
    trainer = prepare(model, OWN)
    batch = trainer.data_collator(copy.deepcopy(rooms))
    del batch["teacher_targets"]
    sums, _ = trainer.compute_terms(model, batch)
    assert trainer.count_items(batch)["distillation"] == 0 and sums["distillation"] == 0
    assert sums["distillation"].requires_grad  # so that all processes reduce the same parameters


def test_heads_are_kept_by_checkpoints_and_dropped_from_published_folders(
    make_pretraining_model, tiny_processor, tmp_path, caplog
):
    model = make_pretraining_model()
    args = GeometryAlignedTrainingArguments("unused", terms=copy.deepcopy(OWN), report_to="none")
    without = set(model.state_dict())
    set_training_heads(model, args)
    model.save_pretrained(tmp_path / "kept")
    again = GapMllmForPreTraining.from_pretrained(tmp_path / "kept")
    for name, value in model.training_heads.state_dict().items():
        assert torch.equal(again.training_heads.state_dict()[name], value)
    heads = dict(again.training_heads)
    set_training_heads(again, args)
    assert heads["distillation"] is again.training_heads["distillation"]  # those that fit stay
    caplog.clear()
    plain = GapMllmForConditionalGeneration.from_pretrained(tmp_path / "kept")
    plain.save_pretrained(tmp_path / "plain")
    saved = GapMllmForPreTraining.from_pretrained(tmp_path / "plain")
    assert not saved.training_heads and plain.config.training_heads  # no heads at random
    save_for_hub(model, tiny_processor, tmp_path / "published")
    published = GapMllmForPreTraining.from_pretrained(tmp_path / "published")
    assert "training_heads" not in caplog.text
    assert set(published.state_dict()) == without and published.config.training_heads is None
    assert len(model.training_heads) == 1 and model.config.training_heads
    save_for_hub(model, tiny_processor, tmp_path / "asked", include_training_heads=True)
    assert len(GapMllmForPreTraining.from_pretrained(tmp_path / "asked").training_heads) == 1


DENSE = {
    "depth": {"weight": 1.0, "layers": [1, -1], "side": 4, "features": 8},
    "normals": {"weight": 0.5},
    "camera": {"weight": 2.5, "head_size": 16},
    "field_of_view": {"weight": 1.0},
    "metric_scale": {"weight": 1.0, "head_size": 16},
}


@pytest.mark.slow
def test_dense_terms_train_and_are_the_same_for_every_split(make_pretraining_model, prepare):
    entries = []
    for batch in (2, 1):
        trainer = prepare(
            make_pretraining_model(), DENSE, per_device_train_batch_size=batch, gradient_accumulation_steps=2 // batch
        )
        entries.append(logged(trainer)[0])
    whole, split = entries
    names = [f"loss_{name}" for name in DENSE]
    weighted = sum(DENSE[name]["weight"] * whole[f"loss_{name}"] for name in DENSE)
    assert whole["loss"] == pytest.approx(whole["loss_text"] + weighted, rel=1e-4)
    for name in ("loss", "grad_norm", *names):
        assert whole[name] > 0 and split[name] == pytest.approx(whole[name], rel=1e-4), name


def test_dense_targets_are_those_of_the_views_and_a_perfect_head_has_no_loss(make_pretraining_model, prepare, rooms):
    trainer = prepare(make_pretraining_model(), DENSE)
    batch = trainer.data_collator(copy.deepcopy(rooms))
    targets, counts = batch["teacher_targets"], trainer.count_items(batch)
    views, scenes, asked = len(batch["image_grid_thw"]), len(batch["scene_lengths"]), len(rooms[0])
    assert batch["scene_rows"].tolist() == [asked] * scenes
    assert (counts["depth"], counts["camera"], counts["field_of_view"]) == (views * asked,) * 3
    assert counts["metric_scale"] == scenes * asked
    assert [float(each) for each in targets["metric_scale"]["vectors"]] == [1.0] * scenes
    first = rooms[0][0] if isinstance(rooms[0], list) else rooms[0]
    expected = torch.tensor(first.views[0].depth_m[4, 4])  # a cell has 8 pixels along each side
    assert torch.allclose(targets["depth"]["depth"][0][0, 0], expected)
    assert torch.allclose(targets["camera"]["vectors"][0][:7], torch.eye(7)[6], atol=1e-6)  # the first view's own
    assert torch.allclose(targets["field_of_view"]["vectors"][0], targets["camera"]["vectors"][0][7:])
    _, outputs = trainer.compute_terms(trainer.model, batch)
    outputs.head_outputs["depth"] = targets["depth"]["depth"]
    outputs.head_outputs["camera"] = torch.stack(targets["camera"]["vectors"])
    outputs.head_outputs["metric_scale"] = torch.ones(scenes)
    for name in DENSE:
        assert float(trainer.terms[name].sum(outputs, batch)) == pytest.approx(0, abs=1e-3), name


def test_views_without_depth_or_pose_are_left_out_and_counted(make_pretraining_model, prepare, rooms):
    trainer = prepare(make_pretraining_model(), DENSE)
    whole = trainer.count_items(trainer.data_collator(copy.deepcopy(rooms)))
    blind = copy.deepcopy(rooms)
    samples = [each for item in blind for each in (item if isinstance(item, list) else [item])]
    for sample in samples:
        views = tuple(replace(view, depth_picture=None, camera_to_world=None) for view in sample.views)
        object.__setattr__(sample, "views", views)
    batch = trainer.data_collator(blind)
    counts = trainer.count_items(batch)
    assert (counts["depth"], counts["normals"], counts["metric_scale"]) == (0, 0, 0)
    assert counts["field_of_view"] == whole["field_of_view"] and counts["camera"] == int(batch["scene_rows"].sum())
    assert trainer.data_collator.counts["views_without_depth"] > 0
    sums, _ = trainer.compute_terms(trainer.model, batch)
    assert all(sums[name].item() == 0 for name in ("depth", "normals", "metric_scale"))


def test_a_term_that_reads_a_head_which_is_not_there_is_refused(make_pretraining_model, prepare):
    model = make_pretraining_model()
    with pytest.raises(ValueError, match="terms.normals reads the head of 'depth', which has no weight"):
        prepare(model, {"normals": {"weight": 1.0}})
    with pytest.raises(ValueError, match=r"terms.camera.layers is \[1, 2\]; its head reads one layer"):
        prepare(model, {"camera": {"weight": 1.0, "layers": [1, 2]}})
    with pytest.raises(ValueError, match=r"terms.depth.teacher is 'recoded' \(did you mean 'recorded'\?\)"):
        prepare(model, {"depth": {"weight": 1.0, "teacher": "recoded"}})


@pytest.mark.parametrize("layers", [[1], [1, 2, -1]])
def test_the_depth_head_gives_each_view_its_map_alone(layers):
    torch.manual_seed(0)
    head = GapMllmDepthHead(12, layers, side=3, features=8)
    grids = [(2, 3), (2, 3), (1, 2)]
    states = [torch.rand(14, 12) for _ in layers]
    maps = head(states, grids, [3])
    assert [tuple(each.shape) for each in maps] == [(6, 9), (6, 9), (3, 6)] and all((each > 0).all() for each in maps)
    alone = head([level[12:] for level in states], grids[2:], [1])[0]
    assert torch.allclose(alone, maps[2], atol=1e-6)


def test_published_recipes_read_the_layers_of_the_releases():
    parser = HfArgumentParser((GeometryAlignedModelArguments, GeometryAlignedTrainingArguments))
    for name, layers in (("threedrs", [-1]), ("geovr", map_layers(28, [4, 11, 17, 23], 24))):
        recipe, args = read_recipe(parser, name, ["--use_cpu", "true", "--output_dir", "unused"])
        check_sections(recipe)
        terms = make_terms(args, args.terms)
        assert terms["distillation"].layers == layers and args.group_learning_rates["heads"] in (1e-5, 1e-4)
        assert terms["depth"].layers == layers or not terms["depth"].weight
        weights = {name: term.weight for name, term in terms.items() if term.weight and name != "text"}
        expected = {"distillation": 1.0, "depth": 1.0, "camera": 2.5, "metric_scale": 1.0}
        assert weights == (expected if name == "geovr" else {"distillation": 1.0})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_threedrs", "tiny_geovr", "tiny_geometry_levels"])
def test_twins_train_and_their_heads_are_counted_without_weights(name, tmp_path, capsys):
    flags = ["--geometry_encoder_path", str(ENCODER), "--output_dir", str(tmp_path / "run"), "--use_cpu", "true"]
    flags += ["--dataloader_num_workers", "0", "--dataloader_persistent_workers", "false"]
    flags += ["--per_device_train_batch_size", "1"]
    told = dry_run_recipe(name, flags)
    trainer, _ = train_geometry_aligned(name, [*flags, "--max_steps", "1", "--logging_steps", "1"])
    heads = sum(parameter.numel() for parameter in trainer.model.training_heads.parameters())
    assert told["parameters"]["heads"] == {"total": heads, "trainable": heads, "learning_rate": 0.002}
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert all(entry[f"loss_{term}"] > 0 for term in trainer.args.terms)
    assert GapMllmForPreTraining.from_pretrained(tmp_path / "run").config.training_heads


def test_camera_tokens_of_the_own_encoder_do_not_teach(make_pretraining_model, prepare, rooms):
    model = make_pretraining_model()
    trainer = prepare(model, OWN)
    plain = trainer.compute_terms(model, trainer.data_collator(copy.deepcopy(rooms)))[1].encoder_features
    features = torch.rand(4, 2 * (1 + 16), 5)
    with patch.object(type(model.config.gap_fusion_config), "camera_tokens", 1):
        found = model._over_tokens(features, [(2, 2), (2, 2)])
    expected = features[2].unflatten(0, (2, 17))[:, 1:].unflatten(1, (2, 2, 2, 2)).mean((2, 4)).flatten(0, 2)
    assert list(found) == list(plain) == ["layer_2", "layer_3"] and torch.allclose(found["layer_2"], expected)


def test_maps_of_few_pixels_keep_the_normals_of_slanted_surfaces():
    views = render_room(3).as_sample().views
    told, grids = RecordedTeacher()(views), [(3, 3)] * len(views)
    normals = torch.stack(NormalsTerm(weight=1.0).targets(told, views, grids, {"side": 4})["normals"])
    counted = normals.isfinite().all(-1)  # of 12 x 12 pixels, of which those at the border have no normal
    assert (counted.flatten(1).float().mean(1) > 0.2).all() and counted.float().mean() > 0.35
    whole = nearest(normals_from_depth(told.depth[0], told.intrinsics[0])[0], (12, 12))
    assert (normals[0] * whole).sum(-1)[counted[0]].median() > 0.95
