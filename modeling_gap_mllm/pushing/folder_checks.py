"""What must hold before a folder goes up: a whole card, no path of this machine, and strangers can load it."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from huggingface_hub import ModelCard, metadata_load, metadata_save
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from . import stranger
from .upload_plan import CARD, METRICS, SETTINGS, read_settings


_NEEDED = {  # of a card, with an example of each
    "license": "license: apache-2.0",
    "library_name": "library_name: transformers",
    "tags": "tags: [gap-mllm, geometry, 3d]",
}
_NEEDED_OF_MODELS = {"pipeline_tag": "pipeline_tag: image-text-to-text", "language": "language: en"}
_PARTS = ("gap_mllm_vggt", "gap_mllm_vggt_points", "gap_mllm_geometry_maps", "gap_mllm_fusion")
_ABSOLUTE = re.compile(r"(?:/|~/|[A-Za-z]:\\\\?)[^\s\"']*[/\\][^\s\"']+")


def card_problems(folder: Path) -> tuple[list[str], list[str]]:
    """Look through the metadata of a folder's card, without the network.

    Args:
        folder (`Path`): folder with README.md.
    Returns:
        `tuple[list[str], list[str]]`: what must be put right, and what should be thought of.
    """
    file = folder / CARD
    if not file.is_file():
        return [f"there is no {CARD}; write one, or save the model again, which does"], []
    try:
        ModelCard(file.read_text(encoding="utf-8"))
        data = metadata_load(file) or {}  # as it is written: the card's own data are put right in silence
    except Exception as error:  # huggingface_hub raises whatever yaml and its own checks do
        return [f"the metadata of {CARD} cannot be read: {error}"], []
    is_part = read_settings(folder / "config.json").get("model_type") in _PARTS
    needed = _NEEDED if is_part else {**_NEEDED, **_NEEDED_OF_MODELS}
    problems, missing = [], [name for name in needed if not data.get(name)]
    if missing:
        lines = "; ".join(needed[name] for name in missing)
        problem = f"{CARD} lacks {', '.join(missing)}: write between its first two --- lines, say, {lines}"
        problems.append(problem + (", or give --license ID" if "license" in missing else ""))
    if data.get("license") == "other" and not (data.get("license_name") and data.get("license_link")):
        problems.append(
            f"{CARD} says license: other; that needs license_name and license_link as well "
            "(--license-name, --license-link)"
        )
    for name in ("tags", "datasets"):
        if not isinstance(data.get(name) or [], list):
            problems.append(f"{name} of {CARD} is {data[name]!r}; expected a list")
    bases = data.get("base_model") or []
    for base in [bases] if isinstance(bases, str) else bases:
        if not is_hub_name(base):
            problems.append(f"base_model of {CARD} is {base!r}; expected a repository of the Hub, OWNER/NAME")
    unnamed = [name for name in ("base_model", "datasets") if name not in data]
    return problems, [f"{CARD} names no {name}; right, if there are none" for name in unnamed]


def set_metadata(file: Path, values: dict) -> None:
    """Set fields of a card's metadata, and take out those that are None; its text stays as it is.

    Args:
        file (`Path`): the card. A card whose metadata cannot be read stays; `card_problems` says so.
        values (`dict`): values by name.
    """
    try:
        data = metadata_load(file) or {}
    except Exception:  # huggingface_hub raises whatever yaml and its own checks do
        return
    data.update(values)
    metadata_save(file, {name: value for name, value in data.items() if value is not None})


def is_hub_name(name: str) -> bool:
    """Whether a text can be a repository of the Hub, and is no folder of this machine."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(name).exists()


def local_paths(folder: Path) -> list[str]:
    """What settings and figures say that is true on this machine alone.

    Args:
        folder (`Path`): folder of a model.
    Returns:
        `list[str]`: a sentence for each.
    """
    found = []
    for file, key in (("config.json", "geometry_weights"), ("adapter_config.json", "base_model_name_or_path")):
        name = read_settings(folder / file).get(key)
        if name and not is_hub_name(name):
            found.append(f"{key} of {file} is {name!r}, which strangers do not have; name a repository of the Hub")
    for file in (*SETTINGS, METRICS):
        for text in _texts(read_settings(folder / file)):
            if _ABSOLUTE.fullmatch(text) and not any(repr(text) in told for told in found):
                found.append(f"{file} names {text!r}, a place on this machine; take it out")
    return found


def _texts(value):
    """All strings in a JSON value, but for keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def load_as_stranger(folder: Path) -> dict:
    """Load a folder in a process of its own that cannot import this package, with `trust_remote_code`.

    Args:
        folder (`Path`): folder of a model.
    Returns:
        `dict`: `model` and `processor`, names of classes, and `parameters`, a count.
    Raises:
        ValueError: if it does not load, with the last line of the error.
    """
    with tempfile.TemporaryDirectory() as work:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["HF_MODULES_CACHE"] = f"{work}/modules"
        command = [sys.executable, "-P", stranger.__file__, str(folder.absolute())]
        run = subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
    if run.returncode:
        said = [line for line in run.stderr.splitlines() if line.strip()] or [f"exit code {run.returncode}"]
        error = next((line for line in reversed(said) if re.match(r"[\w.]+(Error|Exception|Exit)\b", line)), said[-1])
        raise ValueError(f"it does not load where this package is not installed: {error}")
    return json.loads(run.stdout.splitlines()[-1])
