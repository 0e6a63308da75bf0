"""Rewards of generated answers, in the signature of `trl.GRPOTrainer`; what reads and scores text is in scores/.

A reward takes the completions (texts, or chats whose last turn counts) and columns of the rows as lists, and gives a
number from 0 to 1 for each. An answer that cannot be read is worth 0; a row whose reference is None gives None, which
TRL leaves out; a wrong reference is an error that names its row. The answer is what stands in the last `<answer>` tag
behind `</think>`, and without tags the whole text; a thought that never ends holds no answer.
"""

import inspect
import math
import re
from collections.abc import Callable, Sequence
from functools import partial, update_wrapper

from ..processing.answers_gap_mllm import last_answer_tag, parse_boxes, parse_frame
from ..processing.argument_checks import check_names
from ..processing.input_checks_gap_mllm import check_count, check_number, check_positive
from ..processing.scores import box_overlaps, choice_score, first_number, mean_relative_accuracy, read_point_answer
from ..processing.scores.point_answers import NEAR_M
from ..processing.scores.reference_checks import (
    check_equal_lengths,
    is_list,
    is_whole_number,
    map_named,
    shorten,
    true_box,
    true_numbers,
)


Completions = Sequence[str | list[dict]]
_TAG = re.compile(r"(</?(?:think|answer)>)")
_FORMAT = ["<think>", "</think>", "<answer>", "</answer>"]


def format_reward(completions: Completions, **kwargs) -> list[float]:
    """1 for `<think>...</think><answer>...</answer>`, each tag once and something in both, else 0.

    Source: the format reward of open-r1. `Differs:` a tag twice, or nothing in it, is worth 0: either would let a
    model earn the reward without a thought, or answer several times.

    Args:
        completions (list of `str` or chats): generated answers. Further columns are not looked at.
    Returns:
        `list[float]`: 0 or 1 each.

    Example:
        ```python
        >>> from gap_mllm.training import format_reward
        >>> format_reward(["<think>It is left of the bed.</think> <answer>B</answer>", "B"])
        [1.0, 0.0]

        ```
    """
    parts = [_TAG.split(text) for text in map(_text, completions)]  # texts and tags in turn
    return [float(each[1::2] == _FORMAT and _filled(each[::2]) == [False, True, False, True, False]) for each in parts]


def choice_reward(completions: Completions, choice: Sequence[str | None], **kwargs) -> list[float | None]:
    """1 for the right letter, else 0; see `choice_score`.

    Source: multiple choice in Spatial-MLLM (arXiv:2505.23747). `Differs:` there the cleaned texts must be equal; here
    "(B)" and "B. the bed" are B as well.

    Args:
        completions (list of `str` or chats): generated answers.
        choice (list of `str` or None): the true letters, as "B".
    Returns:
        `list[float | None]`: 0 or 1 each.
    Raises:
        ValueError: if a true choice is no letter from A to F, with its row.

    Example:
        ```python
        >>> from gap_mllm.training import choice_reward
        >>> choice_reward(["<answer>B</answer>", "C", "42"], choice=["B", "B", None])
        [1.0, 0.0, None]

        ```
    """
    return _rewards(choice_score, completions, choice)


def relative_accuracy_reward(completions: Completions, number: Sequence[float | None], **kwargs) -> list[float | None]:
    """Share of the ten thresholds 0.50, 0.55, ..., 0.95 that the first number keeps; see `mean_relative_accuracy`.

    |answer - truth| / |truth| <= 1 - threshold, from 0 to 1 in tenths. The unit is that of the question.
    Source: VSI-Bench (arXiv:2412.14171), as the reward of Spatial-MLLM for numbers.

    Args:
        completions (list of `str` or chats): generated answers.
        number (list of `float` or None): the true numbers.
    Returns:
        `list[float | None]`: from 0 to 1.
    Raises:
        ValueError: if a true number is not finite, with its row.

    Example:
        ```python
        >>> from gap_mllm.training import relative_accuracy_reward
        >>> relative_accuracy_reward(["<answer>5 m</answer>", "four", "far"], number=[4.0, 4.0, 4.0])
        [0.6, 1.0, 0.0]

        ```
    """
    return _rewards(_relative_accuracy, completions, number)


