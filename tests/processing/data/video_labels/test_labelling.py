"""`label_video` from end to end: rendered videos, a real VGGT of tiny size, what is written, and bad input."""

import json
import logging
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import av
import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from gap_mllm.processing import space_aware_sample
from gap_mllm.processing.camera_geometry_gap_mllm import (
    invert_rigid,
    project_points,
    scale_intrinsics,
    view_to_first_view,
)
from gap_mllm.processing.data import RecordError, SceneSample, read_report, render_room, scene_sample
from gap_mllm.processing.data.task_makers import TaskMargins
from gap_mllm.processing.data.upright_pictures import picture_orientation
from gap_mllm.processing.data.video_frames import read_video_frames
from gap_mllm.processing.data.video_labels import depth_teacher, label_video, labelling
from gap_mllm.processing.data.video_labels.depth_teacher import load_teacher
from gap_mllm.processing.data.video_labels.label_options import DEFAULT_QUESTIONS
from gap_mllm.processing.data.video_labels.metric_scale import KnownBaseline, KnownDepth
from gap_mllm.processing.data.video_labels.teacher_consistency import compare_views
from gap_mllm.processing.frame_sampling_gap_mllm import predict_points, teacher_inputs
from gap_mllm.processing.view_files_gap_mllm import EXIF_ORIENTATION, Orientation
from tests.processing.data.formats import rows_equal
from tests.processing.data.rendered_teacher import RenderedTeacher, random_vggt, room_pictures


