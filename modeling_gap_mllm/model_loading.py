"""Load a model folder for a command, or say in one sentence what is wrong with it: its place, its kind, its weights.

`from_pretrained` itself waits for a network that is not there, takes folders of other models, fills in random numbers
for missing weights with a warning, and ends in tracebacks for damaged files.
"""

import json
import os
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.utils import logging

from .conversion.weight_files import listed
from .processing.processing_gap_mllm import GapMllmProcessor


logger = logging.get_logger(__name__)


def model_folder(name: str | Path, file: str = "config.json") -> Path:
    """Return the local folder of a model: itself, or the snapshot of a repository of the Hub, cached or fetched.

    Args:
        name (`str` or `Path`): a folder, or the name of a repository as "owner/name".
        file (`str`, defaults to "config.json"): file that such a folder holds; "adapter_config.json" for adapters.
    Raises:
        FileNotFoundError: if it is neither a folder with that file nor a repository that can be read; at once
            where the Hub is switched off (`HF_HUB_OFFLINE`), and after one try where it does not answer.
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / file).is_file():
            expected = "expected a folder of save_pretrained or convert"
            if file != "config.json":
                expected = "expected a folder of adapters, as gap-mllm train --lora or PEFT writes it"
            elif (folder / "adapter_config.json").is_file():
                expected = f"it has adapters of PEFT. Merge them: gap-mllm merge {folder} --output DIR"
            raise FileNotFoundError(f"{folder} holds no {file}; {expected}.")
        return folder
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError

    expected = f"expected a folder with {file}, or the name of a repository on the Hub as owner/name"
    if folder.exists() or isinstance(name, os.PathLike) or len(folder.parts) > 2 or folder.is_absolute():
        raise FileNotFoundError(f"{name} is no folder; {expected}.")
    problem = "the Hub is switched off by HF_HUB_OFFLINE"
    try:
        if not constants.is_offline_mode():
            HfApi().model_info(str(name), timeout=10)  # one try: a download repeats its own for half a minute
            return Path(snapshot_download(str(name)))
    except (OSError, HFValidationError, HTTPError) as error:  # no such name, no such repository, or no answer
        problem = str(error).strip().splitlines()[0]
    try:
        return Path(snapshot_download(str(name), local_files_only=True))
    except (OSError, HFValidationError):
        raise FileNotFoundError(f"{name} is no folder, and no repository that can be read: {problem}.") from None


def load_pretrained(model_class: type[PreTrainedModel], folder: str | Path, may_lack: tuple[str, ...] = (), **options):
    """Load the weights of a folder into a class of ours, all of them and nothing else.

    Args:
        model_class (`type`): a `PreTrainedModel` of this package.
        folder (`str` or `Path`): local, see `model_folder`.
        may_lack (`tuple[str, ...]`, defaults to `()`): beginnings of names of weights that may be missing and then
            start afresh.
        **options: options of `from_pretrained`.
    Returns:
        The model.
    Raises:
        ValueError: if config.json is damaged or of another kind of model, a weight file is damaged (it is named), or
            weights are missing or of other shapes (they are named). FileNotFoundError: if there are none.
    """
    folder = Path(folder)
    check_kind(model_class, folder)
    check_weight_files(folder)
    try:
        with _without_reports():  # what they say is said below
            model, found = model_class.from_pretrained(
                folder, ignore_mismatched_sizes=True, output_loading_info=True, **options
            )
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"the weights in {folder} cannot be loaded: {str(error).strip()}") from error
    misshapen = [
        f"{name} {tuple(stored)} instead of {tuple(wanted)}"
        for name, stored, wanted in sorted(found["mismatched_keys"])
    ]
    if misshapen:
        raise ValueError(
            f"{len(misshapen)} weights in {folder} are not of the shapes that its config.json asks for: "
            f"{listed(misshapen[:5])}. Give the config.json that was saved with them."
        )
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(tuple(may_lack)))
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} weights of {model_class.__name__}, as {listed(missing[:5])}; they would "
            "be random."
        )
    for names, what in ((found["missing_keys"], "start afresh"), (found["unexpected_keys"], "are not read")):
        if names:
            logger.warning(f"{folder}: {len(names)} weights {what}, as {sorted(names)[0]}.")
    return model


def load_processor(folder: str | Path) -> GapMllmProcessor:
    """Load the processor of a model's folder.

    Raises:
        FileNotFoundError: if the folder holds none that can be read.
    """
    try:
        return GapMllmProcessor.from_pretrained(folder)
    except OSError as error:
        raise FileNotFoundError(
            f"{folder} holds no processor that can be read: {str(error).splitlines()[0]} Save the one that belongs to "
            "the model there, with processor.save_pretrained(FOLDER)."
        ) from error


@contextmanager
def _without_reports():
    """Keep transformers from printing a table of weights."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def check_weight_files(folder: str | Path) -> None:
    """Refuse a damaged or cut-off safetensors file in a folder, by its name; only the headers are read.

    Raises:
        ValueError: for the first such file.
    """
    for file in sorted(Path(folder).glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError as error:
            raise ValueError(
                f"{file} is not a safetensors file, or is damaged or cut off: {error}. Copy or download it again."
            ) from None


def check_kind(model_class: type[PreTrainedModel], folder: str | Path) -> None:
    """Refuse a folder of another kind of model, before anything is built for it. Raises as `load_pretrained`."""
    file, expected = Path(folder) / "config.json", model_class.config_class.model_type
    try:
        kind = json.loads(file.read_text(encoding="utf-8")).get("model_type")
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} holds no config.json; expected a folder of a {expected} model.") from None
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is not a JSON object: {error}.") from None
    if kind != expected:
        raise ValueError(f"{file} is of model_type {kind!r}; expected {expected!r}, a {model_class.__name__}.")
