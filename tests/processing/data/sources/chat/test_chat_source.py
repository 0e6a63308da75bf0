"""Chats of one's own: both forms of turns, pictures and videos by key and by part, several turns, what is refused."""

import json

import pytest

from gap_mllm.processing.data import RecordError, SceneSample, load_multiview, read_report
from gap_mllm.processing.data.inspection import inspect_source
from gap_mllm.processing.data.parquet_export import convert_to_parquet
from tests.processing.data.formats import FORMATS, rows_equal


CHATS, MEDIA = FORMATS / "chat", FORMATS / "vsi590k"
VIDEO, PICTURE = "scannet/scene9000_00.mp4", "s3dis/toy_0.jpg"


def load(folder, split, cache, **options):
    return load_multiview("chat", folder, split, cache_dir=cache / "cache", media_dir=str(MEDIA), **options)


def write(folder, *records, name="mine.jsonl"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def chat(*texts, **keys):
    roles = ("human", "gpt") * len(texts)
    return {"conversations": [{"from": role, "value": text} for role, text in zip(roles, texts, strict=False)], **keys}


def kinds(row):
    return [part["type"] for part in SceneSample.from_row(row).messages()[1]["content"]]


def test_turns_by_from_and_value(tmp_path):
    video, picture, pair, plain = load(CHATS, "train", tmp_path, max_views=3)
    assert (video["id"], video["task"], video["scene_id"]) == ("mine_train-0000000", "video_qa", VIDEO[:-4])
    assert video["question"] == "<image><image><image>\nHow many chair(s) are in this room?"
    assert (video["answer"], video["number"], video["question_type"]) == ("2", 2.0, "object_counting")
    assert [view["frame_id"] for view in video["views"]] == [0, 5, 11] and video["video"] == str(MEDIA / VIDEO)
    assert json.loads(video["metadata"]) == {"id": 0, "data_source": "toy"}
    assert (picture["task"], picture["scene_id"]) == ("spatial_qa", "s3dis/toy_0")
    assert (picture["system"], picture["choice_index"]) == ("You look closely.", 1)
    assert SceneSample.from_row(picture).messages()[0]["content"][0]["text"] == "You look closely."
    assert kinds(pair) == ["image", "text", "image", "text"] and pair["scene_id"] == "s3dis"
    assert kinds(plain) == ["image", "image", "image", "text"]  # without a tag the views come first


def test_turns_by_role_and_content(tmp_path):
    video, pair = load(CHATS, "val", tmp_path, max_views=2)
    assert (video["system"], video["question"]) == ("Be brief.", "<image><image>Which is taller?")
    assert (video["answer"], len(video["views"])) == ("The cabinet.", 2)
    assert pair["question"] == "First: <image> Second: <image> What moved?" and pair["answer"] == "Nothing."
    assert [view["image_path"] for view in pair["views"]] == [PICTURE, PICTURE]


def test_without_max_views_a_video_is_named_and_its_text_stays(tmp_path):
    row = load(CHATS, "train", tmp_path)[0]
    assert row["views"] == [] and row["question"].startswith("<video>\nHow many")


def test_streamed_rows_are_the_same(tmp_path):
    assert rows_equal(load(CHATS, "train", tmp_path), load(CHATS, "train", tmp_path, streaming=True)) == 4


def test_paths_may_be_absolute_below_the_media_folder(tmp_path):
    folder = write(tmp_path / "data", chat("<image>?", "1", image=f"file://{MEDIA / PICTURE}"))
    assert load(folder, "train", tmp_path)[0]["views"][0]["image_path"] == PICTURE
    write(folder, chat("<image>?", "1", image="/etc/hostname"))
    with pytest.raises(RecordError, match="leads out of"):
        load(folder, "train", tmp_path)


def test_several_turns_are_refused_or_split(tmp_path):
    folder = write(tmp_path / "data", chat("<image>How many chairs?", "2", "And tables?", "1", image=PICTURE))
    with pytest.raises(RecordError, match="it has 4 turns, a row one question; pass split_turns=True"):
        load(folder, "train", tmp_path)
    first, second = load(folder, "train", tmp_path, split_turns=True)
    assert (second["id"], second["question"], second["number"]) == ("mine-0000000-1", "And tables?", 1.0)
    assert kinds(first) == kinds(second) == ["image", "text"] and json.loads(second["metadata"]) == {"turn": 1}


def test_pictures_are_thinned_unless_the_text_tells_them_apart(tmp_path):
    folder = write(tmp_path / "data", chat("<image> <image>\n<image>?", "1", images=[PICTURE] * 3))
    assert len(load(folder, "train", tmp_path, max_views=2)[0]["views"]) == 2
    write(folder, chat("<image> or <image>?", "1", images=[PICTURE] * 2))
    with pytest.raises(RecordError, match="max_views=1, but the question speaks of its 2 pictures one by one"):
        load(folder, "train", tmp_path, max_views=1)


def test_files_and_splits_go_by_name(tmp_path):
    for name in ("a-test.jsonl", "b.val.jsonl", "c.jsonl"):
        write(tmp_path / "data", chat("<image>?", "1", image=PICTURE), name=name)
    found = load(tmp_path / "data", None, tmp_path)
    assert {split: rows["id"][:] for split, rows in found.items()} == {
        "train": ["c-0000000"],
        "val": ["b.val-0000000"],
        "test": ["a-test-0000000"],
    }
    assert set(load(tmp_path / "data", None, tmp_path, annotation_file="c.jsonl")) == {"train"}


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (chat("?", "1"), "names no video, and its image is None"),
        (chat("?", "1", image=3), "expected a path or a list of paths, got 3"),
        (chat("?", "1", image=PICTURE, video=VIDEO), "names 1 pictures and 1 videos; expected pictures, or one video"),
        (chat("<image><image>?", "1", image=PICTURE), "2 <image> tags for 1 views"),
        (
            {"conversations": [{"from": "gpt", "value": "1"}], "image": PICTURE},
            "expected questions and answers in turn",
        ),
        ({"messages": [{"role": "tool", "content": "1"}], "image": PICTURE}, "turn 0 has no known role and text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "audio"}]}], "image": PICTURE},
            "part that is no text, image or video",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}] * 2}], "images": [PICTURE]},
            "parts of the messages and the list of files differ in number",
        ),
    ],
)
def test_bad_records_are_refused_by_name_or_left_out(record, says, tmp_path):
    folder, report = write(tmp_path / "data", record, chat("<image>?", "1", image=PICTURE)), tmp_path / "report.jsonl"
    with pytest.raises(RecordError, match=says) as caught:
        load(folder, "train", tmp_path)
    assert caught.value.record_id == "mine-0000000"
    assert load(folder, "train", tmp_path, skip_bad_samples=True, report_file=report)["id"][:] == ["mine-0000001"]
    assert [event["record"] for event in read_report(report)] == ["mine-0000000"]


