"""ScanNet's `.sens` recordings (version 4): poses, JPEG colour and compressed depth of a whole scan in one file.

Opening reads the header and walks over the frames without their pictures; those of a frame are read when asked for.
Frame: OpenCV cameras, camera to world in the scan frame. Units: metres = depth / depth_shift, seconds.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...file_guards import MAX_PICTURE_PIXELS
from ...record_errors import RecordError
from ...source_files import refuse_lfs_pointer


VERSION = 4
COLOR_CODECS = {1: "png", 2: "jpeg"}
DEPTH_CODECS = {0: "raw", 1: "zlib"}
_FRAME_HEADER = struct.Struct("<16f4Q")  # pose, times of colour and depth, bytes of colour and depth


@dataclass(frozen=True)
class SensFrame:
    """One frame: where its pictures lie in the file, its pose `(4, 4)` (infinite where tracking was lost) and time."""

    index: int
    camera_to_world: np.ndarray
    timestamp: float  # seconds, of the colour picture
    offset: int
    color_bytes: int
    depth_bytes: int


class SensFile:
    """A `.sens` file; `frames` lists its frames, `color` and `depth` read the pictures of one.

    Args:
        path (`str` or `Path`): the file.
    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: if it is of another version or codec, a size in it is absurd, or it ends too soon.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        refuse_lfs_pointer(self.path)
        self._num_bytes = self.path.stat().st_size
        with open(self.path, "rb") as stream:
            (version,) = self._read(stream, "<I", "version")
            if version != VERSION:
                self._refuse(f"this is version {version}, or no .sens file; expected version {VERSION}.", "version")
            (length,) = self._read(stream, "<Q", "sensor_name")
            self._skip(stream, length, "sensor_name")
            matrices = [np.array(self._read(stream, "<16f", "intrinsics")).reshape(4, 4) for _ in range(4)]
            self.intrinsics_color, self.extrinsics_color, self.intrinsics_depth, self.extrinsics_depth = matrices
            if not all(np.isfinite(matrix).all() for matrix in matrices):
                self._refuse("a camera matrix of the header is not finite.", "intrinsics")
            color_codec, depth_codec = self._read(stream, "<2i", "codecs")
            if color_codec not in COLOR_CODECS or depth_codec not in DEPTH_CODECS:
                self._refuse(
                    f"colour is stored with codec {color_codec}, depth with codec {depth_codec}; readable are "
                    f"{COLOR_CODECS} and {DEPTH_CODECS}.",
                    "codecs",
                )
            self.depth_codec = DEPTH_CODECS[depth_codec]
            width, height, depth_width, depth_height = self._read(stream, "<4I", "size")
            self.color_size, self.depth_size = (width, height), (depth_width, depth_height)
            if not all(0 < w * h <= MAX_PICTURE_PIXELS for w, h in (self.color_size, self.depth_size)):
                self._refuse(
                    f"pictures of {width} x {height} and depth of {depth_width} x {depth_height}; expected some, "
                    f"and at most {MAX_PICTURE_PIXELS / 1e6:g} million pixels.",
                    "size",
                )
            (self.depth_shift,) = self._read(stream, "<f", "depth_shift")
            if not (np.isfinite(self.depth_shift) and self.depth_shift > 0):
                self._refuse(f"depth_shift is {self.depth_shift}; expected a positive number.", "depth_shift")
            (count,) = self._read(stream, "<Q", "num_frames")
            if count * _FRAME_HEADER.size > self._num_bytes:
                self._refuse(f"{count} frames do not fit into {self._num_bytes} bytes.", "num_frames")
            self.frames = [self._read_frame(stream, index) for index in range(count)]

    def _read_frame(self, stream, index):
        field = f"frames[{index}]"
        values = self._read(stream, _FRAME_HEADER, field)
        offset, (color_time, _, color_bytes, depth_bytes) = stream.tell(), values[16:]
        self._skip(stream, color_bytes + depth_bytes, field)
        pose = np.array(values[:16], dtype=np.float64).reshape(4, 4)
        return SensFrame(index, pose, color_time * 1e-6, offset, color_bytes, depth_bytes)

    def _read(self, stream, layout, field):
        layout = layout if isinstance(layout, struct.Struct) else struct.Struct(layout)
        data = stream.read(layout.size)
        if len(data) < layout.size:
            self._ends(field)
        return layout.unpack(data)

    def _skip(self, stream, length, field):
        if length > self._num_bytes - stream.tell():
            self._ends(field, f" {length} bytes are announced at byte {stream.tell()}.")
        stream.seek(length, 1)

    def _ends(self, field, detail=""):
        self._refuse(
            f"the file ends too soon, after {self._num_bytes} bytes.{detail} Is the download complete?", field
        )

    def _refuse(self, reason, field):
        raise RecordError(reason, field, file=str(self.path))

    def color(self, frame: SensFrame) -> bytes:
        """The colour picture as it is compressed in the file (JPEG or PNG).

        Raises:
            RecordError: if it is no picture of the size in the header, or is cut off.
        """
        field = f"frames[{frame.index}].color"
        with open(self.path, "rb") as stream:
            stream.seek(frame.offset)
            data = stream.read(frame.color_bytes)
        try:
            with Image.open(io.BytesIO(data)) as image:
                size = image.size
                if size != self.color_size:
                    self._refuse(f"the picture has size {size}, the header says {self.color_size}.", field)
                if not data.rstrip(b"\0").endswith((b"\xff\xd9", b"IEND\xaeB`\x82")):
                    image.load()  # raises if the picture is cut off
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            self._refuse(f"the picture cannot be decoded: {error}.", field)
        return data

    def depth(self, frame: SensFrame) -> np.ndarray:
        """The depth map `(H, W)`, uint16; metres = value / depth_shift, 0 marks no measurement.

        Raises:
            RecordError: if it cannot be unpacked or has another size than the header says.
        """
        field, (width, height) = f"frames[{frame.index}].depth", self.depth_size
        num_bytes = width * height * 2
        with open(self.path, "rb") as stream:
            stream.seek(frame.offset + frame.color_bytes)
            data = stream.read(frame.depth_bytes)
        if self.depth_codec == "zlib":
            try:
                data = zlib.decompressobj().decompress(data, num_bytes + 1)  # no more, whatever the data says
            except zlib.error as error:
                self._refuse(f"the depth map cannot be unpacked: {error}.", field)
        if len(data) != num_bytes:
            found = f"more than {num_bytes}" if len(data) > num_bytes else len(data)
            self._refuse(f"the depth map has {found} bytes, expected {num_bytes} for {width} x {height}.", field)
        return np.frombuffer(data, "<u2").reshape(height, width).astype(np.uint16)
