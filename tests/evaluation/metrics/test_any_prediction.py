"""Whatever a model answers, no metric fails, and no result is infinite, or NaN where it is not said to be."""

import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gap_mllm.evaluation import (
    camera_pose_score,
    caption_scores,
    choice_score,
    depth_score,
    detection_score,
    frame_accuracy,
    grounding_axis_aligned_score,
    grounding_of_texts,
    grounding_score,
    multi3drefer_score,
    reconstruction_score,
    scanqa_score,
    spar_bench_is_unparsed,
    spar_bench_score,
    sqa3d_score,
    vsibench_is_unparsed,
    vsibench_score,
)
from gap_mllm.evaluation.metrics import (
    METRICS,
    blink,
    captions,
    cv_bench,
    load_metric,
    mmsi,
    scanqa,
    spar_bench,
    sqa3d,
    vsibench,
)
from tests.evaluation.metrics.examples import BOX, GOOD, POSES


TRY = settings(deadline=None, max_examples=60)
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1.5, 5e-324, 1e-60, 1e38, 1e39, 1e51, -1e200, 1.7e308, 10**400, math.nan, math.inf, True]),
    st.integers(),
    st.floats(),
)
PIECES = st.one_of(
    st.sampled_from(
        [*"ABCDbz(){}[],.:`'\"\\ \n\t-0123456789", "<answer>", "</answer>", "<think>", "```json\n", "two", "hundred"]
        + ["and a half", "point", "move_right:", "rotate_up", '"bbox_3d": ', '"frame": ', '"label": ', '"pointmap": ']
        + ["null", "NaN", "-Infinity", "1e999", "9" * 400, "The answer is", "\ud800", "\u2212", "\u0663", "\u017f"]
    ),
    st.lists(NUMBERS, max_size=10).map(lambda numbers: str(numbers).replace("nan", "NaN")),
    st.text(max_size=8),
)
OBJECTS = st.lists(
    st.dictionaries(
        st.sampled_from(["bbox_3d", "box_3d", "label", "frame", "pointmap", "x"]),
        st.one_of(
            st.lists(NUMBERS, min_size=9, max_size=9),
            st.lists(NUMBERS, max_size=10),
            NUMBERS,
            st.sampled_from([BOX, [0, 0, 2], "bed", "chair", "unicorn", 0, 1, None, [BOX], {"x": 1}]),
        ),
    ),
    max_size=4,
)
TEXTS = st.one_of(
    st.lists(PIECES, max_size=12).map("".join),
    OBJECTS.map(json.dumps),
    OBJECTS.map(lambda objects: "\n".join(map(str, objects))),
    st.text(),
)
VALUES = st.one_of(
    TEXTS,
    NUMBERS,
    st.none(),
    st.binary(max_size=4),
    st.recursive(NUMBERS | st.text(max_size=3) | st.none(), lambda inner: st.lists(inner, max_size=9), max_leaves=30),
    st.builds(dict),
    st.builds(object),
    st.lists(st.floats(), max_size=10).map(np.array),
)


def check_finite(result, unknown=()):
    """Every number in a result is finite; NaN may stand under the keys that are unknown."""
    if isinstance(result, dict):
        for key, value in result.items():
            if not (key in unknown and isinstance(value, float) and math.isnan(value)):
                check_finite(value, unknown)
    elif isinstance(result, list | tuple):
        for value in result:
            check_finite(value, unknown)
    elif isinstance(result, float):
        assert math.isfinite(result), result


@pytest.mark.parametrize("mode", vsibench.MODES)
@TRY
@given(prediction=VALUES)
@example(prediction="hundred " * 2000)
def test_vsibench(mode, prediction):
    for answer, kind in (("B", "route_planning"), ("4", "object_counting"), ("0", "object_counting")):
        score = vsibench_score(prediction, answer, kind, mode)
        assert 0 <= score <= 1 and not (score and vsibench_is_unparsed(prediction, kind, mode))


@pytest.mark.parametrize("mode", spar_bench.MODES)
@TRY
@given(prediction=VALUES)
def test_spar_bench(mode, prediction):
    answers = [("B", "position_matching"), ("left", "camera_motion_infer"), ("move_up:1", "view_change_infer")]
    for answer, task in [*answers, ("2.5", "depth_prediction_oc"), ("0", "depth_prediction_oo_mv")]:
        assert 0 <= spar_bench_score(prediction, answer, task, mode) <= 1
        assert spar_bench_is_unparsed(prediction, answer, task, mode) in (True, False)


@TRY
@given(prediction=VALUES)
def test_letters_and_words(prediction):
    for module in (blink, cv_bench, mmsi):
        assert all(choice_score(prediction, "B", module.LETTERS, mode) in (0, 1) for mode in module.MODES)
    for mode in scanqa.MODES:
        assert scanqa_score(prediction, ["a chair", "two"], mode)["em"] in (0, 1)
    for mode in sqa3d.MODES:
        assert sqa3d_score(prediction, "two", mode)["em_refined"] in (0, 1)


