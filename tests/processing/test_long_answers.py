"""Answers of any length are read in a time that grows as they do, and as they were read before.

What took quadratic time took minutes or hours on the long texts here.
"""

import random
import re

import pytest

from gap_mllm.evaluation.metrics.answer_cleaning import clean_answer
from gap_mllm.evaluation.metrics.lmms_eval_rules import lmms_eval_number, lmms_eval_text
from gap_mllm.processing import parse_boxes, parse_frame, parse_points
from gap_mllm.processing.answer_grammar_gap_mllm import JsonEnd, closed_objects, cut_after_json
from gap_mllm.processing.answers_gap_mllm import last_answer_tag, parse_choice
from gap_mllm.processing.scores import first_number, numbers_in, read_detections
from gap_mllm.processing.scores.letters import EXTRACTION_MODES, extract_choice
from gap_mllm.training import box_iou_reward, choice_reward, format_reward


BOX = '{"label": "bed", "bbox_3d": [0, 0, 2, 1, 2, 1, 0, 0, 0]}'
UNITS = ("<answer>", "</answer>", "<answer>B</answer>", "<think>", "</think>", "<think></think>", "<", "{", "}", "[{")
UNITS += (
    '"',
    "'",
    "`",
    "```",
    "(",
    "\\",
    " ",
    "\n",
    "answer ",
    "option is ",
    "not A ",
    "A ",
    "1",
    "1,",
    "1,111",
    "-",
    ".",
)
UNITS += ("twenty ", "one and ", "point two ", "e", BOX + ", ")
HEADS = ("", "answer", '{"objects": [', BOX, "```" + BOX, "<think>a</think><answer>", "{")
LENGTH = 50_000


def in_pieces(text, size=64):
    for start in range(0, len(text), size):
        yield text[start : start + size]


def stream(text):
    return list(closed_objects(in_pieces(text), parse_boxes, lambda item: item))


def read_on(text):
    reader = JsonEnd(("bbox_3d",))
    for piece in in_pieces(text):
        reader.read(piece)
    return reader.end


PARSERS = {
    "last_answer_tag": last_answer_tag,
    "format_reward": lambda text: format_reward([text]),
    "choice_reward": lambda text: choice_reward([text], choice=["A"]),
    "box_iou_reward": lambda text: box_iou_reward([text], bbox_3d=[[0, 0, 2, 1, 2, 1, 0, 0, 0]]),
    "first_number": first_number,
    "numbers_in": numbers_in,
    "parse_choice": parse_choice,
    "parse_boxes": parse_boxes,
    "parse_points": parse_points,
    "parse_frame": parse_frame,
    "read_detections": read_detections,
    "read_detections by the reference": lambda text: read_detections(text, "reference"),
    "cut_after_json": lambda text: cut_after_json(text, ("frame",)),
    "JsonEnd": read_on,
    "closed_objects": stream,
    "lmms_eval_text": lmms_eval_text,
    "lmms_eval_number": lmms_eval_number,
    "clean_answer": clean_answer,
    **{f"extract_choice {mode}": lambda text, mode=mode: extract_choice(text, mode=mode) for mode in EXTRACTION_MODES},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_no_text_takes_quadratic_time(name):
    for unit in UNITS:
        for head in HEADS:
            for tail in ("", "}</answer>"):
                PARSERS[name](head + unit * (LENGTH // len(unit)) + tail)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("last_answer_tag", "<answer>" * 200_000),
        ("choice_reward", "<answer>" * 200_000),
        ("parse_choice", "answer" + " " * 500_000 + "}"),
        ("lmms_eval_text", "<think></think>" * 100_000),
        ("lmms_eval_text", "<th" * 100_000 + "<think></think>" + "ink></think>" * 100_000),
        ("extract_choice mmsi", "{" * 500_000),
        ("cut_after_json", BOX.replace("bbox_3d", "frame") + " " * 500_000),
        ("cut_after_json", "*" * 500_000),
        ("closed_objects", '{"objects": [' + (BOX + ", ") * 3000),
    ],
)
def test_what_took_minutes(name, text):
    PARSERS[name](text)


# As before, by the rules as they stood


def _last_tag(text):
    found = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL | re.IGNORECASE)
    return found[-1] if found else text


def _is_formatted(text):
    found = re.fullmatch(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*", text, re.DOTALL)
    tag = re.compile(r"</?(?:think|answer)>")
    return float(bool(found) and all(part.strip() and not tag.search(part) for part in found.groups()))


def _without_reasoning(text):
    for tag in ("think", "analysis"):
        opening, closing = f"<{tag}>", f"</{tag}>"
        while opening in text:
            before, rest = text.split(opening, 1)
            if closing not in rest:
                break
            text = before + rest.split(closing, 1)[1]
        if opening not in text and closing in text:
            text = text.rsplit(closing, 1)[1]
    return text.strip()


def _stream(text):
    return list(parse_boxes(text).items)


WORDS = (
    "<think>",
    "</think>",
    "<th",
    "ink>",
    "think>",
    "<",
    "</",
    "a",
    " ",
    "<answer>",
    "</answer>",
    "<ANSWER>",
    "\n",
)
WORDS += ("<analysis>", "</analysis>", "<ana", "lysis>", "<think>a</think><answer>b</answer>")
BRACES = (BOX, "{", "}", "[", "]", '"', "'", "\\", "\n", ", ", '{"a": 1}', "x")


@pytest.mark.parametrize(
    ("parse", "before", "units"),
    [
        (last_answer_tag, _last_tag, WORDS),
        (lambda text: format_reward([text])[0], _is_formatted, WORDS),
        (lmms_eval_text, _without_reasoning, WORDS),
        (lambda text: list(closed_objects(in_pieces(text, 3), parse_boxes, lambda item: item)), _stream, BRACES),
    ],
    ids=["tags", "format", "reasoning", "streams"],
)
def test_small_texts_are_read_as_before(parse, before, units):
    rng = random.Random(0)
    for _ in range(3000):
        text = "".join(rng.choice(units) for _ in range(rng.randrange(12)))
        assert parse(text) == before(text), text
