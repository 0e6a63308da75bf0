"""Changes of the pictures alone: colours, crops and sizes. Intrinsics, depth, marks and pixels stay true to them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from ...camera_geometry_gap_mllm import scale_intrinsics, scale_pixels
from ..scene_sample import SceneMark, SceneSample, View
from .answers import follow_views
from .texts import AugmentationRefused, check_places, check_task, refuse
from .visible_boxes import depth_camera, find_lost


CROP_ATTEMPTS = 4


def depth_values(view: View) -> np.ndarray:
    """The depth map of a view as it is held: in metres, or whole numbers, `depth_scale` of which are a metre."""
    if view.is_metric:
        return view.depth_picture
    values = replace(view, depth_scale=1.0).depth_m
    return values.astype(np.uint16 if values.max(initial=0) < 2**16 else np.int32)


def mark_pixels(mark: SceneMark, size: tuple[int, int]) -> tuple[float, ...]:
    """A mark's numbers in pixels of a picture of `size` (width, height); points and crosses on whole ones.

    Thousandths are read as `draw_scene_marks` does.
    """
    if mark.unit == "pixel":
        return tuple(mark.xy)
    scaled = [value / 1000 * length for value, length in zip(mark.xy, tuple(size) * 2, strict=False)]
    if mark.kind == "box":
        return tuple(scaled)
    return tuple(float(min(int(value), length - 1)) for value, length in zip(scaled, size, strict=True))


def place_mark(mark: SceneMark, pixels: Sequence[float], size: tuple[int, int]):
    """Return the mark at other pixels of a picture of `size`, in its own unit."""
    if mark.unit == "pixel":
        return replace(mark, xy=tuple(float(value) for value in pixels))
    if mark.kind != "box":  # to the middle of the pixel: thousandths are cut to whole pixels when drawn
        pixels = [value + 0.5 for value in pixels]
    return replace(
        mark, xy=tuple(float(value * 1000 / length) for value, length in zip(pixels, tuple(size) * 2, strict=False))
    )


def crop_views(sample: SceneSample, windows: Sequence, check_visibility: bool = True):
    """Cut a window out of every view; intrinsics, depth maps, marks and pixels follow.

    Depth maps of another size are cut to the whole depth pixels that cover the window, and always have intrinsics of
    their own afterwards; values are not resampled. Objects of detection answers that are no longer seen are removed.
    Frame: pixels with integer centres; nothing moves in 3D. Units: pixels.

    Args:
        sample (`SceneSample`): sample; not changed.
        windows: left, top, width and height in whole pixels of the picture; one window for all views, or a list with
            one for each (None leaves a view as it is).
        check_visibility (`bool`, defaults to True): look into the depth maps whether objects are still seen, as
            `drop_views` does.
    Returns:
        `SceneSample`.
    Raises:
        ValueError: if there is not one window for each view, or one does not lie in its picture.
        AugmentationRefused: if a mark or point leaves its window, the texts hold coordinates or speak of places in the
            picture, what is asked for would no longer be visible, a depth map cannot be cut, or the task is not known.

    Example:
        ```python
        >>> from gap_mllm.processing.data import make_question, render_room
        >>> from gap_mllm.processing.data.augmentation import crop_views
        >>> sample = make_question(render_room(0), "dense_caption")
        >>> crop_views(sample, (4, 4, 120, 120)).views[0].size
        (120, 120)

        ```
    """
    step = "crop_views"
    check_task(step, sample)
    windows = _windows(sample, windows)
    check_places(step, sample)
    sizes = [view.image.size if window else None for view, window in zip(sample.views, windows, strict=True)]
    marks = [_crop_mark(step, sample, mark, windows[mark.view], sizes[mark.view]) for mark in sample.marks]
    points = [_crop_point(step, sample, point, windows) for point in sample.points]
    views = [
        _crop_view(step, sample, index, view, window) if window else view
        for index, (view, window) in enumerate(zip(sample.views, windows, strict=True))
    ]
    cropped = replace(sample, views=tuple(views), marks=tuple(marks), points=tuple(points))
    lost = find_lost(step, sample, cropped) if check_visibility and any(windows) else set()
    return follow_views(step, sample, cropped, {index: index for index in range(len(views))}, lost)


def random_crop(
    sample: SceneSample,
    rng: np.random.Generator,
    min_share: float = 0.8,
    is_shared: bool = False,
    check_visibility: bool = True,
):
    """Crop every view at random, so that its marks and points stay inside.

    Where the result is refused (see `crop_views`), larger windows are tried, four in all.

    Args:
        sample (`SceneSample`), rng (`numpy.random.Generator`)
        min_share (`float`, defaults to 0.8): smallest side of a window, as a share of the picture's side.
        is_shared (`bool`, defaults to False): one window (in shares of the sides) for all views that have no marks.
        check_visibility (`bool`, defaults to True): see `crop_views`.
    Returns:
        `SceneSample`.
    Raises:
        ValueError: if the share is not in 0..1, without 0.
        AugmentationRefused: as `crop_views`, for the last and largest windows.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.processing.data import make_question, render_room
        >>> from gap_mllm.processing.data.augmentation import random_crop
        >>> sample = make_question(render_room(0), "reconstruction")
        >>> cropped = random_crop(sample, np.random.default_rng(0))
        >>> cropped.answer == sample.answer, cropped.views[0].size < sample.views[0].size
        (True, True)

        ```
    """
    if not 0 < min_share <= 1:
        raise ValueError(f"min_share is {min_share}; expected more than 0 and at most 1.")
    check_task("crop_views", sample)
    for attempt in range(CROP_ATTEMPTS):
        least = 1 - (1 - min_share) * (1 - attempt / CROP_ATTEMPTS)
        shared = rng.uniform([least, 0, 0], 1)
        windows = [
            _draw_window(sample, index, shared if is_shared else rng.uniform([least, 0, 0], 1))
            for index in range(len(sample.views))
        ]
        try:
            return crop_views(sample, windows, check_visibility)
        except AugmentationRefused:
            if attempt == CROP_ATTEMPTS - 1:
                raise


def resize_views(sample: SceneSample, sizes: list[tuple[int, int]]):
    """Resize the pictures of all views (bicubic, with antialiasing); intrinsics, marks and pixels follow.

    Depth maps stay as they are and have intrinsics of their own afterwards: nothing is interpolated. Pixels of points
    become fractions; marks in pixels go to the nearest whole pixel, since they are drawn there.
    Frame: pixels with integer centres, u' = (u + 0.5) s - 0.5; nothing moves in 3D. Units: pixels.

    Args:
        sample (`SceneSample`): sample; not changed.
        sizes: width and height in pixels; one pair for all views, or a list with one for each.
    Returns:
        `SceneSample`.
    Raises:
        ValueError: if there is not one size for each view, or a side is below 1.
        AugmentationRefused: if the texts hold coordinates, or there are no views.

    Example:
        ```python
        >>> from gap_mllm.processing.data import make_question, render_room
        >>> from gap_mllm.processing.data.augmentation import resize_views
        >>> sample = resize_views(make_question(render_room(0), "reconstruction"), (64, 64))
        >>> sample.views[0].size, sample.views[0].depth_m.shape  # depth maps stay as they are
        ((64, 64), (128, 128))

        ```
    """
    step = "resize_views"
    if not sample.views:
        raise refuse(step, sample, "it has no views yet; a video has to be sampled first.")
    sizes = _per_view("sizes", sizes, 2, len(sample.views))
    if any(size is None or min(size) < 1 for size in sizes):
        raise ValueError(f"sizes is {sizes}; expected at least 1 pixel a side.")
    check_places(step, sample)
    scales = [
        (size[0] / view.image.width, size[1] / view.image.height)
        for view, size in zip(sample.views, sizes, strict=True)
    ]
    views = [_resize_view(*parts) for parts in zip(sample.views, sizes, scales, strict=True)]
    marks = [
        mark if mark.unit == "permille" else _resize_mark(mark, scales[mark.view], sizes[mark.view])
        for mark in sample.marks
    ]
    points = [
        point
        if point.view is None or point.pixel is None
        else replace(point, pixel=tuple(map(float, scale_pixels(np.array(point.pixel, float), *scales[point.view]))))
        for point in sample.points
    ]
    return replace(sample, views=tuple(views), marks=tuple(marks), points=tuple(points))


def _per_view(name, values, length, num_views):
    """One entry for all views, or a list with one (or None) for each."""
    values = list(values)
    if len(values) == length and all(isinstance(value, int | np.integer) for value in values):
        values = [values] * num_views
    if len(values) != num_views or not all(value is None or _is_whole(value, length) for value in values):
        raise ValueError(f"{name} is {values}; expected {length} whole numbers, or a list with so many for each view.")
    return [None if value is None else tuple(int(number) for number in value) for value in values]


def _is_whole(values, length):
    return np.shape(values) == (length,) and all(int(value) == value for value in values)


def _windows(sample, windows):
    windows = _per_view("windows", windows, 4, len(sample.views))
    for index, window in enumerate(windows):
        if window is None:
            continue
        (left, top, width, height), size = window, sample.views[index].image.size
        if not (left >= 0 and top >= 0 and width >= 1 and height >= 1):
            raise ValueError(f"window {window} of view {index} is no left, top, width and height.")
        if left + width > size[0] or top + height > size[1]:
            raise ValueError(f"window {window} of view {index} does not lie in its picture of {size[0]} x {size[1]}.")
    return windows


def _draw_window(sample, index, draw):
    """A window that holds the marks and points of a view; `draw` is the share of the sides and the place, in 0..1."""
    size = sample.views[index].image.size
    xs = [mark_pixels(mark, size) for mark in sample.marks if mark.view == index]
    xs += [point.pixel for point in sample.points if point.view == index and point.pixel is not None]
    starts, lengths = [], []
    for axis, side in enumerate(size):
        values = [value for pixels in xs for value in pixels[axis::2]]
        low = max(int(np.floor(min(values, default=side))), 0)
        high = min(int(np.ceil(max(values, default=-1))), side - 1)
        length = min(max(round(draw[0] * side), high - low + 1, 1), side)
        first, last = max(high + 1 - length, 0), min(low, side - length)
        starts.append(first + int(draw[1 + axis] * (last - first + 1) * (1 - 1e-9)))
        lengths.append(length)
    return (*starts, *lengths)


def _crop_mark(step, sample, mark, window, size):
    if window is None:
        return mark
    left, top, width, height = window
    pixels = np.array(mark_pixels(mark, size)) - np.array([left, top] * 2)[: len(mark.xy)]
    last = np.array([width - 1, height - 1] * 2)[: len(mark.xy)]
    edge = 1.0 if mark.kind == "box" else 0.0  # an outline may end at the border of the last pixel
    if (pixels < 0).any() or (pixels > last + edge).any():
        raise refuse(
            step, sample, f"its {mark.kind} mark at {mark.xy} leaves the window {window} of view {mark.view}."
        )
    return place_mark(mark, pixels, (width, height))


def _crop_point(step, sample, point, windows):
    if point.view is None or point.pixel is None or windows[point.view] is None:
        return point
    left, top, width, height = windows[point.view]
    x, y = point.pixel[0] - left, point.pixel[1] - top
    if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
        window = windows[point.view]
        raise refuse(
            step, sample, f"its point at pixel {point.pixel} leaves the window {window} of view {point.view}."
        )
    return replace(point, pixel=(float(x), float(y)))


def _crop_view(step, sample, index, view, window):
    left, top, width, height = window
    changes = {"picture": view.image.crop((left, top, left + width, top + height))}
    if view.intrinsics is not None:
        changes["intrinsics"] = _shift(view.intrinsics, left, top)
    if view.depth_m is not None:
        x, y, depth_width, depth_height = _depth_window(step, sample, index, view, window)
        changes["depth_picture"] = depth_values(view)[y : y + depth_height, x : x + depth_width]
        camera = depth_camera(view)
        changes["depth_intrinsics"] = None if camera is None else _shift(camera, x, y)
    if view.instances is not None:
        changes["instances"] = view.instances.cropped(window, view.size)
    return replace(view, **changes)


def _depth_window(step, sample, index, view, window):
    """The whole depth pixels that cover a window of the picture."""
    height, width = view.depth_m.shape
    camera, (left, top, columns, rows) = depth_camera(view), window
    if (width, height) == view.image.size and (
        view.intrinsics is None or np.allclose(camera, view.intrinsics, atol=1e-4)
    ):
        return window
    if camera is None or view.intrinsics is None:
        raise refuse(step, sample, f"view {index} has a depth map of another size and no intrinsics to cut it by.")
    corners = np.array([[x - 0.5, y - 0.5, 1.0] for x in (left, left + columns) for y in (top, top + rows)])
    moved = corners @ (camera @ np.linalg.inv(view.intrinsics)).T
    moved = moved[:, :2] / moved[:, 2:] + 0.5  # to edges between pixels
    first = np.maximum(np.floor(moved.min(0) + 1e-4), 0).astype(int)
    last = np.minimum(np.ceil(moved.max(0) - 1e-4), [width, height]).astype(int)
    if (last <= first).any():
        raise refuse(step, sample, f"the depth map of view {index} does not reach into window {window}.")
    return (*map(int, first), *map(int, last - first))


def _shift(intrinsics, left, top):
    shifted = np.array(intrinsics, dtype=np.float64)
    shifted[0, 2] -= left
    shifted[1, 2] -= top
    return shifted


def _resize_view(view, size, scale):
    changes = {"picture": view.image.resize(size, Image.Resampling.BICUBIC)}
    if view.intrinsics is not None:
        changes["intrinsics"] = scale_intrinsics(view.intrinsics, *scale)
        if view.depth_picture is not None:
            changes["depth_intrinsics"] = depth_camera(view)
    return replace(view, **changes)


def _resize_mark(mark, scale, size):
    pixels = scale_pixels(np.array(mark.xy, float).reshape(-1, 2), *scale).reshape(-1)
    if mark.kind != "box":
        pixels = np.clip(np.rint(pixels), 0, np.array(size) - 1)
    return replace(mark, xy=tuple(map(float, pixels)))
