"""What a checkpoint must say about its making: resolved settings, versions of packages, and the commit of the code."""

import json
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..processing.data.folder_writing import write_atomically


PROVENANCE_FILE = "provenance.json"
PACKAGES = ("gap-mllm", "torch", "transformers", "accelerate", "peft", "trl", "datasets", "numpy")
PACKAGES += ("flash-attn", "flash-attn-3", "flash-attn-4")


def describe_run(settings: dict) -> dict:
    """Describe the present run.

    Args:
        settings (`dict`): resolved settings, JSON values.
    Returns:
        `dict`: "settings", "versions" of the installed packages, "git_commit" of the working folder's repository with
        "git_is_dirty" (None where it is in none).
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    is_dirty = None if commit is None or changes is None else bool(changes)
    return {"settings": settings, "versions": versions, "git_commit": commit, "git_is_dirty": is_dirty}


def write_provenance(folder: str | Path, settings: dict) -> Path:
    """Write `describe_run` beside a checkpoint as provenance.json; returns the file."""
    path = Path(folder) / PROVENANCE_FILE
    write_atomically(path, json.dumps(describe_run(settings), indent=2, sort_keys=True, default=str) + "\n")
    return path


def _git(*arguments):
    """Output of git in the working folder, or None without git or a repository."""
    try:
        run = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 else None
