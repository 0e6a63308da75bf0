"""The parts of a measurement on rooms: how the rooms of each look, and what is asked about them."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace

from gap_mllm.processing.data import SceneSample
from gap_mllm.processing.data.rooms.styles import RoomStyle
from gap_mllm.processing.data.task_makers.templates import PHRASINGS

from .geometry_answers import GEOMETRIES, OWN
from .room_sets import MARKED, TRAINING_ROOMS, RoomKind, RoomSet, ask_room
from .room_tasks import ROOM_TASKS


TASKS = "tasks"  # the group of all tasks; the others ask about marked pixels
SIDE_SHARE = 4  # sizes, views and styles are asked about one room of so many
MARKS_ASIDE = 4  # marked pixels of each of these
SIZES = ((96, 96), (128, 224), (256, 192), (480, 640), (640, 360), (512, 512), (288, 1024), (1024, 1024))
NUM_VIEWS = tuple(range(1, 9))
STYLES = {"walls": RoomStyle(open_share=0.0), "open": RoomStyle(open_share=1.0)}
WORDINGS = ("first", "all", "held_out")
GROUPS = (TASKS, "dense", "wordings", "views", "styles", "sizes")


@dataclass(frozen=True)
class RoomPart:
    """Rooms of one kind, and what is asked about them.

    Args:
        group (`str`), name (`str`): where its figures stand.
        kind (`RoomKind`), num_rooms (`int`): how rooms look, and how many are asked about.
        counts (`dict[str, int]`): questions of each maker.
        phrasings (`str`, defaults to "first"): wordings of `make_tasks`.
        tasks (`tuple[str, ...]`, defaults to the marked pixels): keys of `ROOM_TASKS`.
        geometries (`tuple[str, ...]`, defaults to the right one): geometries that the model is given.
    """

    group: str
    name: str
    kind: RoomKind
    num_rooms: int
    counts: dict
    phrasings: str = "first"
    tasks: tuple[str, ...] = ("points",)
    geometries: tuple[str, ...] = (OWN,)


def plan_parts(num_rooms: int, groups: Sequence[str] = GROUPS) -> list[RoomPart]:
    """The parts of a measurement of so many rooms, those of some groups; wordings that there are not are left out."""
    counts = {maker: count for task in ROOM_TASKS.values() for maker, count in task.counts.items()}
    aside, few, marks = {MARKED: MARKS_ASIDE}, -(-num_rooms // SIDE_SHARE), ROOM_TASKS["points"].counts
    parts = [RoomPart(TASKS, TASKS, RoomKind(), num_rooms, counts, "first", tuple(ROOM_TASKS), GEOMETRIES)]
    parts += [RoomPart("wordings", name, RoomKind(), num_rooms, marks, name) for name in WORDINGS if name in PHRASINGS]
    parts += [RoomPart("views", str(count), RoomKind(num_views=count), few, aside) for count in NUM_VIEWS]
    parts += [RoomPart("styles", name, RoomKind(style=style), few, aside) for name, style in STYLES.items()]
    parts += [RoomPart("sizes", f"{width}x{height}", RoomKind(height, width), few, aside) for height, width in SIZES]
    return [part for part in parts if part.group in groups]


@dataclass
class AskedPart:
    """The questions of a part, and what answers them blindly: rendered and fitted by a pool, waited for here.

    Args:
        part (`RoomPart`)
        baselines (`Future`): `BlindBaselines` of training rooms of the same kind.
        rooms (`list[Future]`), train_rooms (`list[Future]`): results of `ask_room`, of rooms to measure and, in the
            group of all tasks, to fit on.
    """

    part: RoomPart
    baselines: Future
    rooms: list[Future]
    train_rooms: list[Future]

    @classmethod
    def submit(
        cls, pool: Executor, part: RoomPart, room_set: RoomSet, num_baseline_rooms: int, fitted: dict[RoomKind, Future]
    ) -> "AskedPart":
        """Have a part rendered; `fitted` holds the baselines of kinds that were seen before, and gets new ones."""
        kind = replace(part.kind, num_views=max(4, part.kind.num_views))  # fewer views are the first of four
        if kind not in fitted:
            fitted[kind] = pool.submit(kind.fit_baselines, num_baseline_rooms)

        def ask(rooms: RoomSet, count: int):
            places = range(rooms.first, rooms.first + count)
            return [pool.submit(ask_room, rooms, part.kind, i, part.counts, part.phrasings) for i in places]

        num_train_rooms = num_baseline_rooms if part.group == TASKS else 0
        return cls(part, fitted[kind], ask(room_set, part.num_rooms), ask(TRAINING_ROOMS, num_train_rooms))

    def questions(self, task: str, of_training: bool = False) -> tuple[list[SceneSample], int]:
        """Questions of a task about all rooms, and how many could not be asked."""
        makers, samples, refused = ROOM_TASKS[task].counts, [], Counter()
        for room in self.train_rooms if of_training else self.rooms:
            asked, lacking = room.result()
            samples += [sample for sample in asked if sample.metadata["maker"] in makers]
            refused += lacking
        return samples, sum(refused[maker] for maker in makers)
