"""GAP-MLLM's own JSON files: marked pixels, detection, grounding in one or two stages, captions.

Texts are kept word for word. Which task a record is follows from its keys. The same form is written by VG-LLM, whose
files vgllm.py adds to this reader.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from transformers.utils import logging

from ....answers_gap_mllm import parse_boxes, parse_frame, parse_points
from ...box_rows import box_row
from ...euler_order import EULER_ORDERS, detect_euler_order
from ...file_guards import is_data_file, list_folder
from ...read_log import TrackedPath
from ...record_errors import RecordError
from ...source_builder import SceneSourceBuilder, SourceConfig
from ...source_files import as_numbers, check_box, check_pose, find_file, iter_records, picture_header
from ...stored_frames import posed_view, read_axis_alignment, read_pose
from .conversations import check_tags, read_conversation, split_of


logger = logging.get_logger(__name__)

JSON_SUFFIXES = (".json", ".jsonl")
NUM_EVIDENCE_ROWS = 500  # of a file, to detect its Euler order
USED_KEYS = {"conversations", "images", "pixel_coords", "boxes", "cam2img", "cam2global", "axis_align_matrix"}
USED_KEYS |= {"gt_bbox", "target", "input_box", "gt_box", "annotations", "id"}


@dataclass
class GapMllmSourceConfig(SourceConfig):
    """`SourceConfig`, and where pictures are.

    Args:
        media_dir (`str`, *optional*): folder that the paths of records start from; by default `media` beside the JSON
            folders. Poses, depth and intrinsics are read where they lie beside the pictures.
        euler_order (`str`, *optional*): "zxy" or "ZXY", instead of detecting it for each file.
    Raises:
        ValueError: on another `euler_order`.
    """

    CHOICES = {"euler_order": (None, *EULER_ORDERS)}

    media_dir: str | None = None
    euler_order: str | None = None


class GapMllmSource(SceneSourceBuilder):
    """GAP-MLLM data: `data/train/*.json`, `data/evaluation/**/*.json`, pictures in `data/media`.

    Splits "train" and "val". JSON arrays and .jsonl, also directly in data_dir.
    """

    BUILDER_CONFIG_CLASS = GapMllmSourceConfig
    SOURCE = "gap_mllm"
    TASKS = ("reconstruction", "detection3d", "grounding", "grounding_frame", "grounding_box", "dense_caption")
    LAYOUT = "train/*.json, evaluation/**/*.json and media/ (or data/ with these, or the JSON files themselves)"
    DEFAULT_EULER_ORDER = "zxy"

    def find_files(self, root: Path):
        folders = [
            folder
            for folder in (root, root / "data")
            if (folder / "train").is_dir() or (folder / "evaluation").is_dir()
        ]
        if not folders:
            files = [path for path in list_folder(root) if path.suffix in JSON_SUFFIXES]
            return {
                split: found
                for split in ("train", "val")
                if (found := [f for f in files if (split_of(f) == "train") == (split == "train")])
            }
        base = folders[0]
        names = {"train": base / "train", "val": base / "evaluation"}
        return {split: self.files_below(folder, *JSON_SUFFIXES) for split, folder in names.items()}

    @property
    def media(self) -> Path:
        """The folder that the paths of records start from."""
        if self.config.media_dir:
            return TrackedPath(self.config.media_dir)
        found = [folder for folder in (self.root / "media", self.root / "data" / "media") if folder.is_dir()]
        return found[0] if found else self.root

    def prepare_file(self, split: str, file: Path):
        if self.config.euler_order:
            return self.config.euler_order
        boxes = list(self._evidence(file))
        evidence = detect_euler_order(boxes)
        if evidence.order is None:
            if boxes:
                logger.warning(
                    f"{file}: nothing tells the Euler order of its boxes ({evidence}). Reading them as "
                    f"{self.DEFAULT_EULER_ORDER}; pass euler_order (--euler-order) if that is wrong: "
                    f"{', '.join(order for order in self.BUILDER_CONFIG_CLASS.CHOICES['euler_order'] if order)}."
                )
                self.mark("euler_order_undecided", file, detail=str(evidence))
            return self.DEFAULT_EULER_ORDER
        if evidence.order != self.DEFAULT_EULER_ORDER:
            logger.warning(
                f"{file}: boxes are stored in Euler order {evidence.order}, not in the usual "
                f"{self.DEFAULT_EULER_ORDER}: {evidence}. Reading them as {evidence.order}; pass euler_order "
                "(--euler-order) if that is wrong."
            )
            self.mark("euler_order", file, detail=str(evidence))
        return evidence.order

    def _evidence(self, file):
        """Boxes and poses of the first records that have both; broken ones are met again, and refused, later."""
        found = 0
        for _, record in islice(iter_records(file, skip=lambda error: None), NUM_EVIDENCE_ROWS):
            try:
                boxes = [box["bbox_3d"] for box in record.get("boxes") or ()]
                boxes = [check_box(box) for box in boxes]
                pose = self._first_pose(record) if boxes else None
            except (RecordError, KeyError, TypeError, IndexError, AttributeError):
                continue
            if boxes:
                found += 1
                yield np.stack(boxes), pose

    def _first_pose(self, record):
        """Camera of the first view in a world with its third axis up: of the record, or beside the picture."""
        if record.get("cam2global"):
            pose = check_pose(record["cam2global"][0])
        else:
            path = find_file(self.media, record["images"][0], dropped=("scannet/posed_images/", "scannet/"))
            file = path.with_suffix(".txt")
            pose = read_pose(file) if is_data_file(file) else None
        alignment = record.get("axis_align_matrix")  # turns about the vertical alone, so it may be missing
        return pose if pose is None or alignment is None else check_pose(alignment) @ pose

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        task = self.task_of(record)
        if not self.wants(task):
            return
        row = self.base_row(file, record_id, record)
        row["task"] = task
        read_truth = getattr(self, f"_{task}", None)  # of other tasks the row says all
        yield row if read_truth is None else {**row, **read_truth(record, row, context)}

    def task_of(self, record: dict) -> str:
        """Which task a record is, from its keys."""
        if "pixel_coords" in record:
            return "reconstruction"
        if "boxes" in record:
            return "detection3d"
        if "input_box" in record or "gt_box" in record:
            return "dense_caption"
        question = read_conversation(record)[1]
        asks_frame, asks_box = '"frame"' in question, '"bbox_3d"' in question
        if "gt_bbox" not in record or not (asks_frame or asks_box):
            raise RecordError(
                f"the keys {sorted(record)} are of no known task; expected pixel_coords, boxes, input_box, or gt_bbox "
                'with a question for "frame" or "bbox_3d".',
            )
        return "grounding" if asks_frame and asks_box else "grounding_frame" if asks_frame else "grounding_box"

    def base_row(self, file: Path, record_id: str, record: dict):
        """What all tasks share: texts, views with cameras, and the keys that nothing else uses."""
        images = record.get("images")
        if not isinstance(images, list) or not images:
            raise RecordError(f"expected a list of paths, got {images!r}.", "images")
        system, question, answer = read_conversation(record)
        check_tags(question, len(images))
        views = [self._view(file, record_id, record, index, name) for index, name in enumerate(images)]
        scene_id = images[0].replace("\\", "/").split("/")[-2] if "/" in images[0] else None
        alignment = record.get("axis_align_matrix")
        if alignment is not None:
            alignment = check_pose(alignment, "axis_align_matrix")
        elif scene_id is not None:
            scene_file = self.media / "scannet" / "scans" / scene_id / f"{scene_id}.txt"
            alignment = read_axis_alignment(scene_file)
        return {
            "scene_id": scene_id,
            "views": views,
            "world_to_aligned": alignment,
            "pose_frame": "scan" if any(view.get("camera_to_world") is not None for view in views) else None,
            "system": system,
            "question": question,
            "answer": answer,
            "metadata": {key: value for key, value in record.items() if key not in USED_KEYS},
        }

    def _view(self, file, record_id, record, index, name):
        field = f"images[{index}]"
        path = find_file(self.media, name, dropped=("scannet/posed_images/", "scannet/"), field=field)
        view = posed_view(path, name, lambda pose: self.mark("lost_tracking", file, record_id, str(pose)))
        poses, intrinsics = record.get("cam2global"), record.get("cam2img")
        if poses is not None:
            if len(poses) != len(record["images"]):
                raise RecordError(f"{len(poses)} poses for {len(record['images'])} images.", "cam2global")
            view["camera_to_world"] = check_pose(poses[index], f"cam2global[{index}]")
        if intrinsics is not None:
            view["intrinsics"] = as_numbers(intrinsics, (4, 4), "cam2img")[:3, :3]
        return view

    def _reconstruction(self, record, row, euler_order):
        view, x, y = (int(value) for value in as_numbers(record["pixel_coords"], (3,), "pixel_coords"))
        if not 0 <= view < len(row["views"]):
            raise RecordError(f"view {view} of {len(row['views'])} views (counted from 0).", "pixel_coords")
        (width, height), _ = picture_header(row["views"][view]["image"]["path"])
        if not (0 <= x < width and 0 <= y < height):
            raise RecordError(
                f"pixel (x={x}, y={y}) lies outside view {view} of {width} x {height} pixels.", "pixel_coords"
            )
        point = {"view": view, "pixel": (x, y), "frame": "camera"}
        if row["answer"] is not None:
            target = one_item(parse_points(row["answer"]), "pointmap")
            point |= {"xyz": target.point, "label": target.label}
        mark = {"view": view, "kind": "cross", "color": "red", "xy": (x, y), "unit": "pixel"}
        return {"points": [point], "marks": [mark]}

    def _detection3d(self, record, row, euler_order):
        boxes = []
        for index, entry in enumerate(record["boxes"]):
            numbers = check_box(entry["bbox_3d"], f"boxes[{index}].bbox_3d")
            box = camera_box(numbers, euler_order, 0, label=entry["label"], in_reference=entry.get("in_reference"))
            boxes.append(box)
        return {"boxes": boxes}

    def _grounding_frame(self, record, row, euler_order):
        return {**self._described(record), "target_frame": self._target_frame(record, row)}

    def _grounding_box(self, record, row, euler_order):
        fields = self._described(record)
        numbers = self._target_box(record, row)
        if numbers is not None:
            fields["boxes"].append(camera_box(numbers, euler_order, 0))
        return fields

    def _grounding(self, record, row, euler_order):
        fields = self._described(record)
        frame, numbers = self._target_frame(record, row), self._target_box(record, row)
        if numbers is not None:
            fields["boxes"].append(camera_box(numbers, euler_order, frame))
        return {**fields, "target_frame": frame}

    def _dense_caption(self, record, row, euler_order):
        roles = {"target": record.get("gt_box"), "input": record.get("input_box")}
        boxes = [
            {**aligned_box(as_numbers(numbers, (6,), key), key), "role": role}
            for (role, numbers), key in zip(roles.items(), ("gt_box", "input_box"), strict=True)
            if numbers is not None
        ]
        references = record.get("annotations") or ([row["answer"]] if row["answer"] else [])
        return {"boxes": boxes, "references": references}

    def _described(self, record):
        """The object's box in the aligned world; its last three numbers are 0 in these files."""
        box = aligned_box(as_numbers(record["gt_bbox"], (len(record["gt_bbox"]),), "gt_bbox"), "gt_bbox")
        metadata = record.get("metadata") or {}
        return {
            "boxes": [{**box, "role": "target", "instance_id": metadata.get("object_id")}],
            "question_type": metadata.get("question_type"),
        }

    def _target_frame(self, record, row):
        frame = (record.get("target") or {}).get("frame")
        if frame is None and row["answer"] is not None:
            frame = one_item(parse_frame(row["answer"]), "frame")
        if frame is not None and not 0 <= frame < len(row["views"]):
            raise RecordError(f"frame {frame} of {len(row['views'])} views (counted from 0).", "target.frame")
        return frame

    def _target_box(self, record, row):
        numbers = (record.get("target") or {}).get("bbox_3d")
        if numbers is None and row["answer"] is not None:
            numbers = one_item(parse_boxes(row["answer"]), "bbox_3d").bbox_3d
        return None if numbers is None else check_box(numbers, "target.bbox_3d")


def one_item(parsed, key: str):
    """The one item that an answer holds; RecordError, with the parser's reasons, if there is not exactly one."""
    if len(parsed.items) == 1 and not parsed.rejected:
        return parsed.items[0]
    reasons = "; ".join(rejection.reason for rejection in parsed.rejected) or f"{len(parsed.items)} found"
    raise RecordError(f'expected one readable "{key}" in the answer: {reasons}.', "answer")


def camera_box(numbers: Sequence[float], euler_order: str, view, **fields):
    """A target box in a view's camera, as a row stores it."""
    return box_row(numbers, euler_order, "camera", frame_index=view, **{"role": "target", **fields})


def aligned_box(numbers: Sequence[float], field: str):
    """A box along the axes of the aligned world (6 numbers), or turned in it (9), as a row stores it."""
    numbers = [*numbers, 0.0, 0.0, 0.0] if len(numbers) == 6 else numbers
    return box_row(check_box(numbers, field), "zxy", "aligned")
