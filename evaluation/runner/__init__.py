"""One command from a model and a benchmark to a folder of results: see evaluate_model.py."""

from .benchmarks import BENCHMARKS, Benchmark
from .evaluate_model import evaluate_model
from .json_stopping import JsonStopping, cut_after_json


__all__ = ["BENCHMARKS", "Benchmark", "JsonStopping", "cut_after_json", "evaluate_model"]
