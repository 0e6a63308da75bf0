"""`RenderedRooms`: rooms as a source whose scenes are rendered when they are asked for; nothing is stored."""

from dataclasses import dataclass, replace

import numpy as np

from ...argument_checks import check_counts
from ..augmentation import jitter_colors
from ..scene_sample import SceneSample
from .layout import room_seed
from .renderer import RoomScene, render_room
from .room_scenes import room_sample
from .variety import RoomVariety


@dataclass
class RenderedRooms:
    """Rooms of a split as scenes, a sequence of `SceneSample`s of the task "scene"; each is always the same.

    Frame: boxes and poses in an aligned world, +z up; cameras OpenCV. Units: metres.

    Args:
        split (`str`, defaults to "train"): "train", "selection" or "test"; their rooms never meet.
        num_rooms (`int`, defaults to 1024): length.
        variety (`RoomVariety` or `dict`, *optional*): sizes, numbers of views, colours; None gives the renderer's
            defaults.
        block_size (`int`, defaults to 4): rooms that share size and number of views, so that batches of it waste
            nothing.
        seed (`int`, defaults to 0): seed of the variety.
        use_colors (`bool`, defaults to True): whether pictures have colours, see `render_room`.
    Raises:
        ValueError: if the split is unknown or has fewer rooms, or `num_rooms` is below 1.

    Example:
        ```python
        >>> from gap_mllm.processing.data import load_multiview, make_tasks
        >>> rooms = load_multiview("rendered_rooms", split="train", num_rooms=2)
        >>> len(rooms), rooms[0].task, make_tasks(rooms[0], ("reconstruction",))[0].task
        (2, 'scene', 'reconstruction')

        ```
    """

    split: str = "train"
    num_rooms: int = 1024
    variety: RoomVariety | None = None
    block_size: int = 4
    seed: int = 0
    use_colors: bool = True

    def __post_init__(self):
        if isinstance(self.variety, dict):
            self.variety = RoomVariety(**self.variety)
        check_counts(num_rooms=self.num_rooms)
        room_seed(self.split, self.num_rooms - 1)  # names a range that is too long

    def __len__(self) -> int:
        return self.num_rooms

    def __getitem__(self, index: int) -> SceneSample:
        if not 0 <= index < self.num_rooms:
            raise IndexError(f"room {index} of {self.num_rooms}")
        return self.draw(index)[0]

    def stand_in(self, index: int, attempt: int) -> SceneSample:
        """Another room of the split, of the same size and number of views, for one that nothing can be asked about.

        Args:
            index (`int`): number of the room.
            attempt (`int`): 1, 2, .. give different ones; 0 is the room itself.
        Returns:
            `SceneSample`.
        """
        return self.draw(index, attempt)[0]

    def shape_of(self, index: int) -> tuple[int, int, int]:
        """Height, width and number of views of a room that varies."""
        return self.variety.draw_shape(np.random.default_rng([self.seed, 0, index // self.block_size]))

    def draw(self, index: int, attempt: int = 0) -> tuple[SceneSample, np.random.Generator]:
        """A room or one that stands in for it, and a generator for what follows."""
        scene, rng = self.render(index, attempt)
        first = room_seed(self.split, 0)
        return room_sample(scene, self.split, f"room-{self.split}-{scene.seed - first}"), rng

    def render(self, index: int, attempt: int = 0) -> tuple[RoomScene, np.random.Generator]:
        """A room as it was rendered, varied by the block and the index alone, and a generator for what follows."""
        rng = _generator(self.seed, 1, index, attempt=attempt)
        number, variety = room_seed(self.split, index, attempt), self.variety
        if variety is None:
            return render_room(number, use_colors=self.use_colors), rng
        height, width, num_views = self.shape_of(index)
        style = variety.draw_style(rng, index / self.num_rooms)
        scene = render_room(number, max(4, num_views), height, width, self.use_colors, style)
        views = rng.permutation(len(scene.images)) if variety.shuffle_views else np.arange(len(scene.images))
        scene = scene.reorder_views([int(view) for view in views[:num_views]])
        images = jitter_colors(scene.images, rng, strength=variety.color_strength * rng.random())
        return replace(scene, images=images), rng


def _generator(*numbers: int, attempt: int = 0) -> np.random.Generator:
    """A generator of its own for whatever stands in for a room."""
    return np.random.default_rng([*numbers, attempt] if attempt else list(numbers))
