"""Looking through a source before training on it: counts, what is missing or broken, Euler orders, a contact sheet.

Nothing is cached: the files are read as they are now, leniently, and one broken file does not hide the others.
"""

import json
import os
import random
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import median_low

import numpy as np
from tqdm.auto import tqdm

from ..argument_checks import check_output_folder, check_text
from ..input_checks_gap_mllm import check_count, check_flag, whole_text
from .contact_sheet import contact_sheet
from .euler_order import detect_euler_order
from .inspection_report import Inspection, SplitCounts
from .loading import open_source, source_builder_class
from .picture_checks import PictureChecks
from .record_errors import RecordError, read_report
from .row_checks import answer_contradictions, depth_contradictions
from .scene_sample import SceneSample


NUM_EVIDENCE_ROWS = 500  # of a file, for its Euler order
NUM_VIDEO_FRAMES = 8  # of a video that the sheet shows
REPORT_FILE, SHEET_FILE = "inspection.json", "contact_sheet.png"


def inspect_source(
    name: str,
    data_dir: str | Path | None = None,
    split: str | None = None,
    output_dir: str | Path | None = None,
    num_samples: int = 6,
    decode_all: bool = False,
    seed: int = 0,
    **options,
) -> Inspection:
    """Read all records of a source, and decode the pictures of some rows or of all.

    Args:
        name (`str`), data_dir (`str` or `Path`, *optional*): arguments of `load_multiview`.
        split (`str`, *optional*): split to look at; all by default.
        output_dir (`str` or `Path`, *optional*): folder for `inspection.json` and `contact_sheet.png`, which has
            `num_samples` rows.
        num_samples (`int`, defaults to 6): rows to look at, spread over splits and tasks.
        decode_all (`bool`, defaults to False): decode every picture of every row, once.
        seed (`int`, defaults to 0): which rows.
        **options: arguments of `load_multiview`: `tasks`, `max_views`, and those of the source.
    Returns:
        `Inspection`.
    Raises:
        TypeError: if an argument or option is of another kind.
        ValueError: on an unknown source, split or option, or if `num_samples` or `seed` is below 0.
        FileNotFoundError: if data_dir does not hold the source. NotADirectoryError: if output_dir is a file.
    """
    num_samples, seed = check_count("num_samples", num_samples, least=0), check_count("seed", seed, least=0)
    check_flag("decode_all", decode_all)
    if split is not None:
        check_text("split", split, 'the name of a split, as "train"')
    if output_dir is not None:
        output_dir = check_output_folder("output_dir", output_dir)
    builder_class = source_builder_class(name)
    found = Inspection(
        name,
        None if data_dir is None else str(data_dir),
        getattr(builder_class, "LICENSE", "") or "",
        getattr(builder_class, "LAYOUT", "") or "",
        {key: value for key, value in options.items() if value is not None},
    )
    with tempfile.TemporaryDirectory() as scratch:
        builder = open_source(name, data_dir, skip_bad_samples=True, cache_dir=scratch, **options)
        events_file = Path(scratch) / "events.jsonl"
        if hasattr(builder.config, "report_file"):
            builder.config.report_file = str(events_file)
            builder.report.is_quiet = True  # all that is wrong is listed at the end
        checks = PictureChecks()
        chosen = _Chosen(num_samples, seed)
        _read(builder, split, found, chosen, checks if decode_all else None)
        _sort_events(found, read_report(events_file))
    for row in chosen.rows():
        if not decode_all:
            _check_pictures(found, checks, row)
            _check_depth(found, row)
        found.samples.append(_shown_sample(found, row))
    found.pictures = {
        "decoded": checks.num_pictures,
        "depth maps": checks.num_depth_maps,
        "depth maps without any reading": checks.num_empty_depth_maps,
    }
    if output_dir is not None:
        output_dir.mkdir(parents=True, exist_ok=True)
        report = json.dumps(found.as_dict(), indent=2, ensure_ascii=False, default=str)
        (output_dir / REPORT_FILE).write_text(whole_text(report) + "\n", encoding="utf-8")
        contact_sheet(found.samples, f"{name}: {len(found.samples)} rows").save(output_dir / SHEET_FILE)
    return found


