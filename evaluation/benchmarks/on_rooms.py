"""Any benchmark whose questions rooms allow, asked about rendered rooms in place of its own data."""

from dataclasses import replace

from ...processing.data.task_makers import TASK_MAKERS
from .benchmark import Benchmark
from .synthetic_rooms_benchmark import SYNTHETIC_ROOMS
from .two_stage import answer_in_two_stages


def room_tasks(benchmark: Benchmark) -> tuple[str, ...]:
    """The tasks of a benchmark as rooms are asked them; empty where rooms cannot be.

    Two stages ask about a described object, whatever task the description comes from.
    """
    if benchmark.ask is answer_in_two_stages:
        return ("grounding_box",)
    return benchmark.tasks if set(benchmark.tasks) <= set(TASK_MAKERS) else ()


def on_rooms(benchmark: Benchmark) -> Benchmark:
    """Return the benchmark with the rendered rooms of `synthetic_rooms` as its data.

    Questions and truths are those of rooms; how they are asked, read and scored is the benchmark's.

    Args:
        benchmark (`Benchmark`): any of `BENCHMARKS`.
    Returns:
        `Benchmark`: the same one where it asks about rooms already.
    Raises:
        ValueError: if rooms do not allow its questions.

    Example:
        ```python
        >>> from gap_mllm.evaluation.benchmarks import find_benchmark, on_rooms
        >>> on_rooms(find_benchmark("gap_mllm_detection")).source
        'synthetic_rooms'

        ```
    """
    if benchmark.source == SYNTHETIC_ROOMS.source:
        return benchmark
    tasks = room_tasks(benchmark)
    if not tasks:
        raise ValueError(
            f"benchmark {benchmark.name!r} asks {', '.join(benchmark.tasks)}, which rooms cannot be asked; "
            "leave out --data rooms."
        )
    return replace(
        benchmark,
        title=f"{benchmark.title}; about rendered rooms",
        source=SYNTHETIC_ROOMS.source,
        split=SYNTHETIC_ROOMS.split,
        options=SYNTHETIC_ROOMS.options,
        tasks=tasks,
    )
