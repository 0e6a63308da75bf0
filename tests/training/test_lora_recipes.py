"""LoRA by recipes and commands: what is trained, saved, resumed, loaded and merged; and QLoRA below it."""

import json
import re
import shutil
from pathlib import Path

import peft
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, HfArgumentParser

from gap_mllm import GapMllmForConditionalGeneration, GapMllmForPreTraining, GapMllmProcessor
from gap_mllm.processing.data import load_multiview, render_room
from gap_mllm.training import SceneCollator, SceneQuestionDataset, adapters, add_lora, merge_adapter
from gap_mllm.training.adapters import LANGUAGE_LINEARS, check_tuning, quantized_loading
from gap_mllm.training.recipes import read_recipe
from gap_mllm.training.train_geometry_aligned import (
    GeometryAlignedModelArguments,
    GeometryAlignedTrainingArguments,
    train_geometry_aligned,
)
from gap_mllm.training.train_grpo import train_grpo
from gap_mllm_cli import main
from tests.slow_cases import slow_but


TINY_MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
ROOMS = {"sizes": [[64, 64]], "size_shares": [1.0], "num_views": [2], "num_views_shares": [1.0]}
SMALL = {"r": 2, "lora_alpha": 8, "target_modules": r".*language_model.*\.(q_proj|v_proj)"}

LOAD_ADAPTERS = """
adapter, merged, inputs, out = sys.argv[1:]
inputs, result = torch.load(inputs), {}
from peft import AutoPeftModelForCausalLM
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor
for kind in (AutoModel, AutoModelForImageTextToText, AutoPeftModelForCausalLM):
    for folder in (adapter, merged):
        if folder == merged and kind is AutoPeftModelForCausalLM:
            continue
        model = kind.from_pretrained(folder, trust_remote_code=True, dtype="float32").eval()
        with torch.no_grad():
            result[f"{kind.__name__} {folder == merged}"] = model(**inputs).logits.flatten().tolist()
result["processor"] = type(AutoProcessor.from_pretrained(adapter, trust_remote_code=True)).__name__
result["leaked"] = [name for name in sys.modules if name.split(".")[0] == "gap_mllm"]
json.dump(result, open(out, "w"))
"""


@pytest.fixture
def recipe(tmp_path):
    """A function (changed keys) -> the path of a recipe of four tiny steps from the shipped model, into `run`."""

    def make(**changes):
        values = {"variety": ROOMS, "questions": {"counts": {"reconstruction": 1}}, "max_steps": 4, "logging_steps": 1}
        values |= {"per_device_train_batch_size": 2, "save_steps": 2, "learning_rate": 1e-3, "report_to": "none"}
        values |= {"model_path": str(TINY_MODEL), "output_dir": str(tmp_path / "run"), "disable_tqdm": True}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**values, "use_cpu": True, "lora": SMALL, **changes}))
        return str(tmp_path / "mine.yaml")

    return make


@pytest.fixture(scope="module")
def inputs():
    """A question about a room, as both classes of a model take it."""
    rooms = load_multiview("rendered_rooms", split="train", num_rooms=1)
    batch = SceneCollator(GapMllmProcessor.from_pretrained(TINY_MODEL))(
        [SceneQuestionDataset(rooms, tasks=("object_count",), num_views=2)[0]]
    )
    return {name: value for name, value in batch.items() if name != "labels"}


