"""`SceneSession`: one encoding of the views for all questions, and the answers of the plain path."""

import copy
import json
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from gap_mllm import GapMllmForConditionalGeneration, GapMllmGeometryMapsConfig, KnownGeometry, SceneSession
from gap_mllm.processing import LabelledBox, Mark
from gap_mllm.processing.asking_gap_mllm import GeneratedAnswer
from gap_mllm.processing.model_state_gap_mllm import model_lock
from tests.modeling.test_known_geometry import MAPS


@pytest.fixture
def model(tiny_model):
    return tiny_model(model_class=GapMllmForConditionalGeneration)


@pytest.fixture
def views():
    return [Image.effect_noise((96, 64), 60 + 20 * index).convert("RGB") for index in range(3)]


@pytest.fixture
def scene(model, tiny_processor, views):
    return SceneSession(model, tiny_processor, views)


@pytest.fixture
def say(scene, monkeypatch):
    """A function (*texts) that makes these the raw answers, in turn."""

    def answers(*texts, truncated=False):
        left = [GeneratedAnswer(text, truncated) for text in texts]
        monkeypatch.setattr(scene._asker, "generate_answers", lambda chats, *a, **k: [left.pop(0) for _ in chats])

    return answers


QUESTIONS = ["How many chairs are there?", "Is there a bed at the window, or a table?", "What colour?"]


def plain(session, chats, **options):
    return session.processor.ask(session.model, chats, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 12},
        {"max_new_tokens": 9, "num_beams": 3},
        {"max_new_tokens": 9, "num_beams": 4, "num_return_sequences": 2},
        {"max_new_tokens": 9, "repetition_penalty": 1.3},
        {"max_new_tokens": 9, "do_sample": True, "temperature": 3.0},
        {"max_new_tokens": 9, "do_sample": True, "num_return_sequences": 3},
        {"max_new_tokens": 9, "no_repeat_ngram_size": 2},
        {"max_new_tokens": 9, "use_cache": False},
        {"max_new_tokens": 9, "cache_implementation": "static", "disable_compile": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [1, 3])
def test_answers_are_those_of_the_plain_path(scene, options, count):
    chats = [scene.messages(question) for question in QUESTIONS[:count]]
    torch.manual_seed(3)
    expected = plain(scene, chats, **options)
    for _ in range(2):  # the beginning of the prompts is read, then found
        torch.manual_seed(3)
        answers = scene.ask_many(QUESTIONS[:count], **options)
        assert [answer.text for answer in answers] == expected
        per_question = options.get("num_return_sequences", 1)
        assert [answer.question for answer in answers[::per_question]] == QUESTIONS[:count]


def test_views_and_the_beginning_of_prompts_are_read_once(scene, monkeypatch):
    lengths, encoded = [], []
    forward, encode = scene.model.model.language_model.forward, scene.model.model.get_image_features

    def count(*args, **kwargs):
        lengths.append(kwargs["inputs_embeds"].shape[1])
        return forward(*args, **kwargs)

    monkeypatch.setattr(scene.model.model.language_model, "forward", count)
    monkeypatch.setattr(scene.model.model, "get_image_features", lambda *a, **k: encoded.append(1) or encode(*a, **k))
    scene.ask(QUESTIONS[0], max_new_tokens=2)
    begin = lengths[0]
    scene.ask(QUESTIONS[1], max_new_tokens=2)
    scene.ask_many(QUESTIONS, max_new_tokens=2)
    assert begin > 30 and lengths.count(begin) == 1
    assert len(encoded) == 1
    scene.locate(1, 20, 30, max_new_tokens=2)
    scene.locate(1, 20, 30, max_new_tokens=2)
    assert len(encoded) == 2 and len(lengths) == 2 * 5 + 2


