"""The `gap-mllm` command, imported as `gap_mllm_cli`: outside the package gap_mllm, whose import loads torch.

arguments.py says what a command line may hold, dispatch.py reads it and calls the function of a folder's cli.py that
the command names.
"""

from .dispatch import main


__all__ = ["main"]
