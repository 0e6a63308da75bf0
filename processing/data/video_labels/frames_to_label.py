"""The pictures to label: frames of a video, of a folder, or given ones, as views that are decoded."""

import os
from pathlib import Path

import numpy as np
from transformers.utils import logging

from ...visual_prompt_gap_mllm import to_rgb_image
from ..record_errors import ReadReport, RecordError
from ..scene_sample import View
from ..upright_pictures import picture_orientation
from ..video_frames import frame_views, read_video_views
from .depth_teacher import Teacher
from .label_options import LabelOptions
from .labelled_scenes import SOURCE


logger = logging.get_logger(__name__)


def read_pictures(
    source, options: LabelOptions, left_out: ReadReport | None = None, teacher: Teacher | None = None
) -> list[View]:
    """Read the views that `label_video` labels, and decode them.

    Args:
        source (`str`, `Path` or list): video file, folder of frames, or pictures, see `label_video`.
        options (`LabelOptions`): number and rate of the frames.
        left_out (`ReadReport`, *optional*): list of single pictures that cannot be read, which are left out then;
            without it they are errors.
        teacher (`Teacher`, *optional*): where points come from if the options choose frames by them.
    Returns:
        `list[View]`: views whose `image` is there.
    Raises:
        FileNotFoundError, ImportError, RecordError: as `read_video_views`; RecordError also for a picture that cannot
            be decoded, without `left_out`. TypeError, ValueError, FileNotFoundError: as `to_rgb_image`, for given
            pictures; ValueError also if frames of those are to be chosen. TypeError, ValueError: as `FrameChoice`.
    """

    def skip(error):
        error.field = error.field or "image"
        left_out.skip(error.locate(SOURCE, None, None))

    taken = None if left_out is None else skip
    if isinstance(source, str | Path):
        _warn_of_others(source)
        choice = {"sampling": options.sampling}
        if options.sampling == "space_aware":
            choice |= {"points_from": teacher, "image_size": options.image_size, "patch_size": options.patch_size}
        read = read_video_views(source, options.num_frames, options.fps, taken, **choice)
        views = (View(picture=view.pop("image"), **view) for view in read)
    elif options.sampling is not None:
        raise ValueError(f"sampling is {options.sampling!r}, but pictures are given, which are all labelled.")
    else:
        views = _given_views(source, taken)
    good = []
    for view in views:
        try:
            _ = view.image
        except RecordError as error:
            if taken is None:
                raise
            taken(error)
            continue
        good.append(view)
    return good


def _warn_of_others(source):
    """Say what of a folder is not labelled."""
    if Path(source).is_dir():
        notes = frame_views(source).notes
        if notes:
            logger.warning(f"{source}: {'; '.join(notes)}.")


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
            yield View(picture=_as_given(picture, image), frame_id=index)


def _as_given(picture, image):
    """The upright pixels; what EXIF turns stays as it is, since a depth map may have to be turned with it."""
    picture = str(picture) if isinstance(picture, os.PathLike) else picture
    return np.asarray(image) if picture_orientation(picture).is_upright else picture
