"""Targets of any teacher on disk, by the pictures that it saw: asked once, read from then on."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save

from ...processing.argument_checks import check_output_folder, check_same_run
from ...processing.data.folder_writing import write_atomically
from ...processing.data.scene_sample import View
from .teacher_targets import SceneTeacher, TeacherTargets


class CachedTeacher:
    """Reads what a teacher said of a scene before, or asks it and writes its answer down.

    A scene is known by the pixels of its views in their order, so that targets never meet other frames than those
    that they were made of. Without a teacher the folder is all there is, as for features that another model wrote in
    another environment. One folder holds one teacher. Files are safetensors, one for each scene.

    Args:
        folder (`str` or `Path`): where the files are.
        teacher (`SceneTeacher`, *optional*): teacher that is asked about scenes that are not there.
    Raises:
        FileNotFoundError: if there is neither a teacher nor a folder. ValueError: if the folder holds another teacher.

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

    def __init__(self, folder: str | Path, teacher: SceneTeacher | None = None):
        self.folder, self.teacher = check_output_folder("folder", folder), teacher
        known = self.folder / "teacher.json"
        if teacher is not None:
            about = {"teacher": getattr(teacher, "name", type(teacher).__name__)}
            if known.is_file():
                check_same_run(self.folder, json.loads(known.read_text(encoding="utf-8")), about)
            else:
                write_atomically(known, json.dumps(about))
        elif not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder} holds no targets; give the teacher that makes them.")

    def __call__(self, views: Sequence[View]) -> TeacherTargets:
        """Targets of the views of one scene.

        Raises:
            KeyError: if they are not there and no teacher was given.
        """
        path = self.folder / f"{scene_key(views)}.safetensors"
        if path.is_file():
            return _read(path)
        if self.teacher is None:
            names = ", ".join(str(view.image_path) for view in views)
            raise KeyError(
                f"{self.folder} holds nothing about the views {names}, in this order and with these pixels. Give the "
                "teacher that makes targets, or write them for these views."
            )
        targets = self.teacher(views)
        write_atomically(path, _packed(targets))
        return targets


def scene_key(views: Sequence[View]) -> str:
    """A hash of the pixels of views in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for view in views:
        digest.update(f"{view.image.size}".encode())
        digest.update(view.image.tobytes())
    return digest.hexdigest()


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
    tensors = {
        name: each.detach().cpu().clone(memory_format=torch.contiguous_format) for name, each in tensors.items()
    }
    return save(tensors, {"is_metric": json.dumps(targets.is_metric)})


def _read(path):
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        is_metric = json.loads(file.metadata()["is_metric"])
    maps = {"depth": {}, "confidence": {}}
    for name, tensor in tensors.items():
        if "/" in name:
            group, view = name.rsplit("/", 1)
            maps.setdefault(group, {})[int(view)] = tensor
    listed = {name: [each[view] for view in range(len(each))] or None for name, each in maps.items()}
    features = {name.removeprefix("features/"): each for name, each in listed.items() if name.startswith("features/")}
    cameras = {name: tensors.get(name) for name in ("intrinsics", "camera_to_first")}
    return TeacherTargets(listed["depth"], listed["confidence"], **cameras, features=features, is_metric=is_metric)


__all__ = ["CachedTeacher", "scene_key"]
