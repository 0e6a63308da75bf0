"""COLMAP models as they lie about: blank lines, pictures of other sizes, distorted cameras, binary files."""

import sys

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.scene_3d import Scene3D, View3D, read_colmap, write_colmap


K = np.array([[50.0, 0, 19.5], [0, 40, 14.5], [0, 0, 1]])  # PINHOLE 40 30 50 40 20 15
NAMES = ("a.png", "b.png")


def image(number, name, camera=1):
    """The line of an image `number` metres to the left of the origin."""
    return f"{number} 1 0 0 0 {number} 0 0 {camera} {name}"


TWO = f"{image(1, 'a.png')}\n\n{image(2, 'b.png')}\n\n"


def write_model(folder, images=TWO, cameras="1 PINHOLE 40 30 50 40 20 15\n", points="", end="\n"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("images", images), ("cameras", cameras), ("points3D", points)):
        (folder / f"{name}.txt").write_bytes(text.replace("\n", end).encode())
    return folder


def write_pictures(folder, names=NAMES, size=(40, 30), color=(10, 20, 30), **options):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", size, color).save(folder / name, **options)
    return folder


def places(scene):
    """Where the camera of each view is, by name."""
    return {view.name: view.camera_to_reference[:3, 3].tolist() for view in scene.views}


BOTH = {"a.png": [-1.0, 0, 0], "b.png": [-2.0, 0, 0]}


