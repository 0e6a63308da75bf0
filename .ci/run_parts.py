"""Run targets of the Makefile one after another, each whether or not others failed, and list results: `make test-all`.

Usage: run_parts.py PART ... The table, with commit and time of day, is printed and written into outputs/test_all.md.
Ends with 1 if a part failed.
"""

import os
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple


SUMMARY = re.compile(r"\d+ (?:passed|failed|error|skipped|deselected).* in [\d.]+s")  # the last line of pytest


class Result(NamedTuple):
    """How one part ended.

    Args:
        name (`str`): target of the Makefile.
        passed (`bool`): whether make ended with 0.
        seconds (`float`): how long it took, its environment included.
        summary (`str`): what pytest counted, empty if it counted nothing.
    """

    name: str
    passed: bool
    seconds: float
    summary: str


def run_part(name: str) -> Result:
    """Run one target, passing on what it writes."""
    print(f"\n==== {name}", flush=True)
    start, summary = time.monotonic(), ""
    command = [os.environ.get("MAKE", "make"), "--no-print-directory", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            found = SUMMARY.search(line)
            summary = found[0] if found else summary
    return Result(name, process.returncode == 0, time.monotonic() - start, summary)


def as_table(results: list[Result]) -> str:
    """The results as markdown, with the commit that they are about."""
    lines = [f"{datetime.now():%Y-%m-%d %H:%M}, {_commit()}", "", "| part | result | seconds | |", "|---|---|---|---|"]
    for result in results:
        word = "passed" if result.passed else "FAILED"
        lines.append(f"| {result.name} | {word} | {result.seconds:.0f} | {result.summary} |")
    return "\n".join(lines) + "\n"


def _commit():
    def git(*words):
        return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = " with changes" if git("status", "--porcelain") else ""
        return f"commit {git('rev-parse', '--short', 'HEAD')}{changed}"
    except (OSError, subprocess.CalledProcessError):
        return "no commit known"


def main(names: list[str]) -> int:
    """Run all parts; return 1 if one failed."""
    results = [run_part(name) for name in names]
    table = as_table(results)
    note = Path("outputs/test_all.md")
    note.parent.mkdir(exist_ok=True)
    note.write_text(table, encoding="utf-8")
    print(f"\n{table}\n{note} holds this table.")
    return int(not all(result.passed for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
