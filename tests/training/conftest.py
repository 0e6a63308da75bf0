"""Tiny models and encoders for the training tests: seconds on one core, nothing downloaded."""

import copy
import functools
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from transformers import Trainer, TrainingArguments

import gap_mllm.training
from gap_mllm import GapMllmForPreTraining
from gap_mllm.training import SceneCollator, set_training_heads
from gap_mllm.training.geometry_aligned_trainer import GeometryAlignedTrainer, GeometryAlignedTrainingArguments
from gap_mllm.training.recipes import find_recipe, load_recipe
from gap_mllm.training.train_geometry_aligned import build_model


ONE_VIEW = {"sizes": [[64, 64]], "size_shares": [1.0], "num_views": [1], "num_views_shares": [1.0]}
RATES = {"geometry": 0.0, "vision": 1e-3, "mergers": 1e-3, "fusion": 1e-3, "language": 1e-3, "point_maps": 1e-3}
TINY = {
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "initializer_range": 0.1,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000,
            "mrope_section": [2, 1, 1],
            "mrope_interleaved": True,
        },
    },
    "vision_config": {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 32,
        "deepstack_visual_indexes": [0, 1, 2],
        "num_position_embeddings": 16,
        "initializer_range": 0.1,
    },
    "gap_fusion_config": {"merger_hidden_size": 32, "init": "reference", "initializer_range": 0.1},
}
ENCODER = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "image_size": 56,
    "patch_embed_depth": 1,
    "patch_embed_num_heads": 2,
    "camera_trunk_depth": 1,
    "camera_num_heads": 2,
    "camera_mlp_ratio": 1,
    "camera_num_iterations": 2,
    "dpt_features": 8,
    "dpt_out_channels": [8, 8, 8, 8],
    "dpt_head_hidden_size": 4,
    "layer_scale_init_value": 0.5,
    "initializer_range": 0.1,
}


@pytest.fixture(scope="session")
def encoder_config():
    return dict(ENCODER)


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    from gap_mllm import GapMllmVggtConfig, GapMllmVggtForReconstruction

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    GapMllmVggtForReconstruction(GapMllmVggtConfig(**ENCODER)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_pretraining_model(encoder_folder, tiny_processor):
    """A function seed -> a fresh tiny `GapMllmForPreTraining` around the tiny encoder."""

    def make(seed=0) -> GapMllmForPreTraining:
        torch.manual_seed(seed)
        return build_model(TINY, encoder_folder, tiny_processor).eval()

    return make


@pytest.fixture(scope="module")
def pretraining_model(make_pretraining_model):
    return make_pretraining_model()


@pytest.fixture
def make_trainer(tmp_path):
    """A function (model, trainer arguments) -> `GeometryAlignedTrainer` that writes to a temporary folder."""

    def make(model, train_dataset=None, data_collator=None, scorer=None, **kwargs):
        kwargs = {"module_learning_rates": dict(RATES), "report_to": "none"} | kwargs
        kwargs = {"output_dir": str(tmp_path / "run"), "save_strategy": "no", "disable_tqdm": True} | kwargs
        args = GeometryAlignedTrainingArguments(train_sampling_strategy="sequential", **kwargs)
        return GeometryAlignedTrainer(
            model=model, args=args, train_dataset=train_dataset, data_collator=data_collator, scorer=scorer
        )

    return make


@pytest.fixture
def make_teaching_trainer(make_trainer, tiny_processor):
    """A function (model, terms, items, ...) -> a trainer of one step, with the heads that the terms need."""

    def make(model, terms, items, teachers=None, layout="block_mask", **options):
        args = GeometryAlignedTrainingArguments("unused", terms=copy.deepcopy(terms), report_to="none")
        torch.manual_seed(1)
        teaching = set_training_heads(model, args, teachers)
        collator = SceneCollator(tiny_processor, layout, for_pretraining=True, teaching=teaching)
        options = {"max_steps": 1, "logging_steps": 1, "per_device_train_batch_size": 2} | options
        return make_trainer(model, copy.deepcopy(items), collator, terms=terms, **options)

    return make


@pytest.fixture
def make_plain_trainer(tmp_path):
    """A function (model, rows, collator, arguments) -> `Trainer` of one step."""

    def make(model, rows, collator, eval_dataset=None, processing_class=None, **kwargs):
        args = TrainingArguments(
            output_dir=str(tmp_path / "plain"),
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            disable_tqdm=True,
            train_sampling_strategy="sequential",
            **{"max_steps": 1, "logging_steps": 1, "learning_rate": 1e-3, **kwargs},
        )
        data = {"train_dataset": copy.deepcopy(rows), "eval_dataset": copy.deepcopy(eval_dataset)}
        return Trainer(model=model, args=args, data_collator=collator, processing_class=processing_class, **data)

    return make


@pytest.fixture
def recipe(tmp_path, encoder_folder):
    """A function (changed keys) -> the path of a recipe of six tiny steps, whose output folder is `run`."""

    def make(**changes):
        values = load_recipe(find_recipe("quickstart"))
        values |= {"variety": ONE_VIEW, "questions": {"counts": {"reconstruction": 1}}, "frozen_geometry": {}}
        values |= {"dataloader_num_workers": 0, "dataloader_persistent_workers": False, "max_steps": 6}
        values |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "logging_steps": 1}
        values |= {"save_steps": 2, "save_total_limit": None, "disable_tqdm": True, "use_cpu": True}
        values |= {"lr_scheduler_kwargs": {"num_decay_steps": 3, "decay_type": "cosine"}, "warmup_steps": 2}
        values |= {"geometry_encoder_path": str(encoder_folder), "output_dir": str(tmp_path / "run")}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values | changes))
        return str(tmp_path / "mine.yaml")

    return make


@pytest.fixture(scope="session")
def read_launch_settings():
    """A function (name, monkeypatch) -> what `accelerate launch` tells its processes of that configuration."""

    def read(name, patch):
        patch.setattr("accelerate.commands.launch.is_bf16_available", lambda *_: True)
        file = Path(gap_mllm.training.__file__).parent / "accelerate" / f"{name}.yaml"
        words = ["--config_file", str(file), "script.py"]
        args, config, _ = _validate_launch_command(launch_command_parser().parse_args(words))
        args.deepspeed_fields_from_accelerate_config = ",".join(config.deepspeed_config)  # as launch_command does
        return prepare_deepspeed_cmd_env(args)[1] if args.use_deepspeed else prepare_multi_gpu_env(args)

    return read


@pytest.fixture
def launch_settings(read_launch_settings, monkeypatch):
    """A function name -> what `accelerate launch` tells its processes of the configuration of that name."""
    return functools.partial(read_launch_settings, patch=monkeypatch)
