"""The options of labelling a video, checked before a video is read or a large teacher is loaded."""

import re
from dataclasses import dataclass, field

from ...argument_checks import check_count, check_kinds, check_number, check_positive, check_text
from .questions import QuestionRules
from .rows import check_questions
from .teacher_windows import plan_windows


SPLIT_NAME = re.compile(r"\w+(\.\w+)*")  # what datasets takes, and what is safe in the name of a file


@dataclass(frozen=True)
class LabelOptions:
    """How a video is labelled.

    Args:
        num_frames (`int`): at most so many frames, evenly spaced.
        fps (`float`, *optional*): frames a second, see `read_video_views`.
        window (`int`), overlap (`int`): views that the teacher sees at a time, and how many of them it saw before.
        image_size (`int`, *optional*), patch_size (`int`, *optional*): of the teacher's pictures; by default those of
            its config, else VGGT's.
        confidence_threshold (`float`, *optional*): lowest confidence of a pixel, in the teacher's numbers.
        confidence_percentile (`float`): instead of a threshold: this share of all pixels is too unsure.
        edge_tolerance (`float`), max_head_gap (`float`, *optional*): see `find_label_pixels`.
        accept_inconsistent_teacher (`bool`): write labels of a teacher that contradicts itself, too; see
            `TeacherConsistency`. Pixels that other views contradict are left out in any case.
        embed_pictures (`bool`): store the pictures of a folder of frames in the rows, which can then be moved without
            the folder. Otherwise rows hold their paths, and the source "parquet" needs the folder as `media_dir`.
            Frames of a video are always stored.
        views_per_row (`int`): a longer video is divided into clips of so many views.
        questions_per_clip (`dict[str, int]`, *optional*): see `make_rows`.
        rules (`QuestionRules`): margins and tolerances.
        depth_scale (`float`): units of a metre in a folder of depth maps.
        split (`str`), seed (`int`): same seed, same rows.
        rows_per_shard (`int`): of a parquet file.
    Raises:
        TypeError: if a value is of another type.
        ValueError: if a value is out of range, or a kind of question is unknown.
    """

    num_frames: int = 32
    fps: float | None = None
    window: int = 16
    overlap: int = 4
    image_size: int | None = None
    patch_size: int | None = None
    confidence_threshold: float | None = None
    confidence_percentile: float = 50.0
    edge_tolerance: float = 0.05
    max_head_gap: float | None = None
    accept_inconsistent_teacher: bool = False
    embed_pictures: bool = True
    views_per_row: int = 8
    questions_per_clip: dict[str, int] | None = None
    rules: QuestionRules = field(default_factory=QuestionRules)
    depth_scale: float = 1000.0
    split: str = "train"
    seed: int = 0
    rows_per_shard: int = 512

    def __post_init__(self):
        check_kinds(LabelOptions, vars(self))
        for name in ("num_frames", "window", "overlap", "image_size", "patch_size", "rows_per_shard"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        plan_windows(2, self.window, self.overlap)
        check_count("views_per_row", self.views_per_row, least=2)
        check_count("seed", self.seed, least=0)
        for name in ("fps", "depth_scale"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        for name in ("edge_tolerance", "max_head_gap"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), least=0)
        if self.confidence_threshold is not None:
            check_number("confidence_threshold", self.confidence_threshold)
        check_number("confidence_percentile", self.confidence_percentile, least=0, most=100)
        if self.questions_per_clip is not None:
            check_questions(self.questions_per_clip)
        if not SPLIT_NAME.fullmatch(check_text("split", self.split)):
            raise ValueError(f"split is {self.split!r}; expected letters, digits and _, as datasets has it.")


__all__ = ["LabelOptions"]
