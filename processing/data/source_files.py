"""Reading files that somebody else wrote: paths that stay inside, JSON by streaming, matrices, depth, safe pickles.

Every error is a `RecordError` (or `FileNotFoundError`) that names the file and what is wrong in it. Nothing read here
is ever executed.
"""

import io
import json
import os
import pickle
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import ijson
import numpy as np
from PIL import Image
from transformers.utils import logging

from ..camera_geometry_gap_mllm import fit_intrinsics, is_rigid, lost_pose_reason
from ..input_checks_gap_mllm import find_half
from ..json_depth import DepthGuard, JsonDepthError, decode_json
from ..json_halves import HalfKeeper, restore_halves
from ..view_files_gap_mllm import LFS_HEADER, natural_key, open_picture, stored_size
from .file_guards import check_pixel_count, file_state, refuse_special, refuse_special_file
from .read_log import TrackedPath
from .record_errors import RecordError


logger = logging.get_logger(__name__)

# What a pickled numpy array is rebuilt from, under the names of numpy 1 and 2.
PICKLE_ALLOWED = {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
# What damaged pickles end in: their bytes are instructions, so nearly anything.
_PICKLE_ERRORS = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, TypeError, ValueError)
_PICKLE_ERRORS += (MemoryError, OverflowError)
# How programs built by Microsoft's compilers write NaN and infinity, as -1.#INF and 1.#QNAN0: "#" begins a comment.
_NO_NUMBER = re.compile(r"1\.#(?:(INF)|IND|QNAN|SNAN|NAN)0*", re.IGNORECASE)


# Paths


def resolve_inside(root: str | Path, relative: str, field: str | None = None) -> Path:
    """Join a path from a record to a folder, and refuse one that leaves the folder by its own words.

    Links below the folder are followed wherever they lead: records name paths, but only the user makes links.

    Args:
        root (`str` or `Path`): folder that the user gave.
        relative (`str`): path as the record has it.
        field (`str`, *optional*): name that errors call the field.
    Returns:
        `Path`: absolute; whether it exists is not checked.
    Raises:
        RecordError: if the path is no text, is absolute, climbs out of `root` (".."), or holds half of a character.
    """
    if not isinstance(relative, str) or not relative or "\0" in relative:
        raise RecordError(f"{relative!r} is no path.", field)
    if find_half(relative) is not None:
        raise RecordError(f"path {relative!a} holds half of a character; expected the name of a file.", field)
    # Texts instead of Paths: this is done for every picture. The root stays as it is: it may climb or be a link.
    tail = os.path.normpath(relative)
    if os.path.isabs(relative) or tail.split(os.sep)[0] == os.pardir:
        raise RecordError(f"path {relative!r} leads out of {root}; paths of records must stay inside it.", field)
    return TrackedPath(os.path.join(os.getcwd(), root, tail))


def find_file(
    root: str | Path,
    relative: str,
    prefixes: tuple[str, ...] = ("",),
    dropped: tuple[str, ...] = (),
    field: str | None = None,
) -> Path:
    """Find the file that a record names, in one of several customary places.

    Args:
        root (`str` or `Path`): folder that the user gave.
        relative (`str`): path as the record has it.
        prefixes (`tuple[str, ...]`, defaults to `('',)`): folders below `root` to try, in this order.
        dropped (`tuple[str, ...]`, defaults to `()`): beginnings of `relative` that may be left out, tried after the
            path as it stands.
        field (`str`, *optional*): name that errors call the field.
    Returns:
        `Path` of an existing file or folder.
    Raises:
        RecordError: if none exists, with all that was tried; if a link leads back to itself; or as `resolve_inside`.
    """
    tails = [relative, *(relative.removeprefix(start) for start in dropped if str(relative).startswith(start))]
    tried = [
        resolve_inside(root, os.path.join(prefix, tail) if isinstance(tail, str) else tail, field)
        for tail in tails
        for prefix in prefixes
    ]
    for path in tried:
        if file_state(path, field) is not None:
            return path
    listed = ", ".join(str(path) for path in dict.fromkeys(tried))
    raise RecordError(f"{relative!r} is not there; tried {listed}.", field, missing=relative)


def numeric_order(paths: Iterable[Path]) -> list[Path]:
    """Sort paths in natural order of their names, 2 before 10; see `natural_key`."""
    return sorted(paths, key=natural_key)


