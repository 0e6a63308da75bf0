"""What sources of scenes share: one row of task "scene" for each scene, with its usable views and its boxes.

Such rows hold no question; task makers draw questions from them.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..record_errors import RecordError
from ..source_builder import SceneSourceBuilder
from ..stored_frames import pick_evenly


class SceneSource(SceneSourceBuilder):
    """Base of the sources whose records are scenes.

    A broken frame is a bad record of its own: strict reading raises, lenient reading lists it and keeps the scene.
    Frames without a pose are left out and counted in both modes, before `max_views` are chosen.
    """

    TASKS = ("scene",)

    def good_frames(self, frames, read, file: Path, record_id: str) -> list:
        """What `read(frame)` returns for each frame, without those that are broken (lenient reading) or give None."""
        good = []
        for frame in frames:
            try:
                result = read(frame)
            except RecordError as error:
                self._refuse(error, file, record_id)
                continue
            if result is not None:
                good.append(result)
        return good

    def read_views(self, frames, read_pose: Callable, read_view: Callable, file: Path, record_id: str) -> list[dict]:
        """The views of a scene: poses first, then at most `max_views` of the frames that have one.

        Args:
            frames (list): frames of the source's own kind, in order.
            read_pose (`Callable`): takes a frame, returns (frame, pose), or None after marking why it has no pose.
            read_view (`Callable`): takes (frame, pose), returns fields of a view.
            file (`Path`), record_id (`str`): file and record that errors name.
        Raises:
            RecordError: for a broken frame (strict reading), or if no frame is usable.
        """
        posed = self.good_frames(frames, read_pose, file, record_id)
        if not posed:
            reason = f"none of {len(frames)} frames is usable: tracking was lost, or they cannot be read."
            raise RecordError(reason, "views", file=str(file))
        views = self.good_frames(pick_evenly(posed, self.config.max_views), read_view, file, record_id)
        if not views:
            raise RecordError("no frame can be read.", "views", file=str(file))
        return views

    def scene_row(
        self,
        scene_id: str,
        views: list[dict],
        boxes: list[dict],
        world_to_aligned: np.ndarray,
        metadata: dict,
        **fields,
    ) -> dict:
        """The fields of a row. Poses are in the scan frame."""
        row = {"id": scene_id, "task": "scene", "scene_id": scene_id, "views": views, "boxes": boxes}
        return {**row, "pose_frame": "scan", "world_to_aligned": world_to_aligned, "metadata": metadata, **fields}
