"""What do hidden states cost that heads read? `python examples/benchmarks/keep_hidden_states.py`.

Runs the language model of Qwen3-VL, of the published depth and with random weights, over one long row, keeping no
hidden states, those of the four layers that GeoVR's heads read, or all of them, as `output_hidden_states=True` does.
Prints the peak memory of each in a pass without gradient, and in a training step with activation checkpointing, which
keeps the input of each layer in any case. On a GPU by torch's allocator, else by the peak of a process each (Linux).
"""

import os
import resource
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from harness import benchmark_parser, compare, save, show
from transformers import Qwen3VLTextConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

from gap_mllm.training_heads_gap_mllm import map_layers, read_hidden_states


LAYERS, KEPT = 28, ("all", "four", "none")
EXACT = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back to the system at once
FOUR = map_layers(LAYERS, [4, 11, 17, 23], 24)


def peak_megabytes(kept: str, is_training: bool, tokens: int, width: int) -> float:
    """Memory in MB that a pass needs at its peak, above what the model takes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    heads = {"num_attention_heads": width // 32, "num_key_value_heads": width // 32, "head_dim": 32}
    sizes = {"hidden_size": width, "intermediate_size": width, "num_hidden_layers": LAYERS, "vocab_size": 8}
    model = Qwen3VLTextModel(Qwen3VLTextConfig(**sizes, **heads, rope_parameters=rope)).to(device).train(is_training)
    if is_training:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    row = torch.zeros(1, tokens, dtype=torch.long, device=device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    with (
        torch.set_grad_enabled(is_training),
        read_hidden_states(model, FOUR) if kept == "four" else nullcontext({}) as states,
    ):
        output = model(input_ids=row, use_cache=False, output_hidden_states=kept == "all")
        found = [*states.values(), *(output.hidden_states or ()), output.last_hidden_state]
        if is_training:
            sum(state.square().mean() for state in found).backward()
    if device == "cuda":
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6


def main():
    parser = benchmark_parser(__doc__, runs=1)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--width", type=int, default=512, help="hidden size, a multiple of 32")
    parser.add_argument("--kept", choices=KEPT, help="measure one kind in this process, and print MB")
    parser.add_argument("--training", action="store_true", help="that of a training step")
    args = parser.parse_args()
    if args.kept:
        print(peak_megabytes(args.kept, args.training, args.tokens, args.width))
        return
    sizes, found = ["--tokens", str(args.tokens), "--width", str(args.width)], {}
    for what, flags in (("pass without gradient", []), ("training step", ["--training"])):

        def megabytes(kept, flags=flags):
            words = [sys.executable, __file__, "--kept", kept, *flags, *sizes]
            return float(subprocess.run(words, check=True, capture_output=True, text=True, env=EXACT).stdout)

        variants = {kept: partial(megabytes, kept) for kept in KEPT}
        found[what] = compare(variants, args.runs, clock=None, warm_up=0)
        show(f"{what}, memory at the peak by the hidden states that are kept", found[what], "MB")
    save(args.output, found)


if __name__ == "__main__":
    main()
