"""Rooms that stand in for others: what we generate can always be asked about, and what was drawn anew is counted."""

from collections.abc import Callable

from ..cannot_ask import CannotAskError


MAX_DRAWS = 32  # rooms in a row; where every second one shows no furniture, 32 fail once in four thousand millions


def first_askable(draw: Callable, on_redraw: Callable | None = None):
    """Return what the first of several draws gives about which everything can be asked.

    Args:
        draw (`Callable`): `draw(attempt)` for 0, 1, ..: makes something from the room of that attempt (see
            `layout.room_seed`), from nothing else that changes, so that the outcome is always the same. Raises
            CannotAskError where the views of that room do not show what is asked for.
        on_redraw (`Callable`, *optional*): called with each CannotAskError after which another room is drawn.
    Returns:
        what `draw` returns.
    Raises:
        CannotAskError: if `MAX_DRAWS` rooms in a row cannot be asked about.

    Example:
        ```python
        >>> from gap_mllm.processing.data import first_askable, make_question, render_room, room_seed
        >>> def draw(attempt):
        ...     return make_question(render_room(room_seed("train", 7, attempt)), "grounding_box")
        >>> first_askable(draw).task
        'grounding_box'

        ```
    """
    for attempt in range(MAX_DRAWS):
        try:
            return draw(attempt)
        except CannotAskError as error:
            last = error
            if on_redraw is not None:
                on_redraw(error)
    raise CannotAskError(
        f"{MAX_DRAWS} rooms in a row cannot be asked about; the last: {last} Ask for more views, larger pictures or "
        "other tasks.",
        last.reason,
    )
