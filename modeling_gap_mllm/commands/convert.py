"""`gap-mllm convert`: released weights to a folder that `from_pretrained` loads; see `gap_mllm.convert`."""

import argparse


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
    from gap_mllm.convert import convert_base_models, convert_checkpoint

    if joins:
        output = convert_base_models(args.qwen, args.vggt, args.folders[0])
    else:
        output = convert_checkpoint(*args.folders, geometry_config=args.geometry_config)
    print(f"wrote {output}")


__all__ = ["add_convert", "run_convert"]
