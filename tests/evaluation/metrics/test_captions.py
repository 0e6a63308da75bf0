"""Caption scores against goldens of pycocoevalcap as published evaluators call it."""

import json
import math
import shutil
import sys
from pathlib import Path

import pytest

from gap_mllm.evaluation import load_metric
from gap_mllm.evaluation.metrics import captions
from gap_mllm.evaluation.metrics.captions import SCORES, caption_scores


pytest.importorskip("pycocoevalcap")
FIXTURES = Path(__file__).parents[2] / "fixtures"
GOLDEN = json.loads((FIXTURES / "metrics" / "captions.json").read_text())
ITEMS = GOLDEN["items"]
PREDICTIONS, REFERENCES, IOUS = ([item[key] for item in ITEMS] for key in ("pred", "refs", "iou"))
FORMS = {
    "no_gate": {"mode": "reference"},
    "gate_0.5": {"mode": "reference", "ious": IOUS, "iou_threshold": 0.5},
    "gate_0.25": {"mode": "reference", "ious": IOUS, "iou_threshold": 0.25},
    "plain_strings_scanqa": {"mode": "scanqa"},
    "single_item": {"mode": "reference"},
}


@pytest.mark.parametrize("form", FORMS)
def test_scores_are_the_published_ones(form):
    count = 1 if form == "single_item" else len(ITEMS)
    result = caption_scores(PREDICTIONS[:count], REFERENCES[:count], meteor=False, per_item=True, **FORMS[form])
    for name, value in GOLDEN[form]["corpus"].items():
        if name != "METEOR":
            assert result[name.lower()] == pytest.approx(value, abs=1e-9), name
            assert result["per_item"][name.lower()] == pytest.approx(GOLDEN[form]["per_item"][name], abs=1e-9), name
    assert result["meteor"] is None and result["meteor_missing"] == "meteor=False"
    assert result["n"] == count


@pytest.mark.slow  # Java's start takes ten seconds and more
@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR needs Java")
def test_meteor_is_the_published_one_and_survives_any_text():
    result = caption_scores(PREDICTIONS, REFERENCES, per_item=True, meteor=True, **FORMS["gate_0.5"])
    assert result["meteor"] == pytest.approx(GOLDEN["gate_0.5"]["corpus"]["METEOR"], abs=1e-9)
    assert result["per_item"]["meteor"] == pytest.approx(GOLDEN["gate_0.5"]["per_item"]["METEOR"], abs=1e-9)
    assert "meteor_missing" not in result
    wild = caption_scores(["a\nb\r\nc ||| d", "", "\ud800 é"], [["a b c", "c ||| d\n x"], ["y z"], ["é"]])
    assert wild["meteor"] > 0


def test_answers_of_scanqa_score_as_published():
    golden = json.loads((FIXTURES / "spatial" / "qa_em.json").read_text())["scanqa_caption"]
    cases = golden["input"].values()
    texts, answers = ([case[key] for case in cases] for key in ("prediction", "answers"))
    result = caption_scores(texts, answers, "scanqa", meteor=False, per_item=True, ids=list(golden["input"]))
    assert result["cider"] * 100 == pytest.approx(golden["CIDEr_x100"])
    assert result["rouge_l"] * 100 == pytest.approx(golden["ROUGE_L_x100"])
    assert [result[f"bleu_{n}"] * 100 for n in (1, 2, 3, 4)] == pytest.approx(golden["BLEU_x100"])
    for index, item in enumerate(golden["per_item"].values()):
        assert result["per_item"]["cider"][index] == pytest.approx(item["CIDEr"])
        assert [result["per_item"][f"bleu_{n}"][index] for n in (1, 2, 3, 4)] == pytest.approx(item["BLEU"])


def test_gated_captions_earn_something_by_the_reference_only():
    published = caption_scores(PREDICTIONS, REFERENCES, per_item=True, meteor=False, **FORMS["gate_0.5"])
    ours = caption_scores(PREDICTIONS, REFERENCES, "corrected", IOUS, 0.5, meteor=False, per_item=True)
    out = [index for index, iou in enumerate(IOUS) if iou < 0.5]
    assert published["num_gated"] == ours["num_gated"] == len(out) == 27
    assert min(published["per_item"]["rouge_l"][index] for index in out) > 0.1
    for name in SCORES[:-1]:
        assert max(ours["per_item"][name][index] for index in out) < 1e-6, name
        assert ours[name] > 0
    assert ours["rouge_l"] == pytest.approx(sum(ours["per_item"]["rouge_l"]) / len(ITEMS))
    open_gate = caption_scores(PREDICTIONS, REFERENCES, meteor=False)
    assert open_gate["num_gated"] == 0 and all(open_gate[name] > ours[name] for name in SCORES[:-1])


