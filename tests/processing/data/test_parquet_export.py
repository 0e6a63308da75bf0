"""Converted data sets: rows and pixels come back, files are divided as asked, the card is one that the Hub reads."""

import json
import shutil

import datasets
import numpy as np
import pyarrow.parquet
import pytest
from huggingface_hub import DatasetCard
from PIL import Image

from gap_mllm.processing.data import SOURCES, RecordError, complete_row, load_multiview, read_report, scene_features
from gap_mllm.processing.data import parquet_export as module
from gap_mllm.processing.data.dataset_card import HUB_TASKS, KNOWN_LICENSES, write_dataset_card
from gap_mllm.processing.data.parquet_export import ExportedSplit, convert_to_parquet, write_parquet
from gap_mllm.processing.data.picture_checks import PictureChecks
from gap_mllm.processing.data.schema import TASKS
from gap_mllm.processing.data.source_files import encode_png
from tests.processing.data.formats import FORMATS, rows_equal
from tests.processing.data.toy_source import write_rows


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(SOURCES, "toy", ("tests.processing.data.toy_source", "ToySource"))


def picture(path, seed=0, size=(40, 30)):
    values = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return {"image": {"path": str(path), "bytes": None}, "image_path": path.name}


@pytest.fixture
def folder(tmp_path):
    """Seven rows to train on, each with two of four pictures, and a row without views to validate on."""
    (tmp_path / "data").mkdir()
    views = [picture(tmp_path / "data" / f"{index}.png", index) for index in range(4)]
    rows = [{"views": [views[index % 4], views[(index + 1) % 4]], "number": index} for index in range(7)]
    write_rows(tmp_path / "data" / "train.jsonl", *rows)
    write_rows(tmp_path / "data" / "val.jsonl", {"question": None, "answer": None})
    return tmp_path / "data"


def load_folder(path, tmp_path, **options):
    return datasets.load_dataset(str(path), cache_dir=str(tmp_path / "cache"), **options)


# Round trips


@pytest.mark.parametrize(
    ("source", "place", "options"),
    [
        ("gap_mllm", "gap_mllm", {}),
        ("scannet_posed", "scannet_posed_images", {}),
        ("embodiedscan", "embodiedscan", {}),
        ("spar", "spar", {}),
        ("vsibench", "vsibench", {}),
        ("scanrefer", "scanrefer", {"posed_root": str(FORMATS / "scannet_posed_images")}),
    ],
)
def test_rows_and_pixels_come_back(source, place, options, tmp_path):
    out = tmp_path / "out"
    written = convert_to_parquet(source, FORMATS / place, out, max_shard_size="40KB", **options)
    expected = load_multiview(source, FORMATS / place, cache_dir=tmp_path / "prepared", **options)
    read, streamed = load_folder(out, tmp_path), load_folder(out, tmp_path, streaming=True)
    assert sorted(read) == sorted(streamed) == sorted(written) == sorted(expected)
    for split, rows in expected.items():
        assert (
            rows_equal(rows, read[split]) == rows_equal(rows, streamed[split]) == written[split].num_rows == len(rows)
        )
        assert read[split].features == scene_features() == streamed[split].features


def test_depth_and_nulls_come_back_exactly(tmp_path):
    depth = np.random.default_rng(0).integers(0, 65535, (6, 8), dtype=np.uint16)
    rows = [
        complete_row(id="a", task="scene", views=[{"depth": encode_png(depth), "depth_scale": 1000}, {}]),
        complete_row(id="b", task="scene", world_to_aligned=np.eye(4) / 3),
        complete_row(id="c", task="scene", boxes=[{}], points=[{}], marks=[{}]),
    ]
    made = datasets.Dataset.from_list(rows, features=scene_features())
    write_parquet({"train": made}, tmp_path / "out")
    read = load_folder(tmp_path / "out", tmp_path)["train"]
    assert rows_equal(made, read) == 3
    stored = np.asarray(read[0]["views"][0]["depth"])
    assert stored.dtype == np.uint16 and np.array_equal(stored, depth) and read[0]["views"][1]["depth"] is None
    assert read[1]["world_to_aligned"][0][0] == 1 / 3 and read[0]["world_to_aligned"] is None


def test_pictures_are_inside_and_as_they_were(folder, tmp_path):
    convert_to_parquet("toy", folder, tmp_path / "out")
    original = (folder / "1.png").read_bytes()
    shutil.rmtree(folder)
    table = pyarrow.parquet.read_table(tmp_path / "out" / "data" / "train-00000-of-00001.parquet")
    image = table["views"][0].as_py()[1]["image"]
    assert image == {"bytes": original, "path": "1.png"}  # no path of the machine
    assert len(load_folder(tmp_path / "out", tmp_path)["train"][6]["views"]) == 2


