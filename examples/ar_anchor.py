"""An AR anchor: mark a pixel, get a gravity-aligned pose on its surface in ARKit's and ARCore's axes, as JSON.

    python examples/ar_anchor.py                                   # a rendered room, its truth beside
    python examples/ar_anchor.py --photos a.jpg b.jpg --at 0,900,1200 --camera-pose pose.json

Both frameworks have y up, x to the right and z towards the viewer, of the world as of the camera. pose.json has the
pose of the first photo's camera, {"camera_to_world": 4x4} in these axes (ARFrame.camera.transform as rows, or
Camera.getPose().toMatrix()). Photos must be as the sensor took them: these poses are of the sensor's, landscape.
Without the file the world has its origin at the first camera, and its up is that of --up.
"""

import json
from pathlib import Path

import numpy as np
from example_geometry import ANSWERED, TRUE, surface_at
from example_scene import make_parser, open_scene, read_mark

from gap_mllm.processing.camera_geometry_gap_mllm import check_rigid, project_points


TO_AR_CAMERA = np.diag([1.0, -1.0, -1.0])  # OpenCV's y down and z ahead become y up and z back
HORIZONTAL, VERTICAL = 0.87, 0.5  # of |normal . up|: within 30 degrees of level, and of upright


def level_world(level: np.ndarray) -> np.ndarray:
    """The AR camera's pose `(4, 4)` in a level world with its origin, from `ExampleScene.level`."""
    right, ahead, up = level
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, up, -ahead]) @ TO_AR_CAMERA
    return pose


def make_anchor(point: np.ndarray, normal: np.ndarray | None, pose: np.ndarray) -> dict:
    """A pose whose y is up and whose z is level: away from a wall, or towards the camera elsewhere.

    Args:
        point (`numpy.ndarray` of shape `(3,)`): point in the OpenCV camera, metres.
        normal (`numpy.ndarray` of shape `(3,)`, *optional*): unit normal of its surface, in the same.
        pose (`numpy.ndarray` of shape `(4, 4)`): AR camera to AR world.
    Returns:
        `dict`: position, quaternion (x, y, z, w), matrix by rows and by columns, and the kind of surface.
    """
    position = pose[:3, :3] @ TO_AR_CAMERA @ point + pose[:3, 3]
    kind, facing = "unknown", pose[:3, 3] - position
    if normal is not None:
        normal = pose[:3, :3] @ TO_AR_CAMERA @ normal
        slope = abs(normal[1])
        kind = "horizontal" if slope > HORIZONTAL else "vertical" if slope < VERTICAL else "slanted"
        facing = facing if kind == "horizontal" else normal
    facing = facing * [1.0, 0.0, 1.0]
    length = np.linalg.norm(facing)
    z = facing / length if length > 1e-6 else np.array([0.0, 0.0, 1.0])
    y = np.array([0.0, 1.0, 0.0])
    matrix = np.eye(4)
    matrix[:3] = np.stack([np.cross(y, z), y, z, position], 1)
    half = np.arctan2(z[0], z[2]) / 2  # of the turn about y
    return {
        "position_m": position.tolist(),
        "rotation_xyzw": [0.0, float(np.sin(half)), 0.0, float(np.cos(half))],
        "matrix_rows": matrix.tolist(),
        "matrix_columns": matrix.T.tolist(),  # as simd_float4x4 and android.opengl.Matrix hold it
        "surface": kind,
    }


