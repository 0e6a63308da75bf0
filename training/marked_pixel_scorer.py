"""The marked-pixel question about rooms: ask a model what a red cross marks and where it is, and score the answers.

`marked_pixel_scorer` is the scorer that recipes use while training. Intervals and blind baselines beside the same
figures are in evaluation/marked_pixel.py.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import nn
from tqdm import tqdm

from ..modeling_gap_mllm import GapMllmForConditionalGeneration
from ..processing.answers_gap_mllm import POINT_KEY
from ..processing.asking_gap_mllm import AnswerForm, Asker
from ..processing.data.rooms.renderer import RoomScene
from ..processing.data.rooms.tasks import RoomQuestion, make_question
from ..processing.processing_gap_mllm import GapMllmProcessor
from ..processing.prompts_gap_mllm import build_messages
from ..processing.scores.point_answers import PointAnswer, point_figures, read_point_answer


@dataclass
class MarkedPixelSample:
    """One question about a marked pixel, with the views that it is about.

    Args:
        scene_seed (`int`): the room; answers about one room are resampled together.
        images (`numpy.ndarray` of shape `(V, H, W, 3)`, uint8): the views, without the mark.
        question (`RoomQuestion`): question of the task "reconstruction".
    """

    scene_seed: int
    images: np.ndarray
    question: RoomQuestion

    def read(self, text: str) -> PointAnswer:
        """Read an answer to the question and hold it to the truth; see `read_point_answer`."""
        return read_point_answer(text, self.question.point, self.question.labels[0])


def make_marked_pixel_samples(scenes: Iterable[RoomScene], questions_per_scene: int = 1) -> list[MarkedPixelSample]:
    """Ask questions about marked pixels of rooms, one red cross each.

    Args:
        scenes (iterable of `RoomScene`): for instance `render_split("test", 256)`.
        questions_per_scene (`int`, defaults to 1): different pixels of each room.
    Returns:
        `list[MarkedPixelSample]`.

    Example:
        ```python
        >>> from gap_mllm.evaluation import make_marked_pixel_samples, render_split
        >>> samples = make_marked_pixel_samples(render_split("test", 1), questions_per_scene=2)
        >>> len(samples), samples[0].question.task
        (2, 'reconstruction')

        ```
    """
    return [
        MarkedPixelSample(scene.seed, scene.images, make_question(scene, "reconstruction", number))
        for scene in scenes
        for number in range(questions_per_scene)
    ]


def answer_marked_pixels(
    model: GapMllmForConditionalGeneration,
    processor: GapMllmProcessor,
    samples: Sequence[MarkedPixelSample],
    batch_size: int = 16,
    max_new_tokens: int = 48,
    arm: int | None = None,
    half_thickness: int | None = None,
    show_progress: bool = True,
) -> list[str]:
    """Let a model answer, greedily, in left-padded batches; an answer ends with its JSON.

    Args:
        model (`GapMllmForConditionalGeneration`): put into evaluation mode for the time being.
        processor (`GapMllmProcessor`): the model's processor, which knows the size of its crosses.
        samples (`list[MarkedPixelSample]`): the questions.
        batch_size (`int`, defaults to 16): chats of one call of generate().
        max_new_tokens (`int`, defaults to 48): longest answer, in tokens.
        arm (`int`, *optional*), half_thickness (`int`, *optional*): cross in pixels; default: as in training, see
            `GapMllmProcessor.apply_visual_prompt`.
        show_progress (`bool`, defaults to True): whether to show a bar.
    Returns:
        `list[str]`: the answers, without special tokens.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForPreTraining
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> model = GapMllmForPreTraining.from_pretrained(folder, dtype="float32")
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> from gap_mllm.evaluation import answer_marked_pixels, make_marked_pixel_samples, render_split
        >>> samples = make_marked_pixel_samples(render_split("test", 1))
        >>> len(answer_marked_pixels(model, processor, samples, max_new_tokens=2, show_progress=False))
        1

        ```
    """
    was_training, asker, texts = model.training, Asker(model, processor), []
    form = AnswerForm(max_new_tokens, (POINT_KEY,))
    model.eval()
    try:
        for start in tqdm(range(0, len(samples), batch_size), desc="answers", disable=not show_progress):
            shown = samples[start : start + batch_size]
            texts += asker.answer([_messages(processor, sample, arm, half_thickness) for sample in shown], form)
    finally:
        model.train(was_training)
    return texts


def _messages(processor, sample, arm, half_thickness):
    views = [Image.fromarray(image) for image in sample.images]
    views = processor.apply_visual_prompt(views, sample.question.marks, arm, half_thickness)
    return build_messages("reconstruction", views, prompt=sample.question.question)


def marked_pixel_scorer(processor: GapMllmProcessor, scenes: Iterable[RoomScene], **options) -> Callable:
    """Build the `scorer` of a `GeometryAlignedTrainer`: it asks about one marked pixel of each room, and scores.

    Args:
        processor (`GapMllmProcessor`): the model's processor.
        scenes (iterable of `RoomScene`): such as `render_split("selection", 64)`; test rooms are for the end.
        **options: batch_size, arm and others, as `answer_marked_pixels` takes them.
    Returns:
        `Callable`: takes a model, returns the numbers of `score_marked_pixels` without intervals.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForPreTraining
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> model = GapMllmForPreTraining.from_pretrained(folder, dtype="float32")
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> from gap_mllm.evaluation import marked_pixel_scorer, render_split
        >>> score = marked_pixel_scorer(processor, render_split("selection", 1), max_new_tokens=2, show_progress=False)
        >>> list(score(model))
        ['n', 'num_scenes', 'parse_rate', 'point_error_m', 'near_share', 'label_accuracy']

        ```
    """
    samples = make_marked_pixel_samples(scenes)

    def score(model: nn.Module):
        texts = answer_marked_pixels(model, processor, samples, **options)
        answers = [sample.read(text) for text, sample in zip(texts, samples, strict=True)]
        metrics = {"n": len(samples), "num_scenes": len({sample.scene_seed for sample in samples})}
        return metrics | {name: float(sum_up(values)) for name, (values, sum_up) in point_figures(answers).items()}

    return score


__all__ = ["MarkedPixelSample", "answer_marked_pixels", "make_marked_pixel_samples", "marked_pixel_scorer"]
