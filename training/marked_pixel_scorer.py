"""The marked-pixel question about rooms: ask a model what a red cross marks and where it is, and score the answers.

`marked_pixel_scorer` is the scorer that recipes use while training. Intervals and blind baselines beside the same
figures are in evaluation/marked_pixel.py.
"""

from collections.abc import Callable, Iterable, Sequence

from torch import nn
from tqdm import tqdm

from ..modeling_gap_mllm import GapMllmForConditionalGeneration
from ..processing.answers_gap_mllm import POINT_KEY
from ..processing.asking_gap_mllm import AnswerForm, Asker
from ..processing.data import CannotAskError, SceneSample, make_tasks
from ..processing.processing_gap_mllm import GapMllmProcessor
from ..processing.prompts_gap_mllm import as_trained
from ..processing.scores.point_answers import PointAnswer, point_figures, read_point_answer
from ..processing.visual_prompt_gap_mllm import CrossSize


def read_marked_pixel(sample: SceneSample, text: str) -> PointAnswer:
    """Read an answer to a question about a marked pixel and hold it to the truth; see `read_point_answer`."""
    (truth,) = sample.truth.items
    return read_point_answer(text, truth.numbers, truth.label)


def make_marked_pixel_samples(
    scenes: Iterable, questions_per_scene: int = 1, phrasings: str = "first"
) -> list[SceneSample]:
    """Ask questions about marked pixels of rooms, one red cross each.

    Args:
        scenes (iterable of `RoomScene` or `SceneSample`): scenes, as `render_split("test", 256)`, or of another source
            with depth and poses.
        questions_per_scene (`int`, defaults to 1): different pixels of each room.
        phrasings (`str`, defaults to "first"): how they are worded, as for `make_tasks`; "held_out" asks about the
            same pixels in words that no training has.
    Returns:
        `list[SceneSample]`.
    Raises:
        CannotAskError: if a scene has no pixel to mark. ValueError: if `phrasings` is another word.

    Example:
        ```python
        >>> from gap_mllm.evaluation import make_marked_pixel_samples, render_split
        >>> samples = make_marked_pixel_samples(render_split("test", 1), questions_per_scene=2)
        >>> len(samples), samples[0].task
        (2, 'reconstruction')

        ```
    """
    samples = []
    for scene in scenes:
        scene = scene if isinstance(scene, SceneSample) else scene.as_sample()
        asked = {"reconstruction": questions_per_scene}
        made = make_tasks(scene, asked, phrasings=phrasings, mark_colors=("red",))
        for _, reason in made.refused:
            raise CannotAskError(f"{scene.id} cannot be asked about a marked pixel: {reason}.", reason)
        samples += made
    return samples


def answer_marked_pixels(
    model: GapMllmForConditionalGeneration,
    processor: GapMllmProcessor,
    samples: Sequence[SceneSample],
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
        samples (`list[SceneSample]`): the questions.
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
    form, size = AnswerForm(max_new_tokens, (POINT_KEY,)), choose_cross_size(processor, arm, half_thickness)
    model.eval()
    try:
        for start in tqdm(range(0, len(samples), batch_size), desc="answers", disable=not show_progress):
            shown = samples[start : start + batch_size]
            asked = [as_trained(one, processor).messages(one.marked_images(size), with_answer=False) for one in shown]
            texts += asker.answer(asked, form)
    finally:
        model.train(was_training)
    return texts


def choose_cross_size(processor: GapMllmProcessor, arm: int | None, half_thickness: int | None) -> CrossSize:
    """The size of crosses that the processor knows; what is given is in pixels of the views, whatever their width."""
    known, sizes = processor.cross_size, {"arm": arm, "half_thickness": half_thickness}
    given = {name: value for name, value in sizes.items() if value is not None}
    if not given:
        return known
    return CrossSize(**{"arm": known.arm, "half_thickness": known.half_thickness, **given})


def marked_pixel_scorer(processor: GapMllmProcessor, scenes: Iterable, **options) -> Callable:
    """Build the `scorer` of a `GeometryAlignedTrainer`: it asks about one marked pixel of each room, and scores.

    Args:
        processor (`GapMllmProcessor`): the model's processor.
        scenes (iterable of `RoomScene` or `SceneSample`): such as `render_split("selection", 64)`; test rooms are for
            the end.
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
        answers = [read_marked_pixel(sample, text) for text, sample in zip(texts, samples, strict=True)]
        metrics = {"n": len(samples), "num_scenes": len({sample.scene_id for sample in samples})}
        return metrics | {name: float(sum_up(values)) for name, (values, sum_up) in point_figures(answers).items()}

    return score
