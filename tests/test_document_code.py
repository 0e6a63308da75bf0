"""Code of the documents, run: `make test-docs`.

Each document gets a fresh clone (`clone`): what git keeps, and nothing else, so that a reader has all that a block
opens. Its blocks run there in their order: python in one namespace, `gap-mllm` lines of bash as the command runs them,
in this process; yaml is read as a recipe. A comment in front of a block says otherwise:

    <!-- run with: --limit 2 -->           the commands of this block, with these further flags
    <!-- not run: needs weights -->        python is compiled, commands are read by the real parser, nothing runs
"""

import re
import shlex
import subprocess
from types import SimpleNamespace

import pytest
import yaml
from transformers import HfArgumentParser

import gap_mllm_cli
import gap_mllm_cli.dispatch
from gap_mllm.training import GeometryAlignedTrainingArguments
from gap_mllm.training.recipe_sections import check_sections
from gap_mllm.training.recipes import read_recipe
from gap_mllm.training.train_geometry_aligned import GeometryAlignedModelArguments
from tests.test_repository import DOCUMENTS, ROOT, short


BLOCK = re.compile(r"(?:^<!-- ((?:not )?run.*?) -->\n+)?^```(python|bash|yaml)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMANDS = (["gap-mllm"], [".venv/bin/gap-mllm"])
RUN = [file for file in DOCUMENTS if file.name not in ("CHANGELOG.md", "CONTRIBUTING.md")]
RUN = [file for file in RUN if any(BLOCK.finditer(file.read_text(encoding="utf-8")))]


def blocks_of(file):
    """Mark, language and code of each block that is not plain text."""
    return [match.groups(default="") for match in BLOCK.finditer(file.read_text(encoding="utf-8"))]


def commands_of(code):
    """The lines of a bash block that call gap-mllm, by its name or where `make install` puts it, as words."""
    lines = (shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines())
    return [words[1:] for words in lines if words[:1] in COMMANDS]


def only_parse(words, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(gap_mllm_cli.dispatch, "import_module", lambda name: Nothing())
        assert gap_mllm_cli.main(words) == 0, words


class Nothing:
    """A module whose every function does nothing."""

    def __getattr__(self, name):
        return lambda args: None


def check_recipe(code, tmp_path, monkeypatch):
    keys = yaml.safe_load(code)
    if "arms" in keys:
        monkeypatch.syspath_prepend(str(ROOT / "examples" / "experiments"))
        from ablations import read_ablation

        read_ablation(keys)
        return
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(code + "geometry_encoder_path: encoder\noutput_dir: outputs\n", encoding="utf-8")
    parser = HfArgumentParser((GeometryAlignedModelArguments, GeometryAlignedTrainingArguments))
    check_sections(read_recipe(parser, recipe)[0])


def kept_files(root):
    """What git keeps of a checkout, as paths from its root; without git, all but what tests and trainings write."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
        return [name for name in listed.split("\0") if (root / name).is_file()]
    except (OSError, subprocess.CalledProcessError):
        places = [root / name for name in ("docs", "examples", "training", "evaluation", "tests")]
        files = [file for place in places for file in place.rglob("*") if file.is_file()]
        return [file.relative_to(root).as_posix() for file in files]


@pytest.fixture
def clone(tmp_path):
    """A fresh clone of the repository, of links to its files; what a block writes there stays there.

    With the code of the shipped folders, which `make install` writes.
    """
    code = (str(file.relative_to(ROOT)) for file in ROOT.glob("examples/assets/tiny_*/*.py"))
    for name in {*kept_files(ROOT), *code}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.docs
@pytest.mark.parametrize("file", RUN, ids=short)
def test_code_of_a_document_runs(file, clone, monkeypatch):
    monkeypatch.chdir(clone)
    names = {"__name__": "__main__"}
    for mark, language, code in blocks_of(file):
        if language == "yaml":
            check_recipe(code, clone, monkeypatch)
        elif language == "python":
            block = compile(code, short(file), "exec")
            if not mark:
                exec(block, names)
        for words in commands_of(code) if language == "bash" else []:
            if mark.startswith("not run"):
                only_parse(words, monkeypatch)
            else:
                further = shlex.split(mark.removeprefix("run with:"))
                assert gap_mllm_cli.main([*words, *further]) == 0, words


@pytest.mark.parametrize("file", RUN, ids=short)
def test_what_is_not_run_says_why(file):
    for mark, language, code in blocks_of(file):
        assert not mark or re.fullmatch(r"run with: --.*|not run: \S+ \w+.*", mark), f"{mark!r}: say why"
        lines = [line for line in code.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
        if language == "bash" and not mark.startswith("not run"):
            others = [line for line in lines if line.split()[:1] not in COMMANDS]
            assert not others, f"only gap-mllm runs, mark this block:\n{code}"


def test_marks_and_commands_are_found():
    bash = "gap-mllm a \\\n    --b  # why\n.venv/bin/gap-mllm d\npip c\n"
    text = f"<!-- not run: needs weights -->\n```bash\n{bash}```\n\n```python\nd\n```\n"
    found = blocks_of(SimpleNamespace(read_text=lambda encoding: text))
    assert [mark for mark, _, _ in found] == ["not run: needs weights", ""]
    assert commands_of(found[0][2]) == [["a", "--b"], ["d"]]
