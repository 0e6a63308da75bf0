"""Folders of random kinds of files, as people bring them: order, count, orientation and intrinsics of their views.

What is expected is kept while a folder is made, and turned by Pillow's own operations, not by the code under test.
"""

import random

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.data.stored_frames import list_frames
from gap_mllm.processing.data.video_frames import read_video_views
from gap_mllm.processing.scene_views_gap_mllm import open_views


NUM_FOLDERS, NUM_QUICK, BATCH = 2000, 100, 50
NAMES = ("{}", "{:05d}", "frame_{}", "IMG_{:04d}", "a{} b", "frame-{:06d}.color")
TURNS = {
    3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90,
    2: Image.Transpose.FLIP_LEFT_RIGHT, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 7: Image.Transpose.TRANSVERSE,
}  # fmt: skip
FORMATS = ("jpg", "JPG", "jpeg", "png", "webp", "tiff", "bmp")
WITH_EXIF = ("jpg", "JPG", "jpeg", "png", "webp")


class MadeFolder:
    """A folder with pictures and what lies beside such, and what its views are."""

    def __init__(self, folder, seed):
        self.folder, self.draw = folder, random.Random(seed)
        folder.mkdir()
        name, suffix = self.draw.choice(NAMES), self.draw.choice(FORMATS)
        numbers = self.draw.sample(range(120), self.draw.randint(1, 12))
        self.is_posed = self.draw.random() < 0.5
        self.size = self.draw.choice([(64, 48), (48, 64), (60, 60), (41, 30)])
        self.stems = [name.format(number) for number in numbers]
        made = [self.make_picture(stem, number, suffix) for stem, number in zip(self.stems, numbers, strict=True)]
        self.views = [each for _, each in sorted(zip(numbers, made, strict=True), key=lambda pair: pair[0])]
        self.suffix, self.num_left_out = suffix, 0
        for add in self.draw.sample([self.add_depth, self.add_masks, self.add_others, self.add_hidden], 2):
            add()

    def make_picture(self, stem, number, suffix):
        """Write a picture whose left upper quarter is green; (name, EXIF orientation, upright picture, intrinsics)."""
        width, height = self.size
        picture = Image.new("RGB", self.size, (2 * number, 0, 90))
        picture.paste((2 * number, 220, 90), (0, 0, width // 2, height // 2))
        choices = (1, 3, 6, 8) if self.is_posed else range(1, 9)
        orientation = self.draw.choice(choices) if suffix in WITH_EXIF and self.draw.random() < 0.4 else 1
        options = {"lossless": True} if suffix == "webp" else {"quality": 95} if suffix.lower() != "bmp" else {}
        if orientation > 1:
            exif = Image.Exif()
            exif[0x0112] = orientation
            options["exif"] = exif
        picture.save(self.folder / f"{stem}.{suffix}", **options)
        upright = picture.transpose(TURNS[orientation]) if orientation > 1 else picture
        off = [self.draw.uniform(-0.02, 0.02) * side for side in self.size]
        camera = [[50.0 + number, 0, width / 2 + off[0]], [0, 70.0 + number, height / 2 + off[1]], [0, 0, 1]]
        return f"{stem}.{suffix}", orientation, upright, np.array(camera)

    def add_depth(self):
        stems = self.draw.sample(self.stems, self.draw.randint(1, len(self.stems)))
        mode, name = self.draw.choice([("I;16", "{}_d.png"), ("F", "{}_d.tif"), ("L", "{}_depth.png")])
        for stem in stems:
            Image.new(mode, self.size, 9).save(self.folder / name.format(stem))
        self.num_left_out += len(stems)

    def add_masks(self):
        for stem in self.stems[:3]:
            Image.new(self.draw.choice(["L", "1"]), self.size, 1).save(self.folder / f"{stem}_mask.png")
        self.num_left_out += len(self.stems[:3])

    def add_others(self):
        names = ("notes.txt", "depth.h5", "poses.json", "points.ply", "page.eps", "clip.mpg", "photo.dng", "scan.npy")
        for name in self.draw.sample(names, 3):
            (self.folder / name).write_bytes(b"no picture at all")
        pages = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        pages[0].save(self.folder / "moving.gif", save_all=True, append_images=pages[1:])
        self.num_left_out += 4

    def add_hidden(self):
        (self.folder / f"._{self.stems[0]}.jpg").write_bytes(b"\0\5\26\7")
        (self.folder / "more").mkdir()
        Image.new("RGB", self.size).save(self.folder / "more" / "0.jpg")


def expected_camera(made, orientation, camera):
    """Intrinsics of the upright picture, from where the turned principal point and focal lengths come to lie."""
    width, height = made.size
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float64)  # each pixel's own place
    rays = np.concatenate([(grid - camera[:2, 2]) / camera[[0, 1], [0, 1]], np.ones((height, width, 1))], -1)
    planes = [Image.fromarray(rays[..., axis].astype(np.float32)) for axis in (0, 1)]
    if orientation > 1:
        planes = [plane.transpose(TURNS[orientation]) for plane in planes]
    return np.stack([np.asarray(plane) for plane in planes], -1)


def check(made):
    cameras = {name: camera for name, _, _, camera in made.views}
    by_name = made.draw.random() < 0.5
    given = cameras if by_name else [camera for _, _, _, camera in made.views]
    poses = None
    if made.is_posed:
        poses = np.stack([np.eye(4)] * len(made.views))
        poses[:, 0, 3] = range(len(poses))
    views = open_views(made.folder, given, poses)
    assert views.names == tuple(name for name, *_ in made.views)
    counts = [int(note.split()[2]) for note in views.notes if note.startswith("left out")]
    assert sum(counts) == made.num_left_out
    for place, (_, orientation, upright, camera) in enumerate(made.views):
        picture = views.pictures[place]
        assert picture.size == upright.size
        assert np.abs(np.asarray(picture, int) - np.asarray(upright, int)).mean() < 6  # JPEG
        assert poses is None or views.camera_to_world[place][0, 3] == place
        rays = expected_camera(made, orientation, camera)
        own = views.intrinsics[place]
        columns, rows = np.meshgrid(np.arange(upright.width), np.arange(upright.height))
        seen = np.stack([(columns - own[0, 2]) / own[0, 0], (rows - own[1, 2]) / own[1, 1]], -1)
        # The axes of the upright camera are those of the stored one in another order, or turned round.
        assert np.allclose(np.sort(np.abs(seen), -1), np.sort(np.abs(rays), -1), atol=1e-5)
    assert [path.name for path in list_frames(made.folder)] == list(views.names)
    read = read_video_views(made.folder, num_frames=len(made.views))
    assert [view["image_path"] for view in read] == list(views.names)


def batches():
    quick = [pytest.param(start) for start in range(0, NUM_QUICK, BATCH)]
    slow = [pytest.param(start, marks=pytest.mark.slow) for start in range(NUM_QUICK, NUM_FOLDERS, BATCH)]
    return quick + slow


@pytest.mark.parametrize("start", batches())
def test_views_of_made_folders(tmp_path, start):
    for seed in range(start, start + BATCH):
        check(MadeFolder(tmp_path / str(seed), seed))
