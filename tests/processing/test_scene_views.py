"""Views of a scene from pictures, folders and videos, what is known of them, and what is refused."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from gap_mllm.processing.scene_views_gap_mllm import open_views
from gap_mllm.processing.view_files_gap_mllm import Orientation
from gap_mllm.processing.visual_prompt_gap_mllm import Mark
from tests.processing.small_videos import index_of, write_video


CAMERA = [[90.0, 0, 47.5], [0, 90, 31.5], [0, 0, 1]]


@pytest.fixture
def folder(tmp_path):
    for index in range(6):
        Image.new("RGB", (64, 48), (10 * index,) * 3).save(tmp_path / f"{index}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_text("neither")
    return tmp_path


def test_open_views_stay_as_they_are(folder):
    views = open_views(folder)
    assert open_views(views) is views
    with pytest.raises(ValueError, match="open already; give intrinsics and poses when they are opened"):
        open_views(views, CAMERA)


def test_a_folder_in_order_of_names_and_spread(folder):
    assert open_views(folder).names == tuple(f"{index}.png" for index in range(6))
    poses = np.stack([np.eye(4)] * 6)
    poses[:, 0, 3] = range(6)
    few = open_views(str(folder), intrinsics=CAMERA, poses=poses, max_views=3)
    assert few.names == ("0.png", "2.png", "5.png")
    assert [pose[0, 3] for pose in few.camera_to_world] == [0, 2, 5]  # of all pictures, those that are taken
    assert len(few) == 3 and np.allclose(few.intrinsics[2], CAMERA)
    own = open_views(folder, poses=poses[:3], max_views=3)
    assert [pose[0, 3] for pose in own.camera_to_world] == [0, 1, 2]


def test_a_video(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path)
    views = open_views(path, max_views=4)
    assert len(views) == 4 and [index_of(view) for view in views.pictures] == [0, 7, 15, 23]
    assert views.names[1] == "clip.mp4 0.70 s"


def test_one_picture_in_any_form(folder):
    picture = Image.new("RGB", (64, 48))
    for given in (picture, [picture], np.zeros((48, 64, 3), np.uint8), torch.zeros(3, 48, 64), folder / "0.png"):
        assert open_views(given).pictures[0].size == (64, 48)
    assert open_views([picture], intrinsics=[torch.tensor(CAMERA)]).intrinsics[0][0, 0] == 90
    assert open_views([picture] * 2, poses=[None, np.eye(4)]).camera_to_world[0] is None


def test_views_that_are_none(tmp_path, folder):
    with pytest.raises(ValueError, match="there are no views; give one picture of the scene or more"):
        open_views([])
    with pytest.raises(TypeError, match="views is a int; expected pictures, a folder of them, or a video file"):
        open_views(5)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "a.txt").write_text("")
    with pytest.raises(ValueError, match="holds no pictures .* but 1 other files"):
        open_views(empty)
    with pytest.raises(ValueError, match="max_views is 0; expected 1 or more"):
        open_views(folder, max_views=0)
    with pytest.raises(FileNotFoundError, match="missing.png"):
        open_views("missing.png")
    with pytest.raises(FileNotFoundError, match="missing.png"):
        open_views(["missing.png"])
    with pytest.raises(ValueError, match="notes.txt"):
        open_views(folder / "notes.txt")
    no_frames = tmp_path / "clip.mp4"
    with av.open(str(no_frames), "w") as container:
        container.add_stream("libx264", rate=10)
        container.start_encoding()
    with pytest.raises(ValueError, match=r"clip\.mp4.* it holds no video stream"):
        open_views(no_frames)


def test_cameras_that_are_none():
    pictures = [Image.new("RGB", (64, 48))] * 2
    with pytest.raises(ValueError, match="intrinsics has 3 entries, but there are 2 views. Give one for each view"):
        open_views(pictures, intrinsics=[None] * 3)
    with pytest.raises(ValueError, match="intrinsics of view 1 is .* expected finite numbers, focal lengths above 0"):
        open_views(pictures, intrinsics=[CAMERA, np.zeros((3, 3))])
    with pytest.raises(ValueError, match=r"intrinsics of view 0 is \[\[90.0, 0\], .*; expected \(3, 3\) numbers"):
        open_views(pictures[:1], intrinsics=[[[90.0, 0], [0, 90, 31.5], [0, 0, 1]]])
    with pytest.raises(ValueError, match=r"poses of view 0 has shape \(3, 4\); expected \(4, 4\)"):
        open_views(pictures, poses=np.zeros((2, 3, 4)))
    mirrored = np.diag([1.0, 1, -1, 1])
    with pytest.raises(ValueError, match="poses of view 1: .* mirrored pose"):
        open_views(pictures, poses=[np.eye(4), mirrored])


# Order, names and kinds


def numbered(folder, numbers=range(12), suffix=".jpg", size=(64, 48), **options):
    for number in numbers:
        Image.new("RGB", size, (20 * number, 0, 0)).save(folder / f"frame_{number}{suffix}", **options)
    return folder


def poses_along_x(count):
    poses = np.stack([np.eye(4)] * count)
    poses[:, 0, 3] = range(count)
    return poses


def test_poses_given_for_all_go_to_the_pictures_of_their_number(tmp_path):
    views = open_views(numbered(tmp_path), poses=poses_along_x(12))
    assert views.names == tuple(f"frame_{number}.jpg" for number in range(12))
    for view in range(12):
        assert views.camera_to_world[view][0, 3] == view
        assert abs(views.pictures[view].getpixel((30, 20))[0] - 20 * view) <= 3
    with pytest.raises(ValueError, match="poses has 11 entries, but there are 12 views. Give one for each view"):
        open_views(tmp_path, poses=poses_along_x(11))


def test_depth_beside_pictures_is_no_view_and_is_named(tmp_path):
    numbered(tmp_path, range(3))
    for number in range(3):
        Image.new("I;16", (64, 48), 1500).save(tmp_path / f"frame_{number}.png")
    views = open_views(tmp_path, poses=poses_along_x(3))
    assert views.names == ("frame_0.jpg", "frame_1.jpg", "frame_2.jpg")
    assert views.notes == ("left out 3 depth maps: frame_0.png, frame_1.png, frame_2.png",)
    with pytest.raises(ValueError, match="poses has 6 entries, but there are 3 views"):
        open_views(tmp_path, poses=poses_along_x(6))
    listed = open_views([tmp_path / "frame_1.png", tmp_path / "frame_0.jpg"])
    assert listed.names == ("frame_1.png", "frame_0.jpg") and listed.notes == ()  # what is listed is shown


def test_poses_and_intrinsics_by_file_name(tmp_path):
    numbered(tmp_path, range(4))
    poses = {f"images/frame_{number}.jpg": pose for number, pose in enumerate(poses_along_x(4))}
    poses = {Path(name).name: poses[name] for name in sorted(poses, reverse=True)}
    views = open_views(tmp_path, {"frame_2": CAMERA}, poses)
    assert [pose[0, 3] for pose in views.camera_to_world] == [0, 1, 2, 3]
    assert [camera is None for camera in views.intrinsics] == [True, True, False, True]
    assert views.notes == ("without intrinsics, which names other files: frame_0.jpg, frame_1.jpg, frame_3.jpg",)
    few = open_views(tmp_path, poses=poses, max_views=2)
    assert [pose[0, 3] for pose in few.camera_to_world] == [0, 3]
    with pytest.raises(ValueError, match="poses names a.jpg, none of which is a view here: frame_0.jpg, frame_1.jpg"):
        open_views(tmp_path, poses={"a.jpg": np.eye(4)})
    with pytest.raises(ValueError, match="poses names frame_0.jpg twice, the second time as 'frame_0'"):
        open_views(tmp_path, poses={"frame_0.jpg": np.eye(4), "frame_0": np.eye(4)})
    other = tmp_path / "other"
    other.mkdir()
    numbered(other, [0])
    both = [tmp_path / "frame_0.jpg", other / "frame_0.jpg"]
    with pytest.raises(ValueError, match="poses of 'frame_0.jpg' could be of 2 views; give more of the path"):
        open_views(both, poses={"frame_0.jpg": np.eye(4)})
    assert open_views(both, poses={"other/frame_0.jpg": np.eye(4)}).camera_to_world[0] is None


def test_files_in_the_order_of_a_shell_are_pointed_out(tmp_path):
    files = sorted(numbered(tmp_path, (1, 2, 10)).iterdir())
    assert "where 10 comes before 2" in open_views(files, poses=poses_along_x(3)).notes[0]
    assert open_views(files).notes == ()


@pytest.mark.parametrize("name", ["a.gif", "a.tiff", "a.webp"])
def test_each_picture_of_an_animation_is_a_view(tmp_path, name):
    pictures = [Image.new("RGB", (64, 48), (0, 60 * index, 0)) for index in range(5)]
    options = {"lossless": True} if name == "a.webp" else {}
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], **options)
    for given in (tmp_path / name, str(tmp_path / name), [tmp_path / name]):
        views = open_views(given, poses=poses_along_x(5))
        assert [picture.getpixel((9, 9))[1] for picture in views.pictures] == [0, 60, 120, 180, 240]
    few = open_views(tmp_path / name, poses=poses_along_x(5), max_views=3)
    assert [picture.getpixel((9, 9))[1] for picture in few.pictures] == [0, 120, 240]
    assert [pose[0, 3] for pose in few.camera_to_world] == [0, 2, 4]
    assert len(open_views([pictures[0], tmp_path / name])) == 6


def test_videos_among_pictures_are_refused(tmp_path):
    write_video(tmp_path / "clip.mp4")
    assert len(open_views([tmp_path / "clip.mp4"], max_views=3)) == 3
    with pytest.raises(ValueError, match="view 1 is the video .*clip.mp4 among 2 views; give it alone"):
        open_views([Image.new("RGB", (64, 48)), tmp_path / "clip.mp4"])


# Upright pictures

STORED = np.array([[60.0, 0, 33], [0, 64, 22], [0, 0, 1]])


def stored_as(path, orientation, size=(64, 48)):
    exif, picture = Image.Exif(), Image.new("RGB", size, "navy")
    exif[0x0112] = orientation
    if path.suffix == ".heic":
        pytest.importorskip("pillow_heif").from_pillow(picture).save(path, exif=exif.tobytes())
    else:
        picture.save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "tiff", "png", "webp", "heic"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_intrinsics_and_poses_turn_with_their_picture(tmp_path, orientation, suffix):
    path, turn = stored_as(tmp_path / f"a.{suffix}", orientation), Orientation.from_exif(orientation)
    pose = np.eye(4)
    pose[:3, 3] = 1, 2, 3
    if turn.is_mirrored:
        with pytest.raises(ValueError, match="poses of view 0: the picture is stored mirrored"):
            open_views(path, STORED, [pose])
    views = open_views(path, STORED, None if turn.is_mirrored else [pose])
    assert views.pictures[0].size == views.sizes[0] == turn.size((64, 48))
    assert np.allclose(views.intrinsics[0], turn.intrinsics(STORED, (64, 48)))
    if not turn.is_mirrored:
        seen = views.intrinsics[0] @ np.linalg.inv(views.camera_to_world[0])[:3] @ [1.2, 1.9, 5, 1]
        as_stored = STORED @ [0.2, -0.1, 2]
        assert np.allclose(seen[:2] / seen[2], turn.pixels(as_stored[:2] / as_stored[2], (64, 48)))
    said = f"turned upright by EXIF or display matrix, and their intrinsics and poses with them: a.{suffix}"
    assert views.notes == (() if orientation == 1 else (said,))
    assert open_views(Image.open(path), STORED).intrinsics[0].tolist() == views.intrinsics[0].tolist()


def test_intrinsics_of_the_upright_picture_are_refused(tmp_path):
    path = stored_as(tmp_path / "a.jpg", 6)
    with pytest.raises(ValueError, match=r"intrinsics of view 0 are of a picture of 48 x 64, .* stored as 64 x 48"):
        open_views(path, Orientation.from_exif(6).intrinsics(STORED, (64, 48)))


# Sizes


def test_intrinsics_of_larger_pictures_are_scaled_and_said():
    picture, camera = Image.new("RGB", (640, 480)), np.array([[1440.0, 0, 959.5], [0, 1440, 719.5], [0, 0, 1]])
    views = open_views(picture, camera)
    assert np.allclose(views.intrinsics[0], [[480, 0, 319.5], [0, 480, 239.5], [0, 0, 1]])
    assert "intrinsics of view 0" in views.notes[0] and "1920" in views.notes[0]
    off = camera + [[0, 0, 31.0], [0, 0, -18], [0, 0, 0]]
    views = open_views(picture, off, intrinsics_size=(1920, 1440))
    assert np.allclose(views.intrinsics[0][:2, 2], [(990.5 + 0.5) / 3 - 0.5, (701.5 + 0.5) / 3 - 0.5])
    with pytest.raises(ValueError, match="intrinsics of view 0"):
        open_views(picture, camera, intrinsics_size=(1920, 1080))


def test_lost_poses_are_named():
    lost = np.full((4, 4), -np.inf)
    with pytest.raises(ValueError, match="poses of view 1 .*lost"):
        open_views([Image.new("RGB", (64, 48))] * 2, poses=[np.eye(4), lost])


def test_large_pictures_are_kept_small_and_keep_their_pixels(tmp_path):
    size = (4000, 3000)
    picture = Image.new("RGB", size, "white")
    picture.paste("black", (3000, 1500, 3100, 1600))
    picture.save(tmp_path / "a.jpg")
    camera = [[3000.0, 0, 1999.5], [0, 3000, 1499.5], [0, 0, 1]]
    for given in (tmp_path / "a.jpg", picture):
        views = open_views(given, camera)
        assert views.pictures[0].size == (2048, 1536) and views.sizes == (size,)
        assert np.allclose(views.intrinsics[0], camera)
        assert np.allclose(views.picture_intrinsics(0, camera)[:2, 2], [1023.5, 767.5])
        (mark,) = views.picture_marks([Mark(0, (3050, 1550))])
        assert mark.pixel == (1561, 793) and max(views.pictures[0].getpixel(mark.pixel)) < 60
        assert views.picture_marks([Mark(0, (3999, 2999))])[0].pixel == (2047, 1535)
    with pytest.raises(ValueError, match=r"view 0: pixel \(x=4000, y=5\) lies outside the picture of 4000 x 3000"):
        views.picture_marks([Mark(0, (4000, 5))])


# Videos


def write_stretched(path, aspect, matrix=(1, 0, 0, 1)):
    """Two frames of 64 x 48 pixels of this aspect, turned by a display matrix (a, b, c, d)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 48), "navy"))))
        container.mux(stream.encode())
    a, b, c, d = (value << 16 for value in matrix)
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def test_intrinsics_of_a_video_are_stretched_and_turned_with_its_frames(tmp_path):
    wide = open_views(write_stretched(tmp_path / "a.mp4", Fraction(3, 2)), STORED)
    assert wide.pictures[0].size == (96, 48)
    assert np.allclose(wide.intrinsics[0], [[90, 0, (33 + 0.5) * 1.5 - 0.5], [0, 64, 22], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, 3] = 1, 2, 3
    turned = open_views(write_stretched(tmp_path / "b.mp4", Fraction(3, 2), (0, 1, -1, 0)), STORED, [pose] * 2)
    turn = Orientation.from_exif(6)
    assert turned.pictures[0].size == turned.sizes[0] == (48, 96)
    assert np.allclose(turned.intrinsics[1], turn.intrinsics(wide.intrinsics[0], (96, 48)))
    assert np.allclose(turned.camera_to_world[1], turn.pose(pose))
    assert "turned upright by EXIF or display matrix" in turned.notes[0]


def test_names_that_are_none_and_numbers_in_their_place(tmp_path):
    numbered(tmp_path, range(2))
    with pytest.raises(
        ValueError, match="poses has the key 0; expected file names, or a list in the order of the views"
    ):
        open_views(tmp_path, poses={0: np.eye(4), 1: np.eye(4)})
    views = open_views(tmp_path, poses={"frame_0": np.eye(4), "frame_1": np.eye(4), "frame_7.jpg": np.eye(4)})
    assert views.notes == ("poses names 1 that are no views here: frame_7.jpg",)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_a_cut_picture_names_itself(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    Image.effect_noise((64, 48), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match=f"cut.{suffix}"):
        open_views(path)


@pytest.mark.parametrize(("angle", "size"), [(0, (64, 48)), (1, (48, 64)), (2, (64, 48)), (3, (48, 64))])
def test_heic_is_turned_by_its_own_boxes_and_not_by_exif(tmp_path, angle, size):
    path = stored_as(tmp_path / "a.heic", 6)
    content = bytearray(path.read_bytes())
    content[content.index(b"irot") + 4] = angle
    path.write_bytes(content)
    views = open_views(path, STORED)
    turn = Orientation.from_exif((1, 8, 3, 6)[angle])
    assert views.pictures[0].size == views.sizes[0] == size
    assert np.allclose(views.intrinsics[0], turn.intrinsics(STORED, (64, 48)))