def test_an_iou_at_the_threshold_is_kept():
    result = caption_scores(["a b", "a b"], [["a b"], ["a b"]], ious=[0.5, 0.4999], iou_threshold=0.5, meteor=False)
    assert result["num_gated"] == 1 and result["rouge_l"] == 0.5


def test_ours_does_not_care_for_blanks_and_case():
    texts = ["  A  chair,   brown.", ""]
    spaced = caption_scores(texts, [["a chair , brown ."], ["x"]], meteor=False, per_item=True)
    assert spaced["per_item"]["rouge_l"] == [1, 0] and spaced["num_empty"] == 1


def test_nothing_scores_not_a_number():
    result = caption_scores([], [], meteor=False)
    assert result["n"] == 0 and result["meteor"] is None
    assert all(math.isnan(result[name]) for name in SCORES[:-1])


def test_without_java_meteor_is_none_and_says_so(monkeypatch):
    monkeypatch.setattr(captions.shutil, "which", lambda name: None)
    result = caption_scores(["a"], [["a"]])
    assert result["meteor"] is None and "needs Java" in result["meteor_missing"]
    with pytest.raises(ImportError, match="METEOR needs Java: install a runtime"):
        caption_scores(["a"], [["a"]], meteor=True)


def test_a_java_that_does_not_run_is_reported(monkeypatch, tmp_path):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'no memory' >&2\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(RuntimeError, match="Java process failed; pass meteor=False to do without. It said: no memory"):
        caption_scores(["a"], [["a"]])


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap.bleu.bleu", None)
    with pytest.raises(ImportError, match=r"pip install gap-mllm\[caption\]"):
        caption_scores(["a"], [["a"]], meteor=False)


def test_the_metric_loads_offline_and_agrees():
    metric = load_metric("captions")
    references = [{"captions": item["refs"], "iou": item["iou"]} for item in ITEMS]
    inputs = {"predictions": PREDICTIONS, "references": references, "meteor": False}
    result = metric.compute(**inputs, mode="reference", iou_threshold=0.5, ids=[item["id"] for item in ITEMS])
    assert result["cider"] == pytest.approx(GOLDEN["gate_0.5"]["corpus"]["CIDEr"], abs=1e-9)
    no_boxes = [{"captions": item["refs"], "iou": None} for item in ITEMS]
    result = metric.compute(predictions=PREDICTIONS, references=no_boxes, mode="scanqa", meteor=False)
    assert result["bleu_4"] == pytest.approx(GOLDEN["plain_strings_scanqa"]["corpus"]["BLEU_4"], abs=1e-9)
    with pytest.raises(ValueError, match="item 0: its IoU is None"):
        metric.compute(predictions=PREDICTIONS, references=no_boxes, iou_threshold=0.5, meteor=False)
    assert "iou_threshold" in metric.inputs_description and metric.description and metric.citation


def test_bad_input_is_named():
    def score(predictions=("a", "b"), references=(("a",), ("b",)), **options):
        return caption_scores(predictions, references, meteor=False, **options)

    with pytest.raises(ValueError, match="unknown mode 'strict'; known are corrected, reference, scanqa"):
        score(mode="strict")
    with pytest.raises(ValueError, match="got 1 predictions, 2 references"):
        score(["a"])
    with pytest.raises(ValueError, match="item 0: its references are None; expected a list of texts"):
        score(references=[None, ["b"]])
    with pytest.raises(ValueError, match="item 1: its references are 'b'; expected a list of texts"):
        score(references=[["a"], "b"])
    with pytest.raises(ValueError, match="item 0: a reference is nan; expected text"):
        score(references=[[math.nan], ["b"]])
    for texts in ([], [""], [" "]):
        with pytest.raises(ValueError, match="item 1: it has no reference with a word in it"):
            score(references=[["a"], texts])
    with pytest.raises(ValueError, match="iou_threshold=0.5 needs ious, one for each prediction"):
        score(iou_threshold=0.5)
    with pytest.raises(ValueError, match="iou_threshold is nan; expected a number in 0..1"):
        score(iou_threshold=math.nan, ious=[1, 1])
    with pytest.raises(ValueError, match="got 2 predictions, 1 ious"):
        score(iou_threshold=0.5, ious=[1])
    for iou in (math.nan, None, -0.1, 50):
        with pytest.raises(ValueError, match=f"item 1: its IoU is {iou}; expected a number in 0..1"):
            score(iou_threshold=0.5, ious=[1, iou])
    with pytest.raises(ValueError, match="ids has 1 ids more than once"):
        score(ids=["x", "x"])
    with pytest.raises(ValueError, match="got 2 predictions, 1 ids"):
        score(ids=["x"])
