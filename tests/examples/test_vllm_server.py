"""`vllm serve` with the plugin: many clients at once, and bad requests that stop nobody. Run by `make test-vllm`."""

import random
import re
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
from soak_vllm import FIND, Client, Conversations, sent, vllm_kinds, vllm_server


pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm")

MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of a server of its own."""
    with vllm_server(str(MODEL), str(tmp_path_factory.mktemp("server") / "log")) as (address, _):
        yield Client(address)


@pytest.fixture(scope="module")
def known():
    """Scenes, and what transformers says of each alone."""
    return Conversations(str(MODEL), number=6)


def content_of(pictures):
    return [*(sent(each) for each in pictures), FIND]


def test_clients_at_once_get_what_transformers_says(client, known):
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):  # the second time from the caches
            assert list(pool.map(lambda pictures: client.ask(content_of(pictures)), known.scenes)) == known.before


@pytest.mark.parametrize(
    "name",
    [
        "a truncated picture",
        "no picture",
        "a line",
        "ten views",
        "image tokens alone",
        "an image token too many",
        "a video of nothing",
    ],
)
def test_a_bad_request_is_told_and_the_server_goes_on(client, known, name):
    (kind,) = [each for each in vllm_kinds(known) if each.name == name]
    assert re.search(kind.told, kind.send(client, random.Random(0)))
    assert client.ask(content_of(known.scenes[1])) == known.before[1]


def test_a_request_that_is_cancelled_half_way(client, known):
    content = content_of(known.scenes[3])
    stream = client.ask(content, stream=True, max_tokens=512, extra_body={"ignore_eos": True})
    for _, part in zip(range(3), stream, strict=False):
        assert part.choices
    stream.close()
    assert client.ask(content) == known.before[3]
