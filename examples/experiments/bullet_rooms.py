"""Rooms of another renderer, PyBullet's: its software rasteriser, its shadows, and the things of its data folder.

`python examples/experiments/bullet_rooms.py MODEL` asks a model about marked pixels of such rooms, which
no training of ours draws, beside blind baselines that are fitted on others of them. Needs `pip install pybullet`.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from room_measures.geometry_answers import GEOMETRIES, answer_questions

from gap_mllm.evaluation.baselines import fit_baselines
from gap_mllm.evaluation.marked_pixel import score_marked_pixels
from gap_mllm.evaluation.runner.models import load_model
from gap_mllm.processing.asking_gap_mllm import ANSWER_FORMS, Asker
from gap_mllm.processing.data.rooms.renderer import RoomScene
from gap_mllm.training.marked_pixel_scorer import make_marked_pixel_samples


THINGS = {  # label: file of pybullet_data, scale, turn about x, colour
    "table": ("table/table.urdf", 1.0, 0.0, "brown"),
    "robot": ("r2d2.urdf", 0.8, 0.0, "white"),
    "duck": ("duck_vhacd.urdf", 8.0, np.pi / 2, "yellow"),
    "bear": ("teddy_vhacd.urdf", 8.0, 0.0, "red"),
    "box": ("cube.urdf", 0.6, 0.0, "white"),
    "ball": ("soccerball.urdf", 0.6, 0.0, "white"),
    "tray": ("tray/tray.urdf", 1.2, 0.0, "black"),
    "brick": ("lego/lego.urdf", 12.0, 0.0, "yellow"),
}
NEAR, FAR = 0.05, 20.0
GAP = 0.4  # of cameras to walls
HELD_AT = (0.7, 2.0)  # of cameras above the floor


def render_bullet_room(seed: int, num_views: int = 4, height: int = 240, width: int = 320) -> RoomScene:
    """Render a room with some things on a tiled floor between four walls, seen along a short walk.

    Frame and units: those of `RoomScene`; boxes are aligned with the walls, normals are left 0.

    Args:
        seed (`int`): same seed and arguments, same room.
        num_views (`int`, defaults to 4): views.
        height (`int`, defaults to 240), width (`int`, defaults to 320): image size in pixels.
    Returns:
        `RoomScene`.
    Raises:
        ImportError: without PyBullet.
    """
    rng = np.random.default_rng(seed)
    size = np.array([*rng.uniform(3.5, 5.5, 2), rng.uniform(2.4, 2.8)])
    with _simulation() as bullet:
        kinds = {bullet.loadURDF("plane.urdf"): 0} | _build_walls(bullet, size, rng)
        things = list(_place_things(bullet, size, rng))
        kinds |= {body: place + 1 for place, (body, _, _) in enumerate(things)}
        vertical = rng.uniform(55, 75)
        focal = height / 2 / np.tan(np.radians(vertical) / 2)
        projection = bullet.computeProjectionMatrixFOV(vertical, width / height, NEAR, FAR)
        views, poses = [], []
        for eye, target in _walk(size, [box[:2] for _, _, box in things], num_views, rng):
            looks = bullet.computeViewMatrix(eye, target, [0, 0, 1])
            options = {"shadow": 1, "lightDirection": [1, 0.5, 2.5], "renderer": bullet.ER_TINY_RENDERER}
            views.append(bullet.getCameraImage(width, height, looks, projection, **options)[2:])
            world_to_camera = np.diag([1.0, -1.0, -1.0, 1.0]) @ np.reshape(looks, (4, 4)).T  # OpenGL's looks along -z
            poses.append(np.linalg.inv(world_to_camera))
    colours, depths, bodies = (np.reshape(each, (num_views, height, width, -1)) for each in zip(*views, strict=True))
    known = np.array([kinds[body] for body in range(max(kinds) + 1)], dtype=np.int16)
    intrinsics = np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]])
    return RoomScene(
        seed=seed,
        images=colours[..., :3].astype(np.uint8),
        depth_m=(FAR * NEAR / (FAR - (FAR - NEAR) * depths[..., 0])).astype(np.float32),
        normals=np.zeros((num_views, height, width, 3), np.float32),
        instance_ids=known[bodies[..., 0]],
        intrinsics=np.repeat(intrinsics[None], num_views, axis=0),
        camera_to_world=np.stack(poses),
        boxes=np.array([box for _, _, box in things]),
        labels=[label for _, label, _ in things],
        colors=[THINGS[label][3] for _, label, _ in things],
        room_size=size,
    )


@contextmanager
def _simulation():
    try:
        import pybullet  # pyright: ignore[reportMissingImports]
        import pybullet_data  # pyright: ignore[reportMissingImports]
        from pybullet_utils.bullet_client import BulletClient  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("Rooms of PyBullet need it: pip install pybullet") from error
    bullet = BulletClient(pybullet.DIRECT)
    bullet.setAdditionalSearchPath(pybullet_data.getDataPath())
    try:
        yield bullet
    finally:
        bullet.disconnect()


def _build_walls(bullet, size, rng) -> dict[int, int]:
    """Four walls of one colour and a ceiling: instance ids by body."""
    half, thin, colour = size / 2, 0.05, [*rng.uniform(0.55, 0.95, 3), 1]
    kinds = {}

    def add(extent, middle, paint):
        shape = bullet.createVisualShape(bullet.GEOM_BOX, halfExtents=extent, rgbaColor=paint)
        return bullet.createMultiBody(0, -1, shape, middle)

    for side in (-1, 1):
        kinds[add([half[0], thin, half[2]], [0, side * (half[1] + thin), half[2]], colour)] = -1
        kinds[add([thin, half[1], half[2]], [side * (half[0] + thin), 0, half[2]], colour)] = -1
    kinds[add([half[0], half[1], thin], [0, 0, size[2] + thin], [0.9, 0.9, 0.9, 1])] = -2
    return kinds


def _place_things(bullet, size, rng) -> Iterator[tuple[int, str, list[float]]]:
    """Three to six things that stand on the floor, a metre and more apart: body, label and box."""
    spots = []
    for label in rng.choice(list(THINGS), rng.integers(3, 7)):
        spot = _free_spot(size, spots, 0.6, 1.0, rng)
        if spot is None:
            continue
        spots.append(spot)
        file, scale, turn, _ = THINGS[label]
        orientation = bullet.getQuaternionFromEuler([turn, 0, rng.uniform(-np.pi, np.pi)])
        body = bullet.loadURDF(file, [0, 0, 0], orientation, globalScaling=scale)
        links = range(-1, bullet.getNumJoints(body))
        lowest = min(bullet.getAABB(body, link)[0][2] for link in links)
        lift = 0.0 if label == "table" else -lowest  # its legs are drawn, but no solids
        base, _ = bullet.getBasePositionAndOrientation(body)  # of its mass
        bullet.resetBasePositionAndOrientation(body, np.add(base, [*spot, lift]), orientation)
        corners = np.array([bullet.getAABB(body, link) for link in links])
        low, high = np.array([*corners[:, 0, :2].min(0), 0.0]), corners[:, 1].max(0)
        yield body, str(label), [*(low + high) / 2, *high - low, 0.0, 0.0, 0.0]


def _free_spot(size, spots, margin, apart, rng, tries=50):
    """A place on the floor away from walls and spots, or None where none is found."""
    for _ in range(tries):
        spot = rng.uniform(margin - size[:2] / 2, size[:2] / 2 - margin)
        if all(np.linalg.norm(spot - other) > apart for other in spots):
            return spot
    return None


def _walk(size, spots, num_views, rng) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Eye and target of each view, the first towards the middle: steps below half a metre, turns below 30 degrees."""
    start = _free_spot(size, spots, GAP, 0.8, rng)
    eye = np.array([*(size[:2] / 2 - GAP if start is None else start), rng.uniform(1.2, 1.7)])
    low, high = np.array([*GAP - size[:2] / 2, HELD_AT[0]]), np.array([*size[:2] / 2 - GAP, HELD_AT[1]])
    yaw = np.arctan2(-eye[1], -eye[0]) + rng.uniform(-0.5, 0.5)
    for _ in range(num_views):
        pitch = rng.uniform(-0.35, -0.1)
        ahead = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
        yield eye, eye + ahead
        eye = np.clip(eye + rng.uniform([-0.35, -0.35, -0.1], [0.35, 0.35, 0.1]), low, high)
        yaw += rng.uniform(-0.5, 0.5)