def test_nothing_is_left_beside_the_folder(folder, tmp_path):
    convert_to_parquet("toy", folder, tmp_path / "here" / "out")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["out"]
    assert sorted(path.name for path in (tmp_path / "here" / "out").iterdir()) == ["README.md", "data"]


# Files


def test_shards_hold_as_many_rows_as_fit(folder, tmp_path):
    size = 2 * max((folder / f"{index}.png").stat().st_size for index in range(4))
    written = convert_to_parquet("toy", folder, tmp_path / "out", max_shard_size=3 * size)["train"]
    assert written.files == [f"data/train-{index:05d}-of-00003.parquet" for index in range(3)]
    counts = [pyarrow.parquet.read_metadata(tmp_path / "out" / file).num_rows for file in written.files]
    assert counts == [3, 3, 1] and written.num_rows == 7
    assert written.num_bytes == sum((tmp_path / "out" / file).stat().st_size for file in written.files)
    written = convert_to_parquet("toy", folder, tmp_path / "each", max_shard_size=1)["train"]
    assert len(written.files) == 7  # at least a row
    rows = load_folder(tmp_path / "each", tmp_path)["train"]
    assert rows["number"] == [0, 1, 2, 3, 4, 5, 6]


def test_a_picture_that_rows_share_is_stored_once(tmp_path):
    large = picture(tmp_path / "a.png", size=(300, 200))
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "train.jsonl", *[{"views": [large]}] * 20)
    written = convert_to_parquet("toy", tmp_path / "data", tmp_path / "out")["train"]
    assert written.num_bytes < 1.5 * (tmp_path / "a.png").stat().st_size


def test_row_groups_are_bounded(folder, tmp_path, monkeypatch):
    def groups(name):
        [file] = convert_to_parquet("toy", folder, tmp_path / name)["train"].files
        metadata = pyarrow.parquet.read_metadata(tmp_path / name / file)
        return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]

    assert groups("whole") == [7]
    monkeypatch.setattr(module, "MAX_GROUP_ROWS", 3)
    assert groups("rows") == [3, 3, 1]
    monkeypatch.setattr(module, "ROW_GROUP_BYTES", 2.5 * 2 * (folder / "0.png").stat().st_size)
    assert groups("bytes") == [2, 2, 2, 1]


def test_one_split_or_a_part_of_it(folder, tmp_path):
    assert list(convert_to_parquet("toy", folder, tmp_path / "a", "train")) == ["train"]
    part = convert_to_parquet("toy", folder, tmp_path / "b", "train[2:4]")["train"]
    assert part.num_rows == 2 and part.files == ["data/train-00000-of-00001.parquet"]
    assert load_folder(tmp_path / "b", tmp_path)["train"]["number"] == [2, 3]


def test_options_reach_the_source(folder, tmp_path):
    written = convert_to_parquet("toy", folder, tmp_path / "a", "train", tasks=["scene_qa"], max_views=1)
    assert written["train"].tasks == {"scene_qa": 7}
    assert len(load_folder(tmp_path / "a", tmp_path)["train"][0]["views"]) == 1
    with pytest.raises(ValueError, match="no option 'media_dirr'"):
        convert_to_parquet("toy", folder, tmp_path / "b", media_dirr="x")
    assert not (tmp_path / "b").exists()


def test_rooms_are_converted(tmp_path):
    options = {"num_train": 1, "num_selection": 0, "num_test": 0, "tasks": ["detection3d"], "width": 32, "height": 32}
    written = convert_to_parquet("synthetic_rooms", None, tmp_path / "out", **options)
    assert (
        written["train"].num_rows == 1
        and DatasetCard.load(tmp_path / "out" / "README.md").data.license == "apache-2.0"
    )


# What is refused


def test_a_folder_that_holds_something_is_refused(folder, tmp_path):
    for path in (folder, folder / "train.jsonl"):
        with pytest.raises(FileExistsError, match="is there already and not empty"):
            convert_to_parquet("toy", folder, path)
    (tmp_path / "empty").mkdir()
    assert convert_to_parquet("toy", folder, tmp_path / "empty")


