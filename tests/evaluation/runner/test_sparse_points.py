"""The benchmark of several marks: the truth is right, the blind baselines run beside, bad rows are refused."""

from dataclasses import replace

import numpy as np
import pytest

from gap_mllm.evaluation.benchmarks import find_benchmark
from gap_mllm.evaluation.runner import evaluate_model
from gap_mllm.evaluation.runner.questions import load_questions
from gap_mllm.processing.answers_gap_mllm import format_points
from gap_mllm.processing.data.record_errors import RecordError


@pytest.fixture(scope="module")
def asked(rooms):
    return find_benchmark("sparse_points"), list(load_questions(find_benchmark("sparse_points"), **rooms)[0])


def test_the_truth_is_right_and_what_is_missing_is_counted(asked):
    benchmark, samples = asked
    metrics, records = benchmark.score(samples, [sample.answer for sample in samples])
    num_marks = sum(len(sample.marks) for sample in samples)
    assert (metrics["parse_rate"], metrics["near_share"], metrics["num_marks"]) == (1, 1, num_marks)
    assert metrics["point_error_m"] <= 0.0087 and metrics["num_missing"] == metrics["num_extra"] == 0
    assert all(len(record["parsed"]) == len(sample.marks) for record, sample in zip(records, samples, strict=True))
    short = [format_points([None], [sample.points[0].xyz]) for sample in samples]
    metrics, records = benchmark.score(samples, short)
    assert metrics["num_missing"] == num_marks - len(samples) and np.isinf(metrics["point_error_m"])
    assert records[0]["rejected"] == "missing"
    assert len(benchmark.draw(samples[0], records[0]["parsed"])) == 1


def test_labels_are_only_rated_where_they_are_asked_for(asked):
    benchmark, samples = asked
    bare = [replace(sample, points=tuple(replace(p, label=None) for p in sample.points)) for sample in samples]
    assert "label_accuracy" not in benchmark.score(bare, [sample.answer for sample in samples])[0]
    mixed = [samples[0], *bare[1:]]
    assert benchmark.score(mixed, [sample.answer for sample in samples])[0]["label_accuracy"] == 1


def test_rows_whose_marks_have_no_truth_are_refused(asked):
    benchmark, samples = asked
    for fields in ({"points": ()}, {"marks": (), "points": ()}, {"points": samples[0].points[1:]}):
        with pytest.raises(RecordError, match="expected one for each"):
            benchmark.check(replace(samples[0], **fields))


@pytest.mark.slow
def test_it_runs_beside_its_baselines(rooms, model_path, tmp_path):
    metrics = evaluate_model(
        model_path, "sparse_points", output=tmp_path, device="cpu", baselines=["constant", "blind"], limit=2,
        with_report=False, show_progress=False, **rooms,
    )  # fmt: skip
    assert set(metrics["scores"]) == {"model", "constant", "blind"}
    assert metrics["scores"]["constant"]["parse_rate"] == 1 and metrics["headline"] == "point_error_m"
