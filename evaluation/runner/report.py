"""report.md: the model and what stands beside it in tables, with intervals, plots and samples."""

from pathlib import Path

from .arms import ARMS


def write_report(output, benchmark, asked, metrics, records, timing) -> None:
    """Write report.md into the folder of a run."""
    lines = [f"# {benchmark.name}: {benchmark.title}", ""]
    lines += [f"- {arm}: {ARMS[arm]}; {metrics['arms'][arm][benchmark.headline]}" for arm in metrics["arms"]]
    (Path(output) / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


__all__ = ["write_report"]
