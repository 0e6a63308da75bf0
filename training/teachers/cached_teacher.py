"""Targets of any teacher on disk, by the pictures that it saw: asked once, read from then on."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ...processing.argument_checks import check_output_folder, check_same_run
from ...processing.data.folder_writing import remove_file_parts, write_atomically
from ...processing.data.scene_sample import View
from ..geometry_cache import GeometryCache, content_key
from .teacher_targets import SceneTeacher, TeacherTargets


READS_RECORDS = "reads_records"  # in what teachers say about themselves: their targets follow from more than pixels


class CachedTeacher:
    """Reads what a teacher said of a scene before, or asks it and writes its answer down.

    A scene is known by the pixels of its views in their order, so that targets never meet other frames than those
    that they were made of; where the teacher is what was recorded, also by depth, intrinsics and poses. Without a
    teacher the folder is all there is, as for features that another model wrote in another environment. One folder
    holds one teacher, with its weights and settings. The files are those of `GeometryCache`, one for each scene.

    Args:
        folder (`str` or `Path`): where the files are.
        teacher (`SceneTeacher`, *optional*): teacher that is asked about scenes that are not there; its `about`, a
            `dict` of JSON values, tells it from others of its `name`.
        max_gb (`float`, defaults to 100.0): bound on all files together, in gigabytes; what was not read for the
            longest time goes. Without a teacher nothing goes.
    Raises:
        FileNotFoundError: if there is neither a teacher nor a folder. ValueError: if the folder holds another teacher,
            or `max_gb` is not above 0. TypeError: if the teacher cannot be called.

    Example:
        ```python
        >>> from gap_mllm.processing.data import SceneSample, load_multiview
        >>> from gap_mllm.training.teachers import CachedTeacher, RecordedTeacher
        >>> rooms = load_multiview("rendered_rooms", split="train", num_rooms=1)
        >>> views = SceneSample.open(rooms, 0).views
        >>> written = CachedTeacher("targets", RecordedTeacher())(views)
        >>> read = CachedTeacher("targets")(views)
        >>> all((old == new).all() for old, new in zip(written.depth, read.depth))
        True

        ```
    """

    def __init__(self, folder: str | Path, teacher: SceneTeacher | None = None, max_gb: float = 100.0):
        self.folder, self.teacher = check_output_folder("folder", folder), teacher
        known = self.folder / "teacher.json"
        about = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else None
        if teacher is not None:
            if not callable(teacher):
                raise TypeError(f"teacher is {teacher!r}; expected one of make_teacher, or any callable of views.")
            now = {"teacher": getattr(teacher, "name", type(teacher).__name__), **getattr(teacher, "about", {})}
            if about is not None:
                check_same_run(self.folder, about, now)
            else:
                remove_file_parts(self.folder)
                write_atomically(known, json.dumps(now))
            about = now
        elif not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder} holds no targets; give the teacher that makes them.")
        self.reads_records = bool((about or {}).get(READS_RECORDS))
        self.cache = GeometryCache(self.folder, max_gb)

    def __call__(self, views: Sequence[View]) -> TeacherTargets:
        """Targets of the views of one scene.

        Raises:
            ValueError: if they are not there and no teacher was given.
        """
        key = f"targets/{scene_key(views, self.reads_records)}"
        found = self.cache.read_tensors(key)
        if found is not None:
            return _unpacked(*found)
        if self.teacher is None:
            paths = [str(view.image_path) for view in views if view.image_path]
            named = f" ({', '.join(paths)})" if paths else ""
            raise ValueError(
                f"{self.folder} holds nothing about these {len(views)} views{named}, in this order and with these "
                "pixels. Give the teacher that makes targets, or write them for these views."
            )
        targets = self.teacher(views)
        about = {name: json.dumps(getattr(targets, name)) for name in ("is_metric", "canonical_focal_px")}
        self.cache.write_tensors(key, _packed(targets), about)
        return targets


def scene_key(views: Sequence[View], with_records: bool = False) -> str:
    """A hash of the pixels of views in their order, perhaps with depth, intrinsics and poses as they were recorded."""
    arrays = [np.array(view.image) for view in views]
    if with_records:
        found = [(view.depth_m, view.intrinsics, view.depth_intrinsics, view.camera_to_world) for view in views]
        arrays += [
            np.zeros(0, np.uint8) if each is None else np.asarray(each) for records in found for each in records
        ]
    return content_key(*arrays)


def _packed(targets):
    tensors = {}
    for name in ("intrinsics", "camera_to_first"):
        if getattr(targets, name) is not None:
            tensors[name] = getattr(targets, name)
    for name in ("depth", "confidence"):
        tensors |= {f"{name}/{view}": each for view, each in enumerate(getattr(targets, name) or ())}
    for name, maps in targets.features.items():
        tensors |= {f"features/{name}/{view}": each for view, each in enumerate(maps)}
    # Copies: views of one tensor, as an encoder's patches of all views, are refused by safetensors.
    return {name: each.detach().cpu().clone(memory_format=torch.contiguous_format) for name, each in tensors.items()}


def _unpacked(tensors, about):
    maps = {"depth": {}, "confidence": {}}
    for name, tensor in tensors.items():
        if "/" in name:
            group, view = name.rsplit("/", 1)
            maps.setdefault(group, {})[int(view)] = tensor
    listed = {name: [each[view] for view in range(len(each))] or None for name, each in maps.items()}
    features = {name.removeprefix("features/"): each for name, each in listed.items() if name.startswith("features/")}
    cameras = {name: tensors.get(name) for name in ("intrinsics", "camera_to_first")}
    units = {name: json.loads(told) for name, told in about.items() if name in ("is_metric", "canonical_focal_px")}
    return TeacherTargets(listed["depth"], listed["confidence"], **cameras, features=features, **units)