HEIGHT, WIDTH, NUM_VIEWS = 84, 112, 9
KIND = "reconstruction"
REPOSITORY = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def room():
    return render_room(1_100_013, num_views=NUM_VIEWS, height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def frames(room, tmp_path_factory):
    """The room as a folder of frames."""
    folder = tmp_path_factory.mktemp("frames") / "kitchen"
    folder.mkdir()
    for number, picture in enumerate(room_pictures(room)):
        picture.save(folder / f"{10 * number}.png")
    return folder


@pytest.fixture(scope="module")
def video(room, tmp_path_factory):
    """The room as an MP4 file of ten frames a second."""
    path = tmp_path_factory.mktemp("video") / "hall.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 4_000_000
        for picture in room_pictures(room):
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def vggt():
    return random_vggt()


def label(source, output, teacher, **options):
    """A few questions, unless a test asks for others; None gives the default."""
    return label_video(source, output, teacher, progress=False, **{"questions_per_clip": {KIND: 3}, **options})


def rendered(room, **options):
    return RenderedTeacher(room, **options)


def read(folder, tmp_path, **options):
    return datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"), **options)


def questions_of(rows):
    """The questions of rows, without the scenes that they are about."""
    return [SceneSample.from_row(row) for row in rows if row["task"] != "scene"]


def nothing_contradicted(reconstruction, inputs, sure):
    """What is measured stays; random weights would leave no pixel."""
    found, contradicted = compare_views(reconstruction, inputs, sure)
    return found, [0 * part > 0 for part in contradicted]


def test_one_window_with_factor_1_is_the_models_output(frames, vggt, tmp_path, monkeypatch):
    options = {"scale": 1.0, "confidence_percentile": 0, "edge_tolerance": 1e9, "questions_per_clip": {KIND: 9}}
    options["margins"] = TaskMargins(near_m=1e-6, far_m=1e6)
    options["accept_inconsistent_teacher"] = True
    monkeypatch.setattr(labelling, "compare_views", nothing_contradicted)
    report = label(frames, tmp_path / "out", vggt, window=16, views_per_row=9, **options)
    pictures = [Image.open(frames / f"{10 * number}.png") for number in range(NUM_VIEWS)]
    inputs = teacher_inputs(pictures, image_size=56, patch_size=14)
    with torch.no_grad():
        expected = vggt(torch.stack(inputs))
    height, width = inputs[0].shape[-2:]
    rows = read(tmp_path / "out", tmp_path)
    assert report["scale_source"] == "user factor" and report["scale_factor"] == 1.0
    assert report["num_rows"] == 1 + 9
    sample = SceneSample.from_row(rows[0])
    world_to_camera = np.concatenate([expected.extrinsics[0].double().numpy(), [[[0, 0, 0, 1]]] * NUM_VIEWS], 1)
    poses = invert_rigid(world_to_camera)
    for index, view in enumerate(sample.views):
        assert np.array_equal(view.camera_to_world, poses[index])
        intrinsics = expected.intrinsics[0, index].numpy()
        assert np.array_equal(view.depth_intrinsics, intrinsics)
        np.testing.assert_allclose(
            view.intrinsics, scale_intrinsics(intrinsics, WIDTH / width, HEIGHT / height), rtol=1e-6
        )
        depth = expected.depth[0, index, :, :, 0].numpy()
        np.testing.assert_allclose(view.depth_m, depth, atol=0.5 / view.depth_scale * 1.001)  # half a 16-bit step
        assert 0.5 / view.depth_scale <= depth.max() / 131000
        assert view.image.tobytes() == pictures[index].tobytes()
    for question in questions_of(rows):
        point = question.points[0]
        x, y = (
            (value + 0.5) * size / full - 0.5
            for value, size, full in zip(point.pixel, (56, 42), (112, 84), strict=True)
        )
        confidence = expected.depth_conf[0, point.view, int(np.floor(y + 0.5)), int(np.floor(x + 0.5))]
        assert point.confidence == pytest.approx(float(confidence), rel=1e-6)


def test_overlapping_windows_of_rendered_depth_give_the_room(room, frames, tmp_path):
    truth = {"depth_m": room.depth_m, "intrinsics": room.intrinsics, "camera_to_world": room.camera_to_world}
    report = label(
        frames,
        tmp_path / "out",
        rendered(room, window=4, overlap=1),
        scale=1.0,
        window=4,
        overlap=1,
        image_size=WIDTH,
        views_per_row=9,
        questions_per_clip=None,
        truth=truth,
    )
    assert [window["shared_views"] for window in report["windows"]] == [0, 1, 2]
    assert report["largest_relative_residual"] < 0.01
    errors = report["errors_against_truth"]
    print("rendered depth in the teacher's place:", errors)
    assert errors["point_rel"] < 1e-4 and errors["depth_rel"] < 1e-4 and errors["rotation_deg"] < 0.01
    poses, points = view_to_first_view(room.camera_to_world), room.points_in_first_view()
    rows = read(tmp_path / "out", tmp_path)
    for row in rows:
        sample = SceneSample.from_row(row)
        for view, pose in zip(sample.views, poses, strict=True):
            np.testing.assert_allclose(view.camera_to_world, pose, atol=1e-4)
        for point in sample.points[:1]:
            x, y = (int(value) for value in point.pixel)
            np.testing.assert_allclose(point.xyz, points[point.view, y, x], atol=1e-3)
    assert {row["question_type"] for row in rows} >= {KIND, "point_match", "depth_order", "camera_motion"}


def test_a_video_file_is_labelled_from_end_to_end(room, video, tmp_path):
    report = label(
        video, tmp_path / "out", rendered(room), scale=1.0, image_size=WIDTH, num_frames=9, questions_per_clip=None
    )
    assert report["scene_id"] == "hall" and report["frames"] == list(range(9)) and report["num_views"] == 9
    rows = read(tmp_path / "out", tmp_path)
    written = sum(kind["written"] for kind in report["questions"].values())
    assert len(rows) == report["num_rows"] == report["num_scenes"] + written and report["num_scenes"] == 2
    assert len(set(rows["id"])) == len(rows)
    view = SceneSample.from_row(rows[0]).views[3]
    assert (view.frame_id, view.timestamp) == (3, pytest.approx(0.3)) and view.image.size == (WIDTH, HEIGHT)
    assert np.abs(np.asarray(view.image, float) - room.images[3]).mean() < 12
    np.testing.assert_allclose(view.depth_m[view.depth_m > 0], room.depth_m[3][view.depth_m > 0], rtol=1e-4)
    question = questions_of(rows)[0]
    assert question.marked_images()[question.marks[0].view].size == (WIDTH, HEIGHT)


@pytest.mark.slow
def test_rows_come_back_equal_prepared_and_streamed(room, frames, tmp_path):
    report = label(
        frames, tmp_path / "out", rendered(room), image_size=WIDTH, rows_per_shard=10, questions_per_clip=None
    )
    files = [f"data/train-{i:05d}-of-{len(report['files']):05d}.parquet" for i in range(len(report["files"]))]
    assert report["files"] == files and len(files) == -(-report["num_rows"] // 10)
    rows = read(tmp_path / "out", tmp_path)
    streamed = read(tmp_path / "out", tmp_path, streaming=True)
    assert rows_equal(rows, streamed) == report["num_rows"]


def test_views_that_rows_share_are_stored_once(room, frames, tmp_path):
    sizes = []
    for number in (1, 20):
        folder = tmp_path / str(number)
        label(frames, folder, rendered(room), image_size=WIDTH, views_per_row=9, questions_per_clip={KIND: number})
        sizes.append(next((folder / "data").iterdir()).stat().st_size)
    assert sizes[1] < 1.5 * sizes[0]


def test_rows_are_made_at_the_border_and_pictures_encoded_once(room, tmp_path, monkeypatch):
    calls, encode, to_row = Counter(), scene_sample.encode_png, SceneSample.to_row
    monkeypatch.setattr(scene_sample, "encode_png", lambda array: calls.update([array.ndim]) or encode(array))
    monkeypatch.setattr(SceneSample, "to_row", lambda sample: calls.update(["row"]) or to_row(sample))
    pictures, options = list(room.images), {"image_size": WIDTH, "views_per_row": 9, "questions_per_clip": None}
    report = label(pictures, tmp_path / "out", rendered(room), **options)
    assert report["num_rows"] > 10 and calls == {3: NUM_VIEWS, 2: NUM_VIEWS, "row": report["num_rows"]}


def test_the_report_says_what_was_done(room, frames, tmp_path):
    report = label(
        frames, tmp_path / "out", rendered(room), scale=2.0, image_size=WIDTH, seed=5, questions_per_clip=None
    )
    assert json.loads((tmp_path / "out" / "label_report.json").read_text()) == report
    assert report["teacher"] == "RenderedTeacher" and report["confidence"] == {"min": 2.0, "median": 2.0, "max": 2.0}
    assert report["confidence_threshold"] == 2.0 and report["teacher_pixels"] == [[WIDTH, HEIGHT]]
    assert report["options"]["seed"] == 5 and report["options"]["margins"]["depth_ratio"] == 1.15
    counts = report["pixels"]
    assert counts["total"] == NUM_VIEWS * HEIGHT * WIDTH and counts["low_confidence"] == 0 < counts["depth_edge"]
    assert set(report["questions"]) == set(DEFAULT_QUESTIONS) and report["errors_against_truth"] is None
    assert all(number["written"] + sum(number["not_asked"].values()) > 0 for number in report["questions"].values())
    assert report["head_gap"] == pytest.approx(0, abs=1e-5) and report["depth_not_stored"] == {
        "too_far": 0,
        "too_near": 0,
    }
    metadata = json.loads(read(tmp_path / "out", tmp_path)[0]["metadata"])
    for name in ("teacher", "scale_source", "scale_factor", "is_metric", "confidence_threshold", "pixels"):
        assert metadata[name] == report[name]
    with Image.open(tmp_path / "out" / "labels.png") as picture:
        assert picture.width > 8 * 200 and picture.height > 3 * 150
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 100


@pytest.mark.slow
def test_scale_sources_move_all_lengths(room, frames, tmp_path):
    scales = {"twice": 2.0, "depth": KnownDepth({2: 2 * room.depth_m[2]})}
    centers = room.camera_to_world[:, :3, 3]
    scales["baseline"] = KnownBaseline(0, 4, 2 * np.linalg.norm(centers[4] - centers[0]))
    for name, scale in scales.items():
        options = {"image_size": WIDTH, "views_per_row": 9, "questions_per_clip": {KIND: 3}}
        report = label(frames, tmp_path / name, rendered(room), scale=scale, **options)
        assert report["is_metric"] and report["scale_factor"] == pytest.approx(2.0, rel=1e-5)
        sample = questions_of(read(tmp_path / name, tmp_path))[0]
        x, y = (int(value) for value in sample.points[0].pixel)
        expected = 2 * room.points_in_first_view()[sample.points[0].view, y, x]
        np.testing.assert_allclose(sample.points[0].xyz, expected, atol=1e-3)
        moved = 2 * view_to_first_view(room.camera_to_world)[5, :3, 3]
        np.testing.assert_allclose(sample.views[5].camera_to_world[:3, 3], moved, atol=1e-4)
        depth = sample.views[1].depth_m
        np.testing.assert_allclose(depth[depth > 0], 2 * room.depth_m[1][depth > 0], rtol=1e-4)
    assert json.loads((tmp_path / "depth" / "label_report.json").read_text())["scale_source"] == "known depth"


def test_without_a_scale_lengths_are_the_teachers_and_said_to_be(room, frames, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("gap_mllm.processing.data.video_labels.labelling.logger.warning", said.append)
    report = label(frames, tmp_path / "out", rendered(room), image_size=WIDTH)
    assert not report["is_metric"] and report["scale_source"].startswith("none")
    assert len(said) == 1 and "not in metres" in said[0]


def test_a_folder_of_depth_maps_gives_metres(room, frames, tmp_path):
    (tmp_path / "depth").mkdir()
    codes = np.rint(room.depth_m[4] * 3000).astype(np.uint16)
    Image.fromarray(codes).save(tmp_path / "depth" / "40.png")
    report = label(frames, tmp_path / "out", rendered(room), scale=tmp_path / "depth", image_size=WIDTH)
    assert report["scale_factor"] == pytest.approx(3.0, rel=1e-3)
    assert report["scale_details"]["num_views"] == 1


def test_pictures_of_unlike_sizes_and_a_teacher_from_a_folder(vggt, make_image, tmp_path):
    vggt.save_pretrained(tmp_path / "tiny_vggt")
    pictures = [make_image(160, 120, seed=1), make_image(120, 160, seed=2), np.asarray(make_image(160, 120, seed=3))]
    options = {"device": "cpu", "edge_tolerance": 1e9, "questions_per_clip": {KIND: 6}, "scale": 1.5}
    options["accept_inconsistent_teacher"] = True
    report = label(pictures, tmp_path / "out", tmp_path / "tiny_vggt", **options)
    assert report["teacher"] == "GapMllmVggtForReconstruction tiny_vggt" and report["scene_id"] == "pictures"
    assert report["teacher_pixels"] == [[42, 56], [56, 42]]
    sample = SceneSample.from_row(read(tmp_path / "out", tmp_path)[0])
    assert [view.image.size for view in sample.views] == [(160, 120), (120, 160), (160, 120)]
    assert [view.depth_m.shape for view in sample.views] == [(42, 56), (56, 42), (42, 56)]


def test_pictures_of_a_folder_stay_there_or_are_stored(room, frames, tmp_path):
    options = {"image_size": WIDTH, "questions_per_clip": {KIND: 1}}
    for embed in (False, True):
        label(frames, tmp_path / str(embed), rendered(room), embed_pictures=embed, **options)
        rows = read(tmp_path / str(embed), tmp_path)
        feature = [{**rows.features["views"].feature, "image": datasets.Image(decode=False)}]
        stored = rows.cast_column("views", feature)[0]["views"][0]["image"]
        expected = (frames / "0.png").read_bytes() if embed else None
        assert stored["bytes"] == expected and stored["path"] == ("0.png" if embed else str(frames / "0.png"))
        assert rows[0]["views"][0]["image"].tobytes() == room.images[0].tobytes()


def test_a_seam_that_does_not_fit_is_said(room, frames, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("gap_mllm.processing.data.video_labels.labelling.logger.warning", said.append)

    def bend(answer, views):
        if views[0] == 3:
            answer.depth[:, :, 60:] *= 1.6

    teacher = rendered(room, window=4, overlap=1, change=bend)
    report = label(frames, tmp_path / "out", teacher, scale=1.0, window=4, overlap=1, image_size=WIDTH)
    assert report["largest_relative_residual"] > 0.05
    assert any("the window of views 3 to 6 meets earlier ones only to" in text for text in said)


def test_a_labeller_names_the_marked_pixels(room, frames, tmp_path):
    report = label(
        frames, tmp_path / "out", rendered(room), labeller=lambda image, pixel: "wall", image_size=WIDTH, scene_id="a"
    )
    rows = [row for row in read(tmp_path / "out", tmp_path) if row["task"] == "reconstruction"]
    assert report["num_rows_with_label"] == len(rows) and all('"label": "wall"' in row["answer"] for row in rows)
    assert {row["scene_id"] for row in rows} == {"a"}


def test_old_labels_are_not_mixed_with_new_ones(room, frames, tmp_path):
    options = {"image_size": WIDTH, "rows_per_shard": 2}
    first = label(frames, tmp_path / "out", rendered(room), **options)
    with pytest.raises(FileExistsError, match="is there already; use another output_dir, or overwrite=True"):
        label(frames, tmp_path / "out", rendered(room), **options)
    with pytest.raises(ValueError, match="no question could be asked"):  # and nothing is lost by it
        label(frames, tmp_path / "out", rendered(room), overwrite=True, questions_per_clip={}, **options)
    assert all((tmp_path / "out" / file).is_file() for file in first["files"])
    fewer = label(frames, tmp_path / "out", rendered(room), overwrite=True, questions_per_clip={KIND: 1}, **options)
    assert len(list((tmp_path / "out" / "data").iterdir())) == len(fewer["files"]) < len(first["files"])


# Bad input


def test_videos_that_cannot_be_used_are_refused(room, video, frames, tmp_path):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:2000])
    with pytest.raises(RecordError, match="cut.mp4.*cannot be decoded"):
        label(cut, tmp_path / "out", rendered(room))
    with pytest.raises(FileNotFoundError, match="nowhere.mp4 does not exist"):
        label(tmp_path / "nowhere.mp4", tmp_path / "out", rendered(room))
    with pytest.raises(ValueError, match="there is 1 view; expected at least 2"):
        label(frames, tmp_path / "out", rendered(room), num_frames=1)
    with pytest.raises(ValueError, match="there is 1 view; expected at least 2"):
        label(room_pictures(room)[:1], tmp_path / "out", rendered(room))
    with pytest.raises(TypeError, match="source is a int; expected a video file, a folder, or a list"):
        label(3, tmp_path / "out", rendered(room))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in sorted(frames.iterdir())[:3]:
        (damaged / file.name).write_bytes(file.read_bytes())
    (damaged / "10.png").write_bytes((frames / "10.png").read_bytes()[:3000])
    with pytest.raises(RecordError, match="10.png"):
        label(damaged, tmp_path / "out", rendered(room))
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_cannot_be_reached_is_said_at_once(frames, tmp_path, monkeypatch):
    asked, said = [], ["[Errno -2] Name or service not known"]

    def model_info(self, name, timeout):
        asked.append((name, timeout))
        raise ConnectionError(said[0])  # of the HTTP library, which is none of the Hub's own errors

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", None)  # waits, repeats, waits
    message = "teacher 'org/name' is no folder here, not in the cache, and not to be had from the Hub: .Errno -2. Name"
    with pytest.raises(OSError, match=message):
        label_video(frames, tmp_path / "out", "org/name")
    assert asked == [("org/name", 5)] and not (tmp_path / "out").exists()
    monkeypatch.setattr(depth_teacher, "try_to_load_from_cache", lambda name, file: str(tmp_path / file))
    depth_teacher._ask_hub("org/name")  # in the cache: nobody is asked
    load_teacher(str(REPOSITORY / "examples" / "assets" / "tiny_geometry_encoder"), "cpu")
    assert len(asked) == 1


def test_a_teacher_that_says_nan_is_refused(room, frames, tmp_path):
    def spoil(answer, views):
        answer.depth[2, 5, 5] = np.nan

    with pytest.raises(ValueError, match="the teacher's depth of view 2 holds 1 values of 9408 that are NaN"):
        label(frames, tmp_path / "out", rendered(room, change=spoil), image_size=WIDTH)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"window": 4, "overlap": 4}, ValueError, "window is 4 and overlap 4; expected 1 <= overlap < window"),
        ({"confidence_threshold": 2.5}, ValueError, "no pixel reaches the confidence threshold 2.5"),
        ({"views_per_row": 1}, ValueError, "views_per_row is 1"),
        ({"rows_per_shard": 0}, ValueError, "rows_per_shard is 0"),
        ({"questions_per_clip": {"what": 1}}, ValueError, "questions_per_clip is"),
        ({"questions_per_clip": {KIND: -1}}, ValueError, "questions_per_clip is .* expected numbers of at least 0"),
        ({"questions_per_clip": {KIND: 1.5}}, TypeError, "questions_per_clip is .* a mapping from a text to an int"),
        ({"scale": 0.0}, ValueError, "the scale factor is 0.0"),
        ({"scale": float("nan")}, ValueError, "the scale factor is nan"),
        ({"scale": ""}, ValueError, "scale is empty"),
        ({"scale": [1]}, TypeError, "scale is"),
        ({"scale": lambda reconstruction: 2.0}, TypeError, "scale estimator gave a float; expected a MetricScale"),
        ({"windows": 4}, TypeError, "windows"),
        ({"image_size": 7}, ValueError, "image_size is 7"),
        ({"fps": 2.0}, ValueError, "fps is 2.0"),
    ],
)
def test_arguments_out_of_range_are_refused(room, frames, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        label(frames, tmp_path / "out", rendered(room), **{"image_size": WIDTH, **options})
    assert not Path(tmp_path / "out").exists()


def test_former_names_of_options_are_read_or_refused(room, frames, tmp_path):
    former = {"questions_per_clip": {"correspondence": 2, "marked_pixel": 1}, "edge_tolerance": 0.08}
    report = label(frames, tmp_path / "out", rendered(room), image_size=WIDTH, **former)
    assert set(report["questions"]) == {"point_match", KIND} and report["options"]["margins"]["edge_bend"] == 0.08
    with pytest.raises(TypeError, match=r"rules is gone: give margins=TaskMargins\(...\)"):
        label_video(tmp_path / "nowhere", tmp_path / "other", tmp_path / "no_teacher", rules=None)


NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "value", "error", "expected"),
    [
        *[
            (name, 0, ValueError, "expected 1 or more")
            for name in ("num_frames", "window", "image_size", "patch_size")
        ],
        *[
            (name, 1.5, TypeError, "expected an integer")
            for name in ("num_frames", "overlap", "views_per_row", "seed")
        ],
        *[(name, True, TypeError, "expected an integer") for name in ("num_frames", "window", "rows_per_shard")],
        *[(name, "2", TypeError, "expected a number") for name in ("fps", "confidence_percentile", "depth_scale")],
        *[(name, NAN, ValueError, "expected a number") for name in ("fps", "confidence_threshold", "max_head_gap")],
        *[(name, NAN, ValueError, "expected a number") for name in ("edge_tolerance", "confidence_percentile")],
        *[(name, 0.0, ValueError, "expected a positive finite number") for name in ("fps", "depth_scale")],
        *[(name, -0.1, ValueError, "expected a finite number of at least 0") for name in ("edge_tolerance",)],
        ("max_head_gap", -1, ValueError, "expected a finite number of at least 0"),
        ("confidence_threshold", float("inf"), ValueError, "expected a finite number"),
        ("confidence_percentile", 101, ValueError, "expected a number from 0 to 100"),
        ("seed", -1, ValueError, "expected 0 or more"),
        ("embed_pictures", "no", TypeError, "expected True or False"),
        ("margins", {}, TypeError, "expected TaskMargins"),
        ("split", "../x", ValueError, "expected letters, digits and _"),
        ("split", 3, TypeError, "expected a text"),
    ],
)
def test_options_are_refused_before_anything_is_read(name, value, error, expected, tmp_path):
    with pytest.raises(error) as caught:
        label_video(tmp_path / "nowhere", tmp_path / "out", tmp_path / "no_teacher", **{name: value})
    assert str(caught.value).startswith(f"{name} is {value!r}; {expected}")


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("source", "", ValueError, "source is empty; expected a video file or a folder of frames"),
        ("source", b"abc", TypeError, "source is a bytes; expected a video file, a folder, or a list"),
        ("output_dir", 3, TypeError, "output_dir is 3; expected the folder to write to"),
        ("output_dir", __file__, NotADirectoryError, "output_dir is .* is a file; give a folder"),
        ("report_file", ".", IsADirectoryError, "report_file is ., which is a folder"),
        ("teacher", 3, TypeError, "teacher is 3; expected a model, or the folder of one"),
        ("teacher", "", ValueError, "teacher is empty; expected the folder of"),
        ("teacher", "/nope", FileNotFoundError, "teacher /nope is no folder; expected a GapMllmVggt.*or its name on"),
        ("teacher", __file__, FileNotFoundError, "is no folder"),
        ("teacher", str(Path(__file__).parent), FileNotFoundError, "holds no config.json; expected a GapMllmVggt"),
        ("labeller", "wall", TypeError, "labeller is 'wall'; expected a function"),
        ("truth", {"depth": 1}, TypeError, r"truth is \['depth'\]; expected a mapping with camera_to_world, depth_m"),
        ("truth", 3, TypeError, "truth is a int; expected a mapping"),
        ("scene_id", 3, TypeError, "scene_id is 3; expected a text"),
        ("split", "", ValueError, "split is empty; expected a text"),
        ("scale", NAN, ValueError, "the scale factor is nan; expected a positive finite number"),
        ("scale", [1], TypeError, "expected None, a factor, a folder of depth maps, or an estimator"),
        ("scale", "", ValueError, "scale is empty; expected a factor or a folder of depth maps"),
        ("device", "nosuch", ValueError, "device is 'nosuch', which cannot be used here"),
        ("device", 3, TypeError, "device is 3; expected a text such as cpu"),
        *[(name, "no", TypeError, "expected True or False") for name in ("overwrite", "progress", "skip_bad_samples")],
    ],
)
def test_arguments_of_another_kind_are_refused_before_anything_is_read(name, value, error, message, tmp_path):
    given = {"source": tmp_path / "nowhere", "output_dir": tmp_path / "out", "teacher": print, name: value}
    with pytest.raises(error, match=message):
        label_video(**given)


