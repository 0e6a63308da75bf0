"""Videos for tests, whose pictures tell which frame they are."""

from fractions import Fraction

import av
import numpy as np


NUM_FRAMES = 24


def picture(index):
    """Brightness tells the frame, the quarter that is red the orientation."""
    array = np.full((48, 64, 3), 10 * index, np.uint8)
    array[:24, :32] = (200, 0, 0)
    return array


def index_of(image):
    return round(float(np.asarray(image)[-20:, -20:].mean()) / 10)


def write_video(
    path, codec="libx264", frames=range(NUM_FRAMES), rate=10, options=None, packets=slice(None), seconds=None, **coding
):
    """A video of `picture`s, `rate` a second or shown at given times."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if seconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        stream.options = {key: str(value) for key, value in coding.items()}
        encoded = []
        for place, index in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            if seconds is not None:
                frame.pts, frame.time_base = round(1000 * seconds[place]), Fraction(1, 1000)
            encoded += stream.encode(frame)
        for packet in [*encoded, *stream.encode()][packets]:
            container.mux(packet)
    return path
