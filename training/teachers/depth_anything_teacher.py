"""Depth Anything 3 as a teacher, through its own package `depth-anything-3` (extra `depth-anything`)."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import torch

from ...processing.data.scene_sample import View
from ...processing.data.video_labels.depth_teacher import read_answer
from .teacher_targets import TeacherTargets, check_map_shape


SKY = 0.3  # from here on it is sky, as GeoVR reads it


class DepthAnythingTeacher:
    """Depth, confidence, cameras and features of Depth Anything 3 (arXiv:2511.10647).

    Features are those of the layers that are asked for, "layer_18" and so on. Where the model gives no confidence,
    it is 1; sky, where it tells it, has a depth of 0. Its world becomes the camera of the first view.
    Frame: see `TeacherTargets`. Units: metres where the model says that it is metric, else its own.

    Args:
        model (`depth_anything_3.api.DepthAnything3`): the model, or an object with its `inference`.
        layers (`Sequence[int]`, defaults to none): layers whose features are kept; GeoVR takes 18, 26, 32 and 38.
        canonical_focal_px (`float`, *optional*): see `TeacherTargets`; 300 for the metric models, which tell neither
            cameras nor confidence.
        name (`str`, *optional*): how a cache calls it, by default its class.

    Example:
        ```python
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> from gap_mllm.processing.data.scene_sample import View
        >>> from gap_mllm.training.teachers import DepthAnythingTeacher
        >>> class Wall:  # stands here for DepthAnything3.from_pretrained("depth-anything/DA3-GIANT-1.1")
        ...     def inference(self, image, export_feat_layers):
        ...         eyes = np.tile(np.eye(4), (len(image), 1, 1))
        ...         cameras, depth = 30 * eyes[:, :3, :3], np.full((len(image), 28, 42), 2.0)
        ...         return SimpleNamespace(depth=depth, extrinsics=eyes, intrinsics=cameras)
        >>> targets = DepthAnythingTeacher(Wall())([View(np.zeros((20, 30, 3), np.uint8))] * 2)
        >>> targets.depth[1].shape, targets.is_metric
        (torch.Size([28, 42]), False)

        ```
    """

    def __init__(
        self, model, layers: Sequence[int] = (), canonical_focal_px: float | None = None, name: str | None = None
    ):
        self.model, self.layers, self.name = model, list(layers), name or type(model).__name__
        self.canonical_focal_px = canonical_focal_px

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        device: str | None = None,
        layers: Sequence[int] = (),
        canonical_focal_px: float | None = None,
    ) -> "DepthAnythingTeacher":
        """Load a model by its folder or its name on the Hub.

        Raises:
            ImportError: if the package is not installed.
        """
        try:
            from depth_anything_3.api import DepthAnything3  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ImportError(
                "Depth Anything 3 comes with its own package: pip install 'gap-mllm[depth-anything]'. It asks for "
                "torchvision and for numpy below 2, so that an environment of its own, whose targets are written to a "
                "cache, is often simpler."
            ) from error
        model = DepthAnything3.from_pretrained(path)
        model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(model, layers, canonical_focal_px, str(path))

    @property
    def about(self) -> dict:
        """What tells it from others of its name, for a cache."""
        return {"layers": self.layers, "canonical_focal_px": self.canonical_focal_px}

    @torch.no_grad()
    def __call__(self, views: Sequence[View]) -> TeacherTargets:
        """Targets of the views of one scene.

        Raises:
            TypeError, ValueError: if a field of its answer is missing or malformed, or a layer was not given.
        """
        found = self.model.inference([np.asarray(view.image) for view in views], export_feat_layers=self.layers)
        depth = torch.as_tensor(found.depth)[..., None]
        for index, view in enumerate(views):
            check_map_shape(index, depth.shape[1:3], view.size)
        sky = getattr(found, "sky", None)
        if sky is not None:
            depth = torch.where(torch.as_tensor(sky)[..., None] >= SKY, 0.0, depth)
        conf, extrinsics = getattr(found, "conf", None), getattr(found, "extrinsics", None)
        if self.canonical_focal_px is not None:
            maps = list(depth[..., 0].float())
            sure = [torch.ones_like(each) for each in maps]
            return TeacherTargets(depth=maps, confidence=sure, canonical_focal_px=self.canonical_focal_px)
        answer = SimpleNamespace(
            depth=depth,
            depth_conf=torch.ones_like(depth[..., 0]) if conf is None else conf,
            extrinsics=None if extrinsics is None else extrinsics[:, :3],
            intrinsics=getattr(found, "intrinsics", None),
        )
        reconstruction = read_answer(answer, [depth.shape[1:3]] * len(views))
        features = {f"layer_{layer}": self._layer(found, layer, len(views)) for layer in self.layers}
        return TeacherTargets.of_reconstruction(reconstruction, features, bool(getattr(found, "is_metric", False)))

    @staticmethod
    def _layer(found, layer, num_views):
        features = (getattr(found, "aux", None) or {}).get(f"feat_layer_{layer}")
        if features is None or features.ndim != 4 or len(features) != num_views:
            shape = None if features is None else tuple(features.shape)
            raise ValueError(
                f"Depth Anything 3 gave features of shape {shape} for layer {layer}; expected ({num_views}, h, w, C). "
                "Take a layer that its backbone has."
            )
        return list(torch.as_tensor(features))
