"""CV-Bench, BLINK and MMSI-Bench: rows, prompts word for word, pictures in their order, and every kind of bad row."""

import io
import json
import shutil

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from gap_mllm.processing.data import RecordError, SceneSample, load_multiview, read_report
from gap_mllm.processing.data.sources.bench.mmsi_source import listed_options
from gap_mllm.processing.data.sources.bench.multiple_choice import lettered, right_letter
from tests.processing.data.formats import FORMATS, rows_equal


LETTER_LINE = "Answer with the option's letter from the given choices directly."
FILES = {
    "cv_bench": "test_3d.parquet",
    "blink": "Relative_Depth/val-00000-of-00001.parquet",
    "mmsi": "MMSI_Bench.parquet",
}
SPLITS = {"cv_bench": "test", "blink": "val", "mmsi": "test"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return {name: load_multiview(name, FORMATS / name, SPLITS[name], cache_dir=cache) for name in FILES}


@pytest.fixture
def changed(tmp_path):
    """A function (name, **change): a copy of a set whose second row (of one file) is changed."""

    def copy(name, **change):
        folder = tmp_path / "changed"
        shutil.copytree(FORMATS / name, folder)
        table = pyarrow.parquet.read_table(folder / FILES[name])
        records = table.to_pylist()
        records[1] |= change
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records, table.schema), folder / FILES[name])
        return folder

    return copy


# What all share


@pytest.mark.parametrize("name", FILES)
def test_streamed_rows_equal_prepared_ones(name, rows, tmp_path):
    streamed = load_multiview(name, FORMATS / name, SPLITS[name], streaming=True, cache_dir=tmp_path)
    assert rows_equal(rows[name], streamed) == len(rows[name])


@pytest.mark.parametrize("name", FILES)
def test_answers_are_letters_of_the_choices(name, rows):
    for row in rows[name]:
        sample = SceneSample.from_row(row)
        assert sample.references == (sample.answer,) and sample.task == "spatial_qa"
        assert sample.choices[sample.choice_index].startswith(f"{sample.answer}. ")
        shown = [part for part in sample.messages(with_answer=False)[1]["content"] if part["type"] == "image"]
        assert len(shown) == len(sample.views) and all(view.image.mode == "RGB" for view in sample.views)


@pytest.mark.parametrize("name", FILES)
def test_pictures_are_those_of_the_file_byte_for_byte(name, rows):
    record = pyarrow.parquet.read_table(FORMATS / name / FILES[name]).to_pylist()[0]
    given = {"cv_bench": [record.get("image")], "blink": [record.get("image_1")], "mmsi": record.get("images")}[name]
    question = record["question"] if name != "blink" else record["prompt"]
    stored = rows[name].with_format("arrow")
    places = [place for place, text in enumerate(rows[name]["question"]) if question in text]
    views = stored[places[0]].to_pylist()[0]["views"]
    expected = [picture["bytes"] if isinstance(picture, dict) else picture for picture in given]
    assert [view["image"]["bytes"] for view in views] == expected


@pytest.mark.parametrize("name", FILES)
def test_a_bad_row_is_named_or_left_out(name, changed, rows, tmp_path):
    folder = changed(name, answer="(F)")
    with pytest.raises(RecordError, match="expected one of AB.*got '\\(F\\)'") as caught:
        load_multiview(name, folder, SPLITS[name], cache_dir=tmp_path / "cache")
    assert (caught.value.source, caught.value.field) == (name, "answer")
    assert caught.value.record_id.endswith("0000001") and caught.value.file.endswith(FILES[name])
    report = tmp_path / "report.jsonl"
    options = {"skip_bad_samples": True, "report_file": report, "cache_dir": tmp_path / "cache"}
    left = load_multiview(name, folder, SPLITS[name], **options)
    assert len(left) == len(rows[name]) - 1 and left["id"][0] == rows[name]["id"][0]
    assert [event["field"] for event in read_report(report) if event["event"] == "skipped"] == ["answer"]


NO_PICTURE = {"bytes": b"no picture", "path": "a.png"}


