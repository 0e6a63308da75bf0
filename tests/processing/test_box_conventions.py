"""Conventions of boxes by name: the same solid in each, against formulas that are written out here."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gap_mllm.processing.boxes import CONVENTIONS, convert, find_convention
from gap_mllm.processing.camera_geometry_gap_mllm import box_corners


K = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
PICTURE = {"image_size": (640, 480), "intrinsics": K}
WITH_ANGLES = [name for name, convention in CONVENTIONS.items() if convention.box and name != "spar"]


def random_boxes(count=60):
    rng = np.random.default_rng(0)
    center = rng.normal(size=(count, 3)) * (1, 1, 0.5) + (0, 0, 5)
    boxes = np.concatenate([center, rng.uniform(0.2, 3, (count, 3)), rng.uniform(-np.pi, np.pi, (count, 3))], 1)
    boxes[:5, 7], boxes[5:10, 7], boxes[10:15, 8] = np.pi / 2, -np.pi / 2, np.pi / 2  # gimbal lock of each order
    return boxes


def corners_of(center, sizes, rotation):
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    return np.asarray(center) + signs * np.asarray(sizes) / 2 @ np.asarray(rotation).T


def sorted_rows(corners):
    return corners[np.lexsort(np.round(corners, 5).T)]


# What each convention means, apart from the code: corners in our camera.
def _about(axes, angles):
    return Rotation.from_euler(axes, angles).as_matrix()


def qwen_code(b):
    pitch, yaw, roll = b[6:] * np.pi
    return corners_of(b[:3], b[3:6], _about("z", roll) @ _about("y", yaw) @ _about("x", pitch))


def qwen_text(b):
    roll, pitch, yaw = b[6:]
    return corners_of(b[:3], b[3:6], _about("z", roll) @ _about("y", yaw) @ _about("x", pitch))


def gemini(b):
    rotation = Rotation.from_euler("xyz", b[6:], degrees=True).as_matrix()
    x, y, z = corners_of(b[:3], b[3:6], rotation).T
    return np.stack([x, -z, y], 1)  # its z is up, its y forward


def omni3d(b):
    width, height, length = b[3:6]
    return corners_of(b[:3], (length, height, width), b[6:].reshape(3, 3))


MEANINGS = {
    "ours": lambda b: corners_of(b[:3], b[3:6], _about("zxy", b[6:])),
    "gap-release": lambda b: corners_of(b[:3], b[3:6], _about("zxy", b[6:])),
    "embodiedscan": lambda b: corners_of(b[:3], b[3:6], _about("ZXY", b[6:])),
    "qwen3-vl-text": qwen_text,
    "qwen3-vl-code": qwen_code,
    "seed1.5-vl": qwen_code,
    "gemini": gemini,
    "omni3d": omni3d,
}


@pytest.mark.parametrize("name", WITH_ANGLES)
def test_every_convention_holds_the_same_solid(name):
    ours = random_boxes()
    theirs = convert(ours, "ours", name)
    for box, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(
            sorted_rows(MEANINGS[name](other)), sorted_rows(MEANINGS["ours"](box)), atol=2e-6
        )  # matrix_to_euler takes what is nearer than 1e-6 to gimbal lock as locked
        np.testing.assert_allclose(np.prod(other[3:6]), np.prod(box[3:6]), rtol=1e-12)  # volume


@pytest.mark.parametrize("source", WITH_ANGLES)
@pytest.mark.parametrize("target", WITH_ANGLES)
def test_round_trips_keep_corners_one_by_one(source, target):
    ours = random_boxes()
    start = convert(ours, "ours", source)
    back = convert(convert(convert(start, source, target), target, source), source, "ours")
    np.testing.assert_allclose(box_corners(back, "zxy"), box_corners(ours, "zxy"), atol=1e-6)


def test_hand_made_boxes():
    turned = [0.5, 0.1, 2, 1, 2, 0.5, 0, 0, np.pi / 2]  # a quarter about y, which is yaw in a camera
    np.testing.assert_allclose(convert(turned, "ours", "qwen3-vl-code")[6:], [0, 0.5, 0], atol=1e-12)
    np.testing.assert_allclose(convert(turned, "ours", "qwen3-vl-text")[6:], [0, 0, np.pi / 2], atol=1e-12)
    np.testing.assert_allclose(convert(turned, "ours", "gemini")[:3], [0.5, 2, -0.1], atol=1e-12)
    np.testing.assert_allclose(convert(turned, "ours", "omni3d")[3:6], [0.5, 2, 1])
    tilted = convert([0, 0, 2, 1, 2, 3, 10, 20, 30], "gemini", "ours")
    np.testing.assert_allclose(tilted[:6], [0, -2, 0, 1, 2, 3], atol=1e-12)


def test_spar_is_a_place_in_a_view_with_depth_and_sizes():
    box = [0.4, -0.2, 2.0, 1, 0.5, 0.25, 0, 0, 0]
    spar = convert(box, "ours", "spar", **PICTURE)
    np.testing.assert_allclose(spar, [0, (320 + 100) / 0.64, (240 - 51) / 0.48, 2, 1, 0.5, 0.25])
    np.testing.assert_allclose(convert(spar, "spar", "ours", **PICTURE), box, atol=1e-12)
    quarter = [*box[:6], 0, 0, np.pi / 2]  # by right angles only the sizes change places
    np.testing.assert_allclose(convert(quarter, "ours", "spar", **PICTURE)[4:], [0.25, 0.5, 1], atol=1e-12)


def test_spar_in_another_view_goes_through_the_poses():
    poses = np.stack([np.eye(4), np.eye(4)])
    poses[1, :3, :3] = _about("y", 0.3)
    poses[1, :3, 3] = 0.2, 0, -0.5
    seen = {**PICTURE, "camera_to_world": poses}
    spar = [1, 510, 480, 3, 1, 0.5, 0.25]
    ours = convert(spar, "spar", "ours", **seen)
    np.testing.assert_allclose(convert(ours, "ours", "spar", frame=1, **seen), spar, atol=1e-9)
    np.testing.assert_allclose(_about("zxy", ours[6:]), poses[1, :3, :3], atol=1e-9)


def test_what_would_be_lost_is_refused():
    turned = [0.4, -0.2, 2.0, 1, 0.5, 0.25, 0, 0, 0.5]
    with pytest.raises(ValueError, match="spar.*no angles.*lossy=True"):
        convert(turned, "ours", "spar", **PICTURE)
    sizes = convert(turned, "ours", "spar", lossy=True, **PICTURE)[4:]
    np.testing.assert_allclose(sizes, np.ptp(box_corners(np.array(turned), "zxy"), axis=0))


@pytest.mark.parametrize(
    "box, source, target, options, message",
    [
        ([0] * 9, "nobody", "ours", {}, "unknown convention 'nobody'.*ours, gap-release.*gemini"),
        ([0] * 9, "molmo", "ours", {}, "molmo.*has no box.*ours"),
        ([0] * 8, "ours", "gemini", {}, r"9 numbers \(x_center.*shape \(8,\)"),
        ([0, 0, 2, 1, 0, 1, 0, 0, 0], "ours", "gemini", {}, "size that is not positive"),
        ([0, 0, np.nan, 1, 1, 1, 0, 0, 0], "ours", "gemini", {}, "not finite"),
        ([0, 0, 2, 1, 1, 1, *([1] * 9)], "omni3d", "ours", {}, "no rotation"),
        ([0, 500, 500, 2, 1, 1, 1], "spar", "ours", {}, "needs image_size; pass image_size="),
        ([0, 500, 500, 2, 1, 1, 1], "spar", "ours", {"image_size": (640, 480)}, "needs intrinsics"),
        ([2, 500, 500, 2, 1, 1, 1], "spar", "ours", PICTURE, "needs camera_to_world"),
        ([0.5, 500, 500, 2, 1, 1, 1], "spar", "ours", PICTURE, "no whole number"),
        ([0, 500, 500, -2, 1, 1, 1], "spar", "ours", PICTURE, "depth -2.0"),
        ([0, 0, -2, 1, 1, 1, 0, 0, 0], "ours", "spar", PICTURE, "behind the camera"),
        (
            [0, 500, 500, 2, 1, 1, 1],
            "spar",
            "ours",
            {"image_size": (1,), "intrinsics": np.eye(2)},
            r"image_size has shape \(1,\)",
        ),
    ],
)
def test_bad_boxes_are_named(box, source, target, options, message):
    with pytest.raises(ValueError, match=message):
        convert(box, source, target, **options)


def test_names_are_found_however_they_are_written():
    assert find_convention("Qwen3-VL text").name == "qwen3-vl-text"
    assert find_convention("seed1.5_vl") is CONVENTIONS["seed1.5-vl"]
    assert find_convention("gap_mllm").name == "ours"  # as results of scenes call it
    assert CONVENTIONS["ours"].box.rotation == "Ry Rx Rz" and CONVENTIONS["gemini"].box.rotation == "Rz Ry Rx"
    assert CONVENTIONS["omni3d"].box.rotation == "a matrix" and CONVENTIONS["spar"].box.rotation == "none"
    for convention in CONVENTIONS.values():
        assert convention.box or convention.point
        assert convention.source.endswith(".")
