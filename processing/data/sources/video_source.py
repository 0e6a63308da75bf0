"""What sources of videos share: where videos are, which are missing, and their frames as views."""

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

from ...input_checks_gap_mllm import find_half
from ..read_log import TrackedPath
from ..record_errors import RecordError
from ..source_builder import SceneSourceBuilder
from ..source_files import find_file
from ..video_frames import read_video_views


class VideoSource(SceneSourceBuilder):
    """Base of the sources whose records name videos by paths below `media_dir`, an option of their configs.

    Strict reading lists all videos of a file that are missing before it makes the first row. Rows name their video;
    with `max_views` its frames are decoded and stored as views.
    """

    VIDEO_FOLDERS = ("",)  # below data_dir, where paths may start from; a media_dir that is given has none

    @property
    def media(self) -> Path:
        """The folder that the paths of records start from."""
        return TrackedPath(self.config.media_dir) if self.config.media_dir else self.root

    @property
    def video_folders(self) -> tuple[str, ...]:
        """The folders below `media` where a path is looked for."""
        return ("",) if self.config.media_dir else self.VIDEO_FOLDERS

    def names_of_videos(self, record: dict) -> Iterable:
        """What a record names as its videos, right or wrong."""
        return [record["video"]] if "video" in record else []

    def prepare_file(self, split: str, file: Path):
        """Refuse a file whose videos are missing, unless bad samples are left out."""
        if not self.config.skip_bad_samples:
            records = (record for _, record in self.records(file, skip=lambda error: None))
            named = (name for record in records if isinstance(record, dict) for name in self.names_of_videos(record))
            refuse_missing_videos(named, self.media, self.video_folders, file)

    def video_fields(self, name: str) -> dict:
        """The fields `video` and `views` of a row; RecordError if the video is missing or damaged."""
        path = find_video(self.media, name, self.video_folders)
        return {"video": path, "views": self._video_views(path) if self.config.max_views else []}

    @cached_property
    def _video_views(self):
        """Views of a video; several questions share one."""
        return lru_cache(maxsize=16)(lambda path: read_video_views(path, self.config.max_views))


def find_video(root: Path, name: str, prefixes: tuple[str, ...]) -> str:
    """The absolute path of a video, or of a folder of frames, that a record names; RecordError if it is missing."""
    return str(find_file(root, name, prefixes=prefixes, field="video").absolute())


def refuse_missing_videos(names: Sequence[str], root: Path, prefixes: tuple[str, ...], file: Path) -> None:
    """Raise one RecordError that lists all missing videos of a file, before anything is made of its records.

    Args:
        names (iterable of `str`): the videos that records name, with repetitions.
        root, prefixes: arguments of `find_file`.
        file (`Path`): file that errors name.
    Raises:
        RecordError: if any is missing, with field "video".
    """
    # What is no path at all is refused with its own record.
    paths = (name for name in names if isinstance(name, str) and find_half(name) is None)
    distinct, missing = list(dict.fromkeys(paths)), []
    for name in distinct:
        try:
            find_video(root, name, prefixes)
        except RecordError:
            missing.append(name)
    if missing:
        raise RecordError(
            f"{len(missing)} of {len(distinct)} videos are not there: {', '.join(missing)}. They are looked "
            f"for in {', '.join(str(Path(root) / prefix) for prefix in prefixes)}. Make or link them there, or pass "
            "skip_bad_samples=True to read the records whose videos exist.",
            "video",
            file=str(file),
        )