# Broken pictures that are left out


@pytest.fixture
def damaged(frames, tmp_path):
    """The room, with one picture that is cut off and one that is none."""
    shutil.copytree(frames, tmp_path / "kitchen")
    (tmp_path / "kitchen" / "30.png").write_bytes((frames / "30.png").read_bytes()[:3000])
    (tmp_path / "kitchen" / "80.png").write_bytes(b"no picture")
    return tmp_path / "kitchen"


def without(room, *views):
    """The room as its other views show it."""
    kept = [view for view in range(NUM_VIEWS) if view not in views]
    fields = ("images", "depth_m", "intrinsics", "camera_to_world")
    return SimpleNamespace(**{name: getattr(room, name)[kept] for name in fields})


@pytest.mark.parametrize("embed", [False, True])
def test_broken_pictures_are_left_out_counted_and_listed(embed, room, frames, damaged, tmp_path, caplog):
    with pytest.raises(RecordError, match="30.png"):
        label(damaged, tmp_path / "out", rendered(room))
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.report.jsonl").exists()
    logging.getLogger("transformers").propagate = True
    teacher = rendered(without(room, 3, 8))
    options = {"image_size": WIDTH, "scale": 1.0, "embed_pictures": embed, "skip_bad_samples": True}
    report = label(damaged, tmp_path / "out", teacher, **options)
    assert (report["num_pictures_left_out"], report["num_views"]) == (2, 7)
    assert report["frames"] == [0, 10, 20, 40, 50, 60, 70]
    events = read_report(tmp_path / "out.report.jsonl")
    assert [(event["event"], event["source"], event["field"]) for event in events] == [
        ("skipped", "video_labels", "image")
    ] * 2
    assert {event["file"] for event in events} == {str(damaged / "30.png"), str(damaged / "80.png")}
    assert sum("Skipped: source video_labels" in message for message in caplog.messages) == 2
    sample = SceneSample.from_row(read(tmp_path / "out", tmp_path)[0])
    assert [view.frame_id for view in sample.views] == report["frames"]
    assert sample.views[3].image.tobytes() == Image.open(frames / "40.png").tobytes()
    again = label(frames, tmp_path / "out", rendered(room), image_size=WIDTH, overwrite=True)
    assert again["num_pictures_left_out"] == 0 and not (tmp_path / "out.report.jsonl").exists()


