"""What `gap-mllm serve` does."""

import argparse

from .server import serve


def run_serve(args: argparse.Namespace) -> None:
    """Serve until Ctrl-C. Raises as `serve`."""
    names = ("host", "port", "device", "dtype", "attn_implementation", "log_level")
    serve(args.model, **{name: getattr(args, name) for name in names})
