"""What is wrong with a record, and what happened to the records of a source: raised, skipped, or marked and kept.

Strict reading raises at the first bad record. With `skip_bad_samples` bad records are counted, logged and listed in a
report file. Normal markers of a source (lost tracking, no depth reading) are counted in both modes.
"""

import json
from collections import Counter
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

from transformers.utils import logging

from .cannot_ask import CannotAskError


logger = logging.get_logger(__name__)


class RecordError(ValueError):
    """A record that must not be trained on, or a file that cannot be read.

    Args:
        reason (`str`): what was found, what was expected, what to do.
        field (`str`, *optional*): the part of the record that is wrong.
        source, file, record_id (`str`, *optional*): where; the builder fills in what the reader did not know.
        missing (`str`, *optional*): the file that the record names, where the error is that it is not there.
    """

    def __init__(
        self,
        reason: str,
        field: str | None = None,
        source: str | None = None,
        file: str | Path | None = None,
        record_id: str | None = None,
        missing: str | None = None,
    ):
        super().__init__(reason)
        self.reason, self.field = reason, field
        self.source, self.file, self.record_id = source, file, record_id
        self.missing = missing

    def locate(self, source: str, file: str | Path, record_id: str):
        """Fill in where the record stands, where that is not known yet; returns the error itself."""
        self.source, self.record_id = self.source or source, self.record_id or record_id
        self.file = self.file or (None if file is None else str(file))
        return self

    def __str__(self):
        parts = [("source", self.source), ("file", self.file), ("record", self.record_id), ("field", self.field)]
        where = ", ".join(f"{name} {value}" for name, value in parts if value is not None)
        return f"{where}: {self.reason}" if where else self.reason

    def __reduce__(self):
        return type(self), (self.reason, self.field, self.source, self.file, self.record_id, self.missing)


@contextmanager
def naming_record(source: str | None, record_id: str | None, field: str | None = None):
    """Turn each ValueError of a `with` block into a `RecordError` that names the record it is about.

    Args:
        source, record_id (`str`, *optional*): where the record stands.
        field (`str`, *optional*): the part of the record that the block reads.
    """
    try:
        yield
    except RecordError as error:
        raise error.locate(source, None, record_id) from None
    except CannotAskError:  # by which other scenes are tried
        raise
    except ValueError as error:
        raise RecordError(str(error), field, source, record_id=record_id) from error


def names_record(field: str | None = None):
    """Have a method name the record in its errors: its first argument is a `SceneSample`, or holds `samples`.

    Args:
        field (`str`, *optional*): argument of `naming_record`.
    """

    def named(method):
        @wraps(method)
        def call(self, about, *args, **kwargs):
            sample = about.samples[0] if hasattr(about, "samples") else about
            with naming_record(sample.source, sample.id, field):
                return method(self, about, *args, **kwargs)

        return call

    return named


class ReadReport:
    """Counts of one reading of a source, and a file with one JSON line for each event.

    Args:
        path (`str` or `Path`, *optional*): file to append to, so that several processes can share it; None keeps the
            counts only.
    """

    def __init__(self, path: str | Path | None = None):
        self.path, self.is_quiet = None if path is None else Path(path), False
        self.skipped = Counter()

    def skip(self, error: RecordError):
        """Count, log (unless `is_quiet`) and list a record that was left out."""
        self.skipped[error.field or "record"] += 1
        if not self.is_quiet:
            logger.warning(f"Skipped: {error}")
        self._write("skipped", error)

    def refuse(self, error: RecordError):
        """List the bad record that ends strict reading: where several processes read, only the file tells which."""
        self._write("refused", error)

    def mark(self, name: str, file: str | Path, record_id: str | None = None, detail: str | None = None):
        """List something normal that a user should know of, as "lost_tracking"."""
        self._write(name, RecordError(detail, file=str(file), record_id=record_id))

    def _write(self, event, error):
        if self.path is None:
            return
        line = {"event": event, "source": error.source, "file": error.file, "record": error.record_id}
        line |= {"field": error.field, "reason": error.reason, "missing": error.missing}
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({key: value for key, value in line.items() if value is not None}) + "\n")


def read_report(path: str | Path) -> list[dict]:
    """Read the events of a report file; an empty list where nothing happened (no file).

    Returns:
        `list[dict]`: "event" ("skipped", "refused", or the name of a marker), and what is known of "source", "file",
        "record", "field", "reason" and "missing".

    Example:
        ```python
        >>> from pathlib import Path
        >>> from gap_mllm.processing.data import load_multiview, read_report
        >>> written = Path("train.json").write_text('[{"id": "1", "image": "room.jpg"}]')  # neither picture nor turns
        >>> options = {"skip_bad_samples": True, "report_file": "report.jsonl", "streaming": True}
        >>> len(list(load_multiview("chat", ".", split="train", **options)))
        0
        >>> [event["event"] for event in read_report("report.jsonl")]
        ['skipped']

        ```
    """
    path = Path(path)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
