"""The constant baseline: one answer to all questions of a kind, fitted on the training split where there is one."""

from pathlib import Path

from transformers.utils import logging

from ...processing.data.record_errors import RecordError
from ..benchmarks import Benchmark
from .questions import QuestionSet, load_questions


logger = logging.get_logger(__name__)
MAX_TRAINING_QUESTIONS = 2000
TRAIN = "train"


def constant_answers(
    benchmark: Benchmark,
    asked: QuestionSet,
    data_dir: str | Path | None = None,
    split: str | None = None,
    cache_dir: str | Path | None = None,
    refresh: bool = False,
    **options,
):
    """Answer all questions blindly.

    Args:
        benchmark (`Benchmark`), asked (`QuestionSet`)
        data_dir, split, cache_dir, refresh, **options: arguments of `load_questions`.
    Returns:
        `tuple[dict[str, dict], str]`: answers by id, and what they were fitted on.
    """
    fitted_on, note = None, ""
    if (split or benchmark.split) != TRAIN:
        try:
            fitted_on, total = load_questions(
                benchmark, data_dir, TRAIN, MAX_TRAINING_QUESTIONS, 0, cache_dir, refresh, **options
            )
            note = f"{len(fitted_on)} of {total} questions of the training split"
        except (ValueError, FileNotFoundError, RecordError) as error:
            logger.warning(f"{benchmark.name}: no training split to fit the constant answer on ({error})")
    if fitted_on is None:
        fitted_on, note = asked, "the asked questions themselves, for want of a training split: an upper bound"
    answer = benchmark.constant(fitted_on.without_pictures())
    return {sample.id: {"id": sample.id, "text": answer(sample)} for sample in asked}, note
