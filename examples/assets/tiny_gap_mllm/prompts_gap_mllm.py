"""The questions: prompt texts per task, and chat messages with the views in the right places.

Detection and both grounding texts are word for word those that the released checkpoints were trained on.
"""

import json
import math
from collections.abc import Sequence

from .whole_text_gap_mllm import mend_text


SYSTEM_PROMPT = "You are a helpful assistant."
IMAGE_TAG = "<image>"

_BOX_FORMAT = (
    "The 3D bounding box format should be [x_center, y_center, z_center, x_size, y_size, z_size, yaw, pitch, roll]."
)
DETECTION_PROMPT = (
    "Detect the 3D bounding boxes in the camera coordinate system of the first frame.\n"
    'Output a json list where each entry contains the object name in "label" and its 3D bounding box in "box_3d".\n'
    f"{_BOX_FORMAT}"
)
GROUNDING_FRAME_PROMPT = (
    "\nLocalize the first clear frame in the video showing the object described in the text.\n"
    "Text: {description}\n"
    'Output a JSON dictionary with the frame index in "frame".\n'
)
GROUNDING_BOX_PROMPT = (
    "Localize the object described in the text.\n"
    "Text: {description}\n"
    'Output a JSON dictionary with the matched object\'s 3D bounding box in "bbox_3d" '
    "in the camera coordinate system of the first frame.\n"
    f"{_BOX_FORMAT}\n"
)
# Differs: wording not public. The record's own text goes before this template wherever there is one.
RECONSTRUCTION_PROMPT = (
    "A {color} cross marks one pixel in one of the frames.\n"
    'Output a JSON dictionary with the object name in "label" and the 3D point of the marked pixel in "pointmap" '
    "in the camera coordinate system of the first frame.\n"
    "The 3D point format should be [x, y, z]."
)
# Not of the release: several marks at once, which are numbered and named in order.
SPARSE_POINTS_PROMPT = (
    "Numbered crosses mark pixels in the frames: {crosses}.\n"
    "Output a json list with one entry for each cross, in the order of their numbers, where each entry contains the "
    'object name in "label" and the 3D point of the marked pixel in "pointmap" '
    "in the camera coordinate system of the first frame.\n"
    "The 3D point format should be [x, y, z]."
)
# Not of the release: points on a described object, from which masks grow.
SEGMENTATION_PROMPT = (
    "Find the object described in the text, and mark it with points on its surface.\n"
    "Text: {description}\n"
    'Output a json list where each entry contains the object name in "label" and a 3D point on the object in '
    '"pointmap" in the camera coordinate system of the first frame.\n'
    "The 3D point format should be [x, y, z]."
)
# Differs: wording not public for this model; this is the wording of the captioning data that it was trained with.
CAPTION_PROMPT = "\nCarefully watch the video and describe the object located at {location} in detail."

TASKS = (
    "reconstruction",
    "detection3d",
    "grounding_frame",
    "grounding_box",
    "dense_caption",
    "sparse_points",
    "reasoning_segmentation",
)
DESCRIBED = {  # what asks for the object of a text
    "grounding_frame": GROUNDING_FRAME_PROMPT,
    "grounding_box": GROUNDING_BOX_PROMPT,
    "reasoning_segmentation": SEGMENTATION_PROMPT,
}


def prompt_text(
    task: str,
    description: str | None = None,
    location: Sequence[float] | None = None,
    color: str = "red",
    decimals: int = 2,
    crosses: str | None = None,
) -> str:
    """Write the text of a question, without the views.

    Args:
        task (`str`): one of `TASKS`.
        description (`str`, *optional*): the object, for both grounding tasks and `reasoning_segmentation`.
        location (array-like of 3 floats, *optional*): centre of the object of `dense_caption`, in the camera frame of
            the first view, in metres.
        color (`str`, defaults to "red"): name of the mark's colour, for `reconstruction`.
        decimals (`int`, defaults to 2): digits of the location.
        crosses (`str`, *optional*): numbers and colours of the marks, for `sparse_points`; what `name_marks` gives.
    Returns:
        `str`: the text that follows the views.
    Raises:
        ValueError: if the task is unknown, its argument is missing, or the location is not 3 finite numbers.

    Example:
        ```python
        >>> from gap_mllm.processing import prompt_text
        >>> prompt_text("dense_caption", location=[0.504, 0.1, 2.0]).strip()
        'Carefully watch the video and describe the object located at [0.5, 0.1, 2.0] in detail.'

        ```
    """
    if task == "reconstruction":
        return RECONSTRUCTION_PROMPT.format(color=color)
    if task == "sparse_points":
        if not crosses:
            raise ValueError(
                "task 'sparse_points' needs `crosses`, its marks by name: name_marks(number_marks(marks)); or give "
                "the marks to build_messages of the processor."
            )
        return SPARSE_POINTS_PROMPT.format(crosses=crosses)
    if task == "detection3d":
        return DETECTION_PROMPT
    if task in DESCRIBED:
        if not description:
            raise ValueError(f"task {task!r} needs `description`, the text that names the object.")
        return DESCRIBED[task].replace("{description}", description)
    if task == "dense_caption":
        if location is None:
            raise ValueError("task 'dense_caption' needs `location`, the [x, y, z] of the object.")
        numbers = [float(value) for value in location]
        if len(numbers) != 3 or not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"location must be 3 finite numbers, got {numbers}.")
        rounded = [round(number, decimals) + 0.0 for number in numbers]  # + 0.0 turns -0.0 into 0.0
        return CAPTION_PROMPT.format(location=json.dumps(rounded))
    raise ValueError(f"unknown task {task!r}; known are {', '.join(TASKS)}.")


