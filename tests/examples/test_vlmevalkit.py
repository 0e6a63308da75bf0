"""The wrapper for VLMEvalKit, driven by a stand-in: the kit is not on PyPI."""

import json
import sys
import types
from pathlib import Path

import pytest
from PIL import Image

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.processing import GapMllmProcessor
from gap_mllm.processing.data import render_room


ROOT = Path(__file__).parents[2]
EXAMPLE, MODEL = ROOT / "examples" / "vlmevalkit", ROOT / "examples" / "assets" / "tiny_gap_mllm"
VIDEO = ROOT / "tests" / "fixtures" / "formats" / "vsibench" / "scannet" / "scene9001_00.mp4"
SCRIPT = """
import json, sys
import vlmeval.vlm

config = json.load(open(sys.argv[sys.argv.index("--config") + 1]))
for name, settings in config["model"].items():
    model = getattr(vlmeval.vlm, settings.pop("class"))(**settings)
    model.set_dump_image(lambda line: None)
    messages = json.load(open(sys.argv[-1]))
    json.dump([model.generate(message, dataset="stub") for message in messages], open(sys.argv[-1] + ".out", "w"))
"""


class StandIn:
    """As much of `vlmeval.vlm.base.BaseModel` as the kit's inference calls."""

    allowed_types = ("text", "image")

    def generate(self, message, dataset=None):
        assert all(part["type"] in self.allowed_types for part in message)
        return self.generate_inner(message, dataset)


@pytest.fixture
def kit(monkeypatch):
    """The stand-in in the place of the kit, and the wrapper on the path."""
    modules = {name: types.ModuleType(name) for name in ("vlmeval", "vlmeval.vlm", "vlmeval.vlm.base")}
    modules["vlmeval.vlm.base"].BaseModel = StandIn
    modules["vlmeval"].vlm = modules["vlmeval.vlm"]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield modules["vlmeval.vlm"]
    for name in [name for name in sys.modules if name.partition(".")[0] == "gap_mllm_vlmevalkit"]:
        del sys.modules[name]


@pytest.fixture
def wrapper(kit):
    from gap_mllm_vlmevalkit.model import GapMllm

    return GapMllm(str(MODEL), max_new_tokens=12, num_frames=4, device="cpu")


def text(words):
    return {"type": "text", "value": words}


def expected(views, *words, system="You are a helpful assistant."):
    """What transformers answers to the same chat."""
    model = GapMllmForConditionalGeneration.from_pretrained(MODEL).eval()
    processor = GapMllmProcessor.from_pretrained(MODEL)
    content = [
        *({"type": "image", "image": view} for view in views),
        *({"type": "text", "text": each} for each in words),
    ]
    chat = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    chat.append({"role": "user", "content": content})
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template(chat, **options)
    output = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    paths = []
    for number, view in enumerate(render_room(0).images[:3]):
        Image.fromarray(view).save(folder / f"{number}.png")
        paths.append(str(folder / f"{number}.png"))
    return paths


def test_the_script_of_the_kit_answers_as_transformers(kit, pictures, tmp_path):
    from gap_mllm_vlmevalkit.run import main

    (tmp_path / "run.py").write_text(SCRIPT)
    config = json.loads((EXAMPLE / "config.json").read_text())
    config["model"]["gap-mllm"] |= {"model_path": str(MODEL), "max_new_tokens": 12, "device": "cpu"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    words = "Which of these is nearer?\nA. bed\nB. lamp"
    views = [{"type": "image", "value": path} for path in pictures]
    messages = [[*views, text(words)], [text("How many chairs are there?")]]
    (tmp_path / "messages.json").write_text(json.dumps(messages))
    before = list(sys.argv), list(sys.path)
    main([str(tmp_path / "run.py"), "--config", str(tmp_path / "config.json"), str(tmp_path / "messages.json")])
    answers = json.loads((tmp_path / "messages.json.out").read_text())
    assert answers == [expected(map(Image.open, pictures), words), expected([], "How many chairs are there?")]
    assert answers[0] != answers[1] and (sys.argv, sys.path) == before


def test_words_may_stand_between_pictures_and_a_video_gives_frames(wrapper, pictures):
    part = {"type": "image", "value": pictures[0]}
    one = wrapper.generate([part, text("Where is the bed?")])
    assert one == expected([Image.open(pictures[0])], "Where is the bed?")
    seen = []
    encode = wrapper.asker.encode
    wrapper.asker.encode = lambda view_sets: seen.append(view_sets) or encode(view_sets)
    wrapper.generate([text("Look: "), part, text("and "), {"type": "image", "value": pictures[1]}, text("where?")])
    wrapper.generate([{"type": "video", "value": str(VIDEO)}, text("What is this?")])
    assert [[len(views) for views in sets] for sets in seen] == [[2], [4]]  # one scene each


def test_no_system_turn(kit, pictures):
    from gap_mllm_vlmevalkit.model import GapMllm

    model = GapMllm(str(MODEL), max_new_tokens=12, device="cpu", system_prompt="")
    answer = model.generate([{"type": "image", "value": pictures[0]}, text("Where is the bed?")])
    assert answer == expected([Image.open(pictures[0])], "Where is the bed?", system=None)


def test_what_is_wrong_is_named(kit, wrapper, tmp_path, monkeypatch):
    from gap_mllm_vlmevalkit.model import GapMllm
    from gap_mllm_vlmevalkit.run import main

    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        GapMllm(str(MODEL), max_new_tokens=0)
    with pytest.raises(ValueError, match="num_frames is 0"):
        GapMllm(str(MODEL), num_frames=0)
    with pytest.raises(FileNotFoundError, match="nowhere.png"):
        wrapper.generate([{"type": "image", "value": "nowhere.png"}, text("What?")])
    with pytest.raises(ValueError, match="type 'audio'"):
        wrapper.generate_inner([{"type": "audio", "value": "a.wav"}])
    with pytest.raises(SystemExit, match="usage: gap-mllm-vlmevalkit path/to/VLMEvalKit/run.py"):
        main([str(tmp_path / "run.py")])
    (tmp_path / "run.py").write_text("")
    for name in ("vlmeval", "vlmeval.vlm", "vlmeval.vlm.base"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit, match="git clone https://github.com/open-compass/VLMEvalKit"):
        main([str(tmp_path / "run.py")])
