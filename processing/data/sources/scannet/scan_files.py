"""Files of ScanNet that are not frames: where scenes lie, their splits, labels and boxes by ScanNet's object id.

Frame: boxes are axis-aligned in the aligned frame. Units: metres.
"""

import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from ...box_rows import box_row
from ...read_log import TrackedPath
from ...record_errors import RecordError
from ...source_files import as_numbers, read_json, read_text


SPLITS = ("train", "val", "test")
UNLISTED = "unlisted"  # the split of scenes that the lists do not name


def posed_folder(root: Path) -> Path:
    """Find `posed_images` in a folder that the user gave; FileNotFoundError if it is not there."""
    root = TrackedPath(root)
    for folder in (root / "scannet" / "posed_images", root / "posed_images", root):
        if folder.is_dir() and (folder != root or any(path.is_dir() for path in root.iterdir())):
            return folder
    raise FileNotFoundError(
        f"{root} holds no posed_images/<scene>/ (nor scannet/posed_images/<scene>/). Export ScanNet in EmbodiedScan's "
        "layout, or give the folder that holds it."
    )


def scannet_splits(folders, scene_ids: Iterable[str]) -> dict[str, list[str]]:
    """Sort scenes into splits.

    By the official lists `scannetv2_{train,val,test}.txt` in one of `folders` (or `meta_data` below it), else by where
    `pcd_with_object_aabbs/{train,val,test}/<scene>.pth` lies; scenes that these do not name are "unlisted". Without
    either all are "train".

    Args:
        folders (list of `Path`): where lists may lie, the first that has any decides.
        scene_ids (list of `str`)
    """
    listed = next((lists for folder in folders if (lists := _split_lists(TrackedPath(folder)))), None)
    if listed is None:
        return {"train": list(scene_ids)}
    splits = {split: [scene for scene in scene_ids if scene in names] for split, names in listed.items()}
    named = set().union(*listed.values())
    splits[UNLISTED] = [scene for scene in scene_ids if scene not in named]
    return {split: scenes for split, scenes in splits.items() if scenes}


def _split_lists(folder):
    for place in (folder, folder / "meta_data"):
        files = {split: place / f"scannetv2_{split}.txt" for split in SPLITS}
        found = {split: set(read_text(file).split()) for split, file in files.items() if file.is_file()}
        if found:
            return found
    boxes = folder / "pcd_with_object_aabbs"
    return {
        split: {file.stem for file in (boxes / split).glob("*.pth")} for split in SPLITS if (boxes / split).is_dir()
    }


def read_aggregation(file: Path) -> dict[str, str]:
    """Labels by object id of `<scene>.aggregation.json`; RecordError if it is none."""
    return {object_id: label for object_id, label, _ in read_segment_groups(file)}


def read_segment_groups(file: Path) -> list[tuple[str, str, list[int]]]:
    """(object id, label, segments) of each object of `<scene>.aggregation.json`; RecordError if it is none."""
    groups = read_json(file)
    groups = groups.get("segGroups") if isinstance(groups, dict) else None
    if not isinstance(groups, list):
        raise RecordError("expected an aggregation with the list segGroups.", "segGroups", file=str(file))
    try:
        return [(str(int(group["objectId"])), str(group["label"]), group["segments"]) for group in groups]
    except (KeyError, TypeError, ValueError) as error:
        reason = f"expected groups with objectId, label and segments: {type(error).__name__}: {error}."
        raise RecordError(reason, "segGroups", file=str(file)) from None


def aabb_box(low, high, object_id: str, label: str | None, frame: str = "aligned") -> dict:
    """A box of the schema from its two extreme corners. Frame: given. Units: metres."""
    numbers = np.concatenate([(low + high) / 2, high - low, np.zeros(3)])
    return box_row(numbers, "zxy", frame, label=label, instance_id=object_id)


def read_aabbs(file: Path, labels: dict[str, str] | None = None) -> dict[str, dict]:
    """Read the boxes of a `pcd_with_object_aabbs` file by ScanNet object id.

    Frame: aligned. Units: metres. No code of the file is run: only tensors and numpy arrays are rebuilt.

    Args:
        file (`str` or `Path`): `<scene>.pth`, a dict with aabb_obj_ids `(n,)` and aabb_corner_xyz `(n, 8, 3)`.
        labels (`dict[str, str]`, *optional*): names by object id.
    Raises:
        RecordError: if it is no such file, wants to import anything else, or a box has no extent.
    """
    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            scene = torch.load(file, map_location="cpu", weights_only=True)
        ids = np.asarray(scene["aabb_obj_ids"]).reshape(-1)
        corners = as_numbers(np.asarray(scene["aabb_corner_xyz"]), (len(ids), 8, 3), "aabb_corner_xyz")
    except RecordError as error:
        raise error.locate(None, file, None) from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise RecordError(
            "expected a torch file of tensors and numpy arrays with aabb_obj_ids and aabb_corner_xyz, got "
            f"{type(error).__name__}: {first}",
            file=str(file),
        ) from None
    low, high = corners.min(1), corners.max(1)
    boxes = {}
    for index, object_id in enumerate(str(int(number)) for number in ids):
        if (high[index] <= low[index]).any():
            raise RecordError(
                f"the box of object {object_id} has sizes {(high[index] - low[index]).tolist()}; expected positive "
                "ones.",
                f"aabb_corner_xyz[{index}]",
                file=str(file),
            )
        boxes[object_id] = aabb_box(low[index], high[index], object_id, (labels or {}).get(object_id))
    return boxes


def _numpy_globals():
    """What numpy arrays in a torch file are rebuilt from, under the names of numpy 1 and 2."""
    from numpy._core.multiarray import _reconstruct, scalar

    named = [
        (function, f"numpy.{core}.multiarray.{function.__name__}")
        for function in (_reconstruct, scalar)
        for core in ("core", "_core")
    ]
    kinds = [
        value for value in vars(np.dtypes).values() if isinstance(value, type) and value is not np.dtypes.ObjectDType
    ]
    return [*named, np.ndarray, np.dtype, *kinds]
