"""Forms of a session's results: COCO's layout with what a box spans in each picture, and pictures of them."""

import sys

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.boxes import convert
from gap_mllm.processing.camera_geometry_gap_mllm import transform_box
from gap_mllm.processing.scene_results_gap_mllm import (
    GroundedObject,
    SceneAnswer,
    SceneBox,
    SceneBoxes,
    ScenePoint,
    ScenePoints,
)
from gap_mllm.processing.scene_views_gap_mllm import open_views


CAMERA = np.array([[100.0, 0, 49.5], [0, 100, 49.5], [0, 0, 1]])
BOX = (0.0, 0.0, 3.0, 1.0, 0.5, 2.0, 0.0, 0.0, 0.0)


def views(poses=None, intrinsics=CAMERA):
    return open_views([Image.new("RGB", (100, 100), "gray") for _ in range(2)], intrinsics, poses)


def moved(x):
    pose = np.eye(4)
    pose[0, 3] = x
    return pose


def boxes(seen, *found):
    return SceneBoxes("detection3d", "raw", views=seen, boxes=found)


def test_coco_has_a_box_in_each_picture_that_it_reaches_into():
    told = boxes(views([moved(0), moved(0.5)]), SceneBox("bed", BOX), SceneBox("lamp", (9, 0, 3, 1, 1, 1, 0, 0, 0)))
    told = told.to_coco()
    assert [(each["image_id"], each["category_id"]) for each in told["annotations"]] == [(0, 0), (1, 0), (0, 1)]
    first, second, outside = told["annotations"]
    # The near face is at z = 2: 50 pixels to each metre, the middle of the picture at 50 from its left edge.
    assert np.allclose(first["bbox"], [25, 37.5, 50, 25]) and first["area"] == pytest.approx(1250)
    assert np.allclose(second["bbox"], [0, 37.5, 50, 25])
    assert np.allclose(second["bbox_3d"], transform_box(np.array(BOX), moved(-0.5), "zxy"))
    assert outside["bbox"] is None
    assert told["images"][1] == {"id": 1, "file_name": "view 1", "width": 100, "height": 100}
    assert told["categories"] == [{"id": 0, "name": "bed"}, {"id": 1, "name": "lamp"}]


def test_coco_without_cameras_has_the_frame_alone():
    told = boxes(views(intrinsics=None), SceneBox(None, BOX, view=1)).to_coco()["annotations"]
    assert [(each["image_id"], each["bbox"], each["bbox_3d"]) for each in told] == [(1, None, list(BOX))]
    behind = SceneBox("bed", (0, 0, 0.5, 1, 1, 2, 0, 0, 0))
    assert boxes(views(), behind).to_coco()["annotations"][0]["bbox"] is None


def test_forms_of_qwen():
    turned = SceneBox("bed", (*BOX[:6], 0.1, 0.2, 0.3))
    (told,) = boxes(views(), turned).to_qwen3vl()
    assert told["label"] == "bed" and np.allclose(convert(told["bbox_3d"], "qwen3-vl-text", "ours"), turned.box)
    (code,) = boxes(views(), turned).to_qwen3vl("qwen3-vl-code")
    assert np.allclose(convert(code["bbox_3d"], "qwen3-vl-code", "ours"), turned.box)
    found = ScenePoints("what?", "raw", views=views(), points=(None, ScenePoint("bed", (0, 0, 2), (1, 25, 50))))
    assert found.to_qwen3vl() == [{"point_2d": [250, 500], "label": "bed", "view": 1}]


def test_pictures_show_boxes_where_cameras_are_known(tmp_path):
    pytest.importorskip("matplotlib")
    seen = views([moved(0), moved(0.5)])
    found = boxes(seen, SceneBox("$bed", BOX))
    figure = found.plot(str(tmp_path / "boxes.png"))
    assert (tmp_path / "boxes.png").stat().st_size > 1000
    first, second, plan = figure.axes
    assert len(first.lines) == len(second.lines) == 12 and len(plan.lines) == 13
    # The left edge of the near face, at 25 - 0.5 in pixels with integer centres.
    assert min(line.get_xdata().min() for line in first.lines) == pytest.approx(24.5)
    assert "from above" in plan.get_title()
    bare = boxes(views(intrinsics=None), SceneBox("bed", BOX)).plot()
    assert not bare.axes[0].lines and len(bare.axes[2].lines) == 13
    point = ScenePoint("bed", (0.0, 0.0, 2.0), mark=(1, 30.0, 40.0))
    figure = ScenePoints("what?", "raw", views=seen, points=(None, point)).plot()
    assert [len(axes.lines) for axes in figure.axes] == [1, 2, 2]
    assert np.allclose(figure.axes[1].lines[1].get_xydata(), [[24.5, 49.5]])
    grounded = GroundedObject("the bed", "raw", views=seen, boxes=(SceneBox("bed", BOX, view=1),), view=1)
    assert len(grounded.plot().axes[1].lines) == 12
    asked = SceneAnswer("Which of them is wide? " * 20, "two", views=seen).plot()
    assert len(asked.axes) == 2
    extent = asked._suptitle.get_window_extent()
    room = 0.1 * asked.bbox.width  # to each side, where pages put their labels and buttons
    assert room < extent.x0 and extent.x1 < asked.bbox.width - room


def test_plots_say_what_they_need(monkeypatch):
    answer = SceneAnswer("how many?", "two", views=views())
    with pytest.raises(ValueError, match="holds no views to draw in"):
        SceneAnswer("how many?", "two").plot()
    monkeypatch.setitem(sys.modules, "gap_mllm.processing.result_drawing", None)
    with pytest.raises(ImportError, match=r"needs the package with matplotlib: pip install gap-mllm\[eval\]"):
        answer.plot()