@pytest.mark.parametrize("mode", ["corrected", "reference"])
@TRY
@given(predictions=st.lists(VALUES, min_size=2, max_size=2))
@example(predictions=[None, str({"label": "bed", "bbox_3d": [1e300] * 9})])
def test_detection(mode, predictions):
    truths = [[{"label": "bed", "bbox_3d": BOX}], [{"label": "chair", "bbox_3d": BOX}, {"label": "x", "bbox_3d": BOX}]]
    result = detection_score(predictions, truths, mode=mode, rejected_as_fp=True)
    per_category = result.pop("per_category")
    check_finite(result)
    assert all(0 <= per_category[label][name] <= 1 for label in ("bed", "chair") for name in ("f1", "ap25"))


@pytest.mark.parametrize("mode", ["corrected", "reference"])
@TRY
@given(prediction=VALUES)
@example(prediction=str({"frame": 0, "bbox_3d": [1e308, 1e308, 1e308, 1, 1, 1, 0.5, 0.5, 0.5]}))
@example(prediction=str({"frame": 1, "bbox_3d": [0, 0, 2, 1e-300, 1e300, 1, 1e300, 0, 0]}))
def test_grounding(mode, prediction):
    reference = {"bbox_3d": BOX, "camera_to_world": POSES, "axis_align_matrix": POSES[1]}
    for frames in (None, [1]):
        answers = grounding_of_texts([prediction], [reference], frames, mode)
        check_finite([answers[0].bbox_3d or (), answers[0].iou])
        check_finite(grounding_score(answers, ["unique"]))


@pytest.mark.parametrize("mode", ["corrected", "reference"])
@TRY
@given(prediction=VALUES | st.lists(st.lists(NUMBERS, min_size=6, max_size=6), max_size=3))
@example(prediction=[[0, 0, 0, -1, 1, 1.00000001]])
@example(prediction=[[0, 0, 0, -1e50, 1e50, 1e50], [1e50] * 6])
def test_axis_aligned_boxes(mode, prediction):
    cube = [0, 0, 0, 1, 1, 1]
    for box in (prediction, *(prediction if isinstance(prediction, list) else ())):
        check_finite(grounding_axis_aligned_score([box], [cube], ["easy"], mode, nr3d=True))
    for truth in ([cube], [BOX], [cube, cube], []):
        check_finite(multi3drefer_score([prediction], [truth], ["mt"], mode))


@TRY
@given(predictions=st.lists(VALUES, min_size=3, max_size=3))
@example(predictions=[str({"pointmap": [3e38, -3e38, 3e38]}), str({"pointmap": [1e-38, 0, 0]}), None])
def test_reconstruction(predictions):
    for penalty in (None, 1.0):
        result = reconstruction_score(predictions, [[0, 0, 1], [1, 0, 2], [0, 2, 3]], ["a", "a", "a"], penalty)
        metric = [f"{name}_{kind}" for name in ("acc", "comp", "overall") for kind in ("metric", "align")]
        check_finite(result, [*metric, "overall_metric_all", "mean_point_error"])


@TRY
@given(predictions=st.lists(VALUES, min_size=2, max_size=2))
def test_frames_and_captions(predictions):
    for mode in ("corrected", "reference"):
        check_finite(frame_accuracy(predictions, [1, [0, 2]], [4, 4], mode), ["mean_distance"])
    for mode in captions.MODES:
        scored = caption_scores(predictions, [["a chair"], ["two, three."]], mode, meteor=False, per_item=True)
        check_finite(scored)


@TRY
@given(st.lists(NUMBERS, min_size=2, max_size=2), st.sampled_from(["none", "median"]))
def test_depth(values, alignment):
    result = depth_score([[values]], [[[1.0, 2.0]]], alignment=alignment)
    check_finite(result, ["abs_rel", "rmse_m"])
    assert result["coverage"] in (0, 0.5, 1)


@TRY
@given(st.lists(NUMBERS, min_size=32, max_size=32), st.sampled_from(["corrected", "reference"]), st.booleans())
def test_camera_poses(values, mode, only_translation):
    poses = [[list(row) for row in pose] for pose in POSES]
    for place, value in enumerate(values):
        view, row, column = place // 16, place // 4 % 4, place % 4
        if not only_translation or (column == 3 and row < 3):
            poses[view][row][column] = value
    check_finite(camera_pose_score([poses], [POSES], mode))


@pytest.fixture(scope="module")
def metrics():
    return {name: load_metric(name) for name in METRICS}


@pytest.mark.parametrize("name", METRICS)
@settings(deadline=None, max_examples=15)
@given(values=st.lists(VALUES, max_size=3))
def test_the_shells(metrics, name, values):
    if name in ("depth", "camera_pose"):  # arrays of another shape are errors of the caller
        values = [None if isinstance(value, list | np.ndarray) else value for value in values]
    prediction, reference = GOOD[name]
    options = {"meteor": False} if name == "captions" else {}
    predictions = [*values, prediction]
    result = metrics[name].compute(predictions=predictions, references=[reference] * len(predictions), **options)
    assert result["n"] == len(predictions)
