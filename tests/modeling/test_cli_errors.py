"""One line for an error, wherever it was raised."""

import pytest
from torch._utils import ExceptionWrapper

from gap_mllm.processing.data.record_errors import RecordError
from gap_mllm_cli.user_errors import error_line


def from_worker(raise_error):
    """The error as a data loader's process hands it over."""
    try:
        raise_error()
    except Exception:  # noqa: BLE001 - as the data loader does
        wrapper = ExceptionWrapper(where="in DataLoader worker process 0")
    try:
        wrapper.reraise()
    except Exception as error:  # noqa: BLE001
        return error


def plain():
    raise ValueError("depth.png is empty;\n  expected 640 x 480 pixels.")


def ours():
    raise RecordError("row 3 has no views", field="views")


def chained():
    try:
        plain()
    except ValueError as error:
        raise FileNotFoundError("scans/7 is not there: ValueError: in a message") from error


def without_cause_traceback():
    raise OSError("disk full") from ValueError("never raised")


def silent():
    raise ValueError


@pytest.mark.parametrize("raise_error", [plain, ours, chained, without_cause_traceback])
def test_errors_of_a_loader_process_say_what_they_said_there(raise_error):
    with pytest.raises((ValueError, OSError)) as here:
        raise_error()
    error = from_worker(raise_error)
    assert "Traceback" in str(error) and type(error) is type(here.value)
    assert error_line(error) == " ".join(str(here.value).split()) == error_line(here.value)


def test_an_error_without_a_message_has_a_name():
    assert error_line(from_worker(silent)) == "ValueError in a process of the data loader"


def test_texts_that_only_look_wrapped_stay():
    assert error_line(ValueError("Caught 3 fish in the sea")) == "Caught 3 fish in the sea"
