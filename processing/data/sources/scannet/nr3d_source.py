"""Nr3D (ReferIt3D): descriptions that tell an object from others of its class in ScanNet scenes.

The layout is that of the published `nr3d.csv`, written down from descriptions of it and from readers in public code;
the file itself was not at hand.
"""

import ast
import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...record_errors import RecordError
from ...source_files import read_text, refuse_lfs_pointer
from .annotations import check_object_id, check_text, other_keys
from .grounding import PromptStyleConfig, ScannetGroundingSource


SPLITS = ("train", "test")
NEEDED_COLUMNS = ("scan_id", "target_id", "utterance", "stimulus_id", "instance_type")
FLAG_COLUMNS = ("correct_guess", "mentions_target_class")
FLAG_COLUMNS += tuple(f"uses_{kind}_lang" for kind in ("object", "spatial", "color", "shape"))
USED_KEYS = {"scan_id"}
MAX_EASY_OBJECTS = 2  # of the class in the scene, the target among them
VIEW_WORDS = {"front", "behind", "back", "right", "left", "facing", "leftmost", "rightmost", "looking", "across"}


@dataclass
class Nr3dConfig(PromptStyleConfig):
    """`PromptStyleConfig`, and which utterances are read.

    Args:
        mentions_target_class_only (`bool`, defaults to False): whether utterances that do not name the class are left
            out, as ReferIt3D evaluates.
        correct_guess_only (`bool`, defaults to False): whether utterances by which the human listener did not find the
            object are left out.
    """

    mentions_target_class_only: bool = False
    correct_guess_only: bool = False


class Nr3dSource(ScannetGroundingSource):
    """Nr3D's `nr3d.csv` with the scene lists `train_scans.txt` and `test_scans.txt`, or `nr3d_{train,test}.csv`.

    The lists are in ReferIt3D's repository, in `referit3d/data/language/nr3d`. Utterances of a scene in neither list
    are counted under "scene_in_no_split". The question type is one of easy or hard (more than one distractor) and one
    of view-dep or view-indep, as "hard_view-dep"; both as ReferIt3D breaks its results down.
    """

    BUILDER_CONFIG_CLASS = Nr3dConfig
    SOURCE = "nr3d"
    LAYOUT = "nr3d.csv with {train,test}_scans.txt, or nr3d_{train,test}.csv (or nr3d/ or referit3d/ with them)"
    LICENSE = "mit"
    FOLDER_NAME = "nr3d"

    def annotation_folders(self, root: Path):
        return [*super().annotation_folders(root), *(path for path in [root / "referit3d"] if path.is_dir())]

    def find_files(self, root: Path):
        found = self.find_annotations(root, {split: f"nr3d_{split}.csv" for split in SPLITS})
        return found or self.find_annotations(root, dict.fromkeys(SPLITS, "nr3d.csv"))

    def prepare_file(self, split: str, file: Path):
        """The scenes of the split, and of all splits; None for a file that holds one split alone."""
        if file.name != "nr3d.csv":
            return None
        scenes = {}
        for name in SPLITS:
            path = file.with_name(f"{name}_scans.txt")
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} is not there; it says which scenes of nr3d.csv are {name}. Take it from ReferIt3D's "
                    "repository, folder referit3d/data/language/nr3d."
                )
            scenes[name] = set(read_text(path).split())
        return scenes[split], set().union(*scenes.values())

    def records(self, file: Path, skip: Callable):
        refuse_lfs_pointer(file)
        errors = "strict" if skip is None else "surrogateescape"  # then the records are left out that hold such bytes
        try:
            with open(file, encoding="utf-8-sig", errors=errors, newline="") as stream:
                reader = csv.DictReader(stream)
                missing = [name for name in NEEDED_COLUMNS if name not in (reader.fieldnames or ())]
                if missing:
                    reason = f"the table has no column {missing[0]!r}; it has {reader.fieldnames}."
                    raise RecordError(reason, missing[0], file=str(file))
                for index, record in enumerate(reader):
                    yield f"{file.stem}-{index:07d}", record
        except (csv.Error, UnicodeDecodeError) as error:
            raise RecordError(f"no readable table: {error}.", file=str(file)) from None

    def rows(self, split: str, file: Path, record_id: str, record: dict, context: object):
        if None in record or None in record.values():
            raise RecordError("the line has not as many cells as the table has columns.", "line")
        scene_id = check_text(record, "scan_id")
        if context is not None and scene_id not in context[0]:
            if scene_id not in context[1]:
                self._mark_once("scene_in_no_split", file, scene_id)
            return
        flags = {name: read_flag(record, name) for name in FLAG_COLUMNS if name in record}
        if self.config.mentions_target_class_only and not flags["mentions_target_class"]:
            return
        if self.config.correct_guess_only and not flags["correct_guess"]:
            return
        object_id, tokens = check_object_id(record["target_id"], "target_id"), read_tokens(record)
        distractors = read_distractors(record["stimulus_id"], scene_id, object_id)
        yield from self.grounding_rows(
            split,
            file,
            record_id,
            scene_id,
            check_text(record, "utterance"),
            object_id,
            check_text(record, "instance_type"),
            id=record_id,
            question_type=question_type(len(distractors), tokens),
            metadata={**other_keys(record, USED_KEYS), **flags, "tokens": tokens, "distractor_ids": distractors},
        )


def read_flag(record: dict, name: str) -> bool:
    """A cell that is True or False; RecordError otherwise."""
    if record[name] not in ("True", "False"):
        raise RecordError(f"expected True or False, got {record[name]!r}.", name)
    return record[name] == "True"


def read_tokens(record: dict) -> list[str]:
    """The words of an utterance: the column of tokens, a list of quoted words, or else the utterance cut at spaces.

    Raises:
        RecordError: if the column is no list of texts.
    """
    if not record.get("tokens"):
        return record["utterance"].lower().split()
    try:
        tokens = ast.literal_eval(record["tokens"])  # literals only: no code is run
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        tokens = None
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise RecordError(f"expected a list of quoted words, got {record['tokens'][:80]!r}.", "tokens")
    return tokens


def read_distractors(stimulus_id: str, scene_id: str, object_id: str) -> list[str]:
    """The other objects of the class, from `<scene>-<class>-<number of objects>-<target>-<distractor>-..`.

    Raises:
        RecordError: if it has another form, or another scene, target or number of objects than it says.
    """
    parts = stimulus_id.split("-")
    problem = RecordError(
        f"{stimulus_id!r} does not fit scene {scene_id}, target {object_id}; expected <scene>-<class>-<number of "
        "objects>-<target>-<distractor>-...",
        "stimulus_id",
    )
    if len(parts) < 4 or parts[0] != scene_id:
        raise problem
    try:
        count, target, *distractors = (check_object_id(part) for part in parts[2:] if part)
    except RecordError:
        raise problem from None
    if target != object_id or len(distractors) != int(count) - 1:
        raise problem
    return distractors


def question_type(num_distractors: int, tokens: list[str]) -> str:
    """ReferIt3D's two ways to break results down: by the number of objects of the class, by words that need a view."""
    hardness = "easy" if num_distractors + 1 <= MAX_EASY_OBJECTS else "hard"
    return f"{hardness}_{'view-dep' if VIEW_WORDS & set(tokens) else 'view-indep'}"
