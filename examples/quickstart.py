"""GAP-MLLM in five minutes on two CPU cores: ask the tiny model that ships here, and train two of your own.

    python examples/quickstart.py                      # everything, into outputs/quickstart
    python examples/quickstart.py --frames my_photos   # and ask about a folder of photographs as well

Part 1 loads the shipped model as a stranger would and asks about rooms that it has never seen. Part 2 trains a new
one for 90 seconds without geometry and for 90 with it, and publishes the second. The same command again goes on with a
training that was stopped, and does not repeat one that is finished; `make clean`, or another --output, starts anew.
"""

import argparse
import math
import os
import shutil
import sys
import time
from pathlib import Path


os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded

HERE = Path(__file__).parent
ASSETS = HERE / "assets"
sys.path += [str(HERE / "quickstart_parts"), str(HERE / "experiments")]  # whose ablations it trains by
FIRST_TEST_ROOM = 5000  # those before it were looked at while recipes were made
COMMAND = "python examples/quickstart.py"


def main():
    args = parse_arguments()
    started = time.perf_counter()
    import torch
    from transformers.utils import logging

    torch.set_num_threads(args.threads)
    if not sys.stdout.isatty():
        logging.disable_progress_bar()
    from time_trial import TrialRooms, run_time_trial

    from gap_mllm.evaluation import save_metrics

    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    print(
        "1. The shipped tiny model, loaded as a stranger would load it, and rooms that it has never seen", flush=True
    )
    told = {"command": " ".join([COMMAND, *sys.argv[1:]])}
    told["shipped"] = ask_shipped_model(args.frames, args.shipped_rooms, output)
    told["shipped"]["seconds"] = round(time.perf_counter() - started, 1)
    print(f"   Look into {output / 'answers.png'} ({told['shipped']['seconds']:.0f} s).\n", flush=True)

    print(f"2. A new model trained for {args.seconds:g} s without geometry, and one for {args.seconds:g} s with it")
    trial = run_time_trial(
        output / "training", ASSETS / "tiny_geometry_encoder", args.seconds, TrialRooms(args.test_rooms)
    )
    publish_and_reload(Path(trial["arms"]["with_geometry"]["folder"]), output / "model")
    shutil.copyfile(output / "training" / "curves_by_seconds.png", output / "curves.png")
    told |= trial | {"seconds": round(time.perf_counter() - started, 1)}
    save_metrics(told, output / "metrics.json")
    report(told, output)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="outputs/quickstart", help="folder for results")
    parser.add_argument("--frames", help="folder of photographs of one place, to ask about as well")
    parser.add_argument("--seconds", type=float, default=90.0, help="seconds of training of each new model")
    parser.add_argument("--shipped-rooms", type=int, default=32, help="rooms that the shipped model is scored on")
    parser.add_argument("--test-rooms", type=int, default=96, help="rooms that new models are scored on, 2 or more")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of training, beside a process for rooms")
    args = parser.parse_args()
    for name, least in (("seconds", 1), ("shipped_rooms", 2), ("test_rooms", 2), ("threads", 1)):
        if not least <= getattr(args, name) < math.inf:
            parser.error(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected {least} or more")
    if args.frames and not Path(args.frames).is_dir():
        parser.error(f"--frames is {args.frames}, which is not a folder")
    return args


def ask_shipped_model(frames, num_rooms, output):
    """Draw some answers about unseen rooms and about photographs, and score marked pixels of more rooms."""
    from photographs import answer_photographs, open_photographs
    from room_answers import answer_rooms
    from transformers import AutoModel, AutoProcessor

    from gap_mllm.evaluation import (
        answer_marked_pixels,
        draw_answers,
        fit_baselines,
        make_marked_pixel_samples,
        render_split,
        score_marked_pixels,
    )

    folder = ASSETS / "tiny_gap_mllm"
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    rooms = list(render_split("test", max(num_rooms, 12), FIRST_TEST_ROOM))
    training_rooms = list(render_split("train", 96))
    examples = answer_rooms(model, processor, rooms, training_rooms)
    if frames:
        photographs, left_out = open_photographs(frames)
        print("".join(f"   {line}\n" for line in left_out), end="")
        asked = answer_photographs(model, processor, photographs)
        examples += asked
        for name, example in zip(photographs, asked, strict=True):
            print(f"   {name}: {' '.join(example.text.split())}")
        print("   (The tiny model has only ever seen rendered rooms: expect poor answers about photographs.)")
    draw_answers(examples, output / "answers.png")
    samples = make_marked_pixel_samples(rooms[:num_rooms])
    texts = answer_marked_pixels(model, processor, samples, show_progress=False)
    told, _ = score_marked_pixels(texts, samples, fit_baselines(training_rooms))
    constant, by_pixel = (told[f"{kind}_point_error_m"] for kind in ("constant", "pixel_prior"))
    print(f"   {num_rooms} marked pixels of as many unseen rooms, with 95 % intervals over rooms:")
    print(
        f"   point off by {figure(told, 'point_error_m')} m; blind baselines {by_pixel:.2f} by pixel, "
        f"{constant:.2f} constant"
    )
    majority = told["majority_label_accuracy"]
    print(f"   name right in {figure(told, 'label_accuracy')}; blind baseline {majority:.2f}, the commonest")
    print(f"   answers that can be read: {figure(told, 'parse_rate')}")
    return told


def publish_and_reload(trained, folder):
    """Save a trained model with its code, load it with the Auto classes alone, and compare weights."""
    import torch
    from transformers import AutoModel, AutoProcessor

    from gap_mllm import GapMllmForPreTraining
    from gap_mllm.hub import save_for_hub
    from gap_mllm.processing import GapMllmProcessor

    model = GapMllmForPreTraining.from_pretrained(trained)
    save_for_hub(model, GapMllmProcessor.from_pretrained(trained), folder)
    reloaded = AutoModel.from_pretrained(folder, trust_remote_code=True)
    AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    expected = model.state_dict()
    if not all(torch.equal(weight, expected[name]) for name, weight in reloaded.state_dict().items()):
        raise RuntimeError(f"{folder} does not load the weights of {trained}.")


def figure(told, name):
    """A figure with its interval; JSON holds the infinite error of answers that cannot be read as a word."""
    value, low, high = (float(each) for each in (told[name], *told[f"{name}_ci95"]))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def report(told, output):
    """Print the figures of the new models beside what a blind baseline reaches."""
    arms, figures = told["arms"], ("parse_rate", "point_error_m", "label_accuracy", "dense_point_error_m")
    names = ("answers that can be read", "decoded point off by, m", "name right", "dense points off by, m")
    print(f"\n   {'':<26}{'without geometry':<22}{'with geometry':<22}blind baselines")
    print(f"   {'optimiser steps':<26}" + "".join(f"{arm['steps']:<22}" for arm in arms.values()))
    for name, shown_name in zip(figures, names, strict=True):
        shown = "".join(f"{figure(arm, name):<22}" for arm in arms.values())
        guesses = {
            kind: arms["with_geometry"].get(f"{kind}_{name}") for kind in ("pixel_prior", "constant", "majority")
        }
        blind = ", ".join(f"{kind.split('_')[0]} {value:.2f}" for kind, value in guesses.items() if value is not None)
        print(f"   {shown_name:<26}{shown}{blind}")
    print("   Blind baselines: the median (or commonest name) of training rooms at the pixel, or of all. One seed:")
    print("   brackets say what other rooms would change, not another seed. So few steps show that learning sets in,")
    print("   and not how good such models become; differences may be chance. docs/experiments.md has three seeds.")
    print(f"   {told['seconds']:.0f} s in all. Look into {output}: answers.png, curves.png, metrics.json, model/")


if __name__ == "__main__":
    main()
