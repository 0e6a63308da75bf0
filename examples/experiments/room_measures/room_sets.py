"""Rooms that a model is measured on, by name, the questions about each, and how rooms of another kind are rendered."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from gap_mllm.evaluation.baselines import BlindBaselines, fit_baselines
from gap_mllm.processing.argument_checks import check_names
from gap_mllm.processing.data import SceneSample, make_tasks
from gap_mllm.processing.data.rooms.rendered_rooms import RenderedRooms
from gap_mllm.processing.data.rooms.styles import RoomStyle
from gap_mllm.processing.data.rooms.variety import RoomVariety
from gap_mllm.processing.data.task_makers.pixels import draft_of_mark
from gap_mllm.processing.data.task_makers.task_scene import Marked, TaskScene


MARKS_FILE = Path(__file__).with_name("frozen_marks.json")  # room, view, x, y of each frozen mark
MARKED = "reconstruction"
BASELINE_SIDE = 96  # pixels of the shorter side where baselines are fitted on rooms of another aspect


@dataclass(frozen=True)
class RoomSet:
    """Rooms of a split that figures are made on.

    Args:
        split (`str`), first (`int`), num_rooms (`int`): the split, number of the first room in it, and how many.
        first_of_encoder (`int`): number of the first room for a geometry encoder, which is measured on 256.
        is_frozen (`bool`, defaults to False): whether the marked pixels are those of frozen_marks.json, two a room,
            which stay the same whatever the package draws.
    """

    split: str
    first: int
    num_rooms: int
    first_of_encoder: int
    is_frozen: bool = False


ROOM_SETS = {
    "selection": RoomSet("selection", 2000, 128, 2000),
    "test": RoomSet("test", 1000, 128, 0, is_frozen=True),
    "unseen": RoomSet("test", 20000, 256, 20000),
}
TRAINING_ROOMS = RoomSet("train", 0, 256, 0)  # that blind baselines are fitted on


@dataclass(frozen=True)
class RoomKind:
    """How rooms of a part of the measurement are rendered.

    Args:
        height (`int`, defaults to 128), width (`int`, defaults to 128): size of the views, in pixels.
        num_views (`int`, defaults to 4): views of a room.
        style (`RoomStyle`, *optional*): style of all rooms.
    """

    height: int = 128
    width: int = 128
    num_views: int = 4
    style: RoomStyle | None = None

    def rooms(self, split: str) -> RenderedRooms:
        """All rooms of a split in this kind, as they are: no colours are changed, no views shuffled or marked."""
        one = {"size_shares": (1.0,), "num_views": (self.num_views,), "num_views_shares": (1.0,), "mark_share": 0.0}
        one |= {"style": self.style, "style_share": float(self.style is not None), "color_strength": 0.0}
        variety = RoomVariety(sizes=((self.height, self.width),), shuffle_views=False, **one)
        return RenderedRooms(split, 100_000, variety)

    def fit_baselines(self, num_rooms: int = 256) -> BlindBaselines:
        """Blind baselines of the first training rooms in this kind, small pictures of the same aspect."""
        scale = min(1.0, BASELINE_SIDE / min(self.height, self.width))
        if (self.height, self.width) == (128, 128):
            scale = 1.0  # as evaluation fits them everywhere
        small = replace(self, height=round(scale * self.height), width=round(scale * self.width))
        rooms = small.rooms("train")
        return fit_baselines(rooms.render(index)[0] for index in range(num_rooms))


@cache
def frozen_marks() -> dict[int, list[tuple[int, int, int]]]:
    """View, x and y of the marks of each room of the set "test"."""
    marks = {}
    for room, *mark in json.loads(MARKS_FILE.read_text(encoding="utf-8")):
        marks.setdefault(room, []).append(tuple(mark))
    return marks


def ask_room(
    room_set: RoomSet, kind: RoomKind, index: int, counts: dict[str, int], phrasings: str = "first"
) -> tuple[list[SceneSample], Counter]:
    """Render a room and ask about it, with red crosses.

    Args:
        room_set (`RoomSet`), kind (`RoomKind`): which rooms, and how they look.
        index (`int`): number of the room in the split.
        counts (`dict[str, int]`): questions of each maker of `TASK_MAKERS`.
        phrasings (`str`, defaults to "first"): wordings, as `make_tasks` takes them.
    Returns:
        `tuple[list[SceneSample], Counter]`: questions whose views hold pictures only, and how often a maker had
        nothing to ask about this room.
    """
    scene, frozen = kind.rooms(room_set.split)[index], []
    if room_set.is_frozen and MARKED in counts and kind == RoomKind():
        counts = {maker: count for maker, count in counts.items() if maker != MARKED}
        frozen = _ask_frozen(scene, frozen_marks()[index], phrasings)
    made = make_tasks(scene, counts, phrasings=phrasings, mark_colors=("red",))
    seen = tuple(replace(view, depth_picture=None, instances=None) for view in scene.views)
    asked = [replace(sample, views=seen, scene_boxes=()) for sample in (*frozen, *made)]
    return asked, Counter(maker for (maker, _), times in made.refused.items() for _ in range(times))


def _ask_frozen(scene, marks, phrasings):
    asked, seen = [], TaskScene(scene, mark_colors=("red",))
    for number, (view, *pixel) in enumerate(marks):
        camera = seen.cameras[view]
        (point,) = camera.points_at(np.array([pixel], dtype=float))
        mark = Marked(view, tuple(pixel), point, "red", label=camera.label_at(np.array(pixel)))
        question = seen.pose(draft_of_mark(seen, mark), np.random.default_rng(number), phrasings)
        named = {"id": f"{scene.id}/frozen-{number}", "metadata": {**question.metadata, "maker": MARKED}}
        asked.append(replace(question, **named))
    return asked


def find_room_set(name: str) -> RoomSet:
    """A set of rooms by its name; raises ValueError where there is none."""
    check_names("rooms", [name], ROOM_SETS)
    return ROOM_SETS[name]
