# pyright: basic
"""Boxes and points in the conventions of others, by name: numbers, text, and what stands twice."""

from ..answers_gap_mllm import LabelledBox, LabelledPoint, parse_boxes, parse_points
from ..box_conventions_gap_mllm import CONVENTIONS, BoxForm, Convention, Pictures, PointForm, convert, find_convention
from ..duplicate_boxes import remove_duplicates
from ..other_answers_gap_mllm import ImageBox, ImagePoint, answer_records, format_answer, parse_image_boxes


__all__ = [
    "CONVENTIONS",
    "BoxForm",
    "Convention",
    "ImageBox",
    "ImagePoint",
    "LabelledBox",
    "LabelledPoint",
    "Pictures",
    "PointForm",
    "answer_records",
    "convert",
    "find_convention",
    "format_answer",
    "parse_boxes",
    "parse_image_boxes",
    "parse_points",
    "remove_duplicates",
]
