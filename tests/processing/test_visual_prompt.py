"""Pictures of every kind become upright RGB; crosses land on the right pixels, and pixels on the right tokens."""

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gap_mllm.processing.camera_geometry_gap_mllm import scale_pixels
from gap_mllm.processing.visual_prompt_gap_mllm import (
    MARK_COLORS,
    Mark,
    apply_visual_prompt,
    draw_box,
    draw_cross,
    draw_point,
    draw_scene_marks,
    marks_to_tokens,
    pixel_to_token,
    to_rgb_image,
)


RED = (255, 0, 0)


# Pictures


def test_rgb_is_passed_through(make_image):
    image = make_image()
    assert to_rgb_image(image) is image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_put_on_white(mode):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    pixels = np.asarray(to_rgb_image(image.convert(mode)))
    assert pixels.tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_half_transparent_and_palette_transparency():
    assert to_rgb_image(Image.new("RGBA", (1, 1), (255, 0, 0, 128))).getpixel((0, 0)) == (255, 127, 127)
    palette = Image.new("P", (1, 1), 0)
    palette.info["transparency"] = 0
    assert to_rgb_image(palette).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("value", [0, 100, 255])
def test_grey_is_repeated(value):
    expected = (value, value, value)
    assert to_rgb_image(Image.new("L", (3, 2), value)).getpixel((2, 1)) == expected
    assert to_rgb_image(np.full((2, 3), value, np.uint8)).getpixel((2, 1)) == expected
    assert to_rgb_image(torch.full((1, 2, 3), value, dtype=torch.uint8)).getpixel((2, 1)) == expected
    assert to_rgb_image(Image.new("1", (3, 2), 1)).getpixel((0, 0)) == (255, 255, 255)


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    ramp = np.array([[0, 257 * 10, 257 * 128, 65535]], dtype=np.uint16)
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    for image in (tmp_path / "grey.png", str(tmp_path / "grey.png"), ramp, Image.fromarray(ramp.astype(np.int32))):
        assert np.asarray(to_rgb_image(image))[0, :, 0].tolist() == [0, 10, 128, 255]
    big_endian = Image.frombytes("I;16B", (4, 1), ramp.astype(">u2").tobytes())
    assert np.asarray(to_rgb_image(big_endian))[0, :, 0].tolist() == [0, 10, 128, 255]


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 20, 20))
    image.save(tmp_path / "turned.png", exif=exif)
    upright = to_rgb_image(tmp_path / "turned.png")
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5)) == (255, 255, 255) and upright.getpixel((10, 35)) == (0, 0, 0)
    marked = draw_cross(tmp_path / "turned.png", (10, 35))
    assert marked.size == (20, 40) and marked.getpixel((10, 35)) == RED


def test_arrays_and_tensors_keep_their_layout():
    array = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    for image in (array, torch.from_numpy(array).permute(2, 0, 1), np.moveaxis(array, -1, 0), array / 255.0):
        assert np.array_equal(np.asarray(to_rgb_image(image)), array)
    assert np.array_equal(np.asarray(to_rgb_image(torch.from_numpy(array / np.float32(255)).permute(2, 0, 1))), array)
    assert np.array_equal(np.asarray(to_rgb_image(array.astype(np.float32))), array)
    assert np.array_equal(np.asarray(to_rgb_image(array.astype(np.int64))), array)
    assert to_rgb_image(np.array([[True, False]])).getpixel((0, 0)) == (255, 255, 255)
    assert to_rgb_image(np.zeros((3, 7, 3))).size == (7, 3)  # numpy: rows, columns, channels
    assert to_rgb_image(torch.zeros(3, 7, 3)).size == (3, 7)  # torch: channels, rows, columns


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((6, 5, 2)), r"view has shape \(6, 5, 2\)"),
        (np.zeros((0, 5, 3)), r"view has shape \(0, 5, 3\)"),
        (np.zeros(7), r"view has shape \(7,\)"),
        (np.full((4, 5), np.nan), "values from nan"),
        (np.full((4, 5), -1.0), "values from -1 to -1, expected 0..1 or 0..255"),
        (np.full((4, 5), 256), "values from 256 to 256, expected 0..255"),
        (Image.fromarray(np.full((4, 5), 300, np.float32)), "values from 300"),
    ],
)
def test_arrays_that_are_no_pictures(image, message):
    with pytest.raises(ValueError, match=message):
        to_rgb_image(image, "view")