def test_given_pictures_that_are_broken_are_left_out(room, tmp_path):
    pictures = room_pictures(room)
    (tmp_path / "cut.png").write_bytes(b"no picture")
    pictures[2], pictures[5] = str(tmp_path / "cut.png"), str(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match="picture 2 .*cannot be read"):
        label(pictures, tmp_path / "out", rendered(room))
    with pytest.raises(FileNotFoundError, match="picture 0.* does not exist"):
        label([pictures[5]], tmp_path / "out", rendered(room))
    report_file = tmp_path / "reports" / "left.jsonl"
    teacher = rendered(without(room, 2, 5))
    options = {"image_size": WIDTH, "skip_bad_samples": True, "report_file": report_file}
    report = label(pictures, tmp_path / "out", teacher, **options)
    assert report["frames"] == [0, 1, 3, 4, 6, 7, 8] and report["num_pictures_left_out"] == 2
    assert [event["record"] for event in read_report(report_file)] == ["picture 2", "picture 5"]
    with pytest.raises(TypeError, match="picture 1 is of type int"):
        label([pictures[0], 3], tmp_path / "out", rendered(room), overwrite=True, **options)


def test_views_that_a_user_counted_are_not_counted_otherwise(room, damaged, tmp_path):
    options = {"image_size": WIDTH, "skip_bad_samples": True}
    truth = {"depth_m": room.depth_m, "intrinsics": room.intrinsics, "camera_to_world": room.camera_to_world}
    for name, counted in {
        "scale": KnownBaseline(0, 5, 0.42),
        "truth": truth,
    }.items():
        with pytest.raises(ValueError, match=f"pictures left out: 2 .*views are counted otherwise than in {name}"):
            label(damaged, tmp_path / "out", rendered(room), **{name: counted}, **options)
    with pytest.raises(ValueError, match="counted otherwise than in scale"):
        label(damaged, tmp_path / "out", rendered(room), scale=KnownDepth({0: room.depth_m[0]}), **options)
    (tmp_path / "depth").mkdir()
    Image.fromarray(np.rint(room.depth_m[4] * 2000).astype(np.uint16)).save(tmp_path / "depth" / "40.png")
    report = label(damaged, tmp_path / "out", rendered(without(room, 3, 8)), scale=tmp_path / "depth", **options)
    assert report["scale_factor"] == pytest.approx(2.0, rel=1e-3)  # maps belong to pictures by name


