"""EmbodiedScan's `embodiedscan_infos_*.pkl`: scenes with posed frames, categories and 9-DoF boxes, by scene id.

Read by a restricted unpickler. A large file is read once and indexed: later readings, of other processes too, take one
scene at a time from the index. Frame: OpenCV cameras, camera to world in the scan frame; boxes in the aligned frame.
Units: metres, radians.
"""

import hashlib
import json
import os
from pathlib import Path

import datasets
import numpy as np

from ...box_rows import box_row
from ...folder_writing import file_part, remove_file_parts
from ...record_errors import RecordError
from ...source_files import check_box, read_pickle, refuse_lfs_pointer


# The publisher's choice. The boxes cannot tell: in the aligned frame an upright box reads the same in both orders.
DEFAULT_EULER_ORDER = "ZXY"
INDEX_FROM_BYTES = 128 * 2**20  # smaller files are kept in memory


class EmbodiedScanInfos:
    """One infos file; `scene_ids` are its `sample_idx`, as "scannet/scene0000_00", in the order of the file.

    Args:
        file (`str` or `Path`): `embodiedscan_infos_{train,val,test}.pkl`.
        index_dir (`str` or `Path`, *optional*): where the index of a large file is kept; by default in the cache of
            `datasets`. It is rebuilt when the file changes.
    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: if it is no such pickle, or wants to import anything but numpy arrays.
    """

    def __init__(self, file: Path, index_dir: str | Path | None = None):
        self.file = Path(file)
        refuse_lfs_pointer(self.file)
        if self.file.stat().st_size < INDEX_FROM_BYTES:
            categories, self._items = _read_infos(self.file)
            names = [_sample_idx(item) for item in self._items]
        else:
            self._index = _indexed(self.file, Path(index_dir or datasets.config.HF_DATASETS_CACHE))
            head = json.loads(self._index.with_suffix(".json").read_text(encoding="utf-8"))
            categories, names, self._offsets = head["categories"], head["scene_ids"], head["offsets"]
            self._items = None
        self.categories = {int(index): name for name, index in categories.items()}
        self._num_items, self._places = len(names), {}
        for place, name in enumerate(names):
            if name is not None:
                self._places.setdefault(name, place)

    @property
    def scene_ids(self) -> list[str]:
        """The scenes of this file."""
        return list(self._places)

    def __contains__(self, scene_id: str) -> bool:
        return scene_id in self._places

    def __len__(self) -> int:
        return self._num_items

    def __iter__(self):
        """All items in the order of the file, also those without a `sample_idx`."""
        for place in range(len(self)):
            yield self._read(place)

    def __getitem__(self, scene_id: str) -> dict:
        """The item of a scene as the file has it; RecordError if the file does not hold it."""
        if scene_id not in self._places:
            raise RecordError(f"scene {scene_id!r} is not in {self.file}.", "scene_id", file=str(self.file))
        return self._read(self._places[scene_id])

    def _read(self, place):
        if self._items is not None:
            return self._items[place]
        with open(self._index, "rb") as stream:
            stream.seek(self._offsets[place])
            return json.loads(stream.readline())

    def boxes(self, item: dict, euler_order: str = DEFAULT_EULER_ORDER) -> list[dict]:
        """The boxes of an item in the order of its `instances`, which `visible_instance_ids` count.

        Frame: aligned. Units: metres, radians. `instance_id` is EmbodiedScan's `bbox_id`, which its own language files
        use; it is not the object id of ScanNet.

        Args:
            item (`dict`): item of this file.
            euler_order (`str`, defaults to `DEFAULT_EULER_ORDER`): order of the angles in the nine numbers.
        Raises:
            RecordError: if a box has not nine finite numbers with positive sizes, no id, or an unknown category.
        """
        boxes = []
        for index, instance in enumerate(item.get("instances") or ()):
            field = f"instances[{index}]"
            numbers = check_box(instance["bbox_3d"], f"{field}.bbox_3d")
            category = int(instance["bbox_label_3d"])
            if "bbox_id" not in instance:
                raise RecordError("the instance has no bbox_id.", f"{field}.bbox_id")
            if self.categories and category not in self.categories:
                raise RecordError(f"category {category} is not in metainfo.categories.", f"{field}.bbox_label_3d")
            names = {"label": self.categories.get(category, str(category)), "instance_id": str(instance["bbox_id"])}
            boxes.append(box_row(numbers, euler_order, "aligned", **names))
        return boxes


def _read_infos(file):
    """Categories (name to number) and items of the pickle."""
    infos = read_pickle(file)
    if not isinstance(infos, dict) or not isinstance(infos.get("data_list"), list):
        raise RecordError(
            "expected a dict with metainfo and the list data_list, as EmbodiedScan writes it.", file=str(file)
        )
    categories = (infos.get("metainfo") or {}).get("categories") or {}
    if isinstance(categories, list | tuple):
        categories = {name: index for index, name in enumerate(categories)}
    return categories, infos["data_list"]


def _sample_idx(item):
    name = item.get("sample_idx") if isinstance(item, dict) else None
    return name if isinstance(name, str) else None


def _indexed(file, folder) -> Path:
    """The index of a large file: one JSON line an item, and beside it (.json) where each line starts."""
    state = file.stat()
    key = hashlib.sha256(f"{file.resolve()}:{state.st_size}:{state.st_mtime_ns}".encode()).hexdigest()[:16]
    lines = folder / "embodiedscan_index" / f"{file.stem}-{key}.jsonl"
    if lines.with_suffix(".json").is_file():
        return lines
    categories, items = _read_infos(file)
    lines.parent.mkdir(parents=True, exist_ok=True)
    remove_file_parts(lines.parent)
    # Another process may be building the same index.
    offsets, part, head = [], file_part(lines), file_part(lines.with_suffix(".json"))
    with open(part, "wb") as stream:
        for item in items:
            offsets.append(stream.tell())
            stream.write(json.dumps(item, default=_plain).encode() + b"\n")
    names = [_sample_idx(item) for item in items]
    head.write_text(
        json.dumps({"categories": categories, "scene_ids": names, "offsets": offsets}, default=_plain),
        encoding="utf-8",
    )
    os.replace(part, lines)
    os.replace(head, lines.with_suffix(".json"))
    return lines


def _plain(value):
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"the pickle holds {type(value).__name__}; expected plain containers and numpy arrays.")
