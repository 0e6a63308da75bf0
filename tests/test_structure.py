"""How the folders depend on each other, read from the imports: processing <- modeling <- training <- evaluation."""

import ast
from collections import Counter
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
FOLDERS = {  # from left to right: a file imports from its own folder and from those before it
    "processing": "gap_mllm.processing",
    "modeling_gap_mllm": "gap_mllm",
    "training": "gap_mllm.training",
    "evaluation": "gap_mllm.evaluation",
}
ORDER = list(FOLDERS.values())
FILES = {folder: sorted((ROOT / folder).rglob("*.py")) for folder in FOLDERS}


def package_of(module):
    """The one of the four packages that a module belongs to, None for all others."""
    names = sorted(ORDER, key=len, reverse=True)
    return next((name for name in names if module == name or module.startswith(f"{name}.")), None)


def imported_modules(file, folder):
    """Line and absolute name of everything that a file imports, inside functions too."""
    package = [*FOLDERS[folder].split("."), *file.relative_to(ROOT / folder).parent.parts]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            # `from . import name` and `from gap_mllm import training` may name modules.
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_what_stands_left_of_it(folder):
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for file in FILES[folder]
        if "commands" not in file.parts and not file.name.startswith("cli")  # they tie the folders together
        for line, module in imported_modules(file, folder)
        if package_of(module) and ORDER.index(package_of(module)) > ORDER.index(FOLDERS[folder])
    ]
    assert not wrong, "pass in what is needed, as a scorer or a teacher"


def test_the_package_imports_nothing_of_examples():
    beside = ("examples", *(file.stem for file in (ROOT / "examples").glob("*/*.py")))
    names = {*beside, *(folder.name for folder in (ROOT / "examples" / "experiments").iterdir())}
    assert {"measure_rooms", "ablations", "harness", "gpu_checks", "time_trial"} <= names
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for folder in FOLDERS
        for file in FILES[folder]
        for line, module in imported_modules(file, folder)
        if module.partition(".")[0] in names
    ]
    assert not wrong, "what is not installed cannot be imported"


def test_remote_files_import_siblings_of_their_own_folder_only():
    files = [file for folder in FOLDERS for file in FILES[folder] if file.name.endswith("_gap_mllm.py")]
    assert len(files) > 10
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and (file.parent / f"{node.module}.py").is_file(), f"{file}:{node.lineno}"
                assert node.module.endswith("_gap_mllm"), f"{file}:{node.lineno}"


def test_no_file_name_is_there_twice():
    names = Counter(file.name for folder in FOLDERS for file in FILES[folder])
    twice = {name for name, count in names.items() if count > 1} - {"cli.py", "__init__.py"}
    assert not twice, "a name says which file is meant: give one of the two another"


def test_training_knows_sources_by_their_names():
    """Rooms are one of them: nothing of their renderer is imported, only `processing.data`."""
    own = ("gap_mllm.processing.data.rooms", "gap_mllm.processing.data.sources")
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for file in FILES["training"]
        for line, module in imported_modules(file, "training")
        if module.startswith(own) or module.rpartition(".")[2] in ("render_room", "render_split", "make_layout")
    ]
    assert not wrong, "load_multiview gives a source by its name"


def test_what_the_rule_reads():
    file = ROOT / "training" / "rooms.py"
    modules = {module for _, module in imported_modules(file, "training")}
    assert any(module.startswith("gap_mllm.processing.") for module in modules)
    assert package_of("gap_mllm.training.rooms") == "gap_mllm.training"
    assert package_of("gap_mllm.hub") == "gap_mllm" and package_of("torch") is None


TYPED_SHARE = dict.fromkeys(FOLDERS, 0.9)  # of the arguments of public functions


@pytest.mark.parametrize("folder", TYPED_SHARE)
def test_arguments_of_public_functions_have_types(folder):
    untyped, total = [], 0
    for file in FILES[folder]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                taken = [argument for argument in taken if argument.arg not in ("self", "cls")]
                total += len(taken)
                where = f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
                untyped += [f"{where}({argument.arg})" for argument in taken if argument.annotation is None]
    assert len(untyped) <= (1 - TYPED_SHARE[folder]) * total, untyped
