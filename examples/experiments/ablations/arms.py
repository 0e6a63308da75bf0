"""The runs of an ablation: each arm with each seed in a run folder of its own, then scored, and a report of all."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path

from transformers.utils import logging

from gap_mllm.processing.argument_checks import check_output_folder
from gap_mllm.processing.metrics_file import save_metrics
from gap_mllm.training.run_log import LOG_FILE
from gap_mllm.training.terms import LOSS_TERMS
from gap_mllm.training.train_geometry_aligned import train_geometry_aligned

from .ablation import PREVIOUS, Ablation, flags_of, read_ablation
from .ablation_report import write_ablation_report
from .room_scores import RoomTest
from .shared_stages import place_stages


logger = logging.get_logger(__name__)

SCORES_FILE = "scores.json"


def run_ablation(
    ablation: str | Path | Mapping | Ablation,
    output: str | Path,
    overrides: Mapping | None = None,
    measure: Callable | None = None,
    **changes,
) -> dict:
    """Train every arm with every seed, score each, and write report.md, curves.png and ablation.json.

    A run is an ordinary folder of `train_geometry_aligned`, `output/runs/<arm>/seed_<n>` (with `<variant>` before the
    seed where there are variants, and `stage_<n>` below it for an arm of several stages): called again, it goes on
    where it was stopped, and what is finished is neither trained nor scored again. Stages with which several arms
    begin are trained once, see `place_stages`. Seeds are the outer loop, so that a run that is stopped has compared
    whole seeds.

    Args:
        ablation (`str`, `Path`, `dict` or `Ablation`), overrides (`dict`, *optional*): arguments of `read_ablation`.
        output (`str` or `Path`): folder to write.
        measure (`Callable`, *optional*): takes trainer and processor of the last stage, returns figures by name; by
            default `RoomTest(**ablation.test)`.
        **changes: arguments of `read_ablation`, as `seeds=[0]` or `arms=["dense"]`.
    Returns:
        `dict`: what ablation.json holds; see `write_ablation_report`.
    Raises:
        FileNotFoundError, ValueError: as `read_ablation`, `place_stages` and `train_geometry_aligned`.
            FileExistsError: if another process trains one of the runs.
    """
    if not isinstance(ablation, Ablation):
        ablation = read_ablation(ablation, overrides, **changes)
    placed = place_stages(ablation)
    output = check_output_folder("output", output)
    measure = measure or RoomTest(**ablation.test)
    scores, logs, ended = {}, {}, set()
    for seed, ((variant, arm), stages) in product(ablation.seeds, placed.items()):
        told = scores.setdefault(variant, {}), logs.setdefault(variant, {})
        told[0][arm, seed], told[1][arm, seed] = _run(stages, output, seed, measure, ended)
    told = write_ablation_report(ablation, output, scores, logs, {})  # there also where a smoke run fails
    smoke = _smoke(ablation, output, [log for each in logs.values() for log in each.values()])
    return write_ablation_report(ablation, output, scores, logs, smoke) if smoke else told


def _run(stages, output, seed, measure, ended):
    """Train those stages of an arm that have not ended, and score the last; returns scores, and the log of all."""
    previous, log, steps = None, [], 0
    for recipe, values, folder in stages:
        place = output / folder.format(seed=seed)
        if place not in ended or folder == stages[-1][-1]:
            flags = [*flags_of(_filled(values, previous)), "--output_dir", str(place), "--seed", str(seed)]
            logger.warning(f"{place}: {recipe}")
            curves = measure.scorer if getattr(measure, "num_curve_rooms", 0) else None
            trainer, processor = train_geometry_aligned(recipe, flags, make_scorer=curves)
            ended.add(place)
        own, previous = _log(place), place
        log += [{**entry, "step": entry["step"] + steps} for entry in own if "step" in entry]
        steps += max((entry.get("step", 0) for entry in own), default=0)
    key = {"settings": trainer.run.settings_hash, "measure": _described(measure)}
    file = previous / SCORES_FILE
    told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if {name: told.get(name) for name in key} != key:
        trainer.model.eval()
        told = {**key, "scores": measure(trainer, processor)}
        save_metrics(told, file)
        told = json.loads(file.read_text(encoding="utf-8"))
    return told["scores"], log


def _filled(values, previous):
    """The changes of a stage, the folder of the stage before in its place."""
    text = json.dumps(values)
    if PREVIOUS not in text:
        return values
    if previous is None:
        raise ValueError(f"The first stage of an arm names {PREVIOUS}, but there is none before it.")
    return json.loads(text.replace(PREVIOUS, json.dumps(str(previous))[1:-1]))


def _described(measure):
    return asdict(measure) if isinstance(measure, RoomTest) else getattr(measure, "__qualname__", repr(measure))


def _smoke(ablation, output, logs):
    """Each term that no arm weighs, for a few steps on top of one arm: first and last loss of each."""
    if not ablation.smoke:
        return {}
    weighed = {key.removeprefix("loss_") for log in logs for entry in log for key in entry if key.startswith("loss_")}
    arm, variant = ablation.smoke.get("arm", ablation.chosen[0]), next(iter(ablation.variants), None)
    recipe, values = ablation.stages(arm, variant)[-1]
    settings, runs = ablation.smoke.get("terms") or {}, {}
    for name, term in LOSS_TERMS.items():
        if name in weighed and name not in settings:
            continue
        folder = output / "smoke" / name
        head = getattr(term, "head", name)  # some read the head of another
        terms = {f"terms.{each}": settings.get(each, {"weight": 1.0}) for each in dict.fromkeys((head, name))}
        changed = {**values, **ablation.smoke.get("overrides", {}), **terms}
        logger.warning(f"{folder}: a few steps with the term {name}")
        train_geometry_aligned(recipe, [*flags_of(changed), "--output_dir", str(folder)])
        losses = [float(entry[f"loss_{name}"]) for entry in _log(folder) if f"loss_{name}" in entry]
        steps = max(entry.get("step", 0) for entry in _log(folder))
        first, last = (losses[0], losses[-1]) if losses else (math.nan, math.nan)
        runs[name] = {"steps": steps, "first": first, "last": last, "fell": math.isfinite(last) and last < first}
    return runs


def read_run(folder: str | Path) -> tuple[dict, list[dict]]:
    """Scores and log of a run that `run_ablation` has ended.

    Args:
        folder (`str` or `Path`): folder of the run.
    Returns:
        `tuple[dict, list[dict]]`: figures by name, and entries of the log.
    """
    told = json.loads(Path(folder, SCORES_FILE).read_text(encoding="utf-8"))
    return told["scores"], _log(Path(folder))


def _log(folder):
    return [json.loads(line) for line in (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()]
