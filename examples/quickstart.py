"""GAP-MLLM in a few minutes on two CPU cores: pre-train a tiny one on rooms, measure it, publish it, ask it.

    python examples/quickstart.py                      # everything, into outputs/quickstart
    python examples/quickstart.py --frames my_photos   # and ask about a folder of photographs as well

The same command again goes on with a training that was stopped, and does not repeat one that is finished.
The geometry encoder comes trained (examples/assets); language model, vision tower and fusion start from random
weights. Rooms of the test are never seen in training; the blind baselines are fitted on training rooms.
"""

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path


os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded

ASSETS = Path(__file__).parent / "assets"
ENCODER = ASSETS / "tiny_geometry_encoder"
FIRST_TEST_ROOM = 5000  # those before it were looked at while the recipe was made
VIEW = {"height": 96, "width": 96}  # pixels, as in the recipe
ANSWER_TOKENS = 48  # at most; of a model that has hardly learnt, all of them
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def main():
    args = parse_arguments()
    import torch

    torch.set_num_threads(args.threads)
    started = time.perf_counter()
    frames = choose_frames(Path(args.frames)) if args.frames else None
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)

    # A second process makes what the measurement needs during the training, and measures point maps after it.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=give_way) as pool:
        prepared = pool.submit(prepare_measurement, args.test_rooms)
        print(f"1. Pre-training on rendered rooms ({args.steps or 'all'} steps; other processes render)", flush=True)
        trainer, processor = train(args, output)
        print("2. Saving for the Hub, and loading it back as a stranger would", flush=True)
        model, processor = publish_and_reload(trainer.model, processor, output / "model")
        print("3. Asking about rooms that were never seen, and about the same with nothing but a guess", flush=True)
        rooms, baselines = prepared.result()
        dense = pool.submit(measure_point_maps, output / "model", args.test_rooms, args.threads)
        metrics, examples = measure_answers(trainer.model, processor, rooms, baselines)
        check_reloaded(model, processor, examples)
        metrics |= {name: value for name, value in dense.result().items() if name != "n"}

    from gap_mllm.evaluation import draw_answers, plot_curves, save_metrics

    plot_curves(trainer.state.log_history, output / "curves.png")
    draw_answers(examples, output / "answers.png")
    metrics["seconds"] = round(time.perf_counter() - started, 1)
    metrics["steps"] = trainer.state.global_step
    save_metrics(metrics, output / "metrics.json")
    if frames:
        print(f"4. Asking about the photographs in {args.frames}", flush=True)
        ask_about_frames(model, processor, frames, output)
    report(metrics, output)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="outputs/quickstart", help="folder for results")
    parser.add_argument("--frames", help="folder of photographs of one place, to ask about at the end")
    parser.add_argument("--steps", type=int, help="optimiser steps, instead of the recipe's")
    parser.add_argument("--test-rooms", type=int, default=256, help="rooms for the final measurement, 2 or more")
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads of training; rendering has its own process"
    )
    args = parser.parse_args()
    for name, least in (("steps", 1), ("test_rooms", 2), ("threads", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            parser.error(f"--{name.replace('_', '-')} is {value}; expected {least} or more")
    return args


def train(args, output):
    """Pre-train on text answers, dense point maps and read-out; see training/recipes/quickstart.yaml."""
    from gap_mllm.training.train_geometry_aligned import train_geometry_aligned

    overrides = ["--output_dir", str(output / "training"), "--geometry_encoder_path", str(ENCODER)]
    if args.steps:
        decay = {"num_decay_steps": round(0.7 * args.steps), "decay_type": "cosine"}
        overrides += ["--max_steps", str(args.steps), "--lr_scheduler_kwargs", json.dumps(decay)]
    return train_geometry_aligned("quickstart", overrides)


def give_way():
    """Let training and rendering go first where there are fewer cores than processes."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(10)


@cache
def prepare_measurement(num_rooms):
    """Test rooms, and blind baselines fitted on training rooms; made once in a process."""
    from gap_mllm.evaluation import fit_baselines, render_split

    test_rooms = render_split("test", num_rooms, first_scene=FIRST_TEST_ROOM, **VIEW)
    return list(test_rooms), fit_baselines(render_split("train", 256, **VIEW))


def measure_answers(model, processor, rooms, baselines):
    """Decoded point errors on test rooms, next to blind baselines; and a few answers to draw."""
    from gap_mllm.evaluation import AnswerExample, answer_marked_pixels, make_marked_pixel_samples, score_marked_pixels
    from gap_mllm.processing.data import SPLIT_SEEDS

    samples = make_marked_pixel_samples(rooms, questions_per_scene=2)
    texts = answer_marked_pixels(model, processor, samples, batch_size=32, max_new_tokens=ANSWER_TOKENS)
    metrics, _ = score_marked_pixels(texts, samples, baselines)
    metrics["seeds"] = {split: f"{seeds[0]} to {seeds[-1]}" for split, seeds in SPLIT_SEEDS.items()}
    by_id = {room.scene_id: room for room in rooms}
    chosen = range(0, min(6, len(samples)), 2)
    examples = [AnswerExample(by_id[samples[i].scene_id], samples[i], texts[i]) for i in chosen]
    return metrics, examples + [ask_for_box(model, processor, rooms[0])]


def measure_point_maps(folder, num_rooms, threads):
    """Dense point errors of a saved model on the same rooms."""
    import torch

    from gap_mllm import GapMllmForPreTraining
    from gap_mllm.evaluation import evaluate_point_maps
    from gap_mllm.processing import GapMllmProcessor

    torch.set_num_threads(threads)
    model = GapMllmForPreTraining.from_pretrained(folder, dtype="float32")
    processor = GapMllmProcessor.from_pretrained(folder)
    return evaluate_point_maps(model, processor, *prepare_measurement(num_rooms), show_progress=False)


def ask_for_box(model, processor, room):
    """Let the model give the box of an object that is described in words."""
    from PIL import Image

    from gap_mllm.evaluation import AnswerExample
    from gap_mllm.processing.data import make_question

    question = make_question(room, "grounding_box")
    views = [Image.fromarray(image) for image in room.images]
    messages = processor.build_messages("grounding_box", views, description=question.truth.description)
    text = processor.ask(model, [messages], "grounding_box")[0]
    return AnswerExample(room, question, text)


def publish_and_reload(model, processor, folder):
    """Save with code and weights, and load with the Auto classes alone."""
    from transformers import AutoModel, AutoProcessor

    from gap_mllm.hub import save_for_hub

    save_for_hub(model, processor, folder)
    return (
        AutoModel.from_pretrained(folder, trust_remote_code=True).eval(),
        AutoProcessor.from_pretrained(folder, trust_remote_code=True),
    )


def check_reloaded(model, processor, examples):
    """The model from disk must give the answers of the one in memory."""

    for example in examples[:2]:
        views = example.question.marked_images(processor.cross_size)
        messages = example.question.messages(views, with_answer=False)
        answer = processor.ask(model, [messages], "reconstruction", max_new_tokens=ANSWER_TOKENS)[0]
        if answer != example.text:
            raise RuntimeError(f"The reloaded model answers {answer!r} instead of {example.text!r}.")


def choose_frames(folder, num_views=4):
    """Up to four photographs spread over a folder, those that cannot be read left out and named."""
    from gap_mllm.processing.visual_prompt_gap_mllm import to_rgb_image

    if not folder.is_dir():
        raise SystemExit(f"{folder} is not a folder.")
    frames = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES):
        try:
            frames[path.name] = to_rgb_image(path)
        except ValueError as error:
            print(f"   left out: {error}")
    if not frames:
        raise SystemExit(f"{folder} holds no pictures that can be read ({', '.join(IMAGE_SUFFIXES)}).")
    names = list(frames)
    count = min(num_views, len(names))
    names = [names[round(i * (len(names) - 1) / max(count - 1, 1))] for i in range(count)]
    return {name: frames[name] for name in names}


def ask_about_frames(model, processor, frames, output):
    """Mark the middle of the first photograph and ask what is there. Expect poor answers: the tiny model has only
    ever seen rendered rooms."""
    from gap_mllm.processing.visual_prompt_gap_mllm import Mark

    views = list(frames.values())
    width, height = views[0].size
    mark = Mark(0, (width // 2, height // 2), "red")
    marked = processor.apply_visual_prompt(views, [mark])
    text = processor.ask(model, [processor.build_messages("reconstruction", marked)], "reconstruction")[0]
    parsed = processor.post_process_points([text])[0]
    marked[0].save(output / "frame.png")
    answer = {
        "frames": list(frames),
        "answer": text,
        "read_as": None if not parsed.items else vars(parsed.first),
        "note": "The tiny model has only seen rendered rooms: expect a poor answer.",
    }
    (output / "frames.json").write_text(json.dumps(answer, indent=2) + "\n")
    print(f"   {text.strip()!r}  (a tiny model that never saw a photograph: expect a poor answer)")


def report(metrics, output):
    """Print the figures beside what a blind guess reaches."""
    rows = [
        ("answers that could be read", f"{metrics['parse_rate']:.3f}", ""),
        (
            "decoded point, median error (m)",
            f"{metrics['point_error_m']:.2f}",
            f"constant {metrics['constant_point_error_m']:.2f}, per pixel {metrics['pixel_prior_point_error_m']:.2f}",
        ),
        (
            "dense points, median error (m)",
            f"{metrics['dense_point_error_m']:.2f}",
            f"per pixel {metrics['pixel_prior_dense_point_error_m']:.2f}, with another room's geometry "
            f"{metrics['shuffled_geometry_dense_point_error_m']:.2f}",
        ),
        (
            "label at the cross",
            f"{metrics['label_accuracy']:.2f}",
            f"always the commonest {metrics['majority_label_accuracy']:.2f}",
        ),
    ]
    print()
    for name, value, blind in rows:
        print(f"   {name:<34}{value:>7}   {'blind: ' + blind if blind else ''}")
    print(f"\n   {metrics['n']} answers, {metrics['seconds']:.0f} s. Look into {output}:")
    print("   answers.png, curves.png, metrics.json, model/")


if __name__ == "__main__":
    main()
