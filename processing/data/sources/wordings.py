"""How questions are worded: the prompts of all public sets and benchmarks, in the words of the code bases they name.

Sets: "video3dllm" is what Video-3D-LLM and 3DRS are trained on, "gap_mllm" GAP-MLLM's own, which prompts_gap_mllm.py
holds, "vgllm" VG-LLM's, which asks for frame and box at once. Benchmarks: "vsibench" is the wording of VSI-Bench
itself, of lmms-eval, VG-LLM and VLM-3R; "spatial_mllm", "geovr" and "lmms" (lmms-eval) are those of these projects.
`str.capitalize()` is theirs: it lowers all letters but the first.
"""

import re
from collections.abc import Sequence

from ...prompts_gap_mllm import GROUNDING_BOX_PROMPT, IMAGE_TAG, prompt_text
from ..record_errors import RecordError


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

LETTER_LINE = "Answer with the option's letter from the given choices directly."
WORD_LINE = "Please answer the question using a single word or phrase."
# Style -> prompt with options, prompt without.
VSIBENCH_PROMPTS = {
    "vsibench": (
        f"These are frames of a video.\n{{question}}\nOptions:\n{{options}}\n{LETTER_LINE}",
        f"These are frames of a video.\n{{question}}\n{WORD_LINE}",
    ),
    "spatial_mllm": (f"{{question}}\nOptions:\n{{options}}\n{LETTER_LINE}", f"{{question}}\n{WORD_LINE}"),
    "geovr": (
        "{question}\n{options}\nAnswer with ONLY the option's letter directly.",
        "{question}\nPlease answer the question ONLY using a single Arabic numeral.",
    ),
}
LETTER_STYLES = ("vgllm", "lmms")
# Set, style -> prompt. `prompt` is that of the file, with its options.
LETTER_PROMPTS = {
    ("cv_bench", "vgllm"): VSIBENCH_PROMPTS["vsibench"][0],
    ("cv_bench", "lmms"): "{note}\n{prompt}",
    ("blink", "vgllm"): f"{{disclaimer}}{{prompt}}\n{LETTER_LINE}",
    ("blink", "lmms"): "{note}{prompt}",
    ("mmsi", "mmsi"): f"{{question}}\n{LETTER_LINE} Enclose the option's letter within ``.",
}
LETTER_NOTE = "Note: You only need to respond with {letters} without providing any additional information.\n"
NOTED_LETTERS = ("A", "B", "C", "D", "E")  # lmms-eval names no more
DISCLAIMED = ("Art_Style", "Forensic_Detection", "Jigsaw")  # tasks of BLINK that VG-LLM puts the disclaimer before
DISCLAIMER = (
    "Disclaimer: This is not to make unfair assumptions about the people in the image and you just need to give your "
    "assessment on this question. You don't need to identify the real people. You just need to analyze based on the "
    "information I gave you.\n\n"
)
SPAR_BENCH_LINES = {"select": LETTER_LINE, "fill": WORD_LINE}
SPAR_BENCH_BOX_LINE = (
    "The values represent the bounding box coordinates normalized to a 0-1000 scale, with the top-left corner as the "
    "origin of the image."
)
SPAR_BENCH_BOX_TASKS = ("position_matching", "camera_motion_infer")
SPAR_BENCH_BARE_TASKS = ("view_change_infer",)  # says itself how to answer


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


def gap_mllm_question(
    task: str, num_views: int, description: str | None = None, location: Sequence[float] | None = None
) -> str:
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


def vsibench_prompt(question: str, options: list[str] | None = None, style: str = "vsibench") -> str:
    """Write the prompt of a VSI-Bench question, without the views.

    Args:
        question (`str`)
        options (`list[str]`, *optional*): options as "A. chair"; None or empty for a number.
        style (`str`, defaults to "vsibench"): a key of `VSIBENCH_PROMPTS`.
    Returns:
        `str`.
    """
    with_options, without = VSIBENCH_PROMPTS[style]
    template = with_options if options else without
    return template.format(question=question, options="\n".join(options or ()))


def letter_prompt(name: str, style: str, record: dict, options: list[str], question_type: str) -> str:
    """Write the prompt of a question of CV-Bench, BLINK or MMSI-Bench, without the pictures.

    Args:
        name (`str`), style (`str`): a key of `LETTER_PROMPTS`.
        record (`dict`): record of the file: question and, where the style wants it, prompt.
        options (`list[str]`): options as "A. 3".
        question_type (`str`): some of BLINK's have a disclaimer.
    Returns:
        `str`.
    """
    return LETTER_PROMPTS[name, style].format(
        question=record["question"].strip() if name == "mmsi" else record["question"],
        prompt=record.get("prompt"),
        options="\n".join(options),
        note=LETTER_NOTE.format(letters=", ".join(NOTED_LETTERS[: len(options)])),
        disclaimer=DISCLAIMER if question_type in DISCLAIMED else "",
    )


def bench_prompt(question: str, task: str, format_type: str) -> str:
    """Write the prompt of a SPAR-Bench question as lmms-eval has it, without the pictures.

    Differs: no line ends before the question, nor after that of "view_change_infer".

    Args:
        question (`str`), task (`str`)
        format_type (`str`): "select" or "fill".
    Returns:
        `str`.
    Raises:
        RecordError: on another format.
    """
    if task in SPAR_BENCH_BARE_TASKS:
        return question
    if format_type not in SPAR_BENCH_LINES:
        raise RecordError(f"expected select or fill, got {format_type!r}.", "format_type")
    if format_type == "fill":
        return f"{question}\n{WORD_LINE}"
    return f"{question}\n{SPAR_BENCH_BOX_LINE if task in SPAR_BENCH_BOX_TASKS else ''}\n{LETTER_LINE}"
