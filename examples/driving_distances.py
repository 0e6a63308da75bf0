"""Distances on a street: two frames of a car's camera with KITTI's intrinsics, and how far ahead things are.

    python examples/driving_distances.py                            # a rendered street, its truth beside
    python examples/driving_distances.py --photos 000000.png 000001.png --at 0,700,190 --camera-height 1.65

Each marked pixel is asked about; beside it stands what a level road alone says, without any model: a thing that
touches the ground at row v is camera height * fy / (v - cy) ahead. "Ahead" is depth along the camera's axis, in
metres. The intrinsics of other cameras are told by --intrinsics FX FY CX CY.
"""

import numpy as np
from example_geometry import ANSWERED, TRUE
from example_scene import make_parser, open_scene, read_mark

from gap_mllm.processing.data.rooms.furniture import Part
from gap_mllm.processing.data.rooms.layout import Furniture, RoomLayout
from gap_mllm.processing.data.rooms.rays import cast_rays, collect_parts, find_surface, ray_directions


KITTI = (721.5377, 721.5377, 609.5593, 172.854)  # fx, fy, cx, cy of the left colour camera of 2011-09-26
SIZE = (1242, 375)  # width, height
CAMERA_HEIGHT_M, STEP_M = 1.65, 1.0  # above the road; driven between the two frames
STREET = np.array([16.0, 90.0, 30.0])  # width between the houses, length, height of the sky
THINGS = (  # label, across and along the street from the camera, colour
    ("car", 2.6, 9.0, (170, 40, 40)), ("car", -3.1, 16.0, (40, 70, 150)), ("van", 3.0, 24.0, (225, 225, 220)),
    ("person", -5.2, 11.0, (60, 110, 70)), ("car", -3.2, 38.0, (70, 70, 75)),
)  # fmt: skip
SHAPES = {  # boxes of half extents and their middle above the ground, across, along and up
    "car": [((0.9, 2.1, 0.45), 0.45), ((0.75, 1.1, 0.3), 1.2)],
    "van": [((1.0, 2.6, 1.1), 1.1)],
    "person": [((0.25, 0.2, 0.85), 0.85)],
}
FACES = np.array(  # colours of the renderer's primitives: houses left and right, both ends, road, sky, (no block)
    [[165, 140, 120], [150, 145, 140], [205, 215, 230], [205, 215, 230], [95, 95, 100], [190, 205, 230], [0, 0, 0]]
)
ROAD, FIRST_PART = 4, 7


