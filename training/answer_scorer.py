"""The scorer of a training that asks the model the questions of its evaluation set, and rewards the answers."""

from collections.abc import Callable, Sequence

from torch import nn

from ..processing.asking_gap_mllm import ANSWER_FORMS
from ..processing.data.scene_sample import SceneSample
from ..processing.processing_gap_mllm import GapMllmProcessor
from ..processing.prompts_gap_mllm import as_trained
from .prompt_rows import references_of
from .rewards import compose_rewards


def answer_scorer(
    processor: GapMllmProcessor,
    questions: Sequence[SceneSample | Sequence[SceneSample]],
    rewards: dict[str, float | dict],
    batch_size: int = 16,
) -> Callable[[nn.Module], dict[str, float]]:
    """Build the `scorer` of a `GeometryAlignedTrainer`: greedy answers to questions, each reward by its name.

    Args:
        processor (`GapMllmProcessor`): processor of the model.
        questions (sequence of `SceneSample`, or of lists of them): questions, as `SceneQuestionDataset` makes them;
            those that no reward applies to, as captions, are not asked.
        rewards (`dict`): names of `REWARDS` with options, as `compose_rewards` takes them; weights do not matter.
        batch_size (`int`, defaults to 16): chats of one call of generate().
    Returns:
        `Callable`: takes a model, returns the mean of each reward over the questions that it applies to, as
        "choice_reward".
    Raises:
        ValueError: as `compose_rewards`, or if no reward applies to any question.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForPreTraining, GapMllmProcessor
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.training import SceneQuestionDataset
        >>> from gap_mllm.training.answer_scorer import answer_scorer
        >>> rooms = load_multiview("rendered_rooms", split="selection", num_rooms=2)
        >>> questions = SceneQuestionDataset(rooms, tasks=("object_count",), num_views=2)
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> score = answer_scorer(processor, questions, {"choice": 1.0, "relative_accuracy": 1.0})
        >>> list(score(GapMllmForPreTraining.from_pretrained(folder, dtype="float32")))  # no question has a choice
        ['relative_accuracy_reward']

        ```
    """
    functions, _ = compose_rewards(rewards)
    samples = [sample for item in questions for sample in (item if isinstance(item, list | tuple) else [item])]
    by_task = {}
    for sample in samples:
        references = {name: [value] for name, value in references_of(sample).items()}
        applies = [function(["?"], completion_ids=[[0]], **references)[0] is not None for function in functions]
        if any(applies):
            by_task.setdefault(sample.task if sample.task in ANSWER_FORMS else None, []).append(sample)
    if not by_task:
        raise ValueError(f"none of the rewards {list(rewards)} applies to any of {len(samples)} questions.")

    def score(model: nn.Module) -> dict[str, float]:
        earned, was_training = {function.__name__: [] for function in functions}, model.training
        model.eval()
        try:
            for task, asked in by_task.items():
                for start in range(0, len(asked), batch_size):
                    _reward(earned, functions, processor, model, task, asked[start : start + batch_size])
        finally:
            model.train(was_training)
        return {name: sum(values) / len(values) for name, values in earned.items() if values}

    return score


def _reward(earned, functions, processor, model, task, samples):
    """Add what the answers to some questions of one task earn."""
    shown = [sample.marked_images(processor.cross_size) for sample in samples]
    pairs = zip(samples, shown, strict=True)
    chats = [as_trained(sample, processor).messages(images, with_answer=False) for sample, images in pairs]
    texts = processor.ask(model, chats, task=task)
    references = [references_of(sample) for sample in samples]
    columns = {name: [each[name] for each in references] for name in references[0]}
    columns["completion_ids"] = [processor.tokenizer(text)["input_ids"] for text in texts]
    for function in functions:
        earned[function.__name__] += [value for value in function(texts, **columns) if value is not None]
