"""Releases of transformers: which are taken, what is said of others, and what they lack. `make test-versions`."""

import importlib.util
import logging
from pathlib import Path

import pytest
import transformers

import gap_mllm
from gap_mllm.publishing_gap_mllm import TESTED_TRANSFORMERS, needed_from_transformers, sub_config_specs


FOLDER = Path(gap_mllm.__file__).parent


@pytest.fixture
def import_again(monkeypatch):
    """A function (name) -> a file of gap_mllm as another module, as after a fresh start."""
    transformers.utils.logging.warning_once.cache_clear()

    def load(name):
        spec = importlib.util.spec_from_file_location(f"gap_mllm.another_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def warnings_of():
    """A function (action) -> what was warned of meanwhile, by the logger that all copies of the file share."""

    def record(action):
        said = []
        handler = logging.Handler()
        handler.emit = lambda record: said.append(record.getMessage())
        logger = transformers.utils.logging.get_logger("gap_mllm")
        logger.addHandler(handler)
        try:
            action()
        finally:
            logger.removeHandler(handler)
        return said

    return record


@pytest.mark.parametrize("version", ["4.57.1", "5.18.0", "5.9.0"])
def test_an_older_release_is_refused_with_what_to_install(monkeypatch, import_again, version):
    monkeypatch.setattr(transformers, "__version__", version)
    with pytest.raises(ImportError, match=f">= 5.19.0, but {version} is installed. Run: pip install 'transformers>="):
        import_again("publishing_gap_mllm")


@pytest.mark.parametrize("version", ["5.23.1", "5.24.0.dev0", "6.0.0"])
def test_a_newer_release_is_warned_of_once(monkeypatch, import_again, warnings_of, version):
    monkeypatch.setattr(transformers, "__version__", version)
    first, second = (warnings_of(lambda: import_again("publishing_gap_mllm")) for _ in range(2))
    assert len(first) == 1 and not second
    assert first[0].startswith(f"transformers {version} is newer") and ", ".join(TESTED_TRANSFORMERS) in first[0]


@pytest.mark.parametrize("version", [*TESTED_TRANSFORMERS, "5.20.2"])
def test_nothing_is_said_of_a_release_between(monkeypatch, import_again, warnings_of, version):
    monkeypatch.setattr(transformers, "__version__", version)
    assert not warnings_of(lambda: import_again("publishing_gap_mllm"))


@pytest.mark.parametrize(
    ("file", "module", "symbol"),
    [
        ("configuration_gap_mllm", "models.qwen3_vl.configuration_qwen3_vl", "Qwen3VLVisionConfig"),
        ("patch_mergers_gap_mllm", "models.qwen3_vl.modeling_qwen3_vl", "Qwen3VLTextRMSNorm"),
        ("modeling_gap_mllm", "utils.generic", "accepts_precomputed_kwargs"),
        ("vggt_gap_mllm", "modeling_layers", "GradientCheckpointingLayer"),
    ],
)
def test_a_symbol_that_is_gone_is_named(monkeypatch, import_again, file, module, symbol):
    monkeypatch.delattr(importlib.import_module(f"transformers.{module}"), symbol)
    said = f"{symbol}.*transformers {transformers.__version__} does not have it.*pip install 'transformers>=5.19.0"
    with pytest.raises(ImportError, match=said):
        import_again(file)


def test_what_transformers_itself_lacks_is_left_as_it_is():
    with pytest.raises(ImportError, match="^No module named 'not_there'$"):
        with needed_from_transformers():
            import not_there  # noqa: F401


def test_parts_of_a_config_are_declared_in_the_form_of_the_release(monkeypatch):
    class Spec:  # of 5.20
        def __init__(self, config_class):
            self.config_class = config_class

    monkeypatch.setattr(transformers.configuration_utils, "SubConfigSpec", Spec, raising=False)
    assert sub_config_specs({"text_config": int})["text_config"].config_class is int
    monkeypatch.delattr(transformers.configuration_utils, "SubConfigSpec")  # 5.19
    assert sub_config_specs({"text_config": int}) == {"text_config": int}
