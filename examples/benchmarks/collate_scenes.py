"""Do data-loader workers keep up with training? `OMP_NUM_THREADS=1 python evaluation/speed/collate_scenes.py`.

Prints how many rows a second one worker collates and the tiny model trains on, and their ratio (marked pixels on 4
views of 128 x 128, on disk as PNG); and how long decoding and prompting 32 JPEG views of 640 x 480 takes.
"""

import argparse
import statistics
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from gap_mllm import GapMllmForPreTraining
from gap_mllm.processing import GapMllmProcessor
from gap_mllm.processing.data import complete_row, make_question, render_room
from gap_mllm.processing.data.rooms.room_scenes import scene_row, scene_views
from gap_mllm.training.scene_collator import SceneCollator


TINY_MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"


def rows_on_disk(folder: Path, num_rows: int, num_views: int, height: int, width: int, suffix: str) -> list[dict]:
    """Marked-pixel rows of rendered rooms, their views as files."""
    rows = []
    for index in range(num_rows):
        scene = render_room(index, num_views, height, width)
        row = scene_row(scene, make_question(scene, "reconstruction"), scene_views(scene), "train", str(index))
        for number, (view, pixels) in enumerate(zip(row["views"], scene.images, strict=True)):
            path = folder / f"{index}_{number}{suffix}"
            Image.fromarray(pixels).save(path, quality=95)
            view |= {"image": {"path": str(path), "bytes": None}, "depth": None}
        rows.append(complete_row(**row))
    return rows


def seconds(run: Callable, num_runs: int) -> float:
    """Median processor time of several runs, after one to warm up."""
    times = timeit.repeat(run, timer=time.process_time, repeat=num_runs + 1, number=1)
    return statistics.median(times[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4, help="rows in a batch")
    parser.add_argument("--runs", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = GapMllmForPreTraining.from_pretrained(TINY_MODEL, dtype="float32").train()
    processor = GapMllmProcessor.from_pretrained(TINY_MODEL)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_on_disk(Path(folder), args.batch, 4, 128, 128, ".png")
        collator = SceneCollator(processor)
        batch = collator(rows)

        def train():
            output = model(**batch)
            torch.nn.functional.cross_entropy(output.answer_logits, output.answer_targets).backward()
            optimizer.step()
            optimizer.zero_grad()

        collating, training = (seconds(run, args.runs) / args.batch for run in (lambda: collator(rows), train))
        print(f"one worker collates {1 / collating:.1f} rows/s, the tiny model trains on {1 / training:.1f} rows/s")
        print(f"ratio {training / collating:.1f} (processor time, medians of {args.runs})")
        large = rows_on_disk(Path(folder), 1, 32, 480, 640, ".jpg")
        prompt = SceneCollator(processor, max_view_pixels=518 * 392)
        took = seconds(lambda: prompt(large), max(3, args.runs // 3))
        print(f"32 JPEG views of 640 x 480 take {took:.2f} s to decode, mark, resize and prompt")


if __name__ == "__main__":
    main()
