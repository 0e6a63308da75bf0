"""What every metric does with wrong references, ids, options and predictions."""

import copy
import math

import numpy as np
import pytest

from gap_mllm.evaluation.metrics import METRICS, load_metric
from tests.evaluation.metrics.examples import GOOD, POSES


MAY_LACK = {"captions": ("iou",), "grounding3d": ("axis_align_matrix",)}
MAY_BE_EMPTY = {
    "detection3d": ("boxes",),
    "grounding3d": ("axis_align_matrix",),
    "multi3drefer": (),
    "scanqa": ("answers",),
}
NAMED = r"(?s)^(reference|question|scene|map|item) 1\b.*(expected |give )"
OTHER_KINDS = (None, math.nan, math.inf, True, 7.5, "zzz", [], {}, ["x"], b"x")


@pytest.fixture(scope="module")
def metrics():
    return {name: load_metric(name) for name in METRICS}


def places(reference, path=()):
    """Every place of a reference: itself, its keys, the first entry of each list."""
    yield path
    inner = reference.items() if isinstance(reference, dict) else [(0, reference[0])] if _is_list(reference) else []
    for key, value in inner:
        yield from places(value, (*path, key))


def _is_list(value):
    return isinstance(value, list) and bool(value)


def value_at(reference, path):
    for key in path:
        reference = reference[key]
    return reference


def put(reference, path, value):
    """A copy with another value at a place."""
    if not path:
        return value
    reference = copy.deepcopy(reference)
    holder = value_at(reference, path[:-1])
    if isinstance(value, str) and value == "missing":
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return reference


def compute(metrics, name, predictions, references, **options):
    return metrics[name].compute(
        predictions=predictions, references=references, **({"meteor": False} if name == "captions" else {}), **options
    )


def test_all_metrics_are_tried():
    assert set(GOOD) == set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_a_missing_key_is_named(metrics, name):
    prediction, reference = GOOD[name]
    for path in places(reference):
        if not path or isinstance(path[-1], int) or path[-1] in MAY_LACK.get(name, ()):
            continue
        wrong = put(reference, path, "missing")
        with pytest.raises(ValueError, match=rf"^reference 1(, .*)? has no '{path[-1]}'; expected "):
            compute(metrics, name, [prediction] * 2, [reference, wrong])
        with pytest.raises(ValueError, match=rf"^reference 1 \(id 'b'\)(, .*)? has no '{path[-1]}'"):
            compute(metrics, name, [prediction] * 2, [reference, wrong], ids=["a", "b"])


@pytest.mark.parametrize("name", METRICS)
def test_another_kind_of_value_is_named(metrics, name):
    prediction, reference = GOOD[name]
    for path in places(reference):
        for value in OTHER_KINDS:
            if is_allowed(name, path, value, value_at(reference, path)):
                continue
            references = [reference, put(reference, path, value)]
            with pytest.raises(ValueError, match=NAMED):
                compute(metrics, name, [prediction] * 2, references)
            with pytest.raises(ValueError, match=r"(?s)^reference 1 \(id 'b'\).*(expected |give )"):
                compute(metrics, name, [prediction] * 2, references, ids=["a", "b"])


def is_allowed(name, path, value, there):
    """Whether a value is as good as the one that is there, or means that there is none."""
    is_number = isinstance(value, float) and math.isfinite(value)
    if is_number and isinstance(there, float):
        return name != "captions"  # an overlap is at most 1
    if isinstance(value, str):
        return isinstance(there, str)
    if value == ["x"]:
        return isinstance(there, list) and bool(there) and isinstance(there[0], str)
    if value == []:
        return path == MAY_BE_EMPTY.get(name)
    is_unknown = value is None or isinstance(value, float)
    if name == "grounding3d" and path == ("camera_to_world", 0, 0, 0):
        return is_unknown  # tracking was lost
    if name == "depth" and path == (0, 0):
        return is_unknown  # nothing was measured
    return value is None and path == MAY_LACK.get(name)


@pytest.mark.parametrize("name", METRICS)
def test_ids_pair_predictions_with_references(metrics, name):
    prediction, reference = GOOD[name]
    given = {"predictions": [prediction, None], "references": [reference] * 2}
    compute(metrics, name, **given, ids=["b", "a"], prediction_ids=["a", "b"])
    with pytest.raises(ValueError, match="ids has 1 ids more than once"):
        compute(metrics, name, **given, ids=["a", "a"])
    with pytest.raises(ValueError, match="prediction_ids has 1 ids more than once"):
        compute(metrics, name, **given, ids=["a", "b"], prediction_ids=["a", "a"])
    with pytest.raises(ValueError, match=r"lack 1 of 2 ids of the references \('b'\) and have 1 others \('c'\)"):
        compute(metrics, name, **given, ids=["a", "b"], prediction_ids=["a", "c"])
    with pytest.raises(ValueError, match="got 2 references, 1 ids"):
        compute(metrics, name, **given, ids=["a"])
    with pytest.raises(ValueError, match="prediction_ids needs predictions, references and their ids"):
        compute(metrics, name, **given, prediction_ids=["a", "b"])
    with pytest.raises(ValueError, match=r"ids\[0\] has the id nan; expected a text or a number"):
        compute(metrics, name, **given, ids=[math.nan, "b"])


