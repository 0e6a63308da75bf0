"""A run of lmms-eval itself, in a process of its own."""

import glob
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.test_examples import ASSETS
from tests.test_structure import ROOT


EXAMPLE, MODEL = ROOT / "examples" / "lmms_eval", ASSETS / "tiny_gap_mllm"


def run_harness(task: str, folder: Path, output: Path, batch_size: int) -> tuple[dict, list[dict]]:
    """Let the tiny model answer a task, with the plug-in as an install would leave it.

    Args:
        task (`str`): name of the task.
        folder (`Path`): folder of its YAML file.
        output (`Path`): where the harness writes.
        batch_size (`int`): questions at a time.
    Returns:
        `tuple[dict, list[dict]]`: the task's figures, and its samples in their order.
    """
    plugin = output / "plugin"
    info = plugin / "gap_mllm_lmms_eval-0.1.0.dist-info"
    info.mkdir(parents=True)
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    entry = project["entry-points"]["lmms_eval.models"]["gap_mllm"]
    (info / "entry_points.txt").write_text(f"[lmms_eval.models]\ngap_mllm = {entry}\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(output / "hf")}
    environment["PYTHONPATH"] = os.pathsep.join([str(plugin), str(EXAMPLE), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "lmms_eval", "--model", "gap_mllm", "--model_args", f"pretrained={MODEL}"]
    command += ["--tasks", task, "--include_path", str(folder), "--batch_size", str(batch_size), "--device", "cpu"]
    command += ["--log_samples", "--output_path", str(output / "results")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=output)
    assert done.returncode == 0, done.stdout + done.stderr
    found = glob.glob(f"{output}/results/**/*_results.json", recursive=True)
    assert len(found) == 1, done.stdout + done.stderr  # it ends with 0 where a task fails
    (samples,) = glob.glob(f"{output}/results/**/*_samples_{task}.jsonl", recursive=True)
    lines = Path(samples).read_text().splitlines()
    return json.loads(Path(found[0]).read_text())["results"][task], [json.loads(line) for line in lines]
