"""Boxes that a model wrote twice, found by their exact overlap."""

from collections.abc import Sequence

from .answers_gap_mllm import LabelledBox, ParsedAnswer, Rejection, as_answer, format_boxes
from .input_checks_gap_mllm import check_number
from .scores.exact_iou import box_iou_9dof


def remove_duplicates(
    boxes: ParsedAnswer | Sequence[LabelledBox], iou: float = 0.5, across_labels: bool = False
) -> ParsedAnswer[LabelledBox]:
    """Remove boxes that overlap an earlier one of the same label; what is removed is rejected, with the reason.

    The first in text order stays: answers tell no confidence. A box that overlaps only removed ones stays, too.
    Frame: any, the same for all boxes. Units: metres and radians.

    Args:
        boxes (`ParsedAnswer`, or list of `LabelledBox`): what `parse_boxes` gave, or boxes.
        iou (`float`, defaults to 0.5): least intersection over union of duplicates, above 0 and at most 1.
        across_labels (`bool`, defaults to False): whether boxes of different labels are compared as well.
    Returns:
        `ParsedAnswer[LabelledBox]`: boxes that stay, and the rejected ones, earlier rejections among them.
    Raises:
        ValueError: if `iou` is no number above 0 and up to 1, or as `box_iou_9dof`. TypeError: if it is no number.

    Example:
        ```python
        >>> from gap_mllm.processing.boxes import LabelledBox, remove_duplicates
        >>> bed, again = [0, 0, 2, 2, 1, 1, 0, 0, 0], [0.1, 0, 2, 2, 1, 1, 0, 0, 0]
        >>> answer = remove_duplicates([LabelledBox("bed", bed), LabelledBox("bed", again)])
        >>> len(answer.items), answer.rejected[0].reason
        (1, 'duplicate of object 0: overlap 0.90, at least 0.5')

        ```
    """
    if check_number("iou", iou, 0, 1) == 0:
        raise ValueError("iou is 0, from which all boxes would be duplicates; expected a number above 0, up to 1.")
    answer = boxes if isinstance(boxes, ParsedAnswer) else as_answer(boxes)
    entries = answer.entries or answer.items
    items = [item for item in entries if not isinstance(item, Rejection)]
    overlaps = box_iou_9dof(*[[item.bbox_3d for item in items]] * 2, "zxy", all_pairs=True)
    kept, place, checked = [], -1, []
    for entry in entries:
        if isinstance(entry, Rejection):
            checked.append(entry)
            continue
        place += 1
        rivals = [each for each in kept if across_labels or items[each].label == entry.label]
        best = max(rivals, key=lambda each: overlaps[place, each], default=None)
        if best is not None and overlaps[place, best] >= iou:
            text = format_boxes([entry.label], [entry.bbox_3d]).splitlines()[2].strip()
            reason = f"duplicate of object {best}: overlap {overlaps[place, best]:.2f}, at least {iou:g}"
            checked.append(Rejection(text, reason))
        else:
            kept.append(place)
            checked.append(entry)
    return as_answer(checked, answer.truncated)
