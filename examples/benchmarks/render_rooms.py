"""How many rooms a second one core renders: `OMP_NUM_THREADS=1 python evaluation/speed/render_rooms.py`.

Prints the median over several runs of rooms per second of processor time, which other load on the machine hardly
moves, with the range, and the same by the clock.
"""

import argparse
import statistics
import time

from gap_mllm.processing.data import render_room


def measure(num_scenes: int, num_runs: int, num_views: int, height: int, width: int) -> tuple[list, list]:
    """Return rooms per second of processor time and of wall time, one number a run; every run renders other rooms."""
    per_cpu, per_wall = [], []
    render_room(0, num_views, height, width)  # fills the noise tables
    for run in range(num_runs):
        cpu, wall = time.process_time(), time.perf_counter()
        for index in range(num_scenes):
            render_room(run * num_scenes + index, num_views, height, width)
        per_cpu.append(num_scenes / (time.process_time() - cpu))
        per_wall.append(num_scenes / (time.perf_counter() - wall))
    return per_cpu, per_wall


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=40, help="rooms per run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=128)
    args = parser.parse_args()
    per_cpu, per_wall = measure(args.scenes, args.runs, args.views, args.height, args.width)
    print(f"{args.views} views of {args.height}x{args.width}, {args.runs} runs of {args.scenes} rooms")
    for name, rates in (("processor time", per_cpu), ("wall time", per_wall)):
        print(f"{statistics.median(rates):6.1f} scenes/s of {name} (from {min(rates):.1f} to {max(rates):.1f})")


if __name__ == "__main__":
    main()
