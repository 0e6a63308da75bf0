"""Checks of arguments: what passes, as which type, and what each refusal says."""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from gap_mllm.processing.argument_checks import (
    check_device,
    check_kinds,
    check_names,
    check_output_file,
    check_output_folder,
    check_path,
    check_text,
)
from gap_mllm.processing.input_checks_gap_mllm import (
    WrongKindError,
    check_count,
    check_flag,
    check_number,
    check_positive,
)


NAN, INF = float("nan"), float("inf")


def test_a_wrong_kind_is_a_type_error_and_reported_like_a_value_error():
    assert issubclass(WrongKindError, TypeError) and issubclass(WrongKindError, ValueError)


def test_flags():
    assert check_flag("a", np.bool_(True)) is True and check_flag("a", False) is False
    for bad in ("no", 1, 0.0, None, []):
        with pytest.raises(TypeError, match="a is .*; expected True or False"):
            check_flag("a", bad)


def test_counts():
    assert check_count("a", np.int64(3)) == 3 and type(check_count("a", np.int64(3))) is int
    assert check_count("a", 0, least=0) == 0
    for bad in ("2", 1.5, 2.0, True, np.bool_(True), None, NAN, [2]):
        with pytest.raises(TypeError, match="a is .*; expected an integer of at least 1"):
            check_count("a", bad)
    for bad in (0, -1):
        with pytest.raises(ValueError, match=f"a is {bad}; expected 1 or more") as caught:
            check_count("a", bad)
        assert not isinstance(caught.value, TypeError)


def test_names_and_the_nearest_one():
    check_names("colours", ["red"], ["red", "green"])
    with pytest.raises(ValueError, match=r"colours has .* 'gren' \(did you mean 'green'\?\); it takes red, green"):
        check_names("colours", ["red", "gren"], ["red", "green"])
    with pytest.raises(ValueError, match="colours has the unknown key 3; it takes no keys"):
        check_names("colours", [3], [])


def test_devices():
    assert check_device("cpu") == check_device(torch.device("cpu")) == torch.device("cpu")
    assert check_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(TypeError, match="device is 0; expected a text such as cpu or cuda:0"):
        check_device(0)
    for bad in ("gpu", "cuda:99", ""):
        with pytest.raises(ValueError, match=f"device is '{bad}', which cannot be used here: .*Give one such as cpu"):
            check_device(bad)


def test_numbers():
    assert check_number("a", np.float32(0.5)) == 0.5 and type(check_number("a", 2)) is float
    assert check_number("a", 0, least=0) == 0 and check_number("a", 100, least=0, most=100) == 100
    assert check_positive("a", Fraction(1, 4)) == 0.25
    for check in (check_number, check_positive):
        for bad in ("2", True, None, [2.0]):
            with pytest.raises(TypeError, match="a is .*; expected .*finite number"):
                check("a", bad)
        for bad in (NAN, INF, -INF):
            with pytest.raises(ValueError, match=f"a is {bad}; expected .*finite number"):
                check("a", bad)
    for bad in (0, -0.5):
        with pytest.raises(ValueError, match="expected a positive finite number"):
            check_positive("a", bad)
    with pytest.raises(ValueError, match="a is -0.1; expected a finite number of at least 0"):
        check_number("a", -0.1, least=0)
    with pytest.raises(ValueError, match="a is 101; expected a number from 0 to 100"):
        check_number("a", 101, least=0, most=100)


def test_texts_and_paths(tmp_path):
    assert check_text("a", "b") == "b"
    assert check_path("a", "b/c") == Path("b/c") == check_path("a", Path("b/c"))
    for bad in (3, None, b"b", ["b"]):
        with pytest.raises(TypeError, match="a is .*; expected a text"):
            check_text("a", bad)
        with pytest.raises(TypeError, match="a is .*; expected the path of a file or folder, as text or Path"):
            check_path("a", bad)
    for check in (check_text, check_path):
        with pytest.raises(ValueError, match="a is empty; expected "):
            check("a", "")


def test_places_to_write_to(tmp_path):
    (tmp_path / "file").write_text("")
    assert check_output_folder("a", tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    assert check_output_file("a", str(tmp_path / "file")) == tmp_path / "file"
    assert check_output_file("a", "new.jsonl") == Path("new.jsonl") and not Path("new.jsonl").exists()
    for bad in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(NotADirectoryError, match="a is .*, but .*file is a file; give a folder"):
            check_output_folder("a", bad)
    with pytest.raises(NotADirectoryError, match="a is .*file, but .*file is a file"):
        check_output_file("a", tmp_path / "file" / "report.jsonl")
    with pytest.raises(IsADirectoryError, match="a is .*, which is a folder; give a file"):
        check_output_file("a", tmp_path)


class Rules:
    pass


@dataclass
class Everything:
    text: str = "a"
    number: float | None = None
    count: int = 1
    is_loud: bool = False
    pair: tuple[int, int] | None = None
    names: tuple[str, ...] = ()
    files: str | tuple | None = None
    counts: dict[str, int] | None = None
    rules: Rules = field(default_factory=Rules)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", Path("a")),
        ("number", 2),
        ("number", np.float32(2)),
        ("number", INF),
        ("number", None),
        ("count", np.int32(4)),
        ("is_loud", True),
        ("pair", [1, 2]),
        ("names", ["a", "b"]),
        ("names", ()),
        ("files", ["a"]),
        ("files", "a"),
        ("counts", {"a": 1}),
        ("rules", Rules()),
    ],
)
def test_values_of_the_declared_type_pass(name, value):
    check_kinds(Everything, {name: value})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("text", 3, "a text"),
        ("text", None, "a text"),
        ("number", "2", "a number or None"),
        ("number", True, "a number or None"),
        ("count", 1.0, "an integer"),
        ("count", True, "an integer"),
        ("count", None, "an integer"),
        ("is_loud", "no", "True or False"),
        ("is_loud", 1, "True or False"),
        ("pair", [1, 2, 3], "a list of an integer and an integer or None"),
        ("pair", (1, 2.5), "a list of an integer and an integer or None"),
        ("names", "ab", "a list of a text"),
        ("names", [1], "a list of a text"),
        ("files", {"a": 1}, "a text or a list or None"),
        ("counts", {"a": 1.5}, "a mapping from a text to an integer or None"),
        ("counts", [("a", 1)], "a mapping from a text to an integer or None"),
        ("rules", {}, "Rules"),
    ],
)
def test_values_of_another_type_are_refused(name, value, expected):
    with pytest.raises(TypeError) as caught:
        check_kinds(Everything, {name: value})
    assert str(caught.value) == f"{name} is {value!r}; expected {expected}."


def test_no_number_and_no_text_are_refused():
    with pytest.raises(ValueError, match="number is nan; expected a number or None, not NaN"):
        check_kinds(Everything, {"number": NAN})
    with pytest.raises(ValueError, match="files is empty; expected a text"):
        check_kinds(Everything, {"files": ""})
