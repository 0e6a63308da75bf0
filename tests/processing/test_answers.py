"""The answer schema: exact text out, safe reading back, and no text that can break the reader."""

import json
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gap_mllm.processing.answers_gap_mllm import (
    LabelledBox,
    LabelledPoint,
    answer_parts,
    format_box,
    format_boxes,
    format_frame,
    format_point,
    parse_boxes,
    parse_choice,
    parse_frame,
    parse_points,
)


BOX = (1.21, 0.35, 1.91, 1.2, 0.7, 0.74, 2.79, 1.13, 3.14)
SECOND_BOX = (-0.06, 0.4, 1.62, 0.5, 0.5, 0.9, -2.99, 1.13, -3.14)


# Text out


def test_point_text_is_the_released_form():
    text = format_point("table", [1.409, 0, 1.43])
    assert text == '```json\n{"label": "table", "pointmap": [1.41, 0.0, 1.43]}\n```'
    assert format_point(None, np.float32([1, 2, 3.15]), decimals=1) == '```json\n{"pointmap": [1.0, 2.0, 3.2]}\n```'


def test_boxes_text_is_the_released_form():
    assert format_boxes(["table", "chair"], [BOX, SECOND_BOX]) == (
        '```json\n[\n\t{"label": "table", "bbox_3d": [1.21, 0.35, 1.91, 1.2, 0.7, 0.74, 2.79, 1.13, 3.14]},\n'
        '\t{"label": "chair", "bbox_3d": [-0.06, 0.4, 1.62, 0.5, 0.5, 0.9, -2.99, 1.13, -3.14]}\n]```'
    )
    assert format_boxes([], []) == "```json\n[\n\t\n]```"


def test_grounding_texts_are_the_released_forms():
    assert format_frame(0) == '```json\n\t{"frame": 0}\n```'
    assert format_frame(np.int64(12)) == '```json\n\t{"frame": 12}\n```'
    box = torch.tensor([-0.06, 0.4, 1.62, 0.68, 0.68, 0.9, 2.79, 1.13, 3.14])
    assert format_box(box) == '```json\n\t{"bbox_3d": [-0.06, 0.4, 1.62, 0.68, 0.68, 0.9, 2.79, 1.13, 3.14]}\n```'


def test_no_negative_zero_and_no_vanishing_size():
    assert '"pointmap": [0.0, 0.0, 0.0]' in format_point("x", [-0.0, -0.004, 0.004])
    text = format_box([0, 0, 0, 0.001, 1, 1, -0.001, 0, 0])
    assert "[0.0, 0.0, 0.0, 0.01, 1.0, 1.0, 0.0, 0.0, 0.0]" in text
    assert parse_boxes(text).first.bbox_3d[3] == 0.01


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_formatting_refuses_non_finite_numbers(bad):
    with pytest.raises(ValueError, match="pointmap must be 3 finite numbers"):
        format_point("x", [0, bad, 1])
    with pytest.raises(ValueError, match="bbox_3d must be 9 finite numbers"):
        format_boxes(["x"], [[bad, *BOX[1:]]])


def test_formatting_refuses_wrong_shapes():
    with pytest.raises(ValueError, match="3 finite numbers"):
        format_point("x", [1, 2])
    with pytest.raises(ValueError, match="2 labels and 1 boxes"):
        format_boxes(["a", "b"], [BOX])
    with pytest.raises(ValueError, match="positive sizes"):
        format_box([0, 0, 0, 1, 0, 1, 0, 0, 0])
    for frame in (-1, 1.5, True):
        with pytest.raises(ValueError, match="view index"):
            format_frame(frame)


# Text back


def test_points_are_read_in_order_with_or_without_label():
    parsed = parse_points('{"pointmap": [0.1, 0.2, 0.3]}\nand {"label": "a }{ b", "pointmap": [9, 9, 9]}')
    assert parsed.items == (LabelledPoint(None, (0.1, 0.2, 0.3)), LabelledPoint("a }{ b", (9.0, 9.0, 9.0)))
    assert parsed.first.point == (0.1, 0.2, 0.3)
    assert not parsed.rejected and not parsed.truncated


