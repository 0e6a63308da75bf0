"""Train by a recipe until SIGKILL: `python killed_training.py RECIPE OUTPUT step 3`, `save 4`, `after 2.5`, `never`.

`save 4` dies in the midst of writing the checkpoint of step 4, `after` a number of times that a step takes, its save
included, after the first step of this process.
"""

import os
import signal
import sys
import threading
import time

import torch
from transformers import Trainer, TrainerCallback

from gap_mllm.training.train_geometry_aligned import train_geometry_aligned


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Kill(TrainerCallback):
    def __init__(self, kind, number):
        self.kind, self.number, self.starts = kind, number, []

    def on_step_begin(self, args, state, control, **kwargs):
        self.starts.append(time.monotonic())
        if self.kind == "after" and len(self.starts) == 2:
            threading.Timer(self.number * (self.starts[1] - self.starts[0]), die).start()

    def on_substep_end(self, args, state, control, **kwargs):  # between the two halves of a step
        if self.kind == "step" and state.global_step + 1 == self.number:
            die()


def main(recipe, output, kind, number=0.0):
    torch.set_num_threads(1)
    kill = Kill(kind, float(number))
    if kind == "save":
        save = Trainer._save_optimizer_and_scheduler

        def save_or_die(self, folder):
            if self.state.global_step == kill.number:
                die()
            save(self, folder)

        Trainer._save_optimizer_and_scheduler = save_or_die
    train_geometry_aligned(recipe, ["--output_dir", output], callbacks=[kill])
    os._exit(0)  # the timer of a training that was faster is no matter


if __name__ == "__main__":
    main(*sys.argv[1:])
