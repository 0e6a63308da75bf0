"""The `gap-mllm` command, imported as `gap_mllm_cli`: outside the package gap_mllm, whose import loads torch.

So `--help` and errors in a command line answer at once. A subcommand is one file with an `add_*` function, which
declares its arguments and sets `run`; what it needs of gap_mllm is imported inside `run`.
"""

from .dispatch import SUBCOMMANDS, main


__all__ = ["SUBCOMMANDS", "main"]