def test_tasks_ask_as_the_processor_does(scene, views):
    processor = scene.processor
    boxes = processor.build_messages("detection3d", views)
    assert scene.detect(max_new_tokens=12).text == plain(scene, [boxes], task="detection3d", max_new_tokens=12)[0]
    for marks, task in (([[1, 20, 30]], "reconstruction"), ([[1, 20, 30], [2, 5, 6]], "sparse_points")):
        chat = processor.build_messages(task, views, marks=marks)
        assert scene.locate(marks, max_new_tokens=12).text == plain(scene, [chat], task=task, max_new_tokens=12)[0]
    named = [Mark(1, (20, 30)), Mark(2, (5, 6))]  # both red, where triples take colours in turn
    chat = processor.build_messages("sparse_points", views, marks=named)
    assert scene.locate(named, max_new_tokens=12).text == plain(scene, [chat], max_new_tokens=12)[0]
    chat = processor.build_messages("dense_caption", views, location=[1, 2, 3])
    assert (
        scene.describe([1, 2, 3, 1, 1, 1, 0, 0, 0], max_new_tokens=12).text
        == plain(scene, [chat], task="dense_caption", max_new_tokens=12)[0]
    )


def test_grounding_shows_the_chosen_view_first(scene, views, monkeypatch):
    asked, generate = [], scene._asker.generate_answers
    texts = ['```json\n\t{"frame": 1}\n```', '```json\n\t{"bbox_3d": [0, 0, 2, 1, 1, 1, 0, 0, 0]}\n```']

    def answer(chats, form, encoded, *args, **options):
        asked.append((chats[0], encoded.features.pooler_output[0]))
        return [type(generate(chats, form, encoded, *args, max_new_tokens=1)[0])(texts[len(asked) - 1])]

    monkeypatch.setattr(scene._asker, "generate_answers", answer)
    found = scene.ground("the red chair")
    shown = [part["image"] for turn in asked[1][0] for part in turn["content"] if part["type"] == "image"]
    assert shown == [views[1], views[2], views[0]]
    alone = scene._asker.encode([shown])
    assert torch.equal(asked[1][1], alone.features.pooler_output[0])
    assert (found.view, found.box.view, found.box.label, found.box.center) == (1, 1, "the red chair", (0.0, 0.0, 2.0))
    assert "camera of view 1" in found.box.frame and found.frame_text == texts[0]
    assert str(found).startswith("view 1\nthe red chair: centre (0.00, 0.00, 2.00) m")


def test_grounding_without_a_view_takes_the_first_and_says_so(scene, say):
    say("nothing", '{"bbox_3d": [0, 0, 2, 1, 1, 1, 0, 0, 0]}')
    found = scene.ground("the lamp")
    assert found.view == 0 and found.rejected[0].reason == "no view is named, the first is taken"
    say('{"frame": 7}', "no box")
    found = scene.ground("the lamp")
    assert found.box is None and found.rejected[0].reason == "frame is outside 0..2"


def test_a_label_that_the_answer_does_not_name(scene, say):
    objects = [{"label": "bed", "bbox_3d": [0, 0, 2, 1, 1, 1, 0, 0, 0]}, {"label": "chair", "bbox_3d": [1]}]
    say(*[json.dumps(objects)] * 3, json.dumps(objects)[:-30])
    found = scene.detect(["Bed", "unicorn"])
    assert [box.label for box in found] == ["bed"] and not found.truncated
    assert [(each.text, each.reason) for each in found.rejected[1:]] == [
        ("unicorn", "no such object in the answer, which names bed")
    ]
    assert "bbox_3d holds 1 entries" in found.rejected[0].reason
    assert scene.detect("lamp").rejected[1].reason == "no such object in the answer, which names bed"
    assert len(scene.detect()) == 1
    assert scene.detect().truncated  # and the session goes on


def test_an_answer_that_is_cut_off_is_told(scene):
    answer = scene.ask(QUESTIONS[0], max_new_tokens=4)
    assert answer.truncated and str(answer).endswith("\n(cut off)")
    end = scene.processor.tokenizer(answer.text[-1:], add_special_tokens=False)["input_ids"][-1]
    ended = scene.ask(QUESTIONS[0], max_new_tokens=4, stop_strings=[answer.text[-1:]])
    assert not ended.truncated
    assert scene.ask(QUESTIONS[0], max_new_tokens=40, eos_token_id=end).text.startswith(answer.text[:1])
    assert scene.detect(max_new_tokens=3).truncated


