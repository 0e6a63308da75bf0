"""A training that ends after so many seconds, whatever the machine: what goes by the run goes by the clock then."""

import time

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy


class TimeBudget(TrainerCallback):
    """Ends a training after `max_seconds`, and leads the learning rate through its whole schedule until then.

    Seconds of evaluations and of saving are not counted. The learning rate is that of the step of `max_steps` at the
    same share of the run; `eval_steps` below 1 is a share of the seconds. Every entry of the log has its "seconds",
    from which a training that was stopped goes on.

    Args:
        max_seconds (`float`): seconds of training.
    """

    def __init__(self, max_seconds: float):
        self.max_seconds, self._next_evaluation = max_seconds, 0.0
        self._seconds = self._since = self.seconds_before = 0.0
        self._is_counting = False

    @property
    def seconds(self) -> float:
        """Seconds of training until now."""
        return self._seconds + (time.monotonic() - self._since if self._is_counting else 0.0)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        logged = max((entry.get("seconds", 0.0) for entry in state.log_history), default=0.0)
        self._seconds, self.seconds_before = self.seconds_before or logged, 0.0
        self._is_counting = False  # before the first step, as what is evaluated there
        self._plan_evaluation(args)

    def _plan_evaluation(self, args):
        """The next share of the seconds that is evaluated at."""
        goes_by_share = args.eval_strategy == IntervalStrategy.STEPS and args.eval_steps < 1
        every = args.eval_steps * self.max_seconds if goes_by_share else float("inf")
        self._next_evaluation = (self.seconds // every + 1) * every if goes_by_share else every

    def on_step_begin(self, args, state, control, lr_scheduler=None, **kwargs):
        if not self._is_counting:
            self._since, self._is_counting = time.monotonic(), True
        if state.global_step and hasattr(lr_scheduler, "lr_lambdas"):
            lr_scheduler.last_epoch = int(min(self.seconds / self.max_seconds, 1.0) * state.max_steps) - 1
            lr_scheduler.step()

    def on_step_end(self, args, state, control, **kwargs):
        now = self.seconds
        ends = now >= self.max_seconds or state.global_step >= state.max_steps
        if args.eval_strategy == IntervalStrategy.STEPS and args.eval_steps < 1:
            control.should_evaluate = ends or now >= self._next_evaluation
            if control.should_evaluate:
                self._plan_evaluation(args)
        if ends:
            control.should_training_stop = control.should_log = True
        if control.should_evaluate or control.should_save:
            self._seconds, self._is_counting = now, False

    def on_log(self, args, state, control, **kwargs):
        state.log_history[-1]["seconds"] = round(self.seconds, 2)
