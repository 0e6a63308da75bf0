"""One command from a model and a benchmark to a folder of results: see run.py."""

from ...processing.answer_grammar_gap_mllm import JsonStopping, cut_after_json
from ..benchmarks import BENCHMARKS, Benchmark
from .card import update_card
from .run import evaluate_model


__all__ = ["BENCHMARKS", "Benchmark", "JsonStopping", "cut_after_json", "evaluate_model", "update_card"]
