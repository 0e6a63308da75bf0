"""What a benchmark is: its questions, how they are asked, how an answer is read once, and what scores readings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...processing.asking_gap_mllm import AnswerForm
from ...processing.data.scene_sample import SceneSample
from ..intervals import with_interval


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, in a file of its own: a reader of data (`source`) and this make it whole.

    Args:
        name (`str`), title (`str`): its key in `BENCHMARKS`, and what it asks, for people.
        source (`str`), split (`str`), tasks (`tuple[str, ...]`), options (`dict`): arguments of `load_multiview`.
        read (`Callable`): (sample, text) -> what the answer holds, in whatever form `rate` takes it. It is called
            once an answer: nothing that follows sees the text.
        rate (`Callable`): (samples, readings, interval) -> (metrics, one record a sample). A record holds "parsed" and
            "rejected" (why nothing could be read), "score" (higher is better, never NaN), "category", and what it was
            made of. `interval(name, values, statistic)` gives a metric with its bootstrap interval over scenes, the
            mean without a statistic.
        constant (`Callable`): (samples) -> a function from sample to the answer that fits these samples best blindly.
        headline (`str`): the metric that stands for all.
        check (`Callable`, *optional*): (sample), raises ValueError or RecordError where an answer could not be scored;
            called before any model is loaded.
        higher_is_better (`bool`, defaults to True): direction of the headline.
        forms (`tuple[AnswerForm, ...]`, defaults to `(AnswerForm(),)`): form of the answer, one for each stage.
        ask (`Callable`, *optional*): a flow of its own, (baseline, asker, forms, samples, partner, batch_size) -> one
            record each with "id", "text" and more; it gets all questions about one set of views at once, and with
            "other_geometry" a sample whose views give the geometry. See two_stage.py.
        requests (`Callable`, *optional*): function (forms, samples) -> id, form, chat and views of all that `ask` may
            ask about one set of views, whatever is answered; for an engine that makes room before it starts.
        answer_fields (`tuple[str, ...]`, defaults to the text): fields of an answer's record that `read` takes.
        draw (`Callable`, *optional*): (sample, parsed) -> the points and boxes of an answer, for the report.
        shown (`str`, defaults to "score"): field of the records that the report plots: "score", "iou" or "error_m".
        num_frames (`int`, defaults to 32): frames taken of a video.
    """

    name: str
    title: str
    source: str
    split: str
    tasks: tuple[str, ...]
    read: Callable
    rate: Callable
    constant: Callable
    headline: str
    check: Callable | None = None
    higher_is_better: bool = True
    forms: tuple[AnswerForm, ...] = (AnswerForm(),)
    ask: Callable | None = None
    requests: Callable | None = None
    answer_fields: tuple[str, ...] = ("text",)
    draw: Callable | None = None
    shown: str = "score"
    num_frames: int = 32
    options: dict = field(default_factory=dict)

    def score(self, samples: Sequence[SceneSample], *columns: Sequence, seed: int = 0) -> tuple[dict, list[dict]]:
        """Read each answer once, and score what was read.

        Args:
            samples (`list[SceneSample]`): the questions.
            *columns (sequences): the `answer_fields` of their answers, such as the texts.
            seed (`int`, defaults to 0): seed of the bootstrap over scenes.
        Returns:
            `tuple[dict, list[dict]]`: metrics, and one record a sample.
        """
        readings = [self.read(*row) for row in zip(samples, *columns, strict=True)]
        scenes = [str(sample.scene_id) for sample in samples]

        def interval(name: str, values: Sequence[float], statistic: Callable = np.mean) -> dict:
            return with_interval(name, np.asarray(values, dtype=float), statistic, scenes, seed)

        return self.rate(samples, readings, interval)
