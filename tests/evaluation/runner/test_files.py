"""Prediction files that do not fit are refused; a batch counts only when its file is whole."""

import json

import pytest

from gap_mllm.evaluation.runner.files import batch_file, pending_batches, read_answers, read_predictions, write_jsonl
from gap_mllm.processing.data.record_errors import RecordError


IDS = ["a", "b"]


def write(tmp_path, *records):
    path = tmp_path / "predictions.jsonl"
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_predictions_are_read_by_id(tmp_path):
    path = write(tmp_path, {"id": "b", "text": ""}, {"id": "a", "text": "x"})
    assert [read_predictions(path, IDS)[row_id]["text"] for row_id in IDS] == ["x", ""]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "holds no predictions"),
        ([{"id": "a", "text": "x"}, {"id": "a", "text": "y"}], "record 2: the id 'a' is there twice"),
        ([{"id": "a", "text": "x"}], r"0 ids are not asked \[\], 1 are missing \['b'\]"),
        ([{"id": "a", "text": "x"}, {"id": "c", "text": "y"}], r"1 ids are not asked \['c'\], 1 are missing"),
        ([{"id": "a", "text": None}], "record 1: expected an object with the texts id and text"),
        (["[1]"], "record 1: expected an object"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(tmp_path, records, message):
    with pytest.raises(ValueError, match=message):
        read_predictions(write(tmp_path, *records), IDS)


def test_predictions_with_nan_or_cut_off_are_refused(tmp_path):
    with pytest.raises(RecordError, match="line 1 is no valid JSON"):
        read_predictions(write(tmp_path, '{"id": "a", "text": NaN}'), IDS)
    with pytest.raises(RecordError, match="line 2"):
        read_predictions(write(tmp_path, {"id": "a", "text": "x"}, '{"id": "b", "te'), IDS)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_predictions(tmp_path / "none.jsonl", IDS)


def test_a_batch_is_pending_until_its_file_is_whole(tmp_path):
    write_jsonl(batch_file(tmp_path, "model", 1), [{"id": "b", "text": "y"}])
    batch_file(tmp_path, "model", 0).with_name("000000.jsonl.17.part").write_text('{"id": "a"')
    assert pending_batches(tmp_path, "model", 3) == [0, 2]


def test_a_batch_of_other_ids_is_refused(tmp_path):
    write_jsonl(batch_file(tmp_path, "model", 0), [{"id": "b", "text": "y"}])
    assert read_answers(tmp_path, "model", [["b"]]) == {"b": {"id": "b", "text": "y"}}
    with pytest.raises(ValueError, match="does not hold the answers of its batch"):
        read_answers(tmp_path, "model", [["a"]])


@pytest.mark.parametrize("text", ["", '{"id": "a", "te', '["a"]\n', '{"text": "x"}\n', "3\n"])
def test_a_damaged_batch_is_named(tmp_path, text):
    path = batch_file(tmp_path, "model", 0)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ValueError, match=r"000000\.jsonl does not hold the answers of its batch; delete it"):
        read_answers(tmp_path, "model", [["a"]])
