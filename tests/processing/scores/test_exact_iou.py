"""IoU of 3D boxes: golden pairs, hand-made cases, manifold3d and random points as oracles, documented errors.

fixtures/metrics/box_iou.npz holds 300 pairs in 21 categories with volumes on which three other routes agree.
"""

from pathlib import Path

import manifold3d
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gap_mllm.evaluation import box_intersection_9dof, box_iou_9dof, box_iou_axis_aligned
from gap_mllm.processing.camera_geometry_gap_mllm import euler_to_matrix, transform_box


GOLDEN = Path(__file__).parents[2] / "fixtures" / "metrics" / "box_iou.npz"
ORDERS = pytest.mark.parametrize("order", ["zxy", "ZXY"])
NAMES = {"zxy": "extrinsic_zxy", "ZXY": "intrinsic_zxy"}
UNIT_CUBE = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
CHAIR = [1.0, -0.5, 2.0, 0.4, 0.6, 0.8, 0.5, 0.3, -0.2]
NEAR_CHAIR = [1.05, -0.45, 2.1, 0.5, 0.5, 0.9, 0.4, 0.25, -0.1]


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def random_boxes(seed, count, span=2.0):
    rng = np.random.default_rng(seed)
    parts = (rng.uniform(0, span, (count, 3)), rng.uniform(0.2, 2, (count, 3)), rng.uniform(-np.pi, np.pi, (count, 3)))
    return np.concatenate(parts, -1)


def manifold_volumes(boxes1, boxes2, order):
    """The shared volumes, as the library of solids has them."""

    def solid(box):
        pose = np.concatenate([euler_to_matrix(box[6:], order), box[:3, None]], -1)
        return manifold3d.Manifold.cube(box[3:6].tolist(), True).transform(pose)

    return np.array([(solid(one) ^ solid(other)).volume() for one, other in zip(boxes1, boxes2, strict=True)])


def volumes_of(boxes):
    return np.prod(np.asarray(boxes)[..., 3:6], -1)


# Golden pairs


@ORDERS
def test_golden_pairs(golden, order):
    iou = box_iou_9dof(golden["boxes1"], golden["boxes2"], order)
    # The three routes of the golden values agree to 1e-6, their median is far better.
    np.testing.assert_allclose(iou, golden[f"iou_{NAMES[order]}"], rtol=0, atol=1e-13)
    shared = box_intersection_9dof(golden["boxes1"], golden["boxes2"], order)
    np.testing.assert_allclose(shared, golden[f"inter_{NAMES[order]}"], rtol=1e-12, atol=1e-18)
    category = golden["category"]
    assert set(iou[category == "identical"]) == {1.0}
    assert set(iou[np.char.startswith(category, "touching")]) == {0.0}
    assert set(iou[category == "far"]) == {0.0}


def test_the_order_matters(golden):
    differs = np.abs(golden["iou_extrinsic_zxy"] - golden["iou_intrinsic_zxy"]) > 0.01
    assert differs.sum() > 50
    swapped = box_iou_9dof(golden["boxes1"], golden["boxes2"], "zxy") - golden["iou_intrinsic_zxy"]
    assert (np.abs(swapped[differs]) > 0.009).all()


def test_a_worked_example():
    assert box_iou_9dof(CHAIR, NEAR_CHAIR, "ZXY") == pytest.approx(0.5114212324, abs=1e-10)
    assert box_iou_9dof(CHAIR, NEAR_CHAIR, "zxy") == pytest.approx(0.5018106592, abs=1e-10)
    assert box_intersection_9dof(CHAIR, NEAR_CHAIR, "ZXY") == pytest.approx(0.1411007397, abs=1e-10)
    assert box_intersection_9dof(CHAIR, NEAR_CHAIR, "zxy") == pytest.approx(0.1393351709, abs=1e-10)


# Shapes and kinds


