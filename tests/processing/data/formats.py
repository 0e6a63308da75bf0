"""The format fixtures, and how tests of sources load and compare them."""

from pathlib import Path

from gap_mllm.processing.data import load_multiview


FORMATS = Path(__file__).parents[2] / "fixtures" / "formats"
DAMAGED = FORMATS / "damaged"


def load_damaged(source, folder, cache, **options):
    """All splits of a damaged variant."""
    return load_multiview(source, DAMAGED / folder, cache_dir=cache / "cache", **options)


def rows_equal(rows, streamed) -> int:
    """Assert that prepared and streamed rows are the same, pictures by their pixels; returns how many there are."""
    count = 0
    for row, other in zip(rows, streamed, strict=True):
        for name, value in row.items():
            if name != "views":
                assert value == other[name], (row["id"], name)
        for view, view_of_other in zip(row["views"], other["views"], strict=True):
            for name, value in view.items():
                if name in ("image", "depth"):
                    assert (value is None) == (view_of_other[name] is None), (row["id"], name)
                    assert value is None or value.tobytes() == view_of_other[name].tobytes(), (row["id"], name)
                else:
                    assert value == view_of_other[name], (row["id"], name)
        count += 1
    return count
