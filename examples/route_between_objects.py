"""A route between two objects: boxes become a plan, the plan a grid, and the grid the shortest way round the rest.

    python examples/route_between_objects.py                          # a rendered room, its truth beside
    python examples/route_between_objects.py --photos my_room/ --start door --goal desk --radius 0.3

Obstacles are the boxes of all objects that reach between 5 cm above the floor and the robot's height, grown by its
radius; walls are only known of rendered rooms. Start and goal are free places beside both objects.
"""

import numpy as np
from example_geometry import ANSWERED, TRUE, draw_footprint, footprint, label_plan
from example_scene import make_parser, open_scene
from matplotlib.path import Path as Polygon
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from gap_mllm.processing.camera_geometry_gap_mllm import box_corners


CELL_M = 0.05
MARGIN_M = 1.0  # of free floor around what is known
STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # and back: eight neighbours


def free_floor(polygons: list, floor: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Middles `(X, Y, 2)` of the cells of a floor, and which are free: `radius` or more from polygons and border."""
    low, high = floor.min(0), floor.max(0)
    ticks = [np.arange(low[axis] + CELL_M / 2, high[axis], CELL_M) for axis in (0, 1)]
    middles = np.stack(np.meshgrid(*ticks, indexing="ij"), -1)
    places = middles.reshape(-1, 2)
    is_free = Polygon(floor).contains_points(places)
    for polygon in polygons:
        is_free &= ~Polygon(polygon).contains_points(places)
    distance = distance_transform_edt(np.pad(is_free.reshape(middles.shape[:2]), 1))[1:-1, 1:-1]
    return middles, (distance - 0.5) * CELL_M >= radius


def shortest_route(free: np.ndarray, start: tuple, goal: tuple) -> np.ndarray | None:
    """Cells `(N, 2)` of the shortest way over free cells to eight neighbours; None where there is none."""
    numbers = np.arange(free.size).reshape(free.shape)
    ends, lengths = [], []
    for across, along in STEPS:
        first = numbers[: free.shape[0] - across, max(0, -along) : free.shape[1] - max(0, along)]
        second = numbers[across:, max(0, along) : free.shape[1] + min(0, along)]
        both = free.flat[first] & free.flat[second]
        ends.append(np.stack([first[both], second[both]]))
        lengths.append(np.full(both.sum(), np.hypot(across, along)))
    ends, lengths = np.concatenate(ends, 1), np.concatenate(lengths)
    graph = coo_array((lengths, tuple(ends)), shape=(free.size, free.size)).tocsr()
    source, target = numbers[start], numbers[goal]
    distances, before = dijkstra(graph, directed=False, indices=source, return_predecessors=True)
    if not np.isfinite(distances[target]):
        return None
    route = [target]
    while route[-1] != source:
        route.append(before[route[-1]])
    return np.stack(np.unravel_index(route[::-1], free.shape), 1)


def plan_route(boxes, start: int, goal: int, scene, radius: float, height: float, walls=None) -> dict | None:
    """A route from beside one box to beside another, in metres right and ahead of the first camera.

    Boxes `(N, 9)` are in the first camera, `walls` `(K, 2)` from above. None where no way is free.
    """
    level = scene.level
    polygons = [footprint(box, level) for box in boxes]
    floor = min((box_corners(box, "zxy") @ level[2]).min() for box in boxes)
    ups = [box_corners(box, "zxy") @ level[2] - floor for box in boxes]
    if walls is None:
        known = np.concatenate([*polygons, [[0.0, 0.0]]])
        (left, near), (right, far) = known.min(0) - MARGIN_M, known.max(0) + MARGIN_M
        walls = np.array([[left, near], [right, near], [right, far], [left, far]])
    obstacles = [each for each, up in zip(polygons, ups, strict=True) if up.max() > 0.05 and up.min() < height]
    middles, free = free_floor(obstacles, walls, radius)
    if not free.any():
        return None
    gaps = [np.linalg.norm(middles[free] - polygons[number].mean(0), axis=-1) for number in (start, goal)]
    near = [np.where(gap <= gap.min() + 2 * CELL_M, other, np.inf) for gap, other in (gaps, gaps[::-1])]
    ends = [tuple(np.argwhere(free)[each.argmin()]) for each in near]
    route = shortest_route(free, *ends)
    if route is None:
        return None
    route = middles[tuple(route.T)]
    length = np.linalg.norm(np.diff(route, axis=0), axis=1).sum()
    return {"route": route.round(3).tolist(), "length_m": round(float(length), 3)}


def find_object(labels: list[str], wanted: str | None, other: int | None = None) -> int | None:
    """The first object of this label, or without one the first that is not `other`; None where there is none."""
    found = (n for n, label in enumerate(labels) if n != other and wanted in (None, label))
    return next(found, None)


def main():
    parser = make_parser(__doc__, "route_between_objects")
    parser.add_argument("--start", help="label of the object to start at; by default the first one")
    parser.add_argument("--goal", help="label of the object to go to; by default the next one")
    parser.add_argument("--radius", type=float, default=0.2, help="of the robot, metres")
    parser.add_argument("--height", type=float, default=1.5, help="of the robot, metres")
    args = parser.parse_args()
    if not 0 < args.radius < 10:
        parser.error(f"--radius is {args.radius}; expected metres above 0")
    scene = open_scene(parser, args)
    detected, walls = scene.session.detect(), None
    maps = {"answered": ([box.label for box in detected], np.array([box.box for box in detected]).reshape(-1, 9))}
    if scene.room is not None:
        maps["true"], walls = scene.true_boxes(), scene.walls()
    told = {}
    for name, (labels, boxes) in maps.items():
        start = find_object(labels, args.start)
        goal = find_object(labels, args.goal, start)
        if start is None or goal is None:
            wanted = " and ".join(filter(None, (args.start, args.goal))) or "two objects"
            print(f"{name}: no route, since {wanted} are not among {labels or 'the boxes, of which there are none'}")
            continue
        told[name] = {"start": labels[start], "goal": labels[goal]}
        route = plan_route(boxes, start, goal, scene, args.radius, args.height, walls if name == "true" else None)
        told[name] |= route or {"route": None}
        way = f"{route['length_m']:.2f} m" if route else f"no way for a robot of {2 * args.radius:.2f} m"
        print(f"{name}: from {labels[start]} to {labels[goal]}: {way}")
    draw(scene, maps, told, walls)
    frame = "metres to the right of the first camera and ahead of it, level"
    print(f"wrote {scene.save_json('route.json', {'frame': frame, **told})} and {scene.output / 'route.png'}")


def draw(scene, maps, told, walls):
    """One plan over the answers, one over the truth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(maps), 5.5), layout="constrained")
    for place, (name, (labels, boxes)) in enumerate(maps.items(), 1):
        axes = figure.add_subplot(1, len(maps), place)
        color = TRUE if name == "true" else ANSWERED
        for label, box in zip(labels, boxes, strict=True):
            draw_footprint(axes, box, scene.level, label, color)
        if name == "true":
            axes.plot(*np.vstack([walls, walls[:1]]).T, color="black", linewidth=2)
        route = told.get(name, {}).get("route")
        if route:
            length = f"{told[name]['length_m']:.2f} m"
            axes.plot(*np.transpose(route), color="#1f4e9c", linewidth=3, marker="*", markevery=[-1], label=length)
        label_plan(axes)
        axes.set_title("Over the boxes that the model answers" if name == "answered" else "Over the true boxes")
    figure.savefig(scene.output / "route.png", dpi=90)


if __name__ == "__main__":
    main()
