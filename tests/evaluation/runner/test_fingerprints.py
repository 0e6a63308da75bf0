"""Edited pictures, boxes, poses, answers and videos: scores are new, and what is resumed is not mixed with them."""

import json
import os
import shutil

import pytest
from PIL import Image

from gap_mllm.evaluation.benchmarks import find_benchmark
from gap_mllm.evaluation.runner import evaluate_model
from gap_mllm.evaluation.runner.fingerprints import fingerprints
from gap_mllm.evaluation.runner.questions import load_questions
from gap_mllm_cli import main


VAL = "evaluation/threedod/scannet_det_val_4frames.json"


@pytest.fixture
def data_dir(formats, tmp_path):
    return shutil.copytree(formats / "gap_mllm" / "data", tmp_path / "data")


@pytest.fixture
def load(data_dir, tmp_path):
    """A function: load the questions of detection, with a cache of its own."""
    bench = find_benchmark("gap_mllm_detection")
    return lambda: load_questions(bench, data_dir, cache_dir=tmp_path / "cache")[0]


def change_records(change):
    """A function of data_dir that changes each record of the benchmark."""

    def change_file(data_dir):
        records = json.loads((data_dir / VAL).read_text())
        for record in records:
            change(record)
        (data_dir / VAL).write_text(json.dumps(records))

    return change_file


def move_boxes(record):
    for box in record["boxes"]:
        box["bbox_3d"][0] += 50


def move_cameras(record):
    for pose in record["cam2global"]:
        pose[0][3] += 1


def change_label(record):
    record["boxes"][0]["label"] = "another"


def change_question(record):
    record["conversations"][0]["value"] += " Please."


def repaint(data_dir):
    """Another picture in a file of the same name, size and time."""
    name = json.loads((data_dir / VAL).read_text())[0]["images"][0]
    file = next((data_dir / "media").rglob(name.split("/", 2)[-1]))
    state, content = file.stat(), bytearray(file.read_bytes())
    before = Image.open(file).tobytes()
    for place in range(len(content) - 3, 0, -1):  # in the entropy-coded end of the file
        content[place] ^= 1
        file.write_bytes(bytes(content))
        if Image.open(file).tobytes() != before:
            break
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file.stat().st_size == state.st_size


CHANGES = [
    (change_records(move_boxes), "truths"),
    (change_records(change_label), "truths"),
    (change_records(move_cameras), "geometry"),
    (change_records(change_question), "questions"),
    (repaint, "pictures"),
]


@pytest.mark.parametrize(("change", "part"), CHANGES)
def test_a_change_is_told_by_its_part(change, part, load, data_dir):
    before = load().fingerprints()
    assert load().fingerprints() == before and set(before) == {"questions", "pictures", "geometry", "truths"}
    change(data_dir)
    after = load().fingerprints()
    assert [name for name in before if before[name] != after[name]] == [part]


def test_data_that_was_moved_is_the_same(load, data_dir, tmp_path):
    before = load().fingerprints()
    shutil.copytree(data_dir, tmp_path / "elsewhere")
    moved = load_questions(find_benchmark("gap_mllm_detection"), tmp_path / "elsewhere", cache_dir=tmp_path / "other")
    assert moved[0].fingerprints() == before


@pytest.mark.parametrize(("change", "part"), CHANGES)
def test_a_resume_on_other_data_is_refused_by_what_differs(change, part, data_dir, tmp_path, model_path, monkeypatch):
    class StoppedError(Exception):
        """The run was killed after its plan was written."""

    def stop(*args):
        raise StoppedError

    monkeypatch.setattr("gap_mllm.evaluation.runner.run.answer_all", stop)
    settings = {"data_dir": data_dir, "output": tmp_path / "out", "cache_dir": tmp_path / "cache", "device": "cpu"}
    for _ in range(2):
        with pytest.raises(StoppedError):
            evaluate_model(model_path, "gap_mllm_detection", baselines=[], **settings)
    change(data_dir)
    with pytest.raises(ValueError, match=f"another run .*{part}: "):
        evaluate_model(model_path, "gap_mllm_detection", baselines=[], **settings)


@pytest.mark.parametrize("refresh", [False, True])
def test_boxes_that_were_moved_give_other_scores(refresh, load, data_dir, tmp_path):
    answers = [{"id": sample.id, "text": sample.answer} for sample in load()]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    settings = {"data_dir": data_dir, "cache_dir": tmp_path / "cache", "with_report": False, "baselines": []}
    settings |= {"predictions": tmp_path / "answers.jsonl", "refresh": refresh}
    right = evaluate_model(None, "gap_mllm_detection", output=tmp_path / "right", **settings)
    change_records(move_boxes)(data_dir)
    wrong = evaluate_model(None, "gap_mllm_detection", output=tmp_path / "wrong", **settings)
    assert right["scores"]["model"]["f1"] > 0 == wrong["scores"]["model"]["f1"]


@pytest.mark.parametrize("flags", [[], ["--refresh"]])
def test_the_command_takes_refresh(flags, monkeypatch):
    given = {}
    monkeypatch.setattr("gap_mllm.evaluation.runner.evaluate_model", lambda model, **settings: given.update(settings))
    assert main(["evaluate", "--model", "model", *flags]) == 0
    assert given["refresh"] is bool(flags)


def test_videos_count_by_size_time_and_ends(tmp_path):
    row = dict.fromkeys(("id", "source", "split", "task", "scene_id", "system", "question", "pose_frame"), "a")
    row |= {"choices": [], "marks": [], "views": [], "world_to_aligned": None}
    video = tmp_path / "video.mp4"
    content = bytes(5 * 2**20)
    frames = tmp_path / "frames"
    frames.mkdir()

    def pictures(path, data=None, time=0):
        if data is not None:
            path.write_bytes(data)
            os.utime(path, ns=(0, time))
        return fingerprints([{**row, "video": str(path)}])["pictures"]

    first = pictures(video, content)
    assert first == pictures(video) != pictures(video, content, time=1)
    assert len({first, pictures(video, b"1" + content[1:]), pictures(video, content[1:] + b"1")}) == 3
    assert len({first, pictures(video, content[1:]), pictures(frames)}) == 3
    before = pictures(frames)
    (frames / "0.jpg").touch()
    assert pictures(frames) != before
