"""Several questions about one scene: positions, masks and targets, and the equality of the layouts."""

import numpy as np
import pytest
import torch

from gap_mllm import GapMllmForPreTraining
from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.processing.data.scene_sample import SceneMark, SceneSample, View
from gap_mllm.training.layouts import document_mask, rope_positions
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from gap_mllm.training.scene_collator import LOSS_FIELDS, SceneCollator


QUESTIONS = RoomQuestions(counts={"reconstruction": 2, "grounding_box": 1, "dense_caption": 1}, decimals=1)
SMALL = RoomVariety(sizes=((64, 64), (64, 96)), size_shares=(0.5, 0.5), num_views=(1, 2), num_views_shares=(0.5, 0.5))


@pytest.fixture(scope="module")
def rooms():
    dataset = RoomQuestionDataset(RenderedRooms("train", 8, SMALL, 1), QUESTIONS)
    return [dataset[index] for index in (0, 1, 2)]


@pytest.fixture(scope="module")
def model(pretraining_model):
    return pretraining_model


def collate(processor, items, layout="block_mask", **options):
    return SceneCollator(processor, layout, for_pretraining=True, **options)(items)


def question(size=(64, 64), num_views=1, answer="x", **fields):
    views = tuple(View(picture=np.zeros((size[1], size[0], 3), np.uint8)) for _ in range(num_views))
    return SceneSample(**{"id": "s", "views": views, "question": "Which?", "answer": answer} | fields)


def test_rope_positions_are_those_of_the_model(model, rooms, tiny_processor):
    batch = collate(tiny_processor, rooms)
    first = 0
    for row, length in enumerate(batch["scene_lengths"].tolist()):
        prefix = batch["input_ids"][row][batch["document_ids"][row] == 0][None]
        grid = batch["image_grid_thw"][first : first + length]
        types = (prefix == tiny_processor.image_token_id).long()
        expected, _ = model.model.get_rope_index(prefix, types, image_grid_thw=grid)
        assert torch.equal(batch["position_ids"][1:, row, : prefix.shape[1]], expected[:, 0])
        first += length


def test_rope_positions_by_hand():
    # one word, a view of 2 x 4 patches (1 x 2 tokens), one word
    assert rope_positions([0, 1, 1, 0], [(1, 2, 4)], 2).tolist() == [
        [0, 1, 2, 3],
        [0, 1, 1, 3],
        [0, 1, 1, 3],
        [0, 1, 2, 3],
    ]


def test_document_mask_by_hand():
    allowed = document_mask(torch.tensor([[0, 0, 1, 2, 2, -1]]))[0, 0].int().tolist()
    assert allowed == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_only_answers_are_supervised(rooms, tiny_processor):
    batch = collate(tiny_processor, rooms[:1])
    documents, labels = batch["document_ids"][0], batch["labels"][0]
    assert batch["sample_ids"] == [sample.id for sample in rooms[0]]
    for index, sample in enumerate(rooms[0]):
        supervised = labels[(documents == index + 1) & (labels != -100)]
        assert tiny_processor.tokenizer.decode(supervised) == sample.answer + "<|im_end|>"
    assert (labels[documents <= 0] == -100).all()


def test_readout_targets_are_the_marked_tokens(tiny_processor):
    unmarked = question((96, 64), 2)
    marked = question((96, 64), views=unmarked.views, marks=(SceneMark(1, "cross", "red", (95, 0)),))
    for layout in ("block_mask", "packed"):
        batch = collate(tiny_processor, [[marked, unmarked]], layout)
        rows = (batch["readout_targets"][0] >= 0).nonzero()[:, 0]
        # the two rows before "x" and before the end of the turn look at token 2 of view 1: row 0, column 2 of 2 x 3
        assert batch["labels"][0][rows + 1].ne(-100).all() and len(rows) == 2
        image_tokens = (batch["input_ids"][0] == tiny_processor.image_token_id).nonzero()[:, 0]
        assert set(batch["readout_targets"][0][rows].tolist()) == {int(image_tokens[6 + 2])}


def test_point_map_targets_are_the_points_of_the_tokens(tiny_processor):
    # A plane 2 m ahead of both cameras, the second one metre to the right of the first.
    intrinsics = np.array([[64.0, 0, 31.5], [0, 64.0, 31.5], [0, 0, 1]])
    views = []
    for right in (0.0, 1.0):
        pose, depth = np.eye(4), np.full((64, 64), 2.0)
        pose[0, 3] = right
        depth[: int(8 * right)] = 0  # no measurement
        picture = np.zeros((64, 64, 3), np.uint8)
        views.append(View(picture, depth, intrinsics=intrinsics, camera_to_world=pose))
    targets = collate(tiny_processor, [question(views=tuple(views))], point_map_side=4)["point_map_targets"]
    assert targets.shape == (8, 4, 4, 3)
    # token 1 of view 0 (row 0, column 1), its third column and second row: pixels 32 + 20 - 0.5 and 12 - 0.5 of 64
    torch.testing.assert_close(targets[1, 1, 2], torch.tensor([(51.5 - 31.5) / 32, (11.5 - 31.5) / 32, 2.0]))
    assert targets[4, 0].isnan().all() and targets[4, 1].isfinite().all()
    torch.testing.assert_close(targets[5, 1, 2] - targets[1, 1, 2], torch.tensor([1.0, 0, 0]))


