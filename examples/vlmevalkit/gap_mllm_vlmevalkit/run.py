"""`gap-mllm-vlmevalkit VLMEvalKit/run.py --config FILE`: the kit's own script, which then knows `GapMllm`.

VLMEvalKit finds classes of a config by their names in `vlmeval.vlm` and has no entry points, so that a model from
outside must be put there before its script starts.
"""

import runpy
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> None:
    """Start the kit's script with the model known.

    Args:
        arguments (`list[str]`, *optional*): path of the script, and what it is to be given; by default those of the
            command line.
    Raises:
        SystemExit: with what to do, without a script or the kit; and as the script.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or not Path(arguments[0]).is_file():
        raise SystemExit(
            "usage: gap-mllm-vlmevalkit path/to/VLMEvalKit/run.py --config FILE [ARGUMENTS OF THE SCRIPT]"
        )
    try:
        import vlmeval.vlm  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        if error.name != "vlmeval":
            raise
        raise SystemExit(
            "VLMEvalKit is not installed, and is not on PyPI: git clone "
            "https://github.com/open-compass/VLMEvalKit, then pip install -e VLMEvalKit."
        ) from None
    from .model import GapMllm

    vlmeval.vlm.GapMllm = GapMllm
    before = sys.argv, sys.path
    sys.argv, sys.path = list(arguments), [str(Path(arguments[0]).resolve().parent), *sys.path]
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    finally:
        sys.argv, sys.path = before


if __name__ == "__main__":
    main()