@ORDERS
def test_all_pairs_are_the_same_numbers(golden, order):
    boxes1, boxes2 = golden["boxes1"], golden["boxes2"][:250]  # 75000 pairs: more than one block
    matrix = box_iou_9dof(boxes1, boxes2, order, all_pairs=True)
    assert matrix.shape == (300, 250) and matrix.dtype == np.float64
    np.testing.assert_array_equal(matrix.diagonal(), box_iou_9dof(boxes1[:250], boxes2, order))
    np.testing.assert_array_equal(matrix[7], box_iou_9dof(boxes1[7], boxes2, order))
    np.testing.assert_array_equal(matrix[:, 9], box_iou_9dof(boxes1, boxes2[9], order))
    np.testing.assert_array_equal(
        matrix[:6].reshape(2, 3, 250), box_iou_9dof(boxes1[:6].reshape(2, 3, 1, 9), boxes2, order)
    )


@pytest.mark.parametrize("kind", [np.asarray, np.float32, torch.tensor, lambda box: torch.tensor(box).bfloat16()])
def test_kinds_of_numbers(kind):
    # bfloat16 rounds the angles to 1/512.
    assert box_iou_9dof(kind(CHAIR), kind(NEAR_CHAIR), "zxy") == pytest.approx(0.5018, abs=0.02)
    result = box_iou_9dof(kind([CHAIR, CHAIR]), kind([CHAIR, NEAR_CHAIR]), "zxy")
    assert isinstance(result, np.ndarray) and result.dtype == np.float64 and result[0] == 1.0


def test_a_tensor_with_gradient_is_read():
    assert box_iou_9dof(torch.tensor(CHAIR, requires_grad=True), CHAIR, "zxy") == pytest.approx(1.0, abs=1e-6)


def test_whole_numbers_are_read():
    assert box_iou_9dof([0, 0, 0, 2, 2, 2, 0, 0, 0], [1, 1, 1, 2, 2, 2, 0, 0, 0], "ZXY") == 1 / 15


def test_no_boxes_give_no_results():
    assert box_iou_9dof([], [], "zxy").shape == (0,)
    assert box_iou_9dof(np.zeros((0, 9)), np.zeros((0, 9)), "zxy").shape == (0,)
    assert box_iou_9dof([], [CHAIR] * 5, "zxy", all_pairs=True).shape == (0, 5)
    assert box_iou_9dof([CHAIR] * 5, [], "zxy", all_pairs=True).shape == (5, 0)
    assert box_iou_9dof([], [], "zxy", all_pairs=True).shape == (0, 0)
    assert box_iou_axis_aligned([], []).shape == (0,)
    assert box_iou_axis_aligned([CHAIR[:6]], [], all_pairs=True).shape == (1, 0)


# Hand-made cases


@ORDERS
def test_equal_boxes_have_exactly_one(order):
    boxes = random_boxes(0, 2000)
    boxes[:, 3:6] *= 10.0 ** np.random.default_rng(1).integers(-3, 3, (2000, 3))
    assert set(box_iou_9dof(boxes, boxes, order)) == {1.0}


@pytest.mark.parametrize("scale", [1e-40, 1e-6, 1.0, 1e6, 1e40])
def test_boxes_of_any_scale(scale):
    first, second = (np.array(box) * np.array([scale] * 6 + [1] * 3) for box in (CHAIR, NEAR_CHAIR))
    assert box_iou_9dof(first, second, "zxy") == pytest.approx(0.5018106592, abs=1e-10)


@ORDERS
def test_turned_by_quarters(order):
    angles = np.stack(np.meshgrid(*[np.arange(4) * np.pi / 2] * 3), -1).reshape(-1, 3)
    boxes = np.concatenate([np.tile([0.3, -0.2, 1.0, 2.0, 2.0, 2.0], (64, 1)), angles], -1)
    assert set(box_iou_9dof(boxes, boxes, order, all_pairs=True).ravel()) == {1.0}  # a cube stays the same solid


def test_half_of_a_box_is_shared():
    shifted = [0.5, *UNIT_CUBE[1:]]
    assert box_iou_9dof(UNIT_CUBE, shifted, "zxy") == pytest.approx(1 / 3, abs=1e-15)
    assert box_intersection_9dof(UNIT_CUBE, shifted, "zxy") == pytest.approx(0.5, abs=1e-15)


