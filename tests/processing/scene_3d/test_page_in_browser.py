"""The page of the 3D view in a real browser, offline: toggles, mouse, labels, cameras. `make test-view` runs it."""

import os
from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.camera_geometry_gap_mllm import invert_rigid, project_points, transform_points
from gap_mllm.processing.data import render_room
from gap_mllm.processing.scene_3d import Mark3D, scene_from_sample, write_html
from tests.browser import open_page


pytestmark = pytest.mark.slow
PICTURES = os.environ.get("PAGE_SCREENSHOTS")  # folder to keep screenshots in
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def scene():
    """A room with its true boxes, the first told as predicted, a marked point that view 2 sees, and an odd label."""
    rendered = render_room(3)
    room = scene_from_sample(rendered.as_sample())
    boxes = (replace(room.boxes[0], kind="predicted", label=EVIL), *room.boxes[1:])
    point = tuple(rendered.points_in_first_view()[2, 50, 80].tolist())
    views = [replace(view, confidence=np.linspace(0, 1, len(view.points), dtype=np.float32)) for view in room.views]
    marks = (Mark3D("spot", point, "predicted", 2, (80, 50)),)
    return replace(room, views=tuple(views), boxes=boxes, marks=marks, answers=(("What is there?", "A spot."),))


@pytest.fixture
def page(scene, tmp_path):
    with open_page(1200, 760) as page:
        told = []
        page.on("request", lambda request: told.append(request.url))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("dialog", lambda dialog: (told.append("a label became HTML"), dialog.dismiss()))
        page.context.set_offline(True)
        page.goto(write_html(scene, tmp_path / "scene.html").as_uri())
        assert page.evaluate("document.body.dataset.drawn") == f"{scene.num_points} points"
        yield page
        if PICTURES:
            page.screenshot(path=f"{PICTURES}/page.png")
        assert [each for each in told if not each.startswith("data:image/")] == [page.url]


def drawn(page):
    """The canvas as it is drawn, without labels."""
    url = page.evaluate("canvas.toDataURL('image/png')")
    return np.asarray(Image.open(BytesIO(b64decode(url.split(",")[1]))).convert("RGB")).astype(int)


def labels(page):
    """Text and place of each label that is shown."""
    shown = page.evaluate("labels.map(({element: e}) => [e.hidden, e.textContent, e.style.left, e.style.top])")
    return {text: (float(x[:-2]), float(y[:-2])) for is_hidden, text, x, y in shown if not is_hidden}


def drag(page, dx, dy, shift=False):
    page.mouse.move(600, 300)
    if shift:
        page.keyboard.down("Shift")
    page.mouse.down()
    page.mouse.move(600 + dx, 300 + dy, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")


def slide(page, name, value):
    page.locator(f"#{name}").evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", value)


def test_toggles_show_and_hide(page, scene):
    slide(page, "cut", 0)
    whole, count = drawn(page), len(labels(page))
    background = np.abs(whole - [238, 240, 242]).max(-1) <= 1
    assert background.mean() < 0.9 and count > 5  # the room fills a part, labels of boxes, mark and cameras
    orange = (np.abs(whole - [230, 81, 0]).max(-1) <= 1).sum()
    page.uncheck("#show-points")
    lines = drawn(page)
    assert (np.abs(lines - [238, 240, 242]).max(-1) <= 1).mean() > 0.95 and orange > 50
    page.uncheck("#show-predicted")
    assert not (np.abs(drawn(page) - [230, 81, 0]).max(-1) <= 1).any()
    assert not {"spot", EVIL} & set(labels(page)) and len(labels(page)) == count - 2
    page.uncheck("#show-cameras")
    assert not (np.abs(drawn(page) - [31, 78, 156]).max(-1) <= 1).any()
    page.uncheck("#show-true")
    assert np.ptp(drawn(page).reshape(-1, 3), 0).max() == 0 and not labels(page)
    for kind in ("points", "predicted", "cameras", "true"):
        page.check(f"#show-{kind}")
    assert np.array_equal(drawn(page), whole) and len(labels(page)) == count
    page.uncheck("#show-labels")
    assert not labels(page) and np.array_equal(drawn(page), whole)


def test_views_and_unsure_points_can_be_left_out(page, scene):
    page.locator("#views input").nth(1).uncheck()
    assert page.evaluate("cloud.size") == scene.num_points - len(scene.views[1].points)
    page.locator("#views input").nth(1).check()
    slide(page, "confidence", 128)
    assert page.evaluate("cloud.size") == pytest.approx(scene.num_points / 2, rel=0.02)


def test_the_mouse_turns_moves_and_comes_nearer(page):
    first, places = drawn(page), labels(page)
    drag(page, 120, 0)
    turned = labels(page)
    assert not np.array_equal(drawn(page), first) and page.evaluate("eye.yaw - start.yaw") == pytest.approx(0.72)
    assert any(abs(turned[text][0] - places[text][0]) > 20 for text in set(turned) & set(places))
    drag(page, 0, 4000)
    assert page.evaluate("eye.pitch") == 1.5  # not over the head
    page.click("#reset")
    assert labels(page) == places and np.array_equal(drawn(page), first)
    drag(page, 60, -40, shift=True)
    moved = labels(page)  # with the hand, what is nearer more
    for text in set(moved) & set(places):
        dx, dy = np.subtract(moved[text], places[text])
        assert dx > 20 and dy < -13 and dx / dy == pytest.approx(-1.5, rel=0.05), text
    page.click("#reset")
    page.mouse.move(600, 300)
    page.mouse.wheel(0, -500)
    page.wait_for_timeout(100)
    assert page.evaluate("eye.distance / start.distance") == pytest.approx(np.exp(-0.5))
    page.click("#above")
    assert not np.array_equal(drawn(page), first)


def test_a_picture_takes_to_its_camera(page, scene):
    """From there the marked point is where the camera sees it, and what the page draws is about the picture."""
    page.locator("#views img").nth(2).click()
    view, height = scene.views[2], page.evaluate("canvas.clientHeight")
    width, scale = page.evaluate("canvas.clientWidth"), height / view.picture.height
    seen = transform_points(invert_rigid(view.camera_to_reference), np.array([scene.marks[0].point]))
    x, y = project_points(seen, view.intrinsics)[0][0] + 0.5 - np.array(view.picture.size) / 2
    assert labels(page)["spot"] == pytest.approx((width / 2 + x * scale, height / 2 + y * scale), abs=2)
    for name in ("true", "predicted", "cameras"):
        page.uncheck(f"#show-{name}")
    left = round(width / 2 - view.picture.width * scale / 2)
    shown = Image.fromarray(drawn(page).astype(np.uint8)).crop(
        (left, 0, left + round(view.picture.width * scale), height)
    )
    difference = np.abs(np.asarray(shown.resize((32, 32))).astype(int) - np.asarray(view.picture.resize((32, 32))))
    assert np.median(difference) < 12  # points of all views, as squares


def test_labels_and_answers_are_text(page):
    slide(page, "cut", 0)
    assert EVIL in labels(page) and page.locator("#labels img").count() == 0
    assert page.locator("#answers").inner_text().split("\n") == ["What is there?", "", "A spot."]
