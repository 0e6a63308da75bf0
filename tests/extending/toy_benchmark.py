"""A benchmark: how an answer is read, once, what its readings are worth, and one line of registration."""

from gap_mllm.evaluation.benchmarks import BENCHMARKS, Benchmark
from gap_mllm.evaluation.benchmarks.short_answers import check_answer, commonest_answer, short_record
from gap_mllm.processing.asking_gap_mllm import AnswerForm


def read(sample, text):
    """Yes or no, by the first word; None for anything else."""
    word = text.lower().replace(",", " ").replace(".", " ").split()[:1]
    return word[0] if word in (["yes"], ["no"]) else None


def rate(samples, answers, interval):
    """The share of right answers, with its interval over scenes, and a record of each."""
    scores = [float(answer == sample.answer) for sample, answer in zip(samples, answers, strict=True)]
    why = [None if answer else "neither yes nor no" for answer in answers]
    kinds = [sample.question_type for sample in samples]
    return interval("accuracy", scores), list(map(short_record, answers, scores, kinds, why))


YES_NO = Benchmark(
    "yes_no",
    "yes or no about pictures of one's own",
    source="chat",
    split="val",
    tasks=("spatial_qa",),
    read=read,
    rate=rate,
    constant=commonest_answer,
    check=check_answer,
    headline="accuracy",
    forms=(AnswerForm(4),),
)


def register():
    BENCHMARKS[YES_NO.name] = YES_NO
