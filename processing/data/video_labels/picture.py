"""A picture of what was labelled: views with their marks, depth, and confidence, one column for each view."""

import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..scene_sample import SceneSample
from ..schema import MARKED_TASKS
from .sure_pixels import LabelPixels


TILE_WIDTH = 240
MARGIN, LINE, CHARACTER = 4, 14, 6  # CHARACTER: mean width of one, in pixels
PAPER = (250, 248, 240)
MAX_COLUMNS = 8
# Near to far, spread over the inverse depth.
DEPTH_COLORS = np.array(
    [(48, 18, 59), (50, 130, 220), (40, 200, 130), (220, 210, 50), (210, 50, 20)], dtype=np.float64
)
MARK_COLORS = ((255, 60, 60), (60, 220, 60), (90, 150, 255), (255, 220, 40), (255, 90, 255), (60, 230, 230))
UNSURE_COLOR = np.array((110, 30, 30), dtype=np.float64)


def label_picture(
    images: list[Image.Image], pixels: LabelPixels, samples: list[SceneSample], caption: str = ""
) -> Image.Image:
    """Draw the views of a labelled video.

    Top: the picture; a numbered cross is a marked pixel, a numbered ring the same place as verified in another view.
    Middle: depth, near in red and far in blue, grey where it is not stored, dark on depth edges. Bottom: confidence,
    the brighter the surer, dark red where depth is not stored.

    Args:
        images (`list[PIL.Image.Image]`): pictures of all views of the video.
        pixels (`LabelPixels`): what is sure of them.
        samples (`list[SceneSample]`): questions about its clips.
        caption (`str`, defaults to ""): lines to write above.
    Returns:
        `PIL.Image.Image`: at most `MAX_COLUMNS` columns, views spread evenly.
    """
    shown = np.unique(np.linspace(0, len(images) - 1, min(len(images), MAX_COLUMNS)).round().astype(int)).tolist()
    marks = _marks_of_views(samples)
    columns = [_column(view, images[view], pixels, marks.get(view, [])) for view in shown]
    width = sum(column.width + MARGIN for column in columns) + MARGIN
    lines = [part for line in caption.split("\n") for part in textwrap.wrap(line, width // CHARACTER)]
    top = MARGIN + LINE * len(lines)
    sheet = Image.new("RGB", (width, max(column.height for column in columns) + top + MARGIN), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + number * LINE), line, fill="black", font=font)
    left = MARGIN
    for column in columns:
        sheet.paste(column, (left, top))
        left += column.width + MARGIN
    return sheet


def _marks_of_views(samples):
    """For each view of the video: (number, pixel, is_marked) of the places that are asked for and their matches."""
    marks = {}
    for number, sample in enumerate(sample for sample in samples if sample.task in MARKED_TASKS):
        for place, point in enumerate(sample.points):
            view = sample.metadata["video_views"][point.view]
            marks.setdefault(view, []).append((number, point.pixel, place < len(sample.marks)))
    return marks


def _column(view, image, pixels, marks):
    height = round(TILE_WIDTH * image.height / image.width)
    size = (TILE_WIDTH, height)
    parts = [
        _marked(image.resize(size, Image.Resampling.BICUBIC), TILE_WIDTH / image.width, marks),
        _tile(_depth_colors(view, pixels), size),
        _tile(_confidence_colors(view, pixels), size),
    ]
    column = Image.new("RGB", (TILE_WIDTH, 3 * height + 2 * MARGIN + LINE), PAPER)
    text = f"view {view}: {100 * pixels.usable[view].mean():.0f} % usable"
    ImageDraw.Draw(column).text((0, 0), text, fill="black", font=ImageFont.load_default(11))
    for number, part in enumerate(parts):
        column.paste(part, (0, LINE + number * (height + MARGIN)))
    return column


def _marked(tile, scale, marks):
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(12)
    for number, pixel, is_marked in marks:
        color = MARK_COLORS[number % len(MARK_COLORS)]
        x, y = ((value + 0.5) * scale - 0.5 for value in pixel)
        if is_marked:
            draw.line([x - 6, y, x + 6, y], fill=color, width=3)
            draw.line([x, y - 6, x, y + 6], fill=color, width=3)
        else:
            draw.ellipse([x - 6, y - 6, x + 6, y + 6], outline=color, width=2)
        left = x + 7 if x < tile.width - 24 else x - 22
        draw.text((left, y - 7), str(number), fill=color, font=font, stroke_width=2, stroke_fill="black")
    return tile


def _tile(array, size):
    return Image.fromarray(array.round().clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)


def _depth_colors(view, pixels):
    """(h, w, 3): colours spread over the inverse depth of all views, so that one colour is one depth."""
    stored = [d[(d > 0) & pixels.sure[index]] for index, d in enumerate(pixels.reconstruction.depth)]
    far, near = np.percentile(1 / np.concatenate(stored).astype(np.float64), (2, 98))
    depth = pixels.reconstruction.depth[view].astype(np.float64)
    valid = (depth > 0) & pixels.sure[view]
    share = (1 / np.where(valid, depth, 1.0) - far) / max(near - far, 1e-12)
    steps = np.linspace(0, 1, len(DEPTH_COLORS))
    colors = np.stack([np.interp(share, steps, DEPTH_COLORS[:, channel]) for channel in range(3)], -1)
    colors = np.where(pixels.usable[view][..., None], colors, 0.6 * colors)
    return np.where(valid[..., None], colors, 200.0)


def _confidence_colors(view, pixels):
    """(h, w, 3): grey by the rank of the confidence among all views."""
    everywhere = np.concatenate([part.reshape(-1) for part in pixels.reconstruction.confidence])
    ranks = np.percentile(everywhere, np.linspace(0, 100, 101))
    confidence = pixels.reconstruction.confidence[view]
    below = sum(np.searchsorted(ranks, confidence, side=side) for side in ("left", "right")) / 2  # ties share a rank
    grey = 255.0 * below.clip(0, 100)[..., None] / 100
    is_sure = pixels.sure[view][..., None]
    return np.where(is_sure, np.broadcast_to(grey, (*confidence.shape, 3)), UNSURE_COLOR * (0.4 + 0.6 * grey / 255))
