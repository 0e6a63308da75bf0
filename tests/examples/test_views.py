"""Views and video of one room, which README and docs/ ask about: they are what .ci/render_views.py makes."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.data import render_room, room_seed
from gap_mllm.processing.scene_views_gap_mllm import open_views


ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "examples" / "assets"
SIZE = (160, 120)  # compared at: seconds less, and JPEG's errors fall away


@pytest.fixture(scope="module")
def script():
    """The module .ci/render_views.py."""
    spec = spec_from_file_location("render_views", ROOT / ".ci" / "render_views.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def smaller(picture):
    return np.asarray(picture.resize(SIZE, Image.Resampling.BOX), dtype=float)


def test_the_shipped_views_are_four_of_one_room(script):
    files = sorted((ASSETS / "views").iterdir())
    assert [file.name for file in files] == [f"view_{number}.jpg" for number in range(4)]
    assert sum(file.stat().st_size for file in files) < 300_000
    room = render_room(room_seed("test", script.ROOM), height=SIZE[1], width=SIZE[0])
    differences = np.zeros((4, 4))
    for shown, file in enumerate(files):
        with Image.open(file) as picture:
            assert picture.size == (640, 480) and picture.format == "JPEG"
            for rendered, image in enumerate(room.images):
                differences[shown, rendered] = np.abs(smaller(picture) - image).mean()
    assert np.diag(differences).max() < 8  # of 255: noise and edges; other views of the room differ by 25 or more
    assert differences[~np.eye(4, dtype=bool)].min() > 16


def test_what_the_documents_ask_about_is_there(script):
    room = render_room(room_seed("test", script.ROOM), height=480, width=640, use_colors=False)
    assert room.label_of(room.instance_ids[0, 240, 320]) == "shelf"
    assert room.label_of(room.instance_ids[1, 250, 540]) == "cabinet"
    seen = {label: int((room.instance_ids == number).any((1, 2)).sum()) for number, label in enumerate(room.labels, 1)}
    assert {label for label, count in seen.items() if count >= 2} == {"shelf", "chair", "cabinet", "lamp", "bed"}
    colors = dict(zip(room.labels, room.colors, strict=True))
    assert (colors["shelf"], colors["chair"], colors["cabinet"], colors["bed"]) == ("white", "red", "red", "blue")


def test_the_video_is_a_walk_through_the_same_room(script):
    video = open_views(ASSETS / "room.mp4")
    assert [picture.size for picture in video.pictures] == [script.FRAME_SIZE] * script.NUM_FRAMES
    assert (ASSETS / "room.mp4").stat().st_size < 200_000
    walk = render_room(room_seed("test", script.ROOM), script.NUM_FRAMES, SIZE[1], SIZE[0])
    for picture, image in zip(video.pictures, walk.images, strict=True):
        assert np.abs(smaller(picture) - image).mean() < 10  # of 255
