"""Rows of the data schema for training a geometry encoder: views that have depth and a pose, and their targets.

The encoder's images are made as the model makes them, from what the image processor gives, so that an encoder is
trained on what it will see.
"""

import datasets
import numpy as np
from torch.utils.data import Dataset, IterableDataset

from ..geometry_views_gap_mllm import recover_images, resize_to_grid
from ..processing.argument_checks import check_counts
from ..processing.data.record_errors import RecordError, naming_record
from ..processing.data.scene_sample import SceneSample
from ..processing.input_checks_gap_mllm import WrongKindError
from ..processing.processing_gap_mllm import MAX_PIXELS, default_image_processor
from .point_targets import scene_targets
from .scene_questions import choose_views
from .view_sizes import fit_views


class SceneGeometryDataset(Dataset):
    """Rows of a source as pictures with geometry targets, for `GeometryEncoderTrainer`; item i is always the same.

    Views without depth map, pose or intrinsics are left out and counted in `views_without_depth` of the item, which
    the trainer logs. Item i is about row i modulo the number of rows; later rounds show other views.
    Frame: camera of the first view shown, OpenCV axes. Units: metres, radians.

    Args:
        rows (sequence of `dict`): rows of the schema, as `load_multiview` gives them without streaming.
        length (`int`, *optional*): number of items, by default one for each row.
        patch_size (`int`, defaults to 14): patch size of the geometry encoder.
        num_views (`int`, *optional*): views of an item; None shows all that the row has.
        max_stride (`int`, defaults to 3): the views chosen are neighbours in the row or up to this many apart, all
            alike.
        max_view_pixels (`int`, defaults to `MAX_PIXELS`): most pixels of a view for the vision tower, whose grid the
            encoder shares.
        seed (`int`, defaults to 0)
    Raises:
        TypeError: if rows are streamed. ValueError: if there are no rows, or a number is below 1. RecordError: when
            indexed, for a row without any view that has all three.

    Example:
        ```python
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.training import SceneGeometryDataset
        >>> rooms = load_multiview("rendered_rooms", split="train", num_rooms=2)  # or rows with depth and poses
        >>> scenes = SceneGeometryDataset(rooms, patch_size=14, num_views=3)  # for GeometryEncoderTrainer
        >>> len(scenes), len(scenes[0]["images"])
        (2, 3)

        ```
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        length: int | None = None,
        patch_size: int = 14,
        num_views: int | None = None,
        max_stride: int = 3,
        max_view_pixels: int = MAX_PIXELS,
        seed: int = 0,
    ):
        if isinstance(rows, IterableDataset) or not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__")):
            raise WrongKindError(
                f"rows is a {type(rows).__name__}, without number and places; load without streaming."
            )
        if not len(rows):
            raise ValueError("there are no rows to learn geometry from.")
        check_counts(length=length, num_views=num_views, max_stride=max_stride, max_view_pixels=max_view_pixels)
        self.rows, self.length, self.seed = rows, length or len(rows), seed
        self.patch_size, self.num_views, self.max_stride = patch_size, num_views, max_stride
        self.image_processor = default_image_processor(32 * 32, max_view_pixels)  # small pictures keep their size

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if not 0 <= index < self.length:
            raise IndexError(f"item {index} of {self.length}")
        round_index, row = divmod(index, len(self.rows))
        return self.item_of(row, round_index)

    def item_of(self, row: int, round_index: int = 0, done: float = 0.0) -> dict:
        """What is shown of a row in a round; arguments of `SceneQuestionDataset.item_of`."""
        scene, index = SceneSample.open(self.rows, row), round_index * len(self.rows) + row
        known = tuple(view for view in scene.views if _has_geometry(view))
        if not known:
            raise RecordError(
                f"none of its {len(scene.views)} views has depth, intrinsics and a pose to learn from. Leave it out.",
                "views",
                scene.source,
                record_id=scene.id,
            )
        views = choose_views(known, self.num_views, self.max_stride, np.random.default_rng([self.seed, index]))
        with naming_record(scene.source, scene.id, "views"):
            images = self._images([view.image for view in views], scene.id)
            targets = scene_targets(views, [tuple(image.shape[-2:]) for image in images])
        lacking = len(scene.views) - len(known)
        return {"images": images, "sample_ids": scene.id, "views_without_depth": lacking, **targets}

    def _images(self, pictures, name):
        """The encoder's image (3, h, w) of each view, in 0..1."""
        processor = self.image_processor
        bounds = fit_views(
            processor, [picture.size for picture in pictures], processor.size["longest_edge"], None, name
        )
        inputs = processor(images=pictures, size=bounds[0], return_tensors="pt")
        grids = inputs["image_grid_thw"].tolist()
        patches = (processor.patch_size, processor.temporal_patch_size, processor.merge_size)
        statistics = (processor.image_mean, processor.image_std)
        frames = recover_images(inputs["pixel_values"], grids, *statistics, *patches)
        return [
            resize_to_grid(frame[:, 0], grid[1:], self.patch_size)[0]
            for frame, grid in zip(frames, grids, strict=True)
        ]


def _has_geometry(view):
    is_complete = view.depth_picture is not None and view.camera_to_world is not None
    return is_complete and (view.depth_intrinsics is not None or view.intrinsics is not None)
