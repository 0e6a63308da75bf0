"""A soak of `vllm serve` with the plug-in: `.venv-vllm/bin/python examples/benchmarks/soak_vllm.py`.

Starts a server of the tiny model (float32, at most 8 pictures, 8 requests at a time) and sends requests over OpenAI's
chat API, a tenth of them damaged, by several clients at once. Every sound one must be answered as transformers answers
it alone, every damaged one told what is wrong with it (HTTP 4xx), and a question asked before must be answered as
before. Prints the requests of each kind and the resident memory of the server's processes, and exits with 1 if any
went wrong.
"""

import argparse
import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from soak_loop import Kind, soak

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.evaluation import render_split
from gap_mllm.processing import GapMllmProcessor


NAME, TOKENS = "gap-mllm", 24
FIND = {"type": "text", "text": "Detect all objects as 3D boxes in JSON."}
COUNT = {"type": "text", "text": "How many chairs are there?"}
REPLY = [{"type": "text", "text": "One."}]


@contextmanager
def vllm_server(folder: str, log_file: str):
    """A `vllm serve` of this environment; gives its address and the number of its process, and ends it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "8", "--enforce-eager"]
    flags += ["--limit-mm-per-prompt", json.dumps({"image": 8, "video": 1}), "--served-model-name", NAME]
    flags += ["--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", folder, *flags]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    environment |= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with (
        open(log_file, "w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process,
    ):
        address = f"http://127.0.0.1:{port}"
        try:
            while True:
                try:
                    urllib.request.urlopen(f"{address}/health", timeout=2)
                    break
                except OSError:
                    if process.poll() is not None:
                        raise RuntimeError(f"vllm serve did not start; see {log_file}.") from None
                    time.sleep(1)
            yield address, process.pid
        finally:
            process.terminate()


class Client:
    """One who asks: a connection of its own.

    Args:
        address (`str`): address of the server.
    """

    def __init__(self, address: str):
        from openai import OpenAI

        self.api = OpenAI(base_url=f"{address}/v1", api_key="none", timeout=600, max_retries=0)

    def ask(self, *contents: list, **options):
        """Ask, and return the text; with `stream` the parts as they come."""
        messages = [{"role": ("user", "assistant")[turn % 2], "content": each} for turn, each in enumerate(contents)]
        settings = {"model": NAME, "temperature": 0, "max_tokens": TOKENS, **options}
        reply = self.api.chat.completions.create(messages=messages, **settings)
        return reply if options.get("stream") else reply.choices[0].message.content

    def refused(self, *contents: list, **options) -> str:
        """Ask what must be refused, and return what is told."""
        from openai import APIStatusError

        try:
            answer = self.ask(*contents, **options)
        except APIStatusError as error:
            if not 400 <= error.status_code < 500:
                raise
            return str(error)
        raise RuntimeError(f"was answered with {answer!r}")


def sent(picture: Image.Image, cut: int | None = None) -> dict:
    """A picture as a part of a chat, of which `cut` bytes are sent."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    data = base64.b64encode(file.getvalue()[:cut]).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


