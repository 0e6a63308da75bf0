"""A scene and the questions about it as tokens: the views once, and what is asked and answered behind them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image

from ..processing.answers_gap_mllm import answer_parts
from ..processing.data.scene_sample import SceneSample
from ..processing.processing_gap_mllm import GapMllmProcessor
from ..processing.visual_prompt_gap_mllm import Mark, marks_to_tokens
from ..training_heads_gap_mllm import ViewTokens


@dataclass(frozen=True)
class QuestionTexts:
    """A question as the chat template writes it.

    Args:
        prefix (`str`): the system turn, and all up to the end of the last view; empty without views.
        question (`str`): what follows, up to the answer.
        answer (`str`): the answer, with the end of the turn.
    """

    prefix: str
    question: str
    answer: str


@dataclass(frozen=True)
class EncodedScene:
    """The views of a scene, and the questions about them.

    Args:
        prefix (`list[int]`): tokens up to the end of the last view.
        token_types (`list[int]`): 1 for those of views, 0 for text.
        pixel_values (`torch.Tensor` of shape `(N, C)`, *optional*), image_grid_thw (`torch.Tensor` of shape `(V, 3)`):
            pictures as the processor gives them.
        questions (`list[list[int]]`), answers (`list[list[int]]`): tokens of each question.
        weights (`list[list[float]]`): weight of each token of the answers in the loss.
        targets (`list[list[int] | None]`): tokens of the prefix that show what each token of an answer is about; None
            for a question about no mark.
    """

    prefix: list[int]
    token_types: list[int]
    pixel_values: torch.Tensor | None
    image_grid_thw: torch.Tensor
    questions: list[list[int]]
    answers: list[list[int]]
    weights: list[list[float]]
    targets: list[list[int] | None]

    def length(self, index: int) -> int:
        """Number of tokens of a question with the views before it and the answer behind it."""
        return len(self.prefix) + len(self.questions[index]) + len(self.answers[index])


def write_texts(processor: GapMllmProcessor, sample: SceneSample) -> QuestionTexts:
    """Write a question and its answer with the chat template; no picture is looked at.

    Args:
        processor (`GapMllmProcessor`): processor with the template.
        sample (`SceneSample`): question with an answer.
    Returns:
        `QuestionTexts`.
    Raises:
        ValueError: if the question's tags and views differ in number, or there is no answer.
    """
    messages = sample.messages([None] * len(sample.views))
    asked = processor.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    told = processor.apply_chat_template(messages, tokenize=False)
    prefix, found, question = asked.rpartition(processor.vision_end_token)  # without views all of it is the question
    return QuestionTexts(prefix + found, question, told[len(asked) :].removesuffix("\n"))


def encode_scene(
    processor: GapMllmProcessor,
    images: list[Image.Image],
    texts: list[QuestionTexts],
    marks: list[list[Mark]],
    answer_weights: dict[str, float] | None = None,
    size: dict[str, int] | None = None,
) -> EncodedScene:
    """Encode the views of a scene once, and all questions about them.

    Args:
        processor (`GapMllmProcessor`): processor of the model.
        images (`list[PIL.Image.Image]`): views with all marks drawn on them.
        texts (`list[QuestionTexts]`): questions with one and the same prefix.
        marks (`list[list[Mark]]`): marks that each question is about, in the order of its answer; empty where it is
            about none.
        answer_weights (`dict[str, float]`, *optional*): weight of each part of an answer, see `SceneCollator`.
        size (`dict[str, int]`, *optional*): bounds on the pixels of a view, instead of the image processor's own.
    Returns:
        `EncodedScene`.
    """
    pixel_values, grids = None, torch.zeros(0, 3, dtype=torch.long)
    prefix, types = [], []
    if images:
        options = {} if size is None else {"size": size}
        inputs = processor(images=[images], text=[texts[0].prefix], return_tensors="pt", **options)
        pixel_values, grids = inputs["pixel_values"], inputs["image_grid_thw"]
        prefix, types = inputs["input_ids"][0].tolist(), inputs["mm_token_type_ids"][0].tolist()
    image_tokens = [index for index, kind in enumerate(types) if kind == 1]
    sizes, merge_size = [image.size for image in images], processor.image_processor.merge_size
    tokenizer = processor.tokenizer
    answers = [_answer_tokens(tokenizer, text.answer, answer_weights or {}) for text in texts]
    targets = []
    for (ids, _), text, shown in zip(answers, texts, marks, strict=True):
        columns = [image_tokens[token] for token in marks_to_tokens(shown, sizes, grids, merge_size)]
        if len(columns) == 1:
            columns *= len(ids)
        elif columns:
            columns = [columns[part] for part in _parts_of_list(tokenizer, text.answer, len(columns))]
        targets.append(columns or None)
    return EncodedScene(
        prefix=prefix,
        token_types=types,
        pixel_values=pixel_values,
        image_grid_thw=grids,
        questions=[tokenizer(text.question, add_special_tokens=False)["input_ids"] for text in texts],
        answers=[ids for ids, _ in answers],
        weights=[weights for _, weights in answers],
        targets=targets,
    )


def _parts_of_list(tokenizer, text, count):
    """Which of the `count` objects of a list each token of an answer belongs to, with what stands before it."""
    ends = [match.end() for match in re.finditer(r"\}", text)]
    starts = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [min(sum(end <= start for end in ends), count - 1) for start, _ in starts]


def with_geometry_tokens(scene: EncodedScene, merge_size: int, kinds: Sequence[str]) -> EncodedScene:
    """Put tokens for camera and scale behind the patches of the views.

    Args:
        scene (`EncodedScene`): scene, left as it is.
        merge_size (`int`): patches merged along each side of a visual token.
        kinds (`Sequence[str]`): which of `ViewTokens.kinds` there are.
    Returns:
        `EncodedScene`: as it was, without views or kinds.
    """
    if not kinds or scene.pixel_values is None:
        return scene
    sizes = (scene.image_grid_thw.prod(-1) // merge_size**2).tolist()
    types = torch.tensor(scene.token_types)
    repeats = ViewTokens(sizes, [len(sizes)], kinds).repeats(types == 1)
    starts = repeats.cumsum(0) - repeats
    return replace(
        scene,
        prefix=torch.tensor(scene.prefix).repeat_interleave(repeats).tolist(),
        token_types=types.repeat_interleave(repeats).tolist(),
        targets=[None if columns is None else starts[columns].tolist() for columns in scene.targets],
    )


def _answer_tokens(tokenizer, text, answer_weights):
    """Tokens of an answer and the weight of each: the largest of the parts it holds; that of the end of turn is 1."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=bool(answer_weights))
    ids = encoded["input_ids"]
    if not answer_weights:
        return ids, [1.0] * len(ids)
    weight_of = {"opening": answer_weights.get("frame_of_json", 1.0), **answer_weights}
    parts, weights, start = answer_parts(text.removesuffix(tokenizer.eos_token)), [], 0
    for _, end in encoded["offset_mapping"]:
        weights.append(max((weight_of.get(part, 1.0) for part in parts[start:end]), default=1.0))
        start = end
    return ids, weights
