"""A tiny trained model, four rooms as a benchmark, and the command in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gap_mllm.evaluation.benchmarks import find_benchmark
from gap_mllm.evaluation.runner.models import load_model
from gap_mllm.evaluation.runner.questions import load_questions


ROOT = Path(__file__).parents[3]
MODEL = ROOT / "examples" / "assets" / "tiny_gap_mllm"
FORMATS = ROOT / "tests" / "fixtures" / "formats"
ROOMS = {"num_test": 4, "num_train": 4, "questions_per_task": 1, "height": 96, "width": 96}


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="session")
def model_path():
    return MODEL


@pytest.fixture(scope="session")
def formats():
    return FORMATS


@pytest.fixture(scope="session")
def rooms(cache_dir):
    """Options that make the benchmark of rooms small, and where its data is kept."""
    return {**ROOMS, "cache_dir": cache_dir}


@pytest.fixture(scope="session")
def loaded():
    return load_model(MODEL, "cpu")


@pytest.fixture(scope="session")
def questions(rooms):
    return load_questions(find_benchmark("synthetic_rooms"), **rooms)[0]


@pytest.fixture
def command_words(cache_dir):
    """A function (output, *words) -> words of `gap-mllm evaluate` on the small rooms, in batches of one question."""

    def words_for(output, *words):
        command = ["evaluate", "--model", str(MODEL), "--output", str(output), "--device", "cpu", "--batch-size", "1"]
        command += ["--cache-dir", str(cache_dir), "--no-report", *words]
        return command + [f"--option={key}={value}" for key, value in ROOMS.items()]

    return words_for


@pytest.fixture
def start_command(command_words):
    """A function (output, *words) -> `subprocess.Popen` of this command."""

    def start(output, *words):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        command = [sys.executable, "-m", "gap_mllm.cli", *command_words(output, *words)]
        return subprocess.Popen(command, env=environment, **pipes)

    return start
