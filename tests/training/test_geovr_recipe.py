"""The recipe geovr from raw video with teachers, in small; its heads beside adapters; and on the teacher's grid."""

import copy
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from gap_mllm import GapMllmForConditionalGeneration, GapMllmForPreTraining
from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.training import add_lora, dry_run_recipe, merge_adapter
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from gap_mllm.training.teachers import DepthAnythingTeacher, RecordedTeacher, TeacherTargets
from gap_mllm.training.terms import DepthTerm, MetricScaleTerm
from gap_mllm.training.train_geometry_aligned import train_geometry_aligned


ENCODER = Path(__file__).parents[2] / "examples" / "assets" / "tiny_geometry_encoder"
FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"
SMALL = RoomVariety(sizes=((64, 64),), size_shares=(1.0,), num_views=(2,), num_views_shares=(1.0,))
LAYERS = [1, 2, 3, 3]  # of the tiny model


@pytest.fixture(scope="module")
def rooms():
    dataset = RoomQuestionDataset(RenderedRooms("train", 2, SMALL, 1), RoomQuestions(counts={"reconstruction": 2}))
    return [dataset[index] for index in range(2)]


class FlatWall:
    """Stands for Depth Anything 3's metric model: neither cameras nor confidence, and some sky."""

    @classmethod
    def from_pretrained(cls, path):
        return cls()

    def to(self, device):
        return self

    def inference(self, image, export_feat_layers):
        shape = (len(image), *(side // 2 for side in image[0].shape[:2]))
        depth, sky = np.full(shape, 2.0, np.float32), np.zeros(shape)
        sky[:, :4] = 1.0
        return SimpleNamespace(depth=depth, sky=sky, conf=None, extrinsics=None, intrinsics=None)


@pytest.fixture
def metric_model(monkeypatch):
    for name in ("depth_anything_3", "depth_anything_3.api"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["depth_anything_3.api"], "DepthAnything3", FlatWall, raising=False)


@pytest.fixture(scope="module")
def base(make_pretraining_model, tiny_processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    make_pretraining_model().save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture
def flags(base, tmp_path):
    """The command in the head of the recipe, on the small files in published layouts, and the sizes of tiny models."""
    teacher = {"path": str(ENCODER), "image_size": 56, "patch_size": 28, "device": "cpu"}
    values = {"--model_path": base, "--output_dir": tmp_path / "run", "--use_cpu": "true", "--bf16": "false"}
    values |= {"--data.vsi590k.data_dir": FORMATS / "vsi590k", "--data.vlm3r.data_dir": FORMATS / "vlm3r"}
    values |= {f"--data.{name}.max_views": 2 for name in ("vsi590k", "vlm3r")}
    for term in ("distillation", "depth", "camera", "metric_scale"):
        values |= {f"--terms.{term}.teacher.{key}": value for key, value in teacher.items()}
    values |= {"--terms.distillation.layers": LAYERS, "--terms.depth.layers": LAYERS}
    values |= {"--terms.distillation.teacher_layers": [f"layer_{layer}" for layer in range(4)]}
    values |= {"--terms.distillation.feature_size": 112, "--terms.distillation.projector_size": 16}
    values |= {"--terms.depth.features": 8, "--terms.depth.out_channels": [8, 8, 8, 8]}
    values |= {
        "--terms.metric_scale.metric_teacher.path": "METRIC",
        "--terms.metric_scale.metric_teacher.device": "cpu",
    }
    values |= {
        "--per_device_train_batch_size": 1,
        "--gradient_accumulation_steps": 2,
        "--gradient_checkpointing": "false",
    }
    values |= {"--max_steps": 2, "--logging_steps": 1, "--save_steps": 1, "--collation.max_view_pixels": 4096}
    return [
        word
        for pair in values.items()
        for word in (pair[0], str(pair[1]) if not isinstance(pair[1], str) else pair[1])
    ]


@pytest.mark.slow
def test_it_trains_from_raw_video_and_leaves_a_plain_model(flags, metric_model, tmp_path, base):
    trainer, processor = train_geometry_aligned("geovr", flags)
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(entries) == 2
    for entry in entries:
        assert all(
            0 < entry[f"loss_{name}"] < 20 for name in ("text", "distillation", "depth", "camera", "metric_scale")
        )
    model = trainer.model
    assert model.model.geometry is None and model.config.use_geometry is False
    assert model.training_heads["camera"].tokens is not None
    plain = GapMllmForConditionalGeneration.from_pretrained(tmp_path / "run")
    assert not [name for name in plain.state_dict() if "heads" in name or ".tokens." in name]


@pytest.mark.slow
def test_its_sizes_are_the_published_ones():
    told = dry_run_recipe("geovr", ["--data.vsi590k.max_views", "2", "--data.vlm3r.max_views", "2"])
    assert told["parameters"]["geometry"]["total"] == 0 and told["parameters"]["heads"]["learning_rate"] == 1e-4
    hidden, channels = 2048, (256, 512, 1024, 1024)
    projectors = 4 * (2 * hidden + (hidden + 1) * 1024 + 1025 * 1024)
    camera = 2 * hidden + 2 * hidden + (hidden + 1) * 1536 + 1537 * 1536 + 1537 * 9
    scale = hidden + 2 * hidden + (hidden + 1) * 512 + 513
    pyramid = 2 * hidden + sum((hidden + 1) * c for c in channels)
    pyramid += (16 * 256 + 1) * 256 + (4 * 512 + 1) * 512 + (9 * 1024 + 1) * 1024
    pyramid += sum(9 * c * 256 for c in channels) + 7 * 2 * (9 * 256 + 1) * 256 + 4 * 257 * 256 + 257 * 49
    assert told["parameters"]["heads"]["total"] == projectors + camera + scale + pyramid


def test_heads_tell_on_the_grid_of_the_teacher(make_pretraining_model, make_teaching_trainer, rooms):
    class Fine:
        def __call__(self, views):
            features = {"layer_0": [torch.rand(7, 9, 6) for _ in views]}
            return TeacherTargets(
                [torch.rand(56, 84) + 1] * len(views), [torch.ones(56, 84)] * len(views), features=features
            )

    terms = {
        "distillation": {"weight": 1.0, "teacher": "vggt", "feature_size": 6, "grid": "teacher"},
        "depth": {"weight": 1.0, "teacher": "vggt", "side": 28, "features": 8, "grid": "teacher"},
    }
    model = make_pretraining_model()
    trainer = make_teaching_trainer(model, terms, rooms, {"vggt": Fine()})
    batch = trainer.data_collator(copy.deepcopy(rooms))
    grids = {name: grid.unique(dim=0).tolist() for name, grid in batch["head_grids"].items()}
    assert grids == {"distillation": [[3, 4]], "depth": [[2, 3]]}  # of 2 x 2 patches; a last odd one is left out
    sums, outputs = trainer.compute_terms(model, batch)
    views, asked = len(batch["image_grid_thw"]), len(rooms[0])
    assert outputs.head_outputs["depth"][0].shape == (56, 84)
    assert outputs.head_outputs["distillation"][0].shape == (views * 12, 6)
    counts = trainer.count_items(batch)
    assert (counts["distillation"], counts["depth"]) == (12 * views * asked, views * asked)
    assert all(sums[name] > 0 for name in terms)
    with pytest.raises(
        ValueError, match=r"terms.depth.grid has the unknown key 'teacer' \(did you mean 'teacher'\?\)"
    ):
        DepthTerm(weight=1.0, grid="teacer").head_settings(model.config)
    with pytest.raises(ValueError, match="its teacher is the model's own encoder"):
        make_teaching_trainer(model, {"distillation": {"weight": 1.0, "grid": "teacher"}}, rooms)


def test_the_scale_is_measured_by_a_metric_teacher(rooms):
    views, term = rooms[0][0].views, MetricScaleTerm(weight=1.0)
    told = RecordedTeacher(normalise=True)(views)
    metric = DepthAnythingTeacher(FlatWall(), canonical_focal_px=300)(views)
    found = term.targets(told, views, [(2, 2)] * len(views), {}, metric)["vectors"][0]
    focal = told.intrinsics[0, 0, 0] / 2, told.intrinsics[0, 1, 1] / 2
    in_metres = metric.depth_m(told)
    assert torch.allclose(in_metres.depth[0][10, 10], 2.0 * sum(focal) / 2 / 300) and in_metres.is_metric
    assert (in_metres.depth[0][:4] == 0).all()  # sky
    depth = torch.cat([each.flatten() for each in told.depth])
    seen = torch.cat([each.flatten() for each in in_metres.resized([(64, 64)] * len(views)).depth])
    valid = (depth > 1e-3) & (seen > 0)
    assert torch.allclose(found, (depth * seen)[valid].sum() / depth[valid].square().sum(), rtol=1e-3)
    with pytest.raises(ValueError, match="units of its own; take one that tells metres"):
        term.targets(told, views, [(2, 2)] * len(views), {}, told)


HEADS = ["--terms.camera.weight", "1.0", "--terms.camera.tokens", "true", "--terms.camera.head_size", "8"]
HEADS += ["--terms.depth.weight", "1.0", "--terms.depth.features", "8", "--terms.depth.side", "4"]


@pytest.mark.slow
def test_heads_are_trained_and_saved_beside_adapters(recipe, base, tmp_path, capsys):
    path = recipe(model_path=str(base), geometry_encoder_path=None, model_config={}, max_steps=4)
    flags = [*HEADS, "--lora.r", "2", "--lora.target_modules", r".*language_model.*\.(q_proj|v_proj)"]
    run, again = tmp_path / "whole", tmp_path / "again"
    whole, processor = train_geometry_aligned(path, [*flags, "--output_dir", str(run)])
    base_model = whole.model.get_base_model()
    assert set(base_model.training_heads) == {"camera", "depth"}
    learnt = {name for name, each in whole.model.named_parameters() if each.requires_grad and "training_heads" in name}
    assert learnt and all(".modules_to_save." in name for name in learnt)
    assert any(".tokens." in name for name in learnt)
    config = json.loads((run / "adapter_config.json").read_text())
    assert {"training_heads.camera", "training_heads.depth"} <= set(config["modules_to_save"])
    weights = load_file(run / "adapter_model.safetensors")
    saved = {name: each for name, each in weights.items() if "training_heads" in name}
    fresh = load_file(run / "checkpoint-2" / "adapter_model.safetensors")
    assert len(saved) == len(learnt) and all(not torch.equal(each, fresh[name]) for name, each in saved.items())
    # A run that was stopped goes on with the same losses and heads.
    shutil.copytree(run / "checkpoint-2", again / "checkpoint-2")
    resumed, _ = train_geometry_aligned(path, [*flags, "--output_dir", str(again)])
    told = [[each for each in trainer.state.log_history if "loss" in each] for trainer in (whole, resumed)]
    assert len(told[0]) == len(told[1]) == 4
    for expected, found in zip(*told, strict=True):
        assert {name: found[name] for name in ("loss", "loss_camera", "loss_depth")} == {
            name: expected[name] for name in ("loss", "loss_camera", "loss_depth")
        }
    assert all(torch.equal(each, load_file(again / "adapter_model.safetensors")[name]) for name, each in saved.items())
    # The merged model has none of them, and neither has an adapter that is loaded on a model without heads.
    merged = GapMllmForPreTraining.from_pretrained(merge_adapter(run, tmp_path / "merged"))
    assert merged.config.training_heads is None and not len(merged.training_heads)
    adapted = PeftModel.from_pretrained(GapMllmForConditionalGeneration.from_pretrained(base), str(run)).eval()
    asked = {"input_ids": torch.arange(6)[None]}
    expected = whole.model.eval()(**asked).logits
    assert torch.allclose(adapted(**asked).logits, expected, atol=1e-5)
    assert torch.allclose(merged.eval()(**asked).logits, expected, atol=1e-5)


def test_heads_of_adapters_are_a_group(make_pretraining_model):
    model = make_pretraining_model()
    with pytest.raises(ValueError, match="trained has the unknown key 'heads'"):
        add_lora(model, ("language", "heads"), r=2)
    model.set_training_heads({"camera": {"layers": [-1], "tokens": True}})
    config = add_lora(model, ("language", "heads"), r=2).peft_config["default"]
    assert set(config.modules_to_save) == {"training_heads.camera"}
