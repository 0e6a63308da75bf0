"""The notebooks run from top to bottom, and are committed without outputs; `make test-notebooks` runs them all."""

import json
from pathlib import Path

import pytest


EXAMPLES = Path(__file__).parents[2] / "examples"
ASSETS = EXAMPLES / "assets"
NOTEBOOKS = sorted(EXAMPLES.glob("notebooks/*.ipynb"))

nbformat = pytest.importorskip("nbformat", reason="needs the extra dev")
needs_models = pytest.mark.skipif(not ASSETS.joinpath("tiny_gap_mllm").is_dir(), reason="examples/assets is not there")


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_committed_notebook_is_valid_and_has_no_outputs(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells and all(cell.outputs == [] and cell.execution_count is None for cell in cells)
    assert notebook.cells[0].source.startswith("# ")
    assert f"`notebooks/{file.name}`" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


class Ran:
    """A notebook that has run: its folder, and what its cells printed and showed, by their ids."""

    def __init__(self, folder, notebook):
        self.folder = folder
        self.outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}

    def text(self, cell) -> str:
        streams = [output for output in self.outputs[cell] if output.output_type == "stream"]
        return "".join(output.text for output in streams if output.name == "stdout")

    def num_pictures(self, *cells) -> int:
        return sum("image/png" in output.get("data", {}) for cell in cells for output in self.outputs[cell])


@pytest.fixture
def run_notebook(tmp_path, monkeypatch):
    """A function name -> `Ran`; it runs in an empty folder beside the assets."""
    nbclient = pytest.importorskip("nbclient", reason="needs the extra dev")

    def run(name) -> Ran:
        folder = tmp_path / "notebooks"
        folder.mkdir()
        (tmp_path / "assets").symlink_to(ASSETS)
        for key, value in {
            "HF_HUB_OFFLINE": "1",
            "HF_MODULES_CACHE": str(tmp_path / "modules"),
            "HF_DATASETS_CACHE": str(tmp_path / "datasets"),
            "OMP_NUM_THREADS": "1",
            "IPYTHONDIR": str(tmp_path / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
            "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, whatever the user has at home
        }.items():
            monkeypatch.setenv(key, value)
        notebook = nbformat.read(EXAMPLES / "notebooks" / f"{name}.ipynb", as_version=4)
        resources = {"metadata": {"path": str(folder)}}
        nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
        return Ran(folder, notebook)

    return run


@pytest.mark.slow
@needs_models
def test_photos_are_asked(run_notebook):
    ran = run_notebook("ask_your_photos")
    for name in ("ask-point", "ask-objects", "ask-box"):
        assert ran.text(name).count("answer:") == ran.text(name).count("truth:") == 1
    assert "SceneSession(4 views" in str(ran.outputs["open"][0]["data"])
    assert ran.text("ask-words").count(" -> ") == 2
    assert ran.num_pictures("render", "draw-answers") == 6


@needs_models
@pytest.mark.slow
def test_a_model_is_fine_tuned(run_notebook):
    ran = run_notebook("fine_tune_with_trainer")
    assert ran.text("train").startswith("12 steps") and ran.num_pictures("plot", "plot-aligned") == 2
    assert all(f"'loss_{name}'" in ran.text("train-aligned") for name in ("text", "point_map", "number"))
    assert "answer:" in ran.text("ask-room") and '"pointmap": [' in ran.text("ask-room").partition("truth:")[2]
    assert {"model.safetensors", "processor_config.json"} <= set(ran.text("save-model").split())


@needs_models
@pytest.mark.slow
def test_a_model_is_evaluated(run_notebook):
    ran = run_notebook("evaluate_and_plot")
    assert ran.text("run").startswith("24 questions") and "report.md" in ran.text("run")
    metrics = json.loads((ran.folder / "outputs" / "rooms" / "metrics.json").read_text())
    for name, line in zip(("model", "blind", "constant"), ran.text("figures").splitlines(), strict=True):
        assert line.startswith(name) and f"{metrics['scores'][name]['point_error_m']:.2f} m" in line
    assert "'share_nearer_ci95'" in ran.text("difference")
    assert ran.num_pictures("histogram", "plot-shares") == 3


@needs_models
@pytest.mark.slow
def test_adapters_learn_from_a_labelled_video(run_notebook):
    ran = run_notebook("lora_on_labelled_video")
    report = json.loads((ran.folder / "labels" / "label_report.json").read_text())
    assert report["num_views"] == 12 and report["is_metric"] and report["scale_factor"] == 1
    told = float(ran.text("label-video").split()[-1])
    assert told == round(report["errors_against_truth"]["point_m"], 2)
    assert "->" in ran.text("draw-questions") and ran.num_pictures("show-labels", "train-lora") == 2
    assert all(word in ran.text("ask-pixel") for word in ("before:", "after:", "truth:"))
    assert (ran.folder / "outputs" / "merged" / "model.safetensors").is_file()