def test_the_loser_of_two_conversions_says_so(folder, tmp_path, monkeypatch):
    """The folder was free when this one began; without locks, as between machines, another was faster."""
    convert, card = convert_to_parquet, module.write_dataset_card

    def be_overtaken(*args):
        monkeypatch.setattr(module, "write_dataset_card", card)
        with pytest.raises(FileExistsError, match="another process is writing .*out now"):
            convert("toy", folder, tmp_path / "out")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").touch()
        return card(*args)

    monkeypatch.setattr(module, "write_dataset_card", be_overtaken)
    with pytest.raises(FileExistsError, match="another process has written into .*out meanwhile"):
        convert("toy", folder, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs"]


WHOLE, SIZE = "expected an integer of at least 1", "expected a positive number of bytes"


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        *[("max_shard_size", size, ValueError, SIZE) for size in (0, "0MB", -5, "-5", "x", "1.5GB", "", "500")],
        *[("max_shard_size", size, TypeError, SIZE) for size in (1.5, True, None)],
        *[("num_proc", count, ValueError, "expected 1 or more") for count in (0, -1)],
        *[("num_proc", count, TypeError, WHOLE) for count in (1.5, "2", True)],
        ("check_pictures", "no", TypeError, "expected True or False"),
        ("skip_bad_samples", "yes", TypeError, "expected True or False"),
        ("split", ["train"], TypeError, "expected the name of a split"),
        ("split", "", ValueError, "expected the name of a split"),
        ("license", 3, TypeError, "expected the identifier of a licence"),
        ("output_dir", 3, TypeError, "expected the folder to make"),
        ("output_dir", "", ValueError, "expected the folder to make"),
        ("output_dir", f"{__file__}/out", NotADirectoryError, "is a file; give a folder"),
        ("report_file", ".", IsADirectoryError, "give a file to write"),
    ],
)
def test_arguments_are_refused_before_anything_is_read(name, value, error, message, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "load_multiview", None)
    given = {"name": "toy", "data_dir": folder, "output_dir": tmp_path / "out", name: value}
    with pytest.raises(error, match=f"^{name} .*{message}"):
        convert_to_parquet(**given)
    assert not (tmp_path / "out").exists()


def test_a_report_inside_the_folder_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="report_file .*report.jsonl is inside output_dir .*out; give another place"):
        convert_to_parquet("toy", folder, tmp_path / "out", report_file=tmp_path / "out" / "report.jsonl")
    assert not (tmp_path / "out").exists()


def test_sums_of_splits_and_nothing_at_all_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"'train\+val'; give one split"):
        convert_to_parquet("toy", folder, tmp_path / "out", "train+val")
    with pytest.raises(ValueError, match="there are no rows to write"):
        convert_to_parquet("toy", folder, tmp_path / "out", tasks=["reconstruction"])
    with pytest.raises(ValueError, match="split 'train' has other features"):
        write_parquet({"train": datasets.Dataset.from_dict({"a": [1]})}, tmp_path / "out")


def test_empty_splits_are_left_out(folder, tmp_path):
    write_rows(folder / "val.jsonl", {"task": "reconstruction"})
    written = convert_to_parquet("toy", folder, tmp_path / "out", tasks=["scene_qa"])
    assert list(written) == list(load_folder(tmp_path / "out", tmp_path)) == ["train"]


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_broken_picture_is_named_or_its_rows_left_out(damage, folder, tmp_path, monkeypatch):
    broken = folder / "2.png"
    whole = broken.read_bytes()
    load = module.load_multiview

    def load_and_damage(*args, **kwargs):
        broken.write_bytes(whole)
        rows = load(*args, **kwargs)
        broken.write_bytes(whole[:-1500]) if damage == "cut" else broken.unlink()
        return rows

    monkeypatch.setattr(module, "load_multiview", load_and_damage)
    with pytest.raises(RecordError, match="2.png (cannot be decoded|is not there)") as caught:
        convert_to_parquet("toy", folder, tmp_path / "out")
    assert (caught.value.record_id, caught.value.field) == ("train-0000001", "views[1].image")
    assert caught.value.missing == (str(broken) if damage == "missing" else None)
    assert not (tmp_path / "out").exists()

    written = convert_to_parquet("toy", folder, tmp_path / "out", skip_bad_samples=True)["train"]
    assert (written.num_rows, written.num_left_out) == (3, 4)
    assert load_folder(tmp_path / "out", tmp_path)["train"]["number"] == [0, 3, 4]
    events = read_report(tmp_path / "out.report.jsonl")
    assert [event["record"] for event in events] == [f"train-000000{index}" for index in (1, 2, 5, 6)]
    assert "(4 left out)" in (tmp_path / "out" / "README.md").read_text()


def test_pictures_may_be_copied_unseen(folder, tmp_path, monkeypatch):
    broken = folder / "2.png"
    broken.write_bytes(broken.read_bytes()[:-1500])
    assert convert_to_parquet("toy", folder, tmp_path / "out", check_pictures=False)["train"].num_rows == 7
    load = module.load_multiview

    def load_and_lose(*args, **kwargs):
        rows = load(*args, **kwargs)
        broken.unlink()
        return rows

    monkeypatch.setattr(module, "load_multiview", load_and_lose)
    with pytest.raises(RecordError, match="2.png is not there") as caught:
        convert_to_parquet("toy", folder, tmp_path / "b", check_pictures=False)
    assert (caught.value.source, caught.value.record_id) == ("toy", "train-0000001")


