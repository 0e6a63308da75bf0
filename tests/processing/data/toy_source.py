"""A source for tests: `<split>*.jsonl` with a row in every line, and lines that fail in a way they name."""

from dataclasses import dataclass

import numpy as np

from gap_mllm.processing.data import RecordError
from gap_mllm.processing.data.source_builder import SceneSourceBuilder, SourceConfig


@dataclass
class ToyConfig(SourceConfig):
    """`SourceConfig`, and options of every kind that a command line can give."""

    prefix: str | None = None
    scale: float = 1.0
    repeat: int | None = None
    loud: bool = False
    names: tuple[str, ...] = ()


FAILURES = {
    "record": lambda: RecordError("it is bad.", "question"),
    "key": lambda: KeyError("pose"),
    "index": lambda: IndexError("list index out of range"),
    "type": lambda: TypeError("no list"),
    "value": lambda: ValueError("no number"),
    "division": lambda: ZeroDivisionError("division by zero"),
    "attribute": lambda: AttributeError("'int' object has no attribute 'get'"),
}


class ToySource(SceneSourceBuilder):
    """Rows as they stand in the file."""

    BUILDER_CONFIG_CLASS = ToyConfig
    SOURCE = "toy"
    TASKS = ("scene_qa", "reconstruction")
    LAYOUT = "train*.jsonl or val*.jsonl"
    LICENSE = "CC BY 4.0"

    def find_files(self, root):
        return {split: sorted(root.glob(f"{split}*.json*")) for split in ("train", "val")}

    def rows(self, split, file, record_id, record, context):
        if "fails" in record:
            raise FAILURES[record["fails"]]()
        if record.pop("is_lost", False):
            self.mark("lost_tracking", file, record_id, "pose 3")
        if not self.wants(record.get("task", "scene_qa")):
            return
        row = {"task": "scene_qa", "question": "What?", "answer": "This.", **record}
        if "views" in row:
            row["views"] = [{**view, "camera_to_world": np.eye(4)} for view in row["views"]]
        yield row


def write_rows(path, *rows):
    """Write rows as lines; a text stands as it is."""
    import json

    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path
