"""Camera geometry for numpy arrays and torch tensors alike: poses, back-projection, projection, Euler angles, boxes.

One convention everywhere: OpenCV cameras (+x right, +y down, +z forward), metres, radians, integer pixel centres (the
top left pixel is centred at (0, 0)), so resizing an image by s maps u' = (u + 0.5) s - 0.5. Drawing on images is
left to visual_prompt_gap_mllm.py, text to answers_gap_mllm.py.
"""

from typing import TypeVar

import numpy as np
import torch


Array = TypeVar("Array", np.ndarray, torch.Tensor)

EULER_ORDERS = ("zxy", "ZXY")
# Intrinsics of a picture whose size nobody states: how far the principal point may lie from the middle, and which
# other sizes it can speak for. Above 16 steps of a half are no further apart than the tolerance.
CENTER_RANGE, CENTER_TOLERANCE, MAX_SIZE_RATIO = (0.25, 0.75), 0.02, 16


def _library(array):
    """The module whose functions take `array`."""
    return torch if isinstance(array, torch.Tensor) else np


def _as_float(array):
    """Numbers as floats: integers, lists and scalars become float64."""
    if isinstance(array, torch.Tensor):
        return array if array.is_floating_point() else array.to(torch.float64)
    array = np.asarray(array)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)


def _as_float64(array):
    return array.to(torch.float64) if isinstance(array, torch.Tensor) else np.asarray(array, dtype=np.float64)


def _like(array, reference):
    """`array` in the library, dtype and on the device of `reference`."""
    if isinstance(reference, torch.Tensor):
        return torch.as_tensor(array, dtype=reference.dtype, device=reference.device)
    return np.asarray(array, dtype=reference.dtype)


def _expand_batch(matrix, num_point_dims):
    """(*batch, n, n) -> (*batch, 1.., n, n) so that it meets `num_point_dims` further dimensions of points."""
    return matrix.reshape(*matrix.shape[:-2], *(1,) * num_point_dims, *matrix.shape[-2:])


def _check_matrix(name, matrix, size):
    if matrix.ndim < 2 or tuple(matrix.shape[-2:]) != (size, size):
        raise ValueError(f"{name} has shape {tuple(matrix.shape)}; expected (..., {size}, {size}).")


def _check_order(order):
    if order not in EULER_ORDERS:
        raise ValueError(f'order is {order!r}; expected "zxy" (extrinsic) or "ZXY" (intrinsic), as scipy reads them.')


def _check_batch(name, matrix, points):
    batch = tuple(matrix.shape[:-2])
    if tuple(points.shape[: len(batch)]) != batch:
        raise ValueError(f"{name} has batch shape {batch}, but the points have shape {tuple(points.shape)}.")


def is_rigid(transform: Array, tolerance: float = 1e-3) -> Array:
    """Tell whether matrices are rigid: rotation with determinant +1, last row (0, 0, 0, 1), all finite.

    Frame: any. Units: any.

    Args:
        transform (`numpy.ndarray` or `torch.Tensor` of shape `(..., 4, 4)`): the matrices.
        tolerance (`float`, defaults to 1e-3): largest accepted entry of R^T R - 1 and of the last row's error.
    Returns:
        bool array of shape `(...)`.
    Raises:
        ValueError: if the shape is not `(..., 4, 4)`.
    """
    transform = _as_float64(transform)
    _check_matrix("transform", transform, 4)
    lib = _library(transform)
    rotation = transform[..., :3, :3]
    is_finite = lib.isfinite(transform).reshape(*transform.shape[:-2], 16).all(-1)
    gram = rotation.swapaxes(-1, -2) @ rotation - _like(np.eye(3), transform)
    is_orthogonal = (abs(gram) < tolerance).reshape(*transform.shape[:-2], 9).all(-1)
    is_last_row = (abs(transform[..., 3, :] - _like((0.0, 0.0, 0.0, 1.0), transform)) < tolerance).all(-1)
    clean = lib.where(lib.isfinite(rotation), rotation, lib.zeros_like(rotation))
    return is_finite & is_orthogonal & is_last_row & (lib.linalg.det(clean) > 0)


