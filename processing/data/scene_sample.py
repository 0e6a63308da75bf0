"""A row of the schema as typed Python: pictures, metres, matrices, and boxes and points in the camera one asks for.

Fields are described in schema.py. Frame: OpenCV cameras; boxes are 9-DoF with their own Euler order. Units: metres,
radians, pixels with integer centres.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import datasets
import numpy as np
from PIL import Image

from ..camera_geometry_gap_mllm import invert_rigid, transform_box, transform_points
from ..json_depth import decode_json
from ..prompts_gap_mllm import IMAGE_TAG, SYSTEM_PROMPT, split_image_tags
from ..view_files_gap_mllm import Orientation, open_picture
from ..visual_prompt_gap_mllm import CrossSize, draw_scene_marks, to_rgb_image
from .file_guards import check_pixel_count, refuse_special_file
from .former_names import with_task_names
from .instance_maps import InstanceMap
from .record_errors import RecordError, naming_record
from .schema import complete_row
from .source_files import encode_png
from .truth import Truth
from .upright_pictures import picture_orientation, store_upright, stored_picture_size


WORLD_FRAMES = ("scan", "aligned")
NOT_STORED = ("truth", "cross_size", "scene_boxes")  # fields of a sample that are in no row
MILLIMETRES = 1000.0  # depth that is in memory in metres is stored so


@dataclass(frozen=True)
class View:
    """One view. Pictures are decoded when first asked for.

    Args:
        picture (`PIL.Image.Image`, `np.ndarray`, `str` or `dict`, *optional*): decoded, a path, or bytes and path as
            stored.
        depth_picture: the same of the depth map; `depth_scale` units are a metre. An array of floats is in metres as
            it is, and needs no `depth_scale`.
        image_path (`str`, *optional*), frame_id (`int`, *optional*), timestamp (`float`, *optional*): see schema.py.
        intrinsics (`np.ndarray` of shape `(3, 3)`, *optional*), depth_intrinsics (the same, of the depth map,
            *optional*),
        camera_to_world (`np.ndarray` of shape `(4, 4)`, *optional*)
        instances (`InstanceMap`, *optional*): what each pixel shows, where that is known exactly; not stored.
    """

    picture: object = None
    depth_picture: object = None
    depth_scale: float | None = None
    image_path: str | None = None
    frame_id: int | None = None
    timestamp: float | None = None
    intrinsics: np.ndarray | None = None
    depth_intrinsics: np.ndarray | None = None
    camera_to_world: np.ndarray | None = None
    instances: InstanceMap | None = None

    @cached_property
    def image(self) -> Image.Image:
        """The upright picture, RGB. Raises RecordError, with the path, if there is none or it cannot be decoded."""
        return _decode(self.picture, self.image_path, "image", to_rgb_image)

    @cached_property
    def depth_m(self) -> np.ndarray | None:
        """`(H, W)` float32 z-depth in metres, 0 where nothing was measured; None without a depth map.

        Raises RecordError if the map cannot be decoded, is no 16-bit map, or its `depth_scale` is not known.
        """
        if self.depth_picture is None:
            return None
        if self.is_metric:
            return np.asarray(self.depth_picture, np.float32)
        if not self.depth_scale or self.depth_scale < 0:
            raise RecordError(
                f"there is a depth map, but depth_scale is {self.depth_scale}; nothing is assumed: give the number of "
                "its units in a metre, as 1000 for millimetres.",
                "depth_scale",
            )
        values = _decode(self.depth_picture, self.image_path, "depth", _read_depth)
        if values.ndim != 2 or values.dtype.kind not in "iu" or values.dtype == np.uint8:
            raise RecordError(
                f"the depth map is {values.dtype} of shape {values.shape}, expected one 16-bit channel.", "depth"
            )
        return values.astype(np.float32) / np.float32(self.depth_scale)

    @property
    def is_metric(self) -> bool:
        """Whether the depth map is in memory, in metres, and not in units of `depth_scale`."""
        return isinstance(self.depth_picture, np.ndarray) and self.depth_picture.dtype.kind == "f"

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture; where it is not decoded, of its header. Raises as `image`."""
        if isinstance(self.picture, np.ndarray):
            return self.picture.shape[1], self.picture.shape[0]
        if isinstance(self.picture, dict | str) and "image" not in self.__dict__:
            try:
                return picture_orientation(self.picture).size(stored_picture_size(self.picture))
            except (RecordError, TypeError):
                pass  # `image` says what is wrong
        return self.image.size

    def encoded(self) -> "View":
        """The view with its pictures as they are stored: rows that share it need not encode it again.

        Files stay files, and what is in memory becomes PNG; a picture that EXIF says to turn is stored upright, see
        `store_upright`, since the numbers of a view are those of the upright picture.
        """
        depth, scale = self.depth_picture, self.depth_scale
        if self.is_metric:
            depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0)
            scale = min(MILLIMETRES, float(np.float32(65535 / max(depth.max(initial=0), 1e-9))))  # farther: coarser
            depth = np.minimum(np.round(depth * scale), 65535).astype(np.uint16)
        elif not picture_orientation(depth).is_upright:
            depth = _decode(depth, self.image_path, "depth", _read_depth)
        return replace(
            self, picture=_stored_picture(self.picture), depth_picture=_stored_picture(depth), depth_scale=scale
        )

    def row(self) -> dict:
        """The view as stored in a row."""
        stored = self.encoded()
        fields = {name: getattr(stored, name) for name in self.__dataclass_fields__ if name != "instances"}
        image, depth = fields.pop("picture"), fields.pop("depth_picture")
        return {**fields, "image": image, "depth": depth}