# Text


def refuse_lfs_pointer(path: str | Path) -> None:
    """Raise a `RecordError` if this is no file (a FIFO, ..), or a git-lfs pointer instead of the data."""
    refuse_special_file(path)
    with open(path, "rb") as stream:
        if stream.read(len(LFS_HEADER)) == LFS_HEADER:
            raise RecordError("this is a git-lfs pointer, not the data. Fetch it with `git lfs pull`.", file=str(path))


def read_text(path: str | Path) -> str:
    """Read a text in UTF-8, whatever the machine's own encoding is.

    Raises:
        FileNotFoundError: if there is no such file. RecordError: if it is no UTF-8 text, or no file (a FIFO, ..).
    """
    refuse_special_file(path)
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(f"this is no UTF-8 text: {error}.", file=str(path)) from None


def read_json(path: str | Path):
    """Read one JSON document that fits in memory.

    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: if it is a git-lfs pointer, cut off, no JSON, no UTF-8 text, nested more than `MAX_JSON_DEPTH`
            deep, or holds NaN or infinity.
    """
    refuse_lfs_pointer(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        return decode_json(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        offset = len(text[: error.pos].encode())
        hint = " The file ends too soon: is the download complete?" if error.pos >= len(text.rstrip()) - 1 else ""
        raise RecordError(f"no valid JSON at byte {offset}: {error.msg}.{hint}", file=str(path)) from None
    except ValueError as error:  # no UTF-8, a constant, a number of thousands of digits, too deep
        raise RecordError(f"no readable JSON: {error}.", file=str(path)) from None


def iter_json_array(path: str | Path):
    """Yield the members of one JSON array without holding the file in memory.

    A half of a character, as "\\ud83d", stays one, as in `read_json`: who uses the text refuses it.

    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: if it is a git-lfs pointer, no array, cut off (with the byte offset), no JSON, nested more than
            `MAX_JSON_DEPTH` deep, holds NaN, or is no UTF-8 text.
    """
    refuse_lfs_pointer(path)
    with open(path, "rb") as stream:
        if _first_character(stream) != b"[":
            raise RecordError("expected a JSON array, `[...]`, at the top level.", file=str(path))
        counted = _CountingReader(stream)
        try:
            for record in ijson.items(counted, "item", use_float=True):
                yield restore_halves(record) if counted.halves.num_found else record
        except ijson.IncompleteJSONError as error:
            if "premature" not in str(error) and "Incomplete" not in str(error):
                raise RecordError(
                    f"no valid JSON near byte {counted.offset}: {_first_line(error)}", file=str(path)
                ) from None
            raise RecordError(
                f"the JSON ends too soon, at byte {counted.offset}: is the download complete? Fetch the file again.",
                file=str(path),
            ) from None
        except (JsonDepthError, UnicodeDecodeError) as error:
            raise RecordError(f"no readable JSON near byte {counted.offset}: {error}.", file=str(path)) from None
        except ijson.JSONError as error:
            raise RecordError(
                f"no valid JSON near byte {counted.offset}: {_first_line(error)}", file=str(path)
            ) from None


def iter_jsonl(path: str | Path, skip: Callable | None = None):
    """Yield (line number from 1, record) of a file with one JSON value a line; empty lines are passed over.

    Args:
        path (`str` or `Path`)
        skip (`Callable[[RecordError]]`, *optional*): called with what is wrong with a line, which is then left out;
            without it the error is raised.
    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: if it is a git-lfs pointer, or a line is no JSON, no UTF-8 text, nested more than `MAX_JSON_DEPTH`
            deep or holds NaN.
    """
    refuse_lfs_pointer(path)
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                record = decode_json(line.decode("utf-8"), parse_constant=_refuse_constant)
            except ValueError as error:
                reason = f"line {number} is no valid JSON ({error})."
                if not line.endswith(b"\n"):
                    reason += " It is the last line and ends too soon: is the download complete?"
                problem = RecordError(reason, file=str(path), record_id=f"line {number}")
                if skip is None:
                    raise problem from None
                skip(problem)
                continue
            yield number, record


def iter_records(path: str | Path, skip: Callable | None = None):
    """Yield (index from 0, record) of a JSON array or, by its suffix .jsonl, of lines; see `iter_jsonl`."""
    if Path(path).suffix == ".jsonl":
        yield from ((number - 1, record) for number, record in iter_jsonl(path, skip))
    else:
        yield from enumerate(iter_json_array(path))


class _CountingReader:
    """Counts the bytes of a file that a parser has taken, and refuses those that are nested too deep for it.

    Halves of characters are written for it so that `restore_halves` finds them again.
    """

    def __init__(self, stream):
        self.stream, self.offset, self._guard, self.halves = stream, stream.tell(), DepthGuard(), HalfKeeper()

    def read(self, size: int = -1):
        while True:
            data = self.stream.read(size)
            self.offset += len(data)
            self._guard.feed(data)
            kept = self.halves.feed(data, is_end=not data and size != 0)
            if kept or not data:
                return kept


def _first_character(stream) -> bytes:
    """The first character that is no space; the stream then stands behind a byte order mark, if there is one."""
    head = stream.read(4096)
    stream.seek(3 if head.startswith(b"\xef\xbb\xbf") else 0)
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def _first_line(error) -> str:
    text = error.args[0] if error.args else type(error).__name__
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    return text.strip().partition("\n")[0]


def _refuse_constant(name):
    raise ValueError(f"{name} is no JSON number")


# Numbers


def read_matrix(path: str | Path, shape: tuple = (4, 4)) -> np.ndarray:
    """Read a matrix of numbers from a text file.

    Args:
        path (`str` or `Path`), shape (`tuple[int, int]`, defaults to `(4, 4)`): what it must be.
    Returns:
        `np.ndarray` of float64; values may be infinite or NaN (see `is_lost_pose`), also as Windows spells them.
    Raises:
        FileNotFoundError: if there is no such file. RecordError: if it is no such matrix, with the shape found.
    """
    refuse_special_file(path)
    try:
        with open(path, encoding="utf-8-sig") as stream:
            lines = [_NO_NUMBER.sub(lambda found: "inf" if found[1] else "nan", line) for line in stream]
        matrix = np.loadtxt(lines, dtype=np.float64, ndmin=2)
    except ValueError as error:
        raise RecordError(f"no matrix of numbers: {error}.", file=str(path)) from None
    if matrix.shape != tuple(shape):
        raise RecordError(f"the matrix has shape {matrix.shape}, expected {tuple(shape)}.", file=str(path))
    return matrix


def is_lost_pose(pose: np.ndarray) -> bool:
    """Whether a pose holds infinity or NaN, which is how ScanNet marks frames where tracking was lost; one is enough.

    What else may be wrong with it is found by `check_pose`.
    """
    try:
        return not np.isfinite(pose).all()
    except (TypeError, ValueError):
        return False


def check_pose(pose: Sequence | np.ndarray, field: str | None = None, file: str | Path | None = None) -> np.ndarray:
    """Return a pose as float64 `(4, 4)`.

    Raises:
        RecordError: if it is no finite rigid transform with determinant +1 (the determinant is named); NaN, infinity
            and zeros are named as what marks lost tracking.
    """
    lost = lost_pose_reason(np.asarray(pose)) if _is_pose(pose) else None
    if lost is not None:
        raise RecordError(
            f"the pose {lost}; leave the frame out, or give null for its pose.",
            field,
            file=None if file is None else str(file),
        )
    matrix = as_numbers(pose, (4, 4), field)
    if not bool(is_rigid(matrix)):
        determinant = float(np.linalg.det(matrix[:3, :3]))
        raise RecordError(
            f"the pose is no rigid transform: its rotation has determinant {determinant:.4f}, last row "
            f"{matrix[3].tolist()}; expected an orthonormal rotation with determinant +1 and [0, 0, 0, 1].",
            field,
            file=None if file is None else str(file),
        )
    return matrix


def _is_pose(values):
    """Whether these are 4 x 4 numbers, whatever their values."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        return False
    return array.shape == (4, 4) and array.dtype.kind in "iuf"


def as_numbers(values: Sequence | np.ndarray, shape: tuple, field: str | None = None) -> np.ndarray:
    """Return nested lists as float64 of this shape.

    Raises:
        RecordError: if they have another shape or hold anything but finite numbers.
    """
    try:
        array = np.array(values)
    except ValueError:  # lists of different lengths
        array = None
    if array is None or array.dtype.kind not in "iuf":
        raise RecordError(f"{_shorten(values)} is not made of numbers.", field)
    array = array.astype(np.float64)
    if array.shape != tuple(shape):
        raise RecordError(f"{_shorten(values)} has shape {array.shape}, expected {tuple(shape)}.", field)
    if not np.isfinite(array).all():
        raise RecordError(f"{_shorten(values)} holds NaN or infinity.", field)
    return array


def check_box(values: Sequence | np.ndarray, field: str | None = None) -> np.ndarray:
    """Return a 9-DoF box (centre, full size, angles) as float64; sizes must be positive.

    Raises:
        RecordError: if it has not 9 finite numbers, or a size is not positive.
    """
    box = as_numbers(values, (9,), field)
    if (box[3:6] <= 0).any():
        raise RecordError(f"the box has sizes {box[3:6].tolist()}; expected positive ones.", field)
    return box


def _shorten(values) -> str:
    text = repr(values)
    return text if len(text) <= 80 else f"{text[:77]}..."


# Pictures


def picture_header(path: str) -> tuple[tuple[int, int], str]:
    """Return ((width, height), PIL mode) without decoding; the size is as stored, before any EXIF rotation.

    Many rows name the same picture: what was read is kept until the file changes.

    Raises:
        RecordError: if the file is no picture or no file (a FIFO, ..), or has more than `MAX_PICTURE_PIXELS`.
    """
    stamp = file_state(path)
    try:
        if stamp is None:
            raise FileNotFoundError(f"{path} is not there")
        refuse_special(stamp, path)
        size, mode = _read_header(str(path), stamp.st_mtime_ns, stamp.st_size)
    except RecordError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # of raw, empty files
        raise RecordError(f"this is no readable picture: {error}.", file=str(path)) from None
    check_pixel_count(size, path)
    return size, mode


def stored_header(picture: dict, field: str | None = None) -> tuple[tuple[int, int], str]:
    """Return what `picture_header` does for the bytes of a row's picture, or the file that it names.

    Args:
        picture (`dict`): bytes, or None, and path. field (`str`, *optional*): for the error.
    Raises:
        RecordError: as `picture_header`.
    """
    if picture["bytes"] is None:
        return picture_header(picture["path"])
    try:
        with open_picture(io.BytesIO(picture["bytes"])) as image:
            check_pixel_count(image.size, picture["path"], field)
            return stored_size(image), image.mode
    except RecordError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # ValueError of an empty file
        raise RecordError(f"this is no readable picture: {error}.", field) from None


@lru_cache(maxsize=65536)
def _read_header(path, mtime_ns, num_bytes):
    with open_picture(path) as image:
        return stored_size(image), image.mode


def check_depth_mode(mode: str, path: str | Path | None = None, field: str = "depth") -> None:
    """Raise a `RecordError` if a depth map of this PIL mode has not 16 bits: metres are lost."""
    if mode not in ("I;16", "I;16B", "I"):
        raise RecordError(
            f"the depth map has PIL mode {mode!r}, expected 16 bits: metres cannot be recovered from 8.",
            field,
            file=None if path is None else str(path),
        )


def check_intrinsics(
    intrinsics: np.ndarray,
    size: tuple[int, int] | None = None,
    field: str = "intrinsics",
    file: str | Path | None = None,
) -> None:
    """Check that numbers are those of a camera and, where its picture is known, of a picture of this size.

    The principal point must lie within the middle half of the picture, and not in the middle of one of another size
    (see `fit_intrinsics`): intrinsics of another resolution put it there. They are scaled only where a source states
    the size that they were made for (`scaled_intrinsics`).

    Args:
        intrinsics (array of shape `(3, 3)` or larger): intrinsics in pixels.
        size (`tuple[int, int]`, *optional*): width and height of the picture.
        field (`str`, defaults to "intrinsics"), file (`str` or `Path`, *optional*): names that errors call the field,
            and the file of the picture.
    Raises:
        RecordError: if a number is not finite, a focal length is not positive, or they are for another size.
    """
    matrix, file = np.asarray(intrinsics, np.float64)[:3, :3], None if file is None else str(file)
    focal, center = (matrix[0, 0], matrix[1, 1]), (matrix[0, 2], matrix[1, 2])
    if not (np.isfinite(matrix).all() and min(focal) > 0):
        raise RecordError(
            f"the focal lengths of the intrinsics are ({focal[0]:g}, {focal[1]:g}), the principal point is "
            f"({center[0]:g}, {center[1]:g}); expected finite numbers, and focal lengths above 0.",
            field,
            file=file,
        )
    if size is not None and not _is_of_size(matrix, size):
        raise RecordError(
            f"the picture is {size[0]} x {size[1]}, but the principal point of its intrinsics is ({center[0]:.1f}, "
            f"{center[1]:.1f}): these are intrinsics of another size. Rescale them (scale_intrinsics), or use the "
            "pictures they were made for.",
            field,
            file=file,
        )


def _is_of_size(matrix, size):
    try:
        return fit_intrinsics(matrix, size)[1] is None
    except ValueError:
        return False


def scaled_intrinsics(
    intrinsics: np.ndarray,
    stated: tuple[float, float],
    size: tuple[int, int],
    field: str = "intrinsics",
    file: str | Path | None = None,
) -> np.ndarray:
    """Return intrinsics in pixels of a picture, from those of a size that the source states; says so once.

    Frame: pixels, integer pixel centres. Units: pixels.

    Args:
        intrinsics (`np.ndarray` of shape `(3, 3)`): intrinsics in pixels of a picture of `stated`.
        stated (`tuple[float, float]`): width and height that the source gives with them.
        size (`tuple[int, int]`): width and height of the picture.
        field (`str`, defaults to "intrinsics"), file (`str` or `Path`, *optional*): names for the error.
    Raises:
        RecordError: if the sizes are none, or no one scale takes both sides to the picture's within one pixel.
    """
    try:
        fitted, said = fit_intrinsics(intrinsics, size, stated, field)
    except ValueError as error:
        raise RecordError(
            f"the picture is of another shape, or its size is none: {error}",
            field,
            file=None if file is None else str(file),
        ) from None
    if said is not None:
        logger.warning_once(said)
    return fitted


def check_depth_file(path: str | Path, intrinsics: np.ndarray | None = None) -> tuple[int, int]:
    """Check that a depth map has 16 bits, and that its intrinsics are those of a picture of its size.

    Args:
        path (`str` or `Path`), intrinsics (`np.ndarray` of shape `(3, 3)` or larger, *optional*).
    Returns:
        `tuple[int, int]`: width and height.
    Raises:
        RecordError: if the map has 8 bits (metres are lost), or as `check_intrinsics`.
    """
    size, mode = picture_header(str(path))
    check_depth_mode(mode, path)
    if intrinsics is not None:
        check_intrinsics(intrinsics, size, "depth_intrinsics", path)
    return size


# Pickles


class _NumpyUnpickler(pickle.Unpickler):
    """Rebuilds plain containers and numpy arrays, nothing else."""

    def find_class(self, module: str, name: str):
        if (module, name) not in PICKLE_ALLOWED:
            raise RecordError(
                f"the pickle wants to load {module}.{name}; only plain containers and numpy arrays are allowed. "
                "It may be malicious: get the file from its publisher."
            )
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_pickle(path: str | Path):
    """Read a pickle of plain containers and numpy arrays.

    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: if it would import anything else, is a git-lfs pointer, or is no whole pickle.
    """
    refuse_lfs_pointer(path)
    with open(path, "rb") as stream:
        try:
            return _NumpyUnpickler(stream).load()
        except RecordError as error:
            raise error.locate(None, path, None) from None
        except _PICKLE_ERRORS as error:
            raise RecordError(f"no whole pickle: {type(error).__name__}: {error}.", file=str(path)) from None


def encode_png(array: np.ndarray) -> dict:
    """Return a picture as the `datasets.Image` feature stores it.

    Args:
        array (`np.ndarray`): 8-bit `(H, W)`, `(H, W, 3)` or `(H, W, 4)`, or 16-bit `(H, W)`.
    Raises:
        ValueError: on any other type or shape: PNG could not hold it exactly.
    """
    is_8_bit = array.dtype == np.uint8 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4)))
    if not (is_8_bit or (array.dtype == np.uint16 and array.ndim == 2)):
        raise ValueError(
            f"a picture of {array.dtype} and shape {array.shape} is not one that PNG holds exactly; expected uint8 "
            "(H, W), (H, W, 3) or (H, W, 4), or uint16 (H, W)."
        )
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=1)
    return {"bytes": buffer.getvalue(), "path": None}
