"""How deep JSON is: counted as it is nested, not as it is spelt, and before anything parses it."""

import json
import random
import subprocess
import sys

import pytest

from gap_mllm.processing.answers_gap_mllm import parse_boxes, parse_frame, parse_points
from gap_mllm.processing.json_depth import DepthGuard, JsonDepthError, check_json_depth, decode_json


def depth_of(value):
    """What the guard should find."""
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)


def random_value(draw, level=0):
    kind = draw.random()
    if kind < 0.3 or level > 7:
        return draw.choice([1, None, "", '"', "\\", '[[["', '\\"{', "]]\\\\", "é[{", '""[""'])
    if kind < 0.65:
        return [random_value(draw, level + 1) for _ in range(draw.randint(0, 3))]
    return {draw.choice(['"', "[", "\\", "a"]) * draw.randint(1, 3): random_value(draw, level + 1) for _ in range(3)}


def test_depth_is_that_of_the_value_wherever_pieces_end():
    draw = random.Random(0)
    for number in range(500):
        value = random_value(draw)
        data = json.dumps(value, ensure_ascii=bool(number % 2)).encode()
        pieces, place = [], 0
        while place < len(data):
            pieces.append(data[place : place + draw.randint(1, 6)])
            place += len(pieces[-1])
        exact, shallow = DepthGuard(depth_of(value)), DepthGuard(depth_of(value) - 1)
        for piece in pieces:
            exact.feed(piece)
        with pytest.raises(JsonDepthError):
            for piece in pieces:
                shallow.feed(piece)
            raise JsonDepthError(0) if depth_of(value) == 0 else AssertionError(data)


def test_a_hundred_deep_is_read_and_one_more_is_not():
    assert depth_of(decode_json("[" * 100 + "]" * 100)) == 100
    assert decode_json(b'["' + b"[" * 5000 + b'"]') == ["[" * 5000]
    for text in ("[" * 101 + "]" * 101, b'{"a":' * 101 + b"1" + b"}" * 101):
        with pytest.raises(ValueError, match="nested more than 100 deep"):
            decode_json(text)
    check_json_depth("[]" * 5000)


@pytest.mark.slow
def test_a_deep_file_takes_no_memory(tmp_path):
    """In a process of its own that may not grow by more than 64 MB; the streaming parser took gigabytes."""
    code = f"""
import resource, pathlib
from gap_mllm.processing.data import source_files
from gap_mllm.evaluation.runner import files
path = pathlib.Path({str(tmp_path / "deep.json")!r})
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 64_000_000,) * 2)
for content in ("[" * 200_000, '[{{"a":' * 40_000):
    path.write_text(content)
    for read in (
        lambda: list(source_files.iter_json_array(path)),
        lambda: source_files.read_json(path),
        lambda: list(source_files.iter_jsonl(path)),
        lambda: files.read_predictions(path, ["a"]),
    ):
        try:
            read()
        except source_files.RecordError as error:
            print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]
    lines = done.stdout.splitlines()
    assert len(lines) == 8
    assert all(str(tmp_path / "deep.json") in line and "nested more than 100 deep" in line for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{" * 200_000, marks=pytest.mark.slow),
        '{"a":' * 40_000,
        "{" * 100_000 + "}" * 100_000,
        "[" * 200_000,
    ],
)
def test_deep_answers_are_read_as_nothing(text):
    for parse in (parse_boxes, parse_points, parse_frame):
        assert not parse(text).items