def change_adapters(model):
    """Let adapters, which start as nothing, do something."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


# Putting adapters on


def test_the_linear_layers_of_the_language_model_are_adapted_and_the_fusion_is_trained_whole(make_pretraining_model):
    model = add_lora(make_pretraining_model(), r=2)
    base = model.get_base_model()
    adapted = [name for name, part in base.named_modules() if isinstance(part, peft.tuners.lora.LoraLayer)]
    assert len(adapted) == 3 * 7 and all(name.startswith("model.language_model.layers.") for name in adapted)
    others = {name for name, p in base.named_parameters() if p.requires_grad and "lora_" not in name}
    kept = {
        name: ".modules_to_save.default." in name
        for name, _ in base.model.fusion.named_parameters(prefix="model.fusion")
    }
    assert others == {name for name, is_kept in kept.items() if is_kept}
    assert model.peft_config["default"].target_modules == LANGUAGE_LINEARS


@pytest.mark.parametrize(
    ("trained", "whole"),
    [
        (("language",), None),
        (("fusion", "language"), [f"model.fusion.levels.{level}" for level in range(4)]),
        (
            ("geometry", "vision", "language", "point_maps"),
            ["model.geometry", "model.visual", "point_map_heads.visual", "point_map_heads.language"],
        ),
    ],
)
def test_groups_that_learn_and_are_not_adapted_are_trained_whole(trained, whole, make_pretraining_model):
    config = add_lora(make_pretraining_model(), trained, r=2).peft_config["default"]
    assert config.modules_to_save == whole
    assert add_lora(make_pretraining_model(), trained, modules_to_save=[]).peft_config["default"].modules_to_save == []


def test_adapted_towers_are_not_trained_whole_and_plain_qwen_has_no_fusion(make_pretraining_model, tiny_model):
    both = r".*(language_model.*q_proj|visual\.blocks.*qkv)"
    config = add_lora(make_pretraining_model(), ("vision", "language"), target_modules=both).peft_config["default"]
    assert config.modules_to_save is None
    assert add_lora(tiny_model(use_geometry=False)).peft_config["default"].modules_to_save is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lora_alfa": 4}, r"lora has the unknown key 'lora_alfa' \(did you mean 'lora_alpha'\?\)"),
        ({"r": "4"}, "lora.r is '4'; expected an integer"),
        ({"target_modules": "all-linear"}, "would adapt geometry encoder and fusion, too. Leave it out"),
        ({"target_modules": r".*visual.*qkv"}, r"adapts modules of \['vision'\], which are not trained"),
        ({"trained": ["heads"]}, "trained has the unknown key 'heads'"),
    ],
)
def test_wrong_fields_are_refused(wrong, message, make_pretraining_model):
    with pytest.raises(ValueError, match=message):
        add_lora(make_pretraining_model(), **wrong)


def test_missing_packages_are_named(monkeypatch, make_pretraining_model):
    for name in ("is_peft_available", "is_bitsandbytes_available"):
        monkeypatch.setattr(adapters, name, lambda: False)
    for call in (lambda: add_lora(make_pretraining_model()), lambda: merge_adapter("adapter", "merged")):
        with pytest.raises(ImportError, match=r"needs? peft: pip install 'gap-mllm\[train\]'"):
            call()
    with pytest.raises(ImportError, match=r"bitsandbytes: pip install 'gap-mllm\[quantization\]'"):
        quantized_loading({"load_in_4bit": True}, torch.device("cpu"))
    assert quantized_loading({}, torch.device("cpu")) == {}


# Recipes


@pytest.mark.slow
def test_a_recipe_trains_saves_and_resumes_adapters(recipe, tmp_path):
    trainer, _ = train_geometry_aligned(recipe(), ["--lora.r", "3", "--module_learning_rates.mergers", "0"])
    run, again = tmp_path / "run", tmp_path / "again"
    rates = {name: p.requires_grad for name, p in trainer.model.named_parameters()}
    for name, is_trained in rates.items():
        assert is_trained is ("lora_" in name or ".fusion.levels." in name and ".modules_to_save." in name), name
    config = json.loads((run / "adapter_config.json").read_text())
    assert config["r"] == 3 and config["lora_alpha"] == 8 and config["base_model_name_or_path"] == str(TINY_MODEL)
    assert not (run / "model.safetensors").exists() and (run / "processor_config.json").is_file()
    assert json.loads((run / "provenance.json").read_text())["settings"]["lora"]["r"] == 3

    shutil.copytree(run, again)
    for file in ("adapter_model.safetensors", "trainer_state.json", "provenance.json"):
        (again / file).unlink()
    shutil.rmtree(again / "checkpoint-4")
    flags = ["--lora.r", "3", "--module_learning_rates.mergers", "0", "--output_dir", str(again)]
    trainer, _ = train_geometry_aligned(recipe(), flags)
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [1, 2, 3, 4]
    weights, expected = (load_file(folder / "adapter_model.safetensors") for folder in (again, run))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())
    trainer, _ = train_geometry_aligned(recipe(), flags)  # is finished
    assert trainer.was_finished
    assert torch.equal(
        trainer.model.state_dict()[
            "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_B.default.weight"
        ],
        expected["base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_B.weight"],
    )
    with pytest.raises(ValueError, match="another run.*lora"):
        train_geometry_aligned(recipe(), [*flags, "--lora.r", "4"])


@pytest.mark.slow
def test_tower_encoder_and_heads_learn_beside_adapters(recipe):
    rates = {"geometry": 1e-4, "vision": 1e-4}
    path = recipe(module_learning_rates=rates, point_map_weight=1.0, readout_weight=1.0, gradient_checkpointing=True)
    before = {
        name: value.clone() for name, value in GapMllmForPreTraining.from_pretrained(TINY_MODEL).state_dict().items()
    }
    trainer, _ = train_geometry_aligned(path)
    merged = trainer.model.merge_and_unload().state_dict()
    moved = {name.split(".")[1] for name, value in merged.items() if not torch.equal(value, before[name])}
    assert moved == {"geometry", "visual", "fusion", "language_model", "language"}
    assert {"loss_point_map", "loss_readout"} <= trainer.state.log_history[0].keys()


@pytest.mark.slow
def test_adapted_models_are_asked_at_evaluations(recipe):
    path = recipe(max_steps=1, num_selection_rooms=2, eval_strategy="steps", eval_steps=1)
    trainer, _ = train_geometry_aligned(path)
    assert any("eval_parse_rate" in entry for entry in trainer.state.log_history)


def test_a_processor_asks_adapted_models_with_their_adapters():
    processor = GapMllmProcessor.from_pretrained(TINY_MODEL)
    views = list(render_room(0).images)
    chats = [processor.build_messages("reconstruction", processor.apply_visual_prompt(views, [0, 60, 60]))]
    model = GapMllmForConditionalGeneration.from_pretrained(TINY_MODEL).eval()
    plain = processor.ask(model, chats, task="reconstruction")
    adapted = change_adapters(add_lora(model, r=4, lora_alpha=400))
    assert processor.ask(adapted, chats, task="reconstruction") != plain
    with adapted.disable_adapter():
        assert processor.ask(adapted, chats, task="reconstruction") == plain


def test_what_a_recipe_cannot_do_is_told_before_anything_is_read(recipe, encoder_folder, capsys):
    for flags, told in (
        (["--lora.rr", "4"], "lora has the unknown key 'rr' (did you mean 'r'?)"),
        (["--quantization.load_in_4bits", "true"], "unknown key 'load_in_4bits' (did you mean 'load_in_4bit'?)"),
        (
            ["--model_path", "", "--geometry_encoder_path", str(encoder_folder)],
            "Give model_path to go on from a model, as lora must",
        ),
    ):
        assert main(["train", recipe(), *flags]) == 2
        assert told in capsys.readouterr().err
    assert main(["train", recipe(lora=None), "--quantization.load_in_4bit", "true"]) == 2
    assert "quantization needs adapters" in capsys.readouterr().err


@pytest.mark.parametrize("beta", slow_but((0.1,), [0.0, 0.1]))
def test_rewards_train_adapters(beta, recipe, tmp_path):
    changes = {"rewards": {"point_distance": 1.0}, "num_generations": 2, "max_completion_length": 4, "beta": beta}
    changes |= {"max_steps": 1, "trained_modules": ["fusion", "language"], "gradient_checkpointing": False}
    trainer = train_grpo(recipe(**changes))
    for name, parameter in trainer.model.named_parameters():
        assert parameter.requires_grad is (
            "lora_" in name or ".fusion.levels." in name and ".modules_to_save." in name
        ), name
    if beta:
        assert trainer.state.log_history[0]["kl"] == pytest.approx(0, abs=1e-6)  # the reference is the start
    run = tmp_path / "run"
    assert json.loads((run / "adapter_config.json").read_text())["base_model_name_or_path"] == str(TINY_MODEL)
    assert (run / "processor_config.json").is_file() and not (run / "model.safetensors").exists()


# Loading and merging


@pytest.mark.slow
@torch.no_grad()
def test_adapters_and_what_is_merged_of_them_answer_alike_here_and_remotely(
    inputs, tmp_path, run_without_package, capsys
):
    torch.manual_seed(1)
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    model = add_lora(GapMllmForConditionalGeneration.from_pretrained(TINY_MODEL, dtype="float32"), r=4)
    plain = model(**inputs).logits
    expected = change_adapters(model)(**inputs).logits
    assert (expected - plain).abs().max() > 0.5
    model.save_pretrained(adapter)
    GapMllmProcessor.from_pretrained(TINY_MODEL).save_pretrained(adapter)
    assert main(["merge", str(adapter), "--output", str(merged)]) == 0
    assert "wrote" in capsys.readouterr().out
    torch.save(dict(inputs), tmp_path / "inputs.pt")
    found = run_without_package(LOAD_ADAPTERS, adapter, merged, tmp_path / "inputs.pt")
    assert not found.pop("leaked") and found.pop("processor") == "GapMllmProcessor" and len(found) == 5
    for name, logits in found.items():  # merged: W + BA in one matrix, the same sums in another order
        torch.testing.assert_close(torch.tensor(logits), expected.flatten(), rtol=1e-4, atol=1e-3, msg=name)
    assert main(["evaluate", "--model", str(adapter)]) == 2
    assert f"it has adapters of PEFT. Merge them: gap-mllm merge {adapter} --output DIR" in capsys.readouterr().err


@torch.no_grad()
def test_merging_keeps_the_heads_of_pretraining_and_takes_another_place_of_the_base(inputs, tmp_path):
    base = tmp_path / "base"
    GapMllmForPreTraining.from_pretrained(TINY_MODEL).save_pretrained(base)
    model = add_lora(GapMllmForPreTraining.from_pretrained(base), ("language", "point_maps"), r=2)
    change_adapters(model).save_pretrained(tmp_path / "adapter")
    base.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="base is no folder"):
        merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    GapMllmProcessor.from_pretrained(TINY_MODEL).save_pretrained(tmp_path / "moved")
    folder = merge_adapter(tmp_path / "adapter", tmp_path / "merged", tmp_path / "moved")
    merged = GapMllmForPreTraining.from_pretrained(folder)
    expected = model.merge_and_unload().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in merged.state_dict().items())
    assert GapMllmProcessor.from_pretrained(folder).mark_arm
    with pytest.raises(FileNotFoundError, match="holds no adapter_config.json; expected a folder of adapters"):
        merge_adapter(tmp_path / "moved", tmp_path / "merged")


# Quantisation


def test_a_recipe_of_quantised_weights_is_read_and_its_config_built(monkeypatch):
    parser = HfArgumentParser((GeometryAlignedModelArguments, GeometryAlignedTrainingArguments))
    model_args, args = read_recipe(parser, "sft_spatial_qlora", ["--output_dir", "run", "--use_cpu", "true"])
    check_tuning(model_args)
    monkeypatch.setattr(adapters, "is_bitsandbytes_available", lambda: True)
    options = quantized_loading(model_args.quantization, torch.device("cuda", 1))
    config = options["quantization_config"]
    assert isinstance(config, BitsAndBytesConfig) and options["device_map"] == {"": torch.device("cuda", 1)}
    assert config.load_in_4bit and config.bnb_4bit_quant_type == "nf4" and config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert model_args.lora["r"] and model_args.data["name"]


@torch.no_grad()
def test_adapters_over_4_bits_are_trained_and_merged(recipe, tiny_model, tiny_processor, inputs, tmp_path):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    text = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "head_dim": 32,
        "rope_parameters": {"mrope_section": [8, 4, 4]},
    }
    vision = {"hidden_size": 64, "intermediate_size": 64, "out_hidden_size": 64}  # filled by blocks of 64 weights
    base = tmp_path / "base"
    tiny_model(text_config=text, vision_config=vision).save_pretrained(base)
    tiny_processor.save_pretrained(base)
    bits = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"}
    with torch.enable_grad():
        trainer, _ = train_geometry_aligned(recipe(model_path=str(base), quantization=bits))
    kinds = {
        type(part.weight).__name__
        for name, part in trainer.model.named_modules()
        if name.endswith("q_proj.base_layer")
    }
    assert kinds == {"Params4bit"} and trainer.state.log_history[0]["loss"] > 0
    assert not any("4bit" in type(p).__name__ for p in trainer.model.get_base_model().model.fusion.parameters())
    merged = AutoModelForImageTextToText.from_pretrained(merge_adapter(tmp_path / "run", tmp_path / "merged"))
    whole = peft.PeftModel.from_pretrained(GapMllmForConditionalGeneration.from_pretrained(base), tmp_path / "run")
    torch.testing.assert_close(merged(**inputs).logits, whole(**inputs).logits, rtol=1e-4, atol=1e-4)


# The document


@pytest.mark.slow
def test_the_scripts_of_the_document_run(tmp_path, monkeypatch):
    """In a folder with the repository's examples; what the command would have trained, the script does first."""
    (tmp_path / "examples").symlink_to(TINY_MODEL.parents[1])
    monkeypatch.chdir(tmp_path)
    text = (TINY_MODEL.parents[2] / "docs" / "lora.md").read_text()
    load, plain, sft = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    sft, names = sft.replace("max_length=None", "max_length=None, bf16=False, use_cpu=True"), {}  # TRL expects a GPU
    for block in (plain, load, sft):
        exec(compile(block, "lora.md", "exec"), names)
    merged = GapMllmForConditionalGeneration.from_pretrained("outputs/merged")
    for model in (names["model"], merged, names["trainer"].model):
        assert model.generate(torch.tensor([[5, 6]]), max_new_tokens=1).shape == (1, 3)
    assert {"adapter_config.json", "processor_config.json"} <= {path.name for path in Path("outputs/sft").iterdir()}
