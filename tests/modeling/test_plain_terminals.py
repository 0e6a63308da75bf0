"""`gap-mllm` where characters cannot be printed, or nobody reads: what it writes into files is the same."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import gap_mllm_cli
from gap_mllm_cli.patient_streams import PatientStream, patient_output, plain_text


TINY_MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
QUESTION = "\u6709\u591a\u5c11\u628a\u6905\u5b50?"  # how many chairs there are
needs_model = pytest.mark.skipif(not TINY_MODEL.is_dir(), reason="examples/assets/tiny_gap_mllm is not there")


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("plain", "ascii", "plain"),
        ("\u4f60 a", "ascii", "? a"),
        ("\u00e9 \u4f60", "latin-1", "\u00e9 ?"),
        ("\u4f60", "utf-8", "\u4f60"),
        ("\udce4\udcbd\udca0", "utf-8", "\u4f60"),  # bytes of a command line that Python could not read
        ("\udce4\udcbd\udca0", "ascii", "?"),
        ("a \ud83d", "utf-8", "a ?"),
        ("\u4f60", None, "?"),
    ],
)
def test_what_an_encoding_lacks_is_replaced(text, encoding, expected):
    assert plain_text(text, encoding) == expected


def test_a_plain_terminal_gets_what_it_can_show():
    written = io.BytesIO()
    stream = PatientStream(io.TextIOWrapper(written, encoding="ascii"))
    print("\u4f60", "a", file=stream, flush=True)
    stream.writelines(["b ", "\u4f60\n"])
    stream.flush()
    assert written.getvalue() == b"? a\nb ?\n" and stream.encoding == "ascii"


def test_a_closed_pipe_is_written_to_in_silence(capsys):
    reader, writer = os.pipe()
    os.close(reader)
    stream = PatientStream(os.fdopen(writer, "w", encoding="utf-8"))
    for _ in range(3):
        print("x" * 100_000, file=stream, flush=True)
    stream.close()
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_behind_the_output_is_told_once(capsys):
    stream = PatientStream(open("/dev/full", "w", encoding="utf-8"))
    for _ in range(3):
        print("x", file=stream, flush=True)
    stream.close()
    assert capsys.readouterr().err.count("nothing more can be printed") == 1


def test_the_streams_are_those_of_before_behind_the_command(capsys):
    before = sys.stdout, sys.stderr
    with patient_output():
        assert sys.stdout is not before[0]
        print(QUESTION)
    assert (sys.stdout, sys.stderr) == before and QUESTION in capsys.readouterr().out


@needs_model
def test_answers_are_written_where_the_output_takes_ascii_alone(tmp_path, monkeypatch):
    Image.effect_noise((96, 64), 60).save(tmp_path / "\u7167.png")
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    words = ["ask", str(TINY_MODEL), str(tmp_path / "\u7167.png"), "--question", QUESTION, "--question", "a \ud83d"]
    words += ["--max-new-tokens", "2", "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert gap_mllm_cli.main(words) == 0
    answers = json.loads((tmp_path / "out" / "answers.json").read_text(encoding="utf-8"))
    assert [answer["question"] for answer in answers["answers"]] == [QUESTION, "a \ufffd"]
    assert answers["views"][0]["name"] == "\u7167.png"
    assert b"\n???????\n" in shown.getvalue().replace(b"\r", b"") and b"U+FFFD" in shown.getvalue()


@needs_model
@pytest.mark.slow
@pytest.mark.parametrize("plain", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {}])
def test_answers_are_written_under_a_plain_locale_and_into_a_pipe_that_is_closed(tmp_path, plain):
    Image.effect_noise((96, 64), 60).save(tmp_path / "\u7167.png")
    code = "import sys, gap_mllm_cli; sys.exit(gap_mllm_cli.main())"
    words = ["ask", str(TINY_MODEL), "\u7167.png", "--question", QUESTION, "--max-new-tokens", "2", "--output", "out"]
    reader, writer = os.pipe()
    os.close(reader)  # as `head` does
    environment = {**os.environ, "LC_ALL": "C", **plain}
    command = [sys.executable, "-c", code, *words, "--device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=writer, stderr=subprocess.PIPE, timeout=120)
    os.close(writer)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads((tmp_path / "out" / "answers.json").read_text(encoding="utf-8"))
    assert answers["answers"][0]["question"] == QUESTION and answers["views"][0]["name"] == "\u7167.png"
