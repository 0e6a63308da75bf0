"""A folder of photographs of one place, asked about by marked pixels; there is no ground truth."""

from pathlib import Path

from PIL import Image
from transformers import PreTrainedModel

from gap_mllm.processing.data.scene_sample import SceneMark, SceneSample, View
from gap_mllm.processing.drawing import AnswerExample
from gap_mllm.processing.processing_gap_mllm import GapMllmProcessor
from gap_mllm.processing.view_files_gap_mllm import folder_views
from gap_mllm.processing.visual_prompt_gap_mllm import to_rgb_image


LONGEST_SIDE = 1024  # pixels; larger ones are made smaller, which no model here sees


def open_photographs(folder: str | Path, num_views: int = 4) -> tuple[dict[str, Image.Image], list[str]]:
    """Open up to so many photographs, spread over the names in a folder.

    Args:
        folder (`str` or `Path`): folder of pictures of one place; `folder_views` chooses them.
        num_views (`int`, defaults to 4): most pictures that are taken.
    Returns:
        `tuple[dict[str, PIL.Image.Image], list[str]]`: upright pictures by file name, at most 1024 pixels long, and
        sentences about what was left out.
    Raises:
        NotADirectoryError: if there is no such folder. FileNotFoundError: if it holds no picture that can be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder. Give a folder of photographs of one place.")
    try:
        found = folder_views(folder)
    except ValueError as error:
        raise FileNotFoundError(str(error)) from None
    opened, notes, tried = {}, list(found.notes), set()
    count = min(num_views, len(found.pictures))
    for start in (round(i * (len(found.pictures) - 1) / max(count - 1, 1)) for i in range(count)):
        for path in found.pictures[start:] + found.pictures[:start]:  # one that is broken gives way to the next
            if path in tried:
                continue
            tried.add(path)
            try:
                opened[path.name] = _open_small(path)
                break
            except (ValueError, ImportError, Image.DecompressionBombError) as error:
                notes.append(f"left out: {path.name}: {error}")
    if not opened:
        raise FileNotFoundError(f"{folder} holds no pictures that can be read. {'. '.join(notes)}")
    if len(found.pictures) > len(tried):
        notes.append(f"{len(opened)} of {len(found.pictures)} pictures are taken, spread over the folder")
    return {path.name: opened[path.name] for path in found.pictures if path.name in opened}, notes


def _open_small(path):
    picture = to_rgb_image(path).copy()
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return picture


def answer_photographs(
    model: PreTrainedModel, processor: GapMllmProcessor, photographs: dict[str, Image.Image]
) -> list[AnswerExample]:
    """Mark the middle of each photograph and ask what is there; all photographs are shown, as views of one place.

    Args:
        model (`GapMllmForConditionalGeneration`): model in evaluation mode.
        processor (`GapMllmProcessor`): its processor.
        photographs (`dict[str, PIL.Image.Image]`): pictures by name.
    Returns:
        `list[AnswerExample]`: one a photograph, without truth, for `draw_answers`.
    """
    views = tuple(View(picture=picture, image_path=name) for name, picture in photographs.items())
    examples = []
    for index, picture in enumerate(photographs.values()):
        mark = SceneMark(index, "cross", "red", (picture.width // 2, picture.height // 2))
        question = SceneSample(id=f"photograph {index + 1}", task="reconstruction", views=views, marks=(mark,))
        shown = question.marked_images(processor.cross_size)
        text = processor.ask(model, [processor.build_messages("reconstruction", shown)], "reconstruction")[0]
        examples.append(AnswerExample(None, question, text))
    return examples