def measure_bullet_rooms(model_folder: str | Path, num_rooms: int = 64, num_baseline_rooms: int = 128) -> dict:
    """Ask a model about four marked pixels of each room, with the right geometry, another room's and none.

    Args:
        model_folder (`str` or `Path`): model with its processor.
        num_rooms (`int`, defaults to 64): rooms that are asked about, seeds from 0.
        num_baseline_rooms (`int`, defaults to 128): other rooms, on which blind baselines are fitted.
    Returns:
        `dict`: for each geometry the figures of `score_marked_pixels`. Labels are those of the things, most of which
        rooms of ours do not have.
    """
    baselines = fit_baselines(render_bullet_room(num_rooms + seed) for seed in range(num_baseline_rooms))
    samples = make_marked_pixel_samples(map(render_bullet_room, range(num_rooms)), questions_per_scene=4)
    asker = Asker(*load_model(model_folder, "cpu"))
    form, found = ANSWER_FORMS["reconstruction"], {}
    for geometry in GEOMETRIES:
        found[geometry], _ = score_marked_pixels(answer_questions(asker, samples, form, geometry), samples, baselines)
    return found


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="folder")
    parser.add_argument("--rooms", type=int, default=64)
    parser.add_argument("--baseline-rooms", type=int, default=128)
    args = parser.parse_args(words)
    print(json.dumps(measure_bullet_rooms(args.model, args.rooms, args.baseline_rooms), indent=2))


if __name__ == "__main__":
    main()
