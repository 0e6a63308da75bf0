"""The Space without its page: what visitors bring, ask and see; and its files as the Hub wants them."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import yaml
from PIL import Image


ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "space"


@pytest.fixture(scope="module")
def space():
    sys.path.insert(0, str(FOLDER))
    try:
        modules = [import_module(name) for name in ("space_scenes", "space_answers")]
    finally:
        sys.path.remove(str(FOLDER))
    return SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})


@pytest.fixture(scope="module")
def guide(space):
    return space.SceneGuide(device="cpu", max_sessions=2)


@pytest.fixture(scope="module")
def room(space):
    return space.example_rooms(1)[0]


def save(path, size=(64, 48), seed=0, **options):
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def damage(path):
    path.write_bytes(save(path, (200, 200)).read_bytes()[:400])
    return path


def test_photos_are_opened_upright_small_and_evenly_spread(space, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    paths = [save(tmp_path / "0.jpg", (200, 90), exif=exif), save(tmp_path / "1.png", (2000, 1000))]
    scene = space.open_upload(paths)
    assert [picture.size for picture in scene.pictures] == [(90, 200), (1024, 512)]
    assert scene.names == ("0.jpg", "1.png") and scene.notes == ()
    many = space.open_upload([save(tmp_path / f"view_{i:02d}.png", seed=i) for i in range(15)])
    assert many.names == tuple(f"view_{i:02d}.png" for i in range(0, 15, 2)) and "Of 15 photos 8" in many.notes[0]
    assert many.key != scene.key


def test_a_damaged_photo_is_left_out_and_told(space, tmp_path):
    good, broken = save(tmp_path / "good.png"), damage(tmp_path / "broken.jpg")
    scene = space.open_upload([broken, good])
    assert scene.names == ("good.png",) and "broken.jpg" in scene.notes[0]
    with pytest.raises(space.VisitorError, match=r"None of the files.*broken\.jpg.*\.png"):
        space.open_upload([broken])


def test_uploads_that_cannot_be_used_are_told_in_words(space, tmp_path, monkeypatch):
    text, video = tmp_path / "notes.txt", tmp_path / "film.mp4"
    text.write_text("no picture")
    video.write_bytes(b"no video")
    good = save(tmp_path / "good.png")
    narrow, small = save(tmp_path / "narrow.png", (2000, 64)), save(tmp_path / "small.png", (16, 16))
    for files, words in {
        (): "There are no photos",
        (text,): "notes.txt",
        (video,): "film.mp4 has no frames",
        (video, good): "either photos or one video",
        (narrow,): "2000 x 64",
        (small,): "16 x 16",
        (good,) * 33: "33 files are too many",
    }.items():
        with pytest.raises(space.VisitorError, match=words):
            space.open_upload(files)
    scenes = sys.modules["space_scenes"]
    monkeypatch.setattr(scenes, "MAX_MEGAPIXELS", 0.001)
    with pytest.raises(space.VisitorError, match="megapixels"):
        space.open_upload([good])
    monkeypatch.setattr(scenes, "MAX_MEGABYTES", 0.001)
    with pytest.raises(space.VisitorError, match="good.png has 0 MB"):
        space.open_upload([good])


def test_a_video_gives_its_frames(space, tmp_path):
    with av.open(str(tmp_path / "room.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(0, 240, 20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    scene = space.open_upload([tmp_path / "room.mp4"])
    assert len(scene.pictures) == 8 and scene.names[0] == "room.mp4 0.00 s"
    assert scene.pictures[0].getpixel((9, 9))[0] < 20 < 200 < scene.pictures[-1].getpixel((9, 9))[0]


def test_requests_that_lack_something_say_what(space, room):
    for scene, request, words in (
        (None, space.Request(space.FIND_ALL), "no scene yet"),
        (room, space.Request(space.WHAT), "Click into"),
        (room, space.Request(space.WHAT, (0, 128, 5)), "outside"),
        (room, space.Request(space.WHAT, (4, 5, 5)), "outside"),
        (room, space.Request(space.FIND_ONE), "what to find"),
        (room, space.Request(space.QUESTION, None, "  "), "your question"),
        (room, space.Request(space.QUESTION, None, "x" * 401), "401 characters"),
        (room, space.Request("Cook"), "Choose what to do"),
    ):
        with pytest.raises(space.VisitorError, match=words):
            space.check_request(scene, request)
    space.check_request(room, space.Request(space.WHAT, (3, 127, 0)))


def test_a_click_is_the_pixel_that_is_shown_there(space, room):
    shown = space.marked_view(room, 1, (1, 30, 99))
    assert shown.size == (640, 640)
    assert shown.getpixel((152, 497)) == (255, 0, 0)  # 30.5 and 99.5 times five
    assert shown.getpixel((300, 300)) == space.marked_view(room, 1, (0, 30, 99)).getpixel((300, 300))
    assert space.clicked_pixel(room, 1, (152, 497)) == (1, 30, 99)
    assert space.clicked_pixel(room, 1, (639, 0)) == (1, 127, 0)
    with pytest.raises(space.VisitorError, match="outside"):
        space.clicked_pixel(room, 1, (640, 10))


@pytest.mark.slow
def test_answers_are_those_of_a_session_and_are_shown(space, guide, room, tmp_path):
    trimesh = pytest.importorskip("trimesh", reason="the extra space has it")
    seen, cameras, gates = guide.look(room)
    assert seen.num_points > 1000 and len(cameras.intrinsics) == 4 and len(gates["final"]) == 4
    assert Image.open(space.gate_picture(gates, room, tmp_path / "gates.png")).width > 200
    session = space.SceneSession(guide.model, guide.processor, list(room.pictures))
    same = {"max_new_tokens": space.MAX_NEW_TOKENS}
    for request, plain in (
        (space.Request(space.WHAT, (1, 60, 70)), session.locate(1, 60, 70, **same)),
        (space.Request(space.FIND_ALL), session.detect(**same)),
        (space.Request(space.FIND_ONE, None, "the bed"), session.ground("the bed", **same)),
        (space.Request(space.QUESTION, None, "Is there a bed?"), session.ask("Is there a bed?", **same)),
    ):
        answer = guide.answer(room, request)
        assert answer.text == plain.text
        assert answer == (space.read_answer(plain) if request.task == space.QUESTION else plain)
        assert space.answer_picture(answer, cameras).width > 300
        path, left_out = space.write_scene_glb(seen, answer, tmp_path / "scene.glb")
        found = len(getattr(answer, "boxes", ())) + len([each for each in getattr(answer, "points", ()) if each])
        names = trimesh.load(path).graph.nodes_geometry
        assert left_out == [] and sum(name.startswith("predicted") for name in names) == found
        assert sum(name.startswith("points of view") for name in names) == 4
    pieces = list(guide.stream(room, request))
    assert pieces[-1] == answer and pieces[-2].strip() == answer.text.strip()


BED, CHAIR = (
    f'{{"label": "{name}", "bbox_3d": [0, 0, {depth}, 1, 1, 1, 0, 0, 0]}}'
    for name, depth in (("bed", 2), ("chair", 3))
)


@pytest.mark.parametrize("form", ["```json\n[\n\t%s,\n\t%s\n]\n```", "[%s, %s]", "%s\n%s", " ```\n[%s,%s]"])
def test_boxes_in_the_place_of_words_are_shown_as_found(space, form):
    answer = space.SceneAnswer("How many chairs are there?", form % (BED, CHAIR))
    read = space.read_answer(answer)
    assert [(box.label, box.center, box.view) for box in read] == [("bed", (0, 0, 2), 0), ("chair", (0, 0, 3), 0)]
    assert read.text == answer.text and read.question == answer.question and not read.truncated
    said = space.answer_text(read).split("\n\n")
    assert said[0] == "The model answered with places, not in words. What it found:"
    assert [line.split(":")[0] for line in said[1:]] == ["bed", "chair"] and "bbox" not in "".join(said)


def test_boxes_in_the_place_of_words_may_be_cut_off_or_broken(space):
    text = f'```json\n[\n\t{BED},\n\t{{"label": "sofa", "bbox_3d": [1, 2]}},\n\t{{"label": "chair", "bbox_3d": [0.5'
    said = space.answer_text(space.read_answer(space.SceneAnswer("?", text, truncated=True)))
    assert "bed: centre" in said and "Not used: bbox\\_3d holds 2 entries, expected 9." in said and "cut off" in said
    assert "chair" not in said


def test_a_point_in_the_place_of_words_is_shown_as_found(space):
    read = space.read_answer(space.SceneAnswer("?", '```json\n{"label": "bed", "pointmap": [0.5, 0.1, 2.0]}\n```'))
    assert [(point.label, point.point, point.mark) for point in read] == [("bed", (0.5, 0.1, 2.0), None)]
    assert "not in words" in space.answer_text(read) and r"bed: \(0.50, 0.10, 2.00\) m" in space.answer_text(read)


@pytest.mark.parametrize(
    "text",
    [
        "There are 2 chairs.",
        f"There is one: {CHAIR}",
        f"[{CHAIR}]\nThere is one chair.",
        "[1, 2]",
        '{"count": 2}',
        '{"bbox_3d": [1, 2]}',
        "",
    ],
)
def test_an_answer_that_is_more_or_less_than_places_stays_as_it_is(space, text):
    answer = space.SceneAnswer("How many chairs are there?", text)
    assert space.read_answer(answer) is answer


def test_words_of_a_model_are_shown_as_they_are(space):
    answer = space.SceneAnswer("?", "<b>2</b>\n\t*chairs*", truncated=True)
    told = space.answer_text(answer, ["a_b"])
    assert told.startswith("&lt;b>2&lt;/b>\n\n\\*chairs\\*\n") and "cut off" in told and told.endswith(r"a\_b")
    assert "nothing" in space.answer_text(space.SceneAnswer("?", ""))


def test_few_scenes_are_kept_and_older_ones_are_opened_again(space, guide, room):
    others = space.example_rooms(3)
    request = space.Request(space.WHAT, (0, 60, 70))
    first = guide.answer(room, request)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda each: guide.answer(each, request), others * 2))
    assert guide.num_sessions == 2
    assert guide.answer(room, request) == first
    guide.forget(room)
    guide.forget(room)
    guide.forget(None)
    assert guide.num_sessions == 1 and guide.answer(room, request) == first


def test_the_files_are_what_the_hub_wants():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    card = yaml.safe_load(text.split("---")[1])
    assert card["sdk"] == "gradio" and re.fullmatch(r"6\.\d+\.\d+", card["sdk_version"])
    assert (FOLDER / card["app_file"]).is_file() and len(card["short_description"]) <= 60
    assert {"title", "emoji", "license", "models", "python_version", "tags"} <= card.keys()
    lines = (FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    setup = (ROOT / "setup.py").read_text(encoding="utf-8").partition('EXTRAS["dev"]')[0]
    scope = {}
    exec(setup.replace("from setuptools import setup", ""), scope)
    assert [line for line in lines if not line.startswith("#")] == scope["REQUIREMENTS"] + scope["EXTRAS"]["space"]