def test_predictions_are_put_in_the_order_of_the_ids(metrics):
    references = [{"answer": letter, "question_type": "motion"} for letter in "AB"]
    given = {"predictions": ["B", "A"], "references": references, "ids": [1, 2]}
    assert metrics["mmsi"].compute(**given)["overall"] == 0
    assert metrics["mmsi"].compute(**given, prediction_ids=[2, 1])["overall"] == 1


@pytest.mark.parametrize("name", METRICS)
def test_nothing_to_score_and_lists_that_differ(metrics, name):
    prediction, reference = GOOD[name]
    assert compute(metrics, name, [], [])["n"] == 0
    with pytest.raises(ValueError, match="0 predictions came with 1 references"):
        compute(metrics, name, [], [reference])
    for given in ({"predictions": None, "references": [reference]}, {"predictions": [prediction], "references": None}):
        with pytest.raises(ValueError, match="(predictions|references) is None; give predictions and references"):
            compute(metrics, name, **given)


@pytest.mark.parametrize("name", METRICS)
def test_another_mode_or_option_names_the_known_ones(metrics, name):
    prediction, reference = GOOD[name]
    for option in ("mode", "euler_order", "alignment", "colour"):
        for rows in (1, 0):
            with pytest.raises(ValueError, match=rf"'zzz'; (expected|known)|unknown .*{option}.*; known are ."):
                compute(metrics, name, [prediction] * rows, [reference] * rows, **{option: "zzz"})


@pytest.mark.parametrize("name", METRICS)
def test_a_prediction_of_another_kind_counts_as_wrong(metrics, name):
    prediction, reference = GOOD[name]
    counted = {"captions": "num_empty", "camera_pose": "num_invalid", "depth": "num_without_prediction"}
    for other in (None, math.nan, 7, {}, "\ud800", b"B", ["x"], object()):
        result = compute(metrics, name, [other, prediction], [reference] * 2)
        expected = 0 if isinstance(other, str) and name == "captions" else 2 if name == "camera_pose" else 1
        assert result["n"] == 2 and result[counted.get(name, "num_unparsed")] == expected, other


def test_references_may_hold_more_than_is_asked_and_come_in_batches(metrics):
    prediction, reference = GOOD["spar_bench"]
    metric = metrics["spar_bench"]
    metric.add(prediction=prediction, reference=reference | {"question": "How far?"})
    metric.add_batch(predictions=["1"], references=[reference | {"id": 3}])
    with pytest.raises(ValueError, match="reference 2, answer is 2.5; expected text"):
        metric.add(prediction="1", reference=reference | {"answer": 2.5})
    result = metric.compute()
    assert result["n"] == 2 and result["overall"] == 0.5


def test_arrays_are_references_too(metrics):
    poses, depth = np.array(POSES), np.array([[1.0, 2.0]], dtype=np.float32)
    assert metrics["camera_pose"].compute(predictions=[poses], references=[poses])["auc3"] == 1
    assert metrics["depth"].compute(predictions=[depth], references=[depth])["delta1"] == 1
    with pytest.raises(ValueError, match=r"reference 0: the prediction has shape \(2,\); expected 2 dimensions"):
        metrics["depth"].compute(predictions=[depth[0]], references=[depth])


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("blink", "task", "colour", "question 1: unknown task 'colour'; known are art_style"),
        ("cv_bench", "source", "Flickr", "question 1: unknown source 'Flickr'; known are ADE20K"),
        ("spar_bench", "task", "colour", "reference 1: unknown task 'colour'; known are"),
        ("spar_bench", "answer", "nan", "reference 1: the answer of a depth_prediction_oc question is 'nan'"),
        ("vsibench", "question_type", "colour", "reference 1: unknown question type 'colour'"),
        ("vsibench", "answer", "", "reference 1: the answer of a route_planning question is ''; expected one letter"),
        ("mmsi", "answer", "", "reference 1: the true answer is ''; expected one letter"),
        ("sqa3d", "answer", " ", "reference 1: answer is ' '; expected the true answer"),
        ("captions", "iou", math.nan, "item 1: its IoU is nan; expected a number in 0..1"),
        ("frame_accuracy", "num_frames", 3, r"question 1: frames is \[3\]; expected one or more views in 0..2"),
    ],
)
def test_a_value_without_meaning_is_named(metrics, name, key, value, message):
    prediction, reference = GOOD[name]
    with pytest.raises(ValueError, match=message):
        compute(metrics, name, [prediction] * 2, [reference, reference | {key: value}])


def test_unknown_types_of_questions_are_named(metrics):
    prediction, reference = GOOD["multi3drefer"]
    with pytest.raises(ValueError, match="question 0: unknown question type 'easy'; known are zt_wo_d"):
        compute(metrics, "multi3drefer", [prediction], [reference], question_types=["easy"])
