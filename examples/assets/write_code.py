"""Write the code of the shipped model folders, which git does not keep: `python examples/assets/write_code.py`.

The folders then load with `trust_remote_code=True` where this package is not installed, as they do from the Hub. The
files are those that `save_pretrained` writes; `make install` does this by itself.
"""

import tempfile
from pathlib import Path

from gap_mllm import GapMllmConfig, GapMllmProcessor, GapMllmVggtConfig


ASSETS = Path(__file__).parent
KINDS = {"tiny_gap_mllm": (GapMllmConfig, GapMllmProcessor), "tiny_geometry_encoder": (GapMllmVggtConfig,)}


def code_of(name: str) -> dict[str, bytes]:
    """The code that a saved folder has.

    Args:
        name (`str`): name of a folder beside this file.
    Returns:
        `dict[str, bytes]`: contents by name of the file.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for kind in KINDS[name]:
            kind.from_pretrained(ASSETS / name).save_pretrained(scratch)
        return {file.name: file.read_bytes() for file in Path(scratch).glob("*.py")}


def write_code() -> None:
    """Write what is missing or of another version, and remove what is no longer saved."""
    for name in KINDS:
        code, folder = code_of(name), ASSETS / name
        for file in folder.glob("*.py"):
            if file.name not in code:
                file.unlink()
        for file, content in code.items():
            path = folder / file
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)


if __name__ == "__main__":
    write_code()
