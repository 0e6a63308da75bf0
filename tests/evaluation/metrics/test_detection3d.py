"""3D detection against goldens of the published evaluator, and by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from gap_mllm.evaluation.metrics import load_metric
from gap_mllm.evaluation.metrics.average_precision import average_precision
from gap_mllm.evaluation.metrics.detection3d import (
    CATEGORIES,
    detection_aggregate,
    detection_counts,
    detection_score,
)
from gap_mllm.processing.scores.box_overlaps import box_overlaps, match_in_order
from gap_mllm.processing.scores.detection_answers import NO_LABEL, read_detections
from gap_mllm.processing.scores.reference_answers import read_literal, reference_detections


GOLDEN = json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "detection.json").read_text())
SCENES = {scene["name"]: scene for scene in GOLDEN["scenes"]}
TEXTS, TRUTHS = ([scene[key] for scene in GOLDEN["scenes"]] for key in ("text", "boxes"))
RUN_AS_CODE = "code_in_text"  # the published evaluator runs it; ours never does
CUBE = [0, 0, 2, 1, 1, 1, 0, 0, 0]


def answer(*objects):
    lines = [f'{{"label": "{label}", "bbox_3d": {list(box)}}}' for label, box in objects]
    return "```json\n[\n\t" + ",\n\t".join(lines) + "\n]```"


def moved(x):
    return [x, *CUBE[1:]]


@pytest.mark.parametrize(
    ("key", "mode", "euler_order"),
    [
        ("expected_reference", "reference", None),
        ("expected_safe_intrinsic", "corrected", "ZXY"),
        ("expected_safe_extrinsic", "corrected", None),
    ],
)
def test_counts_of_every_scene(key, mode, euler_order):
    for name, scene in SCENES.items():
        if mode == "reference" and name == RUN_AS_CODE:
            continue
        assert detection_counts(scene["text"], scene["boxes"], mode, euler_order) == scene[key], name


def test_aggregates():
    reference = [
        scene["expected_reference"]
        if name == RUN_AS_CODE
        else detection_counts(scene["text"], scene["boxes"], "reference")
        for name, scene in SCENES.items()
    ]
    result, expected = detection_aggregate(reference, "reference"), GOLDEN["aggregate_reference"]
    for name in ("cate8", "cate20", "cate31"):
        assert list(CATEGORIES["reference"][name]) == GOLDEN[name]
        assert result[name] == pytest.approx(expected[name])
    for label, values in expected["per_category"].items():
        assert result["per_category"][label] == pytest.approx(values)
    corrected, expected = detection_score(TEXTS, TRUTHS), GOLDEN["aggregate_corrected"]
    assert list(CATEGORIES["corrected"]["cate31"]) == expected["categories"]
    for rate in ("precision", "recall", "f1"):
        assert corrected[rate] == corrected["cate31"][rate] == pytest.approx(expected[rate])


def test_what_is_read_and_rejected():
    for name, scene in SCENES.items():
        objects = read_detections(scene["text"])
        boxes = [
            {"label": label, "bbox_3d": list(box)} for label, box in zip(objects.labels, objects.boxes, strict=True)
        ]
        assert boxes == scene["safe_parse"]["boxes"] and len(objects.rejected) == scene["safe_parse"]["rejected"], name
    result = detection_score(TEXTS, TRUTHS)
    assert result["n"] == 21 and result["num_truncated"] == 1
    assert result["num_rejected"] == sum(scene["safe_parse"]["rejected"] for scene in SCENES.values())
    unparsed = {name for name, scene in SCENES.items() if detection_score([scene["text"]], [[]])["num_unparsed"]}
    assert unparsed == {"empty_text", "strings_nested", "code_in_text"}  # an empty list is an answer


def test_the_line_wise_rule():
    text = "\n".join(
        [
            '{"label": "a", "bbox_3d": ["1", 2, 3, 4, 5, 6, 7, 8, True]},',
            '{"label": "b", "bbox_3d": None}',
            '{"label": 3, "bbox_3d": [1e999, 0, 0, 1, 1, 1, 0, 0, 0]}',
            '{"label": "c", "bbox_3d": [null]}',
            '{"label": ["d"], "bbox_3d": [1]}',
            '[{"label": "e", "bbox_3d": [1]}]',
            '{"label": "f", "box_3d": [1]}',
            '"label"',
            '{"label": "g", "bbox_3d": [1*2]}',
            '{"label": "h", "bbox_3d": "nine"}',
            "nothing here",
        ]
    )
    objects = reference_detections(text)
    assert objects.labels == ("a", "b", 3)
    assert objects.boxes == ((1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 1.0), None, None)
    assert len(objects.rejected) == 7
    assert detection_counts(text, [], "reference")[3] == {"tp": 0, "fp": 1, "fn": 0}


@pytest.mark.parametrize(
    "text", ["__import__('os')", "1*2", "x", "[" * 9000, "-" * 8000 + "1", "(" * 300, "'", "1\n2"]
)
def test_only_literals_are_read(text):
    with pytest.raises(ValueError, match="not a literal|has 9000 characters; expected up to 8192"):
        read_literal(text)


def test_reference_refuses_tiny_faces_and_takes_negative_sizes():
    box, thin = [0, 0, 2, 1, 1, 1, 0, 0, 0], [0, 0, 2, 0.01, 0.0199, 1, 0, 0, 0]
    assert box_overlaps([thin], [thin])[0, 0] == 1.0 and box_overlaps([thin], [thin], "reference")[0, 0] == 0.0
    thick = [0, 0, 2, 0.01, 0.0201, 1, 0, 0, 0]
    assert box_overlaps([thick], [thick], "reference")[0, 0] == 1.0
    assert box_overlaps([[0, 0, 2, -1, 1, 1, 0, 0, 0]], [box], "reference")[0, 0] == 1.0
    for odd in (None, [0, 0, 2, 0, 1, 1, 0, 0, 0], [0, 0, 2, 1e60, 1, 1, 0, 0, 0], [math.nan] * 9):
        for mode in ("corrected", "reference"):
            assert box_overlaps([odd], [box], mode)[0, 0] == 0.0
    assert box_overlaps([[1e300, 0, 2, 1, 1, 1, 0, 0, 0]], [box])[0, 0] == 0.0
    assert box_overlaps([], [box]).shape == (0, 1) and box_overlaps([box], []).shape == (1, 0)


def test_matching_takes_the_free_best_in_order():
    assert match_in_order(np.array([[0.6, 0.6], [0.7, 0.3]]), 0.25) == [0, 1]
    assert match_in_order(np.array([[0.3, 0.6], [0.2, 0.9]]), 0.25) == [1, -1]
    assert match_in_order(np.array([[0.25]]), 0.25) == [-1] and match_in_order(np.zeros((2, 0)), 0.25) == [-1, -1]


def test_rejected_objects_as_false_positives():
    text = '{"label": "bed", "bbox_3d": [1, 2]} {"bbox_3d": [1]}'
    assert detection_counts(text, []) == {}
    counts = detection_counts(text, [], rejected_as_fp=True)
    assert counts == {"bed": {"tp": 0, "fp": 1, "fn": 0}, NO_LABEL: {"tp": 0, "fp": 1, "fn": 0}}
    text = answer(("bed", CUBE)) + text
    truth = [{"label": "bed", "bbox_3d": CUBE}]
    assert detection_score([text], [truth])["micro"]["precision"] == 1.0
    assert detection_score([text], [truth], rejected_as_fp=True)["micro"]["precision"] == pytest.approx(1 / 3)
    per_category = detection_score([text], [truth], rejected_as_fp=True)["per_category"]
    assert per_category["bed"]["precision"] == 0.5


def test_micro_counts_all_labels():
    text = answer(("bed", CUBE), ("unicorn", CUBE), ("chair", moved(9)))
    truth = [{"label": name, "bbox_3d": CUBE} for name in ("bed", "unicorn", "door")]
    result = detection_score([text], [truth])
    assert result["micro"] == pytest.approx(
        {"tp": 2, "fp": 1, "fn": 1, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3}
    )
    assert result["num_other_objects"] == 1 and result["num_other_truths"] == 2  # unicorn; unicorn and door


def test_categories_that_never_occur():
    text = answer(("bed", CUBE), ("unicorn", CUBE), ("chair", moved(9)))
    truth = [{"label": name, "bbox_3d": CUBE} for name in ("bed", "unicorn", "door")]
    ours, published = detection_score([text], [truth]), detection_score([text], [truth], mode="reference")
    assert (
        ours["occurring"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5} and ours["num_categories"] == 2
    )  # bed, chair
    assert ours["f1"] == pytest.approx(1 / 30) and ours["cate8"]["f1"] == pytest.approx(1 / 8)
    assert published["f1"] == pytest.approx(1 / 31) and published["cate8"]["f1"] == pytest.approx(1 / 8)
    for result in (ours, published):
        for label in ("sink", "chair"):
            assert [result["per_category"][label][name] for name in ("precision", "recall", "f1")] == [0, 0, 0]
            assert math.isnan(result["per_category"][label]["ap25"])  # no true boxes
    nothing = detection_score(["[]"], [[]])
    rates = [nothing[group][name] for group in ("cate8", "cate20", "cate31", "micro") for name in ("recall", "f1")]
    assert rates == [0] * 8 and math.isnan(nothing["ap50"]) and math.isnan(nothing["occurring"]["f1"])


def test_average_precision_by_hand():
    hit, miss = [1.0], [0.0]
    two = [np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])]
    # hit, miss, hit of two truths: 1/2 at precision 1, 1/2 at 2/3
    assert average_precision(two, [[0.9, 0.8, 0.7]], 0.25) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision(two, [[0.7, 0.8, 0.9]], 0.25) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision(two, [[0.8, 0.9, 0.7]], 0.25) == pytest.approx(2 / 3)  # precision 1/2 is raised to 2/3
    assert average_precision(two, [[1, 1, 1]], 0.25) == pytest.approx(2 / 3)  # precision times recall
    scenes = [np.array([hit]), np.array([miss]), np.zeros((0, 2))]
    assert average_precision(scenes, [[0.2], [0.9], []], 0.5) == pytest.approx(0.25 * 0.5)
    # the surer of two on one truth takes it
    assert average_precision([np.array([[0.6], [0.9]])], [[0.1, 0.2]], 0.7) == 1.0
    assert average_precision([np.array([[0.6], [0.9]])], [[0.2, 0.1]], 0.5) == 1.0
    assert math.isnan(average_precision([np.zeros((2, 0))], [[1, 1]], 0.5)) and math.isnan(
        average_precision([], [], 0.5)
    )
    assert average_precision([np.zeros((0, 1))], [[]], 0.5) == 0.0


def test_average_precision_of_answers():
    text = answer(("bed", moved(9)), ("bed", moved(0.3)), ("chair", CUBE))
    truth = [{"label": name, "bbox_3d": CUBE} for name in ("bed", "chair", "table")]
    unsure = detection_score([text], [truth])  # bed: IoU 0.538, precision 1/2, recall 1
    assert unsure["ap25"] == unsure["ap50"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert detection_score([text], [truth], scores=[[0.1, 0.9, 0.5]])["ap50"] == pytest.approx(2 / 3)
    assert math.isnan(detection_score([text], [[]])["ap25"])


def test_nothing_to_score():
    empty = detection_score([], [])
    assert empty["n"] == empty["f1"] == empty["precision"] == empty["recall"] == 0 and math.isnan(empty["ap25"])
    silent = detection_score(["", "I see nothing."], [[{"label": "bed", "bbox_3d": CUBE}]] * 2)
    assert silent["num_unparsed"] == 2 and silent["f1"] == 0 and silent["per_category"]["bed"]["fn"] == 2


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="mode is 'loose'"):
        detection_score([], [], mode="loose")
    with pytest.raises(ValueError, match="mode is 'loose'"):
        detection_aggregate([], "loose")
    with pytest.raises(ValueError, match="euler_order is 'XYZ'"):
        detection_counts(answer(("bed", CUBE)), [{"label": "bed", "bbox_3d": CUBE}], euler_order="XYZ")
    with pytest.raises(ValueError, match="1 predictions, 0 boxes"):
        detection_score([""], [])
    assert detection_score([None], [[]])["num_unparsed"] == 1
    for threshold in (math.nan, 1.5, None, "0.25"):
        with pytest.raises(ValueError, match="threshold is .*; expected an overlap in 0..1"):
            detection_score([], [], threshold=threshold)
    for mode in ("corrected", "reference"):
        with pytest.raises(ValueError, match="euler_order is 'XYZ'; expected \"zxy\""):
            detection_score([], [], mode=mode, euler_order="XYZ")
    with pytest.raises(ValueError, match="scene 0 has 2 scores for the 1 objects"):
        detection_score([answer(("bed", CUBE))], [[]], scores=[[0.1, 0.2]])
    with pytest.raises(ValueError, match="expected one finite score"):
        detection_score([answer(("bed", CUBE))], [[]], scores=[[math.nan]])
    with pytest.raises(ValueError, match="1 scenes of overlaps came with 0"):
        average_precision([np.zeros((1, 1))], [], 0.5)
    for mode in ("corrected", "reference"):
        for broken in ([math.nan, *CUBE[1:]], [0, 0, 0, 0, 1, 1, 0, 0, 0], CUBE[:8]):
            with pytest.raises(ValueError, match="scene 0: bbox_3d of true box 0 (is|has sizes) "):
                detection_score([answer(("bed", CUBE))], [[{"label": "bed", "bbox_3d": broken}]], mode=mode)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (None, "scene 1: the true boxes are None; expected a list of dicts"),
        ([None], "scene 1: true box 0 is None; expected a dict with 'label', 'bbox_3d'"),
        ([{"bbox_3d": CUBE}], "scene 1: true box 0 has no 'label'; expected text"),
        ([{"label": "bed"}], "scene 1: true box 0 has no 'bbox_3d'; expected nine numbers"),
        ([{"label": None, "bbox_3d": CUBE}], "scene 1: the label of true box 0 is None; expected text"),
        ([{"label": "bed", "bbox_3d": "x"}], "scene 1: bbox_3d of true box 0 is 'x'; expected 9 finite numbers"),
    ],
)
def test_wrong_references_are_named(boxes, message):
    with pytest.raises(ValueError, match=message):
        detection_score(["[]", "[]"], [[], boxes])


def test_the_metric_agrees():
    metric = load_metric("detection3d")
    references = [{"boxes": boxes} for boxes in TRUTHS]
    result = metric.compute(predictions=TEXTS, references=references)
    assert result["f1"] == pytest.approx(GOLDEN["aggregate_corrected"]["f1"])
    reference = metric.compute(predictions=TEXTS, references=references, mode="reference")
    assert (
        reference["per_category"]["sink"] == detection_score(TEXTS, TRUTHS, mode="reference")["per_category"]["sink"]
    )
    assert metric.compute(predictions=[], references=[])["n"] == 0


def test_malformed_objects_count_by_one_rule_and_not_by_the_other():
    bed = {"label": "bed", "bbox_3d": [0, 0, 2, 1, 2, 1, 0, 0, 0]}
    right, malformed = json.dumps(bed), ['{"label": "bed", "bbox_3d": [1, 2]}', '{"bbox_3d": [1]}']
    text = ",".join([right, *malformed * 25])
    result = detection_score([text], [[bed]])
    assert result["num_rejected"] == 50 and result["without_rejected"]["micro"]["f1"] == 1
    assert result["without_rejected"] | result == result  # what the plain names say
    counted = result["with_rejected"]
    assert counted["micro"]["fp"] == 50 and counted["micro"]["precision"] == pytest.approx(1 / 51)
    assert counted["ap25"] == pytest.approx(1 / 26) and result["ap25"] == 1
    assert counted["f1"] == pytest.approx(2 / 27 / 30) and result["f1"] == pytest.approx(1 / 30)
    ranked = detection_score([text], [[bed]], scores=[[0.3]])["with_rejected"]
    assert ranked["ap25"] == 1 and ranked["micro"] == counted["micro"]  # behind what has a score
    strict = detection_score([text], [[bed]], rejected_as_fp=True)
    assert strict["with_rejected"] | strict == strict and strict["without_rejected"] == result["without_rejected"]
    assert detection_score([right], [[bed]])["with_rejected"] == detection_score([right], [[bed]])["without_rejected"]
