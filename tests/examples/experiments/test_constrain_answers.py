"""What a grammar changes: one row for free and one for constrained answers."""

import constrain_answers
import pytest

from tests.examples.experiments.conftest import FOLDER


@pytest.mark.slow
def test_free_and_constrained_answers_stand_in_one_table(monkeypatch, capsys):
    pytest.importorskip("xgrammar")
    words = [str(FOLDER), "--rooms", "2", "--batch-size", "2", "--temperatures", "0", "--max-new-tokens", "24"]
    monkeypatch.setattr("sys.argv", ["constrain_answers.py", *words])
    constrain_answers.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1] for row in rows] == ["free", "constrained"] and rows[0][-1].startswith("1.00")
