"""How much of a training step does the patch embedding cost as a convolution, and how much as a matrix product?

`OMP_NUM_THREADS=1 python examples/benchmarks/embed_patches.py` prints forward and backward pass of both, and
their ratio, for the published width and for the tiny model's.
"""

import time

import torch
from harness import benchmark_parser, compare, save, show
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
    parser = benchmark_parser(__doc__, runs=28)
    parser.add_argument("--patches", type=int, default=576)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    found = {}
    for hidden_size in (96, 1152):
        tower = Tower(hidden_size).to(args.device)
        patches = torch.randn(args.patches, 3 * 2 * 16 * 16, device=args.device)

        def as_product(tower=tower, patches=patches):
            with linear_patch_embedding(tower):
                return seconds(tower, patches)

        variants = {
            "matrix product": as_product,
            "convolution": lambda tower=tower, patches=patches: seconds(tower, patches),
        }
        found[f"{args.patches} patches to {hidden_size}"] = compare(variants, args.runs, clock=None, warm_up=2)
    for what, figures in found.items():
        show(what, figures, "ms", 1000)
    save(args.output, found)


if __name__ == "__main__":
    main()
