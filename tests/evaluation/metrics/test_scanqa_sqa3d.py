"""ScanQA and SQA3D: cleaned answers and matches against goldens of published evaluators."""

import json
import math
from pathlib import Path

import pytest

from gap_mllm.evaluation import load_metric
from gap_mllm.evaluation.metrics.answer_cleaning import clean_answer
from gap_mllm.evaluation.metrics.scanqa import MODES, scanqa_aggregate, scanqa_read, scanqa_score
from gap_mllm.evaluation.metrics.sqa3d import sqa3d_aggregate, sqa3d_question_type, sqa3d_score


FIXTURES = Path(__file__).parents[2] / "fixtures"
GOLDEN = json.loads((FIXTURES / "spatial" / "qa_em.json").read_text())
CLEANED = json.loads((FIXTURES / "metrics" / "qa_extraction.json").read_text())["sqa3d_clean"]


@pytest.mark.parametrize("row", GOLDEN["normalise"] + CLEANED, ids=lambda row: repr(row["text"]))
def test_cleaning_is_the_published_one(row):
    assert clean_answer(row["text"], "reference") == row["clean"]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("monitor/TV", "monitor TV"),
        ("façade", "facade"),
        ("It’s the the table.", "it's table"),
        ("1.5 m", "1.5 m"),
        ("1,200", "1200"),
        ("white, black", "white black"),
        ("twenty one", "twenty-one"),
        ("21", "twenty-one"),
        ("99", "ninety-nine"),
        ("black-and-white", "black and white"),
        ("2\nchairs", "two chairs"),
        ("8-10", "eight ten"),
        ("a", "a"),
        ("3 o' clock", "three o'clock"),
        ("backwards", "backward"),
        ("...", ""),
    ],
)
def test_cleaning_keeps_what_the_published_one_breaks(text, cleaned):
    assert clean_answer(text) == cleaned == clean_answer(cleaned)


def test_matches_are_the_published_ones():
    for case in GOLDEN["scanqa"]:
        prediction, answers = case["prediction"], case["answers"]
        expected = {"em": case["em"], "em_refined": case["em_refined"]}
        assert scanqa_score(prediction, answers, "reference") == expected, case
        assert scanqa_score(prediction, answers, "spatial_mllm")["em"] == case["strict_em_video3dllm"], case
        assert clean_answer(prediction, "reference") == case["clean_prediction"]
    for case in GOLDEN["sqa3d"]:
        expected = {"em": case["em"], "em_refined": case["em_refined"]}
        assert sqa3d_score(case["prediction"], case["answer"], "reference") == expected, case


def test_our_matches_differ_where_the_published_ones_are_wrong():
    differing = {
        case["prediction"]
        for case in GOLDEN["scanqa"]
        if scanqa_score(case["prediction"], case["answers"]) != scanqa_score(**_arguments(case, "reference"))
    }
    assert differing == {"chair", "", ".", "no", "a", "19", "nineteen"}
    for prediction, answer in (("chair", "armchair"), ("no", "north wall"), ("", "chair"), ("nineteen", "nine")):
        assert scanqa_score(prediction, [answer]) == {"em": 0, "em_refined": 0}
    assert scanqa_score("arm chair", ["armchair"]) == {"em": 0, "em_refined": 1}
    assert scanqa_score("I see it. <answer>Left.</answer>", ["left"]) == {"em": 1, "em_refined": 1}