def test_an_octagon_is_shared():
    turned = [*UNIT_CUBE[:6], np.pi / 4, 0.0, 0.0]
    octagon = 2 * (np.sqrt(2) - 1)
    assert box_intersection_9dof(UNIT_CUBE, turned, "zxy") == pytest.approx(octagon, abs=1e-14)
    assert box_iou_9dof(UNIT_CUBE, turned, "ZXY") == pytest.approx(octagon / (2 - octagon), abs=1e-14)


def test_a_contained_box_is_shared_whole():
    inside = [0.01, 0.02, -0.03, 0.3, 0.2, 0.1, 0.7, -0.4, 1.1]
    assert box_intersection_9dof(UNIT_CUBE, inside, "zxy") == volumes_of(inside)
    assert box_iou_9dof(inside, UNIT_CUBE, "zxy") == pytest.approx(0.006, abs=1e-15)
    flush = [0.35, 0.4, -0.45, 0.3, 0.2, 0.1, 0.0, 0.0, 0.0]
    assert box_intersection_9dof(UNIT_CUBE, flush, "zxy") == pytest.approx(0.006, abs=1e-15)


@pytest.mark.parametrize("center", [(1, 0, 0), (0, -1, 0), (1, 1, 0), (1, -1, 1), (0.3, 0.4, 1), (1, 0.5, 0.5)])
@pytest.mark.parametrize("pose", [(0.0, 0.0, 0.0), (0.3, -0.7, 2.1), (np.pi / 2, 0.0, 0.1)])
def test_boxes_that_touch_share_nothing(center, pose):
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = euler_to_matrix(np.array(pose), "zxy"), (0.1, -3.0, 2.0)
    boxes = transform_box(np.array([UNIT_CUBE, [*center, *UNIT_CUBE[3:]]]), transform, "zxy")
    assert box_iou_9dof(boxes[0], boxes[1], "zxy") == 0.0


def test_a_corner_pokes_into_a_face():
    """A cube on its corner, cut at depth h: the edges of the tip are sqrt(3) h long, its volume (sqrt(3) h)^3 / 6."""
    depth = 0.2
    cube = [0.0, np.sqrt(3) / 2 - depth, 0.0, 1.0, 1.0, 1.0, np.pi / 4, np.arctan(np.sqrt(0.5)), 0.0]
    ground = [0.0, -5.0, 0.0, 10.0, 10.0, 10.0, 0.0, 0.0, 0.0]
    assert box_intersection_9dof(ground, cube, "zxy") == pytest.approx((np.sqrt(3) * depth) ** 3 / 6, abs=1e-14)


def test_thin_boxes():
    sheet = np.array([0.0, 0.0, 0.0, 2.0, 2.0, 1e-6, 0.4, 0.2, -0.1])
    half_off = np.array([*(euler_to_matrix(sheet[6:], "zxy") @ [1.0, 0.0, 0.0]), *sheet[3:]])
    assert box_iou_9dof(sheet, half_off, "zxy") == pytest.approx(1 / 3, abs=1e-9)  # 1e-16 over 1e-6
    assert box_intersection_9dof(sheet, [*half_off[:3], 2, 2, 2, *sheet[6:]], "zxy") == pytest.approx(2e-6, rel=1e-9)


def test_a_small_box_in_a_huge_one():
    small = [3.0, 2.0, -4.0, 1e-3, 2e-3, 3e-3, 0.4, 0.2, -0.1]
    assert box_intersection_9dof([0, 0, 0, 1e6, 1e6, 1e6, 0.3, 0, 0], small, "zxy") == pytest.approx(6e-9, rel=1e-14)


def test_boxes_at_the_ends_of_float64_are_far():
    ends = [[sign * 1e308] * 3 + UNIT_CUBE[3:] for sign in (-1, 1)]
    with np.errstate(all="raise"):
        assert box_iou_9dof(*ends, "zxy") == 0.0


