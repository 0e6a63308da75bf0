"""Views of a scene from pictures, folders and videos, what is known of them, and what is refused."""

import av
import numpy as np
import pytest
import torch
from PIL import Image

from gap_mllm.processing.scene_views_gap_mllm import open_views
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
