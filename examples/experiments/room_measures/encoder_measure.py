"""A geometry encoder measured on rooms: points and poses, as ever, and in other sizes, numbers of views and styles."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from gap_mllm.evaluation.dense_points import evaluate_geometry_encoder
from gap_mllm.processing.data.source_files import read_json
from gap_mllm.processing.metrics_file import save_metrics
from gap_mllm.vggt_heads_gap_mllm import GapMllmVggtForReconstruction

from .room_parts import NUM_VIEWS, SIDE_SHARE, STYLES, TASKS
from .room_sets import RoomKind, RoomSet


NUM_ENCODER_ROOMS = 256
ENCODER_SIZES = ((96, 96), (128, 160), (160, 128), (96, 160), (192, 192), (192, 256))


def measure_encoder(
    encoder: GapMllmVggtForReconstruction,
    output: Path,
    room_set: RoomSet,
    num_rooms: int,
    groups: Sequence[str],
    num_baseline_rooms: int,
    seed: int = 0,
) -> dict:
    """Measure an encoder with its heads; arguments are those of `measure_rooms`, and `output` keeps parts/ to go on.

    Frame: camera of the first view, OpenCV axes. Units: metres, degrees.

    Args:
        encoder (`GapMllmVggtForReconstruction`): trained on metres.
        output (`Path`), room_set (`RoomSet`): folder, and rooms.
        num_rooms (`int`), num_baseline_rooms (`int`): rooms to measure and to fit blind baselines on; of each part
            aside one of four.
        groups (`list[str]`): "tasks" for the usual rooms, "views", "styles" and "sizes"; others say nothing here.
        seed (`int`, defaults to 0): seed of the intervals.
    Returns:
        `dict`: as `evaluate_geometry_encoder`, and by group and part the same of other rooms.
    """
    few = {"num_scenes": -(-num_rooms // SIDE_SHARE), "num_baseline_rooms": -(-num_baseline_rooms // SIDE_SHARE)}
    kinds = {("views", str(count)): RoomKind(num_views=count) for count in NUM_VIEWS}
    kinds |= {("styles", name): RoomKind(style=style) for name, style in STYLES.items()}
    kinds |= {("sizes", f"{width}x{height}"): RoomKind(height, width) for height, width in ENCODER_SIZES}
    kinds = {place: kind for place, kind in kinds.items() if place[0] in groups}
    fitted, metrics = {}, {}

    def measure(kind: RoomKind, num_scenes: int, num_baseline_rooms: int):
        seen = replace(kind, num_views=max(4, kind.num_views)), num_baseline_rooms
        if seen not in fitted:
            fitted[seen] = seen[0].fit_baselines(num_baseline_rooms)
        options = {"baselines": fitted[seen], "rooms": kind.rooms(room_set.split), "seed": seed}
        options |= {"first_scene": room_set.first_of_encoder, "show_progress": False}
        return evaluate_geometry_encoder(encoder, room_set.split, num_scenes, **options)

    bar = tqdm(total=len(kinds) + (TASKS in groups), desc="parts", disable=None)  # quiet in a pipe
    if TASKS in groups:
        metrics |= _kept(output / "parts" / "usual.json", lambda: measure(RoomKind(), num_rooms, num_baseline_rooms))
        bar.update()
    for (group, name), kind in kinds.items():
        found = _kept(output / "parts" / f"{group}-{name}.json", lambda kind=kind: measure(kind, **few))
        metrics.setdefault(group, {})[name] = found
        bar.update()
    return metrics


def _kept(path: Path, make: Callable[[], dict]) -> dict:
    """What a file holds, or what is made and then kept in it."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_metrics(make(), path)
    return read_json(path)
