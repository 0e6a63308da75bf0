"""Entry point: train a geometry encoder on synthetic rooms from a recipe (`gap-mllm train-geometry-encoder`)."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from transformers import HfArgumentParser, set_seed
from transformers.trainer_utils import get_last_checkpoint

from ..configuration_gap_mllm import GapMllmVggtConfig
from ..evaluation.dense_points import evaluate_geometry_encoder
from ..evaluation.metrics_file import save_metrics
from ..vggt_heads_gap_mllm import GapMllmVggtForReconstruction
from .geometry_encoder_trainer import GeometryEncoderTrainer, GeometryEncoderTrainingArguments
from .recipes import read_recipe
from .rooms import RoomGeometryDataset, RoomVariety, collate_scenes


@dataclass
class GeometryEncoderArguments:
    """The encoder to build and the scenes to measure it on."""

    encoder_config: dict = field(default_factory=dict, metadata={"help": "Fields of GapMllmVggtConfig."})
    encoder_path: str | None = field(default=None, metadata={"help": "Start from this folder instead of a config."})
    num_eval_scenes: int = field(default=256, metadata={"help": "Test rooms measured at the end; 0 for none."})
    num_baseline_scenes: int = field(default=512, metadata={"help": "Training rooms that fit the blind baselines."})


def train_geometry_encoder(recipe, overrides=()):
    """Train an encoder, resuming from the last checkpoint in the output folder if there is one.

    Args:
        recipe (`str`): name of a file in training/recipes, or a path to a YAML file.
        overrides (`list[str]`): command-line flags that replace the recipe's values, for example
            `["--max_steps", "100"]`.
    Returns:
        `GeometryEncoderTrainer`: after training; the model is saved in its output folder, and metrics.json beside it
        holds its errors on test rooms next to those of blind baselines.
    Raises:
        FileNotFoundError: if there is no such recipe. ValueError: on an unknown key.
    """
    parser = HfArgumentParser((GeometryEncoderArguments, GeometryEncoderTrainingArguments))
    encoder_args, args = read_recipe(parser, recipe, overrides)
    set_seed(args.seed)
    if encoder_args.encoder_path:
        model = GapMllmVggtForReconstruction.from_pretrained(encoder_args.encoder_path)
    else:
        model = GapMllmVggtForReconstruction(GapMllmVggtConfig(**encoder_args.encoder_config))
    batch_size = args.per_device_train_batch_size
    args.train_sampling_strategy = "sequential"  # rooms are independent draws; blocks of equal size stay together
    num_scenes = args.max_steps * batch_size * args.gradient_accumulation_steps * args.world_size
    dataset = RoomGeometryDataset(
        "train", num_scenes, model.config.patch_size, RoomVariety(), block_size=batch_size, seed=args.seed
    )
    trainer = GeometryEncoderTrainer(
        model=model,
        args=args,
        train_dataset=dataset,
        data_collator=collate_scenes,
        settings={"recipe": str(recipe), **asdict(encoder_args)},
    )
    last_checkpoint = get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None
    trainer.train(resume_from_checkpoint=last_checkpoint)
    trainer.save_model()
    if encoder_args.num_eval_scenes and trainer.is_world_process_zero():
        metrics = evaluate_geometry_encoder(
            model.eval(),
            num_scenes=encoder_args.num_eval_scenes,
            num_baseline_scenes=encoder_args.num_baseline_scenes,
        )
        save_metrics(metrics, Path(args.output_dir) / "metrics.json")
    return trainer
