"""What the examples by use share: their flags, and the scene that they ask about.

Without `--photos` the scene is a rendered room, whose truth is known and told beside every answer. Frame: camera of
the first view, OpenCV axes (+x right, +y down, +z forward), in metres, unless a name says otherwise.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gap_mllm.processing.camera_geometry_gap_mllm import transform_points


TINY_MODEL = Path(__file__).parent / "assets" / "tiny_gap_mllm"


@dataclass
class ExampleScene:
    """A scene to ask.

    Args:
        session (`SceneSession`): session about its views.
        room (`RoomScene`, *optional*): the room that was rendered; None for photos, whose truth is not known.
        up (`numpy.ndarray` of shape `(3,)`): unit vector against gravity.
        output (`Path`): folder for results.
    """

    session: object
    room: object
    up: np.ndarray
    output: Path

    @property
    def level(self) -> np.ndarray:
        """Rows are the directions right, ahead and up of a level frame at the first camera, `(3, 3)`."""
        ahead = np.array([0.0, 0.0, 1.0])
        ahead = ahead - self.up * (ahead @ self.up)
        ahead /= np.linalg.norm(ahead)
        return np.stack([np.cross(ahead, self.up), ahead, self.up])

    def true_boxes(self) -> tuple[list[str], np.ndarray]:
        """Labels and boxes `(N, 9)` of a rendered room."""
        return list(self.room.labels), self.room.boxes_in_first_view()

    def walls(self) -> np.ndarray:
        """Corners `(4, 2)` of a rendered room from above: metres right and ahead of the first camera."""
        width, depth, _ = self.room.room_size
        corners = np.array([[0.0, 0, 0], [width, 0, 0], [width, depth, 0], [0, depth, 0]])
        return (transform_points(np.linalg.inv(self.room.camera_to_world[0]), corners) @ self.level.T)[:, :2]

    def true_point(self, view: int, x: int, y: int) -> np.ndarray | None:
        """The point that a pixel of a rendered room sees; None for photos."""
        return None if self.room is None else self.room.points_in_first_view()[view, y, x].astype(float)

    def save_json(self, name: str, told: dict) -> Path:
        """Write a result into the output folder."""
        path = self.output / name
        path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        return path


def make_parser(description: str, name: str) -> argparse.ArgumentParser:
    """A parser with the flags of all examples.

    Args:
        description (`str`): docstring of the example.
        name (`str`): its folder in outputs.
    Returns:
        `argparse.ArgumentParser`.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--model", default=str(TINY_MODEL), help="folder, or repository of the Hub")
    parser.add_argument("--photos", nargs="+", help="pictures of one place, a folder of them, or a video")
    parser.add_argument("--room", type=int, default=0, help="number of the rendered test room, without --photos")
    parser.add_argument("--views", type=int, default=4, help="views of the room")
    parser.add_argument(
        "--up", type=float, nargs=3, default=(0.0, -1.0, 0.0), metavar=("X", "Y", "Z"),
        help="direction against gravity in the camera of the first photo; by default it was held level",
    )  # fmt: skip
    parser.add_argument("--output", default=f"outputs/{name}", help="folder for results")
    return parser


def open_scene(parser: argparse.ArgumentParser, args: argparse.Namespace, pictures=None, camera=None) -> ExampleScene:
    """Open what the flags name, or pictures in place of a room; a flag that cannot be followed ends the program.

    `camera` are the intrinsics `(3, 3)` of all views, where they are known.
    """
    from transformers import AutoModel, AutoProcessor
    from transformers.utils import logging

    from gap_mllm import SceneSession
    from gap_mllm.processing.data import render_room, room_seed

    logging.disable_progress_bar()
    if not np.linalg.norm(args.up) > 0 or not np.isfinite(args.up).all():
        parser.error(f"--up is {args.up}; expected a direction")
    try:
        room = None if args.photos or pictures is not None else render_room(room_seed("test", args.room), args.views)
        views = room.images if room else pictures
        if args.photos:
            views = args.photos[0] if len(args.photos) == 1 else [Path(photo) for photo in args.photos]
        model = AutoModel.from_pretrained(args.model, trust_remote_code=True).eval()
        processor = AutoProcessor.from_pretrained(args.model, trust_remote_code=True)
        session = SceneSession(model, processor, views, camera)
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))
    up = np.array(args.up, float) if room is None else room.camera_to_world[0, 2, :3]  # rooms have +z up
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    return ExampleScene(session, room, up / np.linalg.norm(up), output)


def read_mark(parser: argparse.ArgumentParser, text: str | None, scene: ExampleScene) -> tuple[int, int, int]:
    """A mark "VIEW,X,Y"; by default in the middle of the largest piece of furniture of view 0, or of the photo."""
    sizes = scene.session.views.sizes
    if text is None:
        if scene.room is None:
            return 0, sizes[0][0] // 2, sizes[0][1] // 2
        ids = scene.room.instance_ids[0]
        largest = np.bincount(np.maximum(ids, 0).ravel())[1:].argmax() + 1 if (ids > 0).any() else ids.max()
        rows, columns = np.nonzero(ids == largest)
        nearest = np.hypot(rows - np.median(rows), columns - np.median(columns)).argmin()
        return 0, int(columns[nearest]), int(rows[nearest])
    try:
        view, x, y = (int(part) for part in text.split(","))
        is_inside = 0 <= view < len(sizes) and 0 <= x < sizes[view][0] and 0 <= y < sizes[view][1]
    except ValueError:
        parser.error(f"--at is {text!r}; expected VIEW,X,Y as 0,64,80")
    if not is_inside:
        parser.error(f"--at is {text}; expected a view from 0 to {len(sizes) - 1} and a pixel inside of it")
    return view, x, y
