"""What CONTRIBUTING says under "How to add": the toys in tests/extending work once they are registered.

The toy loss term is trained with in training/test_loss_terms.py; the toy source is in processing/data/toy_source.py.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gap_mllm import GEOMETRY_CONFIGS, GEOMETRY_ENCODERS, GapMllmConfig, GapMllmForConditionalGeneration
from gap_mllm.evaluation.benchmarks import BENCHMARKS
from gap_mllm.evaluation.runner import evaluate_model
from gap_mllm.processing.data import render_room
from gap_mllm.processing.data.rooms.room_scenes import room_sample
from gap_mllm.processing.data.task_makers import TASK_MAKERS, TEMPLATES, make_tasks
from gap_mllm.processing.prompts_gap_mllm import build_messages
from tests.extending import toy_benchmark, toy_encoder, toy_question


ROOT = Path(__file__).parents[1]
TOYS = sorted((ROOT / "tests" / "extending").glob("toy_*.py"))


@pytest.fixture(autouse=True)
def registries():
    """The registries are as before after each test."""
    changed = (TASK_MAKERS, TEMPLATES, GEOMETRY_CONFIGS, GEOMETRY_ENCODERS, BENCHMARKS)
    before = [dict(registry) for registry in changed]
    yield
    for registry, entries in zip(changed, before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.stem)
def test_a_toy_has_less_than_forty_lines_and_is_shown(toy):
    assert len(toy.read_text(encoding="utf-8").splitlines()) < 40
    assert toy.relative_to(ROOT).as_posix() in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_question():
    toy_question.register()
    room = room_sample(render_room(3, num_views=2, height=48, width=64), sample_id="room 3")
    (made,) = make_tasks(room, tasks=("object_kinds",), phrasings="first")
    kinds = {box.label for box in room.boxes}
    assert made.answer == str(len(kinds)) and made.question_type == "object_kinds" and len(kinds) > 1
    assert made.question.startswith("How many kinds of objects stand in this room?\n")


def test_encoder(tiny_config, tiny_processor, make_image, tmp_path):
    toy_encoder.register()
    config = tiny_config().to_dict()
    config["geometry_config"], config["gap_fusion_config"]["geometry_hidden_size"] = {"model_type": "patch_color"}, 8
    torch.manual_seed(0)
    model = GapMllmForConditionalGeneration(GapMllmConfig.from_dict(config)).eval()
    assert isinstance(model.model.geometry, toy_encoder.PatchColorEncoder)
    prompt = build_messages("reconstruction", [make_image(), make_image(seed=1)])
    inputs = tiny_processor.apply_chat_template(prompt, tokenize=True, return_dict=True, return_tensors="pt")
    logits = model(**inputs).logits
    with model.model.geometry_disabled():
        assert not torch.allclose(model(**inputs).logits, logits)  # its features reach the answer
    logits.sum().backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in model.model.geometry.layers)
    model.save_pretrained(tmp_path)
    again = GapMllmForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(again(**inputs).logits, logits)


def test_benchmark(make_image, tmp_path, monkeypatch):
    toy_benchmark.register()
    right, chats = ("yes", "no", "yes"), []
    for number, answer in enumerate(right):
        make_image(seed=number).save(tmp_path / f"{number}.png")
        turns = [{"from": "human", "value": "<image>Is it red?"}, {"from": "gpt", "value": answer}]
        chats.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    (tmp_path / "mine_val.json").write_text(json.dumps(chats))
    seen = []
    read = toy_benchmark.read
    counting = replace(BENCHMARKS["yes_no"], read=lambda sample, text: seen.append(text) or read(sample, text))
    monkeypatch.setitem(BENCHMARKS, "yes_no", counting)
    settings = {"data_dir": tmp_path, "output": tmp_path / "run", "cache_dir": tmp_path / "cache", "device": "cpu"}
    settings |= {"baselines": ["constant"], "show_progress": False}
    metrics = evaluate_model(ROOT / "examples" / "assets" / "tiny_gap_mllm", "yes_no", **settings)
    assert metrics["n"] == 3 and list(metrics["scores"]) == ["model", "constant"] and len(seen) == 6  # each once
    assert metrics["scores"]["constant"]["accuracy"] == pytest.approx(2 / 3)
    lines = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
    assert {json.loads(line)["parsed"] for line in lines} == {None}  # the tiny model knows no such questions
    assert "| **accuracy** | 0.000 [0.000, 0.000] | 0.667" in (tmp_path / "run" / "report.md").read_text()
    texts = ("Yes, it is.", "no", "neither")
    given = [{"id": json.loads(line)["id"], "text": text} for line, text in zip(lines, texts, strict=True)]
    (tmp_path / "given.jsonl").write_text("".join(json.dumps(record) + "\n" for record in given))
    settings |= {"output": tmp_path / "scored", "predictions": tmp_path / "given.jsonl"}
    model = evaluate_model(None, "yes_no", **settings)["scores"]["model"]
    assert model["accuracy"] == pytest.approx(2 / 3) and model["num_unreadable"] == 1
