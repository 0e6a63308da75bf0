"""Walks the rooms of the package's recipes: can every one be asked about, and are all targets finite?

    OMP_NUM_THREADS=1 python tests/training/walk_rooms.py --rooms 200000 --full-every 100 --output walk.json

Rooms are drawn and questions asked by the code that training uses; only the colours of pictures are left out, which
decide nothing, and only first visits are made: later ones ask about the same views. Without colours the generator of
a room stands elsewhere when it is drawn which rooms ask "grounding_frame", so these are other rooms than in training,
as many; they need what the other tasks of the recipe need.

With `--full-every n` only each n-th room is asked, and those in whose first view not every 64th pixel or so shows
furniture: where some do, the code of training says that every question can be asked. Recipes take turns, a chunk each.
The output is written after every chunk, and a walk that was stopped goes on from it.

Reached on two busy cores, with the seeds of the recipes (the first 13,000 rooms all asked, then as above):

    recipe                   rooms    asked   drawn anew   failures   seconds of processor time
    quickstart             128,000   16,276            0          0                        1090
    tiny_gap_mllm          125,000   14,747           15          0                         883
    tiny_geometry_encoder   10,000   10,000            -          0                         276

All 15 show no furniture in their views, and the first room drawn in their place does.
"""

import argparse
import json
import time
from collections import Counter
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import yaml

from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.processing.data.rooms import first_askable, make_layout, room_seed
from gap_mllm.processing.data.rooms.appearance import FIRST_PART
from gap_mllm.processing.data.rooms.rays import cast_rays, collect_parts, ray_directions
from gap_mllm.training.recipes import find_recipe
from gap_mllm.training.rooms import RoomGeometryDataset, RoomQuestionDataset, RoomQuestions


QUESTION_RECIPES = ("quickstart", "tiny_gap_mllm")
ENCODER_RECIPE = "tiny_geometry_encoder"
STEP = 8  # rows and columns from one pixel that is looked at to the next
ENOUGH = 2  # such pixels on furniture: no rounding at one edge makes so many


def make_dataset(recipe, num_rooms, seed=None):
    """The training rooms of a recipe, each visited once, without colours."""
    values = yaml.safe_load(find_recipe(recipe).read_text(encoding="utf-8"))
    options = {"block_size": values["per_device_train_batch_size"], "use_colors": False}
    options["seed"] = values["seed"] if seed is None else seed
    if recipe == ENCODER_RECIPE:
        variety = replace(RoomVariety(), color_strength=0.0)
        return RoomGeometryDataset(RenderedRooms("train", num_rooms, variety, **options))
    questions = RoomQuestions(**{**values["questions"], "visits": 1})
    variety = RoomVariety(**{**values["variety"], "color_strength": 0.0})
    return RoomQuestionDataset(RenderedRooms("train", num_rooms, variety, **options), questions)


make_layout = lru_cache(maxsize=4096)(make_layout)  # recipes take turns at the same rooms