def test_points_of_marks_in_their_order(scene, say):
    point = {"label": "bed", "pointmap": [0, 1, 2]}
    say(json.dumps([point, {"label": "x"}, point, point]))
    found = scene.locate([[0, 1, 2], [1, 3, 4], [2, 5, 6]])
    assert [None if each is None else each.mark for each in found] == [(0, 1, 2), None, (2, 5, 6)]
    assert [each.reason for each in found.rejected] == ["has no pointmap", "there are only 3 marks"]
    assert str(found).splitlines()[:2] == [
        "bed at pixel (1, 2) of view 0: (0.00, 1.00, 2.00) m, camera 0",
        "no point could be read",
    ]


def test_results_are_plain_values_without_pictures(scene, say):
    say('[{"label": "bed", "bbox_3d": [0, 0, 2, 1, 1, 1, 0, 0, 0]}]')
    told = json.loads(scene.detect().to_json())
    assert told["kind"] == "SceneBoxes" and "views" not in told
    assert told["boxes"][0]["convention"] == "ours" and told["boxes"][0]["frame"].startswith("camera of view 0")


def test_given_poses_tell_results_in_the_world(model, tiny_processor, views):
    turn = np.eye(4)
    turn[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # camera forward is x of the world
    turn[:3, 3] = [10, 20, 1]
    camera = np.array([[90.0, 0, 47.5], [0, 90, 31.5], [0, 0, 1]])
    scene = SceneSession(model, tiny_processor, views, intrinsics=camera, poses=[turn] * 3)
    told = LabelledBox("bed", (0, 0, 2, 1, 1, 1, 0, 0, 0))
    world = scene._box(told).in_world()
    assert world.view is None and np.allclose(world.center, (12, 20, 1)) and "world" in world.frame
    with pytest.raises(ValueError, match="place lies in the world"):
        scene.describe(world)
    with pytest.raises(ValueError, match="the pose of view 0 is not known"):
        SceneSession(model, tiny_processor, views)._box(told).in_world()


def test_a_model_that_reads_cameras_gets_them(tiny_model, tiny_config, tiny_processor, views):
    maps = GapMllmGeometryMapsConfig(**MAPS, teacher_config=tiny_config().geometry_config)
    model = tiny_model(geometry_config=maps, gap_fusion_config={"position_encoding": "position_3d"})
    poses = np.stack([np.eye(4)] * 3)
    poses[1:, 0, 3] = 1.5, -2
    camera = np.array([[90.0, 0, 47.5], [0, 90, 31.5], [0, 0, 1]])
    scene = SceneSession(model, tiny_processor, views, intrinsics=camera, poses=poses)
    chat = scene._order_from(1)
    encoded = scene._encoded([scene.messages("What?")], tuple(chat), ())
    pixels = scene._asker._pixels([[views[1], views[2], views[0]]])
    grid = pixels["image_grid_thw"]
    sizes = [(64, 96)] * 3
    known = KnownGeometry.from_pictures(grid, 16, sizes, intrinsics=[torch.tensor(camera)] * 3, poses=poses[chat])
    expected = model.model.get_image_features(
        **pixels,
        scene_lengths=[3],
        geometry_features=model.model.get_geometry_features(
            **pixels, scene_lengths=[3], intrinsics=known.intrinsics, poses=known.poses
        ),
        return_dict=True,
    )
    for own, wanted in zip(encoded.features.pooler_output, expected.pooler_output, strict=True):
        torch.testing.assert_close(own, wanted)
    without = scene._asker.encode([[views[1], views[2], views[0]]])
    assert not torch.equal(encoded.features.pooler_output[1], without.features.pooler_output[1])


def test_pictures_of_another_scene_are_refused_and_the_session_goes_on(scene, views, make_image):
    chat = scene.messages("What is there?")
    copies = [Image.fromarray(np.array(view)) for view in views]
    again = scene.processor.build_messages("reconstruction", copies, prompt="What is there?")
    placeholders = scene.processor.build_messages("reconstruction", 3, prompt="What is there?")
    answer = scene.ask("What is there?", max_new_tokens=5)
    assert [each.text for each in scene.ask_many([chat, again, placeholders], max_new_tokens=5)] == [answer.text] * 3
    others = scene.processor.build_messages("reconstruction", [*views[:2], make_image(96, 64)], prompt="What?")
    with pytest.raises(ValueError, match="picture 2 of the chat is not view 2 of this session"):
        scene.ask(others)
    with pytest.raises(ValueError, match="shows 2 pictures or videos, but this session has 3 views"):
        scene.ask(scene.processor.build_messages("reconstruction", views[:2], prompt="What?"))
    video = [{"role": "user", "content": [{"type": "video", "path": "clip.mp4"}]}]
    with pytest.raises(ValueError, match="Open another session for other views"):
        scene.ask(video)
    assert scene.ask("What is there?", max_new_tokens=5) == answer


def test_text_before_the_views_is_answered_as_by_the_plain_path(scene):
    texts = ["Look: <image><image><image> what?", "See <image><image> and <image>: where?"]
    chats = [scene.messages(text) for text in texts]
    expected = plain(scene, chats, max_new_tokens=8)
    assert [answer.text for answer in scene.ask_many(texts, max_new_tokens=8)] == expected
    assert [scene.ask(text, max_new_tokens=8).text for text in texts] == expected


def test_sessions_of_one_model_take_turns(model, tiny_processor, views, make_image):
    scenes = [SceneSession(model, tiny_processor, views[:2]), SceneSession(model, tiny_processor, [make_image()])]
    expected = [[plain(scene, [scene.messages(q)], max_new_tokens=8)[0] for q in QUESTIONS] for scene in scenes]
    for number, question in enumerate(QUESTIONS):
        for scene, texts in zip(scenes, expected, strict=True):
            assert scene.ask(question, max_new_tokens=8).text == texts[number]
    found = {}

    def work(place):
        found[place] = [scenes[place % 2].ask(question, max_new_tokens=8).text for question in QUESTIONS]

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[place] for place in range(4)] == expected * 2