def box_iou_reward(
    completions: Completions, bbox_3d: Sequence[Sequence[float] | None], **kwargs
) -> list[float | None]:
    """Exact IoU of the first 9-DoF box with the true one; see `box_overlaps`.

    Frame: camera of the first view, OpenCV axes, angles in order "zxy". Units: metres, radians. Range 0 to 1.
    Source: our choice; the overlap that grounding is measured by.

    Args:
        completions (list of `str` or chats): generated answers, JSON with `bbox_3d`.
        bbox_3d (list of nine numbers or None): the true boxes: centre, full sizes, yaw, pitch, roll.
    Returns:
        `list[float | None]`: from 0 to 1.
    Raises:
        ValueError: if a true box is not nine finite numbers with positive sizes, with its row.

    Example:
        ```python
        >>> from gap_mllm.training import box_iou_reward
        >>> truth = [0, 0, 2, 1, 1, 1, 0, 0, 0]
        >>> box_iou_reward(['{"bbox_3d": [0, 0, 2, 1, 1, 0.5, 0, 0, 0]}', "[0, 0, 2]"], bbox_3d=[truth, truth])
        [0.5, 0.0]

        ```
    """
    return _rewards(_box_iou, completions, bbox_3d)


def point_distance_reward(
    completions: Completions, point: Sequence[Sequence[float] | None], scale_m: float = NEAR_M, **kwargs
) -> list[float | None]:
    """exp(-d / scale_m), with the distance d of the first point from the true one.

    Frame: camera of the first view, OpenCV axes. Units: metres. Range: 0 without a point, 1 at the right place.
    Source: our choice; it orders answers at any distance, where a share of near ones would be 0 for most.

    Args:
        completions (list of `str` or chats): generated answers, JSON with `pointmap`.
        point (list of three numbers or None): the true points.
        scale_m (`float`, defaults to 0.5): distance that is worth 1/e = 0.37, in metres.
    Returns:
        `list[float | None]`: from 0 to 1.
    Raises:
        ValueError: if a true point is not three finite numbers, with its row, or the scale is not positive.

    Example:
        ```python
        >>> from gap_mllm.training import point_distance_reward
        >>> answers = ['{"label": "bed", "pointmap": [0, 0, 2]}', "nowhere"]
        >>> point_distance_reward(answers, point=[[0, 0, 2], [0, 0, 2]])
        [1.0, 0.0]

        ```
    """
    check_positive("scale_m", scale_m)

    def score(text, point):
        return math.exp(-read_point_answer(text, true_numbers(point, "the true point", 3), "").error_m / scale_m)

    return _rewards(score, completions, point)


def frame_reward(
    completions: Completions, frame: Sequence[int | Sequence[int] | None], **kwargs
) -> list[float | None]:
    """1 for the right view, else 0; see `parse_frame`.

    Source: our choice; the accuracy of the first stage of grounding.

    Args:
        completions (list of `str` or chats): generated answers, JSON with `frame`.
        frame (list of `int`, lists of `int` or None): the true views, counted from 0; several may be right.
    Returns:
        `list[float | None]`: 0 or 1 each.
    Raises:
        ValueError: if a true view is no whole number of at least 0, with its row.

    Example:
        ```python
        >>> from gap_mllm.training import frame_reward
        >>> frame_reward(['{"frame": 3}', '{"frame": 3}', "3"], frame=[3, [1, 2], 3])
        [1.0, 0.0, 0.0]

        ```
    """
    return _rewards(_frame_hit, completions, frame)


def length_reward(
    completions: Completions, completion_ids: Sequence[Sequence[int]], max_tokens: int = 256, **kwargs
) -> list[float]:
    """min(1, max(0, 2 - length / max_tokens)): 1 up to `max_tokens`, then falling to 0 at twice as many.

    Source: the overlong penalty of DAPO (arXiv:2503.14476), moved from -1..0 to 0..1.

    Args:
        completions (list of `str` or chats): generated answers; not looked at.
        completion_ids (list of lists of `int`): their tokens, which TRL gives.
        max_tokens (`int`, defaults to 256): tokens up to which an answer has the whole reward.
    Returns:
        `list[float]`: from 0 to 1.
    Raises:
        ValueError: if max_tokens is below 1, or answers and lists of tokens differ in number.

    Example:
        ```python
        >>> from gap_mllm.training import length_reward
        >>> length_reward(["short", "long"], completion_ids=[[1] * 4, [1] * 6], max_tokens=4)
        [1.0, 0.5]

        ```
    """
    check_count("max_tokens", max_tokens)
    check_equal_lengths(completions=completions, completion_ids=completion_ids)
    return [min(1.0, max(0.0, 2.0 - len(tokens) / max_tokens)) for tokens in completion_ids]


