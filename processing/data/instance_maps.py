"""Which object each pixel of a picture shows, where a source knows it exactly, as rendered rooms do."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class InstanceMap:
    """Objects by pixel, walls and floors among them. It spans the picture, whatever its own size.

    Whoever has only approximate masks leaves a view without: then boxes and depth say what is seen, with margins.

    Args:
        ids (`np.ndarray` of shape `(H, W)`, integers): what each pixel shows; a box of the sample is the object whose
            id is its `instance_id`, written out.
        labels (`dict[int, str]`): the label of every id.
    """

    ids: np.ndarray
    labels: dict[int, str]

    def places(self, pixels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the map, `(...)` each, of pixels `(..., 2)` of a picture of this width and height."""
        found = []
        for axis, side in enumerate(self.ids.shape[::-1]):
            place = np.floor((np.asarray(pixels)[..., axis] + 0.5) * (side / size[axis])).astype(np.int64)
            found.append(np.clip(place, 0, side - 1))
        return found[1], found[0]

    def ids_at(self, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The ids at pixels `(..., 2)` of a picture of this width and height, `(...)`."""
        return self.ids[self.places(pixels, size)]

    def label_of(self, instance: int) -> str:
        """The label of an id; KeyError for one that has none."""
        return self.labels[int(instance)]

    def inner(self) -> np.ndarray:
        """Where the four neighbours show the same thing, so that a mark is not ambiguous: `(H, W)` bool."""
        ids, inner = self.ids, np.zeros(self.ids.shape, dtype=bool)
        middle = ids[1:-1, 1:-1]
        is_same = (middle == ids[:-2, 1:-1]) & (middle == ids[2:, 1:-1])
        inner[1:-1, 1:-1] = is_same & (middle == ids[1:-1, :-2]) & (middle == ids[1:-1, 2:])
        return inner

    def mirrored(self) -> "InstanceMap":
        """The map of the mirrored picture."""
        return replace(self, ids=np.ascontiguousarray(self.ids[:, ::-1]))

    def cropped(self, window: tuple[int, int, int, int], size: tuple[int, int]) -> "InstanceMap":
        """The map of a window (left, top, width, height) of a picture of this width and height."""
        left, top, width, height = window
        pixels = np.stack(np.meshgrid(np.arange(left, left + width), np.arange(top, top + height)), -1)
        return replace(self, ids=self.ids_at(pixels, size))
