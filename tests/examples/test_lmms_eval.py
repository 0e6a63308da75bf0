"""The wrapper for lmms-eval answers as `gap-mllm evaluate` does.

Most tests put a small stand-in in the place of lmms-eval's classes; the last ones need the harness itself.
"""

import importlib
import io
import json
import shutil
import sys
import tomllib
import types
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoModel, AutoProcessor

from gap_mllm.evaluation.metrics.lmms_eval_rules import REASONING_TAGS, lmms_eval_text
from gap_mllm.evaluation.metrics.vsibench import (
    CHOICE_TYPES,
    NUMBER_TYPES,
    vsibench_aggregate,
    vsibench_overall,
    vsibench_score,
)
from gap_mllm.evaluation.runner import evaluate_model
from gap_mllm.processing.data.sources.wordings import vsibench_prompt
from gap_mllm.processing.data.video_frames import read_video_frames, video_info
from tests.examples.harness_run import EXAMPLE, MODEL, run_harness
from tests.test_structure import ROOT


TASK = EXAMPLE / "gap_mllm_lmms_eval" / "tasks" / "vsibench_local"
VIDEOS = ROOT / "tests" / "fixtures" / "formats" / "vsibench"
SCENES = (("scannet", "scene9001_00"), ("arkitscenes", "99000001"), ("scannetpp", "99ab12cd34"))
GREEDY = {"max_new_tokens": 16, "temperature": 0.0, "do_sample": False, "until": ["\n\n"]}
NEEDS_HARNESS = pytest.mark.skipif(find_spec("lmms_eval") is None, reason="lmms-eval is not installed")


