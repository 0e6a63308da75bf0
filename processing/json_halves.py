"""Halves of characters in JSON that a streaming parser would lose or stumble over.

yajl turns the escape of a first half ("\ud83d") into "?", or into another character with the escape behind it, and
writes bytes that are no UTF-8 for a second half. Here each is spelled otherwise before it is parsed, and is a half
again in what was parsed.
"""

import re


_SIGN = "\uffff"  # no character, so in no text; before the four digits of a half
_SPELLED = _SIGN.encode()
_HEX, _FIRST, _SECOND = rb"[0-9a-fA-F]", rb"\\u[dD][89abAB]", rb"\\u[dD][c-fC-F]"
_HINT = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
# Whole pairs and other escapes are passed over, so that the second backslash of two begins nothing.
_ESCAPE = re.compile(
    rb"(?P<pair>%b%b{2}%b%b{2})|(?P<half>\\u[dD][89a-fA-F]%b{2})|\\.|(?P<bytes>\xed[\xa0-\xbf][\x80-\xbf])"
    % (_FIRST, _HEX, _SECOND, _HEX, _HEX),
    re.DOTALL,
)
# What the next piece may go on with: halves, the beginning of an escape, or that of a half's three bytes.
_UNFINISHED = re.compile(
    rb"(?<!\\)(?:\\\\)*((?:\\u[dD][89a-fA-F]%b{2})*(?:\\(?:u%b{0,3})?)?|\xed[\xa0-\xbf]?)\Z" % (_HEX, _HEX)
)
_KEPT = re.compile(f"{_SIGN}([dD][89a-fA-F][0-9a-fA-F]{{2}})")


class HalfKeeper:
    """Spells halves of characters for a parser, piece by piece; a piece may end anywhere.

    `num_found` counts them; once there are some, `restore_halves` is due for what is parsed.
    """

    def __init__(self):
        self.num_found, self._rest = 0, b""

    def feed(self, data: bytes, is_end: bool = False) -> bytes:
        """Return the next piece for the parser; its end may be kept for the next one, but not at the end of all."""
        data, self._rest = self._rest + data, b""
        if not is_end and (b"\\" in data[-6:] or b"\xed" in data[-2:]):
            cut = _UNFINISHED.search(data)
            data, self._rest = data[: cut.start(1)], data[cut.start(1) :]
        return _ESCAPE.sub(self._spell, data) if _HINT.search(data) else data

    def _spell(self, found):
        if found["half"] is None and found["bytes"] is None:
            return found[0]
        self.num_found += 1
        if found["half"] is not None:
            return _SPELLED + found["half"][2:]
        half = found["bytes"].decode("utf-8", "surrogatepass")
        return _SPELLED + b"%04x" % ord(half)


def restore_halves(value):
    """Return a parsed value with the halves of characters that `HalfKeeper` spelled; keys of objects, too."""
    if isinstance(value, str):
        return _KEPT.sub(_half, value) if _SIGN in value else value
    if isinstance(value, list):
        return [restore_halves(each) for each in value]
    if isinstance(value, dict):
        return {restore_halves(key): restore_halves(each) for key, each in value.items()}
    return value


def _half(found):
    return chr(int(found[1], 16))
