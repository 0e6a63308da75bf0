"""Pictures and focal lengths of COLMAP models that would be misread without a word."""

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.scene_3d import read_colmap


def write_model(folder, name, camera="PINHOLE 64 48 50 55 32 24"):
    (folder / "images").mkdir()
    (folder / "cameras.txt").write_text(f"1 {camera}\n")
    (folder / "images.txt").write_text(f"1 1 0 0 0 0 0 0 1 {name}\n\n")
    (folder / "points3D.txt").write_text("")
    return folder / "images" / name


def test_grey_of_16_bits_keeps_its_values(tmp_path):
    Image.fromarray(np.full((48, 64), 40000, np.uint16)).save(write_model(tmp_path, "a.png"))
    assert read_colmap(tmp_path).views[0].picture.getpixel((5, 5)) == (156,) * 3


def test_a_tiff_that_is_turned_while_it_is_decoded_is_refused(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (64, 48)).save(write_model(tmp_path, "a.tiff"), exif=exif)
    with pytest.raises(ValueError, match="a.tiff is turned as it is decoded, but its camera is of the stored picture"):
        read_colmap(tmp_path)


def test_a_cut_picture_and_a_focal_length_of_zero_are_named(tmp_path):
    path = write_model(tmp_path, "a.jpg")
    Image.effect_noise((64, 48), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match="a.jpg cannot be decoded; the file is damaged or cut off"):
        read_colmap(tmp_path)
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 64 48 0 55 32 24\n")
    Image.new("RGB", (64, 48)).save(path)
    with pytest.raises(ValueError, match="has the focal length 0; expected one above 0"):
        read_colmap(tmp_path)