@pytest.mark.parametrize(
    ("name", "change", "field", "says"),
    [
        ("cv_bench", {"answer": None}, "answer", "got None"),
        ("cv_bench", {"answer": "chair"}, "answer", "got 'chair'"),
        ("cv_bench", {"choices": ["chair"]}, "choices", "expected 2 to 6 texts"),
        ("cv_bench", {"choices": None}, "choices", "got None"),
        ("cv_bench", {"task": "Colour"}, "task", "expected one of Count, Relation, Depth, Distance"),
        ("cv_bench", {"source": "nuScenes"}, "source", "expected one of ADE20K, COCO, Omni3D"),
        ("cv_bench", {"image": NO_PICTURE}, "image", "no readable picture"),
        ("cv_bench", {"image": None}, "image", "no readable picture"),
        ("cv_bench", {"idx": 3}, "id", "'3D-3' is there twice"),
        ("blink", {"answer": "hidden"}, "answer", "got 'hidden'"),
        ("blink", {"choices": ["a", "b", "c", "d", "e", "f", "g"]}, "choices", "expected 2 to 6 texts"),
        ("blink", {"choices": ["a", " "]}, "choices", "expected 2 to 6 texts"),
        ("blink", {"image_1": NO_PICTURE}, "image_1", "no readable picture"),
        ("blink", {"image_1": None}, "image_1", "the question has no picture"),
        ("blink", {"idx": "val_Relative_Depth_1"}, "id", "there twice"),
        ("mmsi", {"answer": "E"}, "answer", "expected one of ABCD"),
        ("mmsi", {"images": []}, "images", "no picture"),
        ("mmsi", {"images": None}, "images", "no picture"),
        ("mmsi", {"images": [b"cut"]}, "images[0]", "no readable picture"),
        ("mmsi", {"id": 0}, "id", "'0' is there twice"),
        ("mmsi", {"question": None}, None, "has not the form"),
    ],
)
def test_bad_rows(name, change, field, says, changed, tmp_path):
    with pytest.raises(RecordError, match=says) as caught:
        load_multiview(name, changed(name, **change), SPLITS[name], cache_dir=tmp_path / "cache")
    assert caught.value.field == field


