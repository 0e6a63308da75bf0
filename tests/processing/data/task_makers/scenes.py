"""Scenes with known truth for the task makers: rendered rooms with all their boxes, and boxes that a test places."""

from dataclasses import replace

import numpy as np
from PIL import Image

from gap_mllm.processing.data.rooms.room_scenes import scene_views
from gap_mllm.processing.data.scene_sample import Box, SceneSample, View


def scene_of_room(room) -> SceneSample:
    """A row of task "scene" with every piece of furniture; instance ids are those of the room's maps."""
    row = {"id": f"room-{room.seed}", "source": "rooms", "split": "train", "task": "scene", "views": scene_views(room)}
    row |= {"scene_id": f"room_{room.seed}", "world_to_aligned": np.eye(4), "pose_frame": "aligned"}
    boxes = [
        Box(numbers, room.euler_order, "aligned", None, label, str(index + 1), "target")
        for index, (numbers, label) in enumerate(zip(room.boxes, room.labels, strict=True))
    ]
    return replace(SceneSample.from_row(row), boxes=tuple(boxes))


def look_at(eye, target) -> np.ndarray:
    """Camera to world of an OpenCV camera without roll; the world has +z up."""
    forward = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    pose[:3, 3] = eye
    return pose


def pinhole(width, height, focal) -> np.ndarray:
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])


def cast(pose, intrinsics, size, boxes, room=((-6.0, -6.0, 0.0), (6.0, 6.0, 3.0))):
    """Z-depth and the number of the box (-1: floor, wall, ceiling) that each pixel sees; boxes are turned about z."""
    width, height = size
    v, u = np.mgrid[:height, :width].astype(np.float64)
    rays = np.stack(
        [(u - intrinsics[0, 2]) / intrinsics[0, 0], (v - intrinsics[1, 2]) / intrinsics[1, 1], u * 0 + 1], -1
    )
    rays, eye = rays @ pose[:3, :3].T, pose[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        walls = np.where(rays > 0, (np.array(room[1]) - eye) / rays, (np.array(room[0]) - eye) / rays)
        depth, ids = np.nanmin(np.where(rays == 0, np.nan, walls), -1), np.full((height, width), -1)
        for number, box in enumerate(boxes):
            c, s = np.cos(box[6]), np.sin(box[6])
            turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])
            start, way = turn @ (eye - box[:3]), rays @ turn.T
            first, second = (-np.array(box[3:6]) / 2 - start) / way, (np.array(box[3:6]) / 2 - start) / way
            near, far = np.fmin(first, second).max(-1), np.fmax(first, second).min(-1)
            hit = (near <= far) & (near > 0) & (near < depth)
            depth, ids = np.where(hit, near, depth), np.where(hit, number, ids)
    return depth, ids


def box_scene(boxes, poses, size=(96, 72), focal=80.0, depth_size=None, aligned=True, depths=None):
    """A row of task "scene" of boxes {label: 7 numbers or a list of such} in a room; and its id maps.

    Args:
        boxes (`dict`): x, y, z, sizes, yaw in a world with +z up; labels may end in "#2" for a second one.
        poses (list of `(4, 4)`): camera to world.
        depth_size (`tuple[int, int]`, *optional*): of depth maps that differ from the pictures.
        aligned (`bool`): whether the world is known to be aligned with gravity.
        depths (`dict[int, np.ndarray]`, *optional*): in millimetres, instead of the rendered maps; None for none.
    """
    numbers = [np.array(box, np.float64) for box in boxes.values()]
    intrinsics = pinhole(*size, focal)
    views, maps = [], []
    for index, pose in enumerate(poses):
        colour, ids = cast(pose, intrinsics, size, numbers)
        depth, depth_intrinsics = colour, intrinsics
        if depth_size is not None:
            depth_intrinsics = pinhole(*depth_size, focal * depth_size[0] / size[0])
            depth, _ = cast(pose, depth_intrinsics, depth_size, numbers)
        millimetres = np.round(1000 * depth).astype(np.uint16)
        if depths and index in depths:
            millimetres = depths[index]
        has_depth = millimetres is not None
        picture = Image.fromarray((60 + 25 * (ids % 8 + 1)).astype(np.uint8)).convert("RGB")
        views.append(
            View(
                picture=picture,
                depth_picture=millimetres,
                depth_scale=1000.0 if has_depth else None,
                intrinsics=intrinsics,
                depth_intrinsics=depth_intrinsics if has_depth else None,
                camera_to_world=pose,
            )
        )
        maps.append(ids)
    world = "aligned" if aligned else "scan"
    stored = tuple(
        Box(np.r_[box, 0, 0], "zxy", world, None, label.split("#")[0], str(number), "target")
        for number, (label, box) in enumerate(zip(boxes, numbers, strict=True))
    )
    sample = SceneSample(id="boxes", source="test", split="train", task="scene", scene_id="boxes", views=tuple(views))
    return replace(sample, boxes=stored, pose_frame=world), np.stack(maps)


def of_type(rooms, made, *question_types):
    """(room, question) of these types."""
    return [
        (room, row)
        for room, rows in zip(rooms, made, strict=True)
        for row in rows
        if row.question_type in question_types
    ]


def piece_of(box) -> int:
    """Index of a room's piece of furniture that a box of a row is."""
    return int(box.instance_id) - 1


def true_shares(room) -> np.ndarray:
    """Share of each view's pixels that shows each piece, (pieces, views)."""
    return np.stack([(room.instance_ids == piece + 1).mean((1, 2)) for piece in range(len(room.labels))])


def true_choice(row) -> str:
    """The text of the option that is marked as true, which its letter names."""
    assert row.answer == "ABCDEFGH"[row.choice_index] and row.choices[row.choice_index].startswith(f"{row.answer}. ")
    return row.choices[row.choice_index][3:]


def cloud(room, piece) -> np.ndarray:
    """All points that any view shows of a piece of furniture, in the camera of view 0."""
    return room.points_in_first_view()[room.instance_ids == piece + 1].astype(np.float64)
