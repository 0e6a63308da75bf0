"""Texts with halves of characters, as they are cut in UTF-16: refused with file, record and field, or left out."""

import csv
import json
import os
import shutil

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from gap_mllm.processing.data import RecordError, complete_row, load_multiview, read_report
from gap_mllm.processing.data.source_files import iter_json_array, read_json, read_text, resolve_inside
from tests.processing.data.formats import FORMATS


HALF = "\ud83d"
WHOLE = "\U0001f600 \u4f60"


def record(number, question="What is it?", picture="room.jpg", **more):
    turns = [{"from": "human", "value": f"<image>{question}"}, {"from": "gpt", "value": "A bed."}]
    return {"id": f"r{number}", "image": picture, "conversations": turns, **more}


@pytest.fixture
def folder(tmp_path):
    """A folder of the source "chat", without records."""
    Image.new("RGB", (64, 48)).save(tmp_path / "room.jpg")
    return tmp_path


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["json", "jsonl"])
@pytest.mark.parametrize("text", [r"Is it? \ud83d", r"\ude00 Is it?", r"\ud83dA", r"\ud83d\u4f60"])
def test_a_cut_question_is_refused_and_can_be_left_out(folder, kind, text, streaming, tmp_path):
    lines = [json.dumps(record(number, "CUT" if number == 1 else WHOLE)).replace("CUT", text) for number in range(3)]
    file = folder / f"train.{kind}"
    file.write_text("\n".join(lines) if kind == "jsonl" else f"[{', '.join(lines)}]", encoding="ascii")
    options = {"split": "train", "streaming": streaming, "cache_dir": tmp_path / "cache"}
    with pytest.raises(RecordError, match="half of a character") as caught:
        list(load_multiview("chat", folder, **options))
    assert caught.value.field == "question" and caught.value.file == str(file)
    report = tmp_path / "report.jsonl"
    rows = list(load_multiview("chat", folder, skip_bad_samples=True, report_file=report, **options))
    assert [row["id"] for row in rows] == ["train-0000000", "train-0000002"] and WHOLE in rows[0]["question"]
    events = read_report(report)
    assert [(event["event"], event["field"], event["file"]) for event in events] == [
        ("skipped", "question", str(file))
    ]


@pytest.mark.parametrize(
    ("cut", "field"),
    [
        ({"question": HALF}, "question"),
        ({"picture": f"room{HALF}.jpg"}, "image"),
        ({"id": f"r{HALF}"}, "metadata"),
        ({"note": {"by": [HALF]}}, "metadata"),
        ({HALF: 1}, "metadata"),
    ],
)
def test_any_part_of_a_record_may_be_cut(folder, cut, field, tmp_path):
    cut = dict(cut)
    words = {name: cut.pop(name) for name in ("question", "picture") if name in cut}
    bad = {**record(1, **words), **cut}
    (folder / "train.json").write_text(json.dumps([record(0), bad, record(2)]), encoding="ascii")
    with pytest.raises(RecordError, match="half of a character") as caught:
        list(load_multiview("chat", folder, split="train", streaming=True))
    assert field in caught.value.field and caught.value.file == str(folder / "train.json")
    options = {"skip_bad_samples": True, "cache_dir": tmp_path / "cache"}
    assert len(load_multiview("chat", folder, split="train", **options)) == 2


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        *(({name: f"a {HALF}"}, name) for name in ("id", "source", "split", "task", "scene_id", "video", "system")),
        *(({name: f"a {HALF}"}, name) for name in ("question", "answer", "question_type", "metadata")),
        *(({name: ["a", HALF]}, name) for name in ("references", "choices")),
        *(({name: [{"label": HALF}]}, f"{name}.label") for name in ("boxes", "points")),
        ({"marks": [{"text": HALF}]}, "marks.text"),
        ({"views": [{"image_path": HALF}]}, "views.image_path"),
        ({"views": [{"image": {"bytes": None, "path": "a\udce4.png"}}]}, "views.image.path"),
        ({"views": [{"depth": {"bytes": b"", "path": "a\udce4.png"}}]}, "views.depth.path"),
        ({"metadata": {"note": [HALF]}}, "metadata"),
        ({"metadata": '{"note": "\\ud83d"}'}, "metadata"),
    ],
)
def test_no_field_of_a_row_holds_half_of_a_character(fields, name):
    with pytest.raises(RecordError, match="half of a character") as caught:
        complete_row(**fields)
    assert caught.value.field == name


