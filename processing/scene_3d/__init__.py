# pyright: basic
"""A scene in 3D, points, cameras, boxes and answers, and its forms: GLB, PLY, COLMAP text, HTML, rerun, viser."""

from .colmap_reader import read_colmap
from .glb_writer import write_glb
from .live_viewers import serve_viser, write_rerun
from .point_files import write_colmap, write_ply
from .scene_files import load_scene, save_scene, write_scene
from .scene_sources import place_results, scene_from_points, scene_from_sample, scene_from_session
from .scene_values import Box3D, Mark3D, Scene3D, View3D
from .web_page import write_html


__all__ = [
    "Box3D",
    "Mark3D",
    "Scene3D",
    "View3D",
    "load_scene",
    "place_results",
    "read_colmap",
    "save_scene",
    "scene_from_points",
    "scene_from_sample",
    "scene_from_session",
    "serve_viser",
    "write_colmap",
    "write_glb",
    "write_html",
    "write_ply",
    "write_rerun",
    "write_scene",
]
