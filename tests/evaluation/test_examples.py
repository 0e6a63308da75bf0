"""The examples in the docstrings of the public functions of evaluation, run as they stand."""

import doctest
import inspect
from pathlib import Path

import pytest

import gap_mllm.evaluation
import gap_mllm.processing.scores
from gap_mllm.evaluation.metrics.table import TABLE


ASSETS = Path(__file__).parents[2] / "examples" / "assets"
FUNCTIONS = {
    name: getattr(module, name)
    for module in (gap_mllm.evaluation, gap_mllm.processing.scores)
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
}
FUNCTIONS |= {line.function.__name__: line.function for line in TABLE.values()}
NAMES = sorted(name for name in FUNCTIONS if name != "geometry_of_other_scenes")  # shown by evaluate_point_maps


@pytest.mark.parametrize("name", NAMES)
def test_example(name, tmp_path, monkeypatch):
    function = FUNCTIONS[name]
    folders = {"folder": ASSETS / "tiny_gap_mllm", "encoder_folder": ASSETS / "tiny_geometry_encoder"}
    text = inspect.getdoc(function)
    if "folder" in text and not all(path.is_dir() for path in folders.values()):
        pytest.skip("the shipped models are not there")
    monkeypatch.chdir(tmp_path)
    example = doctest.DocTestParser().get_doctest(text, dict(folders), name, function.__code__.co_filename, None)
    assert example.examples, "show how it is called"
    said = []
    assert doctest.DocTestRunner().run(example, out=said.append).failed == 0, "".join(said)
