"""Code of the documents, run: `make test-docs`.

Each document gets an empty folder with the repository's examples, pictures and a video (`given`). Its blocks run in
their order: python in one namespace, `gap-mllm` lines of bash as the command runs them, in this process; yaml is
read as a recipe. A comment in front of a block says otherwise:

    <!-- run with: --limit 2 -->           the commands of this block, with these further flags
    <!-- not run: needs weights -->        python is compiled, commands are read by the real parser, nothing runs
"""

import re
import shlex
from types import SimpleNamespace

import av
import pytest
import yaml
from PIL import Image
from transformers import HfArgumentParser

import gap_mllm_cli
import gap_mllm_cli.dispatch
from gap_mllm.evaluation.ablations.ablation import read_ablation
from gap_mllm.processing.data import render_room
from gap_mllm.training import GeometryAlignedTrainingArguments
from gap_mllm.training.recipe_sections import check_sections
from gap_mllm.training.recipes import read_recipe
from gap_mllm.training.train_geometry_aligned import GeometryAlignedModelArguments
from tests.test_repository import DOCUMENTS, ROOT, short


BLOCK = re.compile(r"(?:^<!-- ((?:not )?run.*?) -->\n+)?^```(python|bash|yaml)\n(.*?)^```", re.DOTALL | re.MULTILINE)
RUN = [file for file in DOCUMENTS if file.name not in ("CHANGELOG.md", "CONTRIBUTING.md")]
RUN = [file for file in RUN if any(BLOCK.finditer(file.read_text(encoding="utf-8")))]


def blocks_of(file):
    """Mark, language and code of each block that is not plain text."""
    return [match.groups(default="") for match in BLOCK.finditer(file.read_text(encoding="utf-8"))]


def commands_of(code):
    """The lines of a bash block that call gap-mllm, as words."""
    lines = (shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines())
    return [words[1:] for words in lines if words[:1] == ["gap-mllm"]]


def only_parse(words, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(gap_mllm_cli.dispatch, "import_module", lambda name: Nothing())
        assert gap_mllm_cli.main(words) == 0, words


class Nothing:
    """A module whose every function does nothing."""

    def __getattr__(self, name):
        return lambda args: None


def check_recipe(code, tmp_path):
    keys = yaml.safe_load(code)
    if "arms" in keys:
        read_ablation(keys)
        return
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(code + "geometry_encoder_path: encoder\noutput_dir: outputs\n", encoding="utf-8")
    parser = HfArgumentParser((GeometryAlignedModelArguments, GeometryAlignedTrainingArguments))
    check_sections(read_recipe(parser, recipe)[0])


@pytest.fixture(scope="session")
def given(tmp_path_factory):
    """The folder with examples, pictures of a room and a video of it; tests copy what lies in it as links."""
    folder = tmp_path_factory.mktemp("given")
    for name in ("examples", "training", "evaluation"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "my_photos").mkdir()
    pictures = [Image.fromarray(image).resize((640, 480)) for image in render_room(3).images]
    for number, picture in enumerate(pictures):
        picture.save(folder / f"view_{number}.jpg")
        picture.save(folder / "my_photos" / f"{number}.jpg")
    with av.open(folder / "room.mp4", "w") as video:
        stream = video.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(16):
            frame = av.VideoFrame.from_image(pictures[number % 4].resize((128, 96)))
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    return folder


@pytest.mark.docs
@pytest.mark.parametrize("file", RUN, ids=short)
def test_code_of_a_document_runs(file, given, tmp_path, monkeypatch):
    for path in given.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for mark, language, code in blocks_of(file):
        if language == "yaml":
            check_recipe(code, tmp_path)
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
            assert all(line.startswith("gap-mllm ") for line in lines), f"only gap-mllm runs, mark this block:\n{code}"


def test_marks_and_commands_are_found():
    text = "<!-- not run: needs weights -->\n```bash\ngap-mllm a \\\n    --b  # why\npip c\n```\n\n```python\nd\n```\n"
    found = blocks_of(SimpleNamespace(read_text=lambda encoding: text))
    assert [mark for mark, _, _ in found] == ["not run: needs weights", ""]
    assert commands_of(found[0][2]) == [["a", "--b"]]
