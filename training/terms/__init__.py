# pyright: basic
"""The terms of the pre-training loss by name. A new one is a file here and a line in `LOSS_TERMS`; see `LossTerm`."""

from dataclasses import fields

from ...processing.argument_checks import check_kinds, check_names
from ..schedule import read_weight
from .camera_term import CameraTerm, FieldOfViewTerm, MetricScaleTerm
from .correspondence_term import ConsistencyTerm, CorrespondenceTerm
from .depth_term import DepthTerm, NormalsTerm
from .distillation_term import DistillationTerm
from .head_term import HeadTerm
from .label_map_term import LabelMapTerm
from .loss_term import LossTerm
from .number_term import NumberTerm
from .point_map_term import PointMapTerm
from .readout_term import ReadoutTerm
from .region_text_term import RegionTextTerm
from .relations_term import RelationsTerm
from .shape_term import ShapeTerm
from .text_term import TextTerm
from .token_term import ObjectTerm, TokenTerm


LOSS_TERMS: dict[str, type[LossTerm]] = {
    "text": TextTerm,
    "point_map": PointMapTerm,
    "readout": ReadoutTerm,
    "number": NumberTerm,
    "distillation": DistillationTerm,
    "depth": DepthTerm,
    "normals": NormalsTerm,
    "camera": CameraTerm,
    "field_of_view": FieldOfViewTerm,
    "metric_scale": MetricScaleTerm,
    "correspondence": CorrespondenceTerm,
    "consistency": ConsistencyTerm,
    "shape": ShapeTerm,
    "region_text": RegionTextTerm,
    "relations": RelationsTerm,
    "label_map": LabelMapTerm,
}


def make_terms(arguments: object, settings: dict[str, dict] | None = None) -> dict[str, LossTerm]:
    """Make every term of `LOSS_TERMS` with its settings.

    Args:
        arguments (`object`): arguments of a trainer; a field such as `readout_layers` is the setting `layers` of the
            term "readout".
        settings (`dict[str, dict]`, *optional*): settings by name of the term, as `{"readout": {"layers": [1]}}`;
            these beat the arguments. A weight may be a `Schedule`, or its mapping: `{"weight": {0: 1.0, 0.5: 0.0}}`.
    Returns:
        `dict[str, LossTerm]`: in the order of `LOSS_TERMS`, those of weight 0 too.
    Raises:
        ValueError: for a term or setting that is not known, settings that are no mapping, or as `read_weight`.
        TypeError: for a setting of another type.

    Example:
        ```python
        >>> from gap_mllm.training import GeometryAlignedTrainingArguments
        >>> from gap_mllm.training.terms import make_terms
        >>> arguments = GeometryAlignedTrainingArguments("run", readout_weight=0.5)
        >>> terms = make_terms(arguments, {"point_map": {"weight": 2.0}})
        >>> {name: term.weight for name, term in terms.items() if term.weight}
        {'text': 1.0, 'point_map': 2.0, 'readout': 0.5}

        ```
    """
    settings = settings or {}
    check_names("terms", settings, LOSS_TERMS)
    terms = {}
    for name, term in LOSS_TERMS.items():
        known = [field.name for field in fields(term)]
        given = settings.get(name, {})
        if not isinstance(given, dict):
            raise ValueError(f"terms.{name} is {given!r}; expected a mapping of its settings, as {{weight: 1.0}}.")
        check_names(f"terms.{name}", given, known)
        try:
            check_kinds(term, {key: value for key, value in given.items() if key != "weight"})  # see read_weight
        except (TypeError, ValueError) as error:
            raise type(error)(f"terms.{name}.{error}") from None
        named = {key: getattr(arguments, f"{name}_{key}") for key in known if hasattr(arguments, f"{name}_{key}")}
        terms[name] = term(**{**named, **given})
        terms[name].weight = read_weight(f"terms.{name}.weight", terms[name].weight, least=0.0)
    return terms


__all__ = [
    "LOSS_TERMS",
    "CameraTerm",
    "ConsistencyTerm",
    "CorrespondenceTerm",
    "DepthTerm",
    "DistillationTerm",
    "FieldOfViewTerm",
    "HeadTerm",
    "LabelMapTerm",
    "LossTerm",
    "MetricScaleTerm",
    "NormalsTerm",
    "NumberTerm",
    "ObjectTerm",
    "PointMapTerm",
    "ReadoutTerm",
    "RegionTextTerm",
    "RelationsTerm",
    "ShapeTerm",
    "TextTerm",
    "TokenTerm",
    "make_terms",
]
