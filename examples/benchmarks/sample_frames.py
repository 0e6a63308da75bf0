"""How long choosing frames takes on one core: `OMP_NUM_THREADS=1 python examples/benchmarks/sample_frames.py`.

Prints the median over several runs in milliseconds of processor time, which other load on the machine hardly moves,
with the range, for both modes of `space_aware_sample` and for a plain loop over Python sets, which compares every
frame anew for every pick. The loop and mode "reference" must choose the same frames.
"""

import numpy as np
from harness import benchmark_parser, compare, save, show

from gap_mllm.processing import space_aware_sample


def make_walk(num_candidates: int, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return point maps (S, H, W, 3), in metres, and confidences (S, H, W) of a walk through an empty room.

    Frame: the room's, +z up, floor at z = 0. The camera turns once around while it crosses the room.
    """
    rng = np.random.default_rng(seed)
    room = np.array([6.0, 4.0, 2.5])
    progress = np.linspace(0.0, 1.0, num_candidates)
    origin = np.stack([1 + 4 * progress, 2 + np.sin(6 * progress), np.full(num_candidates, 1.5)], -1)
    yaw = 2 * np.pi * progress[:, None, None] + np.linspace(-0.6, 0.6, width)
    pitch = np.broadcast_to(np.linspace(0.5, -0.7, height)[:, None], (num_candidates, height, width))
    directions = np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], -1)
    origin = origin[:, None, None]
    wall = np.where(directions > 0, room, 0.0)
    distance = ((wall - origin) / np.where(directions == 0, 1e-9, directions)).min(-1, keepdims=True)
    points = origin + distance * directions + rng.normal(0, 0.02, directions.shape)
    return points.astype(np.float32), rng.uniform(1, 5, points.shape[:3]).astype(np.float32)


def sample_by_sets(world_points: np.ndarray, confidence: np.ndarray, num_frames: int) -> list[int]:
    """Return what mode "reference" chooses, by the plain loop."""
    is_used = (confidence >= np.percentile(confidence, 50)) & (confidence > 0.1)
    used = world_points[is_used]
    voxel_size = (used.max(0) - used.min(0)).min() / np.float32(20)
    cells = np.floor((world_points - used.min(0)) / voxel_size).astype(int)
    seen = [set(map(tuple, cells[i][is_used[i]].tolist())) for i in range(len(cells))]
    covered, chosen = set(), []
    for _ in range(num_frames):
        gains = [len(voxels - covered) for voxels in seen]
        best = max(range(len(seen)), key=gains.__getitem__)
        if gains[best] == 0:
            break
        chosen.append(best)
        covered |= seen[best]
    return sorted(chosen)


def main():
    parser = benchmark_parser(__doc__, runs=15)
    parser.add_argument("--candidates", type=int, default=128)
    parser.add_argument("--height", type=int, default=20, help="rows of a point map")
    parser.add_argument("--width", type=int, default=20)
    parser.add_argument("--frames", type=int, default=16, help="frames to choose")
    args = parser.parse_args()
    scene = make_walk(args.candidates, args.height, args.width)
    if space_aware_sample(*scene, args.frames, mode="reference") != sample_by_sets(*scene, args.frames):
        raise SystemExit('The plain loop and mode="reference" chose different frames.')
    variants = {
        'mode "robust"': lambda: space_aware_sample(*scene, args.frames),
        'mode "reference"': lambda: space_aware_sample(*scene, args.frames, mode="reference"),
        "plain loop over sets": lambda: sample_by_sets(*scene, args.frames),
    }
    found = compare(variants, args.runs)
    size = f"{args.candidates} candidates of {args.height} x {args.width} points"
    show(f"{size} to {args.frames} frames", found, "ms", 1000)
    save(args.output, found)


if __name__ == "__main__":
    main()
