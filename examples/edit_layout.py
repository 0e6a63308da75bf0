"""A layout edited by text: boxes come out of the model, words become constraints, and solved boxes go back in.

    python examples/edit_layout.py                               # a rendered room and its true boxes
    python examples/edit_layout.py --edit "put the chair left of the bed, 0.5 m; turn the desk by 90 degrees"
    python examples/edit_layout.py --photos my_room/ --edit "move the lamp behind the sofa, 0.1 m"

Edits, one after another with ";": put|move|place the A left of|right of|in front of|behind the B[, D m], and
turn|rotate the A by N degrees (counter-clockwise from above). Sides are those that the first camera sees, D is the gap
between both; "chair 2" is the second chair of the list. What is not named stays where it is. After the idea of
LayoutVLM (arXiv:2412.02193): relations are constraints, here linear ones, which scipy solves without overlaps.
"""

import numpy as np
from example_geometry import ANSWERED, TRUE, draw_footprint, footprint, label_plan
from example_layout import parse_edits, solve
from example_scene import make_parser, open_scene

from gap_mllm.evaluation import box_intersection_9dof
from gap_mllm.processing import format_boxes
from gap_mllm.processing.scene_3d import Box3D, Scene3D, View3D, scene_from_sample, write_glb


def usual_edit(labels: list[str], boxes: np.ndarray) -> str:
    """The smallest object to the left of the largest, by the area of their boxes from above."""
    names = [f"{label} {labels[: place + 1].count(label)}" for place, label in enumerate(labels)]
    order = np.argsort(np.prod(boxes[:, 3:5], axis=1))
    return f"put the {names[order[0]]} left of the {names[order[-1]]}, 0.3 m"


def shared_volume(boxes: np.ndarray) -> float:
    """Cubic metres that the boxes share, pair by pair, exactly."""
    shared = box_intersection_9dof(boxes, boxes, "zxy", all_pairs=True)
    return float(np.triu(shared, 1).sum())


def main():
    parser = make_parser(__doc__, "edit_layout")
    parser.add_argument("--edit", help="what to change, see above; by default the smallest object beside the largest")
    parser.add_argument("--boxes", choices=("true", "answered"), help="of a room: which boxes to edit (default: true)")
    args = parser.parse_args()
    scene = open_scene(parser, args)
    is_true = scene.room is not None and args.boxes != "answered"
    if args.boxes == "true" and scene.room is None:
        parser.error("--boxes true needs a rendered room; the boxes of photos are those that the model answers")
    if is_true:
        (labels, boxes), walls = scene.true_boxes(), scene.walls()
    else:
        detected = scene.session.detect()
        labels, boxes, walls = [box.label for box in detected], np.array([box.box for box in detected]), None
    if len(labels) < 2:
        print(f"The model answers {len(labels)} boxes; an edit needs two. Its answer: {detected.text[:200]}")
        return
    print(f"{'True' if is_true else 'Answered'} boxes: {', '.join(labels)}")
    text = args.edit or usual_edit(labels, boxes)
    try:
        edits = parse_edits(text, labels)
        after = solve(boxes, edits, scene.level, walls)
    except ValueError as error:
        parser.error(f"--edit: {error}")
    print(f"edit: {text}")
    for label, old, new in zip(labels, boxes, after, strict=True):
        if not np.allclose(old, new):
            moved = scene.level @ (new - old)[:3]
            print(f"  {label} moved by {moved[0]:.2f} m to the right, {moved[1]:.2f} m ahead")
    print(f"boxes share {shared_volume(boxes):.4f} m3 before, {shared_volume(after):.4f} m3 after")
    told = {"edit": text, "boxes_are": "true" if is_true else "answered", "labels": labels}
    told |= {"before": boxes.tolist(), "after": after.tolist(), "answer": format_boxes(labels, after)}
    scene.save_json("layout.json", told)
    draw(scene, labels, boxes, after, walls)
    save_glb(scene, labels, boxes, after, is_true)
    print(f"wrote layout.json, layout.png and layout.glb (edited boxes orange) into {scene.output}")


def save_glb(scene, labels, before, after, is_true):
    """What stood where, and the moved boxes; with the true points of a room."""
    if scene.room is None:
        seen = scene.session.views
        views = tuple(View3D(name, picture) for name, picture in zip(seen.names, seen.pictures, strict=True))
    else:
        views = scene_from_sample(scene.room.as_sample()).views
    kind = "true" if is_true else "predicted"
    boxes = [Box3D(label, tuple(box), kind) for label, box in zip(labels, before, strict=True)]
    changed = [
        Box3D(f"{label} (edited)", tuple(new)) for label, old, new in zip(labels, before, after, strict=True)
        if not np.allclose(old, new)
    ]  # fmt: skip
    write_glb(Scene3D(views, (*boxes, *changed), title="layout", up=tuple(scene.up)), scene.output / "layout.glb")


def draw(scene, labels, before, after, walls):
    """The plan before and after."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.5), layout="constrained")
    for place, boxes in enumerate((before, after), 1):
        axes = figure.add_subplot(1, 2, place)
        for label, old, new in zip(labels, before, boxes, strict=True):
            is_moved = not np.allclose(old, new)
            draw_footprint(axes, new, scene.level, label, ANSWERED if is_moved else TRUE)
            if is_moved:
                start, end = (footprint(box, scene.level).mean(0) for box in (old, new))
                axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": ANSWERED})
        if walls is not None:
            axes.plot(*np.vstack([walls, walls[:1]]).T, color="black", linewidth=2)
        label_plan(axes)
        axes.set_title("Before" if place == 1 else "After: orange has moved")
    figure.savefig(scene.output / "layout.png", dpi=90)


if __name__ == "__main__":
    main()