def test_a_damaged_video_is_refused_in_any_case(room, video, tmp_path):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:2000])
    with pytest.raises(RecordError, match="cut.mp4.*cannot be decoded"):
        label(cut, tmp_path / "out", rendered(room), skip_bad_samples=True)


def test_too_few_pictures_are_left(damaged, tmp_path, room):
    for file in damaged.iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="there are 0 views; expected at least 2"):
        label(damaged, tmp_path / "out", rendered(room), skip_bad_samples=True)


# The teacher


def test_a_teacher_of_another_model_is_refused(vggt, tmp_path):
    vggt.aggregator.save_pretrained(tmp_path / "aggregator")
    with pytest.raises(ValueError, match="aggregator lacks .* weights .*another model, and would label at random"):
        load_teacher(tmp_path / "aggregator", "cpu")
    vggt.save_pretrained(tmp_path / "teacher")
    (tmp_path / "teacher" / "model.safetensors").unlink()
    with pytest.raises(OSError, match="teacher .*teacher cannot be loaded: .*model.safetensors"):
        load_teacher(tmp_path / "teacher", "cpu")


def test_a_damaged_teacher_and_one_without_depth_are_named(vggt, tmp_path):
    vggt.save_pretrained(tmp_path / "teacher")
    file = tmp_path / "teacher" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(OSError, match="teacher .*teacher cannot be loaded: .*damaged or cut off: copy or download"):
        load_teacher(tmp_path / "teacher", "cpu")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "qwen3_vl"}')
    with pytest.raises(ValueError, match="is of model_type 'qwen3_vl', which gives no depth; expected a folder of a"):
        load_teacher(tmp_path / "model", "cpu")


