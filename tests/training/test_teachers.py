"""Teachers: what each tells of the views of a scene, in which frame, and what is refused."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from gap_mllm.processing.camera_geometry_gap_mllm import transform_points, view_to_first_view
from gap_mllm.processing.data import render_room
from gap_mllm.processing.data.scene_sample import View
from gap_mllm.training.losses import (
    GEOVR_WEIGHTS,
    geovr_losses,
    metric_scale_target,
    pose_encoding_loss,
    trimmed_depth_loss,
    weighted_loss,
)
from gap_mllm.training.point_targets import scene_targets
from gap_mllm.training.teachers import (
    CachedTeacher,
    DepthAnythingTeacher,
    ModelTeacher,
    RecordedTeacher,
    TeacherTargets,
    make_teacher,
)
from gap_mllm.training.teachers.cached_teacher import scene_key


@pytest.fixture(scope="module")
def room():
    return render_room(3)


@pytest.fixture
def views(room):
    return [
        View(
            room.images[index],
            room.depth_m[index],
            intrinsics=room.intrinsics[index] if room.intrinsics.ndim == 3 else room.intrinsics,
            camera_to_world=room.camera_to_world[index],
        )
        for index in range(2)
    ]


def with_fields(view, **fields):
    known = {name: getattr(view, name) for name in view.__dataclass_fields__}
    return View(**{**known, **fields})


# Recorded


def test_what_was_recorded_is_told_in_the_first_camera(views, room):
    targets = RecordedTeacher()(views)
    assert targets.is_metric
    torch.testing.assert_close(targets.camera_to_first[0], torch.eye(4), rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        targets.camera_to_first.numpy(), view_to_first_view(room.camera_to_world[:2]), atol=1e-6
    )
    np.testing.assert_array_equal(targets.depth[1].numpy(), views[1].depth_m)
    sizes = [depth.shape for depth in targets.depth]
    expected = scene_targets(views, sizes)
    for view, points in enumerate(targets.points()):
        valid = expected["valid"][view]
        assert torch.equal(points.isfinite().all(-1), valid)
        torch.testing.assert_close(points[valid], expected["points"][view][valid], rtol=0, atol=1e-5)
    torch.testing.assert_close(targets.pose_encodings(), torch.stack(expected["pose_enc"]), rtol=0, atol=1e-5)


def test_what_a_view_lacks_stays_unknown_and_is_counted_out(views):
    lost = [views[0], with_fields(views[1], camera_to_world=None, depth_picture=None)]
    targets = RecordedTeacher()(lost)
    assert targets.camera_to_first[1].isnan().all() and (targets.depth[1] == 0).all()
    assert targets.pose_encodings()[1].isnan().all() and targets.points()[1].isnan().all()
    loss = pose_encoding_loss(torch.zeros(2, 9), targets.pose_encodings())
    assert loss.count == 1
    depth = torch.stack(targets.depth)
    assert trimmed_depth_loss(torch.ones_like(depth), depth).count == 1
    empty = RecordedTeacher()([with_fields(views[0], depth_picture=np.full((8, 8), np.nan, np.float32))])
    assert (empty.confidence[0] == 0).all() and trimmed_depth_loss(
        torch.ones(1, 8, 8), empty.depth[0][None]
    ).count == 0
    sensor = RecordedTeacher(poses=False)(views)
    assert sensor.camera_to_first is None
    with pytest.raises(ValueError, match="the teacher does not tell camera_to_first"):
        sensor.points()
    unknown = RecordedTeacher()([with_fields(views[0], intrinsics=None)])
    assert unknown.intrinsics.isnan().all() and unknown.pose_encodings().isnan().all()


def test_maps_of_another_shape_and_mirrored_poses_are_refused(views):
    other = with_fields(views[1], depth_picture=np.ones((96, 64), np.float32))
    with pytest.raises(ValueError, match=r"the depth map of view 1 has 64 x 96 pixels and its picture 128 x 128"):
        RecordedTeacher()([views[0], other])
    own = with_fields(other, depth_intrinsics=np.diag([50.0, 50.0, 1.0]))
    assert RecordedTeacher()([views[0], own]).depth[1].shape == (96, 64)
    mirrored = views[1].camera_to_world.copy()
    mirrored[:3, 0] *= -1
    with pytest.raises(ValueError, match="camera_to_world: matrix 1 is not rigid .*mirrored"):
        RecordedTeacher()([views[0], with_fields(views[1], camera_to_world=mirrored)])


def test_resizing_keeps_points_on_their_rays(views):
    targets = RecordedTeacher()(views)
    small = targets.resized([(32, 48), (64, 64)])
    assert [tuple(depth.shape) for depth in small.depth] == [(32, 48), (64, 64)]
    expected = scene_targets(views, [(32, 48), (64, 64)])
    for points, true, valid in zip(small.points(), expected["points"], expected["valid"], strict=True):
        torch.testing.assert_close(points[valid], true[valid], rtol=0, atol=1e-5)
    assert small.to("cpu").intrinsics.shape == (2, 3, 3)


# Models


class Encoder:
    """A model with VGGT's outputs, whose world is moved."""

    config = SimpleNamespace(image_size=56, patch_size=14, tap_layers=[4, 23])

    def __init__(self, depth=2.0):
        self.depth = depth

    def __call__(self, images):
        assert images.shape[1:] == (3, 56, 56) and images.max() <= 1
        count = len(images)
        poses = torch.eye(4).repeat(count, 1, 1)
        poses[:, 0, 3] = torch.arange(count) + 3.0
        camera = torch.tensor([[50.0, 0.0, 28.0], [0.0, 50.0, 28.0], [0.0, 0.0, 1.0]])
        flat = torch.arange(1.0, count * 16 + 1)[:, None].repeat(1, 6)  # the views share its storage
        geometry = SimpleNamespace(tap_features=(flat, -flat), grid=[(4, 4)] * count)
        return SimpleNamespace(
            depth=torch.full((count, 56, 56, 1), self.depth),
            depth_conf=torch.ones(count, 56, 56),
            extrinsics=poses[:, :3],
            intrinsics=camera.repeat(count, 1, 1),
            geometry=geometry,
        )


