"""Files of a run: written whole or not at all, so that what a kill leaves behind can be trusted."""

import json
from collections.abc import Sequence
from pathlib import Path

from ...processing.data.folder_writing import write_atomically
from ...processing.data.source_files import iter_jsonl
from ...processing.json_depth import decode_json


def write_jsonl(path: str | Path, records: Sequence[dict]) -> None:
    """Write records as JSON lines, whole or not at all."""
    write_atomically(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def batch_file(folder: str | Path, baseline: str, number: int) -> Path:
    """Where the answers of a batch lie."""
    return Path(folder) / "batches" / baseline / f"{number:06d}.jsonl"


def has_answers(folder: str | Path) -> bool:
    """Whether any batch has been answered."""
    return any((Path(folder) / "batches").glob("*/*.jsonl"))


def pending_batches(folder: str | Path, baseline: str, num_batches: int) -> list[int]:
    """Numbers of the batches that have no answers yet."""
    return [number for number in range(num_batches) if not batch_file(folder, baseline, number).is_file()]


def read_answers(folder: str | Path, baseline: str, batches: list[list[str]]) -> dict[str, dict]:
    """Read the answers of all batches of the model or a baseline, by id.

    Raises:
        ValueError: if a batch file is damaged or holds other ids than its plan says.
    """
    answers = {}
    for number, ids in enumerate(batches):
        path = batch_file(folder, baseline, number)
        try:
            records = [decode_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
            is_whole = [record["id"] for record in records] == ids
        except (ValueError, TypeError, KeyError):
            is_whole = False
        if not is_whole:
            raise ValueError(f"{path} does not hold the answers of its batch; delete it and run again.")
        answers.update((record["id"], record) for record in records)
    return answers


def read_predictions(path: str | Path, ids: Sequence[str]) -> dict[str, dict]:
    """Read answers that were made elsewhere: JSON lines with "id" and "text".

    Args:
        path (`str` or path)
        ids (`list[str]`): ids of the questions; each must be answered once.
    Returns:
        `dict[str, dict]`: by id.
    Raises:
        FileNotFoundError: if there is no such file. RecordError: if a line is no JSON.
        ValueError: if the file is empty, a record has no id or text, an id is there twice, is not asked or is missing.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; expected JSON lines with id and text.")
    answers, asked = {}, set(ids)
    for number, record in enumerate((record for _, record in iter_jsonl(path)), 1):
        if not isinstance(record, dict) or not all(isinstance(record.get(key), str) for key in ("id", "text")):
            raise ValueError(f"{path}, record {number}: expected an object with the texts id and text.")
        if record["id"] in answers:
            raise ValueError(f"{path}, record {number}: the id {record['id']!r} is there twice.")
        answers[record["id"]] = record
    if not answers:
        raise ValueError(f"{path} holds no predictions; expected one for each of {len(asked)} questions.")
    unknown, missing = sorted(set(answers) - asked), [row_id for row_id in ids if row_id not in answers]
    if unknown or missing:
        raise ValueError(
            f"{path} does not fit the questions: {len(unknown)} ids are not asked {unknown[:5]}, {len(missing)} are "
            f"missing {missing[:5]}. Score with the same benchmark, split and limit."
        )
    return answers
