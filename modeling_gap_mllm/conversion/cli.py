"""What `gap-mllm convert` does: released weights to a folder that `from_pretrained` loads."""

import argparse

from .converting import convert_base_models, convert_checkpoint


def run_convert(args: argparse.Namespace) -> None:
    """Check the two ways to call `gap-mllm convert`, and convert. Raises ValueError for any other way."""
    joins = args.qwen is not None or args.vggt is not None
    if joins and (args.qwen is None or args.vggt is None or len(args.folders) != 1 or args.geometry_config):
        raise ValueError("to join base models, give --qwen DIR --vggt DIR OUT, and no --geometry-config")
    if not joins and (len(args.folders) != 2 or args.fusion):
        raise ValueError("give SRC OUT, or --qwen DIR --vggt DIR OUT, which alone takes --fusion")
    if joins:
        fusion = {"method": args.fusion} if args.fusion else None
        output = convert_base_models(args.qwen, args.vggt, args.folders[0], fusion)
    else:
        output = convert_checkpoint(*args.folders, geometry_config=args.geometry_config)
    print(f"wrote {output}")
