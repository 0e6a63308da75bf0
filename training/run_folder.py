"""The output folder of a training: held by one process, for one set of settings, with the recipe that made it.

resuming.py trains in it, run_log.py writes what a person reads there, provenance.py what a checkpoint must say.
"""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from accelerate.utils import gather_object
from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import sort_checkpoints
from transformers.utils import logging

from ..model_loading import check_weight_files
from ..processing.argument_checks import check_same_run
from ..processing.data.folder_writing import hold_folder, remove_file_parts, write_atomically
from ..processing.data.source_files import read_json
from .provenance import PROVENANCE_FILE
from .recipes import recipe_text


logger = logging.get_logger(__name__)

UNFINISHED = "_unfinished"  # where a checkpoint grows; pushes to the Hub pass over names that begin so
RECIPE_FILE = "recipe.yaml"
# How the names of settings begin that shape no weight: where and what is written, and how a step is split.
_FREE = ("recipe", "output_dir", "log", "save_", "hub_", "push_to_hub", "report_to", "run_name", "project", "trackio_")
_FREE += ("disable_tqdm", "resume_from_checkpoint", "enable_jit_checkpoint", "local_rank", "use_cpu", "ddp_")
_FREE += ("dataloader_num_workers", "dataloader_p", "per_device_", "train_batch_size", "eval_batch_size")
_FREE += ("gradient_accumulation_steps", "gradient_checkpointing", "activation_checkpointing", "eval_accumulation")
_FREE += ("frozen_geometry", "license")  # where features are made and kept; what the card says


def last_whole_checkpoint(folder: str | Path, newest: int | None = None) -> str | None:
    """Find the checkpoint to go on from; what is not whole is left out, with a warning.

    Args:
        folder (`str` or `Path`): output folder of a training; need not exist.
        newest (`int`, *optional*): steps that the checkpoint has at most; any number by default.
    Returns:
        `str`: folder of the checkpoint with the most steps that was saved whole, or None.
    """
    left_out = [(path, "its saving was interrupted") for path in sorted(Path(folder, UNFINISHED).glob("*"))]
    found = None
    for path in map(Path, reversed(sort_checkpoints(str(folder)))):
        if newest is not None and _steps(path) > newest:
            continue
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


def _steps(checkpoint):
    """The number that a checkpoint's name ends with; below all others for None."""
    return -1 if checkpoint is None else int(Path(checkpoint).name.rpartition("-")[2])


def _check_whole(folder):
    """Refuse a checkpoint that lacks the file that is written last, or has a file that is cut off."""
    check_weight_files(folder)
    if not (folder / TRAINER_STATE_NAME).is_file():
        raise ValueError(f"it has no {TRAINER_STATE_NAME}, which is written last")
    json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))  # a metric in it may be infinite
    for file in sorted(path for kind in ("pt", "pth", "bin") for path in folder.glob(f"*.{kind}")):
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{file.name} is damaged or cut off")


class RunFolder:
    """The output folder of one run, and its settings as they were before anything was loaded.

    Args:
        args (`TrainingArguments`): arguments of the run; `output_dir` is the folder.
        settings (`dict`, *optional*): further settings for provenance.json, as those of a recipe.
        recipe (`dict`, *optional*): keys and values of the resolved recipe, which is written as recipe.yaml.
        card (`dict`, *optional*): metadata of the model's card, as of `card_metadata`.
    """

    def __init__(
        self,
        args: TrainingArguments,
        settings: dict | None = None,
        recipe: dict | None = None,
        card: dict | None = None,
    ):
        self.path, self.args, self.recipe, self.card = Path(args.output_dir), args, recipe, card
        items = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        told = {**(settings or {}), "items_per_step": items, "arguments": args.to_sanitized_dict()}
        self.settings = json.loads(json.dumps(told, default=str))  # a schedule's keys are numbers and texts
        self.checkpoint, self.was_finished, self._is_held = None, False, False

    @property
    def settings_hash(self) -> str:
        """Of the settings that shape weights: the same for two runs that should give the same model."""
        text = json.dumps(_told(self.settings), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other trainings out, and find the checkpoint to go on from; again inside, nothing happens.

        Raises:
            ValueError: if the folder holds the results of other settings, or some processes find no checkpoint where
                others do. FileExistsError: if another process trains there.
        """
        if self._is_held:
            yield
            return
        with hold_folder(self.path, "training in") if self.args.should_save else nullcontext():
            self._find_start()
            if self.checkpoint is not None:
                self._check_settings()
            self._remove_leftovers()
            self._is_held = True
            try:
                yield
            finally:
                self._is_held = False

    def _find_start(self):
        """The folder itself if it is finished, or the newest checkpoint that is whole in every process's folder."""
        self.was_finished = all((self.path / name).is_file() for name in (TRAINER_STATE_NAME, PROVENANCE_FILE))
        newest = None
        while True:
            self.checkpoint = str(self.path) if self.was_finished else last_whole_checkpoint(self.path, newest)
            steps = gather_object([float("inf") if self.was_finished else _steps(self.checkpoint)])
            newest = min(steps)
            if max(steps) == newest:
                return
            if newest < 0:
                raise ValueError(
                    f"Process {steps.index(newest)} of {len(steps)} finds no whole checkpoint in {self.path}, others "
                    "do. Give all processes one folder that they share; or, where each node has a disk of its own, "
                    "save_on_each_node=True from the start on."
                )
            self.was_finished = False

    def _check_settings(self):
        file = Path(self.checkpoint, PROVENANCE_FILE)
        if not file.is_file():  # not of this class
            return
        before, now = _told(read_json(file)["settings"]), _told(self.settings)
        both = before.keys() & now.keys()  # releases differ in names
        check_same_run(self.path, {name: before[name] for name in both}, {name: now[name] for name in both})

    def _remove_leftovers(self):
        """Remove what killed trainings were writing here: of this run nobody else writes, as the folder is held."""
        if self.args.should_save and self.path.is_dir():
            shutil.rmtree(self.path / UNFINISHED, ignore_errors=True)
            remove_file_parts(self.path, is_held=True)

    def write_recipe(self) -> None:
        """Write the resolved recipe, by which the same run can be started again, into the folder."""
        if self.recipe is not None:
            write_atomically(self.path / RECIPE_FILE, recipe_text(self.recipe))


def _told(settings):
    """Those settings that shape weights, those of the trainer's arguments among them."""
    flat = {**settings["arguments"], **settings}
    return {name: value for name, value in flat.items() if name != "arguments" and not name.startswith(_FREE)}
