"""A few lines of progress where the output is no terminal, in place of bars and of every entry of the log."""

import sys

from tqdm import tqdm
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from .curves import is_metric
from .run_log import RunLog


PARTS = 10  # of the run; there are no more lines than these, and one for each doubling of the steps before
_MANY = ("gate_",)  # how names of statistics begin of which there are too many for a line
_HIDDEN = ("step", "epoch", "total_flos", "num_tokens", "num_input_tokens_seen", "frac_reward_zero_std", "step_time")
_HIDDEN += ("seconds",)  # which the place of a run by the clock says


def is_terminal() -> bool:
    """Whether somebody watches: both output streams are terminals."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def run_place(args: TrainingArguments, state: TrainerState) -> str:
    """Where a run is, in words: of its steps, or of its seconds where the clock ends it (`max_seconds`).

    Args:
        args (`TrainingArguments`): arguments of the run.
        state (`TrainerState`): state of the run.
    Returns:
        `str`: "step 20 of 300", or "step 20, 45 of 90 seconds by the clock".
    """
    seconds = getattr(args, "max_seconds", None)
    if seconds is None:
        return f"step {state.global_step} of {state.max_steps}"
    passed = max((entry.get("seconds", 0.0) for entry in state.log_history), default=0.0)
    return f"step {state.global_step}, {min(passed, seconds):.0f} of {seconds:g} seconds by the clock"


class ProgressLines(TrainerCallback):
    """Tells of losses and evaluations at steps 1, 2, 4, .. and then at every tenth of the run, and at its end.

    Args:
        log (`RunLog`): log of the run, which knows its minutes.
    """

    def __init__(self, log: RunLog):
        self.log, self._told = log, {}

    def take_the_place_of_bars(self, trainer: Trainer) -> None:
        """Write these lines instead of what the trainer writes, unless somebody watches."""
        if not is_terminal():
            for kind in (ProgressCallback, PrinterCallback):
                trainer.remove_callback(kind)
            trainer.add_callback(self)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        entry = state.log_history[-1]
        names = [name for name in entry if "/" not in name and name not in _HIDDEN and not name.startswith(_MANY)]
        metrics = [name for name in names if is_metric(name)]
        is_due = "train_runtime" not in entry and self._is_due(control, state, bool(metrics))
        if state.is_world_process_zero and is_due:
            shown = {name: entry[name] for name in metrics or names if isinstance(entry[name], int | float)}
            place = f"{run_place(args, state)}, {self.log.minutes:.1f} min"
            tqdm.write(f"{place}: {', '.join(f'{name} {value:.4g}' for name, value in shown.items())}")

    def _is_due(self, control, state, is_evaluation):
        last, step = self._told.get(is_evaluation), state.global_step
        if getattr(control, "should_training_stop", False):  # by the clock, at whatever step
            return True
        if last is not None and step < min(last + max(min(last, state.max_steps // PARTS), 1), state.max_steps):
            return False
        self._told[is_evaluation] = step
        return True
