"""Rows of the data schema to training batches: views decoded, marks drawn, everything but the answer masked.

Which views and how many pixels a sample may have is decided here and said when it bites; layouts, positions and
labels are those of `SharedSceneCollator`.
"""

from ..processing.data.augmentation.sight import depth_camera
from ..processing.data.record_errors import RecordError
from ..processing.data.scene_sample import SceneSample
from ..processing.data.view_selection import select_views, spread_views
from ..processing.visual_prompt_gap_mllm import Mark
from .shared_scene_collator import LOSS_FIELDS, PADDING, SharedSceneCollator


# Fields that only `GeometryAlignedTrainer` takes.
PRETRAINING_FIELDS = (*LOSS_FIELDS, "scene_repeats")


class SceneCollator:
    """Makes batches from rows of the schema (`load_multiview`) or `SceneSample`s, each with one question.

    Rows whose video has not been turned into views must be loaded with `max_views`. The depth map of a view that has
    pose and intrinsics, too, becomes point-map targets; a view without has none, the others keep theirs.

    What is left out or changed is counted in `counts` (in this process) and said: "views_dropped" and
    "pixels_reduced" count rows, "views_without_depth" views; `GeometryAlignedTrainer` logs them.

    Streamed rows (`load_multiview(..., streaming=True)`) train with `GeometryAlignedTrainer` as they are. A plain
    `Trainer` must be told not to cut batches, whose tensors have no common first dimension:
    `TrainingArguments(accelerator_config={"dispatch_batches": False}, remove_unused_columns=False, max_steps=...)`.

    Args:
        processor (`GapMllmProcessor`): says how large crosses are drawn, too.
        layout (`str`): "padded" (any attention kernel), "packed" (FlashAttention: one padding-free row) or
            "block_mask" (SDPA).
        max_views (`int`, *optional*): rows with more views are thinned evenly; view 0 and the views that the question
            or the answer speak of stay.
        max_view_pixels (`int`, *optional*): most pixels of a resized view, instead of the image processor's bound.
        max_sample_pixels (`int`, *optional*): most pixels of all resized views of a row together; its views shrink
            alike, other rows keep their size.
        max_length (`int`, *optional*): tokens of a row. A longer one is an error, never cut.
        for_pretraining (`bool`): also emit what `GeometryAlignedTrainer` needs (weights, read-out and point-map
            targets); without it a batch holds what `GapMllmForConditionalGeneration.forward` takes, for any `Trainer`.
        point_map_side (`int`, *optional*), answer_weights (`dict[str, float]`, *optional*): as `SharedSceneCollator`;
            for pre-training.
        geometry (`FrozenGeometry`, *optional*): as `SharedSceneCollator`.
    Raises:
        ValueError: on an unknown layout, a bound below 1, or pre-training arguments without `for_pretraining`.
        RecordError: when called, for a row without answer, with an undecoded video, with views that cannot be made
            as small as they must be, or longer than `max_length`.

    Example:
        ```python
        rows = OpenedRows(load_multiview("gap_mllm", data_dir, split="train"))  # decodes what is shown
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
        self.max_views, self.max_length, self.for_pretraining = max_views, max_length, for_pretraining
        self.shared = SharedSceneCollator(
            processor, layout, point_map_side, answer_weights, max_view_pixels, geometry, max_sample_pixels
        )

    @property
    def counts(self):
        """`Counter` of what was left out or changed, in this process; see `COLLATION_EVENTS`."""
        return self.shared.counts

    def __call__(self, rows):
        samples = [self._sample(row) for row in rows]
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
            text = f"{len(scene.views)} views, more than max_views={self.max_views}"
            self.shared.events.add("views_dropped", name, text)
            scene = select_views(scene, spread_views(scene, self.max_views))
        cross_size = self.shared.processor.cross_size
        images = scene.marked_images(cross_size) if scene.marks else [view.image for view in scene.views]
        crosses = [mark for mark in scene.marks if mark.kind == "cross" and mark.unit == "pixel"]
        marks = [Mark(crosses[0].view, crosses[0].xy, crosses[0].color) if len(crosses) == 1 else None]
        sample = {"sample_id": name, "images": images, "conversations": [scene.messages(images)], "marks": marks}
        if self.shared.point_map_side is not None and scene.views:
            sample |= _geometry(scene)
        return sample

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


def _geometry(scene):
    """Depth in metres, its intrinsics and the pose of each view; None where a view has none."""
    return {
        "depth_m": [view.depth_m for view in scene.views],
        "intrinsics": [None if view.depth_picture is None else depth_camera(view) for view in scene.views],
        "camera_to_world": [view.camera_to_world for view in scene.views],
    }


__all__ = ["PRETRAINING_FIELDS", "SceneCollator"]
