"""Which files of a folder are views, in which order, what is left out, and how odd files are opened."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing import to_rgb_image
from gap_mllm.processing.video_decoding_gap_mllm import VideoFile
from gap_mllm.processing.view_files_gap_mllm import file_content, folder_views, natural_key
from tests.processing.small_videos import write_video


COLOURS = ("red", "green", "blue", "white", "black")
HEIC_HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def save(path, mode="RGB", value=100, size=(32, 24), **options):
    Path(path).parent.mkdir(exist_ok=True)
    Image.new(mode, size, value if mode != "RGB" else (value, 50, 50)).save(path, **options)


def save_pages(path, **options):
    first, *rest = (Image.new("RGB", (32, 24), colour) for colour in COLOURS)
    first.save(path, save_all=True, append_images=rest, **options)


def names(folder):
    return [path.name for path in folder_views(folder).pictures]


def test_names_are_sorted_as_people_count(tmp_path):
    for number in (10, 2, 1, 0, 11):
        save(tmp_path / f"frame_{number}.jpg")
    assert names(tmp_path) == [f"frame_{number}.jpg" for number in (0, 1, 2, 10, 11)]
    mixed = ["b2.png", "b10.png", "10.jpg", "9.png", "9.jpg", "a.jpg"]
    assert sorted(mixed, key=natural_key) == ["9.jpg", "9.png", "10.jpg", "a.jpg", "b2.png", "b10.png"]


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_maps_of_more_than_8_bits_beside_colour_are_depth(tmp_path, mode):
    for number in range(3):
        save(tmp_path / f"{number}.jpg")
        save(tmp_path / f"{number}.{'png' if mode == 'I;16' else 'tiff'}", mode, 1000)
    found = folder_views(tmp_path)
    assert names(tmp_path) == ["0.jpg", "1.jpg", "2.jpg"]
    assert len(found.others["depth"]) == 3 and found.notes[0].startswith("left out 3 depth maps: 0.")


def test_grey_maps_are_known_by_their_name_and_pictures_otherwise(tmp_path):
    save(tmp_path / "a.png")
    for name in ("a_depth.png", "a_mask.png", "a.seg.png", "b.png"):
        save(tmp_path / name, "L")
    save(tmp_path / "colour_depth.png")
    found = folder_views(tmp_path)
    assert names(tmp_path) == ["a.png", "b.png", "colour_depth.png"]
    assert {kind: [path.name for path in files] for kind, files in found.others.items()} == {
        "depth": ["a_depth.png"],
        "mask": ["a.seg.png", "a_mask.png"],
    }
    assert "of one grey channel beside colour: b.png" in found.notes[2]
    assert "in colour, though called depth or mask: colour_depth.png" in found.notes[3]


def test_a_folder_of_maps_alone(tmp_path):
    thermal, depth, masks = tmp_path / "thermal", tmp_path / "lowres_depth", tmp_path / "masks"
    for number in range(2):
        save(thermal / f"{number}.png", "I;16", 30000)
        save(depth / f"{number}.png", "I;16", 900)
        save(masks / f"{number}.png", "L", 1)
    assert (
        names(thermal) == ["0.png", "1.png"] and "since no other pictures lie beside" in folder_views(thermal).notes[0]
    )
    with pytest.raises(ValueError, match=r"holds no pictures .* but 2 other files \(2 depth maps: 0.png, 1.png\)"):
        folder_views(depth)
    with pytest.raises(ValueError, match="2 masks: 0.png, 1.png"):
        folder_views(masks)
    with pytest.raises(ValueError, match="but 0 other files .folders: lowres_depth, masks, thermal.. Give the folder"):
        folder_views(tmp_path)


def test_what_is_no_picture_is_counted_and_named(tmp_path):
    save(tmp_path / "0.jpg")
    for name in ("depth.h5", "scan.hdf", "plan.eps", "notes.txt", "raw.dng", "points.npy", "frame_depth.exr"):
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" if name.endswith("h5") else b"%!PS-Adobe")
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / ".DS_Store").write_text("")
    write_video(tmp_path / "clip.mp4")
    (tmp_path / "old.mpg").write_bytes(b"\0\0\1\xba" + b"\0" * 60)
    save_pages(tmp_path / "turning.gif", duration=100)
    found = folder_views(tmp_path)
    assert names(tmp_path) == ["0.jpg"]
    assert found.notes == (
        "left out 1 animation: turning.gif",
        "left out 2 videos: clip.mp4, old.mpg",
        "left out 2 depth maps: depth.h5, frame_depth.exr",
        "left out 6 other files: lost.jpg, notes.txt, plan.eps, points.npy, raw.dng, ...",
    )


def test_kinds_are_found_by_content(tmp_path):
    save(tmp_path / "picture.txt", format="JPEG")
    save(tmp_path / "jpeg.png", format="JPEG")
    write_video(tmp_path / "clip.mp4")
    (tmp_path / "clip.mp4").rename(tmp_path / "clip.jpg")
    (tmp_path / "empty.jpg").write_bytes(b"")
    kinds = {path.name: file_content(path).kind for path in tmp_path.iterdir()}
    assert kinds == {"picture.txt": "picture", "jpeg.png": "picture", "clip.jpg": "video", "empty.jpg": "picture"}
    (tmp_path / "page.heic").write_bytes(HEIC_HEAD)
    assert file_content(tmp_path / "page.heic").kind == "picture"
    assert file_content(tmp_path / "nothing.jpg").kind == "other"


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tiff"])
def test_animations_have_all_their_pictures(tmp_path, name):
    options = {} if name == "a.tiff" else {"duration": 200}
    if name == "a.webp":
        options["lossless"] = True
    save_pages(tmp_path / name, **options)
    assert file_content(tmp_path / name).kind == "animation"
    frames, seconds = VideoFile(tmp_path / name).read(lambda times: list(range(len(times))))
    expected = [Image.new("RGB", (1, 1), colour).getpixel((0, 0)) for colour in COLOURS]
    assert [frame.image.getpixel((5, 5)) for frame in frames] == expected
    assert seconds == [None] * 5 if name == "a.tiff" else np.allclose(seconds, [0, 0.2, 0.4, 0.6, 0.8])


def test_a_pyramid_is_one_picture(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("RGB", (32, 24))])
    assert file_content(tmp_path / "a.tif").kind == "picture"


def test_a_cut_animation_names_itself(tmp_path):
    save_pages(tmp_path / "a.webp", duration=100)
    (tmp_path / "a.webp").write_bytes((tmp_path / "a.webp").read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"a\.webp: the video cannot be decoded"):
        VideoFile(tmp_path / "a.webp").read(lambda times: [0])


def test_heic_needs_its_extra_and_says_so(tmp_path, monkeypatch):
    (tmp_path / "a.HEIC").write_bytes(HEIC_HEAD + b"\0" * 100)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert names(tmp_path) == ["a.HEIC"]
    with pytest.raises(ImportError, match=r"a\.HEIC.*is HEIC.*pip install gap-mllm\[heic\]"):
        to_rgb_image(tmp_path / "a.HEIC")
    with pytest.raises(ValueError, match=r"a\.HEIC: this is a picture, HEIC, and no video"):
        VideoFile(tmp_path / "a.HEIC").read(lambda times: [0])


def test_heic_is_read_whole(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    pixels = np.zeros((600, 800, 3), np.uint8)
    pixels[:, 400:] = 255
    heif.from_pillow(Image.fromarray(pixels)).save(tmp_path / "a.heic", quality=90)
    picture = to_rgb_image(tmp_path / "a.heic")
    assert picture.size == (800, 600)
    assert picture.getpixel((100, 300))[0] < 20 and picture.getpixel((700, 300))[0] > 235


def test_raw_files_of_cameras_are_refused(tmp_path):
    save(tmp_path / "a.dng", format="TIFF")  # their first picture is a preview
    with pytest.raises(ValueError, match="a.dng.* is a raw file of a camera; develop it"):
        to_rgb_image(tmp_path / "a.dng")


@pytest.mark.parametrize(("white", "value", "expected"), [(4095, 2048, 128), (1023, 1023, 255), (65535, 32768, 128)])
def test_grey_of_cameras_with_other_bits_is_not_black(tmp_path, white, value, expected):
    values = np.full((4, 4), value, np.uint16)
    values[0, 0] = white
    Image.fromarray(values).save(tmp_path / "a.png")
    assert to_rgb_image(tmp_path / "a.png").getpixel((2, 2)) == (expected,) * 3


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.tiff"])
def test_pictures_of_animations_are_upright(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    first, second = (Image.new("RGB", (64, 48), colour) for colour in ("black", "blue"))
    for picture in (first, second):
        picture.paste("lime", (0, 0, 32, 24))
    options = {"lossless": True} if name == "a.webp" else {}
    first.save(tmp_path / name, save_all=True, append_images=[second], exif=exif, **options)
    frames, _ = VideoFile(tmp_path / name).read(lambda times: list(range(len(times))))
    for frame, other in zip(frames, [(0, 0, 0), (0, 0, 255)], strict=True):
        assert frame.image.size == (48, 64)
        assert frame.image.getpixel((40, 5)) == (0, 255, 0) and frame.image.getpixel((5, 40)) == other


def test_pages_of_16_bits_keep_their_values(tmp_path):
    pages = [Image.fromarray(np.full((24, 32), value, np.uint16)) for value in (20000, 40000, 65535)]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    frames, _ = VideoFile(tmp_path / "a.tiff").read(lambda times: list(range(len(times))))
    assert [frame.image.getpixel((5, 5))[0] for frame in frames] == [78, 156, 255]


def test_what_lies_in_the_place_of_a_picture_is_named(tmp_path):
    (tmp_path / "0.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="0.jpg.* is empty; copy or download it again"):
        to_rgb_image(tmp_path / "0.jpg")
    (tmp_path / "0.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(ValueError, match="0.jpg.* is a git-lfs pointer, .* `git lfs pull`"):
        to_rgb_image(tmp_path / "0.jpg")
