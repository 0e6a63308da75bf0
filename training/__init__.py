# pyright: basic
"""Losses, rewards, collators and `Trainer`s for geometry-aligned training; imported when first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING


if TYPE_CHECKING:  # for editors and pyright; a test holds both lists together
    from .adapters import add_lora, merge_adapter
    from .cold_start import ColdStartQuestions, make_cold_start_rows, write_thought
    from .dry_run import dry_run_recipe
    from .frozen_geometry import FrozenGeometry
    from .geometry_aligned_trainer import GeometryAlignedTrainer, GeometryAlignedTrainingArguments
    from .geometry_encoder_trainer import GeometryEncoderTrainer, GeometryEncoderTrainingArguments
    from .geometry_follower import GeometryFollower
    from .mixtures import MixedDataset, MixedStream
    from .prompt_rows import make_prompt_rows
    from .rewards import (
        REWARDS,
        box_iou_reward,
        choice_reward,
        compose_rewards,
        format_reward,
        frame_reward,
        length_reward,
        point_distance_reward,
        relative_accuracy_reward,
    )
    from .scene_collator import SceneCollator
    from .scene_geometry import SceneGeometryDataset
    from .scene_questions import OpenedRows, SceneQuestionDataset, SceneQuestionStream
    from .schedule import Schedule
    from .teaching import Teaching, set_training_heads
    from .terms import LOSS_TERMS, LossTerm
    from .tied_embeddings import untie_embeddings

_MODULES = {
    "LOSS_TERMS": "terms",
    "REWARDS": "rewards",
    "ColdStartQuestions": "cold_start",
    "FrozenGeometry": "frozen_geometry",
    "GeometryAlignedTrainer": "geometry_aligned_trainer",
    "GeometryAlignedTrainingArguments": "geometry_aligned_trainer",
    "GeometryEncoderTrainer": "geometry_encoder_trainer",
    "GeometryEncoderTrainingArguments": "geometry_encoder_trainer",
    "GeometryFollower": "geometry_follower",
    "LossTerm": "terms",
    "MixedDataset": "mixtures",
    "MixedStream": "mixtures",
    "OpenedRows": "scene_questions",
    "SceneCollator": "scene_collator",
    "SceneGeometryDataset": "scene_geometry",
    "SceneQuestionDataset": "scene_questions",
    "SceneQuestionStream": "scene_questions",
    "Schedule": "schedule",
    "Teaching": "teaching",
    "add_lora": "adapters",
    "box_iou_reward": "rewards",
    "choice_reward": "rewards",
    "compose_rewards": "rewards",
    "dry_run_recipe": "dry_run",
    "format_reward": "rewards",
    "frame_reward": "rewards",
    "length_reward": "rewards",
    "make_cold_start_rows": "cold_start",
    "make_prompt_rows": "prompt_rows",
    "merge_adapter": "adapters",
    "point_distance_reward": "rewards",
    "relative_accuracy_reward": "rewards",
    "set_training_heads": "teaching",
    "untie_embeddings": "tied_embeddings",
    "write_thought": "cold_start",
}

__all__ = [
    "LOSS_TERMS",
    "REWARDS",
    "ColdStartQuestions",
    "FrozenGeometry",
    "GeometryAlignedTrainer",
    "GeometryAlignedTrainingArguments",
    "GeometryEncoderTrainer",
    "GeometryEncoderTrainingArguments",
    "GeometryFollower",
    "LossTerm",
    "MixedDataset",
    "MixedStream",
    "OpenedRows",
    "SceneCollator",
    "SceneGeometryDataset",
    "SceneQuestionDataset",
    "SceneQuestionStream",
    "Schedule",
    "Teaching",
    "add_lora",
    "box_iou_reward",
    "choice_reward",
    "compose_rewards",
    "dry_run_recipe",
    "format_reward",
    "frame_reward",
    "length_reward",
    "make_cold_start_rows",
    "make_prompt_rows",
    "merge_adapter",
    "point_distance_reward",
    "relative_accuracy_reward",
    "set_training_heads",
    "untie_embeddings",
    "write_thought",
]


def __getattr__(name):
    if name == "SharedSceneCollator":
        raise ImportError("SharedSceneCollator is SceneCollator(for_pretraining=True) now; an item is a SceneSample.")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
