"""Generation settings of a model for vLLM: carried over, without effect on greedy answers, or refused by name."""

import math

import pytest
from transformers import GenerationConfig

from gap_mllm.evaluation.runner.vllm_sampling import CARRIED, WITHOUT_EFFECT, sampling_settings


END = 5
GREEDY = {"temperature": 0.0, "ignore_eos": True, "stop_token_ids": [END], "detokenize": False}
GREEDY |= {"repetition_penalty": 1.0}


def settings(**values):
    return sampling_settings(GenerationConfig(**{"eos_token_id": END, **values}), END)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {}),
        ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"eos_token_id": [7, 8]}, {"stop_token_ids": [7, 8]}),
        ({"min_new_tokens": 3}, {"min_tokens": 3}),
        ({"suppress_tokens": [1, 2]}, {"logit_bias": {1: -math.inf, 2: -math.inf}}),
        ({"bad_words_ids": [[3], [END]]}, {"logit_bias": {3: -math.inf}}),  # the end token is no bad word
        ({"sequence_bias": [[[4], 2.5]]}, {"logit_bias": {4: 2.5}}),
        (
            {"stop_strings": "END"},
            {"stop": ["END"], "include_stop_str_in_output": True, "detokenize": True},
        ),
    ],
)
def test_what_changes_greedy_answers_is_carried_over(values, expected):
    assert settings(**values) == GREEDY | expected


def test_without_an_end_token_none_is_given():
    assert sampling_settings(GenerationConfig(), END)["stop_token_ids"] == []


@pytest.mark.parametrize(
    "values",
    [
        {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.1, "typical_p": 0.9},
        {"max_new_tokens": 10},
        {"max_length": 10},
        {"seed": 3},
        {"use_cache": True},
        {"num_beams": 1, "length_penalty": 2.0, "no_repeat_ngram_size": 0, "min_length": 0},
        {"presence_penalty": 0.0},
    ],
)
def test_greedy_stays_greedy(values):
    assert settings(**values) == GREEDY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_beams", 4),
        ("num_return_sequences", 2),
        ("no_repeat_ngram_size", 3),
        ("encoder_no_repeat_ngram_size", 3),
        ("encoder_repetition_penalty", 1.5),
        ("min_length", 5),
        ("guidance_scale", 2.0),
        ("forced_eos_token_id", 0),
        ("forced_bos_token_id", 0),
        ("exponential_decay_length_penalty", (5, 1.1)),
        ("begin_suppress_tokens", [1]),
        ("max_time", 1.0),
        ("remove_invalid_values", True),
        ("penalty_alpha", 0.6),
        ("diversity_penalty", 0.5),
        ("dola_layers", "high"),
        ("token_healing", True),
        ("cache_implementation", "quantized"),
        ("presence_penalty", 1.5),
        ("frequency_penalty", 0.5),
        ("stop", ["END"]),
        ("stop_token_ids", [1]),
        ("bad_words", ["bed"]),
        ("bad_words_ids", [[1, 2]]),
        ("sequence_bias", [[[1, 2], 3.0]]),
    ],
)
def test_what_vllm_cannot_follow_is_refused_by_name(name, value):
    config = GenerationConfig(eos_token_id=END)
    setattr(config, name, value)
    with pytest.raises(ValueError, match=rf"generation_config.json has {name}=|{name} of generation_config"):
        sampling_settings(config, END)


@pytest.mark.parametrize("values", [{"stop_strings": ["END"]}, {"eos_token_id": 9}])
def test_an_earliest_end_that_vllm_would_read_otherwise_is_refused(values):
    with pytest.raises(ValueError, match="min_new_tokens=3"):
        settings(min_new_tokens=3, **values)


def test_no_setting_is_forgotten():
    for name in vars(GenerationConfig()):
        config = GenerationConfig(eos_token_id=END)
        if name.startswith("_") or name in (*CARRIED, *WITHOUT_EFFECT):
            continue
        setattr(config, name, 7)
        with pytest.raises(ValueError, match=name):
            sampling_settings(config, END)
