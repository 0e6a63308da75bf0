"""Benchmarks of `gap-mllm evaluate` as tasks of lmms-eval: what the YAML files of tasks/ name.

A document names a question and the folder of `write_task` that holds it; question, pictures and truth are read there.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import datasets

from gap_mllm.evaluation.benchmarks import Benchmark, find_benchmark
from gap_mllm.evaluation.runner.questions import QuestionSet, drop_tags, question_messages
from gap_mllm.processing.answer_grammar_gap_mllm import cut_after_json
from gap_mllm.processing.data.scene_sample import SceneSample


DOCUMENTS, QUESTIONS, SETTINGS = "documents.jsonl", "questions", "benchmark.json"


def doc_to_messages(doc: Mapping, lmms_eval_specific_kwargs: Mapping | None = None) -> list[dict]:
    """Return the chat of a question, as `gap-mllm evaluate` asks it: all its views are pictures of one message."""
    sample = _sample(doc, with_frames=True)
    messages = question_messages(sample, [view.image for view in sample.views])
    for message in messages:
        if isinstance(message["content"], list):
            message["content"] = [_part(part) for part in message["content"]]
    return messages


def doc_to_visual(doc: Mapping) -> list:
    """Return the views of a question, decoded; for models that take pictures apart from their text."""
    return [view.image for view in _sample(doc, with_frames=True).views]


def doc_to_text(doc: Mapping, lmms_eval_specific_kwargs: Mapping | None = None) -> str:
    """Return the words of a question, without its tags of pictures."""
    return drop_tags(_sample(doc).question or "", 0)


def doc_to_target(doc: Mapping) -> str:
    """Return what is shown as the truth in the log of samples; scores take the question's own."""
    sample = _sample(doc)
    return sample.answer or next(iter(sample.references), "")


def process_results(doc: Mapping, results: Sequence[str]) -> dict[str, dict]:
    """Keep the answer of a question for every figure of its benchmark, cut where `gap-mllm evaluate` stops."""
    benchmark, _ = open_questions(doc["folder"])
    form = benchmark.forms[0]
    text = cut_after_json(results[0], form.keys, form.is_list)
    return {name: {"folder": doc["folder"], "id": doc["id"], "text": text} for name in FIGURES[benchmark.name]}


@lru_cache(maxsize=8)
def open_questions(folder: str) -> tuple[Benchmark, QuestionSet]:
    """Open a folder of `write_task`.

    Raises:
        FileNotFoundError: if it is not one; it is named.
    """
    path = Path(folder)
    if not (path / SETTINGS).is_file():
        raise FileNotFoundError(f"{path} holds no {SETTINGS}; make it with python -m gap_mllm_lmms_eval.write_task.")
    benchmark = find_benchmark(json.loads((path / SETTINGS).read_text())["benchmark"])
    return benchmark, QuestionSet(datasets.load_from_disk(str(path / QUESTIONS)), benchmark.num_frames)


def _sample(doc, with_frames=False) -> SceneSample:
    return open_questions(doc["folder"])[1].sample(doc["id"], with_frames=with_frames)


def _part(part):
    return {"type": "image", "url": part["image"]} if part["type"] == "image" else part


@lru_cache(maxsize=8)
def _scores(folder, answers):
    """All figures of a benchmark, reckoned once for all that are asked for."""
    benchmark, asked = open_questions(folder)
    chosen = asked.select([row_id for row_id, _ in answers])
    texts = dict(answers)
    return benchmark.score(chosen.without_pictures(), [texts[row_id] for row_id in chosen.ids])[0]


def figure(name: str) -> Callable[[Sequence[Mapping]], float | None]:
    """Make the aggregation of one figure.

    Args:
        name (`str`): key of the benchmark's metrics.
    Returns:
        `Callable`: from what `process_results` kept of all answers to the figure; None where it could not be reckoned,
        as METEOR without Java.
    """

    def aggregate(answers: Sequence[Mapping]) -> float | None:
        given = tuple(sorted((answer["id"], answer["text"]) for answer in answers))
        return _scores(answers[0]["folder"], given).get(name)

    return aggregate


FIGURES = {
    "scanrefer": ("acc25", "acc50", "miou"),
    "gap_mllm_captions": ("cider", "bleu_4", "meteor", "rouge_l"),
    "scanqa": ("em", "em_refined", "cider", "bleu_4", "meteor", "rouge_l"),
    "sqa3d": ("em", "em_refined"),
    "gap_mllm_detection": ("f1", "precision", "recall"),
}
acc25, acc50, miou = figure("acc25"), figure("acc50"), figure("miou")
em, em_refined = figure("em"), figure("em_refined")
cider, bleu_4, meteor, rouge_l = figure("cider"), figure("bleu_4"), figure("meteor"), figure("rouge_l")
f1, precision, recall = figure("f1"), figure("precision"), figure("recall")
