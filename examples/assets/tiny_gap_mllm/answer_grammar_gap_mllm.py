"""Answers that are valid by construction: a grammar of each answer form, and generation that cannot leave it.

The masks of allowed tokens come from xgrammar (the extra "grammar"), which is imported only when it is used.
Source: constrained decoding is not part of GAP-MLLM; our choice.
"""

from collections.abc import Sequence
from importlib import import_module

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from .answers_gap_mllm import BOX_KEYS, FRAME_KEY, LABEL_KEY, POINT_KEY
from .json_stopping_gap_mllm import FENCE


LABEL_CHARS, WHOLE_DIGITS, DECIMALS = 40, 3, 3  # of a label, of a number: at most
_SEPARATOR, _CLOSING = ",\n\t", f"\n]{FENCE}"

_TERMINALS = rf"""
label ::= [^"\\\x00-\x1F]{{1,{LABEL_CHARS}}}
number ::= "-"? whole "." [0-9]{{1,{DECIMALS}}}
size ::= [1-9] [0-9]{{0,{WHOLE_DIGITS - 1}}} "." [0-9]{{1,{DECIMALS}}} | "0." [0-9]? [0-9]? [1-9]
whole ::= "0" | [1-9] [0-9]{{0,{WHOLE_DIGITS - 1}}}
index ::= "0" | [1-9] [0-9]{{0,2}}
"""


def answer_grammar(keys: Sequence[str], is_list: bool = False) -> str:
    """Write the grammar of an answer in our spelling, fence included, in the notation of GBNF.

    Labels have 1 to 40 characters, numbers at most three digits before the point and one to three behind it, sizes of
    boxes are positive. A list may be empty.

    Args:
        keys (`tuple[str, ...]`): keys of an object in their order: "label", "pointmap", "bbox_3d", "frame".
        is_list (`bool`, defaults to False): whether the answer is a list of such objects.
    Returns:
        `str`.
    Raises:
        ValueError: on no key, or an unknown one.

    Example:
        ```python
        >>> from gap_mllm.processing.answer_grammar_gap_mllm import answer_grammar
        >>> print(answer_grammar(("frame",)).splitlines()[1])
        object ::= "{\\"frame\\": " index "}"

        ```
    """
    values = {
        LABEL_KEY: (_quoted('"'), "label", _quoted('"')),
        POINT_KEY: _numbers("number", "number", "number"),
        BOX_KEYS[0]: _numbers(*["number"] * 3, *["size"] * 3, *["number"] * 3),
        FRAME_KEY: ("index",),
    }
    unknown = [key for key in keys if key not in values]
    if unknown or not keys:
        raise ValueError(f"keys of an answer are {list(keys)}; expected some of {', '.join(values)}.")
    parts = [
        part for place, key in enumerate(keys) for part in (_quoted(f'{", " * (place > 0)}"{key}": '), *values[key])
    ]
    start = _quoted(f"{FENCE}json\n")
    whole = f"{start} {_quoted(chr(9))}? object {_quoted(chr(10) + FENCE)}"
    if is_list:
        whole = (
            f"{start} {_quoted('[' + _SEPARATOR[1:])} (object ({_quoted(_SEPARATOR)} object)*)? {_quoted(_CLOSING)}"
        )
    return f"root ::= {whole}\nobject ::= {_quoted('{')[:-1]}{' '.join(parts)[1:]} {_quoted('}')}{_TERMINALS}"


def _quoted(text):
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def _numbers(*rules):
    parts = [_quoted("[")]
    for place, rule in enumerate(rules):
        parts += [_quoted(", "), rule] if place else [rule]
    return (*parts, _quoted("]"))


