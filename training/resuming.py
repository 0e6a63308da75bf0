"""Training that is never lost: checkpoints are whole or not there, one process trains in a folder, a stop saves first.

The same command in the same folder goes on from the last whole checkpoint, or says that it is finished.
"""

import json
import os
import shutil
import signal
import threading
import zipfile
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import distributed
from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import rotate_checkpoints, sort_checkpoints
from transformers.utils import logging

from ..model_loading import check_weight_files
from ..processing.argument_checks import check_same_run
from ..processing.data.folder_writing import hold_folder
from ..processing.data.source_files import read_json
from .provenance import PROVENANCE_FILE, write_provenance


logger = logging.get_logger(__name__)

UNFINISHED = "_unfinished"  # where a checkpoint grows; pushes to the Hub pass over names that begin so
# How the names of settings begin that shape no weight: where and what is written, and how a step is split.
_FREE = ("recipe", "output_dir", "log", "save_", "hub_", "push_to_hub", "report_to", "run_name", "project", "trackio_")
_FREE += ("disable_tqdm", "resume_from_checkpoint", "enable_jit_checkpoint", "local_rank", "use_cpu", "ddp_")
_FREE += ("dataloader_num_workers", "dataloader_p", "per_device_", "train_batch_size", "eval_batch_size")
_FREE += ("gradient_accumulation_steps", "gradient_checkpointing", "activation_checkpointing", "eval_accumulation")


def last_whole_checkpoint(folder: str | Path) -> str | None:
    """Find the checkpoint to go on from; what is not whole is left out, with a warning.

    Args:
        folder (`str` or `Path`): output folder of a training; need not exist.
    Returns:
        `str`: folder of the checkpoint with the most steps that was saved whole, or None.
    """
    left_out = [(path, "its saving was interrupted") for path in sorted(Path(folder, UNFINISHED).glob("*"))]
    found = None
    for path in map(Path, reversed(sort_checkpoints(str(folder)))):
        try:
            _check_whole(path)
        except ValueError as error:
            left_out.append((path, error))
            continue
        found = str(path)
        break
    for path, reason in left_out:
        logger.warning(f"{path} is left out: {reason}. Training goes on from {found or 'the beginning'}.")
    return found


def _check_whole(folder):
    """Refuse a checkpoint that lacks the file that is written last, or has a file that is cut off."""
    check_weight_files(folder)
    if not (folder / TRAINER_STATE_NAME).is_file():
        raise ValueError(f"it has no {TRAINER_STATE_NAME}, which is written last")
    read_json(folder / TRAINER_STATE_NAME)
    for file in sorted([*folder.glob("*.pt"), *folder.glob("*.pth")]):
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{file.name} is damaged or cut off")


class ResumingMixin:
    """For a `Trainer`: whole checkpoints that say how they were made, and `train_and_save`, which goes on from them.

    A checkpoint grows in `_unfinished` and gets its place in one step. Beside every model lies provenance.json with
    arguments, package versions and git commit.

    Args:
        settings (`dict`, *optional*): further settings of the run for provenance.json, as the resolved recipe. Other
            arguments are the trainer's.
    """

    def __init__(self, *args, settings: dict | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.settings = settings or {}
        self.was_finished, self._is_growing = False, False

    def train_and_save(self) -> None:
        """Train, from the last whole checkpoint of the output folder on, and save the model there.

        A folder that is finished is loaded and not trained again, and `was_finished` is True then. After SIGTERM or
        SIGINT the step is finished and saved first, whatever `save_strategy` says; a second signal ends at once.

        Raises:
            ValueError: if the folder holds the results of other settings; those that shape no weight, and the split
                of a step over micro-batches and processes, may change. FileExistsError: if another process trains
                there. SystemExit: after a signal, with 128 plus its number.
        """
        folder = Path(self.args.output_dir)
        with hold_folder(folder, "training in") if self.is_world_process_zero() else nullcontext():
            self.was_finished = all((folder / name).is_file() for name in (TRAINER_STATE_NAME, PROVENANCE_FILE))
            checkpoint = str(folder) if self.was_finished else last_whole_checkpoint(folder)
            if checkpoint is not None:
                self._check_settings(checkpoint)
            if self.was_finished:
                self._load_from_checkpoint(checkpoint)
                self.state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
                logger.warning(f"{folder} is finished, after {self.state.global_step} steps; nothing is trained.")
                return
            stop = _SaveAndStop()
            self.add_callback(stop)
            with stop.listening():
                self.train(resume_from_checkpoint=checkpoint)
            if self.is_world_process_zero():
                self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
            self.save_model()

    def _run_settings(self):
        args = self.args
        items = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        return {**self.settings, "items_per_step": items, "arguments": args.to_sanitized_dict()}

    def _check_settings(self, checkpoint):
        file = Path(checkpoint, PROVENANCE_FILE)
        if not file.is_file():  # not of this class
            return
        before, now = read_json(file)["settings"], json.loads(json.dumps(self._run_settings(), default=str))
        before, now = ({**each.pop("arguments"), **each} for each in (before, now))
        told = [name for name in before if name in now and not name.startswith(_FREE)]  # releases differ in names
        check_same_run(self.args.output_dir, {name: before[name] for name in told}, {name: now[name] for name in told})

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        write_provenance(output_dir or self.args.output_dir, self._run_settings())

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
            if self.state.best_model_checkpoint == os.path.join(aside, name):
                self.state.best_model_checkpoint = place
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self.state.save_to_json(os.path.join(aside, name, TRAINER_STATE_NAME))
                shutil.rmtree(place, ignore_errors=True)  # one that was not whole
                os.replace(os.path.join(aside, name), place)
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


__all__ = ["UNFINISHED", "ResumingMixin", "last_whole_checkpoint"]