def render_street() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures `(2, H, W, 3)`, depth `(2, H, W)` in metres, and which of `THINGS` each pixel shows, -1 for none."""
    fx, fy, cx, cy = KITTI
    poses = np.tile(np.array([[1.0, 0, 0, 8.0], [0, 0, 1, 1.0], [0, -1, 0, CAMERA_HEIGHT_M], [0, 0, 0, 1]]), (2, 1, 1))
    poses[1, 1, 3] += STEP_M
    pieces = []
    for label, across, along, _ in THINGS:
        parts = [Part("box", (0.0, 0.0, up), half, "main") for half, up in SHAPES[label]]
        pieces.append(Furniture(label, "red", parts, np.array([8 + across, 1 + along, 0]), np.ones(3), 0.0))
    intrinsics = np.tile(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), (2, 1, 1))
    layout = RoomLayout(0, STREET, None, pieces, intrinsics, poses)
    parts = collect_parts(layout)
    directions = ray_directions(layout, *SIZE[::-1])
    depth, hit = cast_rays(layout, parts, directions)
    x, y, z = (depth * directions[axis] + poses[:, axis, 3, None, None] for axis in range(3))
    normals, _, _ = find_surface(layout, parts, hit.ravel().astype(np.intp), np.stack([x, y, z]).reshape(3, -1))
    rgb = np.concatenate([FACES, [THINGS[piece][3] for piece in parts.piece]])[hit].astype(float)
    is_line = (abs(x - 8) < 0.08) & (y % 6 < 3) | (abs(abs(x - 8) - 5) < 0.08)
    rgb[(hit == ROAD) & is_line] = 230
    rgb[(hit < 2) & (z % 3 > 1.2) & (y % 4 > 2)] = (70, 85, 105)  # windows
    rgb[(hit < 2) & (z > 9)] = FACES[2]
    light = 0.75 + 0.25 * np.clip(np.array([0.3, -0.5, 0.8]) @ normals, -1, 1).reshape(*depth.shape, 1)
    piece = np.where(hit >= FIRST_PART, parts.piece.take(np.maximum(hit - FIRST_PART, 0)), -1)
    return np.clip(rgb * light, 0, 255).astype(np.uint8), depth, piece


def level_road_depth(v: float, fy: float, cy: float, height: float) -> float | None:
    """Metres ahead of what touches a level road at row `v`; None at the horizon and above it."""
    return height * fy / (v - cy) if v > cy else None


def marks_of_things(piece: np.ndarray) -> list[tuple[int, int, int]]:
    """For each thing in the first frame its number, and column and row of its lowest pixel in the middle."""
    marks = []
    for number in range(len(THINGS)):
        rows, columns = np.nonzero(piece[0] == number)
        if len(rows):
            column = int(np.median(columns))
            marks.append((number, column, int(rows[columns == column].max())))
    return marks


def main():
    parser = make_parser(__doc__, "driving_distances")
    parser.add_argument("--at", action="append", help="VIEW,X,Y where a thing touches the road; may come repeatedly")
    parser.add_argument("--intrinsics", type=float, nargs=4, default=KITTI, metavar=("FX", "FY", "CX", "CY"))
    parser.add_argument("--camera-height", type=float, default=CAMERA_HEIGHT_M, help="above the road, metres")
    args = parser.parse_args()
    pictures = depth = None
    if not args.photos:
        pictures, depth, piece = render_street()
    elif not args.at:
        parser.error("--photos needs --at VIEW,X,Y, once for each thing")
    fx, fy, cx, cy = args.intrinsics
    camera = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    scene = open_scene(parser, args, pictures, camera)
    if args.at:
        marks = [(f"{view},{x},{y}", view, x, y) for view, x, y in (read_mark(parser, at, scene) for at in args.at)]
    else:
        marks = [(THINGS[number][0], 0, x, y) for number, x, y in marks_of_things(piece)]
    rows = []
    for name, view, x, y in marks:
        point = scene.session.locate(view, x, y).first
        row = {"thing": name, "mark": [view, x, y], "answered_label": point.label if point else None}
        row["answered_m"] = round(point.point[2], 2) if point else None
        road = level_road_depth(y, fy, cy, args.camera_height)
        row["level_road_m"] = None if road is None else round(road, 2)
        if depth is not None:  # the second frame is told from the first camera, as answers are
            row["true_m"] = round(float(depth[view, y, x]) + STEP_M * view, 2)
        rows.append(row)
        told = ", ".join(f"{kind[:-2].replace('_', ' ')} {row[kind]} m" for kind in row if kind.endswith("_m"))
        print(f"{name:<8} at {x},{y} of view {view}: {told}")
    draw(scene, rows)
    path = scene.save_json("distances.json", {"intrinsics": camera.tolist(), "things": rows})
    print(f"wrote {path} and {scene.output / 'distances.png'}")


def draw(scene, rows):
    """The frames with all distances."""
    from matplotlib.figure import Figure

    seen = scene.session.views
    pictures = seen.pictures[:2]
    figure = Figure(figsize=(12.5, 4.2 * len(pictures)), layout="constrained")
    for view, picture in enumerate(pictures):
        axes = figure.add_subplot(len(pictures), 1, view + 1)
        axes.imshow(picture, extent=seen.extent(view))
        axes.set(title=f"Frame {view}: orange answered, green true, black from a level road", xticks=[], yticks=[])
        for row in (row for row in rows if row["mark"][0] == view):
            axes.plot(*row["mark"][1:], "r+", markersize=12, markeredgewidth=2)
            kinds = (("answered_m", ANSWERED), ("true_m", TRUE), ("level_road_m", "black"))
            shown = [(kind, color) for kind, color in kinds if row.get(kind) is not None]
            x, y = row["mark"][1:]
            below = 22 if y < 0.75 * seen.sizes[view][1] else -22 * (len(shown) + 1)
            for place, (kind, color) in enumerate(shown):
                style = {
                    "color": color,
                    "backgroundcolor": "#ffffffd0",
                    "fontsize": 9,
                    "ha": "center",
                    "clip_on": True,
                }
                axes.text(x, y + below + 22 * place, f"{row[kind]:.1f} m", **style)
    figure.savefig(scene.output / "distances.png", dpi=90)


if __name__ == "__main__":
    main()