def test_all_layouts_give_the_same_loss_terms_and_gradients(model, rooms, tiny_processor, make_trainer):
    trainer = make_trainer(model, point_map_weight=1.0, readout_weight=1.0)
    results = []
    for layout in ("block_mask", "packed", "padded"):
        batch = collate(tiny_processor, rooms, layout, point_map_side=model.config.point_map_side)
        assert len(batch["scene_lengths"]) == 3
        model.eval()
        model.zero_grad()
        terms, _ = trainer.compute_terms(model, batch)
        counts = {name: int(count) for name, count in trainer.count_items(batch).items()}
        sum(terms.values()).backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append((terms, counts, gradients))
    terms, counts, gradients = results[0]
    assert min(counts.values()) > 0
    for other_terms, other_counts, other_gradients in results[1:]:
        assert counts == other_counts
        for name, term in terms.items():
            torch.testing.assert_close(other_terms[name], term, rtol=1e-5, atol=0)
        assert gradients.keys() == other_gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-3, atol=1e-4, msg=name)


def test_a_question_alone_gives_the_same_logits(model, rooms, tiny_processor):
    """Neither the other questions of a scene nor padding change an answer."""
    shown = []  # with the crosses of all questions in the pictures, as they are where they share them
    for samples in rooms:
        marks = tuple(mark for sample in samples for mark in sample.marks)
        images = samples[0].__class__(views=samples[0].views, marks=marks, cross_size=samples[0].cross_size)
        views = tuple(View(picture=image) for image in images.marked_images())
        shown.append([question(views=views, question=s.question, answer=s.answer) for s in samples])
    together = collate(tiny_processor, shown)
    with torch.no_grad():
        logits = model(**_inputs(together)).answer_logits
        alone = [
            model(**_inputs(collate(tiny_processor, [sample]))).answer_logits for room in shown for sample in room
        ]
    torch.testing.assert_close(logits, torch.cat(alone), rtol=1e-4, atol=1e-4)


def _inputs(batch):
    return {name: value for name, value in batch.items() if name not in LOSS_FIELDS}


def test_the_pretraining_class_is_what_auto_gives(model):
    assert type(model) is GapMllmForPreTraining


def test_answer_tokens_are_weighed_by_what_they_are(tiny_processor):
    answer = '```json\n{"label": "bed", "pointmap": [-1.25, 2.0, 0.5]}\n```'
    weights = {"label": 2.0, "number": 1.0, "decimals": 0.25, "frame_of_json": 0.125}
    for layout in ("block_mask", "packed"):
        batch = collate(tiny_processor, [question(answer=answer)], layout, answer_weights=weights)
        is_answer = batch["labels"][0] != -100
        got = list(
            zip(
                tiny_processor.batch_decode(batch["labels"][0][is_answer][:, None]),
                batch["label_weights"][0][is_answer].tolist(),
                strict=True,
            )
        )
        assert got == [
            ('```json\n{"label": "', 0.125),
            ("bed", 2.0),
            ('", "pointmap": [', 0.125),
            *[("-", 1.0), ("1", 1.0), (".", 1.0), ("2", 0.25), ("5", 0.25), (", ", 0.125)],
            *[("2", 1.0), (".", 1.0), ("0", 0.25), (", ", 0.125)],
            *[("0", 1.0), (".", 1.0), ("5", 0.25), ("]}\n```", 0.125), ("<|im_end|>", 1.0)],
        ]
        assert not batch["label_weights"][0][~is_answer].any()
        batch = collate(tiny_processor, [question(answer=answer)], layout, answer_weights=weights | {"opening": 1.5})
        assert batch["label_weights"][0][is_answer].tolist() == [1.5] + [weight for _, weight in got[1:]]
    with pytest.raises(ValueError, match=r"unknown parts \['digits'\]"):
        SceneCollator(tiny_processor, for_pretraining=True, answer_weights={"digits": 1.0})


def test_weights_of_letters_of_several_bytes_follow_the_text(tiny_processor):
    """A letter may take several tokens; what follows it keeps its own weight."""
    answer = '```json\n{"label": "caf\u00e9\u6905", "pointmap": [1.5, 2.0, 0.5]}\n```'
    batch = collate(tiny_processor, [question(answer=answer)], answer_weights={"label": 2.0, "decimals": 0.25})
    is_answer = batch["labels"][0] != -100
    weights = batch["label_weights"][0][is_answer].tolist()
    texts = tiny_processor.batch_decode(batch["labels"][0][is_answer][:, None])
    assert [weight for text, weight in zip(texts, weights, strict=True) if text == "5"] == [0.25, 0.25]
    assert tiny_processor.tokenizer.decode(batch["labels"][0][is_answer]) == answer + "<|im_end|>"