@pytest.mark.parametrize(
    "images",
    [
        f"# IMAGE_ID\n#\n\n\n{TWO}",  # blank lines before the first image
        f"\n{TWO}",
        f"{image(1, 'a.png')}\n\n\n\n# two\n\n{image(2, 'b.png')}\n\n\n",
        f"  {image(1, 'a.png')} \n  \n\t{image(2, 'b.png')}\t\n\t\n",
        f"{image(1, 'a.png')}\n1.5 2.5 7 3.5 4.5 -1\n{image(2, 'b.png')}\n5 6 7\n",
        f"{image(1, 'a.png')}\n5 6 7 8 9 10 11 12 13 14 15 16\n{image(2, 'b.png')}\n5 6 7",  # as whole as ids
        f"{image(1, 'a.png')}\n# COLMAP takes any line for the points\n{image(2, 'b.png')}\n\n",
        TWO.replace(" ", "\t"),
        TWO.replace(" ", "  "),
        f"\ufeff{TWO}",  # of Windows' editors
        f"{image(1, 'a.png')}\n\n{image(2, 'b.png')}",  # COLMAP drops the last
        f"{image(1, 'a.png')}\n{image(2, 'b.png')}\n",  # COLMAP reads the second as points of the first
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_image_is_read_wherever_blank_lines_are(tmp_path, images, end):
    write_pictures(tmp_path / "images")
    scene = read_colmap(write_model(tmp_path, images, end=end))
    assert places(scene) == BOTH and [view.name for view in scene.views] == list(NAMES)
    np.testing.assert_array_equal(scene.views[1].intrinsics, K)


def test_images_without_the_line_of_their_points_are_told(tmp_path, caplog):
    write_pictures(tmp_path / "images")
    read_colmap(write_model(tmp_path, TWO))
    assert not caplog.messages
    read_colmap(write_model(tmp_path, TWO.replace("\n\n", "\n")))
    assert "images.txt: 1 images have no line of 2D points behind them" in caplog.text


def test_names_keep_their_spaces_and_letters(tmp_path):
    names = ("left eye/my photo 1.png", "café.png")
    write_pictures(tmp_path / "images" / "left eye", ["my photo 1.png"])
    write_pictures(tmp_path / "images", names[1:])
    scene = read_colmap(write_model(tmp_path, f"{image(1, names[0])}\n\n{image(2, names[1])}\n\n"))
    assert [view.name for view in scene.views] == list(names)


def test_points_have_tracks_of_any_length(tmp_path):
    write_pictures(tmp_path / "images")
    points = "# POINT3D_ID\n\n7 1 2 3 9 8 7 0.1 1 0 2 0\n  8 4 5 6 6 5 4 -1  \n9 7 8 9 3 2 1 0.5 1 1\n"
    first, second = read_colmap(write_model(tmp_path, points=points)).views
    assert first.points.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert first.colors.tolist() == [[9, 8, 7], [6, 5, 4], [3, 2, 1]] and len(second.points) == 0


# Cameras and pictures


@pytest.mark.parametrize(
    ("camera", "expected"),
    [
        ("PINHOLE 40 30 50 40 20 15", K),
        ("SIMPLE_PINHOLE 40 30 50 20 15", np.array([[50.0, 0, 19.5], [0, 50, 14.5], [0, 0, 1]])),
        ("SIMPLE_RADIAL 40 30 50 20 15 0", np.array([[50.0, 0, 19.5], [0, 50, 14.5], [0, 0, 1]])),
        ("RADIAL 40 30 50 20 15 0 0.0", np.array([[50.0, 0, 19.5], [0, 50, 14.5], [0, 0, 1]])),
        ("OPENCV 40 30 50 40 20 15 0 0 0 -0.0", K),
        ("FULL_OPENCV 40 30 50 40 20 15 0 0 0 0 0 0 0 0", K),
    ],
)
def test_cameras_without_distortion_are_pinholes(tmp_path, camera, expected):
    write_pictures(tmp_path / "images")
    scene = read_colmap(write_model(tmp_path, cameras=f"\n# one\n\n1 {camera}\n2 FOV 40 30 50 40 20 15 1\n"))
    np.testing.assert_array_equal(scene.views[0].intrinsics, expected)


@pytest.mark.parametrize(
    ("camera", "says"),
    [
        (
            "SIMPLE_RADIAL 40 30 50 20 15 0.01",
            "camera 1 of .* is SIMPLE_RADIAL; expected PINHOLE, or .* distortion is 0",
        ),
        ("OPENCV 40 30 50 40 20 15 0 0 0.1 0", "is OPENCV; expected PINHOLE.*colmap image_undistorter"),
        ("OPENCV_FISHEYE 40 30 50 40 20 15 0 0 0 0", "is OPENCV_FISHEYE; expected PINHOLE"),
        ("SIMPLE_RADIAL_FISHEYE 40 30 50 20 15 0", "is SIMPLE_RADIAL_FISHEYE"),  # no pinhole even so
        ("PINHOLE 40 30 50 40 20", "has 3 parameters, which are not those of PINHOLE"),
        ("PINHOLE 40 x 50 40 20 15", "cameras.txt, line 1 is '1 PINHOLE 40 x .*expected CAMERA_ID MODEL WIDTH"),
        ("PINHOLE 40 40 50 40 20 20", "camera 1 of .*a.png: .*40 x 40 pixels .* 40 x 30. No one scale"),
        ("PINHOLE 30 40 50 40 15 20", "turned by a quarter"),
        ("PINHOLE 0 0 50 40 20 15", "intrinsics_size is .* both above 0"),
    ],
)
def test_other_cameras_are_refused_by_name(tmp_path, camera, says):
    write_pictures(tmp_path / "images")
    with pytest.raises(ValueError, match=says):
        read_colmap(write_model(tmp_path, cameras=f"1 {camera}\n"))


def test_pictures_of_another_size_have_scaled_cameras_and_it_is_said(tmp_path, caplog):
    """Mip-NeRF 360's images_2: halves of odd sides, rounded up."""
    write_pictures(tmp_path / "images_2", size=(40, 31))
    model = write_model(tmp_path / "sparse" / "0", cameras="1 PINHOLE 79 61 100 100 39.5 30.5\n")
    scene = read_colmap(tmp_path)
    for view in scene.views:
        np.testing.assert_allclose(view.intrinsics[:2, 2], [19.5, 15.0])  # the middle stays the middle
        np.testing.assert_allclose(view.intrinsics[[0, 1], [0, 1]], [100 * 40 / 79, 100 * 31 / 61])
    assert caplog.text.count("scaled from pictures of 79 x 61 to 40 x 31 pixels") == 1
    assert f"the pictures of {model} are read from {tmp_path / 'images_2'}; images=DIR" in caplog.text


def test_which_pictures_are_read_is_certain(tmp_path):
    for number, name in enumerate(("images_8", "images_4", "images_2", "images", "mine"), 1):
        write_pictures(tmp_path / name, color=(number, 0, 0))
    model = write_model(tmp_path / "sparse" / "0")

    def color(*args):
        return read_colmap(*args).views[0].picture.getpixel((0, 0))[0]

    assert color(tmp_path) == color(model) == color(model.parent) == 4
    assert color(tmp_path, "images_4") == color(model, "images_4") == color(model, tmp_path / "images_4") == 2
    assert color(tmp_path, "mine") == 5
    for name, expected in (("images", 3), ("images_2", 2), ("images_4", 1)):
        (tmp_path / name / "a.png").unlink()
        assert color(tmp_path) == expected
    (tmp_path / "images_8" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"the picture .*images_8/b.png of the COLMAP model .*0 is not there"):
        read_colmap(tmp_path)
    with pytest.raises(
        FileNotFoundError, match="the pictures of .*, as a.png, are not there; tried .*Pass images=DIR"
    ):
        read_colmap(tmp_path, "nowhere")


@pytest.mark.parametrize("place", [".", "sparse", "sparse/0", "0"])
def test_a_model_is_found_below_its_project(tmp_path, place, caplog):
    write_pictures(tmp_path / "images")
    write_model(tmp_path / place)
    assert places(read_colmap(tmp_path)) == BOTH and not caplog.messages
    if place.endswith("0"):
        (tmp_path / place).with_name("1").mkdir()
        read_colmap(tmp_path)
        assert f"{tmp_path / place} is read; COLMAP made other reconstructions beside it: 1." in caplog.text


def test_pictures_are_read_as_they_are_stored(tmp_path):
    """As COLMAP reads them; nobody can turn them by their EXIF orientation later, either."""
    exif = Image.Exif()
    exif[0x0112] = 6
    write_pictures(tmp_path / "images", exif=exif)
    picture = read_colmap(write_model(tmp_path)).views[0].picture
    assert picture.size == (40, 30) and 0x0112 not in picture.getexif() and "exif" not in picture.info


# What is broken


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"images": TWO.replace("2 1 0", "2 x 0")}, "images.txt, line 3 is '2 x 0"),
        ({"images": f"{image(1, 'a.png')}\n1 2\n"}, "line 2 is '1 2'; expected the 2D points of the image above it"),
        ({"images": "1 1 0 0 0 1 0 0 1\n\n"}, "images.txt, line 1 is .*expected IMAGE_ID QW QX QY QZ TX TY TZ"),
        ({"images": TWO.replace("2 1 0", "1 1 0")}, "images.txt, line 3 has the number 1 a second time"),
        ({"cameras": "1 PINHOLE 40 30 50 40 20 15\n" * 2}, "cameras.txt, line 2 has the number 1 a second time"),
        ({"cameras": ""}, "a.png of .* has camera 1, which the model does not hold"),
        ({"points": "1 2 3\n"}, "points3D.txt, line 1 is '1 2 3'; expected POINT3D_ID X Y Z R G B ERROR"),
        ({"images": "# none\n\n"}, "holds no image"),
        ({"images": TWO.replace("2 1 0 0 0 2", "2 1 0 0 0 nan")}, "the pose of b.png .*NaN.*mark lost tracking"),
        ({"images": TWO.replace("2 1 0 0 0", "2 -inf -inf -inf -inf")}, "the pose of b.png .*infinity"),
        ({"images": TWO.replace("2 1 0 0 0", "2 0 0 0 0")}, "the pose of b.png .*a quaternion of zeros"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, fields, says):
    write_pictures(tmp_path / "images")
    with pytest.raises(ValueError, match=says):
        read_colmap(write_model(tmp_path, **fields))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no COLMAP model; expected cameras, images and points3D"):
        read_colmap(tmp_path)
    (write_model(tmp_path / "sparse" / "0") / "points3D.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"the COLMAP model .*0 lacks points3D.txt"):
        read_colmap(tmp_path)


# Binary models


def test_a_binary_model_needs_pycolmap(tmp_path, monkeypatch):
    for name in ("cameras", "images", "points3D"):
        (write_model(tmp_path) / f"{name}.bin").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(ImportError, match=r"needs pycolmap: pip install gap-mllm\[colmap\]"):
        read_colmap(tmp_path)


@pytest.mark.parametrize("is_old", [True, False])
def test_a_binary_model_is_that_of_the_text(tmp_path, is_old):
    pycolmap = pytest.importorskip("pycolmap", reason="needs pycolmap: make test-view")
    write_pictures(tmp_path / "images")
    images = f"{image(3, 'b.png')}\n\n1 0.8 0 0.6 0 1 2 3 1 a.png\n5 6 7\n"
    points = "7 1 2 3 9 8 7 0.1 1 0\n2 4 5 6 6 5 4 0.1\n"
    text = write_model(tmp_path / "text", images, points=points)
    binary = tmp_path / "sparse" / "0"
    binary.mkdir(parents=True)
    pycolmap.Reconstruction(str(text)).write_binary(str(binary))
    for name in ("rigs.bin", "frames.bin") if is_old else ():  # COLMAP before 3.12 writes none
        (binary / name).unlink()
    first, second = read_colmap(tmp_path).views
    others = {view.name: view for view in read_colmap(text, tmp_path / "images").views}
    assert (first.name, second.name) == ("a.png", "b.png")
    for view in (first, second):
        np.testing.assert_allclose(view.camera_to_reference, others[view.name].camera_to_reference, atol=1e-12)
        np.testing.assert_array_equal(view.intrinsics, K)
    assert first.points.tolist() == [[4, 5, 6], [1, 2, 3]] and first.colors.tolist() == [[6, 5, 4], [9, 8, 7]]


def test_of_both_forms_the_binary_one_is_read_as_colmap_does(tmp_path, caplog):
    pycolmap = pytest.importorskip("pycolmap", reason="needs pycolmap: make test-view")
    write_pictures(tmp_path / "images")
    pycolmap.Reconstruction(str(write_model(tmp_path))).write_binary(str(tmp_path))
    write_model(tmp_path, f"{image(9, 'a.png')}\n\n")
    assert places(read_colmap(tmp_path)) == BOTH and len(pycolmap.Reconstruction(str(tmp_path)).images) == 2
    assert "holds a COLMAP model as .bin and as .txt; the binary one is read" in caplog.text


def test_a_broken_binary_model_is_named(tmp_path):
    pytest.importorskip("pycolmap", reason="needs pycolmap: make test-view")
    for name in ("cameras", "images", "points3D"):
        (tmp_path / f"{name}.bin").write_bytes(b"\x01")
    with pytest.raises(ValueError, match="pycolmap cannot read the COLMAP model"):
        read_colmap(tmp_path)


@pytest.mark.parametrize("name", ["images.bin", "frames.txt"])
def test_text_is_not_written_beside_files_that_colmap_would_read_instead(tmp_path, name):
    (tmp_path / name).write_text("")
    scene = Scene3D((View3D("a.png", Image.new("RGB", (40, 30)), K, np.eye(4)),))
    with pytest.raises(ValueError, match=f"holds {name} of another model, which COLMAP reads"):
        write_colmap(scene, tmp_path)
    (tmp_path / name).unlink()
    assert places(read_colmap(write_colmap(scene, tmp_path))) == {"view_0000.png": [0, 0, 0]}
