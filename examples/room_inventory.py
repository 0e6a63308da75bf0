"""An inventory of a room: what stands in it, how large it is and where, as a table, CSV and a plan.

    python examples/room_inventory.py                                  # a rendered room, its truth beside
    python examples/room_inventory.py --photos my_room/ --labels chair table

Height is the size along the box's axis nearest to up, length and width are the larger and the smaller of the others.
Places are told from above: metres to the right of the first camera, ahead of it, and above it.
"""

import csv

import numpy as np
from example_geometry import ANSWERED, TRUE, draw_footprint, label_plan
from example_scene import make_parser, open_scene

from gap_mllm.evaluation import box_iou_9dof
from gap_mllm.processing.camera_geometry_gap_mllm import euler_to_matrix


FIELDS = ("label", "length_m", "width_m", "height_m", "right_m", "ahead_m", "up_m", "true_label", "true_size_m", "iou")


def measure(label: str, box: np.ndarray, level: np.ndarray) -> dict:
    """Sizes and place of a box.

    Args:
        label (`str`): name of the object.
        box (`numpy.ndarray` of shape `(9,)`): box in the first camera, Euler order "zxy".
        level (`numpy.ndarray` of shape `(3, 3)`): rows right, ahead, up, see `ExampleScene.level`.
    Returns:
        `dict`: the first seven of `FIELDS`, in metres.
    """
    axes = euler_to_matrix(np.array(box[6:]), "zxy")
    upright = int(np.abs(level[2] @ axes).argmax())
    width, length = sorted(np.delete(box[3:6], upright))
    place = level @ box[:3]
    numbers = (length, width, box[3 + upright], *place)
    return {"label": label, **{name: round(float(each), 3) for name, each in zip(FIELDS[1:7], numbers, strict=True)}}


def match(boxes: np.ndarray, true: np.ndarray) -> list[tuple[int, float] | None]:
    """For each box the true one that it overlaps most, each at most once, and their exact IoU; None without any."""
    found = [None] * len(boxes)
    if len(boxes) and len(true):
        overlaps = box_iou_9dof(boxes, true, "zxy", all_pairs=True)
        while overlaps.max() > 0:
            row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
            found[row] = int(column), float(overlaps[row, column])
            overlaps[row], overlaps[:, column] = 0, 0
    return found


def main():
    parser = make_parser(__doc__, "room_inventory")
    parser.add_argument("--labels", nargs="+", help="only these objects")
    args = parser.parse_args()
    scene = open_scene(parser, args)
    detected = scene.session.detect(args.labels)
    boxes = np.array([box.box for box in detected]).reshape(-1, 9)
    rows = [measure(box.label, np.array(box.box), scene.level) for box in detected]
    for rejected in detected.rejected:
        print(f"left out: {rejected.text[:60]!r}: {rejected.reason}")
    labels, true = scene.true_boxes() if scene.room else ([], np.empty((0, 9)))
    true_rows = [measure(label, box, scene.level) for label, box in zip(labels, true, strict=True)]
    for row, found in zip(rows, match(boxes, true), strict=True):
        if found is not None:
            row |= {"true_label": labels[found[0]], "true_size_m": size_text(true_rows[found[0]])}
            row["iou"] = round(found[1], 3)
    report("The model found", rows)
    if scene.room:
        report("In the room stand", true_rows)
        print(f"{sum('iou' in row for row in rows)} of {len(rows)} answered boxes overlap with an object")
    with open(scene.output / "inventory.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    told = {"answered": rows, **({"true": true_rows} if scene.room else {}), "raw_answer": detected.text}
    scene.save_json("inventory.json", told)
    draw(scene, [(ANSWERED, "answered", rows, boxes), (TRUE, "true", true_rows, true)])
    print(f"wrote inventory.csv, inventory.json and inventory.png into {scene.output}")


def size_text(row):
    return " x ".join(f"{row[name]:.2f}" for name in FIELDS[1:4])


def report(title, rows):
    print(f"{title} ({len(rows)}):" if rows else f"{title}: nothing that can be read")
    for row in rows:
        found = f", overlaps {row['true_label']} {row['true_size_m']} by {row['iou']:.2f}" if "iou" in row else ""
        place = ", ".join(f"{row[name]:.2f} {name[:-2]}" for name in FIELDS[4:7])
        print(f"  {row['label']:<10} {size_text(row)} m (length x width x height) at {place}{found}")


def draw(scene, kinds):
    """The views, and footprints from above."""
    from matplotlib.figure import Figure

    pictures = scene.session.views.pictures[:4]
    figure = Figure(figsize=(10, 5), layout="constrained")
    views, plan = figure.subfigures(1, 2)
    for axes, picture in zip(views.subplots(2, 2).flat, pictures, strict=False):
        axes.imshow(picture)
    for axes in views.axes:
        axes.axis("off")
    axes = plan.subplots()
    for color, name, rows, boxes in kinds:
        for row, box in zip(rows, boxes, strict=True):
            draw_footprint(axes, box, scene.level, row["label"], color)
        if rows:
            axes.plot([], [], color=color, label=name)
    label_plan(axes)
    figure.savefig(scene.output / "inventory.png", dpi=90)


if __name__ == "__main__":
    main()
