"""The model behind the Space: questions of visitors to answers, and answers to what is shown, without gradio."""

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from space_scenes import OpenScene, VisitorError

from gap_mllm import GapMllmForConditionalGeneration, GapMllmVggtForReconstruction, SceneSession
from gap_mllm.evaluation import draw_gate_maps, gate_maps
from gap_mllm.evaluation.probing.gate_maps import MEANINGS
from gap_mllm.processing import GapMllmProcessor, parse_boxes, parse_points
from gap_mllm.processing.scene_3d import Scene3D, place_results, scene_from_session, write_glb
from gap_mllm.processing.scene_results_gap_mllm import (
    SceneAnswer,
    SceneBox,
    SceneBoxes,
    SceneCameras,
    ScenePoint,
    ScenePoints,
)


WHAT, FIND_ALL, FIND_ONE, QUESTION = "What is here?", "Find objects", "Find what I describe", "Ask a question"
TASKS = (WHAT, FIND_ALL, FIND_ONE, QUESTION)
MAX_WORDS = 400  # characters of a question or description
MAX_NEW_TOKENS = int(os.environ.get("MAX_NEW_TOKENS", "512"))
MAX_POINTS = 60_000  # of the 3D scene, which a browser turns smoothly
INSTEAD_OF_WORDS = "The model answered with places, not in words. What it found:"
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Request:
    """What a visitor asks: a task, a pixel of a view (view, x, y) and words, where the task needs them."""

    task: str
    mark: tuple[int, int, int] | None = None
    words: str = ""


def check_request(scene: OpenScene | None, request: Request) -> None:
    """Raise `VisitorError` if something is missing, or a click lies outside."""
    if scene is None:
        raise VisitorError("There is no scene yet. Add photos or a video, or choose an example room.")
    if request.task not in TASKS:
        raise VisitorError(f"Choose what to do: {', '.join(TASKS)}.")
    if request.task == WHAT and request.mark is None:
        raise VisitorError("Click into the large picture first: the model tells what is there, and where.")
    if request.task == WHAT:
        check_click(scene, request.mark)
    if request.task in (FIND_ONE, QUESTION) and not request.words.strip():
        wanted = "what to find, as 'the red chair'" if request.task == FIND_ONE else "your question"
        raise VisitorError(f"Write {wanted} into the field, then ask again.")
    if len(request.words) > MAX_WORDS:
        raise VisitorError(f"The text has {len(request.words)} characters; write at most {MAX_WORDS}.")


def check_click(scene: OpenScene, mark: tuple[int, int, int]) -> None:
    """Raise `VisitorError` if a pixel (view, x, y) is none of the scene's."""
    view, x, y = mark
    width, height = scene.pictures[view].size if 0 <= view < len(scene.pictures) else (0, 0)
    if not (0 <= x < width and 0 <= y < height):
        raise VisitorError(
            f"({x}, {y}) lies outside of the picture, which is {width} x {height} pixels. Click inside."
        )


