"""The harness of the benchmarks, on a clock of its own; and every benchmark and experiment starts."""

import json
import math
import runpy

import harness
import pytest

from tests.test_structure import ROOT


SCRIPTS = [
    file
    for folder in ("benchmarks", "experiments")
    for file in sorted((ROOT / "examples" / folder).glob("*.py"))
    if "__main__" in file.read_text(encoding="utf-8")
]


def test_variants_run_by_turns_and_are_held_to_the_first():
    ran, now = [], [0.0]

    def takes(name, *seconds):
        left = list(seconds)

        def run():
            ran.append(name)
            now[0] += left.pop(0)

        return run

    variants = {"slow": takes("slow", 90.0, 4.0, 2.0, 6.0), "fast": takes("fast", 90.0, 1.0, 3.0, 1.0)}
    found = harness.compare(variants, runs=3, clock=lambda: now[0])
    assert ran == ["slow", "fast"] * 4  # the first time of each does not count
    assert found["slow"] == {"median": 4.0, "least": 2.0, "most": 6.0, "ratio": 1.0, "readings": [4.0, 2.0, 6.0]}
    assert found["fast"]["ratio"] == 0.25 and found["fast"]["readings"] == [1.0, 3.0, 1.0]


def test_a_variant_may_return_its_own_reading():
    found = harness.compare({"none": lambda: 0.0, "all": lambda: 8.0}, runs=1, clock=None, warm_up=0)
    assert found["all"]["median"] == 8.0 and math.isnan(found["all"]["ratio"])
    with pytest.raises(ValueError, match="runs is 0; expected 1 or more"):
        harness.compare({"none": lambda: 0.0}, runs=0)


def test_figures_are_shown_and_saved(tmp_path, capsys):
    found = harness.figures_of({"a": [0.002], "b": [0.001, 0.003, 0.005]})
    harness.show("asking", found, "ms", 1000)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "asking:" and lines[1].split() == ["a", "2", "ms", "(from", "2", "to", "2)"]
    assert lines[2].endswith("3 ms (from 1 to 5); 1.5 of a")
    args = harness.benchmark_parser("what", runs=7).parse_args(["--output", str(tmp_path / "new" / "figures.json")])
    assert args.runs == 7
    harness.save(args.output, found)
    assert json.loads((tmp_path / "new" / "figures.json").read_text()) == found
    harness.save(None, found)


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_script_says_how_it_is_called(file, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [file.name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(file), run_name="__main__")
    assert not ended.value.code and "usage: " in capsys.readouterr().out


def test_every_script_has_its_row():
    for folder in ("benchmarks", "experiments"):
        page = (ROOT / "examples" / folder / "README.md").read_text(encoding="utf-8")
        names = [file.name for file in SCRIPTS if file.parent.name == folder]
        assert not [name for name in names if f"| `{name}`" not in page]
