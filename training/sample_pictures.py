"""samples.png of a run: a few questions of every evaluation, answered, with the truth drawn beside the answer."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..processing.answers_gap_mllm import parse_boxes, parse_frame, parse_points
from ..processing.asking_gap_mllm import ANSWER_FORMS, AnswerForm, Asker
from ..processing.data.answer_texts import in_answered_camera
from ..processing.data.contact_sheet import question_text, shown_views
from ..processing.data.picture_strips import (
    FAINT,
    GAP,
    HEADER,
    LARGE,
    MARGIN,
    SMALL,
    TEXT,
    side_by_side,
    stack_strips,
    text_strip,
)
from ..processing.data.record_errors import RecordError
from ..processing.data.scene_sample import Box, Point, SceneSample
from ..processing.data.view_overlay import draw_view
from ..processing.data.view_selection import select_views, spread_views
from ..processing.processing_gap_mllm import GapMllmProcessor
from ..processing.prompts_gap_mllm import as_trained
from ..processing.scores import box_iou_9dof
from .evaluation_batches import gathered_model
from .progress_lines import run_place
from .prompt_rows import references_of
from .run_folder import RunFolder


SAMPLES_FILE = "samples.png"
NUM_SHOWN, MAX_VIEWS, MAX_PIXELS, MAX_NEW_TOKENS = 4, 8, 640 * 480, 192  # so that asking is cheap beside evaluating
WIDTH = 1400
TRUE_COLOR, ANSWER_COLOR, OTHER_COLOR = (0, 160, 60), (240, 110, 0), (60, 110, 230)
KEY = (
    "Green: the truth. Orange: the model's answer. Blue: what a question is about whose answer is in words. Rings are "
    "points that something hides. Crosses, discs and thick outlines are marks that the model sees as well."
)


@dataclass
class AnsweredSample:
    """A question with what the model answered, and maybe what each reward gave for it."""

    sample: SceneSample
    text: str
    rewards: Mapping[str, float | None] | None = None


class SamplePictures(TrainerCallback):
    """Asks a few questions at every evaluation, greedily, and draws samples.png into the folder of the run.

    All processes ask, as sharded models need; the main one draws. No random number is drawn, so that losses stay as
    they are.

    Args:
        run (`RunFolder`): folder of the run.
        processor (`GapMllmProcessor`): the model's processor.
        questions (dataset of `SceneSample` or lists of them, or `dict` of such): what is evaluated on; the first few
            are asked, of several sets in turn, and the first of several about one scene. Without any, none are drawn.
        instruction (`str`, *optional*): text behind each question.
        rewards (`list[Callable]`, defaults to `()`): functions of `compose_rewards`.
    """

    def __init__(
        self,
        run: RunFolder,
        processor: GapMllmProcessor,
        questions: Dataset | Mapping[str, Dataset],
        instruction: str | None = None,
        rewards: Sequence[Callable] = (),
    ):
        self.run, self.processor, self.questions = run, processor, questions
        self.instruction, self.rewards, self._samples, self._drawn_at = instruction, rewards, None, None

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs,
    ):
        if self._drawn_at == state.global_step or not self.questions:  # of several evaluation sets each is told of
            return
        self._drawn_at = state.global_step
        self._samples = self._samples or [_thinned(sample) for sample in first_samples(self.questions)]
        with gathered_model(model):
            answered = self.answer(model)
        if state.is_world_process_zero:
            title = f"Answers after {run_place(args, state)}"
            draw_answered(answered, self.run.path / SAMPLES_FILE, title)

    def answer(self, model: nn.Module) -> list[AnsweredSample]:
        """Let the model answer the samples, one after the other."""
        was_training, asker, answered = model.training, Asker(model.eval(), self.processor), []
        for sample in self._samples:
            images = [_bounded(image) for image in sample.marked_images(self.processor.cross_size)]
            chat = as_trained(sample, self.processor).messages(images, with_answer=False)
            form = ANSWER_FORMS.get(sample.task, AnswerForm())
            if self.instruction or "<think>" in (sample.answer or ""):
                form = AnswerForm(MAX_NEW_TOKENS)  # for thoughts as well
            if self.instruction:
                chat[-1]["content"].append({"type": "text", "text": self.instruction})
            (text,) = asker.answer([chat], form, max_new_tokens=min(form.max_new_tokens, MAX_NEW_TOKENS))
            answered.append(AnsweredSample(sample, text, self._rewards(sample, text)))
        model.train(was_training)
        return answered

    def _rewards(self, sample, text):
        columns = {name: [value] for name, value in references_of(sample).items()} if self.rewards else {}
        columns["completion_ids"] = [self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]]
        return {function.__name__: function([text], **columns)[0] for function in self.rewards}


def first_samples(questions: Dataset | Mapping[str, Dataset], count: int = NUM_SHOWN) -> list[SceneSample]:
    """The first questions of a dataset, or of several in turn; of an item that holds several, its first."""
    sets = list(questions.values()) if isinstance(questions, Mapping) else [questions]
    turns = ((each, index) for index in range(count) for each in sets if index < len(each))
    items = (each[index] for each, index in turns)
    return list(islice((item if isinstance(item, SceneSample) else item[0] for item in items), count))


def draw_answered(answered: Sequence[AnsweredSample], path: str | Path, title: str) -> None:
    """Draw questions with truth and answer below each other.

    Args:
        answered (`list[AnsweredSample]`): a few; each takes a row of views and some lines.
        path (`str` or `Path`): the PNG file to write.
        title (`str`): headline.
    """
    inner = WIDTH - 2 * MARGIN
    strips = [text_strip(title, inner, LARGE), text_strip(KEY, inner, SMALL, FAINT)]
    strips += chain.from_iterable(_rows(each, f"{number}: ", inner) for number, each in enumerate(answered, 1))
    stack_strips([strip for strip in strips if strip is not None], WIDTH).save(path)


def _thinned(sample):
    """A sample of many views with a few of them; whole, if it speaks of more."""
    if len(sample.views) <= MAX_VIEWS:
        return sample
    with suppress(RecordError):
        return select_views(sample, spread_views(sample, MAX_VIEWS))
    return sample


def _bounded(image):
    factor = (MAX_PIXELS / (image.width * image.height)) ** 0.5
    return image if factor >= 1 else image.resize((round(image.width * factor), round(image.height * factor)))


def _rows(answered, number, width):
    sample, text = answered.sample, answered.text
    drawn, colors, verdict = _with_answer(sample, text)
    yield text_strip(f"{number}{sample.id} | {sample.question_type or sample.task}", width, TEXT, "white", HEADER)
    shown = shown_views(sample, MAX_VIEWS)
    columns = max(min(len(shown), 4), 3)
    tiles = [draw_view(drawn, view, (width - (columns - 1) * GAP) // columns, colors).picture for view in shown]
    for start in range(0, len(tiles), columns):
        yield side_by_side(tiles[start : start + columns], width)
    yield text_strip(f"Question: {' '.join(question_text(sample).split())}", width, SMALL, FAINT, max_lines=2)
    truth = sample.answer or " / ".join(sample.references) or "not known"
    yield text_strip(f"Truth: {_plain(truth)}", width, TEXT, TRUE_COLOR, max_lines=2)
    notes = [verdict, *(f"{name} {_number(value)}" for name, value in (answered.rewards or {}).items())]
    notes = ", ".join(note for note in notes if note)
    yield text_strip(f"Answer{f' ({notes})' if notes else ''}: {_plain(text)}", width, TEXT, ANSWER_COLOR, max_lines=3)


def _with_answer(sample, text):
    """The sample with what is true and answered alone, the colours of these, and how far they are from each other."""
    order = next((box.euler_order for box in sample.boxes if box.frame == "camera"), "zxy")
    is_own = in_answered_camera(sample)
    true = _objects(sample.answer or "", order, sample.target_frame if is_own else 0, "true")
    frame = parse_frame(text, len(sample.views)).first if is_own else 0
    found = _objects(text, order, frame, "answered") if frame is not None else ([], [])
    others = ([], []) if any(true) else (list(sample.points), list(sample.boxes))  # what a question in words is about
    points, boxes = ([*a, *b, *c] for a, b, c in zip(true, found, others, strict=True))
    colors = [
        [TRUE_COLOR] * len(a) + [ANSWER_COLOR] * len(b) + [OTHER_COLOR] * len(c)
        for a, b, c in zip(true, found, others, strict=True)
    ]
    return replace(sample, points=tuple(points), boxes=tuple(boxes)), (colors[1], colors[0]), _verdict(true, found)


def _objects(text, order, frame, word):
    """Points and boxes of an answer; boxes in the camera of the view `frame`."""
    points = [
        Point(None, None, np.asarray(item.point), label=f"{word} {item.label or ''}".strip())
        for item in parse_points(text).items
    ]
    boxes = [
        Box(np.asarray(item.bbox_3d), order, "camera", frame, f"{word} {item.label or ''}".strip())
        for item in parse_boxes(text).items
    ]
    return points, boxes


def _verdict(true, found):
    """How good one answered point or box is."""
    if len(true[0]) == 1 == len(found[0]):
        return f"{np.linalg.norm(true[0][0].xyz - found[0][0].xyz):.2f} m off"
    if len(true[1]) == 1 == len(found[1]) and true[1][0].frame_index == found[1][0].frame_index:
        with suppress(ValueError):  # sizes beyond all measure
            return f"IoU {box_iou_9dof(true[1][0].numbers, found[1][0].numbers, true[1][0].euler_order):.2f}"
    return ""


def _plain(text):
    return " ".join(text.replace("```json", "").replace("```", "").split()) or "(nothing)"


def _number(value):
    return "none" if value is None else f"{value:.2f}"