class GrammarLogits(LogitsProcessor):
    """Allows each row of a batch, or beam, only the tokens with which its answer can still become a valid one.

    Where a list comes near to `max_new_tokens`, it is closed before an object that might not fit any more.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): tokenizer of the model, byte-level or with bytes to fall back on.
        grammar (`str`): grammar, see `answer_grammar`.
        prompt_length (`int`): tokens of the padded prompt.
        max_new_tokens (`int`): bound of generate().
        end_tokens (`list[int]`): tokens that end an answer.
    Raises:
        ImportError: without xgrammar.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        grammar: str,
        prompt_length: int,
        max_new_tokens: int,
        end_tokens: Sequence[int],
    ):
        self.xgrammar = _import_xgrammar()
        self.tokenizer, self.grammar = tokenizer, grammar
        self.length, self.max_new_tokens, self.ends = prompt_length, max_new_tokens, list(end_tokens)
        self._compiled, self._rows, self._joints = None, [], None
        worst = f'{{"{LABEL_KEY}": "", "{BOX_KEYS[0]}": [{", ".join(["-888.888"] * 9)}]}}{_SEPARATOR}{_CLOSING}'
        self._longest = len(tokenizer(worst, add_special_tokens=False)["input_ids"]) + LABEL_CHARS

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if self._compiled is None:
            self._compiled = _compile(self.xgrammar, self.tokenizer, self.grammar, scores.shape[-1], self.ends)
        tokens = input_ids[:, self.length :].tolist()
        self._rows = self._follow(tokens)
        mask = self.xgrammar.allocate_token_bitmask(len(tokens), scores.shape[-1])
        for place, (_, matcher) in enumerate(self._rows):
            if matcher is not None and not matcher.is_terminated():
                matcher.fill_next_token_bitmask(mask, place)
        places = torch.arange(32, dtype=torch.int32)
        allowed = (mask[..., None] >> places & 1).flatten(1)[:, : scores.shape[-1]].bool().to(scores.device)
        if self.max_new_tokens - len(tokens[0]) < self._longest:
            allowed &= self._closing(tokens, allowed)
        return scores.masked_fill(~allowed, -torch.inf)

    def _follow(self, tokens):
        """The matcher of each row: the one that read all but its last token, or a new one; beams change places.

        None stands for rows that have ended, and are padded.
        """
        known = {}
        for row, matcher in self._rows:
            known.setdefault(tuple(row), matcher)
        rows = []
        for row in tokens:
            if row and tuple(row[:-1]) in known:
                matcher, unread = known.pop(tuple(row[:-1])), row[-1:]
            else:
                matcher, unread = self.xgrammar.GrammarMatcher(self._compiled), row
            for token in unread:
                if matcher is not None and (matcher.is_terminated() or not matcher.accept_token(token)):
                    matcher = None
            rows.append((row, matcher))
        return rows

    def _closing(self, tokens, allowed):
        """Of rows behind an object, the tokens that go on to no further one."""
        if self._joints is None:
            texts = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
            within = [token for token, text in enumerate(texts) if text and "}," in text]
            self._joints = within, [token for token, text in enumerate(texts) if text and text[0] == ","]
        kept = torch.ones_like(allowed)
        for place, row in enumerate(tokens):
            kept[place, self._joints[0]] = False
            if row and self.tokenizer.decode(row[-1:]).endswith("}"):
                kept[place, self._joints[1]] = False
            if not (allowed[place] & kept[place]).any():
                kept[place] = True
        return kept


_COMPILED = "_gap_mllm_compiled_grammars"  # kept with the tokenizer: reading a vocabulary takes longer than an answer


def _compile(xgrammar, tokenizer, grammar, vocabulary_size, ends):
    known = tokenizer.__dict__.setdefault(_COMPILED, {})
    key = grammar, vocabulary_size, tuple(ends), len(tokenizer)
    if key not in known:
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocabulary_size, stop_token_ids=ends)
        known[key] = xgrammar.GrammarCompiler(info).compile_grammar(grammar)
    return known[key]


def _import_xgrammar():
    try:
        return import_module("xgrammar")  # by its name as text: remote code must not ask for it
    except ImportError as error:
        raise ImportError(f"constrained answers need xgrammar: pip install gap-mllm[grammar] ({error}).") from error


__all__ = ["GrammarLogits", "answer_grammar"]
