"""`vllm serve` with the plugin: many clients at once, and bad requests that stop nobody. Run by `make test-vllm`."""

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.evaluation.speed.soak_vllm import vllm_server
from gap_mllm.processing import GapMllmProcessor
from gap_mllm.processing.data import render_room


pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm")

MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
TOKENS = 24
FIND = {"type": "text", "text": "Detect all objects as 3D boxes in JSON."}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server of its own."""
    with vllm_server(str(MODEL), str(tmp_path_factory.mktemp("server") / "log")) as (address, _):
        yield f"{address}/v1"


@pytest.fixture(scope="module")
def client(server):
    from openai import OpenAI

    return OpenAI(base_url=server, api_key="none", timeout=300, max_retries=0)


def data_url(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def content_of(pictures):
    return [*({"type": "image_url", "image_url": {"url": data_url(each)}} for each in pictures), FIND]


def ask(client, content, **options):
    settings = {"model": "gap-mllm", "temperature": 0, "max_tokens": TOKENS, **options}
    reply = client.chat.completions.create(messages=[{"role": "user", "content": content}], **settings)
    return reply if options.get("stream") else reply.choices[0].message.content


@pytest.fixture(scope="module")
def scenes():
    seen = [[Image.fromarray(np.asarray(picture)) for picture in render_room(seed).images] for seed in range(5)]
    chosen = [pictures[:count] for pictures, count in zip(seen, (1, 2, 3, 4, 4), strict=True)]
    return [*chosen, seen[0] + seen[1], [seen[2][0].resize((640, 480)), seen[2][1]], seen[3][::-1]]


@pytest.fixture(scope="module")
def expected(scenes):
    processor = GapMllmProcessor.from_pretrained(MODEL)
    model = GapMllmForConditionalGeneration.from_pretrained(MODEL).eval()
    texts = []
    for pictures in scenes:
        content = [*({"type": "image", "image": picture} for picture in pictures), FIND]
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        inputs = processor.apply_chat_template([{"role": "user", "content": content}], **options)
        with torch.no_grad():
            output = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        texts.append(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return texts


def test_clients_at_once_get_what_transformers_says(client, scenes, expected):
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):  # the second time from the caches
            assert list(pool.map(lambda pictures: ask(client, content_of(pictures)), scenes)) == expected


def _bad_contents(scenes):
    good = content_of(scenes[1])
    whole = good[0]["image_url"]["url"]
    start, data = whole.split(",")
    half = base64.b64encode(base64.b64decode(data)[:2000]).decode()
    truncated = [{"type": "image_url", "image_url": {"url": f"{start},{half}"}}, *good[1:]]
    no_picture = data_url(scenes[0][0]).split(",")[0] + "," + base64.b64encode(b"no picture").decode()
    return {
        "a truncated picture": truncated,
        "no picture": [{"type": "image_url", "image_url": {"url": no_picture}}, FIND],
        "a line": content_of([Image.new("RGB", (1, 400))]),
        "too many views": content_of(scenes[1] * 5),
        "image tokens alone": [{"type": "text", "text": "<|vision_start|><|image_pad|><|vision_end|> What is it?"}],
        "an image token too many": [*good, {"type": "text", "text": "<|image_pad|>"}],
        "a video of nothing": [{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}, FIND],
    }


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("a truncated picture", "truncated"),
        ("no picture", "image"),
        ("a line", "aspect ratio"),
        ("too many views", "At most 8 image"),
        ("image tokens alone", "no pictures came"),
        ("an image token too many", "2 pictures came, but the prompt has 3 image tokens"),
        ("a video of nothing", "video"),
    ],
)
def test_a_bad_request_is_told_and_the_server_goes_on(client, scenes, expected, kind, words):
    from openai import APIStatusError

    with pytest.raises(APIStatusError, match=words) as raised:
        ask(client, _bad_contents(scenes)[kind])
    assert 400 <= raised.value.status_code < 500, raised.value
    assert ask(client, content_of(scenes[1])) == expected[1]


def test_a_request_that_is_cancelled_half_way(client, scenes, expected):
    stream = ask(client, content_of(scenes[4]), stream=True, max_tokens=512, extra_body={"ignore_eos": True})
    for _, part in zip(range(3), stream, strict=False):
        assert part.choices
    stream.close()
    assert ask(client, content_of(scenes[4])) == expected[4]
