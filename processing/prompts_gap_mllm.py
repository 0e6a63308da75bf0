"""The questions: prompt texts per task, and chat messages with the views in the right places.

Detection and both grounding texts are word for word those that the released checkpoints were trained on.

Also several marks in one question, numbered, coloured and named in that order, and the sentence that gives the focal
lengths of the views.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from .input_checks_gap_mllm import mend_text
from .visual_prompt_gap_mllm import Mark, as_marks


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


def focal_lengths(
    image_processor, sizes: Sequence[tuple[int, int]], intrinsics: Sequence, bounds: dict[str, int] | None = None
) -> list[int]:
    """Return the horizontal focal length of each view after the image processor's resizing.

    Units: pixels of the resized view; the vertical one follows from its sides where pixels were square.

    Args:
        image_processor (`BaseImageProcessor`): image processor, which says how it resizes.
        sizes (list of pairs): width and height of each view, as given to the processor.
        intrinsics (array-like of shape `(3, 3)` or `(V, 3, 3)`): cameras in pixels of these views.
        bounds (`dict[str, int]`, *optional*): `shortest_edge` and `longest_edge` instead of the processor's.
    Returns:
        `list[int]`: one for each view, rounded.
    Raises:
        ValueError: if the shape is none of these, a focal length is not positive and finite, or a view cannot be
            resized.

    Example:
        ```python
        >>> from gap_mllm.processing import GapMllmProcessor, focal_lengths
        >>> processor = GapMllmProcessor.from_pretrained(folder)  # its views are made 128 x 128 pixels
        >>> focal_lengths(processor.image_processor, [(640, 640)], [[500, 0, 319.5], [0, 500, 319.5], [0, 0, 1]])
        [100]

        ```
    """
    cameras = np.asarray(intrinsics, np.float64)
    if cameras.shape == (3, 3):
        cameras = np.broadcast_to(cameras, (len(sizes), 3, 3))
    if cameras.shape != (len(sizes), 3, 3):
        raise ValueError(
            f"intrinsics has shape {cameras.shape}; expected (3, 3), or ({len(sizes)}, 3, 3) for {len(sizes)} views."
        )
    bounds, cell = bounds or image_processor.size, image_processor.patch_size * image_processor.merge_size
    found = []
    for view, ((width, height), camera) in enumerate(zip(sizes, cameras, strict=True)):
        if not (np.isfinite(camera[0, 0]) and camera[0, 0] > 0):
            raise ValueError(f"the focal length of view {view} is {camera[0, 0]}; expected pixels above 0.")
        _, resized = smart_resize(height, width, cell, bounds["shortest_edge"], bounds["longest_edge"])
        found.append(round(float(camera[0, 0]) * resized / width))
    return found


def focal_text(focal_px: Sequence[int]) -> str:
    """Write the sentence that stands before a question.

    Args:
        focal_px (list of `int`): focal length of each view, in pixels.
    Returns:
        `str`: one number where all are equal.

    Example:
        ```python
        >>> from gap_mllm.processing import focal_text
        >>> focal_text([100, 100]), focal_text([100, 120])
        ('The focal length of the frames is 100 pixels.\\n', 'The focal lengths of the frames are 100, 120 pixels.\\n')

        ```
    """
    if len(set(focal_px)) == 1:
        return f"The focal length of the frames is {focal_px[0]} pixels.\n"
    return f"The focal lengths of the frames are {', '.join(map(str, focal_px))} pixels.\n"


def insert_focal_text(question: str, focal_px: Sequence[int]) -> str:
    """Put the sentence before a question, behind the views where it places them itself.

    Args:
        question (`str`): text, perhaps with `<image>` tags.
        focal_px (list of `int`): focal lengths, see `focal_text`.
    Returns:
        `str`.
    """
    head, tag, tail = question.rpartition(IMAGE_TAG)
    break_line = "\n" if tag and tail.startswith("\n") else ""
    return head + tag + break_line + focal_text(focal_px) + tail.removeprefix(break_line)


def tell_focal_lengths(sample, processor, bounds: dict[str, int] | None = None):
    """Put the focal lengths of its views into the question of a sample.

    Args:
        sample (`SceneSample`): question about views with intrinsics.
        processor (`GapMllmProcessor`): the model's processor.
        bounds (`dict[str, int]`, *optional*): see `focal_lengths`.
    Returns:
        `SceneSample`: the same where it shows no views.
    Raises:
        ValueError: if a view has no intrinsics, or as `focal_lengths`; names the sample.
    """
    if not sample.views:
        return sample
    lacking = [index for index, view in enumerate(sample.views) if view.intrinsics is None]
    if lacking:
        raise ValueError(
            f"{sample.id}: view {lacking[0]} has no intrinsics, which intrinsics_in_prompt writes; leave such rows "
            "out, or do without."
        )
    sizes, cameras = zip(*[(view.size, view.intrinsics) for view in sample.views], strict=True)
    focal_px = focal_lengths(processor.image_processor, sizes, cameras, bounds)
    return replace(sample, question=insert_focal_text(sample.question or "", focal_px))


def as_trained(sample, processor):
    """A question as the model was trained on such: with focal lengths, where its processor says so.

    Args:
        sample (`SceneSample`): question. processor (`GapMllmProcessor`): the model's processor.
    Returns:
        `SceneSample`: the same, or that of `tell_focal_lengths`, which also says what it raises.
    """
    return tell_focal_lengths(sample, processor) if processor.intrinsics_in_prompt else sample
