"""What frames of videos look like: colours, white behind them, square pixels, upright, in every container."""

import io
import struct
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

import gap_mllm.processing.video_decoding_gap_mllm as decoding
import gap_mllm.processing.video_decoding_gap_mllm as pixels_module
from gap_mllm.processing.data import RecordError
from gap_mllm.processing.data.file_guards import MAX_PICTURE_PIXELS
from gap_mllm.processing.data.video_frames import read_video_frames, read_video_views, video_info
from gap_mllm.processing.video_decoding_gap_mllm import VideoFile, VideoFrame, square_size
from gap_mllm.processing.view_files_gap_mllm import Orientation
from tests.processing.small_videos import picture, write_video


RED = (200, 30, 30)
# Matrix by its number of H.273: shares of red and blue in the brightness.
SHARES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}


def planes(rgb, matrix, is_full=False, bits=8):
    """Values of Y, Cb and Cr of a colour, by the formulas of the standards."""
    (r, g, b), (share_r, share_b) = np.array(rgb) / 255, SHARES[matrix]
    y = share_r * r + (1 - share_r - share_b) * g + share_b * b
    cb, cr = (b - y) / 2 / (1 - share_b), (r - y) / 2 / (1 - share_r)
    scale, middle = 2 ** (bits - 8), 128 * 2 ** (bits - 8)
    if is_full:
        values = np.array([y, cb, cr]) * (256 * scale - 1) + [0, middle, middle]
    else:
        values = np.array([y * 219 + 16, cb * 224 + 128, cr * 224 + 128]) * scale
    return values.round().astype(np.uint16 if bits > 8 else np.uint8)


