"""Where depth jumps, and where it only slopes."""

import numpy as np

from gap_mllm.processing.data.depth_edges import depth_edges


def plane(slant, height=20, width=30):
    """Depth of a plane that is seen under a slant."""
    v, u = np.mgrid[0:height, 0:width]
    return (1.0 / (0.5 + slant * (u - width / 2) / width + 0.2 * v / height)).astype(np.float32)


def test_a_slanted_plane_has_no_edge_and_a_step_has_one():
    depth = plane(0.8)
    inner = np.zeros(depth.shape, bool)
    inner[2:-2, 2:-2] = True
    assert (depth_edges(depth, 0.05) == ~inner).all()
    stepped = depth.copy()
    stepped[:, 15:] *= 1.1
    found = depth_edges(stepped, 0.05)
    assert found[:, 13:17].all() and not found[2:-2, 2:12].any() and not found[2:-2, 18:-2].any()
    assert (depth_edges(stepped, 0.15) == ~inner).all()  # 10 % is no edge then


def test_a_hole_in_the_depth_is_an_edge():
    depth = plane(0.0)
    depth[10, 10] = 0
    found = depth_edges(depth, 0.05)
    assert found[8:13, 10].all() and found[10, 8:13].all() and not found[2:7, 2:7].any()
