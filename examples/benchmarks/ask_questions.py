"""What asking costs beside rendering: `OMP_NUM_THREADS=1 python evaluation/speed/ask_questions.py`.

Prints the processor time that task makers take for the questions of recipes, and for each task alone, as a share of
the time in which the same rooms are rendered; and the same for rooms without instance maps, which are asked as scans.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import replace

import yaml

from gap_mllm.processing.data import RenderedRooms, RoomVariety, SceneSample, make_tasks
from gap_mllm.processing.data.rooms.room_scenes import ROOM_TASKS
from gap_mllm.training.recipes import find_recipe


SCAN_VARIETY = {"sizes": ((480, 640),), "size_shares": (1.0,), "num_views": (4,), "num_views_shares": (1.0,)}


def seconds(run: Callable, num_runs: int = 1) -> float:
    """Least processor time of several runs."""
    times = []
    for _ in range(num_runs):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def render(variety: dict, count: int) -> tuple[list[SceneSample], float]:
    """Rooms of a recipe's variety, and the seconds that each took."""
    rooms, found = RenderedRooms("train", count, RoomVariety(**variety)), []
    rooms.draw(0)  # fills the noise tables
    took = seconds(lambda: found.extend(rooms))
    return found, took / count


def ask_share(scenes: list[SceneSample], rendering: float, counts: dict[str, int], num_runs: int) -> str:
    """Seconds of asking, in words, beside those of rendering."""
    took = seconds(lambda: [make_tasks(scene, counts, share_views=True) for scene in scenes], num_runs) / len(scenes)
    return f"{100 * took / rendering:5.1f} % of rendering ({1000 * took:.2f} ms)"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rooms", type=int, default=40)
    parser.add_argument("--scans", type=int, default=6)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    for name in ("quickstart", "tiny_gap_mllm"):
        recipe = yaml.safe_load(find_recipe(name).read_text())
        scenes, rendering = render(recipe["variety"], args.rooms)
        mix = {task: math.ceil(count) for task, count in recipe["questions"]["counts"].items()}
        for counts in (mix, {"reconstruction": 4}, *({task: 1} for task in ROOM_TASKS)):
            print(f"{name}: {counts} {ask_share(scenes, rendering, counts, args.runs)}")
    scenes, rendering = render(SCAN_VARIETY, args.scans)
    scans = [replace(scene, views=tuple(replace(view, instances=None) for view in scene.views)) for scene in scenes]
    for counts in ({"detection3d": 1}, {"reconstruction": 4}):
        print(f"scans of 4 views of 640 x 480: {counts} {ask_share(scans, rendering, counts, args.runs)}")


if __name__ == "__main__":
    main()
