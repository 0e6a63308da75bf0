"""What a visitor brings or chooses, opened as views of one scene within limits, without gradio.

What visitors can put right is a `VisitorError`, whose text is shown to them as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from PIL import Image

from gap_mllm.evaluation import render_split
from gap_mllm.processing.frame_sampling_gap_mllm import uniform_sample
from gap_mllm.processing.scene_views_gap_mllm import open_views
from gap_mllm.processing.view_files_gap_mllm import file_content, open_picture
from gap_mllm.processing.visual_prompt_gap_mllm import to_rgb_image


MAX_FILES, MAX_VIEWS = 32, 8  # that are looked at, and that the model sees
MAX_MEGABYTES, MAX_MEGAPIXELS = 50, 80  # of a file, and of a photo
MIN_SIDE, MAX_SIDE, MAX_ASPECT = 32, 1024, 8  # pixels of a photo; longer ones are made smaller


class VisitorError(ValueError):
    """Something that the visitor can put right; the text says what."""


@dataclass(frozen=True, eq=False)
class OpenScene:
    """The views of one place. `key` is new for each, so that nobody's views are mixed up with another's.

    Args:
        pictures (`tuple[PIL.Image.Image, ...]`): upright RGB pictures, at most 1024 pixels long.
        names (`tuple[str, ...]`): file names, or frames of a video.
        notes (`tuple[str, ...]`): sentences about what was left out.
    """

    pictures: tuple[Image.Image, ...]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    key: str = field(default_factory=lambda: uuid4().hex)


def example_rooms(count: int = 3) -> list[OpenScene]:
    """Render rooms that the shipped model has never seen, four views each."""
    names = tuple(f"view {view}" for view in range(4))
    return [
        OpenScene(tuple(Image.fromarray(image) for image in room.images), names)
        for room in render_split("test", count, first_scene=8)
    ]


def open_upload(paths: Sequence[str | Path] | None) -> OpenScene:
    """Open photos of one place, or one video.

    Args:
        paths (list of `str` or `Path`): files as they were uploaded.
    Returns:
        `OpenScene`: at most 8 views, evenly spread over the photos or the video.
    Raises:
        VisitorError: if there is nothing, too much, or nothing that can be read.
    """
    paths = [Path(path) for path in paths or ()]
    if not paths:
        raise VisitorError("There are no photos yet. Add photos of one place, or a short video.")
    if len(paths) > MAX_FILES:
        raise VisitorError(f"{len(paths)} files are too many. Add at most {MAX_FILES} photos of one place.")
    for path in paths:
        if path.stat().st_size > MAX_MEGABYTES * 1e6:
            size = path.stat().st_size / 1e6
            raise VisitorError(f"{path.name} has {size:.0f} MB, more than {MAX_MEGABYTES} MB. Add a smaller file.")
    videos = [path for path in paths if file_content(path).kind in ("video", "animation")]
    if videos and len(paths) > 1:
        raise VisitorError(f"Add either photos or one video: {videos[0].name} is a video among {len(paths)} files.")
    return _open_video(videos[0]) if videos else _open_photos(paths)


def _open_video(path):
    try:
        views = open_views(path, max_views=MAX_VIEWS)
    except (ValueError, OSError) as error:
        raise VisitorError(f"{path.name} has no frames that can be read: it is damaged, or no video.") from error
    return OpenScene(tuple(_checked(picture, path.name) for picture in views.pictures), views.names)


def _open_photos(paths):
    opened, damaged = [], []
    for path in paths:
        try:
            with open_picture(path) as file:
                megapixels = file.width * file.height / 1e6
            if megapixels > MAX_MEGAPIXELS:
                raise VisitorError(
                    f"{path.name} has {megapixels:.0f} megapixels, more than {MAX_MEGAPIXELS}. Add a smaller photo."
                )
            opened.append((path.name, _checked(to_rgb_image(path), path.name)))
        except VisitorError:
            raise
        except (ValueError, OSError, ImportError, SyntaxError, Image.DecompressionBombError):  # broken files
            damaged.append(path.name)
    broken = f"cannot be read, damaged or no pictures: {', '.join(damaged)}"
    if not opened:
        raise VisitorError(f"None of the files is a photo that can be opened; {broken}. Use .jpg, .png or .webp.")
    notes = [f"Left out, since they {broken}."] if damaged else []
    chosen = uniform_sample(len(opened), MAX_VIEWS)
    if len(chosen) < len(opened):
        notes.append(f"Of {len(opened)} photos {len(chosen)} are shown to the model, evenly spread.")
    names, pictures = zip(*(opened[index] for index in chosen), strict=True)
    return OpenScene(pictures, names, tuple(notes))


def _checked(picture, name):
    short, long = sorted(picture.size)
    if short < MIN_SIDE or long > MAX_ASPECT * short:
        raise VisitorError(
            f"{name} is {picture.width} x {picture.height} pixels; its sides must have {MIN_SIDE} pixels or more, the "
            f"longer at most {MAX_ASPECT} times the shorter."
        )
    picture = picture.copy()
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return picture
