"""Reading foreign files: every documented error, what must pass, and that a large JSON array is never held whole."""

import json
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image
from transformers.utils import logging

from gap_mllm.processing.data import RecordError
from gap_mllm.processing.data.source_files import (
    as_numbers,
    check_box,
    check_depth_file,
    check_pose,
    encode_png,
    find_file,
    is_lost_pose,
    iter_json_array,
    iter_jsonl,
    iter_records,
    numeric_order,
    picture_header,
    read_json,
    read_matrix,
    read_pickle,
    resolve_inside,
    scaled_intrinsics,
)


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
MARK = b"\xef\xbb\xbf"  # byte order mark


@pytest.fixture
def write(tmp_path):
    """A function (content, name) -> path of a file with this text or these bytes."""

    def write_file(content, name="file.json"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


# Paths


def test_a_path_below_the_folder_is_joined(tmp_path):
    assert resolve_inside(tmp_path, "a/../b.jpg") == tmp_path / "b.jpg"
    climbing = os.path.relpath(tmp_path)
    assert climbing.startswith("..") and resolve_inside(climbing, "b.jpg").resolve() == tmp_path / "b.jpg"
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert resolve_inside(tmp_path / "root", "b.jpg") == tmp_path / "root" / "b.jpg"


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", ".."])
def test_a_path_that_leaves_the_folder_is_refused(path, tmp_path):
    with pytest.raises(RecordError, match="leads out of") as caught:
        resolve_inside(tmp_path, path, "images[3]")
    assert caught.value.field == "images[3]" and path in str(caught.value)


def test_links_that_the_user_made_are_followed(tmp_path):
    """As people keep ScanNet: media/scannet is a link to another disk. No record can climb through it."""
    (tmp_path / "disk" / "scene").mkdir(parents=True)
    (tmp_path / "disk" / "scene" / "0.jpg").touch()
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "scannet").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "nested").symlink_to(tmp_path / "disk" / "scene")
    (tmp_path / "media" / "one.jpg").symlink_to("scannet/nested/0.jpg")
    for name in ("scannet/scene/0.jpg", "scannet/nested/0.jpg", "one.jpg"):
        assert find_file(tmp_path / "media", name) == tmp_path / "media" / name
    (tmp_path / "linked").symlink_to("media")
    assert find_file(tmp_path / "linked", "one.jpg") == tmp_path / "linked" / "one.jpg"
    with pytest.raises(RecordError, match="leads out of"):
        find_file(tmp_path / "media", "scannet/../../disk/scene/0.jpg")


def test_a_link_that_leads_back_to_itself_is_named(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for name in ("a", "a/x.jpg"):
        with pytest.raises(RecordError, match="leads back to itself") as caught:
            find_file(tmp_path, name, field="images[1]")
        assert (caught.value.file, caught.value.field) == (str(tmp_path / name), "images[1]")
    with pytest.raises(RecordError, match="leads back to itself"):
        picture_header(str(tmp_path / "a"))


@pytest.mark.parametrize("path", [None, 5, "", "a\0b", ["a"]])
def test_what_is_no_path_is_refused(path, tmp_path):
    with pytest.raises(RecordError, match="is no path"):
        resolve_inside(tmp_path, path)
    with pytest.raises(RecordError, match="is no path"):
        find_file(tmp_path, path, dropped=("scannet/",))


def test_files_are_found_in_customary_places_in_order(tmp_path):
    for name in ("media/x.jpg", "other/x.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert find_file(tmp_path, "x.jpg", ("", "media", "other")) == tmp_path / "media" / "x.jpg"
    assert find_file(tmp_path, "scannet/x.jpg", ("other",), ("scannet/",)) == tmp_path / "other" / "x.jpg"


def test_a_missing_file_is_named_with_all_that_was_tried(tmp_path):
    with pytest.raises(RecordError) as caught:
        find_file(tmp_path, "a/x.jpg", ("", "media"), ("a/",), "images[0]")
    for tried in ("a/x.jpg", "media/a/x.jpg", "x.jpg", "media/x.jpg"):
        assert str(tmp_path / tried) in str(caught.value)
    assert caught.value.field == "images[0]"


def test_frames_are_ordered_by_their_number(tmp_path):
    names = ["10.jpg", "9.jpg", "b.jpg", "00002.jpg", "a.jpg"]
    ordered = numeric_order([tmp_path / name for name in names])
    assert [path.name for path in ordered] == ["00002.jpg", "9.jpg", "10.jpg", "a.jpg", "b.jpg"]


# Text


def test_json_is_read(write):
    assert read_json(write('{"a": [1, 2.5, null, "é"]}')) == {"a": [1, 2.5, None, "é"]}
    assert read_json(write(MARK + b"[1]")) == [1]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (LFS_POINTER, "git-lfs"),
        ('{"é": 1, "b"', "at byte 13.*download complete"),
        ('{"a": tru, "b": 1}', "at byte 6: Expecting value"),
        ("[NaN]", "NaN is no JSON number"),
        ("[-Infinity]", "-Infinity is no JSON number"),
        (b'["\xff"]', "0xff"),
        ("[" * 100_000, "nested more than 100 deep"),
        ('{"a":' * 101, "nested more than 100 deep"),
        ("", "at byte 0"),
    ],
)
def test_bad_json_is_named(content, says, write):
    with pytest.raises(RecordError, match=says) as caught:
        read_json(write(content))
    assert caught.value.file.endswith("file.json")