def test_missing_videos_are_listed_at_once(tmp_path):
    records = [chat("<video>?", "1", video=f"none{i % 2}.mp4") for i in range(3)]
    folder = write(tmp_path / "data", *records, chat("<video>?", "1", video=VIDEO))
    with pytest.raises(RecordError, match="2 of 3 videos are not there: none0.mp4, none1.mp4"):
        load(folder, "train", tmp_path)


def test_an_answer_that_is_no_option_is_kept_and_counted(tmp_path):
    record = chat("<image>?\nOptions:\nA. a\nB. b", "both", image=PICTURE)
    folder, report = write(tmp_path / "data", record), tmp_path / "report.jsonl"
    row = load(folder, "train", tmp_path, report_file=report)[0]
    assert (row["answer"], row["choices"]) == ("both", [])
    assert [event["event"] for event in read_report(report)] == ["answer_not_read"]


def test_chats_are_inspected_and_converted(tmp_path):
    options = {"media_dir": str(MEDIA), "max_views": 2}
    found = inspect_source("chat", CHATS, output_dir=tmp_path / "seen", **options)
    assert found.problems == {} and found.splits["train"].rows == 4
    convert_to_parquet("chat", CHATS, tmp_path / "made", cache_dir=tmp_path / "cache", **options)
    for row, stored in zip(load(CHATS, "train", tmp_path, max_views=2), load_parquet(tmp_path), strict=True):
        assert {key: row[key] for key in ("id", "question", "answer")} == {
            key: stored[key] for key in ("id", "question", "answer")
        }
        assert [view["image"].tobytes() for view in row["views"]] == [
            view["image"].tobytes() for view in stored["views"]
        ]


def load_parquet(tmp_path):
    return load_multiview("parquet", tmp_path / "made", "train", cache_dir=tmp_path / "cache")
