"""`make test-all`: every part runs, is named with its result, and a failed one ends the whole with 1."""

import os
import re
import subprocess
import sys

import pytest

from tests import browser
from tests.test_repository import ROOT


MAKEFILE = """
good: ; @echo "===== 3 passed, 1 skipped in 0.12s ====="
bad: ; @echo "===== 1 failed, 2 passed in 7.00s (0:00:07) ====="; exit 1
plain: ; @echo nothing is counted here
"""


def run_parts(folder, *names):
    (folder / "Makefile").write_text(MAKEFILE, encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if name not in ("MAKE", "MAKEFLAGS", "MAKELEVEL")}
    command = [sys.executable, ROOT / ".ci" / "run_parts.py", *names]
    run = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    table = (folder / "outputs" / "test_all.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line][2:]
    assert table in run.stdout
    return run.returncode, rows


def test_all_parts_run_and_a_failed_one_is_named(tmp_path):
    code, rows = run_parts(tmp_path, "good", "bad", "missing", "plain")
    assert code == 1
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("good", "passed", "3 passed, 1 skipped in 0.12s"),
        ("bad", "FAILED", "1 failed, 2 passed in 7.00s"),
        ("missing", "FAILED", ""),
        ("plain", "passed", ""),
    ]
    assert all(int(row[2]) >= 0 for row in rows)


def test_parts_that_pass_end_with_zero(tmp_path):
    assert run_parts(tmp_path, "good", "plain")[0] == 0


def test_every_target_that_tests_is_a_part():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    parts = re.search(r"^TEST_PARTS \?= (.*)$", makefile, re.MULTILINE)[1].split()
    targets = set(re.findall(r"^(test[\w-]*):", makefile, re.MULTILINE))
    # test-versions is in .ci/run; test-grpo takes 20 minutes
    assert set(parts) == targets - {"test-all", "test-versions", "test-grpo"} and parts[0] == "test"


@pytest.mark.parametrize(("needed", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_a_missing_browser_is_no_pass_where_make_asks_for_one(monkeypatch, needed, outcome):
    monkeypatch.setattr(browser, "BROWSER", None)
    monkeypatch.setattr(browser.pytest, "importorskip", lambda *_, **__: None)
    monkeypatch.setenv("NEEDS_BROWSER", needed)
    with pytest.raises(outcome, match="chromium"), browser.open_page(8, 8):
        pass