def test_boxes_accept_both_keys_lists_prose_nesting_and_python_quotes():
    assert parse_boxes(format_boxes(["table", "chair"], [BOX, SECOND_BOX])).items == (
        LabelledBox("table", BOX),
        LabelledBox("chair", SECOND_BOX),
    )
    numbers = list(BOX)
    for text in (
        f'It\'s here:\n{{"label": "a", "box_3d": {numbers}}} done',
        f"{{'label': 'a', 'bbox_3d': {numbers},}}",
        f'{{"objects": [{{"label": "a", "bbox_3d": {numbers}}}]}}',
        f'{{"label": "a", "bbox_3d": {numbers}, "extra": {{}}}}',
        f'{{\n  "label": "a",\n  "bbox_3d": {numbers}\n}}',
        f'{{ broken it\'s\n{{"label": "a", "bbox_3d": {numbers}}}',
    ):
        assert parse_boxes(text).items == (LabelledBox("a", BOX),), text
    assert parse_boxes(format_box(BOX)).first == LabelledBox(None, BOX)


@pytest.mark.parametrize(
    ("fragment", "reason"),
    [
        ('{"label": "x", "bbox_3d": [NaN, 0, 0, 1, 1, 1, 0, 0, 0]}', "not finite"),
        ('{"label": "x", "bbox_3d": [Infinity, 0, 0, 1, 1, 1, 0, 0, 0]}', "not finite"),
        ('{"label": "x", "bbox_3d": [1e400, 0, 0, 1, 1, 1, 0, 0, 0]}', "not finite"),
        ('{"label": "x", "bbox_3d": [1' + "0" * 400 + ", 0, 0, 1, 1, 1, 0, 0, 0]}", "not finite"),
        ('{"label": "x", "bbox_3d": [1' + "0" * 5000 + ", 0, 0, 1, 1, 1, 0, 0, 0]}", "not JSON"),
        ('{"label": "x", "bbox_3d": [true, 0, 0, 1, 1, 1, 0, 0, 0]}', "not a number"),
        ('{"label": "x", "bbox_3d": ["1", 0, 0, 1, 1, 1, 0, 0, 0]}', "not a number"),
        ('{"label": "x", "bbox_3d": [null, 0, 0, 1, 1, 1, 0, 0, 0]}', "not a number"),
        ("{'label': 'x', 'bbox_3d': [1j, 0, 0, 1, 1, 1, 0, 0, 0]}", "not a number"),
        ('{"label": "x", "bbox_3d": [0, 0, 0, 1, 1, 1, 0, 0]}', "8 entries, expected 9"),
        ('{"label": "x", "bbox_3d": "0, 0"}', "not a list"),
        ('{"label": "x", "bbox_3d": [0, 0, 0, 1, 0, 1, 0, 0, 0]}', "not positive"),
        ('{"label": "x", "bbox_3d": [0, 0, 0, 1, -1, 1, 0, 0, 0]}', "not positive"),
        ('{"label": 3, "bbox_3d": [0, 0, 0, 1, 1, 1, 0, 0, 0]}', "label is not text"),
        ('{"label": "x", "label": "y", "bbox_3d": [0, 0, 0, 1, 1, 1, 0, 0, 0]}', "given twice"),
        ("{'label': 'x', 'label': 'y', 'bbox_3d': [0, 0, 0, 1, 1, 1, 0, 0, 0]}", "given twice"),
        ('{"label": "x", "bbox_3d": [1*1, 0, 0, 1, 1, 1, 0, 0, 0]}', "neither JSON nor a literal"),
        ('{"bbox_3d": [__import__("os").getpid(), 0, 0, 1, 1, 1, 0, 0, 0]}', "neither JSON nor a literal"),
        ("{1: 2}", "a key is not text"),
        ("{1, 2}", "not an object"),
        ('{"frame": 3}', "has no bbox_3d or box_3d"),
        ('{"bbox_3d": ' + "[" * 3000 + "]" * 3000 + "}", "not JSON"),
        ('{"bbox_3d": ' + "[" * 500 + "]" * 500 + "}", "1 entries, expected 9"),
        ('{"bbox_3d": "' + "a" * 9000 + '"}', "longer than 8192"),
    ],
)
def test_refused_boxes_name_their_reason(fragment, reason):
    parsed = parse_boxes(f"{fragment}\n" + format_boxes(["ok"], [BOX]))
    assert parsed.items == (LabelledBox("ok", BOX),)
    assert len(parsed.rejected) == 1
    assert reason in parsed.rejected[0].reason
    assert parsed.rejected[0].text == fragment[:200]


