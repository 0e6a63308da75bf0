"""Training that is never lost: checkpoints are whole or not there, one process trains in a folder, a stop saves first.

The same command in the same folder goes on from the last whole checkpoint, or says that it is finished.
"""

import os
import shutil
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed
from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import rotate_checkpoints, sort_checkpoints
from transformers.utils import logging

from ..publishing_gap_mllm import CARD
from .log_totals import LogTotalsMixin
from .model_cards import complete_card
from .progress_lines import ProgressLines
from .provenance import write_provenance
from .run_folder import UNFINISHED, RunFolder
from .run_log import RunLog


logger = logging.get_logger(__name__)


class ResumingMixin(LogTotalsMixin):
    """For a `Trainer`: whole checkpoints that say how they were made, and `train_and_save`, which goes on from them.

    A checkpoint grows in `_unfinished` and gets its place in one step. Beside every model lies provenance.json with
    arguments, package versions and git commit. The log of a training that was stopped is that of a whole one, see
    `LogTotalsMixin`.

    What a person reads of the run is written by `RunLog`.

    Args:
        settings (`dict`, *optional*): further settings of the run for provenance.json. Other arguments are the
            trainer's.
        run (`RunFolder`, *optional*): the output folder, held since before model and data were loaded; else one is
            made of `args` and `settings`.
    Raises:
        ValueError: for `save_on_each_node` under FSDP.
    """

    def __init__(self, *args, settings: dict | None = None, run: RunFolder | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.run = run or RunFolder(self.args, settings)
        self._is_growing = False
        if self.is_fsdp_enabled and self.args.save_on_each_node:
            raise ValueError(
                "save_on_each_node=True does not go with FSDP, which gives whole weights to process 0 alone. Leave it "
                "out, and give all nodes one output folder that they share."
            )

    @property
    def was_finished(self) -> bool:
        """Whether the folder held the whole run, so that nothing was trained."""
        return self.run.was_finished

    def train_and_save(self) -> None:
        """Train, from the last whole checkpoint of the output folder on, and save the model there.

        A folder that is finished is loaded and not trained again, and `was_finished` is True then. After SIGTERM or
        SIGINT the step is finished and saved first, whatever `save_strategy` says; a second signal ends at once.

        Raises:
            ValueError: if the folder holds the results of other settings; those that shape no weight, and the split
                of a step over micro-batches and processes, may change. If some processes find no checkpoint where
                others do. FileExistsError: if another process trains there. SystemExit: after a signal, with 128
                plus its number.
        """
        run = self.run
        with run.held():
            state_file = run.path / TRAINER_STATE_NAME
            if run.was_finished:
                is_sharded, self.is_fsdp_enabled = self.is_fsdp_enabled, False  # the model is whole, as it was saved
                self._load_from_checkpoint(run.checkpoint)
                self.is_fsdp_enabled = is_sharded
                self.state = TrainerState.load_from_json(str(state_file))
                logger.warning(f"{run.path} is finished, after {self.state.global_step} steps; nothing is trained.")
                return
            stop, log = _SaveAndStop(), RunLog(run)
            self.add_callback(stop)
            self.add_callback(log)
            ProgressLines(log).take_the_place_of_bars(self)
            with log.summing_up(self), stop.listening():
                self.train(resume_from_checkpoint=run.checkpoint)
                if self.args.should_save:
                    self.state.save_to_json(str(state_file))
                if self.is_fsdp_enabled:  # the model is saved whole, however its checkpoints are
                    self.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
                self.save_model()
                self.accelerator.wait_for_everyone()  # whoever goes on finds the model there

    def begin_or_go_on(self):
        start = self._start
        super().begin_or_go_on()
        if self.args.should_save and start is not None:
            found = sort_checkpoints(self.args.output_dir)  # by steps; of an old one a part may just have been removed
            if found and Path(found[-1]) == Path(start):  # killed before older ones were removed
                rotate_checkpoints(self.args.output_dir, self.args.save_total_limit, self.state.best_model_checkpoint)

    def _save(self, output_dir=None, state_dict=None):
        if self.args.save_on_each_node:  # Differs: transformers 5.23 then saves weights on the first node alone
            self.accelerator.unwrap_model(self.model).should_save_on_this_rank = bool  # as is_main_process says
        folder = output_dir or self.args.output_dir
        has_card = os.path.exists(os.path.join(folder, CARD))
        self.accelerator.unwrap_model(self.model).card_metadata = self.run.card
        super()._save(output_dir, state_dict)
        if self.run.card and self.args.should_save and not has_card:
            complete_card(folder, self.run.card)
        if self.args.should_save and not self._is_growing:
            write_provenance(folder, self.run.settings)

    def _get_output_dir(self, trial=None):
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, UNFINISHED) if self._is_growing else folder

    def _push_from_checkpoint(self, checkpoint_folder):
        if not self._is_growing:
            super()._push_from_checkpoint(checkpoint_folder)

    def _save_checkpoint(self, model, trial):
        folder, name = self._get_output_dir(trial), f"checkpoint-{self.state.global_step}"
        aside, place = os.path.join(folder, UNFINISHED), os.path.join(folder, name)
        self._clear(aside)
        self.accelerator.wait_for_everyone()
        self._is_growing = True
        try:
            super()._save_checkpoint(model, trial)
            self.save_totals(os.path.join(aside, name))
            if self.state.best_model_checkpoint == os.path.join(aside, name):
                self.state.best_model_checkpoint = place
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                write_provenance(os.path.join(aside, name), self.run.settings)  # also beside sharded weights
                self.state.save_to_json(os.path.join(aside, name, TRAINER_STATE_NAME))
                shutil.rmtree(place, ignore_errors=True)  # one that was not whole
                os.replace(os.path.join(aside, name), place)
            self.accelerator.wait_for_everyone()  # no node removes an old one before all nodes have this one
        finally:
            self._is_growing = False
            self._clear(aside)
        if self.args.push_to_hub:
            self._push_from_checkpoint(place)
        if self.args.should_save:
            rotate_checkpoints(folder, self.args.save_total_limit, self.state.best_model_checkpoint, use_mtime=True)

    def _clear(self, folder):
        """Remove what is left of a checkpoint that was not finished, also to make room on a full disk."""
        if self.args.should_save:
            shutil.rmtree(folder, ignore_errors=True)


class _SaveAndStop(TrainerCallback):
    """After a signal to any process all of them save at the end of the step, and end."""

    def __init__(self):
        self._noted, self._stops, self._before = 0, 0, {}

    @contextmanager
    def listening(self):
        """Note signals inside a `with` block instead of ending at once."""
        if threading.current_thread() is threading.main_thread():  # no other may
            numbers = [each for each in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(each) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in numbers}
        try:
            yield
        finally:
            for number in list(self._before):
                self._restore(number)

    def _note(self, number, frame):
        self._noted = number
        self._restore(number)

    def _restore(self, number):
        signal.signal(number, self._before.pop(number) or signal.SIG_DFL)

    def on_step_end(self, args, state, control, **kwargs):
        self._stops = self._noted
        if args.world_size > 1:
            noted = torch.tensor(self._noted, device=args.device)
            distributed.all_reduce(noted, distributed.ReduceOp.MAX)
            self._stops = noted.item()
        control.should_save = control.should_save or self._stops > 0

    def on_save(self, args, state, control, **kwargs):
        if self._stops:
            logger.warning(
                f"{signal.Signals(self._stops).name}: checkpoint-{state.global_step} is saved in {args.output_dir}; "
                "the same command goes on from there."
            )
            raise SystemExit(128 + self._stops)
