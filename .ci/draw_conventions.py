"""The picture of docs/conventions.md: `python .ci/draw_conventions.py docs/conventions.png`."""

import sys
from pathlib import Path

import numpy as np

from gap_mllm.processing.boxes import CONVENTIONS
from gap_mllm.processing.camera_geometry_gap_mllm import box_corners, euler_to_matrix
from gap_mllm.processing.data.box_projection import BOX_EDGES
from gap_mllm.processing.drawing import new_figure


COLORS = {"x": "#c62828", "y": "#2e7d32", "z": "#1565c0"}
BOX = np.array([0.0, 0.0, 0.0, 2.0, 1.0, 0.6, 0.0, 0.0, 0.0])
TURNS = (0.6, 0.45, 0.5)  # yaw, pitch, roll of the last panel, radians


def draw_conventions(path: str | Path) -> None:
    """Draw cameras' axes, a box with its corners, and the order of its three turns.

    Frame: cameras with OpenCV axes; the pictures look along +z from above and behind. Units: metres and radians.

    Args:
        path (`str` or `Path`): file for the picture.
    Raises:
        ImportError: without matplotlib.
    """
    figure = new_figure(12.5, 7.6)
    panels = [figure.add_subplot(2, 3, place + 1, projection="3d") for place in range(6)]
    _camera(panels[0], np.eye(3), "ours, GAP-MLLM, Qwen3-VL, Omni3D, Seed1.5-VL:\n+x right, +y down, +z forward")
    _camera(panels[1], np.array(CONVENTIONS["gemini"].box.axes), "Gemini:\n+x right, +y forward, +z up")
    _box(
        panels[2],
        BOX,
        "sizes lie along the box's own axes;\ncorners in the order of BOX_CORNER_SIGNS",
        with_numbers=True,
    )
    steps = [(TURNS[0], 0, 0), (TURNS[0], TURNS[1], 0), TURNS]
    titles = ("ours: 1. yaw about z", "2. pitch about x", "3. roll about y:  R = Ry Rx Rz")
    for panel, angles, title, axis in zip(panels[3:], steps, titles, "zxy", strict=True):
        _box(panel, np.array([*BOX[:6], *angles]), f"{title}\n(axes of the camera, which stay)", turned_about=axis)
    figure.subplots_adjust(0, 0.01, 1, 0.93, 0, 0.12)
    figure.savefig(path, dpi=90)


def _shown(points):
    """Points of a camera in the axes of a plot whose third axis points up."""
    x, y, z = np.moveaxis(np.asarray(points, dtype=float), -1, 0)
    return x, z, -y


def _arrow(panel, start, end, color, text=None, **style):
    panel.plot(*_shown(np.stack([start, end])), color=color, **{"linewidth": 2.2, **style})
    panel.plot(*_shown(np.asarray(end)[None]), color=color, marker="o", markersize=4)
    if text:
        panel.text(
            *(float(value) for value in _shown(np.asarray(start) + 1.16 * np.subtract(end, start))),
            text,
            color=color,
            fontsize=12,
            ha="center",
            va="center",
        )


def _frame(panel, title):
    panel.set_title(title, fontsize=10.5)
    panel.set_axis_off()
    panel.set_box_aspect((1, 1, 1), zoom=1.5)
    panel.view_init(elev=22, azim=-62)
    for limits in (panel.set_xlim, panel.set_ylim, panel.set_zlim):
        limits(-1.25, 1.25)


def _camera(panel, axes, title):
    """A camera's pyramid, and the axes of a convention, columns of `axes` in ours."""
    _frame(panel, title)
    corners = np.array([[-0.6, -0.45, 0.8], [0.6, -0.45, 0.8], [0.6, 0.45, 0.8], [-0.6, 0.45, 0.8]])
    panel.plot(*_shown(np.concatenate([corners, corners[:1]])), color="#9e9e9e", linewidth=1)
    for corner in corners:
        panel.plot(*_shown(np.stack([np.zeros(3), corner])), color="#bdbdbd", linewidth=0.8)
    panel.text(
        *(float(value) for value in _shown(corners[0])), "pixel (0, 0)", color="#757575", fontsize=8, ha="right"
    )
    for name, axis in zip("xyz", axes.T, strict=True):
        _arrow(panel, np.zeros(3), axis, COLORS[name], f"{name}")


def _box(panel, box, title, with_numbers=False, turned_about=None):
    _frame(panel, title)
    corners = box_corners(box, "zxy")
    for first, second, _ in BOX_EDGES:
        panel.plot(*_shown(corners[[first, second]]), color="#37474f", linewidth=1.3)
    rotation = euler_to_matrix(box[6:], "zxy")
    for name, axis, size in zip("xyz", rotation.T, box[3:6], strict=True):
        _arrow(panel, np.zeros(3), axis * size / 2, COLORS[name], f"{name}_size" if with_numbers else None)
    if with_numbers:
        for number, corner in enumerate(corners):
            panel.text(*(float(value) for value in _shown(corner * 1.13)), str(number), fontsize=10)
    if turned_about:
        axis = np.eye(3)["xyz".index(turned_about)]
        _arrow(panel, -1.1 * axis, 1.1 * axis, COLORS[turned_about], turned_about, linestyle="--", linewidth=1.2)


if __name__ == "__main__":
    draw_conventions(sys.argv[1])
