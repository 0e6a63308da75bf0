"""`gap-mllm ask`: answers about photos as text, JSON, pictures and a scene, and what is said of bad input."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gap_mllm_cli
from gap_mllm import GapMllmForConditionalGeneration, SceneSession
from gap_mllm.processing import Mark
from gap_mllm.processing.answer_folder import write_answers
from gap_mllm.processing.data import render_room
from gap_mllm.processing.photo_questions import ask_session, read_cameras, read_intrinsics_size
from gap_mllm.processing.scene_3d import load_scene
from gap_mllm.processing.scene_results_gap_mllm import SceneAnswer, SceneBox, SceneBoxes, ScenePoints


ASSETS = Path(__file__).parents[2] / "examples" / "assets"
MODEL, ENCODER = str(ASSETS / "tiny_gap_mllm"), str(ASSETS / "tiny_geometry_encoder")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(render_room(5).images[:2]):
        Image.fromarray(image).save(folder / f"photo_{number}.png")
    return folder


@pytest.fixture
def scene(tiny_model, tiny_processor):
    views = [Image.effect_noise((96, 64), 60 + 20 * index).convert("RGB") for index in range(2)]
    return SceneSession(tiny_model(model_class=GapMllmForConditionalGeneration), tiny_processor, views)


def ask(*words):
    return gap_mllm_cli.main(["ask", *map(str, words)])


def test_photos_are_asked_and_everything_is_written(photos, tmp_path, capsys):
    pytest.importorskip("trimesh")
    out = tmp_path / "out"
    first, second = sorted(photos.iterdir())
    # A photo behind a flag is one more photo.
    words = [MODEL, first, "--detect", second, "--at", "0,64,80", "--at", "1,40,60", "--find", "the bed"]
    words += ["--question", "How many?", "--points-from", ENCODER, "--max-new-tokens", "24", "--output", out]
    assert ask(*words) == 0
    told = json.loads((out / "answers.json").read_text())
    assert [view["name"] for view in told["views"]] == ["photo_0.png", "photo_1.png"]
    assert told["cameras"]["source"] == ["GapMllmVggtForReconstruction"] * 2
    kinds = [answer["kind"] for answer in told["answers"]]
    assert kinds == ["SceneBoxes", "ScenePoints", "ScenePoints", "GroundedObject", "SceneAnswer"]
    asked = ["all objects", "pixel (64, 80) of view 0", "pixel (40, 60) of view 1", "the bed", "How many?"]
    assert [answer["question"] for answer in told["answers"]] == asked
    said = capsys.readouterr().out
    assert said.startswith("2 views; loading ") and all(f"\n{words}\n" in said for words in asked)
    for answer in told["answers"]:
        assert answer["picture"] is None or (out / answer["picture"]).stat().st_size > 1000
    assert [told["answers"][place]["picture"] for place in (1, 2, 4)] == ["answer_2.png", "answer_3.png", None]
    assert {path.name for path in out.iterdir() if not path.name.startswith("answer")} == {
        "scene.npz", "scene.glb", "points.ply", "colmap", "scene.html"
    }  # fmt: skip
    scene = load_scene(out / "scene.npz")
    assert scene.num_points > 1000 and [question for question, _ in scene.answers] == asked
    assert gap_mllm_cli.main(["show", str(out), "--forms", "html", "--output", str(tmp_path / "again")]) == 0
    assert ask(MODEL, photos, "--question", "How many?", "--forms", "html", "--output", out) == 0
    assert not list(out.glob("answer_*.png"))  # those of the former answers are gone


def test_all_objects_are_asked_for_where_nothing_else_is(photos, tmp_path, capsys):
    assert ask(MODEL, photos / "photo_0.png", "--forms", "html", "--max-new-tokens", 4, "--output", tmp_path) == 0
    said = capsys.readouterr().out
    assert "all objects\n" in said and "(cut off)" in said
    assert "--max-new-tokens N allows longer ones" in said and "with one view there is no parallax" in said
    told = json.loads((tmp_path / "answers.json").read_text())
    assert told["cameras"]["source"] == ["assumed", "given"] and "60 degrees" in told["notes"][0]


def test_text_comes_as_the_session_answers(scene):
    told = list(ask_session(scene, ["How many?"], [Mark(1, (5, 9))], ["the bed"], True, max_new_tokens=6))
    answers = [each for each in told if isinstance(each, SceneAnswer)]
    assert answers[0] == scene.detect(max_new_tokens=6)
    assert answers[1].text == scene.locate(1, 5, 9, max_new_tokens=6).text and answers[1].marks == ((1, 5.0, 9.0),)
    assert answers[2] == scene.ground("the bed", max_new_tokens=6)
    assert answers[3] == scene.ask("How many?", max_new_tokens=6)
    text = "".join(each for each in told if isinstance(each, str))
    blocks = [f"all objects\n{answers[0]}", f"pixel (5, 9) of view 1\n{answers[1]}", f"the bed\n{answers[2]}"]
    assert text == "".join(f"\n{block}\n" for block in [*blocks, f"How many?\n{answers[3]}"])


def test_boxes_are_told_as_they_close_and_labels_that_are_not_there(scene, monkeypatch):
    boxes = [SceneBox(label, (0, 0, 2, 1, 1, 1, 0, 0, 0)) for label in ("bed", "sofa")]
    found = SceneBoxes("bed", "raw", (), True, scene.views, tuple(boxes))

    class Stream(list):
        result = found

    monkeypatch.setattr(scene, "stream_boxes", lambda labels, **options: Stream(boxes))
    told = list(ask_session(scene, labels=["bed", "sofa"]))
    assert told[:3] == ["\nbed, sofa\n", f"{boxes[0]}\n", f"{boxes[1]}\n"] and told[3:] == ["(cut off)\n", found]
    monkeypatch.undo()
    lacking = list(ask_session(scene, labels=["elephant"], max_new_tokens=4))[-1]
    assert any(each.text == "elephant" and "no such object" in each.reason for each in lacking.rejected)


def test_boxes_are_drawn_where_nothing_tells_the_cameras(scene, tmp_path):
    box = SceneBox("bed", (0, 0, 3, 1, 1, 1, 0, 0, 0))
    found = SceneBoxes("all objects", "raw", views=scene.views, boxes=(box,))
    missed = ScenePoints("pixel", "raw", views=scene.views, points=(None,), marks=((1, 5.0, 9.0),))
    written, notes = write_answers(scene, [found, missed], tmp_path, ["html"], title="photos")
    assert [path.name for path in written][:3] == ["answers.json", "answer_1.png", "answer_2.png"]
    assert "nothing tells the cameras" in notes[0] and "spanned 60 degrees" in notes[0]
    assert "--intrinsics FX,FY,CX,CY" in notes[0] and "--points-from DIR" in notes[0]
    assert "no view but view 0 is placed in 3D" in notes[1] and "--poses FILE" in notes[1]
    shown = load_scene(tmp_path / "scene.npz")
    # 96 pixels span 60 degrees.
    assert shown.views[0].intrinsics[0, 0] == pytest.approx(48 / np.tan(np.radians(30)))
    assert shown.views[1].camera_to_reference is None and [box.label for box in shown.boxes] == ["bed"]
    pytest.importorskip("matplotlib")
    assert len(missed.plot().axes[1].lines) == 1  # the mark is drawn, though nothing could be read


def test_known_cameras_are_taken(scene, tmp_path, photos):
    cameras, poses = tmp_path / "cameras.json", tmp_path / "poses.json"
    cameras.write_text(json.dumps([[100, 0, 64], [0, 100, 64], [0, 0, 1]]))
    poses.write_text(json.dumps([np.eye(4).tolist()] * 2))
    assert read_cameras("--intrinsics", "100,100,64,64") == read_cameras("--intrinsics", str(cameras))
    words = ["--intrinsics", cameras, "--poses", poses, "--forms", "colmap", "--max-new-tokens", 4]
    assert ask(MODEL, photos, *words, "--output", tmp_path / "out") == 0
    told = json.loads((tmp_path / "out" / "answers.json").read_text())
    assert told["cameras"]["source"] == ["given", "given"] and told["cameras"]["intrinsics"][1][0][0] == 100
    assert (tmp_path / "out" / "colmap" / "cameras.txt").is_file()


@pytest.mark.parametrize(
    ("flag", "content", "expected", "size"),
    [
        ("--intrinsics", [[100, 0, 64], [0, 100, 64], [0, 0, 1]], None, None),
        ("--intrinsics", {"a.jpg": [[1, 0, 2]], "b/c.png": None}, None, None),
        ("--intrinsics", {"intrinsics": [[[1.5]]], "width": 1920, "height": 1440}, [[[1.5]]], (1920, 1440)),
        ("--intrinsics", {"intrinsics": {"a.jpg": [[2]]}, "from": "ARKit"}, {"a.jpg": [[2]]}, None),
        ("--poses", {"a.jpg": [[1]]}, None, None),
        ("--poses", {"poses": [None, [[1]]]}, [None, [[1]]], None),
    ],
)
def test_files_of_cameras_are_lists_or_go_by_name_and_may_state_a_size(tmp_path, flag, content, expected, size):
    file = tmp_path / "cameras.json"
    file.write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    assert read_cameras(flag, str(file)) == (content if expected is None else expected)
    if flag == "--intrinsics":
        assert read_intrinsics_size(str(file)) == size


def test_numbers_of_a_camera_may_state_a_size():
    camera = [[100, 0, 64], [0, 110, 48], [0, 0, 1]]
    assert read_cameras("--intrinsics", "100,110,64,48,1920,1440") == camera
    assert read_cameras("--intrinsics", "100,110,64,48") == camera
    assert read_intrinsics_size("100,110,64,48,1920,1440") == (1920, 1440)
    assert read_intrinsics_size("100,110,64,48") is read_intrinsics_size(None) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            {"intrinsics": [[1]], "width": 640},
            r"its width and height are \(640, None\); expected two numbers of pixels",
        ),
        ({"intrinsics": [[1]], "width": "640", "height": 480}, "expected two numbers of pixels"),
        ({"intrinsics": [[1]], "width": 0, "height": 480}, "expected two numbers of pixels"),
        ({"a.jpg": 3}, "no list of numbers, and no object of file names"),
        ({"a.jpg": [["x"]]}, "no list of numbers"),
        ({}, "no list of numbers"),
        ("text", "no list of numbers"),
    ],
)
def test_what_is_no_file_of_cameras_is_named(tmp_path, content, says):
    file = tmp_path / "cameras.json"
    file.write_text(json.dumps(content))
    for read in (read_intrinsics_size, lambda text: read_cameras("--intrinsics", text)):
        with pytest.raises(ValueError, match=f"--intrinsics .*cameras.json holds no matrices as JSON lists: .*{says}"):
            read(str(file))


def test_intrinsics_of_larger_pictures_are_scaled_and_it_is_noted(scene, tmp_path, photos, capsys):
    cameras = tmp_path / "cameras.json"
    camera = [[200, 0, 127.5], [0, 200, 127.5], [0, 0, 1]]
    cameras.write_text(json.dumps({"intrinsics": camera, "width": 256, "height": 256}))
    words = ["--intrinsics", cameras, "--forms", "html", "--max-new-tokens", 4]
    assert ask(MODEL, photos, *words, "--output", tmp_path / "out") == 0
    told = json.loads((tmp_path / "out" / "answers.json").read_text())
    assert told["cameras"]["intrinsics"][0] == [[100, 0, 63.5], [0, 100, 63.5], [0, 0, 1]]
    assert "scaled from pictures of 256 x 256 to 128 x 128 pixels" in capsys.readouterr().out


def test_forms_that_cannot_be_written_are_left_out_unless_they_are_named(scene, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    monkeypatch.setitem(sys.modules, "gap_mllm.processing.result_drawing", None)
    found = ScenePoints("pixel", "raw", views=scene.views, points=(None,), marks=((0, 5.0, 9.0),))
    written, notes = write_answers(scene, [found], tmp_path)
    assert [path.name for path in written] == ["answers.json", "scene.npz", "scene.html"]
    assert any(note.startswith("no glb: GLB needs trimesh") for note in notes)
    assert any(note.startswith("no pictures: plot() needs the package with matplotlib") for note in notes)
    with pytest.raises(ImportError, match="GLB needs trimesh"):
        write_answers(scene, [found], tmp_path, ["glb"])


@pytest.mark.parametrize(
    "words, said",
    [
        (["{empty}"], "holds no pictures (such as .jpg or .png), but 0 other files"),
        (["nowhere.jpg"], "nowhere.jpg') does not exist"),
        (["{text}.jpg"], "text.jpg') cannot be read as a picture"),
        (["{text}.mp4"], "text.mp4: the video cannot be decoded"),
        (["{text}.jpg", "{photos}"], "photos is a folder among 2 places; give pictures, or one folder"),
        (["{photos}", "--at", "0,500,20"], "(x=500, y=20) lies outside the picture of 128 x 128"),
        (["{photos}", "--at", "7,5,20"], "is on view 7, but the scene has 2 views"),
        (["{photos}", "--at", "5,20"], "--at is '5,20'; expected VIEW,X,Y in whole numbers"),
        (["{photos}", "--question", " "], "a question, description or label is empty"),
        (["{photos}", "--labels", ","], "a question, description or label is empty"),
        (["{photos}", "--intrinsics", "1,2"], "--intrinsics is '1,2', which is no file; expected FX,FY,CX,CY"),
        (["{photos}", "--intrinsics", "0,1,2,3"], "focal lengths above 0"),
        (["{photos}", "--poses", "{text}.mp4"], "holds no matrices as JSON lists"),
        (["{photos}", "--max-views", "0"], "--max-views is 0"),
        (["{photos}", "--forms", "obj"], "unknown form 'obj'"),
        (["{photos}", "--output", "{text}.mp4"], "is a file; give a folder to write to"),
        (["{photos}"], "no/such/model is no folder"),
    ],
)
def test_bad_input_is_told_in_one_line_before_anything_is_loaded(words, said, photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for name in ("text.jpg", "text.mp4"):
        (tmp_path / name).write_text("no picture")
    places = {"photos": photos, "empty": tmp_path / "empty", "text": tmp_path / "text"}
    words = [word.format(**places) for word in words]
    words += [] if "--output" in words else ["--output", tmp_path / "out"]
    assert ask("no/such/model", *words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
