"""A bound on how deep foreign JSON may be nested, found before it is parsed.

Parsers hold something for every open bracket: the streaming one a path as long as the depth, so that 200 kB of
brackets take gigabytes. What people write is less than ten deep.
"""

import json

import numpy as np


MAX_JSON_DEPTH = 100
_BRACKETS = b"[]{}"
_NO_BRACKET_OR_QUOTE = bytes(value for value in range(256) if value not in _BRACKETS + b'"')


class JsonDepthError(ValueError):
    """JSON nested deeper than allowed."""

    def __init__(self, max_depth: int):
        super().__init__(f"it is nested more than {max_depth} deep; expected a few lists and objects")


class DepthGuard:
    """Counts open brackets outside of strings, piece by piece; a piece may end anywhere.

    It does not check that the text is JSON: what is not, a parser refuses at the same place or before.

    Args:
        max_depth (`int`, defaults to `MAX_JSON_DEPTH`): most lists and objects within each other.
    """

    def __init__(self, max_depth: int = MAX_JSON_DEPTH):
        self.max_depth = max_depth
        self._depth, self._in_string, self._rest = 0, False, b""

    def feed(self, data: bytes) -> None:
        """Count the next piece. Raises JsonDepthError where it is too deep."""
        data = self._rest + data
        num_backslashes = len(data) - len(data.rstrip(b"\\"))
        self._rest = data[len(data) - num_backslashes % 2 :]  # what it escapes comes with the next piece
        data = data[: len(data) - num_backslashes % 2]
        if b"\\" in data:
            data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
        data = data.translate(None, _NO_BRACKET_OR_QUOTE)
        # Strings without brackets leave two quotes; taking both away changes nothing for what follows.
        parts = data.replace(b'""', b"").split(b'"')
        brackets = np.frombuffer(b"".join(parts[self._in_string :: 2]), np.uint8)
        self._in_string ^= len(parts) % 2 == 0
        if brackets.size:
            steps = np.cumsum((brackets & 2).astype(np.int64) - 1)  # bit 1 is set in [ and {, not in ] and }
            if self._depth + int(steps.max()) > self.max_depth:
                raise JsonDepthError(self.max_depth)
            self._depth += int(steps[-1])


def check_json_depth(text: str | bytes, max_depth: int = MAX_JSON_DEPTH) -> None:
    """Raise JsonDepthError, a ValueError, if a text holds JSON that is nested too deep."""
    opening = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, opening)) > max_depth:  # most texts have fewer brackets
        DepthGuard(max_depth).feed(text.encode("utf-8", "replace") if isinstance(text, str) else text)


def decode_json(text: str | bytes, **options):
    """Decode JSON as `json.loads`, of bounded depth.

    Args:
        text (`str` or `bytes`), **options: arguments of `json.loads`.
    Raises:
        ValueError: if it is no JSON, or nested more than `MAX_JSON_DEPTH` deep. TypeError: if it is no text.
    """
    if isinstance(text, str | bytes):
        check_json_depth(text)
    return json.loads(text, **options)