@dataclass(frozen=True)
class Box:
    """A 9-DoF box: `numbers` (9,) are centre, full size and angles of `euler_order` in `frame`; see schema.py.

    `attributes` are words of the source that are true of the object, by what they tell: "color" (with the label it
    names the object), "size" ("tall"), "place" ("against the wall"). They are not stored.
    """

    numbers: np.ndarray
    euler_order: str
    frame: str
    frame_index: int | None = None
    label: str | None = None
    instance_id: str | None = None
    role: str | None = None
    in_reference: bool | None = None
    attributes: dict[str, str] = field(default_factory=dict)

    def row(self) -> dict:
        """The box as stored in a row."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "attributes"}
        numbers = fields.pop("numbers")
        return {**fields, "center": numbers[:3], "size": numbers[3:6], "euler": numbers[6:9]}


@dataclass(frozen=True)
class Point:
    """A 3D point, and the pixel of `view` that sees it; `frame` "camera" is the camera of view 0. See schema.py."""

    view: int | None
    pixel: tuple[float, float] | None
    xyz: np.ndarray | None
    frame: str | None = "camera"
    label: str | None = None
    instance_id: str | None = None
    confidence: float | None = None

    def row(self) -> dict:
        """The point as stored in a row."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class SceneMark:
    """A mark to draw on a view: kind "cross", "point" or "box"; `xy` in pixels or in thousandths of the picture."""

    view: int
    kind: str
    color: str
    xy: tuple[float, ...]
    unit: str = "pixel"
    text: str | None = None

    def row(self) -> dict:
        """The mark as stored in a row."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class SceneSample:
    """One question about the views of one scene; the typed form of a row, from its source to the batch.

    `truth` is what the question was made from, `answer` is its text. `cross_size` is how large its crosses are drawn
    where training varies that; None leaves it to the model. `scene_boxes` are those of the whole scene that it asks
    about, `boxes` those of the question. None of these is stored.

    Example:
        ```python
        >>> from gap_mllm.processing.data import SceneSample, load_multiview
        >>> options = {"num_train": 1, "num_selection": 0, "num_test": 0, "cache_dir": "cache"}
        >>> rows = load_multiview("synthetic_rooms", split="train", **options)
        >>> sample = SceneSample.open(rows, 0)  # no picture is decoded before it is asked for
        >>> sample.views[0].depth_m.shape
        (128, 128)
        >>> boxes = [sample.box_in_view(box, 0) for box in sample.boxes]  # camera of view 0
        >>> [turn["role"] for turn in sample.messages()]
        ['system', 'user', 'assistant']

        ```
    """

    id: str | None = None
    source: str | None = None
    split: str | None = None
    task: str | None = None
    scene_id: str | None = None
    views: tuple[View, ...] = ()
    video: str | None = None
    world_to_aligned: np.ndarray | None = None
    pose_frame: str | None = None
    system: str | None = None
    question: str | None = None
    answer: str | None = None
    references: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    marks: tuple[SceneMark, ...] = ()
    target_frame: int | None = None
    choices: tuple[str, ...] = ()
    choice_index: int | None = None
    number: float | None = None
    question_type: str | None = None
    metadata: dict = field(default_factory=dict)
    truth: Truth | None = None
    cross_size: CrossSize | None = None
    scene_boxes: tuple[Box, ...] = ()

    @classmethod
    def open(cls, rows: datasets.Dataset | Sequence, index: int) -> "SceneSample":
        """Read one of several rows without decoding its pictures, whatever the format of the data set.

        Args:
            rows (`datasets.Dataset`, or sequence of `dict` or `SceneSample`): rows of the schema; a data set with a
                transform of its own is read through it.
            index (`int`)
        Returns:
            `SceneSample`: pictures and depth maps are decoded when first asked for.
        Raises:
            IndexError: if there is no such row. RecordError: if metadata is no JSON.
        """
        if isinstance(rows, datasets.Dataset) and rows.format["type"] != "custom":
            return cls.from_row(rows.with_format("arrow")[index].to_pylist()[0])
        row = rows[index]
        return row if isinstance(row, cls) else cls.from_row(row)

    @classmethod
    def from_row(cls, row: dict) -> "SceneSample":
        """Read a row of the schema, prepared, streamed or from parquet.

        What a row says of a picture that EXIF says to turn is turned with it, see `upright_row`. `datasets` turns the
        pictures that it decodes, and drops their EXIF: rows of others are read as they are stored (`open`).

        Args:
            row (`dict`): row as `datasets` gives it; pictures may be decoded or not.
        Returns:
            `SceneSample`.
        Raises:
            RecordError: if metadata is no JSON, or nested too deep; as `upright_row`.
        """
        from .upright_rows import upright_sample  # which is about samples

        sample = cls.as_stored(row)
        try:
            return upright_sample(sample)
        except RecordError as error:
            raise error.locate(sample.source, None, sample.id) from None

    @classmethod
    def as_stored(cls, row: dict) -> "SceneSample":
        """Read a row as `from_row`, with all numbers as they are in the row: those of pictures before any turn."""
        fields = {name: row.get(name) for name in cls.__dataclass_fields__ if name not in NOT_STORED}
        with naming_record(row.get("source"), row.get("id")):
            fields["views"] = tuple(_view(view) for view in row.get("views") or ())
            fields["boxes"] = tuple(_box(box) for box in row.get("boxes") or ())
            fields["points"] = tuple(_point(point) for point in row.get("points") or ())
            fields["marks"] = tuple(SceneMark(**{**mark, "xy": tuple(mark["xy"])}) for mark in row.get("marks") or ())
            fields["world_to_aligned"] = _matrix(row.get("world_to_aligned"))
        fields["references"], fields["choices"] = tuple(row.get("references") or ()), tuple(row.get("choices") or ())
        try:
            fields["metadata"] = decode_json(row["metadata"]) if row.get("metadata") else {}
        except ValueError as error:
            raise RecordError(f"metadata is no JSON: {error}.", "metadata", record_id=row.get("id")) from None
        return cls(**{**fields, **with_task_names(fields["task"], fields["question_type"], fields["metadata"])})

    def to_row(self) -> dict:
        """Return the row again; decoded pictures are stored as PNG."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in NOT_STORED}
        for name in ("views", "boxes", "points", "marks"):
            fields[name] = [part.row() for part in fields[name]]
        for name in ("references", "choices"):
            fields[name] = list(fields[name])
        return complete_row(**fields)

    def frame_to_camera(self, frame: str, frame_index: int | None, view: int) -> np.ndarray:
        """The rigid transform from the frame of a box or point to the camera of a view.

        Args:
            frame (`str`): "camera", "scan" or "aligned".
            frame_index (`int`, *optional*): which view's camera, for "camera"; None is view 0.
            view (`int`): index of the view to go to.
        Returns:
            `np.ndarray` of shape `(4, 4)`, float64.
        Raises:
            RecordError: if a view, a pose or `world_to_aligned` is needed and not there, or the frame is unknown.
        """
        if frame == "camera":
            index = frame_index or 0
            if index == view:
                self._check_view(view)
                return np.eye(4)
            return invert_rigid(self._pose(view)) @ self._pose(index)
        if frame not in WORLD_FRAMES:
            raise RecordError(
                f"unknown frame {frame!r}; known are camera, scan and aligned.", "frame", record_id=self.id
            )
        return invert_rigid(self.camera_to(frame, view))

    def camera_to(self, world: str, view: int) -> np.ndarray:
        """The pose of a view in the "scan" or the "aligned" world, `(4, 4)`; raises RecordError as above."""
        pose = self._pose(view)
        if self.pose_frame == world:
            return pose
        if self.world_to_aligned is None:
            raise RecordError(
                f"poses are in the {self.pose_frame!r} world, but world_to_aligned is not there to reach {world!r}.",
                "world_to_aligned",
                record_id=self.id,
            )
        return (self.world_to_aligned if world == "aligned" else invert_rigid(self.world_to_aligned)) @ pose

    def _check_view(self, view: int) -> None:
        if not 0 <= view < len(self.views):
            raise RecordError(
                f"view {view} is spoken of, but there are {len(self.views)} (counted from 0).",
                "views",
                record_id=self.id,
            )

    def _pose(self, view: int) -> np.ndarray:
        self._check_view(view)
        pose = self.views[view].camera_to_world
        if pose is None:
            raise RecordError(f"view {view} has no pose.", "camera_to_world", record_id=self.id)
        return pose

    def box_in_view(self, box: Box, view: int = 0) -> np.ndarray:
        """A box in the camera of a view, `(9,)`, in the Euler order of the box; raises as `frame_to_camera`.

        Numbers `(K, 9)` are as many boxes of one frame and order, which takes no longer than one.
        """
        if box.frame == "camera" and (box.frame_index or 0) == view:  # the angles stay exactly as they are
            self._check_view(view)
            return np.array(box.numbers, np.float64)
        return transform_box(box.numbers, self.frame_to_camera(box.frame, box.frame_index, view), box.euler_order)

    def point_in_view(self, point: Point, view: int = 0) -> np.ndarray:
        """A point in the camera of a view, `(3,)`; raises as `frame_to_camera`, and if its place is not known."""
        if point.xyz is None:
            raise RecordError("the point has no xyz, as in a question without answer.", "xyz", record_id=self.id)
        return transform_points(self.frame_to_camera(point.frame, 0, view), point.xyz)

    def marked_images(self, cross_size: CrossSize | None = None) -> list[Image.Image]:
        """The pictures of all views with the marks drawn on them, in full size, ready for `messages`.

        Args:
            cross_size (`CrossSize`, *optional*): size that the model knows, `processor.cross_size`; the sample's own
                goes before it.
        Raises:
            RecordError: if a picture cannot be decoded, or a mark cannot be drawn on it.
        """
        try:
            size = self.cross_size or cross_size
            return draw_scene_marks([view.image for view in self.views], self.marks, cross_size=size)
        except ValueError as error:
            if isinstance(error, RecordError):
                raise
            raise RecordError(str(error), "marks", self.source, record_id=self.id) from None

    def messages(self, images: list | None = None, with_answer: bool = True) -> list[dict]:
        """Chat messages of the question: `<image>` tags in its text place the views, else they come first.

        Args:
            images (`list`, *optional*): pictures to show instead of `views[i].image`, as with marks drawn.
            with_answer (`bool`, defaults to True): whether the assistant's turn follows.
        Returns:
            `list[dict]`: content is always a list of typed parts.
        Raises:
            ValueError: if tags and views differ in number, or an answer is asked for and there is none.
        """
        images = [view.image for view in self.views] if images is None else list(images)
        question = self.question or ""
        if IMAGE_TAG in question:
            content = split_image_tags(question, images)
        else:
            content = [{"type": "image", "image": image} for image in images] + [{"type": "text", "text": question}]
        messages = [
            {"role": "system", "content": [{"type": "text", "text": self.system or SYSTEM_PROMPT}]},
            {"role": "user", "content": content},
        ]
        if with_answer:
            if self.answer is None:
                raise ValueError(f"sample {self.id!r} has no answer; ask for messages with with_answer=False.")
            messages.append({"role": "assistant", "content": [{"type": "text", "text": self.answer}]})
        return messages


