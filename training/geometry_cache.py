"""Tensors of scenes on disk: one file a scene, whole or not there, at most so many gigabytes, for many processes.

Features of geometry encoders are looked up and made in frozen_geometry.py, targets of teachers in cached_teacher.py.
"""

import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers.utils import logging

from ..processing.argument_checks import check_output_folder
from ..processing.input_checks_gap_mllm import check_positive


logger = logging.get_logger(__name__)

LOOKS_PER_ROUND = 256  # how often the folder is measured while it fills once
SHARE_KEPT = 7 / 8  # of the bound, once it is passed
STALE_AFTER_S = 3600  # for files that a killed process left half-written


def content_key(*arrays: torch.Tensor | np.ndarray) -> str:
    """Return a hash of dtypes, shapes and contents, in their order, by which scenes are known."""
    hasher = xxhash.xxh3_128()
    for array in arrays:
        tensor = torch.as_tensor(array)
        hasher.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(_bytes(tensor))
    return hasher.hexdigest()


class GeometryCache:
    """Tensors by key, in a folder that any number of processes share and that is bounded.

    A file appears under its name in one step, so that no reader meets half of it. One that is damaged, or that
    something else wrote, counts as missing and is written anew, with one warning; where nothing can be written, as on
    a full disk, the tensor is not kept, with one warning. When the bound is passed, what was not read for the longest
    time goes. Other files of the folder stay and do not count.

    Args:
        folder (`str` or `Path`): folder to keep files in; made if it does not exist.
        max_gb (`float`, defaults to 100.0): bound on all files together, in gigabytes (10^9 bytes). Each further
            process may pass it by 1/256.
    Raises:
        ValueError: if `max_gb` is not above 0. NotADirectoryError: if the folder is a file.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.geometry_cache import GeometryCache
        >>> cache = GeometryCache("geometry", max_gb=0.5)
        >>> cache.write("encoder/scene", torch.ones(4, 256, 8))
        >>> cache.read("encoder/scene").shape, cache.read("encoder/other") is None
        (torch.Size([4, 256, 8]), True)

        ```
    """

    def __init__(self, folder: str | Path, max_gb: float = 100.0):
        self.folder = check_output_folder("cache_dir", folder)
        self.max_bytes = check_positive("max_gb", max_gb) * 1e9
        self._written = self.max_bytes  # since the folder was measured, which the first write does
        self._warned, self._since = set(), time.time()
        self.folder.mkdir(parents=True, exist_ok=True)

    def read(self, key: str) -> torch.Tensor | None:
        """Return what `write` kept under a key, on the CPU; None if nothing was, or it is damaged."""
        found = self.read_tensors(key)
        return None if found is None else found[0]["features"]

    def write(self, key: str, features: torch.Tensor) -> None:
        """Keep a tensor under a key.

        Args:
            key (`str`): name of a folder and name in it, as "encoder/scene".
            features (`torch.Tensor`): tensor on any device.
        """
        self.write_tensors(key, {"features": features})

    def read_tensors(self, key: str) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
        """Return what `write_tensors` kept under a key, on the CPU; None if nothing was, or it is damaged."""
        path = self._path(key)
        for is_last in (False, True):  # another process may remove a file while it is opened, and write it anew
            try:
                with safe_open(path, framework="pt") as file:
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
                    told = file.metadata() or {}
                break
            except FileNotFoundError:
                return None
            except (OSError, RuntimeError, SafetensorError) as error:
                if is_last:
                    return self._warn("damaged", f"{path} cannot be read ({error}); such scenes are encoded again.")
        description = _description(key, tensors)
        if told | description != told:
            return self._warn(
                "damaged", f"{path} holds something else than was written; such scenes are encoded again."
            )
        with suppress(OSError):  # a folder that may only be read
            os.utime(path)
        return tensors, {name: value for name, value in told.items() if name not in description}

    def write_tensors(self, key: str, tensors: dict[str, torch.Tensor], about: dict[str, str] | None = None) -> None:
        """Keep named tensors under a key.

        Args:
            key (`str`): name of a folder and name in it, as "encoder/scene".
            tensors (`dict[str, torch.Tensor]`): tensors on any device, which share no memory.
            about (`dict[str, str]`, *optional*): texts to keep with them; no "key" or "checksum".
        """
        path = self._path(key)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        part = path.with_name(f".{uuid.uuid4().hex}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, part, {**(about or {}), **_description(key, tensors)})
            os.replace(part, path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            self._warn("full", f"{path} cannot be written ({error}); make room, or give another cache_dir.")
            return
        self._written += sum(tensor.nbytes for tensor in tensors.values())
        if self._written > self.max_bytes / LOOKS_PER_ROUND:
            self._make_room()

    def _path(self, key):
        encoder, scene = key.split("/")
        return self.folder / encoder / scene[:2] / f"{scene}.safetensors"

    def _warn(self, kind, text):
        if kind not in self._warned:
            logger.warning(f"Geometry cache: {text}")
        self._warned.add(kind)

    def _make_room(self):
        """Measure the folder, and remove what was used last long ago if it holds too much."""
        self._written, total, entries = 0, 0, []
        for path in self.folder.glob("*/??/*"):
            with suppress(FileNotFoundError):  # another process makes room, too
                stat = path.stat()
                if path.suffix == ".safetensors":
                    entries.append((stat.st_mtime, stat.st_size, path))
                    total += stat.st_size
                elif path.suffix == ".part" and stat.st_mtime < time.time() - STALE_AFTER_S:
                    path.unlink()
        if total <= self.max_bytes * (1 - 1 / LOOKS_PER_ROUND):
            return
        for used, size, path in sorted(entries):
            if total <= self.max_bytes * SHARE_KEPT:
                break
            if used >= self._since:
                text = f"{self.folder} is full with {total / 1e9:.3g} GB, and scenes of this very run must go."
                self._warn("small", f"{text} Give a max_gb that all its scenes fit in, or no cache_dir.")
            path.unlink(missing_ok=True)
            total -= size


def _description(key, tensors):
    """What a file says of itself, to tell whether it is whole and in its place."""
    hasher = xxhash.xxh3_128()
    for _, tensor in sorted(tensors.items()):
        hasher.update(_bytes(tensor))
    return {"key": key, "checksum": hasher.hexdigest()}


def _bytes(tensor):
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
