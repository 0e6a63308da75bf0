"""Write anew what the repository keeps of the shipped model's answers, after its weights have changed.

Usage: refresh_assets.py. tests/fixtures/frozen_answers gets answers and hashes of pictures (rooms, marks and truths
stay), examples/assets the picture of the demo, and examples/assets/uses those of the examples by use. Look at them.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.processing import GapMllmProcessor, Mark
from gap_mllm.processing.data.rooms.layout import room_seed
from gap_mllm.processing.data.rooms.renderer import render_room


ROOT = Path(__file__).parents[1]
MODEL = ROOT / "examples/assets/tiny_gap_mllm"
FROZEN = ROOT / "tests/fixtures/frozen_answers/tiny_gap_mllm.jsonl"
USES = {
    "ar_anchor": "anchor",
    "driving_distances": "distances",
    "edit_layout": "layout",
    "robot_pick_point": "pick",
    "room_inventory": "inventory",
    "route_between_objects": "route",
}
BATCH = 16  # as the test asks


def freeze_answers() -> None:
    """Ask about the frozen marks again."""
    model = GapMllmForConditionalGeneration.from_pretrained(MODEL, dtype="float32").eval()
    processor = GapMllmProcessor.from_pretrained(MODEL)
    rows = [json.loads(line) for line in FROZEN.read_text(encoding="utf-8").splitlines()]
    for start in range(0, len(rows), BATCH):
        chats = []
        for row in rows[start : start + BATCH]:
            images = [Image.fromarray(image) for image in render_room(room_seed("test", row["room"])).images]
            views = processor.apply_visual_prompt(images, [Mark(row["view"], row["pixel"], "red")])
            row["pictures"] = hashlib.sha256(b"".join(np.asarray(view).tobytes() for view in views)).hexdigest()[:32]
            chats.append(processor.build_messages("reconstruction", views, prompt=row["question"]))
        texts = processor.ask(model, chats, task="reconstruction", max_new_tokens=48)
        for row, text in zip(rows[start:], texts, strict=False):
            row["answer"] = text
    FROZEN.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def draw_examples(folder: Path) -> None:
    """Run the demo's first part and the examples by use, and keep what they draw."""
    options = ["--output", folder / "demo", "--seconds", "1", "--test-rooms", "2"]
    _run(ROOT / "examples/quickstart.py", *options)
    with Image.open(folder / "demo/answers.png") as drawn:
        drawn.thumbnail((1400, 1400))
        few_colors = drawn.convert("RGB").quantize()  # a quarter of the bytes
        few_colors.save(ROOT / "examples/assets/answers.png", optimize=True)
    for name, picture in USES.items():
        _run(ROOT / f"examples/{name}.py", "--output", folder / name)
        with Image.open(folder / name / f"{picture}.png") as drawn:
            drawn.convert("RGB").save(ROOT / f"examples/assets/uses/{name}.webp", quality=80, method=6)


def _run(script, *options):
    subprocess.run([sys.executable, script, *map(str, options)], check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})


if __name__ == "__main__":
    freeze_answers()
    with tempfile.TemporaryDirectory() as scratch:
        draw_examples(Path(scratch))