def test_an_empty_answer_is_never_right_but_in_published_rules():
    for answers in ([], [""], ["..."], ["chair"]):
        assert scanqa_score("", answers) == {"em": 0, "em_refined": 0}
    assert scanqa_score("", ["chair"], "reference") == {"em": 0, "em_refined": 1}
    empty = [not scanqa_read(text, mode) for mode in MODES for text in ("", ".", "x", "<answer></answer>")]
    assert empty == [True, True, False, True] + [True, True, False, False] + [True, False, False, False]


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("red, green, blue, brown, white, black, gray, yellow", "brown"),
        ("red green blue brown white black gray yellow", "brown"),
        ("brown or white", "brown"),
        ("brown and white", "brown"),
        ("brown/white", "brown"),
        ("- brown\n- white", "brown"),
        ("It is brown. It is white.", "brown"),
        ("left right", "left"),
        ("yes no", "yes"),
        ("1 2 3 4", "2"),
        ("chair, table", "chair"),
        ("chair table lamp sofa desk", "lamp"),
        ("round square", "square"),
        ("brown or white chair", "brown"),
        ("chair or table", "chair"),
        ("brown (black)", "brown"),
        ("2 or 3", "2"),
        ("2-3", "3"),
        ("2 to 3", "2"),
        ("between 2 and 3", "2"),
        ("left/right", "left"),
        ("chair (table)", "chair"),
        ("chair: table: lamp", "table"),
        ("brown, wooden, red, table, round, metal", "brown"),
        ("not brown", "brown"),
        ("The chair is not brown.", "brown"),
        ("It isn't round", "round"),
        ("There is no chair", "chair"),
        ("not on the left", "left"),
        ("neither brown", "brown"),
    ],
)
def test_an_answer_that_lists_alternatives_is_no_refined_match(text, truth):
    assert scanqa_score(text, [truth]) == {"em": 0, "em_refined": 0}
    assert scanqa_score(f"Hm. <answer>{text}</answer>", ["nothing", truth]) == {"em": 0, "em_refined": 0}
    assert sqa3d_score(text, truth)["em_refined"] == 0
    assert scanqa_score(text, [truth], "reference")["em_refined"] == 1  # the published rule


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("The color of the chair is brown.", "brown"),
        ("There are two chairs in front of the table", "two"),
        ("on the left side of the door", "left"),
        ("brown and white cabinet", "brown and white"),
        ("a brown chair, the chair", "chair"),
        ("brown", "brown wooden chair or sofa"),
        ("1.5 m wide", "1.5 m"),
        ("1,200 books", "1200"),
        ("Yes, it is.", "yes"),
        ("Yes, there is a chair.", "yes"),
        ("Yes. There are two.", "yes"),
        ("No, it is closed.", "no"),
        ("No, it isn't black", "no"),
        ("No, it is closed.", "closed"),
        ("Three, I think.", "3"),
        ("Two, one on each side.", "two"),
        ("Four chairs, all brown", "4"),
        ("There are three: one by the door and two by the window.", "3"),
        ("There are 4 chairs around the table, 2 on each side.", "4"),
        ("The chair is brown, and it is to the left of the desk.", "brown"),
        ("Brown. It is made of wood.", "brown"),
        ("Brown, wooden chair", "brown"),
        ("The desk is black, the chair is brown.", "brown"),
        ("It is black with white stripes", "black"),
        ("It is brown, not black.", "brown"),
        ("Left, next to the door.", "left"),
        ("A trash can, next to the desk.", "trash can"),
        ("The couch, which is brown.", "couch"),
        ("the brown, leather couch", "couch"),
        ("round, with 4 legs", "round"),
        ("behind the desk, in front of the window", "behind desk"),
        ("Based on the image, the color of the chair is brown.", "brown"),
        ("The color of the office chair in the corner of the room is brown.", "brown"),
        ("The object to my left is a large wooden brown desk.", "desk"),
        ("The object that is located on the right side of the bed is a nightstand.", "nightstand"),
        ("The one on the right side of the room is a window.", "window"),
    ],
)
def test_an_answer_that_says_the_truth_in_a_sentence_is_a_refined_match(text, truth):
    assert scanqa_score(text, [truth])["em_refined"] == sqa3d_score(text, truth)["em_refined"] == 1


def test_words_that_say_nothing_alone_are_no_part_of_the_truth():
    for text in ("on", "of", "is", "the"):
        assert scanqa_score(text, ["on the left of the bed is a desk"])["em_refined"] == 0
    assert scanqa_score("behind", ["behind the desk"])["em_refined"] == 1


def test_scanqa_means():
    scores = [scanqa_score(**_arguments(case, "reference")) for case in GOLDEN["scanqa"]]
    result = scanqa_aggregate(scores)
    assert result["em"] == pytest.approx(sum(case["em"] for case in GOLDEN["scanqa"]) / 33)
    assert result["em_refined"] == pytest.approx(sum(case["em_refined"] for case in GOLDEN["scanqa"]) / 33)
    assert math.isnan(scanqa_aggregate([])["em"]) and result["n"] == 33
    assert scanqa_aggregate([scanqa_score("x", ["x"], "spatial_mllm")])["em_refined"] is None


