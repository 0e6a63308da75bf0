"""What it costs to see that prepared scans are unchanged: `python examples/benchmarks/check_prepared.py`.

Writes a tree of ScanNet exports (`color/`, `depth/`, `pose/` of every frame), prepares it, loads it again unchanged,
and again after one pose was edited in place. Prints seconds of processor time, which other load on the machine hardly
moves, and the check as a share of preparing. Costs grow with the number of files; `--scans 1500` is all of ScanNet.
"""

import tempfile
from pathlib import Path

import datasets
import numpy as np
from harness import benchmark_parser, compare, save, show
from PIL import Image

from gap_mllm.processing.data import load_multiview
from gap_mllm.processing.data.loading import open_source
from gap_mllm.processing.data.prepared_source import why_stale


def write_scans(root: Path, num_scans: int, num_frames: int) -> None:
    """Write scans of equal small pictures, 320 x 240, with depth, and poses that differ."""
    rng = np.random.default_rng(0)
    source = root / "source"
    source.mkdir(parents=True)
    Image.fromarray(rng.integers(0, 255, (240, 320, 3), dtype=np.uint8)).save(source / "color.jpg")
    Image.fromarray(rng.integers(500, 4000, (240, 320), dtype=np.uint16)).save(source / "depth.png")
    color, depth = (source / "color.jpg").read_bytes(), (source / "depth.png").read_bytes()
    camera = np.eye(4)
    camera[[0, 1, 0, 1], [0, 1, 2, 2]] = 280, 280, 160, 120
    for scan in range(num_scans):
        folder = root / "scans" / f"scene{scan:04d}_00"
        for name in ("color", "depth", "pose", "intrinsic"):
            (folder / name).mkdir(parents=True)
        for kind in ("color", "depth"):
            np.savetxt(folder / "intrinsic" / f"intrinsic_{kind}.txt", camera)
        (folder / f"{folder.name}.txt").write_text("axisAlignment = " + " ".join(map(str, np.eye(4).ravel())) + "\n")
        for frame in range(num_frames):
            pose = np.eye(4)
            pose[:3, 3] = rng.uniform(0, 5, 3)
            lines = "\n".join(" ".join(f"{value:.6f}" for value in row) for row in pose)
            (folder / "color" / f"{frame}.jpg").write_bytes(color)
            (folder / "depth" / f"{frame}.png").write_bytes(depth)
            (folder / "pose" / f"{frame}.txt").write_text(lines + "\n")


def main() -> None:
    """Print one line for each figure."""
    parser = benchmark_parser(__doc__, runs=3)
    parser.add_argument("--scans", type=int, default=50)
    parser.add_argument("--frames", type=int, default=300)
    args = parser.parse_args()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="check_prepared_") as folder:
        root = Path(folder)
        write_scans(root / "data", args.scans, args.frames)

        def load():
            return load_multiview("scannet", root / "data", "train", cache_dir=root / "cache", frames="export")

        first = compare({"preparing": load}, runs=1, warm_up=0)
        options = {"data_dir": root / "data", "cache_dir": root / "cache", "frames": "export", "only_split": "train"}
        builder = open_source("scannet", **options)
        variants = {"loading unchanged": load, "of which the check": lambda: why_stale(builder)}
        again = compare(variants, args.runs)
        preparing, checking = first["preparing"]["median"], again["of which the check"]["median"]
        [log] = Path(builder.cache_dir).glob("reads-*.json")
        num_files = sum(1 for _ in (root / "data" / "scans").rglob("*"))
        size = f"{len(load())} scans of {args.frames} frames, {num_files} files and folders"
        print(f"{size}; log {log.stat().st_size} bytes")
        show("processor time", first)
        show("processor time, unchanged", again)
        print(f"check: {checking / num_files * 1e6:.2f} microseconds a file, {checking / preparing:.1%} of preparing")
        print(f"1,500 such scans, by the rule of three: {checking * 1500 / args.scans:.1f} s")
        pose = root / "data" / "scans" / "scene0000_00" / "pose" / "7.txt"
        pose.write_text(pose.read_text().replace("1.000000\n", "1.000000 \n"))
        print(f"an edited pose is seen: {why_stale(builder)}")
        save(args.output, {"first": first, "again": again})


if __name__ == "__main__":
    main()