def test_bars_that_cross_edge_on_edge():
    """Only the product of their edges separates them; where they meet, two wedges share two thirds of depth^3."""
    bars = np.array([[0, 0, 0, 4, 0.1, 0.1, 0, np.pi / 4, 0], [0, 0, 0, 0.1, 4, 0.1, 0, 0, np.pi / 4]])
    bars[1, 2] = 2 * 0.1 / np.sqrt(2) + 1e-6
    assert box_iou_9dof(bars[0], bars[1], "ZXY") == 0.0
    bars[1, 2] -= 1e-2
    depth = 1e-2 - 1e-6
    assert box_intersection_9dof(bars[0], bars[1], "ZXY") == pytest.approx(depth**3 * 2 / 3, rel=1e-12)


# Properties


FLOATS = st.floats(-1, 1, allow_subnormal=False)
BOXES = st.tuples(*[FLOATS] * 3, *[st.floats(0.05, 3)] * 3, *[st.floats(-4, 4)] * 3).map(np.array)
ANGLE_ORDERS = st.sampled_from(["zxy", "ZXY"])


@st.composite
def nearly_coplanar_pairs(draw):
    """Boxes that share faces, edges or corners up to a deviation from nothing to plainly visible."""
    first = draw(BOXES)
    second = first.copy()
    rotation = euler_to_matrix(first[6:], "zxy")
    second[3:6] *= [draw(st.sampled_from([0.5, 1.0, 2.0])) for _ in range(3)]
    sides = np.array([draw(st.sampled_from([-0.5, 0.0, 0.5])) for _ in range(3)])
    second[:3] += rotation @ (sides * (second[3:6] - draw(st.sampled_from([-1.0, 0.0, 1.0])) * first[3:6]))
    deviation = draw(st.sampled_from([0.0, 1e-16, 1e-14, 1e-12, 1e-9, 1e-6, 1e-3]))
    return first, second + deviation * np.array([draw(FLOATS) for _ in range(9)])


PAIRS = st.one_of(st.tuples(BOXES, BOXES), nearly_coplanar_pairs())


@settings(max_examples=150, deadline=None, derandomize=True)
@given(PAIRS, ANGLE_ORDERS)
def test_symmetric_and_bounded(pair, order):
    iou, swapped = box_iou_9dof(*pair, order), box_iou_9dof(*reversed(pair), order)
    assert 0.0 <= iou <= 1.0
    assert iou == pytest.approx(swapped, abs=1e-12)
    shared = box_intersection_9dof(*pair, order)
    assert 0.0 <= shared <= min(volumes_of(pair))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(PAIRS, ANGLE_ORDERS, st.tuples(*[st.floats(-4, 4)] * 6))
def test_a_common_motion_changes_nothing(pair, order, motion):
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = euler_to_matrix(np.array(motion[:3]), "zxy"), motion[3:]
    moved = transform_box(np.stack(pair), transform, order)
    # Near x = +-pi/2 the angles of a moved box say its pose to 1e-8 only, and thin boxes feel it.
    assert box_iou_9dof(moved[0], moved[1], order) == pytest.approx(box_iou_9dof(*pair, order), abs=1e-6)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(PAIRS, ANGLE_ORDERS)
def test_agrees_with_manifold3d(pair, order):
    expected = manifold_volumes(pair[:1], pair[1:], order)[0]
    # manifold3d merges vertices closer than about 1e-12 of the scene.
    assert box_intersection_9dof(*pair, order) == pytest.approx(expected, abs=1e-9 * max(volumes_of(pair)))


@ORDERS
def test_many_random_boxes_agree_with_manifold3d(order):
    boxes1, boxes2 = random_boxes(3, 1200), random_boxes(4, 1200)
    shared = box_intersection_9dof(boxes1, boxes2, order)
    assert 0.4 < (shared > 0).mean() < 0.8
    np.testing.assert_allclose(shared, manifold_volumes(boxes1, boxes2, order), rtol=0, atol=1e-12)


