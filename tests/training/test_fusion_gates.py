"""Gates in the log of a training, and the warning where those of a level have collapsed."""

import pytest
import torch

from gap_mllm import GapMllmForPreTraining, GapMllmProcessor
from gap_mllm.processing.data import make_question, render_room
from gap_mllm.training import SceneCollator, add_lora
from gap_mllm.training.fusion_gates import gate_statistics, gate_sums, level_names, read_gates
from tests.test_repository import TINY_MODEL


LEVELS = ["deepstack_1", "deepstack_2", "deepstack_3", "final"]
FIGURES = ["mean", "std", "near_0", "near_1", "strength"]


@pytest.fixture(scope="module")
def questions():
    return [make_question(render_room(seed, num_views=2), "reconstruction") for seed in range(4)]


@pytest.fixture
def train(make_trainer, questions):
    """A function (model, arguments) -> entries of the log that have a loss."""
    collator = SceneCollator(GapMllmProcessor.from_pretrained(TINY_MODEL), for_pretraining=True)

    def run(model, **arguments):
        fixed = {"use_cpu": True, "per_device_train_batch_size": 1, "max_steps": 4, "module_learning_rates": {}}
        trainer = make_trainer(model, questions, collator, **{**fixed, **arguments})
        trainer.train()
        return [entry for entry in trainer.state.log_history if "loss" in entry]

    return run


def shipped():
    return GapMllmForPreTraining.from_pretrained(TINY_MODEL)


@pytest.fixture
def told(monkeypatch):
    """What is warned of."""
    texts = []
    monkeypatch.setattr("gap_mllm.training.fusion_gates.logger.warning", texts.append)
    return texts


def test_statistics_by_hand():
    gates = torch.tensor([[0.0, 0.01], [0.5, 1.0]])
    found = gate_statistics(gate_sums(gates[:1]) + gate_sums(gates[1:]))
    assert found == {
        "mean": pytest.approx(0.3775),
        "std": pytest.approx(float(gates.std(correction=0))),
        "near_0": 0.5,
        "near_1": 0.25,
    }
    assert gate_statistics(torch.zeros(5)) == {}


def test_gates_are_logged_at_logging_steps_only_and_a_shipped_model_warns_of_none(train, told, monkeypatch):
    read, model = [], shipped()

    def counted(gates):
        read.append(gates.shape)
        return gate_sums(gates)

    monkeypatch.setattr("gap_mllm.training.fusion_gates.gate_sums", counted)
    entries = train(model, logging_steps=3, gradient_accumulation_steps=2, learning_rate=1e-6)
    assert [entry["step"] for entry in entries] == [3, 4]  # the last is always logged
    assert len(read) == 2 * 2 * len(LEVELS) and read[0] == (32, 128)
    for entry in entries:
        assert [name for name in entry if name.startswith("gate_")] == [
            f"gate_{figure}_{level}" for level in LEVELS for figure in FIGURES
        ]
        assert 0 < entry["gate_mean_final"] < 1 and entry["gate_strength_final"] == 1.0
    assert not told and not any(level._forward_hooks for level in model.model.fusion.levels)


def test_logged_gates_are_those_of_the_batch(train, questions):
    model = shipped().eval()
    collator = SceneCollator(GapMllmProcessor.from_pretrained(TINY_MODEL), for_pretraining=True)
    with read_gates(model.model.fusion) as reading, torch.no_grad():
        for question in questions[:2]:
            batch = collator([question])
            views = {name: batch[name] for name in ("pixel_values", "image_grid_thw", "scene_lengths")}
            model.model.get_image_features(**views)
    expected = gate_statistics(sum(gate_sums(gates) for gates in reading.gates["final"]))
    (entry,) = train(shipped(), max_steps=1, gradient_accumulation_steps=2)
    for name, value in expected.items():
        assert entry[f"gate_{name}_final"] == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(("bias", "end"), [(50.0, "100% are near 1"), (-50.0, "100% are near 0")])
def test_a_collapsed_level_is_warned_of_once(train, told, bias, end):
    model = shipped()
    with torch.no_grad():
        model.model.fusion.levels[1].fuse.gate.bias.fill_(bias)
    train(model, logging_steps=1, learning_rate=1e-6)
    assert len(told) == 1 and "level 'deepstack_2'" in told[0] and end in told[0]


def test_methods_have_what_they_have(tiny_model, tiny_processor):
    views = list(render_room(0, num_views=2, height=64, width=64).images)
    pixels = tiny_processor.image_processor(images=views, return_tensors="pt")
    read = {}
    for method, levels in (("add", "all"), ("weighted", "all"), ("geothinker", "all"), ("vlm3r", "final")):
        fusion = {"method": method, "fused_levels": levels, "init": "identity"}
        model = tiny_model(gap_fusion_config=fusion).eval()
        with read_gates(model.model.fusion) as reading, torch.no_grad():
            model.model.get_image_features(**pixels, scene_lengths=[2])
        assert set(reading.strengths) == set(level_names(model.model.fusion))
        assert all(strength == 0 for strength in reading.strengths.values())
        read[method] = {level: [tuple(gates.shape) for gates in each] for level, each in reading.gates.items()}
    assert read["add"] == read["vlm3r"] == {}
    assert read["weighted"] == {level: [()] for level in LEVELS}
    assert read["geothinker"] == {level: [(8, 1)] for level in LEVELS}
    assert level_names(tiny_model(gap_fusion_config={"fused_levels": "final"}).model.fusion) == ["final"]


@pytest.mark.slow
def test_adapters_and_models_without_geometry_train_as_well(train, make_pretraining_model):
    (entry,) = train(add_lora(shipped(), r=2), max_steps=1)
    assert entry["gate_strength_final"] == 1.0
    plain = GapMllmForPreTraining.from_pretrained(TINY_MODEL, use_geometry=False)
    (entry,) = train(plain, max_steps=1)
    assert not any(name.startswith("gate_") for name in entry)
