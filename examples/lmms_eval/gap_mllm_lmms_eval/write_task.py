"""`python -m gap_mllm_lmms_eval.write_task scanrefer --data-dir DIR --output FOLDER`: a task on data of one's own."""

import argparse
import json
import shutil
from pathlib import Path

from gap_mllm.evaluation.benchmarks import find_benchmark
from gap_mllm.evaluation.runner.questions import load_questions
from gap_mllm.processing.data.folder_writing import write_atomically
from gap_mllm_cli.options import read_option

from .benchmark_task import DOCUMENTS, QUESTIONS, SETTINGS


TASKS = {
    "scanrefer": "scanrefer",
    "scan2cap": "gap_mllm_captions",
    "scanqa": "scanqa",
    "sqa3d": "sqa3d",
    "detection_9dof": "gap_mllm_detection",
}


def write_task(
    task: str,
    data_dir: str | Path,
    output: str | Path,
    split: str | None = None,
    limit: int | None = None,
    cache_dir: str | Path | None = None,
    **options,
) -> int:
    """Write a folder for `--include_path`: the task's YAML file, its documents, and the questions that they name.

    Args:
        task (`str`): key of `TASKS`.
        data_dir (`str` or path): folder of the source's data, as for `gap-mllm evaluate`.
        output (`str` or path): folder to write; it must stay where it is, since documents name it.
        split (`str`, *optional*), limit (`int`, *optional*), cache_dir (`str` or path, *optional*), **options:
            arguments of `load_questions`.
    Returns:
        `int`: number of questions.
    Raises:
        ValueError: on an unknown task, or an output of its name. FileExistsError: if `output` holds something.
            Others as `load_questions`.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; known are {', '.join(TASKS)}.")
    output = Path(output).resolve()
    if output.name == task:  # and then it loads the task for models that take no chats
        raise ValueError(f"lmms-eval takes --tasks {task} for a folder of that name; choose another for the output.")
    if output.exists() and any(output.iterdir()):
        raise FileExistsError(f"{output} is not empty; choose another folder, or delete it first.")
    benchmark = find_benchmark(TASKS[task])
    asked, _ = load_questions(benchmark, data_dir, split, limit, cache_dir=cache_dir, **options)
    output.mkdir(parents=True, exist_ok=True)
    asked.save(output / QUESTIONS)
    write_atomically(output / SETTINGS, json.dumps({"benchmark": benchmark.name}) + "\n")
    documents = ({"id": row_id, "folder": str(output)} for row_id in asked.ids)
    write_atomically(output / DOCUMENTS, "".join(json.dumps(document) + "\n" for document in documents))
    shutil.copy(Path(__file__).parent / "tasks" / task / f"{task}.yaml", output)
    return len(asked)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data-dir", required=True, help="folder of the data, as for gap-mllm evaluate")
    parser.add_argument("--output", required=True, help="folder for --include_path")
    parser.add_argument("--split", help="instead of the benchmark's")
    parser.add_argument("--limit", type=int, help="an even subset of so many questions")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of the source")
    args = parser.parse_args()
    try:
        options = dict(read_option(text) for text in args.option)
        count = write_task(args.task, args.data_dir, args.output, args.split, args.limit, **options)
    except (OSError, ValueError) as error:  # what was given does not fit, and the message says what
        parser.exit(1, f"write_task: error: {error}\n")
    print(f"wrote {args.output}: {count} questions. lmms-eval --tasks {args.task} --include_path {args.output}")


if __name__ == "__main__":
    main()
