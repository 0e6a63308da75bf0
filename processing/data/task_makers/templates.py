"""How questions are worded: several phrasings of each kind, as data, and the ways in which answers are asked for.

The first phrasing of the tasks of GAP-MLLM is the package's own prompt (prompts_gap_mllm.py), which the released
checkpoints know; all others are our wording. Words in braces are filled in by the makers.
"""

import json
from string import Formatter

import numpy as np

from ...prompts_gap_mllm import TASKS, prompt_text
from ..truth import LETTERS, Truth


_BOX_FORM = (
    "The 3D bounding box format should be [x_center, y_center, z_center, x_size, y_size, z_size, yaw, pitch, roll]."
)
_POINT_FORM = "The 3D point format should be [x, y, z]."

TEMPLATES: dict[str, tuple[str, ...]] = {
    "reconstruction": (
        "A {color} cross is drawn on one pixel of the frames.\n"
        'Name the object there in "label" and give the 3D point that the pixel shows in "pointmap", '
        f"in the camera coordinate system of the first frame, as a JSON dictionary.\n{_POINT_FORM}",
        "Look for the {color} cross in the frames. What is it on, and where is that point?\n"
        'Output a JSON dictionary with "label" and "pointmap", in the camera coordinate system of the first frame.\n'
        f"{_POINT_FORM}",
    ),
    "marked_point": (
        "A {color} cross marks one pixel in one of the frames.\n"
        'Output a JSON dictionary with the 3D point of the marked pixel in "pointmap" '
        f"in the camera coordinate system of the first frame.\n{_POINT_FORM}",
        "Where in space is the point under the {color} cross?\n"
        'Output a JSON dictionary with its position in "pointmap", in the camera coordinate system of the first '
        f"frame.\n{_POINT_FORM}",
    ),
    "sparse_points": (
        "These crosses, each with its number, are drawn on the frames: {crosses}.\n"
        'For each of them, in the order given, tell what it is on ("label") and which 3D point it shows ("pointmap"), '
        f"in the camera coordinate system of the first frame, as a json list.\n{_POINT_FORM}",
        "Look for the numbered crosses in the frames: {crosses}. What is each of them on, and where is that point?\n"
        'Output a json list with "label" and "pointmap" of each cross, in this order, in the camera coordinate system '
        f"of the first frame.\n{_POINT_FORM}",
    ),
    "marked_points": (
        "Numbered crosses mark pixels in the frames: {crosses}.\n"
        'Output a json list with one entry for each cross, in this order, that holds its 3D point in "pointmap" in '
        f"the camera coordinate system of the first frame.\n{_POINT_FORM}",
        "These crosses, each with its number, are drawn on the frames: {crosses}.\n"
        "Reconstruct the points that they mark, in the order given, in the camera coordinate system of the first "
        f'frame, as a json list of dictionaries with the key "pointmap".\n{_POINT_FORM}',
    ),
    "detection3d": (
        "Find every object that the frames show, in the camera coordinate system of the first frame.\n"
        'Output a json list where each entry contains the object name in "label" and its 3D bounding box in '
        f'"bbox_3d".\n{_BOX_FORM}',
        "List all objects in view with their 3D bounding boxes. The origin is the camera of the first frame.\n"
        f'Each entry of the json list has the keys "label" and "bbox_3d".\n{_BOX_FORM}',
    ),
    "reasoning_segmentation": (
        "Which object does the text describe?\nText: {description}\n"
        'Output a json list of points on its surface, each with the object name in "label" and the 3D point in '
        f'"pointmap" in the camera coordinate system of the first frame.\n{_POINT_FORM}',
        "Mark this object with points on what the frames show of it.\nText: {description}\n"
        'Output a json list with "label" and "pointmap" of each point, in the camera coordinate system of the first '
        f"frame.\n{_POINT_FORM}",
    ),
    "grounding_frame": (
        "\nWhich frame is the first to show the object described in the text clearly?\n"
        'Text: {description}\nOutput a JSON dictionary with the frame index in "frame".\n',
        "\nGo through the frames in order and stop at the first one with a clear view of this object.\n"
        'Text: {description}\nOutput a JSON dictionary with the index of that frame in "frame".\n',
    ),
    "grounding_box": (
        "Which object does the text describe?\nText: {description}\n"
        'Output a JSON dictionary with its 3D bounding box in "bbox_3d" in the camera coordinate system of the first '
        f"frame.\n{_BOX_FORM}\n",
        "Give the 3D bounding box of this object.\nText: {description}\n"
        'Output a JSON dictionary with the key "bbox_3d", in the camera coordinate system of the first frame.\n'
        f"{_BOX_FORM}\n",
    ),
    "dense_caption": (
        "\nWhat is located at {location} in the camera coordinate system of the first frame? Describe the object.",
        "\nOne object is located at {location} in the camera coordinate system of the first frame. Say what it is and "
        "where it stands.",
    ),
    "camera_distance": (
        "How far is the point under the {color} cross from the camera that took this frame?",
        "What is the straight distance between the {color} cross and the camera of the frame it is drawn in?",
        "A {color} cross marks a pixel. How far away from the camera is what it shows?",
    ),
    "point_distance": (
        "How far apart are the points under the {first} and the {second} cross?",
        "What is the straight distance in space between the two pixels marked by a {first} and a {second} cross?",
        "Measure from the {first} cross to the {second} cross: how long is the straight line between these points?",
    ),
    "object_distance": (
        "What is the distance between the center of {first} and the center of {second}?",
        "How far is the middle of {first} from the middle of {second}?",
        "Measured from center to center, how far apart are {first} and {second}?",
    ),
    "object_gap": (
        "What is the shortest distance between the 3D bounding boxes of {first} and {second}?",
        "How wide is the gap between the bounding box of {first} and that of {second}, where they come closest?",
        "Measured between the nearest points of their 3D bounding boxes, how far apart are {first} and {second}?",
    ),
    "closest_object": (
        "Which of these objects is closest to {anchor}? Measure between the nearest points of the bounding boxes.",
        "Among the objects listed, which one has the smallest gap to {anchor}?",
        "One of these objects is nearest to {anchor}. Which one?",
    ),
    "object_size": (
        "What is the longest dimension (length, width or height) of {name}?",
        "How long is the longest side of the bounding box of {name}?",
        "Of the length, width and height of {name}, how large is the largest?",
    ),
    "object_height": (
        "How tall is {name}, from its lowest to its highest point?",
        "What is the height of {name}?",
        "How much does {name} measure from bottom to top?",
    ),
    "object_count": (
        'How many objects of the kind "{name}" do the frames show?',
        'Count the objects called "{name}" in these frames. Each one counts once, however many frames show it.',
        'Over all frames together, how many different objects labelled "{name}" can be seen?',
    ),
    "depth_order": (
        "In {view}, crosses mark pixels: {colors}. In which order are these points, from nearest to the camera to "
        "farthest?",
        "Sort the points under the {colors} crosses in {view} by their distance from its camera, the nearest first.",
        "Which order of the crosses in {view} ({colors}) goes from near to far, seen from the camera of that frame?",
    ),
    "nearest_object": (
        "Which of these objects is nearest to the camera in {view}?",
        "In {view}, which of the objects listed is closest to the camera?",
        "Seen from the camera of {view}, which of these objects is the nearest?",
    ),
    "left_right": (
        "In {view}, is {first} to the left or to the right of {second}?",
        "Looking at {view}: on which side of {second} does {first} appear?",
        "Where is {first} in the picture of {view}, relative to {second}?",
    ),
    "near_far": (
        "In {view}, is {first} nearer to the camera than {second}, or farther away?",
        "Compare the distances from the camera of {view}: where is {first}, relative to {second}?",
        "Seen from the camera of {view}, how does the distance of {first} compare with that of {second}?",
    ),
    "front_behind": (
        "Seen from the camera of {view}, is {first} in front of {second} or behind it?",
        "In {view}, does {first} stand in front of {second} or behind it, as the camera sees them?",
        "Looking from where {view} was taken, where is {first} relative to {second}?",
    ),
    "above_below": (
        "Is {first} above or below {second}?",
        "With respect to the vertical, where is {first} relative to {second}?",
        "Does {first} lie above {second} or below it?",
    ),
    "higher_lower": (
        "Is {first} higher above the floor than {second}, or lower?",
        "Compare heights above the floor: where is {first}, relative to {second}?",
        "Which holds for {first}: is it higher up or lower down than {second}?",
    ),
    "facing_direction": (
        "If I stand at {position} and face {facing}, where is {target}, seen from above?",
        "Imagine standing at the place of {position} and looking towards {facing}. In which direction is {target}?",
        "From {position}, with {facing} straight ahead, in which direction does {target} lie?",
    ),
    "camera_motion": (
        "From {before} to {after}, in which direction did the camera mainly move, seen from the camera of {before}?",
        "How did the position of the camera change between {before} and {after}? Directions are those of the camera "
        "of {before}.",
        "Which way was the camera carried from {before} to {after}, as seen in {before}?",
    ),
    "camera_turn": (
        "From {before} to {after}, in which direction did the camera mainly turn?",
        "Compare where the camera looks in {before} and in {after}: which way was it turned?",
        "Which rotation takes the view of {before} towards that of {after}, seen from the camera of {before}?",
    ),
    "camera_path": (
        "How far is the camera of {before} from the camera of {after}?",
        "What is the straight distance between the places where {before} and {after} were taken?",
        "By how much did the position of the camera change between {before} and {after}?",
    ),
    "camera_angle": (
        "By which angle do the viewing directions of {before} and {after} differ?",
        "How large is the angle between the directions in which the camera looks in {before} and in {after}?",
        "Between {before} and {after}, by how many degrees did the viewing direction of the camera change?",
    ),
    "farthest_view": (
        "Which of these frames was taken farthest from the place of {view}?",
        "Among the frames listed, where was the camera farthest from where it was in {view}?",
        "Compare the places of the camera: which of these frames is the farthest away from {view}?",
    ),
    "object_view": (
        "Which of these objects can be seen in {view}?",
        "{view_start} shows only one of these objects. Which one?",
        "Of the objects listed, which one is visible in {view}?",
    ),
    "view_of_object": (
        "Which of these frames shows {name}?",
        "In which of the frames listed is {name} visible?",
        "Only one of these frames has {name} in view. Which one?",
    ),
    "appearance_order": (
        "In which order do these objects first appear in the frames: {names}?",
        "Go through the frames in order. When are {names} seen for the first time, relative to each other?",
        "Sort by first appearance in the frames: {names}.",
    ),
    "occlusion": (
        "In {view}, which of these objects hides a part of {name} from the camera?",
        "A part of {name} cannot be seen in {view}. Which object stands in front of it?",
        "Which object partly covers {name} in {view}?",
    ),
    "point_match": (
        "The red cross in {before} marks a point. Which cross in {after} marks the same point in space?",
        "One of the crosses in {after} is on the place that the red cross in {before} shows. Which one?",
        "Find the point under the red cross of {before} again among the crosses in {after}.",
    ),
}

