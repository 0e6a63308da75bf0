"""From a description and the box of what it names to rows, worded as one of three lines of models expects them.

"video3dllm": one row, all views, the answer is a token that stands for a proposal. "gap_mllm": two rows, the view that
shows the object best, then the box in that view's camera. "vgllm": one row, the answer is that view and the box.
Frame: the described box is in the aligned frame, the answered one in the camera of the answered view. Units: metres.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from ....answers_gap_mllm import format_box, format_frame, format_frame_box
from ...box_rows import box_in_camera
from ..chat.gap_mllm_source import camera_box
from ..wordings import GROUND_TOKEN, PROMPT_STYLES, gap_mllm_question, vgllm_question, video3dllm_question
from .annotations import ScannetAnnotationConfig, ScannetAnnotationSource
from .box_visibility import aligned_to_camera, most_visible_view


WINDOW_STEP, WINDOW_REACH = 10, 90  # frames around the chosen one that the second stage shows
BOX_KINDS = ("axis_aligned", "oriented")


@dataclass
class PromptStyleConfig(ScannetAnnotationConfig):
    """`ScannetAnnotationConfig`, and how questions are worded.

    Args:
        prompt_style (`str`, defaults to "video3dllm"): "video3dllm", "gap_mllm" or "vgllm"; the latter two need posed
            frames and boxes.
        box_kind (`str`, defaults to "axis_aligned"): "axis_aligned", ScanNet's boxes; "oriented", EmbodiedScan's where
            they overlap with those by an IoU of 0.5, which needs infos_file. Objects without one are counted under
            "no_oriented_box".
    Raises:
        ValueError: on another `prompt_style` or `box_kind`, or "oriented" without infos_file.
    """

    CHOICES = {"prompt_style": PROMPT_STYLES, "box_kind": BOX_KINDS}

    prompt_style: str = "video3dllm"
    box_kind: str = "axis_aligned"

    def __post_init__(self):
        super().__post_init__()
        if self.box_kind == "oriented" and self.infos_file is None:
            raise ValueError(
                "box_kind is 'oriented', which needs infos_file, EmbodiedScan's embodiedscan_infos_*.pkl."
            )


class PromptStyleSource(ScannetAnnotationSource):
    """Base of the sources that know both ways of asking; `STYLE_TASKS` says which tasks each has."""

    BUILDER_CONFIG_CLASS = PromptStyleConfig
    STYLE_TASKS = {}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        style = self.config.prompt_style
        if style not in self.STYLE_TASKS:
            raise ValueError(
                f"prompt_style is {style!r}; source {self.SOURCE!r} has {' and '.join(map(repr, self.STYLE_TASKS))}."
            )
        tasks = self.STYLE_TASKS[style]
        other = [task for task in self.config.tasks or () if task not in tasks]
        if other:
            raise ValueError(f"tasks is {list(self.config.tasks)}; prompt_style {style!r} has {list(tasks)}.")

    def _split_generators(self, dl_manager):
        style = self.config.prompt_style
        if style != "video3dllm" and (self.scenes is None or self.scenes.id_space != "scannet"):
            raise FileNotFoundError(
                f"prompt_style {style!r} answers in the camera of a frame, but there are no "
                f"{'posed frames' if self.scenes is None else 'boxes'}. Give posed_root, with scannet/posed_images, "
                "scannet/scans and scannet/pcd_with_object_aabbs, or use prompt_style='video3dllm'."
            )
        return super()._split_generators(dl_manager)

    def target_boxes(
        self, split: str, file: Path, record_id: str, scene_id: str, object_ids: Sequence[int], label: str
    ) -> list[dict]:
        """The boxes that a record is about, of the kind that was asked for; see `object_boxes`."""
        boxes = self.object_boxes(split, file, scene_id, object_ids, label=label, role="target")
        if self.config.box_kind == "axis_aligned" or not boxes:
            return boxes
        oriented = self._oriented_boxes(scene_id)
        missing = [box["instance_id"] for box in boxes if box["instance_id"] not in oriented]
        if missing:
            self.mark("no_oriented_box", file, record_id, f"{scene_id}, objects {', '.join(missing)}")
            return []
        return [{**oriented[box["instance_id"]], "label": box["label"], "role": "target"} for box in boxes]

    @cached_property
    def _oriented_boxes(self):
        return lru_cache(maxsize=64)(self.scenes.oriented_boxes)


class ScannetGroundingSource(PromptStyleSource):
    """Base of the sources with descriptions of single objects."""

    TASKS = ("grounding", "grounding_frame", "grounding_box")
    STYLE_TASKS = {
        "video3dllm": ("grounding",),
        "gap_mllm": ("grounding_frame", "grounding_box"),
        "vgllm": ("grounding",),
    }

    def grounding_rows(
        self,
        split: str,
        file: Path,
        record_id: str,
        scene_id: str,
        description: str,
        object_id: str,
        label: str,
        **fields,
    ):
        """Yield the rows of one description.

        Args:
            split (`str`), file (`Path`), record_id (`str`), scene_id (`str`), description (`str`)
            object_id (`str`, *optional*): what it names; None where a test file does not say.
            label (`str`, *optional*): name of the object.
            **fields: fields of every row: id, question_type, metadata.
        Raises:
            RecordError: as `object_boxes`.
        """
        object_ids = [] if object_id is None else [object_id]
        boxes = self.target_boxes(split, file, record_id, scene_id, object_ids, label)
        if self.config.prompt_style == "video3dllm":
            row = {**fields, **self.scene_fields(split, file, scene_id), "boxes": boxes, "task": "grounding"}
            row["question"] = video3dllm_question("grounding", len(row.get("views", ())), description=description)
            row["answer"] = None if object_id is None else GROUND_TOKEN
            yield row
        elif not self.has_frames(split, file, scene_id):
            return
        elif self.config.prompt_style == "vgllm":
            if boxes or object_id is None:
                yield from self._one_stage_rows(split, file, record_id, scene_id, description, boxes, fields)
        elif object_id is None:
            if self.wants("grounding_frame"):
                yield self._frame_row(scene_id, description, None, [], fields)
        elif boxes:
            target = self._target_view(scene_id, object_id, boxes[0])
            if target is None:
                self.mark("not_visible", file, record_id, f"{scene_id}, object {object_id}")
                return
            if self.wants("grounding_frame"):
                yield self._frame_row(scene_id, description, target, boxes, fields)
            if self.wants("grounding_box"):
                yield self._box_row(scene_id, description, target, boxes, fields)

    def _one_stage_rows(self, split, file, record_id, scene_id, description, boxes, fields):
        """The question for view and box at once. Its answer is not known where no view shows the object: counted,
        and left out of what is trained on."""
        views = self.scene_views(scene_id, self.num_views)
        target, answer = None, None
        if boxes:
            target = self._target_view(scene_id, boxes[0]["instance_id"], boxes[0])
            if target is None:
                self.mark("not_visible", file, record_id, f"{scene_id}, object {boxes[0]['instance_id']}")
                if split == "train":
                    return
            else:
                numbers = self._in_camera(boxes[0], views[target], scene_id)
                answer = format_frame_box(target, numbers)
                boxes = [*boxes, camera_box(numbers, "zxy", target)]
        yield {
            **fields,
            **self.world_fields(scene_id),
            "task": "grounding",
            "views": views,
            "question": vgllm_question(len(views), description),
            "answer": answer,
            "target_frame": target,
            "boxes": boxes,
        }

    def _target_view(self, scene_id, object_id, box):
        """The view that shows an object best; kept, since an object has several descriptions."""
        key = scene_id, object_id
        if key not in self._target_views:
            views, aligned = self.scene_views(scene_id, self.num_views), self.scenes.world_to_aligned(scene_id)
            self._target_views[key] = most_visible_view(views, box, aligned)
        return self._target_views[key]

    @cached_property
    def _target_views(self):
        return {}

    def _in_camera(self, box, view, scene_id):
        return box_in_camera(box, aligned_to_camera(view, self.scenes.world_to_aligned(scene_id)))

    def _frame_row(self, scene_id, description, target, boxes, fields):
        views = self.scene_views(scene_id, self.num_views)
        return {
            **fields,
            **self.world_fields(scene_id),
            "id": f"{fields['id']}-frame",
            "task": "grounding_frame",
            "views": views,
            "question": gap_mllm_question("grounding_frame", len(views), description),
            "answer": None if target is None else format_frame(target),
            "target_frame": target,
            "boxes": boxes,
        }

    def _box_row(self, scene_id, description, target, boxes, fields):
        chosen = self.scene_views(scene_id, self.num_views)[target]
        views = frames_around(chosen, self.scene_views(scene_id, None))
        numbers = self._in_camera(boxes[0], chosen, scene_id)
        return {
            **fields,
            **self.world_fields(scene_id),
            "id": f"{fields['id']}-box",
            "task": "grounding_box",
            "views": views,
            "question": gap_mllm_question("grounding_box", len(views), description),
            "answer": format_box(numbers),
            "boxes": [*boxes, camera_box(numbers, "zxy", 0)],
        }


def frames_around(chosen: dict, views: list[dict]) -> list[dict]:
    """Return the views of GAP-MLLM's second stage: the chosen frame, those after it, then those before it.

    Source: GAP-MLLM's grounding inference: numbers +10 .. +90, then -10 .. -90, as far as there are such frames.

    Args:
        chosen (`dict`): a view with a frame_id.
        views (`list[dict]`): all of the scene.
    """
    by_number = {view["frame_id"]: view for view in views}
    steps = range(WINDOW_STEP, WINDOW_REACH + 1, WINDOW_STEP)
    numbers = [chosen["frame_id"] + sign * step for sign in (1, -1) for step in steps]
    return [chosen, *(by_number[number] for number in numbers if number in by_number)]