def test_a_model_tells_features_by_layer_and_view(views):
    targets = ModelTeacher(Encoder())(views)
    assert list(targets.features) == ["layer_4", "layer_23"] and not targets.is_metric
    assert [tuple(part.shape) for part in targets.layer("layer_4")] == [(4, 4, 6)] * 2
    assert targets.layer("layer_23")[1][0, 1, 0] == -18  # second view, first row, second column
    assert torch.equal(targets.camera_to_first[0], torch.eye(4))
    assert targets.camera_to_first[1, 0, 3] == -1.0  # world to camera was 1 farther
    with pytest.raises(ValueError, match=r"teacher's features has the unknown key 'layer_24' .did you mean 'layer_4'"):
        targets.layer("layer_24")
    with pytest.raises(ValueError, match="teacher's depth of view 0 holds 3136 values"):
        ModelTeacher(Encoder(float("nan")))(views)


def test_teachers_go_by_name(tmp_path, views):
    assert make_teacher("recorded", poses=False) == RecordedTeacher(poses=False)
    with pytest.raises(
        ValueError, match=r"teacher is 'vgt' \(did you mean 'vggt'\?\); expected one of recorded, vggt"
    ):
        make_teacher("vgt")
    with pytest.raises(ValueError, match=r"teacher recorded has the unknown key 'pose' \(did you mean 'poses'\?\)"):
        make_teacher("recorded", pose=True)
    with pytest.raises(ValueError, match="teacher vggt needs path; give its settings, too, as .name: vggt, path: ..."):
        make_teacher("vggt")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        make_teacher("vggt", path=tmp_path / "nowhere")


# Cache


def test_a_cache_asks_once_and_tells_the_same(tmp_path, views):
    class Counting(ModelTeacher):
        calls = 0

        def __call__(self, views):
            self.calls += 1
            return super().__call__(views)

    teacher = Counting(Encoder(), is_metric=True)
    cached = CachedTeacher(tmp_path / "targets", teacher)
    first, again, alone = cached(views), cached(views), CachedTeacher(tmp_path / "targets")(views)
    assert teacher.calls == 1
    for found in (again, alone):
        assert found.is_metric and sorted(found.features) == sorted(first.features)
        for name in first.features:
            assert all(map(torch.equal, found.features[name], first.features[name]))
        assert all(map(torch.equal, found.depth, first.depth))
        assert torch.equal(found.camera_to_first, first.camera_to_first)
    cached(views[::-1])  # another order is another scene
    assert teacher.calls == 2 and scene_key(views) != scene_key(views[::-1])