NUMBER_ENDINGS = (  # how a number is asked for, and whether its unit is written
    ("\nAnswer with a plain number in {unit}.", False),
    ("\nGive the answer as one number, in {unit}.", False),
    ("\nAnswer with the number and its unit ({unit}).", True),
)
COUNT_ENDINGS = ("\nAnswer with a plain number.", "\nGive the count as one number.")
CHOICE_ENDING = "\nOptions:\n{options}\nAnswer with the option's letter from the given choices directly."
PHRASINGS = ("all", "first")


def num_phrasings(kind: str) -> int:
    """How many phrasings a kind of question has, the package's own prompt included; KeyError for unknown kinds."""
    return len(TEMPLATES[kind]) + (kind in TASKS)


def template_words(kind: str) -> set[str]:
    """The words in braces that the phrasings of a kind take together."""
    return {name for text in TEMPLATES[kind] for _, name, _, _ in Formatter().parse(text) if name}


def phrase(kind: str, rng: np.random.Generator, phrasings: str = "all", **words) -> tuple[str, str]:
    """Word a question.

    Args:
        kind (`str`): key of `TEMPLATES`.
        rng (`numpy.random.Generator`): chooses the phrasing; one number is drawn in any case.
        phrasings (`str`, defaults to "all"): "all", or "first" for the first always.
        **words: words for the braces; `location` of captions as 3 numbers.
    Returns:
        `tuple` of the name of the phrasing, such as "detection3d/1", and the text.
    Raises:
        KeyError: if the kind is unknown or a word is missing.
        ValueError: if `phrasings` is another word.
    """
    if phrasings not in PHRASINGS:
        raise ValueError(f"phrasings is {phrasings!r}; expected one of {', '.join(PHRASINGS)}.")
    number = int(rng.integers(num_phrasings(kind)))
    number = number if phrasings == "all" else 0
    return f"{kind}/{number}", phrasing_text(kind, number, **words)


