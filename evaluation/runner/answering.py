"""Get the answers of the model and its baselines: each process asks its share of the batches that have no file yet."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from ...processing.asking_gap_mllm import Asker
from ..benchmarks import Benchmark
from .baseline_answers import MODEL, answer_batch
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
        device (`torch.device`), dtype (`str`), attn_implementation (`str` or `dict`, *optional*): arguments of
            `load_model`.
        constrained (`bool`, defaults to False): argument of `Asker`.
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
    attn_implementation: str | dict | None = None
    constrained: bool = False


def answer_all(job: Job, baselines: Sequence[str], processes: Processes, show_progress: bool = True):
    """Answer what no batch file holds yet, one baseline after the other.

    Args:
        job (`Job`), baselines (`list[str]`, with `MODEL`), processes (`Processes`), show_progress (`bool`, defaults to
            True)
    Returns:
        `tuple[dict, dict]`: the answers of each by id, and how long each took; both empty but in the main process.
    """
    timing, asker, loaded = {}, None, None
    for baseline in baselines:
        started = time.perf_counter()
        count = len(job.batches)
        pending = processes.share(pending_batches(job.output, baseline, count) if processes.is_main else None)
        folder = job.folders[baseline if baseline in job.folders else MODEL]
        if pending and loaded != folder:
            asker, loaded = None, folder  # one model at a time in memory
            model, processor = load_model(folder, job.device, job.dtype, job.attn_implementation)
            asker = Asker(model, processor, job.constrained)
        mine = pending[processes.rank :: processes.count]
        for number in tqdm(mine, desc=baseline, unit="batch", disable=not (show_progress and processes.is_main)):
            write_jsonl(batch_file(job.output, baseline, number), _answer(job, baseline, asker, job.batches[number]))
        processes.wait()
        timing[baseline] = {"seconds": round(time.perf_counter() - started, 3), "batches": len(pending), "of": count}
    if not processes.is_main:
        return {}, {}
    return {baseline: read_answers(job.output, baseline, job.batches) for baseline in baselines}, timing


def _answer(job, baseline, asker, ids):
    bench = job.benchmark
    if bench.ask is None:
        return answer_batch(baseline, asker, bench.forms[0], job.questions, ids, job.partners)
    samples = [job.questions.sample(row_id, with_frames=baseline != "blind") for row_id in ids]
    partner = job.questions.sample(job.partners[ids[0]], with_frames=True) if baseline == "other_geometry" else None
    return bench.ask(baseline, asker, bench.forms, samples, partner, job.batch_size)


__all__ = ["Job", "answer_all"]
