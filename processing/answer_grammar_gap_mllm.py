"""Answers that are valid by construction: a grammar of each answer form, and generation that cannot leave it.

The masks of allowed tokens come from xgrammar (the extra "grammar"), which is imported only when it is used.
Source: constrained decoding is not part of GAP-MLLM; our choice.

Also where the first wanted JSON value of an answer ends, and answers while they are generated: text piece by piece,
and objects as each one closes.
"""

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from importlib import import_module
from queue import SimpleQueue
from typing import Any

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from .answers_gap_mllm import BOX_KEYS, FRAME_KEY, LABEL_KEY, POINT_KEY, BraceReader, ParsedAnswer, Quotes


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
        self._stack, self._quotes = [], Quotes()

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
        if self._quotes.read(character, may_open=bool(self._stack)):
            return
        if character in "{[":
            if not self._stack:
                self._start = self.length - 1
            self._stack.append(character)
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


class AnswerStream:
    """What a question gives while it is answered; iterate over it, or ask for `result`, which waits for the end.

    Leaving it midway stops generation at the next token, and the model's lock is free then.
    """

    def __init__(self, steps: Generator):
        self._steps, self._result = steps, None

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._steps)
        except StopIteration as end:
            self._result = end.value if end.value is not None else self._result
            raise StopIteration from None

    def close(self) -> None:
        """Stop generation; `result` is then None unless the end was read."""
        self._steps.close()

    @property
    def result(self) -> Any:
        """The typed result, as the question without streaming gives it; reads on to the end where that is not done."""
        for _ in self:
            pass
        return self._result


class _Pieces(BaseStreamer):
    """Hands the text of one answer to a function, as far as it cannot change any more."""

    def __init__(self, tokenizer, form, send: Callable[[str], None]):
        self.tokenizer, self.send, self.reader = tokenizer, send, None
        self.reader = JsonEnd(form.keys, form.is_list) if form.keys else None
        self.tokens, self.sent, self.is_prompt = [], 0, True

    def put(self, value):
        if self.is_prompt:  # generate() hands over the prompt first
            self.is_prompt = False
            return
        self.tokens += value.flatten().tolist()
        text = self.tokenizer.decode(self.tokens, skip_special_tokens=True).rstrip("\ufffd")  # a character cut in two
        if self.reader is not None:
            self.reader.read(text[self.reader.length :])
            text = text[: self.reader.end]
        if len(text) > self.sent:
            self.send(text[self.sent :])
            self.sent = len(text)

    def end(self):
        pass


class _StopAsked(StoppingCriteria):
    def __init__(self, event):
        self.event = event

    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


def stream_text(tokenizer: PreTrainedTokenizerBase, form, answer: Callable, options: dict) -> Generator:
    """Yield the text of an answer in pieces, which together are the whole.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): reads tokens.
        form (`AnswerForm`): where the answer ends.
        answer (`Callable`): takes arguments of generate() and returns the answer, a `GeneratedAnswer`.
        options (`dict`): arguments of generate().
    Returns:
        generator of `str`, which returns the answer.
    """
    queue, stop = SimpleQueue(), threading.Event()
    streamer = _Pieces(tokenizer, form, lambda piece: queue.put((piece, None, None)))
    criteria = [*(options.get("stopping_criteria") or ()), _StopAsked(stop)]

    def work():
        try:
            queue.put((None, answer(**{**options, "streamer": streamer, "stopping_criteria": criteria}), None))
        except BaseException as error:  # raised where the answer is read
            queue.put((None, None, error))

    threading.Thread(target=work, daemon=True, name="answer").start()
    try:
        while True:
            piece, done, error = queue.get()
            if error is not None:
                raise error
            if done is not None:
                if len(done.text) > streamer.sent:  # half a character at the very end
                    yield done.text[streamer.sent :]
                return done
            yield piece
    finally:
        stop.set()


def closed_objects(pieces: Generator, parse: Callable[[str], ParsedAnswer], make: Callable) -> Generator:
    """Yield each object of an answer when it closes: those that `parse` finds in the whole text, no others.

    Args:
        pieces (generator of `str`): text in pieces; returns the answer.
        parse (`Callable`): `parse_boxes` or its like.
        make (`Callable`): takes an item of the parse and returns what to yield, or None for an item to leave out.
    Returns:
        generator of what `make` returns; it returns what `pieces` returns.
    """
    text, start, braces = "", 0, BraceReader()
    try:
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                yield from _made(parse(text[start:]), make)  # what stands within an object that never closed
                return end.value
            text += piece
            braces.read(piece)
            end = braces.closed_until  # no brace is open behind it, so that what follows changes nothing before it
            if end > start:
                found = parse(text[start:end])
                if not found.truncated:
                    start = end
                    yield from _made(found, make)
    finally:
        pieces.close()


def _made(parsed, make):
    return [made for item in parsed.items if (made := make(item)) is not None]
