"""Metres from a factor, known depth or a known distance, on rendered rooms whose scale is known."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing.data import RecordError, render_room
from gap_mllm.processing.data.video_labels.metric_scale import (
    KnownBaseline,
    KnownDepth,
    MetricScale,
    UserFactor,
    as_scale_estimator,
    check_map_shape,
    known_depth_from_folder,
    read_nearest,
)
from gap_mllm.processing.data.video_labels.teacher_windows import reconstruct_in_windows
from gap_mllm.processing.view_files_gap_mllm import EXIF_ORIENTATION, Orientation
from tests.processing.data.rendered_teacher import RenderedTeacher, room_inputs


@pytest.fixture(scope="module")
def room():
    return render_room(1_100_003, num_views=4, height=42, width=56)


@pytest.fixture(scope="module")
def reconstruction(room):
    """In units of 1.6 metres."""
    return reconstruct_in_windows(RenderedTeacher(room, scales=[1 / 1.6]), room_inputs(room))[0]


def test_a_user_factor_is_taken_as_it_is(reconstruction):
    assert UserFactor(2.5)(reconstruction) == MetricScale(2.5, "user factor")
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="the scale factor is .*; expected a positive finite number"):
            UserFactor(bad)
        with pytest.raises(ValueError, match=r"the scale factor \(mine\) is .*; expected a positive number"):
            MetricScale(bad, "mine")
    for bad in ("2", True, None):
        with pytest.raises(TypeError, match="the scale factor is .*; expected a positive finite number"):
            UserFactor(bad)


def test_known_depth_of_some_views_gives_the_scale(room, reconstruction):
    metric = KnownDepth({1: room.depth_m[1], 3: room.depth_m[3]})(reconstruction)
    assert metric.factor == pytest.approx(1.6, rel=1e-6) and metric.source == "known depth"
    assert metric.details["num_pixels"] == 2 * 42 * 56 and metric.details["num_views"] == 2
    assert metric.details["middle_half"] == pytest.approx([1.6, 1.6], rel=1e-6)


def test_known_depth_survives_wrong_and_missing_readings(room, reconstruction):
    rng = np.random.default_rng(0)
    depth = room.depth_m[0].astype(np.float64)
    draw = rng.random(depth.shape)
    depth[draw < 0.3] = rng.uniform(0.1, 50, int((draw < 0.3).sum()))
    depth[draw > 0.7] = 0
    depth[draw > 0.9] = np.nan
    assert KnownDepth({0: depth})(reconstruction).factor == pytest.approx(1.6, rel=0.02)


def test_known_depth_of_another_size_is_read_at_the_nearest_pixel(room, reconstruction):
    large = np.kron(room.depth_m[0], np.ones((3, 3)))  # each pixel thrice
    metric = KnownDepth({0: large})(reconstruction)
    assert metric.factor == pytest.approx(1.6, rel=1e-6)
    np.testing.assert_array_equal(read_nearest(large, (42, 56)), room.depth_m[0])
    np.testing.assert_array_equal(read_nearest(np.arange(4.0)[None], (1, 8)), [[0, 0, 1, 1, 2, 2, 3, 3]])


def test_unsure_pixels_have_no_say_in_the_scale(room):
    def spoil(answer, views):
        answer.depth_conf[:, :20] = 1.0
        answer.depth[:, :20] *= 7

    found, _ = reconstruct_in_windows(RenderedTeacher(room, scales=[1 / 1.6], change=spoil), room_inputs(room))
    assert KnownDepth({0: room.depth_m[0]})(found).factor == pytest.approx(1.6, rel=1e-6)


def test_known_depth_that_cannot_be_compared_is_refused(room, reconstruction):
    with pytest.raises(ValueError, match="can be compared at 0 pixels of 1 views; expected at least 100"):
        KnownDepth({0: 0 * room.depth_m[0]})(reconstruction)
    with pytest.raises(ValueError, match="can be compared at 0 pixels of 0 views"):
        KnownDepth({})(reconstruction)
    with pytest.raises(ValueError, match="known depth of view 4 .* a view from 0 to 3"):
        KnownDepth({4: room.depth_m[0]})(reconstruction)
    with pytest.raises(ValueError, match=r"known depth of view 0 has shape \(42, 56, 1\)"):
        KnownDepth({0: room.depth_m[0][..., None]})(reconstruction)


@pytest.mark.parametrize(
    ("turn", "text"),
    [
        (Orientation(False, True, True), r"turned by 180 degrees \(upside down\)"),
        (Orientation(False, True, False), "mirrored, left to right"),
        (Orientation(False, False, True), "mirrored, top to bottom"),
    ],
)
def test_known_depth_that_is_turned_is_refused(room, reconstruction, turn, text):
    maps = {0: room.depth_m[0], 2: turn.array(room.depth_m[2])}
    with pytest.raises(ValueError, match=f"known depth of view 2 does not lie as its picture does.*it is {text}"):
        KnownDepth(maps)(reconstruction)


def test_a_teacher_with_errors_tells_turned_maps_from_right_ones(room, reconstruction):
    rng = np.random.default_rng(0)
    noisy = [depth * rng.normal(1, 0.1, depth.shape).astype(np.float32) for depth in reconstruction.depth]
    noisy = replace(reconstruction, depth=noisy)
    right = KnownDepth({view: room.depth_m[view] for view in range(4)})(noisy)
    assert right.factor == pytest.approx(1.6, rel=0.02)
    with pytest.raises(ValueError, match=r"more than \d\d % off, but [678] % if it is turned by 180 degrees"):
        KnownDepth({view: room.depth_m[view, ::-1, ::-1] for view in range(4)})(noisy)


@pytest.mark.parametrize("value", [5, 6, 7, 8])
def test_square_maps_that_are_turned_by_a_quarter_are_refused_by_what_they_show(value):
    room = render_room(1_100_003, num_views=2, height=42, width=42)
    found, _ = reconstruct_in_windows(RenderedTeacher(room, scales=[1 / 1.6]), room_inputs(room))
    assert KnownDepth({0: room.depth_m[0]})(found).factor == pytest.approx(1.6, rel=1e-6)
    with pytest.raises(ValueError, match="known depth of view 0 does not lie as its picture does"):
        KnownDepth({0: Orientation.from_exif(value).array(room.depth_m[0])})(found)


def test_known_depth_of_another_shape_is_refused(room, reconstruction):
    with pytest.raises(ValueError, match="of view 1 has 42 x 56 pixels and the teacher's 56 x 42.*by 90 degrees"):
        KnownDepth({1: room.depth_m[1].T})(reconstruction)
    with pytest.raises(ValueError, match="of view 0 has 42 x 42 pixels and the teacher's 56 x 42, another shape"):
        KnownDepth({0: room.depth_m[0][:, 7:49]})(reconstruction)
    check_map_shape("it", (1080, 1920), (294, 518))  # rounded to patches
    check_map_shape("it", (90, 160), (28, 56))
    with pytest.raises(ValueError, match="it has 1440 x 1080 pixels"):
        check_map_shape("it", (1080, 1440), (294, 518))


def test_maps_that_fit_badly_and_views_that_disagree_are_warned_of(room, reconstruction, caplog):
    KnownDepth({0: room.depth_m[0], 1: room.depth_m[1]})(reconstruction)
    assert not caplog.records
    KnownDepth({0: room.depth_m[0], 3: 3 * room.depth_m[3]})(reconstruction)
    assert "view 0 the factor 1.6 and view 3 4.8: they disagree by more than a factor of 2" in caplog.text
    rng = np.random.default_rng(0)
    KnownDepth({1: np.exp(rng.normal(1, 1, (42, 56)))})(reconstruction)
    assert "known depth of views 1 fits the teacher's badly" in caplog.text


def test_known_depth_of_another_kind_is_refused(room):
    with pytest.raises(
        TypeError, match="depth_m is a ndarray; expected a mapping from indices of views to depth maps"
    ):
        KnownDepth(room.depth_m)
    with pytest.raises(TypeError, match="a view of depth_m is '0'; expected an integer"):
        KnownDepth({"0": room.depth_m[0]})
    for value, error in ((float("nan"), ValueError), (101, ValueError), (-1, ValueError), ("50", TypeError)):
        with pytest.raises(error, match=f"confidence_percentile is {value!r}; expected a number from 0 to 100"):
            KnownDepth({}, confidence_percentile=value)
    with pytest.raises(ValueError, match="min_pixels is -1; expected 0 or more"):
        KnownDepth({}, min_pixels=-1)
    with pytest.raises(TypeError, match="min_pixels is 1.5; expected an integer"):
        KnownDepth({}, min_pixels=1.5)


def test_a_known_baseline_gives_the_scale(room, reconstruction):
    distance = np.linalg.norm(room.camera_to_world[3, :3, 3] - room.camera_to_world[1, :3, 3])
    metric = KnownBaseline(1, 3, distance)(reconstruction)
    assert metric.factor == pytest.approx(1.6, rel=1e-5) and metric.source == "known baseline"


def test_a_baseline_of_no_length_or_view_is_refused(reconstruction):
    for views in ((0, 4), (-1, 2), (1, 1)):
        with pytest.raises(ValueError, match="expected two different ones from 0 to 3"):
            KnownBaseline(*views, 1.0)(reconstruction)
    for metres in (0.0, -2.0, float("nan")):
        with pytest.raises(ValueError, match="metres is .*; expected a positive finite number"):
            KnownBaseline(0, 1, metres)
    with pytest.raises(TypeError, match="metres is '1'; expected a positive finite number"):
        KnownBaseline(0, 1, "1")
    for view in (1.0, "1", True):
        with pytest.raises(TypeError, match="second_view is .*; expected an integer"):
            KnownBaseline(0, view, 1.0)
    still = reconstruction.select([0, 0])
    with pytest.raises(ValueError, match="less than a thousandth of the depth"):
        KnownBaseline(0, 1, 1.0)(still)


def test_what_a_user_gives_becomes_an_estimator(reconstruction):
    metric = as_scale_estimator(None)(reconstruction)
    assert metric.factor == 1.0 and metric.source == "none: the teacher's own units"
    assert as_scale_estimator(3)(reconstruction) == MetricScale(3.0, "user factor")
    own = KnownBaseline(0, 1, 1.0)
    assert as_scale_estimator(own) is own
    assert as_scale_estimator(np.float32(0.5))(reconstruction) == MetricScale(0.5, "user factor")
    with pytest.raises(ValueError, match="scale is empty; expected a factor or a folder of depth maps"):
        as_scale_estimator("")
    for bad in (True, [1.0], {}):
        with pytest.raises(TypeError, match="expected None, a factor, a folder of depth maps, or an estimator"):
            as_scale_estimator(bad)


def write_depth(path, depth_m, depth_scale=1000.0):
    Image.fromarray(np.rint(depth_m * depth_scale).astype(np.uint16)).save(path)


def exif(value):
    made = Image.Exif()
    made[EXIF_ORIENTATION] = value
    return made


@pytest.mark.parametrize("value", range(1, 9))
def test_maps_of_a_folder_are_turned_with_their_pictures(room, reconstruction, tmp_path, value):
    """Picture and map as a phone stores them; the pictures are upright as the teacher sees them."""
    back = next(Orientation.from_exif(each) for each in range(1, 9) if _undoes(each, value))
    (tmp_path / "depth").mkdir()
    Image.fromarray(back.array(room.images[0])).save(tmp_path / "7.jpg", exif=exif(value))
    write_depth(tmp_path / "depth" / "7.png", back.array(room.depth_m[0]))
    view = {"image": {"path": str(tmp_path / "7.jpg"), "bytes": None}, "image_path": "7.jpg"}
    known = known_depth_from_folder(tmp_path / "depth", [view])
    np.testing.assert_allclose(known.depth_m[0], room.depth_m[0], atol=1e-3)
    assert known(reconstruction).factor == pytest.approx(1.6, rel=1e-3)
    write_depth(tmp_path / "depth" / "7.png", room.depth_m[0])  # upright already
    if value > 4:
        np.testing.assert_allclose(
            known_depth_from_folder(tmp_path / "depth", [view]).depth_m[0], room.depth_m[0], atol=1e-3
        )


def _undoes(first, second):
    marked = np.arange(6).reshape(2, 3)
    both = Orientation.from_exif(second).array(Orientation.from_exif(first).array(marked))
    return both.shape == (2, 3) and (both == marked).all()


def test_maps_of_a_folder_with_another_shape_are_refused_by_name(room, tmp_path):
    (tmp_path / "depth").mkdir()
    Image.fromarray(room.images[0]).save(tmp_path / "7.jpg")
    view = {"image": {"path": str(tmp_path / "7.jpg"), "bytes": None}, "image_path": "7.jpg"}
    write_depth(tmp_path / "depth" / "7.png", room.depth_m[0].T)
    with pytest.raises(RecordError, match="7.png.*has 42 x 56 pixels, and 7.jpg 56 x 42.*turned by 90 degrees"):
        known_depth_from_folder(tmp_path / "depth", [view])
    codes = np.rint(room.depth_m[0].T * 1000).astype(np.uint16)
    Image.fromarray(codes).save(tmp_path / "depth" / "7.png", exif=exif(5))  # its own says how it is turned
    np.testing.assert_allclose(
        known_depth_from_folder(tmp_path / "depth", [view]).depth_m[0], room.depth_m[0], atol=1e-3
    )


def test_depth_maps_of_a_folder_belong_to_views_by_name_or_number(room, reconstruction, tmp_path):
    write_depth(tmp_path / "frame_b.png", room.depth_m[1])
    write_depth(tmp_path / "000120.png", room.depth_m[3])
    views = [{"image_path": f"frame_{letter}.jpg", "frame_id": 40 * index} for index, letter in enumerate("abcd")]
    known = known_depth_from_folder(tmp_path, views)
    assert sorted(known.depth_m) == [1, 3]
    np.testing.assert_allclose(known.depth_m[3], room.depth_m[3], atol=0.0006)
    assert as_scale_estimator(tmp_path, views)(reconstruction).factor == pytest.approx(1.6, rel=1e-3)
    halves = known_depth_from_folder(tmp_path, views, depth_scale=2000.0)
    assert halves(reconstruction).factor == pytest.approx(0.8, rel=1e-3)


def test_maps_go_to_the_number_in_a_name_and_not_to_a_place(room, tmp_path):
    for number in (1, 2):
        write_depth(tmp_path / f"000{number}.PNG", room.depth_m[number])
    views = [{"image_path": f"IMG_000{index + 1}.jpg", "frame_id": index} for index in range(3)]
    known = known_depth_from_folder(tmp_path, views)
    assert sorted(known.depth_m) == [0, 1]
    np.testing.assert_allclose(known.depth_m[0], room.depth_m[1], atol=0.0006)


def test_a_folder_without_fitting_depth_maps_is_refused(room, tmp_path):
    views = [{"image_path": "a.jpg", "frame_id": 0}]
    with pytest.raises(FileNotFoundError, match="is no folder"):
        known_depth_from_folder(tmp_path / "nowhere", views)
    with pytest.raises(ValueError, match="holds 0 PNGs, none of them named"):
        known_depth_from_folder(tmp_path, views)
    for bad in (0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="depth_scale is .*; expected a positive finite number"):
            known_depth_from_folder(tmp_path, views, depth_scale=bad)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(RecordError, match="expected 16 bits"):
        known_depth_from_folder(tmp_path, views)
    write_depth(tmp_path / "a.png", room.depth_m[0])
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(RecordError, match="cannot be decoded"):
        known_depth_from_folder(tmp_path, views)
