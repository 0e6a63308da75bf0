"""What the language model made of the beginnings of prompts (their key-value caches), kept for further questions.

A beginning is all up to the last view. It is kept by its very tokens, so a prompt that begins otherwise is never
answered from it.
"""

from collections import OrderedDict

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from .input_device_gap_mllm import input_device


# Arguments of generate() that mean the same behind a cache. All others, as static caches, assistants or n-grams (which
# would be told across the padding in the middle), are answered from the whole prompt.
REUSABLE_OPTIONS = {
    *("max_new_tokens", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p", "min_p", "num_beams"),
    *("num_return_sequences", "length_penalty", "early_stopping", "eos_token_id", "pad_token_id", "bos_token_id"),
    *(
        "stop_strings",
        "stopping_criteria",
        "tokenizer",
        "streamer",
        "repetition_penalty",
        "logits_processor",
        "constrained",
    ),
}
_SAYS_NOTHING = {"transformers_version", "_from_model_config", "use_cache", "max_length"}


def can_reuse(model: PreTrainedModel, options: dict) -> bool:
    """Say whether answers of generate() with these options are the same behind a kept beginning.

    Args:
        model (`GapMllmForConditionalGeneration`): model that answers; its own generation config counts, too.
        options (`dict`): arguments of generate().
    """
    config = model.generation_config
    said = {name for name, value in config.to_diff_dict().items() if value not in (None, False)} - _SAYS_NOTHING
    layers = getattr(model.config.text_config, "layer_types", None) or ()
    return (
        not model.training
        and not (said | set(options)) - REUSABLE_OPTIONS
        and config.use_cache is not False
        and not any("sliding" in layer or "linear" in layer for layer in layers)
    )


class PromptPrefixes:
    """The newest few beginnings of prompts about one set of views.

    Args:
        size (`int`, defaults to 2): beginnings that are kept; the one used longest ago goes first.
    """

    def __init__(self, size: int = 2):
        self.size, self._kept = size, OrderedDict()

    def inputs(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        texts: list[str],
        image: dict,
        options: dict,
    ) -> dict | None:
        """Return what generate() needs for prompts behind their common beginning, padded between the two.

        Args:
            model (`GapMllmForConditionalGeneration`): model that answers, and that reads a new beginning.
            tokenizer (`PreTrainedTokenizerBase`): makes tokens of the texts.
            texts (`list[str]`): prompts, with an image token for each visual token.
            image (`dict`): `mm_encoder_outputs` and `image_grid_thw` of the views, which all prompts show.
            options (`dict`): arguments of generate(), of which those count that make several rows of one.
        Returns:
            `dict`: arguments of generate(); None where the prompts begin differently.
        """
        rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
        last = {len(row) - row[::-1].index(model.config.image_token_id) for row in rows}
        if len(last) > 1 or len({tuple(row[: max(last)]) for row in rows}) > 1:
            return None
        length = last.pop()
        prefix, deltas = self._read(model, rows[0][:length], image)
        copies = max(options.get(name) or getattr(model.generation_config, name) or 1 for name in _COPIES)
        width = max(map(len, rows)) - length
        pad = tokenizer.pad_token_id
        padded = [[*row[:length], *[pad] * (width + length - len(row)), *row[length:]] for row in rows]
        seen = [[1] * length + [0] * (width + length - len(row)) + [1] * (len(row) - length) for row in rows]
        model.model.rope_deltas = deltas.expand(len(rows), -1)  # generate() leaves that of another scene
        device = input_device(model)
        tokens = torch.tensor(padded, device=device)
        return {
            "input_ids": tokens,
            "attention_mask": torch.tensor(seen, device=device),
            "mm_token_type_ids": (tokens == model.config.image_token_id).int(),
            "past_key_values": _copies(prefix, len(rows) * copies),
        }

    def _read(self, model, tokens, image):
        """Cache and offset of positions of a beginning, read now or before."""
        key = tuple(tokens)
        if key not in self._kept:
            while len(self._kept) >= self.size:
                self._kept.popitem(last=False)
            ids = torch.tensor([tokens], device=input_device(model))
            cache = DynamicCache(config=model.config.text_config)
            model.model.rope_deltas = None
            types = (ids == model.config.image_token_id).int()
            model.model(input_ids=ids, mm_token_type_ids=types, past_key_values=cache, use_cache=True, **image)
            self._kept[key] = cache, model.model.rope_deltas
        self._kept.move_to_end(key)
        return self._kept[key]


_COPIES = ("num_beams", "num_return_sequences")


def _copies(cache, count):
    """A cache of so many rows that shares the tensors of one row: what is added makes new ones."""
    rows = [(layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1)) for layer in cache.layers]
    copied = DynamicCache()
    for index, (keys, values) in enumerate(rows):
        copied.update(keys, values, index)
    return copied


__all__ = ["PromptPrefixes", "can_reuse"]
