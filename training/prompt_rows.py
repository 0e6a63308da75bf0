"""Questions as rows for `trl.GRPOTrainer`: a chat without its answer, the pictures of the scene, and references."""

from collections.abc import Sequence

import datasets

from ..processing.data.answer_texts import holds_numbers, read_truth
from ..processing.data.scene_sample import SceneSample
from ..processing.data.truth import LETTERS
from ..processing.processing_gap_mllm import GapMllmProcessor


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


def _prompt_row(item, processor, instruction):
    sample = question_of(item)
    images = sample.marked_images(processor.cross_size)
    prompt = sample.messages(images, with_answer=False)
    if instruction is not None:
        prompt[-1]["content"].append({"type": "text", "text": instruction})
    for part in prompt[-1]["content"]:
        part.pop("image", None)  # TRL puts the pictures of the row into these places
    return {"prompt": prompt, "images": images, **references_of(sample)}


def references_of(sample: SceneSample) -> dict:
    """What the rewards hold an answer to: the columns of `make_prompt_rows`, None for what is not asked for."""
    truth = sample.truth
    if truth is None and holds_numbers(sample.answer):
        truth = read_truth(sample, sample.answer)
    numbers = {}
    if truth is not None and truth.camera == "first" and truth.kind in ("point", "box"):
        numbers[truth.kind] = list(truth.items[0].numbers)
    return {
        "choice": None if sample.choice_index is None else LETTERS[sample.choice_index],
        "number": sample.number,
        "bbox_3d": numbers.get("box"),
        "point": numbers.get("point"),
        "frame": None if truth is None else truth.frame,
    }


__all__ = ["make_prompt_rows", "question_of", "references_of"]
