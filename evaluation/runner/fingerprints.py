"""What a run is about, as hashes in its plan: answers about other questions, pictures or truths are never resumed.

Pictures and depth maps count by all that they hold, each file once: seconds for a benchmark. Videos, which may be
terabytes, count by size, time of change and both ends; folders of frames by the names, sizes and times in them. Where
files lie does not count, so that data can be moved.
"""

import hashlib
import json
import os
from pathlib import Path

from ...processing.data.read_log import END_BYTES, content_hash
from ...processing.data.record_errors import RecordError


ASKED = ("id", "source", "split", "task", "scene_id", "system", "question", "choices", "marks")
SHOWN = ("image", "image_path", "frame_id", "timestamp")


def fingerprints(rows: int) -> dict[str, str]:
    """Hash rows of the schema in four parts, so that what differs can be named.

    Args:
        rows (iterable of `dict`): rows with pictures as they are stored.
    Returns:
        `dict[str, str]`: "questions" (texts and marks), "pictures" (and videos), "geometry" (depth maps, intrinsics,
        poses) and "truths" (answers, boxes, points and all else).
    Raises:
        RecordError: if a picture or video cannot be read.
    """
    contents = {}  # of files: many questions show the same picture
    digests = {name: hashlib.sha256() for name in ("questions", "pictures", "geometry", "truths")}
    for row in rows:
        try:
            parts = _parts(row, contents)
        except OSError as error:
            raise RecordError(f"it cannot be read: {error}.", "views", row["source"], None, row["id"]) from None
        for name, digest in digests.items():
            digest.update(json.dumps(parts[name], default=str).encode() + b"\n")
    return {name: digest.hexdigest()[:16] for name, digest in digests.items()}


def _parts(row, contents):
    views = [
        {**view, **{kind: _picture(view[kind], contents) for kind in ("image", "depth")}} for view in row["views"]
    ]
    used = {*ASKED, "views", "video"}
    return {
        "questions": [row[name] for name in ASKED],
        "pictures": [[view[name] for name in SHOWN] for view in views] + [_video(row["video"])],
        "geometry": [[value for name, value in view.items() if name not in SHOWN] for view in views]
        + [row["pose_frame"], row["world_to_aligned"]],
        "truths": {name: value for name, value in row.items() if name not in used},
    }


def _picture(picture, contents):
    if picture is None:
        return None
    if picture["bytes"] is not None:
        return hashlib.blake2b(picture["bytes"], digest_size=16).hexdigest()
    path = picture["path"]
    if path not in contents:
        contents[path] = content_hash(path)
    return contents[path]


def _video(path):
    if path is None:
        return None
    if os.path.isdir(path):
        return [[file.name, *_version(file)] for file in sorted(Path(path).iterdir())]
    return [*_version(path), content_hash(path, 2 * END_BYTES)]


def _version(path):
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns
