"""Make links/: every source file under its import name, so that editors and pyright find `gap_mllm.processing`.

Run: python .ci/make_links.py (`make lint` does). Names and folders are those of setup.py. Folders are real and only
files are links, since pyright checks no file below a folder that is a link.
"""

import ast
import os
import shutil
import sys
from pathlib import Path


ROOT = Path(__file__).parents[1]


def package_folders() -> dict[str, str]:
    """Import name -> folder, as setup.py has them; read, since importing it would build."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    return ast.literal_eval(assigned["ROOTS"])


def make_links(folder: Path) -> None:
    """Make the tree anew: a link for each Python file, at the place that its import name says."""
    shutil.rmtree(folder, ignore_errors=True)  # removes links, not what they point to
    names = {ROOT / source: name.split(".") for name, source in package_folders().items()}
    for file in sorted(file for source in names for file in source.rglob("*.py")):
        source = next(parent for parent in file.parents if parent in names)  # the nearest: a package may hold another
        place = folder.joinpath(*names[source], file.relative_to(source))
        if not place.is_symlink():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(os.path.relpath(file, place.parent))


if __name__ == "__main__":
    make_links(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "links")
