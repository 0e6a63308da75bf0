"""`label_video`: training data in the schema from any RGB video, without 3D annotation.

A teacher (VGGT with its heads) gives depth and cameras; what it is sure of becomes questions with answers. Frames come
from video_frames.py, the teacher and its windows from depth_teacher.py and teacher_windows.py, metres from
metric_scale.py, questions from questions.py. Here these are put together, and rows, a report and a picture are
written.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
from transformers.utils import logging

from ...visual_prompt_gap_mllm import to_rgb_image
from ..scene_sample import View
from ..schema import scene_features
from ..source_files import encode_png
from ..video_frames import read_video_views
from .depth_teacher import IMAGE_SIZE, PATCH_SIZE, Teacher, load_teacher, teacher_inputs, teacher_name
from .metric_scale import TEACHER_UNITS, MetricScale, ScaleEstimator, as_scale_estimator
from .picture import label_picture
from .pixels import find_label_pixels
from .questions import Labeller, QuestionRules
from .reconstruction_errors import reconstruction_errors
from .rows import label_views, make_rows
from .teacher_windows import plan_windows, reconstruct_in_windows


logger = logging.get_logger(__name__)

REPORT_FILE, PICTURE_FILE = "label_report.json", "labels.png"
RESIDUAL_WARNING = 0.05  # of the scene's size; labels across such a seam are doubtful
ROWS_PER_GROUP = 32  # of a parquet file; pictures that rows of a group share are stored once


@dataclass(frozen=True)
class LabelOptions:
    """How a video is labelled.

    Args:
        num_frames (`int`): at most so many frames, evenly spaced.
        fps (`float`, *optional*): frames a second, see `read_video_views`.
        window (`int`), overlap (`int`): views that the teacher sees at a time, and how many of them it saw before.
        image_size (`int`, *optional*), patch_size (`int`, *optional*): of the teacher's pictures; by default those of
            its config, else VGGT's.
        confidence_threshold (`float`, *optional*): lowest confidence of a pixel, in the teacher's numbers.
        confidence_percentile (`float`): instead of a threshold: this share of all pixels is too unsure.
        edge_tolerance (`float`), max_head_gap (`float`, *optional*): see `find_label_pixels`.
        embed_pictures (`bool`): store the pictures of a folder of frames in the rows, which can then be moved without
            the folder; otherwise rows hold their paths. Frames of a video are always stored.
        views_per_row (`int`): a longer video is divided into clips of so many views.
        questions_per_clip (`dict[str, int]`, *optional*): see `make_rows`.
        rules (`QuestionRules`): margins and tolerances.
        depth_scale (`float`): units of a metre in a folder of depth maps.
        split (`str`), seed (`int`): same seed, same rows.
        rows_per_shard (`int`): of a parquet file.
    Raises:
        ValueError: if there is less than one row to a shard.
    """

    num_frames: int = 32
    fps: float | None = None
    window: int = 16
    overlap: int = 4
    image_size: int | None = None
    patch_size: int | None = None
    confidence_threshold: float | None = None
    confidence_percentile: float = 50.0
    edge_tolerance: float = 0.05
    max_head_gap: float | None = None
    embed_pictures: bool = False
    views_per_row: int = 8
    questions_per_clip: dict[str, int] | None = None
    rules: QuestionRules = field(default_factory=QuestionRules)
    depth_scale: float = 1000.0
    split: str = "train"
    seed: int = 0
    rows_per_shard: int = 512

    def __post_init__(self):
        if self.rows_per_shard < 1:
            raise ValueError(f"rows_per_shard is {self.rows_per_shard}; expected at least 1.")


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
    **options,
) -> dict:
    """Label a video, and write rows of the schema, a report and a picture.

    `output_dir` gets `data/<split>-00000-of-00001.parquet`, .., which `datasets.load_dataset(output_dir)` reads (with
    `streaming=True` without unpacking the pictures that rows share), `label_report.json` and `labels.png`. Look at the
    picture before training.
    Frame: `camera_to_world` in the world of the first window, `pose_frame` "scan"; points in the camera of a row's
    view 0. Units: metres if the scale makes them so, else the teacher's own; metadata says which.

    Args:
        source (`str`, `Path` or list): a video file, a folder of frames, or pictures as for `to_rgb_image`.
        output_dir (`str` or `Path`): folder to write to.
        teacher (`Teacher`, `str` or `Path`): a model, or the folder of a `GapMllmVggtForReconstruction`.
        scale (`float`, `ScaleEstimator`, `str` or `Path`, *optional*): metres of one unit of the teacher: a factor;
            `KnownDepth`, `KnownBaseline` or any callable; or a folder of 16-bit depth maps, named as the pictures or
            by frame number. None leaves the teacher's units, with a warning.
        labeller (`Labeller`, *optional*): picture and pixel (x, y) to the name of what is there, or None.
        truth (`dict`, *optional*): "depth_m", "intrinsics" and "camera_to_world" of all frames that are read; the
            report then has the errors of `reconstruction_errors`.
        scene_id (`str`, *optional*): by default the name of the file or folder.
        device (`str`, *optional*): of a teacher that is loaded from a folder.
        overwrite (`bool`): remove what an earlier call wrote for this split.
        progress (`bool`): show a bar.
        **options: of `LabelOptions`.
    Returns:
        `dict`: the report.
    Raises:
        FileNotFoundError: if there is no such video. FileExistsError: if rows of this split are there already.
        RecordError: if the video or a picture cannot be decoded.
        ImportError: for a video without the package `av`.
        TypeError, ValueError: on unknown options or values out of range; fewer than two frames; a teacher whose answer
            is not finite or has other shapes; a scale that cannot be told; no pixel above the confidence threshold;
            or if no question could be asked.

    Example:
        ```python
        report = label_video("kitchen.mp4", "labels/kitchen", "path/to/vggt", scale=KnownBaseline(0, 5, 0.42))
        rows = datasets.load_dataset("labels/kitchen", split="train", streaming=True)
        ```
    """
    options, output_dir = LabelOptions(**options), Path(output_dir)
    old_files = _old_shards(output_dir, options.split, overwrite)
    views = _read_views(source, options)
    estimate = as_scale_estimator(scale, views, options.depth_scale)
    plan_windows(len(views), options.window, options.overlap)  # refuses before a large teacher is loaded
    name = scene_id or (Path(source).stem if isinstance(source, str | Path) else "pictures")
    images = [View(picture=view["image"], image_path=view.get("image_path")).image for view in views]
    teacher = load_teacher(teacher, device) if isinstance(teacher, str | Path) else teacher
    reconstruction, windows = reconstruct_in_windows(
        teacher,
        teacher_inputs(images, *_teacher_pixels(teacher, options)),
        options.window,
        options.overlap,
        options.confidence_percentile,
        progress,
    )
    _warn_of_seams(name, windows)
    metric = estimate(reconstruction)
    if not isinstance(metric, MetricScale):
        raise TypeError(f"the scale estimator gave a {type(metric).__name__}; expected a MetricScale.")
    if metric.source == TEACHER_UNITS:
        logger.warning(f"{name}: no scale was given, so lengths are in the teacher's own units, not in metres.")
    pixels = find_label_pixels(
        reconstruction.scaled(metric.factor),
        [image.size for image in images],
        options.confidence_threshold,
        options.confidence_percentile,
        options.edge_tolerance,
        options.max_head_gap,
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
    rows, counts = make_rows(
        views,
        images,
        pixels,
        name,
        metadata,
        options.split,
        options.views_per_row,
        options.questions_per_clip,
        labeller,
        options.rules,
        options.seed,
    )
    if not rows:
        raise ValueError(f"{name}: no question could be asked: {_plain_counts(counts)}. Take other frames or margins.")
    report = {
        "scene_id": name,
        **metadata,
        "scale_details": metric.details,
        "frames": [view.get("frame_id") for view in views],
        **_describe_reconstruction(pixels, windows),
        "depth_not_stored": dict(not_stored),
        "errors_against_truth": None if truth is None else reconstruction_errors(pixels.reconstruction, **truth),
        "questions": _plain_counts(counts),
        "num_rows": len(rows),
        "num_rows_with_label": sum(any(point["label"] for point in row["points"]) for row in rows),
        "options": asdict(options),
    }
    for file in old_files:
        file.unlink()
    files = write_label_shards(rows, output_dir, options.split, options.rows_per_shard)
    report["files"] = [str(file.relative_to(output_dir)) for file in files]
    label_picture(images, pixels, rows, _caption(report)).save(output_dir / PICTURE_FILE)
    (output_dir / REPORT_FILE).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return report


def write_label_shards(rows: list[dict], output_dir, split: str, rows_per_shard: int) -> list[Path]:
    """Write rows of the schema as parquet, in the layout and with the names that the Hub reads.

    Args:
        rows (`list[dict]`): of `complete_row`; rows that share pictures should stand together.
        output_dir (`str` or `Path`), split (`str`), rows_per_shard (`int`)
    Returns:
        `list[Path]`: the files.
    """
    folder, features = Path(output_dir) / "data", scene_features()
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(rows), rows_per_shard)
    files = [folder / f"{split}-{number:05d}-of-{len(starts):05d}.parquet" for number in range(len(starts))]
    for file, start in zip(files, starts, strict=True):
        # Pictures are long, so the usual bound of a dictionary would end it after a few of them.
        settings = {"compression": "zstd", "use_dictionary": True, "dictionary_pagesize_limit": 1 << 30}
        with pyarrow.parquet.ParquetWriter(file, features.arrow_schema, **settings) as writer:
            stop = min(start + rows_per_shard, len(rows))
            for first in range(start, stop, ROWS_PER_GROUP):
                part = datasets.Dataset.from_list(rows[first : min(first + ROWS_PER_GROUP, stop)], features=features)
                writer.write_table(part.data.table)
    return files


def _old_shards(output_dir, split, overwrite):
    """Files of an earlier run, which must not mix with those of another."""
    old = sorted((output_dir / "data").glob(f"{split}-*.parquet"))
    if old and not overwrite:
        raise FileExistsError(f"{old[0]} is there already; use another output_dir, or overwrite=True.")
    return old


def _read_views(source, options):
    if isinstance(source, str | Path):
        views = read_video_views(source, options.num_frames, options.fps)
        return [_embed(view) for view in views] if options.embed_pictures else views
    if not isinstance(source, Sequence):
        raise TypeError(
            f"source is a {type(source).__name__}; expected a video file, a folder, or a list of pictures."
        )
    pictures = [to_rgb_image(picture, f"picture {index}") for index, picture in enumerate(source)]
    return [{"image": encode_png(np.asarray(picture)), "frame_id": i} for i, picture in enumerate(pictures)]


def _embed(view):
    image = view["image"]
    if image["bytes"] is None:
        image = {"bytes": Path(image["path"]).read_bytes(), "path": Path(image["path"]).name}
    return {**view, "image": image}


def _teacher_pixels(teacher, options):
    config = getattr(teacher, "config", None)
    image_size = options.image_size or getattr(config, "image_size", IMAGE_SIZE)
    return image_size, options.patch_size or getattr(config, "patch_size", PATCH_SIZE)


def _plain_counts(counts):
    return {
        kind: {
            "written": numbers["written"],
            "not_asked": {reason: n for reason, n in sorted(numbers.items()) if reason != "written"},
        }
        for kind, numbers in counts.items()
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
        f"{counts['low_confidence']} unsure, {counts['depth_edge']} at depth edges\n"
        f"{report['num_rows']} rows: {written}"
    )


__all__ = ["LabelOptions", "label_video", "write_label_shards"]
