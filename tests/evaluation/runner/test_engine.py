"""What `engine` of `evaluate_model` refuses before any data is read; that vLLM answers is in tests/examples."""

import sys
from types import SimpleNamespace

import pytest

from gap_mllm.evaluation.runner import evaluate_model, vllm_engine
from gap_mllm.processing.asking_gap_mllm import AnswerForm


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "sglang"}, "engine.*sglang.*transformers.*vllm"),
        ({"engine_options": {"tensor_parallel_size": 2}}, "are of the engine vllm"),
        ({"engine": "vllm", "constrained": True}, "not of vllm"),
        ({"engine": "vllm", "attn_implementation": "sdpa"}, "not of vllm"),
    ],
)
def test_settings_that_do_not_fit(model_path, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        evaluate_model(model_path, output=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_what_is_missing_is_named(model_path, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install vllm .* examples/vllm"):
        evaluate_model(model_path, output=tmp_path, engine="vllm")
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: True)
    with pytest.raises(ImportError, match="lacks the plug-in"):
        evaluate_model(model_path, output=tmp_path, engine="vllm")


def test_an_answer_ends_where_transformers_stops(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=dict))
    asker, said = object.__new__(vllm_engine.VllmAsker), ['a {"point_3d": [1, 2, 3]} and more', "free text"]
    asker.processor = SimpleNamespace(
        apply_chat_template=lambda chat, **_: chat, batch_decode=lambda tokens, **_: [said[each] for each in tokens]
    )
    given = []
    outputs = [SimpleNamespace(outputs=[SimpleNamespace(token_ids=number)]) for number in range(2)]
    asker.penalty, asker.engine = 1.0, SimpleNamespace(generate=lambda *args, **_: given.append(args) or outputs)
    assert asker.ask(["one", "two"], AnswerForm(8, ("point_3d",))) == ['a {"point_3d": [1, 2, 3]}', "free text"]
    assert asker.ask(["one", "two"], AnswerForm(8)) == said
    (prompts, sampling), _ = given
    assert prompts == [{"prompt": "one"}, {"prompt": "two"}]
    assert sampling["temperature"] == 0 and sampling["max_tokens"] == 8
