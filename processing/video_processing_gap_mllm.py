"""Qwen3-VL's video processor without torchvision, and videos of any form as the frames that it takes.

Everything about pixels, patches and the default choice of frames is Qwen3-VL's; only what it does by torchvision is
done in torch here, whether that is installed or not, so that both give the same inputs.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .frame_sampling_gap_mllm import FrameChoice
from .input_checks_gap_mllm import check_positive
from .video_decoding_gap_mllm import VideoFile, VideoFrame, frame_rate
from .visual_prompt_gap_mllm import to_rgb_image


RESAMPLING = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}
CHOICE_OPTIONS = ("num_frames", "fps", "sampling", "points_from", "num_candidates")


class _TorchVideoProcessor(BaseVideoProcessor):
    """What transformers does by torchvision, in torch; it stands behind Qwen3-VL's class, whose super() it is."""

    def fetch_videos(self, video_url_or_urls, sample_indices_fn=None):
        """As in transformers, but read by `VideoFile`: upright, of square pixels, in the colours that files state."""
        if isinstance(video_url_or_urls, list):
            read = [self.fetch_videos(entry, sample_indices_fn) for entry in video_url_or_urls]
            return [list(part) for part in zip(*read, strict=True)]

        def choose(seconds):
            known = VideoMetadata(len(seconds), fps=frame_rate(seconds))
            return list(range(len(seconds))) if sample_indices_fn is None else list(sample_indices_fn(metadata=known))

        frames, known = _read_file(video_url_or_urls, "the video", choose)
        known = VideoMetadata(**known, frames_indices=[frame.index for frame in frames])
        return np.stack([np.asarray(frame.image) for frame in frames]), known

    def convert_to_rgb(self, video: torch.Tensor) -> torch.Tensor:
        return video.expand(-1, 3, -1, -1)  # (T, 1 or 3, H, W)

    def resize(self, image: torch.Tensor, size, resample=None, **kwargs) -> torch.Tensor:
        if resample not in RESAMPLING:
            raise ValueError(f"resample of the video processor is {resample!r}; expected bilinear (2) or bicubic (3).")
        frames = image.flatten(0, 1)  # (videos * T, 3, H, W)
        is_rounded = frames.dtype == torch.uint8 and frames.device.type != "cpu"  # only the CPU resizes bytes
        resized = torch.nn.functional.interpolate(
            frames.float() if is_rounded else frames,
            (size.height, size.width),
            mode=RESAMPLING[resample],
            antialias=True,
        )
        resized = resized.round().clamp(0, 255).to(torch.uint8) if is_rounded else resized
        return resized.unflatten(0, image.shape[:2])

    def normalize(self, image: torch.Tensor, mean, std, inplace: bool = False, **kwargs) -> torch.Tensor:
        mean, std = (torch.as_tensor(part, dtype=image.dtype, device=image.device) for part in (mean, std))
        return (image - mean[:, None, None]) / std[:, None, None]


class GapMllmVideoProcessor(Qwen3VLVideoProcessor, _TorchVideoProcessor):
    """`Qwen3VLVideoProcessor` that needs no torchvision; saved under that name, which any stack knows.

    It takes decoded frames, or files, whose frames are read as `VideoFile` does; `GapMllmProcessor` chooses them in
    more ways. Its settings are those of the class it stands for.
    """

    cap_pixels_per_frame = False  # what Qwen3VLVideoProcessor does where nothing is said, without its warning

    def to_dict(self) -> dict:
        saved = super().to_dict()
        if not saved.get("cap_pixels_per_frame"):
            saved.pop("cap_pixels_per_frame", None)
        return {**saved, "video_processor_type": "Qwen3VLVideoProcessor"}


@dataclass
class ClipMetadata(VideoMetadata):
    """What transformers knows of a video, and the exact times of the frames chosen, in seconds since frame 0."""

    seconds: list[float] | None = None


