"""The plugin for vLLM answers as transformers does, token for token. Run by `make test-vllm`."""

import copy
import gc
import json
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.configuration_gap_mllm import FUSION_METHODS
from gap_mllm.hub import save_for_hub
from gap_mllm.processing import GapMllmProcessor
from gap_mllm.processing.data import render_room


pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm")

MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
TOKENS = 24
SETTINGS = {  # of a processor on two cores; the rest is vLLM's own choice
    "dtype": "float32",
    "max_model_len": 2048,
    "max_num_seqs": 8,
    "limit_mm_per_prompt": {"image": 8, "video": 1},
    "enforce_eager": True,
    "distributed_executor_backend": "uni",
    "seed": 0,
    "disable_log_stats": True,
}
POSITIONS = {"position_encoding": "position_3d"}
OTHERS = [method for method in FUSION_METHODS if method != "gated"]


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
        }.items():
            patch.setenv(name, value)
        yield


@contextmanager
def engine(folder=MODEL, **changes):
    """A `vllm.LLM` of its own for a while."""
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    llm = LLM(str(folder), **{**SETTINGS, **changes})
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
        cleanup_dist_env_and_memory()


class Prompt:
    """A chat about pictures and videos, in the forms of both."""

    def __init__(self, processor, content, history=()):
        self.pictures = [part["image"] for part in content if part["type"] == "image"]
        self.videos = [part["video"] for part in content if part["type"] == "video"]
        self.messages = [*history, {"role": "user", "content": content}]
        for message in history:
            parts = message["content"] if isinstance(message["content"], list) else []
            self.pictures = [part["image"] for part in parts if part["type"] == "image"] + self.pictures
        self.text = processor.apply_chat_template(self.messages, add_generation_prompt=True, tokenize=False)

    def for_vllm(self):
        data = {"image": self.pictures} if self.pictures else {}
        if self.videos:
            data["video"] = [(np.stack(video), _metadata(video)) for video in self.videos]
        return {"prompt": self.text, **({"multi_modal_data": data} if data else {})}

    def for_transformers(self, processor):
        videos = {}
        if self.videos:
            videos = {"videos": [np.stack(video) for video in self.videos], "do_sample_frames": False}
            videos["video_metadata"] = [_metadata(video) for video in self.videos]
        return processor(text=[self.text], images=self.pictures or None, return_tensors="pt", **videos)


def _metadata(video):
    frames = len(video)
    told = {"fps": 2.0, "duration": frames / 2, "total_num_frames": frames, "frames_indices": list(range(frames))}
    return {**told, "video_backend": "opencv", "do_sample_frames": False}


def view(picture):
    return {"type": "image", "image": picture}


def text(words):
    return {"type": "text", "text": words}


@pytest.fixture(scope="module")
def processor():
    return GapMllmProcessor.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def model():
    return GapMllmForConditionalGeneration.from_pretrained(MODEL).eval()


@pytest.fixture(scope="module")
def prompts(processor):
    """By name: 1 to 8 views, mixed sizes, text between views, two turns, shared first views, videos."""
    seen = [[Image.fromarray(np.asarray(picture)) for picture in render_room(seed).images] for seed in range(8)]
    rooms = [seen[2 * room] + seen[2 * room + 1] for room in range(4)]
    find = text("Detect all objects as 3D boxes in JSON.")
    contents = {f"{count} views": [*map(view, rooms[count % 4][:count]), find] for count in range(1, 9)}
    sizes = [(96, 96), (160, 96), (256, 192), (640, 480)]
    mixed = [picture.resize(size) for picture, size in zip(rooms[0], sizes, strict=False)]
    contents["mixed sizes"] = [*map(view, mixed), find]
    first, *others = map(view, rooms[1][:3])
    contents["text between"] = [first, text("That is one corner. And here are the others: "), *others, find]
    contents["shared first views"] = [*map(view, rooms[0][:2]), view(rooms[2][0]), find]
    contents["other order"] = [*map(view, rooms[0][1::-1]), view(rooms[2][0]), find]
    contents["text alone"] = [text("What can you do?")]
    video = [np.asarray(picture.resize((128, 128))) for picture in rooms[3][:5]]
    contents["video"] = [{"type": "video", "video": video}, find]
    contents["video before views"] = [{"type": "video", "video": video[:4]}, *map(view, rooms[0][:2]), find]
    made = {name: Prompt(processor, content) for name, content in contents.items()}
    history = [{"role": "user", "content": [*map(view, rooms[2][:2]), find]}]
    history.append({"role": "assistant", "content": [text("There is a bed.")]})
    made["two turns"] = Prompt(processor, [text("And in this view?"), view(rooms[2][2])], history)
    return made


def answer(model, processor, prompt, tokens=TOKENS):
    inputs = prompt.for_transformers(processor).to(model.dtype)
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.fixture(scope="module")
def expected(model, processor, prompts):
    return {name: answer(model, processor, prompt) for name, prompt in prompts.items()}


def ask(llm, prompts, tokens=TOKENS, **settings):
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=tokens, **settings)
    return llm.generate([prompt.for_vllm() for prompt in prompts.values()], sampling, use_tqdm=False)


