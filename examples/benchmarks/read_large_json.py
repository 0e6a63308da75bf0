"""How much memory a large annotation file takes: `python examples/benchmarks/read_large_json.py --gigabytes 2`.

Writes one JSON array of detection records, all about the same few pictures, and reads it in processes of their own:
the array alone, and as source "gap_mllm" through `load_multiview`, streaming and prepared. Prints by how much resident
memory grows after the imports, at most, and fails if it is 300 MB or more. Linux only.
"""

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from harness import benchmark_parser, compare, save, show
from PIL import Image


LIMIT_MB = 300
NUM_PICTURES = 4
# The highest of many readings of resident memory; the peak that the system keeps holds that of the imports, too.
_MEASURED = """
import os, sys, threading, time
from gap_mllm.processing.data import load_multiview
from gap_mllm.processing.data.source_files import iter_json_array
def resident_mb():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
def watch():
    global highest
    while not done.wait(0.02):
        highest = max(highest, resident_mb())
file, root, cache = sys.argv[1:]
before = highest = resident_mb()
done, start = threading.Event(), time.perf_counter()
watcher = threading.Thread(target=watch)
watcher.start()
count = {read}
seconds = time.perf_counter() - start
done.set()
watcher.join()
print(count, max(highest, resident_mb()) - before, seconds)
"""
WAYS = {
    "array": "sum(1 for _ in iter_json_array(file))",
    "streaming": 'sum(1 for _ in load_multiview("gap_mllm", root, "train", streaming=True, cache_dir=cache))',
    "prepared": 'len(load_multiview("gap_mllm", root, "train", cache_dir=cache))',
}


def write_records(folder: Path, num_bytes: int) -> int:
    """Write pictures and `train/detection_train.json` of about this size; returns how many records it holds."""
    rng = np.random.default_rng(0)
    names = [f"scene/{index:05d}.jpg" for index in range(NUM_PICTURES)]
    (folder / "media" / "scene").mkdir(parents=True)
    for name in names:
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(folder / "media" / name)
    (folder / "train").mkdir()
    count = written = 0
    with open(folder / "train" / "detection_train.json", "w", encoding="utf-8") as stream:
        stream.write("[")
        while written < num_bytes:
            written += stream.write((",\n" if count else "") + json.dumps(record(rng, names)))
            count += 1
        stream.write("]")
    return count


def record(rng: np.random.Generator, names: list[str]) -> dict:
    """Return a detection record with 30 boxes at full precision, about 11 KB."""
    boxes = np.concatenate([rng.uniform(-3, 3, (30, 3)), rng.uniform(0.2, 2, (30, 3)), rng.uniform(-3, 3, (30, 3))], 1)
    answer = ",\n".join(json.dumps({"label": "chair", "bbox_3d": np.round(box, 2).tolist()}) for box in boxes)
    question = (
        "<image>" * len(names) + "Detect the 3D bounding boxes in the camera coordinate system of the first frame."
    )
    return {
        "conversations": [
            {"from": "human", "value": question},
            {"from": "gpt", "value": f"```json\n[\n{answer}\n]```"},
        ],
        "images": names,
        "boxes": [{"bbox_3d": box.tolist(), "label": "chair"} for box in boxes],
    }


def measure(way: str, file: Path, root: Path, cache: Path) -> tuple[int, float, float]:
    """Read the file in a new process; returns records, largest growth of memory in MB, and seconds."""
    command = [sys.executable, "-c", _MEASURED.format(read=WAYS[way]), str(file), str(root), str(cache)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{way}: {run.stderr[-2000:]}")
    count, grown_mb, seconds = run.stdout.split()
    return int(count), float(grown_mb), float(seconds)


def main():
    """Measure all ways that are asked for; exit code 1 if one takes too much."""
    parser = benchmark_parser(__doc__, runs=1)
    parser.add_argument("--gigabytes", type=float, default=0.2, help="size of the file")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="how it is read")
    parser.add_argument("--folder", help="where to write; default: a temporary folder")
    args = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        root = Path(folder) / "data"
        root.mkdir()
        start = time.perf_counter()
        num_records = write_records(root, int(args.gigabytes * 1e9))
        file = root / "train" / "detection_train.json"
        seconds, size = time.perf_counter() - start, file.stat().st_size / 1e9
        print(f"{size:.2f} GB, {num_records} records, written in {seconds:.0f} s", flush=True)

        def megabytes(way):
            count, grown_mb, seconds = measure(way, file, root, Path(folder) / "cache")
            print(f"{way:9} {count} records in {seconds:.0f} s", flush=True)
            if count != num_records or grown_mb >= LIMIT_MB:
                failed.append(way)
            return grown_mb

        found = compare({way: partial(megabytes, way) for way in args.ways}, args.runs, clock=None, warm_up=0)
    show("memory grows by", found, "MB")
    save(args.output, found)
    if failed:
        raise SystemExit(f"{', '.join(failed)}: {LIMIT_MB} MB or more, or records are missing.")


if __name__ == "__main__":
    main()
