"""What asking costs beside rendering: `OMP_NUM_THREADS=1 python examples/benchmarks/ask_questions.py`.

Prints the processor time that task makers take for the questions of recipes, and for each task alone, as a share of
the time in which the same rooms are rendered; and the same for rooms without instance maps, which are asked as scans.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import yaml
from harness import benchmark_parser, compare, save, show

from gap_mllm.processing.data import RenderedRooms, RoomVariety, SceneSample, make_tasks
from gap_mllm.processing.data.rooms.room_scenes import ROOM_TASKS
from gap_mllm.training.recipes import find_recipe


SCAN_VARIETY = {"sizes": ((480, 640),), "size_shares": (1.0,), "num_views": (4,), "num_views_shares": (1.0,)}


def rooms_of(variety: dict, count: int) -> RenderedRooms:
    """Rooms of a recipe's variety."""
    return RenderedRooms("train", count, RoomVariety(**variety))


def without_instances(scene: SceneSample) -> SceneSample:
    """A room without instance maps, as scans have none."""
    return replace(scene, views=tuple(replace(view, instances=None) for view in scene.views))


def measure(rooms: RenderedRooms, asked: Sequence[dict[str, int]], runs: int, as_scans: bool = False) -> dict:
    """Seconds of rendering a room, and of the questions about one by their counts; the first is rendering."""
    scenes = list(rooms)
    if as_scans:
        scenes = [without_instances(scene) for scene in scenes]
    variants = {"rendering": lambda: list(rooms)}
    for counts in asked:
        variants[str(counts)] = lambda counts=counts: [make_tasks(scene, counts, share_views=True) for scene in scenes]
    return compare(variants, runs, lambda: time.process_time() / len(scenes))


def main():
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rooms", type=int, default=40)
    parser.add_argument("--scans", type=int, default=6)
    args = parser.parse_args()
    found = {}
    for name in ("quickstart", "tiny_gap_mllm"):
        recipe = yaml.safe_load(find_recipe(name).read_text())
        mix = {task: math.ceil(count) for task, count in recipe["questions"]["counts"].items()}
        asked = [mix, {"reconstruction": 4}, *({task: 1} for task in ROOM_TASKS)]
        found[name] = measure(rooms_of(recipe["variety"], args.rooms), asked, args.runs)
    scans, asked = rooms_of(SCAN_VARIETY, args.scans), [{"detection3d": 1}, {"reconstruction": 4}]
    found["scans of 4 views of 640 x 480"] = measure(scans, asked, args.runs, as_scans=True)
    for what, figures in found.items():
        show(what, figures, "ms a room", 1000)
    save(args.output, found)


if __name__ == "__main__":
    main()
