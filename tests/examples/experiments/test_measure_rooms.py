"""Measuring on rooms: frozen marks, blind baselines beside figures, geometry that is another's or off, going on."""

import json
from pathlib import Path

import measure_rooms as script
import numpy as np
import pytest
from measure_rooms import measure_rooms
from room_measures.figures_table import figures_table
from room_measures.geometry_answers import OFF, OTHER, OWN, answer_questions
from room_measures.room_parts import plan_parts
from room_measures.room_sets import ROOM_SETS, RoomKind, ask_room, frozen_marks
from room_measures.room_tasks import ROOM_TASKS, commonest_option

from gap_mllm import GapMllmForConditionalGeneration, GapMllmVggtForReconstruction
from gap_mllm.evaluation import evaluate_geometry_encoder, score_marked_pixels
from gap_mllm.processing import GapMllmProcessor
from gap_mllm.processing.asking_gap_mllm import AnswerForm, Asker
from gap_mllm.processing.data.scene_sample import SceneSample


ROOT = Path(__file__).parents[3]
MODEL = ROOT / "examples/assets/tiny_gap_mllm"
SMALL = {"limit": 2, "num_baseline_rooms": 4, "in_second_process": False}
COUNTS = {maker: count for task in ROOM_TASKS.values() for maker, count in task.counts.items()}


