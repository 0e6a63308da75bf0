# pyright: basic
"""Trainings beside each other: arms of one recipe with several seeds each, scored on rooms never trained on."""

from .ablation import Ablation, read_ablation
from .ablation_report import paired_difference
from .arms import run_ablation


__all__ = ["Ablation", "paired_difference", "read_ablation", "run_ablation"]
