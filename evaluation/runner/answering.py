"""Get the answers of all arms: what no batch file holds yet is asked, by this process its share of whole batches."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from ...processing.asking_gap_mllm import Asker
from ..benchmarks import Benchmark
from .arms import MODEL, answer_batch
from .files import batch_file, pending_batches, read_answers, write_jsonl
from .models import load_model
from .processes import Processes
from .questions import QuestionSet


@dataclass(frozen=True)
class Job:
    """What is to be answered, and by what.

    Args:
        benchmark (`Benchmark`), questions (`QuestionSet`)
        batches (`list[list[str]]`): ids of the plan's batches.
        batch_size (`int`): chats of one call of generate().
        folders (`dict[str, Path]`): folder of the model, and of the one without geometry.
        partners (`dict[str, str]`, *optional*): see `choose_partners`.
        output (`Path`): the folder of the run.
        device (`torch.device`), dtype (`str`): device and kind of number of the model.
    """

    benchmark: Benchmark
    questions: QuestionSet
    batches: list
    batch_size: int
    folders: dict
    partners: dict | None
    output: Path
    device: torch.device
    dtype: str


def answer_arms(job: Job, arms: Sequence[str], processes: Processes, show_progress: bool = True):
    """Answer what no batch file holds yet, one arm after the other.

    Args:
        job (`Job`), arms (`list[str]`), processes (`Processes`), show_progress (`bool`)
    Returns:
        `tuple[dict, dict]`: the answers of each arm by id, and how long each took; both empty but in the main process.
    """
    timing, asker, loaded = {}, None, None
    for arm in arms:
        started = time.perf_counter()
        count = len(job.batches)
        pending = processes.share(pending_batches(job.output, arm, count) if processes.is_main else None)
        folder = job.folders[arm if arm in job.folders else MODEL]
        if pending and loaded != folder:
            asker, loaded = None, folder  # one model at a time in memory
            asker = Asker(*load_model(folder, job.device, job.dtype))
        mine = pending[processes.rank :: processes.count]
        for number in tqdm(mine, desc=arm, unit="batch", disable=not (show_progress and processes.is_main)):
            write_jsonl(batch_file(job.output, arm, number), _answer(job, arm, asker, job.batches[number]))
        processes.wait()
        timing[arm] = {"seconds": round(time.perf_counter() - started, 3), "batches": len(pending), "of": count}
    if not processes.is_main:
        return {}, {}
    return {arm: read_answers(job.output, arm, job.batches) for arm in arms}, timing


def _answer(job, arm, asker, ids):
    bench = job.benchmark
    if bench.ask is None:
        return answer_batch(arm, asker, bench.forms[0], job.questions, ids, job.partners)
    samples = [job.questions.sample(row_id, with_frames=arm != "blind") for row_id in ids]
    partner = job.questions.sample(job.partners[ids[0]], with_frames=True) if arm == "other_geometry" else None
    return bench.ask(arm, asker, bench.forms, samples, partner, job.batch_size)


__all__ = ["Job", "answer_arms"]
