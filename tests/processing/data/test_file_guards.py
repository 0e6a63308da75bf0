"""What must not be opened or decoded: FIFOs, folders, huge pictures; and folders walked through links."""

import io
import os
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.data import RecordError, SceneSample, file_guards, load_multiview
from gap_mllm.processing.data.file_guards import check_pixel_count, is_data_file, list_folder, walk_files
from gap_mllm.processing.data.picture_checks import PictureChecks
from gap_mllm.processing.data.scene_sample import View
from gap_mllm.processing.data.source_files import picture_header, read_json, read_matrix
from gap_mllm.processing.data.sources.parquet_rows import embedded_view
from gap_mllm.processing.data.stored_frames import posed_view
from gap_mllm.processing.data.video_frames import read_video_frames, read_video_views, video_info


def large_png(width, height, bits=8):
    """A PNG whose header says so; its pixels are not there, so that decoding would be another error."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 2 if bits == 8 else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


@pytest.fixture
def special(tmp_path):
    """A function kind -> path of something that is no file."""

    def make(kind, name="special.png"):
        path = tmp_path / name
        if kind == "FIFO":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            bound = socket.socket(socket.AF_UNIX)
            here = os.getcwd()
            os.chdir(tmp_path)  # a socket's path is short
            try:
                bound.bind(name)
            finally:
                os.chdir(here)
                bound.close()
        return path

    return make


READERS = (
    lambda path: picture_header(str(path)),
    read_json,
    read_matrix,
    is_data_file,
    lambda path: View(picture=str(path)).image,
    lambda path: View(picture={"path": str(path), "bytes": None}).size,
    lambda path: View(depth_picture={"path": str(path), "bytes": None}, depth_scale=1000).depth_m,
)


@pytest.mark.parametrize("kind", ["FIFO", "socket", "device", "folder"])
def test_what_is_no_file_is_refused_by_name_and_never_opened(kind, special, monkeypatch):
    path = special(kind)
    monkeypatch.setattr("builtins.open", None)
    for read in READERS:
        with pytest.raises(RecordError, match=f"this is a {kind}.*not opened") as caught:
            read(path)
        assert caught.value.file == str(path)


@pytest.mark.parametrize("kind", ["FIFO", "socket"])
def test_no_video_is_read_from_a_pipe(kind, special):
    path = special(kind, "a.mp4")
    for read in (video_info, read_video_views, lambda video: read_video_frames(video, [0])):
        with pytest.raises(RecordError, match=f"this is a {kind}"):
            read(path)


@pytest.mark.parametrize("suffix", [".jpg", ".txt", ".png"])
def test_a_pipe_beside_a_frame_is_not_overlooked(suffix, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "00000.jpg")
    (tmp_path / f"00000{suffix}").unlink(missing_ok=True)
    os.mkfifo(tmp_path / f"00000{suffix}")
    with pytest.raises(RecordError, match="FIFO"):
        posed_view(tmp_path / "00000.jpg")


# Pictures that are too large


def test_a_picture_has_at_most_sixty_four_million_pixels(tmp_path):
    assert file_guards.MAX_PICTURE_PIXELS == 64_000_000
    check_pixel_count((8000, 8000))
    with pytest.raises(RecordError, match=r"8001 x 8000 pixels, 64.0 million; expected at most 64 million"):
        check_pixel_count((8001, 8000))
    for size in ((12000, 12000), (20000, 20000)):
        (tmp_path / "large.png").write_bytes(large_png(*size))
        with pytest.raises(RecordError, match=r"12000 x 12000 pixels|400000000 pixels") as caught:
            picture_header(str(tmp_path / "large.png"))
        assert caught.value.file == str(tmp_path / "large.png")


def test_large_pictures_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(file_guards, "MAX_PICTURE_PIXELS", 1_000)
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    Image.fromarray(np.ones((30, 40), np.uint16)).save(tmp_path / "depth.png")
    content = (tmp_path / "a.png").read_bytes()
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("it was decoded"))
    reads = (
        lambda: View(picture=str(tmp_path / "a.png")).image,
        lambda: View(picture={"bytes": content, "path": None}).image,
        lambda: View(depth_picture=str(tmp_path / "depth.png"), depth_scale=1000).depth_m,
        lambda: embedded_view(content, "image"),
        lambda: posed_view(tmp_path / "a.png"),
        lambda: video_info(tmp_path),
        lambda: read_video_frames(tmp_path, [0]),
        lambda: read_video_views(tmp_path),
    )
    for read in reads:
        with pytest.raises(RecordError, match="40 x 30 pixels"):
            read()
    view = {"image": {"path": str(tmp_path / "a.png"), "bytes": None}, "image_path": "a.png", "depth": None}
    [error] = PictureChecks().errors({"id": "r", "source": "s", "views": [view]})
    assert "40 x 30 pixels" in error.reason and error.field == "views[0].image"


def test_large_frames_of_a_video_are_refused(tmp_path, monkeypatch):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    assert video_info(tmp_path / "a.mp4").width == 64
    monkeypatch.setattr(file_guards, "MAX_PICTURE_PIXELS", 3_000)
    with pytest.raises(RecordError, match="64 x 48 pixels") as caught:
        read_video_views(tmp_path / "a.mp4")
    assert caught.value.file == str(tmp_path / "a.mp4")


def test_a_row_of_a_large_picture_is_skipped_where_that_is_asked_for(tmp_path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "0.png").write_bytes(large_png(12000, 12000))
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "PNG")
    (tmp_path / "media" / "1.png").write_bytes(buffer.getvalue())
    texts = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "This."}]
    records = [{"conversations": texts, "images": [f"{n}.png"], "gt_box": [0, 0, 2, 1, 1, 1]} for n in (0, 1)]
    (tmp_path / "train.jsonl").write_text("".join(f"{record}\n".replace("'", '"') for record in records))
    with pytest.raises(RecordError, match="12000 x 12000 pixels"):
        load_multiview("gap_mllm", tmp_path, cache_dir=tmp_path / "cache")
    rows = load_multiview("gap_mllm", tmp_path, "train", skip_bad_samples=True, cache_dir=tmp_path / "cache")
    assert [SceneSample.from_row(row).id for row in rows] == ["train-0000001"]


# Folders


def test_folders_are_walked_through_links(tmp_path):
    (tmp_path / "disk" / "inner").mkdir(parents=True)
    for name in ("disk/b.json", "disk/inner/c.jsonl", "disk/other.txt"):
        (tmp_path / name).touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.json").symlink_to(tmp_path / "disk" / "b.json")
    (tmp_path / "root" / "deep").symlink_to(tmp_path / "disk")
    found = [str(path.relative_to(tmp_path / "root")) for path in walk_files(tmp_path / "root", (".json", ".jsonl"))]
    assert found == ["a.json", "deep/b.json", "deep/inner/c.jsonl"]
    assert list(walk_files(tmp_path / "none", (".json",))) == []
    (tmp_path / "disk" / "inner" / "up").symlink_to(tmp_path / "disk")
    with pytest.raises(RecordError, match="leads back to a folder that holds it") as caught:
        list(walk_files(tmp_path / "root", (".json",)))
    assert caught.value.file == str(tmp_path / "root" / "deep" / "inner" / "up")


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    for name in ("closed", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.json").touch()
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(RecordError, match="cannot be read: Permission denied") as caught:
        list(walk_files(tmp_path, (".json",)))
    assert caught.value.file == str(tmp_path / "closed")
    listed = []
    assert list(walk_files(tmp_path, (".json",), listed.append)) == [tmp_path / "open" / "a.json"]
    assert [error.file for error in listed] == [str(tmp_path / "closed")]
    assert list_folder(tmp_path) == [tmp_path / "closed", tmp_path / "open"]