def read_clips(
    videos, processor: Qwen3VLVideoProcessor, metadata: Sequence | VideoMetadata | dict | None = None, **options
) -> tuple[list[np.ndarray], list[ClipMetadata]]:
    """Read videos of any form, and choose their frames.

    Args:
        videos: video files, lists of frames (PIL, arrays, or paths of pictures) or arrays of frames, nested as the
            chats that show them.
        processor (`Qwen3VLVideoProcessor`): video processor, whose rule chooses the frames unless `sampling` is given.
        metadata (`VideoMetadata`, `dict`, or list, *optional*): an entry for each video that is given as frames, with
            `fps`, and `frames_indices` where they are a choice of a video's frames already: these are taken as they
            are unless `options` ask for fewer. Times are `frames_indices / fps`, or `seconds` where they are given.
            None for files.
        **options: `do_sample_frames`, and the fields of `FrameChoice` in `CHOICE_OPTIONS`.
    Returns:
        `tuple[list[np.ndarray], list[ClipMetadata]]`: frames `(T, H, W, 3)`, RGB of 8 bits, and their times.
    Raises:
        ValueError: if a video is a URL, has fewer frames than a temporal patch, frames of unlike sizes, or came as
            frames without a frame rate, if metadata do not fit the frames or each other, or if a choice comes with
            `do_sample_frames=False`.
        TypeError, ValueError: as `FrameChoice` and `to_rgb_image`. ImportError, FileNotFoundError: as `VideoFile`.
    """
    videos = _as_videos(videos)
    given = metadata if isinstance(metadata, list | tuple) else [metadata] * len(videos)
    given = [entry for part in given for entry in (part if isinstance(part, list | tuple) else [part])]
    if len(given) != len(videos):
        raise ValueError(f"video_metadata has {len(given)} entries for {len(videos)} videos; give one for each.")
    clips = [
        _read_clip(video, entry, f"video {index}", processor, **options)
        for index, (video, entry) in enumerate(zip(videos, given, strict=True))
    ]
    return [frames for frames, _ in clips], [entry for _, entry in clips]


def _read_clip(video, metadata, name, processor, do_sample_frames=None, **options):
    options = {key: value for key, value in options.items() if value is not None}
    has_rule = not {"sampling", "points_from", "num_candidates"}.isdisjoint(options)
    checked = FrameChoice(**options) if options else None  # its numbers, also for Qwen3-VL's rule
    choice = checked if has_rule else None
    if options and do_sample_frames is False:
        raise ValueError(f"do_sample_frames is False, which takes all frames, but {', '.join(options)} came with it.")

    def choose(seconds, fps=None, is_chosen=False):
        is_asked = do_sample_frames or (do_sample_frames is None and processor.do_sample_frames)
        keeps_all = not options and (is_chosen or not is_asked)
        rate = fps or frame_rate(seconds)
        if do_sample_frames is False or keeps_all or (choice is None and rate is None):
            return list(range(len(seconds)))
        if choice is not None:
            return choice.candidates(seconds)
        return processor.sample_frames(VideoMetadata(len(seconds), fps=rate), **options).tolist()

    if isinstance(video, str | os.PathLike):
        frames, known = _read_file(video, name, choose)
    else:
        frames, known = _read_given(video, metadata, name, choose)
    if choice is not None:
        frames = [frames[place] for place in choice.narrow(frame.image for frame in frames)]
    least, sizes = processor.temporal_patch_size, {frame.image.size for frame in frames}
    if len(frames) < least:
        raise ValueError(
            f"{name} has {len(frames)} frame to show; expected {least} or more. Show a single frame as an image."
        )
    if len(sizes) > 1:
        raise ValueError(f"{name} has frames of {len(sizes)} sizes, {sorted(sizes)}; expected one.")
    width, height = frames[0].image.size
    return np.stack([np.asarray(frame.image) for frame in frames]), ClipMetadata(
        **known,
        width=width,
        height=height,
        frames_indices=[frame.index for frame in frames],
        seconds=[frame.timestamp for frame in frames],
    )


def _read_file(video, name, choose):
    """The chosen frames of a file, and what is known of the whole video."""
    if str(video).startswith(("http://", "https://")):
        raise ValueError(f"{name} is the URL {video}; download it, and give the path of the file.")
    path = video.removeprefix("file://") if isinstance(video, str) else video
    if os.path.isdir(path):
        raise FileNotFoundError(
            f"{name} is the folder {path}; expected a video file, or the paths of its frames as a list, with "
            "video_metadata=[{'fps': frames per second}]."
        )
    frames, seconds = VideoFile(path).read(choose)
    return frames, {"total_num_frames": len(seconds), "fps": frame_rate(seconds)}


