"""`evaluate_model`: one benchmark, one model and what stands beside it, from the questions to a folder of results.

Questions are loaded and checked first (questions.py), then planned (plan.py), answered batch by batch (answering.py),
merged and scored (results.py).
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from transformers.utils import logging

from ...model_loading import check_weight_files, model_folder
from ...processing.argument_checks import check_device, check_dtype
from ...processing.input_checks_gap_mllm import check_count
from ...processing.scores.reference_checks import check_choice
from ..benchmarks import Benchmark, find_benchmark, on_rooms
from .answering import Job, answer_all
from .baseline_answers import BASELINES, MODEL
from .constants import constant_answers
from .files import has_answers, read_predictions
from .models import load_points_source, model_fingerprint
from .other_words import check_other_words, in_our_words
from .plan import PLAN_FILE, choose_partners, make_batches, save_or_check_plan
from .processes import Processes
from .questions import load_questions
from .results import save_results
from .vllm_engine import ENGINES, check_vllm, check_vllm_model, vllm_platform
from .vllm_settings import check_engine_options, device_settings


logger = logging.get_logger(__name__)
ROOMS = "rooms"

_OWN_GEOMETRY = "vLLM shows each scene with its own geometry alone"


def evaluate_model(
    model_path: str | Path | None = None,
    benchmark: str = "synthetic_rooms",
    data_dir: str | Path | None = None,
    output: str | Path = "outputs/evaluation",
    split: str | None = None,
    limit: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
    baselines: Sequence[str] | None = None,
    without_geometry: str | Path | None = None,
    predictions: str | Path | None = None,
    threads: int | None = None,
    device: str | None = None,
    dtype: str = "auto",
    attn_implementation: str | dict[str, str] | None = None,
    sampling: str | None = None,
    points_from: str | Path | None = None,
    answer_convention: str | None = None,
    duplicates_iou: float | None = None,
    constrained: bool = False,
    engine: str = "transformers",
    engine_options: dict | None = None,
    cache_dir: str | Path | None = None,
    refresh: bool = False,
    with_report: bool = True,
    show_progress: bool = True,
    data: str | None = None,
    **options,
) -> dict:
    """Evaluate a model on a benchmark, beside baselines, into a folder; a second call resumes what was killed.

    The folder gets plan.json, batches/, predictions.jsonl, metrics.json, timing.json, report.md and its pictures.
    metrics.json is byte-equal however many processes shared the batches and however often they were killed.

    Args:
        model_path (`str` or path, *optional*): folder or repository of the Hub; not needed with `predictions`.
        benchmark (`str`, defaults to "synthetic_rooms"): a key of `BENCHMARKS`.
        data_dir (`str` or path, *optional*): folder of the benchmark's source; "synthetic_rooms" needs none.
        output (`str` or path, defaults to "outputs/evaluation"): folder for the results.
        split (`str`, *optional*): instead of the benchmark's.
        limit (`int`, *optional*): ask an even subset of so many questions; metrics.json says so.
        batch_size (`int`, defaults to 16), seed (`int`, defaults to 0): questions of a batch; what draws the subset
            and the bootstrap.
        baselines (`list[str]`, *optional*): names in `BASELINES`; by default all that apply.
        without_geometry (`str` or path, *optional*): a model trained without geometry, asked the same.
        predictions (`str` or path, *optional*): JSON lines with id and text, scored instead of a model's answers.
        threads (`int`, *optional*): CPU threads of a process of transformers; 1 on the CPU by default, as sums depend
            on it.
        device (`str`, *optional*), dtype (`str`): where the model runs, by default CUDA if it is there; its kind of
            number, by default the checkpoint's.
        attn_implementation (`str` or `dict[str, str]`, *optional*): attention of the model or of its parts, by default
            the best that device and dtype allow.
        sampling (`str`, *optional*), points_from (`str` or path, *optional*): rule by which frames of videos are
            taken, "uniform" (the default) or "space_aware", and for that the folder of a `GapMllmForPreTraining` or
            `GapMllmVggtForReconstruction`, which tells what each frame sees, see `FrameChoice`; by default that of
            the model itself, loaded a second time with its heads.
        answer_convention (`str`, *optional*): key of `CONVENTIONS` in which the model, or the file, writes boxes or
            points; by default ours.
        duplicates_iou (`float`, *optional*): overlap from which a box of a list is removed as a duplicate of an
            earlier one; by default all count. predictions.jsonl has what was removed.
        constrained (`bool`, defaults to False): whether answers of a known form are constrained to it while they are
            generated (the extra "grammar").
        engine (`str`, defaults to "transformers"): what generates; "vllm" with the plug-in of examples/vllm, greedy
            texts in float32 being the same, without the baseline "other_geometry". Room is made for the longest
            request, and the generation settings of the model's folder are carried over.
        engine_options (`dict`, *optional*): arguments of `vllm.LLM`, such as `{"tensor_parallel_size": 2}`; those that
            the run sets otherwise are refused.
        cache_dir (`str` or path, *optional*): cache of `datasets`.
        refresh (`bool`, defaults to False): whether to prepare the data again.
        with_report (`bool`, defaults to True): draw report.md, too. show_progress (`bool`): show bars.
        data (`str`, *optional*): "rooms" to ask rendered rooms in place of the benchmark's data, see `on_rooms`.
        **options: options of the benchmark's source, over the benchmark's own.
    Returns:
        `dict`: what metrics.json holds.
    Raises:
        ValueError: on an unknown benchmark, baseline, device or dtype, attention that does not fit (`set_attention`),
            threads below 1, neither model nor predictions, another plan in the folder, damaged weights or weights that
            do not fit (`load_pretrained`), predictions that do not fit, a convention that does not
            (`check_other_words`), or a sampling that does not (`FrameChoice`) or where no question shows a video, or
            what the engine cannot follow (`check_vllm_model`, `device_settings`, `length_settings`);
            for data "rooms" as `on_rooms`, and with a data_dir.
            ImportError: for attention that is not installed, or constrained answers without xgrammar.
            FileNotFoundError, RecordError: on a missing model, and on missing or bad data, before any model is loaded.

    Example:
        ```python
        >>> from gap_mllm.evaluation.runner import evaluate_model
        >>> options = {"num_train": 0, "num_test": 2, "cache_dir": "cache", "show_progress": False}
        >>> metrics = evaluate_model(folder, "synthetic_rooms", output="evaluation", baselines=["blind"], **options)
        >>> metrics["n"], sorted(metrics["scores"]), metrics["headline"]
        (4, ['blind', 'model'], 'point_error_m')

        ```
    """
    started = time.perf_counter()
    bench = _find(benchmark, data, data_dir)
    if (model_path is None) == (predictions is None):
        raise ValueError("give either model_path, or predictions to score.")
    check_other_words(bench, answer_convention, duplicates_iou)
    if constrained and not any(form.written for form in bench.forms):
        raise ValueError(f"answers to {benchmark!r} are free text, which cannot be constrained.")
    if threads is not None:
        check_count("threads", threads)
    _check_engine(engine, engine_options, constrained, attn_implementation, threads, predictions)
    if engine == "vllm" and "other_geometry" in (baselines or ()):
        raise ValueError("the baseline other_geometry is of the engine transformers: " + _OWN_GEOMETRY + ".")
    device, dtype = _engine_device(engine, engine_options, device), check_dtype(dtype)
    processes = Processes(on_cpu=device.type == "cpu")
    device = processes.device or device
    if engine == "vllm" and processes.count > 1:
        raise ValueError("vLLM starts its own processes: give processes 1, and tensor_parallel_size to the engine.")
    if not processes.is_main:
        processes.wait()  # the main process prepares the data, the others find it
    refresh = refresh and processes.is_main
    asked, total = load_questions(bench, data_dir, split, limit, seed, cache_dir, refresh, **options)
    if processes.is_main:
        processes.wait()
    frames = {}
    if sampling is not None or points_from is not None:
        if sampling == "space_aware":
            points_from = points_from or model_path
        source = None if points_from is None else model_folder(points_from)
        asked.choose_frames(sampling, source and load_points_source(source, device))
        frames = {"sampling": sampling, "points_from": source and model_fingerprint(source)}
    beside, left_out = choose_baselines(baselines, bench, model_path is not None, without_geometry)
    if engine != "vllm":
        threads = threads or (1 if device.type == "cpu" else torch.get_num_threads())
    run = {"benchmark": benchmark, "split": split or bench.split, "limit": limit, "seed": seed}
    run |= {} if data is None else {"data": data}
    run |= {"forms": [asdict(form) for form in bench.forms], "batch_size": batch_size, **frames}
    words = {"answer_convention": answer_convention, "duplicates_iou": duplicates_iou}
    run |= {name: value for name, value in words.items() if value is not None}
    run |= {"constrained": True} if constrained else {}
    if processes.is_main:
        run |= asked.fingerprints()
    texts, timing = {}, {}
    if predictions is not None:
        texts[MODEL] = read_predictions(predictions, asked.ids)
        run["predictions"] = True
    else:
        folders = {MODEL: model_folder(model_path)}
        if without_geometry is not None:
            folders["without_geometry"] = model_folder(without_geometry)
        for folder in folders.values():
            check_weight_files(folder)
            if engine == "vllm":
                check_vllm_model(folder)
        partners = choose_partners(asked) if "other_geometry" in beside else None
        if "first_view" in beside and all(len(sample.views) == 1 for sample in asked):
            beside.remove("first_view")
            left_out["first_view"] = "every question shows a single view"
        if "other_geometry" in beside and partners is None:
            beside.remove("other_geometry")
            left_out["other_geometry"] = "some question has no other scene with views of the same number and sizes"
        if "other_geometry" in beside and engine == "vllm":
            beside.remove("other_geometry")
            left_out["other_geometry"] = _OWN_GEOMETRY
        plan = {**run, "options": options, "threads": threads, "device": device.type, "dtype": dtype}
        plan["attn_implementation"] = attn_implementation
        plan |= {"engine": engine, "engine_options": engine_options} if engine == "vllm" else {}
        if processes.is_main:
            plan["models"] = {name: model_fingerprint(folder) for name, folder in folders.items()}
            batches = make_batches(asked, batch_size, by_scene=bench.ask is not None)
            problem = _plan_problem(output, {**plan, "batches": batches})
        else:
            plan, batches, problem = None, None, None
        plan, batches, problem = processes.share((plan, batches, problem))
        if problem:
            raise ValueError(problem)
        run["models"] = plan["models"]
        if threads is not None:
            torch.set_num_threads(threads)
        kinds = device, dtype, attn_implementation, constrained, engine, engine_options or {}
        job = Job(bench, asked, batches, batch_size, folders, partners, Path(output), *kinds)
        try:
            texts, timing = answer_all(
                job, [MODEL, *(name for name in beside if name != "constant")], processes, show_progress
            )
        except (
            ImportError,
            OSError,
            RuntimeError,
            ValueError,
        ):  # as attention that does not fit; a folder without answers is free
            if processes.is_main and not has_answers(output):
                (Path(output) / PLAN_FILE).unlink(missing_ok=True)
            raise
    if not processes.is_main:
        processes.wait()
        return {}
    if any(value is not None for value in words.values()):
        texts = {name: _in_our_words(bench, asked, answers, words) for name, answers in texts.items()}
    if "constant" in beside:
        texts["constant"], note = constant_answers(bench, asked, data_dir, split, cache_dir, refresh, **options)
        run["constant_fitted_on"] = note
    timing["seconds"] = round(time.perf_counter() - started, 3)
    timing |= {"processes": processes.count, "engine": engine}
    metrics = save_results(output, bench, asked, texts, run, total, left_out, timing, with_report)
    processes.wait()
    return metrics


def _find(name, data, data_dir):
    """The benchmark, about rooms if they are asked."""
    benchmark = find_benchmark(name)
    if data is None:
        return benchmark
    check_choice(data, "data", (ROOMS,))
    if data_dir is not None:
        raise ValueError(f"data is {ROOMS!r}, which are rendered; leave out data_dir, {str(data_dir)!r}.")
    return on_rooms(benchmark)


def _check_engine(engine, engine_options, constrained, attn_implementation, threads, predictions):
    check_choice(engine, "engine", ENGINES)
    if engine == "vllm":
        if constrained or attn_implementation is not None:
            raise ValueError(
                "constrained answers and attn_implementation are of the engine transformers, not of vllm."
            )
        if threads is not None:
            raise ValueError(
                f"threads is {threads}, which is of the engine transformers; vLLM takes the variables "
                "VLLM_CPU_OMP_THREADS_BIND and OMP_NUM_THREADS."
            )
        if predictions is not None:
            raise ValueError("predictions are scored without a model: leave the engine out.")
        check_engine_options(engine_options or {})
        check_vllm()
    elif engine_options:
        raise ValueError(f"engine_options {sorted(engine_options)} are of the engine vllm; give engine='vllm', too.")


def _engine_device(engine, engine_options, device):
    """The device of the run; by default of vLLM the one that it runs on."""
    if engine != "vllm":
        return check_device(device)
    platform = vllm_platform()
    device = torch.device(platform) if device is None and platform else check_device(device)
    device_settings(device, platform, engine_options or {})
    return device


def _in_our_words(bench, asked, answers, words):
    """Answers by id with texts of our spelling, beside what was answered."""
    written = {}
    for row_id, answer in answers.items():
        sample = asked.sample(row_id, with_frames=True)
        text, removed = in_our_words(bench, sample, answer["text"], *words.values())
        written[row_id] = {**answer, "text": text, "answered": answer["text"], "removed": removed}
    return written


def choose_baselines(
    baselines: Sequence[str], benchmark: Benchmark, has_model: bool, without_geometry: str | Path | None = None
):
    """Return the baselines to run, and why others are left out.

    Raises:
        ValueError: on an unknown baseline, or "without_geometry" without such a model.
    """
    wanted = list(BASELINES) if baselines is None else list(baselines)
    unknown = [name for name in wanted if name not in BASELINES]
    if unknown:
        raise ValueError(f"unknown baseline {unknown[0]!r}; known are {', '.join(BASELINES)}.")
    left_out = {}
    if without_geometry is None and "without_geometry" in wanted:
        if baselines is not None:
            raise ValueError("the baseline without_geometry needs a model: give --without-geometry MODEL.")
        left_out["without_geometry"] = "no such model was given"
    elif without_geometry is not None and "without_geometry" not in wanted:
        wanted.append("without_geometry")
    if not has_model:
        left_out = {name: "answers were read from a file" for name in wanted if name != "constant"}
    return [name for name in wanted if name not in left_out], left_out


def _plan_problem(output, plan):
    """Save or check the plan; what is wrong is returned, so that all processes stop alike."""
    try:
        save_or_check_plan(output, plan)
    except ValueError as error:
        return str(error)
    return None