def phrasing_text(kind: str, number: int, **words) -> str:
    """Fill in one phrasing, by its number; raises as `phrase`, and IndexError for a number that is not there."""
    if kind in TASKS:
        if number == 0:
            return prompt_text(kind, **words)
        number -= 1
    if "location" in words:
        words["location"] = json.dumps([round(float(value), 2) + 0.0 for value in words["location"]])
    if "view" in words:
        words["view_start"] = words["view"][0].upper() + words["view"][1:]
    return TEMPLATES[kind][number].format(**words)


def number_answer(value: float, unit: str, decimals: int, rng: np.random.Generator) -> dict:
    """The fields of a `Draft` for a number: how it is asked for, as text with or without its unit, and as a number.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.processing.data.task_makers import number_answer
        >>> truth = number_answer(1.234, "m", 2, np.random.default_rng(0))["truth"]
        >>> truth.number, truth.unit, truth.decimals
        (1.234, 'm', 2)

        ```
    """
    ending, with_unit = NUMBER_ENDINGS[int(rng.integers(len(NUMBER_ENDINGS)))]
    truth = Truth("number", number=value, unit=unit if with_unit else None, decimals=decimals)
    return {"ending": ending.format(unit=unit), "truth": truth}


def count_answer(count: int, rng: np.random.Generator) -> dict:
    """The fields of a `Draft` for a count.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.processing.data.task_makers import count_answer
        >>> count_answer(3, np.random.default_rng(0))["truth"].number
        3

        ```
    """
    ending = COUNT_ENDINGS[int(rng.integers(len(COUNT_ENDINGS)))]
    return {"ending": ending, "truth": Truth("number", number=count, decimals=0)}


def choice_answer(true_option: str, others: list[str], rng: np.random.Generator) -> dict:
    """The fields of a `Draft` for a choice: options in random order, and the letter of the true one.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.processing.data.task_makers import choice_answer
        >>> choice_answer("chair", ["bed", "table"], np.random.default_rng(0))["choices"]
        ('A. table', 'B. chair', 'C. bed')

        ```
    """
    options = [true_option, *others]
    order = rng.permutation(len(options))
    choices = tuple(f"{letter}. {options[int(place)]}" for letter, place in zip(LETTERS, order, strict=False))
    index = int(np.flatnonzero(order == 0)[0])
    ending = CHOICE_ENDING.format(options="\n".join(choices))
    return {"ending": ending, "truth": Truth("choice", choice=index), "choices": choices}


__all__ = [
    "CHOICE_ENDING",
    "COUNT_ENDINGS",
    "NUMBER_ENDINGS",
    "PHRASINGS",
    "TEMPLATES",
    "choice_answer",
    "count_answer",
    "num_phrasings",
    "number_answer",
    "phrase",
    "phrasing_text",
    "template_words",
]
