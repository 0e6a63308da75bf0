"""`label_video`: training data in the schema from any RGB video, without 3D annotation.

A teacher (VGGT with its heads) gives depth and cameras; what it is sure of becomes scenes and questions. Frames come
from frames_to_label.py, options from label_options.py, the teacher and its windows from depth_teacher.py and
teacher_windows.py, metres from metric_scale.py, clips and their questions from labelled_scenes.py. Here these are put
together, and rows, a report and a picture are written.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from operator import methodcaller
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
from datasets.table import embed_table_storage
from transformers.utils import logging

from ...argument_checks import check_device, check_output_file, check_output_folder, check_path, check_text
from ...frame_sampling_gap_mllm import picture_sizes, teacher_inputs
from ...input_checks_gap_mllm import WrongKindError, check_flag
from ..record_errors import ReadReport
from ..scene_sample import SceneSample
from ..schema import scene_features
from ..task_makers.task_scene import Labeller
from .depth_teacher import Teacher, check_teacher_path, load_teacher, teacher_name
from .frames_to_label import read_pictures
from .label_options import LabelOptions
from .labelled_scenes import ask_about_clip, clip_scenes, label_views
from .metric_scale import (
    TEACHER_UNITS,
    KnownBaseline,
    KnownDepth,
    MetricScale,
    ScaleEstimator,
    as_scale_estimator,
)
from .picture import label_picture
from .reconstruction_errors import reconstruction_errors
from .sure_pixels import find_label_pixels, find_sure_pixels
from .teacher_consistency import compare_views, consistency_text, judge_consistency
from .teacher_windows import plan_windows, reconstruct_in_windows


logger = logging.get_logger(__name__)

TRUTH_KEYS = {"depth_m", "intrinsics", "camera_to_world"}
REPORT_FILE, PICTURE_FILE = "label_report.json", "labels.png"
RESIDUAL_WARNING = 0.05  # of the scene's size; labels across such a seam are doubtful
ROWS_PER_GROUP = 32  # of a parquet file; pictures that rows of a group share are stored once


def label_video(
    source,
    output_dir,
    teacher: Teacher | str | Path,
    scale: float | ScaleEstimator | str | Path | None = None,
    labeller: Labeller | None = None,
    truth: dict | None = None,
    scene_id: str | None = None,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
    skip_bad_samples: bool = False,
    report_file=None,
    **options,
) -> dict:
    """Label a video, and write scenes and questions about them as rows of the schema, a report and a picture.

    Every clip is a row of the task "scene", which `make_tasks` and `SceneQuestionDataset` ask any question that it
    allows, and then a row for each question that the task makers asked here.

    `output_dir` gets `data/<split>-00000-of-00001.parquet`, .., which `load_multiview("parquet", output_dir)` reads
    (with `streaming=True` without unpacking the pictures that rows share), or `datasets.load_dataset(output_dir)`,
    `label_report.json` and `labels.png`. Look at the picture before training.
    Frame: `camera_to_world` in the world of the first window, `pose_frame` "scan"; points in the camera of a row's
    view 0. Units: metres if the scale makes them so, else the teacher's own; metadata says which.

    Args:
        source (`str`, `Path` or list): a video file, a folder of frames, or pictures as for `to_rgb_image`.
        output_dir (`str` or `Path`): folder to write to.
        teacher (`Teacher`, `str` or `Path`): a model, or the folder of a `GapMllmVggtForReconstruction`.
        scale (`float`, `ScaleEstimator`, `str` or `Path`, *optional*): metres of one unit of the teacher: a factor;
            `KnownDepth`, `KnownBaseline` or any callable; or a folder of 16-bit depth maps, named as the pictures or
            by frame number. None leaves the teacher's units, with a warning; "is_metric" in report and metadata is
            False then.
        labeller (`Labeller`, *optional*): function from picture and pixel (x, y) to the name of what is there, or
            None; asked for marked pixels.
        truth (`dict`, *optional*): "depth_m", "intrinsics" and "camera_to_world" of all frames that are read; the
            report then has the errors of `reconstruction_errors`.
        scene_id (`str`, *optional*): name of the scene, by default that of the file or folder.
        device (`str`, *optional*): device of a teacher that is loaded from a folder, by default the best there is.
        overwrite (`bool`, defaults to False): remove what an earlier call wrote for this split.
        progress (`bool`, defaults to True): show a bar.
        skip_bad_samples (`bool`, defaults to False): leave pictures out that cannot be read, of a folder or list; the
            others stay the same. A damaged video is refused in any case.
        report_file (`str` or `Path`, *optional*): list of what was left out, see `read_report`; by default
            `<output_dir>.report.jsonl`, if there is anything to list.
        **options: fields of `LabelOptions`.
    Returns:
        `dict`: the report.
    Raises:
        FileNotFoundError: if there is no such video or teacher. FileExistsError: if rows of this split are there
            already. NotADirectoryError, IsADirectoryError: if output_dir or report_file cannot be written to.
        RecordError: if the video, or a picture without `skip_bad_samples`, cannot be decoded.
        ImportError: for a video without the package `av`. OSError: as `load_teacher`.
        TypeError, ValueError: on unknown options, arguments of another kind or out of range; fewer than two frames; a
            teacher whose answer is not finite or has other shapes; a scale that cannot be told, or speaks of views
            that are counted otherwise since pictures were left out; a teacher that contradicts itself, without
            `accept_inconsistent_teacher`; no pixel above the confidence threshold; or if no question could be asked.

    Example:
        ```python
        >>> from gap_mllm.processing.data import SceneSample, label_video, load_multiview, make_tasks, render_room
        >>> from gap_mllm.processing.data.video_labels import KnownBaseline
        >>> pictures = list(render_room(0, num_views=6).images)  # or the path of a video
        >>> scale = KnownBaseline(0, 5, 0.42)  # the camera moved 0.42 m from view 0 to view 5
        >>> report = label_video(
        ...     pictures, "labels", encoder_folder, scale, accept_inconsistent_teacher=True, progress=False
        ... )
        >>> report["is_metric"], report["num_rows"] > 0
        (True, True)
        >>> rows = load_multiview("parquet", "labels", split="train", streaming=True)
        >>> scene, question, *_ = map(SceneSample.from_row, rows)
        >>> scene.task, question.task, make_tasks(scene, ("camera_angle",))[0].task
        ('scene', 'reconstruction', 'spatial_qa')

        ```
    """
    if "rules" in options:
        raise WrongKindError("rules is gone: give margins=TaskMargins(...), the thresholds of all task makers.")
    options, output_dir = LabelOptions(**options), check_output_folder("output_dir", output_dir)
    for name, flag in (("overwrite", overwrite), ("progress", progress), ("skip_bad_samples", skip_bad_samples)):
        check_flag(name, flag)
    _check_arguments(source, teacher, scale, labeller, truth, scene_id, device)
    default_report = f"{output_dir}.report.jsonl"
    report_file = check_output_file("report_file", default_report if report_file is None else report_file)
    old_files = _old_shards(output_dir, options.split, overwrite)
    report_file.unlink(missing_ok=True)
    left_out = None
    if skip_bad_samples:
        report_file.parent.mkdir(parents=True, exist_ok=True)
        left_out = ReadReport(report_file)
    if options.sampling == "space_aware" and isinstance(teacher, str | Path):
        teacher = load_teacher(teacher, device)
    views = read_pictures(source, options, left_out, teacher)
    images = [view.image for view in views]
    num_left_out = 0 if left_out is None else sum(left_out.skipped.values())
    if num_left_out:
        _refuse_counted_views(num_left_out, scale, truth, report_file)
    estimate = as_scale_estimator(scale, [_names_of(view) for view in views], options.depth_scale)
    plan_windows(len(views), options.window, options.overlap)  # refuses before a large teacher is loaded
    name = scene_id or (Path(source).stem if isinstance(source, str | Path) else "pictures")
    teacher = load_teacher(teacher, device) if isinstance(teacher, str | Path) else teacher
    inputs = teacher_inputs(images, *picture_sizes(teacher, options.image_size, options.patch_size))
    reconstruction, windows = reconstruct_in_windows(
        teacher,
        inputs,
        options.window,
        options.overlap,
        options.confidence_percentile,
        progress,
    )
    _warn_of_seams(name, windows)
    sure = find_sure_pixels(reconstruction, options.confidence_threshold, options.confidence_percentile)
    consistency, contradicted = compare_views(reconstruction, inputs, sure)
    judge_consistency(name, consistency, options.accept_inconsistent_teacher)
    metric = estimate(reconstruction)
    if not isinstance(metric, MetricScale):
        raise TypeError(f"the scale estimator gave a {type(metric).__name__}; expected a MetricScale.")
    if metric.source == TEACHER_UNITS:
        logger.warning(
            f"{name}: no scale was given, so lengths are in the teacher's own units, not in metres (is_metric is "
            "false). Give scale, a KnownBaseline or a factor (--distance I J METRES or --scale)."
        )
    pixels = find_label_pixels(
        reconstruction.scaled(metric.factor),
        [image.size for image in images],
        options.confidence_threshold,
        options.confidence_percentile,
        options.margins.edge_bend,
        options.max_head_gap,
        contradicted,
    )
    views, not_stored = label_views(views, pixels)
    metadata = {
        "teacher": teacher_name(teacher),
        "scale_source": metric.source,
        "scale_factor": metric.factor,
        "is_metric": metric.source != TEACHER_UNITS,
        "confidence_threshold": pixels.threshold,
        "pixels": pixels.counts,
    }
    scenes, samples, refused = clip_scenes(views, name, metadata, options.split, options.views_per_row), [], Counter()
    for scene in scenes:
        asked, not_asked = ask_about_clip(scene, pixels, options.questions, options.margins, labeller, options.seed)
        shared = tuple(view.encoded() for view in scene.views)  # once for all rows of the clip
        samples += [replace(sample, views=shared) for sample in (scene, *asked)]
        refused.update(not_asked)
    questions = _count_questions(options.questions, samples, refused)
    if len(samples) == len(scenes):
        raise ValueError(f"{name}: no question could be asked: {questions}. Take other frames or margins.")
    report = {
        "scene_id": name,
        **metadata,
        "scale_details": metric.details,
        "frames": [view.frame_id for view in views],
        "num_pictures_left_out": num_left_out,
        **_describe_reconstruction(pixels, windows),
        "consistency": consistency.as_dict(),
        "depth_not_stored": dict(not_stored),
        "errors_against_truth": None if truth is None else reconstruction_errors(pixels.reconstruction, **truth),
        "questions": questions,
        "num_rows": len(samples),
        "num_scenes": len(scenes),
        "num_rows_with_label": sum(any(point.label for point in sample.points) for sample in samples),
        "options": asdict(options),
    }
    for file in old_files:
        file.unlink()
    files = write_label_shards(samples, output_dir, options.split, options.rows_per_shard, options.embed_pictures)
    report["files"] = [str(file.relative_to(output_dir)) for file in files]
    label_picture(images, pixels, samples, _caption(report)).save(output_dir / PICTURE_FILE)
    text = json.dumps(report, indent=2, allow_nan=False, default=methodcaller("item"))  # numbers of numpy: plain ones
    (output_dir / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
    return json.loads(text)


def write_label_shards(
    samples: list[SceneSample], output_dir, split: str, rows_per_shard: int, embed_pictures: bool = True
) -> list[Path]:
    """Write samples as parquet, in the layout and with the names that the Hub reads.

    Args:
        samples (`list[SceneSample]`): scenes and questions; those that share pictures should stand together.
        output_dir (`str` or `Path`): folder that gets a folder `data`.
        split (`str`): name of the split.
        rows_per_shard (`int`): most rows of a file.
        embed_pictures (`bool`, defaults to True): store the files that views name, instead of their paths.
    Returns:
        `list[Path]`: the files.
    """
    folder, features = Path(output_dir) / "data", scene_features()
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(samples), rows_per_shard)
    files = [folder / f"{split}-{number:05d}-of-{len(starts):05d}.parquet" for number in range(len(starts))]
    for file, start in zip(files, starts, strict=True):
        # Pictures are long, so the usual bound of a dictionary would end it after a few of them.
        settings = {"compression": "zstd", "use_dictionary": True, "dictionary_pagesize_limit": 1 << 30}
        with pyarrow.parquet.ParquetWriter(file, features.arrow_schema, **settings) as writer:
            stop = min(start + rows_per_shard, len(samples))
            for first in range(start, stop, ROWS_PER_GROUP):
                rows = [sample.to_row() for sample in samples[first : min(first + ROWS_PER_GROUP, stop)]]
                table = datasets.Dataset.from_list(rows, features=features).data.table
                writer.write_table(embed_table_storage(table) if embed_pictures else table)
    return files


def _old_shards(output_dir, split, overwrite):
    """Files of an earlier run, which must not mix with those of another."""
    old = sorted((output_dir / "data").glob(f"{split}-*.parquet"))
    if old and not overwrite:
        raise FileExistsError(f"{old[0]} is there already; use another output_dir, or overwrite=True.")
    return old


def _names_of(view):
    """What a folder of depth maps is matched by."""
    return {"image": view.picture, "image_path": view.image_path, "frame_id": view.frame_id}


def _check_arguments(source, teacher, scale, labeller, truth, scene_id, device):
    """What is not in `LabelOptions`, before anything is read."""
    if isinstance(source, str | Path):
        check_path("source", source, "a video file or a folder of frames")
    elif not isinstance(source, Sequence) or isinstance(source, bytes):
        raise WrongKindError(
            f"source is a {type(source).__name__}; expected a video file, a folder, or a list of pictures."
        )
    if isinstance(teacher, str | Path):
        check_teacher_path(teacher)
    elif not callable(teacher):
        raise WrongKindError(f"teacher is {teacher!r}; expected a model, or the folder of one.")
    if isinstance(scale, str | Path):
        check_path("scale", scale, "a factor or a folder of depth maps")
    else:
        as_scale_estimator(scale)  # what is wrong with a folder is found beside the views that it must fit
    if labeller is not None and not callable(labeller):
        raise WrongKindError(f"labeller is {labeller!r}; expected a function of picture and pixel, or None.")
    if truth is not None and set(truth if isinstance(truth, Mapping) else ()) != TRUTH_KEYS:
        given = list(truth) if isinstance(truth, Mapping) else f"a {type(truth).__name__}"
        raise WrongKindError(f"truth is {given}; expected a mapping with {', '.join(sorted(TRUTH_KEYS))}.")
    if scene_id is not None:
        check_text("scene_id", scene_id)
    if device is not None:
        check_device(device)


def _refuse_counted_views(num_left_out, scale, truth, report_file):
    """Indices of views, which a user counted with the broken pictures, mean others without them."""
    counted = "truth" if truth is not None else "scale" if isinstance(scale, KnownBaseline | KnownDepth) else None
    if counted is not None:
        raise ValueError(
            f"pictures left out: {num_left_out} (listed in {report_file}), so that views are counted otherwise than "
            f"in {counted}. Remove these pictures first, and count the views without them."
        )


def _count_questions(wanted, samples, refused):
    """For each task maker how many questions are written, and how often it could not ask, by reason."""
    written = Counter(sample.metadata.get("maker") for sample in samples)
    return {
        name: {
            "written": written[name],
            "not_asked": {reason: number for (maker, reason), number in sorted(refused.items()) if maker == name},
        }
        for name in wanted
    }


def _warn_of_seams(name, windows):
    for window in windows:
        if window.relative_residual is not None and window.relative_residual > RESIDUAL_WARNING:
            logger.warning(
                f"{name}: the window of views {window.first_view} to {window.last_view} meets earlier ones only to "
                f"{100 * window.relative_residual:.1f} % of the scene's size; what is asked across that seam is "
                "doubtful. Use a larger overlap, or frames closer to each other."
            )


def _describe_reconstruction(pixels, windows):
    """What the report says of the teacher's work."""
    reconstruction = pixels.reconstruction
    residuals = [window.relative_residual for window in windows if window.relative_residual is not None]
    spread = np.percentile(np.concatenate([part.reshape(-1) for part in reconstruction.confidence]), (0, 50, 100))
    return {
        "num_views": len(reconstruction),
        "teacher_pixels": [list(size) for size in sorted({depth.shape[::-1] for depth in reconstruction.depth})],
        "windows": [window.as_dict() for window in windows],
        "largest_relative_residual": max(residuals, default=None),
        "scene_size": pixels.size,
        "confidence": dict(zip(("min", "median", "max"), spread.tolist(), strict=True)),
        "head_gap": _head_gap(pixels),
    }


