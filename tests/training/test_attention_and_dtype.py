"""What a training computes in, and with which attention and layout: by default, by its recipe, or refused."""

import json
from pathlib import Path

import pytest
import torch

from gap_mllm import GapMllmForPreTraining
from gap_mllm.training import FrozenGeometry, GeometryAlignedTrainer, GeometryAlignedTrainingArguments, term_trainer
from gap_mllm.training import train_geometry_aligned as training_module
from gap_mllm.training.train_geometry_aligned import build_model, train_geometry_aligned
from tests.training.conftest import TINY


TINY_MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
ROOMS = {"sizes": [[64, 64]], "size_shares": [1.0], "num_views": [2], "num_views_shares": [1.0]}
ROOM_RUN = ["--variety", json.dumps(ROOMS), "--max_steps", "1", "--per_device_train_batch_size", "1"]
ROOM_RUN += ["--dataloader_num_workers", "0", "--dataloader_persistent_workers", "false", "--model_path"]


def run_rooms(folder, *flags):
    return train_geometry_aligned("quickstart", [*ROOM_RUN, str(TINY_MODEL), "--output_dir", str(folder), *flags])[0]


@pytest.mark.slow
def test_a_recipe_names_attention_dtype_and_layout(tmp_path):
    flags = ["--attn_implementation.text_config", "eager", "--layout", "packed", "--dtype", "bfloat16"]
    trainer = run_rooms(tmp_path / "named", *flags, "--frozen_geometry", "{}")
    model = trainer.model.model
    assert model.language_model.config._attn_implementation == "eager"
    assert model.visual.config._attn_implementation == "sdpa"
    assert trainer.data_collator.layout == "packed" and trainer.model.dtype == torch.bfloat16
    trainer = run_rooms(tmp_path / "other", "--attn_implementation", "eager", "--bf16", "true", "--use_cpu", "true")
    assert trainer.model.model.visual.config._attn_implementation == "eager"
    assert trainer.data_collator.layout == "block_mask" and trainer.model.dtype == torch.float32
    assert trainer.model.model.geometry.dtype == torch.bfloat16  # frozen


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        (["--dtype", "half"], ValueError, "dtype is 'half'; expected one of float32, bfloat16"),
        (["--layout", "packet"], ValueError, "layout='packet' is not known"),
        (["--attn_implementation", "flash_attention_2"], ValueError, "text_config would run in torch.float32 on cpu"),
        (["--attn_implementation.fusion", "sdpa"], ValueError, r"\['fusion'\], which are no parts of the model"),
    ],
)
def test_attention_dtype_and_layout_that_do_not_fit_are_refused(tmp_path, flags, error, message):
    with pytest.raises(error, match=message):
        run_rooms(tmp_path, *flags)


def test_the_loaders_copy_of_the_encoder_needs_no_gpu(make_pretraining_model):
    model = make_pretraining_model().requires_grad_(False)
    model.model.geometry.config._attn_implementation_internal = "flash_attention_2"
    assert FrozenGeometry(model).encoder.config._attn_implementation == "sdpa"


def test_flash_attention_lays_questions_out_without_a_mask(tmp_path, monkeypatch):
    """The kernel is not there: only its name is set, and the training is not begun."""

    def set_attention(model, *given):
        model.config.text_config._attn_implementation_internal = "flash_attention_2"

    monkeypatch.setattr(training_module, "set_attention", set_attention)
    monkeypatch.setattr(GeometryAlignedTrainer, "train_and_save", lambda self: None)
    assert run_rooms(tmp_path).data_collator.layout == "packed"
    with pytest.raises(ValueError, match="'block_mask' needs a mask that flash_attention_2 cannot take"):
        run_rooms(tmp_path, "--layout", "block_mask")


@pytest.mark.parametrize(
    ("has_gpu", "given", "expected"),
    [(True, {}, True), (False, {}, False), (True, {"bf16": False}, False), (True, {"use_cpu": True}, False)],
)
def test_a_gpu_computes_in_bfloat16(monkeypatch, tmp_path, has_gpu, given, expected):
    monkeypatch.setattr(term_trainer, "has_bf16_gpu", lambda: has_gpu)
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: has_gpu)  # it asks, too
    assert GeometryAlignedTrainingArguments(str(tmp_path), **given).bf16 is expected
    assert term_trainer.autocast_dtype(GeometryAlignedTrainingArguments(str(tmp_path), **given)) == (
        torch.bfloat16 if expected else None
    )


def test_a_new_model_in_bfloat16_has_positions_in_float32(encoder_folder, tiny_processor):
    model = build_model(TINY, encoder_folder, tiny_processor, "bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for name, buffer in model.named_buffers() if "inv_freq" in name} == {torch.float32}


def test_a_trained_encoder_stays_in_float32(make_trainer, make_pretraining_model):
    trained = make_trainer(make_pretraining_model(), bf16=True, use_cpu=True, module_learning_rates={"geometry": 1e-3})
    assert trained.model.model.geometry.dtype == torch.float32
    frozen = make_trainer(make_pretraining_model(), bf16=True, use_cpu=True)
    assert frozen.model.model.geometry.dtype == torch.bfloat16 and frozen.model.dtype == torch.float32


def test_a_model_without_an_encoder_trains_in_bfloat16(make_trainer, make_pretraining_model):
    config = make_pretraining_model().config
    config.use_geometry = False
    trainer = make_trainer(GapMllmForPreTraining(config), bf16=True, use_cpu=True)
    assert trainer.model.model.geometry is None and trainer.model.dtype == torch.float32
