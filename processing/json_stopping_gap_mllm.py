"""Where the first wanted JSON value of an answer ends, and generation that stops there, each row for itself.

The same reading cuts a finished text, so that answers are equal with and without stopping.
"""

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria


FENCE = "```"
_PAIRS = {"}": "{", "]": "["}


class JsonEnd:
    """Reads an answer piece by piece and finds the end of its first JSON value that holds one of some keys.

    Brackets inside quotes do not count; quotes matter only inside a value, and a line end closes them, as in
    `parse_points` and its like. A fence (```) that was open before the value is waited for.

    Args:
        keys (`tuple[str, ...]`): the value must hold one of them in quotes; others, as notes before the answer, are
            passed over.
        is_list (`bool`, defaults to False): whether only a list ends the answer, single objects do not.
    """

    def __init__(self, keys: tuple[str, ...], is_list: bool = False):
        self.keys, self.is_list = keys, is_list
        self.end, self.is_done = None, False
        self._characters, self._start, self._fence = [], 0, ""
        self._stack, self._quote, self._is_escaped = [], None, False

    @property
    def text(self) -> str:
        """What was read, no further than where the answer is complete."""
        return "".join(self._characters)

    @property
    def length(self) -> int:
        """How many characters were read."""
        return len(self._characters)

    def read(self, piece: str) -> bool:
        """Read on; returns whether the answer is complete."""
        for character in piece:
            if self.is_done:
                break
            self._characters.append(character)
            if self.end is not None:
                self._read_fence(character)
            else:
                self._read_value(character)
        return self.is_done

    def _read_value(self, character):
        if self._quote is not None:
            if self._is_escaped:
                self._is_escaped = False
            elif character == "\\":
                self._is_escaped = True
            elif character in (self._quote, "\n"):
                self._quote = None
        elif character in "{[":
            if not self._stack:
                self._start = self.length - 1
            self._stack.append(character)
        elif self._stack and character in "\"'":
            self._quote = character
        elif self._stack and character in "}]":
            while self._stack and self._stack[-1] != _PAIRS[character]:
                self._stack.pop()  # a bracket that was never closed
            if self._stack:
                self._stack.pop()
            if not self._stack:
                self._close()

    def _close(self):
        value = "".join(self._characters[self._start :])
        is_wanted = any(f'"{key}"' in value or f"'{key}'" in value for key in self.keys)
        if is_wanted and (value[0] == "[" or not self.is_list):
            self.end = self.length
            self.is_done = self.text.count(FENCE) % 2 == 0

    def _read_fence(self, character):
        if not self._fence and character.isspace():
            return
        self._fence += character
        if self._fence == FENCE:
            self.end, self.is_done = self.length, True
        elif not FENCE.startswith(self._fence):
            self.is_done = True


def cut_after_json(text: str, keys: tuple[str, ...], is_list: bool = False) -> str:
    """Return a text up to the end of its first JSON value that holds one of `keys`, or all of it; see `JsonEnd`.

    Example:
        ```python
        >>> from gap_mllm.evaluation.runner import cut_after_json
        >>> cut_after_json('{"frame": 3} Is there anything else?', keys=("frame",))
        '{"frame": 3}'

        ```
    """
    reader = JsonEnd(keys, is_list)
    reader.read(text)
    return text if reader.end is None else text[: reader.end]


class JsonStopping(StoppingCriteria):
    """Stops each row of a batch when its JSON answer is complete; see `JsonEnd`.

    Args:
        tokenizer: decodes single tokens.
        prompt_length (`int`): tokens of the padded prompt.
        keys (`tuple[str, ...]`), is_list (`bool`, defaults to False): arguments of `JsonEnd`.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.evaluation.runner import JsonStopping
        >>> from gap_mllm.processing import build_tiny_tokenizer
        >>> tokenizer = build_tiny_tokenizer()
        >>> stop = JsonStopping(tokenizer, prompt_length=0, keys=("frame",))  # generate(..., stopping_criteria=[stop])
        >>> tokens = torch.tensor([tokenizer('{"frame": 3}')["input_ids"]])
        >>> stop(tokens[:, :-1], None).tolist(), stop(tokens, None).tolist()
        ([False], [True])

        ```
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, prompt_length: int, keys: tuple[str, ...], is_list: bool = False
    ):
        self.tokenizer, self.length, self.keys, self.is_list = tokenizer, prompt_length, keys, is_list
        self.readers, self.pieces = None, {}

    def __call__(self, input_ids, scores, **kwargs):
        if self.readers is None:
            self.readers = [JsonEnd(self.keys, self.is_list) for _ in input_ids]
        tokens = input_ids[:, self.length :].tolist()
        self.length = input_ids.shape[1]
        done = [reader.read("".join(map(self._decode, row))) for reader, row in zip(self.readers, tokens, strict=True)]
        return torch.tensor(done, device=input_ids.device)

    def _decode(self, token):
        """Text of one token; brackets and quotes are ASCII, so a character cut in two does no harm."""
        if token not in self.pieces:
            self.pieces[token] = self.tokenizer.decode([token], skip_special_tokens=True)
        return self.pieces[token]


__all__ = ["JsonEnd", "JsonStopping", "cut_after_json"]
