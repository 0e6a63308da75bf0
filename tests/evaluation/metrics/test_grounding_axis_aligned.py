"""Axis-aligned grounding and Multi3DRefer against goldens of the published evaluators, and by hand."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gap_mllm.evaluation import box_iou_axis_aligned
from gap_mllm.evaluation.metrics import load_metric
from gap_mllm.evaluation.metrics.grounding_axis_aligned import axis_aligned_overlaps, grounding_axis_aligned_score
from gap_mllm.evaluation.metrics.multi3drefer import (
    QUESTION_TYPES,
    multi3drefer_f1,
    multi3drefer_score,
    select_proposals,
)


GOLDEN = json.loads((Path(__file__).parents[2] / "fixtures" / "metrics" / "grounding_axis_aligned.json").read_text())
SCANREFER, MULTI = GOLDEN["scanrefer"], GOLDEN["multi3drefer"]
CUBE, QUARTER = [0, 0, 0, 1, 1, 1], [0, 0, 0, 0.25, 1, 1]


def columns(cases, *keys):
    return [[case[key] for case in cases] for key in keys]


@pytest.mark.parametrize("mode", ["reference", "corrected"])
def test_scanrefer(mode):
    boxes, truths, kinds, expected = columns(
        SCANREFER["cases"], "pred_response", "gt_response", "question_type", "iou"
    )
    overlaps, _ = axis_aligned_overlaps(boxes, truths, mode)
    assert overlaps == pytest.approx(expected, abs=1e-12 if mode == "reference" else 1e-6)
    result = grounding_axis_aligned_score(boxes, truths, kinds, mode)
    for kind, values in SCANREFER["aggregate"].items():
        found = result if kind == "all" else result["per_type"][kind]
        assert found["n"] == values["n"]
        for name in ("acc25", "acc50"):
            assert 100 * found[name] == pytest.approx(values[name])


def test_an_exact_quarter():
    assert grounding_axis_aligned_score([QUARTER], [CUBE])["acc25"] == 1.0
    assert grounding_axis_aligned_score([QUARTER], [CUBE], mode="reference")["acc25"] == 0.0
    assert multi3drefer_f1([QUARTER], [CUBE], "reference")["f1_25"] == 1.0  # float32 hides the 1e-8


def test_nr3d_types():
    kinds = ["easy-view-dep", "hard-view-indep", "easy-view-indep", "hard-view-dep"]
    result = grounding_axis_aligned_score([CUBE, CUBE, QUARTER, [9, *CUBE[1:]]], [CUBE] * 4, kinds, nr3d=True)
    found = {kind: (values["acc25"], values["acc50"], values["n"]) for kind, values in result["per_type"].items()}
    assert found == {"easy": (1, 0.5, 2), "hard": (0.5, 0.5, 2), "view-dep": (0.5, 0.5, 2), "view-indep": (1, 0.5, 2)}


def test_answers_that_are_no_box():
    broken = [None, [], CUBE[:5], [math.nan, *CUBE[1:]], [math.inf, *CUBE[1:]], [0, 0, 0, -1, 1, 1]]
    result = grounding_axis_aligned_score([*broken, CUBE], [CUBE] * 7)
    assert result["num_unparsed"] == 6 and result["acc50"] == pytest.approx(1 / 7)
    assert grounding_axis_aligned_score(broken, [CUBE] * 6, mode="reference")["num_unparsed"] == 5
    empty = grounding_axis_aligned_score([], [])
    assert math.isnan(empty["acc25"]) and empty["n"] == 0


def test_boxes_that_cannot_be_read_are_counted():
    broken = ([math.nan, *CUBE[1:]], [*CUBE, 0], [0, 0, 0, -1, 1, 1], CUBE[:5], None, "box", [10**400, *CUBE[1:]])
    for box in broken:
        result = multi3drefer_score([[box]], [[CUBE]])
        assert (result["f1_50"], result["num_unparsed"], result["num_rejected"]) == (0, 1, 1), box
        mixed = multi3drefer_score([[box, CUBE]], [[CUBE]])
        assert (mixed["f1_50"], mixed["num_unparsed"], mixed["num_rejected"]) == (pytest.approx(2 / 3), 0, 1), box
        nothing_true = multi3drefer_score([[box]], [[]])
        assert (nothing_true["f1_50"], nothing_true["num_unparsed"]) == (0, 1), box
    assert multi3drefer_score([[[0, 0, 0, -1, 1, 1]]], [[CUBE]], mode="reference")["num_rejected"] == 0
    for answer in (None, 3, "boxes", {}):
        result = multi3drefer_score([answer], [[]])
        assert (result["f1_50"], result["num_unparsed"], result["num_rejected"]) == (0, 1, 0)
    assert multi3drefer_score([[]], [[]])["num_unparsed"] == 0  # an answer: nothing is meant
    nine = [*CUBE, 0, 0, 0]
    assert multi3drefer_score([[nine], [nine]], [[nine], []])["num_unparsed"] == 0
    assert multi3drefer_score([[nine]], [[CUBE]])["num_rejected"] == 1


def test_bad_references_are_named():
    for broken in ([math.nan, *CUBE[1:]], CUBE[:5], [0, 0, 0, 0, 1, 1]):
        for answered in (CUBE, None):
            with pytest.raises(ValueError, match="question 0: the true box (is|has sizes) "):
                axis_aligned_overlaps([answered], [broken])
        with pytest.raises(ValueError, match=r"true box 0 (is|has sizes)|true boxes have \[5\] numbers"):
            multi3drefer_f1([CUBE], [broken])
    with pytest.raises(ValueError, match="mode is 'loose'"):
        axis_aligned_overlaps([], [], "loose")
    with pytest.raises(ValueError, match="mode is 'loose'"):
        multi3drefer_score([], [], mode="loose")
    with pytest.raises(ValueError, match="1 boxes, 0 truths"):
        axis_aligned_overlaps([CUBE], [])
    with pytest.raises(ValueError, match="1 boxes, 0 truths"):
        multi3drefer_score([[]], [])
    with pytest.raises(ValueError, match="nr3d needs question_types"):
        grounding_axis_aligned_score([CUBE], [CUBE], nr3d=True)
    with pytest.raises(ValueError, match=r"true boxes have \[6, 9\] numbers"):
        multi3drefer_f1([], [CUBE, [*CUBE, 0, 0, 0]])
    with pytest.raises(ValueError, match="expected one finite score for each and one more"):
        select_proposals([CUBE], [0.1])
    with pytest.raises(ValueError, match="expected one finite score for each and one more"):
        select_proposals([CUBE], [0.1, math.nan])


# Multi3DRefer


@pytest.mark.parametrize("mode", ["reference", "corrected"])
def test_multi3drefer(mode):
    boxes, truths, kinds = columns(MULTI["cases"], "objects", "gt_response", "question_type")
    chosen = [select_proposals(case["objects"], case["scores"]) for case in MULTI["cases"]]
    assert chosen == [case["selected"] for case in MULTI["cases"]]
    for case, answered in zip(MULTI["cases"], chosen, strict=True):
        expected = {name: case[name] for name in ("f1_25", "f1_50")}
        assert multi3drefer_f1(answered, case["gt_response"], mode) == pytest.approx(expected), case
    for case in MULTI["hand"]:
        expected = {name: case[name] for name in ("f1_25", "f1_50")}
        assert multi3drefer_f1(case["pred"], case["gt"], mode) == pytest.approx(expected), case
    result = multi3drefer_score(chosen, truths, kinds, mode)
    for kind, values in MULTI["aggregate"].items():
        found = result if kind == "all" else result["per_type"][kind]
        assert {name: found[name] for name in values} == pytest.approx(values)
    assert set(result["per_type"]) == set(QUESTION_TYPES)


def test_all_proposals_are_taken_if_the_mass_is_not_reached():
    # "nothing" ties with the first box, which wins; 3 of 4 equal scores hold 0.75, below 0.8
    assert select_proposals(["a", "b", "c"], [0, 0, 0, 0], mass=0.8) == ["a", "b", "c"]
    assert select_proposals(["a", "b", "c"], [0, 0, 0, 0], mass=0.5) == ["a", "b"]
    assert select_proposals(["a"], [1e4, 0]) == ["a"] and select_proposals([], [0.0]) == []


def test_assignment_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        boxes, truths = (np.concatenate([rng.uniform(0, 1, (n, 3)), rng.uniform(0.5, 1.5, (n, 3))], 1) for n in (3, 4))
        overlaps = box_iou_axis_aligned(boxes, truths, all_pairs=True)
        best = max(itertools.permutations(range(4), 3), key=lambda order: overlaps[range(3), order].sum())
        hits = (overlaps[range(3), best] >= 0.25).sum()
        assert multi3drefer_f1(boxes.tolist(), truths.tolist())["f1_25"] == pytest.approx(2 * hits / 7)


def test_boxes_with_angles_and_broken_ones():
    turned = [0, 0, 0, 1, 2, 3, 0.5, 0.2, 0.1]
    assert multi3drefer_f1([turned], [turned])["f1_50"] == 1.0
    assert multi3drefer_f1([turned], [turned], euler_order="ZXY")["f1_50"] == 1.0
    assert multi3drefer_f1([turned], [CUBE])["f1_25"] == 0.0  # nine numbers where six are asked
    broken = [[math.nan, *CUBE[1:]], CUBE[:5], [0, 0, 0, 0, 1, 1]]
    assert multi3drefer_f1([CUBE, *broken], [CUBE])["f1_25"] == pytest.approx(2 / 5)
    result = multi3drefer_score([None, None, []], [[], [CUBE], []])
    assert result["f1_25"] == pytest.approx(1 / 3) and result["num_unparsed"] == 2
    assert math.isnan(multi3drefer_score([], [])["f1_50"])


def test_the_metrics_agree():
    boxes, truths, kinds = columns(SCANREFER["cases"], "pred_response", "gt_response", "question_type")
    metric = load_metric("grounding_axis_aligned")
    result = metric.compute(predictions=boxes, references=truths, question_types=kinds, mode="reference")
    assert 100 * result["per_type"]["unique"]["acc25"] == pytest.approx(SCANREFER["aggregate"]["unique"]["acc25"])
    assert metric.compute(predictions=[[]], references=[CUBE])["num_unparsed"] == 1
    boxes, truths, scores = columns(MULTI["cases"], "objects", "gt_response", "scores")
    metric = load_metric("multi3drefer")
    result = metric.compute(predictions=boxes, references=truths, scores=scores, mode="reference")
    assert result["f1_50"] == pytest.approx(MULTI["aggregate"]["all"]["f1_50"])
    assert metric.compute(predictions=[None, []], references=[[], []])["f1_50"] == 0.5


def test_tensors_are_boxes_too():
    box = [0.0, 0, 0, 1, 1, 1]
    for boxes in (torch.tensor([box]), [torch.tensor(box)], np.array([box])):
        assert multi3drefer_score([boxes], [[box]])["f1_50"] == 1
        assert load_metric("multi3drefer").compute(predictions=[boxes], references=[[box]])["f1_50"] == 1