def check_rigid(transform: Array, name: str = "transform", tolerance: float = 1e-3) -> None:
    """Raise unless every matrix is rigid; a mirrored pose (determinant -1) is named as such.

    Frame: any. Units: any.

    Args:
        transform (`numpy.ndarray` or `torch.Tensor` of shape `(..., 4, 4)`): the matrices.
        name (`str`, defaults to "transform"): how the message calls them.
        tolerance (`float`, defaults to 1e-3): see `is_rigid`.
    Raises:
        ValueError: if a matrix is not rigid; one that marks lost tracking is named as such.
    """
    good = is_rigid(transform, tolerance)
    if bool(good.all()):
        return
    matrices = _as_float64(transform).reshape(-1, 4, 4)
    index = int((~good).reshape(-1).nonzero()[0][0])
    lost = lost_pose_reason(matrices[index])
    if lost is not None:
        raise ValueError(
            f"{name}: matrix {index} is not rigid: it {lost}; expected a pose. Leave such views out, or pass None for "
            "their pose where that is possible."
        )
    determinant = float(_library(matrices).linalg.det(matrices[index, :3, :3]))
    raise ValueError(
        f"{name}: matrix {index} is not rigid (determinant of its rotation {determinant:.4f}); expected a finite "
        "4x4 matrix with an orthonormal rotation of determinant +1 and last row 0 0 0 1. A determinant of -1 is a "
        "mirrored pose: flip one axis where the file is read."
    )


def lost_pose_reason(pose: Array) -> str | None:
    """Say how a pose marks lost tracking, as the rest of a sentence about it; None for a pose that may be one.

    ScanNet writes -inf, others NaN, and some tools zeros; one such entry is enough, of zeros the whole rotation.
    Frame: any. Units: any.

    Args:
        pose (`numpy.ndarray` or `torch.Tensor` of shape `(4, 4)`): matrix; whether it is rigid is not looked at.
    Returns:
        `str`, *optional*.
    """
    pose = _as_float64(pose)
    if not bool(_library(pose).isfinite(pose).all()):
        return "holds NaN or infinity, which is how ScanNet and others mark lost tracking"
    if not bool((pose[:3, :3] != 0).any()):
        return "has a rotation of zeros, which is how some tools mark lost tracking"
    return None


def check_pose_known(pose: Array, name: str = "the pose") -> None:
    """Raise if the pose of one view marks lost tracking (`lost_pose_reason`); `check_rigid` looks at the rest.

    Frame: any. Units: any.

    Args:
        pose (`numpy.ndarray` or `torch.Tensor` of shape `(4, 4)`): pose of the view.
        name (`str`, defaults to "the pose"): how the message calls it, as "poses of view 3".
    Raises:
        ValueError: if it marks lost tracking.
    """
    reason = lost_pose_reason(pose)
    if reason is not None:
        if name.startswith("poses"):
            reason = reason.replace("holds", "hold").replace("has", "have")
        raise ValueError(f"{name} {reason}; pass None for this view.")


def invert_rigid(transform: Array) -> Array:
    """Return the inverse of rigid transforms, computed in float64.

    Frame: maps b to a for a transform from a to b. Units: metres.

    Args:
        transform (`numpy.ndarray` or `torch.Tensor` of shape `(..., 4, 4)`): the transforms.
    Returns:
        same kind, shape and floating dtype.
    Raises:
        ValueError: if a matrix is not rigid.
    """
    check_rigid(transform)
    transform = _as_float(transform)
    exact = _as_float64(transform)
    lib = _library(exact)
    rotation = exact[..., :3, :3].swapaxes(-1, -2)
    translation = -(rotation @ exact[..., :3, 3:])
    inverse = lib.concatenate([lib.concatenate([rotation, translation], -1), exact[..., 3:, :]], -2)
    return _like(inverse, transform)


