"""Rows of the data schema to training batches: views decoded, marks drawn, everything but the answer masked.

Which views and how many pixels a sample may have is decided here and said when it bites; layouts, positions and
labels are those of `SharedSceneCollator`.
"""

from collections import Counter

import numpy as np
from transformers.utils import logging

from ..processing.data.record_errors import RecordError
from ..processing.data.scene_sample import SceneSample
from ..processing.data.view_selection import select_views, spread_views
from ..processing.visual_prompt_gap_mllm import Mark
from .shared_scene_collator import LOSS_FIELDS, PADDING, SharedSceneCollator


logger = logging.get_logger(__name__)

# Fields that only `GeometryAlignedTrainer` takes.
PRETRAINING_FIELDS = (*LOSS_FIELDS, "scene_repeats")


class SceneCollator:
    """Makes batches from rows of the schema (`load_multiview`) or `SceneSample`s, each with one question.

    Rows whose video has not been turned into views must be loaded with `max_views`. Depth maps, where every view of
    every row has one with pose and intrinsics, become point-map targets.

    Args:
        processor (`GapMllmProcessor`): says how large crosses are drawn, too.
        layout (`str`): "padded" (any attention kernel), "packed" (FlashAttention: one padding-free row) or
            "block_mask" (SDPA).
        max_views (`int`, *optional*): rows with more views are thinned evenly; view 0 and the views that the question
            or the answer speak of stay.
        max_view_pixels (`int`, *optional*): of a resized view, instead of the image processor's bound.
        max_sample_pixels (`int`, *optional*): of all resized views of a row together; its views shrink alike.
        max_length (`int`, *optional*): tokens of a row. A longer one is an error, never cut.
        for_pretraining (`bool`): also emit what `GeometryAlignedTrainer` needs (weights, read-out and point-map
            targets); without it a batch holds what `GapMllmForConditionalGeneration.forward` takes, for any `Trainer`.
        point_map_side (`int`, *optional*), answer_weights (`dict[str, float]`, *optional*): as `SharedSceneCollator`;
            for pre-training.
        geometry (`FrozenGeometry`, *optional*): as `SharedSceneCollator`.
    Raises:
        ValueError: on an unknown layout, a bound below 1, or pre-training arguments without `for_pretraining`.
        RecordError: when called, for a row without answer, with an undecoded video, or longer than `max_length`.

    Example:
        ```python
        rows = load_multiview("gap_mllm", data_dir, split="train")
        collator = SceneCollator(processor, max_views=16, max_sample_pixels=16 * 518 * 392)
        Trainer(model, args, train_dataset=rows, data_collator=collator)  # remove_unused_columns=False
        ```
    """

    def __init__(
        self,
        processor,
        layout="padded",
        max_views=None,
        max_view_pixels=None,
        max_sample_pixels=None,
        max_length=None,
        for_pretraining=False,
        point_map_side=None,
        answer_weights=None,
        geometry=None,
    ):
        bounds = {"max_views": max_views, "max_view_pixels": max_view_pixels}
        bounds |= {"max_sample_pixels": max_sample_pixels, "max_length": max_length}
        for name, value in bounds.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected 1 or more, or None for no bound.")
        if not for_pretraining and (point_map_side is not None or answer_weights):
            raise ValueError("point_map_side and answer_weights are for pre-training: pass for_pretraining=True.")
        self.max_views, self.max_length, self.max_sample_pixels = max_views, max_length, max_sample_pixels
        self.for_pretraining = for_pretraining
        self.max_view_pixels = max_view_pixels
        self.shared = SharedSceneCollator(processor, layout, point_map_side, answer_weights, max_view_pixels, geometry)
        self.counts = Counter()  # "views_dropped", "pixels_reduced": rows, in this process

    def __call__(self, rows):
        samples = [self._sample(row) for row in rows]
        self.shared.max_view_pixels = self._view_bound(samples)
        batch = self.shared(samples)
        self._check_length(batch, samples)
        if not self.for_pretraining:
            batch = {name: value for name, value in batch.items() if name not in PRETRAINING_FIELDS}
        return batch

    def _sample(self, row):
        scene = row if isinstance(row, SceneSample) else SceneSample.from_row(row)
        name = scene.id
        if scene.video and not scene.views:
            problem = "the video has not been turned into views. Load it with max_views."
            raise RecordError(problem, "video", record_id=name)
        if scene.answer is None:
            raise RecordError("there is no answer to learn from.", "answer", record_id=name)
        if self.max_views is not None and len(scene.views) > self.max_views:
            self._say("views_dropped", name, f"{len(scene.views)} views, more than max_views={self.max_views}")
            scene = select_views(scene, spread_views(scene, self.max_views))
        cross_size = self.shared.processor.cross_size
        images = scene.marked_images(cross_size) if scene.marks else [view.image for view in scene.views]
        crosses = [mark for mark in scene.marks if mark.kind == "cross" and mark.unit == "pixel"]
        marks = [Mark(crosses[0].view, crosses[0].xy, crosses[0].color) if len(crosses) == 1 else None]
        sample = {"sample_id": name, "images": images, "conversations": [scene.messages(images)], "marks": marks}
        if self.shared.point_map_side is not None and scene.views:
            sample |= _geometry(scene)
        return sample

    def _view_bound(self, samples):
        """Pixels of a view, so that no sample of the batch has more than it may."""
        bound = self.max_view_pixels
        if self.max_sample_pixels is None:
            return bound
        largest = bound or self.shared.processor.image_processor.size["longest_edge"]
        for sample in samples:
            pixels = sum(min(image.width * image.height, largest) for image in sample["images"])
            if pixels > self.max_sample_pixels:
                share = self.max_sample_pixels // len(sample["images"])
                self._say(
                    "pixels_reduced", sample["sample_id"], f"{pixels} pixels, more than {self.max_sample_pixels}"
                )
                bound = min(bound or share, share)
        return bound

    def _check_length(self, batch, samples):
        if self.max_length is None:
            return
        documents = batch["document_ids"]
        for index, sample in enumerate(samples):
            if self.shared.layout == "packed":
                length = int((documents == index + 1).sum())
            else:
                length = int((documents[index] != PADDING).sum())
            if length > self.max_length:
                raise RecordError(
                    f"the row has {length} tokens, more than max_length={self.max_length}. Bound its views or pixels "
                    "(max_views, max_sample_pixels), or leave it out.",
                    record_id=sample["sample_id"],
                )

    def _say(self, event, name, text):
        """Count, and log the first, tenth, hundredth, ... time."""
        self.counts[event] += 1
        count = self.counts[event]
        if str(count).strip("0") == "1":
            logger.warning(f"{event} in {count} row{'s' * (count > 1)} so far; the last, {name!r}, has {text}.")


def _geometry(scene):
    """Depth and cameras of the views, if all have them and in one size."""
    views = scene.views
    if any(view.depth_picture is None or view.camera_to_world is None for view in views):
        return {}
    intrinsics = [view.intrinsics if view.depth_intrinsics is None else view.depth_intrinsics for view in views]
    depth = [view.depth_m for view in views]
    if any(matrix is None for matrix in intrinsics) or len({part.shape for part in depth}) > 1:
        return {}
    poses = np.stack([view.camera_to_world for view in views])
    return {"depth_m": np.stack(depth), "intrinsics": np.stack(intrinsics), "camera_to_world": poses}


__all__ = ["PRETRAINING_FIELDS", "SceneCollator"]
