"""Duplicates of boxes: the first stays, the others are rejected with the reason."""

import pytest

from gap_mllm.processing import build_tiny_processor, format_boxes, parse_boxes
from gap_mllm.processing.boxes import LabelledBox, remove_duplicates


BED = (0, 0, 2, 2, 1, 1, 0, 0, 0)


def shifted(by, label="bed"):
    return LabelledBox(label, (by, *BED[1:]))  # overlap (2 - by) / (2 + by)


def test_later_boxes_of_one_label_go():
    answer = remove_duplicates([shifted(0), shifted(0.5), shifted(1.5), shifted(0, "sofa")], iou=0.5)
    assert answer.items == (shifted(0), shifted(1.5), shifted(0, "sofa"))
    assert answer.rejected[0].reason == "duplicate of object 0: overlap 0.60, at least 0.5"
    assert parse_boxes(answer.rejected[0].text).first == LabelledBox("bed", (0.5, *map(float, BED[1:])))
    assert [type(entry).__name__ for entry in answer.entries] == [
        "LabelledBox",
        "Rejection",
        "LabelledBox",
        "LabelledBox",
    ]


def test_only_boxes_that_stay_make_duplicates():
    chain = [shifted(0), shifted(0.5), shifted(1.0)]  # each overlaps its neighbour by 0.6, the ends by a third
    assert remove_duplicates(chain, iou=0.5).items == (shifted(0), shifted(1.0))


def test_labels_can_be_left_aside_and_the_threshold_counts():
    pair = [shifted(0), shifted(0, "sofa")]
    assert len(remove_duplicates(pair).items) == 2
    assert len(remove_duplicates(pair, across_labels=True).items) == 1
    assert len(remove_duplicates([shifted(0), shifted(0)], iou=1.0).items) == 1  # the very same
    assert remove_duplicates([]).items == ()


def test_what_was_rejected_before_stays_so():
    text = format_boxes(["bed"] * 2, [BED] * 2).replace("\n]", ',\n\t{"label": "x", "bbox_3d": [1]},\n\t{"la')
    answer = remove_duplicates(parse_boxes(text))
    assert [each.reason for each in answer.rejected][1:] == ["bbox_3d holds 1 entries, expected 9"]
    assert answer.truncated and len(answer.items) == 1


def test_processor_removes_them_on_demand():
    processor, text = build_tiny_processor(), format_boxes(["bed"] * 2, [BED] * 2)
    assert len(processor.post_process_boxes([text])[0].items) == 2
    removed = processor.post_process_boxes([text], duplicates_iou=0.5)[0]
    assert len(removed.items) == 1 and "duplicate" in removed.rejected[0].reason


@pytest.mark.parametrize(
    "iou, error", [(0, ValueError), (1.5, ValueError), (float("nan"), ValueError), ("half", TypeError)]
)
def test_bad_thresholds_are_refused(iou, error):
    with pytest.raises(error, match="iou is"):
        remove_duplicates([shifted(0)], iou=iou)
