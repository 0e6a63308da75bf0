"""The pictures to label: frames of a video, of a folder, or given ones, as views of the schema and decoded."""

from pathlib import Path

import numpy as np
from PIL import Image

from ...visual_prompt_gap_mllm import to_rgb_image
from ..record_errors import ReadReport, RecordError
from ..scene_sample import View
from ..source_files import encode_png
from ..video_frames import read_video_views
from .label_options import LabelOptions
from .rows import SOURCE


def read_pictures(
    source, options: LabelOptions, left_out: ReadReport | None = None
) -> tuple[list[dict], list[Image.Image]]:
    """Read the views that `label_video` labels, and decode them.

    Args:
        source (`str`, `Path` or list): as for `label_video`.
        options (`LabelOptions`): which frames, and whether to store their files.
        left_out (`ReadReport`, *optional*): lists single pictures that cannot be read, which are left out then.
    Returns:
        `tuple` of views and their pictures.
    Raises:
        FileNotFoundError, ImportError, RecordError: as `read_video_views`; RecordError also for a picture that cannot
            be decoded, without `left_out`. TypeError, ValueError, FileNotFoundError: as `to_rgb_image`, for given
            pictures.
    """

    def skip(error):
        error.field = error.field or "image"
        left_out.skip(error.locate(SOURCE, None, None))

    taken = None if left_out is None else skip
    if isinstance(source, str | Path):
        views = read_video_views(source, options.num_frames, options.fps, taken)
    else:
        views = _given_views(source, taken)
    good, images = [], []
    for view in views:
        try:
            image = View(picture=view["image"], image_path=view.get("image_path")).image
        except RecordError as error:
            if taken is None:
                raise
            taken(error)
            continue
        good.append(_embed(view) if options.embed_pictures else view)
        images.append(image)
    return good, images


def _given_views(pictures, skip):
    for index, picture in enumerate(pictures):
        name = f"picture {index}"
        try:
            image = to_rgb_image(picture, name)
        except (ValueError, FileNotFoundError) as error:
            if skip is None:
                raise
            skip(RecordError(str(error), "image", record_id=name))
        else:
            yield {"image": encode_png(np.asarray(image)), "frame_id": index}


def _embed(view):
    image = view["image"]
    if image["bytes"] is None:
        image = {"bytes": Path(image["path"]).read_bytes(), "path": Path(image["path"]).name}
    return {**view, "image": image}


__all__ = ["read_pictures"]
