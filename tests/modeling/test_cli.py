"""The `gap-mllm` command as a whole: help without the library, and what importing the library costs and registers."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

import gap_mllm_cli


TINY_MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"

HELP = """
import contextlib, io, json, sys
import gap_mllm_cli

commands = [[], *([name] for name in ("convert", "train", "train-geometry-encoder", "evaluate", "probe", "data"))]
commands += [["data", name] for name in ("list", "inspect", "convert", "label")]
pages = {}
for command in commands:
    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        gap_mllm_cli.main([*command, "--help"])
    pages[" ".join(command)] = page.getvalue()
print(json.dumps([pages, sorted({name.split(".")[0] for name in sys.modules})]))
"""

IMPORT = """
import json, sys
from transformers import AutoModelForPreTraining, AutoProcessor
before = set(sys.modules)
import gap_mllm
added = sorted({name.split(".")[0] for name in set(sys.modules) - before})
import transformers
config = transformers.AutoConfig.from_pretrained(sys.argv[1])
model = transformers.AutoModel.from_config(config)
print(json.dumps([added, type(config).__module__, type(model).__module__]))
"""


def run_python(code, *words):
    run = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_help_of_every_command_imports_neither_torch_nor_transformers_nor_the_package():
    pages, modules = run_python(HELP)
    assert not {"torch", "transformers", "numpy", "datasets", "gap_mllm"} & set(modules)
    assert all(page.startswith(f"usage: {f'gap-mllm {command}'.strip()}") for command, page in pages.items()), pages
    assert all(
        "on your data or on rendered rooms" in " ".join(pages[name].split()) for name in pages if "train" in name
    )
    assert "--teacher" in pages["data label"] and "--benchmark" in pages["evaluate"]


@pytest.mark.skipif(not TINY_MODEL.is_dir(), reason="examples/assets/tiny_gap_mllm is not there")
def test_import_loads_no_package_that_transformers_does_not_and_registers_our_classes():
    added, config_module, model_module = run_python(IMPORT, str(TINY_MODEL))
    assert set(added) <= {"gap_mllm", "transformers", "PIL", "_imagingft"}
    assert config_module == "gap_mllm.configuration_gap_mllm"
    assert model_module == "gap_mllm.modeling_gap_mllm"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("max_steps is 0;\n  expected 1"), "max_steps is 0; expected 1"),
        (FloatingPointError("The loss term 'text' is nan at step 3."), "The loss term 'text' is nan at step 3."),
        (MemoryError("Unable to allocate 9 TiB"), "Unable to allocate 9 TiB Use smaller batches"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "Tried to allocate 2 GiB Use smaller batches"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "can't allocate memory Use smaller",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            "Killed. A process of the data loader",
        ),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "(os error 28) Free some space"),
        (
            OSError(28, "No space left on device", "model.safetensors"),
            "'model.safetensors' Free some space (in",
        ),
        (OSError(errno.EDQUOT, "beyond what is allowed"), "beyond what is allowed Free some space"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"), "598 Free some space"),
        (
            torch.OutOfMemoryError("20 GiB"),
            "20 GiB Use smaller batches (in training,",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_of_arguments_files_and_machine_are_one_line(error, message, monkeypatch, capsys):
    monkeypatch.setattr("gap_mllm.conversion.cli.run_convert", raise_error(error))
    assert gap_mllm_cli.main(["convert", "a", "b"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gap-mllm: error: ") and message in line


@pytest.mark.parametrize("error", [TypeError("a"), IndexError("b"), RuntimeError("shapes differ")])
def test_faults_of_the_program_keep_their_traceback(error, monkeypatch):
    monkeypatch.setattr("gap_mllm.conversion.cli.run_convert", raise_error(error))
    with pytest.raises(type(error), match=str(error)):
        gap_mllm_cli.main(["convert", "a", "b"])


def raise_error(error):
    def run(args):
        raise error

    return run


@pytest.mark.parametrize(
    ("words", "script"),
    [
        (["ablate", "geometry_terms", "--output_dir", "out", "--max_steps", "3"], "ablate.py"),
        (["measure-rooms", "model", "--rooms", "test"], "measure_rooms.py"),
        (["probe", "model", "--at", "marks"], "probe_marks.py"),
    ],
)
def test_what_became_a_script_is_named(words, script, capsys):
    with pytest.raises(SystemExit) as ended:
        gap_mllm_cli.main(words)
    said = capsys.readouterr().err
    path = f"examples/experiments/{script}"
    assert ended.value.code == 2 and f"python {path}" in said.splitlines()[-1]
    assert (Path(__file__).parents[2] / path).is_file()


def test_the_one_value_that_is_left_of_a_flag_is_taken(capsys):
    with pytest.raises(SystemExit):
        gap_mllm_cli.main(["probe", "model", "--at", "tokens", "--help"])
    assert "--at" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        gap_mllm_cli.main(["probe", "model", "--at", "pixels"])
    assert "'pixels'; expected tokens" in capsys.readouterr().err
