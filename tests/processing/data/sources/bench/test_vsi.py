"""VSI-Bench and VSI-590K: prompts word for word, answers, videos, and every damaged variant."""

import json
import shutil

import pyarrow
import pyarrow.parquet
import pytest

from gap_mllm.processing.data import RecordError, SceneSample, load_multiview, read_report
from gap_mllm.processing.data.sources.bench.vsibench_source import CHOICE_TYPES, NUMBER_TYPES
from gap_mllm.processing.data.sources.wordings import vsibench_prompt
from tests.processing.data.formats import FORMATS, load_damaged, rows_equal


BENCH, TRAINING = FORMATS / "vsibench", FORMATS / "vsi590k"
RECORDS = [json.loads(line) for line in (BENCH / "test.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return load_multiview("vsibench", BENCH, "test", cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    return load_multiview("vsi590k", TRAINING, "train", cache_dir=tmp_path_factory.mktemp("cache"))


def bench_folder(folder, *records):
    folder.mkdir(exist_ok=True)
    (folder / "test.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def load(folder, tmp_path, **options):
    return load_multiview(
        "vsibench", folder, "test", cache_dir=tmp_path / "cache", **{"media_dir": str(BENCH), **options}
    )


# VSI-Bench


def test_questions_and_answers(rows):
    assert [row["id"] for row in rows] == ["0", "1", "2", "3"]
    for row, record in zip(rows, RECORDS, strict=True):
        assert row["video"] == str(BENCH / record["dataset"] / f"{record['scene_name']}.mp4")
        assert (row["scene_id"], row["question_type"]) == (record["scene_name"], record["question_type"])
        assert row["answer"] == record["ground_truth"] and row["references"] == [record["ground_truth"]]
        assert (row["task"], row["views"], row["choices"]) == ("video_qa", [], record["options"] or [])
        metadata = json.loads(row["metadata"])
        assert metadata == {key: record[key] for key in ("dataset", "question", "pruned")}
    assert [row["number"] for row in rows] == [2.0, None, None, 0.9]
    assert [row["choice_index"] for row in rows] == [None, 0, 1, None]


def test_prompts_word_for_word(rows, tmp_path):
    letter, word = (
        "Answer with the option's letter from the given choices directly.",
        "Please answer the question using a single word or phrase.",
    )
    count, distance = RECORDS[0]["question"], RECORDS[1]["question"]
    expected = {
        "vsibench": (
            f"These are frames of a video.\n{count}\n{word}",
            f"These are frames of a video.\n{distance}\nOptions:\nA. table\nB. chair\n{letter}",
        ),
        "spatial_mllm": (f"{count}\n{word}", f"{distance}\nOptions:\nA. table\nB. chair\n{letter}"),
        "geovr": (
            f"{count}\nPlease answer the question ONLY using a single Arabic numeral.",
            f"{distance}\nA. table\nB. chair\nAnswer with ONLY the option's letter directly.",
        ),
    }
    assert rows["question"][:2] == [*expected["vsibench"]]
    for style, prompts in expected.items():
        styled = load_multiview("vsibench", BENCH, "test", prompt_style=style, cache_dir=tmp_path)
        assert styled["question"][:2] == [*prompts]
    with pytest.raises(ValueError, match="prompt_style is 'own'; expected one of vsibench, spatial_mllm, geovr"):
        load_multiview("vsibench", BENCH, "test", prompt_style="own", cache_dir=tmp_path)


def test_braces_in_a_question_are_kept():
    assert vsibench_prompt("{options} {0}?", ["A. {question}"], "geovr").startswith("{options} {0}?\nA. {question}\n")


def test_streamed_rows_equal_prepared_ones(rows, training, tmp_path):
    for name, folder, split, prepared in (("vsibench", BENCH, "test", rows), ("vsi590k", TRAINING, "train", training)):
        streamed = load_multiview(name, folder, split, streaming=True, cache_dir=tmp_path)
        assert rows_equal(prepared, streamed) == len(prepared)
        sampled = load_multiview(name, folder, split, max_views=2, cache_dir=tmp_path)
        streamed = load_multiview(name, folder, split, max_views=2, streaming=True, cache_dir=tmp_path)
        assert rows_equal(sampled, streamed) == len(prepared)


def test_the_parquet_file_gives_the_same_rows(rows, tmp_path):
    (tmp_path / "data").mkdir()
    shutil.copy(BENCH / "test-00000-of-00001.parquet", tmp_path / "data")
    for options in ({"annotation_file": "test-00000-of-00001.parquet"}, {}):
        folder = tmp_path / "data" if not options else BENCH
        other = load(folder, tmp_path, **options)
        for row, expected in zip(other, rows, strict=True):
            assert {k: v for k, v in row.items() if k != "metadata"} == {
                k: v for k, v in expected.items() if k != "metadata"
            }


def test_frames_become_views_where_their_number_is_given(tmp_path):
    row = load_multiview("vsibench", BENCH, "test", max_views=4, cache_dir=tmp_path)[0]
    sample = SceneSample.from_row(row)
    assert [view.frame_id for view in sample.views] == [0, 3, 7, 11]
    assert [view.timestamp for view in sample.views] == pytest.approx([0, 3 / 12, 7 / 12, 11 / 12])
    assert {view.image.size for view in sample.views} == {(160, 120)}
    content = sample.messages()[1]["content"]
    assert [part["type"] for part in content] == ["image"] * 4 + ["text"]


def test_subsets_by_the_field_pruned(rows, tmp_path):
    for subset, ids in (("debiased", ["0", "2"]), ("pruned", ["1", "3"])):
        assert load_multiview("vsibench", BENCH, "test", subset=subset, cache_dir=tmp_path)["id"] == ids
    with pytest.raises(RecordError, match="needs the field `pruned`") as caught:
        options = {"annotation_file": "test-00000-of-00001.parquet", "subset": "debiased"}
        load_multiview("vsibench", BENCH, "test", cache_dir=tmp_path, **options)
    assert caught.value.field == "pruned"
    with pytest.raises(ValueError, match="subset is 'half'; expected one of full, debiased, pruned"):
        load_multiview("vsibench", BENCH, "test", subset="half", cache_dir=tmp_path)


def test_the_ten_types():
    assert len(CHOICE_TYPES) == 6 and len(NUMBER_TYPES) == 4 and not set(CHOICE_TYPES) & set(NUMBER_TYPES)


# VSI-Bench: bad input


def test_missing_videos_are_listed_once_before_anything_is_read(tmp_path):
    with pytest.raises(RecordError, match="1 of 1 videos are not there: scannet/scene9999_00.mp4") as caught:
        load_damaged("vsibench", "vsibench_missing_video", tmp_path, media_dir=str(BENCH))
    assert (caught.value.source, caught.value.field) == ("vsibench", "video")
    missing = [{**RECORDS[0], "id": 10 + i, "scene_name": f"none{i % 2}"} for i in range(4)]
    folder = bench_folder(tmp_path / "data", *RECORDS, *missing)
    for options in ({}, {"streaming": True}):
        with pytest.raises(RecordError, match=r"2 of 5 videos are not there: scannet/none0.mp4, scannet/none1.mp4\."):
            next(iter(load(folder, tmp_path, **options)))


def test_a_subset_of_the_videos_must_be_asked_for(tmp_path):
    folder = bench_folder(tmp_path / "data", *RECORDS, {**RECORDS[0], "id": 9, "scene_name": "none"})
    report = tmp_path / "report.jsonl"
    rows = load(folder, tmp_path, skip_bad_samples=True, report_file=report)
    assert rows["id"] == ["0", "1", "2", "3"]
    events = read_report(report)
    assert [(event["event"], event["field"], event["missing"]) for event in events] == [
        ("skipped", "video", "scannet/none.mp4")
    ]


def test_a_letter_that_is_no_option_is_refused(tmp_path):
    with pytest.raises(RecordError, match="'E' is not among the options") as caught:
        load_damaged("vsibench", "vsibench_options", tmp_path, media_dir=str(BENCH))
    error = caught.value
    assert (error.source, error.field, error.record_id) == ("vsibench", "ground_truth", "test-0000001")
    report = tmp_path / "report.jsonl"
    options = {"media_dir": str(BENCH), "skip_bad_samples": True, "report_file": report}
    splits = load_damaged("vsibench", "vsibench_options", tmp_path, **options)
    assert all(len(rows) == 0 for rows in splits.values()) and len(read_report(report)) == 1


def test_an_unknown_type_is_kept_marked_and_warned_of(tmp_path, caplog):
    report = tmp_path / "report.jsonl"
    options = {"media_dir": str(BENCH), "report_file": report}
    row = load_damaged("vsibench", "vsibench_unknown_type", tmp_path, **options)["test"][0]
    assert (row["question_type"], row["choices"], row["choice_index"]) == ("object_colour", ["A. a"], 0)
    assert json.loads(row["metadata"])["unknown_question_type"] is True
    assert [(event["event"], event["reason"]) for event in read_report(report)] == [
        ("unknown_question_type", "object_colour")
    ]
    generic = {**RECORDS[0], "question_type": "free", "ground_truth": "a blue one"}
    row = load(bench_folder(tmp_path / "data", generic), tmp_path)[0]
    assert (row["answer"], row["number"], row["choices"]) == ("a blue one", None, [])


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"ground_truth": "two"}, "ground_truth", "'two' is no number"),
        ({"question_type": "route_planning"}, "ground_truth", "not among the options None"),
        ({"scene_name": "../../x"}, "video", "leads out of"),
        ({"options": 3}, None, "has not the form"),
    ],
)
def test_other_bad_records(change, field, says, tmp_path):
    folder = bench_folder(tmp_path / "data", {**RECORDS[0], **change})
    report = tmp_path / "report.jsonl"
    with pytest.raises(RecordError):
        load(folder, tmp_path)
    assert len(load(folder, tmp_path, skip_bad_samples=True, report_file=report)) == 0
    event = read_report(report)[0]
    assert event.get("field") == field and says in event["reason"]


