"""Figures of the source: its size, its density, and what should be rare. Prints a table; nothing fails.

Usage: house.py. Statements are those of Python's ast but for docstrings; expression nodes are counted within them.
"""

import ast
import re
import subprocess
from pathlib import Path


ROOT = Path(__file__).parents[1]
FOLDERS = ("modeling_gap_mllm", "processing", "training", "evaluation")
WORDS = ("told", "tells", "askable", "stranger")


def main():
    files = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    statements = sum(count_statements(tree) for tree in trees.values())
    nodes = sum(isinstance(node, ast.expr) for tree in trees.values() for node in ast.walk(tree))
    arguments = [argument for tree in trees.values() for argument in arguments_of(tree)]
    typed = sum(argument.annotation is not None for argument in arguments)
    exporting = [file for file, tree in trees.items() if file.name != "__init__.py" and has_all(tree)]
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    copies = [name for name in kept if re.fullmatch(r"examples/assets/tiny_[^/]*/.*\.py", name)]
    words = [name for tree in trees.values() for name in names_of(tree) if set(name.lower().split("_")) & set(WORDS)]
    figures = {
        "files": len(files),
        "statements": statements,
        "expression nodes a statement": round(nodes / statements, 2),
        "typed arguments, %": round(100 * typed / len(arguments), 1),
        "Python files of examples/assets in git": len(copies),
        "recipe files": len(list((ROOT / "training" / "recipes").glob("*.yaml"))),
        "files with __all__ that are no __init__": len(exporting),
        f"identifiers with {', '.join(WORDS)}": len(words),
        "remote files": len([file for file in files if file.name.endswith("_gap_mllm.py")]),
    }
    for name, figure in figures.items():
        print(f"{name:50} {figure:>8}")


def count_statements(tree):
    """Statements but for docstrings."""
    docstrings = sum(
        ast.get_docstring(node, clean=False) is not None
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return sum(isinstance(node, ast.stmt) for node in ast.walk(tree)) - docstrings


def arguments_of(tree):
    """Arguments of all functions but `self` and `cls`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            yield from (each for each in every if each is not None and each.arg not in ("self", "cls"))


def has_all(tree):
    """Whether a module lists its names."""
    return any(isinstance(node, ast.Name) and node.id == "__all__" for node in ast.walk(tree))


def names_of(tree):
    """Identifiers of a module, each place that names one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


if __name__ == "__main__":
    main()
