"""COLMAP's models read back as scenes: text as COLMAP itself reads it, binary ones by pycolmap.

Frame: COLMAP's world, OpenCV cameras. Units: COLMAP's; pixels with integer centres, half a pixel less than COLMAP's.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from transformers.utils import logging

from ..camera_geometry_gap_mllm import fit_intrinsics, invert_rigid
from ..view_files_gap_mllm import Orientation, is_wide, open_picture
from ..visual_prompt_gap_mllm import to_rgb_image
from .scene_values import Scene3D, View3D


logger = logging.get_logger(__name__)

_FILES = ("cameras", "images", "points3D")
_PICTURE_FOLDERS = ("images", "images_2", "images_4", "images_8")
# Camera model -> numbers of focal lengths and of distortion parameters; without distortion all are pinholes.
_PINHOLES = {"SIMPLE_PINHOLE": (1, 0), "PINHOLE": (2, 0), "SIMPLE_RADIAL": (1, 1), "RADIAL": (1, 2), "OPENCV": (2, 4)}
_PINHOLES |= {"FULL_OPENCV": (2, 8)}


@dataclass(frozen=True)
class _Camera:
    kind: str
    size: tuple[int, int]
    numbers: tuple[float, ...]


@dataclass(frozen=True)
class _Posed:
    """An image of the model: its name and camera, and world to camera as quaternion w, x, y, z and translation."""

    name: str
    camera: int
    turn: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class _Model:
    cameras: dict[int, _Camera]
    images: list[_Posed]
    points: np.ndarray  # (N, 6): place and colour


def read_colmap(folder: str | Path, images: str | Path | None = None) -> Scene3D:
    """Read a model that `write_colmap` or COLMAP wrote, text or binary, with its pictures.

    Text is read as COLMAP does (comments and blank lines; each image with the line of its 2D points, which may be
    empty). Where both forms are there, the binary one is read, as COLMAP does. Pictures of another size than their
    camera, as those of `images_4`, have its intrinsics scaled, which is logged. Pictures are read as they are stored,
    as COLMAP reads them, whatever their EXIF orientation says.
    Frame: COLMAP's world, taken as it is; the first picture need not be its origin. Units: COLMAP's, metres of ours.

    Args:
        folder (`str` or `Path`): folder of the model, or one with the model in `sparse/0`, `sparse` or `0` (the first
            that there is). All points are given to the first view.
        images (`str` or `Path`, *optional*): folder of the pictures, a path or a name such as "images_4" that is
            looked for beside the model and up to two folders above it; by default the first of images, images_2,
            images_4 and images_8 there that holds the first picture.
    Returns:
        `Scene3D`: views in the order of images.txt; of a binary model, by number.
    Raises:
        FileNotFoundError: if a file, the pictures or one of them are not there. ImportError: if the model is binary
            and pycolmap is not installed. ValueError: if a line cannot be read, a number is there twice, a camera is
            no pinhole, a picture is of another shape than its camera, a pose is none, or there is no image.

    Example:
        ```python
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.scene_3d import read_colmap, scene_from_sample, write_colmap
        >>> scene = scene_from_sample(render_room(0).as_sample())
        >>> len(read_colmap(write_colmap(scene, "colmap")).views) == len(scene.views)
        True

        ```
    """
    folder = Path(folder)
    place, suffix = _find_model(folder)
    model = _read_binary(place) if suffix == ".bin" else _read_text(place)
    if not model.images:
        raise ValueError(f"the COLMAP model {place} holds no image; expected one with registered images.")
    pictures = _find_pictures(folder, place, images, model.images[0].name)
    said, views = set(), []
    for posed in model.images:
        picture = _open(pictures / posed.name, place)
        camera = _intrinsics(model, posed, picture.size, place, said)
        own = model.points if not views else model.points[:0]
        arrays = (own[:, :3].astype(np.float32), own[:, 3:].astype(np.uint8), np.ones(len(own), np.float32))
        views.append(View3D(posed.name, picture, camera, invert_rigid(_world_to_camera(posed, place)), *arrays))
    return Scene3D(tuple(views), title=folder.name)


# Where things are


def _find_model(folder):
    """(folder of the model, ".bin" or ".txt")."""
    places = [folder, folder / "sparse" / "0", folder / "sparse", folder / "0"]
    for place in places:
        for suffix in (".bin", ".txt"):
            if not _lacking(place, suffix):
                _tell_others(place, suffix)
                return place, suffix
    begun = [(place, suffix) for place in places for suffix in (".bin", ".txt") if len(_lacking(place, suffix)) < 3]
    if begun:
        place, suffix = begun[0]
        raise FileNotFoundError(f"the COLMAP model {place} lacks {', '.join(_lacking(place, suffix))}.")
    raise FileNotFoundError(
        f"{folder} holds no COLMAP model; expected cameras, images and points3D (.bin or .txt) in it, its sparse/0 or "
        "its sparse."
    )


def _lacking(place, suffix):
    return [f"{name}{suffix}" for name in _FILES if not (place / f"{name}{suffix}").is_file()]


def _tell_others(place, suffix):
    """Say what else could have been meant: text beside a binary model, and reconstructions beside sparse/0."""
    if suffix == ".bin" and not _lacking(place, ".txt"):
        logger.warning(f"{place} holds a COLMAP model as .bin and as .txt; the binary one is read, as COLMAP does.")
    if place.name == "0":
        others = [path.name for path in sorted(place.parent.iterdir()) if path.name.isdigit() and path.name != "0"]
        if others:
            logger.warning(f"{place} is read; COLMAP made other reconstructions beside it: {', '.join(others)}.")


def _find_pictures(folder, place, images, first):
    """The folder of the pictures, which holds the first of them unless it is given."""
    bases = list(dict.fromkeys([folder, place, *list(place.absolute().parents)[:2]]))
    if images is not None:
        tried = [base / images for base in bases] + [Path(images)]
        found = next((path for path in tried if path.is_dir()), None)
    else:
        tried = [base / name for base in bases for name in _PICTURE_FOLDERS]
        found = next((path for path in tried if (path / first).is_file()), None)
    if found is None:
        listed = ", ".join(str(path) for path in dict.fromkeys(tried))
        raise FileNotFoundError(
            f"the pictures of {place}, as {first}, are not there; tried {listed}. Pass images=DIR."
        )
    if images is None and found.name != _PICTURE_FOLDERS[0]:
        logger.warning(f"the pictures of {place} are read from {found}; images=DIR names another folder.")
    return found


def _open(path, place):
    if not path.is_file():
        raise FileNotFoundError(f"the picture {path} of the COLMAP model {place} is not there.")
    picture = open_picture(path, str(path))
    if picture.format in ("TIFF", "HEIF") and not Orientation.of_picture(picture).is_upright:
        raise ValueError(
            f"{path} is turned as it is decoded, but its camera is of the stored picture; save it as PNG."
        )
    try:
        # As stored, and without the EXIF orientation: whoever turned it by that later would leave the camera behind.
        plain = Image.fromarray(np.array(picture if is_wide(picture.mode) else picture.convert("RGB")))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be decoded; the file is damaged or cut off: {error}") from error
    return to_rgb_image(plain, str(path))


# Cameras and poses


def _intrinsics(model, posed, size, place, said):
    """Intrinsics in pixels of a picture of this size; what is scaled is logged once, and noted in `said`."""
    if posed.camera not in model.cameras:
        raise ValueError(f"{posed.name} of {place} has camera {posed.camera}, which the model does not hold.")
    camera, name = model.cameras[posed.camera], f"camera {posed.camera} of {place}"
    pinhole = _pinhole(camera, name)
    try:
        fitted, sentence = fit_intrinsics(pinhole, size, camera.size, f"intrinsics of {place}")
    except ValueError as error:
        kind = "" if camera.kind.endswith("PINHOLE") else f" is {camera.kind}; expected PINHOLE of its pictures' size"
        raise ValueError(f"{name}{kind}, for {posed.name}: {error}") from None
    if sentence is not None and sentence not in said:
        said.add(sentence)
        logger.warning(sentence)
    return fitted


def _pinhole(camera, name):
    num_focal, num_distortion = _PINHOLES.get(camera.kind, (0, 0))
    if not num_focal or any(camera.numbers[num_focal + 2 :]):
        raise ValueError(
            f"{name} is {camera.kind}; expected PINHOLE, or a camera whose distortion is 0: undistort the pictures "
            "(colmap image_undistorter)."
        )
    if len(camera.numbers) != num_focal + 2 + num_distortion:
        raise ValueError(f"{name} has {len(camera.numbers)} parameters, which are not those of {camera.kind}.")
    focal, (x, y) = camera.numbers[:num_focal], camera.numbers[num_focal : num_focal + 2]
    if not min(focal) > 0:
        raise ValueError(f"{name} has the focal length {min(focal):g}; expected one above 0.")
    return np.array([[focal[0], 0, x - 0.5], [0, focal[-1], y - 0.5], [0, 0, 1]])


def _world_to_camera(posed, place):
    from scipy.spatial.transform import Rotation

    if not (np.isfinite([*posed.turn, *posed.shift]).all() and posed.turn.any()):
        raise ValueError(
            f"the pose of {posed.name} in {place} holds NaN, infinity or a quaternion of zeros, which is how tools "
            "mark lost tracking; COLMAP leaves such images out: take it out of the model."
        )
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(posed.turn, scalar_first=True).as_matrix()
    pose[:3, 3] = posed.shift
    return pose


# Text


def _read_text(place):
    cameras, images = {}, {}
    for where, words in _lines(place / "cameras.txt"):
        number, camera = _parsed(_camera, words, where, "CAMERA_ID MODEL WIDTH HEIGHT PARAMS")
        cameras[_new(number, cameras, where)] = camera
    for where, words in _image_lines(place / "images.txt"):
        number, posed = _parsed(_posed, words, where, "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME")
        images[_new(number, images, where)] = posed
    points = [
        _parsed(_point, words, where, "POINT3D_ID X Y Z R G B ERROR")
        for where, words in _lines(place / "points3D.txt")
    ]
    return _Model(cameras, list(images.values()), np.array(points, np.float64).reshape(-1, 6))


def _camera(words):
    size = int(words[2]), int(words[3])
    return int(words[0]), _Camera(words[1], size, tuple(float(word) for word in words[4:]))


def _posed(words):
    numbers = np.array([float(word) for word in words[1:8]])
    return int(words[0]), _Posed(words[9], int(words[8]), numbers[:4], numbers[4:])


def _point(words):
    """Place and colour; the error and the track behind them are not needed."""
    return [float(words[index]) for index in range(1, 7)]


def _parsed(parse, words, where, expected):
    try:
        return parse(words)
    except (ValueError, IndexError):
        text = " ".join(words)[:80]
        raise ValueError(f"{where} is {text!r}; expected {expected}.") from None


def _new(number, known, where):
    if number in known:
        raise ValueError(f"{where} has the number {number} a second time; expected one of its own.")
    return number


def _stripped(file):
    """The lines of a file without the space around them; names may have any bytes, as file systems do."""
    text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    return [line.strip() for line in text.split("\n")]


def _is_passed_over(line):
    return not line or line.startswith("#")


def _lines(file):
    for number, line in enumerate(_stripped(file), 1):
        if not _is_passed_over(line):
            yield f"{file}, line {number}", line.split()


def _image_lines(file):
    """Yield (where, words) of each image. The line behind it holds its 2D points, whatever stands there.

    Differs: COLMAP ends a name at its first space, drops a last image without that line, and takes an image behind
    one whose line somebody left out for 2D points. No image is lost here; the last is logged.
    """
    lines, number, num_bare = _stripped(file), 0, 0
    while number < len(lines):
        line, number = lines[number], number + 1
        if _is_passed_over(line):
            continue
        yield f"{file}, line {number}", line.split(maxsplit=9)
        if number < len(lines) and _is_image(lines[number]):
            num_bare += 1
        elif number < len(lines):
            _check_points(lines[number], f"{file}, line {number + 1}")
            number += 1
    if num_bare:
        logger.warning(f"{file}: {num_bare} images have no line of 2D points behind them, as COLMAP expects.")


def _is_image(line):
    try:
        _posed(line.split(maxsplit=9))
    except (ValueError, IndexError):
        return False
    return not _is_points(line)


def _is_points(line, num_read=None):
    """Whether a line may be 2D points, by all its numbers or the first of them: there may be thousands."""
    words = line.split()
    try:
        np.array(words[:num_read], np.float64)
    except ValueError:
        return False
    return len(words) % 3 == 0


def _check_points(line, where):
    if not _is_passed_over(line) and not _is_points(line, 3):
        raise ValueError(
            f"{where} is {line[:80]!r}; expected the 2D points of the image above it, X Y POINT3D_ID each, or nothing."
        )


# Binary


def _read_binary(place):
    try:
        import pycolmap  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"{place} is a binary COLMAP model, which needs pycolmap: pip install gap-mllm[colmap]; or write it as "
            "text into a folder of its own (colmap model_converter --output_type TXT)."
        ) from error
    read = pycolmap.Reconstruction()
    try:
        read.read_binary(str(place))
    except (ValueError, RuntimeError, IndexError) as error:
        raise ValueError(f"pycolmap cannot read the COLMAP model {place}: {error}") from error
    cameras = {
        number: _Camera(camera.model.name, (camera.width, camera.height), tuple(camera.params))
        for number, camera in read.cameras.items()
    }
    images = [_registered(read.images[number]) for number in sorted(read.reg_image_ids())]
    points = [[*read.points3D[number].xyz, *read.points3D[number].color] for number in sorted(read.points3D)]
    return _Model(cameras, images, np.array(points, np.float64).reshape(-1, 6))


def _registered(image):
    pose = image.cam_from_world()
    x, y, z, w = pose.rotation.quat
    return _Posed(image.name, image.camera_id, np.array([w, x, y, z]), np.asarray(pose.translation))