def test_changed_weights_modes_and_adapters_are_noticed(scene):
    question = QUESTIONS[0]

    def check():
        answer = scene.ask(question, max_new_tokens=8).text
        assert answer == plain(scene, [scene.messages(question)], max_new_tokens=8)[0]
        return answer

    first = check()
    with scene.model.geometry_disabled():
        check()
    with torch.no_grad():
        scene.model.model.language_model.layers[0].mlp.down_proj.weight.mul_(-3)
    assert check() != first
    scene.model.train()
    check()
    assert not scene._kept
    scene.model.eval()
    check()


def test_adapters_of_peft(model, tiny_processor, views):
    peft = pytest.importorskip("peft")
    names = r".*language_model.*\.(q_proj|v_proj)"
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=names, init_lora_weights=False)).eval()
    scene = SceneSession(model, tiny_processor, views)
    chat = [scene.messages(QUESTIONS[0])]
    adapted = scene.ask(QUESTIONS[0], max_new_tokens=8).text
    assert adapted == tiny_processor.ask(model, chat, max_new_tokens=8)[0]
    with model.disable_adapter():
        bare = scene.ask(QUESTIONS[0], max_new_tokens=8).text
        assert bare == tiny_processor.ask(model, chat, max_new_tokens=8)[0]
    assert bare != adapted == scene.ask(QUESTIONS[0], max_new_tokens=8).text


def test_what_is_kept_is_bounded_and_let_go(scene):
    for x in range(7):
        scene.locate(0, x, 5, max_new_tokens=1)
    for number in range(5):
        scene.ask(f"Before {number}: <image><image><image>?", max_new_tokens=1)
    assert len(scene._kept) == 4
    assert all(len(encoded.prefixes._kept) <= 2 for encoded in scene._kept.values())
    with scene:
        pass
    assert not scene._kept and "closed" in repr(scene)
    with pytest.raises(ValueError, match="this session is closed"):
        scene.ask("What?")


