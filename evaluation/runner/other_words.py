"""Answers in conventions of others, and lists with duplicates, written anew in our spelling before they are scored."""

import json

import numpy as np

from ...processing.answers_gap_mllm import (
    BOX_KEYS,
    FRAME_KEY,
    OUR_CONVENTIONS,
    POINT_KEY,
    LabelledPoint,
    Rejection,
    format_boxes,
    format_points,
    parse_frame,
)
from ...processing.boxes import ImagePoint, convert, find_convention, parse_boxes, parse_points, remove_duplicates
from ...processing.data.scene_sample import SceneSample
from ..benchmarks import Benchmark
from ..benchmarks.posed_boxes import answer_order


DECIMALS = 6  # of the numbers that are scored
_TARGETS = {"zxy": "ours", "ZXY": "embodiedscan"}  # Euler order of a benchmark's boxes, which its answers are read in


def check_other_words(benchmark: Benchmark, convention: str | None, duplicates_iou: float | None) -> None:
    """Raise ValueError where a benchmark's answers are neither boxes nor points, or the convention writes none."""
    form = benchmark.forms[-1]
    kind = "box" if set(form.keys) & set(BOX_KEYS) else "point" if POINT_KEY in form.keys else None
    if convention is not None:
        if kind is None:
            raise ValueError(f"answers to {benchmark.name!r} hold neither boxes nor points, so no convention applies.")
        find_convention(convention, kind)
    if duplicates_iou is not None:
        if kind != "box" or not form.is_list:
            raise ValueError(f"answers to {benchmark.name!r} are no lists of boxes: nothing can stand twice.")
        remove_duplicates([], duplicates_iou)


def in_our_words(
    benchmark: Benchmark,
    sample: SceneSample,
    text: str,
    convention: str | None = None,
    duplicates_iou: float | None = None,
) -> tuple[str, list[str]]:
    """Write an answer anew in our spelling; what cannot be read stays as an object that counts as rejected.

    Frame: camera of the first view, or of the view that an answer in JSON names. What a convention needs of the
    pictures is that of the sample: sizes, intrinsics, poses, and depth for points in pictures.

    Args:
        benchmark (`Benchmark`), sample (`SceneSample`): what was asked, with its pictures.
        text (`str`): the answer.
        convention (`str`, *optional*): key of `CONVENTIONS`; by default ours.
        duplicates_iou (`float`, *optional*): argument of `remove_duplicates`; by default nothing is removed.
    Returns:
        `tuple[str, list[str]]`: our answer, whose numbers have six decimals, and why each duplicate was removed.
    """
    found, form = find_convention(convention or "ours"), benchmark.forms[-1]
    is_ours = found.name in OUR_CONVENTIONS
    pictures = {} if is_ours else _pictures(sample)
    if POINT_KEY in form.keys:
        answer, removed = parse_points(text, convention=found.name, **pictures), []
    else:
        names = (*found.needs, "camera_to_world") if found.needs else ()
        known = {name: pictures[name] for name in names if name in pictures}
        answer, removed = parse_boxes(text, convention=found.name, **known), []
        if duplicates_iou is not None:
            told = set(answer.rejected)
            answer = remove_duplicates(answer, duplicates_iou)
            removed = [entry.reason for entry in answer.rejected if entry not in told]
    entries = [entry for entry in answer.entries if not (isinstance(entry, Rejection) and entry.reason in removed)]
    if not entries:
        return ("[{" if answer.truncated else text), removed
    order = _TARGETS[answer_order(sample)]
    objects = [_object(entry, order) for entry in entries]
    if form.written[:1] == (FRAME_KEY,):
        frame = {FRAME_KEY: parse_frame(text).first or 0}  # a box of SPAR has been moved to the first view
        objects = [json.dumps(frame)[:-1] + ", " + each[1:] for each in objects]
    tail = "\n\t{" if answer.truncated else ""  # still cut off
    if not form.is_list:
        return "```json\n" + "\n".join(objects) + tail + "\n```", removed
    return "```json\n[\n\t" + ",\n\t".join(objects) + tail + "\n]```", removed


def _object(entry, order):
    """The JSON of one box or point in a line; of what was rejected an object that is rejected again."""
    if isinstance(entry, ImagePoint):
        entry = Rejection(str(entry), "a point in a picture, of which intrinsics or depth are not known")
    if isinstance(entry, Rejection):
        return json.dumps({"rejected": entry.reason, "text": entry.text})
    if isinstance(entry, LabelledPoint):
        written = format_points([entry.label], [entry.point], DECIMALS)
    else:
        written = format_boxes([entry.label], [convert(entry.bbox_3d, "ours", order)], DECIMALS)
    return written.splitlines()[2].strip()


def _pictures(sample):
    """What is known of the views of a sample, as far as all of them have it, in arrays of one shape."""
    pictures = {"image_size": [view.size for view in sample.views]}
    for name in ("camera_to_world", "intrinsics", "depth_m"):
        values = [getattr(view, name) for view in sample.views]
        if all(value is not None for value in values) and len({np.shape(value) for value in values}) == 1:
            pictures[name] = np.stack(values)
    return pictures
