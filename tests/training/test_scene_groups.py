"""Which questions share the encoding of their views: by structure alone, with the marks of all in the pictures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from gap_mllm.processing.data import RecordError, complete_row
from gap_mllm.processing.data.scene_sample import SceneMark, SceneSample, View
from gap_mllm.processing.visual_prompt_gap_mllm import CrossSize
from gap_mllm.training import SceneCollator
from gap_mllm.training.collation_events import COLLATION_EVENTS
from gap_mllm.training.scene_groups import are_same_views


RED, GREEN = (SceneMark(0, "cross", color, (16.0, x)) for color, x in (("red", 8.0), ("green", 50.0)))


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def views():
    return tuple(View(picture=picture(seed), camera_to_world=np.eye(4)) for seed in range(2))


def ask(views, name, *marks, **fields):
    return SceneSample(**{"id": name, "views": views, "question": "What?", "answer": name, "marks": marks} | fields)


def encodings(processor, items, layout="block_mask", **options):
    """How many scenes are encoded, and the collator."""
    collator = SceneCollator(processor, layout, **{"for_pretraining": True} | options)
    return collator(items), collator


def test_marks_of_all_questions_stand_in_the_shared_pictures(views, tiny_processor):
    batch, _ = encodings(tiny_processor, [[ask(views, "a", RED), ask(views, "b", GREEN), ask(views, "c")]])
    both, _ = encodings(tiny_processor, [ask(views, "d", RED, GREEN)])
    assert len(batch["scene_lengths"]) == 1 and torch.equal(batch["pixel_values"], both["pixel_values"])
    documents, targets = batch["document_ids"][0], batch["readout_targets"][0]
    watched = [set(targets[documents == number].tolist()) - {-1} for number in (1, 2, 3)]
    image_tokens = (batch["input_ids"][0] == tiny_processor.image_token_id).nonzero()[:, 0].tolist()
    assert watched == [{image_tokens[0]}, {image_tokens[2]}, set()]  # 2 x 2 tokens: rows 8 and 50 of 64


@pytest.mark.parametrize(
    ("others", "num_scenes"),
    [
        ([GREEN], 1),
        ([RED], 1),
        ([], 1),
        ([replace(RED, xy=(40.0, 40.0))], 2),  # another red cross
        ([replace(GREEN, xy=RED.xy)], 2),  # would hide the red one
        ([GREEN, replace(RED, view=1)], 2),
    ],
)
def test_marks_share_pictures_where_each_keeps_its_meaning(views, tiny_processor, others, num_scenes):
    for items in (
        [ask(views, "a", RED), ask(views, "b", *others)],
        [[ask(views, "a", RED), ask(views, "b", *others)]],
    ):
        batch, collator = encodings(tiny_processor, items)
        is_item = isinstance(items[0], list)
        assert len(batch["scene_lengths"]) == (num_scenes if is_item or others == [RED] else 2)
        assert int(batch["scene_rows"].sum()) == 2
        apart = num_scenes - 1 if is_item else 0  # singles promise nothing
        assert (
            collator.counts["encoded_apart"] == apart
            and int(batch["collation_counts"][COLLATION_EVENTS.index("encoded_apart")]) == apart
        )


@pytest.mark.parametrize(
    "other",
    [
        {"question": "Frame-0: <image>Frame-1: <image>What?"},  # other words before the views
        {"system": "You measure."},
        {"cross_size": CrossSize(3, 1)},
    ],
)
def test_what_the_views_are_shown_with_must_be_the_same(views, tiny_processor, other):
    alike = [ask(views, "a"), ask(views, "b")]
    assert len(encodings(tiny_processor, [alike])[0]["scene_lengths"]) == 1
    batch, collator = encodings(tiny_processor, [[alike[0], ask(views, "b", **other)]])
    assert len(batch["scene_lengths"]) == 2 and collator.counts == {"encoded_apart": 1}


def test_the_same_views_are_one_object_one_file_or_equal_bytes(views, tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    Image.fromarray(picture(1)).save(tmp_path / "b.png")
    path, data = str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes()
    opened = [Image.open(path) for _ in range(2)]
    drawn = Image.open(path)
    drawn.putpixel((0, 0), (1, 2, 3))
    cases = [
        (path, path, True),
        (path, str(tmp_path / "b.png"), False),
        ({"path": path, "bytes": None}, {"path": path, "bytes": None}, True),
        ({"path": "a", "bytes": data}, {"path": "a", "bytes": bytes(bytearray(data))}, True),
        ({"path": "a", "bytes": data}, {"path": "a", "bytes": data + b"0"}, False),
        (*opened, True),
        (opened[0], drawn, False),
        (picture(), picture(), False),  # two arrays are not looked through
    ]
    for first, second, is_same in cases:
        assert are_same_views((View(first),), (View(second),)) is is_same, (first, second)
    assert are_same_views(views, tuple(replace(view, camera_to_world=np.eye(4)) for view in views))
    moved = tuple(replace(view, camera_to_world=2 * np.eye(4)) for view in views)
    assert not are_same_views(views, moved) and not are_same_views(views, views[::-1])
    assert not are_same_views(views, views[:1])


def test_a_batch_of_rows_about_one_scan_encodes_it_once(tmp_path, tiny_processor):
    for index in range(2):
        Image.fromarray(picture(index)).save(tmp_path / f"{index}.png")
    stored = [{"image": {"path": str(tmp_path / f"{index}.png"), "bytes": None}} for index in range(2)]
    rows = [complete_row(id=name, views=stored, question=f"{name}?", answer=name) for name in "ab"]
    other = complete_row(id="c", views=stored[:1], question="c?", answer="c")
    batch, _ = encodings(tiny_processor, [rows[0], other, rows[1]])
    assert batch["scene_lengths"].tolist() == [2, 1] and batch["sample_ids"] == ["a", "b", "c"]
    padded, _ = encodings(tiny_processor, [rows[0], other, rows[1]], "padded")
    assert padded["scene_repeats"].tolist() == [2, 1] and len(padded["input_ids"]) == 3


@pytest.mark.parametrize(("layout", "num_scenes"), [("padded", 2), ("packed", 2), ("block_mask", 1)])
def test_other_models_share_nothing_that_they_cannot_repeat(views, tiny_processor, layout, num_scenes):
    batch, collator = encodings(tiny_processor, [[ask(views, "a"), ask(views, "b")]], layout, for_pretraining=False)
    assert len(batch["scene_lengths"]) == num_scenes and "scene_repeats" not in batch
    assert collator.counts["encoded_apart"] == num_scenes - 1


def test_questions_without_views_stay_alone(tiny_processor):
    batch, _ = encodings(tiny_processor, [ask((), "a"), ask((), "b")])
    assert len(batch["input_ids"]) == 2 and "pixel_values" not in batch


def test_lists_that_are_none_are_refused(views, tiny_processor):
    collator = SceneCollator(tiny_processor)
    with pytest.raises(ValueError, match="a list of questions is empty"):
        collator([[]])
    with pytest.raises(ValueError, match="questions 'a' and 'b' of a list are about different views"):
        collator([[ask(views, "a"), ask(views[:1], "b")]])
    with pytest.raises(RecordError, match="record b.*no answer to learn from"):
        collator([[ask(views, "a"), ask(views, "b", answer=None)]])
    with pytest.raises(TypeError, match="holds a int; expected a SceneSample or a row"):
        collator([3])


def test_the_old_name_says_the_new_one():
    with pytest.raises(ImportError, match=r"SharedSceneCollator is SceneCollator\(for_pretraining=True\) now"):
        from gap_mllm.training import SharedSceneCollator  # noqa: F401
