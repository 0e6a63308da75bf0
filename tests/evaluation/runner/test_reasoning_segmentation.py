"""The benchmark of reasoning segmentation: true points grow to the true masks, and what stands beside the answers."""

from dataclasses import replace

import numpy as np
import pytest

from gap_mllm.evaluation.benchmarks import find_benchmark
from gap_mllm.evaluation.runner import evaluate_model
from gap_mllm.evaluation.runner.questions import load_questions
from gap_mllm.processing.answers_gap_mllm import format_box, format_points
from gap_mllm.processing.data import load_multiview
from gap_mllm.processing.data.record_errors import RecordError


@pytest.fixture(scope="module")
def asked(rooms):
    benchmark = find_benchmark("reasoning_segmentation")
    return benchmark, load_questions(benchmark, **rooms)[0].without_pictures()


def test_true_answers_give_what_growing_can_give(asked):
    benchmark, samples = asked
    metrics, records = benchmark.score(samples, [sample.answer for sample in samples])
    assert metrics["miou"] == pytest.approx(metrics["true_points_miou"], abs=0.05)
    assert metrics["true_points_miou"] > 0.5 > metrics["center_miou"]
    assert metrics["parse_rate"] == metrics["label_accuracy"] == 1 and metrics["hit50"] <= metrics["hit25"]
    assert {record["category"] for record in records} <= {"label", "relation", "use"}
    assert len(benchmark.draw(samples[0], records[0]["parsed"])) == len(samples[0].points)


def test_an_answer_without_points_covers_nothing(asked):
    benchmark, samples = asked
    metrics, records = benchmark.score(samples, ["Here it is."] * len(samples))
    assert metrics["miou"] == metrics["view_miou"] == metrics["parse_rate"] == 0
    assert records[0]["rejected"] == "no object" and records[0]["parsed"] is None


def test_the_middle_of_a_box_is_a_point_and_one_far_off_takes_the_nearest_surface(asked):
    benchmark, samples = asked
    sample = samples[0]
    box = sample.box_in_view(sample.boxes[0], 0)
    (by_box, far), records = zip(
        *[benchmark.score([sample], [text]) for text in (format_box(box), format_points(["bed"], [[50, 0, 0]]))],
        strict=True,
    )
    assert by_box["miou"] > 0 and records[0][0]["parsed"]["label"] is None
    assert far["parse_rate"] == 1 and 0 <= far["miou"] < 1


def test_rooms_alone_have_true_masks(asked):
    benchmark, samples = asked
    for fields in ({"metadata": {}}, {"boxes": ()}, {"points": ()}):
        with pytest.raises(RecordError, match="not about a rendered room"):
            benchmark.check(replace(samples[0], **fields))


def test_the_rooms_are_rendered_as_they_were_asked_about(rooms, asked):
    from gap_mllm.evaluation.benchmarks.reasoning_segmentation_benchmark import _render

    rows = load_multiview("synthetic_rooms", split="test", tasks=("reasoning_segmentation",), **rooms)
    sample = asked[1][0]
    room, _ = _render((sample.metadata["room_seed"], len(sample.views), 96, 96))
    assert np.array_equal(room.images[0], np.asarray(rows[0]["views"][0]["image"]))


@pytest.mark.slow
def test_it_runs_beside_its_baselines(rooms, model_path, tmp_path):
    metrics = evaluate_model(
        model_path, "reasoning_segmentation", output=tmp_path, device="cpu", baselines=["constant", "blind"], limit=2,
        with_report=True, show_progress=False, **rooms,
    )  # fmt: skip
    assert set(metrics["scores"]) == {"model", "constant", "blind"} and metrics["headline"] == "miou"
    assert (tmp_path / "report.md").is_file()


def test_boxes_are_asked_for_by_the_same_texts(asked):
    from gap_mllm.evaluation.benchmarks import two_stage

    boxes, samples = find_benchmark("reasoning_segmentation_boxes"), asked[1]
    chats = []

    class Listener:
        def encode(self, pictures, geometry=None):
            return None

        def ask(self, asked_chats, form, *scene):
            chats.extend(asked_chats)
            return [format_box([0, 0, 2, 1, 1, 1, 0, 0, 0])] * len(asked_chats)

    answers = boxes.ask("blind", Listener(), boxes.forms, samples[:1], None, 4)
    text = samples[0].metadata["maker_facts"]["description"]
    asked_text = chats[0][-1]["content"][-1]["text"]
    assert asked_text == two_stage.build_messages("grounding_box", 1, description=text)[-1]["content"][-1]["text"]
    metrics, _ = boxes.score(samples[:1], [answers[0]["text"]])
    assert answers[0]["id"] == samples[0].id and metrics["parse_rate"] == 1