def _read_given(video, metadata, name, choose):
    """The frames to show of those given, and what the metadata say of the whole video."""
    metadata = dict(metadata or {})
    if metadata.get("fps") is None:
        raise ValueError(
            f"{name} came as frames without a frame rate, by which the prompt tells their times. Pass video_metadata="
            "[{'fps': frames per second of the video}], with 'frames_indices' if they are a choice of its frames; or "
            "show them as images."
        )
    fps = check_positive("fps of video_metadata", metadata["fps"])
    indices, seconds = _given_places(metadata, len(video), name), metadata.get("seconds")
    total = _given_total(metadata, indices, len(video), name)
    is_whole = metadata.get("total_num_frames") is not None and indices == list(range(total))
    is_chosen = not is_whole and (indices is not None or seconds is not None)
    indices = list(range(len(video))) if indices is None else indices
    seconds = [index / fps for index in indices] if seconds is None else _ascending("seconds", seconds, name)
    if len(seconds) != len(video):
        raise ValueError(f"{name} has {len(video)} frames, but its seconds are {len(seconds)}.")
    _check_duration(metadata.get("duration"), seconds, fps, name)
    frames = [
        VideoFrame(indices[place], seconds[place], to_rgb_image(video[place], f"frame {place} of {name}"))
        for place in (choose(seconds, is_chosen=True) if is_chosen else choose(seconds, fps))
    ]
    return frames, {"total_num_frames": total, "fps": fps}


def _given_places(metadata, num_frames, name):
    """The places of the given frames in their video; None where they are all of it."""
    if metadata.get("frames_indices") is None:
        return None
    indices = _ascending("frames_indices", metadata["frames_indices"], name)
    if any(index != int(index) for index in indices):
        raise ValueError(f"frames_indices of {name} are {indices}; expected whole numbers.")
    if len(indices) != num_frames:
        raise ValueError(f"{name} has {num_frames} frames, but its frames_indices are {len(indices)}.")
    return [int(index) for index in indices]


def _ascending(field, values, name):
    """Numbers of metadata, one for each frame; refused where they do not grow from 0 or more."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any() or (np.diff(values) <= 0).any():
        raise ValueError(
            f"{field} of {name} are {values.tolist()}; expected a number from 0 for each frame, ascending, each once."
        )
    return values.tolist()


def _given_total(metadata, indices, num_frames, name):
    """Number of frames of the whole video; refused where it does not fit the frames that came."""
    last = indices[-1] if indices else num_frames - 1
    if metadata.get("total_num_frames") is None:
        return last + 1
    total = int(metadata["total_num_frames"])
    lacks_places = indices is None and metadata.get("seconds") is None
    if last >= total or (lacks_places and num_frames != total):
        raise ValueError(
            f"{name} came as {num_frames} frames up to number {last}, but its total_num_frames is {total}. Give there "
            "how many frames the whole video has, and as frames_indices which of them these are, from 0."
        )
    return total


def _check_duration(duration, seconds, fps, name):
    """Refuse times beyond the end of the video, but for a frame and a twentieth: rates of files are rounded."""
    if duration and seconds and seconds[-1] > 1.05 * check_positive("duration of video_metadata", duration) + 1 / fps:
        raise ValueError(
            f"the last frame of {name} is at {seconds[-1]:g} s, by {fps:g} frames a second, but its duration is "
            f"{duration:g} s. fps is the rate of the whole video, and frames_indices are places in it."
        )


def _as_videos(videos, depth: int = 0) -> list:
    """Videos of any nesting as a flat list of files and of sequences of frames.

    A list of texts is one of files; below the two levels of chats and their videos it is the frames of one.
    """
    if isinstance(videos, str | os.PathLike):
        return [videos]
    if isinstance(videos, np.ndarray | torch.Tensor):
        return [videos] if videos.ndim == 4 else list(videos)
    if videos and isinstance(videos[0], Image.Image):
        return [videos]
    if videos and isinstance(videos[0], np.ndarray | torch.Tensor) and videos[0].ndim == 3:
        return [videos]
    if depth == 2 and all(isinstance(entry, str | os.PathLike) for entry in videos):
        return [videos]
    return [video for entry in videos for video in _as_videos(entry, depth + 1)]
