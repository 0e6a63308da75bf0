"""Teachers that agree with themselves and the pictures pass; those never trained for such pictures are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gap_mllm.processing.data import SceneSample, load_multiview, render_room
from gap_mllm.processing.data.rooms.layout import room_seed
from gap_mllm.processing.data.video_labels import label_video, load_teacher
from gap_mllm.processing.data.video_labels.depth_teacher import Reconstruction, run_teacher
from gap_mllm.processing.data.video_labels.teacher_consistency import LIMITS, TeacherConsistency, compare_views
from tests.processing.data.rendered_teacher import RenderedTeacher, room_inputs, room_pictures


SIZE = (84, 112)
ENCODER = Path(__file__).parents[4] / "examples" / "assets" / "tiny_geometry_encoder"


@pytest.fixture(scope="module")
def room():
    return render_room(1_100_013, num_views=6, height=SIZE[0], width=SIZE[1])


@pytest.fixture(scope="module")
def encoder():
    return load_teacher(ENCODER, "cpu")


@pytest.fixture(scope="module")
def pan():
    """A camera over noise: a clip with real motion, of nothing that the encoder has seen."""
    values = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    sheet = Image.fromarray(values).resize((400, 400), Image.Resampling.BICUBIC)
    return [sheet.crop((16 * step, 8 * step, 16 * step + 112, 8 * step + 112)) for step in range(8)]


def compared(room, change=None):
    inputs = room_inputs(room)
    found = run_teacher(RenderedTeacher(room, scales=(1.0,), change=change), inputs)
    return compare_views(found, inputs, [depth > 0 for depth in found.depth])


def label(pictures, folder, teacher, **options):
    return label_video(pictures, folder, teacher, progress=False, scale=1.0, **options)


def smooth_noise(share):
    """Depth wrong by `share`, in blobs of a quarter of the picture."""
    rng = np.random.default_rng(0)

    def change(answer, views):
        blobs = torch.tensor(rng.standard_normal((len(views), 1, 4, 5)), dtype=torch.float32)
        field = torch.nn.functional.interpolate(blobs, size=SIZE, mode="bicubic")[:, 0, ..., None]
        answer.depth = answer.depth * (1 + share * field)

    return change


def test_exact_depth_is_consistent_and_hardly_contradicted(room):
    found, contradicted = compared(room)
    assert found.verdict == "consistent" and found.num_pairs == 22  # 10 of neighbours, 8 of two apart, 4 of four
    assert found.depth_disagreement < 0.01 and found.picture_agreement > 0.8
    assert np.mean(contradicted) < 0.05


@pytest.mark.parametrize("share", [0.01, 0.03])
def test_noisy_depth_passes(share, room):
    found, _ = compared(room, smooth_noise(share))
    assert found.verdict in ("consistent", "doubtful") and 0.3 * share < found.depth_disagreement < 2.5 * share


def test_a_wrong_view_is_contradicted_and_hidden_places_are_not():
    """Two cameras beside each other before a wall: one has it twice as far, or sees a near box in front of it."""
    wall = np.full((20, 30), 2.0, dtype=np.float32)
    intrinsics = np.array([[30.0, 0, 14.5], [0, 30.0, 9.5], [0, 0, 1]])
    poses = np.stack([np.eye(4)] * 3)
    poses[:, 0, 3] = 0, 0.2, 0.4  # 3 pixels each
    inputs = [torch.rand(3, 20, 30)] * 3

    def found(middle):
        depth = [wall, middle, wall]
        return compare_views(
            Reconstruction(depth, [wall] * 3, np.stack([intrinsics] * 3), poses), inputs, [wall > 0] * 3
        )

    figures, contradicted = found(wall)
    assert figures.depth_disagreement < 1e-6 and figures.share_agreeing == 1 and not np.any(contradicted)
    figures, contradicted = found(2 * wall)
    assert contradicted[1].mean() == 1  # nobody agrees
    assert not contradicted[0][:, 6:].any() and not contradicted[2][:, :-6].any()  # two views of three agree
    box = wall.copy()
    box[5:15, 10:20] = 1.0
    _, contradicted = found(box)
    assert not contradicted[0][:, 6:].any() and contradicted[1][5:15, 10:20].all()  # both others look through the box
    assert not contradicted[1][:4].any()


def test_limits_make_the_verdict():
    def verdict(depth, pictures, num_pairs=4):
        return TeacherConsistency(num_pairs, depth, 0.5, pictures).verdict

    assert verdict(LIMITS.doubtful_depth, LIMITS.doubtful_pictures) == "consistent"
    assert verdict(LIMITS.doubtful_depth + 0.01, 0.9) == verdict(0.0, LIMITS.doubtful_pictures - 0.01) == "doubtful"
    assert verdict(0.0, None) == "doubtful"  # blank pictures tell nothing
    assert verdict(LIMITS.unfit_depth + 0.01, 0.9) == verdict(0.0, LIMITS.unfit_pictures - 0.01) == "inconsistent"
    assert verdict(None, None, 0) == "inconsistent"


def test_the_shipped_encoder_labels_its_own_rooms(encoder, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("gap_mllm.processing.data.video_labels.teacher_consistency.logger.warning", said.append)
    own = render_room(room_seed("test", 0), num_views=8, height=112, width=112)
    report = label(room_pictures(own), tmp_path / "out", encoder)
    figures = report["consistency"]
    assert figures["verdict"] == "doubtful" and len(said) == 1 and "depths differ by" in said[0]
    assert figures["limits"]["unfit_depth"] == LIMITS.unfit_depth
    assert report["pixels"]["views_disagree"] > 0
    row = load_multiview("parquet", tmp_path / "out", "train", cache_dir=tmp_path / "cache")[0]
    stored = np.mean([(view.depth_m > 0).mean() for view in SceneSample.from_row(row).views])
    assert stored < 0.5  # half are confident, and some of these are contradicted


def test_a_clip_that_the_shipped_encoder_does_not_know_is_refused(encoder, pan, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("gap_mllm.processing.data.video_labels.teacher_consistency.logger.warning", said.append)
    message = "the teacher is inconsistent over .* its labels would be noise.*--accept-inconsistent-teacher"
    with pytest.raises(ValueError, match=message):
        label(pan, tmp_path / "out", encoder)
    assert not (tmp_path / "out").exists() and not said
    report = label(pan, tmp_path / "out", encoder, accept_inconsistent_teacher=True)
    assert report["consistency"]["verdict"] == "inconsistent" and "labels are written all the same" in said[0]
    assert report["pixels"]["usable"] < 0.4 * report["pixels"]["total"]


def test_cameras_that_share_nothing_are_refused(room, tmp_path):
    def turn_away(answer, views):
        answer.extrinsics[1::2, :, 3] += 1000.0

    with pytest.raises(ValueError, match="no two neighbouring views share a place"):
        label(
            room_pictures(room)[:2],
            tmp_path / "out",
            RenderedTeacher(_first(room, 2), change=turn_away),
            image_size=112,
        )


def _first(room, count):
    from dataclasses import replace

    names = ("images", "depth_m", "intrinsics", "camera_to_world")
    return replace(room, **{name: getattr(room, name)[:count] for name in names})