def test_labels_can_be_required():
    assert parse_boxes(format_box(BOX), require_label=True).rejected[0].reason == "label is missing"
    assert parse_boxes(format_boxes(["a"], [BOX]), require_label=True).first == LabelledBox("a", BOX)


def test_a_cut_answer_is_marked():
    text = format_boxes(["table", "chair"], [BOX, SECOND_BOX])[:-30]
    parsed = parse_boxes(text)
    assert parsed.items == (LabelledBox("table", BOX),) and parsed.truncated and not parsed.rejected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('```json\n\t{"frame": 4}\n```', 4),
        ('{"frame": 0, "bbox_3d": [1]}', 0),
        ('{"frame": 32}', None),
        ('{"frame": -1}', None),
        ('{"frame": "0"}', None),
        ('{"frame": 1.0}', None),
        ('{"frame": true}', None),
        ("Frame-3", None),
        ("", None),
    ],
)
def test_frames(text, expected):
    assert parse_frame(text, num_frames=32).first == expected


def test_a_frame_index_is_bounded_without_a_count():
    assert parse_frame('{"frame": 1' + "0" * 50 + "}").rejected[0].reason.startswith("frame is outside")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A", "A"), ("(A)", "A"), ("A.", "A"), ("A) left", "A"), ("a", "A"), ("(a)", "A"), ("The answer is (B).", "B"),
        ("The best answer is C", "C"), ("Answer: C", "C"), ("  (C)", "C"), ("Option B", "B"), ("**D**", "D"),
        ("`B`", "B"), ("{C}", "C"), ("Actually, B", "B"), ("D is it", "D"), ("E", "E"),
        ("B. The answer A is wrong", "B"),
        ("<answer>A</answer> no <answer> c </answer>", "C"), ("A chair and B", "B"), ("It is not A", None),
        ("a chair", None), ("A chair is closer", None), ("The answer is A chair", None), ("Both are far away", None),
        ("I think the chair is closer", None), ("A or B", None), ("1", None), ("", None), ("ⓐ", None), ("G", None),
    ],
)  # fmt: skip
def test_choices(text, expected):
    parsed = parse_choice(text)
    assert parsed.first == expected
    assert len(parsed.rejected) == (expected is None)


def test_tags_that_stay_open_take_no_time():
    start = time.perf_counter()
    assert parse_choice("<answer>" * 50_000).first is None
    assert parse_choice("<answer>B</ANSWER>" + "<answer>" * 50_000).first == "B"
    assert parse_choice("<answer>A</answer>" * 20_000 + "</answer><Answer>C\n</answer> D").first == "C"
    assert time.perf_counter() - start < 5  # quadratic time would be minutes


def test_letters_are_checked():
    assert parse_choice("E", letters="ABCD").first is None
    for letters in ("", "ab", "A]"):
        with pytest.raises(ValueError, match="capitals from A to Z"):
            parse_choice("A", letters=letters)


@pytest.mark.parametrize("parse", [parse_points, parse_boxes, parse_frame, parse_choice])
def test_only_text_is_read(parse):
    with pytest.raises(TypeError, match="got NoneType"):
        parse(None)


