"""Scan2Cap: ScanRefer turned round, from an object to its descriptions. It has no files of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ....camera_geometry_gap_mllm import transform_points
from ....scores.exact_iou import box_iou_axis_aligned
from ...record_errors import RecordError
from ...source_files import iter_records, read_json
from ..chat.video3dllm_source import read_aabb
from ..wordings import gap_mllm_question, video3dllm_question
from .annotations import check_text, other_keys
from .box_visibility import aligned_to_camera
from .grounding import PromptStyleConfig, PromptStyleSource
from .scanrefer_source import FILE_NAMES, read_object


GROUP_KEYS = ("scene_id", "object_id", "object_name")
USED_KEYS = {*GROUP_KEYS, "description", "eval_type"}
MIN_IOU = 0.5  # of a proposal with the object; the captions of objects without one count as empty


@dataclass
class Scan2CapConfig(PromptStyleConfig):
    """`PromptStyleConfig`, and which box stands for the object in "val".

    Args:
        proposals_file (`str`, *optional*): `scannet_val_pred_box.json` of Video-3D-LLM: the detected box that overlaps
            best is the input. Without it the true box is, as in "train".
    Raises:
        FileNotFoundError: if it is not there.
    """

    proposals_file: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.proposals_file is not None and not Path(self.proposals_file).is_file():
            raise FileNotFoundError(f"proposals_file {self.proposals_file} is not there.")


class Scan2CapSource(PromptStyleSource):
    """Captions of objects from ScanRefer's `ScanRefer_filtered_{train,val}.json`, grouped by scene, object and name.

    "train" has a row for each description, "val" one for each object; all descriptions of the object are its
    references, word for word, and the answer is one of them capitalised, as Video-3D-LLM has it. Boxes: the object
    ("target") and the one that stands for it in the question ("input"). An object of "val" that no proposal overlaps
    by an IoU of 0.5 is counted under "no_proposal": its row has no input box, its caption counts as empty, and in the
    wording of "gap_mllm", which gives the place of the input box, there is nothing to ask (the question is None).
    Frame: boxes in the aligned frame, the place in the question in the camera of view 0. Units: metres.
    """

    BUILDER_CONFIG_CLASS = Scan2CapConfig
    SOURCE = "scan2cap"
    TASKS = ("dense_caption",)
    STYLE_TASKS = dict.fromkeys(("video3dllm", "gap_mllm"), TASKS)
    LAYOUT = "ScanRefer_filtered_{train,val}.json (or scanrefer/ or benchmark/scanrefer/ with them)"
    FOLDER_NAME = "scanrefer"

    def find_files(self, root: Path):
        return self.find_annotations(root, {split: FILE_NAMES[split] for split in ("train", "val")})

    def prepare_file(self, split: str, file: Path):
        """Read the proposals, if any: what is wrong with their file is wrong with every record."""
        if self.config.proposals_file is not None:
            self._proposals  # noqa: B018

    def records(self, file: Path, skip: Callable):
        groups = {}
        for index, record in iter_records(file, skip):
            has_form = isinstance(record, dict) and all(key in record for key in GROUP_KEYS)
            key = tuple(str(record[name]) for name in GROUP_KEYS) if has_form else index
            groups.setdefault(key, []).append(record)
        for index, group in enumerate(groups.values()):
            yield f"{file.stem}-{index:07d}", group

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        first = record[0]
        scene_id, (object_id, label) = first["scene_id"], read_object(first, split)
        descriptions = [check_text(entry, "description") for entry in record]
        boxes = self.target_boxes(split, file, record_id, scene_id, [object_id], label)
        given, metadata = self._input_box(split, file, record_id, scene_id, boxes)
        fields = self.scene_fields(split, file, scene_id)
        if self.config.prompt_style == "video3dllm":
            question = video3dllm_question("dense_caption", len(fields.get("views", ())))
        else:
            question = self._located_question(fields, given)
        if not boxes and self.config.prompt_style == "gap_mllm":
            return
        row = {
            **fields,
            "task": "dense_caption",
            "question": question,
            "references": descriptions,
            "boxes": [*boxes, *([{**given, "role": "input"}] if given else [])],
        }
        for entry in record if split == "train" else record[:1]:
            yield {
                **row,
                "id": f"{scene_id}-{object_id}-{entry['ann_id']}" if split == "train" else f"{scene_id}-{object_id}",
                "answer": entry["description"].capitalize(),
                "question_type": entry.get("eval_type"),
                "metadata": {**other_keys(entry, USED_KEYS), **metadata, "object_name": first["object_name"]},
            }

    def _input_box(self, split, file, record_id, scene_id, boxes):
        """The box that stands for the object, None if there is none, and what the metadata says of it."""
        if not boxes:
            return None, {}
        if split == "train" or self.config.proposals_file is None:
            return boxes[0], {"input_box": "ground truth"}
        box, iou = best_proposal(boxes[0], self._proposals.get(f"scannet/{scene_id}", ()))
        if box is None or iou < MIN_IOU:
            self.mark("no_proposal", file, record_id, f"{scene_id}, object {boxes[0]['instance_id']}")
            return None, {"input_box": "none", "iou": iou}
        return box, {"input_box": "proposal", "iou": iou}

    def _located_question(self, fields, given):
        if given is None:
            return None
        to_camera = aligned_to_camera(fields["views"][0], fields["world_to_aligned"])
        location = transform_points(to_camera, np.asarray(given["center"], np.float64))
        return gap_mllm_question("dense_caption", len(fields["views"]), location=location)

    @cached_property
    def _proposals(self):
        path = self.config.proposals_file
        try:
            return {video: [read_aabb(box, video) for box in boxes] for video, boxes in read_json(path).items()}
        except RecordError as error:
            raise error.locate(self.SOURCE, path, None) from None


def best_proposal(box: dict, proposals) -> tuple[dict | None, float]:
    """Return the proposal that overlaps a box best, and its IoU; None and 0 without proposals.

    Frame: aligned, all boxes along its axes. Units: metres.
    """
    if not proposals:
        return None, 0.0
    true, given = ([[*one["center"], *one["size"]] for one in some] for some in ([box], proposals))
    overlaps = box_iou_axis_aligned(true, given, all_pairs=True)[0]
    best = int(overlaps.argmax())
    return proposals[best], float(overlaps[best])
