"""Questions about photos as they are written on a command line, and their answers as they come."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from .scene_results_gap_mllm import SceneAnswer
from .scene_session_gap_mllm import SceneSession
from .visual_prompt_gap_mllm import Mark


def read_places(places: Sequence[str]) -> str | list[Path]:
    """Return views as `open_views` takes them: one place as it is, several as pictures.

    Raises ValueError for a folder among several.
    """
    folder = next((place for place in places if Path(place).is_dir()), None)
    if len(places) > 1 and folder is not None:
        raise ValueError(
            f"{folder} is a folder among {len(places)} places; give pictures, or one folder, or one video."
        )
    return places[0] if len(places) == 1 else [Path(place) for place in places]


def read_mark(text: str) -> Mark:
    """Return the mark that "VIEW,X,Y" names. Raises ValueError if these are no three whole numbers."""
    try:
        view, x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"--at is {text!r}; expected VIEW,X,Y in whole numbers, as 0,64,80: the view counted from 0, and a pixel "
            "of the upright picture."
        ) from None
    return Mark(view, (x, y))


def read_cameras(flag: str, text: str | None) -> list | dict | None:
    """Return intrinsics or poses as `open_views` takes them, from a JSON file or numbers on the command line.

    A file holds nested lists; or an object of file names with the matrix of each; or either of them as "intrinsics"
    (or "poses") of an object, which may state the "width" and "height" of the pictures they were measured on: see
    `read_intrinsics_size`. Numbers are "FX,FY,CX,CY" or "FX,FY,CX,CY,WIDTH,HEIGHT", of all pictures.

    Args:
        flag (`str`): flag to name in errors, "--intrinsics" or "--poses".
        text (`str`, *optional*): what was given for it.
    Returns:
        `list` of numbers or `dict` from file names to lists, *optional*: None without `text`; shapes are checked by
        `open_views`.
    Raises:
        FileNotFoundError: if it is neither numbers nor a file. ValueError: if the file holds none of these.
    """
    if text is None:
        return None
    numbers = _numbers(text) if flag == "--intrinsics" else None
    if numbers is not None:
        fx, fy, cx, cy = numbers[:4]
        return [[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]
    return _read_file(flag, text)[0]


def read_intrinsics_size(text: str | None) -> tuple[float, float] | None:
    """Return the width and height of the pictures that the intrinsics of `read_cameras` were measured on, if stated.

    Args:
        text (`str`, *optional*): what was given for --intrinsics.
    Returns:
        `tuple[float, float]`, *optional*: what `open_views` takes as `intrinsics_size`.
    Raises:
        FileNotFoundError, ValueError: as `read_cameras`.
    """
    if text is None:
        return None
    numbers = _numbers(text)
    return _read_file("--intrinsics", text)[1] if numbers is None else numbers[4:] or None


def _numbers(text):
    """Four or six numbers with commas between them, or None."""
    words = text.split(",")
    try:
        return tuple(float(word) for word in words) if len(words) in (4, 6) else None
    except ValueError:
        return None


def _read_file(flag, text):
    """(matrices, stated size or None) of a JSON file."""
    if not Path(text).is_file():
        expected = "FX,FY,CX,CY in pixels, or a JSON file" if flag == "--intrinsics" else "a JSON file"
        raise FileNotFoundError(f"{flag} is {text!r}, which is no file; expected {expected}.")
    try:
        told, size = json.loads(Path(text).read_text(encoding="utf-8-sig")), None
        name = flag.removeprefix("--")
        if isinstance(told, dict) and name in told:
            told, size = told[name], _stated_size(told)
        _check_matrices(told)
    except ValueError as error:
        raise ValueError(f"{flag} {text} holds no matrices as JSON lists: {error}.") from None
    return told, size


def _stated_size(told):
    sides = told.get("width"), told.get("height")
    if sides == (None, None):
        return None
    if not all(type(side) in (int, float) and side > 0 for side in sides):
        raise ValueError(f"its width and height are {sides}; expected two numbers of pixels")
    return sides


def _check_matrices(told):
    values = told.values() if isinstance(told, dict) else [told]
    if not told or not all(_is_list_of_numbers(value) for value in values):
        raise ValueError("it is no list of numbers, and no object of file names with one for each")


def _is_list_of_numbers(value):
    return value is None or (isinstance(value, list) and set(_leaves(value)) <= {int, float, type(None)})


def _leaves(value):
    """The kinds of what nested lists hold."""
    if isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    else:
        yield type(value)


def ask_session(
    session: SceneSession,
    questions: Sequence[str] = (),
    marks: Sequence[Mark] = (),
    descriptions: Sequence[str] = (),
    detects: bool = False,
    labels: Sequence[str] | None = None,
    constrained: bool = False,
    **options: object,
) -> Iterator[str | SceneAnswer]:
    """Ask a session several things; yield text to print as it comes, and each answer behind its text.

    Args:
        session (`SceneSession`): open session.
        questions (list of `str`): questions in words.
        marks (list of `Mark`): pixels; each is a question of its own.
        descriptions (list of `str`): objects to find.
        detects (`bool`, defaults to False): whether to ask for all objects; True where nothing else is asked.
        labels (list of `str`, *optional*): labels to keep of all objects, which are then asked for.
        constrained (`bool`, defaults to False): whether only valid answers are allowed, but for questions in words.
        **options: arguments of generate(), as `max_new_tokens`.
    Returns:
        `Iterator[str | SceneAnswer]`.
    Raises:
        ValueError, TypeError, ImportError: as the session's methods.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration, SceneSession
        >>> from gap_mllm.processing import GapMllmProcessor, Mark
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.photo_questions import ask_session
        >>> model = GapMllmForConditionalGeneration.from_pretrained(folder).eval()
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> with SceneSession(model, processor, list(render_room(0).images)) as scene:
        ...     told = list(ask_session(scene, ["Is there a bed?"], [Mark(0, (64, 96))], max_new_tokens=8))
        >>> [type(each).__name__ for each in told if not isinstance(each, str)]
        ['ScenePoints', 'SceneAnswer']

        ```
    """
    formed = options | ({"constrained": True} if constrained else {})
    if detects or labels is not None or not (questions or marks or descriptions):
        yield f"\n{'all objects' if labels is None else ', '.join(labels)}\n"
        stream = session.stream_boxes(labels, **formed)
        for box in stream:
            yield f"{box}\n"
        boxes = "".join(f"{box}\n" for box in stream.result)
        yield f"{stream.result}\n".removeprefix(boxes)
        yield stream.result
    for mark in marks:
        asked = f"pixel ({mark.pixel[0]}, {mark.pixel[1]}) of view {mark.view}"
        yield f"\n{asked}\n"
        found = replace(session.locate([mark], **formed), question=asked)
        yield f"{found}\n"
        yield found
    for description in descriptions:
        yield f"\n{description}\n"
        found = session.ground(description, **formed)
        yield f"{found}\n"
        yield found
    for question in questions:
        yield f"\n{question}\n"
        stream = session.stream(question, **options)
        yield from stream
        yield f"\n{stream.result}\n".replace(f"\n{stream.result.text}\n", "\n", 1)
        yield stream.result
