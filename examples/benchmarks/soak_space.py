"""A soak of a Space that runs (`make space`): `.venv-space/bin/python examples/benchmarks/soak_space.py --pid PID`.

Requests as the page sends them over HTTP, a tenth of them damaged, by several threads for several visitors, of whom
some leave and others come. Each sound one must be answered, each damaged one told in the words that are expected, and
the visitor's scene must be answered as before. Prints the requests of each kind and resident memory of the Space, and
exits with 1 if any went wrong. Start the Space with few MAX_NEW_TOKENS, so that long answers are cut off.
"""

import argparse
import io
import json
import sys
import uuid

from PIL import Image
from soak_loop import Kind, soak

from gap_mllm.evaluation import render_split


WHAT, FIND_ALL, FIND_ONE, QUESTION = "What is here?", "Find objects", "Find what I describe", "Ask a question"
WRONG_HERE = "went wrong here"  # what the page says of errors of its own


class SpaceVisitor:
    """A page that is open in somebody's browser.

    Args:
        url (`str`): address of the Space.
    """

    def __init__(self, url: str):
        import httpx  # pyright: ignore[reportMissingImports]  # it comes with gradio

        self.client, self.visit = httpx.Client(base_url=url.rstrip("/"), timeout=120), uuid.uuid4().hex
        config = self.client.get("/config").json()
        self.events = {each["api_name"]: each for each in config["dependencies"]}
        self.states = {each["id"] for each in config["components"] if each["type"] == "state"}

    def send(self, event: str, *shown, chosen=None, answer: int = 0) -> str:
        """Send an event of the page and return its output number `answer`, and what was told besides, as text."""
        inputs = iter(shown)
        data = [None if each in self.states else next(inputs) for each in self.events[event]["inputs"]]
        body = {"data": data, "event_data": chosen, "fn_index": self.events[event]["id"], "session_hash": self.visit}
        self.client.post("/gradio_api/queue/join", json=body).raise_for_status()
        told, output = [], None
        with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.visit}) as lines:
            for line in lines.iter_lines():
                message = json.loads(line[5:]) if line.startswith("data:") else {}
                if message.get("msg") == "log":
                    told.append(message["log"])
                if message.get("msg") == "process_completed":
                    output = message["output"]
                    break
        if not message["success"]:
            raise RuntimeError(f"{event} failed: {output}")
        text = f"{output['data'][answer]} {' '.join(told)}"
        if WRONG_HERE in text:
            raise RuntimeError(text)
        return text

    def open_room(self, number: int = 0) -> str:
        """Choose an example room."""
        self.scene = f"room {number}"
        return self.send("open_room", chosen={"index": number, "value": None}, answer=6)

    def upload(self, **files: bytes) -> str:
        """Upload files, in place of what is open."""
        sent = [("files", (name.replace("_", "."), content)) for name, content in files.items()]
        paths = self.client.post("/gradio_api/upload", files=sent).json()
        kind = {"_type": "gradio.FileData"}
        given = [{"path": at, "orig_name": at.rsplit("/")[-1], "meta": kind} for at in paths]
        return self.send("open_files", given, answer=6)

    def click(self, x: int, y: int) -> str:
        """Click into the large picture, 640 pixels long."""
        return self.send("click", chosen={"index": [x, y], "value": None}, answer=2)

    def ask(self, task: str, words: str = "") -> str:
        """Press the button."""
        return self.send("ask", task, words)


