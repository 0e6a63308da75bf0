# pyright: basic
"""Multi-view 3D data: rooms rendered from a seed (numpy only), and `datasets` builders of public data in one schema.

`load_multiview` reads them all. What needs the packages `datasets` or `ijson` is imported when first asked for, so
that rendering works without them.
"""

from typing import TYPE_CHECKING

from .cannot_ask import CannotAskError
from .rooms import (
    SPLIT_SEEDS,
    RoomScene,
    first_askable,
    make_layout,
    render_room,
    room_seed,
)


if TYPE_CHECKING:  # for editors and pyright; a test holds both lists together
    from .augmentation import AugmentationConfig, AugmentationRefused, SceneAugmentation, coarse_correspondences
    from .loading import load_multiview
    from .record_errors import RecordError, read_report
    from .rooms.rendered_rooms import RenderedRooms
    from .rooms.room_scenes import ROOM_TASKS, make_question
    from .rooms.styles import RoomStyle
    from .rooms.synthetic_rooms import SyntheticRooms, SyntheticRoomsConfig
    from .rooms.variety import RoomVariety
    from .scene_sample import SceneSample
    from .schema import complete_row, scene_features
    from .sources import SOURCES
    from .task_makers import make_tasks
    from .video_frames import read_video_views
    from .video_labels import label_video

_NEED_DATASETS = {
    "SOURCES": "sources",
    "AugmentationConfig": "augmentation",
    "AugmentationRefused": "augmentation",
    "ROOM_TASKS": "rooms.room_scenes",
    "RecordError": "record_errors",
    "RenderedRooms": "rooms.rendered_rooms",
    "RoomStyle": "rooms.styles",
    "RoomVariety": "rooms.variety",
    "SceneAugmentation": "augmentation",
    "SceneSample": "scene_sample",
    "SyntheticRooms": "rooms.synthetic_rooms",
    "SyntheticRoomsConfig": "rooms.synthetic_rooms",
    "coarse_correspondences": "augmentation",
    "complete_row": "schema",
    "label_video": "video_labels",
    "load_multiview": "loading",
    "make_question": "rooms.room_scenes",
    "make_tasks": "task_makers",
    "read_report": "record_errors",
    "read_video_views": "video_frames",
    "scene_features": "schema",
}

__all__ = [
    "ROOM_TASKS",
    "SOURCES",
    "SPLIT_SEEDS",
    "AugmentationConfig",
    "AugmentationRefused",
    "CannotAskError",
    "RecordError",
    "RenderedRooms",
    "RoomScene",
    "RoomStyle",
    "RoomVariety",
    "SceneAugmentation",
    "SceneSample",
    "SyntheticRooms",
    "SyntheticRoomsConfig",
    "coarse_correspondences",
    "complete_row",
    "first_askable",
    "label_video",
    "load_multiview",
    "make_layout",
    "make_question",
    "make_tasks",
    "read_report",
    "read_video_views",
    "render_room",
    "room_seed",
    "scene_features",
]


def __getattr__(name):
    if name not in _NEED_DATASETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_NEED_DATASETS[name]}"), name)
