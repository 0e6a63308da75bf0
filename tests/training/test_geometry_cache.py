"""The folder of features: whole files or none, damaged ones made anew, a bound, and several processes."""

import multiprocessing
import os

import pytest
import torch

from gap_mllm.training import geometry_cache
from gap_mllm.training.geometry_cache import GeometryCache


SCENE = torch.arange(4 * 6 * 8, dtype=torch.float32).view(4, 6, 8)
KEY = "encoder/0123456789abcdef"


def files(folder):
    return sorted(folder.glob("*/*/*.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_written_is_read_bit_for_bit(tmp_path, dtype):
    features = torch.randn(4, 10, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    GeometryCache(tmp_path).write(KEY, features[:, 2:5])  # not contiguous
    read = GeometryCache(tmp_path).read(KEY)
    assert read.dtype == dtype and torch.equal(read, features[:, 2:5])
    assert GeometryCache(tmp_path).read("encoder/fedcba") is None
    assert not list(tmp_path.rglob("*.part"))


def damage_tail(path, other):
    path.write_bytes(path.read_bytes()[:-5])


def damage_bit(path, other):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def damage_all(path, other):
    path.write_text("something else")


def exchange(path, other):
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [damage_tail, damage_bit, damage_all, exchange])
def test_what_is_damaged_or_foreign_is_missing_with_one_warning(tmp_path, caplog, damage):
    cache = GeometryCache(tmp_path)
    cache.write(KEY, SCENE)
    (path,) = files(tmp_path)
    cache.write("encoder/ff00", SCENE + 1)
    damage(path, files(tmp_path)[1])
    assert cache.read(KEY) is None and cache.read(KEY) is None
    assert len(caplog.records) == 1 and str(path) in caplog.text and "encoded again" in caplog.text
    cache.write(KEY, SCENE)
    assert torch.equal(cache.read(KEY), SCENE)


def test_what_was_not_read_for_the_longest_time_goes(tmp_path, caplog):
    cache = GeometryCache(tmp_path)
    for number in range(10):
        cache.write(f"encoder/aa{number}", SCENE)
        os.utime(files(tmp_path)[-1], (number, number))
    mine, left_over = tmp_path / "encoder" / "aa" / "notes.txt", tmp_path / "encoder" / "aa" / ".x.part"
    mine.write_text("mine")
    left_over.write_text("half")
    os.utime(left_over, (0, 0))
    assert cache.read("encoder/aa0") is not None  # and so it is the newest
    size = files(tmp_path)[0].stat().st_size
    small = GeometryCache(tmp_path, max_gb=8 * size / 1e9)
    small.write("encoder/aan", SCENE)
    left = [path.stem for path in files(tmp_path)]
    assert left == ["aa0", "aa5", "aa6", "aa7", "aa8", "aa9", "aan"]  # 7/8 of 8
    assert mine.exists() and not left_over.exists() and not caplog.records
    for number in range(20):
        small.write(f"encoder/bb{number}", SCENE)
        assert sum(path.stat().st_size for path in files(tmp_path)) <= 8 * size
    assert "bb19" in [path.stem for path in files(tmp_path)]
    assert len(caplog.records) == 1 and "max_gb" in caplog.text  # scenes of this run had to go


def test_a_disk_that_is_full_keeps_nothing_and_stops_nothing(tmp_path, caplog, monkeypatch):
    cache = GeometryCache(tmp_path)

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(geometry_cache, "save_file", full)
    for key in (KEY, "encoder/ff00"):
        cache.write(key, SCENE)
        assert cache.read(key) is None
    assert len(caplog.records) == 1 and "make room, or give another cache_dir" in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def _write_and_read(folder, seed):
    cache = GeometryCache(folder, max_gb=20 * 100_000 / 1e9)
    generator, wrong = torch.Generator().manual_seed(seed), 0
    for _ in range(200):
        number = int(torch.randint(40, (), generator=generator))
        found = cache.read(f"encoder/{number:02}")
        if found is None:
            cache.write(f"encoder/{number:02}", torch.full((4, 200, 30), float(number)))
        else:
            wrong += not bool((found == number).all())
    raise SystemExit(wrong + len(cache._warned - {"small"}))


def test_processes_share_a_folder(tmp_path):
    """Every scene that is read is whole, while others write and remove the same ones."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_and_read, args=(tmp_path, seed)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert not list(tmp_path.rglob("*.part")) and 0 < len(files(tmp_path)) <= 23


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_gb": 0}, ValueError, "max_gb is 0; expected a positive"),
        ({"folder": "taken"}, NotADirectoryError, "cache_dir is .*taken is a file"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, options, error, message):
    (tmp_path / "taken").write_text("")
    with pytest.raises(error, match=message):
        GeometryCache(tmp_path / options.get("folder", "new"), options.get("max_gb", 1))