def question_rows():
    """Twelve questions, one at least of each type, four about each of three videos."""
    rows = []
    for number, kind in enumerate((*CHOICE_TYPES, *NUMBER_TYPES, *NUMBER_TYPES[:2])):
        dataset, scene = SCENES[number % 3]
        is_choice = kind in CHOICE_TYPES
        asked = "which is nearer to the small table?" if is_choice else "how many chairs are in this room?"
        row = {"id": number, "dataset": dataset, "scene_name": scene, "question_type": kind}
        row |= {"question": f"Question {number}: {'please say ' * (number % 4)}{asked}"}
        row |= {"ground_truth": "A" if is_choice else str(1 + number % 3)}
        rows.append(row | {"options": ["A. chair", "B. lamp"] if is_choice else None})
    return rows


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """A folder as VSI-Bench unpacks to, with the task's files beside it."""
    folder = tmp_path_factory.mktemp("vsibench")
    for dataset, scene in SCENES:
        (folder / dataset).mkdir()
        shutil.copy(VIDEOS / dataset / f"{scene}.mp4", folder / dataset)
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in question_rows()))
    for file in TASK.glob("vsibench_local.*"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def ours(benchmark, tmp_path_factory):
    """Answers of `gap-mllm evaluate`, by id."""
    output, threads = tmp_path_factory.mktemp("ours"), torch.get_num_threads()
    settings = {"batch_size": 4, "baselines": [], "device": "cpu", "with_report": False, "show_progress": False}
    try:
        evaluate_model(MODEL, "vsibench", benchmark, output, cache_dir=output / "cache", **settings)
    finally:
        torch.set_num_threads(threads)
    lines = (output / "predictions.jsonl").read_text().splitlines()
    return {answer["id"]: answer["text"] for answer in map(json.loads, lines)}


# With a stand-in for lmms-eval


class Manifest(SimpleNamespace):
    """For `lmms_eval.models.registry_v2.ModelManifest`."""


class StandIn:
    """As much of `lmms_eval.api.model.lmms` as a chat model uses."""

    is_simple = True

    def __init__(self):
        self._rank, self._world_size, self.task_dict = 0, 1, {}

    rank = property(lambda self: self._rank)
    world_size = property(lambda self: self._world_size)


@contextmanager
def stand_in():
    """Put the stand-in in the place of lmms-eval, whether that is installed or not."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.models"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        for name, member in (("api.model", {"lmms": StandIn}), ("models.registry_v2", {"ModelManifest": Manifest})):
            module = types.ModuleType(f"lmms_eval.{name}")
            module.__dict__.update(member)
            patch.setitem(sys.modules, module.__name__, module)
        yield


@pytest.fixture(scope="module")
def wrapper():
    """The wrapper's package, imported on top of the stand-in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        with stand_in():
            package = importlib.import_module("gap_mllm_lmms_eval")
            importlib.import_module("gap_mllm_lmms_eval.model")
        yield package
        for name in [name for name in sys.modules if name.partition(".")[0] == "gap_mllm_lmms_eval"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def harness_model(wrapper):
    return wrapper.model.GapMllm(str(MODEL), batch_size="4", device="cpu")


@pytest.fixture
def ask(harness_model, monkeypatch):
    """A function (documents, to_messages, **generation_kwargs) -> answers, as the harness asks a chat model."""

    def ask_all(documents, to_messages, **settings):
        monkeypatch.setattr(harness_model, "task_dict", {"task": {"test": documents}})
        requests = [
            SimpleNamespace(args=("", to_messages, {**GREEDY, **settings}, place, "task", "test"))
            for place in range(len(documents))
        ]
        return harness_model.generate_until(requests)

    return ask_all


@pytest.fixture
def calls(harness_model, monkeypatch):
    """What the model is asked for: scene lengths of each encoding, and arguments of each generate()."""
    seen = SimpleNamespace(scenes=[], generate=[])
    base, encode = harness_model.model.model, harness_model.model.model.get_image_features
    generate = harness_model.model.generate

    def spy_encode(*args, **kwargs):
        seen.scenes.append(kwargs["scene_lengths"])
        return encode(*args, **kwargs)

    def spy_generate(**kwargs):
        seen.generate.append(kwargs)
        return generate(**kwargs)

    monkeypatch.setattr(base, "get_image_features", spy_encode)
    monkeypatch.setattr(harness_model.model, "generate", spy_generate)
    return seen


def as_chat(*parts):
    return [{"role": "user", "content": list(parts)}]


def text(words):
    return {"type": "text", "text": words}


def video_question(folder):
    """The chat that lmms-eval's VSI-Bench makes."""

    def to_messages(row):
        prompt = vsibench_prompt(row["question"], row["options"])
        return as_chat({"type": "video", "url": f"{folder}/{row['dataset']}/{row['scene_name']}.mp4"}, text(prompt))

    return to_messages


def test_answers_and_batches_are_those_of_evaluate(ask, benchmark, ours, calls):
    texts = ask(question_rows(), video_question(benchmark))
    assert {str(place): answer for place, answer in enumerate(texts)} == ours
    assert len(set(texts)) > 1  # or agreement would say nothing
    assert [len(call["input_ids"]) for call in calls.generate] == [4, 4, 4]
    lengths = [video_info(VIDEOS / dataset / f"{scene}.mp4").num_frames for dataset, scene in SCENES]
    assert sorted(calls.scenes) == sorted([min(length, 32)] for length in lengths)  # four questions, one encoding


def test_the_answer_is_that_of_transformers_alone(ask, benchmark):
    row = question_rows()[0]
    (answer,) = ask([row], video_question(benchmark))
    path = benchmark / row["dataset"] / f"{row['scene_name']}.mp4"
    frames = [frame.image for frame in read_video_frames(path, range(video_info(path).num_frames))]
    views = [{"type": "image", "image": jpeg(frame)} for frame in frames]
    prompt = vsibench_prompt(row["question"], row["options"])
    messages = [{"role": "system", "content": [text("You are a helpful assistant.")]}, *as_chat(*views, text(prompt))]
    model, processor = AutoModel.from_pretrained(MODEL).eval(), AutoProcessor.from_pretrained(MODEL)
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    output = model.generate(**inputs, max_new_tokens=16, do_sample=False)
    alone = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer == alone[0]


def jpeg(image):
    """As frames of a video are stored."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=95)
    return Image.open(buffer)


def test_pictures_of_a_document_are_one_scene_and_shapes_are_not_mixed(ask, calls, make_image):
    pictures = [make_image(seed=seed) for seed in range(3)]
    documents = [
        [pictures[0], pictures[1]],
        [],
        [pictures[2], pictures[0]],
        [make_image(120, 160)],
        [pictures[0].copy(), pictures[1]],
    ]

    def to_messages(views):
        return as_chat(*({"type": "image", "url": view} for view in views), text("What is this?"))

    wrapped = [{"id": None, "views": views} for views in documents]
    texts = ask(wrapped, lambda doc: to_messages(doc["views"]))
    assert sorted(len(call["input_ids"]) for call in calls.generate) == [1, 1, 3]
    assert sorted(calls.scenes) == [[1], [2, 2]]  # the first document and the last show the same
    assert texts[0] == texts[4]
    for place in range(len(documents)):  # the order of the answers is that of the requests
        assert ask(wrapped[place : place + 1], lambda doc: to_messages(doc["views"])) == [texts[place]]


def test_a_path_is_a_picture_and_a_system_turn_of_the_task_stays(harness_model, wrapper, make_image, tmp_path):
    make_image().save(tmp_path / "view.png")
    messages = as_chat({"type": "image", "url": str(tmp_path / "view.png")}, text("What?"))
    chat = wrapper.chats.read_chat(messages, harness_model.system_prompt)
    assert chat[0] == {"role": "system", "content": [("text", "You are a helpful assistant.")]}
    assert wrapper.chats.chat_shape(chat) == ((160, 120),) and wrapper.chats.num_characters(chat) == 28 + 5
    shown, views = wrapper.chats.show_views(chat, 32)
    assert views[0].tobytes() == make_image().tobytes() and len(views) == 1
    assert [part["type"] for part in shown[1]["content"]] == ["image", "text"]
    own = [{"role": "system", "content": "Be brief."}, *messages]
    assert wrapper.chats.read_chat(own, harness_model.system_prompt)[0]["content"] == [("text", "Be brief.")]
    assert len(wrapper.chats.read_chat(messages, "")) == 1


def test_length_and_stop_strings_are_kept(ask, calls, benchmark):
    row, chat = question_rows()[-1], video_question(benchmark)
    row["question"] = "Detect all objects with their 3D bounding boxes."  # a long answer
    (whole,) = ask([row], chat)
    word = whole.split()[1]
    assert ask([row], chat, until=[word, "\n\n"]) == [whole[: whole.index(word)]]
    (short,) = ask([row], chat, max_new_tokens=3)
    assert whole.startswith(short) and len(short) < len(whole)
    assert calls.generate[0]["do_sample"] is False and "stop_strings" not in calls.generate[0]
    assert calls.generate[1]["stop_strings"] == [word] and calls.generate[2]["max_new_tokens"] == 3


def test_a_temperature_means_sampling(ask, calls, benchmark):
    ask(question_rows()[:1], video_question(benchmark), temperature=0.7, top_p=0.9)
    assert {key: calls.generate[0][key] for key in ("do_sample", "temperature", "top_p")} == {
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.9,
    }


def test_settings_are_read(wrapper):
    read = wrapper.settings.GenerationSettings.read
    assert read({}, 64) == read({"until": ["\n\n", ""], "temperature": 0, "top_p": 1.0, "num_beams": 1}, 64)
    assert read({}, 64).max_new_tokens == 64 and read({}, 64).options == ()
    assert read({"do_sample": True}, 64).options == (("do_sample", True),)
    assert read({"do_sample": True, "temperature": 0}, 64).options == ()
    assert read({"repetition_penalty": 1.1}, 64).options == (("repetition_penalty", 1.1),)
    assert read({"until": "."}, 8).cut("one. two.") == "one" and read({"until": "."}, 8).cut("one") == "one"
    assert read({"until": ["two", "ne"]}, 8).cut("one two") == "o"
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        read({"max_new_tokens": 0}, 64)
    with pytest.raises(ValueError, match="num_beams is 4; expected 1"):
        read({"num_beams": 4}, 64)
    with pytest.raises(ValueError, match="temperature is -1"):
        read({"temperature": -1}, 64)
    with pytest.raises(TypeError, match="until is 3; expected a text"):
        read({"until": 3}, 64)


@pytest.mark.parametrize(
    ("part", "error", "message"),
    [
        ({"type": "audio", "url": "a.wav"}, ValueError, "type 'audio'"),
        ({"type": "video", "url": "a.mp4", "start_time": 1.0}, ValueError, "a.mp4 is asked for as a clip"),
        ({"type": "video", "url": [1, 2]}, TypeError, "a video is given as list"),
        ({"type": "image", "url": "nowhere.png"}, FileNotFoundError, "nowhere.png"),
        ({"type": "video", "url": "nowhere.mp4"}, FileNotFoundError, "nowhere.mp4"),
    ],
)
def test_what_cannot_be_shown_is_named(ask, part, error, message):
    with pytest.raises(error, match=message):
        ask([{}], lambda _: as_chat(part, text("What?")))


def test_errors_name_task_and_document(ask):
    with pytest.raises(ValueError, match="task, document 1: a message holds"):
        ask([{"kind": "text"}, {"kind": "audio"}], lambda doc: as_chat({"type": doc["kind"], "text": "", "url": ""}))
    with pytest.raises(ValueError, match="task, document 0: num_beams is 2"):
        ask([{}], lambda _: as_chat(text("What?")), num_beams=2)


def test_settings_without_effect_are_named(ask, wrapper, monkeypatch):
    said = []
    monkeypatch.setattr(wrapper.model.logger, "warning_once", said.append)
    ask([{}], lambda _: as_chat(text("What?")), image_aspect_ratio="pad", max_new_tokens=1)
    assert said == ["generation_kwargs without effect on GAP-MLLM: image_aspect_ratio."]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"batch_size": "auto"}, "batch_size is 'auto'; expected a number"),
        ({"max_num_frames": 0}, "max_num_frames is 0"),
        ({"max_new_tokens": -2}, "max_new_tokens is -2"),
        ({"max_batch_size": 8}, "max_batch_size is 8"),
    ],
)
def test_arguments_are_checked_before_the_model_loads(wrapper, monkeypatch, argument, message):
    monkeypatch.setattr(wrapper.model.AutoModel, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=message):
        wrapper.model.GapMllm(str(MODEL), **argument)


def test_other_kinds_of_requests_are_refused(harness_model):
    with pytest.raises(NotImplementedError, match="generate_until"):
        harness_model.loglikelihood([])
    with pytest.raises(NotImplementedError, match="one round"):
        harness_model.generate_until_multi_round([])


def test_the_entry_point_names_a_chat_model(wrapper, harness_model):
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    module, _, function = project["entry-points"]["lmms_eval.models"]["gap_mllm"].partition(":")
    with stand_in():
        manifest = getattr(importlib.import_module(module), function)()
    assert manifest.model_id == "gap_mllm"
    module, _, name = manifest.chat_class_path.rpartition(".")
    assert getattr(importlib.import_module(module), name) is type(harness_model) and harness_model.is_simple is False


# With lmms-eval itself


@NEEDS_HARNESS
def test_texts_and_score_of_the_harness_are_ours(benchmark, ours, tmp_path):
    theirs, answers = run_harness("vsibench_local", benchmark, tmp_path, batch_size=4)
    raw = {str(answer["doc_id"]): answer.get("resps", answer["filtered_resps"]) for answer in answers}
    assert raw == ours  # "resps" is written only where it differs from what is scored
    scored = {str(answer["doc_id"]): answer["filtered_resps"] for answer in answers}
    assert scored == {name: answer.strip() for name, answer in ours.items()}
    rows = question_rows()
    kinds = [row["question_type"] for row in rows]
    scores = [
        vsibench_score(ours[str(row["id"])], row["ground_truth"], row["question_type"], "lmms_eval") for row in rows
    ]
    averages = vsibench_aggregate(scores, kinds)
    answered = [ours[str(row["id"])] for row in rows]
    whole = vsibench_overall(answered, [row["ground_truth"] for row in rows], kinds, "lmms_eval")
    assert theirs["vsibench_overall,none"] == pytest.approx(whole, abs=1e-6)
    assert averages["missing"] == [] and averages["overall"] > 0
    assert theirs["vsibench_overall,none"] == pytest.approx(averages["overall"], abs=1e-6)  # it rounds to 6 digits
    tasks = [task for task in averages if task.startswith(("obj", "room", "route"))]
    assert len(tasks) == 8
    for task in tasks:
        ending = "mra" if task in NUMBER_TYPES else "accuracy"
        assert theirs[f"{task}_{ending},none"] == pytest.approx(averages[task], abs=1e-6)


@NEEDS_HARNESS
@pytest.mark.parametrize(
    "answer",
    [
        *("A", "a.", "A. chair", "B", " A", "A.\n", "The answer is A", "", "no idea", "nan"),
        *("2", "2.0 chairs", "There are two chairs", "-2", "twenty-one", "1,200", "about 1.9 m", "1e1"),
        *("two hundred and five", "two two", "two, and one3", "and two million", "hundred thousand", "zero two"),
    ],
)
def test_single_scores_are_those_of_the_harness(answer):
    utils = importlib.import_module("lmms_eval.tasks.vsibench.utils")
    for row in question_rows():
        row = row | ({} if row["question_type"] in CHOICE_TYPES else {"ground_truth": "2"})
        theirs = utils.vsibench_process_results(dict(row), [answer])["vsibench_overall"]
        score = theirs.get("accuracy", theirs.get("MRA:.5:.95:.05"))
        assert vsibench_score(answer, row["ground_truth"], row["question_type"], "lmms_eval") == pytest.approx(score)


@NEEDS_HARNESS
@pytest.mark.parametrize(
    "answer", [" A\n", "<think>B</think> A", "so B</think>A", "<think>A", "<analysis>x</analysis><think>y</think>2"]
)
def test_texts_are_cut_as_the_harness_cuts_them(answer):
    reasoning = importlib.import_module("lmms_eval.api.reasoning")
    pairs = [[f"<{tag}>", f"</{tag}>"] for tag in REASONING_TAGS]
    assert lmms_eval_text(answer) == reasoning.strip_reasoning_tags(answer, pairs)


@NEEDS_HARNESS
def test_the_prompt_is_that_of_the_harness():
    utils = importlib.import_module("lmms_eval.tasks.vsibench.utils")
    for row in question_rows():
        assert utils.vsibench_doc_to_text(row) == vsibench_prompt(row["question"], row["options"])


def test_the_task_names_functions_and_files_that_are_there():
    functions = []

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: functions.append(node.value) or node.value)
    task = yaml.load((TASK / "vsibench_local.yaml").read_text(), Loader)  # safe: only strings are made
    assert task["task"] == "vsibench_local" and task["dataset_kwargs"] == {"data_files": {"test": "test.jsonl"}}
    assert len(task["metric_list"]) == 9
    source = (TASK / "vsibench_local.py").read_text()
    assert all(f"def {name.rpartition('.')[2]}(" in source for name in functions if name.startswith("vsibench_local."))
    if find_spec("lmms_eval") is not None:
        utils = importlib.import_module("lmms_eval.tasks.vsibench.utils")
        assert all(hasattr(utils, name.rpartition(".")[2]) for name in functions if name.startswith("lmms_eval."))