def test_files_that_cannot_be_read_are_named(tmp_path, make_image):
    whole = io.BytesIO()
    make_image().save(whole, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"image 3 \('.*cut.jpg'\) cannot be decoded; the file is damaged or cut off"):
        to_rgb_image(str(tmp_path / "cut.jpg"), "image 3")
    with pytest.raises(ValueError, match=r"image 3 \('.*cut.jpg'\) cannot be decoded"):
        to_rgb_image(Image.open(tmp_path / "cut.jpg"), "image 3")
    for name in ("text.jpg", "empty.jpg"):
        with pytest.raises(ValueError, match=rf"{name}'\) cannot be read as a picture"):
            to_rgb_image(tmp_path / name)
    Image.new("1", (20000, 12000)).save(tmp_path / "huge.png")
    with pytest.raises(ValueError, match=r"view \('.*huge.png'\) is too large, or damaged; give a smaller picture"):
        to_rgb_image(tmp_path / "huge.png", "view")
    for missing in (str(tmp_path / "none.jpg"), tmp_path / "none.jpg"):
        with pytest.raises(FileNotFoundError, match="none.jpg'\\) does not exist"):
            to_rgb_image(missing)
    with pytest.raises(ValueError, match=r"\('data:image/png;base64,AAAA'\) cannot be read"):
        to_rgb_image("data:image/png;base64,AAAA")
    with pytest.raises(TypeError, match="of type int"):
        to_rgb_image(3)


# Marks


def expected_cross(width, height, x, y, arm=10, half=2):
    rows, columns = np.mgrid[:height, :width]
    dx, dy = abs(columns - x), abs(rows - y)
    return ((dx <= arm) & (dy <= half)) | ((dx <= half) & (dy <= arm))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_the_cross_is_a_clipped_plus(width, height, data):
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    image = np.full((height, width, 3), 7, np.uint8)
    marked = draw_cross(image, (x, y))
    assert (image == 7).all()
    assert np.array_equal((marked == RED).all(-1), expected_cross(width, height, x, y))
    assert ((marked == 7).all(-1) == ~expected_cross(width, height, x, y)).all()


def test_pil_gives_a_copy_and_the_full_cross_has_185_pixels(make_image):
    image = make_image()
    before = np.array(image)
    marked = draw_cross(image, (41, 66))
    assert isinstance(marked, Image.Image) and np.array_equal(np.array(image), before)
    changed = (np.array(marked) == RED).all(-1)
    assert changed.sum() == 2 * 21 * 5 - 25 == 185
    assert changed[66, 31:52].all() and changed[56:77, 41].all() and not changed[66, 30] and not changed[63, 31]


def test_marks_of_a_scene(make_image):
    views = [make_image(seed=i) for i in range(3)]
    marked = apply_visual_prompt(views, [Mark(0, (5, 5)), Mark(2, (50, 60), "blue"), Mark(2, (100, 60), (1, 2, 3))])
    assert marked[1] is views[1] and views[0].getpixel((5, 5)) != RED
    assert marked[0].getpixel((5, 5)) == RED
    assert marked[2].getpixel((50, 60)) == MARK_COLORS["blue"] and marked[2].getpixel((100, 60)) == (1, 2, 3)
    triples = ([1, 41, 66], [[1, 41, 66]], [1.0, 41.0, 66.0], np.array([1, 41, 66]), torch.tensor([[1, 41, 66]]))
    for marks in (*triples, Mark(1, (41, 66))):
        assert np.array_equal(apply_visual_prompt(views, marks)[1], draw_cross(views[1], (41, 66)))
    assert apply_visual_prompt(views, []) == views


@pytest.mark.parametrize("pixel", [(160, 0), (0, 120), (-1, 5), (5, -1)])
def test_a_pixel_outside_names_view_pixel_and_size(make_image, pixel):
    x, y = pixel
    with pytest.raises(ValueError, match=rf"^view 1: pixel \(x={x}, y={y}\) lies outside the picture of 160 x 120"):
        apply_visual_prompt([make_image(), make_image()], [Mark(1, pixel)])
    with pytest.raises(ValueError, match="^pixel .* lies outside"):
        draw_cross(make_image(), pixel)
    with pytest.raises(ValueError, match="lies outside"):
        pixel_to_token(pixel, (160, 120), (8, 10))


