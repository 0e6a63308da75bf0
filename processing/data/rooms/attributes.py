"""Words that are true of a room's furniture: its colour, how large it is, whether it stands at a wall."""

import numpy as np

from .renderer import RoomScene


AT_WALL_M, FREE_M = 0.12, 0.5  # a box this near to a wall stands against it; this far from all, away from them


def size_word(size: np.ndarray) -> str:
    """Return "tall", "low", "large", "small" or "" for a full size `(3,)`. Frame: of the box, +z up. Units: metres."""
    footprint = size[0] * size[1]
    if size[2] > 1.5:
        return "tall"
    if footprint > 1.2:
        return "large"
    if footprint < 0.12:
        return "small"
    return "low" if size[2] < 0.5 else ""


def wall_gap(box: np.ndarray, room_size: np.ndarray) -> float:
    """Return how far a box `(9,)` of a room is from its nearest wall, in metres. Frame: world of the room."""
    c, s = abs(np.cos(box[6])), abs(np.sin(box[6]))
    reach = np.array([c * box[3] + s * box[4], s * box[3] + c * box[4]]) / 2
    return float(min((box[:2] - reach).min(), (room_size[:2] - box[:2] - reach).min()))


def piece_attributes(scene: RoomScene) -> list[dict[str, str]]:
    """Return the attributes of every piece of furniture, as `Box.attributes` has them.

    Args:
        scene (`RoomScene`): the room.
    Returns:
        `list[dict[str, str]]`: "color" always; "size" and "place" where one is to be told.
    """
    found = []
    for box, color in zip(scene.boxes, scene.colors, strict=True):
        words, gap = {"color": color}, wall_gap(box, scene.room_size)
        if size := size_word(box[3:6]):
            words["size"] = size
        if gap < AT_WALL_M or gap > FREE_M:
            words["place"] = "against the wall" if gap < AT_WALL_M else "away from the walls"
        found.append(words)
    return found