def test_a_video_that_cannot_be_decoded_is_named_or_skipped(tmp_path):
    shutil.copytree(BENCH, tmp_path / "data")
    video = tmp_path / "data" / "scannet" / "scene9001_00.mp4"
    video.write_bytes(video.read_bytes()[:3000])
    options = {"cache_dir": tmp_path / "cache", "max_views": 2}
    with pytest.raises(RecordError, match="cannot be decoded") as caught:
        load_multiview("vsibench", tmp_path / "data", "test", **options)
    error = caught.value
    assert (error.file, error.field, error.record_id) == (str(video), "video", "test-0000001")
    report = tmp_path / "report.jsonl"
    options |= {"skip_bad_samples": True, "report_file": report}
    assert load_multiview("vsibench", tmp_path / "data", "test", **options)["id"] == ["1", "2"]
    assert [event["file"] for event in read_report(report)] == [str(video)] * 2


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="test.jsonl or test-"):
        load(tmp_path, tmp_path)
    with pytest.raises(RecordError, match="'none.jsonl' is not there"):
        load(BENCH, tmp_path, annotation_file="none.jsonl")


# VSI-590K


def test_training_questions_are_kept_word_for_word(training):
    records = [json.loads(line) for line in (TRAINING / "vsi_590k.jsonl").read_text().splitlines()]
    for row, record in zip(training, records, strict=True):
        assert (row["question"], row["answer"]) == tuple(turn["value"] for turn in record["conversations"])
        assert row["question_type"] == record["question_type"] and row["task"] == "video_qa"
    count, choice, picture = training
    assert count["video"] == str(TRAINING / "scannet" / "scene9000_00.mp4")
    assert (count["number"], count["scene_id"], count["views"]) == (2.0, "scannet/scene9000_00", [])
    assert (choice["choices"], choice["choice_index"]) == (["A. chair", "B. cabinet"], 0)
    assert (picture["number"], picture["video"], len(picture["views"])) == (74.0, None, 1)
    assert picture["views"][0]["image_path"] == "s3dis/toy_0.jpg"
    content = SceneSample.from_row(picture).messages()[1]["content"]
    assert [part["type"] for part in content] == ["image", "text"]


