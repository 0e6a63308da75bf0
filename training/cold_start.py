"""Written thoughts for a cold start: rows for `trl.SFTTrainer` whose answers earn their rewards, before train_grpo.py.

Source: Spatial-MLLM (arXiv:2505.23747), which begins its reinforcement learning with 2,459 such items, not public.
"""

from collections.abc import Callable, Sequence

import datasets

from ..processing.data.scene_sample import SceneSample
from ..processing.processing_gap_mllm import GapMllmProcessor
from .prompt_rows import make_prompt_rows, question_of, references_of
from .rewards import compose_rewards


def write_thought(sample: SceneSample) -> str | None:
    """The true answer in tags behind a thought of where the objects of the question are, and how large.

    Frame: camera of the first view, OpenCV axes. Units: metres.
    Differs: Spatial-MLLM samples its thoughts from a large model; these come from the boxes of the scene.

    Args:
        sample (`SceneSample`): question with its answer, as task makers make it.
    Returns:
        `str` or None: None for a question about no boxes, as one about cameras.

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
    seen = []
    for box in sample.boxes:
        numbers = [round(float(number), 1) + 0.0 for number in sample.box_in_view(box, 0)]  # + 0.0 turns -0.0 into 0.0
        seen.append(f"{box.label} at {numbers[:3]}, size {numbers[3:6]}")
    if not seen:
        return None
    return f"<think>From the first camera, in metres: {'; '.join(seen)}.</think>\n<answer>{sample.answer}</answer>"


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
    functions, _ = compose_rewards(rewards)
    kept, completions = [], []
    for item in (questions[place] for place in range(len(questions))):
        sample = question_of(item)
        text = write(sample)
        if text is not None and _is_worth(text, sample, functions, processor, least):
            kept.append(sample)
            completions.append([{"role": "assistant", "content": [{"type": "text", "text": text}]}])
    if not kept:
        raise ValueError(f"of {len(questions)} answers none earns {least} of every reward that applies to it.")
    prompts = make_prompt_rows(kept, processor, instruction)
    rows = [
        {"prompt": row["prompt"], "completion": completion, "images": row["images"]}
        for row, completion in zip(prompts, completions, strict=True)
    ]
    return datasets.Dataset.from_list(rows)


def _is_worth(text, sample, functions, processor, least):
    references = {name: [value] for name, value in references_of(sample).items()}
    if all(value == [None] for value in references.values()):
        return False
    columns = {**references, "completion_ids": [processor.tokenizer(text)["input_ids"]]}
    earned = [function([text], **columns)[0] for function in functions]
    return all(reward is None or reward >= least for reward in earned)


__all__ = ["make_cold_start_rows", "write_thought"]
