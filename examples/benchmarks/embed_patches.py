"""How much of a training step does the patch embedding cost as a convolution, and how much as a matrix product?

`OMP_NUM_THREADS=1 python evaluation/speed/embed_patches.py` prints forward and backward pass of both, and
their ratio, for the published width and for the tiny model's.
"""

import argparse
import statistics
import time

import torch
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionPatchEmbed

from gap_mllm.training.patch_embedding import linear_patch_embedding


class Tower(torch.nn.Module):
    """A vision tower as far as its patch embedding."""

    def __init__(self, hidden_size):
        super().__init__()
        self.patch_embed = Qwen3VLVisionPatchEmbed(Qwen3VLVisionConfig(hidden_size=hidden_size))


def seconds(tower: Tower, patches: torch.Tensor) -> float:
    """Time of one forward and backward pass."""
    start = time.perf_counter()
    tower.patch_embed(patches).sum().backward()
    if patches.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=576)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    for hidden_size in (96, 1152):
        tower = Tower(hidden_size).to(args.device)
        patches = torch.randn(args.patches, 3 * 2 * 16 * 16, device=args.device)
        times = {"convolution": [], "matrix product": []}
        for _ in range(args.runs):  # by turns, so that a busy machine slows both
            times["convolution"].append(seconds(tower, patches))
            with linear_patch_embedding(tower):
                times["matrix product"].append(seconds(tower, patches))
        medians = {name: 1000 * statistics.median(values[2:]) for name, values in times.items()}
        shown = ", ".join(f"{name} {value:.1f} ms" for name, value in medians.items())
        ratio = medians["convolution"] / medians["matrix product"]
        print(f"{args.patches} patches to {hidden_size}: {shown}, {ratio:.1f} times")


if __name__ == "__main__":
    main()