def test_numbers_of_numpy_are_reported(room, frames, tmp_path):
    options = {"num_frames": np.int64(9), "confidence_percentile": np.float32(25), "scale": np.float32(1)}
    label(frames, tmp_path / "out", rendered(room), image_size=WIDTH, **options)
    report = json.loads((tmp_path / "out" / "label_report.json").read_text())
    assert report["options"]["num_frames"] == 9 and report["options"]["confidence_percentile"] == 25.0


@pytest.mark.parametrize("source", ["video", "frames"])
def test_frames_to_label_may_be_those_that_the_teacher_sees_most_by(source, vggt, tmp_path, request, monkeypatch):
    monkeypatch.setattr(labelling, "compare_views", nothing_contradicted)
    options = {"scale": 1.0, "confidence_percentile": 0, "edge_tolerance": 1e9, "accept_inconsistent_teacher": True}
    options |= {"margins": TaskMargins(near_m=1e-6, far_m=1e6), "num_frames": 3, "views_per_row": 3}
    path = request.getfixturevalue(source)
    report = label(path, tmp_path / "out", vggt, sampling="space_aware", **options)
    frames = read_video_frames(path, range(NUM_VIEWS))
    expected = space_aware_sample(*predict_points(vggt, [frame.image for frame in frames]), 3)
    step = 10 if source == "frames" else 1  # the numbers in the names of the files
    assert report["frames"] == [step * place for place in expected] and report["options"]["sampling"] == "space_aware"