def test_bad_records_are_left_out_and_listed(folder, tmp_path):
    with open(folder / "train.jsonl", "a") as stream:
        stream.write('{"fails": "record"}\n')
    with pytest.raises(RecordError, match="it is bad"):
        convert_to_parquet("toy", folder, tmp_path / "out")
    report = tmp_path / "elsewhere.jsonl"
    convert_to_parquet("toy", folder, tmp_path / "out", skip_bad_samples=True, report_file=report)
    assert [event["record"] for event in read_report(report)] == ["train-0000007"]


def test_videos_that_are_not_stored_are_counted(folder, tmp_path, caplog):
    import logging

    from transformers.utils.logging import warning_once

    warning_once.cache_clear()
    logging.getLogger("transformers").propagate = True
    write_rows(folder / "val.jsonl", {"video": "/a/b.mp4"}, {})
    assert convert_to_parquet("toy", folder, tmp_path / "out")["val"].num_without_views == 1
    said = [message for message in caplog.messages if "rows name a video" in message]
    assert len(said) == 1 and said[0].startswith("toy: ") and "Pass max_views=N" in said[0]


# Checks of pictures


def test_every_picture_is_decoded_once(tmp_path, monkeypatch):
    view = {**picture(tmp_path / "a.png"), "depth": encode_png(np.zeros((3, 4), np.uint16)), "depth_scale": 1000}
    row = complete_row(id="r", source="toy", views=[view, view, {}])
    checks = PictureChecks()
    assert checks.errors(row) == checks.errors(row) == []
    # those in rows, without a path, are decoded each time
    assert (checks.num_pictures, checks.num_depth_maps, checks.num_empty_depth_maps) == (1, 4, 4)
    grey = {"depth": encode_png(np.zeros((3, 4), np.uint8)), "depth_scale": 1000}
    [error] = checks.errors(complete_row(id="r", source="toy", views=[{}, grey]))
    assert (error.field, error.source, error.record_id) == ("views[1].depth", "toy", "r")
    assert "expected one 16-bit channel" in error.reason


# The card


def test_the_card_says_what_there_is(folder, tmp_path):
    convert_to_parquet("toy", folder, tmp_path / "out")
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.configs == [
        {
            "config_name": "default",
            "data_files": [{"split": "train", "path": "data/train-*"}, {"split": "val", "path": "data/val-*"}],
        }
    ]
    assert card.data.task_categories == ["visual-question-answering"] and card.data.size_categories == ["n<1K"]
    assert (card.data.license, card.data.license_name) == ("other", "cc-by-4.0")
    splits = {split["name"]: split["num_examples"] for split in card.data.dataset_info["splits"]}
    assert splits == {"train": 7, "val": 1}
    assert datasets.Features._from_yaml_list(card.data.dataset_info["features"]) == scene_features()
    assert "| train | 7 | 7 scene_qa | 1 |" in card.text and "CC BY 4.0" in card.text
    for name in scene_features():
        assert f"`{name}`" in card.text or f"`{name}[]`" in card.text, name


def split_of(num_rows=5, num_without_views=0):
    return {"train": ExportedSplit(num_rows, 0, num_without_views, 10, ["a"], {"scene_qa": num_rows})}


@pytest.mark.parametrize(
    ("stated", "asked", "written", "expected"),
    [
        ("mit", None, split_of(5, 5), ("mit", None)),
        ("mit", None, split_of(), ("other", "mit")),  # pictures have terms of their own
        ("mit", "cc-by-4.0", split_of(), ("cc-by-4.0", None)),
        ("ScanNet terms of use: research only", None, split_of(5, 5), ("other", "scannet-terms-of-use-research-only")),
        ("", None, split_of(), ("other", "unknown")),
    ],
)
def test_licences(stated, asked, written, expected, tmp_path):
    builder = type("Builder", (), {"LICENSE": stated, "__doc__": "Rows."})
    path = write_dataset_card(tmp_path, "toy", builder, written, asked)
    data = DatasetCard.load(path).data
    assert (data.license, data.to_dict().get("license_name")) == expected


@pytest.mark.parametrize(
    ("num_rows", "category"), [(999, "n<1K"), (1000, "1K<n<10K"), (144_164, "100K<n<1M"), (20_000_000, "n>10M")]
)
def test_sizes(num_rows, category, tmp_path):
    builder = type("Builder", (), {"__doc__": "Rows."})
    assert DatasetCard.load(write_dataset_card(tmp_path, "toy", builder, split_of(num_rows))).data.size_categories == [
        category
    ]


def test_every_task_has_a_category_and_every_licence_is_lower_case():
    assert set(HUB_TASKS) >= set(TASKS)
    assert all(name == name.lower() for name in KNOWN_LICENSES)
    assert json.dumps(HUB_TASKS)
