"""Strips of text and pictures, which sheets are laid out of; pillow alone, with its own font."""

from bisect import bisect_right
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont


MARGIN, GAP = 16, 8
INK, PAPER, FAINT, HEADER = "black", "white", (110, 110, 110), (40, 54, 74)
WARNING, TARGET = (190, 20, 20), (0, 130, 50)
TEXT, SMALL, LARGE = 15, 13, 24  # font sizes
Color = str | tuple[int, int, int]


def text_strip(
    text: str | None, width: int, size: int, color: Color = INK, background: Color = PAPER, max_lines: int = 20
) -> Image.Image | None:
    """Text on a strip as wide as asked, broken between words and cut after `max_lines`; None without text."""
    if not text:
        return None
    font = ImageFont.load_default(size)
    longest = max_lines * width  # no character is narrower than a pixel
    lines = [line for part in text[:longest].splitlines() for line in _wrap(part, font, width - 2 * GAP)]
    if len(lines) > max_lines:
        lines = lines[:max_lines]
        while lines[-1] and font.getlength(lines[-1] + " ...") > width - 2 * GAP:
            lines[-1] = lines[-1][:-1]
        lines[-1] += " ..."
    high = round(size * 1.35)
    strip = Image.new("RGB", (width, high * len(lines) + 4), background)
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        draw.text((GAP if background != PAPER else 0, 2 + number * high), line, font=font, fill=color)
    return strip


def _wrap(text, font, width):
    lines = [""]
    for word in text.split():
        while font.getlength(word) > width:  # a path or an answer without spaces
            cut = bisect_right(range(1, len(word)), width, key=lambda end: font.getlength(word[:end]))
            lines += [word[: max(cut, 1)], ""]
            word = word[max(cut, 1) :]
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return [line for line in lines if line] or [""]


def stack_strips(strips: Sequence[Image.Image], width: int, margin: int = MARGIN, gap: int = GAP) -> Image.Image:
    """Strips below each other, with a margin around all."""
    height = sum(strip.height + gap for strip in strips) - gap + 2 * margin
    sheet = Image.new("RGB", (width, height), PAPER)
    top = margin
    for strip in strips:
        sheet.paste(strip, (margin, top))
        top += strip.height + gap
    return sheet


def side_by_side(tiles: Sequence[Image.Image], width: int) -> Image.Image:
    """Tiles in a row as wide as asked."""
    strip = Image.new("RGB", (width, max(tile.height for tile in tiles)), PAPER)
    left = 0
    for tile in tiles:
        strip.paste(tile, (left, 0))
        left += tile.width + GAP
    return strip