def view_to_first_view(camera_to_world: Array, reference_view: int = 0) -> Array:
    """Return the pose of every view relative to one view, in float64 whatever the input; cast afterwards.

    Frame: maps the camera of each view to the camera of the reference view. Units: metres.

    Args:
        camera_to_world (`numpy.ndarray` or `torch.Tensor` of shape `(..., V, 4, 4)`): poses.
        reference_view (`int`, defaults to 0): the view whose camera is the origin.
    Returns:
        float64 array of shape `(..., V, 4, 4)`; the identity at the reference view.
    Raises:
        ValueError: if a pose is not rigid, or the shape holds no view dimension.
    """
    poses = _as_float64(camera_to_world)
    if poses.ndim < 3:
        raise ValueError(f"camera_to_world has shape {tuple(poses.shape)}; expected (..., V, 4, 4).")
    check_rigid(poses, "camera_to_world")
    return invert_rigid(poses[..., reference_view, :, :])[..., None, :, :] @ poses


def transform_points(transform: Array, points: Array) -> Array:
    """Move points by a transform a to b.

    Frame: in a, out b. Units: metres. NaN points stay NaN. The matrix is cast to the dtype of the points.

    Args:
        transform (`numpy.ndarray` or `torch.Tensor` of shape `(*batch, 4, 4)`): the transforms.
        points (same kind, shape `(*batch, ..., 3)`): points; further dimensions after the batch share a transform.
    Returns:
        same kind and shape as `points`.
    Raises:
        ValueError: if a shape does not fit.
    """
    points, transform = _as_float(points), _as_float(transform)
    _check_matrix("transform", transform, 4)
    _check_batch("transform", transform, points)
    transform = _like(transform, points)
    num_point_dims = points.ndim - 1 - (transform.ndim - 2)
    matrix = _expand_batch(transform, num_point_dims)
    return (matrix[..., :3, :3] @ points[..., None])[..., 0] + matrix[..., :3, 3]


def unproject_depth(depth: Array, intrinsics: Array) -> Array:
    """Return the point that each pixel sees.

    Frame: camera of the given view, OpenCV axes (+x right, +y down, +z forward). Units: metres. `depth` is z-depth,
    not the length of the ray; pixel centres are integers, u = 0..W-1 and v = 0..H-1.

    Args:
        depth (`numpy.ndarray` or `torch.Tensor` of shape `(*batch, H, W)`): metres, floating; 0, negative or not
            finite marks no measurement.
        intrinsics (same kind, shape `(*batch, 3, 3)`): intrinsics in pixels of an image of this size.
    Returns:
        same kind and dtype as `depth`, shape `(*batch, H, W, 3)`: points; pixels without measurement are NaN.
    Raises:
        TypeError: if `depth` holds integers (a PNG in millimetres: divide by its depth scale first).
        ValueError: if a shape does not fit.
    """
    is_float = (
        depth.is_floating_point() if isinstance(depth, torch.Tensor) else np.issubdtype(depth.dtype, np.floating)
    )
    if not is_float:
        raise TypeError(f"depth has dtype {depth.dtype}; expected metres as floats: divide by the depth scale first.")
    intrinsics = _as_float(intrinsics)
    _check_matrix("intrinsics", intrinsics, 3)
    if depth.ndim < 2 or tuple(depth.shape[:-2]) != tuple(intrinsics.shape[:-2]):
        raise ValueError(
            f"depth has shape {tuple(depth.shape)} and intrinsics {tuple(intrinsics.shape)}; "
            "expected (*batch, H, W) and (*batch, 3, 3)."
        )
    lib = _library(depth)
    height, width = depth.shape[-2:]
    k = _like(intrinsics, depth)[..., None, None]  # (*batch, 3, 3, 1, 1)
    u, v = _like(np.arange(width), depth), _like(np.arange(height), depth)[:, None]
    y = (v - k[..., 1, 2, :, :]) / k[..., 1, 1, :, :]
    x = (u - k[..., 0, 2, :, :] - k[..., 0, 1, :, :] * y) / k[..., 0, 0, :, :]
    is_valid = lib.isfinite(depth) & (depth > 0)
    z = lib.where(is_valid, depth, _like(float("nan"), depth))
    return lib.stack([x * z, y * z, z], -1)


