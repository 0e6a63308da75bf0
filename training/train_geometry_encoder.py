"""Entry point: train a geometry encoder from a recipe (`gap-mllm train-geometry-encoder`), on synthetic rooms or data.

Any source whose views have depth maps and poses will do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers.utils import logging

from ..configuration_gap_mllm import GapMllmVggtConfig
from ..model_loading import load_pretrained, model_folder
from ..processing.metrics_file import save_metrics
from ..vggt_heads_gap_mllm import GapMllmVggtForReconstruction
from .geometry_encoder_trainer import GeometryEncoderTrainer, GeometryEncoderTrainingArguments
from .recipe_data import DataArguments, open_recipe, training_rooms
from .recipe_sources import evaluation_items, training_items
from .rooms import RoomGeometryDataset, collate_scenes, read_variety
from .scene_geometry import SceneGeometryDataset


logger = logging.get_logger(__name__)


@dataclass
class GeometryEncoderArguments(DataArguments):
    """The encoder to build and the scenes to measure it on."""

    encoder_config: dict = field(default_factory=dict, metadata={"help": "Fields of GapMllmVggtConfig."})
    encoder_path: str | None = field(default=None, metadata={"help": "Start from this folder instead of a config."})
    scenes: dict = field(
        default_factory=dict,
        metadata={"help": "Arguments of SceneGeometryDataset (num_views, max_view_pixels, ...), for data."},
    )
    num_eval_scenes: int = field(
        default=256, metadata={"help": "Test rooms measured at the end, if trained on rooms; 0 for none."}
    )
    num_baseline_scenes: int = field(default=512, metadata={"help": "Training rooms that fit the blind baselines."})


def train_geometry_encoder(recipe: str | Path, overrides: Sequence[str] = (), scorer: Callable | None = None):
    """Train an encoder, resuming from the last whole checkpoint in the output folder if there is one.

    Args:
        recipe (`str`): name of a file in training/recipes, or a path to a YAML file.
        overrides (`list[str]`, defaults to `()`): command-line flags that replace the recipe's values, for example
            `["--max_steps", "100"]`.
        scorer (`Callable`, *optional*): `scorer(model, num_scenes=, num_baseline_scenes=)` gives a `dict` of errors,
            as `gap_mllm.evaluation.evaluate_geometry_encoder`, which the command line passes. Without one nothing is
            measured, which a warning says where the recipe asks for it (`num_eval_scenes`).
    Returns:
        `GeometryEncoderTrainer`: after training; the model is saved in its output folder, and beside it metrics.json
        with what the scorer gives, on test rooms next to blind baselines, if it was trained on rooms.
    Raises:
        FileNotFoundError: if there is no such recipe. ValueError: on an unknown key, or as `check_evaluation`.
            RecordError: as `load_multiview` and `SceneGeometryDataset`. ValueError, FileExistsError, SystemExit: as
            `ResumingMixin.train_and_save`.
    """
    kinds = GeometryEncoderArguments, GeometryEncoderTrainingArguments
    encoder_args, args, run = open_recipe(kinds, recipe, overrides)
    is_measured = encoder_args.num_eval_scenes > 0 and not encoder_args.data
    if scorer is None and is_measured:
        logger.warning(
            f"num_eval_scenes is {encoder_args.num_eval_scenes}, but no scorer was given, so the encoder will not be "
            "measured; pass scorer=gap_mllm.evaluation.evaluate_geometry_encoder, or num_eval_scenes=0."
        )
    with run.held():
        return _train(encoder_args, args, run, scorer if is_measured else None)


def _train(encoder_args, args, run, scorer):
    """Train in a folder that is held; what is wrong with it was said before anything is loaded."""
    if encoder_args.encoder_path:
        heads = ("camera_head.", "depth_head.", "point_head.")  # may start afresh on an aggregator
        model = load_pretrained(GapMllmVggtForReconstruction, model_folder(encoder_args.encoder_path), may_lack=heads)
    else:
        model = GapMllmVggtForReconstruction(GapMllmVggtConfig(**encoder_args.encoder_config))
    eval_dataset = None
    if encoder_args.data:
        options = {"patch_size": model.config.patch_size, "seed": args.seed}

        def targets(rows, sections, length):
            return SceneGeometryDataset(rows, length, **{**options, **sections["scenes"]})

        dataset, eval_dataset = (make(encoder_args, args, targets) for make in (training_items, evaluation_items))
    else:
        rooms = training_rooms(encoder_args, args, read_variety(encoder_args.variety))
        dataset = RoomGeometryDataset(rooms, model.config.patch_size)
    trainer = GeometryEncoderTrainer(
        model=model,
        args=args,
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        data_collator=collate_scenes,
        run=run,
    )
    trainer.train_and_save()
    if scorer is not None and trainer.is_world_process_zero():
        metrics = scorer(
            model.eval(),
            num_scenes=encoder_args.num_eval_scenes,
            num_baseline_scenes=encoder_args.num_baseline_scenes,
        )
        save_metrics(metrics, Path(args.output_dir) / "metrics.json")
    return trainer