def test_other_wrong_marks(make_image):
    for view in (2, -1):
        with pytest.raises(ValueError, match=rf"is on view {view}, but the scene has 2 views"):
            apply_visual_prompt([make_image(), make_image()], [view, 1, 1])
        with pytest.raises(ValueError, match="the scene has 2 views"):
            marks_to_tokens([view, 1, 1], [(160, 120)] * 2, [[1, 8, 10]] * 2)
    for pixel in ((1.5, 2), (math.nan, 2), (2, math.inf), (1, 2, 3)):
        with pytest.raises(ValueError, match="no pair of whole numbers"):
            draw_cross(make_image(), pixel)
    for marks in ([0, 12.5, 3], [[0, 12.5, 3]], [[0, math.nan, 3]]):
        with pytest.raises(ValueError, match="^view 0: pixel .* is no pair of whole numbers"):
            apply_visual_prompt([make_image()], marks)
    for marks in ([[5, 5]], [5, 5], 5, "abc", ["x"], [[0, None, 1]]):
        with pytest.raises(ValueError, match="is no mark; expected a Mark, or view, x and y"):
            apply_visual_prompt([make_image()], marks)
    with pytest.raises(ValueError, match="its view must be a whole number"):
        apply_visual_prompt([make_image()], [[0.7, 1, 1]])
    for size in ({"arm": -1}, {"arm": 2.5}, {"half_thickness": -1}):
        with pytest.raises(ValueError, match=f"^{next(iter(size))} is .* expected a whole number of pixels"):
            apply_visual_prompt([make_image()], [0, 1, 1], **size)
    for single in (make_image(), "view.png"):
        with pytest.raises(TypeError, match="must be a list of the views"):
            apply_visual_prompt(single, [0, 1, 1])
    with pytest.raises(ValueError, match="unknown mark colour 'ultra'; known are red, "):
        draw_cross(make_image(), (1, 2), "ultra")
    with pytest.raises(ValueError, match="three values 0..255"):
        draw_cross(make_image(), (1, 2), (0, 0, 256))


# Discs, outlines and labels


def scene_mark(kind, xy, color="red", view=0, unit="pixel", text=None):
    return SimpleNamespace(view=view, kind=kind, color=color, xy=xy, unit=unit, text=text)


def canvas(width=400, height=300, value=7):
    return np.full((height, width, 3), value, np.uint8)


def pixels_of(picture, rgb):
    return (np.asarray(picture) == rgb).all(-1)


@pytest.mark.parametrize("pixel", [(200, 150), (3, 290), (399, 0)])
def test_a_point_is_a_filled_disc_of_radius_20(pixel):
    image = canvas()
    marked = draw_point(image, pixel)
    assert isinstance(marked, np.ndarray) and (image == 7).all()
    rows, columns = np.mgrid[:300, :400]
    distance = np.hypot(columns - pixel[0], rows - pixel[1])
    red = pixels_of(marked, RED)
    assert red[distance <= 20].all() and not red[distance > 20.8].any()
    assert ((marked == 7).all(-1) == ~red).all()


def test_the_outer_edge_of_a_box_lies_seven_eighths_of_the_outline_out():
    marked = draw_box(Image.fromarray(canvas()), (100, 120, 250, 200))
    assert isinstance(marked, Image.Image)
    rows, columns = np.mgrid[:300, :400]
    in_outer = (columns >= 82) & (columns <= 267) & (rows >= 102) & (rows <= 217)  # 100 - 17.5 and so on, cut
    in_hole = (columns > 101) & (columns < 248) & (rows > 121) & (rows < 198)  # 20 pixels further in
    assert np.array_equal(pixels_of(marked, RED), in_outer & ~in_hole)


def test_coordinates_of_a_box_are_cut_towards_zero():
    red = pixels_of(draw_box(canvas(), (5, 30.9, 60, 60)), RED)
    assert red[50, 0:8].all() and not red[50, 8]  # from int(-12.5) = -12, 20 wide
    assert red[13, 30] and not red[12, 30]  # int(13.4)