def test_a_json_array_is_streamed(write):
    records = [{"a": 1, "b": [0.1, -2e-3, None, True], "c": {"é": "x"}}, 7, "text", []]
    assert list(iter_json_array(write(json.dumps(records)))) == records
    assert list(iter_json_array(write(MARK + b" \n[1, 2]\n"))) == [1, 2]
    assert list(iter_json_array(write("[]"))) == []
    number = next(iter_json_array(write("[0.1]")))
    assert isinstance(number, float) and number == 0.1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (LFS_POINTER, "git-lfs"),
        ('{"a": 1}', "expected a JSON array"),
        ("", "expected a JSON array"),
        ('[{"a": 1}, {"a"', "ends too soon, at byte 15.*download complete"),
        ("[1, 2] 3", "trailing garbage"),
        ("[1, NaN]", "no valid JSON near byte"),
        (b'["\xff"]', "invalid bytes in UTF8 string"),
        ("[1,]", "no valid JSON near byte"),
    ],
)
def test_a_bad_array_is_named(content, says, write):
    with pytest.raises(RecordError, match=says) as caught:
        list(iter_json_array(write(content)))
    assert caught.value.file.endswith("file.json") and "b'" not in str(caught.value)


def test_lines_are_read_with_their_numbers(write):
    content = MARK + '{"a": "x\u2028y"}\r\n\n  \n[2]\n3'.encode()
    assert list(iter_jsonl(write(content))) == [(1, {"a": "x\u2028y"}), (4, [2]), (5, 3)]
    assert list(iter_records(write(b"1\n\n2\n", "file.jsonl"))) == [(0, 1), (2, 2)]
    assert list(iter_records(write("[5, 6]"))) == [(0, 5), (1, 6)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"a": NaN}', "NaN"),
        (b'{"a"', "line 2 is no valid JSON"),
        (b'"\xff"', "0xff"),
        (b"[" * 100_000, "nested more than 100 deep"),
    ],
)
def test_a_bad_line_is_named_or_skipped(line, says, write):
    path = write(b"1\n" + line + b"\n3\n", "file.jsonl")
    with pytest.raises(RecordError, match=says) as caught:
        list(iter_jsonl(path))
    assert (caught.value.file, caught.value.record_id) == (str(path), "line 2")
    assert "ends too soon" not in str(caught.value)
    skipped = []
    assert list(iter_jsonl(path, skipped.append)) == [(1, 1), (3, 3)]
    assert [error.record_id for error in skipped] == ["line 2"]


def test_a_cut_last_line_is_said_to_be_the_last(write):
    with pytest.raises(RecordError, match="line 2 .* last line and ends too soon"):
        list(iter_jsonl(write('{"a": 1}\n{"a":', "file.jsonl")))
    with pytest.raises(RecordError, match="git-lfs"):
        list(iter_jsonl(write(LFS_POINTER, "file.jsonl")))


