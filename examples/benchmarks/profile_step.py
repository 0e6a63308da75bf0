"""Where the time of a training step goes: `OMP_NUM_THREADS=1 python examples/benchmarks/profile_step.py quickstart`.

Trains by a recipe for a few steps, all in one process and thread, and prints how much processor time of a step goes
into rooms and questions, the collator (with the processor's own share), each part of the model, the terms of the loss,
the backward pass, the optimiser, and the trainer around them. Flags behind the recipe's name are those of the recipe.
"""

import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from unittest.mock import patch

import torch
from accelerate import Accelerator
from harness import benchmark_parser, save
from transformers import TrainerCallback

from gap_mllm.processing import GapMllmProcessor
from gap_mllm.training import GeometryAlignedTrainer, SceneCollator
from gap_mllm.training.rooms import RoomQuestionDataset
from gap_mllm.training.train_geometry_aligned import train_geometry_aligned


ENCODER = Path(__file__).parents[2] / "examples" / "assets" / "tiny_geometry_encoder"
FUNCTIONS = {
    "rooms and questions": (RoomQuestionDataset, "__getitem__"),
    "collator": (SceneCollator, "__call__"),
    "processor": (GapMllmProcessor, "__call__"),
    "terms of the loss, and heads": (GeometryAlignedTrainer, "compute_loss"),
    "backward pass": (Accelerator, "backward"),
}
MODULES = {
    "geometry encoder": "geometry",
    "vision tower": "visual",
    "fusion": "fusion",
    "language model": "language_model",
}


class Stopwatch(TrainerCallback):
    """Processor time by name; what is measured within something else does not count for that.

    Args:
        num_warm_up (`int`): steps that are not measured.
    """

    def __init__(self, num_warm_up: int):
        self.seconds, self.names, self.num_warm_up = Counter(), ["trainer"], num_warm_up
        self.measured, self.last = Counter(), time.process_time()

    def turn(self, name: str | None = None, *_):
        """Begin to measure `name`, or without one go back to what was measured before."""
        now = time.process_time()
        self.seconds[self.names[-1]] += now - self.last
        self.last = now
        self.names.append(name) if name else self.names.pop()

    def timed(self, name: str, function):
        @wraps(function)
        def run(*args, **kwargs):
            self.turn(name)
            try:
                return function(*args, **kwargs)
            finally:
                self.turn()

        return run

    def watch(self, name, module):
        module.register_forward_pre_hook(lambda *_: self.turn(name))
        module.register_forward_hook(lambda *_: self.turn())

    def on_train_begin(self, args, state, control, model=None, optimizer=None, train_dataloader=None, **kwargs):
        for name, part in MODULES.items():
            self.watch(name, getattr(model.model, part))
        geometry = getattr(train_dataloader.collate_fn, "geometry", None)
        if geometry is not None and geometry.encoder is not None:
            self.watch("geometry encoder", geometry.encoder)
        optimizer = getattr(optimizer, "optimizer", optimizer)  # within accelerate's
        optimizer.register_step_pre_hook(lambda *_: self.turn("optimiser"))
        optimizer.register_step_post_hook(lambda *_: self.turn())

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in (self.num_warm_up, state.max_steps):
            self.turn("trainer")
            self.turn()
            self.seconds, self.measured = Counter(), self.seconds


def main():
    parser = benchmark_parser(__doc__, runs=None)
    parser.add_argument("recipe", help="name or path of a recipe of gap-mllm train")
    parser.add_argument("--steps", type=int, default=30, help="measured steps, after 4 others")
    args, flags = parser.parse_known_args()
    torch.set_num_threads(1)
    watch = Stopwatch(num_warm_up=4)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for name, (owner, function) in FUNCTIONS.items():
            stack.enter_context(patch.object(owner, function, watch.timed(name, getattr(owner, function))))
        run = {"max_steps": args.steps + 4, "output_dir": folder, "geometry_encoder_path": ENCODER, "use_cpu": "true"}
        run |= {"dataloader_num_workers": 0, "save_strategy": "no", "eval_strategy": "no", "num_selection_rooms": 0}
        given = [str(word) for name, value in run.items() for word in (f"--{name}", value)]
        train_geometry_aligned(args.recipe, [*given, *flags], callbacks=[watch])
    total = sum(watch.measured.values())
    print(f"{args.recipe}: {1000 * total / args.steps:.0f} ms of processor time a step, {args.steps} steps")
    for name, seconds in watch.measured.most_common():
        print(f"{seconds / total:7.1%} {1000 * seconds / args.steps:8.1f} ms  {name}")
    save(args.output, {name: seconds / total for name, seconds in watch.measured.items()})


if __name__ == "__main__":
    main()
