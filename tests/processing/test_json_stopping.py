"""Where a JSON answer ends, read at once, in pieces, and in rows of a batch."""

import pytest
import torch

from gap_mllm.processing.answer_grammar_gap_mllm import JsonEnd, JsonStopping, cut_after_json


POINT = '{"label": "a } \\" [", "pointmap": [1, 2, 3]}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{POINT} and more", POINT),
        (f"```json\n{POINT}\n``` and more", f"```json\n{POINT}\n```"),
        (f"```json\n{POINT} and more", f"```json\n{POINT}"),
        (f'{{"note": 1}} {POINT}!', f'{{"note": 1}} {POINT}'),
        ('{"pointmap": [1, 2', '{"pointmap": [1, 2'),
        ('{"label": "it\'s", "pointmap": [1, 2, 3]} x', '{"label": "it\'s", "pointmap": [1, 2, 3]}'),
        ('{"a": {"pointmap": [1]}} x', '{"a": {"pointmap": [1]}}'),
        ("", ""),
        ("no JSON", "no JSON"),
    ],
)
def test_a_text_is_cut_where_its_json_ends(text, expected):
    assert cut_after_json(text, ("pointmap",)) == expected


def test_a_list_ends_only_at_its_own_bracket():
    boxes = '[\n\t{"label": "bed", "bbox_3d": [1]},\n\t{"label": "bin", "bbox_3d": [2]}\n]'
    assert cut_after_json(f"```json\n{boxes}``` x", ("bbox_3d",), is_list=True) == f"```json\n{boxes}```"
    single = '{"bbox_3d": [1]} {"bbox_3d": [2]}'
    assert cut_after_json(single, ("bbox_3d",), is_list=True) == single


def test_reading_in_pieces_finds_the_same_end():
    text = f"```json\n{POINT}\n``` tail"
    for size in (1, 2, 5):
        reader = JsonEnd(("pointmap",))
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        done = [reader.read(piece) for piece in pieces]
        assert reader.text[: reader.end] == f"```json\n{POINT}\n```"
        assert done.index(True) == (len(f"```json\n{POINT}\n```") - 1) // size


def test_rows_stop_by_themselves(tiny_tokenizer):
    rows = [tiny_tokenizer(text)["input_ids"] for text in ('{"frame": 1} abc', "abcdefghijkl {}")]
    length = min(map(len, rows))
    tokens = torch.tensor([row[:length] for row in rows])
    stopping = JsonStopping(tiny_tokenizer, 0, ("frame",))
    ends = [stopping(tokens[:, : count + 1], None).tolist() for count in range(length)]
    assert ends[-1] == [True, False] and ends[0] == [False, False]
