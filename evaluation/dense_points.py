"""Dense point error: how far the point of every pixel is from the truth, for a geometry encoder and for a GAP-MLLM.

Every number stands next to those of the blind baselines on the same pixels. The first view says little (its points
need no relative pose), so the later views are also reported alone.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from tqdm import tqdm

from ..pretraining_gap_mllm import GapMllmForPreTraining
from ..processing.camera_geometry_gap_mllm import invert_rigid, transform_points, unproject_depth
from ..processing.data.rooms.rendered_rooms import RenderedRooms
from ..processing.data.rooms.renderer import RoomScene, render_split
from ..processing.data.rooms.room_scenes import make_question
from ..processing.model_state_gap_mllm import input_device
from ..processing.processing_gap_mllm import GapMllmProcessor
from ..training.marked_pixel_scorer import choose_cross_size
from ..training.rooms import RoomGeometryDataset, collate_scenes
from ..training.scene_collator import LOSS_FIELDS, SceneCollator
from ..vggt_heads_gap_mllm import GapMllmVggtForReconstruction, pose_encoding_to_cameras
from .baselines import BlindBaselines, fit_baselines
from .intervals import with_interval
from .metrics.camera_pose import rotation_angles


NAME = "dense_point_error_m"
UNPROJECTED = "unprojected_point_error_m"
AXES = ("right", "down", "forward")


def summarize_errors(errors: ArrayLike, name: str = NAME, seed: int = 0):
    """Return the median of errors over all pixels, over the later views alone, and in each view.

    Args:
        errors (array-like of shape `(N, V, P)`): errors of P pixels in V views of N scenes; NaN without truth.
        name (`str`, defaults to `NAME`): name of the metric.
        seed (`int`, defaults to 0): seed of the bootstrap over scenes.
    Returns:
        `dict`: `name`, `name_later_views` (views 1 to V-1; only if there are any), each with its interval under
        "_ci95", and `name_per_view`, a list.
    Raises:
        ValueError: if there is no scene, or no truth in it.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.evaluation import summarize_errors
        >>> summary = summarize_errors(np.full((2, 3, 5), 0.5))
        >>> summary["dense_point_error_m"], summary["dense_point_error_m_per_view"]
        (0.5, [0.5, 0.5, 0.5])

        ```
    """
    errors = np.asarray(errors, dtype=np.float64)
    if errors.ndim != 3 or np.isnan(errors).all():
        raise ValueError(f"errors has shape {errors.shape}; expected (scenes, views, pixels) with some true points.")
    summary = _median(name, errors, seed)
    if errors.shape[1] > 1:
        summary |= _median(f"{name}_later_views", errors[:, 1:], seed)
    summary[f"{name}_per_view"] = [float(np.nanmedian(errors[:, view])) for view in range(errors.shape[1])]
    return summary


def _median(name, errors, seed):
    is_known = ~np.isnan(errors)
    scenes = np.broadcast_to(np.arange(len(errors))[:, None, None], errors.shape)
    return with_interval(name, errors[is_known], np.median, scenes[is_known], seed)


# A geometry encoder


@torch.no_grad()
def evaluate_geometry_encoder(
    model: GapMllmVggtForReconstruction,
    split: str = "test",
    num_scenes: int = 256,
    num_baseline_scenes: int = 512,
    batch_size: int = 8,
    seed: int = 0,
    pixel_stride: int = 8,
    baselines: BlindBaselines | None = None,
    show_progress: bool = True,
    first_scene: int = 0,
    rooms: RenderedRooms | None = None,
):
    """Measure a reconstruction model on rooms that it has not seen, next to blind baselines.

    Frame: camera of the first view, OpenCV axes. Units: metres, degrees. Poses are those of views 1 to V-1 relative
    to view 0, as predicted for both.

    Args:
        model (`GapMllmVggtForReconstruction`): trained on metres.
        split (`str`, defaults to "test"): "selection" or "test"; the baselines are fitted on training rooms.
        num_scenes (`int`, defaults to 256), num_baseline_scenes (`int`, defaults to 512): how many rooms to measure
            and to fit on.
        batch_size (`int`, defaults to 8): rooms at once.
        seed (`int`, defaults to 0): seed of the bootstrap.
        pixel_stride (`int`, defaults to 8): every so many rows and columns are measured; neighbours tell the same.
        baselines (`BlindBaselines`, *optional*): already fitted ones.
        show_progress (`bool`, defaults to True): show a bar.
        first_scene (`int`, defaults to 0): number of the first room to measure.
        rooms (`RenderedRooms`, *optional*): rooms of the split in other sizes, numbers of views or styles; baselines
            should be of such rooms, too.
    Returns:
        `dict`: as `summarize_errors` names them, `dense_point_error_m` and with the prefixes "pixel_prior_" and
        "constant_" those of the baselines, and `unprojected_point_error_m`, of the points that predicted depth and
        cameras give; `depth_abs_rel` (mean of |error| / truth) with `pixel_prior_depth_abs_rel`; the medians
        `pose_translation_error_m`, its parts along the axes of view 0 (`pose_right_error_m`, `pose_down_error_m`,
        `pose_forward_error_m`) and `pose_rotation_error_deg`, and with the prefix "no_motion_" the same of standing
        still; `split`, `n`, `num_baseline_scenes`.
    Raises:
        ValueError: if the split is "train", which the baselines are fitted on.

    Example:
        ```python
        >>> from gap_mllm import GapMllmVggtForReconstruction
        >>> from gap_mllm.evaluation import evaluate_geometry_encoder
        >>> encoder = GapMllmVggtForReconstruction.from_pretrained(encoder_folder)
        >>> options = {"num_scenes": 2, "num_baseline_scenes": 2, "show_progress": False}
        >>> evaluate_geometry_encoder(encoder, **options)["n"]
        2

        ```
    """
    if split == "train":
        raise ValueError("split is 'train', which the baselines are fitted on; measure 'selection' or 'test'.")
    if baselines is None:
        fitted_on = render_split("train", num_baseline_scenes)
        baselines = fit_baselines(_progress(fitted_on, num_baseline_scenes, show_progress))
    end = first_scene + num_scenes
    dataset = RoomGeometryDataset(rooms or RenderedRooms(split, end), model.config.patch_size)
    device, was_training = input_device(model), model.training
    model.eval()
    parts = {}
    try:
        for start in _progress(range(first_scene, end, batch_size), None, show_progress):
            batch = collate_scenes([dataset[index] for index in range(start, min(start + batch_size, end))])
            output = model(batch["images"].to(device))
            for name, value in _encoder_errors(output, batch, baselines, pixel_stride).items():
                parts.setdefault(name, []).append(value)
    finally:
        model.train(was_training)
    errors = {name: np.concatenate(values) for name, values in parts.items()}
    metrics = {"split": split, "n": num_scenes, "num_baseline_scenes": len(baselines.scene_ids)}
    for prefix in ("", "pixel_prior_", "constant_"):
        metrics |= summarize_errors(errors[prefix + NAME], prefix + NAME, seed)
    metrics |= summarize_errors(errors[UNPROJECTED], UNPROJECTED, seed)
    for name in ("depth_abs_rel", "pixel_prior_depth_abs_rel"):
        metrics |= with_interval(name, np.nanmean(errors[name], axis=(1, 2)), np.mean, seed=seed)
    for name in ("translation_error_m", "rotation_error_deg", *(f"{axis}_error_m" for axis in AXES)):
        for prefix in ("pose_", "no_motion_"):
            if errors[prefix + name].shape[1]:
                metrics |= _median(prefix + name, errors[prefix + name][..., None], seed)
    return metrics


def _progress(items, total, is_shown):
    return tqdm(items, total=total, desc="rooms", disable=not is_shown)


def _encoder_errors(output, batch, baselines, stride):
    """Errors of one batch and of the baselines: dense ones (B, V, P), of poses (B, V - 1)."""
    height, width = batch["depth"].shape[-2:]
    pick = np.s_[..., stride // 2 :: stride, stride // 2 :: stride]
    pick_points = (*pick, slice(None))
    valid = batch["valid"].numpy()[pick]
    truth = batch["points"].numpy()[pick_points]
    points = output.world_points.float().cpu().numpy()[pick_points]
    prior = baselines.point_maps(height, width)[pick_points][: valid.shape[1]]
    prior_depth = baselines.depth_maps(height, width)[pick][: valid.shape[1]]  # fitted on as many views or more
    true_depth = np.where(valid, batch["depth"].numpy()[pick], np.nan)
    whole_depth = output.depth[..., 0].float().cpu()
    depth = whole_depth.numpy()[pick]
    extrinsics, intrinsics = _cameras(output.pose_enc.cpu(), (height, width))
    seen = unproject_depth(whole_depth, intrinsics).numpy()[pick_points].astype(np.float64)
    unprojected = transform_points(invert_rigid(extrinsics), seen)

    def flat(values: ArrayLike):
        return np.where(valid, values, np.nan).reshape(*valid.shape[:2], -1)

    errors = {
        NAME: flat(_distance(points, truth)),
        f"pixel_prior_{NAME}": flat(_distance(prior, truth)),
        f"constant_{NAME}": flat(_distance(baselines.constant_dense_point, truth)),
        UNPROJECTED: flat(_distance(unprojected, truth)),
        "depth_abs_rel": flat(np.abs(depth - true_depth) / true_depth),
        "pixel_prior_depth_abs_rel": flat(np.abs(prior_depth - true_depth) / true_depth),
    }
    true_poses = _relative_poses(_cameras(batch["pose_enc"], (height, width))[0])
    poses = _relative_poses(extrinsics)
    still = np.broadcast_to(np.eye(4), true_poses.shape)
    for prefix, guess in (("pose_", poses), ("no_motion_", still)):
        translation, rotation = pose_errors(guess, true_poses)
        errors |= {f"{prefix}translation_error_m": translation, f"{prefix}rotation_error_deg": rotation}
        along = np.abs(guess[..., :3, 3] - true_poses[..., :3, 3])
        errors |= {f"{prefix}{axis}_error_m": along[..., number] for number, axis in enumerate(AXES)}
    return errors


def _distance(points, truth):
    return np.linalg.norm(points - truth, axis=-1)


def _cameras(pose_encoding, image_size):
    """World to camera (B, V, 4, 4), NumPy's in float64, and intrinsics (B, V, 3, 3), a tensor."""
    extrinsics, intrinsics = pose_encoding_to_cameras(pose_encoding.double(), image_size)
    world_to_camera = np.zeros((*extrinsics.shape[:-2], 4, 4))
    world_to_camera[..., :3, :], world_to_camera[..., 3, 3] = extrinsics.numpy(), 1.0
    return world_to_camera, intrinsics


def _relative_poses(world_to_camera):
    """Poses (B, V - 1, 4, 4) of the later views relative to the first, camera to camera."""
    return world_to_camera[:, :1] @ invert_rigid(world_to_camera[:, 1:])


def pose_errors(poses: np.ndarray, truth: np.ndarray):
    """Return how far camera positions are apart, and by which angle orientations differ.

    Frame: both poses map a camera to the same frame. Units: metres, degrees.

    Args:
        poses (`numpy.ndarray` of shape `(..., 4, 4)`), truth (`numpy.ndarray` of shape `(..., 4, 4)`).
    Returns:
        `tuple` of `numpy.ndarray` of shape `(...)`: translation error, rotation error.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.evaluation import pose_errors
        >>> moved = np.eye(4)
        >>> moved[0, 3] = 0.5
        >>> [float(error) for error in pose_errors(moved, np.eye(4))]
        [0.5, 0.0]

        ```
    """
    translation = np.linalg.norm(poses[..., :3, 3] - truth[..., :3, 3], axis=-1)
    return translation, rotation_angles(poses[..., :3, :3], truth[..., :3, :3])


# The point-map heads of a GAP-MLLM


def geometry_of_other_scenes(features: torch.Tensor, image_grid_thw: torch.Tensor, scene_lengths: torch.Tensor):
    """Give every scene of a batch the geometry features of the next one of equal shape.

    The vision tower still sees the right pictures. A model that reads its geometry gets worse by this; one that
    ignores it does not.

    Args:
        features (`torch.Tensor` of shape `(levels, P, C)`): what `get_geometry_features` gave for the batch.
        image_grid_thw (`torch.Tensor` of shape `(N, 3)`), scene_lengths (`torch.Tensor` of shape `(S,)`): grids of the
            batch.
    Returns:
        `torch.Tensor` of shape `(levels, P, C)`: to be passed as `geometry_features`.
    Raises:
        ValueError: if a scene has no partner with as many views of the same sizes.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.evaluation import geometry_of_other_scenes
        >>> features = torch.tensor([1.0, 1.0, 2.0, 2.0]).reshape(1, 4, 1)  # two scenes of one view of 1 x 2 patches
        >>> geometry_of_other_scenes(features, torch.tensor([[1, 1, 2]] * 2), torch.tensor([1, 1])).flatten().tolist()
        [2.0, 2.0, 1.0, 1.0]

        ```
    """
    grid = [(height, width) for _, height, width in image_grid_thw.tolist()]
    starts = np.cumsum([0, *scene_lengths.tolist()])
    shapes = [tuple(grid[a:b]) for a, b in zip(starts[:-1], starts[1:], strict=True)]
    camera_tokens = (features.shape[1] - sum(height * width for height, width in grid)) // len(grid)  # of a view
    rows = [sum(height * width + camera_tokens for height, width in shape) for shape in shapes]
    parts = features.split(rows, dim=1)
    source = list(range(len(shapes)))
    for shape in set(shapes):
        members = [index for index, other in enumerate(shapes) if other == shape]
        if len(members) == 1:
            raise ValueError(
                f"Scene {members[0]} of the batch has no partner of equal shape ({len(shape)} views of {list(shape)} "
                "patches) to take geometry from. Use batches of equal scenes, two or more."
            )
        for index, partner in zip(members, members[1:] + members[:1], strict=True):
            source[index] = partner
    return torch.cat([parts[index] for index in source], dim=1)


@torch.no_grad()
def evaluate_point_maps(
    model: GapMllmForPreTraining,
    processor: GapMllmProcessor,
    scenes: Iterable[RoomScene],
    baselines: BlindBaselines | None = None,
    batch_size: int = 8,
    arm: int | None = None,
    half_thickness: int | None = None,
    with_shuffled_geometry: bool = True,
    seed: int = 0,
    show_progress: bool = True,
):
    """Measure the point-map heads on rooms, with the right geometry and with that of another room.

    Each room is shown as its first marked-pixel question shows it, cross included.
    Frame: camera of the first view, OpenCV axes. Units: metres.

    Args:
        model (`GapMllmForPreTraining`): put into evaluation mode for the time being.
        processor (`GapMllmProcessor`)
        scenes (iterable of `RoomScene`): rooms of equal size and number of views, none that the baselines
            were fitted on.
        baselines (`BlindBaselines`, *optional*): measured on the same pixels.
        batch_size (`int`, defaults to 8): rooms at once, two or more for the shuffled geometry.
        arm (`int`, *optional*), half_thickness (`int`, *optional*): cross in pixels; default: as in training,
            see `GapMllmProcessor.apply_visual_prompt`.
        with_shuffled_geometry (`bool`, defaults to True): whether to run a second time with the geometry of another
            room.
        seed (`int`, defaults to 0): seed of the bootstrap.
        show_progress (`bool`, defaults to True): show a bar.
    Returns:
        `dict`: as `summarize_errors` names them, `dense_point_error_m` (head on the fused visual tokens),
        `language_dense_point_error_m` (head on the language model's states), both again with the prefix
        "shuffled_geometry_", and those of the baselines, "pixel_prior_" and "constant_"; `n`.
    Raises:
        ValueError: if there are no rooms or only one to shuffle, or a room was used to fit the baselines.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForPreTraining
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> model = GapMllmForPreTraining.from_pretrained(folder, dtype="float32")
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> from gap_mllm.evaluation import evaluate_point_maps, render_split
        >>> evaluate_point_maps(model, processor, render_split("test", 2), show_progress=False)["n"]
        2

        ```
    """
    collate = SceneCollator(processor, "block_mask", for_pretraining=True, point_map_side=model.config.point_map_side)
    cross_size = choose_cross_size(processor, arm, half_thickness)
    device, was_training = input_device(model), model.training
    model.eval()
    parts, num_scenes = {}, 0
    try:
        for batch_scenes in tqdm(_batches(scenes, batch_size), desc="batches", disable=not show_progress):
            seen = sorted({scene.scene_id for scene in batch_scenes} & (baselines.scene_ids if baselines else set()))
            if seen:
                raise ValueError(f"rooms {seen[:5]} were used to fit the baselines; measure other rooms.")
            num_scenes += len(batch_scenes)
            batch = collate([_sample(scene, cross_size) for scene in batch_scenes])
            batch.pop("sample_ids")
            truth = batch.pop("point_map_targets").numpy()
            shape = len(batch_scenes), len(batch_scenes[0].images), -1
            batch = {name: value.to(device) for name, value in batch.items() if name not in LOSS_FIELDS}
            geometry = {}
            if with_shuffled_geometry:  # encoded once, used twice
                views = {name: batch[name] for name in ("image_grid_thw", "scene_lengths")}
                features = model.model.get_geometry_features(batch["pixel_values"], **views)
                geometry = {"": features, "shuffled_geometry_": geometry_of_other_scenes(features, **views)}
            guesses = {}
            for prefix, features in (geometry or {"": None}).items():
                maps = _point_maps(model, batch, features)
                guesses |= {f"{prefix}{name}": points for name, points in maps.items()}
            if baselines is not None:
                merge = processor.image_processor.merge_size
                grid = [int(side) // merge for side in batch["image_grid_thw"][0, 1:]]
                prior = _token_cells(baselines, grid, model.config.point_map_side)
                guesses[f"pixel_prior_{NAME}"] = np.tile(prior, (len(batch_scenes), 1, 1, 1))
                guesses[f"constant_{NAME}"] = baselines.constant_dense_point
            for name, points in guesses.items():
                parts.setdefault(name, []).append(_distance(points, truth).reshape(shape))
    finally:
        model.train(was_training)
    if not num_scenes:
        raise ValueError("there are no rooms to measure.")
    metrics = {"n": num_scenes}
    for name, errors in parts.items():
        metrics |= summarize_errors(np.concatenate(errors), name, seed)
    return metrics


def _batches(scenes, size):
    """Lists of `size` scenes; a single one left over joins the list before it."""
    batch, waiting = [], None
    for scene in scenes:
        batch.append(scene)
        if len(batch) == size:
            if waiting:
                yield waiting
            waiting, batch = batch, []
    if waiting and len(batch) == 1:
        waiting, batch = waiting + batch, []
    yield from (part for part in (waiting, batch) if part)


def _sample(scene, cross_size=None):
    """The first question about a marked pixel of a room."""
    return replace(make_question(scene, "reconstruction"), cross_size=cross_size)


def _point_maps(model, batch, geometry):
    maps = model(**batch, geometry_features=geometry).point_maps
    names = {"visual": NAME, "language": f"language_{NAME}"}
    return {names[source]: points.float().cpu().numpy() for source, points in maps.items()}


def _token_cells(baselines, grid, side):
    """The pixel prior in the form of the heads: (V * tokens, side, side, 3)."""
    rows, columns = grid
    maps = baselines.point_maps(rows * side, columns * side)
    cells = maps.reshape(len(maps), rows, side, columns, side, 3).swapaxes(2, 3)
    return cells.reshape(-1, side, side, 3)
