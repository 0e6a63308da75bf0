"""The picture of the worst answers: truth and answer in colours of their own, in words and in the views."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gap_mllm.evaluation.benchmarks import find_benchmark
from gap_mllm.evaluation.runner import report_pictures
from gap_mllm.evaluation.runner.report_pictures import ANSWER_COLOR, TRUE_COLOR, answer_lines, draw_samples
from gap_mllm.processing.data import make_question, render_room
from gap_mllm.processing.data.contact_sheet import contact_sheet
from gap_mllm.processing.drawing import ANSWER_COLOR as ANSWER_HEX
from gap_mllm.processing.drawing import TRUE_COLOR as TRUE_HEX


class Asked:
    """One question, as the report finds it again."""

    def __init__(self, sample):
        self.only = sample

    def sample(self, row_id, with_frames):
        return self.only


@pytest.fixture
def scored():
    """A benchmark, a question of it and the record of an answer that is 1 m off."""
    benchmark, sample = find_benchmark("synthetic_rooms"), make_question(render_room(0), "reconstruction")
    item = sample.truth.items[0]
    text = f'{{"label": "{item.label}", "pointmap": {[round(float(x), 2) for x in np.add(item.numbers, [0, 0, 1])]}}}'
    _, (record,) = benchmark.score([sample], [text])
    return benchmark, sample, {**record, "id": sample.id, "text": text}


def pixels_of(picture, color):
    return int((np.asarray(picture) == color).all(-1).sum())


def test_truth_is_green_and_the_answer_orange(scored, tmp_path):
    benchmark, sample, record = scored
    path = draw_samples(benchmark, Asked(sample), [record], tmp_path / "worst.png", "The worst answers")
    picture = Image.open(path).convert("RGB")
    assert pixels_of(picture, TRUE_COLOR) > 100 and pixels_of(picture, ANSWER_COLOR) > 100
    (truth, green), (answer, orange) = answer_lines(benchmark, sample, record)
    assert truth.startswith("Truth: ") and answer.startswith("Answer (1.00 m off): ")
    assert (green, orange) == (TRUE_COLOR, ANSWER_COLOR)
    rgb = [tuple(bytes.fromhex(color[1:])) for color in (TRUE_HEX, ANSWER_HEX)]
    assert rgb == [green, orange]  # as in all pictures of answers


def test_what_is_given_with_a_question_is_neither(scored):
    benchmark, sample, record = scored
    shown = report_pictures.with_answer(benchmark, sample, record)
    assert report_pictures._colors(shown)[1] == [TRUE_COLOR] * len(sample.points) + [ANSWER_COLOR]
    box = replace(make_question(render_room(0), "detection3d").boxes[0], role="input")
    assert report_pictures._colors(replace(sample, boxes=(box,)))[0] == [report_pictures.OTHER_COLOR]


def test_a_sheet_has_one_style_for_each_row(scored):
    with pytest.raises(ValueError, match="styles has 0 entries for 1 samples"):
        contact_sheet([scored[1]], styles=[])
