"""Ridge regression in closed form, from sums over batches: whatever is read is seen once and not kept."""

from collections.abc import Sequence

import torch


STRENGTHS = tuple(10.0**power for power in range(-5, 2))  # of features and targets with variance 1
DEFAULT_STRENGTH = 1e-2  # where nothing was held out


class LinearProbe:
    """A linear map from features to targets, fitted by ridge regression on features of mean 0 and variance 1.

    Sums of products are all that is kept, in float64: `(C + 1)^2` numbers, twice, for C features. The strength of the
    penalty is chosen among `STRENGTHS` for each group of targets, by the squared error on what was held out; then all
    is fitted on.

    Args:
        groups (sequence of `int`): number of targets that share a strength, one group after the other.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.evaluation.probing.linear_probe import LinearProbe
        >>> features = torch.rand(200, 3)
        >>> targets = features @ torch.tensor([[1.0], [2.0], [0.0]]) + 5
        >>> probe = LinearProbe([1])
        >>> probe.add(features[:150], targets[:150])
        >>> probe.add(features[150:], targets[150:], held_out=True)
        >>> probe.fit()
        >>> bool((probe(features) - targets).abs().max() < 1e-3)
        True

        ```
    """

    def __init__(self, groups: Sequence[int]):
        self.groups, self._sums, self.strengths, self._weights = tuple(groups), {}, None, None

    def add(self, features: torch.Tensor, targets: torch.Tensor, held_out: bool = False) -> None:
        """Add examples to the sums.

        Args:
            features (`torch.Tensor` of shape `(N, C)`): features; C may be 0, for the best constant.
            targets (`torch.Tensor` of shape `(N, K)`): what is told, K as the groups say; finite.
            held_out (`bool`, defaults to False): whether they choose the strength.
        Raises:
            ValueError: if shapes do not fit, or a number is not finite.
        """
        features, targets = features.double(), targets.double()
        if features.shape[:-1] != targets.shape[:-1] or targets.shape[-1] != sum(self.groups) or targets.ndim != 2:
            raise ValueError(
                f"features are {tuple(features.shape)} and targets {tuple(targets.shape)}; expected (N, C) and "
                f"(N, {sum(self.groups)})."
            )
        if not (features.isfinite().all() and targets.isfinite().all()):
            raise ValueError("a feature or target is not finite. Leave such examples out, or look at the model.")
        features = _with_one(features)
        sums = features.T @ features, features.T @ targets, targets.square().sum(0)
        before = self._sums.get(held_out)
        self._sums[held_out] = sums if before is None else tuple(a + b for a, b in zip(before, sums, strict=True))

    def fit(self) -> None:
        """Choose the strengths, and fit on all examples.

        Raises:
            ValueError: if there are no examples.
        """
        if not self._sums:
            raise ValueError("there are no examples to fit a probe on.")
        self.strengths = [DEFAULT_STRENGTH] * len(self.groups)
        if len(self._sums) == 2:
            solve = _solver(*self._sums[False][:2])
            tried = {strength: self._squared_errors(solve(strength)) for strength in STRENGTHS}
            self.strengths = [min(STRENGTHS, key=lambda s: tried[s][group]) for group in range(len(self.groups))]
        whole = tuple(sum(parts) for parts in zip(*self._sums.values(), strict=True))
        solve = _solver(*whole[:2])
        parts = [solve(strength).split(self.groups, dim=1)[g] for g, strength in enumerate(self.strengths)]
        self._weights = torch.cat(parts, dim=1)

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Tell the targets `(N, K)`, float64, of features `(N, C)`."""
        return _with_one(features.double()) @ self._weights

    def _squared_errors(self, weights):
        """Squared error of each group on what was held out, from the sums alone."""
        gram, cross, squares = self._sums[True]
        errors = squares - 2 * (weights * cross).sum(0) + (weights * (gram @ weights)).sum(0)
        return [float(part.sum()) for part in errors.split(self.groups)]


def _with_one(features):
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


def _solver(gram, cross):
    """A function from strength to weights `(C + 1, K)`, the last row for the constant; one decomposition for all."""
    count = gram[-1, -1]
    means, target_means = gram[-1, :-1] / count, cross[-1] / count
    covariance = gram[:-1, :-1] / count - means[:, None] * means
    scale = covariance.diagonal().clamp_min(0).sqrt()
    # A feature that does not vary tells nothing; rounding must not make it large.
    scale = torch.where(scale > 1e-8 * (means.abs() + 1e-12), 1 / scale, 0.0)
    values, vectors = torch.linalg.eigh(covariance * scale[:, None] * scale)
    projected = vectors.T @ ((cross[:-1] / count - means[:, None] * target_means) * scale[:, None])

    def solve(strength):
        weights = scale[:, None] * (vectors @ (projected / (values.clamp_min(0) + strength)[:, None]))
        return torch.cat([weights, (target_means - means @ weights)[None]])

    return solve
