"""Metrics of published benchmarks: plain functions, one file a family; table.py lists them, adapter.py wraps them.

`load_metric(name)` gives the `evaluate.Metric`, offline and from an installed wheel.
"""

from .table import TABLE


METRICS = tuple(TABLE)


def load_metric(name: str, **kwargs):
    """Return a metric of this package as an `evaluate.Metric`.

    `evaluate.load(gap_mllm.evaluation.metrics.adapter.__file__, name)` gives the same. Rows are kept in memory unless
    there are several processes.

    Args:
        name (`str`): one of `METRICS`.
        **kwargs: num_process, process_id, experiment_id, cache_dir, .., as `evaluate.Metric` has them.
    Returns:
        `evaluate.Metric`: `compute(predictions=..., references=..., ...)`; `inputs_description` says of what.
    Raises:
        ValueError: if there is no such metric. ImportError: if evaluate is not installed.

    Example:
        ```python
        >>> from gap_mllm.evaluation import load_metric
        >>> metric = load_metric("mmsi")
        >>> metric.add_batch(predictions=["A", "B"], references=[{"answer": "A", "question_type": "motion"}] * 2)
        >>> metric.compute()["overall"]
        0.5

        ```
    """
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; known are {', '.join(METRICS)}.")
    try:
        from .adapter import GapMllmMetric
    except ImportError as error:
        raise ImportError("Metrics need the package evaluate: pip install gap-mllm[eval].") from error
    kwargs.setdefault("keep_in_memory", kwargs.get("num_process", 1) == 1)
    return GapMllmMetric(name, **kwargs)


__all__ = ["METRICS", "load_metric"]
