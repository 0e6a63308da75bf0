"""SPAR-7M and SPAR-Bench: marks per type of question, cameras, prompts, answers, and every damaged variant."""

import json
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from gap_mllm.processing.camera_geometry_gap_mllm import project_points, transform_points, unproject_depth
from gap_mllm.processing.data import RecordError, SceneSample, load_multiview, read_report
from gap_mllm.processing.data.sources.spar.spar_marks import SPAR_TYPES, UNMARKED, spar_marks
from gap_mllm.processing.data.sources.spar.spar_questions import listed_options, spar_answer, spar_prompt
from gap_mllm.processing.data.sources.wordings import bench_prompt
from tests.processing.data.formats import DAMAGED, FORMATS, load_damaged, rows_equal


SPAR, BENCH = FORMATS / "spar", FORMATS / "spar_bench"
IMAGES = SPAR / "spar" / "scannet" / "images"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return load_multiview("spar", SPAR, "train", cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return load_multiview("spar", BENCH, "test", cache_dir=tmp_path_factory.mktemp("cache"))


def marks_of(row):
    return [(mark["view"], mark["kind"], mark["color"], mark["text"]) for mark in row["marks"]]


def record_file(folder, *records, name="train.jsonl"):
    """A folder with one file of records, whose pictures are those of the fixture."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def record(question_type="depth_prediction_oc", num_images=1, question="How deep?", answer="1.5", **keys):
    conversations = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    names = ["scene9000_00/image_color/0.jpg"] * num_images
    points = {"red_point": [[10, 20]], "blue_point": [[30, 40]]} if question_type == "depth_prediction_oc" else {}
    return {"id": "a_1", "conversations": conversations, "image": names, "type": question_type, **points, **keys}


def load(folder, tmp_path, **options):
    return load_multiview("spar", folder, "train", cache_dir=tmp_path / "cache", media_dir=str(IMAGES), **options)


# The tree


def test_the_tree_is_read_word_for_word(rows):
    files = (
        "depth_prediction_oc/fill/fill_1",
        "depth_prediction_oo_mv/fill/fill_1",
        "obj_spatial_relation_oo/select/select_1",
    )
    folder = SPAR / "spar" / "scannet" / "qa_jsonl" / "train"
    records = [json.loads((folder / f"{file}.jsonl").read_text()) for file in files]
    assert len(rows) == 3
    for row, raw in zip(rows, records, strict=True):
        assert (row["question"], row["answer"]) == tuple(turn["value"] for turn in raw["conversations"])
        assert row["question_type"] == raw["type"] and row["task"] == "spatial_qa"
        assert [view["image_path"] for view in row["views"]] == raw["image"]
        assert (row["scene_id"], row["pose_frame"]) == ("scene9000_00", "scan")
        metadata = json.loads(row["metadata"])
        assert metadata["depth"] == raw["depth"] and metadata["part"] == "scannet"
    assert [row["id"] for row in rows][1] == "scannet-depth_prediction_oo_mv-fill_1-scene9000_00_17"
    assert [row["number"] for row in rows] == [1.5, 0.4, None]
    assert (rows[2]["choices"], rows[2]["choice_index"]) == (["A. left", "B. right", "C. above", "D. below"], 0)


def test_streamed_rows_equal_prepared_ones(rows, bench, tmp_path):
    for folder, split, prepared in ((SPAR, "train", rows), (BENCH, "test", bench)):
        streamed = load_multiview("spar", folder, split, streaming=True, cache_dir=tmp_path)
        assert rows_equal(prepared, streamed) == len(prepared) > 0


def test_an_index_gives_the_same_rows_and_its_weights(rows, tmp_path):
    indexed = load_multiview("spar", SPAR, "train", index="data_jsons/scannet_0k.json", cache_dir=tmp_path)
    assert [row["id"] for row in indexed] == [row["id"] for row in rows]
    for row, other in zip(indexed, rows, strict=True):
        assert row["marks"] == other["marks"]
        assert json.loads(row["metadata"]) == {**json.loads(other["metadata"]), "repeat_time": 1, "length": 1}


def test_an_index_is_found_where_there_is_no_tree(tmp_path):
    (tmp_path / "data_jsons").mkdir()
    record_file(tmp_path / "questions", record(), name="some.jsonl")
    entry = {"root": "pictures", "annotation": "questions/some.jsonl", "repeat_time": 0.5, "length": 1}
    (tmp_path / "data_jsons" / "mix.json").write_text(json.dumps({"some": entry}))
    shutil.copytree(IMAGES, tmp_path / "pictures")
    rows = load_multiview("spar", tmp_path, "train", cache_dir=tmp_path / "cache")
    assert json.loads(rows[0]["metadata"])["repeat_time"] == 0.5 and len(rows) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1], "expected {name: {root, annotation"),
        ({"a": {"root": "x"}}, "record a: expected root and annotation"),
        ({"a": {"root": "x", "annotation": "none.jsonl"}}, "'none.jsonl' is not there"),
        ({"a": {"root": "x", "annotation": "../none.jsonl"}}, "leads out of"),
    ],
)
def test_an_index_that_is_none(content, says, tmp_path):
    (tmp_path / "mix.json").write_text(json.dumps(content))
    with pytest.raises(RecordError, match=says) as caught:
        load_multiview("spar", tmp_path, index="mix.json", cache_dir=tmp_path / "cache")
    assert caught.value.file.endswith("mix.json") and caught.value.source == "spar"


def test_another_number_of_records_than_the_file_name_says_is_marked(tmp_path):
    shutil.copytree(SPAR / "spar", tmp_path / "data" / "spar")
    fill = tmp_path / "data" / "spar" / "scannet" / "qa_jsonl" / "train" / "depth_prediction_oc" / "fill"
    (fill / "fill_1.jsonl").rename(fill / "fill_3.jsonl")
    report = tmp_path / "report.jsonl"
    rows = load_multiview("spar", tmp_path / "data", "train", cache_dir=tmp_path / "cache", report_file=report)
    events = read_report(report)
    assert len(rows) == 3
    assert [(event["event"], event["reason"]) for event in events] == [
        ("row_count", "1 records, 3 by the name of the file")
    ]


def test_validation_files_are_their_own_split(tmp_path):
    shutil.copytree(SPAR / "spar" / "scannet", tmp_path / "scannet")
    tree = tmp_path / "scannet" / "qa_jsonl"
    (tree / "val").mkdir()
    (tree / "train" / "depth_prediction_oc").rename(tree / "val" / "depth_prediction_oc")
    splits = load_multiview("spar", tmp_path, cache_dir=tmp_path / "cache")
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 2, "val": 1}


# Cameras


def test_depth_and_poses_of_the_scannet_part_agree(rows):
    """Every depth pixel of view 0, moved to view 1 and projected, meets the depth that view 1 measured there."""
    sample = SceneSample.from_row(rows[1])
    first, second = sample.views[:2]
    points = unproject_depth(first.depth_m, first.depth_intrinsics).reshape(-1, 3)
    points = transform_points(sample.frame_to_camera("camera", 0, 1), points[np.isfinite(points).all(-1)])
    pixels, depth = project_points(points, second.depth_intrinsics)
    columns, lines = np.rint(pixels).astype(int).T
    height, width = second.depth_m.shape
    is_seen = (depth > 0) & (columns >= 0) & (columns < width) & (lines >= 0) & (lines < height)
    error = np.abs(second.depth_m[lines[is_seen], columns[is_seen]] - depth[is_seen])
    assert is_seen.sum() > 500 and np.median(error) < 0.02


def test_pictures_without_cameras(rows, tmp_path):
    plain = load_multiview("spar", SPAR, "train", cameras=False, cache_dir=tmp_path)
    assert all(view["depth"] is None and view["camera_to_world"] is None for row in plain for view in row["views"])
    assert {row["pose_frame"] for row in plain} == {None} and [row["marks"] for row in plain] == [*rows["marks"]]
    shutil.copytree(SPAR / "spar" / "scannet", tmp_path / "other" / "structured3d")
    other = load_multiview("spar", tmp_path / "other", "train", cache_dir=tmp_path / "cache")
    assert all(view["depth"] is None and view["intrinsics"] is None for row in other for view in row["views"])


def test_lost_tracking_is_counted(tmp_path):
    shutil.copytree(SPAR / "spar" / "scannet", tmp_path / "data" / "scannet")
    pose = tmp_path / "data" / "scannet" / "images" / "scene9000_00" / "pose" / "30.txt"
    pose.write_text("\n".join(["-inf -inf -inf -inf"] * 4))
    report = tmp_path / "report.jsonl"
    rows = load_multiview("spar", tmp_path / "data", "train", cache_dir=tmp_path / "cache", report_file=report)
    assert [view["camera_to_world"] is None for view in rows[1]["views"]] == [False, True, False]
    assert [event["event"] for event in read_report(report)] == ["lost_tracking"]


@pytest.mark.parametrize("name", ["intrinsic_color.txt", "intrinsic_depth.txt"])
def test_intrinsics_of_another_size_are_refused(name, tmp_path):
    shutil.copytree(SPAR / "spar" / "scannet", tmp_path / "data" / "scannet")
    file = tmp_path / "data" / "scannet" / "images" / "scene9000_00" / "intrinsic" / name
    np.savetxt(file, np.diag([8, 8, 1, 1]) @ np.loadtxt(file))
    with pytest.raises(RecordError, match="intrinsics of another size"):
        load_multiview("spar", tmp_path / "data", "train", cache_dir=tmp_path / "cache")


# Marks


ALL_MARKS = {f"{color}_point": [[100 * i, 50]] for i, color in enumerate(("red", "blue", "green"), 1)}
ALL_MARKS |= {
    f"{c}_bbox": [[100 * i, 50, 100 * i + 50, 90]] for i, c in enumerate(("red", "blue", "green", "yellow"), 1)
}
ALL_MARKS |= {"point_img_idx": [[3, 1, 2, 0]], "bbox_img_idx": [[3, 1, 2, 0]]}
ALL_MARKS |= {"point_list": [[[1, 2], [3, 4], [5, 6]]], "bbox_list": [[[1, 2, 3, 4], [5, 6, 7, 8]]]}
R, B, G, Y, C = "red", "blue", "green", "yellow", "cyan"
EXPECTED = {
    "depth_prediction_oc": [(0, "point", R), (0, "point", B)],
    "depth_prediction_oo": [(0, "point", R), (0, "point", B), (0, "point", G)],
    "distance_prediction_oc": [(0, "point", R)],
    "distance_prediction_oo": [(0, "point", R), (0, "point", B)],
    "distance_infer_center_oo": [(0, "point", R), (0, "point", B), (0, "point", G)],
    "obj_spatial_relation_oo": [(0, "box", R), (0, "box", B)],
    "spatial_volume_infer": [(0, "box", R)],
    "spatial_imagination_oc": [(0, "box", R), (0, "box", B), (0, "box", G)],
    "spatial_imagination_oo": [(0, "box", R), (0, "box", B), (0, "box", G), (0, "box", Y)],
    "position_matching": [(0, "box", R)],
    "depth_prediction_oc_mv": [(3, "point", R), (1, "point", B)],
    "depth_prediction_oo_mv": [(3, "point", R), (1, "point", B), (2, "point", G)],
    "distance_prediction_oc_mv": [(3, "point", R)],
    "distance_prediction_oo_mv": [(3, "point", R), (1, "point", B)],
    "distance_prediction_oo_video": [(3, "point", R), (1, "point", B)],
    "distance_infer_center_oo_mv": [(3, "point", R), (1, "point", G), (2, "point", B)],
    "obj_spatial_relation_oc_mv": [(3, "box", R), (3, "box", B), (3, "box", G)],
    "spatial_imagination_oc_mv": [(2, "box", R), (3, "box", G), (1, "box", B)],
    "spatial_imagination_oo_mv": [(2, "box", R), (3, "box", G), (1, "box", B), (0, "box", Y)],
    "spatial_imagination_oc_video": [(3, "box", G, "object0"), (1, "box", B, "object1"), (2, "box", R, "object2")],
    "spatial_imagination_oo_video": [
        (3, "box", G, "object0"),
        (1, "box", B, "object1"),
        (2, "box", R, "object2"),
        (0, "box", C, "object3"),
    ],
    "obj_frame_locate": [(3, "box", R)],
    "spatial_imagination_map_mv": [(3, "box", B, "object0"), (1, "box", B, "object1")],
    "distance_infer_center_oo_video": [
        (3, "point", B, "objectA"),
        (1, "point", B, "object0"),
        (2, "point", B, "object1"),
    ],
}


def test_every_type_is_covered():
    assert {*EXPECTED, *UNMARKED, "obj_spatial_relation_oo_mv"} == set(SPAR_TYPES)


@pytest.mark.parametrize("question_type", EXPECTED)
def test_marks_of_each_type(question_type):
    marks = spar_marks(question_type, {"type": question_type, **ALL_MARKS}, 4)
    expected = [(*parts, None)[:4] for parts in EXPECTED[question_type]]
    assert marks_of({"marks": marks}) == expected
    assert {mark["unit"] for mark in marks} == {"permille"}
    for mark in marks:
        if mark["text"] is None:
            key = f"{mark['color']}_{'point' if mark['kind'] == 'point' else 'bbox'}"
            assert mark["xy"].tolist() == ALL_MARKS[key][0]


@pytest.mark.parametrize("question_type", UNMARKED)
def test_types_without_marks_keep_what_they_hold(question_type, tmp_path):
    assert spar_marks(question_type, ALL_MARKS, 4) == []
    folder = record_file(tmp_path / "data", record(question_type, 4, red_bbox=[[1, 2, 3, 4]]))
    row = load(folder, tmp_path)[0]
    assert row["marks"] == [] and json.loads(row["metadata"])["red_bbox"] == [[1, 2, 3, 4]]


@pytest.mark.parametrize(("absent", "colors"), [("red", (B, G)), ("blue", (R, G)), ("green", (R, B))])
def test_a_relation_of_two_objects_has_the_two_boxes_that_are_there(absent, colors):
    left = {key: value for key, value in ALL_MARKS.items() if key != f"{absent}_bbox"}
    marks = spar_marks("obj_spatial_relation_oo_mv", left, 4)
    assert [(mark["view"], mark["color"]) for mark in marks] == [(3, colors[0]), (1, colors[1])]


@pytest.mark.parametrize(
    ("question_type", "change", "field", "says"),
    [
        ("obj_spatial_relation_oo_mv", {}, "type", "expected two of .* got red_bbox, blue_bbox, green_bbox"),
        ("obj_spatial_relation_oc_mv", {"red_bbox": None, "blue_bbox": None, "green_bbox": None}, "type", "got none"),
        ("depth_prediction_oc_mv", {"point_img_idx": None}, "point_img_idx", "is missing"),
        ("depth_prediction_oc_mv", {"point_img_idx": [[0]]}, "point_img_idx", "expected a picture for mark 1"),
        ("depth_prediction_oc_mv", {"point_img_idx": [0, 1]}, "point_img_idx", "expected one list in a list"),
        (
            "depth_prediction_oc_mv",
            {"point_img_idx": [[0, 4]]},
            "point_img_idx",
            "the blue point is on picture 4 of 4",
        ),
        ("depth_prediction_oc_mv", {"point_img_idx": [[0, -1]]}, "point_img_idx", "picture -1"),
        ("depth_prediction_oc_mv", {"point_img_idx": [[0, "1"]]}, "point_img_idx", "picture '1'"),
        ("depth_prediction_oc", {"red_point": [[1, 2, 3]]}, "red_point", "expected \\(2,\\)"),
        ("depth_prediction_oc", {"red_point": [[1001, 2]]}, "red_point", "lies outside its picture"),
        ("depth_prediction_oc", {"red_point": [["x", 2]]}, "red_point", "not made of numbers"),
        ("spatial_volume_infer", {"red_bbox": [[9, 1, 2, 3]]}, "red_bbox", "is not x1, y1, x2, y2"),
        ("spatial_volume_infer", {"red_bbox": [[1000, 1, 1002, 3]]}, "red_bbox", "partly inside"),
        ("spatial_imagination_map_mv", {"bbox_img_idx": [[0]]}, "bbox_img_idx", "for mark 1"),
        ("spatial_imagination_map_mv", {"bbox_list": [[[1, 2], [3, 4]]]}, "bbox_list[0][0]", "expected \\(4,\\)"),
        (None, {}, "type", "unknown type None"),
    ],
)
def test_marks_that_are_wrong(question_type, change, field, says):
    with pytest.raises(RecordError, match=says) as caught:
        spar_marks(question_type, {**ALL_MARKS, **change}, 4)
    assert caught.value.field == field


def test_marks_are_drawn_where_the_record_says(rows):
    red, blue, green = (255, 0, 0), (0, 0, 255), (0, 128, 0)
    single, several, boxes = (SceneSample.from_row(row) for row in rows)
    first = single.marked_images()[0]
    assert first.size == (162, 121)
    assert first.getpixel((127, 86)) == red  # 790 and 719 thousandths, cut
    assert first.getpixel((81, 84)) == blue
    pictures = several.marked_images()
    assert pictures[0].getpixel((127, 86)) == red
    assert pictures[2].getpixel((56, 38)) == blue and pictures[1].getpixel((46, 86)) == green
    drawn = boxes.marked_images()[0]
    assert drawn.getpixel((int(0.296 * 162 - 17.5), 84)) == blue  # drawn after the red one
    assert drawn.getpixel((150, int(0.388 * 121 - 17.5))) == red
    assert np.array_equal(
        np.asarray(single.views[0].image), np.asarray(Image.open(IMAGES / rows[0]["views"][0]["image_path"]))
    )


def test_a_mark_that_cannot_be_drawn_names_the_sample(rows):
    row = {**rows[0], "marks": [{**rows[0]["marks"][0], "view": 7}]}
    with pytest.raises(RecordError, match="is on view 7") as caught:
        SceneSample.from_row(row).marked_images()
    assert caught.value.record_id == rows[0]["id"] and caught.value.field == "marks"


# Questions and answers


def test_questions_about_videos_number_their_frames(tmp_path):
    records = [
        record("obj_count", 11, "How many chairs?", "2"),
        {**record("nav", 2, "Which way?", "left"), "id": "a_2"},
        {**record("obj_count", 10, "How many tables?", "1"), "id": "a_3"},
    ]
    rows = load(record_file(tmp_path / "data", *records), tmp_path)
    assert rows[0]["question"].startswith("Frame-1: <image>\nFrame-2: <image>\n")
    assert rows[0]["question"].endswith("Frame-11: <image>\nHow many chairs?")
    assert rows[1]["question"] == "Frame-1: <image>\nFrame-2: <image>\nWhich way?"
    assert rows[2]["question"] == "How many tables?"
    for row in rows:
        parts = SceneSample.from_row(row).messages()[1]["content"]
        assert sum(part["type"] == "image" for part in parts) == len(row["views"])


def test_tags_of_the_text_itself_are_kept():
    assert spar_prompt("<image> and <image>?", "nav", 2) == "<image> and <image>?"
    with pytest.raises(RecordError, match="1 <image> tags for 2 views"):
        spar_prompt("<image>?", "nav", 2)


def test_only_videos_are_thinned(tmp_path):
    folder = record_file(tmp_path / "data", record("obj_count", 12))
    row = load(folder, tmp_path, max_views=3)[0]
    assert len(row["views"]) == 3
    assert row["question"] == "Frame-1: <image>\nFrame-2: <image>\nFrame-3: <image>\nHow deep?"
    several = record_file(tmp_path / "few", record("camera_motion_infer", 2))
    locate = record_file(
        tmp_path / "locate", record("obj_frame_locate", 12, red_bbox=[[1, 2, 3, 4]], bbox_img_idx=[[0]])
    )
    for refused in (several, locate):
        with pytest.raises(RecordError, match="one by one; raise max_views"):
            load(refused, tmp_path, max_views=1)


def test_options_and_answers():
    assert listed_options("Where?\nA. left\nB. right\nAnswer with a letter.") == ["A. left", "B. right"]
    assert listed_options("Where?\nA. left") == listed_options("Where?") == []
    options = ["A. left", "B. right"]
    question = "Where?\n" + "\n".join(options)
    for answer in ("B", "B.", "(B)", "B. right", "right"):
        assert spar_answer(question, answer, "select") == {"choices": options, "choice_index": 1}
    with pytest.raises(RecordError, match="'C' is not among the options"):
        spar_answer(question, "C", "select")
    assert spar_answer(question, "It is to the right.", "sentence") == {}
    assert spar_answer("How far?", "-1.25", "fill") == {"number": -1.25}
    assert spar_answer("How far?", "about 1.25 meters", "sentence") == {}
    assert spar_answer("Is it?", "yes", "judge") == {}


# Bad input


@pytest.mark.parametrize(
    ("line", "field", "says"),
    [
        (0, "point_img_idx", "the blue point is on picture 3 of 3"),
        (1, "blue_point", "blue_point is missing"),
        (2, "type", "unknown type 'brand_new_task': what to draw for it is not known"),
    ],
)
def test_damaged_markers_are_refused_one_by_one(line, field, says, tmp_path):
    text = (DAMAGED / "spar_markers" / "train.jsonl").read_text().splitlines()[line]
    folder = record_file(tmp_path / "data", json.loads(text))
    with pytest.raises(RecordError, match=says) as caught:
        load(folder, tmp_path)
    error = caught.value
    assert (error.source, error.field, error.record_id) == ("spar", field, "train-0000000")
    assert error.file.endswith("train.jsonl")


def test_damaged_markers_are_skipped_and_listed(tmp_path):
    report = tmp_path / "report.jsonl"
    options = {"media_dir": str(IMAGES), "skip_bad_samples": True, "report_file": report}
    splits = load_damaged("spar", "spar_markers", tmp_path, **options)
    assert all(len(rows) == 0 for rows in splits.values())
    assert [event["field"] for event in read_report(report)] == ["point_img_idx", "blue_point", "type"]


def test_a_cut_line_is_named_or_left_out(tmp_path):
    with pytest.raises(RecordError, match="line 3 .*is the download complete") as caught:
        load_damaged("spar", "jsonl_truncated", tmp_path, media_dir=str(IMAGES))
    assert caught.value.record_id == "line 3"
    report = tmp_path / "report.jsonl"
    options = {"media_dir": str(IMAGES), "skip_bad_samples": True, "report_file": report}
    rows = load_damaged("spar", "jsonl_truncated", tmp_path, **options)["train"]
    assert [row["question_type"] for row in rows] == ["depth_prediction_oc", "depth_prediction_oo_mv"]
    assert [event["record"] for event in read_report(report)] == ["line 3"]


@pytest.mark.parametrize(
    ("bad", "field", "says"),
    [
        (record(image=["scene9000_00/image_color/7.jpg"]), "image[0]", "7.jpg"),
        (record(image=["../../../pose/0.txt"]), "image[0]", "leads out of"),
        (record(image=[]), "image", "expected a list of paths"),
        (record(question="<image><image>?"), "conversations", "2 <image> tags for 1 views"),
    ],
)
def test_other_bad_records(bad, field, says, tmp_path):
    with pytest.raises(RecordError, match=says) as caught:
        load(record_file(tmp_path / "data", bad), tmp_path)
    assert caught.value.field == field


def test_duplicate_ids_and_an_unknown_release_are_refused(tmp_path):
    folder = record_file(tmp_path / "data", record(), record())
    with pytest.raises(RecordError, match="'train-a_1' is there twice"):
        load(folder, tmp_path)
    with pytest.raises(ValueError, match="release is '8m'; expected one of 7m, bench"):
        load(folder, tmp_path, release="8m")
    with pytest.raises(FileNotFoundError, match="nothing of source 'spar'"):
        load(folder, tmp_path, release="bench")


# SPAR-Bench


def test_the_benchmark_is_read_with_its_pictures(bench):
    assert [row["id"] for row in bench] == ["0", "1"]
    fill, select = (SceneSample.from_row(row) for row in bench)
    assert fill.question == (
        "What is the depth of the chair (blue point)?\nPlease answer the question using a single word or phrase."
    )
    assert fill.metadata["question"] == "What is the depth of the chair (blue point)?"
    assert (fill.number, fill.question_type, fill.marks) == (1.5, "depth_prediction_oc", ())
    assert select.question.endswith("D. back\n\nAnswer with the option's letter from the given choices directly.")
    assert (select.choices, select.choice_index) == (("A. left", "B. right", "C. front", "D. back"), 0)
    assert [view.image.size for view in select.views] == [(162, 121)] * 2
    assert [view.image_path for view in select.views] == ["0.jpg", "60.jpg"]
    assert select.metadata["img_type"] == "multi_view" and select.metadata["source"] == "scannet"


def test_prompts_of_the_benchmark():
    box_line = (
        "The values represent the bounding box coordinates normalized to a 0-1000 scale, with the top-left corner as "
        "the origin of the image."
    )
    letter_line = "Answer with the option's letter from the given choices directly."
    assert bench_prompt("Which?", "position_matching", "select") == f"Which?\n{box_line}\n{letter_line}"
    assert bench_prompt("Which?", "camera_motion_infer", "select") == f"Which?\n{box_line}\n{letter_line}"
    assert bench_prompt("Which?", "obj_spatial_relation_oo", "select") == f"Which?\n\n{letter_line}"
    assert bench_prompt("How?", "view_change_infer", "fill") == "How?"
    with pytest.raises(RecordError, match="expected select or fill, got 'sentence'"):
        bench_prompt("How?", "depth_prediction_oc", "sentence")


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"answer": "E"}, "answer", "'E' is not among the options"),
        ({"image": [{"bytes": b"no picture", "path": "0.jpg"}]}, "image[0]", "no readable picture"),
        ({"image": [{"bytes": None, "path": "0.jpg"}]}, "image[0]", "no readable picture"),
        ({"format_type": "judge"}, "format_type", "expected select or fill"),
    ],
)
def test_a_bad_record_of_the_benchmark(change, field, says, tmp_path):
    table = pyarrow.parquet.read_table(BENCH / "data" / "test-00000-of-00001.parquet")
    rows = [table.to_pylist()[1] | change]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, table.schema), tmp_path / "test.parquet")
    with pytest.raises(RecordError, match=says) as caught:
        load_multiview("spar", tmp_path, "test", cache_dir=tmp_path / "cache")
    assert (caught.value.field, caught.value.record_id) == (field, "test-0000000")


def test_a_cut_parquet_file_and_a_pointer_are_refused(tmp_path):
    content = (BENCH / "data" / "test-00000-of-00001.parquet").read_bytes()
    (tmp_path / "test.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(RecordError, match="no whole parquet file") as caught:
        load_multiview("spar", tmp_path, cache_dir=tmp_path / "cache", skip_bad_samples=True)
    assert caught.value.file.endswith("test.parquet")
    (tmp_path / "test.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(RecordError, match="git-lfs"):
        load_multiview("spar", tmp_path, cache_dir=tmp_path / "cache")
