"""Fixtures of the model's tests: a tiny model in random weights, and inputs made by the real processor.

Sizes are the smallest that keep every mechanism alive: four taps for three DeepStack levels and the final tokens,
four text layers to take the DeepStack levels in, and weights large enough that each part changes the output.
"""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from gap_mllm import GapMllmConfig, GapMllmForConditionalGeneration


PATCH, MERGE, FRAMES = 16, 2, 2


def _merge(base, changes):
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        merged[key] = _merge(merged[key], value) if isinstance(merged.get(key), dict) else value
    return merged


@pytest.fixture(scope="session")
def tiny_config(tiny_tokenizer):
    """A function (**changes) -> `GapMllmConfig` of tiny sizes; dicts change single keys of the parts."""
    token = tiny_tokenizer.convert_tokens_to_ids
    base = {
        "text_config": {
            "vocab_size": len(tiny_tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 2048,
            "initializer_range": 0.2,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
        },
        "vision_config": {
            "depth": 4,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1, 2],
            "initializer_range": 0.2,
        },
        "geometry_config": {
            "hidden_size": 16,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": 56,
            "layer_scale_init_value": 1.0,
            "patch_embed_depth": 1,
            "patch_embed_num_heads": 2,
            "camera_num_heads": 2,
            "dpt_features": 16,
            "dpt_out_channels": [8, 8, 8, 8],
            "initializer_range": 0.2,
            "special_token_std": 1.0,
        },
        "gap_fusion_config": {
            "init": "reference",
            "merger_hidden_size": 32,
            "num_attention_heads": 2,
            "dropout": 0.0,
            "initializer_range": 0.2,
        },
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
    }
    return lambda **changes: GapMllmConfig(**_merge(base, changes))


@pytest.fixture(scope="session")
def tiny_model(tiny_config):
    """A function (seed=0, model_class=GapMllmForConditionalGeneration, **changes) -> a new tiny model in eval mode."""

    def make(seed=0, model_class=GapMllmForConditionalGeneration, **changes):
        torch.manual_seed(seed)
        model = model_class(tiny_config(**changes)).eval()
        # No end of turn: what is generated has the full length, whatever the random weights like to say.
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        return model

    return make


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
