"""A soak of sessions: `OMP_NUM_THREADS=1 python examples/benchmarks/soak_sessions.py`.

Requests of every kind, a tenth of them damaged, by several threads to several `SceneSession`s of one model. Each sound
one must be answered, each damaged one refused or answered in the words that are expected, and the session must go on
and answer as before. Prints the requests of each kind and resident memory, and exits with 1 if any went wrong.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
from PIL import Image
from soak_loop import Kind, soak

from gap_mllm import GapMllmForConditionalGeneration, GapMllmProcessor, GapMllmVggtForReconstruction, SceneSession
from gap_mllm.evaluation import render_split


ASSETS = Path(__file__).parents[2] / "examples" / "assets"
WORDS = ("the red chair by the window", "the bed", "the table", "a lamp", "the green stool")


def session_kinds(folder: Path, tokens: int) -> list[Kind]:
    """The requests; `folder` takes the damaged files."""
    (folder / "broken.jpg").write_bytes(b"no picture")
    Image.new("1", (20_000, 12_000)).save(folder / "huge.png")
    with av.open(str(folder / "empty.mp4"), "w") as video:
        video.add_stream("mpeg4", rate=4)
        video.start_encoding()
    short = {"max_new_tokens": tokens}

    def opened(views):
        return lambda scene, chooser: refusal(lambda: SceneSession(scene.model, scene.processor, views))

    def asked(ask: Callable):
        return lambda scene, chooser: refusal(lambda: ask(scene, chooser))

    def place(chooser):
        return [chooser.uniform(-1, 1), chooser.uniform(-1, 1), chooser.uniform(1, 4)]

    def pixel(chooser):
        return [chooser.randrange(4), chooser.randrange(128), chooser.randrange(128)]

    def once(scene, chooser):
        with SceneSession(scene.model, scene.processor, scene.views.pictures[:2]) as other:
            return other.ask(chooser.choice(WORDS), **short).text

    def left(scene, chooser):
        for piece in scene.stream(f"What is {chooser.choice(WORDS)}?", **short):
            return piece  # and no more is read

    def closed(scene, chooser):
        other = SceneSession(scene.model, scene.processor, scene.views.pictures)
        other.close()
        return other.ask("What?")

    def another(scene, chooser):
        pictures = [Image.new("RGB", picture.size, "navy") for picture in scene.views.pictures]
        return scene.ask(scene.processor.build_messages("reconstruction", pictures, prompt="What?"), **short)

    return [
        Kind("ask", lambda s, c: s.ask(f"Is there {c.choice(WORDS)}, number {c.random()}?", **short).text),
        Kind("ask_many", lambda s, c: str(s.ask_many([f"Where is {word}?" for word in WORDS[:3]], **short))),
        Kind("detect", lambda s, c: str(s.detect(**short))),
        Kind("ground", lambda s, c: str(s.ground(c.choice(WORDS), **short))),
        Kind("locate a pixel", lambda s, c: str(s.locate(*pixel(c), **short))),
        Kind("locate several pixels", lambda s, c: str(s.locate([pixel(c) for _ in range(3)], **short))),
        Kind("describe", lambda s, c: s.describe(place(c), **short).text),
        Kind("stream", lambda s, c: "".join(s.stream(f"What is {c.choice(WORDS)}?", **short))),
        Kind("stream, left after a piece", left),
        Kind("stream_boxes", lambda s, c: str(list(s.stream_boxes(**short)))),
        Kind("points and cameras", lambda s, c: f"{s.points()} {s.cameras()}"),
        Kind("a session opened, asked and closed", once),
        Kind("no views", opened([]), "there are no views; give one"),
        Kind("a file that is not there", opened([folder / "none.jpg"]), r"none\.jpg'\) does not exist"),
        Kind("a broken file", opened([folder / "broken.jpg"]), r"broken\.jpg'\) cannot be read as a picture"),
        Kind("a picture too large", opened([folder / "huge.png"]), r"huge\.png'\) is too large"),
        Kind("a video without frames", opened(folder / "empty.mp4"), r"empty\.mp4.* no video stream"),
        Kind("a click outside", asked(lambda s, c: s.locate(1, 128, 5)), r"\(x=128, y=5\) lies outside the picture"),
        Kind("a view that there is not", asked(lambda s, c: s.locate(4, 5, 5)), "the scene has 4 views"),
        Kind("a label never seen", asked(lambda s, c: s.detect(["unicorn"], **short)), "no such object.*: unicorn"),
        Kind("empty text", asked(lambda s, c: s.ask(" ")), "the question is empty"),
        Kind("an answer cut off", asked(lambda s, c: s.detect(max_new_tokens=3)), "cut off"),
        Kind("views of another scene", asked(another), "picture 0 of the chat is not view 0 .* Open another"),
        Kind("two numbers for a place", asked(lambda s, c: s.describe([1, 2])), "expected a point of 3 numbers"),
        Kind("a closed session", asked(closed), "session is closed; open another"),
    ]


def refusal(ask: Callable) -> str:
    """What a person is told: the answer, or the message of the errors that are documented."""
    try:
        return str(ask())
    except (ValueError, TypeError, FileNotFoundError) as error:
        return str(error)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=ASSETS / "tiny_gap_mllm", help="folder or repository")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sessions", type=int, default=3, help="all threads ask all of them")
    parser.add_argument("--tokens", type=int, default=12, help="tokens of an answer at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model = GapMllmForConditionalGeneration.from_pretrained(args.model).eval()
    processor = GapMllmProcessor.from_pretrained(args.model)
    encoder = GapMllmVggtForReconstruction.from_pretrained(ASSETS / "tiny_geometry_encoder").eval()
    rooms = render_split("test", args.sessions)
    scenes = [SceneSession(model, processor, list(room.images), points_from=encoder) for room in rooms]

    def control(scene):
        return scene.ask("What is here?", max_new_tokens=args.tokens)

    before = {id(scene): control(scene) for scene in scenes}
    with tempfile.TemporaryDirectory() as folder:
        kinds = session_kinds(Path(folder), args.tokens)
        fine = soak(
            kinds, [list(scenes) for _ in range(args.threads)],
            lambda scene: control(scene) == before[id(scene)], args.requests, args.seed, os.getpid(),
        )  # fmt: skip
    sys.exit(not fine)


if __name__ == "__main__":
    main()