def build_messages(
    task: str,
    images: int | Sequence,
    prompt: str | None = None,
    answer: str | None = None,
    description: str | None = None,
    location: Sequence[float] | None = None,
    color: str = "red",
    decimals: int = 2,
    system: str | None = SYSTEM_PROMPT,
    crosses: str | None = None,
    preface: str | None = None,
) -> list[dict]:
    """Build the chat messages of one question about one scene.

    Args:
        task (`str`): one of `TASKS`.
        images (`int` or list): the number of views (placeholders are written), or the views themselves.
        prompt (`str`, *optional*): the record's own text, used instead of ours. It may place the views itself with
            `<image>` tags; else they come first, as the task has it.
        answer (`str`, *optional*): the assistant turn, for training.
        description, location, color, decimals, crosses: arguments of `prompt_text`.
        system (`str`, *optional*): the system turn; None leaves it out.
        preface (`str`, *optional*): text between the views and the question, as that of focal lengths.
    Returns:
        `list[dict]`: messages whose content is always a list of typed parts.
    Raises:
        TypeError: if `images` is a single picture or path.
        ValueError: if the task is unknown, its argument or the views are missing, or tags and views differ in number.

    Example:
        ```python
        >>> from gap_mllm.processing import build_messages
        >>> messages = build_messages("grounding_box", images=2, description="the chair at the window", answer="{}")
        >>> [turn["role"] for turn in messages]
        ['system', 'user', 'assistant']
        >>> [part["type"] for part in messages[1]["content"]]
        ['image', 'image', 'text']

        ```
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; known are {', '.join(TASKS)}.")
    if isinstance(images, bool | str) or not (isinstance(images, int) or hasattr(images, "__len__")):
        raise TypeError(f"images must be a list of views or their number, got one {type(images).__name__}.")
    num_views = images if isinstance(images, int) else len(images)
    if num_views < 1:
        raise ValueError(f"task {task!r} needs at least one view, got {num_views}.")
    if prompt is not None and IMAGE_TAG in prompt:
        head, tag, tail = prompt.rpartition(IMAGE_TAG)
        prompt = head + tag + (preface or "") + tail
        content = split_image_tags(prompt, images)
    else:
        text = prompt if prompt is not None else prompt_text(task, description, location, color, decimals, crosses)
        content = []
        for index, part in enumerate(_image_parts(images)):
            content += [_text_part(f"Frame-{index}: "), part] if task == "grounding_frame" else [part]
        content.append(_text_part((preface or "") + text))
    messages = [] if system is None else [{"role": "system", "content": [_text_part(system)]}]
    messages.append({"role": "user", "content": content})
    if answer is not None:
        messages.append({"role": "assistant", "content": [_text_part(answer)]})
    return messages


def number_views(text: str, num_views: int) -> str:
    """Put the views before a text, each with its number: "Frame-0: <image>Frame-1: <image>", then the text.

    Args:
        text (`str`): question; one that places the views itself stays as it is.
        num_views (`int`): number of views, counted from 0.
    Returns:
        `str`.
    """
    if IMAGE_TAG in text:
        return text
    tags = "".join(f"Frame-{view}: {IMAGE_TAG}" for view in range(num_views))
    return tags + ("" if text.startswith("\n") else "\n") + text


def split_image_tags(text: str, images: int | Sequence) -> list[dict]:
    """Turn a text with `<image>` tags, as the released records have it, into content parts.

    Args:
        text (`str`): the user's turn.
        images (`int` or list): the number of views, or the views themselves.
    Returns:
        `list[dict]`: image and text parts in order.
    Raises:
        ValueError: if tags and views differ in number; both are named.

    Example:
        ```python
        >>> from gap_mllm.processing import split_image_tags
        >>> split_image_tags("<image>How many chairs are there?", images=1)
        [{'type': 'image'}, {'type': 'text', 'text': 'How many chairs are there?'}]

        ```
    """
    views = _image_parts(images)
    pieces = text.split(IMAGE_TAG)
    if len(pieces) - 1 != len(views):
        raise ValueError(f"the text holds {len(pieces) - 1} {IMAGE_TAG} tags, but there are {len(views)} views.")
    parts = []
    for index, piece in enumerate(pieces):
        if piece:
            parts.append(_text_part(piece))
        if index < len(views):
            parts.append(views[index])
    return parts


def _text_part(text: str) -> dict:
    return {"type": "text", "text": mend_text(text, "chat")}


def _image_parts(images) -> list[dict]:
    if isinstance(images, int):
        return [{"type": "image"} for _ in range(images)]
    return [{"type": "image", "image": image} for image in images]