# Reading


def _read(builder, split, found, chosen, checks):
    """Go through the files one by one, so that a broken one ends only itself."""
    generators = {generator.name: generator.gen_kwargs for generator in builder._split_generators(None)}
    if split is not None and split not in generators:
        place = found.data_dir or "the source"
        raise ValueError(f"split {split!r} is not in {place}; there are {', '.join(generators)}.")
    videos = {}
    for name in generators if split is None else [split]:
        counts = found.splits[name] = SplitCounts()
        scenes, lengths = set(), Counter()
        with tqdm(desc=f"Inspecting {name}", unit=" rows", delay=1) as progress:
            for kwargs in _one_file_each(generators[name]):
                file = _FileFacts()
                try:
                    for _, row in builder._generate_examples(**kwargs):
                        progress.update()
                        scenes.add(row["scene_id"])
                        lengths[len(row["views"])] += 1
                        _count_row(counts, row)
                        file.add(row)
                        chosen.offer(name, row)
                        _check_video(found, row["video"], videos)
                        _list_contradictions(found, answer_contradictions(row))
                        if checks is not None:
                            _check_pictures(found, checks, row)
                            _check_depth(found, row)
                except RecordError:
                    pass  # the builder lists it as "refused"
                if "files" in kwargs:
                    found.files[_relative(kwargs["files"][0], builder.config.data_dir)] = file.as_dict(name)
        counts.scenes = len(scenes - {None})
        counts.views_per_row = _spread(lengths)


def _one_file_each(kwargs):
    return [{**kwargs, "files": [file]} for file in kwargs["files"]] if "files" in kwargs else [kwargs]


def _relative(file, data_dir):
    path = Path(file)
    return str(path.relative_to(data_dir)) if data_dir and path.is_relative_to(data_dir) else str(path)


def _spread(lengths):
    if not lengths:
        return {}
    return {"min": min(lengths), "median": median_low(sorted(lengths.elements())), "max": max(lengths)}


def _count_row(counts, row):
    counts.rows += 1
    counts.tasks[row["task"]] += 1
    counts.answers += row["answer"] is not None
    counts.videos_without_views += row["video"] is not None and not row["views"]
    if row["question_type"]:
        counts.question_types[row["question_type"]] += 1
    for view in row["views"]:
        counts.views["all"] += 1
        parts = {"picture": "image", "pose": "camera_to_world", "intrinsics": "intrinsics", "depth": "depth"}
        for name, key in parts.items():
            counts.views[name] += view[key] is not None
    counts.boxes.update(f"{box['frame']} {box['euler_order']}" for box in row["boxes"])
    counts.points.update(point["frame"] or "no frame" for point in row["points"])
    counts.marks.update(mark["kind"] for mark in row["marks"])


class _FileFacts:
    """Rows and Euler orders of a file."""

    def __init__(self):
        self.rows, self.orders, self.evidence = 0, Counter(), []

    def add(self, row: dict):
        self.rows += 1
        self.orders.update(box["euler_order"] for box in row["boxes"])
        boxes = [box for box in row["boxes"] if box["frame"] == "camera"]
        if not boxes or len(self.evidence) == NUM_EVIDENCE_ROWS:
            return
        view = boxes[0]["frame_index"] or 0
        sample = SceneSample.from_row({**row, "metadata": None})
        try:
            pose = sample.camera_to("aligned", view)
        except RecordError:
            pose = None
        numbers = [box.numbers for box in sample.boxes if box.frame == "camera" and (box.frame_index or 0) == view]
        self.evidence.append((np.stack(numbers), pose))

    def as_dict(self, split: str):
        evidence = detect_euler_order(self.evidence)
        text = str(evidence) if evidence.total else None
        is_as_stored = evidence.order is None or set(self.orders) == {evidence.order}
        if not is_as_stored:
            text += ", NOT AS STORED"
        facts = {"split": split, "rows": self.rows, "euler_orders": dict(self.orders)}
        return {**facts, "euler_evidence": text, "euler_as_stored": is_as_stored}


