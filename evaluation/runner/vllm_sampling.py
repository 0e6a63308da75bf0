"""What a model's generation settings mean to vLLM: carried over, without effect on greedy answers, or refused by name.

The runner answers greedily with both engines, whatever generation_config.json says of sampling; the rest of that file
changes answers, and must change those of vLLM alike.
"""

import math
from pathlib import Path

from transformers import GenerationConfig

from ...configuration_gap_mllm import GapMllmConfig


CARRIED = ("repetition_penalty", "eos_token_id", "min_new_tokens", "stop_strings")
CARRIED += ("suppress_tokens", "bad_words_ids", "sequence_bias")
# What greedy answers do not depend on: sampling, bounds (the form of the answer has its own), beams (refused by their
# number), speed and what generate() returns beside the tokens.
WITHOUT_EFFECT = ("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "top_h", "epsilon_cutoff")
WITHOUT_EFFECT += ("eta_cutoff", "renormalize_logits", "seed", "max_length", "max_new_tokens", "early_stopping")
WITHOUT_EFFECT += ("length_penalty", "num_beam_groups", "use_cache", "max_cache_len", "use_mtp", "low_memory")
WITHOUT_EFFECT += ("disable_compile", "compile_config", "continuous_batching_config", "prefill_chunk_size")
WITHOUT_EFFECT += ("is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_early_exit")
WITHOUT_EFFECT += ("assistant_confidence_threshold", "assistant_lookbehind", "assistant_ensemble_weight")
WITHOUT_EFFECT += ("target_lookbehind", "prompt_lookup_num_tokens", "max_matching_ngram_size", "speculation_type")
WITHOUT_EFFECT += ("output_attentions", "output_hidden_states", "output_scores", "output_logits")
WITHOUT_EFFECT += ("return_dict_in_generate", "pad_token_id", "bos_token_id", "decoder_start_token_id")
WITHOUT_EFFECT += ("transformers_version",)
# What vLLM would follow, and generate() of transformers does not read: the engines would answer differently.
OF_VLLM_ALONE = ("presence_penalty", "frequency_penalty", "n", "min_tokens", "max_tokens", "stop", "stop_token_ids")
OF_VLLM_ALONE += ("ignore_eos", "logit_bias", "bad_words", "allowed_token_ids")
# Values that switch a setting off.
_OFF = {"num_beams": 1, "num_return_sequences": 1, "n": 1, "guidance_scale": 1, "encoder_repetition_penalty": 1}
_OFF |= dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_tokens"), 0)
_OFF |= dict.fromkeys(("presence_penalty", "frequency_penalty", "diversity_penalty", "penalty_alpha"), 0)
_OFF |= dict.fromkeys(("remove_invalid_values", "token_healing", "ignore_eos"), False)


def read_generation_config(folder: str | Path) -> GenerationConfig:
    """The generation settings that transformers takes for a model's folder, with or without a file of their own."""
    try:
        return GenerationConfig.from_pretrained(folder)
    except OSError:
        return GenerationConfig.from_model_config(GapMllmConfig.from_pretrained(folder))


def sampling_settings(config: GenerationConfig, tokenizer_eos: int | None = None) -> dict:
    """Say to vLLM how generate() would answer greedily.

    Args:
        config (`GenerationConfig`): the model's settings.
        tokenizer_eos (`int`, *optional*): end token of the tokenizer, which vLLM counts among the ends that
            `min_tokens` puts off.
    Returns:
        `dict`: arguments of `vllm.SamplingParams`, but for the bound of the answer.
    Raises:
        ValueError: for settings that vLLM has no equivalent of; each is named.
    """
    _refuse(config)
    ends = config.eos_token_id
    ends = [] if ends is None else [int(end) for end in (ends if isinstance(ends, list | tuple) else [ends])]
    # ignore_eos: vLLM would also end at the tokenizer's end token, which generate() does not ask for.
    settings = {"temperature": 0.0, "ignore_eos": True, "stop_token_ids": ends, "detokenize": False}
    settings["repetition_penalty"] = 1.0 if config.repetition_penalty is None else config.repetition_penalty
    stops = config.stop_strings
    if stops:
        stops = [stops] if isinstance(stops, str) else list(stops)
        settings |= {"stop": stops, "include_stop_str_in_output": True, "detokenize": True}
    if config.min_new_tokens:
        if stops or tokenizer_eos not in ends:
            raise ValueError(
                f"generation_config.json has min_new_tokens={config.min_new_tokens} beside stop_strings, or beside an "
                "eos_token_id that is not the tokenizer's, which vLLM would put off as well. Leave min_new_tokens "
                "out, or take the engine transformers."
            )
        settings["min_tokens"] = config.min_new_tokens
    bias = _logit_bias(config, ends)
    return settings | ({"logit_bias": bias} if bias else {})


def _refuse(config):
    known, given = vars(GenerationConfig()), vars(config)
    refused = []
    for name, value in given.items():
        if value is None or name.startswith("_") or name in (*CARRIED, *WITHOUT_EFFECT):
            continue
        is_off = name in _OFF and value == _OFF[name]
        is_empty = isinstance(value, list | tuple | dict | str) and not value
        if (name in known or name in OF_VLLM_ALONE) and not is_off and not is_empty:
            refused.append(name)
    ours = [name for name in refused if name not in OF_VLLM_ALONE]
    if ours:
        told = ", ".join(f"{name}={given[name]!r}" for name in ours)
        raise ValueError(
            f"generation_config.json has {told}, which vLLM has no equivalent of. Take the engine transformers, or "
            "leave it out of the file."
        )
    if refused:
        told = ", ".join(f"{name}={given[name]!r}" for name in refused)
        raise ValueError(
            f"generation_config.json has {told}, which generate() of transformers does not read, so that the engines "
            "would answer differently. Leave it out of the file."
        )


def _logit_bias(config, ends):
    """What is added to the logits of single tokens; longer sequences are refused."""
    biases = config.sequence_bias or []
    biases = [(list(words), value) for words, value in (biases.items() if isinstance(biases, dict) else biases)]
    # As generate() has it, the end token is no bad word.
    bad = [list(words) for words in config.bad_words_ids or [] if list(words) not in [[end] for end in ends]]
    for name, sequences in (("sequence_bias", [words for words, _ in biases]), ("bad_words_ids", bad)):
        longer = [words for words in sequences if len(words) != 1]
        if longer:
            raise ValueError(
                f"{name} of generation_config.json has {longer[0]}, a sequence of {len(longer[0])} tokens; vLLM takes "
                "single tokens alone. Take the engine transformers, or leave it out of the file."
            )
    bias = {words[0]: float(value) for words, value in biases}
    never = [*(words[0] for words in bad), *(config.suppress_tokens or [])]
    return bias | dict.fromkeys(never, -math.inf)
