"""`gap-mllm train` and `gap-mllm train-geometry-encoder`: training by a recipe, whose keys are flags, too."""

import argparse


def add_train(subparsers) -> None:
    """Declare `gap-mllm train`; see `train_geometry_aligned`."""
    _add_recipe_command(
        subparsers, "train", "geometry-aligned pre-training on synthetic rooms or data from a recipe", run_train
    )


def run_train(args: argparse.Namespace) -> None:
    """Pre-train by a recipe; unknown flags are keys of the recipe."""
    from gap_mllm.training.train_geometry_aligned import train_geometry_aligned

    trainer, _ = train_geometry_aligned(args.recipe, args.overrides)
    print(f"wrote {trainer.args.output_dir}")


def add_train_geometry_encoder(subparsers) -> None:
    """Declare `gap-mllm train-geometry-encoder`; see `train_geometry_encoder`."""
    _add_recipe_command(
        subparsers,
        "train-geometry-encoder",
        "train a VGGT on synthetic rooms or data from a recipe",
        run_train_geometry_encoder,
    )


def run_train_geometry_encoder(args: argparse.Namespace) -> None:
    """Train an encoder by a recipe; measured on test rooms if the recipe says so."""
    from gap_mllm.evaluation.dense_points import evaluate_geometry_encoder
    from gap_mllm.training.train_geometry_encoder import train_geometry_encoder

    trainer = train_geometry_encoder(args.recipe, args.overrides, scorer=evaluate_geometry_encoder)
    print(f"wrote {trainer.args.output_dir}")


def _add_recipe_command(subparsers, name, text, run):
    parser = subparsers.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}. Every key of a recipe is a flag, too."
    )
    parser.add_argument("recipe", metavar="RECIPE", help="name of a recipe of the package, or a YAML file")
    parser.add_argument(
        "overrides", nargs=argparse.REMAINDER, metavar="--key value", help="values that replace the recipe's"
    )
    parser.set_defaults(run=run)


__all__ = ["add_train", "add_train_geometry_encoder", "run_train", "run_train_geometry_encoder"]
