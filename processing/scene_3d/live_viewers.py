"""Scenes in rerun (a recording) and viser (a server that browsers open); extras "rerun" and "viser".

Both take points and poses as they are: OpenCV axes, metres, camera of the reference view.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ..data.box_projection import BOX_EDGES
from .scene_values import COLORS, Scene3D, has_camera


def write_rerun(scene: Scene3D, path: str | Path) -> Path:
    """Write a recording (`.rrd`) that `rerun FILE` opens: points, pictures in their cameras, boxes, marked points.

    Frame: camera of the reference view, OpenCV axes. Units: metres.

    Args:
        scene (`Scene3D`): scene; all of its points are written.
        path (`str` or `Path`): file to write.
    Returns:
        `Path`: the file.
    Raises:
        ImportError: without rerun-sdk.

    Example:
        ```python
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.scene_3d import scene_from_sample, write_rerun
        >>> file = write_rerun(scene_from_sample(render_room(0).as_sample()), "scene.rrd")  # doctest: +SKIP

        ```
    """
    try:
        import rerun  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("recordings need rerun-sdk, which is not installed: pip install gap-mllm[rerun]") from error
    recording = rerun.RecordingStream("gap_mllm")
    recording.save(str(path))
    recording.log("scene", rerun.ViewCoordinates.RDF, static=True)
    for index, view in enumerate(scene.views):
        recording.log(f"scene/points/{index}", rerun.Points3D(view.points, colors=view.colors), static=True)
        if not has_camera(view):
            continue
        pose, name = view.camera_to_reference, f"scene/cameras/{index}"
        turned = rerun.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3])
        recording.log(name, turned, static=True)
        lens = rerun.Pinhole(image_from_camera=view.intrinsics, resolution=view.picture.size)
        recording.log(f"{name}/picture", lens, static=True)
        recording.log(f"{name}/picture", rerun.Image(np.asarray(view.picture.convert("RGB"))), static=True)
    for number, box in enumerate(scene.boxes):
        segments = box.corners[np.array([edge[:2] for edge in BOX_EDGES])]
        lines = rerun.LineStrips3D(segments, colors=[COLORS[box.kind]] * len(segments))
        recording.log(f"scene/{box.kind}/{number}", lines, static=True)
        name = rerun.Points3D([box.numbers[:3]], labels=[box.label or "object"], colors=[COLORS[box.kind]])
        recording.log(f"scene/{box.kind}/{number}/label", name, static=True)
    for number, mark in enumerate(scene.marks):
        point = rerun.Points3D([mark.point], labels=[mark.label or "object"], colors=[COLORS[mark.kind]], radii=0.05)
        recording.log(f"scene/{mark.kind}/points/{number}", point, static=True)
    recording.disconnect()
    return Path(path)


def serve_viser(scene: Scene3D, port: int = 8080) -> Any:
    """Start a server that shows the scene in browsers, and return it; `server.stop()` ends it.

    Frame: camera of the reference view, OpenCV axes. Units: metres.

    Args:
        scene (`Scene3D`): scene; all of its points are shown.
        port (`int`, defaults to 8080): port to listen on.
    Returns:
        `viser.ViserServer`.
    Raises:
        ImportError: without viser.

    Example:
        ```python
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.scene_3d import scene_from_sample, serve_viser
        >>> server = serve_viser(scene_from_sample(render_room(0).as_sample()))  # doctest: +SKIP
        >>> server.stop()  # doctest: +SKIP

        ```
    """
    try:
        import viser  # pyright: ignore[reportMissingImports]
        from viser.transforms import SO3  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("the server needs viser, which is not installed: pip install gap-mllm[viser]") from error
    middle, radius = scene.reach()
    server = viser.ViserServer(port=port)
    server.scene.set_up_direction(tuple(scene.up))

    @server.on_client_connect
    def look(client):  # from behind and above the first camera
        client.camera.position = np.array(scene.up) * radius - np.array([0, 0, 1.5 * radius])
        client.camera.look_at = middle

    for index, view in enumerate(scene.views):
        if len(view.points):
            server.scene.add_point_cloud(f"/points/{index}", view.points, view.colors, point_size=0.004 * radius)
        if has_camera(view):
            pose, (width, height) = view.camera_to_reference, view.picture.size
            server.scene.add_camera_frustum(
                f"/cameras/{index}",
                fov=float(2 * np.arctan(height / 2 / view.intrinsics[1, 1])),
                aspect=width / height,
                scale=0.1 * radius,
                image=np.asarray(view.picture.convert("RGB")),
                wxyz=SO3.from_matrix(pose[:3, :3]).wxyz,
                position=pose[:3, 3],
            )
    for number, box in enumerate(scene.boxes):
        segments = box.corners[np.array([edge[:2] for edge in BOX_EDGES])].astype(np.float32)
        name = f"/{box.kind}/{number}"
        server.scene.add_line_segments(name, segments, np.array(COLORS[box.kind], np.uint8), line_width=3.0)
        server.scene.add_label(f"{name}/label", box.label or "object", position=box.numbers[:3])
    for number, mark in enumerate(scene.marks):
        name = f"/{mark.kind}/points/{number}"
        server.scene.add_icosphere(name, 0.02 * radius, COLORS[mark.kind], position=mark.point)
        server.scene.add_label(f"{name}/label", mark.label or "object", position=mark.point)
    return server
