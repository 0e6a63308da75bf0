"""EmbodiedScan's `embodiedscan_infos_*.pkl`: scenes with posed frames, categories and 9-DoF boxes, by scene id.

Read by a restricted unpickler. Frame: OpenCV cameras, camera to world in the scan frame; boxes in the aligned frame.
Units: metres, radians.
"""

from pathlib import Path

import numpy as np

from ..euler_order import detect_euler_order
from ..record_errors import RecordError
from ..source_files import check_box, read_pickle


DEFAULT_EULER_ORDER = "ZXY"


class EmbodiedScanInfos:
    """One infos file; `scene_ids` are its `sample_idx`, as "scannet/scene0000_00", in the order of the file.

    Args:
        file (`str` or `Path`): `embodiedscan_infos_{train,val,test}.pkl`.
    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: if it is no such pickle, or wants to import anything but numpy arrays.
    """

    def __init__(self, file):
        self.file = Path(file)
        infos = read_pickle(self.file)
        if not isinstance(infos, dict) or not isinstance(infos.get("data_list"), list):
            raise RecordError(
                "expected a dict with metainfo and the list data_list, as EmbodiedScan writes it.", file=str(self.file)
            )
        categories = (infos.get("metainfo") or {}).get("categories") or {}
        if isinstance(categories, list | tuple):
            categories = {name: index for index, name in enumerate(categories)}
        self.categories = {int(index): name for name, index in categories.items()}
        self._items = infos["data_list"]
        self._places = {}
        for place, item in enumerate(self._items):
            if isinstance(item, dict) and isinstance(item.get("sample_idx"), str):
                self._places.setdefault(item["sample_idx"], place)

    @property
    def scene_ids(self) -> list[str]:
        """The scenes of this file."""
        return list(self._places)

    def __contains__(self, scene_id: str) -> bool:
        return scene_id in self._places

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self):
        """All items in the order of the file, also those that no `sample_idx` names."""
        for place in range(len(self)):
            yield self._read(place)

    def __getitem__(self, scene_id: str) -> dict:
        """The item of a scene as the file has it; RecordError if the file does not hold it."""
        if scene_id not in self._places:
            raise RecordError(f"scene {scene_id!r} is not in {self.file}.", "scene_id", file=str(self.file))
        return self._read(self._places[scene_id])

    def _read(self, place):
        return self._items[place]

    def boxes(self, item: dict, euler_order: str = DEFAULT_EULER_ORDER) -> list[dict]:
        """The boxes of an item in the order of its `instances`, which `visible_instance_ids` count.

        Frame: aligned. Units: metres, radians. `instance_id` is EmbodiedScan's `bbox_id`, which its own language files
        use; it is not the object id of ScanNet.

        Args:
            item (`dict`): of this file.
            euler_order (`str`): of the nine numbers.
        Raises:
            RecordError: if a box has not nine finite numbers with positive sizes, or its category is unknown.
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
            boxes.append(
                {
                    "center": numbers[:3],
                    "size": numbers[3:6],
                    "euler": numbers[6:],
                    "euler_order": euler_order,
                    "frame": "aligned",
                    "label": self.categories.get(category, str(category)),
                    "instance_id": str(instance["bbox_id"]),
                }
            )
        return boxes

    def detect_euler_order(self, max_items: int = 200):
        """Which Euler order leaves the boxes upright in the aligned frame; see `detect_euler_order`."""
        rows = []
        for item in self._items[:max_items]:
            boxes = [instance.get("bbox_3d") for instance in (item.get("instances") or ())]
            good = []
            for box in boxes:
                try:
                    good.append(check_box(box))
                except RecordError:  # met again, and refused, when the scene is read
                    continue
            if good:
                rows.append((np.stack(good), np.eye(4)))
        return detect_euler_order(rows)


__all__ = ["DEFAULT_EULER_ORDER", "EmbodiedScanInfos"]
