"""Losses, collators and `Trainer` subclasses for geometry-aligned pre-training; imported when first asked for."""

from importlib import import_module


_MODULES = {
    "LOSS_TERMS": "terms",
    "FrozenGeometry": "frozen_geometry",
    "GeometryAlignedTrainer": "geometry_aligned_trainer",
    "GeometryAlignedTrainingArguments": "geometry_aligned_trainer",
    "GeometryEncoderTrainer": "geometry_encoder_trainer",
    "GeometryEncoderTrainingArguments": "geometry_encoder_trainer",
    "LossTerm": "terms",
    "OpenedRows": "scene_questions",
    "SceneCollator": "scene_collator",
    "SceneGeometryDataset": "scene_geometry",
    "SceneQuestionDataset": "scene_questions",
    "SceneQuestionStream": "scene_questions",
}

__all__ = [
    "LOSS_TERMS",
    "FrozenGeometry",
    "GeometryAlignedTrainer",
    "GeometryAlignedTrainingArguments",
    "GeometryEncoderTrainer",
    "GeometryEncoderTrainingArguments",
    "LossTerm",
    "OpenedRows",
    "SceneCollator",
    "SceneGeometryDataset",
    "SceneQuestionDataset",
    "SceneQuestionStream",
]


def __getattr__(name):
    if name == "SharedSceneCollator":
        raise ImportError("SharedSceneCollator is SceneCollator(for_pretraining=True) now; an item is a SceneSample.")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
