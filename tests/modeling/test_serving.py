"""`gap-mllm serve` over HTTP: the tokens of generate(), bad requests that are told and stop nobody."""

import base64
import io
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

from gap_mllm import GapMllmForConditionalGeneration, GapMllmProcessor
from gap_mllm.processing.data import RenderedRooms
from gap_mllm.serving import serve


MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
DETECT = {"type": "text", "text": "Detect all objects as 3D boxes in JSON."}
TOKENS = 20


def pictured(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"},
    }


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """A function (content, **fields) -> (status, answer) of a server in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gap_mllm.cli", "serve", str(MODEL), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--device", "cpu", "--dtype", "float32"]
    said, address = tmp_path_factory.mktemp("server") / "log", f"http://127.0.0.1:{port}"

    def send(content, path="/v1/chat/completions", **fields):
        body = {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": TOKENS, **fields}
        body = {name: value for name, value in body.items() if value is not None}
        data = json.dumps(body).encode() if content is not None else None
        request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    with said.open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            for _ in range(240):
                assert process.poll() is None, said.read_text()[-4000:]
                try:
                    urllib.request.urlopen(f"{address}/health", timeout=2)
                    break
                except OSError:
                    time.sleep(0.5)
            yield send
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def scenes():
    return [[view.image for view in RenderedRooms("test", 3)[index].views] for index in range(3)]


@pytest.fixture(scope="module")
def expected(scenes):
    """What `generate` answers about each scene, greedily in float32."""
    model = GapMllmForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32).eval()
    processor = GapMllmProcessor.from_pretrained(MODEL)
    texts = []
    for views in scenes:
        content = [*({"type": "image", "image": view} for view in views), DETECT]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
            return_tensors="pt",
        )  # fmt: skip
        answer = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        texts.append(processor.tokenizer.decode(answer, skip_special_tokens=True))
    assert len(set(texts)) > 1  # so that an answer about another scene would be seen
    return texts


def text_of(answer):
    status, body = answer
    assert status == 200, body
    return json.loads(body)["choices"][0]["message"]["content"]


def test_answers_of_clients_at_once_are_those_of_generate(ask, scenes, expected):
    contents = [[*map(pictured, views), DETECT] for views in scenes]
    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(ask, contents * 2))
    assert [text_of(answer) for answer in answers] == expected * 2


def test_an_answer_is_streamed(ask, scenes, expected):
    status, body = ask([*map(pictured, scenes[0]), DETECT], stream=True)
    chunks = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    assert status == 200 and len(chunks) > 2
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == expected[0]


def test_the_model_that_is_served_is_listed(ask):
    status, body = ask(None, path="/v1/models")
    assert status == 200 and [each["id"] for each in json.loads(body)["data"]] == [str(MODEL)]


IMAGE_TOKEN = {"type": "text", "text": "<|vision_start|><|image_pad|><|vision_end|> What is this?"}
BROKEN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}


@pytest.mark.parametrize(
    ("content", "fields", "message"),
    [
        ([BROKEN, DETECT], {}, "cannot be read as a picture"),
        ([pictured(Image.new("RGB", (1, 400))), DETECT], {}, "1 x 400 pixels"),
        ([IMAGE_TOKEN], {}, "no images were passed"),
        ([{"type": "image_url"}, DETECT], {}, "without its 'image_url'"),
        ([{"type": "picture", "picture": "x"}], {}, "expected text, image_url or video_url"),
        ("", {"messages": []}, "messages is missing or empty"),
        ("", {"messages": ["Hello"]}, "message 0 is 'Hello'"),
        ([DETECT], {"model": "another/model"}, "pinned to"),
    ],
)
def test_what_is_wrong_is_told_and_the_server_goes_on(ask, scenes, expected, content, fields, message):
    status, body = ask(content, **fields)
    assert status == 400 and message in body
    assert text_of(ask([*map(pictured, scenes[1]), DETECT])) == expected[1]


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        serve(tmp_path)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("gap_mllm.serving.server.is_serve_available", lambda: False)
    with pytest.raises(ImportError, match=r"gap-mllm\[serving\]"):
        serve(MODEL)
