"""The `evaluate.Metric` of every line of table.py: references, ids and options are checked before the function scores.

Imports are absolute: `evaluate.load(path_of_this_file, name)` runs a copy of it elsewhere.
"""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import evaluate

from gap_mllm.evaluation.metrics.records import align_by_id, check_unique
from gap_mllm.evaluation.metrics.reference_form import check_form
from gap_mllm.evaluation.metrics.table import BOX, DEPTH, MATRIX, TABLE, TEXT
from gap_mllm.processing.scores.reference_checks import (
    RecordValueError,
    as_array,
    as_numbers,
    check_choice,
    check_equal_lengths,
    is_list,
    naming,
)


_IDS = """
Every metric also takes
    ids (list of str or int, optional): ids of the references; one twice is an error, and messages name them.
    prediction_ids (list, optional): ids of the predictions, which are put in the references' order; ids in one of the
        two lists alone are an error.
"""


class GapMllmMetric(evaluate.Metric):
    """A metric whose `compute` names what is wrong in the references, and takes any prediction.

    Args:
        config_name (`str`, *optional*): one of `METRICS`.
        **kwargs: num_process, process_id, experiment_id, cache_dir, keep_in_memory, .., as `evaluate.Metric` has them.
    Raises:
        ValueError: if there is no such metric.
    """

    _ids = None

    def __init__(self, config_name: str | None = None, **kwargs):
        check_choice(config_name, "metric", TABLE)
        self._line = TABLE[config_name]
        super().__init__(config_name, **kwargs)
        self._module_info.module_name = config_name

    def _info(self):
        description, found, inputs = inspect.getdoc(self._line.function).partition("\nArgs:\n")
        form = {"predictions": self._line.predictions, "references": self._line.references}
        return evaluate.MetricInfo(
            description=description.strip(),
            citation=self._line.citation,
            inputs_description=f"\n{_describe_references(self._line)}{found}{inputs}\n{_IDS}",
            features=datasets.Features({name: _feature(value) for name, value in form.items()}),
        )

    def _compute(self, predictions, references, **options):
        columns = {
            argument: [reference[key] for reference in references] for key, argument in self._line.columns.items()
        }
        return self._line.function(predictions, *([] if columns else [references]), **columns, **options)

    def compute(
        self,
        *,
        predictions: Iterable | None = None,
        references: Iterable | None = None,
        ids: Sequence | None = None,
        prediction_ids: Sequence | None = None,
        **options,
    ):
        """Compute the metric. Arguments:"""
        self._check_options(options)
        if (predictions is None) != (references is None):
            name = "predictions" if predictions is None else "references"
            raise ValueError(f"{name} is None; give predictions and references, one each, or none after add_batch.")
        if prediction_ids is not None and (predictions is None or ids is None):
            raise ValueError("prediction_ids needs predictions, references and their ids in the same call.")
        if predictions is not None:
            predictions, references = list(predictions), list(references)
            if prediction_ids is not None:
                predictions = _in_order(predictions, prediction_ids, references, ids)
        self._ids = None if ids is None else list(ids)
        if ids is not None:
            check_unique(self._ids)
            check_equal_lengths(references=range(len(self) + len(references or ())), ids=self._ids)
        try:
            return super().compute(predictions=predictions, references=references, **options)
        except RecordValueError as error:
            if self._ids is None:
                raise
            raise ValueError(f"{self.name_of(error.place)}: {error.problem}") from error
        finally:
            self._ids = None

    def add_batch(self, *, predictions: Iterable | None = None, references: Iterable | None = None, **kwargs):
        """Add predictions and references. Arguments:"""
        predictions, references = list(predictions), list(references)
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions came with {len(references)} references; one each.")
        for place, reference in enumerate(references, start=len(self)):
            check_form(reference, self.features["references"], self.name_of(place), self._line.optional)
        rows, read = [], _READERS[str(self._line.predictions)]
        for place, prediction in enumerate(predictions, start=len(self)):
            with naming(self.name_of(place)):
                rows.append(read(prediction))
        super().add_batch(predictions=rows, references=references, **kwargs)

    def add(self, *, prediction: Any | None = None, reference: Any | None = None, **kwargs):
        """Add one prediction and its reference. Arguments:"""
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)

    def name_of(self, place: int) -> str:
        """How messages call a reference: by number, and id where there are ids."""
        return f"reference {place}" if self._ids is None else f"reference {place} (id {self._ids[place]!r})"

    def _enforce_nested_string_type(self, schema, obj):
        """Nothing: `add_batch` has checked the references, and None is a prediction."""

    def _check_options(self, options):
        arguments = list(inspect.signature(self._line.function).parameters)[1:]
        taken = [*self._line.columns.values(), "ids"] if self._line.columns else [arguments[0]]
        known = [name for name in arguments if name not in taken]
        for name in options:
            if name not in known:
                raise ValueError(
                    f"unknown option {name!r} of the metric {self.name}; known are "
                    f"{', '.join([*known, 'ids', 'prediction_ids'])}."
                )


def _describe_references(line):
    """Which keys a reference has, and under which name the arguments below speak of their values."""
    if not isinstance(line.references, dict):
        return "References are the second argument, in the form given there."
    names = [f'"{key}" ({line.columns[key]} below)' if key in line.columns else f'"{key}"' for key in line.references]
    needed = f"; {', '.join(line.optional)} may be missing" if line.optional else ""
    return f"References are dicts with {', '.join(names)}{needed}."


def _feature(form):
    """A form of table.py as a feature of datasets."""
    if isinstance(form, dict):
        return {key: _feature(value) for key, value in form.items()}
    return datasets.List(_feature(form[0])) if isinstance(form, list) else datasets.Value(form)


# Any prediction in the form of the metric's features; None, or empty, for what has another.


def _read_text(prediction):
    return prediction.encode(errors="replace").decode() if isinstance(prediction, str) else None


def _read_numbers(prediction):
    numbers = as_numbers(prediction)
    return [] if numbers is None else numbers.tolist()


def _read_boxes(prediction):
    return [_read_numbers(box) for box in prediction] if is_list(prediction) else None


def _array_reader(num_dimensions):
    def read(prediction: Any):
        """None if it is none or empty; ValueError on another number of dimensions."""
        array = as_array(prediction)
        if array is None or not array.ndim or not array.size:
            return None
        if array.ndim != num_dimensions:
            raise ValueError(f"the prediction has shape {array.shape}; expected {num_dimensions} dimensions, or None.")
        return array

    return read


_READERS = {
    str(TEXT): _read_text,
    str(BOX): _read_numbers,
    str([BOX]): _read_boxes,
    str(DEPTH): _array_reader(2),
    str([MATRIX]): _array_reader(3),
}


def _in_order(predictions, prediction_ids, references, ids):
    """The predictions in the order of the references' ids."""
    check_equal_lengths(predictions=predictions, prediction_ids=prediction_ids)
    check_equal_lengths(references=references, ids=ids)
    check_unique(prediction_ids, "prediction_ids")
    check_unique(ids)
    rows = [{"id": name, "value": value} for name, value in zip(prediction_ids, predictions, strict=True)]
    return [row["value"] for row, _ in align_by_id(rows, [{"id": name} for name in ids])]
