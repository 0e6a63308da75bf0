"""Frames of videos: exact counts whatever the container says, upright pictures, and refusal of what is damaged."""

import io
import struct
import sys
import wave
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from gap_mllm.processing.data import RecordError, SceneSample, complete_row
from gap_mllm.processing.data.video_frames import frame_files, read_video_frames, read_video_views, video_info
from tests.processing.data.formats import FORMATS
from tests.processing.small_videos import NUM_FRAMES, index_of, picture, write_video


MP4 = FORMATS / "vsibench" / "scannet" / "scene9001_00.mp4"  # 12 frames, 12 a second


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """An MP4 whose index stands first, so that a cut copy can still be opened."""
    return write_video(tmp_path_factory.mktemp("video") / "room.mp4", options={"movflags": "faststart"})


def patched(path, target, tag, offset, data):
    """A copy of a video with bytes changed at an offset from the name of a part."""
    content = bytearray(path.read_bytes())
    start = content.index(tag) + offset
    content[start : start + len(data)] = data
    target.write_bytes(content)
    return target


def test_a_video_of_the_fixtures():
    info = video_info(MP4)
    assert (info.num_frames, info.fps, info.width, info.height) == (12, 12.0, 160, 120)
    assert info.duration_s == pytest.approx(11 / 12)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.avi", "mpeg4"), ("a.ts", "mpeg2video")],
)
def test_frames_are_counted_and_timed_in_every_container(name, codec, tmp_path):
    path = write_video(tmp_path / name, codec)
    info = video_info(path)
    assert (info.num_frames, info.fps) == (NUM_FRAMES, pytest.approx(10, abs=0.01))
    views = read_video_views(path, 5)
    assert [view["frame_id"] for view in views] == [0, 5, 11, 17, 23]  # linspace(0, 23, 5), cut
    assert [view["timestamp"] for view in views] == pytest.approx([0, 0.5, 1.1, 1.7, 2.3], abs=0.002)


def test_a_raw_stream_without_times(tmp_path):
    path = write_video(tmp_path / "a.h264")
    views = read_video_views(path, 3)
    assert [view["frame_id"] for view in views] == [0, 11, 23]
    assert views[1]["timestamp"] > 0


def test_the_length_that_the_container_states_is_not_used(tmp_path):
    right = write_video(tmp_path / "right.avi", "mpeg4")
    wrong = patched(right, tmp_path / "half.avi", b"avih", 24, struct.pack("<I", 1000))
    wrong = patched(wrong, tmp_path / "wrong.avi", b"strh", 40, struct.pack("<I", 1000))
    with av.open(str(wrong)) as container:
        assert container.streams.video[0].frames == 1000 and container.duration == 100e6  # microseconds
    info = video_info(wrong)
    assert (info.num_frames, info.fps, info.duration_s) == (NUM_FRAMES, 10.0, 2.3)
    assert [view["frame_id"] for view in read_video_views(wrong, 3)] == [0, 11, 23]


def test_packets_that_give_no_frame_do_not_count(tmp_path):
    """A stream that begins in the middle of a group shows nothing until the next key frame."""
    path = write_video(tmp_path / "late.ts", packets=slice(3, None), g=10, bf=0)
    with av.open(str(path)) as container:
        num_packets = sum(packet.size > 0 for packet in container.demux(video=0))
    num_frames = video_info(path).num_frames
    assert num_frames < num_packets == NUM_FRAMES - 3
    views = read_video_views(path, 4)
    assert [view["frame_id"] for view in views] == np.linspace(0, num_frames - 1, 4).astype(int).tolist()


def test_frames_come_in_the_order_asked_for(video):
    frames = read_video_frames(video, [20, 0, 7, 7])
    assert [frame.index for frame in frames] == [20, 0, 7, 7]
    assert [index_of(frame.image) for frame in frames] == [20, 0, 7, 7]
    assert [frame.timestamp for frame in frames] == pytest.approx([2.0, 0, 0.7, 0.7])
    assert frames[0].image.size == (64, 48) and frames[0].image.mode == "RGB"
    assert read_video_frames(video, []) == []


def test_views_are_jpeg_of_quality_95_and_fit_the_schema(video):
    views = read_video_views(video, 3)
    sample = SceneSample.from_row(complete_row(id="a", views=views))
    assert [index_of(view.image) for view in sample.views] == [0, 11, 23]
    expected = io.BytesIO()
    Image.new("RGB", (8, 8)).save(expected, "JPEG", quality=95)
    for view in views:
        assert view["image"]["path"] is None
        stored = Image.open(io.BytesIO(view["image"]["bytes"]))
        assert stored.format == "JPEG" and stored.quantization == Image.open(expected).quantization