def shows_furniture(dataset, room):
    """Do several of a grid of pixels of a room's first view show furniture? Their rays are those of the renderer."""
    if dataset.rooms.variety.shuffle_views:
        return False
    height, width, _ = dataset.rooms.shape_of(room)
    layout, side = make_layout(room_seed("train", room)), 128  # its picture's; others have the same angle across
    k = layout.intrinsics[0]
    shift = (k[:2, 2] - (side - 1) / 2) / side * (width, height)
    coarse = np.eye(3)
    coarse[0, 0] = coarse[1, 1] = k[0, 0] * width / side / STEP
    coarse[:2, 2] = ((np.array([width, height]) - 1) / 2 + shift - STEP // 2) / STEP
    view = replace(layout, intrinsics=coarse[None], camera_to_world=layout.camera_to_world[:1])
    _, primitive = cast_rays(view, collect_parts(view), ray_directions(view, height // STEP, width // STEP))
    return int((primitive >= FIRST_PART).sum()) >= ENOUGH


def walk(dataset, rooms, full_every=1):
    """Ask about rooms.

    Args:
        dataset (`RoomQuestionDataset` or `RoomGeometryDataset`): of `make_dataset`.
        rooms (iterable of `int`): their numbers.
        full_every (`int`, defaults to 1): of so many rooms with furniture in plain view one is asked.
    Returns:
        `dict`: "rooms", how many; "in_full", how many of them were asked; "redrawn", how often another room was drawn,
        by reason; "stood_in_for", the numbers of these rooms; "failures", number and error of rooms that broke;
        "cpu_seconds".
    """
    redrawn, stood_in_for, failures, in_full, start = Counter(), [], [], 0, time.process_time()
    for room in rooms:
        try:
            if room % full_every and shows_furniture(dataset, room):
                continue
            in_full += 1
            if isinstance(dataset, RoomQuestionDataset):
                count = partial(_count, redrawn)
                asked = first_askable(partial(dataset.ask, room), count)
                if asked[0].scene_id != f"room_{room_seed('train', room):07d}":
                    stood_in_for.append(room)
                numbers = [view.depth_m for view in asked[0].views]
                numbers += [item.numbers for question in asked for item in question.truth.items]
            else:
                item = dataset[room]
                numbers = [item[name].numpy() for name in ("depth", "points", "pose_enc")]
            if not all(np.isfinite(values).all() for values in numbers):
                failures.append([room, "a target is not finite"])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what this walk looks for
            failures.append([room, f"{type(error).__name__}: {error}"])
    report = {"rooms": len(rooms), "redrawn": dict(redrawn), "stood_in_for": stood_in_for, "failures": failures}
    return {**report, "in_full": in_full, "cpu_seconds": round(time.process_time() - start, 1)}


def _count(redrawn, error):
    redrawn[error.reason] += 1


def add_up(first, second):
    """Sum of two reports of `walk`."""
    redrawn = dict(Counter(first["redrawn"]) + Counter(second["redrawn"]))
    joined = {name: first[name] + second[name] for name in first if name != "redrawn"}
    return {**joined, "cpu_seconds": round(joined["cpu_seconds"], 1), "redrawn": redrawn}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", type=int, default=200_000, help="of each recipe that asks questions")
    parser.add_argument("--encoder-rooms", type=int, default=20_000, help=f"of {ENCODER_RECIPE}, all in full")
    parser.add_argument("--full-every", type=int, default=1, help="of so many rooms with furniture in plain view")
    parser.add_argument("--chunk", type=int, default=2_000, help="rooms between two writes")
    parser.add_argument("--output", type=Path, default=Path("walk.json"))
    args = parser.parse_args()
    goals = {**dict.fromkeys(QUESTION_RECIPES, args.rooms), ENCODER_RECIPE: args.encoder_rooms}
    reports = json.loads(args.output.read_text()) if args.output.is_file() else {}
    datasets = {recipe: make_dataset(recipe, goal) for recipe, goal in goals.items()}
    while behind := [name for name, goal in goals.items() if reports.get(name, {"rooms": 0})["rooms"] < goal]:
        for recipe in behind:
            done = reports[recipe]["rooms"] if recipe in reports else 0
            report = walk(datasets[recipe], range(done, min(done + args.chunk, goals[recipe])), args.full_every)
            reports[recipe] = add_up(reports[recipe], report) if recipe in reports else report
            written = args.output.with_suffix(".part")
            written.write_text(json.dumps(reports, indent=1) + "\n")
            written.replace(args.output)
    for recipe, report in reports.items():
        print(f"{recipe}: {report['rooms']} rooms, {report['in_full']} asked, {report['cpu_seconds']} s;")
        print(f"    drawn anew {report['redrawn']}, failures {report['failures'][:5]}")
    return 1 if any(report["failures"] for report in reports.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
