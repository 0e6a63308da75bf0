"""Furnished rooms rendered from a seed, numpy only: layout, furniture, surfaces, rays, pictures.

As samples they are in room_scenes.py, as a source that renders what is asked for in rendered_rooms.py, as a `datasets`
builder in synthetic_rooms.py; these need that package.
"""

from .layout import SPLIT_SEEDS, make_layout, room_seed
from .redraw import first_askable
from .renderer import RoomScene, render_room, render_split
from .styles import RoomStyle, Walk


__all__ = [
    "SPLIT_SEEDS",
    "RoomScene",
    "RoomStyle",
    "Walk",
    "first_askable",
    "make_layout",
    "render_room",
    "render_split",
    "room_seed",
]
