"""Walks the rooms of the package's recipes: can every one be asked about, and are all targets finite?

    OMP_NUM_THREADS=1 python tests/training/walk_rooms.py --rooms 200000 --output walk.json

Rooms are drawn and questions asked by the code that training uses; only the colours of pictures are left out, which
decide nothing, and only first visits are made: later ones ask about the same views. Without colours the generator of
a room stands elsewhere when it is drawn which rooms ask "grounding_frame", so these are other rooms than in training,
as many.

Recipes take turns, a chunk each. The output is written after every chunk, and a walk that was stopped goes on from it.
Reached so far, with the seeds of the recipes:

    recipe                 rooms   stood in for   failures   processor s
    quickstart             4,500             3          0           54
    tiny_gap_mllm          4,500           893          0          114
    tiny_geometry_encoder  6,000             0          0           95

Of those of tiny_gap_mllm most were for questions about three objects (585 draws) and about which is nearer to a camera
(382). Before questions came from the task makers and rooms had styles 128,000 and 125,000
rooms of the two recipes were walked, the first 13,000 and every hundredth of the others asked in full: 0 and 15 show
no furniture in their views, none broke.
"""

import argparse
import json
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.processing.data.rooms import first_askable, room_seed
from gap_mllm.training.recipes import find_recipe
from gap_mllm.training.rooms import RoomGeometryDataset, RoomQuestionDataset, RoomQuestions


QUESTION_RECIPES = ("quickstart", "tiny_gap_mllm")
ENCODER_RECIPE = "tiny_geometry_encoder"


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


def walk(dataset, rooms):
    """Ask about rooms.

    Args:
        dataset (`RoomQuestionDataset` or `RoomGeometryDataset`): of `make_dataset`.
        rooms (iterable of `int`): their numbers.
    Returns:
        `dict`: "rooms", how many; "redrawn", how often another room was drawn, by reason; "stood_in_for", the numbers
        of these rooms; "failures", number and error of rooms that broke; "cpu_seconds".
    """
    redrawn, stood_in_for, failures, start = Counter(), [], [], time.process_time()
    for room in rooms:
        try:
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
    return {**report, "cpu_seconds": round(time.process_time() - start, 1)}


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
    parser.add_argument("--encoder-rooms", type=int, default=20_000, help=f"of {ENCODER_RECIPE}")
    parser.add_argument("--chunk", type=int, default=2_000, help="rooms between two writes")
    parser.add_argument("--output", type=Path, default=Path("walk.json"))
    args = parser.parse_args()
    goals = {**dict.fromkeys(QUESTION_RECIPES, args.rooms), ENCODER_RECIPE: args.encoder_rooms}
    reports = json.loads(args.output.read_text()) if args.output.is_file() else {}
    datasets = {recipe: make_dataset(recipe, goal) for recipe, goal in goals.items()}
    while behind := [name for name, goal in goals.items() if reports.get(name, {"rooms": 0})["rooms"] < goal]:
        for recipe in behind:
            done = reports[recipe]["rooms"] if recipe in reports else 0
            report = walk(datasets[recipe], range(done, min(done + args.chunk, goals[recipe])))
            reports[recipe] = add_up(reports[recipe], report) if recipe in reports else report
            written = args.output.with_suffix(".part")
            written.write_text(json.dumps(reports, indent=1) + "\n")
            written.replace(args.output)
    for recipe, report in reports.items():
        print(f"{recipe}: {report['rooms']} rooms, {report['cpu_seconds']} s;")
        print(f"    drawn anew {report['redrawn']}, failures {report['failures'][:5]}")
    return 1 if any(report["failures"] for report in reports.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