@pytest.fixture(scope="module")
def rows():
    lines = (ROOT / "tests/fixtures/frozen_answers/tiny_gap_mllm.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def asked():
    """All questions about three rooms."""
    return [sample for room in range(3) for sample in ask_room(ROOM_SETS["selection"], RoomKind(), room, COUNTS)[0]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms")
    return folder, measure_rooms(MODEL, folder, groups=["tasks", "dense", "views"], **SMALL)


def of_task(samples, task):
    return [sample for sample in samples if sample.metadata["maker"] in ROOM_TASKS[task].counts]


def test_frozen_marks_are_those_of_the_frozen_rows(rows):
    marks = [(room, view, x, y) for room, of_room in frozen_marks().items() for view, x, y in of_room]
    assert marks == [(row["room"], row["view"], *row["pixel"]) for row in rows]


def test_questions_about_frozen_marks_have_the_truths_written_down(rows):
    for room in (1000, 1001, 1127):
        samples, refused = ask_room(ROOM_SETS["test"], RoomKind(), room, {"reconstruction": 2})
        of_room = [row for row in rows if row["room"] == room]
        assert [sample.question for sample in samples] == [row["question"] for row in of_room] and not refused
        truths = [sample.truth.items[0] for sample in samples]
        assert [truth.label for truth in truths] == [row["label"] for row in of_room]
        for truth, row in zip(truths, of_room, strict=True):  # written with nine digits, then
            assert truth.numbers == pytest.approx(row["point"], abs=1e-6)


@pytest.mark.slow
def test_the_frozen_answers_have_the_error_that_they_had(rows):
    samples = [s for room in range(1000, 1128) for s in ask_room(ROOM_SETS["test"], RoomKind(), room, COUNTS)[0]]
    metrics, _ = score_marked_pixels([row["answer"] for row in rows], of_task(samples, "points"))
    assert metrics["point_error_m"] == pytest.approx(0.5629644, abs=1e-6)
    assert metrics["label_accuracy"] == 161 / 256


def test_sets_of_rooms_never_meet():
    rooms = [
        {(each.split, first + place) for first in (each.first, each.first_of_encoder) for place in range(256)}
        for each in ROOM_SETS.values()
    ]
    assert len(set().union(*rooms)) == sum(map(len, rooms))
    assert ROOM_SETS["unseen"].first == 20000


@pytest.mark.parametrize("task, figure", [("detection", "f1"), ("grounding", "iou25_share"), ("choices", "accuracy")])
def test_true_answers_are_worth_everything_and_noise_nothing(asked, task, figure):
    samples = of_task(asked, task)
    figures = ROOM_TASKS[task].score(samples, [sample.answer for sample in samples])
    assert figures[figure] == 1.0 and figures["parse_rate"] == 1.0 and figures["n"] == len(samples)
    figures = ROOM_TASKS[task].score(samples, ["nothing of use"] * len(samples))
    assert figures[figure] == 0.0 and figures["parse_rate"] == 0.0


def test_true_captions_name_their_objects(asked):
    pytest.importorskip("pycocoevalcap")
    samples = of_task(asked, "captions")
    figures = ROOM_TASKS["captions"].score(samples, [sample.answer for sample in samples])
    assert figures["names_object_share"] == 1.0 and figures["rouge_l"] == pytest.approx(1.0)


@pytest.mark.parametrize("task", ["detection", "grounding", "choices", "captions"])
def test_blind_answers_can_be_read_and_see_no_picture(asked, task):
    samples = of_task(asked, task)
    blind = ROOM_TASKS[task].blind(samples)
    texts = [blind(SceneSample(**{**vars(sample), "views": ()})) for sample in samples]
    assert ROOM_TASKS[task].score(samples, texts)["parse_rate"] == 1.0


def test_the_blind_choice_is_the_option_that_was_right_most_often():
    def question(right, *options):
        choices = tuple(f"{letter}. {text}" for letter, text in zip("AB", options, strict=True))
        return SceneSample(id="q", task="spatial_qa", question_type="side", choices=choices, choice_index=right)

    blind = commonest_option(
        [question(0, "left", "right"), question(1, "right", "left"), question(0, "right", "left")]
    )
    assert [blind(question(0, *options)) for options in (("left", "right"), ("right", "left"))] == ["A", "B"]


@pytest.mark.slow
def test_answers_with_geometry_off_are_those_of_a_model_without_it(asked):
    processor, form = GapMllmProcessor.from_pretrained(MODEL), AnswerForm(24, ("pointmap",))
    samples, texts = of_task(asked, "points"), {}
    model = GapMllmForConditionalGeneration.from_pretrained(MODEL, dtype="float32").eval()
    for geometry in (OWN, OTHER, OFF):
        texts[geometry] = answer_questions(Asker(model, processor), samples, form, geometry, batch_size=4)
    plain = GapMllmForConditionalGeneration.from_pretrained(MODEL, dtype="float32", use_geometry=False).eval()
    assert answer_questions(Asker(plain, processor), samples, form, batch_size=4) == texts[OFF]
    assert texts[OWN] != texts[OTHER] and texts[OWN] != texts[OFF]


@pytest.mark.slow
def test_blind_answers_and_intervals_stand_beside_every_figure(measured):
    _, metrics = measured
    assert list(metrics["tasks"]) == list(ROOM_TASKS)
    points = metrics["tasks"]["points"]["model"]
    assert {"pixel_prior_point_error_m", "constant_point_error_m", "majority_label_accuracy"} <= set(points)
    ratio = points["point_error_m"] / points["pixel_prior_point_error_m"]
    assert points["point_error_ratio"] == pytest.approx(ratio)
    for task, figure in (("detection", "f1"), ("grounding", "iou25_share"), ("choices", "accuracy")):
        for given in ("model", "other_geometry", "geometry_off", "blind"):
            assert {figure, f"{figure}_ci95", "parse_rate", "parse_rate_ci95"} <= set(metrics["tasks"][task][given])
    assert "chance" in metrics["tasks"]["choices"]["model"]
    for name in ("dense_point_error_m", "language_dense_point_error_m"):
        beside = {name, f"shuffled_geometry_{name}", f"geometry_off_{name}", "pixel_prior_dense_point_error_m"}
        assert beside <= set(metrics["dense"])
    for part in [str(count) for count in range(1, 9)]:
        assert {"parse_rate", "point_error_m", "pixel_prior_point_error_m"} <= set(metrics["views"][part])
    assert metrics["views"]["together"]["n"] == sum(metrics["views"][str(count)]["n"] for count in range(1, 9))


@pytest.mark.slow
def test_the_same_call_goes_on_without_asking_again(measured, monkeypatch):
    folder, metrics = measured

    def refuse(*_):
        raise AssertionError("asked again")

    monkeypatch.setattr(script, "answer_questions", refuse)
    again = measure_rooms(MODEL, folder, groups=["tasks"], **SMALL)
    assert again["tasks"] == metrics["tasks"]
    monkeypatch.setattr(script, "plan_parts", refuse)  # rooms are not even rendered
    assert measure_rooms(MODEL, folder, groups=["tasks"], **SMALL) == again
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["rooms"] == "selection"


@pytest.mark.slow
def test_a_folder_of_another_measurement_is_refused(measured):
    with pytest.raises(ValueError, match='rooms: "selection" there, "test" now'):
        measure_rooms(MODEL, measured[0], rooms="test", **SMALL)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"rooms": "tests"}, "rooms"),
        ({"groups": ["colours"]}, "groups"),
        ({"limit": 1}, "limit"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_wrong_arguments_are_named(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        measure_rooms(MODEL, tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_parts_go_over_sizes_views_styles_and_wordings():
    parts = plan_parts(128)
    assert {part.group for part in parts} == {"tasks", "wordings", "views", "styles", "sizes"}
    sides = [side for part in parts if part.group == "sizes" for side in (part.kind.height, part.kind.width)]
    assert min(sides) == 96 and max(sides) == 1024 and "640x480" in [part.name for part in parts]


@pytest.mark.slow
def test_the_table_has_every_task_with_its_interval(measured):
    table = figures_table(measured[1])
    for text in ("point at the cross", "F1 at IoU 0.25", "share of IoU 0.25", "multiple choice", "views: 8"):
        (line,) = [line for line in table.splitlines() if text in line and "can be read" not in line]
        assert line.count("[") >= 1, line


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        script.main([str(MODEL), "--output", str(tmp_path), "--rooms", "tests"])
    assert "it takes selection, test, unseen" in capsys.readouterr().err


@pytest.mark.slow
def test_a_geometry_encoder_is_measured_as_ever_and_on_other_rooms(tmp_path):
    encoder = ROOT / "examples/assets/tiny_geometry_encoder"
    small = {"limit": 4, "num_baseline_rooms": 8, "groups": ["tasks", "styles"]}
    metrics = measure_rooms(encoder, tmp_path, rooms="test", **small)
    model = GapMllmVggtForReconstruction.from_pretrained(encoder, dtype="float32")
    before = evaluate_geometry_encoder(model, "test", 4, 8, show_progress=False)
    assert {name: metrics[name] for name in before} == before
    assert list(metrics["styles"]) == ["walls", "open"]
    beside = {"dense_point_error_m", "pixel_prior_dense_point_error_m", "dense_point_error_m_per_view"}
    beside |= {"pose_rotation_error_deg", "no_motion_rotation_error_deg", "pose_translation_error_m_ci95"}
    assert all(beside <= set(part) and part["n"] == 1 for part in metrics["styles"].values())
    assert "no motion" in figures_table(metrics) and "styles: open" in figures_table(metrics)


def test_wordings_are_compared_on_the_same_marks(tmp_path):
    measure = script.RoomMeasure(None, tmp_path, batch_size=1, seed=0)

    def records(*errors):
        why = [None if np.isfinite(error) else "no JSON" for error in errors]
        pairs = enumerate(zip(errors, why, strict=True))
        return [{"scene_id": f"room-{i}", "error_m": error, "rejected": reason} for i, (error, reason) in pairs]

    measure.answers["wordings"] = {"first": records(0.5, 1.0, 2.0), "held_out": records(0.5, 1.2, np.inf)}
    told = measure.sum_up("wordings")["together"]
    assert told["held_out_error_over_first"] == pytest.approx(1.2) and told["n"] == 6
    assert told["parse_rate"] == pytest.approx(5 / 6)
