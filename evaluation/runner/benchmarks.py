"""The benchmarks that `evaluate_model` knows: which questions, how they are asked, and what scores the answers."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ...processing.answers_gap_mllm import BOX_KEYS
from ...processing.asking_gap_mllm import ANSWER_FORMS, AnswerForm
from . import score_axis_aligned, score_boxes, score_captions, score_grounding, score_points, score_questions


SINGLE, TWO_STAGE = "single", "two_stage_grounding"


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Args:
        name (`str`), title (`str`): for people.
        source (`str`), split (`str`), tasks (`tuple[str, ...]`), options (`dict`): arguments of `load_multiview`.
        score (`Callable`): (samples, texts, seed) -> (metrics, one record a sample); see score_points.py. In two
            stages it takes `frames`, too.
        constant (`Callable`): (samples) -> a function from sample to the answer that fits these samples best blindly.
        check (`Callable`, *optional*): (sample), raises ValueError or RecordError where an answer could not be scored;
            called before any model is loaded.
        headline (`str`): the metric that stands for all; higher_is_better (`bool`).
        forms (`tuple[AnswerForm, ...]`): form of the answer, one for each stage.
        flow (`str`): "single", or "two_stage_grounding" (frame, then box; see two_stage.py).
        num_frames (`int`): taken of a video.
    """

    name: str
    title: str
    source: str
    split: str
    tasks: tuple[str, ...]
    score: Callable
    constant: Callable
    headline: str
    check: Callable | None = None
    higher_is_better: bool = True
    forms: tuple[AnswerForm, ...] = (AnswerForm(),)
    flow: str = SINGLE
    num_frames: int = 32
    options: dict = field(default_factory=dict)


