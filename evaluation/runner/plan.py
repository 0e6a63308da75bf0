"""The plan of a run: which questions are answered together, so that no split and no kill changes a number.

A float depends on what shares its batch. So batches are formed over the whole benchmark before anything runs;
processes take whole batches, and a resume repeats whole batches.
"""

import hashlib
import json
from pathlib import Path

from ...processing.argument_checks import check_same_run
from ...processing.data.folder_writing import remove_file_parts, write_atomically
from ...processing.data.scene_sample import SceneSample
from ...processing.data.source_files import read_json
from .questions import QuestionSet, view_shape


PLAN_FILE = "plan.json"
FORMAT = 1


def make_batches(questions: QuestionSet, batch_size: int, by_scene: bool = False) -> list[list[str]]:
    """Group questions by (shape of views, prompt length, id); questions of different shape never share a batch.

    Args:
        questions (`QuestionSet`)
        batch_size (`int`): questions of a batch.
        by_scene (`bool`, defaults to False): all questions about one set of views are one batch, whatever their
            number, for a flow that encodes each set once and cuts into `batch_size` itself.
    Returns:
        `list[list[str]]`: ids.
    Raises:
        ValueError: if batch_size is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1.")
    keyed = []
    for sample in questions:
        shape = repr(view_shape(sample))
        group = f"{shape} {view_set(sample)}" if by_scene else shape
        keyed.append((group, len(sample.question or ""), sample.id))
    batches, last = [], None
    for group, _, row_id in sorted(keyed):
        if group != last or (not by_scene and len(batches[-1]) == batch_size):
            batches.append([])
        batches[-1].append(row_id)
        last = group
    return batches


def view_set(sample: SceneSample) -> str:
    """What names the pictures of a sample: equal for questions that show the same views with the same marks."""
    names = [_picture_name(view.picture) for view in sample.views] or [sample.video]
    return repr((names, sample.marks))


def _picture_name(picture):
    """The file of a stored picture, or the hash of its bytes: sources may give many the same name, or none."""
    if picture.get("bytes") is None:
        return picture["path"]
    return hashlib.sha256(picture["bytes"]).hexdigest()


def choose_partners(questions: QuestionSet) -> dict[str, str] | None:
    """For each question, another scene of equal shape to take geometry from; None if one has no partner.

    The partner is the next scene in the order of ids of scenes, so that each is used about equally.
    """
    scenes = {}
    for sample in questions:
        scenes.setdefault(repr(view_shape(sample)), {}).setdefault(sample.scene_id, sample.id)
    partners = {}
    for sample in questions:
        of_shape = scenes[repr(view_shape(sample))]
        names = list(of_shape)
        if len(names) < 2:
            return None
        partners[sample.id] = of_shape[names[(names.index(sample.scene_id) + 1) % len(names)]]
    return partners


def save_or_check_plan(folder: str | Path, plan: dict) -> None:
    """Write the plan into a new folder; compare it with the one of a folder that is resumed.

    Parts of files that a killed run left there are removed.

    Args:
        folder (`str` or path): folder of the run.
        plan (`dict`): JSON values.
    Raises:
        ValueError: if the folder holds the results of another plan; what differs is named.
    """
    path = Path(folder) / PLAN_FILE
    for place in (path.parent, *path.parent.glob("batches/*/")):
        remove_file_parts(place)
    plan = json.loads(json.dumps({"format": FORMAT, **plan}))
    if not path.exists():
        write_atomically(path, json.dumps(plan, indent=1) + "\n")
        return
    check_same_run(folder, read_json(path), plan)
