"""What a person reads of a training in its output folder, while it runs and when it has ended, however it ends.

recipe.yaml (the resolved recipe), log.jsonl (what was logged, a line each), curves.png and summary.json;
docs/run_folder.md describes them, and samples.png, which sample_pictures.py draws.
"""

import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from ..processing.data.folder_writing import write_atomically
from ..processing.metrics_file import save_metrics, strict_json
from .curves import is_loss, is_metric, is_more_better, plot_curves
from .provenance import describe_run
from .run_folder import RunFolder


logger = logging.get_logger(__name__)

LOG_FILE, SUMMARY_FILE, CURVES_FILE = "log.jsonl", "summary.json", "curves.png"


class RunLog(TrainerCallback):
    """Writes recipe, log, curves and summary of a run into its folder; the main process alone.

    Args:
        run (`RunFolder`): the output folder.
    """

    def __init__(self, run: RunFolder):
        self.run, self._began, self._minutes_before = run, time.monotonic(), 0.0
        self._made_by = describe_run({})

    @property
    def minutes(self) -> float:
        """Time of the run until now, in minutes, with what came before it was stopped and went on."""
        return round(self._minutes_before + (time.monotonic() - self._began) / 60, 3)

    @contextmanager
    def summing_up(self, trainer: Trainer) -> Iterator[None]:
        """Write into summary.json how a `with` block ended, if not well; `on_train_end` says that it did."""
        try:
            yield
        except BaseException as error:
            with suppress(OSError):  # a full disk is what is told
                self._write(trainer.args, trainer.state, _how_ended(error))
            raise

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self._began = time.monotonic()
        if state.is_world_process_zero:
            self.run.write_recipe()
            file = self.run.path / LOG_FILE
            lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else ()
            kept = _lines_of(state.log_history, map(_entry, lines))
            self._minutes_before = kept[-1]["minutes"] if kept else 0.0
            write_atomically(file, "".join(json.dumps(line) + "\n" for line in kept))
            self._write(args, state, "running")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        if state.is_world_process_zero:
            entry = {**state.log_history[-1], "minutes": self.minutes}
            with open(self.run.path / LOG_FILE, "a", encoding="utf-8") as file:
                file.write(json.dumps(strict_json(entry)) + "\n")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self._write(args, state, "running")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self._write(args, state, "finished")

    def _write(self, args, state, how):
        """Write summary and curves."""
        if not state.is_world_process_zero:
            return
        directions = {}
        if args.metric_for_best_model and args.greater_is_better is not None:
            directions[f"eval_{args.metric_for_best_model.removeprefix('eval_')}"] = args.greater_is_better
        summary = {
            "state": how,
            "steps": state.global_step,
            "max_steps": state.max_steps,
            "epochs": state.epoch,
            "minutes": self.minutes,
            **sum_up(state.log_history, directions),
            "settings_hash": self.run.settings_hash,
            **{name: self._made_by[name] for name in ("versions", "git_commit", "git_is_dirty")},
        }
        save_metrics(summary, self.run.path / SUMMARY_FILE)
        if any(is_loss(key) or is_metric(key) for entry in state.log_history for key in entry):
            self._draw(state.log_history)

    def _draw(self, log_history):
        try:
            plot_curves(log_history, self.run.path / CURVES_FILE)
        except ImportError:
            logger.warning_once(f"{CURVES_FILE} is not drawn: matplotlib is missing, pip install gap-mllm[train]")


def sum_up(log_history: Sequence[dict], directions: dict[str, bool] | None = None) -> dict:
    """First and last losses and evaluations of a run, and the best of each metric.

    Args:
        log_history (`list[dict]`): `trainer.state.log_history`.
        directions (`dict[str, bool]`, *optional*): whether more is better of metrics, where their names do not say so.
    Returns:
        `dict`: "first_losses" and "last_losses" (each term by its name, and the reward where there is one; averages
        over the steps since the entry before), "first_evaluation" and "last_evaluation" (metrics as they are logged):
        each a dict with its "step", or None; "best", of each metric whose direction is known, a dict with "step" and
        "value".

    Example:
        ```python
        >>> from gap_mllm.training.run_log import sum_up
        >>> log = [{"step": 5, "loss": 2.0}, {"step": 5, "eval_loss": 1.5}, {"step": 9, "loss": 1.0}]
        >>> summary = sum_up(log)
        >>> summary["first_losses"], summary["last_losses"], summary["best"]
        ({'step': 5, 'loss': 2.0}, {'step': 9, 'loss': 1.0}, {'eval_loss': {'step': 5, 'value': 1.5}})

        ```
    """
    losses = [
        _picked(entry, lambda key: key in ("loss", "reward") or key.startswith("loss_")) for entry in log_history
    ]
    losses = [entry for entry in losses if "loss" in entry]
    evaluations = {}
    for entry in log_history:  # of several evaluation sets each has an entry
        metrics = _picked(entry, is_metric)
        if len(metrics) > 1:
            evaluations.setdefault(entry["step"], {}).update(metrics)
    evaluations = list(evaluations.values())
    best = {}
    for metrics in evaluations:
        for name, value in metrics.items():
            more_is_better = (directions or {}).get(name, is_more_better(name))
            is_number = isinstance(value, int | float) and value == value
            if more_is_better is not None and is_number:
                held = best.setdefault(name, {"step": metrics["step"], "value": value})
                if value != held["value"] and (value > held["value"]) == more_is_better:
                    best[name] = {"step": metrics["step"], "value": value}
    ends = {}
    for name, entries in (("losses", losses), ("evaluation", evaluations)):
        ends |= {f"first_{name}": entries[0] if entries else None, f"last_{name}": entries[-1] if entries else None}
    return {**ends, "best": best}


def _picked(entry, is_wanted):
    return {"step": entry.get("step"), **{key: value for key, value in entry.items() if is_wanted(key)}}


def _lines_of(log_history, lines):
    """The lines of what a checkpoint knows as logged, with their minutes; what was logged after it is made again."""
    kept, lines, start, minutes = [], list(lines), 0, 0.0
    for entry in map(strict_json, log_history):
        known = {**entry, "minutes": 0}
        same = (place for place in range(start, len(lines)) if {**lines[place], "minutes": 0} == known)
        place = next(same, None)
        if place is not None:
            entry, start = lines[place], place + 1  # its keys have the order that they were logged in
        minutes = entry.get("minutes", minutes)
        kept.append({**entry, "minutes": minutes})
    return kept


def _entry(line):
    """A line of the log; nothing of one that was cut off."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _how_ended(error):
    if isinstance(error, SystemExit | KeyboardInterrupt):
        code = getattr(error, "code", None)
        number = code - 128 if isinstance(code, int) and code > 128 else signal.SIGINT
        return f"stopped by {signal.Signals(number).name}"
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())}"[:300]
