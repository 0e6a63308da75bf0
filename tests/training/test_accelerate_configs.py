"""The configurations of accelerate that are shipped: read by accelerate's own launcher, and true of the model."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy, get_parameters_from_modules

import gap_mllm.training


FOLDER = Path(gap_mllm.training.__file__).parent / "accelerate"
KINDS = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}


def test_there_are_no_others():
    assert {path.stem for path in FOLDER.iterdir()} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_it(name, launch_settings):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert config.distributed_type == KINDS[name] and config.num_processes == 8
    known = vars(launch_command_parser().parse_args(["script.py"])) | {"fsdp_ignored_modules": None}  # not a flag
    assert not {*config.fsdp_config, *config.deepspeed_config} - set(known)
    assert launch_settings(name)["ACCELERATE_MIXED_PRECISION"] == "bf16"


@pytest.mark.parametrize("with_adapters", [False, True])
def test_fsdp2_splits_the_language_layers_and_never_the_geometry(
    with_adapters, launch_settings, monkeypatch, make_pretraining_model
):
    for name, value in launch_settings("fsdp2").items():
        monkeypatch.setenv(name, value)
    plugin, model = FullyShardedDataParallelPlugin(), make_pretraining_model()
    base, geometry = model, model.model.geometry
    if with_adapters:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(target_modules=r".*language_model.*\.q_proj"))
    assert plugin.fsdp_version == 2 and plugin.cpu_ram_efficient_loading is False
    plugin.set_auto_wrap_policy(model)
    is_split = fsdp2_prepare_auto_wrap_policy(plugin, model)
    assert [module for module in model.modules() if is_split(module)] == list(base.model.language_model.layers)
    assert get_parameters_from_modules(plugin.ignored_modules, model, "cpu") == set(geometry.parameters())


def test_fsdp2_leaves_out_no_module_that_is_trained(
    launch_settings, monkeypatch, make_pretraining_model, make_trainer
):
    plugin = SimpleNamespace(ignored_modules=launch_settings("fsdp2")["FSDP_IGNORED_MODULES"])
    frozen, trained = (
        make_trainer(make_pretraining_model(), module_learning_rates={"geometry": rate}) for rate in (0, 1e-3)
    )
    monkeypatch.setattr(trained.accelerator.state, "fsdp_plugin", plugin, raising=False)
    assert frozen.create_optimizer()
    with pytest.raises(ValueError, match=r"leaves out 'model.geometry', which is trained.*Freeze it, or take"):
        trained.create_optimizer()


def test_zero3_gathers_modules_that_the_model_has(launch_settings, make_pretraining_model):
    settings, model = launch_settings("zero3"), make_pretraining_model().model
    names = settings["ACCELERATE_DEEPSPEED_MOE_LAYER_CLS_NAMES"].split(",")
    assert names == [type(module).__name__ for module in (model.visual, model.geometry, model.fusion)]
    assert [launch_settings(name)["ACCELERATE_DEEPSPEED_ZERO_STAGE"] for name in ("zero2", "zero3")] == ["2", "3"]
