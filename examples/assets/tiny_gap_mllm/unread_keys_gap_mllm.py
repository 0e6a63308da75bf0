"""Keys in the parts of a chat that nothing reads, as those of qwen_vl_utils: what to give in their place is told."""

from collections.abc import Iterable

from transformers.utils import logging


logger = logging.get_logger(__name__)

# qwen_vl_utils' keys, which it reads before a processor comes into play
FRAME_KEYS = ("fps", "nframes", "num_frames", "min_frames", "max_frames", "video_start", "video_end")
FRAME_KEYS += ("sample_fps", "raw_fps")
SIZE_KEYS = ("min_pixels", "max_pixels", "total_pixels", "resized_height", "resized_width")
READ_KEYS = {
    "image": ("image", "url", "path", "base64", "image_url"),
    "image_url": ("image", "url", "path", "base64", "image_url"),
    "video": ("video", "url", "path"),
}


def warn_of_unread_keys(parts: Iterable[dict]) -> None:
    """Warn of keys in the parts of a chat that choose no frames, set no size, or are not read at all.

    Args:
        parts (iterable of `dict`): parts of all turns; None for a key says that it is not given.
    """
    unread = {key for part in parts for key in _unread(part)}
    frames, sizes = sorted(unread.intersection(FRAME_KEYS)), sorted(unread.intersection(SIZE_KEYS))
    others = sorted(unread.difference(FRAME_KEYS, SIZE_KEYS))
    if frames:
        logger.warning_once(
            f"{', '.join(frames)} in the parts of a chat choose no frames: pass processor_kwargs, as "
            "{'num_frames': 16} or {'fps': 2}, for all videos of a call; to ask() these go as num_frames=16 or fps=2."
        )
    if sizes:
        logger.warning_once(
            f"{', '.join(sizes)} in the parts of a chat set no size: pass processor_kwargs, as {{'size': "
            "{'shortest_edge': 176 * 32 * 32, 'longest_edge': 518 * 392}}, the fewest and most pixels of each picture "
            "of a call; for ask(), which has none, set processor.image_processor.size or load the processor with it."
        )
    if others:
        logger.warning_once(f"{', '.join(others)} in the parts of a chat are not read and change nothing.")


def _unread(part):
    """Keys of a part that are given and not read; those of a nested address, as OpenAI writes it, too."""
    read = READ_KEYS.get(part.get("type"))
    if read is None:
        return []
    address = part.get("image_url")
    nested = [key for key in address if key != "url"] if isinstance(address, dict) else []
    given = [key for key, value in part.items() if value is not None]
    return nested + [key for key in given if key not in (*read, "type", "text")]


__all__ = ["FRAME_KEYS", "SIZE_KEYS", "warn_of_unread_keys"]
