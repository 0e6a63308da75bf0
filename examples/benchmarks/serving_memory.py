"""How many scenes a GPU has room for: `python examples/benchmarks/serving_memory.py`.

Weights are counted on the meta device; nothing is loaded or measured. Sizes are those of Qwen3-VL-2B, 4B and
8B-Instruct (its config.json files) with VGGT-1B; parameters without VGGT and fusion are those that Qwen publishes,
2.13, 4.44 and 8.77 billion. The encoder's activations are an estimate: ten rows of its width for each token of the
block that runs (residual, queries, keys, values, the wide layer), and the four levels that the fusion reads.
"""

import argparse
from dataclasses import dataclass

import torch

from gap_mllm import GapMllmConfig, GapMllmForConditionalGeneration
from gap_mllm.configuration_gap_mllm import PUBLISHED_TEXT_CONFIG, PUBLISHED_VISION_CONFIG


_LARGER = {"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
SIZES = {  # where text_config and vision_config differ from those of 2B, and tie_word_embeddings
    "2B": ({}, {}, True),
    "4B": ({**_LARGER, "hidden_size": 2560, "intermediate_size": 9728}, {"out_hidden_size": 2560}, True),
    "8B": (
        {**_LARGER, "hidden_size": 4096, "intermediate_size": 12288},
        {
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "out_hidden_size": 4096,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        False,
    ),
}
GIB, BYTES = 2**30, 2  # bfloat16
ELSEWHERE = 1.5  # GiB of CUDA, graphs and the language model's own activations; a guess


@dataclass(frozen=True)
class ServingMemory:
    """Memory of one size of model, in GiB but for `cache_bytes`, those of a token in the key-value cache."""

    language: float
    vision: float
    encoder: float
    fusion: float
    cache_bytes: int
    encoder_activations: float

    def scenes(self, gpu: float, tokens: int, parallel: int = 1, utilization: float = 0.9) -> int:
        """How many requests of `tokens` tokens fit into a GPU of `gpu` GiB at a time; none if the model does not.

        With `parallel` GPUs language model, tower and cache are split among them, encoder and fusion whole on each.
        """
        split, whole = self.language + self.vision, self.encoder + self.fusion + self.encoder_activations
        left = utilization * gpu - split / parallel - whole - ELSEWHERE
        return max(0, int(left * GIB * parallel / (self.cache_bytes * tokens)))


def serving_memory(size: str, views: int, patches: int) -> ServingMemory:
    """Count a size of `SIZES`, encoding scenes of so many views of so many patches of 16 x 16 pixels."""
    text, vision, tied = SIZES[size]
    text, vision = {**PUBLISHED_TEXT_CONFIG, **text}, {**PUBLISHED_VISION_CONFIG, **vision}
    config = GapMllmConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied)
    with torch.device("meta"):
        model = GapMllmForConditionalGeneration(config)
    parts = {"vision": "visual.", "encoder": "geometry.", "fusion": "fusion."}
    counts = dict.fromkeys(("language", *parts), 0)
    for name, parameter in model.named_parameters():
        part = next((part for part, prefix in parts.items() if name.startswith(f"model.{prefix}")), "language")
        counts[part] += parameter.numel()
    text, geometry = config.text_config, config.geometry_config
    cache = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * BYTES
    tokens = views * (patches + 1 + geometry.num_register_tokens)
    activations = tokens * (10 * geometry.hidden_size + 4 * 2 * geometry.hidden_size) * BYTES
    weights = {part: count * BYTES / GIB for part, count in counts.items()}
    return ServingMemory(**weights, cache_bytes=cache, encoder_activations=activations / GIB)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--width", type=int, default=640, help="of a view in pixels")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--answer", type=int, default=640, help="tokens of question and answer")
    parser.add_argument("--gpus", type=int, nargs="+", default=[24, 48, 80], help="GB")
    args = parser.parse_args()
    merged = args.views * (args.height // 32) * (args.width // 32)
    tokens = merged + args.answer
    print(f"{args.views} views of {args.width} x {args.height}: {merged} visual tokens, {tokens} with words\n")
    columns = [f"{gpu} GB{kind}" for gpu in args.gpus for kind in ("", ", two")]
    heads = ["", "language", "tower", "encoder", "fusion", "encoder at work", "cache, MB a scene", *columns]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for size in SIZES:
        memory = serving_memory(size, args.views, (args.height // 16) * (args.width // 16))
        parts = memory.language, memory.vision, memory.encoder, memory.fusion, memory.encoder_activations
        row = [size, *(f"{part:.1f}" for part in parts), f"{memory.cache_bytes * tokens / 1e6:.0f}"]
        fits = [memory.scenes(gpu * 1e9 / GIB, tokens, parallel) for gpu in args.gpus for parallel in (1, 2)]
        print(f"| {' | '.join([*row, *(str(count) for count in fits)])} |")


if __name__ == "__main__":
    main()
