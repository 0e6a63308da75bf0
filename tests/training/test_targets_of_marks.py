"""Read-out targets of several marks: each entry of the answer looks at the token of its own mark."""

import pytest
import torch

from gap_mllm.processing.data import make_question, render_room
from gap_mllm.processing.visual_prompt_gap_mllm import Mark, marks_to_tokens
from gap_mllm.training import SceneCollator


@pytest.mark.parametrize("layout", ["block_mask", "padded", "packed"])
def test_each_entry_of_an_answer_looks_at_its_mark(layout, tiny_processor):
    question = make_question(render_room(3), "sparse_points")
    batch = SceneCollator(tiny_processor, layout, for_pretraining=True)([question])
    ids, labels, targets = (batch[name][0] for name in ("input_ids", "labels", "readout_targets"))
    image_tokens = (ids == tiny_processor.image_token_id).nonzero()[:, 0]
    sizes = [view.size for view in question.views]
    marks = [Mark(mark.view, mark.xy) for mark in question.marks]
    columns = image_tokens[marks_to_tokens(marks, sizes, batch["image_grid_thw"])].tolist()
    assert len(set(columns)) == len(marks) >= 3
    answer = (labels >= 0).nonzero()[:, 0]
    watched = targets[answer - 1].tolist()
    assert watched == sorted(watched, key=columns.index) and set(watched) == set(columns)
    entries = question.answer.split("},")
    for entry, column in zip(entries, columns, strict=True):
        rows = answer[torch.tensor(watched) == column]
        assert entry.strip("\n\t ,}`]")[-20:] in tiny_processor.tokenizer.decode(ids[rows])


def test_a_mark_alone_is_looked_at_by_all_of_the_answer(tiny_processor):
    question = make_question(render_room(3), "reconstruction")
    batch = SceneCollator(tiny_processor, "padded", for_pretraining=True)([question])
    answer = (batch["labels"][0] >= 0).nonzero()[:, 0]
    assert len(set(batch["readout_targets"][0][answer - 1].tolist())) == 1
    assert (batch["readout_targets"][0] >= 0).sum() == len(answer)


def test_an_answer_in_words_about_several_marks_looks_at_none(tiny_processor):
    (question,) = [make_question(render_room(0), "point_distance")]
    batch = SceneCollator(tiny_processor, "padded", for_pretraining=True)([question])
    assert len(question.marks) == 2 and not (batch["readout_targets"] >= 0).any()