def test_a_cache_keeps_what_is_not_told(tmp_path, views):
    def features_alone(views):
        return TeacherTargets(features={"last": [torch.ones(2, 3, 4)] * len(views)})

    CachedTeacher(tmp_path, features_alone)(views)
    found = CachedTeacher(tmp_path)(views)
    assert found.depth is None and found.intrinsics is None and len(found.layer("last")) == 2


def test_damaged_targets_are_asked_for_again_and_a_bound_holds(tmp_path, views, caplog):
    cached = CachedTeacher(tmp_path, RecordedTeacher())
    cached(views)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-5])
    assert torch.equal(cached(views).depth[0], RecordedTeacher()(views).depth[0])
    assert str(path) in caplog.text and torch.equal(CachedTeacher(tmp_path)(views).depth[1], cached(views).depth[1])
    bounded = CachedTeacher(tmp_path / "few", RecordedTeacher(), max_gb=3 * path.stat().st_size / 1e9)
    for index in range(6):
        bounded([with_fields(view, picture=np.full((128, 128, 3), index, np.uint8)) for view in views])
    assert 1 <= len(list((tmp_path / "few").rglob("*.safetensors"))) <= 3
    with pytest.raises(ValueError, match="max_gb is 0; expected a positive"):
        CachedTeacher(tmp_path, max_gb=0)


def test_caches_that_do_not_fit_are_refused(tmp_path, views):
    with pytest.raises(FileNotFoundError, match="holds no targets; give the teacher that makes them"):
        CachedTeacher(tmp_path / "none")
    CachedTeacher(tmp_path / "one", RecordedTeacher())
    with pytest.raises(ValueError, match="holds results of another run .*teacher: .RecordedTeacher. there"):
        CachedTeacher(tmp_path / "one", ModelTeacher(Encoder()))
    with pytest.raises(ValueError, match="another run .normalise: false there, true now"):
        CachedTeacher(tmp_path / "one", RecordedTeacher(normalise=True))
    with pytest.raises(TypeError, match="teacher is 3; expected one of make_teacher"):
        CachedTeacher(tmp_path / "two", 3)
    with pytest.raises(ValueError, match="holds nothing about these 2 views .a.png., in this order"):
        CachedTeacher(tmp_path / "one")([with_fields(views[0], image_path="a.png"), views[1]])


def test_a_cache_knows_weights_settings_and_records(tmp_path, views):
    class Weighted(Encoder, torch.nn.Module):
        def __init__(self, weight):
            torch.nn.Module.__init__(self)
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(weight))

    encoders = [Weighted(1.0), Weighted(2.0)]
    CachedTeacher(tmp_path / "weights", ModelTeacher(encoders[0]))(views)
    with pytest.raises(ValueError, match="another run .weights: "):
        CachedTeacher(tmp_path / "weights", ModelTeacher(encoders[1]))
    with pytest.raises(ValueError, match="another run .is_metric: false there, true now"):
        CachedTeacher(tmp_path / "weights", ModelTeacher(encoders[0], is_metric=True))
    recorded = CachedTeacher(tmp_path / "recorded", RecordedTeacher())
    recorded(views)
    nearer = [with_fields(view, depth_picture=view.depth_m / 2) for view in views]
    for cached in (recorded, CachedTeacher(tmp_path / "recorded", RecordedTeacher())):
        assert torch.allclose(cached(nearer).depth[0], RecordedTeacher()(views).depth[0] / 2)


def test_a_cache_takes_a_teacher_by_its_name(tmp_path, views):
    for number, teacher in enumerate(("recorded", {"name": "recorded", "normalise": True})):
        cached = make_teacher("cache", folder=tmp_path / str(number), teacher=teacher)
        assert cached(views).is_metric == (number == 0)
    with pytest.raises(ValueError, match="teacher is 'recorder' .did you mean 'recorded'"):
        make_teacher("cache", folder=tmp_path / "other", teacher="recorder")


# Together with the losses


