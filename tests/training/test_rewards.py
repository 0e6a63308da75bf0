"""Rewards of generated answers against values worked out by hand, and what is refused of references and settings."""

import math

import pytest

from gap_mllm.training import (
    REWARDS,
    box_iou_reward,
    choice_reward,
    compose_rewards,
    format_reward,
    frame_reward,
    length_reward,
    point_distance_reward,
    relative_accuracy_reward,
)


BOX = [0.0, 0.0, 2.0, 2.0, 1.0, 1.0, 0.0, 0.0, 0.0]
REFERENCES = {  # of every reward that has one: its column, a right text, a true value, and wrong true values
    "choice": ("choice", "B", "B", ["Z", "the bed", 1]),
    "relative_accuracy": ("number", "4", 4.0, [math.nan, "4", [4.0]]),
    "box_iou": ("bbox_3d", f'{{"bbox_3d": {BOX}}}', BOX, [BOX[:8], [*BOX[:3], -1, *BOX[4:]], "box"]),
    "point_distance": ("point", '{"pointmap": [0, 0, 2]}', [0, 0, 2], [[0, 0], [0, 0, math.inf], 2]),
    "frame": ("frame", '{"frame": 2}', 2, [-1, 2.0, [], True]),
}


def chat(text):
    """A completion as TRL gives it for prompts that are chats."""
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>near</think><answer>B</answer>", 1.0),
        ("\n<think>\nnear\nthe door\n</think>\n\n<answer>\nB\n</answer>\n", 1.0),
        ("<think>near</think>B", 0.0),
        ("<answer>B</answer>", 0.0),
        ("So: <think>near</think><answer>B</answer>", 0.0),
        ("<think>near</think><answer>B</answer> or C", 0.0),
        ("<think></think><answer>B</answer>", 0.0),
        ("<think>near</think><answer> </answer>", 0.0),
        ("<think>a</think><answer>A</answer><answer>B</answer>", 0.0),
        ("<think>a <think>b</think><answer>B</answer>", 0.0),
        ("<think>a</think><answer>B</answer></answer>", 0.0),
        ("", 0.0),
    ],
)
def test_format(text, reward):
    assert format_reward([text, chat(text)]) == [reward, reward]


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("B", 1.0),
        ("(B)", 1.0),
        ("B. the bed", 1.0),
        ("<think>A or C?</think><answer>B</answer>", 1.0),
        ("<think><answer>A</answer></think><answer>B</answer>", 1.0),
        ("<think>B", 0.0),  # a thought that was cut off
        ("<think><answer>B</answer></think>", 0.0),
        ("A", 0.0),
        ("A or B", 0.0),
        ("", 0.0),
    ],
)
def test_choice(text, reward):
    assert choice_reward([text], choice=["B"]) == [reward]


@pytest.mark.parametrize(
    ("answer", "truth", "reward"),
    [
        ("4", 4.0, 1.0),
        ("4.1", 4.0, 1.0),  # 0.025 off, within all ten
        ("4.3", 4.0, 0.9),  # 0.075 off: beyond 0.05 alone
        ("<answer>3.1 m</answer>", 4.0, 0.6),  # 0.225 off: within 0.25, .. 0.50
        ("six", 4.0, 0.1),  # 0.5 off, the last one, both ends included
        ("6.1", 4.0, 0.0),
        ("-4", 4.0, 0.0),
        ("<think>4</think><answer>9</answer>", 4.0, 0.0),
        ("0", 0.0, 1.0),
        ("1e999", 4.0, 0.0),
        ("many", 4.0, 0.0),
    ],
)
def test_relative_accuracy(answer, truth, reward):
    assert relative_accuracy_reward([answer], number=[truth]) == pytest.approx([reward])


@pytest.mark.parametrize(
    ("box", "reward"),
    [
        (BOX, 1.0),
        ([1.0, *BOX[1:]], 1 / 3),  # half of either: 1 of 3 cubic metres
        ([*BOX[:3], 2.0, 0.5, 0.5, *BOX[6:]], 0.25),
        ([*BOX[:6], math.pi / 2, 0.0, 0.0], 1 / 3),  # turned about z: 1 x 1 x 1 is in both
        ([3.0, *BOX[1:]], 0.0),
        (BOX[:7], 0.0),
    ],
)
def test_box_iou(box, reward):
    text = f'<think>[0, 0]</think><answer>```json\n{{"bbox_3d": {box}}}\n```</answer>'
    assert box_iou_reward([text], bbox_3d=[BOX]) == pytest.approx([reward])


