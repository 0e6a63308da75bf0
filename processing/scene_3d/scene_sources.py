"""Scenes for the 3D view: of samples with depth, of point maps that a model or encoder tells, and of answers."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..camera_geometry_gap_mllm import (
    euler_to_matrix,
    matrix_to_euler,
    transform_box,
    transform_points,
    unproject_depth,
)
from ..data.scene_sample import WORLD_FRAMES, SceneSample
from ..scene_results_gap_mllm import SceneCameras, ScenePointMaps, known_cameras
from ..scene_session_gap_mllm import SceneSession
from ..scene_views_gap_mllm import SceneViews
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


def scene_from_session(session: SceneSession, title: str = "scene", cameras: SceneCameras | None = None) -> Scene3D:
    """Return the views of a session with the points and cameras that are given or told, as far as there are any.

    Frame: camera of the first view, OpenCV axes. Units: metres; of points of a model that was not trained on metres,
    its own.

    Args:
        session (`SceneSession`): open session; `session.points()` and `session.cameras()` are asked.
        title (`str`, defaults to "scene"): heading.
        cameras (`SceneCameras`, *optional*): cameras to show instead.
    Returns:
        `Scene3D`: without points where nothing tells them.
    Raises:
        ValueError: if the session is closed, and something tells points.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration, SceneSession
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.scene_3d import scene_from_session
        >>> model = GapMllmForConditionalGeneration.from_pretrained(folder).eval()
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> with SceneSession(model, processor, list(render_room(0).images)) as asked:
        ...     scene = scene_from_session(asked)
        >>> len(scene.views)
        4

        ```
    """
    maps = None if session.points_from is None else session.points()
    if cameras is None:
        try:
            cameras = session.cameras()
        except ValueError:  # nothing tells all of them
            cameras = known_cameras(session.views)
    return scene_from_points(session.views, maps, cameras, title)


def scene_from_points(
    views: SceneViews, maps: ScenePointMaps | None, cameras: SceneCameras, title: str = "scene"
) -> Scene3D:
    """Return what a model or encoder tells of views as a scene.

    Frame: camera of the first view, OpenCV axes. Units: metres; of a model that was not trained on metres, its own.

    Args:
        views (`SceneViews`): views.
        maps (`ScenePointMaps`, *optional*): point maps of these views; without them, only cameras.
        cameras (`SceneCameras`): cameras of these views, as far as they are known.
        title (`str`, defaults to "scene"): heading.
    Returns:
        `Scene3D`.

    Example:
        ```python
        >>> import numpy as np
        >>> from PIL import Image
        >>> from gap_mllm.processing.scene_3d import scene_from_points
        >>> from gap_mllm.processing.scene_results_gap_mllm import SceneCameras, ScenePointMaps
        >>> from gap_mllm.processing.scene_views_gap_mllm import open_views
        >>> views = open_views([Image.new("RGB", (4, 3))])
        >>> maps = ScenePointMaps((np.ones((3, 4, 3)),), None, "an encoder", views)
        >>> scene_from_points(views, maps, SceneCameras((None,), (np.eye(4),), ("given", "given"), (None,))).num_points
        12

        ```
    """
    told = []
    for index, picture in enumerate(views.pictures):
        pose = cameras.view_to_first_view[index]
        pose = np.eye(4) if index == 0 else None if pose is None else _nearest_rigid(np.asarray(pose, np.float64))
        camera = views.picture_intrinsics(index, cameras.intrinsics[index])
        view = View3D(views.names[index], picture, camera, pose)
        if maps is not None:
            sure = None if maps.confidence is None else maps.confidence[index]
            view = _with_points(view, np.asarray(maps.points[index], np.float64), sure)
        told.append(view)
    return Scene3D(tuple(told), title=title)


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
                frame = (
                    "the world" if item.view is None else f"the camera of view {item.view}, whose pose is not known"
                )
                advice = "give it in the camera of a view" if item.view is None else "give --poses FILE (poses)"
                left_out.append(f"{item.label or 'object'} is in {frame}, and is not shown in 3D; {advice}")
            elif hasattr(item, "box"):
                moved = item.box if item.view == 0 else transform_box(np.array(item.box, float), pose, "zxy").tolist()
                boxes.append(Box3D(item.label, tuple(map(float, moved))))
            else:
                place = transform_points(pose, np.array(item.point, float))
                view, pixel = _marked(item, result.views)
                marks.append(Mark3D(item.label, tuple(place.tolist()), "predicted", view, pixel))
    told = tuple((result.question, str(result)) for result in results)
    scene = replace(scene, boxes=tuple(boxes), marks=tuple(marks), answers=(*scene.answers, *told))
    return scene, left_out


def _marked(point, views):
    """The view and pixel that a point answers, in the picture that is shown; None of one that answers none."""
    if not point.mark:
        return None, None
    view, *pixel = point.mark
    return view, tuple(pixel) if views is None else views.picture_pixel(view, pixel)
