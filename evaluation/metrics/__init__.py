"""Metrics of published benchmarks: arithmetic as plain functions, one file a family; `evaluate.Metric` shells in hub/.

`load_metric(name)` gives the shell, offline and from an installed wheel.
"""

import os
from pathlib import Path


HUB_FOLDER = Path(__file__).parent / "hub"
METRICS = (
    "blink",
    "captions",
    "camera_pose",
    "cv_bench",
    "depth",
    "detection3d",
    "frame_accuracy",
    "grounding3d",
    "grounding_axis_aligned",
    "mmsi",
    "multi3drefer",
    "reconstruction",
    "scanqa",
    "spar_bench",
    "sqa3d",
    "vsibench",
)


def load_metric(name: str, **kwargs):
    """Load a metric of this package with `evaluate.load`.

    Args:
        name (`str`): one of `METRICS`; hub/<name>/README.md describes it.
        **kwargs: of `evaluate.load`, as `experiment_id`.
    Returns:
        `evaluate.Metric`: `compute(predictions=..., references=..., ...)`; `inputs_description` says of what.
    Raises:
        ValueError: if there is no such metric. ImportError: if evaluate is not installed.
    """
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; known are {', '.join(METRICS)}.")
    os.environ.setdefault("HF_EVALUATE_OFFLINE", "1")  # the script is a file of this package
    try:
        import evaluate
    except ImportError as error:
        raise ImportError("Metrics need the package evaluate: pip install gap-mllm[eval].") from error
    metric = evaluate.load(str(HUB_FOLDER / name / f"{name}.py"), **kwargs)
    metric.compute = _same_length(metric.compute)
    return metric


def _same_length(compute):
    """`evaluate` takes no predictions for many references without a word."""

    def checked(*, predictions=None, references=None, **options):
        if predictions is not None and references is not None and len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions came with {len(references)} references; one each.")
        given = {"predictions": predictions, "references": references}
        return compute(**{key: value for key, value in given.items() if value is not None}, **options)

    return checked


__all__ = ["METRICS", "load_metric"]