class SceneGuide:
    """A model with the scenes of the last visitors, each encoded once; older ones are let go of, and opened again.

    Args:
        model_folder (`str`, *optional*): folder or repository of the model; by default the environment's MODEL, else
            the tiny model that is shipped.
        points_folder (`str`, *optional*): a geometry encoder with its heads, which tells points and cameras where the
            model does not; by default the environment's POINTS_FROM, else the shipped one for the shipped model.
        device (`str`, *optional*): device; by default a GPU where there is one.
        max_sessions (`int`, defaults to 8): scenes that are kept encoded.
    """

    def __init__(self, model_folder=None, points_folder=None, device=None, max_sessions=8):
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        given = model_folder or os.environ.get("MODEL")
        self.model_folder = given or _shipped("tiny_gap_mllm")
        points_folder = points_folder or os.environ.get("POINTS_FROM")
        self.is_tiny = not given
        points_folder = points_folder or (None if given else _shipped("tiny_geometry_encoder"))
        self.model = GapMllmForConditionalGeneration.from_pretrained(self.model_folder).to(device).eval()
        self.processor = GapMllmProcessor.from_pretrained(self.model_folder)
        self.points_from = None
        if points_folder:
            self.points_from = GapMllmVggtForReconstruction.from_pretrained(points_folder).to(device).eval()
        self._sessions, self._max_sessions, self._lock = OrderedDict(), max_sessions, threading.Lock()

    @property
    def gate_meaning(self) -> str:
        """What the gate maps of the model mean."""
        return MEANINGS.get(self.model.config.gap_fusion_config.method, "")

    @property
    def num_sessions(self) -> int:
        """Scenes that are kept."""
        return len(self._sessions)

    def session(self, scene: OpenScene) -> SceneSession:
        """Return the session of a scene, the one that is kept or a new one."""
        with self._lock:
            if scene.key not in self._sessions:
                while len(self._sessions) >= self._max_sessions:
                    self._sessions.popitem(last=False)  # not closed: another thread may be asking it
                pictures = list(scene.pictures)
                session = SceneSession(
                    self.model, self.processor, pictures, points_from=self.points_from, max_view_sets=2
                )
                session.views = replace(session.views, names=scene.names)
                self._sessions[scene.key] = session
            self._sessions.move_to_end(scene.key)
            return self._sessions[scene.key]

    def forget(self, scene: OpenScene | None) -> None:
        """Let go of a scene, whose visitor has left."""
        if scene is not None:
            self._sessions.pop(scene.key, None)

    def look(self, scene: OpenScene) -> tuple[Scene3D, SceneCameras | None, dict[str, list[np.ndarray]]]:
        """Return what is seen before anything is asked: the scene in 3D, its cameras, and the fusion's gates.

        Points, cameras (None) and gates ({}) are left out where the model tells none.
        """
        session, cameras, gates = self.session(scene), None, {}
        try:
            cameras = session.cameras()
        except ValueError:  # nothing tells them
            pass
        try:
            gates = gate_maps(self.model, self.processor, scene.pictures)
        except ValueError:  # a model without such gates
            pass
        return scene_from_session(session), cameras, gates

    def answer(self, scene: OpenScene, request: Request) -> SceneAnswer:
        """Answer a checked request."""
        session, options = self.session(scene), {"max_new_tokens": MAX_NEW_TOKENS}
        if request.task == WHAT:
            return session.locate(*request.mark, **options)
        if request.task == FIND_ALL:
            return session.detect(**options)
        if request.task == FIND_ONE:
            return session.ground(request.words.strip(), **options)
        return read_answer(session.ask(request.words.strip(), **options))

    def stream(self, scene: OpenScene, request: Request) -> Iterator[str | SceneAnswer]:
        """Yield the text of the answer to a question as it grows, and at last the whole answer."""
        text, stream = "", self.session(scene).stream(request.words.strip(), max_new_tokens=MAX_NEW_TOKENS)
        for piece in stream:
            text += piece
            yield text
        yield read_answer(stream.result)


class InsteadOfWords:
    """An answer to a question in words that is no sentence, but names places."""

    def _lines(self):
        return [INSTEAD_OF_WORDS, *super()._lines()]


class BoxesInsteadOfWords(InsteadOfWords, SceneBoxes):
    """Boxes, in the camera of the first view."""


class PointsInsteadOfWords(InsteadOfWords, ScenePoints):
    """Points, in the camera of the first view; no pixel was marked."""


def read_answer(answer: SceneAnswer) -> SceneAnswer:
    """Read the boxes or points of an answer to a question in words, where it holds nothing else.

    A model that was mostly trained to name places does so for questions in words, too: drawn, these are of more use
    than JSON. An answer with words beside them, or of which nothing can be read, stays as it is.
    """
    told = {"question": answer.question, "text": answer.text, "views": answer.views}
    boxes, points = parse_boxes(answer.text), parse_points(answer.text)
    parsed = boxes if boxes.items else points
    if not parsed.items or not _is_json_alone(answer.text, parsed.truncated):
        return answer
    told |= {"rejected": parsed.rejected, "truncated": answer.truncated or parsed.truncated}
    if boxes.items:
        return BoxesInsteadOfWords(**told, boxes=tuple(SceneBox(item.label, item.bbox_3d) for item in boxes.items))
    return PointsInsteadOfWords(**told, points=tuple(ScenePoint(item.label, item.point) for item in points.items))


