"""ScanRefer, Nr3D and Multi3DRefer: right answers are right in the right frame, shifted boxes score as by hand."""

import json
import math

import numpy as np
import pytest

from gap_mllm.evaluation.benchmarks import find_benchmark
from gap_mllm.evaluation.benchmarks.multi3drefer_benchmark import read_boxes
from gap_mllm.evaluation.benchmarks.posed_boxes import aligned_target
from gap_mllm.evaluation.runner.questions import load_questions
from gap_mllm.evaluation.runner.report_pictures import with_answer
from gap_mllm.processing.camera_geometry_gap_mllm import box_corners, invert_rigid, transform_box
from gap_mllm.processing.data.box_rows import axis_aligned_bounds
from gap_mllm.processing.data.record_errors import RecordError
from gap_mllm.processing.data.scene_sample import Box, SceneSample, View


SCANREFER, MULTI3DREFER = find_benchmark("scanrefer"), find_benchmark("multi3drefer")


def rigid(yaw, tilt, shift):
    """A rotation about z, then about x, and a shift."""
    (c, s), (d, t) = ((math.cos(angle), math.sin(angle)) for angle in (yaw, tilt))
    turn = np.array([[1, 0, 0], [0, d, -t], [0, t, d]]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return np.block([[turn, np.reshape(shift, (3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]])


POSES = rigid(0.4, -1.9, (1, 2, 1.5)), rigid(2.0, -2.1, (-1, 0.5, 1.4))
ALIGNMENT = rigid(0.5, 0.0, (3, -2, 0.1))
TABLE = np.array([0.5, -0.5, 0.4, 1.0, 1.0, 0.8, 0, 0, 0])
CHAIR = np.array([2.5, 1.0, 0.5, 0.5, 0.5, 1.0, 0, 0, 0])


def target(numbers, euler_order="zxy", role="target"):
    return Box(np.asarray(numbers, float), euler_order, "aligned", None, "thing", role=role)


def question(*boxes, question_type=None, metadata=None, **fields):
    views = tuple(View(camera_to_world=pose) for pose in POSES)
    placed = {"views": views, "pose_frame": "scan", "world_to_aligned": ALIGNMENT, "scene_id": "s", "id": "q"}
    named = {"boxes": tuple(map(target, boxes)), "question_type": question_type, "metadata": metadata or {}}
    return SceneSample(**{**placed, **named, **fields})


def in_camera(box, view=0):
    return transform_box(np.asarray(box, float), invert_rigid(ALIGNMENT @ POSES[view]), "zxy").tolist()


def answer(box, view=0, said=None):
    return json.dumps({"frame": view if said is None else said, "bbox_3d": in_camera(box, view)})


def listed(*boxes):
    return json.dumps([{"bbox_3d": in_camera(box)} for box in boxes])


def moved(box, *shift):
    return box + np.array([*shift, *[0] * (9 - len(shift))], float)


# Single objects


def test_shifted_boxes_score_as_by_hand():
    shifts = {"same": 0.0, "half": 0.5, "quarter IoU": 0.6, "far": 1.0}
    samples = [question(TABLE, question_type=name) for name in shifts]
    texts = [answer(moved(TABLE, shift), view=index % 2) for index, shift in enumerate(shifts.values())]
    metrics, records = SCANREFER.score(samples, texts)
    assert [record["iou"] for record in records] == pytest.approx([1, 0.5 / 1.5, 0.4 / 1.6, 0], abs=1e-9)
    assert metrics["acc25"] == 0.75 and metrics["acc50"] == 0.25
    assert metrics["miou"] == pytest.approx((1 + 1 / 3 + 0.25) / 4)
    assert metrics["per_type"]["half"]["acc25"] == 1 and metrics["per_type"]["half"]["acc50"] == 0
    assert metrics["oriented_miou"] == pytest.approx(metrics["miou"])
    assert metrics["reference_acc25"] == 0.5  # the published 1e-8 makes an IoU of 0.25 a miss
    assert [record["parsed"]["frame"] for record in records] == [0, 1, 0, 1]
    assert np.allclose(records[1]["parsed"]["bbox_3d_aligned"][:6], moved(TABLE, 0.5)[:6])


def test_a_box_in_the_wrong_frame_is_wrong():
    sample = question(TABLE)
    other_camera, no_camera = answer(TABLE, view=0, said=1), json.dumps({"frame": 0, "bbox_3d": TABLE.tolist()})
    for text in (other_camera, no_camera):
        assert SCANREFER.score([sample], [text])[0]["miou"] < 0.1
    in_scan = transform_box(TABLE, invert_rigid(ALIGNMENT), "zxy")
    unaligned = json.dumps({"frame": 0, "bbox_3d": transform_box(in_scan, np.eye(4), "zxy").tolist()})
    assert SCANREFER.score([sample], [unaligned])[0]["miou"] < 0.1


def test_a_turned_box_counts_with_its_bounds_and_beside_it_as_it_stands():
    turned = TABLE + np.array([0] * 6 + [math.pi / 4, 0, 0])
    assert axis_aligned_bounds(turned, "zxy") == pytest.approx([0.5, -0.5, 0.4, math.sqrt(2), math.sqrt(2), 0.8])
    metrics, records = SCANREFER.score([question(TABLE)], [answer(turned)])
    assert metrics["miou"] == pytest.approx(1 / 2)  # 1 m^2 in 2 m^2
    octagon = 2 * (math.sqrt(2) - 1)
    assert metrics["oriented_miou"] == records[0]["oriented_iou"] == pytest.approx(octagon / (2 - octagon))


def test_a_truth_in_another_euler_order_is_the_same_solid():
    turned = np.array([0.5, -0.5, 0.4, 1.0, 0.6, 0.8, 0.3, 0.2, -0.4])
    sample = question(boxes=(target(turned, "ZXY"),))
    numbers, order = aligned_target(sample)
    assert order == "zxy" and np.allclose(box_corners(numbers, "zxy"), box_corners(turned, "ZXY"))
    metrics, _ = SCANREFER.score([sample], [answer(numbers)])
    assert metrics["oriented_miou"] == pytest.approx(1) and metrics["miou"] == pytest.approx(1)


def test_a_chosen_frame_stands_for_the_named_one():
    metrics, _ = find_benchmark("scanrefer_two_stage").score(
        [question(TABLE)], [json.dumps({"bbox_3d": in_camera(TABLE, 1)})], [1]
    )
    assert metrics["miou"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no box"),
        ("the table", "no box"),
        (json.dumps({"bbox_3d": in_camera(TABLE)}), "no frame"),
        (answer(TABLE, said=2), "outside 0..1"),
        (json.dumps({"frame": 0, "bbox_3d": [0, 0, 0, 1e60, 1, 1, 0, 0, 0]}), "no box of this world"),
        (json.dumps({"frame": 0, "bbox_3d": [0, 0, 0, 1e-40, 1, 1, 0, 0, 0]}), "no box of this world"),
        (json.dumps({"frame": 0, "bbox_3d": [1e300, 1e300, 0, 1, 1, 1, 0, 0, 0]}), "no box of this world"),
        (json.dumps({"frame": 0, "bbox_3d": [0, 0, 0, 1, 1, 1]}), "6 entries"),
        ('{"frame": 0, "bbox_3d": [NaN, 0, 0, 1, 1, 1, 0, 0, 0]}', ""),
    ],
)
def test_an_answer_that_cannot_be_read_is_wrong_and_counted(text, why):
    metrics, records = SCANREFER.score([question(TABLE), question(TABLE)], [text, answer(TABLE)])
    assert why in records[0]["rejected"] and records[0]["parsed"] is None and records[0]["iou"] == 0
    assert metrics["num_unparsed"] == 1 and metrics["miou"] == pytest.approx(0.5)


def test_nr3d_is_broken_down():
    kinds = ("easy_view-dep", "hard_view-indep", "hard_view-dep")
    samples = [question(TABLE, question_type=kind) for kind in kinds]
    metrics, records = find_benchmark("nr3d").score(samples, [answer(TABLE), answer(TABLE), answer(CHAIR)])
    shares = {kind: values["acc25"] for kind, values in metrics["per_type"].items()}
    assert shares == {"easy": 1, "hard": 0.5, "view-dep": 0.5, "view-indep": 1}
    assert [record["category"] for record in records] == list(kinds)


# Any number of objects


def test_sets_of_boxes_score_as_by_hand():
    ids = {"object_ids": [1, 2]}
    none = question(question_type="zt_wo_d", metadata={"object_ids": []})
    two = question(TABLE, CHAIR, question_type="mt", metadata=ids)
    one = question(TABLE, question_type="st_w_d", metadata={"object_ids": [7]})
    cases = [
        (two, listed(CHAIR, TABLE), 1, 1),
        (two, listed(TABLE), 2 / 3, 2 / 3),
        (two, listed(TABLE, moved(CHAIR, 0.25), CHAIR), 0.8, 0.8),
        (one, listed(moved(TABLE, 0.5)), 1, 0),
        (one, listed(moved(TABLE, 2)), 0, 0),
        (one, "[]", 0, 0),
        (none, "```json\n[\n\t\n]```", 1, 1),
        (none, listed(TABLE), 0, 0),
        (none, "There is none.", 0, 0),
        (one, '[{"bbox_3d": [0, 1]}, ' + listed(TABLE)[1:], 2 / 3, 2 / 3),
    ]
    samples, texts, f1_25, f1_50 = zip(*cases, strict=True)
    metrics, records = MULTI3DREFER.score(samples, texts)
    assert [record["f1_25"] for record in records] == pytest.approx(f1_25)
    assert [record["f1_50"] for record in records] == pytest.approx(f1_50)
    assert metrics["f1_25"] == pytest.approx(np.mean(f1_25)) and metrics["n"] == len(cases)
    assert metrics["per_type"]["zt_wo_d"]["f1_25"] == pytest.approx(1 / 3)
    assert metrics["num_unparsed"] == 1 and records[8]["rejected"] == "no object"
    assert records[6]["parsed"] == [] and records[6]["rejected"] is None
    assert records[9]["num_rejected_objects"] == 1 and len(records[9]["parsed"]) == 1
    assert metrics["oriented_f1_25"] == metrics["reference_f1_25"] == pytest.approx(metrics["f1_25"])


def test_lists_are_read_in_the_first_camera():
    in_second = json.dumps([{"bbox_3d": in_camera(TABLE, 1)}])
    metrics, _ = MULTI3DREFER.score([question(TABLE)], [in_second])
    assert metrics["f1_25"] == 0 and "per_type" not in metrics  # the file says none


def test_what_a_list_holds():
    assert read_boxes("[ ]") == ([], None) and read_boxes("none of them")[1] == "no object"
    assert read_boxes('[{"bbox_3d": [0, 0, 1')[1] == "cut off"
    assert read_boxes('[] or {"bbox_3d": [0]}')[0] is None
    absurd = '[{"bbox_3d": [0, 0, 0, 1e90, 1, 1, 0, 0, 0]}]'
    assert read_boxes(absurd) == ([None], None)
    assert MULTI3DREFER.score([question(TABLE)], [absurd])[0]["f1_25"] == 0


def test_the_constant_list_is_the_better_of_two():
    none = question(metadata={"object_ids": []})
    for samples, expected in (
        ([none, none, question(TABLE)], "[]"),
        ([none, question(TABLE), question(TABLE)], "box"),
    ):
        text = MULTI3DREFER.constant(samples)(none)
        assert (text == "[]") == (expected == "[]")
    assert MULTI3DREFER.score([question(TABLE)], [text])[0]["f1_50"] == 1
    assert MULTI3DREFER.constant([none])(none) == "[]"


# What cannot be scored


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match="'q' has no target box"):
        SCANREFER.check(question())
    with pytest.raises(RecordError, match="world_to_aligned is not there"):
        SCANREFER.check(question(TABLE, world_to_aligned=None))
    with pytest.raises(RecordError, match="no view has a pose"):
        SCANREFER.check(question(TABLE, views=(View(),)))
    with pytest.raises(ValueError, match="'q' means 2 objects and has 1 boxes"):
        MULTI3DREFER.check(question(TABLE, metadata={"object_ids": [1, 2]}))
    with pytest.raises(RecordError, match="view 0 has no pose"):
        MULTI3DREFER.check(question(TABLE, views=(View(),)))
    SCANREFER.check(question(TABLE))
    MULTI3DREFER.check(question())


def test_questions_without_truth_are_refused_before_they_are_asked(formats, cache_dir):
    with pytest.raises(FileNotFoundError, match="no posed frames"):
        load_questions(find_benchmark("scanrefer"), formats / "scanrefer", cache_dir=cache_dir)
    # worded as Video-3D-LLM does rows need no boxes, but their answers cannot be scored without
    options = {"posed_root": str(formats / "gap_mllm" / "data" / "media" / "scannet"), "prompt_style": "video3dllm"}
    with pytest.raises(ValueError, match="has no target box"):
        load_questions(find_benchmark("scanrefer"), formats / "scanrefer", cache_dir=cache_dir, **options)


def test_an_answer_is_drawn_where_it_was_scored():
    sample = question(boxes=(target([0.5, -0.5, 0.4, 1, 0.6, 0.8, 0.3, 0.2, -0.4], "ZXY"),), answer="as drawn")
    text = answer(aligned_target(sample)[0])
    _, (record,) = SCANREFER.score([sample], [text])
    drawn = with_answer(SCANREFER, sample, {**record, "text": text}).boxes[-1]
    assert (drawn.euler_order, drawn.frame) == ("zxy", "aligned")
    assert np.allclose(box_corners(drawn.numbers, "zxy"), box_corners(sample.boxes[0].numbers, "ZXY"))