@pytest.mark.parametrize("name", FILES)
def test_a_missing_column_a_cut_file_and_a_pointer_are_named(name, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(FORMATS / name, folder)
    table, file = pyarrow.parquet.read_table(folder / FILES[name]), folder / FILES[name]
    pyarrow.parquet.write_table(table.drop_columns(["question" if name == "mmsi" else "choices"]), file)
    with pytest.raises(RecordError, match="has not the form .*(question|choices)"):
        load_multiview(name, folder, SPLITS[name], cache_dir=tmp_path / "cache")
    content = (FORMATS / name / FILES[name]).read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(RecordError, match="no whole parquet file"):
        load_multiview(name, folder, SPLITS[name], cache_dir=tmp_path / "cache", skip_bad_samples=True)
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(RecordError, match="git-lfs"):
        load_multiview(name, folder, SPLITS[name], cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("name", FILES)
def test_a_folder_without_the_set_is_refused(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"nothing of source '{name}'; expected .*parquet"):
        load_multiview(name, FORMATS / "scanqa", cache_dir=tmp_path)


def test_pictures_are_never_thinned(tmp_path):
    for name in ("blink", "mmsi"):
        with pytest.raises(RecordError, match="max_views=1, but the question speaks of its [23] pictures") as caught:
            load_multiview(name, FORMATS / name, SPLITS[name], max_views=1, cache_dir=tmp_path)
        assert caught.value.field == "views"
    assert len(load_multiview("mmsi", FORMATS / "mmsi", "test", max_views=3, cache_dir=tmp_path)) == 3


def test_letters_and_options():
    assert lettered(["a", "b"]) == ["A. a", "B. b"]
    assert [right_letter(text, 4) for text in ("(B)", "B", " (C) ")] == ["B", "B", "C"]
    for text in ("b", "(E)", "", "AB", 1):
        with pytest.raises(RecordError, match="expected one of ABCD"):
            right_letter(text, 4)


# CV-Bench


def test_cv_bench_rows(rows):
    assert rows["cv_bench"]["id"] == ["2D-0", "2D-1", "2D-2", "3D-3", "3D-4"]
    assert rows["cv_bench"]["question_type"] == ["Count", "Relation", "Count", "Depth", "Distance"]
    assert rows["cv_bench"]["scene_id"][:2] == ["ADE20K/toy_00000000.jpg"] * 2  # one picture, two questions
    row = rows["cv_bench"][3]
    assert row["choices"] == ["A. chair", "B. cabinet"] and row["views"][0]["image_path"] == "img/3D/depth/toy_3.png"
    metadata = json.loads(row["metadata"])
    assert (metadata["source"], metadata["type"], metadata["target_class"]) == ("Omni3D", "3D", "chair")
    assert metadata["bbox"] == [[70, 50, 110, 95], [110, 20, 150, 80]]
    assert metadata["prompt"].endswith("\n(A) chair\n(B) cabinet")


def test_cv_bench_prompts_word_for_word(rows, tmp_path):
    question = "How many cabinets are in the image?"
    options = "A. 3\nB. 1\nC. 0\nD. 2\nE. 5\nF. 4"
    expected = f"These are frames of a video.\n{question}\nOptions:\n{options}\n{LETTER_LINE}"
    assert rows["cv_bench"][2]["question"] == expected
    noted = load_multiview("cv_bench", FORMATS / "cv_bench", "test", prompt_style="lmms", cache_dir=tmp_path)
    assert noted[1]["question"] == (
        "Note: You only need to respond with A, B without providing any additional information.\n\n"
        "Considering the relative positions of the chair and the table in the image provided, where is the chair "
        "located with respect to the table? Select from the following choices.\n(A) left\n(B) right"
    )
    assert "respond with A, B, C, D, E without" in noted[2]["question"]  # five at most, as there
    with pytest.raises(ValueError, match="prompt_style is 'own'; expected one of vgllm, lmms"):
        load_multiview("cv_bench", FORMATS / "cv_bench", prompt_style="own", cache_dir=tmp_path)


def test_the_older_release_of_cv_bench_is_one_file(tmp_path):
    tables = [pyarrow.parquet.read_table(FORMATS / "cv_bench" / f"test_{kind}.parquet") for kind in ("2d", "3d")]
    (tmp_path / "old").mkdir()
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables), tmp_path / "old" / "test.parquet")
    assert len(load_multiview("cv_bench", tmp_path / "old", "test", cache_dir=tmp_path)) == 5


# BLINK


def test_blink_rows(rows, tmp_path):
    ids = ["val_Jigsaw_1", "val_Multi-view_Reasoning_1", "val_Relative_Depth_1", "val_Relative_Depth_2"]
    assert rows["blink"]["id"] == ids and rows["blink"]["question_type"][1] == "Multi-view_Reasoning"
    jigsaw = SceneSample.from_row(rows["blink"][0])
    assert [view.image.size for view in jigsaw.views] == [(162, 121), (82, 61), (82, 61)]
    assert jigsaw.metadata == {
        "question": "Which image is the missing part in the first image?",
        "sub_task": "Jigsaw",
        "prompt": jigsaw.metadata["prompt"],
        "explanation": "toy",
    }
    hidden = load_multiview("blink", FORMATS / "blink", "test", cache_dir=tmp_path)[0]
    assert (hidden["answer"], hidden["choice_index"], hidden["references"]) == (None, None, [])
    assert hidden["choices"] == ["A. A is closer", "B. B is closer"]


