"""The notebook runs from top to bottom, and is committed without outputs."""

import shutil
from pathlib import Path

import pytest


EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOK = EXAMPLES / "notebooks" / "inference.ipynb"
TINY_MODEL = EXAMPLES / "assets" / "tiny_gap_mllm"

nbformat = pytest.importorskip("nbformat", reason="needs the extra dev")


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_committed_notebook_is_valid_and_has_no_outputs(notebook):
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells and all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.skipif(not TINY_MODEL.is_dir(), reason="examples/assets/tiny_gap_mllm is not there")
def test_the_notebook_runs(notebook, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="needs the extra dev")
    folder = tmp_path / "notebooks"  # a copy, since the notebook writes a picture beside itself
    folder.mkdir()
    shutil.copytree(TINY_MODEL, tmp_path / "assets" / "tiny_gap_mllm")
    for name, value in {
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, whatever the user has at home
    }.items():
        monkeypatch.setenv(name, value)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook.copy(), timeout=300, kernel_name="python3", resources=resources).execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    for name in ("ask-point", "ask-box"):
        text = "".join(output.text for output in outputs[name] if output.output_type == "stream")
        assert all(word in text for word in ("answer:", "read as:", "truth:"))
    pictures = [output for name in ("render", "draw-answers") for output in outputs[name] if "data" in output]
    assert len(pictures) == 5 and all("image/png" in output.data for output in pictures)
    assert (folder / "answers.png").stat().st_size > 10_000