# Any text at all

KEYS = ['{"label": "', '"bbox_3d": [', '"box_3d": ', '"pointmap": [', '"frame": ', "<answer>", "</answer>"]
VALUES = [
    "0",
    "-1.5",
    "1e999",
    "NaN",
    "true",
    "9" * 400,
    "null",
    "()",
    "lambda: 0",
    "A",
    "```json\n",
    "\x00",
    "\ud800",
]
WHOLE = ['{"pointmap": [1, 2, 3]}', '{"bbox_3d": [0, 0, 0, 1, 1, 1, 0, 0, 0]}', '{"frame": 2}']
PIECES = st.sampled_from([*KEYS, *VALUES, *WHOLE, *"{}[]\"'\\,:\n\t "])
ANY_TEXT = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=40).map("".join))
NUMBERS = st.floats(-1e6, 1e6)


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT)
@example("{" * 20_000 + "}" * 20_000)
@example('{"a": ' * 5_000 + "}" * 5_000)
@example('{"pointmap": ' + "-" * 1_900 + "1}")
@example('{"pointmap": [' + "1+" * 900 + "1j, 0, 0]}")
@example('{"pointmap": ' + "[" * 1_000 + "]" * 1_000 + "}")
@example("{'pointmap': ['\\d', 0, 0]}")
@example('{"label": "\\ud800", "pointmap": [1, 2, 3]}')
def test_no_text_breaks_a_parser(text):
    for item in parse_points(text).items:
        assert len(item.point) == 3 and all(type(value) is float and math.isfinite(value) for value in item.point)
        assert item.label is None or isinstance(item.label, str)
    for item in parse_boxes(text).items:
        assert len(item.bbox_3d) == 9 and all(type(value) is float and math.isfinite(value) for value in item.bbox_3d)
        assert min(item.bbox_3d[3:6]) > 0
    assert all(type(frame) is int and 0 <= frame < 7 for frame in parse_frame(text, 7).items)
    assert all(letter in "ABCD" for letter in parse_choice(text, "ABCD").items)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.lists(NUMBERS, min_size=3, max_size=3), st.integers(0, 4))
@example('"}{\\', [0.0, -0.0, 1e6], 2)
def test_points_round_trip(label, point, decimals):
    text = format_point(label, point, decimals)
    assert parse_points(text).items == (LabelledPoint(label, tuple(round(value, decimals) for value in point)),)
    assert "-0.0]" not in text and "-0.0," not in text.replace(json.dumps(label), "")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=10), st.lists(st.floats(1e-6, 1e3), min_size=9, max_size=9)), max_size=4))
def test_boxes_round_trip(pairs):
    labels, boxes = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    parsed = parse_boxes(format_boxes(labels, boxes))
    assert [item.label for item in parsed.items] == labels and not parsed.rejected and not parsed.truncated
    for item, box in zip(parsed.items, boxes, strict=True):
        assert np.allclose(item.bbox_3d, box, atol=0.0101)


def test_every_character_of_an_answer_has_a_part():
    text = format_boxes(["bed 2"], [[-1, 2.25, 3, 0.5, 0.5, 0.5, 0, 1, -3.1]], 2)
    parts = answer_parts(text)
    picked = {part: "".join(c for c, p in zip(text, parts, strict=True) if p == part) for part in set(parts)}
    assert picked["label"] == "bed 2"
    assert picked["number"] == "-1.2.3.0.0.0.0.1.-3." and picked["decimals"] == "0250555001"
    assert '"bbox_3d": [' in picked["frame_of_json"] and text.startswith(picked["opening"]) and picked["opening"]
    assert set(answer_parts("A bed, 2.5 m away.")) == {"words"} and answer_parts("") == []
    assert answer_parts("B") == ["letter"] and set(answer_parts("B. bed") + answer_parts("b")) == {"words"}
