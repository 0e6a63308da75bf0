"""How well masks of the views of a scene cover what they should: over the scene, and view by view."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MaskOverlap:
    """Intersection over union of masks.

    Args:
        iou (`float`): ratio over the pixels of all views together.
        view_ious (`tuple[float, ...]`): ratio of each view; NaN where neither mask has a pixel.
    """

    iou: float
    view_ious: tuple[float, ...]

    @property
    def mean_view_iou(self) -> float:
        """The mean over the views in which a mask has a pixel."""
        return float(np.nanmean(self.view_ious))


def mask_overlap(masks: np.ndarray, truth: np.ndarray) -> MaskOverlap:
    """Compare masks with the true ones.

    Args:
        masks (`np.ndarray` of shape `(V, H, W)`, bool): predicted masks, one for each view.
        truth (`np.ndarray` of the same shape, bool): true masks.
    Returns:
        `MaskOverlap`.
    Raises:
        TypeError: if one is not bool. ValueError: if shapes differ, or the true masks are empty.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.processing.scores import mask_overlap
        >>> truth = np.zeros((2, 4, 4), bool)
        >>> truth[0, :2] = True
        >>> mask_overlap(np.ones_like(truth), truth)
        MaskOverlap(iou=0.25, view_ious=(0.5, 0.0))

        ```
    """
    for name, array in (("masks", masks), ("truth", truth)):
        if not isinstance(array, np.ndarray) or array.dtype != bool:
            raise TypeError(f"{name} is {getattr(array, 'dtype', type(array).__name__)}; expected an array of bool.")
    if masks.shape != truth.shape or masks.ndim != 3:
        raise ValueError(f"masks have shape {masks.shape} and the truth {truth.shape}; expected (V, H, W) of both.")
    if not truth.any():
        raise ValueError("the true masks are empty: no view shows the object.")
    both, either = (masks & truth).sum((1, 2)), (masks | truth).sum((1, 2))
    views = tuple(float(a / b) if b else float("nan") for a, b in zip(both, either, strict=True))
    return MaskOverlap(float(both.sum() / either.sum()), views)
