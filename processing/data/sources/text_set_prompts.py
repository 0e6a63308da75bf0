"""How questions on ScanNet's text sets are worded, one named set of templates for each line of models.

The wording of "video3dllm" is that which Video-3D-LLM and 3DRS are trained on. "gap_mllm" is GAP-MLLM's own, which
prompts_gap_mllm.py holds. `str.capitalize()` is theirs: it lowers all letters but the first.
"""

import re

from ...prompts_gap_mllm import IMAGE_TAG, prompt_text


PROMPT_STYLES = ("video3dllm", "gap_mllm")
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
        task (`str`): "grounding_frame", "grounding_box" or "dense_caption".
        num_views (`int`), description (`str`, *optional*), location (3 floats, *optional*): see `prompt_text`.
    Returns:
        `str`.
    Raises:
        ValueError: as `prompt_text`.
    """
    if task == "grounding_frame":
        tags = "".join(f"Frame-{index}: {IMAGE_TAG}" for index in range(num_views))
    else:
        tags = IMAGE_TAG * num_views
    text = None if description is None else description.capitalize()
    return tags + prompt_text(task, description=text, location=location)


__all__ = ["GROUND_TOKEN", "PROMPT_STYLES", "VIDEO3DLLM_PROMPTS", "gap_mllm_question", "video3dllm_question"]
