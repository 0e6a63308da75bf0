"""Which files of a folder belong on the Hub: those of a list, code that its settings name, and pictures of the card.

All else stays here, each with the reason: an upload cannot be taken back once somebody has copied it.
"""

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from transformers.dynamic_module_utils import get_relative_import_files


CARD, METRICS = "README.md", "metrics.json"
SETTINGS = ("config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json")
SETTINGS += ("video_preprocessor_config.json", "tokenizer_config.json", "adapter_config.json")
_ALLOWED = (
    *(CARD, METRICS, *SETTINGS, "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    *("adapter_model.safetensors", "chat_template.jinja", "tokenizer.json", "vocab.json", "merges.txt"),
    *("special_tokens_map.json", "added_tokens.json", "LICENSE", "LICENSE.*", "NOTICE", "NOTICE.*"),
)
_STATE = ("optimizer*", "scheduler*", "scaler*", "rng_state*", "random_states*", "trainer_state.json")
_STATE += ("training_args.*", "log_totals*")
_REASONS = (  # of the first pattern that fits
    (("checkpoint-*",), "checkpoint of a training"),
    (_STATE, "state of a training"),
    (("provenance.json", "recipe.yaml", "summary.json", "*.jsonl", "runs"), "about a run, with paths of this machine"),
    (("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl"), "pickled, runs code where it is read; safetensors do not"),
    ((".*", "__pycache__", "*.lock"), "hidden file or cache"),
    (("*.py",), "code that no settings name"),
    (("*.safetensors",), "weights that are not loaded from this folder"),
    (("*.png", "*.jpg", "*.jpeg", "*.gif", "*.webp"), "picture that the card does not show"),
)


@dataclass(frozen=True)
class UploadPlan:
    """What of a folder goes up, and what stays.

    Args:
        folder (`Path`): the folder.
        files (`dict[str, int]`): size in bytes of each file that goes up, by its path in the folder.
        left_out (`dict[str, tuple[int, str]]`): size in bytes of each file or folder that stays, and the reason.
    """

    folder: Path
    files: dict[str, int]
    left_out: dict[str, tuple[int, str]]

    def __str__(self) -> str:
        lines = [f"{size_text(size):>10}  {name}" for name, size in self.files.items()]
        lines.append(f"{size_text(sum(self.files.values())):>10}  in {len(self.files)} files")
        if self.left_out:
            lines.append("left out:")
        lines += [f"{size_text(size):>10}  {name}: {reason}" for name, (size, reason) in self.left_out.items()]
        return "\n".join(lines)


def plan_upload(folder: str | Path) -> UploadPlan:
    """Tell what of a folder belongs on the Hub. Nothing is loaded, and nothing is sent.

    Args:
        folder (`str` or `Path`): folder of a model, of a part of one, or of adapters.
    Returns:
        `UploadPlan`.
    Raises:
        NotADirectoryError: if there is no such folder. ValueError: if it holds no model, or its settings are no JSON.

    Example:
        ```python
        >>> from gap_mllm.pushing import plan_upload
        >>> plan = plan_upload(folder)
        >>> "model.safetensors" in plan.files, "optimizer.pt" in plan.files
        (True, False)

        ```
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder; expected one that save_pretrained wrote.")
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ValueError(f"{folder} has neither config.json nor adapter_config.json; expected the folder of a model.")
    wanted = {file for pattern in _ALLOWED for file in folder.glob(pattern)} | _code(folder) | _pictures(folder)
    files = sorted(file for file in wanted if file.is_file())
    left_out = {}
    for path in sorted(folder.iterdir()):
        inside = [file for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
        size = sum(file.stat().st_size for file in inside if file not in wanted)
        if not inside or any(file not in wanted for file in inside):
            left_out[f"{path.name}/" if path.is_dir() else path.name] = (size, _reason(path.name))
    return UploadPlan(folder, {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}, left_out)


def read_settings(file: Path) -> dict:
    """Return a JSON file's object, empty where there is none. Raises ValueError, by name, for any other content."""
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{file} cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds a {type(found).__name__}; expected a JSON object.")
    return found


def size_text(size: int) -> str:
    """A size in bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _code(folder):
    """The files that the tables of classes name, and what they import."""
    tables = [read_settings(folder / name).get("auto_map") or {} for name in SETTINGS]
    named = [entry if isinstance(entry, list) else [entry] for table in tables for entry in table.values()]
    entries = {folder / f"{name.split('.')[0]}.py" for names in named for name in names if name}
    entries = {entry for entry in entries if entry.is_file()}
    imported = {Path(file) for entry in entries for file in get_relative_import_files(str(entry))}
    return entries | {file for file in imported if file.parent == folder}


def _pictures(folder):
    """The pictures in the folder that its card shows."""
    card = folder / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    shown = re.findall(r"!\[[^\]]*\]\(([^)\s]+)", text) + re.findall(r"<img[^>]*\ssrc=[\"']([^\"']+)", text)
    return {folder / name for name in shown if not re.match(r"\w+:|/", name) and ".." not in Path(name).parts}


def _reason(name):
    return next(
        (why for patterns, why in _REASONS if any(fnmatch(name, pattern) for pattern in patterns)),
        "no part of a published model",
    )