def test_sampling_that_does_not_fit(room, frames, vggt, tmp_path):
    with pytest.raises(ValueError, match="sampling is 'best'; expected one of uniform, fps, space_aware"):
        label(frames, tmp_path / "out", vggt, sampling="best")
    with pytest.raises(ValueError, match="sampling is 'uniform', but pictures are given"):
        label(room_pictures(room), tmp_path / "out", vggt, sampling="uniform")
    with pytest.raises(TypeError, match="gives no world_points"):
        label(frames, tmp_path / "out", lambda views: None, sampling="space_aware", num_frames=2)


# Pictures that EXIF turns


def turned_frames(room, folder, value, undo):
    """Frames as a phone stores them, with the depth of the stored pictures beside them."""
    back, exif = Orientation.from_exif(undo), Image.Exif()
    exif[EXIF_ORIENTATION] = value
    (folder / "kitchen").mkdir()
    (folder / "depth").mkdir()
    for number, picture in enumerate(room_pictures(room)):
        Image.fromarray(back.array(np.asarray(picture))).save(folder / "kitchen" / f"{number}.png", exif=exif)
        codes = np.rint(back.array(room.depth_m[number]) * 1000).astype(np.uint16)
        Image.fromarray(codes).save(folder / "depth" / f"{number}.png")
    return folder / "kitchen", folder / "depth"


