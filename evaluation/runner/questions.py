"""The questions of a benchmark: loaded and checked before any model is, and read again one by one when they are asked.

Rows hold paths or stored bytes; pictures are decoded only where a batch needs them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...processing.data.loading import load_multiview
from ...processing.data.scene_sample import SceneSample
from ...processing.data.source_files import stored_header
from ...processing.data.video_frames import read_video_views
from ...processing.frame_sampling_gap_mllm import FrameChoice
from ...processing.prompts_gap_mllm import IMAGE_TAG, TASKS, build_messages
from ..benchmarks import Benchmark
from .fingerprints import fingerprints


_TAG = re.compile(rf"(?:Frame-\d+: ?)?{re.escape(IMAGE_TAG)}\n?")


class QuestionSet:
    """Questions in the benchmark's order, as samples with views.

    Args:
        rows (`datasets.Dataset`): rows with the fields of the schema.
        num_frames (`int`, defaults to 32): frames to take of a row that names a video and has no views.
    Raises:
        ValueError: if there are no rows, or two share an id.
    """

    def __init__(self, rows, num_frames: int = 32):
        self._rows, self.frames = rows.with_format("arrow"), FrameChoice(num_frames)
        self.ids = list(rows.with_format(None)["id"]) if len(rows) else []
        if not self.ids:
            raise ValueError("the benchmark has no questions: no row of its tasks is in the data.")
        self._places = {row_id: place for place, row_id in enumerate(self.ids)}
        if len(self._places) != len(self.ids):
            twice = sorted({row_id for row_id in self.ids if self.ids.count(row_id) > 1})
            raise ValueError(f"ids must be unique, but these are there twice or more: {', '.join(twice[:10])}.")

    def __len__(self):
        return len(self.ids)

    def __iter__(self):
        return (self.sample(row_id) for row_id in self.ids)

    def without_pictures(self) -> list[SceneSample]:
        """All questions at once, without pictures, which together may not fit into memory."""
        samples = []
        for sample in self:
            views = tuple(replace(view, picture=None, depth_picture=None) for view in sample.views)
            samples.append(replace(sample, views=views))
        return samples

    def sample(self, row_id: str, with_frames: bool = False) -> SceneSample:
        """Return a question by its id; `with_frames` reads the views of a video."""
        row = self._rows[self._places[row_id]].to_pylist()[0]
        if with_frames and not row["views"] and row["video"]:
            row["views"] = _video_views(row["video"], self.frames)
        return SceneSample.from_row(row)

    def select(self, ids: Sequence[str]) -> "QuestionSet":
        """The questions of some ids, in this set's order."""
        wanted = set(ids)
        places = [place for place, row_id in enumerate(self.ids) if row_id in wanted]
        selected = QuestionSet(self._rows.select(places))
        selected.frames = self.frames
        return selected

    def save(self, folder: str | Path) -> None:
        """Write the rows as `datasets.load_from_disk` reads them; pictures that are paths stay where they are."""
        self._rows.with_format(None).save_to_disk(str(folder))

    def choose_frames(self, sampling: str | None, points_from: Callable | None = None) -> None:
        """Take the frames of videos by another rule; arguments and errors are those of `FrameChoice`.

        Raises:
            TypeError, ValueError: as there; ValueError also if no question shows a video.
        """
        if not any(sample.video and not sample.views for sample in self):
            raise ValueError(f"sampling is {sampling!r}, but no question shows a video whose frames are to be chosen.")
        self.frames = FrameChoice(self.frames.num_frames, sampling=sampling, points_from=points_from)

    def fingerprints(self) -> dict[str, str]:
        """Hashes of questions, pictures, geometry and truths, by which other data under the same name is told."""
        return fingerprints(row for table in self._rows.iter(batch_size=1) for row in table.to_pylist())


def load_questions(
    benchmark: Benchmark,
    data_dir: str | Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    refresh: bool = False,
    **options,
):
    """Load the questions of a benchmark and check that what they speak of is there.

    Args:
        benchmark (`Benchmark`)
        data_dir (`str` or path, *optional*): folder of the data, see `load_multiview`.
        split (`str`, *optional*): instead of the benchmark's.
        limit (`int`, *optional*): an even subset of so many, see `even_subset`.
        seed (`int`, defaults to 0): seed of the subset.
        cache_dir (`str` or path, *optional*), refresh (`bool`, defaults to False), **options: arguments of
            `load_multiview`, over the benchmark's.
    Returns:
        `tuple[QuestionSet, int]`: the questions to ask, and how many there are in all.
    Raises:
        ValueError: if limit is below 1, ids repeat, nothing is there, or the answer to a question could not be scored.
            RecordError, FileNotFoundError: on bad or missing data; missing videos are listed.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; expected at least 1.")
    rows = load_multiview(
        benchmark.source,
        data_dir,
        split=split or benchmark.split,
        tasks=benchmark.tasks,
        cache_dir=cache_dir,
        refresh=refresh,
        **{**benchmark.options, **options},
    )
    questions = QuestionSet(rows, benchmark.num_frames)
    total = len(questions)
    if limit is not None and limit < total:
        questions = questions.select(even_subset(questions.ids, limit, seed))
    without = [sample.id for sample in questions if not sample.views and not sample.video]
    if without:
        raise ValueError(
            f"{len(without)} of {len(questions)} questions have no views ({', '.join(without[:3])}): source "
            f"{benchmark.source!r} found no pictures of their scenes. Give its option that names their folder, "
            "as posed_root=DIR."
        )
    if benchmark.check is not None:
        for sample in questions:
            benchmark.check(sample)
    return questions, total


def even_subset(ids: Sequence[str], limit: int, seed: int = 0) -> list[str]:
    """Choose `limit` ids evenly over their order: one from each of so many equal parts, drawn by the seed."""
    bounds = np.linspace(0, len(ids), limit + 1)
    draws = np.random.default_rng(seed).random(limit)
    places = (bounds[:-1] + draws * (bounds[1:] - bounds[:-1])).astype(int)
    return [ids[place] for place in np.unique(places)] if limit < len(ids) else list(ids)


@lru_cache(maxsize=4)
def _video_views(path, frames):
    return read_video_views(path, **vars(frames))


def view_shape(sample: SceneSample) -> tuple:
    """Width and height of each view, read from the headers; of a video its path, which stands for its size."""
    if not sample.views:
        return ("video", sample.video) if sample.video else ()
    return tuple(stored_header(view.picture)[0] for view in sample.views)


def question_messages(sample: SceneSample, images: Sequence) -> list[dict]:
    """Chat messages of a question with these pictures, in the form that the model was trained with.

    Args:
        sample (`SceneSample`)
        images (`list`): views, as many as the sample has views, or fewer: the first ones; `<image>` tags left over go.
    Returns:
        `list[dict]`.
    """
    question = sample.question or ""
    count = question.count(IMAGE_TAG)
    if count > len(images):
        question = drop_tags(question, len(images))
    if IMAGE_TAG in question or sample.task not in TASKS or not images:
        return replace(sample, question=question).messages(images=images, with_answer=False)
    system = {"system": sample.system} if sample.system else {}
    return build_messages(sample.task, images, prompt=question, **system)


def drop_tags(question: str, keep: int) -> str:
    """Remove all `<image>` tags but the first `keep`, with the "Frame-3: " before them."""
    places = list(_TAG.finditer(question))
    for match in reversed(places[keep:]):
        question = question[: match.start()] + question[match.end() :]
    return question
