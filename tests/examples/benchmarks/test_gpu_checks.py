"""The table of a GPU, tried on the CPU: every step runs, and what is wrong fails."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from gap_mllm.training import layouts


SCRIPT = Path(__file__).parents[3] / "examples" / "benchmarks" / "gpu_checks.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("gpu_checks", SCRIPT)
    module = sys.modules["gpu_checks"] = importlib.util.module_from_spec(spec)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(script, monkeypatch):
    """A function (*flags) -> exit code."""

    def start(*flags):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, flags)])
        with pytest.raises(SystemExit) as ended:
            script.main()
        return ended.value.code

    return start


@pytest.fixture
def machine(script):
    return script.Machine(torch.device("cpu"), is_dry=True)


@pytest.mark.slow
def test_every_step_runs_dry(script, run, tmp_path):
    steps = [name for name in script.STEPS if name != "marked_tests"]
    assert run("--dry-run", "--output", tmp_path, "--steps", *steps) == 0
    written = json.loads((tmp_path / "gpu_checks.json").read_text())
    compared = [row["step"] for row in written["rows"] if row["limit"] is not None]
    assert set(compared) == {"precision", "attention", "layouts", "compiled"}
    assert {row["step"] for row in written["rows"]} == set(steps) and written["versions"]["torch"]
    values = {row["what"]: row["value"] for row in written["rows"] if row["step"] == "sizes"}
    assert round(values["language: parameters"] + values["vision: parameters"]) == 2128  # Qwen3-VL-2B
    speed = {row["what"]: row["value"] for row in written["rows"] if row["step"] == "training_speed"}
    whole, adapters = (speed[f"{name}, 1 views: work of a step"] for name in ("all weights", "LoRA"))
    assert 0.5 * whole < adapters < whole  # no gradients of the language model's weights
    assert {"roofline", "LoRA, 1 views: share of the roofline", "LoRA, 1 views: peak memory"} < speed.keys()
    assert "step, 2 views" in (tmp_path / "gpu_checks.md").read_text()


def test_documents_that_see_each_other_fail(script, machine, monkeypatch):
    def without_restarts(*given):
        batch = layouts.packed(*given)
        batch["position_ids"][0] = torch.arange(batch["position_ids"].shape[-1])
        return batch

    monkeypatch.setitem(layouts.LAYOUTS, "packed", without_restarts)
    rows = script.run_steps(machine, ["layouts"], 60)
    assert [row["ok"] for row in rows if row["limit"] and "block_mask" in row["what"]] == [True, True]
    assert not any(row["ok"] for row in rows if row["what"].startswith("packed"))


def test_a_step_that_fails_is_a_row_and_the_others_go_on(script, machine, monkeypatch):
    def broken(machine):
        yield script.row("before", 1.0, "s")
        raise RuntimeError("out of memory")

    monkeypatch.setitem(script.STEPS, "broken", broken)
    rows = script.run_steps(machine, ["broken", "sizes"], 60)
    assert [(row["what"], row["ok"]) for row in rows[:2]] == [("before", True), ("RuntimeError", False)]
    assert rows[-1]["step"] == "sizes" and "FAILED out of memory" in script.table(rows)
    assert script.run_steps(machine, ["sizes"], -1)[0] == {
        **{"step": "sizes", "what": "not run", "value": None, "unit": "", "limit": None},
        **{"ok": False, "note": "-1 s were over"},
    }


@pytest.mark.slow
def test_marked_tests_are_run(script, machine, monkeypatch, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_one.py").write_text(
        "import pytest\n\n@pytest.mark.gpu\ndef test_one():\n    assert False\n\ndef test_other():\n    pass\n"
    )
    monkeypatch.setattr(script, "ROOT", tmp_path)
    (row,) = script.marked_tests(machine)
    assert not row["ok"] and row["note"].startswith("1 failed, 1 deselected")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_machine_without_a_gpu_is_told_of_the_dry_run(run):
    assert "give --dry-run" in run()