def tokens_of(outputs, names):
    return {name: list(output.outputs[0].token_ids) for name, output in zip(names, outputs, strict=True)}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_num_batched_tokens": 48, "enable_chunked_prefill": True},
        {"enable_prefix_caching": False, "mm_processor_cache_gb": 0},
    ],
    ids=["as vLLM chooses", "chunked prefill", "caches off"],
)
def test_tokens_are_those_of_transformers(prompts, expected, changes):
    with engine(**changes) as llm:
        assert tokens_of(ask(llm, prompts), prompts) == expected
        assert tokens_of(ask(llm, prompts), prompts) == expected  # of what the first pass left in the caches


def test_views_that_are_encoded_alone_answer_otherwise(model, processor, prompts):
    """The equality would tell: what vLLM does by default, one item an image, is another model."""
    prompt = prompts["4 views"]
    inputs = prompt.for_transformers(processor)
    with torch.no_grad():
        whole = model(**inputs).logits[0, -1]
        alone = model(**inputs, scene_lengths=[1] * len(prompt.pictures)).logits[0, -1]
    assert (whole - alone).abs().max() > 0.1


def _save(tiny_model, processor, folder, **changes):
    text = {"head_dim": 32, "rope_parameters": {"mrope_section": [6, 5, 5]}}  # what vLLM's attention has on processors
    model = tiny_model(seed=1, text_config=text, **changes)
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    if changes.get("gap_fusion_config") == POSITIONS:
        _bring_near(model.model.geometry)
    return model, save_for_hub(model, processor, folder)


@torch.no_grad()
def _bring_near(encoder):
    """Points within metres: random ones are kilometres away, where rounding moves them to other voxels."""
    last = encoder.camera_head.pose_branch.fc2
    last.weight.mul_(0.01)
    last.bias.copy_(torch.tensor([0.0] * 6 + [1.0, 0.25, 0.25]))  # no turn, and a field of view (over iterations)
    encoder.depth_head.scratch.output_conv2[-1].weight.mul_(0.1)


def _random_prompts(processor, make_image):
    pictures = [make_image(96, 64, seed=seed) for seed in range(3)]
    contents = {"one": [view(pictures[0]), text("Where is it?")]}
    contents["three"] = [*map(view, pictures), text("What is left of the bed?")]
    frames = [np.asarray(make_image(64, 64, seed=seed)) for seed in range(4, 9)]
    contents["video"] = [{"type": "video", "video": frames}, text("How large is it?")]
    return {name: Prompt(processor, content) for name, content in contents.items()}


@pytest.mark.parametrize(
    "changes",
    [
        *({"gap_fusion_config": {"method": method}} for method in OTHERS),
        {"geometry_config": {"model_type": "gap_mllm_vggt_points"}, "gap_fusion_config": POSITIONS},
        {"use_geometry": False},
    ],
    ids=[*OTHERS, "positions of points", "no geometry"],
)
def test_every_fusion_and_encoder(tiny_model, tiny_processor, make_image, tmp_path, changes):
    model, folder = _save(tiny_model, tiny_processor, tmp_path / "model", **changes)
    prompts = _random_prompts(tiny_processor, make_image)
    wanted = {name: answer(model, tiny_processor, prompt, 8) for name, prompt in prompts.items()}
    with engine(folder) as llm:
        assert tokens_of(ask(llm, prompts, 8, ignore_eos=True), prompts) == wanted


def test_an_encoder_whose_weights_stand_apart(tiny_model, tiny_processor, make_image, tmp_path):
    model, whole = _save(tiny_model, tiny_processor, tmp_path / "whole")
    model.model.geometry.save_pretrained(tmp_path / "encoder")
    apart = {"include_geometry_weights": False, "geometry_weights": str(tmp_path / "encoder")}
    folder = save_for_hub(model, tiny_processor, tmp_path / "apart", **apart)
    assert not [name for name in load_file(folder / "model.safetensors") if ".geometry." in name]
    prompts = _random_prompts(tiny_processor, make_image)
    with engine(whole) as llm:
        wanted = tokens_of(ask(llm, prompts, 8, ignore_eos=True), prompts)
    with engine(folder) as llm:
        assert tokens_of(ask(llm, prompts, 8, ignore_eos=True), prompts) == wanted


def test_whole_weights_without_geometry_are_plain_qwen(model, processor, prompts):
    with model.geometry_disabled():
        wanted = answer(model, processor, prompts["3 views"])
    with engine(hf_overrides={"use_geometry": False}) as llm:
        assert tokens_of(ask(llm, {"3 views": prompts["3 views"]}), ["3 views"]) == {"3 views": wanted}


def test_other_weights_are_refused_by_name(tiny_model, tiny_processor, tmp_path):
    _, folder = _save(tiny_model, tiny_processor, tmp_path / "model")
    file = folder / "model.safetensors"
    weights = {name: value for name, value in load_file(file).items() if ".fusion." not in name}
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ValueError, match="not initialized from checkpoint.*fusion"), engine(folder):
        pass