def test_point_distance():
    texts = [f'{{"label": "bed", "pointmap": {point}}}' for point in ([3, 0, 2], [3, 0, 2.5], [0, 4, 2], [3, 0])]
    points = [[3, 0, 2]] * 4
    golden = [1.0, math.exp(-1), math.exp(-10), 0.0]  # half a metre is worth 1/e; 3, 4 and 5 are a right triangle
    assert point_distance_reward(texts, point=points) == pytest.approx(golden)
    assert point_distance_reward(texts, point=points, scale_m=5.0)[2] == pytest.approx(math.exp(-1))
    with pytest.raises(ValueError, match="scale_m is 0; expected a positive finite number"):
        point_distance_reward(texts, point=points, scale_m=0)


def test_frame():
    texts = ['```json\n\t{"frame": 2}\n```', '{"frame": 2}', '{"frame": 2.0}', "2", '{"frame": 0}']
    assert frame_reward(texts, frame=[2, [1, 2], 2, 2, 1]) == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_length():
    tokens = [[7] * length for length in (0, 8, 10, 14, 16, 100)]
    assert length_reward([""] * 6, completion_ids=tokens, max_tokens=8) == [1.0, 1.0, 0.75, 0.25, 0.0, 0.0]
    with pytest.raises(ValueError, match="max_tokens is 0; expected 1 or more"):
        length_reward([""], completion_ids=[[]], max_tokens=0)
    with pytest.raises(ValueError, match="got 2 completions, 1 completion_ids"):
        length_reward(["", ""], completion_ids=[[]])


@pytest.mark.parametrize("name", REFERENCES)
def test_texts_and_chats_are_worth_the_same_and_malformed_ones_nothing(name):
    column, right, truth, _ = REFERENCES[name]
    parts = [{"type": "text", "text": right[:1]}, {"type": "text", "text": right[1:]}]
    completions = [right, chat(right), [*chat("?"), *chat(parts)], right]
    assert REWARDS[name](completions, **{column: [truth, truth, truth, None]}, prompts=[]) == [1.0, 1.0, 1.0, None]
    broken = [
        "",
        "\ud800",
        "{" * 10_000,
        right[:-3] if len(right) > 3 else "?",
        [],
        chat(None),
        [{"role": "assistant"}],
    ]
    assert REWARDS[name](broken, **{column: [truth] * len(broken)}) == [0.0] * len(broken)
    with pytest.raises(ValueError, match="got 1 completions, 2 references"):
        REWARDS[name]([right], **{column: [truth, truth]})


@pytest.mark.parametrize(("name", "wrong"), [(name, wrong) for name, row in REFERENCES.items() for wrong in row[3]])
def test_wrong_references_are_named_by_their_row(name, wrong):
    column, right, truth, _ = REFERENCES[name]
    with pytest.raises(ValueError, match="row 1: "):
        REWARDS[name]([right, right], **{column: [truth, wrong]})


def test_rewards_are_composed_by_name():
    functions, weights = compose_rewards({"format": 0.5, "point_distance": {"scale_m": 5.0}, "length": {"weight": 2}})
    assert weights == [0.5, 1.0, 2.0]
    assert [function.__name__ for function in functions] == ["format_reward", "point_distance_reward", "length_reward"]
    assert functions[1](['{"pointmap": [0, 0, 7]}'], point=[[0, 0, 2]]) == pytest.approx([math.exp(-1)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"fromat": 1.0},
            r"rewards has the unknown key 'fromat' \(did you mean 'format'\?\); it takes format, choice",
        ),
        ({"length": {"max_token": 4}}, r"rewards.length has the unknown key 'max_token' \(did you mean 'max_tokens'"),
        ({"format": {"weight": math.inf}}, "rewards.format.weight is inf; expected a finite number"),
        ({"format": None}, "rewards.format.weight is None; expected a finite number"),
        ({}, "rewards is empty; name one or more of format, choice"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        compose_rewards(settings)
