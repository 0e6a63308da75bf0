"""Long videos in windows: a teacher sees some views at a time, and windows that share views are put together.

Each window comes in the camera and the scale of its own first view. The points of shared views, seen in both, give
the similarity from a window to what is already there; the first window stays as the teacher gave it.
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from tqdm.auto import tqdm

from ...camera_geometry_gap_mllm import fit_similarity
from ...input_checks_gap_mllm import check_count, check_number
from .depth_teacher import Reconstruction, Teacher, run_teacher


MIN_PAIRS = 100  # pixels seen by both windows
MAX_ROUNDS = 10
OUTLIER_FACTOR = 3.0  # times the median residual
SIZE_PERCENTILES = (5, 95)


@dataclass(frozen=True)
class WindowAlignment:
    """How one window was put to the others.

    Args:
        first_view, last_view (`int`): ends of the window, both included.
        shared_views (`int`, defaults to 0): number of its views that an earlier window has, too; 0 for the first
            window, which stays as it is.
        scale (`float`, defaults to 1.0): factor of the window's lengths.
        num_pairs (`int`, defaults to 0), num_outliers (`int`, defaults to 0): pixels of shared views that were
            compared, and those left out.
        residual (`float`, *optional*): weighted root mean square distance of the pairs after the fit, in the units of
            the first window.
        relative_residual (`float`, *optional*): the same divided by `scene_size`.
    """

    first_view: int
    last_view: int
    shared_views: int = 0
    scale: float = 1.0
    num_pairs: int = 0
    num_outliers: int = 0
    residual: float | None = None
    relative_residual: float | None = None

    def as_dict(self) -> dict:
        """The fields as plain numbers, for a report."""
        return asdict(self)


def plan_windows(num_views: int, window: int, overlap: int) -> list[range]:
    """Cut a video into windows of `window` views, each sharing at least `overlap` views with the one before.

    The last window ends with the video and is as long as the others, so it may share more.

    Args:
        num_views (`int`), window (`int`), overlap (`int`): numbers of views: of the video, of a window, and shared.
    Returns:
        `list[range]`: a single one where the video is no longer than a window.
    Raises:
        TypeError: if a number is no integer.
        ValueError: if there are fewer than two views, the overlap is below 1, or the window is not longer than it.
    """
    num_views = check_count("num_views", num_views, least=None)
    window, overlap = check_count("window", window, least=None), check_count("overlap", overlap, least=None)
    if num_views < 2:
        raise ValueError(
            f"there {'is 1 view' if num_views == 1 else f'are {num_views} views'}; expected at least 2: points and "
            "motion come from several views. Take more frames of the video."
        )
    if overlap < 1 or window <= overlap:
        raise ValueError(
            f"window is {window} and overlap {overlap}; expected 1 <= overlap < window, or windows never advance."
        )
    if num_views <= window:
        return [range(num_views)]
    starts = [*range(0, num_views - window, window - overlap), num_views - window]
    return [range(start, start + window) for start in starts]


def scene_size(points: np.ndarray) -> float:
    """Return the size of a scene: diagonal of the box that holds its points but for 5 % at each side of each axis.

    Frame: any. Units: those of the points.

    Args:
        points (`np.ndarray` of shape `(..., 3)`): those with NaN do not count.
    Raises:
        ValueError: if no point is left.
    """
    flat = points.reshape(-1, 3)
    flat = flat[np.isfinite(flat).all(-1)]
    if not len(flat):
        raise ValueError("there are no points to take the size of; every pixel is without depth.")
    low, high = np.percentile(flat, SIZE_PERCENTILES, axis=0)
    return float(np.linalg.norm(high - low))


def align_points(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> tuple:
    """Fit the similarity from points to the same points of another reconstruction, without gross outliers.

    Weighted least squares (`fit_similarity`); pairs farther apart than `OUTLIER_FACTOR` times the median are left out
    and the rest fitted again, until the same pairs stay. Where all pairs agree up to rounding, none is left out.

    Args:
        source, target (`np.ndarray` of shape `(N, 3)`): the same points in both reconstructions.
        weights (`np.ndarray` of shape `(N,)`): how much each pair counts.
    Returns:
        `tuple` of scale, rotation `(3, 3)`, translation `(3,)`, weighted root mean square distance of the pairs that
        stay, and the bool array `(N,)` of these.
    Raises:
        ValueError: as `fit_similarity`.
    """
    kept = np.ones(len(source), dtype=bool)
    for _ in range(MAX_ROUNDS):
        scale, rotation, translation = fit_similarity(source[kept], target[kept], weights[kept])
        distance = np.linalg.norm(scale * source @ rotation.T + translation - target, axis=-1)
        rounding = 1e-6 * np.abs(target).max()
        close = distance <= max(OUTLIER_FACTOR * np.median(distance), rounding)
        if (close == kept).all():
            break
        kept = close
    residual = np.sqrt(np.average(distance[kept] ** 2, weights=weights[kept]))
    return float(scale), rotation, translation, float(residual), kept


def reconstruct_in_windows(
    teacher: Teacher,
    inputs: list[torch.Tensor],
    window: int = 16,
    overlap: int = 4,
    confidence_percentile: float = 50.0,
    progress: bool = False,
) -> tuple[Reconstruction, list[WindowAlignment]]:
    """Ask a teacher about a video of any length.

    A view that several windows have keeps what the earliest says of it. A video of one window is what the teacher
    says, bit for bit.
    Frame: world of the first window, as the teacher has it. Units: those of the teacher in the first window.

    Args:
        teacher (`Teacher`): model that is asked, see `run_teacher`.
        inputs (`list[torch.Tensor]`): pictures `(3, h, w)`, RGB in 0..1.
        window (`int`, defaults to 16), overlap (`int`, defaults to 4): numbers of views, see `plan_windows`.
        confidence_percentile (`float`, defaults to 50): share of the pixels of shared views that does not count, in
            percent: those that are less sure, by the lower confidence of both windows.
        progress (`bool`, defaults to False): show a bar.
    Returns:
        `tuple` of `Reconstruction` and a `WindowAlignment` for each window.
    Raises:
        TypeError, ValueError: as `run_teacher` and `plan_windows`; ValueError also on a percentile outside 0..100, if
            a window shares too few pixels with those before it, or they leave its rotation open.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.data.video_labels import load_teacher, reconstruct_in_windows
        >>> pictures = torch.tensor(render_room(0, num_views=6).images).permute(0, 3, 1, 2)[..., :112, :112] / 255
        >>> teacher = load_teacher(encoder_folder)
        >>> reconstruction, windows = reconstruct_in_windows(teacher, list(pictures), window=4, overlap=2)
        >>> len(reconstruction.depth), [window.shared_views for window in windows]
        (6, [0, 2])

        ```
    """
    check_number("confidence_percentile", confidence_percentile, least=0, most=100)
    windows = plan_windows(len(inputs), window, overlap)
    merged, alignments = None, []
    for views in tqdm(windows, desc="teacher", unit="window", disable=not progress):
        part = run_teacher(teacher, [inputs[view] for view in views], views.start)
        if merged is None:
            merged = part
            alignments.append(WindowAlignment(views.start, views.stop - 1))
            continue
        shared = range(views.start, len(merged))
        part, alignment = _put_to(part, merged, views, shared, confidence_percentile)
        merged = _join(merged, part.select(range(len(shared), len(part))))
        alignments.append(alignment)
    return merged, alignments


def _put_to(part, merged, views, shared, percentile):
    """A window moved to what is there, by the views that both have."""
    pairs = [_pairs(part, view - views.start, merged, view, percentile) for view in shared]
    source, target, weights = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    where = f"window of views {views.start} to {views.stop - 1}"
    if len(source) < MIN_PAIRS:
        raise ValueError(
            f"{where} shares {len(source)} pixels of known depth with those before it; expected {MIN_PAIRS} or more. "
            "Use a larger overlap."
        )
    try:
        scale, rotation, translation, residual, kept = align_points(source, target, weights)
    except ValueError as error:
        raise ValueError(f"{where} cannot be put to those before it: {error}") from None
    alignment = WindowAlignment(
        first_view=views.start,
        last_view=views.stop - 1,
        shared_views=len(shared),
        scale=scale,
        num_pairs=len(kept),
        num_outliers=int((~kept).sum()),
        residual=residual,
        relative_residual=residual / scene_size(target),
    )
    return part.moved(scale, rotation, translation), alignment


def _pairs(part, index, merged, view, percentile):
    """Points of one shared view in both reconstructions, with the weight of each pair."""
    source, target = part.points(index).reshape(-1, 3), merged.points(view).reshape(-1, 3)
    weights = np.minimum(part.confidence[index], merged.confidence[view]).reshape(-1).astype(np.float64)
    valid = np.isfinite(source).all(-1) & np.isfinite(target).all(-1)
    if valid.any():
        valid &= weights >= np.percentile(weights[valid], percentile)
    return source[valid], target[valid], weights[valid]


def _join(first, second):
    points = None
    if first.world_points is not None and second.world_points is not None:
        points = first.world_points + second.world_points
    return Reconstruction(
        depth=first.depth + second.depth,
        confidence=first.confidence + second.confidence,
        intrinsics=np.concatenate([first.intrinsics, second.intrinsics]),
        camera_to_world=np.concatenate([first.camera_to_world, second.camera_to_world]),
        world_points=points,
    )
