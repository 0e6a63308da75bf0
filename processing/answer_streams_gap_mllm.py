"""Answers while they are generated: text piece by piece, and objects as each one closes.

generate() runs in a thread of its own, under the model's lock; whoever reads may stop at any time.
"""

import threading
from collections.abc import Callable, Generator, Iterator
from queue import SimpleQueue
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from .answers_gap_mllm import BraceReader, ParsedAnswer
from .json_stopping_gap_mllm import JsonEnd


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


__all__ = ["AnswerStream", "closed_objects", "stream_text"]
