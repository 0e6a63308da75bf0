"""Teachers that are models with VGGT's outputs: VGGT itself with its heads, or any callable of that protocol."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ...processing.data.scene_sample import View
from ...processing.data.video_labels.depth_teacher import Teacher, ask_teacher, load_teacher, read_answer, teacher_name
from ...processing.frame_sampling_gap_mllm import picture_sizes, teacher_inputs
from ..geometry_cache import content_key
from .teacher_targets import TeacherTargets


class ModelTeacher:
    """A model that sees the pictures of a scene, as `gap-mllm data label` asks it, and what its encoder felt.

    Features are those of each tapped layer, "layer_4" and so on, for VGGT the frame half of the channels before the
    global half; GeoVR distils the frame half alone. They stay on the model's device.
    Frame: see `TeacherTargets`. Units: the model's.

    Args:
        model (`Teacher`): `GapMllmVggtForReconstruction`, or any callable with the same outputs.
        image_size (`int`, *optional*), patch_size (`int`, *optional*): longer side of its pictures, and of what both
            sides are multiples, in pixels, by default those of its config; GeoVR's are 504 and 28.
        is_metric (`bool`, defaults to False): whether its unit is the metre.

    Example:
        ```python
        >>> from gap_mllm.processing.data import SceneSample, load_multiview
        >>> from gap_mllm.training.teachers import ModelTeacher
        >>> rooms = load_multiview("rendered_rooms", split="train", num_rooms=1)
        >>> teacher = ModelTeacher.from_pretrained(encoder_folder, device="cpu", is_metric=True)
        >>> targets = teacher(SceneSample.open(rooms, 0).views[:2])
        >>> sorted(targets.features), targets.depth[0].shape == targets.points()[0].shape[:2]
        (['layer_0', 'layer_1', 'layer_2', 'layer_3'], True)

        ```
    """

    def __init__(
        self,
        model: Teacher,
        image_size: int | None = None,
        patch_size: int | None = None,
        is_metric: bool = False,
    ):
        self.model, self.is_metric = model, is_metric
        self.picture_sizes = picture_sizes(model, image_size, patch_size)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str | None = None,
        dtype: str = "float32",
        is_metric: bool = False,
        image_size: int | None = None,
        patch_size: int | None = None,
    ) -> "ModelTeacher":
        """The teacher of a folder, or a name on the Hub; errors as of `load_teacher`."""
        return cls(load_teacher(path, device, dtype), image_size, patch_size, is_metric)

    @property
    def name(self) -> str:
        """How a cache calls it: class and folder of its weights."""
        return teacher_name(self.model)

    @property
    def about(self) -> dict:
        """What tells it from others of its name, for a cache: units, pictures and a hash of the weights."""
        weights = self.model.state_dict().values() if isinstance(self.model, torch.nn.Module) else ()
        sizes = list(self.picture_sizes)
        return {"is_metric": self.is_metric, "pictures": sizes, "weights": content_key(*weights)}

    def __call__(self, views: Sequence[View]) -> TeacherTargets:
        """Targets of the views of one scene.

        Raises:
            TypeError, ValueError: as `run_teacher`.
        """
        inputs = teacher_inputs([view.image for view in views], *self.picture_sizes)
        answer = ask_teacher(self.model, inputs)
        found = read_answer(answer, [tuple(view.shape[-2:]) for view in inputs])
        return TeacherTargets.of_reconstruction(found, self._features(answer), self.is_metric)

    def _features(self, answer) -> dict[str, list[torch.Tensor]]:
        geometry = getattr(answer, "geometry", None)
        if geometry is None:
            return {}
        names = [f"layer_{layer}" for layer in self.model.config.tap_layers]
        counts = [rows * columns for rows, columns in geometry.grid]
        return {
            name: [part.unflatten(0, grid) for part, grid in zip(flat.split(counts), geometry.grid, strict=True)]
            for name, flat in zip(names, geometry.tap_features, strict=True)
        }
