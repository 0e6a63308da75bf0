"""The Space in a real browser: upload, click, answer, 3D drawn, errors as messages. `make test-space` runs it."""

import os
import subprocess
import sys
import time
import urllib.request
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gap_mllm import GapMllmForConditionalGeneration, SceneSession
from gap_mllm.evaluation import render_split
from gap_mllm.processing import GapMllmProcessor, parse_boxes
from tests.browser import open_page


pytestmark = pytest.mark.slow
APP = Path(__file__).parents[2] / "examples" / "space" / "app.py"
PORT = 7977
QUESTION = "How many chairs are there?"
PICTURES = os.environ.get("SPACE_SCREENSHOTS")  # folder to keep screenshots in


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    pytest.importorskip("gradio", reason="the page needs gradio: make test-space")
    folder = tmp_path_factory.mktemp("space")
    settings = {"GRADIO_SERVER_PORT": str(PORT), "GRADIO_TEMP_DIR": str(folder / "files"), "MAX_NEW_TOKENS": "128"}
    with open(folder / "log.txt", "w") as log:
        app = subprocess.Popen(
            [sys.executable, str(APP)], env=os.environ | settings, cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        for _ in range(240):
            time.sleep(0.5)
            if app.poll() is not None:
                pytest.fail((folder / "log.txt").read_text())
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=2)
                break
            except OSError:
                continue
        yield f"http://127.0.0.1:{PORT}/"
        assert "Traceback" not in (folder / "log.txt").read_text()
    finally:
        app.terminate()
        app.wait(20)


@pytest.fixture
def page(url):
    with open_page(1400, 1500) as page:
        page.set_default_timeout(40_000)
        page.goto(url)
        page.wait_for_selector("#rooms img")
        yield page
        keep(page, "last")


@pytest.fixture
def photos(tmp_path):
    paths = []
    for number, image in enumerate(next(render_split("test", 1)).images):
        paths.append(str(tmp_path / f"photo_{number}.png"))
        Image.fromarray(image).save(paths[-1])
    return paths


def upload(page, files):
    page.set_input_files("#files input[type=file]", files)


def wait_for_text(page, place, text):
    page.wait_for_function("([at, text]) => document.querySelector(at)?.innerText.includes(text)", arg=[place, text])


def wait_for_answer(page):
    """Wait for what a model, even a poor one, says of a point or boxes: coordinates, or that there are none."""
    page.wait_for_function(r"/\) m|no boxes|no point/.test(document.querySelector('#answer').innerText)")


def keep(page, name):
    if PICTURES:
        page.screenshot(path=f"{PICTURES}/{name}.png", full_page=True)


def test_photos_are_uploaded_clicked_and_answered_and_the_scene_is_drawn(page, photos):
    upload(page, photos)
    wait_for_text(page, "#answer", "4 views are open")
    page.wait_for_selector("#glb canvas")
    page.locator("#views img").nth(2).click()
    page.wait_for_timeout(1500)
    place = page.locator("#large img").bounding_box()
    page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    page.wait_for_timeout(1500)
    page.click("#ask")
    wait_for_answer(page)
    page.wait_for_timeout(4000)
    keep(page, "answered")
    canvas = Image.open(BytesIO(page.locator("#glb canvas").screenshot()))
    pixels = np.asarray(canvas.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels // 16, axis=0)) > 20  # points and boxes, no empty scene
    for tab, place in (("Annotated views", "#drawn img"), ("Gate maps", "#gates img")):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_selector(place)
        page.wait_for_timeout(500)
        keep(page, tab.split()[0].lower())


@pytest.fixture(scope="module")
def session_answer():
    """What the shipped model answers about the second room, asked without the page."""
    folder = APP.parents[1] / "assets" / "tiny_gap_mllm"
    model = GapMllmForConditionalGeneration.from_pretrained(folder).eval()
    room = next(render_split("test", 1, first_scene=9))
    views = [Image.fromarray(image) for image in room.images]
    return SceneSession(model, GapMllmProcessor.from_pretrained(folder), views).ask(QUESTION, max_new_tokens=128)


def test_a_room_is_chosen_and_asked_in_words(page, session_answer):
    page.locator("#rooms img").nth(1).click()
    wait_for_text(page, "#answer", "4 views are open")
    page.get_by_label("Find objects").click()
    page.click("#ask")
    wait_for_answer(page)
    page.get_by_label("Ask a question").click()
    page.fill("#words textarea", QUESTION)
    page.click("#ask")
    page.get_by_role("tab", name="Raw text").click()
    wanted = session_answer.text
    page.wait_for_function("text => document.querySelector('#raw textarea').value === text", arg=wanted)
    boxes = parse_boxes(wanted).items
    assert boxes, "the shipped model answers words with boxes; of one that does not, expect its words here"
    wait_for_text(page, "#answer", "not in words")  # no JSON, but a line for each box
    said = page.locator("#answer").inner_text()
    assert [line.split(":")[0] for line in said.splitlines() if ": centre (" in line] == [box.label for box in boxes]
    assert "bbox" not in said and "```" not in said
    keep(page, "asked")
    page.get_by_role("tab", name="Annotated views").click()
    page.wait_for_selector("#drawn img")
    keep(page, "asked_views")


def test_what_goes_wrong_is_told_and_the_page_goes_on(page, photos, tmp_path):
    page.click("#ask")
    wait_for_text(page, "#answer", "There is no scene yet")
    page.locator("#rooms img").first.click()
    wait_for_text(page, "#answer", "4 views are open")
    page.click("#ask")
    wait_for_text(page, "#answer", "Click into the large picture")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    upload(page, [str(broken)])
    wait_for_text(page, "#answer", "None of the files is a photo")
    keep(page, "told")
    assert page.locator("#views img").count() == 4  # the scene stays
    page.get_by_label("Find objects").click()
    page.click("#ask")
    wait_for_answer(page)
    large = tmp_path / "large.jpg"
    large.write_bytes(b"0" * 51_000_000)
    page.locator("#files button[aria-label='Clear']").first.click()
    upload(page, [str(large)])
    wait_for_text(page, "#answer", "large.jpg has 51 MB, more than 50 MB")
    keep(page, "too_large")
