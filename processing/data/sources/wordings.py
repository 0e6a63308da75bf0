"""How questions on ScanNet's text sets are worded, one named set of templates for each line of models.

The wording of "video3dllm" is that which Video-3D-LLM and 3DRS are trained on. "gap_mllm" is GAP-MLLM's own, which
prompts_gap_mllm.py holds. "vgllm" is VG-LLM's, which asks for frame and box at once. `str.capitalize()` is theirs: it
lowers all letters but the first.
"""

import re

from ...prompts_gap_mllm import GROUNDING_BOX_PROMPT, IMAGE_TAG, prompt_text


PROMPT_STYLES = ("video3dllm", "gap_mllm", "vgllm")
GROUND_TOKEN = "<ground>"  # the answer of "video3dllm": which proposal it stands for is not text

# The tag becomes one for each view.
VIDEO3DLLM_PROMPTS = {
    "grounding": "<image>Identify the object according to the following description.\n{description}",
    "grounding_any_number": (
        "<image>Identify the object according to the following description.\n{description}\n"
        "There may be no corresponding object, or there may be one or more objects."
    ),
    "dense_caption": "<image> Given an object located at <coord> , describe the object in detail.",
    "scene_qa": "<image> {question} Answer the question simply.",
    "situated_qa": "<image> {situation} {question} Answer the question using a single word or phrase.",
}
VGLLM_GROUNDING_PROMPT = (
    "\nLocalize the first clear frame in the video showing the object described in the text.\n"
    "Text: {description}\n"
    'Output a JSON dictionary with the frame index in "frame" and its 3D bounding box in "bbox_3d" in the frame\'s '
    "coordinates.\n"
)
# Differs: no model of this line was trained on such questions; the wording is ours, near that of its other boxes.
ANY_NUMBER_PROMPT = (
    "Localize all objects described in the text.\n"
    "Text: {description}\n"
    "There may be no corresponding object, or there may be one or more objects.\n"
    'Output a JSON list where each entry contains the 3D bounding box of one object in "bbox_3d" in the camera '
    "coordinate system of the first frame. Output an empty list if there is none.\n"
    f"{GROUNDING_BOX_PROMPT.rstrip().splitlines()[-1]}\n"
)


def video3dllm_question(kind: str, num_views: int, **texts) -> str:
    """Write a question as Video-3D-LLM words it.

    Args:
        kind (`str`): a key of `VIDEO3DLLM_PROMPTS`.
        num_views (`int`): the tag that stands for the scene is written so often; without views the text begins with
            its first word.
        **texts (`str`): the fields of the template. A description is capitalised as there.
    Returns:
        `str`.
    Raises:
        KeyError: if there is no such kind, or a field of it is not given.
    """
    template = VIDEO3DLLM_PROMPTS[kind]
    if "description" in texts:
        texts["description"] = texts["description"].capitalize()
    text = re.sub(r"\{(\w+)\}", lambda field: texts[field.group(1)], template.removeprefix(IMAGE_TAG))
    return IMAGE_TAG * num_views + text if num_views else text.lstrip()


def gap_mllm_question(task: str, num_views: int, description: str | None = None, location=None) -> str:
    """Write a question as GAP-MLLM words it, with one tag for each view, numbered where a frame is asked for.

    Frame: the location is in the camera of view 0. Units: metres.

    Args:
        task (`str`): "grounding_frame", "grounding_box", "dense_caption", or "grounding_any_number", which asks for
            the boxes of all objects that a description fits.
        num_views (`int`), description (`str`, *optional*), location (3 floats, *optional*): see `prompt_text`.
    Returns:
        `str`.
    Raises:
        ValueError: as `prompt_text`.
    """
    tags = numbered_tags(num_views) if task == "grounding_frame" else IMAGE_TAG * num_views
    text = None if description is None else description.capitalize()
    if task == "grounding_any_number":
        return tags + ANY_NUMBER_PROMPT.replace("{description}", text)
    return tags + prompt_text(task, description=text, location=location)


def vgllm_question(num_views: int, description: str) -> str:
    """Ask as VG-LLM does for the view that shows an object and its box in that view's camera, in one answer.

    Args:
        num_views (`int`): written as numbered tags, from 0.
        description (`str`): capitalised as there.
    Returns:
        `str`.
    """
    return numbered_tags(num_views) + VGLLM_GROUNDING_PROMPT.replace("{description}", description.capitalize())


def numbered_tags(num_views: int) -> str:
    """A tag for each view behind its number, as both lines write them where an answer names a view."""
    return "".join(f"Frame-{index}: {IMAGE_TAG}" for index in range(num_views))


__all__ = [
    "ANY_NUMBER_PROMPT",
    "GROUND_TOKEN",
    "PROMPT_STYLES",
    "VGLLM_GROUNDING_PROMPT",
    "VIDEO3DLLM_PROMPTS",
    "gap_mllm_question",
    "numbered_tags",
    "vgllm_question",
    "video3dllm_question",
]