def test_blink_prompts_word_for_word(rows, tmp_path):
    prompt = (
        "Two points are circled on the image, labeled by A and B beside each circle. Which point is closer to the "
        "camera?\nSelect from the following choices.\n(A) A is closer\n(B) B is closer"
    )
    assert rows["blink"][2]["question"] == f"{prompt}\n{LETTER_LINE}"
    assert rows["blink"][0]["question"].startswith("Disclaimer: This is not to make unfair assumptions")
    assert rows["blink"][0]["question"].endswith(f"(A) the second image\n(B) the third image\n{LETTER_LINE}")
    noted = load_multiview("blink", FORMATS / "blink", "val", prompt_style="lmms", cache_dir=tmp_path)
    note = "Note: You only need to respond with A, B without providing any additional information.\n"
    assert noted[2]["question"] == note + prompt
    with pytest.raises(ValueError, match="prompt_style is 'own'"):
        load_multiview("blink", FORMATS / "blink", prompt_style="own", cache_dir=tmp_path)


def test_blink_tasks_are_chosen(tmp_path):
    wanted = ["Relative_Depth", "Counting"]
    some = load_multiview("blink", FORMATS / "blink", "val", subtasks=wanted, cache_dir=tmp_path)
    assert set(some["question_type"]) == {"Relative_Depth"} and len(some) == 2
    with pytest.raises(ValueError, match="subtasks names 'Depth'; expected some of Art_Style"):
        load_multiview("blink", FORMATS / "blink", "val", subtasks=["Depth"], cache_dir=tmp_path)


# MMSI-Bench


def test_mmsi_rows(rows):
    assert rows["mmsi"]["id"] == ["0", "1", "2"] and [len(row["views"]) for row in rows["mmsi"]] == [2, 3, 2]
    row = rows["mmsi"][2]
    assert row["choices"][0] == "A. Behind the camera, to the left" and row["choice_index"] == 1
    assert row["question"] == (
        "When the second picture was taken, where was the cabinet?\nOptions: A: Behind the camera, to the left, B: In "
        f"front, C: Above, D: Below\n{LETTER_LINE} Enclose the option's letter within ``."
    )
    metadata = json.loads(row["metadata"])
    assert (metadata["difficulty"], metadata["thought"]) == ("medium", "toy") and "question" in metadata
    assert row["question_type"] == "Positional Relationship (Cam.\u2013Obj.)"


def test_options_that_cannot_be_told_apart_are_counted(changed, tmp_path):
    report = tmp_path / "report.jsonl"
    folder = changed("mmsi", question="Which?\nA. left\nB. right")
    row = load_multiview("mmsi", folder, "test", report_file=report, cache_dir=tmp_path / "cache")[1]
    assert (row["choices"], row["choice_index"], row["answer"]) == ([], None, "D")
    assert [event["event"] for event in read_report(report)] == ["options_not_read"]


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Q? Options: A: one, B: two, C: three, D: four", ["A. one", "B. two", "C. three", "D. four"]),
        ("Q?\nOptions:\nA: one\nB: two; more\nC: three\nD: 4 m", ["A. one", "B. two; more", "C. three", "D. 4 m"]),
        ("Options: A: x, B: y, C: z", []),
        ("Options: A: x, B: y, D: z, C: w", []),
        ("Options: A: x, B: , C: z, D: w", []),
        ("Options: first A: x, B: y, C: z, D: w", []),
        ("Which of A: x, B: y, C: z, D: w?", []),
    ],
)
def test_options_at_the_end_of_a_question(question, options):
    assert listed_options(question) == options


def test_pictures_as_structs_are_read_too(tmp_path):
    """Converters of the Hub write structs of bytes and path where the file has plain bytes."""
    record = pyarrow.parquet.read_table(FORMATS / "mmsi" / FILES["mmsi"]).to_pylist()[0]
    record["images"] = [{"bytes": content, "path": f"{place}.jpg"} for place, content in enumerate(record["images"])]
    (tmp_path / "data").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), tmp_path / "data" / FILES["mmsi"])
    views = load_multiview("mmsi", tmp_path, "test", cache_dir=tmp_path / "cache")[0]["views"]
    assert [view["image_path"] for view in views] == ["0.jpg", "1.jpg"]
    with Image.open(io.BytesIO(record["images"][1]["bytes"])) as picture:
        assert picture.convert("RGB").tobytes() == views[1]["image"].convert("RGB").tobytes()
