"""Bootstrap intervals for any statistic, with resampling of whole scenes where answers share a scene."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable = np.median,
    num_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    groups: ArrayLike | None = None,
):
    """Return the percentile bootstrap interval of a statistic.

    Answers about one scene stand or fall together, so they are no independent draws: with `groups` whole scenes are
    resampled. Infinite values (answers that could not be read) are allowed wherever the statistic allows them; the
    bounds are resampled statistics themselves, so nothing is interpolated towards infinity.

    Args:
        values (array-like of shape `(n,)`): one number an answer; never NaN.
        statistic (callable, defaults to `numpy.median`): takes an array, returns a number. Medians take a fast route.
        num_resamples (`int`, defaults to 2000): samples that are drawn with replacement.
        confidence (`float`, defaults to 0.95): share of resampled statistics within the interval.
        seed (`int`, defaults to 0): seed of the bootstrap.
        groups (array-like of shape `(n,)`, *optional*): the scene of each value; by default each value is its own.
    Returns:
        `tuple[float, float]`: low and high; both NaN if there is only one group, which says nothing about spread.
    Raises:
        ValueError: if there are no values, one is NaN, the groups are not as many, or confidence is not within 0..1.

    Example:
        ```python
        >>> from gap_mllm.evaluation import bootstrap_interval
        >>> bootstrap_interval([1.0, 1.0, 1.0, 5.0], groups=["a", "a", "b", "b"])
        (1.0, 3.0)

        ```
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values has shape {values.shape}; expected one dimension with at least one value.")
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} of {len(values)} values are NaN; write misses as infinity.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a number between 0 and 1, such as 0.95.")
    members = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if members.shape != values.shape:
        raise ValueError(f"groups has shape {members.shape}; expected one entry for each of {len(values)} values.")
    num_groups = int(members.max()) + 1
    if num_groups == 1:
        return float("nan"), float("nan")
    order = np.argsort(values, kind="stable")
    values, members = values[order], members[order]
    median = _MedianTable(values, members, num_groups) if statistic is np.median else None
    rng = np.random.default_rng(seed)
    results = np.empty(num_resamples)
    for resample in range(num_resamples):
        counts = np.bincount(rng.integers(num_groups, size=num_groups), minlength=num_groups)
        results[resample] = statistic(np.repeat(values, counts[members])) if median is None else median(counts)
    results.sort()
    tail = (1 - confidence) / 2 * (num_resamples - 1)
    return float(results[int(np.floor(tail))]), float(results[int(np.ceil(num_resamples - 1 - tail))])


class _MedianTable:
    """Medians of sorted values of which whole groups are repeated; a table of block counts spares counting anew."""

    def __init__(self, values, members, num_groups):
        self.values, self.members = values, members
        self.step = max(1, round(len(values) ** 0.5))
        block = np.arange(len(values)) // self.step
        table = np.bincount(block * num_groups + members, minlength=(block[-1] + 1) * num_groups)
        self.table = table.reshape(-1, num_groups).cumsum(axis=0).astype(np.float64)  # (blocks, groups)

    def __call__(self, counts):
        total = self.table @ counts  # exact: whole numbers
        low, high = (self._of_rank(rank, counts, total) for rank in ((total[-1] + 1) // 2, total[-1] // 2 + 1))
        return low if low == high else (low + high) / 2

    def _of_rank(self, rank, counts, total):
        block = int(np.searchsorted(total, rank))
        inside = slice(block * self.step, (block + 1) * self.step)
        before = total[block - 1] if block else 0
        return self.values[inside][np.searchsorted(np.cumsum(counts[self.members[inside]]), rank - before)]


def with_interval(
    name: str, values: ArrayLike, statistic: Callable = np.median, groups: ArrayLike | None = None, seed: int = 0
) -> dict:
    """Return `{name: statistic, name_ci95: [low, high]}` of some values; see `bootstrap_interval`.

    Example:
        ```python
        >>> from gap_mllm.evaluation import with_interval
        >>> with_interval("error_m", [2.0, 2.0, 2.0])
        {'error_m': 2.0, 'error_m_ci95': [2.0, 2.0]}

        ```
    """
    interval = bootstrap_interval(values, statistic, seed=seed, groups=groups)
    return {name: float(statistic(np.asarray(values, dtype=np.float64))), f"{name}_ci95": list(interval)}
