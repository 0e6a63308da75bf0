"""CA-VQA: questions about a frame of an indoor capture, with up to four frames before it, from MM-Spatial.

The real data was not at hand; its layout is that of the description in Apple's repository.
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.ipc

from ...record_errors import RecordError
from ...source_builder import SceneSourceBuilder, SourceConfig
from ...source_files import find_file
from ...stored_frames import stored_picture
from ..parquet_rows import parquet_errors


QUESTION_TYPES = ("binary", "cardinality", "multichoice", "regression")
NUM_SUPPORT_FRAMES = 4


@dataclass
class CaVqaConfig(SourceConfig):
    """`SourceConfig`, and how many frames a question shows.

    Args:
        support_frames (`int`, defaults to 0): frames shown behind the reference frame, nearest in time first; at most
            4. `Differs:` the published order has the reference frame last; our answers are in the camera of the first.
    Raises:
        ValueError: on another number.
    """

    support_frames: int = 0

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.support_frames <= NUM_SUPPORT_FRAMES:
            raise ValueError(f"support_frames is {self.support_frames}; expected 0 to {NUM_SUPPORT_FRAMES}.")


class CaVqaSource(SceneSourceBuilder):
    """CA-VQA's validation split as `datasets.load_from_disk` reads it: a folder a task, and `images/`. Split "val".

    The question of a row is that of the file, its type the task. The tasks grounding2d and grounding3d are left out:
    how their boxes are spelled is not described. Depth maps and poses are not read: the description
    does not say from what to what a pose leads.
    """

    BUILDER_CONFIG_CLASS = CaVqaConfig
    SOURCE = "ca_vqa"
    TASKS = ("spatial_qa",)
    LAYOUT = "binary/, cardinality/, multichoice/, regression/ as `datasets` saves them, and images/"
    LICENSE = "CC-BY-NC-ND-4.0"

    def find_files(self, root: Path):
        return {"val": [file for task in QUESTION_TYPES for file in sorted(root.glob(f"{task}/data-*.arrow"))]}

    def records(self, file: Path, skip):
        with parquet_errors(file), open(file, "rb") as stream, pyarrow.ipc.open_stream(stream) as batches:
            index = 0
            for batch in batches:
                for record in batch.to_pylist():
                    yield f"{file.parent.name}-{file.stem}-{index:07d}", record
                    index += 1

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        names = ["reference_frame"]
        names += [f"support_frame_{number}" for number in range(1, self.config.support_frames + 1)]
        answer = record["answer"]
        if not isinstance(answer, str) or not answer.strip():
            raise RecordError(f"the answer is {answer!r}; expected a text.", "answer")
        yield {
            "id": str(record["id"]),
            "task": "spatial_qa",
            "scene_id": record["reference_frame"]["image"]["path"],
            "views": [self._view(record, name) for name in names],
            "question": record["question"],
            "answer": answer,
            "references": [answer],
            "question_type": file.parent.name,
        }

    def _view(self, record, name):
        path, field = record[name]["image"]["path"], f"{name}.image.path"
        return {"image": stored_picture(find_file(self.root, path, ("", "images"), field=field)), "image_path": path}
