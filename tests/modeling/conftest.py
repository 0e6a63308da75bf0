"""Fixtures of the model's tests: one tiny model for all, and inputs made by the real processor."""

import numpy as np
import pytest
import torch
from PIL import Image

from gap_mllm.hub import save_for_hub


PATCH, MERGE, FRAMES = 16, 2, 2


@pytest.fixture(scope="session")
def model(tiny_model):
    """Session-wide: tests must not change it."""
    return tiny_model()


@pytest.fixture(scope="session")
def picture():
    """A function (height, width, seed) -> 8-bit RGB picture of random pixels."""

    def make(height=64, width=64, seed=0):
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    return make


@pytest.fixture(scope="session")
def to_patches():
    """A function (frames, mean=0.5, std=0.5) -> patches and grid of one image or video, in Qwen's order.

    Written loop by loop and apart from the code under test; torchvision, which Qwen's video processor needs, is not
    at hand everywhere. `frames` (T, 3, H, W) in 0..1; the last is repeated to fill a temporal patch.
    """

    def make(frames, mean=0.5, std=0.5):
        if len(frames) % FRAMES:
            frames = torch.cat([frames, frames[-1:]])
        frames = (frames - mean) / std
        grid = [len(frames) // FRAMES, frames.shape[-2] // PATCH, frames.shape[-1] // PATCH]
        rows = []
        for t in range(grid[0]):
            pair = frames[FRAMES * t : FRAMES * (t + 1)]
            for top in range(0, grid[1], MERGE):
                for left in range(0, grid[2], MERGE):
                    for y in range(top, top + MERGE):
                        for x in range(left, left + MERGE):
                            patch = pair[..., y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH]
                            rows.append(patch.transpose(0, 1).flatten())  # channel, frame, y, x
        return torch.stack(rows), torch.tensor([grid])

    return make


@pytest.fixture(scope="session")
def make_inputs(tiny_processor, picture):
    """A function (*rows, question) -> the processor's output; a row lists its pictures' (height, width).

    Pictures are numbered on through the batch from `seed`, so no two are equal.
    """

    def make(*rows, question="which object is marked?", seed=0, **kwargs):
        messages = []
        for row in rows:
            content = [{"type": "text", "text": question[: 3 + 5 * len(messages)] if len(rows) > 1 else question}]
            for height, width in row:
                content.append({"type": "image", "image": picture(height, width, seed)})
                seed += 1
            messages.append([{"role": "user", "content": content}])
        return tiny_processor.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
            **kwargs,
        )

    return make


@pytest.fixture(scope="session")
def small_folder(tiny_model, tiny_processor, tmp_path_factory):
    """A folder without the encoder's weights, which are saved beside it, named as it names them."""
    base, model = tmp_path_factory.mktemp("small"), tiny_model()
    model.model.geometry.save_pretrained(base / "encoder")
    return save_for_hub(
        model, tiny_processor, base / "out", include_geometry_weights=False, geometry_weights=str(base / "encoder")
    )