def test_all_frames_where_there_are_not_so_many(video):
    assert [view["frame_id"] for view in read_video_views(video, 100)] == list(range(NUM_FRAMES))


def test_frames_at_a_rate(video):
    assert [view["frame_id"] for view in read_video_views(video, 32, fps=2)] == [0, 5, 10, 15, 20]
    assert [view["frame_id"] for view in read_video_views(video, 32, fps=4)] == [0, 2, 5, 7, 10, 12, 15, 17, 20, 22]
    assert [view["frame_id"] for view in read_video_views(video, 3, fps=4)] == [0, 11, 23]  # too many: evenly spaced
    for fps in (0, -1):
        with pytest.raises(ValueError, match=f"^fps is {fps}; expected a positive"):
            read_video_views(video, fps=fps)
    with pytest.raises(ValueError, match="num_frames is 0"):
        read_video_views(video, 0)


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((0, 1, -1, 0), lambda array: np.rot90(array, -1)),  # a telephone held upright: shown turned clockwise
        ((0, -1, 1, 0), lambda array: np.rot90(array, 1)),
        ((-1, 0, 0, -1), lambda array: np.rot90(array, 2)),
        ((-1, 0, 0, 1), lambda array: array[:, ::-1]),
        ((0, 1, 1, 0), lambda array: array.swapaxes(0, 1)),
    ],
)
def test_the_turn_that_the_file_asks_for_is_applied(video, matrix, turn, tmp_path):
    """The display matrix of the MP4 standard: stored (x, y) is shown at (a x + c y, b x + d y)."""
    a, b, c, d = (value << 16 for value in matrix)
    data = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    turned = patched(video, tmp_path / "turned.mp4", b"tkhd", 44, data)
    expected = turn(np.asarray(read_video_frames(video, [9])[0].image))
    assert np.array_equal(np.asarray(read_video_frames(turned, [9])[0].image), expected)
    info = video_info(turned)
    assert (info.height, info.width) == expected.shape[:2]


# What cannot be read


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", ["room.mp4", "end.mp4", "room.webm", "room.mkv", "room.avi"])
def test_a_cut_video_is_refused_and_named(name, share, video, tmp_path):
    codec = {"webm": "libvpx", "avi": "mpeg4"}.get(name[-4:].strip("."), "libx264")
    whole = video if name == "room.mp4" else write_video(tmp_path / f"whole-{name}", codec)
    assert video_info(whole).num_frames == NUM_FRAMES
    cut = tmp_path / name
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    for read in (video_info, read_video_views):
        with pytest.raises(RecordError, match="cannot be decoded") as caught:
            read(cut)
        assert caught.value.file == str(cut) and caught.value.field == "video"


def test_a_file_cut_between_two_frames_is_refused(video, tmp_path):
    with av.open(str(video)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[: sorted(ends)[10]])
    with pytest.raises(RecordError, match=rf"the file has {cut.stat().st_size} bytes of {video.stat().st_size}"):
        video_info(cut)


def test_a_damaged_video_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "noise.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(12):
            noise = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 800] = bytes(800)
    path.write_bytes(content)
    with pytest.raises(RecordError, match="damaged") as caught:
        video_info(path)
    assert caught.value.file == str(path)


def test_files_that_are_no_videos(tmp_path):
    (tmp_path / "text.mp4").write_text("no video at all")
    (tmp_path / "empty.mp4").write_bytes(b"")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1600))
    for name, says in (("text.mp4", "no video"), ("empty.mp4", "no video"), ("sound.wav", "no video stream")):
        with pytest.raises(RecordError, match=says) as caught:
            read_video_views(tmp_path / name)
        assert caught.value.file == str(tmp_path / name)
    for read in (video_info, read_video_views, lambda path: read_video_frames(path, [0])):
        with pytest.raises(FileNotFoundError, match="none.mp4 does not exist"):
            read(tmp_path / "none.mp4")


@pytest.mark.parametrize("index", [NUM_FRAMES, -1])
def test_a_frame_that_is_not_there(video, index):
    with pytest.raises(RecordError, match=f"frame {index} was asked for"):
        read_video_frames(video, [0, index])


def test_without_the_package_the_extra_is_named(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"gap-mllm\[data\]"):
        video_info(video)


# Folders of frames


