"""Scores of marked-pixel answers by hand-made cases, and answers of a tiny model."""

import json

import numpy as np
import pytest

from gap_mllm import GapMllmForPreTraining
from gap_mllm.evaluation import (
    answer_marked_pixels,
    load_metrics,
    make_marked_pixel_samples,
    marked_pixel_scorer,
    render_split,
    save_metrics,
    score_marked_pixels,
)
from gap_mllm.processing import format_point
from gap_mllm.processing.data import make_question


@pytest.fixture(scope="module")
def samples(test_rooms):
    return make_marked_pixel_samples(test_rooms, questions_per_scene=2)


def off_by(sample, distance, label=None):
    (truth,) = sample.truth.items
    return format_point(label or truth.label, np.array(truth.numbers) + [0, distance, 0], decimals=6)


def test_true_answers_score_best(samples):
    metrics, records = score_marked_pixels([sample.answer for sample in samples], samples)
    assert (metrics["n"], metrics["num_scenes"]) == (8, 4)
    assert metrics["parse_rate"] == metrics["label_accuracy"] == metrics["near_share"] == 1.0
    assert metrics["point_error_m"] <= 0.0087  # two decimals: at most half a centimetre in each coordinate
    assert all(record["rejected"] is None for record in records)


def test_errors_are_distances_and_misses_are_infinite(samples):
    four = samples[:4]
    texts = [off_by(four[0], 0.1), off_by(four[1], 0.4, "spaceship"), off_by(four[2], 2.0), '{"label": "chair", "poi']
    metrics, records = score_marked_pixels(texts, four)
    errors = [record["error_m"] for record in records]
    np.testing.assert_allclose(errors, [0.1, 0.4, 2.0, np.inf], atol=2e-6)
    assert metrics["point_error_m"] == pytest.approx(1.2, abs=2e-6)  # median of 0.1, 0.4, 2, infinity
    assert metrics["parse_rate"] == 0.75 and metrics["near_share"] == 0.5 and metrics["label_accuracy"] == 0.5
    assert [record["rejected"] for record in records] == [None, None, None, "cut off"]
    assert records[3]["text"] == texts[3] and records[3]["answered_point"] is None


def test_nothing_readable_is_infinitely_wrong(samples, tmp_path):
    texts = ["", "I do not know.", '{"label": "bed", "pointmap": [1, 2]}'] + ["{"] * (len(samples) - 3)
    metrics, records = score_marked_pixels(texts, samples)
    assert metrics["parse_rate"] == metrics["label_accuracy"] == metrics["near_share"] == 0.0
    assert metrics["point_error_m"] == np.inf and metrics["point_error_m_ci95"] == [np.inf, np.inf]
    assert [record["rejected"] for record in records[:4]] == [
        "no object", "no object", "pointmap holds 2 entries, expected 3", "cut off",
    ]  # fmt: skip
    save_metrics(metrics | {"count": np.int64(3)}, tmp_path / "metrics.json")
    saved = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert saved["point_error_m"] == "Infinity" and saved["n"] == 8 and saved["count"] == 3
    assert load_metrics(tmp_path / "metrics.json")["point_error_m"] == float("inf")


def test_one_scene_has_no_interval(test_rooms):
    samples = make_marked_pixel_samples(test_rooms[:1], questions_per_scene=3)
    metrics, _ = score_marked_pixels([off_by(sample, 1.0) for sample in samples], samples)
    assert metrics["point_error_m"] == pytest.approx(1.0, abs=2e-6)
    assert np.isnan(metrics["point_error_m_ci95"]).all()


def test_the_same_pixels_are_asked_about_in_words_of_no_training(samples, test_rooms):
    held_out = make_marked_pixel_samples(test_rooms, questions_per_scene=2, phrasings="held_out")
    assert [(one.id, one.marks, one.answer) for one in held_out] == [
        (one.id, one.marks, one.answer) for one in samples
    ]
    assert not {one.question for one in held_out} & {one.question for one in samples}
    with pytest.raises(ValueError, match="phrasings is 'unseen'; expected one of all, first, held_out"):
        make_marked_pixel_samples(test_rooms, phrasings="unseen")


def test_baselines_answer_the_same_questions(samples, baselines):
    metrics, _ = score_marked_pixels([""] * len(samples), samples, baselines)
    answers = [sample.truth.items[0] for sample in samples]
    constant = [np.linalg.norm(answer.numbers - baselines.constant_point) for answer in answers]
    assert metrics["constant_point_error_m"] == pytest.approx(np.median(constant))
    prior = []
    for sample, answer in zip(samples, answers, strict=True):
        mark = sample.marks[0]
        cell = baselines.marked_prior_points[mark.view, mark.xy[1] // 4, mark.xy[0] // 4]  # 32 cells, 128 pixels
        prior.append(np.linalg.norm(answer.numbers - cell))
    assert metrics["pixel_prior_point_error_m"] == pytest.approx(np.median(prior))
    assert metrics["pixel_prior_near_share"] == np.mean(np.array(prior) <= 0.5)
    hits = [answer.label == baselines.majority_label for answer in answers]
    assert metrics["majority_label_accuracy"] == np.mean(hits)
    assert metrics["num_baseline_scenes"] == 24 and len(metrics["pixel_prior_point_error_m_ci95"]) == 2


def test_documented_errors(samples, test_rooms, train_rooms, baselines):
    with pytest.raises(ValueError, match="0 answers came for 0 questions"):
        score_marked_pixels([], [])
    with pytest.raises(ValueError, match="1 answers came for 8"):
        score_marked_pixels([""], samples)
    seen = make_marked_pixel_samples(train_rooms[:1])
    with pytest.raises(ValueError, match=r"rooms \['room_0000000'\] were used to fit"):
        score_marked_pixels([""], seen, baselines)
    sample = make_question(test_rooms[0], "detection3d")
    with pytest.raises(ValueError, match="marks no pixel"):
        score_marked_pixels([""], [sample])


def test_batches_answer_as_single_questions(tiny_model, tiny_processor, samples):
    model = tiny_model(model_class=GapMllmForPreTraining)
    model.train()
    # Rooms of another size make shorter prompts, so that the batch is padded.
    mixed = samples[:2] + make_marked_pixel_samples([next(render_split("test", 1, 9)).reorder_views([0, 1])]) * 1
    settings = {"max_new_tokens": 6, "arm": 4, "half_thickness": 1, "show_progress": False}
    texts = answer_marked_pixels(model, tiny_processor, mixed, batch_size=3, **settings)
    assert model.training
    assert texts == answer_marked_pixels(model, tiny_processor, mixed, batch_size=1, **settings)
    assert len(set(texts)) > 1 and not any("<|" in text for text in texts)


def test_the_scorer_of_the_trainer_gives_plain_numbers(tiny_model, tiny_processor, test_rooms):
    model = tiny_model(model_class=GapMllmForPreTraining)
    settings = {"max_new_tokens": 4, "arm": 4, "half_thickness": 1, "show_progress": False}
    scores = marked_pixel_scorer(tiny_processor, test_rooms[:2], **settings)(model)
    texts = answer_marked_pixels(model, tiny_processor, make_marked_pixel_samples(test_rooms[:2]), **settings)
    metrics, _ = score_marked_pixels(texts, make_marked_pixel_samples(test_rooms[:2]))
    assert scores == {name: value for name, value in metrics.items() if not name.endswith("_ci95")}
    assert scores["n"] == 2 and scores["parse_rate"] == 0.0 and scores["point_error_m"] == float("inf")