def test_green_is_that_of_pil_without_a_label_and_that_of_opencv_with_one():
    assert draw_point(Image.fromarray(canvas()), (50, 50), "green").getpixel((50, 50)) == (0, 128, 0)
    assert draw_point(Image.fromarray(canvas()), (50, 50), "green", text="1").getpixel((50, 50)) == (0, 255, 0)
    marks = [scene_mark("box", (100, 100, 200, 200), "cyan", text="object3")]
    assert draw_scene_marks([Image.fromarray(canvas())], marks)[0].getpixel((72, 150)) == (0, 225, 225)
    assert draw_cross(Image.fromarray(canvas()), (50, 50), "green").getpixel((50, 50)) == (0, 255, 0)


def test_a_labelled_box_lies_further_out_and_carries_its_text():
    blue, white = MARK_COLORS["blue"], (255, 255, 255)
    marked = draw_box(canvas(600, 500), (300, 100, 500, 200), "blue", text="object0")
    is_blue, is_white = pixels_of(marked, blue), pixels_of(marked, white)
    assert is_blue[150, 270] and not is_blue[150, 269] and is_blue[150, 289] and not is_blue[150, 290]  # 30 to 10 out
    rows, columns = is_white.nonzero()
    assert is_white.sum() > 500 and columns.max() < 500 and rows.min() > 200 and rows.max() < 280
    below = draw_box(canvas(600, 250), (300, 100, 500, 200), "blue", text="object0")
    rows, _ = pixels_of(below, white).nonzero()
    assert rows.max() < 200  # no room below


def test_a_label_stays_in_the_picture_beside_its_point():
    for pixel in ((200, 150), (395, 295), (2, 2)):
        marked = draw_point(canvas(), pixel, "red", radius=10, text="12")
        is_white = pixels_of(marked, (255, 255, 255))
        rows, columns = is_white.nonzero()
        assert is_white.sum() > 30
        assert columns.min() > pixel[0] + 10 or columns.max() < pixel[0] - 10
        assert abs(rows.mean() - pixel[1]) < 40
    on_yellow = draw_point(canvas(), (200, 150), "yellow", radius=10, text="12")
    assert pixels_of(on_yellow, (0, 0, 0)).sum() > 30 and not pixels_of(on_yellow, (255, 255, 255)).any()


def test_all_kinds_of_marks_of_a_scene():
    views = [Image.fromarray(canvas()), Image.fromarray(canvas()), canvas(200, 100)]
    marks = [
        scene_mark("cross", (30, 40)),
        scene_mark("point", (500, 999), "green", 2, "permille"),
        scene_mark("box", (250, 400, 625, 2000 / 3), "blue", 0, "permille"),
        scene_mark("cross", (1000, 1000), "red", 2, "permille"),
        scene_mark("point", (150, 50), "blue", 2),
    ]
    drawn = draw_scene_marks(views, marks)
    assert drawn[1] is views[1] and (views[2] == 7).all() and isinstance(drawn[2], np.ndarray)
    expected = draw_box(draw_cross(views[0], (30, 40)), (100, 120, 250, 200), "blue")
    assert np.array_equal(np.asarray(drawn[0]), np.asarray(expected))
    assert drawn[2][99, 100].tolist() == [0, 128, 0] and drawn[2][99, 199].tolist() == [255, 0, 0]
    assert drawn[2][50, 150].tolist() == [0, 0, 255]
    assert draw_scene_marks(views, [])[0] is views[0]