def test_the_one_tag_of_a_video_becomes_one_a_view(tmp_path):
    row = load_multiview("vsi590k", TRAINING, "train", max_views=3, cache_dir=tmp_path)[0]
    assert [view["frame_id"] for view in row["views"]] == [0, 5, 11]
    assert row["question"].startswith("<image><image><image>\nThese are frames of a video.\nHow many")
    content = SceneSample.from_row(row).messages()[1]["content"]
    assert [part["type"] for part in content] == ["image"] * 3 + ["text"]


def training_folder(folder, *records):
    folder.mkdir(exist_ok=True)
    (folder / "vsi_590k.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def training_record(question="<image>\nHow many?", answer="2", **keys):
    return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}], **keys}


def test_missing_training_videos_are_listed_once(tmp_path):
    records = [training_record(video=f"scannet/none{i % 2}.mp4") for i in range(3)]
    records.append(training_record(video="scannet/scene9000_00.mp4"))
    folder = training_folder(tmp_path / "data", *records)
    options = {"cache_dir": tmp_path / "cache", "media_dir": str(TRAINING)}
    with pytest.raises(RecordError, match="2 of 3 videos are not there: scannet/none0.mp4, scannet/none1.mp4"):
        load_multiview("vsi590k", folder, "train", **options)
    report = tmp_path / "report.jsonl"
    rows = load_multiview("vsi590k", folder, "train", skip_bad_samples=True, report_file=report, **options)
    assert len(rows) == 1 and len(read_report(report)) == 3


@pytest.mark.parametrize(
    ("record", "field", "says"),
    [
        (training_record(), "image", "names no video, and its image is None"),
        (training_record(image="s3dis/none.jpg"), "image", "none.jpg"),
        (training_record(image="../vsibench/test.jsonl"), "image", "leads out of"),
        (training_record("<image><image>?", image="s3dis/toy_0.jpg"), "conversations", "2 <image> tags for 1 views"),
        (
            training_record("<image>?\nOptions:\nA. a\nB. b", "C", video="scannet/scene9000_00.mp4"),
            "conversations",
            "'C' is not one of the options",
        ),
    ],
)
def test_bad_training_records(record, field, says, tmp_path):
    folder = training_folder(tmp_path / "data", record)
    with pytest.raises(RecordError, match=says) as caught:
        load_multiview("vsi590k", folder, "train", cache_dir=tmp_path / "cache", media_dir=str(TRAINING))
    error = caught.value
    assert (error.source, error.field, error.record_id) == ("vsi590k", field, "vsi_590k-0000000")


def test_a_damaged_parquet_file_is_refused(tmp_path):
    table = pyarrow.table({"id": [1], "question": ["?"]})
    pyarrow.parquet.write_table(table, tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(RecordError, match="has not the form of 'vsibench'"):
        load(tmp_path, tmp_path)
    (tmp_path / "test-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(RecordError, match="no whole parquet file"):
        load(tmp_path, tmp_path, refresh=True)
