"""Written thoughts for a cold start, before train_grpo.py: questions whose answers are in tags and earn their rewards.

A recipe trains on them by `gap-mllm train` (key `cold_start`); `trl.SFTTrainer` takes them as rows.
Source: Spatial-MLLM (arXiv:2505.23747), which begins its reinforcement learning with 2,459 such items, not public.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import datasets
from torch.utils.data import Dataset

from ..processing.data.scene_sample import SceneSample
from ..processing.input_checks_gap_mllm import WrongKindError, check_number
from ..processing.processing_gap_mllm import GapMllmProcessor
from .prompt_rows import prompt_of, question_of, references_of
from .rewards import compose_rewards


MAX_TRIES = 100  # questions in a row of which none has an answer that is worth learning


def write_thought(sample: SceneSample) -> str | None:
    """The true answer in tags behind a thought of where the objects of the question are, or what a mark is on.

    Frame: camera of the first view, OpenCV axes. Units: metres.
    Differs: Spatial-MLLM samples its thoughts from a large model; these come from the boxes of the scene.

    Args:
        sample (`SceneSample`): question with its answer, as task makers make it.
    Returns:
        `str` or None: None for a question about neither boxes nor a named point, as one about cameras.

    Example:
        ```python
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.training import SceneQuestionDataset, write_thought
        >>> scenes = load_multiview("rendered_rooms", split="train", num_rooms=1)
        >>> print(write_thought(SceneQuestionDataset(scenes, tasks=("object_count",), num_views=3)[0]))
        <think>From the first camera, in metres: ... at [...], size [...].</think>
        <answer>...</answer>

        ```
    """
    thought, seen = None, []
    for box in sample.boxes:
        numbers = [round(float(number), 1) + 0.0 for number in sample.box_in_view(box, 0)]  # + 0.0 turns -0.0 into 0.0
        seen.append(f"{box.label} at {numbers[:3]}, size {numbers[3:6]}")
    if seen:
        thought = f"From the first camera, in metres: {'; '.join(seen)}."
    elif sample.truth is not None and sample.truth.kind == "point" and sample.truth.items[0].label:
        thought = f"The mark is on: {sample.truth.items[0].label}."
    return thought and f"<think>{thought}</think>\n<answer>{sample.answer}</answer>"


class ColdStartQuestions(Dataset):
    """Questions with a written answer instead of their own, of which every reward that applies is at least `least`.

    A question whose answer is worth less is left out, and the next that is worth learning stands in its place. An
    answer is written when an item is read, and nothing is kept.

    Args:
        questions (sequence of `SceneSample`, or of lists of one): questions, as `SceneQuestionDataset` and
            `RoomQuestionDataset` make them.
        processor (`GapMllmProcessor`): the model's processor, whose tokens the reward "length" counts.
        rewards (`dict`): names of `REWARDS` with options, as `compose_rewards` takes them; weights do not matter.
        instruction (`str`, *optional*): text behind each question, as one that asks for tags.
        write (`Callable`, defaults to `write_thought`): gives the answer to a question, as a large model's, or None.
        least (`float`, defaults to 0.9): smallest reward; a right number that is rounded in its text may earn 0.9.
    Raises:
        TypeError: if the questions have no number, as streamed ones. ValueError: as `compose_rewards`. When indexed:
            ValueError, if an item holds several questions, or none of `MAX_TRIES` answers in a row is worth enough.

    Example:
        ```python
        >>> from gap_mllm import GapMllmProcessor
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.training import ColdStartQuestions, SceneQuestionDataset
        >>> scenes = load_multiview("rendered_rooms", split="train", num_rooms=2)
        >>> questions = SceneQuestionDataset(scenes, tasks=("object_count",), num_views=3)
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> thoughts = ColdStartQuestions(questions, processor, {"format": 1.0, "relative_accuracy": 1.0})
        >>> len(thoughts), thoughts[0].answer.startswith("<think>From the first camera, in metres: ")
        (2, True)

        ```
    """

    def __init__(
        self,
        questions: Sequence[SceneSample | Sequence[SceneSample]],
        processor: GapMllmProcessor,
        rewards: dict[str, float | dict],
        instruction: str | None = None,
        write: Callable[[SceneSample], str | None] = write_thought,
        least: float = 0.9,
    ):
        if not hasattr(questions, "__len__"):
            raise WrongKindError(
                f"questions is a {type(questions).__name__}, whose items have no number; a cold start looks for the "
                "answers that are worth learning, so prepare its rows (without streaming)."
            )
        self.questions, self.processor, self.instruction, self.write = questions, processor, instruction, write
        self.least, self.is_scheduled = check_number("least", least), getattr(questions, "is_scheduled", False)
        self._functions, _ = compose_rewards(rewards)

    def __len__(self):
        return len(self.questions)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        num_tries = min(len(self), MAX_TRIES)
        for place in range(index, index + num_tries):
            written = self.answered(place % len(self))
            if written is not None:
                return replace(written, question=written.question + (self.instruction or ""))
        raise ValueError(
            f"of {num_tries} answers from item {index} on none earns {self.least} of every reward that applies to it. "
            "Name other tasks, or rewards that fit these."
        )

    def answered(self, index: int) -> SceneSample | None:
        """A question with its written answer, without the instruction; None where that is worth too little."""
        sample = question_of(self.questions[index])
        text, references = self.write(sample), {name: [value] for name, value in references_of(sample).items()}
        if text is None or all(value == [None] for value in references.values()):
            return None
        columns = {**references, "completion_ids": [self.processor.tokenizer(text)["input_ids"]]}
        earned = [function([text], **columns)[0] for function in self._functions]
        is_worth = all(reward is None or reward >= self.least for reward in earned)
        return replace(sample, answer=text) if is_worth else None


def make_cold_start_rows(
    questions: Sequence[SceneSample | Sequence[SceneSample]],
    processor: GapMllmProcessor,
    rewards: dict[str, float | dict],
    instruction: str | None = None,
    write: Callable[[SceneSample], str | None] = write_thought,
    least: float = 0.9,
) -> datasets.Dataset:
    """Prompts with written answers, of which every reward that applies is at least `least`; the others are left out.

    Args:
        questions (sequence of `SceneSample`, or of lists of one), processor (`GapMllmProcessor`), instruction (`str`,
            *optional*): arguments of `make_prompt_rows`.
        rewards (`dict`): names of `REWARDS` with options, as `compose_rewards` takes them; weights do not matter.
        write (`Callable`, defaults to `write_thought`): gives the answer to a question, as a large model's, or None.
        least (`float`, defaults to 0.9): smallest reward; a right number that is rounded in its text may earn 0.9.
    Returns:
        `datasets.Dataset`: "prompt", "completion" (chats) and "images".
    Raises:
        ValueError: as `compose_rewards` and `make_prompt_rows`, or if no answer is left.

    Example:
        ```python
        >>> from gap_mllm import GapMllmProcessor
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.training import SceneQuestionDataset, make_cold_start_rows
        >>> scenes = load_multiview("rendered_rooms", split="train", num_rooms=2)
        >>> questions = SceneQuestionDataset(scenes, tasks=("object_count",), num_views=3)
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> rows = make_cold_start_rows(questions, processor, {"format": 1.0, "relative_accuracy": 1.0})
        >>> len(rows), rows[0]["completion"][0]["role"]
        (2, 'assistant')

        ```
    """
    written = ColdStartQuestions(questions, processor, rewards, write=write, least=least)
    kept = [sample for sample in map(written.answered, range(len(written))) if sample is not None]
    if not kept:
        raise ValueError(f"of {len(questions)} answers none earns {least} of every reward that applies to it.")
    rows = []
    for sample in kept:
        prompt, images = prompt_of(sample, processor, instruction)
        told = [{"role": "assistant", "content": [{"type": "text", "text": sample.answer}]}]
        rows.append({"prompt": prompt, "completion": told, "images": images})
    return datasets.Dataset.from_list(rows)
