"""The examples in docstrings, run as they stand, each in an empty folder; every public function and class has one.

Public is what `__all__` of a folder's `__init__.py` exports, and every function behind `load_metric`. An example may
use a few names that it does not make: `folder` (a GAP-MLLM), `encoder_folder` (a VGGT), `qwen_folder` (a Qwen3-VL) and
`checkpoint_folder` (one of the reference release).
"""

import dataclasses
import doctest
import importlib
import inspect
import re

import pytest
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from gap_mllm import GapMllmConfig
from gap_mllm.evaluation.metrics.table import TABLE
from gap_mllm.processing import build_tiny_tokenizer
from tests.slow_cases import slow_but
from tests.test_structure import FILES, FOLDERS, ROOT


ASSETS = ROOT / "examples" / "assets"
GIVEN = {
    "folder": ASSETS / "tiny_gap_mllm",
    "encoder_folder": ASSETS / "tiny_geometry_encoder",
    "checkpoint_folder": ROOT / "tests" / "fixtures" / "gap_reference" / "checkpoint",
}


def modules(folder):
    """The modules of a folder by file, but for the command line, which is no part of `gap_mllm`."""
    for file in FILES[folder]:
        parts = file.relative_to(ROOT / folder).with_suffix("").parts
        if "commands" not in parts:
            yield file, importlib.import_module(".".join([FOLDERS[folder], *parts]).removesuffix(".__init__"))


def is_code(thing) -> bool:
    return inspect.isfunction(thing) or inspect.isclass(thing)


def is_shown_by_others(thing) -> bool:
    """Errors, plain records and protocols: the functions that raise, return or take them show them."""
    is_record = dataclasses.is_dataclass(thing) or getattr(thing, "_is_protocol", False)
    return inspect.isclass(thing) and (is_record or issubclass(thing, Exception))


def examples_of(thing) -> list[doctest.DocTest]:
    """The examples of a function or class, and of its methods."""
    return [each for each in doctest.DocTestFinder().find(thing, thing.__qualname__, globs={}) if each.examples]


PUBLIC, ALL = {line.function for line in TABLE.values()}, set()
for _folder in FOLDERS:
    for _file, _module in modules(_folder):
        ALL |= {thing for thing in vars(_module).values() if is_code(thing) and thing.__module__ == _module.__name__}
        if _file.name == "__init__.py":
            exported = (getattr(_module, name) for name in getattr(_module, "__all__", ()))
            PUBLIC |= {thing for thing in exported if is_code(thing)}
RUN = [thing for thing in PUBLIC | ALL if examples_of(thing) or thing in PUBLIC and not is_shown_by_others(thing)]
RUN = {f"{thing.__module__.removeprefix('gap_mllm.')}.{thing.__qualname__}": thing for thing in RUN}
WHOLE_RUNS = {  # whole trainings, evaluations and uploads, which tests of their own run smaller; slow
    "evaluation.dense_points.evaluate_geometry_encoder",
    "evaluation.probing.gate_maps.gate_maps",
    "evaluation.probing.probe_model.probe_model",
    "evaluation.probing.run_relation.relate_run",
    "evaluation.runner.run.evaluate_model",
    "processing.data.video_labels.labelling.label_video",
    "processing.scene_3d.colmap_reader.read_colmap",
    "processing.scene_3d.point_files.write_colmap",
    "pushing.uploading.push_folder",
    "serving.scene_encoder.to_serving",
    "training.dry_run.dry_run_recipe",
    "training.frozen_geometry.FrozenGeometry",
    "training.geometry_aligned_trainer.GeometryAlignedTrainer",
    "training.geometry_encoder_trainer.GeometryEncoderTrainer",
}


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory):
    torch.manual_seed(0)
    ours, path = GapMllmConfig.from_pretrained(GIVEN["folder"]), tmp_path_factory.mktemp("qwen")
    ids = {name: value for name, value in ours.to_dict().items() if name.endswith("_token_id")}
    parts = {"text_config": ours.text_config.to_dict(), "vision_config": ours.vision_config.to_dict()}
    Qwen3VLForConditionalGeneration(Qwen3VLConfig(**parts, **ids, tie_word_embeddings=True)).save_pretrained(path)
    build_tiny_tokenizer().save_pretrained(path)
    return path


@pytest.mark.parametrize("name", slow_but(set(RUN) - WHOLE_RUNS, sorted(RUN)))
def test_example(name, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    examples = examples_of(RUN[name])
    assert examples, "show how it is called"
    for example in examples:
        if "folder" in example.docstring and not all(path.is_dir() for path in GIVEN.values()):
            pytest.skip("the shipped models are not there")
        example.globs.update(GIVEN)
        if "qwen_folder" in example.docstring:
            example.globs["qwen_folder"] = request.getfixturevalue("qwen_folder")
        said = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        assert runner.run(example, out=said.append).failed == 0, "".join(said)


def test_what_needs_an_example():
    names = {thing.__name__ for thing in RUN.values()}
    assert set(RUN) > WHOLE_RUNS
    assert {"GapMllmModel", "load_multiview", "SceneCollator", "evaluate_model", "box_iou_9dof"} <= names
    assert {thing.__name__ for thing in PUBLIC} - names >= {"RecordError", "LabelledBox", "Teacher"}
    assert all(inspect.isclass(thing) for thing in PUBLIC - set(RUN.values()))


@pytest.mark.parametrize("folder", FOLDERS)
def test_code_in_docstrings_is_run(folder):
    for file in FILES[folder]:
        shown = re.findall(r"^ +```python\n(.*)", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert all(line.lstrip().startswith(">>> ") for line in shown), f"{file}: begin lines of code with >>>"