def write_colour(path, values, size, pixel_format="yuv444p", codec="ffv1", **tags):
    """Two frames of one colour, lossless, with tags of colour or without."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        frame = av.VideoFrame(*size, pixel_format)
        for plane, value in zip(frame.planes, values, strict=True):
            plane.update(np.full(plane.buffer_size // value.itemsize, value).tobytes())
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
            if name in ("colorspace", "color_range"):
                setattr(frame, name, value)
        for frame.pts in range(2):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def first(path):
    return read_video_frames(path, [0])[0]


def middle(image):
    return np.asarray(image)[image.height // 2, image.width // 2].astype(int)


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(decoding.logger, "warning_once", said.append)
    monkeypatch.setattr(pixels_module.logger, "warning_once", said.append)
    return said


# Colours


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("matrix", SHARES)
@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv420p", "yuv420p10le"])
def test_the_matrix_and_range_that_the_file_states(matrix, is_full, pixel_format, tmp_path):
    for size in ((64, 48), (1280, 720)) if pixel_format == "yuv420p" else ((64, 48),):
        values = planes(RED, matrix, is_full, 10 if pixel_format.endswith("10le") else 8)
        tags = {"colorspace": matrix, "color_range": 2 if is_full else 1}
        path = write_colour(tmp_path / "a.mkv", values, size, pixel_format, **tags)
        assert np.abs(middle(first(path).image) - RED).max() <= 3


@pytest.mark.parametrize(
    ("size", "matrix"),
    [((640, 480), 5), ((720, 576), 5), ((1278, 718), 5), ((1280, 720), 1), ((1280, 534), 1), ((720, 1280), 1)],
)
def test_a_file_that_states_no_matrix_is_read_by_its_size(size, matrix, tmp_path):
    path = write_colour(tmp_path / "a.mkv", planes(RED, matrix), size, "yuv420p")
    assert np.abs(middle(first(path).image) - RED).max() <= 3


def test_motion_jpeg_is_full_range_of_601_at_any_size(tmp_path):
    path = write_colour(tmp_path / "a.avi", planes(RED, 5, is_full=True), (1280, 720), "yuvj444p", "mjpeg")
    assert np.abs(middle(first(path).image) - RED).max() <= 3


def test_hdr_is_read_by_its_matrix_and_said(warnings, tmp_path):
    size, values = (64, 48), planes(RED, 9, bits=10)
    tags = {"color_range": 1, "color_primaries": 9, "color_trc": 16}
    for stated in ({"colorspace": 9}, {}):  # the matrix may be left out
        path = write_colour(tmp_path / "a.mkv", values, size, "yuv420p10le", **tags, **stated)
        assert np.abs(middle(first(path).image) - RED).max() <= 3
    assert warnings[0] == warnings[1] and f"{path} is HDR video (PQ)" in warnings[0]


def test_a_matrix_that_is_not_known_is_said(warnings, tmp_path):
    path = write_colour(tmp_path / "a.mkv", planes(RED, 1), (64, 48), colorspace=14)
    assert np.abs(middle(first(path).image) - RED).max() <= 3
    assert [f"{path} has colours of matrix 14" in text for text in warnings] == [True]


@pytest.mark.parametrize(
    ("pixel_format", "value", "color_range", "expected"),
    [("gray", 60, 2, 60), ("gray", 60, 0, 60), ("gray", 60, 1, 51), ("gray16le", 60 * 257, 2, 60)],
)
def test_grey(pixel_format, value, color_range, expected, tmp_path):
    values = [np.uint16(value) if "16" in pixel_format else np.uint8(value)]  # 51 = (60 - 16) * 255 / 219
    path = write_colour(tmp_path / "a.mkv", values, (64, 48), pixel_format, color_range=color_range)
    assert middle(first(path).image).tolist() == [expected] * 3


# Transparency, animated pictures


def half_seen(index):
    """Red in a strip that moves, half of it seen, over a transparent green."""
    array = np.full((48, 64, 4), (0, 128, 0, 0), np.uint8)
    array[10 * index : 10 * index + 10] = (200, 0, 0, 255)
    return Image.fromarray(array)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mkv", "ffv1", "yuva444p"),
        ("a.mov", "qtrle", "argb"),
        ("a.mov", "prores_ks", "yuva444p10le"),
        ("a.webm", "libvpx", "yuva420p"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
    ],
)
def test_what_is_transparent_is_white(name, codec, pixel_format, tmp_path):
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        stream.options = {"auto-alt-ref": "0", "b": "2000000"} if "vp" in codec else {}
        for index in range(4):
            frame = av.VideoFrame.from_ndarray(np.asarray(half_seen(index)), format="rgba")
            container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode())
    for frame in read_video_frames(tmp_path / name, range(4)):
        pixels = np.asarray(frame.image).astype(int)
        assert np.abs(pixels[10 * frame.index + 5, 32] - [200, 0, 0]).max() <= 6
        assert (pixels[45, 32] >= 250).all()


def test_transparency_is_said_where_ffmpeg_lacks_what_reads_it(warnings, tmp_path, monkeypatch):
    path = tmp_path / "a.webm"
    write_video(path, "libvpx")
    content = path.read_bytes()
    assert b"ENCODER" in content
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
    known = type("Stream", (), {"codec_context": stream.codec_context, "metadata": {"alpha_mode": "1"}})
    monkeypatch.setitem(decoding.ALPHA_DECODERS, "vp8", "no_such_decoder")
    assert VideoFile(path)._decoder(known) is not None
    assert [text for text in warnings if f"{path} is transparent" in text] == warnings != []


@pytest.mark.parametrize(("suffix", "options"), [("gif", {"disposal": 2}), ("png", {"disposal": 1}), ("webp", {})])
def test_animated_pictures(suffix, options, tmp_path):
    path = tmp_path / f"a.{suffix}"
    pictures = [half_seen(index) for index in range(4)]
    if suffix == "webp":
        options = {"lossless": True}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 200, 300, 400], **options)
    info = video_info(path)
    assert (info.num_frames, info.width, info.height, info.duration_s) == (4, 64, 48, pytest.approx(0.6))
    for frame in read_video_frames(path, range(4)):
        pixels = np.asarray(frame.image)
        assert frame.timestamp == pytest.approx([0, 0.1, 0.3, 0.6][frame.index])
        assert pixels[10 * frame.index + 5, 32].tolist() == [200, 0, 0] and pixels[45, 32].tolist() == [255] * 3
    assert [view["frame_id"] for view in read_video_views(path, 2)] == [0, 3]


def test_a_palette(tmp_path):
    frames = [Image.fromarray(picture(index)).quantize(8) for index in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=100)
    shown = first(tmp_path / "a.png").image
    assert np.array_equal(np.asarray(shown), np.asarray(frames[0].convert("RGB")))


def test_webp_that_is_cut_damaged_or_turned(tmp_path):
    path, pictures = tmp_path / "a.webp", [Image.fromarray(picture(index)) for index in range(3)]
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, lossless=True, exif=exif)
    assert np.array_equal(np.asarray(first(path).image), np.rot90(picture(0), -1))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(RecordError, match=f"the file has {len(whole) - 20} bytes of {len(whole)}"):
        video_info(path)
    path.write_bytes(whole[:40] + bytes(len(whole) - 40))
    with pytest.raises(RecordError, match="cannot be decoded") as caught:
        video_info(path)
    assert caught.value.file == str(path)


# Square pixels


@pytest.mark.parametrize(
    ("size", "aspect", "square"),
    [
        ((720, 576), Fraction(64, 45), (1024, 576)),  # PAL 16:9
        ((720, 480), Fraction(8, 9), (720, 540)),  # NTSC 4:3, of the analogue width
        ((1440, 1080), Fraction(4, 3), (1920, 1080)),  # HDV
        ((64, 48), Fraction(1), (64, 48)),
    ],
)
def test_no_resolution_is_lost(size, aspect, square):
    assert square_size(size, aspect) == square


def write_aspect(path, aspect, codec="libx264", size=(64, 48), frames=2):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        shown = Image.fromarray(picture(9)).resize(size, Image.Resampling.NEAREST)
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_image(shown)))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize(("aspect", "square"), [(Fraction(2), (128, 48)), (Fraction(1, 2), (64, 96))])
def test_pixels_become_square(name, aspect, square, warnings, tmp_path):
    path = write_aspect(tmp_path / name, aspect, frames=6)
    info, frame = video_info(path), first(path)
    assert (info.width, info.height) == frame.image.size == square
    assert (frame.stored_size, frame.square_size, frame.orientation) == ((64, 48), square, Orientation())
    pixels = np.asarray(frame.image).astype(int)
    assert np.abs(pixels[square[1] // 4, square[0] // 4] - [200, 0, 0]).max() < 12  # the quarter that is red
    assert np.abs(pixels[-8:, -8:] - 90).max() < 12
    said = f"{path} has pixels that are not square ({aspect.numerator}:{aspect.denominator}): its frames of 64x48 are "
    assert [text.startswith(f"{said}stretched to {square[0]}x{square[1]}") for text in warnings] == [True]


def test_intrinsics_of_stored_frames_become_those_of_the_picture(tmp_path):
    path = turned(write_aspect(tmp_path / "a.mp4", Fraction(2)), tmp_path / "b.mp4", (0, 1, -1, 0))
    frame, camera = first(path), np.array([[100.0, 0, 31.5], [0, 200.0, 23.5], [0, 0, 1]])
    assert frame.image.size == (48, 128) and frame.square_size == (128, 48) and frame.stored_size == (64, 48)
    # Stretched twice along x, then a quarter clockwise; a principal point in the middle stays there.
    assert frame.upright_intrinsics(camera).tolist() == [[200, 0, 23.5], [0, 200, 63.5], [0, 0, 1]]
    camera[:2, 2] = 0, 0  # the centre of the first pixel, 0.5 of it wide, is at 0.5 in pixels half as wide
    assert frame.upright_intrinsics(camera)[:2, 2].tolist() == [47, 0.5]
    info = video_info(path)
    assert (info.width, info.height) == (48, 128)
    plain = VideoFrame(0, None, Image.new("RGB", (48, 64)), Orientation.from_exif(6))
    assert plain.stored_size == plain.square_size == (64, 48)


@pytest.mark.parametrize("aspect", [Fraction(20), Fraction(9, 2), Fraction(1, 5)])
def test_absurd_pixels_are_refused(aspect, tmp_path):
    path = write_aspect(tmp_path / "a.mkv", aspect)
    for read in (video_info, first):
        with pytest.raises(RecordError, match="times as wide as high; expected 0.25 to 4") as caught:
            read(path)
        assert caught.value.file == str(path)


def test_frames_too_large_once_they_are_stretched_are_refused(tmp_path, monkeypatch):
    path = write_aspect(tmp_path / "a.mkv", Fraction(3))
    monkeypatch.setattr("gap_mllm.processing.data.file_guards.MAX_PICTURE_PIXELS", 64 * 48 * 2)
    assert MAX_PICTURE_PIXELS > 64 * 48 * 3
    with pytest.raises(RecordError, match="192 x 48") as caught:
        video_info(path)
    assert caught.value.file == str(path)


# Upright


def turned(path, target, matrix):
    """A copy of an MP4 with another display matrix (a, b, c, d)."""
    a, b, c, d = (value << 16 for value in matrix)
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(content)
    return target


# EXIF orientation -> the display matrix (a, b, c, d) that says the same
MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


def jpeg(orientation, index=9):
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(picture(index)).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def write_jpegs(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for place, data in enumerate(frames):
            packet = av.Packet(data)
            packet.pts = packet.dts = place
            packet.time_base, packet.stream = Fraction(1, 10), stream
            packet.is_keyframe = True
            container.mux(packet)
    return path


@pytest.mark.parametrize("orientation", MATRICES)
def test_display_matrix_and_exif_turn_alike(orientation, tmp_path):
    video = write_video(tmp_path / "a.mp4", frames=[9, 9])
    plain = first(video).image
    frame = first(turned(video, tmp_path / "b.mp4", MATRICES[orientation]))
    assert frame.orientation == Orientation.from_exif(orientation)
    assert np.array_equal(np.asarray(frame.image), frame.orientation.array(np.asarray(plain)))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg(orientation)))))
    assert np.abs(upright.astype(int) - np.asarray(frame.image)).mean() < 3  # JPEG and H.264 of one picture


@pytest.mark.parametrize("suffix", ["avi", "mov", "mkv", "mp4"])
def test_motion_jpeg_whose_frames_carry_exif(suffix, tmp_path):
    for orientation in MATRICES:
        path = write_jpegs(tmp_path / f"{orientation}.{suffix}", [jpeg(orientation)] * 3)
        upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg(orientation)))))
        frames, times = VideoFile(path).read(lambda seconds: [0, len(seconds) - 1])
        assert len(times) == 3 and (video_info(path).height, video_info(path).width) == upright.shape[:2]
        for frame in frames:
            assert frame.orientation == Orientation.from_exif(orientation)
            # Two decoders of JPEG differ in how they spread colour at edges.
            assert np.abs(np.asarray(frame.image).astype(int) - upright).mean() < 2


def test_every_frame_is_turned_by_its_own_orientation(tmp_path):
    path = write_jpegs(tmp_path / "a.avi", [jpeg(1), jpeg(6), jpeg(3), jpeg(7)])
    frames = read_video_frames(path, range(4))
    assert [frame.orientation for frame in frames] == [Orientation.from_exif(value) for value in (1, 6, 3, 7)]
    assert [frame.image.size for frame in frames] == [(64, 48), (48, 64), (64, 48), (48, 64)]


def test_the_matrix_of_the_container_goes_before_exif(tmp_path):
    for exif in (1, 6):  # newer FFmpeg lets the "upright" of EXIF undo a turn of the container
        path = turned(write_jpegs(tmp_path / "a.mp4", [jpeg(exif)] * 2), tmp_path / "b.mp4", MATRICES[3])
        assert first(path).orientation == Orientation.from_exif(3)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0no TIFF at all", b"Exif\0\0II*\0\xff\0\0\0"])
def test_broken_exif_says_nothing(exif, tmp_path):
    plain = jpeg(6)
    end = 4 + int.from_bytes(plain[plain.index(b"\xff\xe1") + 2 :][:2], "big") + plain.index(b"\xff\xe1") - 2
    part = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    broken = plain[: plain.index(b"\xff\xe1")] + part + plain[end:]
    assert first(write_jpegs(tmp_path / "a.avi", [broken] * 2)).orientation == Orientation()


def test_side_data_of_a_kind_that_pyav_does_not_know(tmp_path):
    """As it meets with the views of spatial video; here with EXIF, which FFmpeg puts beside a frame from 8 on."""
    path = write_jpegs(tmp_path / "a.avi", [jpeg(6)] * 2)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        stored = pixels_module.StoredFrame(0, 0.0, frame, Fraction(1), str(path), container.streams.video[0])
        assert stored.orientation == Orientation.from_exif(6)


def test_frames_of_a_folder_know_how_they_were_turned(tmp_path):
    (tmp_path / "0.jpg").write_bytes(jpeg(6))
    frame = first(tmp_path)
    assert (frame.orientation, frame.image.size, frame.stored_size) == (Orientation.from_exif(6), (48, 64), (64, 48))


# Errors


class Odd:
    """Side data as PyAV gives them."""

    def __init__(self, error):
        self.error = error

    def __iter__(self):
        raise self.error


@pytest.mark.parametrize("error", [ValueError("no number"), KeyError("EXIF"), av.error.FFmpegError(1, "odd")])
def test_whatever_pyav_raises_names_the_path(error, tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", frames=range(2))
    monkeypatch.setattr(pixels_module, "_known_side_data", lambda frame: list(Odd(error)))
    for read in (video_info, first):
        with pytest.raises(RecordError, match="cannot be decoded") as caught:
            read(path)
        assert caught.value.file == str(path)
    with pytest.raises(ValueError, match=f"^{path}: the video cannot be decoded"):
        VideoFile(path).read(lambda seconds: [0])


def test_kinds_of_side_data_that_stay_unknown(tmp_path):
    frame = type("Frame", (), {"side_data": Odd(ValueError("not a number"))})
    with pytest.raises(ValueError, match="not a number"):
        pixels_module._known_side_data(frame)


def test_errors_of_the_caller_stay_as_they_are(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=range(2))

    def choose(seconds):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        VideoFile(path).read(choose)
    with pytest.raises(LookupError, match="mine"):
        for _ in VideoFile(path).decode():
            raise LookupError("mine")


def test_memory_that_runs_out_is_no_damage(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", frames=range(2))

    def run_out(frame):
        raise MemoryError

    monkeypatch.setattr(pixels_module, "_known_side_data", run_out)
    with pytest.raises(MemoryError):
        first(path)


# Times


def test_times_start_at_the_first_frame_that_is_shown(tmp_path):
    path = write_video(tmp_path / "late.mkv", frames=range(6), seconds=[5.0, 5.1, 5.3, 5.4, 6.0, 8.0])
    frames = read_video_frames(path, range(6))
    assert [frame.timestamp for frame in frames] == pytest.approx([0, 0.1, 0.3, 0.4, 1.0, 3.0], abs=0.002)


def test_a_cover_is_no_video(tmp_path):
    def stream(disposition):
        return type("Stream", (), {"disposition": disposition})

    def streams(*dispositions):
        return type("C", (), {"streams": type("S", (), {"video": [stream(each) for each in dispositions]})})

    assert decoding._first_video(streams(0x400, 1)).disposition == 1
    assert decoding._first_video(streams(0x400)) is None


def test_animated_webp_needs_no_av(tmp_path, monkeypatch):
    frames = [Image.fromarray(picture(index)) for index in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=100, lossless=True)
    monkeypatch.setitem(sys.modules, "av", None)
    assert video_info(tmp_path / "a.webp").num_frames == 3
