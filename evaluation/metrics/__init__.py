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
        **kwargs: of `evaluate.load`, as `experiment_id`. Rows are kept in memory unless there are several processes.
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
    kwargs.setdefault("keep_in_memory", kwargs.get("num_process", 1) == 1)
    return evaluate.load(str(HUB_FOLDER / name / f"{name}.py"), **kwargs)


__all__ = ["METRICS", "load_metric"]
