"""Questions as rows for `trl.GRPOTrainer`: a chat without its answer, the pictures of the scene, and references."""

import inspect
import math
from collections.abc import Callable, Sequence

import datasets

from ..processing.data.answer_texts import holds_numbers, read_truth
from ..processing.data.scene_sample import SceneSample
from ..processing.data.truth import LETTERS
from ..processing.processing_gap_mllm import GapMllmProcessor
from ..processing.prompts_gap_mllm import as_trained


REFERENCES = ("choice", "number", "bbox_3d", "point", "frame")  # columns that rewards look at
NUM_LOOKED_AT = 8  # questions, before rewards count as those that fit none


def make_prompt_rows(
    questions: Sequence[SceneSample | Sequence[SceneSample]],
    processor: GapMllmProcessor,
    instruction: str | None = None,
) -> datasets.Dataset:
    """Rows whose pictures are drawn, and marked, when a row is read; nothing is stored.

    Frame of points and boxes: camera of the first view, OpenCV axes, angles in order "zxy". Units: metres, radians.

    Args:
        questions (sequence of `SceneSample`, or of lists of one): questions, as `SceneQuestionDataset` and
            `RoomQuestionDataset` make them.
        processor (`GapMllmProcessor`): the model's processor, which knows the size of its crosses.
        instruction (`str`, *optional*): text behind each question, as one that asks for tags.
    Returns:
        `datasets.Dataset`: "prompt" (chat with a place for each picture), "images", and the columns of `REWARDS`:
        "choice", "number", "bbox_3d", "point" and "frame", None for what is not asked for.
    Raises:
        ValueError: when a row is read: if an item holds several questions, or its answer cannot be read. RecordError:
            as the questions raise it.

    Example:
        ```python
        >>> from gap_mllm import GapMllmProcessor
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.training import SceneQuestionDataset, make_prompt_rows
        >>> scenes = load_multiview("rendered_rooms", split="train", num_rooms=2)
        >>> questions = SceneQuestionDataset(scenes, tasks=("object_count",), num_views=3)
        >>> rows = make_prompt_rows(questions, GapMllmProcessor.from_pretrained(folder))
        >>> len(rows), len(rows[0]["images"]), [turn["role"] for turn in rows[0]["prompt"]]
        (2, 3, ['system', 'user'])
        >>> rows[0]["number"] == float(questions[0].answer), rows[0]["choice"]
        (True, None)

        ```
    """

    def read(batch):
        rows = {index: _prompt_row(questions[index], processor, instruction) for index in dict.fromkeys(batch["item"])}
        rows = [rows[index] for index in batch["item"]]  # a prompt stands in a batch once for each generation
        return {name: [row[name] for row in rows] for name in rows[0]}

    return datasets.Dataset.from_dict({"item": list(range(len(questions)))}).with_transform(read)


def question_of(item: SceneSample | Sequence[SceneSample]) -> SceneSample:
    """The one question of an item; ValueError if it holds several."""
    if isinstance(item, SceneSample):
        return item
    if len(item) != 1:
        raise ValueError(
            f"an item holds {len(item)} questions, and a prompt asks one: give questions.counts 1 in all, or "
            "questions_per_scene 1."
        )
    return item[0]


def prompt_of(sample: SceneSample, processor: GapMllmProcessor, instruction: str | None = None) -> tuple:
    """The chat of a question without its answer, with a place for each picture, and the pictures with their marks."""
    images = sample.marked_images(processor.cross_size)
    prompt = as_trained(sample, processor).messages(images, with_answer=False)
    if instruction is not None:
        prompt[-1]["content"].append({"type": "text", "text": instruction})
    for part in prompt[-1]["content"]:
        part.pop("image", None)  # TRL puts the pictures of the row into these places
    return prompt, images


def _prompt_row(item, processor, instruction):
    sample = question_of(item)
    prompt, images = prompt_of(sample, processor, instruction)
    return {"prompt": prompt, "images": images, **references_of(sample)}


def check_references(questions: Sequence[SceneSample | Sequence[SceneSample]], rewards: Sequence[Callable]) -> None:
    """Refuse rewards that no question has a reference for, so that nothing would be learnt from them.

    Args:
        questions (sequence of `SceneSample`, or of lists of one): questions, of which up to `NUM_LOOKED_AT` are asked.
        rewards (sequence of `Callable`): reward functions; those that need no reference, as that of the format, count
            only where no other is given.
    Raises:
        ValueError: if none of them has one, with the references that there are. As `make_prompt_rows` raises it.

    Example:
        ```python
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.training import SceneQuestionDataset, compose_rewards
        >>> from gap_mllm.training.prompt_rows import check_references
        >>> scenes = load_multiview("rendered_rooms", split="train", num_rooms=2)
        >>> questions = SceneQuestionDataset(scenes, tasks=("object_count",), num_views=3)
        >>> check_references(questions, compose_rewards({"relative_accuracy": 1.0})[0])  # nothing comes: they fit

        ```
    """
    wanted = {name for reward in rewards for name in inspect.signature(reward).parameters} & set(REFERENCES)
    if not wanted:
        return
    found = set()
    places = range(0, len(questions), math.ceil(len(questions) / NUM_LOOKED_AT))
    for place in places:
        given = references_of(question_of(questions[place]))
        found |= {name for name, value in given.items() if value is not None}
        if wanted & found:
            return
    raise ValueError(
        f"The rewards look at {', '.join(sorted(wanted))}, which none of {len(places)} questions has; they have "
        f"{', '.join(sorted(found)) or 'nothing that a reward looks at'}. Name rewards that fit what is asked."
    )


def references_of(sample: SceneSample) -> dict:
    """What the rewards hold an answer to: the columns of `make_prompt_rows`, None for what is not asked for."""
    truth = sample.truth
    if truth is None and holds_numbers(sample.answer):
        truth = read_truth(sample, sample.answer)
    numbers = {}
    if truth is not None and truth.camera == "first" and truth.kind in ("point", "box"):
        numbers[truth.kind] = list(truth.items[0].numbers)
    choice = None if sample.choice_index is None else LETTERS[sample.choice_index]
    frame = None if truth is None else truth.frame
    values = choice, sample.number, numbers.get("box"), numbers.get("point"), frame
    return dict(zip(REFERENCES, values, strict=True))
