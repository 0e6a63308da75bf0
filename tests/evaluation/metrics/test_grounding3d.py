"""Grounding with poses and its first stage, against goldens of the published evaluator and by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from gap_mllm.evaluation.metrics import load_metric
from gap_mllm.evaluation.metrics.frame_accuracy import frame_accuracy, read_frame
from gap_mllm.evaluation.metrics.grounding3d import grounding_of_texts, grounding_score
from gap_mllm.evaluation.metrics.hits import overlap_summary
from gap_mllm.processing.camera_geometry_gap_mllm import invert_rigid, transform_box
from gap_mllm.processing.scores import ground_box


GOLDEN = json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "scanrefer.json").read_text())
CASES = {case["name"]: case for case in GOLDEN["cases"]}
RUN_AS_CODE = "code"  # the published evaluator runs it; ours never does
IDENTITY = np.eye(4)
BOX = [0, 0, 2, 1, 1, 1, 0, 0, 0]


def reference_of(case):
    return {
        "bbox_3d": case["gt_bbox"],
        "camera_to_world": case["cam2global"],
        "axis_align_matrix": case["axis_align_matrix"],
    }


REFERENCES = [reference_of(case) for case in CASES.values()]
TEXTS = [case["text"] for case in CASES.values()]


@pytest.mark.parametrize(
    ("mode", "iou_key", "box_key"),
    [
        ("corrected", "iou_safe", "pred_bbox_world_safe"),
        ("reference", "iou_reference_rule_exact", "pred_bbox_world_reference"),
    ],
)
def test_every_case(mode, iou_key, box_key):
    answers = grounding_of_texts(TEXTS, REFERENCES, mode=mode)
    for (name, case), answer in zip(CASES.items(), answers, strict=True):
        if mode == "reference" and name == RUN_AS_CODE:
            assert answer.iou == 0 and "not a literal" in answer.rejected
            continue
        assert answer.iou == pytest.approx(case[iou_key], abs=1e-6), name
        assert (answer.bbox_3d is None) == (case[box_key] is None) == (answer.rejected is not None), name
        if answer.bbox_3d is not None:
            assert answer.bbox_3d == pytest.approx(case[box_key], abs=1e-6), name


def test_aggregates():
    corrected = grounding_score(grounding_of_texts(TEXTS, REFERENCES))
    reference = [answer.iou for answer in grounding_of_texts(TEXTS, REFERENCES, mode="reference")]
    reference[list(CASES).index(RUN_AS_CODE)] = CASES[RUN_AS_CODE]["iou_reference_rule_exact"]
    for result, key in (
        (corrected, "iou_safe"),
        (overlap_summary(reference), "iou_reference_rule_exact"),
    ):
        expected = GOLDEN["aggregate"][key]
        assert result["n"] == expected["n"] and result["miou"] == pytest.approx(expected["miou"], abs=1e-6)
        for name in ("acc25", "acc50"):
            assert 100 * result[name] == pytest.approx(expected[name]), (key, name)
    assert corrected["num_unparsed"] == sum(case["pred_bbox_world_safe"] is None for case in CASES.values())


def test_a_hit_is_at_the_threshold():
    result = overlap_summary([0.25, 0.5, 0.25 - 1e-15, 0.2499999, 0.0], ["a", "a", "b", None, "b"])
    assert (result["acc25"], result["acc50"]) == (0.6, 0.2) and result["miou"] == pytest.approx(0.24999998)
    assert result["per_type"]["a"] == {"acc25": 1.0, "acc50": 0.5, "miou": 0.375, "n": 2}
    assert result["per_type"]["b"]["acc25"] == 0.5 and len(result["per_type"]) == 2


def test_two_stages_give_the_box_of_the_chosen_camera():
    pose, align = IDENTITY.copy(), IDENTITY.copy()
    pose[:3, :3], pose[:3, 3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [1, 2, 3]
    align[:3, 3] = [5, 0, 0]
    truth = np.array([6.0, 1.0, 0.0, 1.0, 2.0, 0.5, 0.3, 0.0, 0.0])
    seen = transform_box(truth, invert_rigid(align @ pose), "zxy").tolist()
    text = f'{{"bbox_3d": {seen}}}'
    poses = [IDENTITY, pose]
    for mode in ("corrected", "reference"):
        answer = ground_box(text, truth, poses, align, frame=1, mode=mode)
        assert answer.iou == pytest.approx(1.0) and answer.frame == 1
        assert answer.bbox_3d == pytest.approx(truth.tolist())
        assert ground_box(text, truth, poses, align, frame=0, mode=mode).iou == 0
        assert ground_box(text, truth, poses, align, mode=mode).rejected is not None  # no frame in the text
    assert ground_box(f"  {text}!", truth, poses, align, frame=1, mode="reference").rejected is not None
    one_stage = f'{{"frame": 1, "bbox_3d": {seen}}}'
    assert ground_box(one_stage, truth, poses, align).iou == pytest.approx(1.0)


def test_alignment_is_optional_and_order_can_be_given():
    text = '{"frame": 0, "bbox_3d": [0, 0, 2, 1, 2, 1, 0.4, 0.5, 0.6]}'
    truth = [0, 0, 2, 1, 2, 1, 0.4, 0.5, 0.6]
    assert ground_box(text, truth, [IDENTITY]).iou == pytest.approx(1.0)
    assert ground_box(text, truth, [IDENTITY], euler_order="ZXY").iou == pytest.approx(1.0)
    assert ground_box(text, truth, [IDENTITY], mode="reference", euler_order="ZXY").iou == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no box"),
        ('{"frame": 0}', "has no bbox_3d"),
        (f'{{"bbox_3d": {BOX}}}', "has no frame"),
        (f'{{"frame": 5, "bbox_3d": {BOX}}}', "outside 0..1"),
        ('{"frame": 0, "bbox_3d": [NaN, 0, 2, 1, 1, 1, 0, 0, 0]}', "not finite"),
        (f'{{"frame": 9, "bbox_3d": {BOX}}} {{"frame": 0, "bbox_3d": {BOX}}}', "several objects"),
        (f'{{"frame": 1, "bbox_3d": {BOX}}}', "view 1 has no pose"),
    ],
)
def test_unusable_answers_are_wrong_and_counted(text, reason):
    poses = [IDENTITY, np.full((4, 4), -np.inf)]
    answer = ground_box(text, BOX, poses)
    assert answer.iou == 0 and reason in answer.rejected
    assert grounding_score([answer])["num_unparsed"] == 1


def test_reference_reads_true_as_view_one():
    text = f'{{"frame": True, "bbox_3d": {BOX}}}'
    assert ground_box(text, BOX, [IDENTITY] * 2, mode="reference").frame == 1
    assert ground_box(text, BOX, [IDENTITY] * 2).rejected is not None


def test_bad_references_are_named():
    text = f'{{"frame": 0, "bbox_3d": {BOX}}}'
    with pytest.raises(ValueError, match="mode is 'loose'"):
        ground_box(text, BOX, [IDENTITY], mode="loose")
    with pytest.raises(ValueError, match="euler_order is 'XYZ'|order is 'XYZ'"):
        ground_box(text, BOX, [IDENTITY], euler_order="XYZ")
    with pytest.raises(ValueError, match=r"camera_to_world has shape \(4, 4\)"):
        ground_box(text, BOX, IDENTITY)
    with pytest.raises(ValueError, match=r"camera_to_world\[0\]: matrix 0 is not rigid"):
        ground_box(text, BOX, [2 * IDENTITY])
    with pytest.raises(ValueError, match="axis_align_matrix: matrix 0 is not rigid"):
        ground_box(text, BOX, [IDENTITY], 2 * IDENTITY)
    with pytest.raises(ValueError, match=r"frame is 1; expected a view in 0..0"):
        ground_box(text, BOX, [IDENTITY], frame=1)
    for broken in ([math.nan, *BOX[1:]], BOX[:8], [0, 0, 0, -1, 1, 1, 0, 0, 0]):
        for said in (text, "nothing"):
            with pytest.raises(ValueError, match="question 0: bbox_3d (is|has sizes) "):
                grounding_of_texts([said], [{"bbox_3d": broken, "camera_to_world": [IDENTITY]}])
    with pytest.raises(ValueError, match="1 predictions, 0 references, 0 frames"):
        grounding_of_texts([text], [])
    with pytest.raises(ValueError, match="question 0: the reference has no 'camera_to_world'; expected a 4x4 pose"):
        grounding_of_texts([text], [{"bbox_3d": BOX}])
    with pytest.raises(ValueError, match=r"camera_to_world\[1\]: matrix 0 is not rigid"):
        ground_box("nothing", BOX, [IDENTITY, 2 * IDENTITY])
    with pytest.raises(ValueError, match="frame is 0.0; expected a view in 0..0"):
        ground_box(text, BOX, [IDENTITY], frame=0.0)
    with pytest.raises(ValueError, match="1 overlaps, 0 question_types"):
        overlap_summary([0.1], [])
    with pytest.raises(ValueError, match="overlap 1 is not finite"):
        overlap_summary([0.1, math.nan])


def test_no_questions():
    assert math.isnan(grounding_score([])["acc25"]) and grounding_score([])["n"] == 0


def test_the_metric_agrees():
    metric = load_metric("grounding3d")
    result = metric.compute(predictions=TEXTS, references=REFERENCES, question_types=["unique"] * len(TEXTS))
    assert 100 * result["acc50"] == pytest.approx(GOLDEN["aggregate"]["iou_safe"]["acc50"])
    assert result["per_type"]["unique"]["miou"] == result["miou"]
    box_only = metric.compute(
        predictions=[f'{{"bbox_3d": {BOX}}}'],
        references=[{"bbox_3d": BOX, "camera_to_world": [IDENTITY] * 2, "axis_align_matrix": []}],
        frames=[1],
        mode="reference",
    )
    assert box_only["acc50"] == 1.0


# The first stage


@pytest.mark.parametrize(
    ("text", "corrected", "reference"),
    [
        ('```json\n\t{"frame": 3}\n```', 3, 3),
        ("frame 3", None, 0),
        ('{"view": 3}', None, 0),
        ("", None, 0),
        ('{"frame": -1}', None, 7),
        ('{"frame": 8}', None, None),
        ('{"frame": -9}', None, None),
        ('{"frame": "3"}', None, None),
        ('{"frame": 3.0}', None, None),
        ("3", None, None),
        ("[3]", None, None),
        ('It is here: {"frame": 2}.', 2, 0),
        ("[" * 5000, None, 0),
    ],
)
def test_frames_are_read(text, corrected, reference):
    assert read_frame(text, 8) == corrected and read_frame(text, 8, "reference") == reference


def test_frame_accuracy():
    texts = ['{"frame": 3}', '{"frame": 5}', "?", '{"frame": 0}']
    result = frame_accuracy(texts, [3, [1, 4], 0, 2], [8] * 4)
    assert result == {"accuracy": 0.25, "mean_distance": 1.0, "n": 4, "num_unparsed": 1}
    assert frame_accuracy(texts, [3, [1, 4], 0, 2], [8] * 4, tolerance=1)["accuracy"] == 0.5
    assert frame_accuracy(texts, [3, [1, 4], 0, 2], [8] * 4, "reference")["accuracy"] == 0.5
    assert math.isnan(frame_accuracy([], [], [])["accuracy"])


def test_frame_accuracy_refuses():
    with pytest.raises(ValueError, match=r"question 0: frames is \[8\]; expected one or more views in 0..7"):
        frame_accuracy(["?"], [8], [8])
    with pytest.raises(ValueError, match=r"question 0: frames is \[\]"):
        frame_accuracy(["?"], [[]], [8])
    with pytest.raises(ValueError, match="1 predictions, 2 frames, 1 num_frames"):
        frame_accuracy(["?"], [1, 2], [8])
    with pytest.raises(ValueError, match="tolerance is -1"):
        frame_accuracy([], [], [], tolerance=-1)
    with pytest.raises(ValueError, match="num_frames is 0"):
        read_frame("", 0)
    with pytest.raises(ValueError, match="mode is 'loose'"):
        read_frame("", 1, "loose")
    with pytest.raises(ValueError, match=r"question 0: num_frames is None; expected the number of views"):
        frame_accuracy(["?"], [8], [None])
    with pytest.raises(ValueError, match=r"question 0: frames is None; expected one or more views in 0..7"):
        frame_accuracy(["?"], [None], [8])


def test_the_frame_metric_agrees():
    metric = load_metric("frame_accuracy")
    references = [{"frames": [3], "num_frames": 8}, {"frames": [1, 4], "num_frames": 8}]
    assert metric.compute(predictions=['{"frame": 3}', "?"], references=references)["accuracy"] == 0.5
