"""The `gap-mllm` command. Each subcommand calls one documented function and turns expected errors into one line.

A subcommand is one `add_*` function in `SUBCOMMANDS`: it declares its arguments, and sets `run` to a function that
takes the parsed arguments. Imports of the library stand inside `run`, so that `--help` answers at once.
"""

import argparse
import sys

from .cli_data import add_data, parse_with_options
from .cli_evaluate import add_evaluate


def add_convert(subparsers) -> None:
    """Declare `gap-mllm convert`; see `convert_checkpoint` and `convert_base_models`."""
    parser = subparsers.add_parser(
        "convert",
        help="convert released weights to a GAP-MLLM folder",
        usage="gap-mllm convert [--geometry-config FILE] SRC OUT\n       gap-mllm convert --qwen DIR --vggt DIR OUT",
        description="Convert a checkpoint of the reference release (SRC OUT), or join Qwen3-VL and VGGT "
        "(--qwen DIR --vggt DIR OUT), to a folder that from_pretrained loads.",
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="SRC, the checkpoint; OUT, the folder to write")
    parser.add_argument(
        "--geometry-config", metavar="FILE", help="JSON with VGGT's sizes; default: read off the weights"
    )
    parser.add_argument("--qwen", metavar="DIR", help="folder of Qwen3-VL")
    parser.add_argument("--vggt", metavar="DIR", help="folder or file of VGGT's weights")
    parser.set_defaults(run=run_convert)


def run_convert(args: argparse.Namespace) -> None:
    """Check the two ways to call `gap-mllm convert`, and convert. Raises ValueError for any other way."""
    joins = args.qwen is not None or args.vggt is not None
    if joins and (args.qwen is None or args.vggt is None or len(args.folders) != 1 or args.geometry_config):
        raise ValueError("to join base models, give --qwen DIR --vggt DIR OUT, and no --geometry-config")
    if not joins and len(args.folders) != 2:
        raise ValueError("give SRC OUT, or --qwen DIR --vggt DIR OUT")
    from .convert import convert_base_models, convert_checkpoint

    if joins:
        output = convert_base_models(args.qwen, args.vggt, args.folders[0])
    else:
        output = convert_checkpoint(*args.folders, geometry_config=args.geometry_config)
    print(f"wrote {output}")


def add_train(subparsers) -> None:
    """Declare `gap-mllm train`; see `train_geometry_aligned`."""
    _add_recipe_command(
        subparsers, "train", "geometry-aligned pre-training on synthetic rooms from a recipe", run_train
    )


def run_train(args: argparse.Namespace) -> None:
    """Pre-train by a recipe; unknown flags are keys of the recipe."""
    from .training.train_geometry_aligned import train_geometry_aligned

    trainer, _ = train_geometry_aligned(args.recipe, args.overrides)
    print(f"wrote {trainer.args.output_dir}")


def add_train_geometry_encoder(subparsers) -> None:
    """Declare `gap-mllm train-geometry-encoder`; see `train_geometry_encoder`."""
    _add_recipe_command(
        subparsers,
        "train-geometry-encoder",
        "train a VGGT on synthetic rooms from a recipe",
        run_train_geometry_encoder,
    )


def run_train_geometry_encoder(args: argparse.Namespace) -> None:
    """Train an encoder by a recipe; measured on test rooms if the recipe says so."""
    from .training.train_geometry_encoder import train_geometry_encoder

    trainer = train_geometry_encoder(args.recipe, args.overrides)
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


SUBCOMMANDS = (add_convert, add_train, add_train_geometry_encoder, add_evaluate, add_data)


def main(argv: list[str] | None = None) -> int:
    """Run `gap-mllm`; returns the exit code, 2 for an error of the user's arguments or files."""
    parser = argparse.ArgumentParser(prog="gap-mllm", description=__doc__.splitlines()[0])
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in SUBCOMMANDS:
        add(subparsers)
    words = sys.argv[1:] if argv is None else argv
    args, rest = parser.parse_known_args(words)
    has_options = getattr(args, "has_options", False)  # of a data source: flags that are known now
    if hasattr(args, "folders") and not any(word.startswith("-") for word in rest):
        args.folders += rest  # argparse takes no positional after a flag that stands between two
    elif rest and not has_options:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        args = parse_with_options(words, args) if rest and has_options else args
        args.run(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"gap-mllm: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
