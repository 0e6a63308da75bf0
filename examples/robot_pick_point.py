"""A robot's pick point: mark a pixel in one of two views, get point, approach and grasp pose in the robot's base.

    python examples/robot_pick_point.py                                  # a rendered room, its truth beside
    python examples/robot_pick_point.py --photos left.jpg right.jpg --at 0,420,260 --hand-eye hand_eye.json

The first view is that of the calibrated camera. hand_eye.json has either "camera_to_base", for a camera that stands
beside the robot, or "camera_to_gripper" (as cv2.calibrateHandEye gives it) and "gripper_to_base" (where the arm was);
4x4 matrices in metres, OpenCV camera axes.
"""

import json
from pathlib import Path

import numpy as np
from example_geometry import ANSWERED, TRUE, surface_at
from example_scene import make_parser, open_scene, read_mark

from gap_mllm.processing.camera_geometry_gap_mllm import check_rigid


STANDING = {  # a camera 1.2 m above the base and 0.5 m behind it, that looks along the base's x and 30 degrees down
    "camera_to_base": [[0, -0.5, 0.866, -0.5], [-1, 0, 0, 0], [0, -0.866, -0.5, 1.2], [0, 0, 0, 1]]
}


def camera_to_base(hand_eye: dict) -> np.ndarray:
    """The pose of the camera in the base, `(4, 4)`. Raises ValueError for other keys, or what is no pose."""
    if "camera_to_base" in hand_eye:
        chain = ["camera_to_base"]
    elif {"camera_to_gripper", "gripper_to_base"} <= set(hand_eye):
        chain = ["gripper_to_base", "camera_to_gripper"]
    else:
        raise ValueError(
            f"the hand-eye file has {sorted(hand_eye)}; expected camera_to_base, or camera_to_gripper and "
            "gripper_to_base"
        )
    pose = np.eye(4)
    for name in chain:
        matrix = np.array(hand_eye[name], float)
        check_rigid(matrix, name, tolerance=2e-3)
        pose = pose @ matrix
    return pose


def grasp_pose(point: np.ndarray, approach: np.ndarray) -> np.ndarray:
    """A gripper at a point whose z axis is the approach and whose x axis is level; frame of the base, +z up."""
    approach = approach / np.linalg.norm(approach)
    level = np.cross([0.0, 0.0, 1.0], approach)
    level = np.array([1.0, 0.0, 0.0]) if np.linalg.norm(level) < 1e-6 else level / np.linalg.norm(level)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([level, np.cross(approach, level), approach], 1)
    pose[:3, 3] = point
    return pose


def pick(point: np.ndarray, normal: np.ndarray | None, to_base: np.ndarray, standoff: float) -> dict:
    """What the arm needs: point, approach, grasp and the place before it, in the base.

    Args:
        point (`numpy.ndarray` of shape `(3,)`): point in the camera.
        normal (`numpy.ndarray` of shape `(3,)`, *optional*): normal of its surface in the camera; without one the
            approach is the ray of the camera.
        to_base (`numpy.ndarray` of shape `(4, 4)`): pose of the camera in the base.
        standoff (`float`): metres before the point where the straight approach begins.
    Returns:
        `dict`: plain numbers.
    """
    approach = to_base[:3, :3] @ (point / np.linalg.norm(point) if normal is None else -normal)
    in_base = to_base[:3, :3] @ point + to_base[:3, 3]
    return {
        "point_camera_m": point.tolist(),
        "point_base_m": in_base.tolist(),
        "approach_base": approach.tolist(),
        "approach_from": "ray of the camera" if normal is None else "normal of the surface",
        "grasp_base": grasp_pose(in_base, approach).tolist(),
        "pre_grasp_base_m": (in_base - standoff * approach).tolist(),
    }


def main():
    parser = make_parser(__doc__, "robot_pick_point")
    parser.add_argument("--at", help="VIEW,X,Y of the pixel to pick; by default of furniture in view 0")
    parser.add_argument("--hand-eye", help="JSON file, see above; by default a camera beside the robot")
    parser.add_argument("--standoff", type=float, default=0.1, help="metres of straight approach")
    parser.set_defaults(views=2)
    args = parser.parse_args()
    try:
        given = STANDING if args.hand_eye is None else json.loads(Path(args.hand_eye).read_text(encoding="utf-8"))
        to_base = camera_to_base(given)
    except (OSError, ValueError) as error:
        parser.error(f"--hand-eye: {error}")
    scene = open_scene(parser, args)
    view, x, y = read_mark(parser, args.at, scene)
    point, label, normal = surface_at(scene.session, view, x, y)
    told = {"mark": [view, x, y], "camera_to_base": to_base.tolist()}
    if point is None:
        print("The model's answer holds no point; nothing can be picked.")
    else:
        told["answered"] = {"label": label, **pick(point, normal, to_base, args.standoff)}
        show("answered", told["answered"])
    truth = scene.true_point(view, x, y)
    if truth is not None:
        pose = scene.room.view_to_first_view[view]
        normal = pose[:3, :3] @ scene.room.normals[view, y, x]
        name = scene.room.label_of(scene.room.instance_ids[view, y, x])
        told["true"] = {"label": name, **pick(truth, normal, to_base, args.standoff)}
        show("true", told["true"])
        if point is not None:
            print(f"the answered point is {np.linalg.norm(point - truth):.3f} m from the true one")
    draw(scene, (view, x, y), told)
    print(f"wrote {scene.save_json('pick.json', told)} and {scene.output / 'pick.png'}")


def show(name, told):
    point, approach = (np.round(told[key], 3).tolist() for key in ("point_base_m", "approach_base"))
    print(f"{name:<9} {told['label']}: base {point} m, approach {approach}, by the {told['approach_from']}")


def draw(scene, mark, told):
    """The views, and the arm's side of it: the base from the side, with points and approaches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    *views, side = figure.subplots(1, 3)
    seen = scene.session.views
    for number, (axes, picture) in enumerate(zip(views, seen.pictures, strict=False)):
        axes.imshow(picture, extent=seen.extent(number))
        axes.set(title=f"View {number}", xticks=[], yticks=[])
        if number == mark[0]:
            axes.plot(*mark[1:], "r+", markersize=18, markeredgewidth=3)
    for name, color in (("answered", ANSWERED), ("true", TRUE)):
        if name in told:
            (x, _, z), (before_x, _, before_z) = told[name]["point_base_m"], told[name]["pre_grasp_base_m"]
            side.annotate("", (x, z), (before_x, before_z), arrowprops={"arrowstyle": "-|>", "color": color, "lw": 2})
            side.plot(x, z, "o", color=color, label=f"{name}: {told[name]['label']}")
    camera = np.array(told["camera_to_base"])[:3, 3]
    side.plot(camera[0], camera[2], "s", color="black", label="camera")
    side.plot(0, 0, "^", color="black", label="base")
    side.set(title="From the side", xlabel="x of the base (m)", ylabel="z of the base (m)", aspect="equal")
    side.margins(0.2)
    side.grid(alpha=0.3)
    side.legend(fontsize=8)
    figure.savefig(scene.output / "pick.png", dpi=90)


if __name__ == "__main__":
    main()
