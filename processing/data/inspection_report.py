"""What an inspection of a source found, as a report of plain values and as a few lines for a person."""

from collections import Counter
from dataclasses import dataclass, field

from .scene_sample import SceneSample


@dataclass
class SplitCounts:
    """What the rows of a split hold."""

    rows: int = 0
    scenes: int = 0
    tasks: Counter = field(default_factory=Counter)
    question_types: Counter = field(default_factory=Counter)
    views_per_row: dict = field(default_factory=dict)  # "min", "median", "max"
    views: Counter = field(default_factory=Counter)  # "all", "picture", "pose", "intrinsics", "depth"
    boxes: Counter = field(default_factory=Counter)  # "camera zxy", ..
    points: Counter = field(default_factory=Counter)  # by frame
    marks: Counter = field(default_factory=Counter)  # by kind
    answers: int = 0
    videos_without_views: int = 0


@dataclass
class Inspection:
    """What was found; `as_dict` is the report that is written, `summary` what a person reads first.

    Args:
        source, data_dir, licence, layout (`str`), options (`dict`): what was read.
        splits (`dict[str, SplitCounts]`): counts.
        files (`dict[str, dict]`): "split", "rows", "euler_orders" (as stored on its boxes), "euler_evidence", a test
            of the boxes themselves, and "euler_as_stored", whether both agree, of each file.
        broken_records (`list[dict]`): "file", "record", "field" and "reason"; left out when skipping.
        broken_files (`list[dict]`): which end any reading.
        missing_files (`dict[str, int]`): path, and how many records name it; of a record that is left out, the first
            that it lacks.
        broken_pictures (`list[dict]`): findings in the rows that were looked at.
        odd_intrinsics (`list[dict]`): frames and rows whose intrinsics are for a picture of another size, or none.
        contradictions (`list[dict]`): answers of all rows whose boxes or frame are not those of the fields, and
            points of the rows that were looked at which the depth map places elsewhere. A point that its camera or
            its own text contradicts makes a broken record.
        markers (`dict[str, int]`): what is normal for the source and counted, as "lost_tracking".
        pictures (`dict[str, int]`): how many were decoded.
        samples (`list[SceneSample]`): the rows on the contact sheet; not in the report.
    """

    source: str
    data_dir: str | None
    licence: str
    layout: str
    options: dict = field(default_factory=dict)
    splits: dict[str, SplitCounts] = field(default_factory=dict)
    files: dict[str, dict] = field(default_factory=dict)
    broken_records: list[dict] = field(default_factory=list)
    broken_files: list[dict] = field(default_factory=list)
    missing_files: Counter = field(default_factory=Counter)
    broken_pictures: list[dict] = field(default_factory=list)
    odd_intrinsics: list[dict] = field(default_factory=list)
    contradictions: list[dict] = field(default_factory=list)
    markers: Counter = field(default_factory=Counter)
    pictures: dict[str, int] = field(default_factory=dict)
    samples: list[SceneSample] = field(default_factory=list)

    @property
    def problems(self) -> dict[str, int]:
        """What a user should look at before training, by kind, and how many; empty where nothing was found.

        What is normal for a source (markers, videos that no views were asked of, depth maps without a reading) is no
        problem; that there are no rows at all is one.
        """
        num_rows = sum(counts.rows for counts in self.splits.values())
        counts = {
            **{title: len(entries) for title, entries in self._lists()},
            "files whose Euler order is not as stored": sum(not f["euler_as_stored"] for f in self.files.values()),
            "splits without rows": 0 if num_rows else len(self.splits),
        }
        return {title: count for title, count in counts.items() if count}

    def _lists(self):
        """What is listed one by one, under its title."""
        return (
            ("broken files", [_where(event) for event in self.broken_files]),
            ("broken records", [_where(event) for event in self.broken_records]),
            ("missing files", [f"{path} (named {count} times)" for path, count in self.missing_files.items()]),
            ("broken pictures", [_where(event) for event in self.broken_pictures]),
            ("views with odd intrinsics", [_where(event) for event in self.odd_intrinsics]),
            ("contradictions", [_where(event) for event in self.contradictions]),
        )

    def as_dict(self) -> dict:
        """The report, of plain values."""
        report = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "samples"}
        report["splits"] = {split: vars(counts) for split, counts in self.splits.items()}
        report["problems"] = self.problems
        report["shown"] = [sample.id for sample in self.samples]
        return report

    def summary(self, most: int = 10) -> str:
        """Say in a few lines what was found; of long lists the first `most`."""
        lines = [f"{self.source}" + (f" in {self.data_dir}" if self.data_dir else "")]
        lines.append(f"licence: {self.licence or 'not known; --license of data convert names one'}")
        for split, counts in self.splits.items():
            lines += _describe_split(split, counts)
        lines += [_describe_file(name, facts) for name, facts in list(self.files.items())[:most]]
        if len(self.files) > most:
            lines.append(f"and {len(self.files) - most} more files")
        lines.append(f"normal markers: {_counts(self.markers) or 'none'}")
        lines.append(f"pictures looked at: {_counts(self.pictures)}")
        for title, entries in self._lists():
            lines.append(f"{title}: {len(entries) or 'none'}")
            lines += [f"  {entry}" for entry in entries[:most]]
            if len(entries) > most:
                lines.append(f"  and {len(entries) - most} more")
        problems = ", ".join(f"{title} ({count})" for title, count in self.problems.items())
        lines.append(f"problems: {problems or 'none'}")
        return "\n".join(lines)


def _describe_split(split, counts):
    spread = counts.views_per_row
    if not spread or not spread["max"]:
        views = "no views"
    elif spread["min"] == spread["max"]:
        views = f"{_count(spread['max'], 'view')} each"
    else:
        views = f"{spread['min']} to {spread['max']} views each (median {spread['median']})"
    yield f"{split}: {_count(counts.rows, 'row')} of {_count(counts.scenes, 'scene')}, {views}"
    for title, values in (
        ("tasks", counts.tasks),
        ("question types", counts.question_types),
        ("of all views", {name: count for name, count in counts.views.items() if name != "all"}),
        ("boxes", counts.boxes),
        ("points", counts.points),
        ("marks", counts.marks),
    ):
        if values:
            yield f"  {title}: {_counts(values)}"
    if counts.answers < counts.rows:
        yield f"  without an answer: {counts.rows - counts.answers}"
    if counts.videos_without_views:
        yield f"  with a video and no views (pass max_views to store frames): {counts.videos_without_views}"


def _describe_file(name, facts):
    orders = ", ".join(f"{count} boxes {order}" for order, count in facts["euler_orders"].items())
    evidence = f"; the boxes themselves say {facts['euler_evidence']}" if facts["euler_evidence"] else ""
    return f"{name}: {_count(facts['rows'], 'row')}" + (f", {orders}{evidence}" if orders else "")


def _counts(values):
    return ", ".join(f"{count} {name}" for name, count in sorted(values.items(), key=lambda item: -item[1]))


def _count(number, name):
    return f"{number} {name}" + ("" if number == 1 else "s")


def _where(event):
    names = ("file", "record", "field")
    return ", ".join(f"{name} {event[name]}" for name in names if event.get(name)) + f": {event['reason']}"