def test_hinges_agree_with_manifold3d():
    """Boxes about a common edge, which several faces and cuts share: turned by a multiple of 15 degrees."""
    rng = np.random.default_rng(5)
    boxes1 = random_boxes(6, 600)
    boxes1[:, 3:6] = rng.choice([0.5, 1.0, 2.0], (600, 3))
    boxes2 = boxes1.copy()
    boxes2[:, 3:6] = rng.choice([0.5, 1.0, 2.0], (600, 3))
    turn = euler_to_matrix(np.stack([rng.integers(0, 24, 600) * np.pi / 12, *np.zeros((2, 600))], -1), "ZXY")
    pose1 = euler_to_matrix(boxes1[:, 6:], "ZXY")
    edge1, edge2 = (rng.choice([-0.5, 0.5], (600, 3)) * boxes[:, 3:6] for boxes in (boxes1, boxes2))
    center2 = edge1 - (turn @ edge2[..., None])[..., 0]
    boxes2[:, :3] = boxes1[:, :3] + (pose1 @ center2[..., None])[..., 0]
    boxes2[:, 6:] = [_zxy_angles(rotation) for rotation in pose1 @ turn]
    np.testing.assert_allclose(
        box_intersection_9dof(boxes1, boxes2, "ZXY"), manifold_volumes(boxes1, boxes2, "ZXY"), rtol=0, atol=1e-12
    )


def _zxy_angles(rotation):
    """Intrinsic z, x, y of a rotation away from gimbal lock."""
    return (
        np.arctan2(-rotation[0, 1], rotation[1, 1]),
        np.arcsin(rotation[2, 1]),
        np.arctan2(-rotation[2, 0], rotation[2, 2]),
    )


@ORDERS
def test_random_points_agree(order):
    rng = np.random.default_rng(7)
    boxes1, boxes2 = random_boxes(8, 20, span=1.0), random_boxes(9, 20, span=1.0)
    num_points = 40_000
    points = rng.uniform(-0.5, 0.5, (num_points, 3))
    for first, second in zip(boxes1, boxes2, strict=True):
        world = first[:3] + (points * first[3:6]) @ euler_to_matrix(first[6:], order).T
        local = (world - second[:3]) @ euler_to_matrix(second[6:], order)
        share = (np.abs(local) <= second[3:6] / 2).all(-1).mean()
        error = np.sqrt(0.25 / num_points)
        assert box_intersection_9dof(first, second, order) / volumes_of(first) == pytest.approx(share, abs=5 * error)


# Axis-aligned boxes


def test_axis_aligned_golden_pairs():
    """Three pairs of the public rule."""
    truth = [
        [-1.3306, -1.139, -0.8659, 1.1856, 0.6284, 1.4086],
        [-0.7244, -1.9047, -1.2945, 0.434, 1.0947, 0.3625],
        [1.9795, -0.7877, 1.9422, 1.017, 1.2408, 0.6342],
    ]
    answers = [
        [-1.2764, -1.121, -0.853, 1.051, 0.708, 1.5161],
        [-0.6293, -1.8782, -1.2358, 0.377, 1.2144, 0.2999],
        [1.6997, -0.2653, 2.0439, 0.9034, 0.8338, 0.6253],
    ]
    expected = [0.7458659614027773, 0.4268338330441959, 0.17029800352721589]
    np.testing.assert_allclose(box_iou_axis_aligned(answers, truth, mode="reference"), expected, rtol=0, atol=1e-15)
    np.testing.assert_allclose(box_iou_axis_aligned(answers, truth), expected, rtol=1e-6)


def test_axis_aligned_boxes_are_oriented_ones_without_angles():
    boxes = np.concatenate([random_boxes(10, 60)[:, :6], np.zeros((60, 3))], -1)
    expected = box_iou_9dof(boxes, boxes, "zxy", all_pairs=True)
    assert 0.2 < (expected > 0).mean() < 0.9
    matrix = box_iou_axis_aligned(boxes[:, :6], boxes[:, :6], all_pairs=True)
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-14)
    assert set(matrix.diagonal()) == {1.0}
    np.testing.assert_array_equal(box_iou_axis_aligned(boxes[:-1, :6], boxes[1:, :6]), matrix.diagonal(1))