@pytest.mark.parametrize(("value", "undo"), [(6, 8), (3, 3), (5, 5)])
def test_frames_that_exif_turns_are_labelled_and_stored_upright(room, tmp_path, value, undo):
    frames, depth = turned_frames(room, tmp_path, value, undo)
    options = {"scale": depth, "image_size": WIDTH}
    report = label(frames, tmp_path / "out", rendered(room, scales=[1 / 1.6]), **options)
    assert report["scale_factor"] == pytest.approx(1.6, rel=1e-3)
    given = sorted(frames.iterdir(), key=lambda path: int(path.stem))
    listed = label(given, tmp_path / "listed", rendered(room, scales=[1 / 1.6]), **options)
    assert listed["scale_factor"] == pytest.approx(1.6, rel=1e-3)
    for folder in ("out", "listed"):
        rows = read(tmp_path / folder, tmp_path / folder)
        for row in rows.with_format("arrow")[:]["views"].to_pylist():
            assert all(picture_orientation(view["image"]).is_upright for view in row)
        sample = SceneSample.open(rows, 1)
        for view in sample.views:
            assert view.size == (WIDTH, HEIGHT)
            np.testing.assert_array_equal(np.asarray(view.image), room.images[view.frame_id])
        point = sample.points[0]
        pixel, _ = project_points(sample.point_in_view(point, point.view), sample.views[point.view].intrinsics)
        np.testing.assert_allclose(pixel, point.pixel, atol=0.1)
        column, row = map(round, point.pixel)
        assert sample.point_in_view(point, point.view)[2] == pytest.approx(
            room.depth_m[sample.views[point.view].frame_id][row, column], rel=0.01
        )


def test_a_depth_folder_of_another_turn_than_its_pictures_is_refused(room, frames, tmp_path):
    (tmp_path / "depth").mkdir()
    for turn, error in ((3, "turned by 180 degrees"), (6, "turned by 90 degrees against its picture")):
        for number in range(NUM_VIEWS):
            codes = np.rint(Orientation.from_exif(turn).array(room.depth_m[number]) * 1000).astype(np.uint16)
            Image.fromarray(codes).save(tmp_path / "depth" / f"{10 * number}.png")
        with pytest.raises(ValueError, match=error):
            teacher = rendered(room, scales=[1 / 1.6])
            label(frames, tmp_path / "out", teacher, scale=tmp_path / "depth", image_size=WIDTH)
    assert not (tmp_path / "out").exists()
