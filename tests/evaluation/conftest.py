"""A few rooms of each split, rendered once, baselines fitted on the training rooms, and a tiny model."""

import pytest
import torch

from gap_mllm import GapMllmConfig
from gap_mllm.evaluation import fit_baselines, render_split


@pytest.fixture(scope="session")
def train_rooms():
    return list(render_split("train", 24))


@pytest.fixture(scope="session")
def test_rooms():
    return list(render_split("test", 4))


@pytest.fixture(scope="session")
def baselines(train_rooms):
    return fit_baselines(train_rooms, questions_per_scene=4)


@pytest.fixture(scope="session")
def tiny_evaluation_model(tiny_tokenizer):
    """A function (model_class) -> a new tiny model in evaluation mode, with weights large enough to matter."""
    token = tiny_tokenizer.convert_tokens_to_ids

    def make(model_class):
        torch.manual_seed(0)
        config = GapMllmConfig(
            text_config={
                "vocab_size": len(tiny_tokenizer),
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 16,
                "initializer_range": 0.2,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000,
                    "mrope_section": [4, 2, 2],
                    "mrope_interleaved": True,
                },
            },
            vision_config={
                "depth": 4,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 2,
                "out_hidden_size": 32,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0, 1, 2],
                "initializer_range": 0.2,
            },
            geometry_config={
                "hidden_size": 16,
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                "image_size": 56,
                "layer_scale_init_value": 1.0,
                "patch_embed_depth": 1,
                "patch_embed_num_heads": 2,
                "initializer_range": 0.2,
            },
            gap_fusion_config={"init": "reference", "merger_hidden_size": 32, "num_attention_heads": 2},
            image_token_id=token("<|image_pad|>"),
            video_token_id=token("<|video_pad|>"),
            vision_start_token_id=token("<|vision_start|>"),
            vision_end_token_id=token("<|vision_end|>"),
        )
        model = model_class(config).eval()
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        return model

    return make