def project_points(points: Array, intrinsics: Array) -> tuple[Array, Array]:
    """Return the pixels at which points are seen, whether or not these lie inside the image.

    Frame: points in the camera, OpenCV axes; pixels (u, v) with integer pixel centres. Units: metres, pixels.

    Args:
        points (`numpy.ndarray` or `torch.Tensor` of shape `(*batch, ..., 3)`): points.
        intrinsics (same kind, shape `(*batch, 3, 3)`): intrinsics in pixels.
    Returns:
        `tuple` of pixels `(*batch, ..., 2)` and z-depth `(*batch, ...)`; pixels of points that are not in front of
        the camera are NaN.
    Raises:
        ValueError: if a shape does not fit.
    """
    points, intrinsics = _as_float(points), _as_float(intrinsics)
    _check_matrix("intrinsics", intrinsics, 3)
    _check_batch("intrinsics", intrinsics, points)
    lib = _library(points)
    k = _expand_batch(_like(intrinsics, points), points.ndim - 1 - (intrinsics.ndim - 2))
    depth = points[..., 2]
    z = lib.where(depth > 0, depth, _like(float("nan"), points))
    x, y = points[..., 0] / z, points[..., 1] / z
    u = k[..., 0, 0] * x + k[..., 0, 1] * y + k[..., 0, 2]
    v = k[..., 1, 1] * y + k[..., 1, 2]
    return lib.stack([u, v], -1), depth


def scale_intrinsics(intrinsics: Array, scale_x: float, scale_y: float) -> Array:
    """Return the intrinsics of the resized image: u' = (u + 0.5) s - 0.5 holds for the principal point too.

    Frame: pixels, integer pixel centres. Units: pixels.

    Args:
        intrinsics (`numpy.ndarray` or `torch.Tensor` of shape `(..., 3, 3)`): intrinsics in pixels of the original
            image.
        scale_x (`float`), scale_y (`float`): new width over old width, new height over old height.
    Returns:
        same kind, shape and floating dtype.
    Raises:
        ValueError: if a scale is not positive or the shape does not fit.
    """
    _check_scales(scale_x, scale_y)
    intrinsics = _as_float(intrinsics)
    _check_matrix("intrinsics", intrinsics, 3)
    resize = [[scale_x, 0.0, 0.5 * scale_x - 0.5], [0.0, scale_y, 0.5 * scale_y - 0.5], [0.0, 0.0, 1.0]]
    return _like(resize, intrinsics) @ intrinsics


def fit_intrinsics(
    intrinsics: Array,
    size: tuple[int, int],
    intrinsics_size: tuple[int, int] | None = None,
    name: str = "intrinsics",
) -> tuple[np.ndarray, str | None]:
    """Return intrinsics in pixels of a picture, from those of the same picture at another size.

    Where their size is stated, one common scale must give both sides of the picture within one pixel (of rounding);
    each axis is then scaled by its own sides. Where it is not, a principal point in the middle of a picture that is
    1.5, 2, 2.5, .. times as large or small tells the size; any other must lie within the middle half of the picture.
    Frame: pixels, integer pixel centres; principal points move as u' = (u + 0.5) s - 0.5. Units: pixels.

    Args:
        intrinsics (`numpy.ndarray` or `torch.Tensor` of shape `(3, 3)`): intrinsics, in pixels of a picture of
            `intrinsics_size`.
        size (`tuple[int, int]`): width and height of the picture.
        intrinsics_size (`tuple[int, int]`, *optional*): width and height of the picture that they were made for.
        name (`str`, defaults to "intrinsics"): how messages call them.
    Returns:
        `tuple` of intrinsics `(3, 3)`, a float64 `numpy.ndarray`, and a sentence that says what was scaled, None where
        nothing was.
    Raises:
        ValueError: if the shape or a number is none, a size is not two numbers above 0, or the intrinsics belong to
            another picture.
    """
    camera = np.asarray(intrinsics.detach().cpu() if isinstance(intrinsics, torch.Tensor) else intrinsics, np.float64)
    if camera.shape != (3, 3) or not np.isfinite(camera).all():
        raise ValueError(f"{name} is {camera.tolist()}; expected (3, 3) finite numbers.")
    size = _check_size("size", size)
    if intrinsics_size is None:
        return _fit_by_center(camera, size, name)
    stated = _check_size("intrinsics_size", intrinsics_size)
    if stated == size:
        return camera, None
    if not is_same_shape(stated, size):
        raise ValueError(f"{name} {_other_picture(stated, size)}")
    scaled = scale_intrinsics(camera, size[0] / stated[0], size[1] / stated[1])
    return scaled, f"{name}: scaled from pictures of {_times(stated)} to {_times(size)} pixels."


