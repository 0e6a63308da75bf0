"""A picture that shows rows of a data set: all their views with marks, boxes and points, question and answer below.

Made for somebody who has not seen the data: one look tells whether boxes lie on objects and texts fit the pictures.
What is drawn into a single view is in view_overlay.py.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from ..prompts_gap_mllm import IMAGE_TAG
from .picture_strips import (
    FAINT,
    GAP,
    HEADER,
    INK,
    LARGE,
    MARGIN,
    PAPER,
    SMALL,
    TARGET,
    TEXT,
    WARNING,
    Color,
    side_by_side,
    stack_strips,
    text_strip,
)
from .record_errors import RecordError
from .scene_sample import SceneSample
from .view_overlay import draw_view, object_colors, object_name
from .view_selection import spread_views


MAX_LEGEND = 24  # entries of a row
HOW_TO_READ = (
    "Wire frames are 3D boxes, projected into every view that has pose and intrinsics: solid edges are turned to the "
    "camera, dashed ones lie behind. Dots are 3D points, rings are points that something hides. A square stands on "
    "the pixel that belongs to a point. Crosses, discs and thick outlines are marks that the model sees as well."
)
_TAG_RUN = re.compile(rf"(?:(?:Frame-\d+: ?)?{re.escape(IMAGE_TAG)}\s*){{2,}}")


@dataclass(frozen=True)
class RowStyle:
    """How a row is drawn where it holds more than the data: an answer beside the truth.

    Args:
        colors (`tuple[list, list]`): RGB colours of the sample's boxes, and of its points, as of `object_colors`.
        lines (`list[tuple[str, str | tuple]]`): texts in place of the answer's, each with its colour.
    """

    colors: tuple[list, list]
    lines: list[tuple[str, Color]]


def contact_sheet(
    samples: list[SceneSample],
    title: str = "",
    width: int = 1600,
    max_views: int = 32,
    styles: Sequence[RowStyle] | None = None,
    key: str = "",
) -> Image.Image:
    """Draw rows below each other.

    Args:
        samples (`list[SceneSample]`): the rows, few.
        title (`str`, defaults to ""): headline.
        width (`int`, defaults to 1600): width of the sheet in pixels, at least 400.
        max_views (`int`, defaults to 32): most views of a row; of more, those that the row speaks of and some among
            them.
        styles (`Sequence[RowStyle]`, *optional*): one for each sample; by default each object has a colour.
        key (`str`, defaults to ""): what the colours of the styles are, below the headline.
    Returns:
        `PIL.Image.Image`: RGB. A view that cannot be decoded is shown as a note with the reason.
    Raises:
        ValueError: if `width` is below 400 or `max_views` below 1, or there is not one style for each sample.
    """
    if width < 400 or max_views < 1:
        raise ValueError(f"width is {width} and max_views {max_views}; expected at least 400 and 1.")
    inner = width - 2 * MARGIN
    strips = [text_strip(title, inner, LARGE), text_strip(HOW_TO_READ, inner, SMALL, FAINT)]
    strips.append(text_strip(key, inner, SMALL))
    samples = list(samples)
    styles = [None] * len(samples) if styles is None else list(styles)
    if len(styles) != len(samples):
        raise ValueError(f"styles has {len(styles)} entries for {len(samples)} samples; expected one for each.")
    for number, (sample, style) in enumerate(zip(samples, styles, strict=True), 1):
        strips += [_header(sample, f"{number} of {len(samples)}", inner), *_row(sample, inner, max_views, style)]
    if not samples:
        strips.append(text_strip("There are no rows to show.", inner, TEXT, WARNING))
    return stack_strips([strip for strip in strips if strip is not None], width)


def _row(sample, width, max_views, style):
    shown = shown_views(sample, max_views)
    colors = object_colors(sample) if style is None else style.colors
    lines = -(-len(shown) // (6 if len(shown) <= 12 else 8))
    columns = max(-(-len(shown) // max(lines, 1)), 3)
    tiles, seen, problems = [], {"boxes": {}, "points": {}}, {}
    for view in shown:
        tile, drawn = _tile(sample, view, (width - (columns - 1) * GAP) // columns, colors)
        tiles.append(tile)
        for kind in seen if drawn else ():
            for index in getattr(drawn, kind):
                seen[kind].setdefault(index, []).append(view)
        for problem in drawn.problems if drawn else ():
            problems.setdefault(problem, []).append(view)
    if not shown:
        where = f"; its video is {sample.video}" if sample.video else ""
        yield text_strip(f"This row has no views{where}.", width, TEXT, WARNING)
    for start in range(0, len(tiles), columns):
        yield side_by_side(tiles[start : start + columns], width)
    for problem, views in problems.items():
        where = "In no view" if views == shown else f"Not in view {', '.join(map(str, views))}"
        yield text_strip(f"{where} could everything be drawn: {problem}", width, SMALL, WARNING)
    if len(shown) < len(sample.views):
        yield text_strip(f"{len(shown)} of {len(sample.views)} views are shown.", width, SMALL, FAINT)
    yield from _legend(sample, colors, seen, width)
    yield from _texts(sample, width, style)


def shown_views(sample: SceneSample, max_views: int) -> list[int]:
    """Indices of the views to draw: all, or of more those that the sample speaks of and some among them."""
    if len(sample.views) <= max_views:
        return list(range(len(sample.views)))
    try:
        return spread_views(sample, max_views)
    except RecordError:  # more are spoken of than fit, or texts and tags do not agree
        return list(range(max_views))


def _tile(sample, view, width, colors):
    """A view with its caption, and what was drawn; a note in its place where it cannot be decoded."""
    caption = f"view {view}" + (" (reference)" if view == 0 and len(sample.views) > 1 else "")
    name, is_target = Path(sample.views[view].image_path or "").name, view == sample.target_frame
    caption += (" TARGET FRAME" if is_target else "") + (f" {name}" if name else "")
    try:
        drawn = draw_view(sample, view, width, colors)
    except RecordError as error:
        note = text_strip(f"cannot be shown: {error.reason}", width, SMALL, WARNING, max_lines=6)
        return stack_strips([text_strip(caption, width, SMALL), note], width, margin=0), None
    if is_target:
        corner = drawn.picture.width - 1, drawn.picture.height - 1
        ImageDraw.Draw(drawn.picture).rectangle([0, 0, *corner], outline=TARGET, width=5)
    strip = text_strip(caption, width, SMALL, TARGET if is_target else INK, max_lines=1)
    return stack_strips([strip, drawn.picture], width, margin=0, gap=2), drawn


def _header(sample, number, width):
    facts = {"task": sample.task, "type": sample.question_type, "split": sample.split, "scene": sample.scene_id}
    facts["video"] = Path(sample.video).name if sample.video else None
    facts = [f"{name} {value}" for name, value in facts.items() if value] + [f"views {len(sample.views)}"]
    return text_strip(f"{number}: {sample.id}\n{' | '.join(facts)}", width, TEXT, "white", HEADER)


def _legend(sample, colors, seen, width):
    """What every colour is: name, size or place, and the views where it is to be seen."""
    entries = []
    for index, (box, color) in enumerate(zip(sample.boxes, colors[0], strict=True)):
        size = " x ".join(f"{value:.2f}" for value in box.numbers[3:6])
        world = f"camera of view {box.frame_index or 0}" if box.frame == "camera" else f"{box.frame} world"
        role = "" if box.label is None or not box.role or box.role == "target" else f" ({box.role})"
        world += f" with angles {box.euler_order}" if box.numbers[6:].any() else ""
        where = _where(seen["boxes"].get(index))
        entries.append((f"box {object_name(box, index)}{role}: {size} m, given in the {world}; {where}", color))
    for index, (point, color) in enumerate(zip(sample.points, colors[1], strict=True)):
        place = "without a place"
        if point.xyz is not None:
            world = "camera of view 0" if point.frame == "camera" else f"{point.frame} world"
            place = "at (" + ", ".join(f"{value:.2f}" for value in point.xyz) + f") m in the {world}"
        entries.append((f"point {object_name(point, index)}: {place}; {_where(seen['points'].get(index))}", color))
    for text, color in entries[:MAX_LEGEND]:
        strip = text_strip(text, width - 22, SMALL, max_lines=1)
        entry = Image.new("RGB", (width, strip.height), PAPER)
        entry.paste(strip, (22, 0))
        ImageDraw.Draw(entry).rectangle([2, 2, 16, strip.height - 3], fill=color, outline=INK)
        yield entry
    if len(entries) > MAX_LEGEND:
        yield text_strip(f"and {len(entries) - MAX_LEGEND} more.", width, SMALL, FAINT)


def _where(views):
    if not views:
        return "in no view that is shown"
    return f"in view{'s' if len(views) > 1 else ''} {', '.join(map(str, views))}"


def question_text(sample: SceneSample) -> str:
    """What is asked, with the number of pictures where the tags of several stand."""
    question = _TAG_RUN.sub(lambda run: f"[{run.group(0).count(IMAGE_TAG)} pictures] ", sample.question or "none")
    return question.strip()


def _texts(sample, width, style):
    if sample.question is None and sample.answer is None:  # a scene, which nothing is asked about
        return
    yield text_strip(f"Question: {question_text(sample)}", width, TEXT, max_lines=8)
    if sample.choices:
        yield text_strip(f"Choices: {' / '.join(sample.choices)}", width, TEXT, max_lines=3)
    if style is not None:
        yield from (text_strip(text, width, TEXT, color, max_lines=4) for text, color in style.lines)
        return
    facts = {"number": sample.number, "choice": sample.choice_index, "target frame": sample.target_frame}
    facts = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
    answer = (sample.answer or "none").replace("```json", "").replace("```", "").strip()
    yield text_strip(f"Answer{f' ({facts})' if facts else ''}: {answer}", width, TEXT, TARGET, max_lines=4)
    if len(sample.references) > 1:
        yield text_strip(f"Accepted: {' / '.join(sample.references)}", width, SMALL, FAINT, max_lines=3)
