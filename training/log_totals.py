"""What a training has summed up for its log, kept in its checkpoints, so that one that goes on logs as a whole one.

Losses since the last entry of the log, the loss of the whole training, its seconds, and what our trainers add to that.
Each process writes a file of its own beside trainer_state.json.
"""

import time
from pathlib import Path

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import SaveStrategy
from transformers.utils import logging


logger = logging.get_logger(__name__)


class LogTotalsMixin:
    """For a `Trainer`: checkpoints with what was summed up, and a training that takes it up from there.

    The training then ends with loss and time of the whole, does not evaluate once more at its start
    (`eval_on_start`), makes no step more if it had ended, and knows the states of callbacks such as
    `EarlyStoppingCallback`. What an epoch logs and measures at its end is part of the checkpoint of its last step.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._start, self._goes_on, self._seconds_before, self._began = None, False, 0.0, time.monotonic()
        self._is_after_epoch = self._is_save_due = False
        self.add_callback(_Moments(self))

    def log_totals(self) -> dict:
        """What was summed up until now, as `torch.save` takes it.

        Returns:
            `dict`: "averaged" and "summed", tensors by name whose mean or sum over the processes counts; "common",
            what is the same in all processes; "own", what is of no use where a step is split otherwise.
        """
        return {
            "averaged": {"loss": self._tr_loss.detach().cpu()},
            "summed": {},
            "common": {
                "split": self._split,
                "total_loss": self._total_loss_scalar,
                "logged_at": self._globalstep_last_logged,
                "seconds": self._seconds_before + time.monotonic() - self._began,
                "has_ended": self.control.should_training_stop,
                "max_steps": self.state.max_steps,
                "is_training": self.model.training,
            },
            "own": {},
        }

    def take_up(self, totals: dict) -> None:
        """Go on from what `log_totals` gave."""
        common = totals["common"]
        self._tr_loss += totals["averaged"]["loss"].to(self._tr_loss)
        self._total_loss_scalar, self._globalstep_last_logged = common["total_loss"], common["logged_at"]
        self._initial_global_step = 0  # the loss at the end is that of all steps
        self._seconds_before = common["seconds"]
        self.model.train(common["is_training"])
        if common["has_ended"] and common["max_steps"] == self.state.max_steps:
            self.control.should_training_stop = True

    @property
    def _split(self):
        """How a step is split: sums of one process fit no other split."""
        args = self.args
        return [args.world_size, args.gradient_accumulation_steps, args.per_device_train_batch_size]

    def save_totals(self, folder: str | Path) -> None:
        """Write `log_totals` of this process into a folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        torch.save(self.log_totals(), _totals_file(folder, self.args.process_index))

    def begin_or_go_on(self) -> None:
        """Take up what the checkpoint holds that the training goes on from; `Trainer` has set all to zero before."""
        start, self._start = self._start, None
        self._goes_on, self._seconds_before, self._began = start is not None, 0.0, time.monotonic()
        self._is_after_epoch = self._is_save_due = False
        if start is None:
            return
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if not self.args.restore_callback_states_from_checkpoint:
            self._restore_callbacks()
        totals = read_totals(start, self.args.process_index, self._split)
        if totals is None:
            logger.warning(f"{start} does not hold what was summed up for the log: train_loss will be of the rest.")
        else:
            self.take_up(totals)

    def _restore_callbacks(self):
        """Counters of callbacks, as the patience of `EarlyStoppingCallback`; what they were made with is as it was."""
        for callback in self.callback_handler.callbacks:
            known = self.state.stateful_callbacks.get(type(callback).__name__)
            if isinstance(callback, ExportableState) and isinstance(known, dict):
                vars(callback).update(known.get("attributes", {}))

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        self._start = checkpoint

    def _evaluate(self, trial, ignore_keys_for_eval, skip_scheduler=False):
        if skip_scheduler and self._goes_on:  # that of the start, which was made
            return {}
        return super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)

    def _run_epoch(self, *args, **kwargs):
        if not self.control.should_training_stop:  # else it had ended before it was stopped
            super()._run_epoch(*args, **kwargs)

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        if self._waits_for_epoch:
            self._is_save_due, self.control.should_save = self.control.should_save, False
        elif self._is_save_due:
            self.control.should_save = True
        super()._maybe_log_save_evaluate(*args, **kwargs)
        self._is_save_due &= self._waits_for_epoch

    def _determine_best_metric(self, metrics, trial):
        is_best = super()._determine_best_metric(metrics, trial)
        if self.args.save_strategy != SaveStrategy.BEST:
            return is_best
        if self._waits_for_epoch:
            self._is_save_due |= is_best
            return False
        return is_best or self.control.should_save  # for which there may be other reasons, as a signal

    @property
    def _waits_for_epoch(self):
        """Whether the end of the epoch follows at once, and a checkpoint must wait for what is logged there."""
        control = self.control
        return not self._is_after_epoch and (
            control.should_training_stop or control.should_epoch_stop or self.state.epoch % 1 == 0
        )

    def log(self, logs: dict[str, float], *args, **kwargs):
        """As `Trainer`'s; time and speed at the end are those of the whole training."""
        if "train_loss" in logs and self._seconds_before:
            before = logs.get("train_runtime", 0.0)
            logs["train_runtime"] = round(before + self._seconds_before, 4)
            for name in ("train_samples_per_second", "train_steps_per_second"):
                if name in logs:
                    logs[name] = round(logs[name] * before / logs["train_runtime"], 3)
        super().log(logs, *args, **kwargs)


class _Moments(TrainerCallback):
    """Tells a trainer when its training begins, and where in an epoch it is."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.begin_or_go_on()

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.trainer._is_after_epoch = False

    def on_epoch_end(self, args, state, control, **kwargs):
        self.trainer._is_after_epoch = True


def read_totals(folder: str | Path, rank: int, split: list[int]) -> dict | None:
    """Read what the processes of a training wrote into a checkpoint.

    Args:
        folder (`str` or `Path`): the checkpoint.
        rank (`int`): number of this process.
        split (`list[int]`): number of processes now, and further numbers that say how they split a step.
    Returns:
        `dict`: what this process goes on from. Of another number of processes it is what gives the same over all of
        them; "own" is empty where the split is another. None if the checkpoint lacks the file of a process.
    """
    first = _read(folder, 0 if not _totals_file(folder, rank).is_file() else rank)
    if first is None:
        return None
    written, now = first["common"]["split"][0], split[0]
    if written == now:
        totals = _read(folder, rank)
    else:
        each = [_read(folder, number) for number in range(written)]
        totals = None if None in each else _shared(each, now)
    if totals is not None and totals["common"]["split"] != split:
        totals["own"] = {}
    return totals


def _shared(totals, number):
    """Averages and sums of some processes, for another number of them."""
    names = {name: None for each in totals for name in each["summed"]}
    summed = {name: sum(each["summed"].get(name, 0.0) for each in totals) / number for name in names}
    averaged = {name: sum(each["averaged"][name] for each in totals) / len(totals) for name in totals[0]["averaged"]}
    return {**totals[0], "averaged": averaged, "summed": summed}


def _totals_file(folder, rank):
    return Path(folder, f"log_totals_{rank}.pt")


def _read(folder, rank):
    file = _totals_file(folder, rank)
    return torch.load(file, map_location="cpu", weights_only=True) if file.is_file() else None