def is_same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one scale takes both sides of a picture to those of another within one pixel. Units: pixels.

    Args:
        size (`tuple[int, int]`): width and height of the picture that is scaled.
        other (`tuple[int, int]`): width and height afterwards.
    """
    lowest = max((new - 1) / old for old, new in zip(size, other, strict=True))
    highest = min((new + 1) / old for old, new in zip(size, other, strict=True))
    return lowest <= highest + 1e-9  # of float division


def _check_size(name, size):
    try:
        width, height = (float(side) for side in size)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {size!r}; expected (width, height) in pixels.") from None
    if not (0 < width < np.inf and 0 < height < np.inf):
        raise ValueError(f"{name} is {size!r}; expected (width, height) in pixels, both above 0.")
    return width, height


def _times(size):
    return f"{size[0]:g} x {size[1]:g}"


def _other_picture(stated, size):
    """The rest of a sentence about intrinsics of a picture that `size` is no scaled version of."""
    if is_same_shape(stated[::-1], size):
        remedy = (
            "It is turned by a quarter (by an EXIF orientation?): give it as it was for the calibration, or "
            "turn its intrinsics."
        )
    else:
        remedy = (
            "No one scale gives both sides, so it was cropped or squeezed: give the intrinsics of the picture as it "
            "is, or the picture that they were made for."
        )
    return f"are of pictures of {_times(stated)} pixels (width x height), but the picture has {_times(size)}. {remedy}"


def _fit_by_center(camera, size, name):
    center = camera[:2, 2]
    ratio = None if _is_share(camera) else _size_ratio((2 * center + 1) / size)
    if ratio is not None:
        found = size[0] * ratio, size[1] * ratio
        return scale_intrinsics(camera, 1 / ratio, 1 / ratio), (
            f"{name}: the principal point is the middle of a picture of {_times(found)} pixels, not of "
            f"{_times(size)}, so they were scaled from that size. It is inferred; intrinsics_size=(width, height) "
            "states it."
        )
    if not all(CENTER_RANGE[0] < at / side < CENTER_RANGE[1] for at, side in zip(center, size, strict=True)):
        unit = "They look like shares of it: multiply them by its width and height. " if _is_share(camera) else ""
        raise ValueError(
            f"{name} have their principal point at ({center[0]:g}, {center[1]:g}), far from the middle of a picture "
            f"of {_times(size)} pixels (width x height): they are of another size, or of a crop. {unit}State the size "
            "that they were made for, intrinsics_size=(width, height): the picture's own, where the point is right."
        )
    return camera, None


def _size_ratio(shares):
    """1.5, 2, 2.5, .. or one over that, where both axes agree on it; else None. 1 is the picture's own size."""
    mean = float(shares.mean())
    if not mean > 0:
        return None
    steps = round(2 * max(mean, 1 / mean)) / 2
    ratio = steps if mean > 1 else 1 / steps
    is_near = bool((abs(shares / ratio - 1) <= CENTER_TOLERANCE).all())
    return ratio if is_near and 1.5 <= steps <= MAX_SIZE_RATIO else None


