"""Render anew the pictures that README and docs/ ask about: four views of one room, and a walk through it as a video.

Usage: render_views.py [FOLDER]. By default examples/assets/views gets view_0.jpg to view_3.jpg of 640 x 480 pixels,
and the folder above room.mp4 of 320 x 240. The room is of the test split, and no training has seen it.
"""

import sys
from pathlib import Path

import av
import numpy as np
from PIL import Image

from gap_mllm.processing.data import render_room, room_seed


FOLDER = Path(__file__).parents[1] / "examples/assets/views"
ROOM = 398  # a shelf, a chair, a cabinet, a lamp and a bed; the middle of view 0 is on the shelf
SIZE, QUALITY = (640, 480), 90
NUM_FRAMES, FRAMES_PER_SECOND, FRAME_SIZE = 16, 2, (320, 240)


def save_views(folder: Path) -> None:
    """Save the views of the room as JPEG."""
    for number, image in enumerate(_pictures(4, *SIZE)):
        Image.fromarray(image).save(folder / f"view_{number}.jpg", quality=QUALITY, optimize=True)


def save_video(path: Path) -> None:
    """Save a walk through the same room as H.264."""
    with av.open(path, "w") as video:
        stream = video.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "24"})
        stream.width, stream.height, stream.pix_fmt = *FRAME_SIZE, "yuv420p"
        for image in _pictures(NUM_FRAMES, *FRAME_SIZE):
            video.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        video.mux(stream.encode())


def _pictures(num_views: int, width: int, height: int) -> np.ndarray:
    return render_room(room_seed("test", ROOM), num_views, height, width).images


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1:] else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    save_views(folder)
    save_video(folder.parent / "room.mp4")
