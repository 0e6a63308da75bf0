"""Multi-view 3D data: rooms rendered from a seed (numpy only), and `datasets` builders of public data in one schema.

`load_multiview` reads them all. What needs the packages `datasets` or `ijson` is imported when first asked for, so
that rendering works without them.
"""

# ruff: noqa: F822 (names that are imported when first asked for)

from .room_layout import SPLIT_SEEDS, make_layout, room_seed
from .room_renderer import RoomScene, render_room
from .room_tasks import ROOM_TASKS, RoomQuestion, make_question


_NEED_DATASETS = {
    "AugmentationConfig": "augmentation",
    "AugmentationRefused": "augmentation",
    "SceneAugmentation": "augmentation",
    "coarse_correspondences": "augmentation",
    "label_video": "video_labels",
    "make_tasks": "task_makers",
    "read_video_views": "video_frames",
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
    "AugmentationConfig",
    "AugmentationRefused",
    "SceneAugmentation",
    "coarse_correspondences",
    "label_video",
    "make_tasks",
    "read_video_views",
    "ROOM_TASKS",
    "SOURCES",
    "SPLIT_SEEDS",
    "RecordError",
    "RoomQuestion",
    "RoomScene",
    "SceneSample",
    "SyntheticRooms",
    "SyntheticRoomsConfig",
    "complete_row",
    "load_multiview",
    "make_layout",
    "make_question",
    "read_report",
    "render_room",
    "room_seed",
    "scene_features",
]


def __getattr__(name):
    if name not in _NEED_DATASETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_NEED_DATASETS[name]}"), name)
