"""Documents: links, paths, names, commands, code and recipes in them are there, and figures agree."""

import ast
import fnmatch
import importlib
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import HfArgumentParser

import gap_mllm
import gap_mllm_cli
from gap_mllm.evaluation.benchmarks import BENCHMARKS
from gap_mllm.processing.data.sources import RENDERED, SOURCES
from gap_mllm.processing.data.task_makers import TASK_MAKERS
from gap_mllm.training import GeometryAlignedTrainingArguments
from gap_mllm.training.recipe_sections import check_sections
from gap_mllm.training.recipes import read_recipe
from gap_mllm.training.train_geometry_aligned import GeometryAlignedModelArguments
from gap_mllm_cli.arguments import SUBCOMMANDS
from tests.test_repository import DOCUMENTS, FOLDERS, ROOT, short


def code_blocks(file, language):
    return re.findall(rf"^```{language}\n(.*?)^```", file.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("file", DOCUMENTS, ids=short)
def test_document(file):
    text = file.read_text(encoding="utf-8")
    for block in code_blocks(file, "python"):
        compile(block, short(file), "exec")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        # Weights and pictures are made by the demo, and may not have been made yet.
        assert (file.parent / target).exists() or target.startswith("examples/assets/"), target


@pytest.fixture(scope="module")
def sources():
    """Paths of all files and folders, the text of all code but this file, and the words in it."""
    kinds = ("*.py", "*.yaml", "*.toml", "Makefile", ".gitignore", "constraints.txt", ".ci/run")
    places = (".ci", "docs", "examples", "tests", *FOLDERS)
    files = [*ROOT.glob("*"), *(file for place in places for file in (ROOT / place).rglob("*"))]
    paths = {"/" + short(file) for file in files if "__pycache__" not in file.parts}
    code = [file for file in files if file.is_file() and any(file.match(kind) for kind in kinds)]
    text = "\n".join(file.read_text(encoding="utf-8") for file in code if file != Path(__file__))
    return paths, text, set(re.findall(r"\w+", text))


def unknown_names(text, paths, code, words):
    """What stands in backticks outside of fences, and is neither a path nor a word of the code."""
    unknown = []
    for quoted in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)):
        quoted = re.sub(r"<\w+>|\.\.(?=_)", "*", quoted)
        if re.fullmatch(r"[\w.*-]*/[\w./*-]*|[\w*-]+\.(py|md|yaml|jsonl?|png|ipynb)", quoted):
            if not (quoted in code or fnmatch.filter(paths, f"*/{quoted.rstrip('/')}")):
                unknown.append(quoted)
        else:
            for word in re.findall(r"[\w*]{3,}", quoted):
                if not (word in words or word.isdigit() or "*" in word and fnmatch.filter(words, word)):
                    unknown.append(word)
    return unknown


OF_TODAY_AND_OURS = [file for file in DOCUMENTS if file.name != "CHANGELOG.md" and "lmms_eval" not in file.parts]


@pytest.mark.parametrize("file", OF_TODAY_AND_OURS, ids=short)
def test_names_in_documents_exist(file, sources):
    """Paths are there, or code writes them; words stand in code."""
    text = re.sub(r"^Not there yet:.*?^## ", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    unknown = [name for name in unknown_names(text, *sources) if not name.startswith("outputs/")]
    assert not unknown, "names and paths in documents are those of the code"


def test_what_is_not_there_is_found(sources):
    text = "`processing/layout.py` `rooms/layout.py` `lay_out_.py` `SceneSample.opened_(rows, i)` `data: {name_: x}`"
    assert unknown_names(text, *sources) == ["processing/layout.py", "lay_out_.py", "opened_", "name_"]


def test_commands_of_documents_exist():
    shell = "\n".join(block for file in DOCUMENTS for block in code_blocks(file, "bash"))
    shell += "\n" + "\n".join(quoted for file in DOCUMENTS for quoted in re.findall(r"`([^`\n]+)`", file.read_text()))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([\w-]+)", shell, re.MULTILINE)) <= targets
    for command in set(re.findall(r"^gap-mllm ([\w-]+)", shell, re.MULTILINE)):
        with pytest.raises(SystemExit) as ended:
            gap_mllm_cli.main([command, "--help"])
        assert ended.value.code == 0, command
    for script in set(re.findall(r"^(?:python|bash) ([\w./]+)", shell, re.MULTILINE)):
        assert (ROOT / script).is_file(), script
    for snippet in re.findall(r"python -c \"([^\"]+)\"", shell):
        compile(snippet, "documents", "exec")


def test_names_that_documents_import_exist():
    for document in DOCUMENTS:
        for block in code_blocks(document, "python"):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom):
                    module = importlib.import_module(node.module)
                    assert all(hasattr(module, alias.name) for alias in node.names)


def test_the_documents_name_every_source_and_benchmark():
    text = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("data.md", "evaluation.md"))
    names = {*SOURCES, *RENDERED, *(name.removesuffix("_two_stage") for name in BENCHMARKS)}
    assert not [name for name in sorted(names) if f"`{name}`" not in text]


@pytest.mark.parametrize("block", code_blocks(ROOT / "docs" / "data.md", "yaml"))
def test_recipes_in_documents_are_read(block, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(block + "geometry_encoder_path: encoder\noutput_dir: outputs\n", encoding="utf-8")
    parser = HfArgumentParser((GeometryAlignedModelArguments, GeometryAlignedTrainingArguments))
    arguments, _ = read_recipe(parser, recipe)
    check_sections(arguments)
    assert set(arguments.scene_tasks["tasks"]) <= set(TASK_MAKERS)


def test_the_model_card_has_the_figures_of_the_documents():
    table = (ROOT / "docs" / "performance.md").read_text()
    figures = [line for line in table.splitlines() if line.endswith("| `make demo` |")]
    card = re.findall(r"^\| .*\d \[.*\|$", (ROOT / "model_card.md").read_text(), re.MULTILINE)
    assert len(card) == 3 and all(any(figure.startswith(line) for figure in figures) for line in card)


def test_model_card_is_one_that_the_hub_reads():
    card = ModelCard.load(ROOT / "model_card.md")
    data = card.data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "image-text-to-text")
    assert data.base_model == "Qwen/Qwen3-VL-2B-Instruct"
    assert data.license == "other" and data.license_name and data.license_link.startswith("https://")
    assert {"gap-mllm", "qwen3_vl", "vggt", "custom_code"} <= set(data.tags)
    for word in ("CC BY-NC 4.0", "Apache-2.0", "2603.16461", "Limits", "Training data"):
        assert word in card.text


def test_the_index_names_every_page_and_the_readme_every_command():
    index, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/README.md", "README.md"))
    pages = [file.name for file in (ROOT / "docs").glob("*.md") if file.name != "README.md"]
    assert not [name for name in pages if f"({name})" not in index]
    commands = [add.__name__.removeprefix("add_").replace("_", "-") for add in SUBCOMMANDS]
    assert not [name for name in commands if f"`{name}`" not in readme]
    assert len(readme.splitlines()) <= 155, "what a newcomer needs in five minutes; the rest is a page of docs/"


def test_changelog_names_this_version():
    assert f"## [{gap_mllm.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