def test_whole_characters_stay_as_they_are():
    fields = {"question": WHOLE, "metadata": '{"note": "\\ud83d\\ude00"}', "choices": [WHOLE]}
    row = complete_row(**fields)
    assert {name: row[name] for name in fields} == fields


def test_json_keeps_a_half_for_who_uses_the_text(tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(b'["\\ud83d", "\\ud83dA", {"\\ude00": 1}, "\xed\xa0\xbd"]')
    assert list(iter_json_array(file)) == ["\ud83d", "\ud83dA", {"\ude00": 1}, "\ud83d"]
    file.write_bytes(b'["a", "\xc0\x80"]')  # no UTF-8, which the parser lets pass
    for read in (read_json, lambda path: list(iter_json_array(path)), read_text):
        with pytest.raises(RecordError) as caught:
            read(file)
        assert caught.value.file == str(file)


def test_a_path_with_a_half_is_no_path(tmp_path):
    with pytest.raises(RecordError, match="half of a character"):
        resolve_inside(tmp_path, f"room{HALF}.jpg", "image")


def test_a_row_of_a_table_that_is_no_utf8_is_left_out(tmp_path):
    shutil.copytree(FORMATS / "cv_bench", tmp_path / "data")
    file = tmp_path / "data" / "test_3d.parquet"
    table = pyarrow.parquet.read_table(file)
    place = table.column_names.index("question")
    texts = [text.encode() for text in table["question"].to_pylist()]
    texts[0] = b"cut \xed\xa0\xbd"
    broken = pyarrow.array(texts, pyarrow.binary()).cast(pyarrow.string(), safe=False)
    pyarrow.parquet.write_table(table.set_column(place, "question", broken), file)
    options = {"split": "test", "streaming": True}
    with pytest.raises(RecordError, match="no UTF-8") as caught:
        list(load_multiview("cv_bench", tmp_path / "data", **options))
    assert caught.value.file == str(file)
    whole = len(list(load_multiview("cv_bench", FORMATS / "cv_bench", **options)))
    assert len(list(load_multiview("cv_bench", tmp_path / "data", skip_bad_samples=True, **options))) == whole - 1


def test_a_line_of_a_csv_that_is_no_utf8_is_left_out(tmp_path):
    shutil.copytree(FORMATS / "nr3d", tmp_path / "data")
    file = tmp_path / "data" / "nr3d.csv"
    with open(file, encoding="utf-8", newline="") as stream:
        utterance = next(csv.DictReader(stream))["utterance"].encode()
    file.write_bytes(file.read_bytes().replace(utterance, utterance + b"\xff", 1))
    options = {"split": "train", "streaming": True}
    with pytest.raises(RecordError) as caught:
        list(load_multiview("nr3d", tmp_path / "data", **options))
    assert caught.value.file == str(file)
    whole = list(load_multiview("nr3d", FORMATS / "nr3d", **options))
    rows = list(load_multiview("nr3d", tmp_path / "data", skip_bad_samples=True, **options))
    assert 0 < len(rows) < len(whole)


@pytest.mark.skipif(os.name == "nt", reason="names are UTF-16 there")
def test_a_folder_whose_name_is_no_text_is_refused(tmp_path):
    folder = tmp_path / "a\udce4"
    folder.mkdir()
    Image.new("RGB", (64, 48)).save(folder / "room.jpg")
    (tmp_path / "train.json").write_text(json.dumps([record(0)]), encoding="utf-8")
    (tmp_path / "room.jpg").symlink_to(folder / "room.jpg")
    with pytest.raises(ValueError, match="PYTHONUTF8=1"):
        load_multiview("chat", folder, split="train", streaming=True)
    assert len(list(load_multiview("chat", tmp_path, split="train", streaming=True))) == 1  # a link does
