"""A folder is written whole, by one at a time; what killed writers left is removed, what a live one has never is."""

import os
import signal
import subprocess
import sys
import time

import pytest

from gap_mllm.processing.data import folder_writing
from gap_mllm.processing.data.folder_writing import (
    file_part,
    hold_folder,
    remove_file_parts,
    write_atomically,
    write_folder,
)


WRITER = """
import sys, time
from gap_mllm.processing.data.folder_writing import write_folder
with write_folder(sys.argv[1]) as scratch:
    (scratch / "result").mkdir()
    (scratch / "result" / "half.txt").write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is in the midst of writing `tmp_path/out`."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.wait()


def write(output_dir, text="whole"):
    with write_folder(output_dir) as scratch:
        (scratch / "result").mkdir()
        (scratch / "result" / "a.txt").write_text(text)


def test_the_folder_is_there_whole_and_nothing_beside_it(tmp_path):
    write(tmp_path / "here" / "out")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["out"]
    with pytest.raises(ZeroDivisionError), write_folder(tmp_path / "here" / "other") as scratch:
        (scratch / "result").mkdir()
        1 / 0  # noqa: B018
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["out"]


def test_one_writes_at_a_time_and_a_killed_one_leaves_nothing_for_good(writer, tmp_path):
    with pytest.raises(FileExistsError, match=rf"another process is writing .*out now \(process {writer.pid} on "):
        write(tmp_path / "out")
    write(tmp_path / "beside")
    assert len(list(tmp_path.glob(".out.*.part"))) == 1  # the live one's, in both cases
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert len(list(tmp_path.glob(".out.*.part"))) == 1
    write(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beside", "out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.txt"]


@pytest.mark.slow
def test_what_another_left_is_removed_by_whoever_writes_beside_it(writer, tmp_path):
    writer.kill()
    writer.wait()
    write(tmp_path / "beside")
    assert [path.name for path in tmp_path.iterdir()] == ["beside"]


FORKED = """
import os, sys, time
from gap_mllm.processing.data.folder_writing import hold_folder
with hold_folder(sys.argv[1], "writing"):
    worker = os.fork()
    if worker:
        print(worker, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_workers_that_outlive_a_killed_process_hold_nothing(tmp_path):
    command = [sys.executable, "-c", FORKED, str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    worker = int(process.stdout.readline())
    try:
        with pytest.raises(FileExistsError, match=f"process {process.pid} on"):
            write(tmp_path / "out")
        process.kill()
        process.wait()
        with hold_folder(tmp_path / "out", "writing"):
            os.kill(worker, 0)  # it is there
    finally:
        os.kill(worker, signal.SIGKILL)


def test_the_loser_of_two_says_so_and_keeps_the_files_of_the_other(tmp_path, monkeypatch):
    """Where locks are not seen, as between machines, the last step tells."""
    monkeypatch.setattr(folder_writing, "fcntl", None)
    with pytest.raises(FileExistsError, match="another process has written into .*out meanwhile"):
        with write_folder(tmp_path / "out") as scratch:
            (scratch / "result").mkdir()
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "theirs.txt").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs.txt"]


def test_parts_of_other_machines_stay_for_a_day(tmp_path):
    for name in (".out.elsewhere-7.part", ".out.notes", ".x.part"):
        (tmp_path / name).mkdir()
    write(tmp_path / "out")
    assert len(list(tmp_path.iterdir())) == 4
    long_ago = time.time() - 2 * folder_writing.STALE_AFTER_S
    os.utime(tmp_path / ".out.elsewhere-7.part", (long_ago, long_ago))
    write(tmp_path / "more")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.notes", ".x.part", "more", "out"]


def test_a_link_to_an_empty_folder_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    write(tmp_path / "out")
    assert (tmp_path / "out").is_symlink() and (tmp_path / "disk" / "a.txt").read_text() == "whole"


def test_parts_of_files_go_when_their_writer_is_gone(tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        part = file_part(tmp_path / "log.jsonl")
        part = part.with_name(part.name.replace(str(os.getpid()), str(writer.pid)))
        part.write_text("half")
        remove_file_parts(tmp_path)
        assert list(tmp_path.iterdir()) == [part]
    finally:
        writer.kill()
        writer.wait()
    remove_file_parts(tmp_path)
    assert not list(tmp_path.iterdir())
    write_atomically(tmp_path / "log.jsonl", "whole")
    assert [each.name for each in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_file_grows_under_the_name_that_is_swept_and_goes_on_a_full_disk(tmp_path, monkeypatch):
    seen = []

    def fail(number):
        seen.extend(tmp_path.iterdir())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_writing.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "log.jsonl", "whole")
    assert seen == [file_part(tmp_path / "log.jsonl")] and not list(tmp_path.iterdir())


def test_all_parts_of_files_go_where_nobody_else_may_write(tmp_path):
    for host in (f"else-where-{os.getpid()}", f"{os.getpid()}"):
        (tmp_path / f"log.jsonl.{host}.part").write_text("half")
    (tmp_path / "notes.part").write_text("mine")
    remove_file_parts(tmp_path, is_held=True)
    assert [each.name for each in tmp_path.iterdir()] == ["notes.part"]


def test_parts_of_files_of_other_machines_stay_for_a_day(tmp_path):
    own = file_part(tmp_path / "a.json")
    elsewhere = tmp_path / "a.json.else-where-999999999.part"
    others = [tmp_path / name for name in ("notes.part", ".0a1b.part", "a.json.x1.part")]  # not of this kind
    for path in (own, elsewhere, *others, tmp_path / "a.json.999999999.part"):
        path.touch()
    remove_file_parts(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([own, elsewhere, *others])
    long_ago = time.time() - 2 * folder_writing.STALE_AFTER_S
    for path in (elsewhere, *others):
        os.utime(path, (long_ago, long_ago))
    remove_file_parts(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([own, *others])
    remove_file_parts(tmp_path / "nowhere")
