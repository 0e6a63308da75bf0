"""The teacher that labels pictures: a model that gives depth, confidence and cameras of the views of one scene.

Here pictures become its input and its answer becomes a checked `Reconstruction` in numpy. Long videos are put together
from windows in teacher_windows.py; metres come from metric_scale.py.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForDepthEstimation, PreTrainedConfig

from ...argument_checks import check_device, check_path
from ...camera_geometry_gap_mllm import invert_rigid, is_rigid, transform_points, unproject_depth
from ...model_state_gap_mllm import input_device


VGGT_TYPE = "gap_mllm_vggt"  # of a config that names no type, as VGGT's own
HUB_TIMEOUT_S = 5
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


class Teacher(Protocol):
    """What a teacher must be: `GapMllmVggtForReconstruction`, or any callable with the same outputs.

    It takes the views of one scene, RGB in 0..1, as a tensor `(V, 3, H, W)` where all have one size, else as a list of
    `(3, H, W)`. It gives an object with `depth` `(V, H, W, 1)` (z-depth; 0 where nothing is known), `depth_conf`
    `(V, H, W)` (0 or more, higher is surer), `extrinsics` `(V, 3, 4)` (world to camera, OpenCV axes) and `intrinsics`
    `(V, 3, 3)` (pixels of these views); `world_points` `(V, H, W, 3)` and `world_points_conf` `(V, H, W)` may be
    missing or None. A leading dimension of one scene is taken off; dense fields may be lists with an entry a view.
    """

    def __call__(self, images: torch.Tensor | list[torch.Tensor]) -> Any: ...


@dataclass(frozen=True)
class Reconstruction:
    """What a teacher says of the views of one scene.

    Frame: world is that of the (first) teacher call; cameras OpenCV (+x right, +y down, +z forward). Units: the
    teacher's own until a metric scale is applied with `scaled`; pixels with integer centres.

    Args:
        depth (`list[np.ndarray]` of shape `(h, w)`): z-depth of each view at the teacher's size; 0 is no measurement.
        confidence (`list[np.ndarray]` of shape `(h, w)`): sureness of the depth, 0 or more.
        intrinsics (`np.ndarray` of shape `(V, 3, 3)`): camera matrices of the depth maps, in pixels.
        camera_to_world (`np.ndarray` of shape `(V, 4, 4)`): poses, float64.
        world_points (`list[np.ndarray]` of shape `(h, w, 3)`, *optional*): points of the teacher's point
            head, a second opinion on the depth.
    """

    depth: list[np.ndarray]
    confidence: list[np.ndarray]
    intrinsics: np.ndarray
    camera_to_world: np.ndarray
    world_points: list[np.ndarray] | None = None

    def __len__(self):
        return len(self.depth)

    def points(self, view: int) -> np.ndarray:
        """The point that each pixel of a view sees by depth and camera, `(h, w, 3)` float64 in the world; or NaN."""
        points = unproject_depth(self.depth[view].astype(np.float64), self.intrinsics[view])
        return transform_points(self.camera_to_world[view], points)

    def moved(self, scale: float, rotation: np.ndarray, translation: np.ndarray) -> "Reconstruction":
        """The reconstruction after a similarity of its world: x to scale * rotation @ x + translation."""
        poses = self.camera_to_world.copy()
        poses[:, :3, :3] = rotation @ poses[:, :3, :3]
        poses[:, :3, 3] = scale * poses[:, :3, 3] @ rotation.T + translation
        moved = replace(self.scaled(scale), camera_to_world=poses)
        if self.world_points is None:
            return moved
        points = [(scale * part.astype(np.float64) @ rotation.T + translation) for part in self.world_points]
        return replace(moved, world_points=[part.astype(np.float32) for part in points])

    def scaled(self, factor: float) -> "Reconstruction":
        """The reconstruction with all lengths times `factor`; a factor of 1 changes no bit."""
        poses = self.camera_to_world.copy()
        poses[:, :3, 3] *= factor
        points = None if self.world_points is None else [part * np.float32(factor) for part in self.world_points]
        depth = [part * np.float32(factor) for part in self.depth]
        return replace(self, depth=depth, camera_to_world=poses, world_points=points)

    def select(self, views: Sequence[int]) -> "Reconstruction":
        """The reconstruction of some of its views, in this order."""
        views = list(views)
        points = None if self.world_points is None else [self.world_points[view] for view in views]
        depth, confidence = [self.depth[view] for view in views], [self.confidence[view] for view in views]
        return Reconstruction(depth, confidence, self.intrinsics[views], self.camera_to_world[views], points)


def check_teacher_path(path) -> None:
    """Refuse what can be no teacher, before a video is read.

    Args:
        path (`str` or `Path`): a folder, or a name on the Hub as "owner/name", about which nothing is known here.
    Raises:
        TypeError, ValueError: if it is no path. FileNotFoundError: if it is a path and no folder, or holds no config.
    """
    folder = check_path("teacher", path, "the folder of a GapMllmVggtForReconstruction")
    expected = (
        "expected a GapMllmVggtForReconstruction as `save_pretrained` or `gap-mllm train-geometry-encoder` writes it"
    )
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"teacher {folder} holds no config.json; {expected}.")
    elif folder.exists() or isinstance(path, Path) or not HUB_NAME.fullmatch(path):
        raise FileNotFoundError(f"teacher {path} is no folder; {expected}, or its name on the Hub.")


def _ask_hub(name):
    """One short request, before transformers repeats its own for half a minute where there is no network."""
    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    try:
        HfApi().model_info(name, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # huggingface_hub raises whatever its HTTP library does
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise OSError(
            f"teacher {name!r} is no folder here, not in the cache, and not to be had from the Hub: {reason[0]} Give "
            "the folder of a GapMllmVggtForReconstruction, or check the name and the network."
        ) from None


def load_teacher(path, device: str | None = None, dtype: str = "float32") -> Callable:
    """Load a teacher by its folder: what `AutoModelForDepthEstimation` knows, as a VGGT with its heads.

    Args:
        path (`str` or `Path`): folder of a `GapMllmVggtForReconstruction`, or its name on the Hub.
        device (`str`, *optional*): device to load to, by default a GPU where there is one.
        dtype (`str`, defaults to "float32"): type of the aggregator's weights; the heads are float32 in any case.
    Returns:
        `PreTrainedModel` in evaluation mode.
    Raises:
        TypeError, FileNotFoundError: as `check_teacher_path` and `check_device`. OSError: if the weights cannot be
            loaded, or the Hub does not give them. ValueError: if they are those of another model, or the device is
            not there.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.processing.data.video_labels import load_teacher
        >>> teacher = load_teacher(encoder_folder, device="cpu")
        >>> teacher(torch.rand(2, 3, 56, 56)).depth.shape
        torch.Size([1, 2, 56, 56, 1])

        ```
    """
    check_teacher_path(path)
    device = check_device(device)
    if not Path(path).is_dir():
        _ask_hub(path)
    try:
        model_type = PreTrainedConfig.get_config_dict(path)[0].get("model_type", VGGT_TYPE)
        config = type(AutoConfig.for_model(model_type)).from_pretrained(path)
        teacher, found = AutoModelForDepthEstimation.from_pretrained(
            path, config=config, dtype=dtype, output_loading_info=True
        )
    except (OSError, RuntimeError, SafetensorError) as error:
        raise OSError(
            f"teacher {path} cannot be loaded: {error} Its weights may be damaged or cut off: copy or download them "
            "again."
        ) from None
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        raise ValueError(
            f"teacher {path} is of model_type {model_type!r}, which gives no depth; expected a folder of a "
            "GapMllmVggtForReconstruction."
        ) from None
    missing = sorted(found["missing_keys"])
    if missing:
        raise ValueError(
            f"teacher {path} lacks {len(missing)} weights of a {type(teacher).__name__}, as {missing[0]}: it is "
            "another model, and would label at random."
        )
    return teacher.to(device).eval()


def teacher_name(teacher) -> str:
    """How metadata calls a teacher: the name or folder of its weights, or its class or function."""
    name = getattr(teacher, "name_or_path", None) or getattr(getattr(teacher, "config", None), "_name_or_path", None)
    if name:
        return f"{type(teacher).__name__} {Path(name).name}"
    return getattr(teacher, "__name__", type(teacher).__name__)


def run_teacher(teacher: Teacher, inputs: list[torch.Tensor], first_view: int = 0) -> Reconstruction:
    """Ask a teacher about one scene, without gradient, and check what it says.

    Frame and units: see `Reconstruction`.

    Args:
        teacher (`Teacher`): model, which stays where it is; the pictures go to the device of its parameters.
        inputs (`list[torch.Tensor]`): pictures `(3, h, w)`, RGB in 0..1, see `teacher_inputs`.
        first_view (`int`, defaults to 0): number of the first of them in the video, for messages.
    Returns:
        `Reconstruction`.
    Raises:
        TypeError: if a field of the answer is missing.
        ValueError: if a field has another shape, holds NaN, infinity or a negative depth or confidence, or a camera is
            not rigid or has no focal length; field and view are named.
    """
    return read_answer(ask_teacher(teacher, inputs), [tuple(view.shape[-2:]) for view in inputs], first_view)


@torch.no_grad()
def ask_teacher(teacher: Teacher, inputs: list[torch.Tensor]) -> Any:
    """What a teacher answers about pictures `(3, h, w)` of one scene, not checked; see `run_teacher`."""
    device = input_device(teacher) if isinstance(teacher, torch.nn.Module) else None
    views = [view if device is None else view.to(device) for view in inputs]
    is_regular = len({view.shape for view in views}) == 1
    return teacher(torch.stack(views) if is_regular else views)


def read_answer(answer: Any, sizes: Sequence[tuple[int, int]], first_view: int = 0) -> Reconstruction:
    """Check what a teacher answered about views of one scene.

    Args:
        answer (object): fields as `Teacher` describes them, tensors or arrays.
        sizes (`Sequence[tuple[int, int]]`): height and width of each view in pixels.
        first_view (`int`, defaults to 0): number of the first of them in the video, for messages.
    Returns:
        `Reconstruction`.
    Raises:
        TypeError, ValueError: as `run_teacher`.
    """
    sizes = [tuple(size) for size in sizes]
    fields = {
        "depth": [(*size, 1) for size in sizes],
        "depth_conf": sizes,
        "extrinsics": [(3, 4)] * len(sizes),
        "intrinsics": [(3, 3)] * len(sizes),
    }
    if getattr(answer, "world_points", None) is not None:
        fields["world_points"] = [(*size, 3) for size in sizes]
    values = {name: _per_view(answer, name, shapes, first_view) for name, shapes in fields.items()}
    for name in ("depth", "depth_conf"):
        for view, value in enumerate(values[name], first_view):
            if (value < 0).any():
                raise ValueError(
                    f"the teacher's {name} of view {view} goes down to {value.min()}; expected 0 or more."
                )
    return Reconstruction(
        depth=[value[..., 0] for value in values["depth"]],
        confidence=values["depth_conf"],
        intrinsics=_checked_intrinsics(np.stack(values["intrinsics"]), first_view),
        camera_to_world=_camera_to_world(np.stack(values["extrinsics"]), first_view),
        world_points=values.get("world_points"),
    )


def _per_view(answer, name, shapes, first_view):
    """One field of the answer as finite numpy arrays of these shapes, one a view."""
    value = getattr(answer, name, None)
    if value is None:
        raise TypeError(f"the teacher's answer ({type(answer).__name__}) has no {name}; see the protocol Teacher.")
    if hasattr(value, "ndim") and value.ndim == len(shapes[0]) + 2 and len(value) == 1:
        value = value[0]
    if len(value) != len(shapes):
        raise ValueError(f"the teacher's {name} has {len(value)} entries for {len(shapes)} views.")
    arrays = []
    for view, (part, shape) in enumerate(zip(value, shapes, strict=True), first_view):
        array = part.detach().float().cpu().numpy() if isinstance(part, torch.Tensor) else np.asarray(part, np.float32)
        if array.shape != shape:
            raise ValueError(f"the teacher's {name} of view {view} has shape {array.shape}; expected {shape}.")
        num_bad = int((~np.isfinite(array)).sum())
        if num_bad:
            raise ValueError(
                f"the teacher's {name} of view {view} holds {num_bad} values of {array.size} that are NaN or infinite."
                " Check its weights and dtype (run it in float32); a depth that is not known must be 0."
            )
        arrays.append(array)
    return arrays


def _checked_intrinsics(intrinsics, first_view):
    for view, matrix in enumerate(intrinsics, first_view):
        if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
            raise ValueError(
                f"the teacher's intrinsics of view {view} have focal lengths {matrix[0, 0]} and {matrix[1, 1]}; "
                "expected positive ones."
            )
    return intrinsics.astype(np.float64)


def _camera_to_world(extrinsics, first_view):
    world_to_camera = np.zeros((len(extrinsics), 4, 4))
    world_to_camera[:, :3] = extrinsics
    world_to_camera[:, 3, 3] = 1
    for view, is_good in enumerate(is_rigid(world_to_camera), first_view):
        if not is_good:
            determinant = float(np.linalg.det(world_to_camera[view - first_view, :3, :3]))
            raise ValueError(
                f"the teacher's extrinsics of view {view} are not rigid (determinant of the rotation "
                f"{determinant:.4f}); expected world to camera with determinant +1."
            )
    return invert_rigid(world_to_camera)
