"""`Schedule`: a number that follows the share of a run that is done; for weights of sources, tasks and loss terms."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..processing.argument_checks import check_names, nearest_name
from ..processing.input_checks_gap_mllm import WrongKindError, check_number


KINDS = ("linear", "step")


@dataclass(frozen=True)
class Schedule:
    """A number that follows the share of a run that is done, from 0 at the start to 1 at the end.

    Before the first point it has the value of the first, behind the last that of the last. In a recipe a schedule
    stands wherever a weight may: `{0: 1.0, 0.5: 0.2}`, or with steps `{0: 1.0, 0.5: 0.2, kind: step}`.

    Args:
        points (`dict[float, float]`): values by the share of the run at which they hold, rising from 0 to 1.
        kind (`str`, defaults to "linear"): course between two points, "linear", or "step" to keep the former value.
    Raises:
        TypeError: if points are no mapping of numbers to numbers. ValueError: if there are none, a share is not
            within 0 and 1 or not above that before it, a value is not finite, or the kind is unknown.

    Example:
        ```python
        >>> from gap_mllm.training import Schedule
        >>> weight = Schedule({0.0: 1.0, 0.5: 0.2})
        >>> weight(0.0), weight(0.25), weight(0.9)
        (1.0, 0.6, 0.2)
        >>> Schedule({0.0: 1.0, 0.5: 0.2}, kind="step")(0.25)
        1.0

        ```
    """

    points: dict[float, float]
    kind: str = "linear"

    def __post_init__(self):
        if not isinstance(self.points, Mapping):
            raise WrongKindError(f"the points are {self.points!r}; expected values by shares of the run.")
        if self.kind not in KINDS:
            near = nearest_name(self.kind, KINDS)
            raise ValueError(f"kind is {self.kind!r}{near}; expected one of {', '.join(KINDS)}.")
        points = {check_number("a share of the run", at, 0, 1): value for at, value in self.points.items()}
        if not points:
            raise ValueError("a schedule has no points; give one or more, as {0: 1.0, 0.5: 0.2}.")
        for before, after in pairwise(points):
            if after <= before:
                raise ValueError(f"the shares of the run are {list(points)}; expected each above the one before it.")
        points = {at: check_number(f"the value at {at:g}", value) for at, value in points.items()}
        object.__setattr__(self, "points", points)

    def __call__(self, done: float | np.ndarray) -> float | np.ndarray:
        """The value when a share of the run is done.

        Args:
            done (`float` or array of any shape): share of the run, from 0 to 1.
        Returns:
            `float` or array of the same shape.
        """
        shares, values = np.array(list(self.points)), np.array(list(self.points.values()))
        if self.kind == "linear":
            found = np.interp(done, shares, values)
        else:
            found = values[np.maximum(np.searchsorted(shares, done, side="right") - 1, 0)]
        return found if np.ndim(done) else float(found)

    def as_dict(self) -> dict[float | str, float | str]:
        """The mapping by which it stands in a recipe."""
        return {**self.points, "kind": self.kind}

    def __bool__(self) -> bool:
        """Whether the value is ever other than 0."""
        return any(self.points.values())


def read_weight(name: str, value: object, least: float = -np.inf) -> float | Schedule:
    """Read a weight of a recipe: a number, or a `Schedule` as a mapping.

    Args:
        name (`str`): its name, for messages.
        value (`float`, `Schedule` or `dict`): number, or values by shares of the run and perhaps "kind". Shares may be
            texts, as JSON has them.
        least (`float`, *optional*): smallest value that it may have.
    Returns:
        `float` or `Schedule`.
    Raises:
        TypeError, ValueError: as `Schedule`, or for a value that is no finite number, or below `least`.

    Example:
        ```python
        >>> from gap_mllm.training.schedule import read_weight
        >>> read_weight("weight", {"0": 1.0, "0.5": 0.2, "kind": "step"})
        Schedule(points={0.0: 1.0, 0.5: 0.2}, kind='step')

        ```
    """
    if isinstance(value, Mapping):
        shares = {_number(key): number for key, number in value.items() if key != "kind"}
        check_names(name, (key for key in shares if isinstance(key, str)), ["kind", "shares of the run from 0 to 1"])
        try:
            value = Schedule(shares, value.get("kind", "linear"))
        except ValueError as error:
            raise type(error)(f"{name}: {error}") from None
    if isinstance(value, str):
        raise WrongKindError(
            f"{name} is {value!r}; expected a finite number, or values by shares of the run, as {{0: 1.0, 0.5: 0.0, "
            f"kind: {KINDS[-1]}}}, where kind is one of {', '.join(KINDS)}{nearest_name(value, KINDS)}."
        )
    if not isinstance(value, Schedule):
        return check_number(name, value, least)
    for at, number in value.points.items():
        check_number(f"{name} at {at:g}", number, least)
    return value


def _number(key):
    """A share that stands as a text in JSON."""
    try:
        return float(key) if isinstance(key, str) else key
    except ValueError:
        return key


def read_weights(name: str, weights: Mapping[str, object]) -> dict[str, float | Schedule]:
    """Read weights of things of which one is drawn: none is negative, and at every time one is above 0.

    Args:
        name (`str`): what they are weights of, for messages.
        weights (`dict`): weight of each, as `read_weight` takes it.
    Returns:
        `dict[str, float | Schedule]`.
    Raises:
        TypeError, ValueError: as `read_weight`, or if nothing could be drawn at some time.
    """
    weights = {key: read_weight(f"{name}.{key}", value, least=0.0) for key, value in weights.items()}
    for at in turning_points(weights.values()):
        if not any(value_at(weight, at) for weight in weights.values()):
            raise ValueError(f"{name} has no weight above 0 when {at:g} of the run is done; nothing could be drawn.")
    return weights


def turning_points(weights: Iterable[float | Schedule]) -> list[float]:
    """Shares of the run between which all weights are linear, and one in the middle of each two of them."""
    turns = sorted({0.0, 1.0}.union(*(weight.points for weight in weights if isinstance(weight, Schedule))))
    return [*turns, *(sum(pair) / 2 for pair in pairwise(turns))]


def value_at(weight: float | Schedule, done: float | np.ndarray) -> float | np.ndarray:
    """A weight when a share of the run is done; a number stays what it is."""
    return weight(done) if isinstance(weight, Schedule) else weight


def is_scheduled(weights: Mapping[str, float | Schedule]) -> bool:
    """Whether a weight follows the run."""
    return any(isinstance(weight, Schedule) for weight in weights.values())


def draw_weighted(
    weights: Mapping[str, float | Schedule], uniform: np.ndarray, done: float | np.ndarray = 0.0
) -> np.ndarray:
    """Draw by weights.

    Args:
        weights (`dict[str, float | Schedule]`): weight of each thing; some are above 0.
        uniform (array of shape `(n,)`): random numbers of [0, 1).
        done (`float` or array of shape `(n,)`, defaults to 0.0): share of the run that is done at each draw.
    Returns:
        array of shape `(n,)`, `int64`: places in `weights`.
    """
    values = [value_at(weight, done) for weight in weights.values()]
    below, total = 0.0, sum(values)
    chosen = np.zeros(len(uniform), dtype=np.int64)
    for value in values[:-1]:
        below = below + value
        chosen += uniform * total >= below
    return chosen
