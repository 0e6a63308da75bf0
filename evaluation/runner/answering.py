"""Get the answers of the model and its baselines: each process asks its share of the batches that have no file yet."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from ...model_loading import load_processor
from ...processing.asking_gap_mllm import Asker
from ..benchmarks import Benchmark
from .baseline_answers import MODEL, answer_batch
from .files import batch_file, pending_batches, read_answers, write_jsonl
from .models import load_model
from .processes import Processes
from .questions import QuestionSet
from .request_sizes import measure_requests
from .vllm_engine import VllmAsker


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
        engine (`str`, defaults to "transformers"), engine_options (`dict`, defaults to none): what generates, and
            arguments of `vllm.LLM`.
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
    engine: str = "transformers"
    engine_options: dict = field(default_factory=dict)


def answer_all(job: Job, baselines: Sequence[str], processes: Processes, show_progress: bool = True):
    """Answer what no batch file holds yet, one baseline after the other.

    Args:
        job (`Job`), baselines (`list[str]`, with `MODEL`), processes (`Processes`), show_progress (`bool`, defaults to
            True)
    Returns:
        `tuple[dict, dict]`: the answers of each by id, and how long each took; both empty but in the main process.
    """
    timing, models = {}, _Models(job)
    try:
        for baseline in baselines:
            timing[baseline] = _answer_one(job, baseline, models, processes, show_progress)
    finally:
        models.close()
    if not processes.is_main:
        return {}, {}
    return {baseline: read_answers(job.output, baseline, job.batches) for baseline in baselines}, timing


def _answer_one(job, baseline, models, processes, show_progress):
    """Answer what one baseline lacks, and tell how long it took."""
    started, count = time.perf_counter(), len(job.batches)
    pending = processes.share(pending_batches(job.output, baseline, count) if processes.is_main else None)
    asker = models.asker(job.folders[baseline if baseline in job.folders else MODEL]) if pending else None
    asking, answered = time.perf_counter(), 0
    mine = pending[processes.rank :: processes.count]
    for number in tqdm(mine, desc=baseline, unit="batch", disable=not (show_progress and processes.is_main)):
        answers = _answer(job, baseline, asker, job.batches[number])
        write_jsonl(batch_file(job.output, baseline, number), answers)
        answered += len(answers)
    asking = time.perf_counter() - asking
    processes.wait()
    timing = {"seconds": round(time.perf_counter() - started, 3), "batches": len(pending), "of": count}
    if answered:  # of this process, loading left out
        timing["questions_per_second"] = round(answered / asking, 3)
    return timing


class _Models:
    """The models of a run, of which one is in memory at a time: the one before is gone when the next is loaded."""

    def __init__(self, job):
        self.job, self.folder, self._asker = job, None, None

    def asker(self, folder):
        if self.folder != folder:
            self.close()
            self.folder, self._asker = folder, _load_asker(self.job, folder)
        return self._asker

    def close(self):
        asker, self.folder, self._asker = self._asker, None, None
        if isinstance(asker, VllmAsker):
            asker.close()


def _load_asker(job, folder):
    if job.engine == "vllm":
        processor = load_processor(folder)
        requests = measure_requests(job.benchmark, job.questions, processor)
        return VllmAsker(folder, processor, job.dtype, job.batch_size, requests, job.engine_options, job.device)
    model, processor = load_model(folder, job.device, job.dtype, job.attn_implementation)
    return Asker(model, processor, job.constrained)


def _answer(job, baseline, asker, ids):
    bench = job.benchmark
    if bench.ask is None:
        return answer_batch(baseline, asker, bench.forms[0], job.questions, ids, job.partners)
    samples = [job.questions.sample(row_id, with_frames=baseline != "blind") for row_id in ids]
    partner = job.questions.sample(job.partners[ids[0]], with_frames=True) if baseline == "other_geometry" else None
    return bench.ask(baseline, asker, bench.forms, samples, partner, job.batch_size)
