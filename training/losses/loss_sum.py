"""What every loss gives, a sum over items and their number, and what all of them share: precision, masks, checks.

An item is what a loss is a mean over: a pixel, a point, a view, a scene; each docstring says which. How many there
are follows from targets and masks alone, never from the prediction, so that it can be counted before the forward pass.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch
from torch.nn import functional as F

from ...processing.argument_checks import check_names


P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class LossSum:
    """A sum of losses over items, and the number of items: `total, count = point_loss(...)`.

    `first + second` is the loss of both batches together, so that no split of a batch changes its mean, and
    `3 * first`, or `first * 3`, that of a batch which comes three times. A trainer divides the sum by the count over
    all batches and processes. Without items the sum is 0 and has a gradient of 0.

    Args:
        sum (`torch.Tensor`): scalar.
        count (`torch.Tensor`): scalar, items or their total weight.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import LossSum
        >>> both = LossSum(torch.tensor(6.0), torch.tensor(2)) + LossSum(torch.tensor(1.0), torch.tensor(5))
        >>> float(both.mean)
        1.0

        ```
    """

    sum: torch.Tensor
    count: torch.Tensor

    @property
    def mean(self) -> torch.Tensor:
        """The mean over items, scalar; 0 where there are none."""
        return self.sum / torch.where(self.count > 0, self.count, 1)

    def __add__(self, other: "LossSum") -> "LossSum":
        return LossSum(self.sum + other.sum, self.count + other.count)

    def __mul__(self, times: int) -> "LossSum":
        return LossSum(self.sum * times, self.count * times)

    __rmul__ = __mul__

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter((self.sum, self.count))


def weighted_loss(losses: Mapping[str, LossSum], weights: Mapping[str, float]) -> torch.Tensor:
    """Sum of the means of several losses, each times its weight.

    Args:
        losses (`Mapping[str, LossSum]`): losses by name.
        weights (`Mapping[str, float]`): weight of each; one for which there is no loss is left out.
    Returns:
        `torch.Tensor`, scalar.
    Raises:
        ValueError: if a loss has no weight.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm.training.losses import LossSum, weighted_loss
        >>> losses = {"depth": LossSum(torch.tensor(6.0), torch.tensor(2))}
        >>> float(weighted_loss(losses, {"depth": 0.5, "camera": 2.5}))
        1.5

        ```
    """
    check_names("losses", losses, weights)
    return torch.stack([weights[name] * loss.mean for name, loss in losses.items()]).sum()


def in_full_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """Let a function compute with tensors of float32 or more, whatever is passed and whatever autocast says."""

    @functools.wraps(loss)
    def wrapper(*args, **kwargs):
        args, kwargs = _widened(args), _widened(kwargs)
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        device = tensors[0].device.type if tensors else "cpu"
        if not torch.amp.is_autocast_available(device):
            return loss(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return loss(*args, **kwargs)

    return wrapper


def _widened(value):
    """Tensors of half precision as float32, in lists and dicts too."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() and value.element_size() < 4 else value
    if isinstance(value, dict):
        return {name: _widened(each) for name, each in value.items()}
    return type(value)(_widened(each) for each in value) if type(value) in (list, tuple) else value


def check_shapes(last: int | None = None, **tensors: torch.Tensor) -> None:
    """Refuse tensors that differ in shape, or whose last dimension has another size than `last`.

    Raises:
        ValueError: if so, with the names and shapes.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    (first, shape), *others = shapes.items()
    if last is not None and shape[-1:] != (last,):
        raise ValueError(f"{first} has shape {shape}; expected (..., {last}).")
    for name, other in others:
        if other != shape:
            raise ValueError(
                f"{first} has shape {shape} and {name} {other}; expected the same. Resize one of them to the grid or "
                "picture size of the other before the loss."
            )


def valid_mask(valid: torch.Tensor | None, places: torch.Tensor) -> torch.Tensor:
    """The mask of a loss: as given, or every place where `places` (bool) holds.

    Raises:
        ValueError: if `valid` has another shape. TypeError: if it is not bool.
    """
    if valid is None:
        return places
    if valid.dtype != torch.bool:
        raise TypeError(f"valid has dtype {valid.dtype}; expected torch.bool: a comparison, or valid.bool().")
    if valid.shape != places.shape:
        raise ValueError(f"valid has shape {tuple(valid.shape)}; expected {tuple(places.shape)}, one for each place.")
    return valid


def only_valid(values: torch.Tensor, valid: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
    """`values` where valid and `fill` elsewhere, so that what is invalid gives neither NaN nor gradient."""
    return torch.where(valid[(..., *[None] * (values.ndim - valid.ndim))], values, fill)


def sum_over_places(losses: torch.Tensor, valid: torch.Tensor) -> LossSum:
    """Losses of places of which each is an item; those of invalid ones must be finite."""
    return LossSum(only_valid(losses, valid).sum(), valid.sum())


def sum_over_entries(losses: torch.Tensor, valid: torch.Tensor) -> LossSum:
    """Each entry of the first dimension is an item, and its loss the mean over its valid places."""
    losses, valid = only_valid(losses, valid)[:, None].flatten(1), valid[:, None].flatten(1)
    counts = valid.sum(1)
    means = losses.sum(1) / counts.clamp_min(1)
    return LossSum(means.sum(), (counts > 0).sum())


def same_scene(scenes: torch.Tensor | None, num_rows: int, device: torch.device) -> torch.Tensor:
    """Whether two rows belong to one scene, `(N, N)` bool; without `scenes` all do.

    Raises:
        ValueError: if there is not one scene for each row.
    """
    if scenes is None:
        return torch.ones(num_rows, num_rows, dtype=torch.bool, device=device)
    if tuple(scenes.shape) != (num_rows,):
        raise ValueError(f"scenes has shape {tuple(scenes.shape)}; expected ({num_rows},), the scene of each row.")
    return scenes[:, None] == scenes[None, :]


def check_temperature(temperature: float | torch.Tensor) -> None:
    """Refuse a temperature that is not above 0; one that is learned is not read.

    Raises:
        ValueError: if it is 0 or less.
    """
    if isinstance(temperature, int | float) and not temperature > 0:
        raise ValueError(f"temperature is {temperature}; expected a number above 0.")


def unit(features: torch.Tensor) -> torch.Tensor:
    """Features of length 1; those of length 0 stay 0."""
    return F.normalize(features, dim=-1, eps=1e-12)
