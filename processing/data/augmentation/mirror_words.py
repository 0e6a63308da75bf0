"""Left and right, clockwise, east and west exchanged in an English text, as a mirrored scene needs it; or refused.

"Right" and "left" have other meanings ("right next to", "two are left"). They are exchanged only where the words
around show that a direction is meant; a text where they do not is refused, like texts about writing, maps and clock
faces.
"""

import re


_SIDES = {"left": "right", "right": "left", "east": "west", "west": "east"}
_SIDE = re.compile(r"(?<![a-z])(left|right)(most|wards|ward|hand|s)?(?![a-z])", re.IGNORECASE)
_COMPASS = re.compile(r"(?<![a-z])((?:north|south)[ -]?)?(east|west)(ern|wards|ward|erly)?(?![a-z])", re.IGNORECASE)
_CLOCKWISE = re.compile(r"(?<![a-z])((?:counter|anti)[ -]?)?clockwise(?![a-z])", re.IGNORECASE)

_DEFINITE = re.compile(r"\b(?:to|on|at|in|from) (?:the|my|your|his|her|its|their|one's)(?: (?:far|very|immediate))? $")
_BEFORE = re.compile(
    r"\b(?:left|right|to|on|at|in|from|of|towards?|into|by|near|along|against|the|an?|my|your|his|her|its|their|our|one's|far"
    r"|front|back|rear|top|bottom|upper|lower|middle|cent(?:er|re)|turn(?:s|ed|ing)?|go(?:es|ing)?|move[sd]?|moving"
    r"|face[sd]?|facing|look(?:s|ed|ing)?|rotat(?:e[sd]?|ing)|pan(?:s|ned|ning)?|shift(?:s|ed|ing)?|slightly|directly"
    r"|immediately|mostly|more|further|farther|and|or|either|forward|backward|above|below|up|down)[\s,_:-]+$"
    r"|(?:^|[\s(])[a-h][.):]\s*$"
)
_AFTER = re.compile(
    r"[\s_-]+(?:of|sides?|hand|handed|wall|corner|edge|end|half|part|arm|leg|and|or|to|front|back|rear|forward|backward"
    r"|up|down|above|below)\b|[-_/][a-z]"
)
# Besides "right next to": what "right" and "left" say of order, truth and rest.
_RIGHT_PREPOSITION = re.compile(
    r" (?:next|beside|behind|above|below|under|underneath|beneath|over|across|after|before|away|now|there|here|where"
    r"|up|down|in front|inside|outside|between|against|near|by|at|off|out|through|along|around|past)\b"
)
_RIGHT_NOUN = re.compile(
    r"[ -](?:angles?|angled|answer|choice|option|order|one|way|size|amount|time|place|triangle|side[ -]up)\b"
)
_LEFT_OTHER = re.compile(r"[ -](?:over|behind|open|alone|out|off|unattended|empty|untouched|on|in|to (?:do|be))\b")
_ALONE = re.compile(
    r"\W*(?:(?:option )?[a-h][.):] *)?"
    r"(?:(?:left|right|front|back|behind|rear|above|below|up|down|forward|backward|turn|move|go|rotate|and|or)[\W_]*)+"
)

_LABEL = re.compile(r"(?:left|right) [a-z]+\.?")

_UNSAFE = re.compile(
    r"\b(?:written|spell(?:s|ed|ing)?|logo|brand|barcode|licen[cs]e plate|o'clock|compass|floor ?plan|mirror(?:ed)? "
    r"image)\b"
    r"|\bwhat time\b|\bwhat (?:does|do|is|are)\b[^.?\n]*\b(?:say|says|read|reads|time)\b"
    r"|\b(?:sign|label|poster|screen|board|text|letters?|words?) (?:says?|reads?)\b"
    r"|\b(?:text|letters?|words?|numbers?|digits?) on\b"
    r"|(?<!point )(?<!depth )\bmaps?\b|\broute (?:id|no\.|number|#?\d)|\bbus \d|\b(?:azimuth|bearing)\b",
    re.IGNORECASE,
)


def mirror_text(text: str) -> str:
    """Exchange the words of direction in a text; upper and lower case stay.

    "counter-clockwise" in any spelling becomes "clockwise", and "clockwise" takes the spelling that the text has for
    its opposite, else "counterclockwise".

    Args:
        text (`str`): English.
    Returns:
        `str`.
    Raises:
        ValueError: if "left" or "right" may not be a direction, if the text is about writing, maps or clock faces, or
            if it is not in Latin letters. The message is the reason.
    """
    check_mirror_safe(text)
    for found in _SIDE.finditer(text):
        if not _is_direction(text, found):
            shown = text[max(found.start() - 20, 0) : found.end() + 20].strip()
            raise ValueError(f"{found.group(0)!r} in {shown!r} may not be a direction.")
    text = _SIDE.sub(lambda found: _like(found.group(1), _SIDES) + (found.group(2) or ""), text)
    text = _COMPASS.sub(lambda found: (found[1] or "") + _like(found[2], _SIDES) + (found[3] or ""), text)
    counter = next((found[1] for found in _CLOCKWISE.finditer(text) if found[1]), "counter").lower()
    return _CLOCKWISE.sub(lambda found: _turned(found, counter), text)


def check_mirror_safe(text: str) -> None:
    """Raise ValueError, with the reason, if a text speaks of what does not survive mirroring or is no English."""
    found = _UNSAFE.search(text)
    if found:
        raise ValueError(f"{found.group(0)!r} speaks of writing, a map or a clock face, which a mirror makes false.")
    if any(letter.isalpha() and ord(letter) > 0x24F for letter in text):
        raise ValueError("it holds letters that are not Latin; words of direction are only known in English.")


def _is_direction(text, found):
    """Whether "left" or "right" is a side here."""
    word = found.group(1).lower()
    if found.group(2):
        return True
    line_start = text.rfind("\n", 0, found.start()) + 1
    line = text[line_start : (text + "\n").index("\n", found.end())].lower()
    if _ALONE.fullmatch(line):
        return True
    before, after = text[line_start : found.start()].lower(), text[found.end() :].lower()
    is_definite = bool(_DEFINITE.search(before))
    if word == "right" and (_RIGHT_NOUN.match(after) or re.search(r"\b(?:all|that's) $", before)):
        return False
    if word == "right" and before.endswith(", ") and after.lstrip().startswith("?"):
        return False
    if word == "right" and _RIGHT_PREPOSITION.match(after) and not is_definite:
        return False
    if word == "left" and _LEFT_OTHER.match(after) and not is_definite:
        return False
    return bool(_BEFORE.search(before) or _AFTER.match(after) or _LABEL.fullmatch(line))


def _like(word, pairs):
    """The other word of a pair, in the case of the first."""
    other = pairs[word.lower()]
    return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other


def _turned(found, counter):
    word = "clockwise" if found[1] else counter + "clockwise"
    return word.upper() if found[0].isupper() else word.capitalize() if found[0][0].isupper() else word