@pytest.fixture
def folder(tmp_path):
    for index in (0, 1, 2, 10, 11):
        Image.fromarray(picture(index)).save(tmp_path / f"{index}.jpg", quality=95)
        Image.fromarray(np.zeros((48, 64), np.uint16)).save(tmp_path / f"{index}.png")  # depth beside
    return tmp_path


def test_a_folder_of_frames_is_read_in_the_order_of_its_numbers(folder):
    assert [file.name for file in frame_files(folder)] == ["0.jpg", "1.jpg", "2.jpg", "10.jpg", "11.jpg"]
    info = video_info(folder)
    assert (info.num_frames, info.fps, info.width, info.height, info.duration_s) == (5, None, 64, 48, None)
    views = read_video_views(folder, 3)
    assert [(view["frame_id"], view["image_path"]) for view in views] == [(0, "0.jpg"), (2, "2.jpg"), (11, "11.jpg")]
    assert views[1]["image"] == {"path": str(folder / "2.jpg"), "bytes": None}
    frames = read_video_frames(folder, [3, 0])
    assert [(frame.index, index_of(frame.image), frame.timestamp) for frame in frames] == [(3, 10, None), (0, 0, None)]
    assert SceneSample.from_row(complete_row(id="a", views=views)).views[0].timestamp is None


def test_names_with_numbers_in_them(tmp_path):
    for name in ("c2_10.jpg", "c2_9.jpg", "c10_1.jpg"):
        Image.fromarray(picture(0)).save(tmp_path / name)
    views = read_video_views(tmp_path)
    assert [view["image_path"] for view in views] == ["c2_9.jpg", "c2_10.jpg", "c10_1.jpg"]
    assert [view["frame_id"] for view in views] == [0, 1, 2]
    Image.fromarray(picture(0)).save(tmp_path / "1526915253123.jpg")  # a time, too large for a number of a frame
    last = read_video_views(tmp_path)[-1]
    assert complete_row(id="a", views=[last])["views"][0]["frame_id"] == last["frame_id"] < 4


def test_what_is_wrong_with_a_folder(folder, tmp_path):
    with pytest.raises(RecordError, match="frame 5 was asked for, but there are 5"):
        read_video_frames(folder, [5])
    with pytest.raises(ValueError, match="folder of frames, which have no times"):
        read_video_views(folder, fps=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="holds no pictures"):
        read_video_views(tmp_path / "empty")
    (folder / "1.jpg").write_bytes((folder / "1.jpg").read_bytes()[:-100])
    with pytest.raises(RecordError, match="cannot be decoded") as caught:
        read_video_frames(folder, [1])
    assert caught.value.file == str(folder / "1.jpg")
    with pytest.raises(RecordError, match="cannot be decoded"):
        read_video_views(folder)


def test_pictures_of_a_folder_that_cannot_be_read_are_left_out_where_asked_for(folder):
    whole = read_video_views(folder, 3)
    (folder / "2.jpg").write_bytes(b"no picture")
    (folder / "1.jpg").write_bytes(b"nor this, which is not among three of five")
    skipped = []
    assert read_video_views(folder, 3, skip=skipped.append) == [whole[0], whole[2]]  # the others stay the same
    assert [error.file for error in skipped] == [str(folder / "2.jpg")]
    assert len(read_video_views(folder, skip=skipped.append)) == 3 and len(skipped) == 3


def test_frames_that_see_most_of_the_space_may_be_chosen(video, folder):
    def see(images):
        points = torch.rand(1, 1, 8, 8, 3).repeat(1, len(images), 1, 1, 1)
        points[0, [1, 4]] += torch.tensor([1.0, 3.0])[:, None, None, None]  # these see something of their own
        return SimpleNamespace(world_points=points, world_points_conf=torch.ones(points.shape[:-1]))

    chosen = {"sampling": "space_aware", "points_from": see}
    assert {1, 4} < {view["frame_id"] for view in read_video_views(video, 3, **chosen)}
    views = read_video_views(folder, 3, **chosen)
    assert {"1.jpg", "11.jpg"} < {view["image_path"] for view in views} and len(views) == 3
    (folder / "10.jpg").write_bytes((folder / "10.jpg").read_bytes()[:-100])
    with pytest.raises(RecordError, match="cannot be decoded"):
        read_video_views(folder, 3, **chosen)
    skipped = []
    views = read_video_views(folder, 4, skip=skipped.append, sampling="space_aware", points_from=see)
    assert [view["image_path"] for view in views] == ["0.jpg", "1.jpg", "2.jpg", "11.jpg"]
    assert [error.file for error in skipped] == [str(folder / "10.jpg")]
