"""Multi-view 3D data: rooms rendered from a seed (numpy only), and `datasets` builders in one schema.

`SyntheticRooms`, `SyntheticRoomsConfig` and `scene_features` need the package `datasets` and are imported when first
asked for, so that rendering works without it.
"""

from gap_mllm.processing.data.room_layout import SPLIT_SEEDS, make_layout, room_seed
from gap_mllm.processing.data.room_renderer import RoomScene, render_room
from gap_mllm.processing.data.room_tasks import ROOM_TASKS, RoomQuestion, make_question


_NEED_DATASETS = {
    "SyntheticRooms": "synthetic_rooms",
    "SyntheticRoomsConfig": "synthetic_rooms",
    "scene_features": "schema",
}

__all__ = [
    "ROOM_TASKS",
    "SPLIT_SEEDS",
    "RoomQuestion",
    "RoomScene",
    "SyntheticRooms",  # noqa: F822
    "SyntheticRoomsConfig",  # noqa: F822
    "make_layout",
    "make_question",
    "render_room",
    "room_seed",
    "scene_features",  # noqa: F822
]


def __getattr__(name):
    if name not in _NEED_DATASETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_NEED_DATASETS[name]}"), name)
