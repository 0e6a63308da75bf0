"""Scenes for the 3D view: of samples with depth, of point maps that a model or encoder tells, and of answers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from ..camera_geometry_gap_mllm import (
    euler_to_matrix,
    invert_rigid,
    matrix_to_euler,
    scale_intrinsics,
    transform_box,
    transform_points,
    unproject_depth,
)
from ..data.scene_sample import WORLD_FRAMES, SceneSample
from .scene_values import Box3D, Mark3D, Scene3D, View3D


def scene_from_sample(sample: SceneSample, reference_view: int = 0) -> Scene3D:
    """Return what a sample knows: true points of its depth maps, cameras, true boxes and points.

    Frame: camera of the reference view, OpenCV axes. Units: metres.

    Args:
        sample (`SceneSample`): sample of any source, or a rendered room. Views without depth map show no points, those
            without pose only their picture.
        reference_view (`int`, defaults to 0): view whose camera is the frame.
    Returns:
        `Scene3D`.
    Raises:
        ValueError: if there is no such view. RecordError: if a picture, pose or frame is broken or missing.

    Example:
        ```python
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.scene_3d import scene_from_sample
        >>> scene = scene_from_sample(render_room(0).as_sample())
        >>> scene.num_points, scene.boxes[0].kind
        (65536, 'true')

        ```
    """
    if not 0 <= reference_view < len(sample.views):
        raise ValueError(f"reference_view is {reference_view}, but the sample has {len(sample.views)} views.")
    views = tuple(_view_of(sample, index, reference_view) for index in range(len(sample.views)))
    boxes = [(box, sample.box_in_view(box, reference_view)) for box in sample.scene_boxes or sample.boxes]
    marks = tuple(
        Mark3D(point.label, tuple(sample.point_in_view(point, reference_view)), "true", point.view, point.pixel)
        for point in sample.points
        if point.xyz is not None
    )
    return Scene3D(
        views,
        tuple(Box3D(box.label, _as_zxy(numbers, box.euler_order), "true") for box, numbers in boxes),
        marks,
        () if sample.question is None else ((sample.question, sample.answer or ""),),
        sample.id or sample.scene_id or "scene",
        _up(sample, reference_view),
    )


def _view_of(sample, index, reference_view):
    view = sample.views[index]
    name = view.image_path or f"view {index}"
    pose = np.eye(4) if index == reference_view else None
    if pose is None and view.camera_to_world is not None and sample.views[reference_view].camera_to_world is not None:
        pose = sample.frame_to_camera("camera", index, reference_view)
    shown = View3D(name, view.image, view.intrinsics, pose)
    intrinsics = view.intrinsics if view.depth_intrinsics is None else view.depth_intrinsics
    if view.depth_m is None or intrinsics is None or pose is None:
        return shown
    points = unproject_depth(view.depth_m.astype(np.float64), np.asarray(intrinsics))
    return _with_points(shown, transform_points(pose, points), None)


def _with_points(view, points, confidence):
    """The view with a point map `(h, w, 3)` in the frame of the scene; pixels without a point are left out."""
    height, width = points.shape[:2]
    picture = view.picture if view.picture.size == (width, height) else view.picture.resize((width, height))
    confidence = np.ones((height, width)) if confidence is None else confidence
    has_point = np.isfinite(points).all(-1) & np.isfinite(confidence)
    colors = np.asarray(picture.convert("RGB"))[has_point]
    arrays = (points[has_point].astype(np.float32), colors, confidence[has_point].astype(np.float32))
    return replace(view, **dict(zip(("points", "colors", "confidence"), arrays, strict=True)))


def _as_zxy(numbers, order):
    numbers = np.asarray(numbers, np.float64)
    if order != "zxy":
        numbers = np.concatenate([numbers[:6], matrix_to_euler(euler_to_matrix(numbers[6:], order), "zxy")])
    return tuple(numbers.tolist())


def _up(sample, view):
    """The direction up in the camera of a view: +z of the aligned world, which stands level."""
    is_level = sample.pose_frame in WORLD_FRAMES and (
        sample.pose_frame == "aligned" or sample.world_to_aligned is not None
    )
    if not is_level or sample.views[view].camera_to_world is None:
        return Scene3D.up
    return tuple(sample.camera_to("aligned", view)[2, :3].tolist())


def scene_from_points(
    pictures: Sequence[Image.Image],
    points: Any,
    confidence: Any = None,
    intrinsics: Any = None,
    world_to_camera: Any = None,
    names: Sequence[str] | None = None,
    title: str = "scene",
) -> Scene3D:
    """Return point maps of a model or encoder as a scene, as `GapMllmVggtForReconstruction` tells them.

    Frame: world of the points, which is brought to the camera of view 0 where cameras are given. Units: those of the
    model, metres where it was trained on metres.

    Args:
        pictures (list of `PIL.Image.Image`): pictures of the views, of any size.
        points (array or tensor of shape `(V, h, w, 3)`, or list of `(h, w, 3)`): `world_points`.
        confidence (array or tensor of shape `(V, h, w)`, or list, *optional*): `world_points_conf`; 1 by default.
        intrinsics (array or tensor of shape `(V, 3, 3)`, *optional*): intrinsics in pixels of the point maps.
        world_to_camera (array or tensor of shape `(V, 3, 4)` or `(V, 4, 4)`, *optional*): `extrinsics`. Without them
            the points are taken to be in the camera of view 0, and other cameras are not known.
        names (list of `str`, *optional*): names of the views.
        title (`str`, defaults to "scene"): heading.
    Returns:
        `Scene3D`.
    Raises:
        ValueError: if numbers of views differ, there are none, or shapes do not fit.

    Example:
        ```python
        >>> import torch
        >>> from gap_mllm import GapMllmVggtForReconstruction
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.scene_3d import scene_from_points
        >>> encoder, room = GapMllmVggtForReconstruction.from_pretrained(encoder_folder).eval(), render_room(0)
        >>> pixels = torch.tensor(room.images[:2, :112, :112]).permute(0, 3, 1, 2)[None] / 255
        >>> with torch.no_grad():
        ...     told = encoder(pixels)
        >>> pictures = [room.as_sample().views[view].image.crop((0, 0, 112, 112)) for view in range(2)]
        >>> scene = scene_from_points(
        ...     pictures, told.world_points[0], told.world_points_conf[0], told.intrinsics[0], told.extrinsics[0]
        ... )
        >>> scene.num_points
        25088

        ```
    """
    maps = [_array(each) for each in points]
    given = {"confidence": confidence, "intrinsics": intrinsics, "world_to_camera": world_to_camera, "names": names}
    for name, values in {"points": maps, **given}.items():
        if values is not None and len(values) != len(pictures):
            raise ValueError(f"{name} has {len(values)} entries, but there are {len(pictures)} pictures.")
    poses = [np.eye(4), *[None] * (len(pictures) - 1)]
    move = np.eye(4)
    if world_to_camera is not None:
        matrices = np.tile(np.eye(4), (len(pictures), 1, 1))
        matrices[:, :3] = np.stack([_array(each)[:3] for each in world_to_camera])
        move = _nearest_rigid(matrices[0])
        poses = [move @ invert_rigid(_nearest_rigid(matrix)) for matrix in matrices]
        poses[0] = np.eye(4)
    views = []
    for index, (picture, values) in enumerate(zip(pictures, maps, strict=True)):
        if values.ndim != 3 or values.shape[-1] != 3:
            raise ValueError(f"points of view {index} have shape {values.shape}; expected (h, w, 3).")
        camera = None if intrinsics is None else _array(intrinsics[index])
        if camera is not None:
            camera = scale_intrinsics(
                camera, picture.width / values.shape[1], picture.height / values.shape[0]
            )
        view = View3D(f"view {index}" if names is None else names[index], picture, camera, poses[index])
        sure = None if confidence is None else _array(confidence[index])
        views.append(_with_points(view, transform_points(move, values), sure))
    return Scene3D(tuple(views), title=title)


def _array(values):
    values = values.detach().float().cpu().numpy() if hasattr(values, "detach") else values
    return np.asarray(values, np.float64)


def _nearest_rigid(matrix):
    """The rigid transform that rounding, to bfloat16 say, has left."""
    u, _, v = np.linalg.svd(matrix[:3, :3])
    matrix = matrix.copy()
    matrix[:3, :3] = u @ v
    return matrix


def place_results(scene: Scene3D, results: Sequence) -> tuple[Scene3D, list[str]]:
    """Add what a session answered: boxes and points at their places, questions and texts to read.

    A box or point is in the camera of a view; that view's pose brings it to the frame of the scene.
    Frame: camera of the reference view, OpenCV axes. Units: metres, radians.

    Args:
        scene (`Scene3D`): scene of the same views, in the same order.
        results (list of `SceneAnswer`): results of a `SceneSession`: of questions, marks, detection or grounding.
    Returns:
        `tuple[Scene3D, list[str]]`: the scene with them, and a sentence for each that could not be placed.

    Example:
        ```python
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.scene_3d import place_results, scene_from_sample
        >>> from gap_mllm.processing.scene_results_gap_mllm import SceneBox, SceneBoxes
        >>> scene = scene_from_sample(render_room(0).as_sample())
        >>> found = SceneBoxes("detection3d", "..", boxes=(SceneBox("bed", (0, 0, 2, 1, 1, 1, 0, 0, 0)),))
        >>> place_results(scene, [found])[0].boxes[-1].label
        'bed'

        ```
    """
    boxes, marks, left_out = list(scene.boxes), list(scene.marks), []
    for result in results:
        found = [*getattr(result, "boxes", ()), *(point for point in getattr(result, "points", ()) if point)]
        for item in found:
            pose = None if item.view is None else scene.views[item.view].camera_to_reference
            if pose is None:
                frame = "the world" if item.view is None else f"the camera of view {item.view}, whose pose is not known"
                left_out.append(f"{item.label or 'object'} is in {frame}, and is not shown in 3D")
            elif hasattr(item, "box"):
                moved = item.box if item.view == 0 else transform_box(np.array(item.box, float), pose, "zxy").tolist()
                boxes.append(Box3D(item.label, tuple(map(float, moved))))
            else:
                place = transform_points(pose, np.array(item.point, float))
                view, *pixel = item.mark or (None,)
                marks.append(Mark3D(item.label, tuple(place.tolist()), "predicted", view, tuple(pixel) or None))
    told = tuple((result.question, str(result)) for result in results)
    scene = replace(scene, boxes=tuple(boxes), marks=tuple(marks), answers=(*scene.answers, *told))
    return scene, left_out


__all__ = ["place_results", "scene_from_points", "scene_from_sample"]