class _Chosen:
    """A few rows of each split and task, at random but the same for a seed, without knowing how many there are."""

    def __init__(self, number: int, seed: int):
        self.number, self.random = number, random.Random(seed)
        self.groups, self.seen = {}, Counter()

    def offer(self, split: str, row: dict):
        group = (split, row["task"])
        kept = self.groups.setdefault(group, [])
        self.seen[group] += 1
        if len(kept) < self.number:
            kept.append((self.seen[group], row))
        elif (place := self.random.randrange(self.seen[group])) < self.number:
            kept[place] = (self.seen[group], row)

    def rows(self):
        """As many rows as asked for, taking turns among the groups."""
        groups = list(self.groups.values())
        turns = sorted((turn, place) for place, kept in enumerate(groups) for turn in range(len(kept)))
        # In the last round there may be more groups than rows left: those spread from the first split to the last.
        whole = turns[: self.number]
        last = [entry for entry in turns if whole and entry[0] == whole[-1][0]]
        before = [entry for entry in whole if entry[0] < whole[-1][0]]
        left = len(whole) - len(before)
        shares = Counter(place for _, place in before)
        shares.update(last[round(step)][1] for step in np.linspace(0, len(last) - 1, left))
        # Of each group any of those kept: the first ones would be the beginning of its file.
        chosen = [
            sorted(self.random.sample(kept, shares[place]), key=lambda e: e[0]) for place, kept in enumerate(groups)
        ]
        return [row for entries in chosen for _, row in entries]


# What is wrong


def _sort_events(found, events):
    for event in events:
        kind = event.pop("event")
        if kind == "refused" or (kind == "skipped" and "record" not in event):  # a whole file or folder
            found.broken_files.append(event)
        elif kind == "skipped":
            is_camera = str(event.get("field")).endswith("intrinsics")
            (found.odd_intrinsics if is_camera else found.broken_records).append(event)
        else:
            found.markers[kind] += 1
        if "missing" in event:
            found.missing_files[event["missing"]] += 1


def _check_video(found, video, known):
    """Count a video that is not there; `known` remembers which are."""
    if video is None:
        return
    if video not in known:
        known[video] = os.path.exists(video)
    if not known[video]:
        found.missing_files[video] += 1


def _check_pictures(found, checks, row):
    for error in checks.errors(row):
        found.broken_pictures.append({"record": error.record_id, "field": error.field, "reason": error.reason})
        if error.missing is not None:
            found.missing_files[error.missing] += 1


def _check_depth(found, row):
    """List points that the depth map places elsewhere; a map that cannot be decoded is listed with the pictures."""
    try:
        errors = depth_contradictions(SceneSample.from_row({**row, "metadata": None})) if row["points"] else ()
    except RecordError:
        return
    _list_contradictions(found, errors)


def _list_contradictions(found, errors):
    for error in errors:
        found.contradictions.append({"record": error.record_id, "field": error.field, "reason": error.reason})


def _shown_sample(found, row):
    """A row as the sheet shows it: with some frames of its video where it has no views."""
    sample = SceneSample.from_row(row)
    if not sample.views and sample.video is not None and os.path.exists(sample.video):
        from .video_frames import read_video_views

        try:
            views = read_video_views(sample.video, NUM_VIDEO_FRAMES)
        except (RecordError, ImportError) as error:
            found.broken_pictures.append({"record": sample.id, "field": "video", "reason": str(error)})
        else:
            sample = replace(sample, views=SceneSample.from_row({**row, "views": views}).views)
    return sample
