"""`SceneSession`: a scene that is encoded once and asked many things, by the generate loop of asking_gap_mllm.py.

Results are in scene_results_gap_mllm.py, how views are opened in scene_views_gap_mllm.py, and what is kept of a
prompt in asking_gap_mllm.py.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import ImageChops
from transformers import PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from .answer_grammar_gap_mllm import AnswerStream, closed_objects, stream_text
from .answers_gap_mllm import BOX_LENGTH, Rejection, parse_boxes, parse_frame, parse_points
from .asking_gap_mllm import (
    ANSWER_FORMS,
    AnswerForm,
    Asker,
    GeneratedAnswer,
    PromptPrefixes,
    chat_parts,
    check_image_statistics,
    picture_of,
)
from .camera_geometry_gap_mllm import scale_intrinsics, view_to_first_view
from .frame_sampling_gap_mllm import check_points_source
from .input_checks_gap_mllm import check_count, mend_chat, mend_text, warn_of_unread_keys
from .model_state_gap_mllm import ModelState, model_lock, processor_state
from .prompts_gap_mllm import number_marks
from .scene_results_gap_mllm import (
    GroundedObject,
    SceneAnswer,
    SceneBox,
    SceneBoxes,
    SceneCameras,
    ScenePoint,
    ScenePointMaps,
    ScenePoints,
    points_source,
    reconstruct,
)
from .scene_views_gap_mllm import MAX_VIEWS, open_views
from .visual_prompt_gap_mllm import as_marks, to_rgb_image


logger = logging.get_logger(__name__)

MAX_BOX_VIEWS = 19  # of the second stage of grounding, as the evaluation shows it


class SceneSession:
    """A scene that can be asked: its views are encoded once, and so is the beginning of the prompts.

    Answers are those of `processor.ask` about the same chats. A few sets of views are kept: as they are, with marks,
    or in another order, as the second stage of grounding shows them. None is kept while the model is in training mode.
    Before each question it is looked whether model, `points_from` and processor are as they were (`ModelState`);
    `refresh` lets go of what is kept whatever it finds. One model may have any number of sessions, in several
    threads: a lock of the model lets one ask at a time.
    Frame: boxes and points in the camera of the first view, unless a result says otherwise; OpenCV axes. Units: metres
    and radians; pixels of the pictures as given, upright.

    Args:
        model (`GapMllmForConditionalGeneration`, or a `PeftModel` of one): model in evaluation mode.
        processor (`GapMllmProcessor`): its processor.
        views (list, `str`, `Path`, or one picture): pictures of one scene, the first of which is the reference; a
            folder of pictures; or a video file. A scene of one view works: depth then comes from that picture alone.
            What is left out, turned or scaled is logged once, and stands in `views.notes`.
        intrinsics (array of shape `(3, 3)` or `(V, 3, 3)`, list, or mapping from file names, *optional*): intrinsics
            in pixels of the stored pictures; they are turned upright with them, see `open_views`.
        poses (array of shape `(V, 4, 4)`, list, or mapping from file names, *optional*): camera to world, of the
            stored pictures; results can then be given in the world. The model gets intrinsics and poses where its
            encoder or fusion reads them, else a warning says that it does not, and only the results know them.
        points_from (`Callable`, *optional*): model that tells points and cameras, as `GapMllmVggtForReconstruction`;
            by default the model's own encoder or heads, where it has any for that.
        max_views (`int`, defaults to 32): most views that are taken of a folder or video, evenly spaced.
        max_view_sets (`int`, defaults to 4): sets of views that are kept; 0 keeps none.
        intrinsics_size (`tuple[int, int]`, *optional*): width and height of the pictures that intrinsics were measured
            on, if these had another size.
    Raises:
        ValueError: if there is no view, or intrinsics or poses are none, or the processor normalises pixels otherwise
            than the model expects. FileNotFoundError, TypeError: as `open_views`.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration, SceneSession
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> from gap_mllm.processing.data import render_room
        >>> model = GapMllmForConditionalGeneration.from_pretrained(folder).eval()
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> with SceneSession(model, processor, list(render_room(0).images)) as scene:
        ...     answers = scene.ask_many(["How many chairs are there?", "Is there a bed?"], max_new_tokens=8)
        ...     located = scene.locate(0, 64, 96)
        >>> len(answers), len(located.first.point)
        (2, 3)

        ```
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        views,
        intrinsics=None,
        poses=None,
        points_from: Callable | None = None,
        max_views: int = MAX_VIEWS,
        max_view_sets: int = 4,
        intrinsics_size: tuple[int, int] | None = None,
    ):
        if points_from is not None:
            check_points_source(points_from)
        self._asker = Asker(model, processor)
        self.model, self.processor = self._asker.model, processor
        self.views = open_views(views, intrinsics, poses, max_views, intrinsics_size)
        if self.views is not views and self.views.notes:
            logger.warning(f"views: {'; '.join(self.views.notes)}.")
        self._max_view_sets = check_count("max_view_sets", max_view_sets, least=0)
        self._kept, self._state, self._given_source, self._seen = OrderedDict(), None, points_from, None
        self._known = None
        self._find_known()
        self.is_closed = False

    def __repr__(self):
        known = [name for name in ("intrinsics", "camera_to_world") if any(x is not None for x in self._all(name))]
        told = f", {' and '.join(known)} known" if known else ""
        return f"SceneSession({len(self.views)} views{told}{', closed' if self.is_closed else ''})"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self) -> None:
        """Let go of all that is kept; the session cannot be asked any more, the model can."""
        with model_lock(self.model):
            self.is_closed = True
            self._kept.clear()
            self._seen = None

    def refresh(self) -> None:
        """Let go of all that is kept, and encode the views anew at the next question.

        For changes that are not noticed by themselves: a few values among many through `.data`, weights that are
        offloaded, and what a function given as `points_from` computes with.

        Raises:
            ValueError: if the session is closed.
        """
        with model_lock(self.model):
            self._check_open()
            self._kept.clear()
            self._state = self._seen = None

    # Questions

    def ask(self, question: str | list[dict], **options) -> SceneAnswer:
        """Ask one question in words, or go on with a chat; see `ask_many`."""
        return self.ask_many([question], **options)[0]

    def ask_many(
        self, questions: Sequence[str | list[dict]], batch_size: int | None = None, **options
    ) -> list[SceneAnswer]:
        """Ask several questions, in one batch unless `batch_size` says otherwise; greedily unless the options do.

        Args:
            questions (list of `str`, or of chats): questions. A chat, a list of messages, shows each view of the
                session once, in order, as placeholders or as the pictures themselves.
            batch_size (`int`, *optional*): most questions of one call of generate(); all by default.
            **options: arguments of generate(), as `max_new_tokens` (64) or `do_sample`.
        Returns:
            `list[SceneAnswer]`: one each; with `num_return_sequences`, so many each.
        Raises:
            TypeError: if `questions` is one text, or holds anything else. ValueError: for an empty question, a chat
                about other pictures, a `batch_size` below 1, or a closed session.
        """
        listed = isinstance(questions, Iterable) and not isinstance(questions, str)
        questions = list(questions) if listed else None
        if questions is None or any(isinstance(question, dict) for question in questions):
            raise TypeError("questions must be a list; for a single one call ask().")
        if batch_size is not None:
            check_count("batch_size", batch_size)
        chats = [self._chat(question) for question in questions]
        answers = self._answers(chats, None, batch_size=batch_size, **options)
        asked = [chat for chat in chats for _ in range(len(answers) // max(len(chats), 1))]
        return [self._said(chat, answer) for chat, answer in zip(asked, answers, strict=True)]

    def stream(self, question: str | list[dict], **options) -> AnswerStream:
        """Ask one question, and read the answer while it is generated.

        Args:
            question (`str` or `list[dict]`): question, as for `ask`.
            **options: arguments of generate(), without beams.
        Returns:
            `AnswerStream` of `str`: pieces that together are the text of `ask`; its `result` is what that returns.
        Raises:
            ValueError, TypeError: as `ask_many`; ValueError for several answers at once.

        Example:
            ```python
            >>> from gap_mllm import GapMllmForConditionalGeneration, SceneSession
            >>> from gap_mllm.processing import GapMllmProcessor
            >>> from gap_mllm.processing.data import render_room
            >>> model = GapMllmForConditionalGeneration.from_pretrained(folder).eval()
            >>> processor = GapMllmProcessor.from_pretrained(folder)
            >>> scene = SceneSession(model, processor, list(render_room(0).images))
            >>> stream = scene.stream("How many chairs are there?", max_new_tokens=8)
            >>> "".join(stream) == stream.result.text  # or: for piece in stream: print(piece, end="")
            True

            ```
        """
        chat = self._chat(question)

        def steps():
            return self._said(chat, (yield from self._streamed(chat, None, options)))

        _check_single(options)
        return AnswerStream(steps())

    def detect(self, labels: Sequence[str] | None = None, **options) -> SceneBoxes:
        """Ask for all objects with their boxes, in the camera of the first view.

        Args:
            labels (list of `str`, *optional*): labels to keep, in any case; those that the answer does not name are
                told as rejected.
            **options: arguments of generate().
        Returns:
            `SceneBoxes`.
        """
        answer = self._answers([self._messages("detection3d")], "detection3d", **options)[0]
        return self._boxes(answer, _as_labels(labels))

    def stream_boxes(self, labels: Sequence[str] | None = None, **options) -> AnswerStream:
        """As `detect`, with each box as soon as its object closes.

        Args:
            labels (list of `str`, *optional*), **options: arguments of `detect`, without beams.
        Returns:
            `AnswerStream` of `SceneBox`: those of `detect`, in their order; its `result` is what that returns.
        Raises:
            ValueError: for several answers at once.
        """
        labels, chat = _as_labels(labels), self._messages("detection3d")
        wanted = None if labels is None else {label.casefold() for label in labels}

        def make(item):
            return self._box(item) if wanted is None or item.label.casefold() in wanted else None

        def steps():
            pieces = self._streamed(chat, "detection3d", options)
            answer = yield from closed_objects(pieces, lambda text: parse_boxes(text, require_label=True), make)
            return self._boxes(answer, labels)

        _check_single(options)
        return AnswerStream(steps())

    def ground(self, description: str, **options) -> GroundedObject:
        """Find a described object: first the view that shows it, then its box in the camera of that view.

        Args:
            description (`str`): what to find, as "the red chair by the window".
            **options: arguments of generate().
        Returns:
            `GroundedObject`.
        """
        description = mend_text(description, "description") if isinstance(description, str) else description
        chat = self._messages("grounding_frame", description=description)
        first = self._answers([chat], "grounding_frame", **options)[0]
        found = parse_frame(first.text, len(self.views))
        rejected = found.rejected
        if found.first is None and not rejected:
            rejected = (Rejection(first.text[:200], "no view is named, the first is taken"),)
        view = found.first or 0
        order = self._order_from(view)
        chat = self._messages("grounding_box", order, description=description)
        second = self._answers([chat], "grounding_box", order, **options)[0]
        parsed = parse_boxes(second.text)
        boxes = tuple(replace(self._box(item, view), label=item.label or description) for item in parsed.items[:1])
        rejected += parsed.rejected
        truncated = first.truncated or second.truncated or parsed.truncated
        return GroundedObject(description, second.text, rejected, truncated, self.views, boxes, None, view, first.text)

    def locate(self, view, x: float | None = None, y: float | None = None, **options) -> ScenePoints:
        """Ask what is at marked pixels, and where: label and point, in the camera of the first view.

        Args:
            view (`int`, or list of marks): view of the pixel, counted from 0; or several marks, each a `Mark` or
                [view, x, y], which are asked about in one question.
            x, y (`float`, *optional*): pixel of the upright picture, whole numbers.
            **options: arguments of generate().
        Returns:
            `ScenePoints`: a point for each mark.
        Raises:
            ValueError: for a pixel outside of its view, a view that there is not, or no mark.
        """
        marks, task = as_marks(view if x is None else [[view, x, y]]), "reconstruction"
        if len(marks) != 1:
            marks, task = number_marks(view, len(self.views)), "sparse_points"
        chat = self._messages(task, marks=self.views.picture_marks(marks))
        key = tuple((mark.view, *mark.pixel, mark.color, mark.text) for mark in marks)
        places = tuple((mark.view, *mark.pixel) for mark in marks)
        answer = self._answers([chat], task, marks=key, **options)[0]
        parsed, points = parse_points(answer.text), []
        for place, where in enumerate(places):
            item = parsed.entries[place] if place < len(parsed.entries) else None
            found = hasattr(item, "point")
            points.append(ScenePoint(item.label, item.point, where, 0, self._pose(0)) if found else None)
        rejected, extra = parsed.rejected, [each for each in parsed.entries[len(marks) :] if hasattr(each, "point")]
        rejected += tuple(Rejection(str(item), f"there are only {len(marks)} marks") for item in extra)
        truncated = answer.truncated or parsed.truncated
        return ScenePoints(_last_words(chat), answer.text, rejected, truncated, self.views, tuple(points), places)

    def describe(self, place, **options) -> SceneAnswer:
        """Ask for a sentence about the object at a point, or in a box.

        Args:
            place (`SceneBox`, `ScenePoint`, or sequence of 3 or 9 floats): where the object is; numbers in the camera
                of the first view. The view of a result is shown first, since its camera is the frame.
            **options: arguments of generate().
        Returns:
            `SceneAnswer`.
        Raises:
            ValueError: if it is neither a point nor a box, or lies in the world.
        """
        if getattr(place, "view", 0) is None:
            raise ValueError("place lies in the world; give it in the camera of a view, as the session found it.")
        numbers = next((getattr(place, name) for name in ("box", "bbox_3d", "point") if hasattr(place, name)), place)
        if np.ndim(numbers) != 1 or len(numbers) not in (3, BOX_LENGTH):
            raise ValueError(f"place is {place!r}; expected a point of 3 numbers, or a box of {BOX_LENGTH}.")
        view = getattr(place, "view", 0)
        order = None if view == 0 else self._order_from(view)
        chat = self._messages("dense_caption", order, location=list(numbers[:3]))
        answer = self._answers([chat], "dense_caption", order, **options)[0]
        return self._said(chat, answer)

    # Geometry

    @property
    def points_from(self) -> Callable | None:
        """What `points()` asks: what was given, else encoder or heads of the model; None where nothing tells any."""
        return points_source(self.model, self._given_source)

    def points(self) -> ScenePointMaps:
        """Tell what each pixel of each view sees, in the camera of the first view.

        Returns:
            `ScenePointMaps`: of `points_from`, else of the geometry encoder's heads (`gap_mllm_vggt_points`, or the
            teacher of `gap_mllm_geometry_maps`), else of the heads of pre-training (`GapMllmForPreTraining`).
        Raises:
            ValueError: if there is none of these, or the session is closed.
        """
        return self._reconstructed()[0]

    def cameras(self) -> SceneCameras:
        """Tell the cameras of the views: those that were given, else those of what tells the points.

        Returns:
            `SceneCameras`.
        Raises:
            ValueError: if a camera or pose was not given, and nothing tells it, or the session is closed.
        """
        self._check_open()
        given, poses = self._all("intrinsics"), self._all("camera_to_world")
        cameras, relative, source = given, None, ["given", "given"]
        if all(pose is not None for pose in poses):
            relative = list(view_to_first_view(np.stack(poses)))
        if relative is None or any(camera is None for camera in given):
            maps, told, told_poses = self._reconstructed()
            if told is None:
                raise ValueError(
                    f"{maps.source} tells points, but no cameras. Give intrinsics and poses of all views "
                    f"(--intrinsics and --poses of gap-mllm ask). Or: {_WHO_TELLS}"
                )
            if relative is None:
                relative, source[1] = list(told_poses), maps.source
            if any(camera is None for camera in given):
                source[0] = maps.source if all(camera is None for camera in given) else f"given, else {maps.source}"
            cameras = [own if own is not None else other for own, other in zip(given, told, strict=True)]
        return SceneCameras(tuple(cameras), tuple(relative), tuple(source), tuple(poses))

    def _reconstructed(self):
        with model_lock(self.model), torch.no_grad():
            self._check_open()
            source = self.points_from
            if source is None:
                raise ValueError(f"This model ({type(self.model).__name__}) tells no points. {_WHO_TELLS}")
            state = self._check_state(), ModelState.of(source)
            if self._seen is None or self._seen[0] != state or state[0] is None:
                self._seen = state, reconstruct(source, self.views)
            return self._seen[1]

    # Chats

    def messages(self, question: str) -> list[dict]:
        """The chat that `ask` sends: system turn, views, question; `processor.ask` gives the same answer to it."""
        if not isinstance(question, str):
            raise TypeError(f"a question is a text or a list of messages, got {type(question).__name__}.")
        if not question.strip():
            raise ValueError("the question is empty.")
        return self._messages("reconstruction", prompt=mend_text(question, "question"))

    def _messages(self, task, order=None, **arguments):
        self._check_open()
        order = range(len(self.views)) if order is None else order
        if self.processor.intrinsics_in_prompt and None not in self._all("intrinsics"):
            arguments["intrinsics"] = [self.views.intrinsics[view] for view in order]
        return self.processor.build_messages(task, [self.views.pictures[view] for view in order], **arguments)

    def _chat(self, question):
        if not isinstance(question, list | tuple):
            return self.messages(question)
        warn_of_unread_keys(chat_parts(question))
        parts = [part for part in chat_parts(question) if part["type"] != "text"]
        if any(part["type"] not in ("image", "image_url") for part in parts) or len(parts) != len(self.views):
            raise ValueError(
                f"the chat shows {len(parts)} pictures or videos, but this session has {len(self.views)} views, which "
                "every chat shows once, as pictures. Open another session for other views."
            )
        for view, part in enumerate(parts):
            own, shown = self.views.pictures[view], picture_of(part)
            if shown is None or shown is own:
                continue
            shown = to_rgb_image(shown, f"picture {view} of the chat")
            if shown.size != own.size or ImageChops.difference(shown, own).getbbox() is not None:
                raise ValueError(
                    f"picture {view} of the chat is not view {view} of this session ({self.views.names[view]}): a "
                    "session is about one scene. Open another for other views, or leave placeholders "
                    "({'type': 'image'})."
                )
        return list(mend_chat(question))

    def _order_from(self, view):
        """A view first, those behind it, then those before it backwards; as many as the second stage shows."""
        return [view, *range(view + 1, len(self.views)), *reversed(range(view))][:MAX_BOX_VIEWS]

    # Encoding

    def _answers(self, chats, task, order=None, marks=(), batch_size=None, **options) -> list[GeneratedAnswer]:
        """Answers about a set of views: all in order or some in another, as they are or with marks."""
        order = tuple(range(len(self.views))) if order is None else tuple(order)
        form, answers = ANSWER_FORMS[task] if task else AnswerForm(), []
        with model_lock(self.model):
            self._check_open()
            encoded = self._encoded(chats, order, marks)
            for start in range(0, len(chats), batch_size or len(chats) or 1):
                batch = chats[start : start + (batch_size or len(chats))]
                answers += self._asker.generate_answers(batch, form, encoded, [0] * len(batch), **options)
        return answers

    def _streamed(self, chat, task, options):
        """Pieces of the answer to a chat about all views; returns the answer."""
        form = ANSWER_FORMS[task] if task else AnswerForm()
        return stream_text(self.processor.tokenizer, form, lambda **o: self._answers([chat], task, **o)[0], options)

    def _encoded(self, chats, order, marks):
        """The encoded set of views, from what is kept where the model is as it was."""
        state, key = self._check_state(), (order, marks)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        pictures = [self.views.pictures[view] for view in order]
        if marks:
            pictures = [part["image"] for part in chat_parts(chats[0]) if part["type"] == "image"]
        known = (lambda grid: self._known_geometry(grid, order)) if self._known else None
        encoded = self._asker.encode([pictures], known=known)
        if state is not None:
            encoded.prefixes = PromptPrefixes()
            self._kept[key] = encoded
            while len(self._kept) > self._max_view_sets:
                self._kept.popitem(last=False)
        return encoded

    def _check_state(self):
        """What answers depend on, None while the model is trained; what was kept of another state is gone."""
        state = None if self.model.training else (ModelState.of(self.model), processor_state(self.processor))
        if state is None or state != self._state:
            self._kept.clear()
            check_image_statistics(self.processor, self.model.config)
            self._find_known()
            self._state = state
        return state

    def _find_known(self):
        """Find which fields of known geometry the model gets, and warn where it reads none of those given."""
        given = [name for name in _KNOWN if any(value is not None for value in self._all(_KNOWN[name]))]
        base, fusion = self.model.model, self.model.config.gap_fusion_config
        reads = getattr(base.geometry, "reads_known_geometry", False) or fusion.position_encoding is not None
        known = given if base.geometry is not None and reads else []
        if given and not known and known != self._known:
            encoder = "no geometry encoder" if base.geometry is None else type(base.geometry).__name__
            logger.warning(
                f"{' and '.join(given)} were given, but this model ({encoder}) reads pixels alone: they change no "
                "answer, only the frames that results are told and drawn in (docs/known_geometry.md)."
            )
        self._known = known

    def _known_geometry(self, grid, order):
        """Intrinsics and poses of the views as the model gets them."""
        patch, known = self.model.config.vision_config.patch_size, {}
        for name in self._known:
            values = [getattr(self.views, _KNOWN[name])[view] for view in order]
            if name == "intrinsics":
                sizes = [self.views.sizes[view] for view in order]
                values = [
                    None if camera is None else scale_intrinsics(camera, columns * patch / w, rows * patch / h)
                    for camera, (w, h), (_, rows, columns) in zip(values, sizes, grid.tolist(), strict=True)
                ]
            known[name] = values
        return known

    # Results

    def _all(self, name):
        return list(getattr(self.views, name))

    def _pose(self, view):
        pose = self.views.camera_to_world[view]
        return None if pose is None else tuple(tuple(row) for row in pose.tolist())

    def _said(self, chat, answer: GeneratedAnswer):
        return SceneAnswer(_last_words(chat), answer.text, truncated=answer.truncated, views=self.views)

    def _box(self, item, view=0):
        return SceneBox(item.label, item.bbox_3d, view, camera_to_world=self._pose(view))

    def _boxes(self, answer, labels):
        parsed = parse_boxes(answer.text, require_label=True)
        boxes, rejected = [self._box(item) for item in parsed.items], parsed.rejected
        if labels is not None:
            wanted = {label.casefold() for label in labels}
            named = {box.label.casefold() for box in boxes}
            boxes = [box for box in boxes if box.label.casefold() in wanted]
            reason = f"no such object in the answer, which names {', '.join(sorted(named)) or 'none'}"
            rejected += tuple(Rejection(label, reason) for label in labels if label.casefold() not in named)
        truncated = answer.truncated or parsed.truncated
        question = "all objects" if labels is None else ", ".join(labels)
        return SceneBoxes(question, answer.text, rejected, truncated, self.views, tuple(boxes), labels)

    def _check_open(self):
        if self.is_closed:
            raise ValueError("this session is closed; open another: SceneSession(model, processor, views).")


_WHO_TELLS = (
    "Pass points_from=GapMllmVggtForReconstruction.from_pretrained(FOLDER), a geometry encoder with its heads "
    "(--points-from FOLDER of gap-mllm ask); or load the model with AutoModelForPreTraining, if its folder holds "
    "heads for points (which tell no cameras), or with an encoder of the type 'gap_mllm_vggt_points'."
)
_KNOWN = {"intrinsics": "intrinsics", "poses": "camera_to_world"}  # name of the model -> of SceneViews


def _last_words(chat) -> str:
    """The text of the last user turn."""
    turn = [turn for turn in chat if turn["role"] == "user"][-1]
    content = turn["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content).strip()


def _as_labels(labels):
    labels = (labels,) if isinstance(labels, str) else labels
    if labels is None:
        return None
    labels = tuple(labels) if isinstance(labels, Iterable) else (labels,)
    for label in labels:
        if not isinstance(label, str):
            raise TypeError(f"labels must be texts, as ['chair', 'table']; got {label!r}.")
    return tuple(mend_text(label, "label") for label in labels)


def _check_single(options):
    for name in ("num_beams", "num_return_sequences"):
        if (options.get(name) or 1) != 1:
            raise ValueError(f"{name} is {options[name]}; what is streamed is one answer, as it grows: leave it out.")