def test_a_session_that_keeps_nothing(scene):
    bare = SceneSession(scene.model, scene.processor, scene.views.pictures, max_view_sets=0)
    answers = bare.ask_many((question for question in QUESTIONS), max_new_tokens=5)
    assert answers == scene.ask_many(QUESTIONS, max_new_tokens=5) and not bare._kept
    with pytest.raises(ValueError, match="max_view_sets is -1; expected 0 or more"):
        SceneSession(scene.model, scene.processor, scene.views.pictures, max_view_sets=-1)


@pytest.mark.slow
def test_questions_that_are_none(scene):
    with pytest.raises(TypeError, match="questions must be a list; for a single one call ask"):
        scene.ask_many("What?")
    with pytest.raises(TypeError, match="questions must be a list"):
        scene.ask_many(None)
    for batch_size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size is {batch_size}; expected 1 or more"):
            scene.ask_many(["What?"], batch_size=batch_size)
    for labels in (5, ["chair", 5]):
        with pytest.raises(TypeError, match="labels must be texts.*got 5"):
            scene.detect(labels)
    with pytest.raises(TypeError, match="a question is a text or a list of messages, got int"):
        scene.ask(5)
    with pytest.raises(ValueError, match="the question is empty"):
        scene.ask(" ")
    assert scene.ask_many([]) == []
    with pytest.raises(ValueError, match=r"pixel \(x=96, y=5\) lies outside the picture of 96 x 64"):
        scene.locate(0, 96, 5)
    with pytest.raises(ValueError, match="has 3 views"):
        scene.locate(3, 1, 1)
    with pytest.raises(ValueError, match="there are no marks"):
        scene.locate([])
    with pytest.raises(ValueError, match="expected a point of 3 numbers, or a box of 9"):
        scene.describe([1, 2])
    with pytest.raises(ValueError, match="needs `description`"):
        scene.ground("")


def test_a_session_from_the_processor(model, tiny_processor, views):
    assert isinstance(tiny_processor.open_scene(model, views[:1]), SceneSession)
    assert tiny_processor.open_scene(model, views[0]).locate(0, 3, 4, max_new_tokens=2).truncated


WITHOUT_PACKAGE = """
from PIL import Image

folder, out = sys.argv[1:]
model = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
views = [Image.effect_noise((96, 64), 60 + 20 * index).convert("RGB") for index in range(2)]
with processor.open_scene(model, views) as scene:
    answer = scene.ask("What is there?", max_new_tokens=6)
    found = scene.locate([[0, 5, 5], [1, 9, 9]], max_new_tokens=6)
    result = {
        "text": answer.text,
        "plain": processor.ask(model, [scene.messages("What is there?")], max_new_tokens=6)[0],
        "streamed": "".join(scene.stream("What is there?", max_new_tokens=6)),
        "found": found.to_dict(),
        "boxes": scene.detect(max_new_tokens=4).to_coco()["images"],
    }
    try:
        answer.plot()
    except ImportError as error:
        result["plot"] = str(error)
    try:
        scene.points()
    except ValueError as error:
        result["points"] = str(error)
json.dump(result, open(out, "w"))
"""


def test_without_the_package(model, tiny_processor, tmp_path, run_without_package):
    model.generation_config.pad_token_id = tiny_processor.tokenizer.pad_token_id
    model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    told = run_without_package(WITHOUT_PACKAGE, tmp_path)
    assert told["text"] == told["plain"] == told["streamed"] != ""
    assert told["found"]["kind"] == "ScenePoints" and len(told["found"]["points"]) == 2 and len(told["boxes"]) == 2
    assert "plot() needs the package with matplotlib" in told["plot"] and "tells no points" in told["points"]


def test_a_copy_of_a_model_has_a_lock_of_its_own(scene):
    scene.ask(QUESTIONS[0], max_new_tokens=2)
    other = copy.deepcopy(scene.model)
    assert model_lock(other) is not model_lock(scene.model) is model_lock(scene.model)
    assert SceneSession(other, scene.processor, scene.views.pictures).ask(QUESTIONS[0], max_new_tokens=2).text
