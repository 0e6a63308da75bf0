"""How many rooms a second one core renders: `OMP_NUM_THREADS=1 python examples/benchmarks/render_rooms.py`.

Prints the median over several runs of rooms per second of processor time, which other load on the machine hardly
moves, with the range, and the same by the clock.
"""

import time
from itertools import count

from harness import benchmark_parser, compare, save, show

from gap_mllm.processing.data import render_room


def main():
    parser = benchmark_parser(__doc__)
    parser.add_argument("--scenes", type=int, default=40, help="rooms per run")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=128)
    args = parser.parse_args()
    seeds = count()  # every run renders other rooms

    def render():
        for _ in range(args.scenes):
            render_room(next(seeds), args.views, args.height, args.width)

    found = {}
    for name, clock in (("processor time", time.process_time), ("wall time", time.perf_counter)):
        found[name] = compare({"rendering": render}, args.runs, lambda clock=clock: clock() / args.scenes)
        show(f"a room, {args.views} views of {args.height} x {args.width}, {name}", found[name], "ms", 1000)
        print(f"{1 / found[name]['rendering']['median']:.1f} rooms a second of {name}")
    save(args.output, found)


if __name__ == "__main__":
    main()