def test_later_marks_cover_earlier_ones():
    marks = [scene_mark("point", (50, 50), "red"), scene_mark("point", (50, 50), "blue")]
    assert draw_scene_marks([canvas()], marks)[0][50, 50].tolist() == [0, 0, 255]
    assert draw_scene_marks([canvas()], marks[::-1])[0][50, 50].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (scene_mark("disc", (1, 1)), "view 0: mark of kind 'disc' in 'pixel'; expected cross, point, box"),
        (scene_mark("point", (1, 1), unit="percent"), "in 'percent'; expected .* in pixel or permille"),
        (scene_mark("point", (1, 1), view=1), "is on view 1, but the scene has 1 views"),
        (scene_mark("point", (400, 1)), r"view 0: pixel \(x=400, y=1\) lies outside"),
        (scene_mark("point", (1.5, 1)), "no pair of whole numbers"),
        (scene_mark("point", (1001, 1), unit="permille"), "view 0: point .* lies outside .* thousandths"),
        (scene_mark("point", (1, 1, 2, 2)), "a point of 4 numbers"),
        (scene_mark("box", (1, 1)), "a box of 2 numbers"),
        (scene_mark("box", (9, 1, 2, 2)), "is not x1, y1, x2, y2 with x1 <= x2"),
        (scene_mark("box", (1, 1, 2, math.nan)), "is not x1, y1, x2, y2"),
        (scene_mark("box", (1, 300, 2, 310)), "view 0: box .* lies outside the picture of 400 x 300"),
        (scene_mark("box", (1, 1, 2, 2), "ultra"), "unknown mark colour 'ultra'"),
    ],
)
def test_marks_that_cannot_be_drawn(mark, message):
    with pytest.raises(ValueError, match=message):
        draw_scene_marks([canvas()], [mark])


def test_other_wrong_arguments_of_discs_and_outlines():
    with pytest.raises(TypeError, match="must be a list of the views"):
        draw_scene_marks(Image.fromarray(canvas()), [])
    with pytest.raises(ValueError, match="radius is 2.5; expected a whole number of pixels, 0 or more"):
        draw_point(canvas(), (1, 1), radius=2.5)
    with pytest.raises(ValueError, match="width is 0; expected a whole number of pixels, 1 or more"):
        draw_box(canvas(), (1, 1, 5, 5), width=0)
    with pytest.raises(ValueError, match="radius is -1"):
        draw_scene_marks([canvas()], [], radius=-1)
    with pytest.raises(ValueError, match="lies outside"):
        draw_point(canvas(), (-1, 4))
    with pytest.raises(ValueError, match="lies outside"):
        draw_box(canvas(), (-9, -9, -1, -1))


# Pixels through a resize


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 20), st.integers(1, 20), st.data())
def test_token_agrees_with_the_resized_pixel(width, height, rows, columns, data):
    pixel = (data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1)))
    token = pixel_to_token(pixel, (width, height), (2 * rows, 2 * columns))
    x, y = scale_pixels(np.array(pixel, dtype=float), 32 * columns / width, 32 * rows / height)
    row, column = divmod(token, columns)
    assert 0 <= token < rows * columns
    assert 32 * column - 1e-6 <= x + 0.5 <= 32 * (column + 1) + 1e-6
    assert 32 * row - 1e-6 <= y + 0.5 <= 32 * (row + 1) + 1e-6


@pytest.mark.parametrize("pixel", [(0, 0), (159, 119), (80, 60), (31, 32), (100, 20)])
def test_the_token_of_a_pixel_is_the_brightest_after_processing(tiny_processor, pixel):
    """A white square around the pixel, through the real processor: its token's patches are the brightest."""
    images = [Image.new("RGB", (160, 128)), Image.new("RGB", (320, 256)), Image.new("RGB", (160, 128))]
    marked = draw_cross(images[1], (2 * pixel[0], 2 * pixel[1]), "white", arm=1, half_thickness=1)
    out = tiny_processor.image_processor([images[0], marked, images[2]], return_tensors="pt")
    assert out["image_grid_thw"].tolist() == [[1, 8, 10]] * 3
    brightness = out["pixel_values"].reshape(-1, 4 * out["pixel_values"].shape[1]).sum(1)  # 4 patches a token
    sizes = [(160, 128), (320, 256), (160, 128)]
    mark = Mark(1, (2 * pixel[0], 2 * pixel[1]))
    token = marks_to_tokens([mark], sizes, out["image_grid_thw"])[0]
    assert token == int(brightness.argmax())
    assert token == 20 + pixel_to_token(mark.pixel, sizes[1], (8, 10))


def test_marks_of_another_copy_of_the_class_are_taken():
    """A processor loaded as remote code has its own `Mark`."""
    image = np.zeros((9, 9, 3), np.uint8)
    other = SimpleNamespace(view=0, pixel=(4, 4), color="cyan")
    drawn = apply_visual_prompt([image], [other], arm=1, half_thickness=0)[0]
    assert np.array_equal(np.asarray(drawn)[4, 3], (0, 255, 255)) and not np.asarray(drawn)[3, 3].any()
