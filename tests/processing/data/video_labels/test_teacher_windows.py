"""Windows of a teacher: planned, checked, put together by similarity, against rendered truth."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from gap_mllm.processing.camera_geometry_gap_mllm import invert_rigid, is_rigid, view_to_first_view
from gap_mllm.processing.data import render_room
from gap_mllm.processing.data.video_labels.depth_teacher import load_teacher, run_teacher, teacher_name
from gap_mllm.processing.data.video_labels.reconstruction_errors import reconstruction_errors
from gap_mllm.processing.data.video_labels.teacher_windows import (
    align_points,
    plan_windows,
    reconstruct_in_windows,
    scene_size,
)
from gap_mllm.processing.frame_sampling_gap_mllm import teacher_inputs, teacher_size
from tests.processing.data.rendered_teacher import RenderedTeacher, random_vggt, room_inputs


HEIGHT, WIDTH = 56, 70


@pytest.fixture(scope="module")
def room():
    return render_room(1_100_003, num_views=9, height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def vggt():
    return random_vggt()


# Windows


@pytest.mark.parametrize(
    "num_views, window, overlap, expected",
    [
        (5, 8, 2, [range(0, 5)]),
        (8, 8, 2, [range(0, 8)]),
        (9, 4, 1, [range(0, 4), range(3, 7), range(5, 9)]),
        (10, 4, 1, [range(0, 4), range(3, 7), range(6, 10)]),
        (10, 4, 3, [range(i, i + 4) for i in range(7)]),
    ],
)
def test_windows_cover_the_video_and_overlap(num_views, window, overlap, expected):
    assert plan_windows(num_views, window, overlap) == expected


def test_windows_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="there is 1 view; expected at least 2"):
        plan_windows(1, 4, 1)
    for window, overlap in ((4, 4), (3, 5), (4, 0)):
        with pytest.raises(ValueError, match=f"window is {window} and overlap {overlap}"):
            plan_windows(10, window, overlap)
    with pytest.raises(ValueError, match="there are 0 views; expected at least 2"):
        plan_windows(0, 4, 1)
    for bad in (4.0, "4", True, None):
        with pytest.raises(TypeError, match="window is .*; expected an integer"):
            plan_windows(10, bad, 1)
        with pytest.raises(TypeError, match="overlap is .*; expected an integer"):
            plan_windows(10, 4, bad)
    for bad in (float("nan"), -1, 101):
        with pytest.raises(ValueError, match="confidence_percentile is .*; expected a number from 0 to 100"):
            reconstruct_in_windows(None, [], confidence_percentile=bad)


def test_one_window_is_what_the_model_says_bit_for_bit(vggt, make_image):
    pictures = [make_image(width=70, height=56, seed=seed) for seed in range(3)]
    inputs = teacher_inputs(pictures, image_size=56, patch_size=14)
    with torch.no_grad():
        expected = vggt(torch.stack(inputs))
    found, windows = reconstruct_in_windows(vggt, inputs, window=8, overlap=2)
    found = found.scaled(1.0)
    for view in range(3):
        assert np.array_equal(found.depth[view], expected.depth[0, view, :, :, 0].numpy())
        assert np.array_equal(found.confidence[view], expected.depth_conf[0, view].numpy())
        assert np.array_equal(found.world_points[view], expected.world_points[0, view].numpy())
    assert np.array_equal(found.intrinsics, expected.intrinsics[0].double().numpy())
    world_to_camera = np.concatenate([expected.extrinsics[0].double().numpy(), [[[0, 0, 0, 1]]] * 3], 1)
    assert np.array_equal(found.camera_to_world, invert_rigid(world_to_camera))
    assert [(w.first_view, w.last_view, w.scale, w.residual) for w in windows] == [(0, 2, 1.0, None)]


def test_overlapping_windows_of_rendered_depth_meet(room):
    size = np.linalg.norm(room.room_size)
    teacher = RenderedTeacher(room, window=4, overlap=1)
    found, windows = reconstruct_in_windows(teacher, room_inputs(room), window=4, overlap=1)
    assert [(w.first_view, w.last_view, w.shared_views) for w in windows] == [(0, 3, 0), (3, 6, 1), (5, 8, 2)]
    assert [w.scale for w in windows] == pytest.approx([1, 1 / 0.6, 1 / 1.7], rel=1e-4)
    for window in windows[1:]:
        assert window.residual < 0.01 * size  # what is asked for
        assert window.relative_residual < 1e-5  # what exact depth gives
        assert window.num_outliers == 0
    assert is_rigid(found.camera_to_world, tolerance=1e-6).all()
    np.testing.assert_allclose(np.linalg.det(found.camera_to_world[:, :3, :3]), 1, atol=1e-6)
    np.testing.assert_allclose(found.camera_to_world, view_to_first_view(room.camera_to_world), atol=1e-4)
    np.testing.assert_allclose(np.stack(found.depth), room.depth_m, rtol=1e-4)
    np.testing.assert_allclose(np.stack(found.world_points), room.points_in_first_view(), atol=1e-3)
    errors = reconstruction_errors(found, room.depth_m, room.intrinsics, room.camera_to_world)
    print("rendered depth in the teacher's place:", errors)
    assert errors["point_rel"] < 1e-4 and errors["rotation_deg"] < 1e-2 and errors["depth_rel"] < 1e-4


def test_noisy_windows_keep_a_small_residual(room):
    rng = np.random.default_rng(0)

    def disturb(answer, views):  # 1 % of noise on every depth, and one pixel in fifty at a random depth
        noise = torch.tensor(rng.normal(scale=0.01, size=answer.depth.shape), dtype=torch.float32)
        answer.depth = answer.depth * (1 + noise)
        wrong = torch.tensor(rng.random(answer.depth.shape) < 0.02)
        answer.depth[wrong] = torch.tensor(rng.uniform(0.5, 20, int(wrong.sum())), dtype=torch.float32)

    teacher = RenderedTeacher(room, window=5, overlap=2, change=disturb)
    found, windows = reconstruct_in_windows(teacher, room_inputs(room), window=5, overlap=2)
    assert all(window.relative_residual < 0.01 and window.num_outliers > 50 for window in windows[1:])
    np.testing.assert_allclose([window.scale for window in windows[1:]], [1 / 0.6, 1 / 1.7], rtol=0.01)
    errors = reconstruction_errors(found, room.depth_m, room.intrinsics, room.camera_to_world)
    assert errors["translation_m"] < 0.02 and errors["rotation_deg"] < 0.5


def test_an_early_window_has_the_say_over_shared_views(room):
    teacher = RenderedTeacher(room, 4, 2, change=lambda answer, views: answer.depth_conf.fill_(1 + views[0]))
    found, _ = reconstruct_in_windows(teacher, room_inputs(room), window=4, overlap=2)
    assert [part[0, 0] for part in found.confidence] == [1, 1, 1, 1, 3, 3, 5, 5, 6]


def test_unsure_pixels_do_not_move_a_window(room):
    def bend(answer, views):
        answer.depth_conf[:, :, : WIDTH // 3] = 1.0
        if views[0]:
            answer.depth[:, :, : WIDTH // 3] *= 1.5

    teacher = RenderedTeacher(room, 5, 2, change=bend)
    _, windows = reconstruct_in_windows(teacher, room_inputs(room), window=5, overlap=2, confidence_percentile=50)
    assert windows[1].scale == pytest.approx(1 / 0.6, rel=1e-4)


def test_aligned_points_ignore_gross_outliers():
    rng = np.random.default_rng(1)
    source = rng.normal(size=(500, 3))
    target = 2.5 * source + [1.0, 2.0, 3.0] + rng.normal(scale=0.01, size=(500, 3))
    target[:50] += rng.uniform(5, 9, (50, 3))
    scale, rotation, translation, residual, kept = align_points(source, target, np.ones(500))
    assert scale == pytest.approx(2.5, abs=0.005)
    np.testing.assert_allclose(rotation, np.eye(3), atol=0.005)
    np.testing.assert_allclose(translation, [1, 2, 3], atol=0.005)
    assert not kept[:50].any() and kept[50:].mean() > 0.95
    assert residual == pytest.approx(0.01 * np.sqrt(3), rel=0.15)


def test_scene_size_is_that_of_the_inner_points():
    points = np.stack(np.meshgrid(*[np.linspace(0, 1, 21)] * 3), -1).reshape(-1, 3) * [1.0, 2.0, 2.0]
    points = np.concatenate([points, [[1e6, 0, 0], [np.nan, 0, 0]]])
    assert scene_size(points) == pytest.approx(0.9 * 3.0, rel=0.01)
    with pytest.raises(ValueError, match="no points"):
        scene_size(np.full((4, 3), np.nan))


def test_windows_without_common_depth_are_refused(room):
    def forget(answer, views):
        if views[0]:
            answer.depth.zero_()

    with pytest.raises(ValueError, match="window of views 3 to 6 shares 0 pixels of known depth"):
        reconstruct_in_windows(RenderedTeacher(room, 4, 1, change=forget), room_inputs(room), 4, 1)

    def keep_a_row(answer, views):  # of a plane: points on one line
        answer.depth[:] = 0
        answer.depth[:, 20] = 1.0
        answer.depth_conf[:, 20] = 3.0

    teacher = RenderedTeacher(render_room(1_100_003, 9, HEIGHT, 140), 4, 1, change=keep_a_row)
    with pytest.raises(ValueError, match="window of views 3 to 6 cannot be put to those before it: fit 0"):
        reconstruct_in_windows(teacher, room_inputs(teacher.room), 4, 1)


# What a teacher may say


@pytest.mark.parametrize(
    "spoil, error, message",
    [
        (lambda a: a.depth[1, 3, 4].fill_(np.nan), ValueError, "depth of view 4 holds 1 values of 3920 that are NaN"),
        (lambda a: a.depth_conf[0].fill_(np.inf), ValueError, "depth_conf of view 3 holds 3920 values"),
        (lambda a: a.extrinsics[2].fill_(np.nan), ValueError, "extrinsics of view 5 holds 12 values"),
        (lambda a: a.depth[2, 0, 0].fill_(-1.0), ValueError, "depth of view 5 goes down to -1.0; expected 0 or more"),
        (lambda a: a.extrinsics[1, :, 0].mul_(-1), ValueError, "extrinsics of view 4 are not rigid .*-1.0000"),
        (lambda a: a.intrinsics[0, 0, 0].fill_(0.0), ValueError, "intrinsics of view 3 have focal lengths 0.0"),
        (
            lambda a: setattr(a, "depth", a.depth[..., 0]),
            ValueError,
            r"depth of view 3 has shape \(56, 70\); expected",
        ),
        (lambda a: setattr(a, "depth_conf", a.depth_conf[:2]), ValueError, "depth_conf has 2 entries for 4 views"),
        (lambda a: delattr(a, "intrinsics"), TypeError, r"answer \(SimpleNamespace\) has no intrinsics"),
    ],
)
def test_a_bad_answer_names_field_and_view(room, spoil, error, message):
    teacher = RenderedTeacher(room, 4, 1, change=lambda answer, views: spoil(answer) if views[0] == 3 else None)
    with pytest.raises(error, match=message):
        reconstruct_in_windows(teacher, room_inputs(room), window=4, overlap=1)


def test_a_teacher_without_point_head_will_do(room):
    teacher = RenderedTeacher(room, 5, 1, change=lambda answer, views: delattr(answer, "world_points"))
    found, _ = reconstruct_in_windows(teacher, room_inputs(room), window=5, overlap=1)
    assert found.world_points is None and len(found) == 9


def test_views_of_different_sizes_go_as_a_list(vggt, make_image):
    pictures = [make_image(80, 60), make_image(60, 80, seed=1)]
    inputs = teacher_inputs(pictures, image_size=56, patch_size=14)
    assert [tuple(view.shape) for view in inputs] == [(3, 42, 56), (3, 56, 42)]
    found = run_teacher(vggt, inputs)
    assert [part.shape for part in found.depth] == [(42, 56), (56, 42)]
    with torch.no_grad():
        expected = vggt(inputs)
    assert np.array_equal(found.depth[1], expected.depth[1][..., 0].numpy())


def test_a_teacher_sees_the_whole_picture_in_patches():
    assert teacher_size((640, 480), 518, 14) == (518, 392)
    assert teacher_size((480, 640), 518, 14) == (392, 518)
    assert teacher_size((1296, 968), 518, 14) == (518, 392)
    assert teacher_size((4000, 10), 518, 14) == (518, 14)
    with pytest.raises(ValueError, match="image_size is 7 and patch_size 14"):
        teacher_size((64, 64), 7, 14)


def test_pictures_become_tensors_in_0_to_1():
    (view,) = teacher_inputs([Image.new("RGB", (28, 14), (255, 0, 51))], image_size=28, patch_size=14)
    assert view.shape == (3, 14, 28) and view.dtype == torch.float32
    assert view[:, 5, 5].tolist() == pytest.approx([1.0, 0.0, 0.2])


def test_a_saved_teacher_loads_and_is_called_by_its_folder(vggt, tmp_path):
    vggt.save_pretrained(tmp_path / "teacher")
    loaded = load_teacher(tmp_path / "teacher", device="cpu")
    assert not loaded.training
    assert teacher_name(loaded) == "GapMllmVggtForReconstruction teacher"
    assert teacher_name(run_teacher) == "run_teacher"
    with pytest.raises(OSError):
        load_teacher(tmp_path / "nowhere", device="cpu")


def test_a_teacher_whose_config_names_no_type_is_a_vggt(vggt, tmp_path):
    vggt.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["model_type"]  # as in the official files
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_teacher(tmp_path, device="cpu")
    assert type(loaded) is type(vggt)
    assert all(value.equal(vggt.state_dict()[name]) for name, value in loaded.state_dict().items())


# Errors against the truth


def test_errors_of_a_known_mistake(room):
    found, _ = reconstruct_in_windows(RenderedTeacher(room, 9, 1), room_inputs(room), window=9, overlap=1)
    truth = (room.depth_m, room.intrinsics, room.camera_to_world)
    twice = reconstruction_errors(found.scaled(2.0), *truth)
    assert twice["depth_rel"] == pytest.approx(1.0, abs=1e-5)
    assert twice["depth_rel_scaled"] == pytest.approx(0.0, abs=1e-5)
    assert twice["point_aligned_m"] < 1e-4 < twice["point_m"]
    moves = np.linalg.norm(view_to_first_view(room.camera_to_world)[1:, :3, 3], axis=-1)
    assert twice["translation_m"] == pytest.approx(moves.mean(), rel=1e-4)
    turned = room.camera_to_world.copy()
    turned[1:, :3, :3] @= np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # a quarter turn
    assert reconstruction_errors(found, *truth[:2], turned)["rotation_deg"] == pytest.approx(90, abs=1e-2)


def test_errors_read_a_truth_of_another_size(room):
    teacher = RenderedTeacher(room, size=(28, 42))
    inputs = [torch.zeros(3, 28, 42)] * 9
    found, _ = reconstruct_in_windows(teacher, inputs, window=64)
    errors = reconstruction_errors(found, room.depth_m, room.intrinsics, room.camera_to_world)
    assert errors["depth_rel"] < 1e-6 and errors["point_m"] < 1e-5


def test_errors_refuse_a_truth_that_does_not_fit(room):
    found, _ = reconstruct_in_windows(RenderedTeacher(room, 9, 1), room_inputs(room), window=9, overlap=1)
    with pytest.raises(ValueError, match="8 depth maps, 9 intrinsics and 9 poses; expected 9"):
        reconstruction_errors(found, room.depth_m[:8], room.intrinsics, room.camera_to_world)
    with pytest.raises(ValueError, match="no pixel has depth both"):
        reconstruction_errors(found, 0 * room.depth_m, room.intrinsics, room.camera_to_world)