def _is_share(camera):
    return bool((abs(camera[:2]) < 10).all() and (0 < camera[:2, 2]).all() and (camera[:2, 2] < 1).all())


def scale_pixels(pixels: Array, scale_x: float, scale_y: float) -> Array:
    """Return where pixels land in the resized image: u' = (u + 0.5) s - 0.5.

    Frame: pixels (u, v), integer pixel centres. Units: pixels.

    Args:
        pixels (`numpy.ndarray` or `torch.Tensor` of shape `(..., 2)`): pixels of the original image.
        scale_x (`float`), scale_y (`float`): new width over old width, new height over old height.
    Returns:
        same kind and shape, floating.
    Raises:
        ValueError: if a scale is not positive.
    """
    _check_scales(scale_x, scale_y)
    pixels = _as_float(pixels)
    return (pixels + 0.5) * _like((scale_x, scale_y), pixels) - 0.5


def _check_scales(scale_x, scale_y):
    if not (scale_x > 0 and scale_y > 0):
        raise ValueError(f"scale_x is {scale_x} and scale_y is {scale_y}; expected positive numbers (new / old size).")


def euler_to_matrix(angles: Array, order: str) -> Array:
    """Return the rotation of three Euler angles.

    Frame: that of the box or camera which the angles turn. Units: radians. The numbers are stored as (z, x, y), called
    yaw, pitch, roll in the prompts. "zxy" is extrinsic, R = Ry(roll) Rx(pitch) Rz(yaw); "ZXY" is intrinsic,
    R = Rz(yaw) Rx(pitch) Ry(roll); both as scipy reads them.
    Source: GAP-MLLM's released boxes are "zxy"; EmbodiedScan's are "ZXY".

    Args:
        angles (`numpy.ndarray` or `torch.Tensor` of shape `(..., 3)`): angles about z, x and y.
        order (`str`): "zxy" or "ZXY".
    Returns:
        same kind, shape `(..., 3, 3)`.
    Raises:
        ValueError: if `order` is another one.
    """
    _check_order(order)
    angles = _as_float(angles)
    lib = _library(angles)
    cos, sin = lib.cos(angles), lib.sin(angles)
    zero, one = lib.zeros_like(cos[..., 0]), lib.ones_like(cos[..., 0])
    cz, cx, cy = cos[..., 0], cos[..., 1], cos[..., 2]
    sz, sx, sy = sin[..., 0], sin[..., 1], sin[..., 2]
    about_z = _matrix(lib, [[cz, -sz, zero], [sz, cz, zero], [zero, zero, one]])
    about_x = _matrix(lib, [[one, zero, zero], [zero, cx, -sx], [zero, sx, cx]])
    about_y = _matrix(lib, [[cy, zero, sy], [zero, one, zero], [-sy, zero, cy]])
    return about_y @ about_x @ about_z if order == "zxy" else about_z @ about_x @ about_y


def _matrix(lib, rows):
    return lib.stack([entry for row in rows for entry in row], -1).reshape(*rows[0][0].shape, 3, 3)