@pytest.mark.parametrize("read", [read_json, lambda path: list(iter_json_array(path)), read_matrix, read_pickle])
def test_a_missing_file_is_a_missing_file(read, tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="resident memory is read from /proc")
def test_a_large_array_is_read_without_being_held(tmp_path):
    """60 MB of records, in a process of its own: its memory grows by a small part of that."""
    path = tmp_path / "large.json"
    record = {"conversations": [{"from": "human", "value": "x" * 2000}], "boxes": [[0.125] * 9] * 20}
    text = json.dumps(record)
    count = 60_000_000 // len(text)
    with open(path, "w") as stream:
        stream.write("[" + text + f",\n{text}" * (count - 1) + "]")
    assert path.stat().st_size > 60_000_000
    code = f"""
import os
from gap_mllm.processing.data.source_files import iter_json_array
def resident_mb():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
before = highest = resident_mb()
for count, _ in enumerate(iter_json_array({str(path)!r}), 1):
    if count % 200 == 0:
        highest = max(highest, resident_mb())
print(count, highest - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    number, grown_mb = run.stdout.split()
    assert int(number) == count and float(grown_mb) < 15


# Numbers


def test_a_matrix_is_read(write):
    assert read_matrix(write("1 2\n3 -inf\n"), (2, 2)).tolist() == [[1, 2], [3, -np.inf]]
    windows = read_matrix(write("\ufeff-1.#INF 1.#INF00\r\n-1.#IND 1.#QNAN0\r\n"), (2, 2))  # of Microsoft's printf
    np.testing.assert_array_equal(windows, [[-np.inf, np.inf], [np.nan, np.nan]])


@pytest.mark.parametrize(
    ("content", "says"),
    [("1 2\n3 4\n5 6\n", r"\(3, 2\), expected \(2, 2\)"), ("1 2\n3\n", "no matrix"), ("a b\nc d\n", "no matrix")],
)
def test_a_bad_matrix_is_named(content, says, write):
    with pytest.raises(RecordError, match=says) as caught:
        read_matrix(write(content), (2, 2))
    assert caught.value.file.endswith("file.json")


def test_poses_are_rigid_or_lost_or_refused():
    pose = np.eye(4)
    assert check_pose(pose.tolist()).dtype == np.float64
    assert (
        is_lost_pose(np.full((4, 4), -np.inf)) and is_lost_pose(np.diag([1, 1, np.nan, 1])) and not is_lost_pose(pose)
    )
    with pytest.raises(RecordError, match=r"determinant -1\.0000") as caught:
        check_pose(np.diag([1, 1, -1, 1]), "pose", "a/b.txt")
    assert (caught.value.field, caught.value.file) == ("pose", "a/b.txt")
    for lost in (np.full((4, 4), -np.inf), np.diag([1, np.nan, 1, 1]).tolist(), np.zeros((4, 4), int).tolist()):
        with pytest.raises(RecordError, match="the pose h.*(NaN or infinity|zeros).*lost tracking; leave") as caught:
            check_pose(lost, "pose", "a/b.txt")
        assert (caught.value.field, caught.value.file) == ("pose", "a/b.txt")
    with pytest.raises(RecordError, match=r"\(3, 4\), expected \(4, 4\)"):
        check_pose(pose[:3])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1, 2, 3], r"shape \(3,\), expected \(2,\)"),
        ([[1], [1, 2]], "not made of numbers"),
        ([1, None], "not made of numbers"),
        (["1", "2"], "not made of numbers"),
        ([True, False], "not made of numbers"),
        ({"x": 1}, "not made of numbers"),
        ([1, float("nan")], "NaN or infinity"),
        ([1, float("inf")], "NaN or infinity"),
    ],
)
def test_what_is_not_finite_numbers_is_refused(values, says):
    with pytest.raises(RecordError, match=says) as caught:
        as_numbers(values, (2,), "point")
    assert caught.value.field == "point"


def test_long_values_are_shortened_in_errors():
    with pytest.raises(RecordError) as caught:
        as_numbers(list(range(10_000)), (2,))
    assert len(str(caught.value)) < 200


def test_boxes_have_nine_numbers_and_positive_sizes():
    box = [0, 1, 2, 0.5, 0.5, 0.5, 0, 0, 3]
    assert check_box(box).tolist() == box
    with pytest.raises(RecordError, match=r"\[0.5, -0.5, 0.5\].*positive"):
        check_box([0, 1, 2, 0.5, -0.5, 0.5, 0, 0, 3])
    with pytest.raises(RecordError, match=r"\(7,\)"):
        check_box(box[:7])


# Pictures


def test_headers_are_read_and_read_again_when_the_file_changes(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 4)).save(path)
    assert picture_header(str(path)) == ((8, 4), "RGB")
    Image.new("L", (30, 20)).save(path)
    assert picture_header(str(path)) == ((30, 20), "L")


def test_what_is_no_picture_is_named(write, tmp_path, monkeypatch):
    for path in (write("text", "a.png"), tmp_path / "none.png"):
        with pytest.raises(RecordError, match="no readable picture") as caught:
            picture_header(str(path))
        assert caught.value.file == str(path)
    Image.new("L", (300, 200)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(RecordError, match="no readable picture.*exceeds limit"):
        picture_header(str(tmp_path / "bomb.png"))


def test_depth_maps_have_sixteen_bits_and_their_own_intrinsics(tmp_path):
    depth, grey = tmp_path / "depth.png", tmp_path / "grey.png"
    Image.fromarray(np.full((60, 80), 1500, np.uint16)).save(depth)
    Image.fromarray(np.full((60, 80), 15, np.uint8)).save(grey)
    intrinsics = np.array([[72.0, 0, 39.5], [0, 72, 29.5], [0, 0, 1]])
    assert check_depth_file(depth, intrinsics) == check_depth_file(depth) == (80, 60)
    with pytest.raises(RecordError, match="'L', expected 16 bits"):
        check_depth_file(grey)
    with pytest.raises(RecordError, match=r"80 x 60, .*\(79.5, 59.5\)") as caught:
        check_depth_file(depth, np.array([[144.0, 0, 79.5], [0, 144, 59.5], [0, 0, 1]]))
    assert (caught.value.field, caught.value.file) == ("depth_intrinsics", str(depth))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        np.arange(36, dtype=np.uint8).reshape(3, 4, 3),
        np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000,
    ],
)
def test_pictures_are_encoded_exactly(array):
    from datasets import Image as ImageFeature

    stored = encode_png(array)
    decoded = np.asarray(ImageFeature().decode_example(stored))
    assert decoded.dtype == array.dtype and np.array_equal(decoded, array)


@pytest.mark.parametrize(
    "array", [np.zeros((3, 4)), np.zeros((3, 4), np.int32), np.zeros((3, 4, 2), np.uint8), np.zeros(3, np.uint8)]
)
def test_what_png_does_not_hold_exactly_is_refused(array):
    with pytest.raises(ValueError, match=str(array.dtype)):
        encode_png(array)


# Pickles


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_containers_and_arrays_are_unpickled(protocol, write):
    value = {
        "a": [1, "x", None, (2.5, b"y")],
        "m": np.arange(6.0).reshape(2, 3),
        "n": np.float64(3),
        "i": np.arange(3),
    }
    read = read_pickle(write(pickle.dumps(value, protocol)))
    assert read["a"] == value["a"] and read["n"] == 3 and np.array_equal(read["m"], value["m"])


def test_pickles_of_the_other_numpy_are_read(write):
    """numpy 2 writes `numpy._core`, numpy 1 wrote `numpy.core`."""
    data = pickle.dumps(np.arange(3), 2)
    for old, new in ((b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")):
        assert read_pickle(write(data.replace(old, new))).tolist() == [0, 1, 2]


@pytest.mark.parametrize("value", [print, os.system, zipfile.ZipFile, np.linalg.norm, RecordError])
def test_a_pickle_that_imports_is_refused(value, write):
    with pytest.raises(RecordError, match="wants to load .*get the file from its publisher") as caught:
        read_pickle(write(pickle.dumps({"a": value})))
    assert caught.value.file.endswith("file.json")


@pytest.mark.parametrize(
    "content",
    [
        LFS_POINTER,
        b"",
        b"text",
        pickle.dumps(np.arange(3))[:-5],
        b"\x80\x09.",
        b"cnumpy\nndarray\n(I-1\ntR.",
        b"cnumpy\nndarray\n((L1000000000000000L\nttR.",
        b"Vab\\ud8\n.",
        b"}K\x01]K\x02ss.",
    ],
)
def test_a_broken_pickle_is_named(content, write):
    with pytest.raises(RecordError, match="no whole pickle|git-lfs") as caught:
        read_pickle(write(content))
    assert caught.value.file.endswith("file.json")


def test_intrinsics_are_scaled_to_pictures_of_the_same_shape_and_that_is_said_once(caplog):
    logging.warning_once.cache_clear()
    camera = np.array([[72.0, 0, 39.5], [0, 72, 29.5], [0, 0, 1]])
    for _ in range(2):
        scaled = scaled_intrinsics(camera, (80, 60), (161, 120), "cameras")  # a pixel of rounding
        np.testing.assert_allclose(scaled, [[72 * 161 / 80, 0, 80], [0, 144, 59.5], [0, 0, 1]])
    assert caplog.text.count("cameras: scaled from pictures of 80 x 60 to 161 x 120 pixels.") == 1
    assert scaled_intrinsics(camera, (80.0, 60.0), (80, 60)).tolist() == camera.tolist()
    for stated in ((80, 62), (60, 80), (0, 60)):
        with pytest.raises(RecordError, match="another shape, or its size is none: .*") as caught:
            scaled_intrinsics(camera, stated, (160, 120), "cameras", "a.jpg")
        assert (caught.value.field, caught.value.file) == ("cameras", "a.jpg")
