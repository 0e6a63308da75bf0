"""Read a `gap-mllm` command line, run its subcommand, and turn expected errors into one line and exit code 2."""

import argparse
import sys
from importlib import import_module

from .arguments import SCRIPTS, SUBCOMMANDS, parse_with_options
from .patient_streams import patient_output
from .user_errors import advice, error_line, is_user_error


def main(argv: list[str] | None = None) -> int:
    """Run `gap-mllm`; returns the exit code, 2 for an error of the user's arguments, files or machine.

    What cannot be printed, on a plain terminal or into a pipe that is closed, changes neither files nor exit code.
    """
    with patient_output():
        return _run(sys.argv[1:] if argv is None else argv)


def _run(words):
    parser = argparse.ArgumentParser(
        prog="gap-mllm",
        description="Convert, train, evaluate, probe and publish GAP-MLLM, and read data for it. "
        "Commands have --help, too.",
    )
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in SUBCOMMANDS:
        add(subparsers)
    if words and words[0] in SCRIPTS:
        parser.error(f"{words[0]} is a script of the repository: {SCRIPTS[words[0]]}")
    args, rest = parser.parse_known_args(words)
    has_options = getattr(args, "has_options", False)  # of a data source: flags that are known now
    if hasattr(args, "takes_more") and not any(word.startswith("-") for word in rest):
        # argparse takes no positional after a flag that stands between two
        getattr(args, args.takes_more).extend(rest)
    elif rest and not has_options:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        args = parse_with_options(words, args) if rest and has_options else args
        module, _, name = args.run.partition(":")
        getattr(import_module(module), name)(args)
    except Exception as error:
        if not is_user_error(error):
            raise
        print(f"gap-mllm: error: {error_line(error)} {advice(error)}".rstrip(), file=sys.stderr)
        return 2
    return 0
