"""Several marks in one question: numbered and coloured so that they are told apart, and named in that order.

Each carries its number, which tells it from the others without any colour. Drawing is in visual_prompt_gap_mllm.py.
"""

from collections.abc import Sequence

from .visual_prompt_gap_mllm import Mark, as_marks


# In an order in which neighbours differ in brightness, too, and red and green, which look alike to many, are apart.
NUMBERED_COLORS = ("red", "yellow", "blue", "cyan", "magenta", "white", "orange", "green")


def number_marks(marks: Sequence, num_views: int | None = None) -> list[Mark]:
    """Give each of several marks its number, and a colour where it comes without one.

    Args:
        marks (list of `Mark`, or of [view, x, y] triples): pixels of any views, in the order of the answer. Marks keep
            their colours, triples take `NUMBERED_COLORS` in turn.
        num_views (`int`, *optional*): number of views of the scene, to check the marks' views.
    Returns:
        `list[Mark]`: with "1", "2" and so on as `text`, for `apply_visual_prompt`.
    Raises:
        ValueError: if there is no mark, one is none of these forms or on a view that is not there, or two are on one
            pixel.

    Example:
        ```python
        >>> from gap_mllm.processing import name_marks, number_marks
        >>> marks = number_marks([[0, 40, 30], [1, 12, 90]], num_views=2)
        >>> marks[1]
        Mark(view=1, pixel=(12.0, 90.0), color='yellow', text='2')
        >>> name_marks(marks)
        '1 (red), 2 (yellow)'

        ```
    """
    given, numbered, places = as_marks(marks), [], {}
    if not given:
        raise ValueError("there are no marks; give one or more, each as Mark or [view, x, y].")
    colored = {id(entry) for entry in ([marks] if hasattr(marks, "pixel") else marks) if hasattr(entry, "pixel")}
    for number, mark in enumerate(given, 1):
        if num_views is not None and not 0 <= mark.view < num_views:
            raise ValueError(
                f"mark {number} is on view {mark.view}, but the scene has {num_views} views (counted from 0)."
            )
        place = (mark.view, tuple(float(value) for value in mark.pixel))
        if place in places:
            raise ValueError(
                f"marks {places[place]} and {number} are both on pixel {place[1]} of view {mark.view}; give each one "
                "once."
            )
        places[place] = number
        color = mark.color if id(mark) in colored else NUMBERED_COLORS[(number - 1) % len(NUMBERED_COLORS)]
        numbered.append(Mark(mark.view, mark.pixel, color, str(number)))
    return numbered


def name_marks(marks: Sequence) -> str:
    """Name numbered marks as a question does: "1 (red), 2 (yellow)"; colours without a name are left out.

    Args:
        marks (list of `Mark` or `SceneMark`): marks with `text` and `color`.
    Returns:
        `str`: `crosses` of `prompt_text`.

    Example:
        ```python
        >>> from gap_mllm.processing import build_messages, name_marks, number_marks
        >>> crosses = name_marks(number_marks([[0, 40, 30], [1, 12, 90]]))
        >>> messages = build_messages("sparse_points", images=2, crosses=crosses)
        >>> messages[-1]["content"][-1]["text"].splitlines()[0]
        'Numbered crosses mark pixels in the frames: 1 (red), 2 (yellow).'

        ```
    """
    return ", ".join(f"{mark.text} ({mark.color})" if isinstance(mark.color, str) else mark.text for mark in marks)


__all__ = ["NUMBERED_COLORS", "name_marks", "number_marks"]