def test_targets_go_into_the_whole_sum_of_geovr(views):
    recorded = RecordedTeacher()(views).resized([(28, 28)] * 2)
    told = ModelTeacher(Encoder())(views)
    depth, layers = torch.stack(recorded.depth), [torch.stack(told.layer("layer_4"))] * 4
    scale, is_known = metric_scale_target(torch.full((1, 2, 28, 28), 0.5), depth[None])
    targets = {"target_pose_enc": recorded.pose_encodings(), "target_depth": depth, "target_features": layers}
    perfect = geovr_losses(recorded.pose_encodings(), depth, layers, scale, **targets, target_scale=scale)
    assert is_known.all() and all(loss.count == 1 and loss.sum.abs() < 1e-5 for loss in perfect.values())
    off = geovr_losses(told.pose_encodings(), 2 * depth, layers, scale + 1, **targets, target_scale=scale)
    assert weighted_loss(off, GEOVR_WEIGHTS) > weighted_loss(perfect, GEOVR_WEIGHTS) + 1


# Depth Anything 3


class FakeDepthAnything:
    """The part of the package's interface that is used."""

    def __init__(self, **changes):
        self.changes, self.device = changes, None

    @classmethod
    def from_pretrained(cls, name):
        found = cls()
        found.path = name
        return found

    def to(self, device):
        self.device = device
        return self

    def inference(self, image, export_feat_layers):
        count = len(image)
        assert all(each.dtype == np.uint8 and each.shape == (128, 128, 3) for each in image)
        poses = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
        poses[:, 2, 3] = np.arange(count)
        fields = {
            "depth": np.full((count, 28, 28), 2.0, np.float32),
            "conf": np.full((count, 28, 28), 1.5, np.float32),
            "extrinsics": poses,
            "intrinsics": np.tile(np.diag([30.0, 30.0, 1.0]), (count, 1, 1)),
            "is_metric": 1,
            "sky": np.zeros((count, 28, 28)),
            "aux": {f"feat_layer_{layer}": np.full((count, 2, 2, 5), layer) for layer in export_feat_layers},
        }
        return SimpleNamespace(**{**fields, **self.changes})


def test_depth_anything_through_its_own_package(monkeypatch, views):
    package, api = ModuleType("depth_anything_3"), ModuleType("depth_anything_3.api")
    api.DepthAnything3 = FakeDepthAnything
    monkeypatch.setitem(sys.modules, "depth_anything_3", package)
    monkeypatch.setitem(sys.modules, "depth_anything_3.api", api)
    teacher = make_teacher("depth_anything_3", path="depth-anything/DA3-GIANT-1.1", device="cpu", layers=[18, 26])
    assert teacher.model.device == "cpu" and teacher.name == "depth-anything/DA3-GIANT-1.1"
    targets = teacher(views)
    assert targets.is_metric and [tuple(depth.shape) for depth in targets.depth] == [(28, 28)] * 2
    assert targets.camera_to_first[1, 2, 3] == -1.0
    assert targets.layer("layer_26")[1].shape == (2, 2, 5) and (targets.layer("layer_26")[1] == 26).all()
    moved = transform_points(targets.camera_to_first[1], torch.tensor([0.0, 0.0, 1.0]))
    assert moved.tolist() == [0.0, 0.0, 0.0]


def test_depth_anything_leaves_out_the_sky_and_refuses_odd_answers(views):
    sky = np.zeros((2, 28, 28))
    sky[0, :4] = 0.9
    targets = DepthAnythingTeacher(FakeDepthAnything(sky=sky, conf=None))(views)
    assert (targets.depth[0][:4] == 0).all() and (targets.depth[0][4:] == 2).all()
    assert (targets.confidence[0] == 1).all()
    with pytest.raises(TypeError, match="has no extrinsics"):
        DepthAnythingTeacher(FakeDepthAnything(extrinsics=None))(views)
    with pytest.raises(ValueError, match=r"features of shape None for layer 40; expected \(2, h, w, C\)"):
        DepthAnythingTeacher(FakeDepthAnything(aux={}), [40])(views)
    wide = np.full((2, 28, 42), 2.0, np.float32)
    with pytest.raises(ValueError, match="the depth map of view 0 has 42 x 28 pixels and its picture 128 x 128"):
        DepthAnythingTeacher(FakeDepthAnything(depth=wide))(views)


def test_depth_anything_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "depth_anything_3", None)
    with pytest.raises(ImportError, match=r"pip install 'gap-mllm\[depth-anything\]'"):
        make_teacher("depth_anything_3", path="depth-anything/DA3-BASE")