def test_question_types_are_the_published_ones():
    for case in GOLDEN["sqa3d_question_type"]:
        assert sqa3d_question_type(case["question"], "reference") == case["type"], case
    ours = {"Island where?": "others", "Canopy?": "others", "Isn't it?": "is", "Whats this": "what", "": "others"}
    for question, kind in ours.items():
        assert sqa3d_question_type(question) == kind
    assert sqa3d_question_type("  What's it? ") == "what" and sqa3d_question_type("Can't I?") == "can"


def test_sqa3d_means_per_type():
    cases = GOLDEN["sqa3d"]
    scores = [sqa3d_score(case["prediction"], case["answer"], "reference") for case in cases]
    result = sqa3d_aggregate(scores, [case["type"] for case in cases])
    for kind, percent in GOLDEN["sqa3d_percent"].items():
        key = "em" if kind == "all" else f"em_{kind}"
        assert result[key] * 100 == pytest.approx(percent)
    assert result["em_refined_can"] == 1 and result["missing"] == [] and result["n"] == 12
    alone = sqa3d_aggregate(scores[:1], ["what"])
    assert alone["missing"] == ["is", "how", "can", "which", "others"] and "em_is" not in alone
    assert math.isnan(sqa3d_aggregate([], [])["em"])


def test_the_metrics_load_offline_and_agree():
    cases = GOLDEN["scanqa"]
    inputs = {
        "predictions": [case["prediction"] for case in cases],
        "references": [{"answers": case["answers"]} for case in cases],
    }
    metric = load_metric("scanqa")
    for mode in MODES:
        result = metric.compute(**inputs, mode=mode, ids=[str(index) for index in range(len(cases))])
        scores = [scanqa_score(**_arguments(case, mode)) for case in cases]
        assert result["em"] == scanqa_aggregate(scores)["em"]
        assert result["num_unparsed"] == (1 if mode == "spatial_mllm" else 2)
    assert "spatial_mllm" in metric.inputs_description and metric.description and metric.citation
    cases = GOLDEN["sqa3d"]
    references = [{"answer": case["answer"], "question": case["question"]} for case in cases]
    result = load_metric("sqa3d").compute(
        predictions=[case["prediction"] for case in cases], references=references, mode="reference"
    )
    assert result["em"] * 100 == pytest.approx(GOLDEN["sqa3d_percent"]["all"]) and result["num_unparsed"] == 0


def test_bad_input_is_named():
    for call in (clean_answer, lambda text, mode: scanqa_score(text, [text], mode)):
        with pytest.raises(ValueError, match="unknown mode 'loose'; known are corrected"):
            call("x", "loose")
    with pytest.raises(ValueError, match="unknown mode 'spatial_mllm'; known are corrected, reference"):
        sqa3d_score("x", "x", "spatial_mllm")
    with pytest.raises(ValueError, match="unknown mode 'x'"):
        sqa3d_question_type("What?", "x")
    for mode in MODES:
        with pytest.raises(TypeError, match="is nan; expected text"):
            scanqa_score("x", [math.nan], mode)
        with pytest.raises(TypeError, match="answers is 'x'; expected a list of texts"):
            scanqa_score("x", "x", mode)
        with pytest.raises(TypeError, match="answers is None; expected a list of texts"):
            scanqa_score("x", None, mode)
    with pytest.raises(TypeError, match="answer is None; expected text"):
        sqa3d_score("x", None)
    with pytest.raises(ValueError, match="answer is ' '; expected the true answer"):
        sqa3d_score("x", " ")
    with pytest.raises(ValueError, match="unknown mode 'x'"):
        scanqa_read("x", "x")
    with pytest.raises(TypeError, match="question is None; expected text"):
        sqa3d_question_type(None)
    with pytest.raises(ValueError, match="unknown question type 'why'; known are what"):
        sqa3d_aggregate([sqa3d_score("x", "x")], ["why"])
    with pytest.raises(ValueError, match="got 0 scores, 1 question_types"):
        sqa3d_aggregate([], ["what"])
    for name, reference in (("scanqa", {"answers": ["x"]}), ("sqa3d", {"answer": "x", "question": "What?"})):
        with pytest.raises(ValueError, match="ids has 1 ids more than once"):
            load_metric(name).compute(predictions=["x", "x"], references=[reference] * 2, ids=["a", "a"])


def _arguments(case, mode):
    return {"prediction": case["prediction"], "answers": case["answers"], "mode": mode}
