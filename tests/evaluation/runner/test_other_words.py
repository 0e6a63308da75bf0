"""Answers in conventions of others, and lists with duplicates, scored by the runner."""

import json

import pytest

from gap_mllm.evaluation.benchmarks import find_benchmark
from gap_mllm.evaluation.runner import evaluate_model
from gap_mllm.evaluation.runner.other_words import in_our_words
from gap_mllm.evaluation.runner.questions import load_questions
from gap_mllm.processing import format_boxes
from gap_mllm.processing.boxes import ImagePoint, LabelledBox, convert, format_answer


@pytest.fixture(scope="module")
def detection(formats, cache_dir):
    return load_questions(find_benchmark("gap_mllm_detection"), formats / "gap_mllm", cache_dir=cache_dir)[0]


def write_predictions(path, texts):
    path.write_text("".join(json.dumps({"id": row_id, "text": text}) + "\n" for row_id, text in texts.items()))
    return path


def true_boxes(sample):
    """The true boxes of a question, as ours."""
    numbers = [convert(sample.box_in_view(box, 0), "embodiedscan", "ours") for box in sample.boxes]
    if {box.euler_order for box in sample.boxes} == {"zxy"}:
        numbers = [sample.box_in_view(box, 0) for box in sample.boxes]
    return [LabelledBox(box.label, tuple(map(float, each))) for box, each in zip(sample.boxes, numbers, strict=True)]


@pytest.mark.parametrize("name", ["ours", "qwen3-vl-text", "qwen3-vl-code", "seed1.5-vl", "gemini", "omni3d"])
def test_true_boxes_in_any_convention_are_right(name, detection, formats, cache_dir, tmp_path):
    texts = {row_id: format_answer(true_boxes(detection.sample(row_id)), name, decimals=6) for row_id in detection.ids}
    given = write_predictions(tmp_path / "given.jsonl", texts)
    options = {"data_dir": formats / "gap_mllm", "cache_dir": cache_dir, "baselines": [], "with_report": False}
    options |= {"predictions": given, "output": tmp_path, "answer_convention": name}
    metrics = evaluate_model(benchmark="gap_mllm_detection", **options)
    assert metrics["answer_convention"] == name
    assert metrics["scores"]["model"]["scene_f1"] == 1 and metrics["scores"]["model"]["num_unreadable"] == 0
    record = json.loads((tmp_path / "predictions.jsonl").read_text().splitlines()[0])
    assert record["answered"] == texts[record["id"]]


def test_hand_written_answers_of_others(detection):
    sample, benchmark = detection.sample(detection.ids[0]), find_benchmark("gap_mllm_detection")
    text = "chair: <3dbbox>0 0 2 1 1 1 0 0.5 0</3dbbox>\nbed: <3dbbox>1 2</3dbbox>\nsofa: <3dbbox>0 0 2"
    written, removed = in_our_words(benchmark, sample, text, "seed1.5-vl")
    read = benchmark.read(sample, written)["corrected"]
    assert read.labels == ("chair",) and read.truncated and removed == []
    assert "expected 9" in read.rejected[0].text
    assert in_our_words(benchmark, sample, "no idea", "seed1.5-vl") == ("no idea", [])  # not an empty list
    assert in_our_words(benchmark, sample, "[]", "qwen3-vl-text") == ("[]", [])


def test_duplicates_do_not_count_but_are_told(detection, formats, cache_dir, tmp_path):
    twice = {}
    for row_id in detection.ids:
        boxes = true_boxes(detection.sample(row_id)) * 2
        twice[row_id] = format_boxes([box.label for box in boxes], [box.bbox_3d for box in boxes], 6)
    given = write_predictions(tmp_path / "given.jsonl", twice)
    options = {"benchmark": "gap_mllm_detection", "data_dir": formats / "gap_mllm", "predictions": given}
    options |= {"cache_dir": cache_dir, "baselines": [], "with_report": False}
    before = evaluate_model(output=tmp_path / "before", **options)["scores"]["model"]
    after = evaluate_model(output=tmp_path / "after", duplicates_iou=0.5, **options)["scores"]["model"]
    assert before["scene_f1"] < 0.7 and after["scene_f1"] == 1 and after["num_rejected_objects"] == 0
    record = json.loads((tmp_path / "after" / "predictions.jsonl").read_text().splitlines()[0])
    assert record["removed"] and all("duplicate of object" in reason for reason in record["removed"])


@pytest.mark.parametrize("name", ["gemini", "molmo", "qwen3-vl-text", "spar"])
def test_points_in_pictures_are_lifted_by_the_rooms_depth(name, questions, rooms, tmp_path):
    texts = {}
    for row_id in questions.ids:
        sample = questions.sample(row_id)
        point, sizes = sample.points[0], [view.size for view in sample.views]
        view = 0 if name in ("gemini", "qwen3-vl-text") else point.view
        item = ImagePoint(point.label, view, tuple(float(value) for value in point.pixel))
        seen = {"image_size": sizes} | ({"depth_m": [each.depth_m for each in sample.views]} if name == "spar" else {})
        texts[row_id] = format_answer([item], name, **seen)
    given = write_predictions(tmp_path / "given.jsonl", texts)
    options = {"predictions": given, "output": tmp_path, "with_report": False, "baselines": [], **rooms}
    scores = evaluate_model(answer_convention=name, **options)["scores"]["model"]
    assert scores["num_unreadable"] == 0 and scores["label_accuracy"] == 1
    if name in ("molmo", "spar"):  # the others cannot say which view they mean
        assert scores["point_error_m"] < 0.05  # thousandths of 96 pixels, and depth of the nearest one


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"answer_convention": "nobody"}, "unknown convention 'nobody'; known for a point are ours"),
        ({"answer_convention": "omni3d"}, "omni3d.*has no point"),
        ({"answer_convention": "gemini", "benchmark": "vsibench"}, "neither boxes nor points"),
        ({"duplicates_iou": 0.5}, "are no lists of boxes"),
        ({"duplicates_iou": 2.0, "benchmark": "gap_mllm_detection"}, "iou is 2.0"),
        ({"constrained": True, "benchmark": "vsibench"}, "free text, which cannot be constrained"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        evaluate_model(model_path="nowhere", output=tmp_path, **arguments)


def test_answers_can_be_constrained(model_path, rooms, tmp_path):
    pytest.importorskip("xgrammar", reason="needs the extra grammar")
    options = {"baselines": [], "with_report": False, "show_progress": False, "device": "cpu", **rooms}
    metrics = evaluate_model(model_path, output=tmp_path, constrained=True, limit=2, **options)
    assert metrics["constrained"] is True and metrics["scores"]["model"]["parse_rate"] == 1