def space_kinds() -> list[Kind]:
    """The requests."""

    def encoded(picture, form="PNG"):
        file = io.BytesIO()
        picture.save(file, form)
        return file.getvalue()

    rooms = [[Image.fromarray(image) for image in room.images] for room in render_split("test", 3)]
    photos = [{f"photo{i}_png": encoded(picture) for i, picture in enumerate(room)} for room in rooms]
    narrow, huge = encoded(Image.new("RGB", (2000, 64))), encoded(Image.new("1", (10_000, 9_000)))

    def uploaded(visitor, chooser, **broken):
        number = chooser.randrange(3)
        told = visitor.upload(**broken, **photos[number])
        visitor.scene = f"photos {number}"
        return told

    def view_chosen(visitor, chooser):
        return visitor.send("choose_view", chosen={"index": chooser.randrange(4), "value": None})

    def clicked(visitor, chooser):
        visitor.click(chooser.randrange(640), chooser.randrange(640))
        return visitor.ask(WHAT)

    def nothing_clicked(visitor, chooser):
        visitor.open_room(chooser.randrange(3))
        return visitor.ask(WHAT)

    def newcomer(visitor, chooser):
        visitor.visit = uuid.uuid4().hex
        return visitor.open_room(chooser.randrange(3))

    def without_scene(visitor, chooser):
        return SpaceVisitor(str(visitor.client.base_url)).ask(FIND_ALL)

    return [
        Kind("photos uploaded", uploaded),
        Kind("an example room", lambda v, c: v.open_room(c.randrange(3))),
        Kind("a view chosen", view_chosen),
        Kind("a pixel clicked and asked about", clicked),
        Kind("find objects", lambda v, c: v.ask(FIND_ALL)),
        Kind("find what is described", lambda v, c: v.ask(FIND_ONE, c.choice(["the bed", "a lamp", "the unicorn"]))),
        Kind("a question", lambda v, c: v.ask(QUESTION, f"What is {c.random()} metres away?")),
        Kind("a question in words that Markdown and HTML mean", lambda v, c: v.ask(QUESTION, "<b>*?*</b> | $x$")),
        Kind("a visitor left, another one came", newcomer),
        Kind("no scene", without_scene, "There is no scene yet"),
        Kind("no photos", lambda v, c: v.send("open_files", None, answer=6), "There are no photos yet"),
        Kind("nothing clicked", nothing_clicked, "Click into the large picture first"),
        Kind("a click outside", lambda v, c: v.click(640, 5), "lies outside of the picture, which is 128 x 128"),
        Kind("nothing described", lambda v, c: v.ask(FIND_ONE, " "), "Write what to find"),
        Kind("an empty question", lambda v, c: v.ask(QUESTION), "Write your question"),
        Kind("401 characters", lambda v, c: v.ask(QUESTION, "x" * 401), "401 characters; write at most 400"),
        Kind("an answer cut off", lambda v, c: v.ask(FIND_ALL), "The answer was cut off"),
        Kind("a broken file", lambda v, c: v.upload(broken_jpg=b"no picture"), r"broken\.jpg.*Use \.jpg"),
        Kind("a broken file among photos", lambda v, c: uploaded(v, c, b_jpg=b""), "Left out.*b.jpg"),
        Kind("a video without frames", lambda v, c: v.upload(film_mp4=b"no video"), r"film\.mp4 has no frames"),
        Kind("a narrow picture", lambda v, c: v.upload(long_png=narrow), "2000 x 64 pixels; its sides must"),
        Kind("a picture too large", lambda v, c: v.upload(huge_png=huge), "90 megapixels, more than 80"),
        Kind("33 files", lambda v, c: v.upload(**{f"p{i}_png": b"" for i in range(33)}), "33 files are too many"),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:7860")
    parser.add_argument("--pid", type=int, required=True, help="process of the Space, on this machine")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--visitors", type=int, default=3, help="of each thread")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    visitors = [[SpaceVisitor(args.url) for _ in range(args.visitors)] for _ in range(args.threads)]
    for visitor in sum(visitors, []):
        visitor.open_room()
    known = {}

    def check(visitor):
        text = visitor.ask(QUESTION, "What is here?")
        return text == known.setdefault(visitor.scene, text)

    sys.exit(not soak(space_kinds(), visitors, check, args.requests, args.seed, args.pid))


if __name__ == "__main__":
    main()
