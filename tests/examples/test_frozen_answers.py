"""The shipped model sees and says what it saw and said when its answers were written down."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoModel, AutoProcessor

from gap_mllm.processing import Mark
from gap_mllm.processing.data.rooms.layout import room_seed
from gap_mllm.processing.data.rooms.renderer import render_room


ROOT = Path(__file__).parents[2]
BATCH = 16


def read_rows(num_rows):
    lines = (ROOT / "tests/fixtures/frozen_answers/tiny_gap_mllm.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:num_rows]]


@pytest.fixture(scope="module")
def loaded():
    folder = ROOT / "examples/assets/tiny_gap_mllm"
    return AutoModel.from_pretrained(folder, dtype="float32").eval(), AutoProcessor.from_pretrained(folder)


@pytest.mark.parametrize("num_rows", [32, pytest.param(256, marks=pytest.mark.slow)])
def test_pictures_and_answers_are_those_written_down(loaded, num_rows):
    model, processor = loaded
    rows, views = read_rows(num_rows), []
    for row in rows:
        images = [Image.fromarray(image) for image in render_room(room_seed("test", row["room"])).images]
        views.append(processor.apply_visual_prompt(images, [Mark(row["view"], row["pixel"], "red")]))
        digest = hashlib.sha256(b"".join(np.asarray(view).tobytes() for view in views[-1])).hexdigest()
        assert digest.startswith(row["pictures"]), f"room {row['room']} looks different"
    texts = []
    for start in range(0, num_rows, BATCH):
        batch = slice(start, start + BATCH)
        chats = [
            processor.build_messages("reconstruction", pictures, prompt=row["question"])
            for pictures, row in zip(views[batch], rows[batch], strict=True)
        ]
        texts += processor.ask(model, chats, task="reconstruction", max_new_tokens=48)
    differing = [row["room"] for row, text in zip(rows, texts, strict=True) if text != row["answer"]]
    # Equal to the byte where they were written; another processor's rounding may turn a digit here and there.
    assert len(differing) <= num_rows // 50, f"other answers about rooms {differing}"
