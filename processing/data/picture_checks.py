"""Decoding the pictures of rows to find those that cannot be: reading a source looks at their headers only."""

import os

from .record_errors import RecordError
from .scene_sample import View


class PictureChecks:
    """Decodes every picture once, however many rows name it.

    Example:
        ```python
        >>> from gap_mllm.processing.data import complete_row
        >>> from gap_mllm.processing.data.picture_checks import PictureChecks
        >>> view = {"image": {"path": "lost.jpg", "bytes": None}, "image_path": "lost.jpg"}
        >>> checks = PictureChecks()
        >>> [error.reason for error in checks.errors(complete_row(id="1", views=[view]))]
        ['the image lost.jpg is not there.']

        ```
    """

    def __init__(self):
        self.num_pictures = self.num_depth_maps = 0
        self.num_empty_depth_maps = 0  # no reading anywhere: a normal marker
        self._reasons = {}

    def errors(self, row: dict) -> list[RecordError]:
        """Decode what the views of a row hold.

        Args:
            row (`dict`): row of the schema, with pictures as they are stored, {"path", "bytes"}.
        Returns:
            `list[RecordError]`: one for each view's picture or depth map that is missing or cannot be decoded.
        """
        found = []
        for index, view in enumerate(row["views"]):
            for name in ("image", "depth"):
                reason, missing = self._look_at(view, name)
                if reason is not None:
                    field = f"views[{index}].{name}"
                    found.append(RecordError(reason, field, row["source"], record_id=row["id"], missing=missing))
        return found

    def _look_at(self, view, name):
        """(what is wrong or None, path of a missing file or None)."""
        picture = view[name]
        if picture is None:
            return None, None
        key = (name, picture["path"]) if picture["bytes"] is None else None
        if key is None or key not in self._reasons:
            result = self._decode(picture, view, name)
            if key is None:
                return result
            self._reasons[key] = result
        return self._reasons[key]

    def _decode(self, picture, view, name):
        if picture["bytes"] is None and not os.path.exists(picture["path"]):
            return f"the {name} {picture['path']} is not there.", picture["path"]
        try:
            if name == "image":
                self.num_pictures += 1
                _ = View(picture, image_path=view["image_path"]).image
            else:
                self.num_depth_maps += 1
                depth = View(depth_picture=picture, depth_scale=view["depth_scale"], image_path=view["image_path"])
                self.num_empty_depth_maps += not depth.depth_m.any()
        except RecordError as error:
            return error.reason, None
        return None, None
