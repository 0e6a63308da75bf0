"""Weight files on disk: reading them tensor by tensor, and writing them in shards."""

import json
import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..processing.json_depth import decode_json


MAX_SHARD_BYTES = 5 * 10**9
MAX_LISTED_NAMES = 100


class ConversionError(ValueError):
    """A folder cannot be converted; the message names the file, key or weights at fault."""


class WeightFiles:
    """The tensors of a weight file or folder by name, read one at a time.

    A folder is searched for an index, then `model.safetensors`, then its only `*.safetensors`, then `model.pt`, then
    its only `*.pt`, `*.pth` or `*.bin`. The latter are read with `weights_only=True` (no code runs).

    Raises:
        FileNotFoundError: if the path, its weights or a shard that its index names are not there.
        ConversionError: if several files come without an index, or a file is damaged or holds more than tensors.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._files, self._tensors, self._shapes = {}, {}, {}
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path} does not exist. Download the weights there first.")
        for file, names in self._find().items():
            if file.suffix == ".safetensors":
                self._add_safetensors(file, names)
            else:
                self._add_pickle(file)

    def _find(self):
        """Return the files to read, with the names that an index expects in each (None: all)."""
        if self.path.is_file():
            return {self.path: None}
        indexes = sorted(self.path.glob("*.safetensors.index.json"))
        if len(indexes) == 1:
            files, weight_map = {}, read_json(indexes[0]).get("weight_map")
            if not isinstance(weight_map, dict):
                raise ConversionError(f"{indexes[0]} has no weight_map.")
            for name, file in weight_map.items():
                files.setdefault(self.path / file, []).append(name)
            absent = sorted(file.name for file in files if not file.exists())
            if absent:
                raise FileNotFoundError(f"{indexes[0]} names files that are not there: {', '.join(absent)}.")
            return files
        for default, patterns in (("model.safetensors", ["*.safetensors"]), ("model.pt", ["*.pt", "*.pth", "*.bin"])):
            if (self.path / default).exists():
                return {self.path / default: None}
            found = sorted(file for pattern in patterns for file in self.path.glob(pattern))
            if len(found) == 1:
                return {found[0]: None}
            if found:
                names = ", ".join(file.name for file in found)
                raise ConversionError(f"{self.path} has several weight files and no index: {names}. Name one of them.")
        raise FileNotFoundError(f"{self.path} has no weights: neither *.safetensors nor *.pt is there.")

    def _add_safetensors(self, file, names):
        try:
            opened = safe_open(file, "pt")
        except SafetensorError as error:
            raise ConversionError(f"{file} is not a safetensors file, or is damaged: {error}") from error
        stored = set(opened.keys())
        absent = sorted(set(names or ()) - stored)
        if absent:
            raise ConversionError(f"{file} lacks weights that its index names: {listed(absent)}.")
        for name in names or stored:
            self._files[name] = opened
            self._shapes[name] = tuple(opened.get_slice(name).get_shape())

    def _add_pickle(self, file):
        try:
            try:
                tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # the old file format cannot be mapped
                tensors = torch.load(file, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            raise ConversionError(
                f"{file} holds more than weights, or is damaged, and is not read: {str(error).splitlines()[0]}"
            ) from None
        if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
            raise ConversionError(f"{file} must hold one dictionary from names to tensors, and nothing else.")
        self._tensors.update(tensors)
        self._shapes.update({name: tuple(tensor.shape) for name, tensor in tensors.items()})

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by its name; nothing is read for it."""
        return self._shapes

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._files[name].get_tensor(name) if name in self._files else self._tensors[name]


def write_shards(tensors: Iterable[tuple[str, torch.Tensor]], folder: Path) -> None:
    """Save named tensors in shards of at most `MAX_SHARD_BYTES`, with an index if there are several.

    One shard at a time is held in memory.
    """
    shards, shard, size, total = [], {}, 0, 0

    def close():
        file = folder / f"shard-{len(shards)}"
        save_file(shard, file, metadata={"format": "pt"})
        shards.append((file, list(shard)))

    for name, tensor in tensors:
        num_bytes = tensor.numel() * tensor.element_size()
        if shard and size + num_bytes > MAX_SHARD_BYTES:
            close()
            shard, size = {}, 0
        shard[name] = tensor
        size += num_bytes
        total += num_bytes
    close()
    if len(shards) == 1:
        shards[0][0].rename(folder / "model.safetensors")
        return
    weight_map = {}
    for number, (file, names) in enumerate(shards, start=1):
        final = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        file.rename(folder / final)
        weight_map.update(dict.fromkeys(names, final))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict:
    """Read a JSON object, or say what is wrong with the file.

    Raises:
        FileNotFoundError: if it is not there.
        ConversionError: if it is not JSON, or not one object.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist.")
    try:
        data = decode_json(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of the decoder, of UTF-8, or nested too deep
        raise ConversionError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConversionError(f"{path} must hold a JSON object, got a {type(data).__name__}.")
    return data


def listed(names: Iterable[str]) -> str:
    """Join names for a message, at most `MAX_LISTED_NAMES` of them."""
    names = list(names)
    more = f" and {len(names) - MAX_LISTED_NAMES} more" if len(names) > MAX_LISTED_NAMES else ""
    return ", ".join(names[:MAX_LISTED_NAMES]) + more