def matrix_to_euler(matrix: Array, order: str) -> Array:
    """Return the Euler angles (z, x, y) of rotations; the inverse of `euler_to_matrix`.

    Frame: as there. Units: radians; z and y in [-pi, pi], x in [-pi/2, pi/2]. Where x is +-pi/2 (gimbal lock) only a
    combination of z and y is determined: y is then 0, as in scipy.

    Args:
        matrix (`numpy.ndarray` or `torch.Tensor` of shape `(..., 3, 3)`): rotations.
        order (`str`): "zxy" or "ZXY".
    Returns:
        same kind, shape `(..., 3)`.
    Raises:
        ValueError: if `order` is another one or the shape does not fit.
    """
    _check_order(order)
    matrix = _as_float(matrix)
    _check_matrix("matrix", matrix, 3)
    if order == "ZXY":  # the transpose turns by the negative angles in the opposite sequence
        return -matrix_to_euler(matrix.swapaxes(-1, -2), "zxy")
    lib = _library(matrix)
    cos_x = lib.hypot(matrix[..., 1, 0], matrix[..., 1, 1])
    x = lib.arctan2(-matrix[..., 1, 2], cos_x)
    is_locked = cos_x < 1e-6
    z = lib.where(
        is_locked,
        lib.arctan2(-matrix[..., 0, 1], matrix[..., 0, 0]),
        lib.arctan2(matrix[..., 1, 0], matrix[..., 1, 1]),
    )
    y = lib.where(is_locked, lib.zeros_like(x), lib.arctan2(matrix[..., 0, 2], matrix[..., 2, 2]))
    return lib.stack([z, x, y], -1)


# Corners of a box in units of its half size: the four of the lower z first, counter-clockwise seen from +z.
BOX_CORNER_SIGNS = (
    (-1.0, -1.0, -1.0), (1.0, -1.0, -1.0), (1.0, 1.0, -1.0), (-1.0, 1.0, -1.0),
    (-1.0, -1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, 1.0), (-1.0, 1.0, 1.0),
)  # fmt: skip


def _check_boxes(boxes):
    if boxes.ndim < 1 or boxes.shape[-1] != 9:
        raise ValueError(
            f"boxes has shape {tuple(boxes.shape)}; expected (..., 9): x, y, z, full sizes dx, dy, dz, Euler angles."
        )


def box_corners(boxes: Array, euler_order: str) -> Array:
    """Return the eight corners of 9-DoF boxes, in the order of `BOX_CORNER_SIGNS`.

    Frame: that of the boxes. Units: metres, radians. Box: centre, full sizes along its own axes, angles (z, x, y).

    Args:
        boxes (`numpy.ndarray` or `torch.Tensor` of shape `(..., 9)`): the boxes.
        euler_order (`str`): "zxy" or "ZXY", see `euler_to_matrix`.
    Returns:
        same kind, shape `(..., 8, 3)`.
    Raises:
        ValueError: if the boxes do not hold nine numbers or the order is another one.
    """
    boxes = _as_float(boxes)
    _check_boxes(boxes)
    offsets = _like(BOX_CORNER_SIGNS, boxes) * boxes[..., None, 3:6] / 2  # (..., 8, 3)
    rotation = euler_to_matrix(boxes[..., 6:9], euler_order)
    return boxes[..., None, :3] + offsets @ rotation.swapaxes(-1, -2)


def transform_box(boxes: Array, transform: Array, euler_order: str) -> Array:
    """Move 9-DoF boxes by a rigid transform; their sizes do not change. Computed in float64.

    Frame: in a, out b for a transform from a to b. Units: metres, radians.

    Args:
        boxes (`numpy.ndarray` or `torch.Tensor` of shape `(*batch, ..., 9)`): the boxes.
        transform (same kind, shape `(*batch, 4, 4)`): the transforms.
        euler_order (`str`): "zxy" or "ZXY", of the boxes before and after.
    Returns:
        same kind, shape and floating dtype as `boxes`.
    Raises:
        ValueError: if a shape does not fit, the order is another one or the transform is not rigid.
    """
    boxes = _as_float(boxes)
    _check_boxes(boxes)
    _check_order(euler_order)
    check_rigid(transform)
    exact, transform = _as_float64(boxes), _as_float64(transform)
    _check_batch("transform", transform, exact)
    lib = _library(exact)
    centers = transform_points(transform, exact[..., :3])
    turn = _expand_batch(transform, exact.ndim - 1 - (transform.ndim - 2))[..., :3, :3]
    angles = matrix_to_euler(turn @ euler_to_matrix(exact[..., 6:9], euler_order), euler_order)
    return _like(lib.concatenate([centers, exact[..., 3:6], angles], -1), boxes)


