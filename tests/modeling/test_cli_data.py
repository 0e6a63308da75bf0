"""`gap-mllm data`: commands reach their functions with the right values, source options are flags, errors short."""

import argparse
import json
from dataclasses import dataclass

import datasets
import pytest
from PIL import Image

from gap_mllm.processing.data import SOURCES, video_labels
from gap_mllm.processing.data.video_labels import KnownBaseline
from gap_mllm_cli import main
from gap_mllm_cli.options import add_option_flags, given_options
from tests.processing.data.formats import DAMAGED, FORMATS
from tests.processing.data.toy_source import write_rows


TOY = ("inspect", "toy", "--data-dir", "data")
MEDIA = str(FORMATS / "gap_mllm" / "data" / "media")


@pytest.fixture(autouse=True)
def toy(monkeypatch, tmp_path):
    monkeypatch.setitem(SOURCES, "toy", ("tests.processing.data.toy_source", "ToySource"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "train.jsonl", {}, {"task": "reconstruction"})


def refused(capsys, *words):
    assert main(["data", *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("gap-mllm: error: ")
    return error


def not_parsed(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["data", *words])
    assert ended.value.code == 2
    return capsys.readouterr().err


# list


def test_all_sources_are_listed(capsys):
    assert main(["data", "list"]) == 0
    shown = capsys.readouterr().out
    for name in SOURCES:
        assert f"\n{name}\n" in f"\n{shown}"
    assert (
        "toy\n  tasks: scene_qa, reconstruction\n  layout: train*.jsonl or val*.jsonl\n  licence: CC BY 4.0\n" in shown
    )
    assert "options" not in shown and "synthetic_rooms\n  tasks: reconstruction, detection3d" in shown


def test_one_source_is_listed_with_its_options(capsys):
    assert main(["data", "list", "toy"]) == 0
    shown = capsys.readouterr().out
    assert "options: --prefix, --scale, --repeat, --loud, --names" in shown
    assert "Rows as they stand in the file." in shown and "options of every kind" in shown
    assert "unknown source 'toi'" in refused(capsys, "list", "toi")


# inspect


def test_a_source_is_inspected(tmp_path, capsys):
    words = ["inspect", "gap_mllm", "--data-dir", str(DAMAGED / "pixel_outside"), "--media-dir", MEDIA]
    assert main(["data", *words, "--output", "out", "--num", "2"]) == 0
    shown = capsys.readouterr().out
    assert "broken records: 2\n" in shown and "record scannet_recons_train_4frames-0000001" in shown
    assert shown.endswith("wrote out\n")
    report = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert len(report["broken_records"]) == 2 and report["options"] == {"media_dir": MEDIA}
    assert Image.open(tmp_path / "out" / "contact_sheet.png").width == 1600


def test_inspection_takes_its_flags(tmp_path):
    words = ["inspect", "toy", "--data-dir", "data", "--split", "train", "--tasks", "reconstruction,scene_qa"]
    assert main(["data", *words, "--max-views", "3", "--all", "--seed", "5", "--num", "1"]) == 0
    report = json.loads((tmp_path / "outputs" / "inspection" / "toy" / "inspection.json").read_text())
    assert report["options"] == {"tasks": ["reconstruction", "scene_qa"], "max_views": 3}
    assert report["splits"]["train"]["rows"] == 2 and len(report["shown"]) == 1


def test_strict_inspection_ends_with_1_where_something_is_wrong(tmp_path, capsys):
    words = ["data", "inspect", "toy", "--data-dir", "data", "--output", "out"]
    assert main([*words, "--strict"]) == 0
    assert capsys.readouterr().out.endswith("problems: none\nwrote out\n")
    write_rows(tmp_path / "data" / "train.jsonl", {}, {"fails": "record"})
    assert main(words) == 0
    with pytest.raises(SystemExit) as ended:
        main([*words, "--strict"])
    assert ended.value.code == 1 and capsys.readouterr().out.endswith("problems: broken records (1)\nwrote out\n")
    assert json.loads((tmp_path / "out" / "inspection.json").read_text())["problems"] == {"broken records": 1}


# convert


@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_a_source_is_converted_wherever_its_options_stand(place, tmp_path, capsys):
    name, folder = "gap_mllm", ["--data-dir", str(FORMATS / "gap_mllm")]
    options = ["--media-dir", MEDIA, "--tasks", "detection3d"]
    words = {
        "before": [*folder, name, *options, "out"],
        "between": [name, *folder, *options, "out"],
        "after": [name, *folder, "out", *options],
    }
    assert main(["data", "convert", *words[place]]) == 0
    assert capsys.readouterr().out.startswith("train: 2 rows, 1 files of 0.")
    rows = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(part) for split, part in rows.items()} == {"train": 2, "val": 2}
    assert (tmp_path / "out" / "README.md").is_file()


def test_conversion_takes_its_flags(tmp_path, capsys):
    write_rows(tmp_path / "data" / "train.jsonl", {}, {"fails": "record"}, {})
    words = ["convert", "toy", "--data-dir", "data", "out"]
    assert "record train-0000001" in refused(capsys, *words)
    more = [
        "--skip-bad-samples",
        "--report",
        "left.jsonl",
        "--license",
        "mit",
        "--max-shard-size",
        "1KB",
        "--no-check",
    ]
    assert main(["data", *words, *more, "--split", "train", "--cache-dir", "cache", "--num-proc", "1"]) == 0
    assert capsys.readouterr().out.endswith("wrote out\n")
    assert json.loads((tmp_path / "left.jsonl").read_text())["record"] == "train-0000001"
    assert "license: mit" in (tmp_path / "out" / "README.md").read_text() and (tmp_path / "cache").is_dir()
    assert "is there already and not empty" in refused(capsys, *words)


def test_a_refresh_reads_again_what_has_not_changed(tmp_path, monkeypatch):
    from tests.processing.data.toy_source import ToySource

    readings, find = [], ToySource.prepare_file
    monkeypatch.setattr(ToySource, "prepare_file", lambda *args: readings.append(args[1]) or find(*args))
    for number, flags in enumerate(([], [], ["--refresh"])):
        words = ["toy", "--data-dir", "data", "--split", "train", *flags]
        assert main(["data", "convert", *words, "--cache-dir", "cache", f"out{number}"]) == 0
        assert readings == ["train"] * (1, 1, 2)[number]
    assert main(["data", "inspect", "toy", "--data-dir", "data", "--refresh"]) == 0  # always reads


def test_numbers_of_processes_and_sizes_are_refused_at_once(tmp_path, capsys):
    words = ["convert", "toy", "--data-dir", "data", "out"]
    for count in ("0", "-1"):
        assert refused(capsys, *words, "--num-proc", count).endswith(f"num_proc is {count}; expected 1 or more.")
    assert "argument --num-proc: invalid int value: '1.5'" in not_parsed(capsys, *words, "--num-proc", "1.5")
    assert "max_shard_size is '-5'; expected a positive number" in refused(capsys, *words, "--max-shard-size", "-5")
    assert "output_dir is empty" in refused(capsys, "convert", "toy", "--data-dir", "data", "")
    assert "data_dir is empty" in refused(capsys, "convert", "toy", "--data-dir", "", "out")
    assert not (tmp_path / "out").exists()


def test_conversion_says_which_videos_were_not_stored(tmp_path, capsys):
    write_rows(tmp_path / "data" / "train.jsonl", {"video": "/a/b.mp4"}, {})
    assert main(["data", "convert", "toy", "--data-dir", "data", "out"]) == 0
    assert capsys.readouterr().out.startswith("train: 2 rows, 1 with a video and no pictures, 1 files")


# label


def test_labels_are_asked_for(monkeypatch, tmp_path, capsys):
    consistency = {"num_pairs": 6, "verdict": "doubtful", "depth_disagreement": 0.07, "picture_agreement": 0.31}
    calls, facts = [], {"is_metric": True, "consistency": consistency}

    def label(*args, **kwargs):
        calls.append((args, kwargs))
        return {"num_rows": 3, "num_views": 8, "num_pictures_left_out": 2 * kwargs["skip_bad_samples"], **facts}

    monkeypatch.setattr(video_labels, "label_video", label)
    assert main(["data", "label", "a/room.mp4", "--teacher", "vggt"]) == 0
    assert calls[-1][0] == ("a/room.mp4", "outputs/labels/room", "vggt")
    skips = {"skip_bad_samples": False, "report_file": None}
    assert calls[-1][1] == {"scale": None, "scene_id": None, "device": None, "overwrite": False, **skips}
    assert capsys.readouterr().out == (
        "the teacher is doubtful over 6 pairs of views: depths differ by 7.0 % (median), pictures at the same places "
        "agree to 0.31\nwrote outputs/labels/room: 3 rows of 8 views; look at labels.png\n"
    )
    words = ["--scale", "0.5", "--output", "out", "--device", "cpu", "--scene-id", "s", "--overwrite"]
    options = [
        "--fps",
        "2",
        "--window",
        "6",
        "--questions-per-clip",
        "depth_order=3,marked_pixel=2",
        "--embed-pictures",
        "--accept-inconsistent-teacher",
    ]
    assert main(["data", "label", *options, "--teacher", "vggt", "frames", *words]) == 0
    assert calls[-1][0] == ("frames", "out", "vggt")
    assert calls[-1][1] == {
        "scale": 0.5,
        "scene_id": "s",
        "device": "cpu",
        "overwrite": True,
        "fps": 2.0,
        "window": 6,
        "questions_per_clip": {"depth_order": 3, "marked_pixel": 2},
        "embed_pictures": True,
        "accept_inconsistent_teacher": True,
        **skips,
    }
    capsys.readouterr()
    facts["is_metric"] = False
    assert main(["data", "label", "a.mp4", "--teacher", "vggt", "--output", "out", "--skip-bad-samples"]) == 0
    assert calls[-1][1]["skip_bad_samples"] is True
    assert capsys.readouterr().out == (
        "pictures left out: 2, listed in out.report.jsonl\n"
        "the teacher is doubtful over 6 pairs of views: depths differ by 7.0 % (median), pictures at the same places "
        "agree to 0.31\n"
        "wrote out: 3 rows of 8 views in the teacher's own units, not metres; look at labels.png\n"
    )
    words = ["--skip-bad-samples", "--report", "left.jsonl"]
    assert main(["data", "label", "a.mp4", "--teacher", "vggt", *words]) == 0
    assert calls[-1][1]["report_file"] == "left.jsonl"
    assert capsys.readouterr().out.startswith("pictures left out: 2, listed in left.jsonl\n")
    assert main(["data", "label", "a.mp4", "--teacher", "vggt", "--scale", "depth/"]) == 0
    assert calls[-1][1]["scale"] == "depth/"
    assert main(["data", "label", "a.mp4", "--teacher", "vggt", "--distance", "0", "5", "0.42"]) == 0
    assert calls[-1][1]["scale"] == KnownBaseline(0, 5, 0.42)


def test_wrong_labelling_is_refused(capsys):
    words = ["label", "a.mp4", "--teacher", "vggt", "--scale", "1"]
    assert "--scale or --distance, not both" in refused(capsys, *words, "--distance", "0", "1", "2")
    assert "teacher /nope is no folder; expected a GapMllmVggt" in refused(capsys, "label", "a", "--teacher", "/nope")
    assert "a.mp4 does not exist" in refused(capsys, *words)
    for distance in (("a", "1", "2"), ("0", "1.5", "2"), ("0", "1", "far")):
        error = refused(capsys, "label", "a.mp4", "--teacher", "vggt", "--distance", *distance)
        assert f"--distance is {' '.join(distance)}; expected two numbers of views and the metres" in error
    assert "metres is nan" in refused(capsys, "label", "a", "--teacher", "vggt", "--distance", "0", "1", "nan")
    assert "source is empty" in refused(capsys, "label", "", "--teacher", "vggt")
    assert "device is 'nosuch'" in refused(capsys, *words, "--device", "nosuch")
    counts = ["--questions-per-clip", "marked_pixel=1.5"]
    assert "'marked_pixel=1.5'; expected each name once, with a count" in not_parsed(capsys, *words, *counts)
    assert "--teacher" in not_parsed(capsys, "label", "a.mp4")
    assert "--rules" in not_parsed(capsys, *words, "--rules", "x")


# Errors


def test_errors_are_one_line(capsys):
    assert "unknown source 'toi'; known are" in refused(capsys, "inspect", "toi", "--data-dir", "data")
    assert "unknown source 'toi'; known are" in refused(capsys, "inspect", "toi", "--data-dir", "data", "--x", "1")
    assert "needs data_dir" in refused(capsys, "inspect", "toy")
    assert "is no folder" in refused(capsys, "inspect", "toy", "--data-dir", "none")
    assert "split 'tset' is not in" in refused(capsys, "inspect", "toy", "--data-dir", "data", "--split", "tset")
    assert "source 'toy' has ['scene_qa'" in refused(
        capsys, "convert", "toy", "--data-dir", "data", "o", "--tasks", "a"
    )
    assert "num_views" in refused(capsys, "inspect", "synthetic_rooms", "--max-views", "2")
    for command in (["inspect", "synthetic_rooms"], ["convert", "synthetic_rooms", "out"]):
        assert "rooms are rendered and take none; leave it out" in refused(capsys, *command, "--data-dir", "data")
    assert "max_views is 0; expected 1 or more" in refused(capsys, *TOY, "--max-views", "0")
    assert "num_samples is -1; expected 0 or more" in refused(capsys, *TOY, "--num", "-1")
    assert "scale is nan; expected a number, not NaN" in refused(capsys, *TOY, "--scale", "nan")
    assert "prefix is empty; expected a text or None" in refused(capsys, *TOY, "--prefix", "")
    assert "output_dir is empty" in refused(capsys, *TOY, "--output", "")


def test_unknown_flags_are_refused(capsys):
    assert "unrecognized arguments: --prefxi x" in not_parsed(capsys, "inspect", "toy", "--prefxi", "x")
    assert "unrecognized arguments: --media-dir" in not_parsed(capsys, "convert", "toy", "out", "--media-dir", "x")
    assert "--repeat: invalid int value: 'x'" in not_parsed(capsys, "inspect", "toy", "--repeat", "x")
    assert "NAME" in not_parsed(capsys, "inspect")
    assert "OUT" in not_parsed(capsys, "convert", "toy", "--prefix", "out")
    assert "COMMAND" in not_parsed(capsys)


# Flags of a dataclass


@dataclass
class Everything:
    text: str = "a"
    number: float | None = None
    count: int = 1
    is_loud: bool = False
    pair: tuple[int, int] | None = None
    files: str | tuple | None = None
    counts: dict[str, int] | None = None
    other: object = None


def test_fields_become_flags_of_their_type():
    parser = argparse.ArgumentParser()
    add_option_flags(parser, Everything, Everything.__dataclass_fields__)
    words = "--text x --number 2 --count 3 --is-loud --pair 4,-5 --files a,b --counts a=1,b=2 --other y".split()
    assert given_options(parser.parse_args(words)) == {
        "text": "x",
        "number": 2.0,
        "count": 3,
        "is_loud": True,
        "pair": (4, -5),
        "files": ("a", "b"),
        "counts": {"a": 1, "b": 2},
        "other": "y",
    }
    assert given_options(parser.parse_args([])) == {}
    assert given_options(parser.parse_args(["--no-is-loud"])) == {"is_loud": False}
    for bad in ("a", "a=", "a=x", "a=1.5", "a=-1", "=1", "a=1,a=2"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--counts", bad])