def _is_json_alone(text, truncated):
    """Whether JSON and its fence are all that there is; what was cut off ends within an object."""
    before, behind = text[: text.find("{")], text[text.rfind("}") + 1 :]
    starts = re.fullmatch(r"\s*(```(json)?)?[\s\[]*", before)
    return bool(starts) and (truncated or not behind.strip(" \n\t],`"))


def _shipped(name):
    """A folder of `examples/assets`, or one beside this file, as in a Space."""
    beside = HERE / name
    return str(beside if beside.is_dir() else HERE.parent / "assets" / name)


# What is shown


def answer_text(answer: SceneAnswer, notes: tuple[str, ...] | list[str] = ()) -> str:
    """The answer in words, as Markdown that shows the model's text as it is, with what was refused."""
    lines = [as_markdown("\n".join(answer._lines())) or "The model answered nothing."]
    lines += [f"Not used: {as_markdown(each.reason)}." for each in answer.rejected]
    lines += ["The answer was cut off; what is complete of it is shown."] * answer.truncated
    return "\n\n".join([*lines, *map(as_markdown, notes)])


def as_markdown(text: str) -> str:
    """Text as Markdown that shows it as it is, a paragraph for each line, without meaning in Markdown or HTML."""
    text = "".join(f"\\{each}" if each in r"\`*_{}[]()#+!|~$" else each for each in text).replace("<", "&lt;")
    return "\n\n".join(line.strip() for line in text.splitlines() if line.strip())


def answer_picture(answer: SceneAnswer, cameras: SceneCameras | None) -> Image.Image:
    """The views with marks, points and boxes, and the places from above."""
    figure = answer.plot(cameras=cameras)
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())


def write_scene_glb(scene: Scene3D, answer: SceneAnswer | None, path: str | Path) -> tuple[str | None, list[str]]:
    """Write the scene with what was found as GLB; return its path, and what could not be placed.

    The path is None where there is nothing to show in 3D.
    """
    scene, left_out = place_results(scene, [] if answer is None else [answer])
    try:
        return str(write_glb(scene.sample_points(MAX_POINTS), path)), left_out
    except ValueError:  # neither points nor cameras, boxes or marks
        return None, left_out


def gate_picture(
    gates: dict[str, list[np.ndarray]], scene: OpenScene, path: str | Path, title: str = MEANINGS["gated"]
) -> str | None:
    """Draw the gate maps into a file; return its path, None where the model has none."""
    if not gates:
        return None
    draw_gate_maps(gates, scene.pictures, path, title)
    return str(path)


def marked_view(scene: OpenScene, view: int, mark: tuple[int, int, int] | None, side: int = 640) -> Image.Image:
    """The view to click into, enlarged to a longest side in pixels, with the pixel that was clicked."""
    picture = scene.pictures[view]
    scale = side / max(picture.size)
    shown = picture.resize(
        tuple(round(length * scale) for length in picture.size), Image.Resampling.BICUBIC if scale > 1 else None
    )
    if mark is not None and mark[0] == view:
        x, y = ((value + 0.5) * new / old for value, new, old in zip(mark[1:], shown.size, picture.size, strict=True))
        draw = ImageDraw.Draw(shown)
        for color, width in (("white", 7), ("red", 3)):
            for line in ((x - 16, y, x + 16, y), (x, y - 16, x, y + 16)):
                draw.line(line, color, width)
    return shown


def clicked_pixel(scene: OpenScene, view: int, place: tuple[float, float], side: int = 640) -> tuple[int, int, int]:
    """The pixel (view, x, y) of a view that was clicked at a place of the picture that `marked_view` gives."""
    size = scene.pictures[view].size
    scale = max(size) / side
    shown = [round(length / scale) for length in size]
    mark = (view, *(int(value * old // new) for value, old, new in zip(place, size, shown, strict=True)))
    check_click(scene, mark)
    return mark