def _head_gap(pixels):
    """Median distance of the teacher's point map from depth and camera, relative to the depth; None without one."""
    reconstruction = pixels.reconstruction
    if reconstruction.world_points is None:
        return None
    gaps = []
    for view, usable in enumerate(pixels.usable):
        distance = np.linalg.norm(reconstruction.points(view) - reconstruction.world_points[view], axis=-1)
        gaps.append(distance[usable] / reconstruction.depth[view][usable])
    return float(np.median(np.concatenate(gaps)))


def _caption(report):
    residual = report["largest_relative_residual"]
    aligned = "" if residual is None else f", worst residual {100 * residual:.2f} % of the scene"
    counts = report["pixels"]
    written = ", ".join(f"{numbers['written']} {kind}" for kind, numbers in report["questions"].items())
    return (
        f"{report['scene_id']}: {report['num_views']} views in {len(report['windows'])} windows{aligned}; teacher "
        f"{report['teacher']}; scale {report['scale_factor']:.4g} ({report['scale_source']})\n"
        f"confidence >= {report['confidence_threshold']:.3g}: {counts['usable']} of {counts['total']} pixels usable; "
        f"{counts['low_confidence']} unsure, {counts['depth_edge']} at depth edges, {counts['views_disagree']} "
        f"contradicted by other views\n{consistency_text(report['consistency'])}\n"
        f"scenes: {report['num_scenes']}; questions: {written}"
    )
