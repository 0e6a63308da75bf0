"""Scenes for probes: one row of each, the views that are shown, and none that was seen before."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ...processing.data.scene_sample import SceneSample, View
from ...processing.input_checks_gap_mllm import WrongKindError
from ...training.scene_questions import choose_views


MAX_STRIDE = 3  # views that are shown are neighbours, or up to so many apart


def has_depth(view: View) -> bool:
    """Whether a view has a depth map and its intrinsics; no picture is decoded."""
    return view.depth_picture is not None and (view.depth_intrinsics is not None or view.intrinsics is not None)


def check_rows(**rows: object) -> None:
    """Refuse streamed rows by the name of their argument. Raises TypeError."""
    for name, each in rows.items():
        if not (hasattr(each, "__len__") and hasattr(each, "__getitem__")):
            raise WrongKindError(
                f"{name} is a {type(each).__name__}, without number and places; load without streaming."
            )


def unseen_scenes(rows: Sequence, seen: set[str], num_views: int, seed: int) -> Iterator[tuple[str, SceneSample]]:
    """Go through scenes, one row of each; their pictures are not decoded yet.

    Args:
        rows (sequence of `dict` or `SceneSample`): rows of the schema.
        seen (`set[str]`): names of scenes to leave out; those that come are added.
        num_views (`int`): most views of a scene.
        seed (`int`): seed of the choice of views.
    Yields:
        `tuple[str, SceneSample]`: name, and the scene with some of its views that have depth, or without any.
    """
    for index in range(len(rows)):
        sample = SceneSample.open(rows, index)
        name = str(sample.scene_id or sample.id)
        if name not in seen:
            seen.add(name)
            known = tuple(view for view in sample.views if has_depth(view))
            shown = choose_views(known, num_views, MAX_STRIDE, np.random.default_rng([seed, index])) if known else ()
            yield name, replace(sample, views=shown)