_POINTS = {
    "tasks": ("reconstruction",),
    "score": score_points.score,
    "constant": score_points.constant,
    "headline": "point_error_m",
    "higher_is_better": False,
    "forms": (ANSWER_FORMS["reconstruction"],),
}
_GROUNDING = {
    "source": "gap_mllm",
    "split": "val",
    "tasks": ("grounding",),
    "score": score_grounding.score,
    "constant": score_grounding.constant,
    "check": score_grounding.check,
    "headline": "miou",
}
_ONE_STAGE = {"forms": (ANSWER_FORMS["grounding"],)}
_TWO_STAGES = {"forms": (ANSWER_FORMS["grounding_frame"], ANSWER_FORMS["grounding_box"]), "flow": TWO_STAGE}
_AXIS_ALIGNED = {
    "tasks": ("grounding",),
    "score": score_axis_aligned.score,
    "constant": score_axis_aligned.constant,
    "check": score_axis_aligned.check,
    "headline": "acc25",
}
_SCANREFER = {**_AXIS_ALIGNED, "source": "scanrefer", "split": "val", "options": {"prompt_style": "vgllm"}}
_NR3D = {
    **_AXIS_ALIGNED,
    "source": "nr3d",
    "split": "test",
    "score": score_axis_aligned.score_nr3d,
    # ReferIt3D evaluates on utterances that name the class.
    "options": {"prompt_style": "vgllm", "mentions_target_class_only": True},
}
_QUESTIONS = {"constant": score_questions.commonest_answer, "check": score_questions.check_answer}
_LETTERS = {**_QUESTIONS, "tasks": ("spatial_qa",), "headline": "overall", "forms": (AnswerForm(16),)}
_BENCHMARKS = (
    Benchmark(
        "synthetic_rooms",
        "a marked pixel of a rendered room: what is it, and where",
        source="synthetic_rooms",
        split="test",
        options={"num_train": 256, "num_selection": 0, "num_test": 128, "questions_per_task": 2},
        **_POINTS,
    ),
    Benchmark(
        "gap_mllm_reconstruction",
        "a marked pixel of a ScanNet scene: what is it, and where",
        source="gap_mllm",
        split="val",
        **{**_POINTS, "score": score_points.score_clouds},
    ),
    Benchmark(
        "gap_mllm_detection",
        "all objects of a few ScanNet views as boxes",
        source="gap_mllm",
        split="val",
        tasks=("detection3d",),
        score=score_boxes.score,
        constant=score_boxes.constant,
        headline="f1",
        forms=(ANSWER_FORMS["detection3d"],),
    ),
    Benchmark(
        "gap_mllm_grounding",
        "ScanRefer in one stage: view and box of a described object",
        **_ONE_STAGE,
        **_GROUNDING,
    ),
    Benchmark(
        "gap_mllm_grounding_two_stage",
        "ScanRefer in two stages: the view of a described object, then its box",
        **_TWO_STAGES,
        **_GROUNDING,
    ),
    Benchmark(
        "scanrefer",
        "ScanRefer's own files, in one stage: view and box of a described object",
        **_ONE_STAGE,
        **_SCANREFER,
    ),
    Benchmark(
        "scanrefer_two_stage",
        "ScanRefer's own files, in two stages: the view of a described object, then its box",
        **_TWO_STAGES,
        **_SCANREFER,
    ),
    Benchmark("nr3d", "Nr3D: an object among others of its class, view and box in one stage", **_ONE_STAGE, **_NR3D),
    Benchmark("nr3d_two_stage", "Nr3D in two stages: the view of an object, then its box", **_TWO_STAGES, **_NR3D),
    Benchmark(
        "multi3drefer",
        "Multi3DRefer: the boxes of all objects that a description fits, or of none",
        source="multi3drefer",
        split="val",
        tasks=("grounding",),
        score=score_axis_aligned.score_any_number,
        constant=score_axis_aligned.constant_any_number,
        check=score_axis_aligned.check_any_number,
        headline="f1_25",
        forms=(AnswerForm(640, BOX_KEYS, is_list=True),),
        options={"prompt_style": "gap_mllm"},
    ),
    Benchmark(
        "gap_mllm_captions",
        "Scan2Cap: describe the object at a place",
        source="gap_mllm",
        split="val",
        tasks=("dense_caption",),
        score=score_captions.score,
        constant=score_captions.constant,
        headline="cider",
        forms=(ANSWER_FORMS["dense_caption"],),
    ),
    Benchmark(
        "vsibench",
        "VSI-Bench: questions about videos of rooms",
        source="vsibench",
        split="test",
        tasks=("video_qa",),
        score=score_questions.vsibench,
        headline="overall",
        forms=(AnswerForm(16),),
        **_QUESTIONS,
    ),
    Benchmark(
        "spar_bench",
        "SPAR-Bench: spatial questions with marks on one or several views",
        source="spar",
        split="test",
        tasks=("spatial_qa",),
        score=score_questions.spar_bench,
        headline="overall",
        forms=(AnswerForm(64),),
        options={"release": "bench"},
        **_QUESTIONS,
    ),
    Benchmark(
        "cv_bench",
        "CV-Bench: counts, relations, depth and distance in single pictures",
        source="cv_bench",
        split="test",
        score=score_questions.cv_bench,
        **_LETTERS,
    ),
    Benchmark(
        "blink",
        "BLINK: fourteen tasks of visual perception on one to four pictures",
        source="blink",
        split="val",
        score=score_questions.blink,
        **_LETTERS,
    ),
    Benchmark(
        "mmsi",
        "MMSI-Bench: where cameras, objects and regions are, and how they move, over several pictures",
        source="mmsi",
        split="test",
        score=score_questions.mmsi,
        **_LETTERS,
    ),
    Benchmark(
        "scanqa",
        "ScanQA: questions about ScanNet scenes, answered in words",
        source="scanqa",
        split="val",
        tasks=("scene_qa",),
        score=score_questions.scanqa,
        headline="em",
        forms=(AnswerForm(32),),
        **_QUESTIONS,
    ),
    Benchmark(
        "sqa3d",
        "SQA3D: questions from where somebody stands in a ScanNet scene",
        source="sqa3d",
        split="test",
        tasks=("scene_qa",),
        score=score_questions.sqa3d,
        headline="em",
        forms=(AnswerForm(32),),
        **_QUESTIONS,
    ),
)
BENCHMARKS = {benchmark.name: benchmark for benchmark in _BENCHMARKS}


def find_benchmark(name: str) -> Benchmark:
    """Return a benchmark by its name.

    Raises:
        ValueError: if there is none; the message lists them.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}; known are {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]


__all__ = ["BENCHMARKS", "SINGLE", "TWO_STAGE", "Benchmark", "find_benchmark"]
