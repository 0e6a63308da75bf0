"""Write the results of a run into the metadata of a model card, where the Hub shows them."""

import math
import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard

from ...processing.data.source_files import read_json
from ...processing.scores.reference_checks import is_number
from .baseline_answers import MODEL
from .results import METRICS_FILE
from .room_results import room_eval_results


TASK_TYPE = "image-text-to-text"
_METADATA = re.compile(r"\A\s*---[ \t]*\r?\n(.*?\r?\n)---[ \t]*(?=\r?\n|\Z)", re.DOTALL)


def update_card(card_path: str | Path, output: str | Path) -> list[EvalResult]:
    """Put the model's figures of a run into a model card; the text below the metadata stays as it is.

    Results of the same benchmark, split and subset are replaced, others are kept. Every figure that has an interval
    is written, of rooms every one of their table, with the interval and what the baselines reach as arguments of the
    metric.

    Args:
        card_path (`str` or path): the Markdown file.
        output (`str` or path): the folder of a finished run of `evaluate_model`, or of one of
            examples/experiments/measure_rooms.py.
    Returns:
        `list[EvalResult]`: those that were written.
    Raises:
        FileNotFoundError: if there is no card, or the run has no metrics.json.
        ValueError: if the card's metadata is broken, or the run has no finite figure.

    Example:
        ```python
        >>> from pathlib import Path
        >>> from gap_mllm.evaluation.runner import evaluate_model, update_card
        >>> options = {"num_train": 0, "num_test": 2, "cache_dir": "cache", "show_progress": False}
        >>> metrics = evaluate_model(folder, output="evaluation", baselines=[], with_report=False, **options)
        >>> written = Path("README.md").write_text("---\\nlicense: apache-2.0\\n---\\n# My model\\n")
        >>> [result.metric_type for result in update_card("README.md", "evaluation")]
        ['point_error_m', 'parse_rate', 'near_share', 'label_accuracy']

        ```
    """
    card_path, metrics_file = Path(card_path), Path(output) / METRICS_FILE
    card, text = check_card(card_path)
    if not metrics_file.is_file():
        raise FileNotFoundError(f"{metrics_file} does not exist; expected the metrics of a finished run.")
    results = eval_results(read_json(metrics_file))
    written = {result.unique_identifier for result in results}
    kept = [result for result in card.data.eval_results or [] if result.unique_identifier not in written]
    card.data.eval_results = [*kept, *results]
    if not card.data.model_name:
        heading = re.search(r"^# +(.+?)\s*$", card.text, re.MULTILINE)
        card.data.model_name = heading.group(1) if heading else card_path.parent.resolve().name
    breaks = "\r\n" if "\r\n" in text else "\n"
    found = _METADATA.match(text)
    order = re.findall(r"^([\w-]+):", found.group(1), re.MULTILINE) if found else []
    order += [key for key in card.data.to_dict() if key not in order]
    header = card.data.to_yaml(line_break=breaks, original_order=order)
    body = text[found.end() :] if found else breaks + text
    card_path.write_bytes(f"---{breaks}{header}{breaks}---{body}".encode())
    return results


def check_card(card_path: str | Path) -> tuple[ModelCard, str]:
    """Read a model card, as `update_card` will, before any work is done for it.

    Returns:
        `tuple[ModelCard, str]`: the card, and the text of its file.
    Raises:
        FileNotFoundError: if it is no file. ValueError: if its metadata is broken.
    """
    path = Path(card_path)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {problem}; expected a model card, a Markdown file.")
    text = path.read_bytes().decode("utf-8")
    try:
        return ModelCard(text), text
    except Exception as error:  # huggingface_hub raises whatever yaml and its own checks do
        raise ValueError(f"the metadata of {path} cannot be read: {error}") from error


def eval_results(metrics: dict) -> list[EvalResult]:
    """The model's figures of metrics.json as `EvalResult`.

    Args:
        metrics (`dict`): result of `evaluate_model`, or figures on rooms, see `room_eval_results`.
    Returns:
        `list[EvalResult]`: the headline first; figures that are not finite are left out.
    Raises:
        ValueError: if no figure is finite, or it is the result of neither.
    """
    if isinstance(metrics, dict) and "headline" in metrics:
        results, what = _benchmark_results(metrics), f"the run of {metrics['benchmark']!r}"
    elif isinstance(metrics, dict) and "first_room" in metrics:
        results, what = room_eval_results(metrics), "the measurement of rooms"
    else:
        raise ValueError(f"{METRICS_FILE} holds no figures of `gap-mllm evaluate` or of rooms.")
    if not results:
        raise ValueError(f"{what} has no finite figure to write into a card.")
    return results


def _benchmark_results(metrics):
    headline, all_scores = metrics["headline"], metrics.get("scores") or metrics["arms"]  # its name in earlier runs
    scores = all_scores[MODEL]
    names = [headline, *(name.removesuffix("_ci95") for name in scores if name.endswith("_ci95"))]
    results = []
    for name in dict.fromkeys(names):
        if not _is_finite(scores.get(name)):
            continue
        others = {
            baseline: given[name]
            for baseline, given in all_scores.items()
            if baseline != MODEL and _is_finite(given.get(name))
        }
        interval = scores.get(f"{name}_ci95")
        arguments = {"ci95": interval} if interval and all(map(_is_finite, interval)) else {}
        result = EvalResult(
            task_type=TASK_TYPE,
            dataset_type="synthetic_rooms" if metrics.get("data") else metrics["benchmark"],
            dataset_name=metrics["title"],
            dataset_config=_part_of_data(metrics),
            dataset_split=metrics["split"],
            metric_type=name,
            metric_name=name,
            metric_value=scores[name],
            metric_args={**arguments, **({"baselines": others} if others else {})} or None,
        )
        results.append(result)
    return results


def _part_of_data(metrics):
    """What of the data was asked: about rooms by which benchmark, and which subset."""
    texts = [metrics["benchmark"]] if metrics.get("data") else []
    if metrics["is_subset"]:
        texts.append(f"subset: {metrics['n']} of {metrics['num_in_benchmark']} questions, seed {metrics['seed']}")
    return ", ".join(texts) or None


def _is_finite(value):
    return is_number(value) and math.isfinite(value)
