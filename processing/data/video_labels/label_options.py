"""The options of labelling a video, checked before a video is read or a large teacher is loaded."""

import re
from dataclasses import dataclass, field, replace

from ...argument_checks import check_kinds, check_text
from ...frame_sampling_gap_mllm import check_sampling
from ...input_checks_gap_mllm import check_count, check_number, check_positive
from ..former_names import task_name
from ..task_makers import TASK_MAKERS, TaskMargins
from .teacher_windows import plan_windows


DEFAULT_QUESTIONS = {"reconstruction": 8, "point_match": 4, "depth_order": 4, "camera_motion": 4, "farthest_view": 4}
OLD_NAMES = {"correspondence": "point_match"}  # kinds of questions -> their makers
SPLIT_NAME = re.compile(r"\w+(\.\w+)*")  # what datasets takes, and what is safe in the name of a file


@dataclass(frozen=True)
class LabelOptions:
    """How a video is labelled.

    Args:
        num_frames (`int`, defaults to 32): most frames to take, evenly spaced by default.
        fps (`float`, *optional*): frames a second, see `read_video_views`; by default as many as `num_frames`.
        sampling (`str`, *optional*): rule by which frames are taken, see `FrameChoice`; with "space_aware" the teacher
            says what each of 128 candidates sees, and those that see most of the space are labelled.
        window (`int`, defaults to 16), overlap (`int`, defaults to 4): number of views that the teacher sees at a
            time, and how many of them it saw before.
        image_size (`int`, *optional*), patch_size (`int`, *optional*): sizes of the teacher's pictures and patches, in
            pixels; by default those of its config, else VGGT's.
        confidence_threshold (`float`, *optional*): lowest confidence of a pixel, in the teacher's numbers; by default
            the percentile decides.
        confidence_percentile (`float`, defaults to 50): share of all pixels that is too unsure, in percent.
        edge_tolerance (`float`, *optional*): another name of the margins' `edge_bend`.
        max_head_gap (`float`, *optional*): largest gap of the teacher's two heads, see `find_label_pixels`; by default
            they are not compared.
        accept_inconsistent_teacher (`bool`, defaults to False): write labels of a teacher that contradicts itself,
            too; see `TeacherConsistency`. Pixels that other views contradict are left out in any case.
        embed_pictures (`bool`, defaults to True): store the pictures of a folder of frames in the rows, which can then
            be moved without the folder. Otherwise rows hold their paths, and the source "parquet" needs the folder as
            `media_dir`. Frames of a video are always stored.
        views_per_row (`int`, defaults to 8): number of views of a clip; a longer video is divided into several.
        questions_per_clip (`dict[str, int]`, *optional*): number of questions of each of `TASK_MAKERS`; of those not
            named, none. By default `DEFAULT_QUESTIONS`: eight marked pixels and four of each relation.
        margins (`TaskMargins`): how clear a thing must be before it is asked about; by default the task makers' own.
        depth_scale (`float`, defaults to 1000): units of a metre in a folder of depth maps.
        split (`str`, defaults to "train"): name of the split.
        seed (`int`, defaults to 0): same seed, same rows.
        rows_per_shard (`int`, defaults to 512): most rows of a parquet file.
    Raises:
        TypeError: if a value is of another type.
        ValueError: if a value is out of range, or a kind of question is unknown.
    """

    num_frames: int = 32
    fps: float | None = None
    sampling: str | None = None
    window: int = 16
    overlap: int = 4
    image_size: int | None = None
    patch_size: int | None = None
    confidence_threshold: float | None = None
    confidence_percentile: float = 50.0
    edge_tolerance: float | None = None
    max_head_gap: float | None = None
    accept_inconsistent_teacher: bool = False
    embed_pictures: bool = True
    views_per_row: int = 8
    questions_per_clip: dict[str, int] | None = None
    margins: TaskMargins = field(default_factory=TaskMargins)
    depth_scale: float = 1000.0
    split: str = "train"
    seed: int = 0
    rows_per_shard: int = 512

    def __post_init__(self):
        check_kinds(LabelOptions, vars(self))
        for name in ("num_frames", "window", "overlap", "image_size", "patch_size", "rows_per_shard"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.sampling is not None:
            check_sampling(self.sampling)
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
        if self.edge_tolerance is not None:
            object.__setattr__(self, "margins", replace(self.margins, edge_bend=self.edge_tolerance))
        _ = self.questions
        if not SPLIT_NAME.fullmatch(check_text("split", self.split)):
            raise ValueError(f"split is {self.split!r}; expected letters, digits and _, as datasets has it.")

    @property
    def questions(self) -> dict[str, int]:
        """Number of questions of each task maker about a clip; ValueError for an unknown one or a negative number."""
        wanted = DEFAULT_QUESTIONS if self.questions_per_clip is None else self.questions_per_clip
        wanted = {task_name(OLD_NAMES.get(name, name)): number for name, number in wanted.items()}
        if not set(wanted) <= set(TASK_MAKERS) or any(number < 0 for number in wanted.values()):
            raise ValueError(
                f"questions_per_clip is {wanted}; expected numbers of at least 0 for {', '.join(TASK_MAKERS)}."
            )
        return wanted