def main():
    parser = make_parser(__doc__, "ar_anchor")
    parser.add_argument("--at", help="VIEW,X,Y of the pixel; by default of furniture in view 0")
    parser.add_argument("--camera-pose", help="JSON file, see above")
    args = parser.parse_args()
    pose = None
    if args.camera_pose:
        try:
            pose = np.array(json.loads(Path(args.camera_pose).read_text(encoding="utf-8"))["camera_to_world"], float)
            check_rigid(pose, "camera_to_world")
        except (OSError, ValueError, KeyError, TypeError) as error:
            parser.error(f"--camera-pose {args.camera_pose}: {error!r}; expected {{'camera_to_world': 4x4}}")
    scene = open_scene(parser, args)
    pose = level_world(scene.level) if pose is None else pose
    view, x, y = read_mark(parser, args.at, scene)
    point, label, normal = surface_at(scene.session, view, x, y)
    told = {"axes": "x right, y up, z towards the viewer; metres", "mark": [view, x, y], "camera": pose.tolist()}
    if point is None:
        print("The model's answer holds no point; no anchor can be set.")
    else:
        told["answered"] = {"label": label, **make_anchor(point, normal, pose)}
    truth = scene.true_point(view, x, y)
    if truth is not None:
        normal = scene.room.view_to_first_view[view, :3, :3] @ scene.room.normals[view, y, x]
        name = scene.room.label_of(scene.room.instance_ids[view, y, x])
        told["true"] = {"label": name, **make_anchor(truth, normal, pose)}
    for name in ("answered", "true"):
        if name in told:
            position = np.round(told[name]["position_m"], 3).tolist()
            print(f"{name:<9} {told[name]['label']}: {position} m, surface {told[name]['surface']}")
    if point is not None and truth is not None:
        print(f"the answered anchor is {np.linalg.norm(point - truth):.3f} m from the true one")
    draw(scene, (view, x, y), told)
    print(f"wrote {scene.save_json('anchor.json', told)} and {scene.output / 'anchor.png'}")


def draw(scene, mark, told):
    """The marked view with the axes of the anchors where the cameras are known, and the world from above."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    shown, plan = figure.subplots(1, 2)
    seen, view = scene.session.views, mark[0]
    shown.imshow(seen.pictures[view], extent=seen.extent(view))
    shown.plot(*mark[1:], "r+", markersize=20, markeredgewidth=2)
    title = "x red, y green, z blue; thick: true" if scene.room else f"View {mark[0]}"
    shown.set(title=title, xticks=[], yticks=[], xlim=seen.extent(view)[:2], ylim=seen.extent(view)[2:])
    camera = np.array(told["camera"])
    plan.plot(camera[0, 3], camera[2, 3], "s", color="black", label="first camera")
    for name, color, width in (("true", TRUE, 4), ("answered", ANSWERED, 1.5)):
        if name not in told:
            continue
        matrix = np.array(told[name]["matrix_rows"])
        x, z = matrix[0, 3], matrix[2, 3]
        plan.plot(x, z, "o", color=color, label=f"{name}: {told[name]['label']}")
        plan.annotate("", (x + 0.3 * matrix[0, 2], z + 0.3 * matrix[2, 2]), (x, z),
                      arrowprops={"arrowstyle": "-|>", "color": color})  # fmt: skip
        if scene.room:
            draw_axes(shown, scene.room, mark[0], np.linalg.inv(camera) @ matrix, width)
    plan.set(xlabel="x (m)", ylabel="z (m)", title="From above; arrows are z", aspect="equal")
    plan.margins(0.2)
    plan.invert_yaxis()
    plan.grid(alpha=0.3)
    plan.legend(fontsize=8)
    figure.savefig(scene.output / "anchor.png", dpi=90)


def draw_axes(axes, room, view, anchor, width):
    """Axes of 0.2 m of an anchor in the first AR camera, drawn into a view of a room."""
    tips = anchor[:3, 3] + 0.2 * np.vstack([np.zeros(3), anchor[:3, :3].T])
    first_to_view = np.linalg.inv(room.view_to_first_view[view])
    points = tips @ TO_AR_CAMERA @ first_to_view[:3, :3].T + first_to_view[:3, 3]
    pixels, _ = project_points(points, room.intrinsics[view])
    for tip, color in zip(pixels[1:], ("red", "lime", "blue"), strict=True):
        axes.plot(*np.stack([pixels[0], tip]).T, color=color, linewidth=width)


if __name__ == "__main__":
    main()
