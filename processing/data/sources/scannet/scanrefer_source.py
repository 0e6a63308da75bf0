"""ScanRefer: descriptions of single objects in ScanNet scenes."""

from pathlib import Path

from ...record_errors import RecordError
from .annotations import check_object_id, check_text, other_keys
from .grounding import ScannetGroundingSource


USED_KEYS = {"scene_id", "eval_type"}
FILE_NAMES = {split: f"ScanRefer_filtered_{split}.json" for split in ("train", "val", "test")}


class ScanReferSource(ScannetGroundingSource):
    """ScanRefer's `ScanRefer_filtered_{train,val,test}.json` on ScanNet frames.

    `eval_type` ("unique" or "multiple") is there only where Video-3D-LLM's script has added it; it becomes the
    question type. Test records do not say which object is meant: no box, no answer. See `PromptStyleConfig` for the
    wording, `ScannetAnnotationConfig` for frames and boxes.
    """

    SOURCE = "scanrefer"
    LAYOUT = "ScanRefer_filtered_{train,val,test}.json (or scanrefer/ or benchmark/scanrefer/ with them)"
    FOLDER_NAME = "scanrefer"

    def find_files(self, root: Path):
        return self.find_annotations(root, FILE_NAMES)

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        object_id, label = read_object(record, split)
        row_id = record_id if object_id is None else f"{record['scene_id']}-{object_id}-{record['ann_id']}"
        yield from self.grounding_rows(
            split,
            file,
            record_id,
            record["scene_id"],
            check_text(record, "description"),
            object_id,
            label,
            id=row_id,
            question_type=record.get("eval_type"),
            metadata=other_keys(record, USED_KEYS),
        )


def read_object(record: dict, split: str) -> tuple[str | None, str | None]:
    """The object id and label of a ScanRefer record; None and None where a test record leaves them empty.

    Raises:
        RecordError: if another record leaves the id empty, or it is no whole number.
    """
    if record["object_id"] == "" and split == "test":
        return None, None
    if record["object_id"] == "":
        raise RecordError(f"it is empty, which only test records may have; split is {split!r}.", "object_id")
    return check_object_id(record["object_id"]), check_text(record, "object_name").replace("_", " ")
