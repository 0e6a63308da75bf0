"""What `gap-mllm train`, `train-geometry-encoder`, `train-grpo` (a recipe's keys are flags, too) and `merge` do."""

import argparse
from functools import partial

import datasets
from transformers.utils import logging

from .dry_run import describe_dry_run, dry_run_recipe
from .progress_lines import is_terminal
from .train_geometry_aligned import train_geometry_aligned
from .train_geometry_encoder import train_geometry_encoder


def run_train(args: argparse.Namespace) -> None:
    """Pre-train by a recipe; unknown flags are keys of the recipe."""
    if not _is_dry(args, "train"):
        _hide_bars()
        _tell(train_geometry_aligned(args.recipe, args.overrides)[0])


def run_train_geometry_encoder(args: argparse.Namespace) -> None:
    """Train an encoder by a recipe; measured on test rooms if the recipe says so."""
    from gap_mllm.evaluation.dense_points import evaluate_geometry_encoder

    _hide_bars()
    scorer = partial(evaluate_geometry_encoder, show_progress=is_terminal())
    _tell(train_geometry_encoder(args.recipe, args.overrides, scorer=scorer))


def run_train_grpo(args: argparse.Namespace) -> None:
    """Train by the rewards of answers, by a recipe."""
    if not _is_dry(args, "train-grpo"):
        from .train_grpo import train_grpo  # imports TRL, which the others do without

        _hide_bars()
        _tell(train_grpo(args.recipe, args.overrides))


def _is_dry(args, command):
    """Whether the command line asks for a dry run, anywhere; if so, its counts are printed."""
    words = [word for word in args.overrides if word not in ("--dry_run", "--dry-run")]
    if not args.dry_run and len(words) == len(args.overrides):
        return False
    print(describe_dry_run(dry_run_recipe(args.recipe, words, command)))
    return True


def run_merge(args: argparse.Namespace) -> None:
    """Merge adapters into their base model."""
    from .adapters import merge_adapter

    print(f"wrote {merge_adapter(args.adapter, args.output, args.base)}")


def _hide_bars():
    """No bars of loading and preparing where nobody watches."""
    if not is_terminal():
        logging.disable_progress_bar()
        datasets.disable_progress_bars()


def _tell(trainer):
    print(f"{'was finished, and stays:' if trainer.was_finished else 'wrote'} {trainer.args.output_dir}")
