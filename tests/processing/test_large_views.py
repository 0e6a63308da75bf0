"""Scenes of photographs that are kept smaller: pixels in and out stay those of the photographs."""

import numpy as np
import pytest
from PIL import Image

from gap_mllm import SceneSession
from gap_mllm.processing.asking_gap_mllm import GeneratedAnswer
from gap_mllm.processing.scene_3d import place_results, scene_from_session
from gap_mllm.processing.scene_views_gap_mllm import MAX_PICTURE_SIDE


SIZE, SCALE = (4000, 3000), MAX_PICTURE_SIDE / 4000
CAMERA = [[3000.0, 0, 1999.5], [0, 3000, 1499.5], [0, 0, 1]]
POINT = '```json\n{"label": "chair", "pointmap": [0.5, 0.1, 2.0]}\n```'
BOX = '```json\n[{"label": "bed", "bbox_3d": [0, 0, 2, 0.5, 0.5, 0.5, 0, 0, 0]}]\n```'


@pytest.fixture
def scene(tiny_model, tiny_processor):
    return SceneSession(tiny_model(), tiny_processor, [Image.new("RGB", SIZE, "white")] * 2, CAMERA)


@pytest.fixture
def say(scene, monkeypatch):
    """A function that makes a text the answer, and keeps the pictures that were shown."""
    shown = []

    def answer(text):
        def generate(chats, *args, **options):
            shown.extend(part["image"] for part in chats[0][-1]["content"] if part["type"] == "image")
            return [GeneratedAnswer(text, False) for _ in chats]

        monkeypatch.setattr(scene._asker, "generate_answers", generate)
        return shown

    return answer


def test_marks_are_drawn_where_they_are_and_come_back_as_given(scene, say):
    shown = say(POINT)
    found = scene.locate(1, 3050, 1550)
    assert found.first.mark == (1, 3050, 1550)
    red = np.argwhere((np.asarray(shown[1]) == (255, 0, 0)).all(-1))
    assert shown[1].size == (2048, 1536)
    assert np.allclose(red.mean(0)[::-1], (np.array([3050, 1550]) + 0.5) * SCALE - 0.5, atol=1)
    with pytest.raises(ValueError, match="lies outside the picture of 4000 x 3000"):
        scene.locate(1, 4000, 10)
    assert found.to_qwen3vl()[0]["point_2d"] == [pytest.approx(3050 / 4, abs=1), pytest.approx(1550 / 3, abs=1)]


def test_boxes_and_cameras_are_in_pixels_of_the_photographs(scene, say):
    say(BOX)
    found = scene.detect()
    image = found.to_coco()["images"][0]
    assert (image["width"], image["height"]) == SIZE
    left, top, width, height = found.to_coco()["annotations"][0]["bbox"]
    assert left == pytest.approx(1999.5 - 3000 * 0.25 / 1.75, abs=2) and width == pytest.approx(1500 / 1.75, abs=3)
    pytest.importorskip("matplotlib")
    axes = found.plot().axes[0]
    assert axes.get_xlim() == (-0.5, 3999.5) and list(axes.images[0].get_extent()) == [-0.5, 3999.5, 2999.5, -0.5]


def test_the_3d_view_has_cameras_of_the_pictures_that_it_shows(scene, say):
    say(POINT)
    found = scene.locate(0, 2000, 1500)
    placed, _ = place_results(scene_from_session(scene), [found])
    view = placed.views[0]
    assert view.picture.size == (2048, 1536)
    assert np.allclose(view.intrinsics[:2, 2], [1023.5, 767.5]) and np.isclose(view.intrinsics[0, 0], 3000 * SCALE)
    assert placed.marks[0].pixel == pytest.approx((2000.5 * SCALE - 0.5, 1500.5 * SCALE - 0.5))
