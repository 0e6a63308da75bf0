"""What all metrics of hub/ share as `evaluate.Metric`s: references, ids and options are checked before it acts."""

import inspect
from abc import ABC, abstractmethod
from pathlib import Path

import evaluate

from .records import align_by_id, check_equal_lengths, check_unique
from .reference_checks import RecordValueError, as_array, naming
from .reference_form import check_form


class MetricShell(evaluate.Metric, ABC):
    """A metric whose `compute` names what is wrong in the references, and takes any prediction.

    A subclass gives `_info` and `_compute`; `compute` then also takes, of every metric,
        ids (list of str or int, optional): of the references; one twice is an error, and messages name them.
        prediction_ids (list, optional): of the predictions, which are put in the references' order; ids that are in
            one of the two lists alone are an error.
    """

    OPTIONAL_KEYS = ()  # of a reference
    _ids = None

    @abstractmethod
    def _compute(self, predictions, references): ...

    def compute(self, *, predictions=None, references=None, ids=None, prediction_ids=None, **options):
        """Compute the metric. Arguments:

        ids, prediction_ids (list, optional): of references and predictions, see `MetricShell`.
        """
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

    def add_batch(self, *, predictions=None, references=None, **kwargs):
        """Add predictions and references. Arguments:"""
        predictions, references = list(predictions), list(references)
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions came with {len(references)} references; one each.")
        for place, reference in enumerate(references, start=len(self)):
            check_form(reference, self.features["references"], self.name_of(place), self.OPTIONAL_KEYS)
        rows = []
        for place, prediction in enumerate(predictions, start=len(self)):
            with naming(self.name_of(place)):
                rows.append(self.read_prediction(prediction))
        super().add_batch(predictions=rows, references=references, **kwargs)

    def add(self, *, prediction=None, reference=None, **kwargs):
        """Add one prediction and its reference. Arguments:"""
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)

    def read_prediction(self, prediction):
        """A prediction in the form of the metric's features, None for what has another; here, text."""
        return prediction.encode(errors="replace").decode() if isinstance(prediction, str) else None

    def read_array(self, prediction, num_dimensions: int):
        """A prediction that is an array: None if it is none or empty; ValueError on another number of dimensions."""
        array = as_array(prediction)
        if array is None or not array.ndim or not array.size:
            return None
        if array.ndim != num_dimensions:
            raise ValueError(f"the prediction has shape {array.shape}; expected {num_dimensions} dimensions, or None.")
        return array

    def name_of(self, place: int) -> str:
        """How messages call a reference: by number, and id where there are ids."""
        return f"reference {place}" if self._ids is None else f"reference {place} (id {self._ids[place]!r})"

    def score_each(self, score, *columns) -> list:
        """`score` of each row of the columns; an error names the row's reference.

        Raises:
            ValueError: where `score` raises ValueError or TypeError.
        """
        results = []
        for place, row in enumerate(zip(*columns, strict=True)):
            with naming(self.name_of(place)):
                results.append(score(*row))
        return results

    def _enforce_nested_string_type(self, schema, obj):
        """Nothing: `add_batch` has checked the references, and None is a prediction."""

    def _check_options(self, options):
        known = list(inspect.signature(self._compute).parameters)[2:]
        for name in options:
            if name not in known:
                raise ValueError(
                    f"unknown option {name!r} of the metric {Path(inspect.getfile(type(self))).stem}; known are "
                    f"{', '.join([*known, 'ids', 'prediction_ids'])}."
                )


def _in_order(predictions, prediction_ids, references, ids):
    """The predictions in the order of the references' ids."""
    check_equal_lengths(predictions=predictions, prediction_ids=prediction_ids)
    check_equal_lengths(references=references, ids=ids)
    check_unique(prediction_ids, "prediction_ids")
    check_unique(ids)
    rows = [{"id": name, "value": value} for name, value in zip(prediction_ids, predictions, strict=True)]
    return [row["value"] for row, _ in align_by_id(rows, [{"id": name} for name in ids])]


__all__ = ["MetricShell"]