REWARDS: dict[str, Callable] = {
    "format": format_reward,
    "choice": choice_reward,
    "relative_accuracy": relative_accuracy_reward,
    "box_iou": box_iou_reward,
    "point_distance": point_distance_reward,
    "frame": frame_reward,
    "length": length_reward,
}


def compose_rewards(settings: dict[str, float | dict]) -> tuple[list[Callable], list[float]]:
    """Rewards by name with weights and options, as `reward_funcs` and `reward_weights` of `trl.GRPOTrainer`.

    TRL sums what a row has a reference for, each times its weight, and logs each by the name of its function.

    Args:
        settings (`dict`): names of `REWARDS`, each with a weight or a mapping of `weight` (1 by default) and options
            of the function.
    Returns:
        `tuple[list[Callable], list[float]]`: functions and weights.
    Raises:
        ValueError: if there are none, a name or option is unknown (those that there are stand in the message), or a
            weight is no finite number.

    Example:
        ```python
        >>> from gap_mllm.training import compose_rewards
        >>> functions, weights = compose_rewards({"format": 0.5, "length": {"weight": 0.1, "max_tokens": 4}})
        >>> [function.__name__ for function in functions], weights
        (['format_reward', 'length_reward'], [0.5, 0.1])
        >>> functions[1](["long"], completion_ids=[[1] * 6])
        [0.5]

        ```
    """
    check_names("rewards", settings, REWARDS)
    if not settings:
        raise ValueError(f"rewards is empty; name one or more of {', '.join(REWARDS)}.")
    functions, weights = [], []
    for name, setting in settings.items():
        function, setting = REWARDS[name], setting if isinstance(setting, dict) else {"weight": setting}
        known = [each.name for each in inspect.signature(function).parameters.values() if each.default != each.empty]
        check_names(f"rewards.{name}", setting, ["weight", *known])
        options = {key: value for key, value in setting.items() if key != "weight"}
        functions.append(update_wrapper(partial(function, **options), function))
        weights.append(check_number(f"rewards.{name}.weight", setting.get("weight", 1.0)))
    return functions, weights


def _rewards(score, completions, references):
    """The score of each answer that has a reference; a wrong one is named by its row."""
    check_equal_lengths(completions=completions, references=references)

    def reward(completion, reference):
        return None if reference is None else score(_answer(completion), reference)

    return map_named("row", reward, completions, references)


def _text(completion):
    """The text of a completion: itself, or the last turn of a chat; nothing for what is no text."""
    if not isinstance(completion, str):
        completion = completion[-1].get("content") if completion else ""
    if is_list(completion):
        completion = "".join(part.get("text") or "" for part in completion)
    return completion if isinstance(completion, str) else ""


def _filled(texts):
    """Whether each text is more than blanks."""
    return [bool(text.strip()) for text in texts]


def _answer(completion):
    answer = _text(completion).rpartition("</think>")[2]
    return "" if "<think>" in answer else last_answer_tag(answer)


def _relative_accuracy(text, number):
    return mean_relative_accuracy(first_number(text), true_numbers([number], "the true number", 1)[0])


def _box_iou(text, box):
    true_box(box, "the true bbox_3d", 9)
    answer = parse_boxes(text).first
    return 0.0 if answer is None else float(box_overlaps([answer.bbox_3d], [box])[0, 0])


def _frame_hit(text, frame):
    frames = frame if is_list(frame) else [frame]
    if not len(frames) or not all(is_whole_number(view) and view >= 0 for view in frames):
        raise ValueError(f"the true frame is {shorten(frame)}; expected one or more views, counted from 0.")
    return float(parse_frame(text).first in frames)
