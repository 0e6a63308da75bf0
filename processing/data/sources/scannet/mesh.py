"""Boxes of objects out of ScanNet's own annotation: the mesh, its over-segmentation, and the aggregation into objects.

`<scene>_vh_clean_2.ply`, `<scene>_vh_clean_2.0.010000.segs.json`, `<scene>.aggregation.json`. Units: metres.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ....camera_geometry_gap_mllm import transform_points
from ...read_log import TrackedPath
from ...record_errors import RecordError
from ...source_files import read_json, refuse_lfs_pointer
from .scan_files import aabb_box, read_segment_groups


_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_PLY_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER_BYTES = 65536


def mesh_boxes(
    folder: Path, world_to_aligned: np.ndarray | None = None, on_no_box: Callable | None = None
) -> list[dict] | None:
    """The box of each object of a scene: the axis-aligned bounds of its vertices.

    Frame: aligned where `world_to_aligned` is given, else scan. Units: metres.

    Args:
        folder (`Path`): `scans/<scene>`.
        world_to_aligned (`np.ndarray` of shape `(4, 4)`, *optional*)
        on_no_box (`Callable[[str]]`, *optional*): called with the id of an object whose vertices span no volume.
    Returns:
        `list[dict]`: boxes of the schema by aggregation order, or None where one of the three files is not there.
    Raises:
        RecordError: if a file cannot be read, or the three do not belong together.
    """
    folder = TrackedPath(folder)
    mesh = folder / f"{folder.name}_vh_clean_2.ply"
    segments_file = folder / f"{folder.name}_vh_clean_2.0.010000.segs.json"
    groups_file = folder / f"{folder.name}.aggregation.json"
    if not (mesh.is_file() and segments_file.is_file() and groups_file.is_file()):
        return None
    vertices, segments = read_ply_vertices(mesh), _segment_of_vertex(segments_file)
    if len(vertices) != len(segments):
        raise RecordError(
            f"{len(segments)} vertices have a segment, but {mesh.name} has {len(vertices)}: the files are not of one "
            "mesh.",
            "segIndices",
            file=str(segments_file),
        )
    if world_to_aligned is not None:
        vertices = transform_points(world_to_aligned, vertices)
    frame, boxes = "scan" if world_to_aligned is None else "aligned", []
    for object_id, label, members in read_segment_groups(groups_file):
        points = vertices[np.isin(segments, members)]
        if not len(points) or (points.max(0) <= points.min(0)).any():
            if on_no_box is not None:
                on_no_box(object_id)
            continue
        boxes.append(aabb_box(points.min(0), points.max(0), object_id, label, frame))
    return boxes


def _segment_of_vertex(file):
    record = read_json(file)
    values = record.get("segIndices") if isinstance(record, dict) else None
    if not isinstance(values, list) or not all(isinstance(value, int) for value in values):
        raise RecordError("expected the list segIndices of whole numbers.", "segIndices", file=str(file))
    return np.array(values, dtype=np.int64)


def read_ply_vertices(path: Path) -> np.ndarray:
    """Read the positions of a PLY mesh, text or binary; faces and colours are left out.

    Frame: of the file. Units: of the file.

    Returns:
        `np.ndarray` of shape `(n, 3)`, float64.
    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: if it is no PLY whose first element is vertices with x, y, z, or ends too soon.
    """
    refuse_lfs_pointer(path)
    with open(path, "rb") as stream:
        kind, count, fields = _ply_header(stream, path)
        names = [name for name, _ in fields]
        if kind == "ascii":
            rows = [stream.readline().split()[: len(names)] for _ in range(min(count, Path(path).stat().st_size))]
            try:
                numbers = np.array(rows, dtype=np.float64).reshape(count, len(names))
            except ValueError:
                raise RecordError(f"expected {count} lines of {len(names)} numbers.", file=str(path)) from None
            table = dict(zip(names, numbers.T, strict=True))
        else:
            dtype = np.dtype([(name, _PLY_ORDERS[kind] + code) for name, code in fields])
            data = stream.read(dtype.itemsize * count) if dtype.itemsize * count <= Path(path).stat().st_size else b""
            if len(data) < dtype.itemsize * count or not count:
                raise RecordError(f"the file ends before {count} vertices.", file=str(path))
            table = np.frombuffer(data, dtype)
    vertices = np.stack([np.asarray(table[name], np.float64) for name in "xyz"], -1)
    if not np.isfinite(vertices).all():
        raise RecordError("a vertex is NaN or infinite.", file=str(path))
    return vertices


def _ply_header(stream, path):
    """Format, number of vertices, and (name, numpy code) of each property of a vertex."""

    def refuse(found):
        raise RecordError(
            f"expected a PLY mesh whose first element is vertices with x, y, z, got {found}.", file=str(path)
        )

    lines = []
    while not lines or lines[-1] != "end_header":
        line = stream.readline(_MAX_HEADER_BYTES)
        if not line or stream.tell() > _MAX_HEADER_BYTES or (not lines and line.strip() != b"ply"):
            refuse(repr(line[:40]))
        lines.append(line.decode("latin-1").strip())
    kind = next((line.split()[1] for line in lines if line.startswith("format ")), None)
    if kind != "ascii" and kind not in _PLY_ORDERS:
        refuse(f"format {kind}")
    elements = [index for index, line in enumerate(lines) if line.startswith("element ")]
    if not elements or lines[elements[0]].split()[1] != "vertex" or not lines[elements[0]].split()[2].isdecimal():
        refuse(lines[elements[0]] if elements else "no elements")
    end = elements[1] if len(elements) > 1 else len(lines)
    properties = [line.split() for line in lines[elements[0] : end] if line.startswith("property ")]
    if any(len(parts) != 3 or parts[1] not in _PLY_TYPES for parts in properties):
        refuse("a vertex property that is no number")
    fields = [(parts[2], _PLY_TYPES[parts[1]]) for parts in properties]
    if not {"x", "y", "z"} <= {name for name, _ in fields}:
        refuse(f"vertices with {[name for name, _ in fields]}")
    return kind, int(lines[elements[0]].split()[2]), fields
