"""Do data-loader workers keep up with training? `OMP_NUM_THREADS=1 python examples/benchmarks/collate_scenes.py`.

Prints how many rows a second one worker collates and the tiny model trains on, and their ratio (marked pixels on 4
views of 128 x 128, on disk as PNG); and how long decoding and prompting 32 JPEG views of 640 x 480 takes.
"""

import tempfile
import time
from pathlib import Path

import torch
from harness import benchmark_parser, compare, save, show
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


def main():
    parser = benchmark_parser(__doc__, runs=9)
    parser.add_argument("--batch", type=int, default=4, help="rows in a batch")
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

        variants = {"one worker collates": lambda: collator(rows), "the tiny model trains": train}
        found = {"a row": compare(variants, args.runs, lambda: time.process_time() / args.batch)}
        large = rows_on_disk(Path(folder), 1, 32, 480, 640, ".jpg")
        prompt = SceneCollator(processor, max_view_pixels=518 * 392)
        variants = {"decode, mark, resize and prompt": lambda: prompt(large)}
        found["32 JPEG views of 640 x 480"] = compare(variants, max(3, args.runs // 3))
    for what, figures in found.items():
        show(f"{what}, processor time", figures, "ms", 1000)
    save(args.output, found)


if __name__ == "__main__":
    main()
