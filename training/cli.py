"""What `gap-mllm train`, `train-geometry-encoder` and `train-grpo` do; a recipe's keys are flags, too."""

import argparse

from .train_geometry_aligned import train_geometry_aligned
from .train_geometry_encoder import train_geometry_encoder


def run_train(args: argparse.Namespace) -> None:
    """Pre-train by a recipe; unknown flags are keys of the recipe."""
    _tell(train_geometry_aligned(args.recipe, args.overrides)[0])


def run_train_geometry_encoder(args: argparse.Namespace) -> None:
    """Train an encoder by a recipe; measured on test rooms if the recipe says so."""
    from gap_mllm.evaluation.dense_points import evaluate_geometry_encoder

    _tell(train_geometry_encoder(args.recipe, args.overrides, scorer=evaluate_geometry_encoder))


def run_train_grpo(args: argparse.Namespace) -> None:
    """Train by the rewards of answers, by a recipe."""
    from .train_grpo import train_grpo  # imports TRL, which the others do without

    _tell(train_grpo(args.recipe, args.overrides))


def _tell(trainer):
    print(f"{'was finished, and stays:' if trainer.was_finished else 'wrote'} {trainer.args.output_dir}")


__all__ = ["run_train", "run_train_geometry_encoder", "run_train_grpo"]