def test_an_encoder_of_known_geometry_is_refused(tiny_model, tiny_processor, tmp_path):
    _, folder = _save(tiny_model, tiny_processor, tmp_path / "model")
    told = json.loads((folder / "config.json").read_text())
    told["geometry_config"] = {"model_type": "gap_mllm_geometry_maps"}
    (folder / "config.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="vLLM has no place for"), engine(folder):
        pass


def test_a_tower_that_runs_alone_is_refused():
    with pytest.raises(ValueError, match="cudagraph_mm_encoder"):
        with engine(compilation_config={"cudagraph_mm_encoder": True}):
            pass


def test_half_precision(model, processor, prompts):
    """In bfloat16 the first tokens are as probable as they are in transformers, as far as its digits go."""
    chosen = {name: prompts[name] for name in ("1 views", "4 views", "two turns", "video")}
    half = copy.deepcopy(model).to(torch.bfloat16)
    with engine(dtype="bfloat16") as llm:
        outputs = ask(llm, chosen, 1, logprobs=1)
    for prompt, output in zip(chosen.values(), outputs, strict=True):
        with torch.no_grad():
            logits = half(**prompt.for_transformers(processor).to(torch.bfloat16)).logits[0, -1].float()
        ((token, told),) = [*output.outputs[0].logprobs[0].items()][:1]
        assert told.logprob == pytest.approx(logits.log_softmax(-1)[token].item(), abs=0.1)


@pytest.fixture(scope="module")
def running():
    with engine() as llm:
        yield llm


@pytest.fixture
def still_answers(running, prompts, expected):
    """What comes after bad input is answered as ever."""
    yield
    assert tokens_of(ask(running, {"2 views": prompts["2 views"]}), ["2 views"]) == {"2 views": expected["2 views"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda asked: asked.pop("multi_modal_data"), "has 2 image or video tokens, but no pictures came"),
        (lambda asked: asked["multi_modal_data"]["image"].pop(), "1 pictures came, but the prompt has 2"),
        (lambda asked: asked["multi_modal_data"].update(image=asked["multi_modal_data"]["image"] * 5), "At most 8"),
        (lambda asked: asked.update(mm_processor_kwargs={"image_mean": [0.1] * 3}), "change image_mean"),
        (lambda asked: asked.update(mm_processor_kwargs={"do_normalize": False}), "change do_normalize"),
        (lambda asked: asked["multi_modal_data"].update(image=torch.zeros(2, 4, 128)), "--enable-mm-embeds"),
        (lambda asked: asked["multi_modal_data"]["image"].__setitem__(0, Image.new("RGB", (1, 400))), "aspect ratio"),
    ],
    ids=["no pictures", "one missing", "too many", "other mean", "not normalised", "embeddings", "a line"],
)
def test_bad_requests_say_what_to_do(running, still_answers, prompts, change, message):
    asked = prompts["2 views"].for_vllm()
    asked["multi_modal_data"] = {"image": list(asked["multi_modal_data"]["image"])}
    change(asked)
    with pytest.raises(Exception, match=message):  # vLLM's own are of several kinds
        running.generate([asked], use_tqdm=False)


def test_a_video_between_views_is_refused(running, still_answers, prompts, processor):
    first, second = map(view, prompts["2 views"].pictures)
    video = {"type": "video", "video": prompts["video"].videos[0]}
    between = Prompt(processor, [first, video, second, text("Where?")])
    with pytest.raises(ValueError, match="between the pictures of a scene"):
        ask(running, {"between": between})


def test_a_picture_of_one_pixel(running, model, processor, prompts):
    dot = Prompt(processor, [view(Image.new("RGB", (1, 1), "red")), view(prompts["1 views"].pictures[0]), text("Hm?")])
    assert tokens_of(ask(running, {"dot": dot}), ["dot"]) == {"dot": answer(model, processor, dot)}


def test_scenes_by_uuid(running, still_answers, prompts, expected):
    """A scene is known by the uuids of its views together, whole."""
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=TOKENS)

    def send(prompt, pictures, uuids):
        asked = {"prompt": prompt.text, "multi_modal_data": {"image": pictures}, "multi_modal_uuids": {"image": uuids}}
        return list(running.generate([asked], sampling, use_tqdm=False)[0].outputs[0].token_ids)

    prompt = prompts["3 views"]
    with pytest.raises(ValueError, match="data is not provided|in no cache"):
        send(prompt, [None] * 3, ["a", "b", "c"])
    assert send(prompt, prompt.pictures, ["a", "b", "c"]) == expected["3 views"]
    assert send(prompt, [None] * 3, ["a", "b", "c"]) == expected["3 views"]
    with pytest.raises(ValueError, match=r"data is not provided|Views \[0, 1, 2\]|in no cache"):
        send(prompt, [None] * 3, ["a", "c", "b"])  # another scene: the last view is the frame
    with pytest.raises(ValueError, match=r"Views \[1\] of the scene came as uuids alone"):
        send(prompt, [prompt.pictures[0], None, prompt.pictures[2]], ["d", "b", "f"])