def _view(row: dict) -> View:
    matrices = {name: _matrix(row.get(name)) for name in ("intrinsics", "depth_intrinsics", "camera_to_world")}
    others = {name: row.get(name) for name in ("image_path", "frame_id", "timestamp", "depth_scale")}
    return View(picture=row.get("image"), depth_picture=row.get("depth"), **others, **matrices)


def _box(row: dict) -> Box:
    numbers = np.concatenate([np.asarray(row[name], np.float64) for name in ("center", "size", "euler")])
    names = ("euler_order", "frame", "frame_index", "label", "instance_id", "role", "in_reference")
    return Box(numbers, **{name: row.get(name) for name in names})


def _point(row: dict) -> Point:
    fields = {name: row.get(name) for name in Point.__dataclass_fields__}
    fields["pixel"] = None if fields["pixel"] is None else tuple(fields["pixel"])
    fields["xyz"] = None if fields["xyz"] is None else np.asarray(fields["xyz"], np.float64)
    return Point(**fields)


def _matrix(values):
    return None if values is None else np.asarray(values, dtype=np.float64)


def _decode(picture, path, name, read):
    """Decode what a row holds; errors name the path."""
    if picture is None:
        raise RecordError(f"the view {path or ''} has no picture.".replace("  ", " "), name, file=path)
    if isinstance(picture, dict):
        path = picture.get("path") or path
        if picture.get("bytes") is not None:
            picture = io.BytesIO(picture["bytes"])
        else:
            picture = path
    elif isinstance(picture, str):
        path = picture
    where = f"the {name} {path or 'of a view'}"
    if isinstance(picture, str):
        refuse_special_file(picture, name)
    try:
        if not isinstance(picture, Image.Image | np.ndarray):
            picture = open_picture(picture, where)
            check_pixel_count(picture.size, path, name)
            picture.load()
        return read(picture, where)
    except RecordError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # PNG raises SyntaxError
        raise RecordError(f"{where} cannot be decoded: {error}.", name, file=path) from None


def _read_depth(picture, where):
    """The values of a depth map, turned by its own EXIF if it has any."""
    values = np.asarray(picture)
    return Orientation.of_picture(picture).array(values) if isinstance(picture, Image.Image) else values


def _stored_picture(picture):
    """A picture as the Image feature stores it: its file, or PNG with the very same pixels."""
    if picture is None:
        return None
    if not picture_orientation(picture).is_upright:
        return store_upright(picture)
    if isinstance(picture, dict):
        return picture
    if isinstance(picture, str):
        return {"path": picture, "bytes": None}
    if isinstance(picture, np.ndarray):
        return encode_png(picture)
    if getattr(picture, "filename", None):
        return {"path": picture.filename, "bytes": None}
    if picture.mode not in ("L", "RGB", "RGBA") and not picture.mode.startswith("I"):
        picture = to_rgb_image(picture)  # palettes, CMYK: an array of their values is no picture
    array = np.asarray(picture)
    return encode_png(_as_16_bit(array) if picture.mode.startswith("I") else array)


def _as_16_bit(array):
    """32-bit integers that fit into 16 bits, as older Pillow reads a depth map; others are left to `encode_png`."""
    values = array.astype(np.uint16)
    return values if (values == array).all() else array
