"""Multi-view 3D data: rooms rendered from a seed (numpy only), and `datasets` builders of public data in one schema.

`load_multiview` reads them all. What needs the packages `datasets` or `ijson` is imported when first asked for, so
that rendering works without them.
"""

from .room_layout import SPLIT_SEEDS, make_layout, room_seed
from .room_renderer import RoomScene, render_room
from .room_tasks import ROOM_TASKS, RoomQuestion, make_question


_NEED_DATASETS = {
    "SOURCES": "sources",
    "RecordError": "record_errors",
    "SceneSample": "scene_sample",
    "SyntheticRooms": "synthetic_rooms",
    "SyntheticRoomsConfig": "synthetic_rooms",
    "complete_row": "schema",
    "load_multiview": "loading",
    "read_report": "record_errors",
    "scene_features": "schema",
}

__all__ = [
    "ROOM_TASKS",
    "SOURCES",  # noqa: F822
    "SPLIT_SEEDS",
    "RecordError",  # noqa: F822
    "RoomQuestion",
    "RoomScene",
    "SceneSample",  # noqa: F822
    "SyntheticRooms",  # noqa: F822
    "SyntheticRoomsConfig",  # noqa: F822
    "complete_row",  # noqa: F822
    "load_multiview",  # noqa: F822
    "make_layout",
    "make_question",
    "read_report",  # noqa: F822
    "render_room",
    "room_seed",
    "scene_features",  # noqa: F822
]


def __getattr__(name):
    if name not in _NEED_DATASETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_NEED_DATASETS[name]}"), name)
