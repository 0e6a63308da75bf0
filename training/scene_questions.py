"""Training questions drawn from scenes: views chosen, then changed, then asked about; new ones every time.

Rows of the task "scene" (views, poses, depth and boxes without a question) become questions of the task makers; rows
that have a question keep it, and are changed as far as it stays true. The result is for `SceneCollator`; pictures of
views that are not chosen are never decoded.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
from torch.utils.data import Dataset

from ..processing.data.record_errors import RecordError
from ..processing.data.scene_sample import SceneSample
from ..processing.data.task_makers import TASK_MAKERS, make_tasks


NUM_TRIES = 10  # choices of views and makers, before a scene counts as one that nothing can be asked about


class SceneQuestionDataset(Dataset):
    """Rows of a source as samples with questions; item i is always the same.

    Item i is about row i modulo the number of rows; later rounds ask other questions about other views.

    Args:
        rows (sequence of `dict`): of the schema, as `load_multiview` gives them (not streamed).
        length (`int`, *optional*): number of items, by default one for each row.
        tasks (`tuple[str, ...]`, *optional*): keys of `TASK_MAKERS`, all equally often; None is all of them.
        num_views (`int`, *optional*): views of a question about a scene; None shows all that the row has.
        max_stride (`int`): the views chosen are neighbours in the row or up to this many apart, all alike.
        margins (`TaskMargins`, *optional*): how clear the answer of a made question must be.
        augmentation (`SceneAugmentation`, *optional*): applied to every sample; to scenes before they are asked about.
        seed (`int`)
    Raises:
        ValueError: if there are no rows, a task is unknown, or a number is below 1. When indexed: RecordError, with
            the reasons, for a scene that no question could be asked about.

    Example:
        ```python
        rows = load_multiview("scannet_posed", data_dir, split="train")
        scenes = SceneQuestionDataset(rows, 100_000, ("marked_pixel", "detection"), num_views=4)
        trainer = GeometryAlignedTrainer(train_dataset=scenes, data_collator=SceneCollator(...), ...)
        ```
    """

    def __init__(
        self, rows, length=None, tasks=None, num_views=None, max_stride=3, margins=None, augmentation=None, seed=0
    ):
        unknown = [task for task in tasks or () if task not in TASK_MAKERS]
        if unknown or (tasks is not None and not tasks):
            raise ValueError(f"tasks is {list(tasks)}; expected one or more of {', '.join(TASK_MAKERS)}.")
        for name, value in {"length": length, "num_views": num_views, "max_stride": max_stride}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected 1 or more.")
        if not len(rows):
            raise ValueError("there are no rows to draw questions from.")
        self.rows, self.length, self.seed = rows, length or len(rows), seed
        self.tasks, self.margins = tuple(tasks or TASK_MAKERS), margins
        self.num_views, self.max_stride, self.augmentation = num_views, max_stride, augmentation

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if not 0 <= index < self.length:
            raise IndexError(f"item {index} of {self.length}")
        round_index, row = divmod(index, len(self.rows))
        sample = SceneSample.open(self.rows, row)
        if sample.task == "scene":
            return self._ask(sample, index, round_index)
        return self._augment(sample, round_index)

    def _augment(self, sample, round_index):
        return sample if self.augmentation is None else self.augmentation(sample, epoch=round_index)

    def _ask(self, scene, index, round_index):
        """A question about some views of a scene; these are changed first, so that whatever is asked is true."""
        rng = np.random.default_rng([self.seed, index])
        reasons = Counter()
        for attempt in range(NUM_TRIES):
            chosen = self._choose_views(scene, rng)
            maker = self.tasks[int(rng.integers(len(self.tasks)))]
            asked = self._augment(replace(scene, id=f"{scene.id}/{index}-{attempt}", views=chosen), round_index)
            made = make_tasks(asked, (maker,), seed=self.seed, margins=self.margins)
            if made:
                return made[0]
            reasons.update(made.refused)
        told = "; ".join(f"{maker}: {reason} ({count} times)" for (maker, reason), count in reasons.most_common(4))
        raise RecordError(
            f"no question could be asked about this scene in {NUM_TRIES} tries: {told}. Leave it out, or ask other "
            "tasks.",
            source=scene.source,
            record_id=scene.id,
        )

    def _choose_views(self, scene, rng):
        """Views at an even distance; boxes of scenes are in a world frame, so that any may come first."""
        views, count = scene.views, len(scene.views)
        if self.num_views is None or count <= self.num_views:
            return views
        stride = int(rng.integers(1, min(self.max_stride, (count - 1) // max(self.num_views - 1, 1)) + 1))
        start = int(rng.integers(count - stride * (self.num_views - 1)))
        return tuple(views[start + stride * step] for step in range(self.num_views))


__all__ = ["SceneQuestionDataset"]