def test_a_quarter_is_a_quarter_except_in_the_reference():
    whole, quarter = [0, 0, 0, 1, 1, 1], [0.375, 0, 0, 0.25, 1, 1]
    assert box_iou_axis_aligned(whole, quarter) == 0.25
    assert box_iou_axis_aligned(whole, quarter, mode="reference") == 0.25 / (1 + 1e-8)
    assert box_iou_axis_aligned(whole, [1, 0, 0, 1, 1, 1]) == 0.0


def test_the_reference_takes_sizes_as_they_come():
    assert box_iou_axis_aligned([0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1], mode="reference") == 0.0
    with pytest.raises(ValueError, match=r"boxes2 has sizes \[0.0, 1.0, 1.0\]"):
        box_iou_axis_aligned([0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1])


# Documented errors


@pytest.mark.parametrize(
    ("boxes1", "boxes2", "message"),
    [
        ([UNIT_CUBE, [np.nan, *UNIT_CUBE[1:]]], [UNIT_CUBE] * 2, r"boxes1\[1\] is \[nan, .*finite"),
        ([UNIT_CUBE], [[*UNIT_CUBE[:8], np.inf]], r"boxes2\[0\] is .*inf"),
        (
            [UNIT_CUBE] * 3,
            [UNIT_CUBE] * 2 + [[0, 0, 0, 1, -1, 1, 0, 0, 0]],
            r"boxes2\[2\] has sizes \[1.0, -1.0, 1.0\]",
        ),
        ([[[0, 0, 0, 1, 0, 1, 0, 0, 0]]], [[UNIT_CUBE]], r"boxes1\[0, 0\] has sizes .*positive"),
        ([0, 0, 0, 1, 1, 1e-60, 0, 0, 0], UNIT_CUBE, r"boxes1 has sizes .*from 1e-50 to 1e\+50"),
        ([UNIT_CUBE[:8]], [UNIT_CUBE], r"boxes1 has shape \(1, 8\); expected \(..., 9\).*Euler"),
        (3.0, UNIT_CUBE, r"boxes1 has shape \(\)"),
        ([UNIT_CUBE, UNIT_CUBE[:3]], [UNIT_CUBE], "boxes1 is not an array of numbers"),
        ([UNIT_CUBE], [["chair"] * 9], "boxes2 is not an array of numbers"),
        ([UNIT_CUBE] * 3, [UNIT_CUBE] * 2, r"boxes1 has shape \(3, 9\) and boxes2 \(2, 9\).*all_pairs=True"),
    ],
)
def test_bad_boxes_are_named(boxes1, boxes2, message):
    with pytest.raises(ValueError, match=message):
        box_iou_9dof(boxes1, boxes2, "zxy")


def test_other_documented_errors():
    with pytest.raises(ValueError, match="euler_order is 'xyz'; expected \"zxy\""):
        box_iou_9dof([], [], "xyz")
    with pytest.raises(ValueError, match=r"all_pairs takes two lists of boxes; boxes1 has shape \(9,\)"):
        box_iou_9dof(UNIT_CUBE, [UNIT_CUBE], "zxy", all_pairs=True)
    with pytest.raises(ValueError, match="mode is 'fast'"):
        box_iou_axis_aligned([], [], mode="fast")
    with pytest.raises(
        ValueError, match=r"boxes1 has shape \(1, 9\); expected \(..., 6\): x, y, z, full sizes dx, dy, dz.$"
    ):
        box_iou_axis_aligned([UNIT_CUBE], [UNIT_CUBE[:6]])
    with pytest.raises(ValueError, match=r"boxes1\[0\] is \[nan"):
        box_iou_axis_aligned([[np.nan] * 6], [UNIT_CUBE[:6]], mode="reference")