class Conversations:
    """What is asked, and what transformers answers to each alone.

    Args:
        folder (`str`): folder of the model.
        number (`int`, defaults to 12): number of rooms.
    """

    def __init__(self, folder: str, number: int = 12):
        rooms = [[Image.fromarray(view) for view in room.images] for room in render_split("test", number)]
        self.scenes = [pictures[: 1 + place % 4] for place, pictures in enumerate(rooms)]
        self.scenes += [rooms[0] + rooms[1], [rooms[2][0].resize((640, 480)), rooms[3][0]], rooms[3][::-1]]
        self.model = GapMllmForConditionalGeneration.from_pretrained(folder).eval()
        self.processor = GapMllmProcessor.from_pretrained(folder)
        self.before = [self._expected([*self._views(scene), FIND]) for scene in self.scenes]
        self.after = [self._expected([COUNT, *self._views(scene)]) for scene in self.scenes]
        self.later = [self._expected([COUNT], REPLY, [*self._views(scene), FIND]) for scene in self.scenes]
        self.alone = self._expected([COUNT])

    @staticmethod
    def _views(pictures):
        return [{"type": "image", "image": picture} for picture in pictures]

    @torch.no_grad()
    def _expected(self, *contents):
        messages = [{"role": ("user", "assistant")[turn % 2], "content": each} for turn, each in enumerate(contents)]
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        inputs = self.processor.apply_chat_template(messages, **options)
        output = self.model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        return self.processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def vllm_kinds(known: Conversations) -> list[Kind]:
    """The requests: sound ones raise if they are answered in another way than by transformers."""

    def same(answer, expected):
        if answer != expected:
            raise RuntimeError(f"answered {answer!r}, transformers {expected!r}")
        return answer

    def chosen(chooser):
        place = chooser.randrange(len(known.scenes))
        return place, [sent(picture) for picture in known.scenes[place]]

    def views_first(client, chooser):
        place, views = chosen(chooser)
        return same(client.ask([*views, FIND]), known.before[place])

    def words_first(client, chooser):
        place, views = chosen(chooser)
        return same(client.ask([COUNT, *views]), known.after[place])

    def second_turn(client, chooser):
        place, views = chosen(chooser)
        return same(client.ask([COUNT], REPLY, [*views, FIND]), known.later[place])

    def streamed(client, chooser):
        place, views = chosen(chooser)
        parts = client.ask([*views, FIND], stream=True)
        return same("".join(part.choices[0].delta.content or "" for part in parts), known.before[place])

    def left(client, chooser):
        stream = client.ask([*chosen(chooser)[1], FIND], stream=True, max_tokens=512, extra_body={"ignore_eos": True})
        for _, part in zip(range(3), stream, strict=False):
            if not part.choices:
                raise RuntimeError("a part without text")
        stream.close()
        return "left"

    def refused(content, **options):
        return lambda client, chooser: client.refused(content, **options)

    whole = [sent(picture) for picture in known.scenes[1]]
    no_picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,bm90aGluZw=="}}
    empty_film = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
    token_too_many = "2 pictures came, but the prompt has 3 image tokens"
    token = {"type": "text", "text": "<|vision_start|><|image_pad|><|vision_end|>"}
    mean = {"extra_body": {"mm_processor_kwargs": {"image_mean": [0.1, 0.1, 0.1]}}}
    return [
        Kind("a scene, then the question", views_first),
        Kind("the question, then a scene", words_first),
        Kind("a scene in the second turn", second_turn),
        Kind("words alone", lambda client, chooser: same(client.ask([COUNT]), known.alone)),
        Kind("streamed", streamed),
        Kind("streamed, left half-way", left),
        Kind("a truncated picture", refused([sent(known.scenes[1][0], 2000), FIND]), "truncated"),
        Kind("no picture", refused([no_picture, FIND]), "image"),
        Kind("a line", refused([sent(Image.new("RGB", (1, 400))), FIND]), "aspect ratio"),
        Kind("ten views", refused([*whole * 5, FIND]), "At most 8 image"),
        Kind("image tokens alone", refused([token, FIND]), "no pictures came"),
        Kind("an image token too many", refused([*whole, token]), token_too_many),
        Kind("a video of nothing", refused([empty_film, FIND]), "video"),
        Kind("another mean", refused([*whole, FIND], **mean), "mm_processor_kwargs"),
        Kind("another model", refused([*whole, FIND], model="gpt"), "does not exist"),
        Kind("an answer longer than the context", refused([*whole, FIND], max_tokens=9999), "max_tokens"),
        Kind("no messages", lambda client, chooser: client.refused(), "at least one message"),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
    parser.add_argument("--model", default=str(model), help="folder")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=4, help="at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", default="vllm_serve.log", help="file for what the server says")
    args = parser.parse_args()
    known = Conversations(args.model)
    with vllm_server(args.model, args.log) as (address, pid):
        clients = [[Client(address)] for _ in range(args.clients)]
        question = [*(sent(picture) for picture in known.scenes[1]), FIND]

        def check(client):
            return client.ask(question) == known.before[1]

        went_well = soak(vllm_kinds(known), clients, check, args.requests, args.seed, pid)
    sys.exit(not went_well)


if __name__ == "__main__":
    main()
