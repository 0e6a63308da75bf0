"""Scenes as GLB, for any glTF viewer, Blender or `gr.Model3D`; needs trimesh (the extra "view").

glTF is right-handed with +y up and looks along -z, so that of a point in OpenCV axes y and z change their sign. Boxes
are translucent, their edges and the cameras are bars, since lines are one pixel thin in most viewers. glTF has no
text: nodes are called by kind and label.
"""

from pathlib import Path

import numpy as np

from ..data.box_projection import BOX_EDGES
from .scene_values import COLORS, Scene3D, frustum_corners, has_camera


TO_GLTF = np.array([1.0, -1.0, -1.0])  # OpenCV to glTF, and back
BAR_SHARE, CAMERA_SHARE, MARK_SHARE = 0.003, 0.08, 0.02  # of the radius of the scene
FACE_ALPHA = 50
_BOX_SIDES = ((0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (2, 3, 7, 6), (1, 2, 6, 5), (0, 4, 7, 3))  # seen from outside
_BOX_FACES = [face for a, b, c, d in _BOX_SIDES for face in ((a, b, c), (a, c, d))]


def write_glb(scene: Scene3D, path: str | Path) -> Path:
    """Write points, cameras, boxes and marks as binary glTF.

    Frame: camera of the reference view in glTF's axes, +x right, +y up, -z forward: (x, -y, -z). Units: metres.

    Args:
        scene (`Scene3D`): scene; all of its points are written, see `Scene3D.sample_points`.
        path (`str` or `Path`): file to write.
    Returns:
        `Path`: the file.
    Raises:
        ImportError: without trimesh. ValueError: if there is nothing to write.

    Example:
        ```python
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.scene_3d import scene_from_sample, write_glb
        >>> scene = scene_from_sample(render_room(0).as_sample())
        >>> write_glb(scene.sample_points(1000), "room.glb").name
        'room.glb'

        ```
    """
    try:
        import trimesh
    except ImportError as error:
        raise ImportError("GLB needs trimesh, which is not installed: pip install gap-mllm[view]") from error
    glb, names = trimesh.Scene(), set()
    _, radius = scene.reach()

    def add(geometry, name):
        number = 2
        while name in names:
            name, number = f"{name.rpartition(' #')[0] or name} #{number}", number + 1
        names.add(name)
        glb.add_geometry(geometry, node_name=name, geom_name=name)

    def bars(segments, color, thickness):
        parts = [
            trimesh.creation.cylinder(thickness, segment=np.asarray(ends) * TO_GLTF, sections=6)
            for ends in segments
            if np.linalg.norm(np.subtract(*ends)) > 1e-9
        ]
        mesh = trimesh.util.concatenate(parts)
        mesh.visual = trimesh.visual.TextureVisuals(material=_material(trimesh, color))
        return mesh

    for index, view in enumerate(scene.views):
        if len(view.points):
            add(trimesh.PointCloud(view.points * TO_GLTF, _with_alpha(view.colors)), f"points of view {index}")
        if has_camera(view):
            corners, center = frustum_corners(view, CAMERA_SHARE * radius), view.camera_to_reference[:3, 3]
            segments = [(center, corner) for corner in corners]
            segments += list(zip(corners, np.roll(corners, -1, 0), strict=True))
            add(bars(segments, COLORS["camera"], BAR_SHARE * radius / 2), f"camera of view {index}")
    for box in scene.boxes:
        name, corners = f"{box.kind} {box.label or 'object'}", box.corners
        faces = trimesh.Trimesh(corners * TO_GLTF, _BOX_FACES, process=False)
        faces.visual = trimesh.visual.TextureVisuals(material=_material(trimesh, COLORS[box.kind], FACE_ALPHA))
        add(faces, name)
        segments = [(corners[first], corners[second]) for first, second, _ in BOX_EDGES]
        add(bars(segments, COLORS[box.kind], BAR_SHARE * radius), f"edges of {name}")
    for mark in scene.marks:
        ball = trimesh.creation.icosphere(2, MARK_SHARE * radius)
        ball.apply_translation(np.array(mark.point) * TO_GLTF)
        ball.visual = trimesh.visual.TextureVisuals(material=_material(trimesh, COLORS[mark.kind]))
        add(ball, f"{mark.kind} point {mark.label or 'object'}")
    if not names:
        raise ValueError("the scene holds neither points nor cameras, boxes or marks; there is nothing to write.")
    path = Path(path)
    path.write_bytes(glb.export(file_type="glb"))
    return path


def _with_alpha(colors):
    return np.concatenate([colors, np.full((len(colors), 1), 255, np.uint8)], 1)


def _material(trimesh, color, alpha=255):
    """A material that is as bright in the shade."""
    return trimesh.visual.material.PBRMaterial(
        baseColorFactor=[*color, alpha],
        emissiveFactor=[value / 255 * (0.6 if alpha == 255 else 0.2) for value in color],
        alphaMode="OPAQUE" if alpha == 255 else "BLEND",
        doubleSided=True,
        metallicFactor=0.0,
        roughnessFactor=1.0,
    )
