"""How rendered rooms may leave the usual: fields of view, camera paths, shapes, textures, light, no walls at all."""

from dataclasses import dataclass, field
from typing import NamedTuple


class Walk(NamedTuple):
    """Ranges of a hand-held camera path. Units: metres, degrees.

    Args:
        step_metres (`tuple[float, float]`), step_degrees (`tuple[float, float]`): movement and turn from view to view.
        height (`tuple[float, float]`): height of the camera above the floor.
        pitch (`tuple[float, float]`): downward tilt of the first view.
        roll (`float`, defaults to 2.0): most turn about the viewing direction, to either side.

    Example:
        ```python
        >>> from gap_mllm.processing.data import RoomStyle
        >>> from gap_mllm.processing.data.rooms import Walk
        >>> RoomStyle(walk=Walk(step_metres=(0.3, 1.0))).walk.step_degrees
        (8.0, 22.0)

        ```
    """

    step_metres: tuple = (0.1, 0.5)
    step_degrees: tuple = (8.0, 22.0)
    height: tuple = (1.2, 1.7)
    pitch: tuple = (3.0, 22.0)
    roll: float = 2.0


USUAL_WALK = Walk()


@dataclass(frozen=True)
class RoomStyle:
    """Ranges that a room is drawn from in the place of the usual ones; the seed of the room decides within them.

    Units: metres, degrees.

    Args:
        fields_of_view (`tuple[float, float]`, defaults to `(45.0, 100.0)`): horizontal ones.
        walk (`Walk`): the camera path; wider than usual by default.
        num_shapes (`tuple[int, int]`, defaults to `(0, 5)`): boxes, cylinders and balls between the furniture;
            6 to 14 or more where there is none.
        open_share (`float`, defaults to 0.25): share of rooms that have shapes only, and no walls: depth ends at
            `layout.OPEN_RANGE`.
        texture_share (`float`, defaults to 0.4): share of surfaces with any pattern in any two colours.
        light_share (`float`, defaults to 0.5): share of rooms with another light: dim, bright, coloured, low, noisy.
    Raises:
        ValueError: for a share outside of 0 to 1, or a range that ends before it starts or is not sensible.

    Example:
        ```python
        >>> from gap_mllm.processing.data import RoomStyle, render_room
        >>> room = render_room(0, style=RoomStyle(fields_of_view=(90.0, 90.0)))
        >>> round(float(room.intrinsics[0, 0, 0]), 3)  # half of the 128 pixels, over the tangent of 45 degrees
        64.0

        ```
    """

    fields_of_view: tuple = (45.0, 100.0)
    walk: Walk = field(default_factory=lambda: Walk((0.1, 0.9), (4.0, 35.0), (0.7, 2.1), (-5.0, 35.0), 8.0))
    num_shapes: tuple = (0, 5)
    open_share: float = 0.25
    texture_share: float = 0.4
    light_share: float = 0.5

    def __post_init__(self):
        for name in ("open_share", "texture_share", "light_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 to 1.")
        if isinstance(self.walk, dict):
            object.__setattr__(self, "walk", Walk(**self.walk))
        ranges = {"fields_of_view": (self.fields_of_view, 10.0, 150.0), "num_shapes": (self.num_shapes, 0, 50)}
        limits = {"step_metres": (0.0, 3.0), "step_degrees": (1.0, 90.0), "height": (0.4, 2.3), "pitch": (-60.0, 60.0)}
        ranges |= {f"walk.{name}": (getattr(self.walk, name), *limit) for name, limit in limits.items()}
        for name, (given, low, high) in ranges.items():
            if len(given) != 2 or not low <= given[0] <= given[1] <= high:
                raise ValueError(f"{name} is {given}; expected two numbers in order, from {low:g} to {high:g}.")