# Of the points' spread: two directions below it are one and the same line, rounded.
_MIN_SIMILARITY_SPREAD = 1e-9


def fit_similarity(source: Array, target: Array, weights: Array | None = None, with_scale: bool = True) -> tuple:
    """Fit target = scale * rotation @ source + translation to pairs of points, by weighted least squares.

    The rotation has determinant +1 even where a mirrored one would fit better. Computed in float64. Outliers count
    like other points: give them less weight.
    Frame: from that of `source` to that of `target`. Units: those of the points; the scale has none.
    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (1991).

    Args:
        source (`numpy.ndarray` or `torch.Tensor` of shape `(*batch, N, 3)`): points.
        target (same kind and shape): where each of them should go.
        weights (same kind, shape `(*batch, N)`, *optional*): 0 or more; equal ones by default.
        with_scale (`bool`, defaults to True): False keeps the scale at 1.
    Returns:
        `tuple` of scale `(*batch)`, rotation `(*batch, 3, 3)` and translation `(*batch, 3)`, of the kind and floating
        dtype of `source`.
    Raises:
        ValueError: if a shape does not fit, a number is not finite, a weight is negative, or the points leave the
            rotation open: fewer than three, all on one line, or pairs that have nothing to do with each other.
    """
    source, target = _as_float(source), _as_float(target)
    if source.ndim < 2 or source.shape[-1] != 3 or tuple(source.shape) != tuple(target.shape):
        raise ValueError(
            f"source has shape {tuple(source.shape)} and target {tuple(target.shape)}; expected the same (..., N, 3)."
        )
    x, y = _as_float64(source), _as_float64(target)
    lib = _library(x)
    w = lib.ones_like(x[..., 0]) if weights is None else _as_float64(weights)
    if tuple(w.shape) != tuple(x.shape[:-1]):
        raise ValueError(f"weights has shape {tuple(w.shape)}; expected {tuple(x.shape[:-1])}, one for each pair.")
    for name, array in (("source", x), ("target", y), ("weights", w)):
        if not bool(lib.isfinite(array).all()):
            raise ValueError(f"{name} holds NaN or infinity; leave such pairs out.")
    if bool((w < 0).any()):
        raise ValueError(f"weights go down to {float(w.min())}; expected 0 or more.")
    w = w / lib.where(w.sum(-1) > 0, w.sum(-1), _like(1.0, w))[..., None]
    w = w[..., None]  # (*batch, N, 1)
    x_mean, y_mean = (w * x).sum(-2), (w * y).sum(-2)
    x_centred, y_centred = x - x_mean[..., None, :], y - y_mean[..., None, :]
    x_spread, y_spread = (w * x_centred**2).sum(-1).sum(-1), (w * y_centred**2).sum(-1).sum(-1)
    u, singular, vh = lib.linalg.svd((w * y_centred).swapaxes(-1, -2) @ x_centred)
    sign = lib.where(lib.linalg.det(u) * lib.linalg.det(vh) < 0, _like(-1.0, x), _like(1.0, x))
    is_open = singular[..., 1] + sign * singular[..., 2] <= _MIN_SIMILARITY_SPREAD * lib.sqrt(x_spread * y_spread)
    if bool(is_open.any()):
        index = int(is_open.reshape(-1).nonzero()[0][0])
        num_used = int((w.reshape(-1, x.shape[-2])[index] > 0).sum())
        raise ValueError(
            f"fit {index} of {num_used} weighted pairs leaves the rotation open; expected three or more points that "
            "are not on one line, neither in source nor in target, and that correspond."
        )
    signs = lib.stack([lib.ones_like(sign), lib.ones_like(sign), sign], -1)
    rotation = u @ (signs[..., None] * vh)
    scale = (singular * signs).sum(-1) / x_spread if with_scale else lib.ones_like(x_spread)
    translation = y_mean - scale[..., None] * (rotation @ x_mean[..., None])[..., 0]
    return _like(scale, source), _like(rotation, source), _like(translation, source)
