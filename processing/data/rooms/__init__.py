"""Furnished rooms rendered from a seed, numpy only: layout, furniture, surfaces, rays, pictures, questions.

`SyntheticRooms` in synthetic_rooms.py is their `datasets` builder, and needs that package.
"""

from .layout import SPLIT_SEEDS, make_layout, room_seed
from .redraw import first_askable
from .renderer import RoomScene, render_room, render_split
from .tasks import ROOM_TASKS, RoomQuestion, make_question


__all__ = [
    "ROOM_TASKS",
    "SPLIT_SEEDS",
    "RoomQuestion",
    "RoomScene",
    "first_askable",
    "make_layout",
    "make_question",
    "render_room",
    "render_split",
    "room_seed",
]
