"""A folder of photographs of one place, asked about by marked pixels; what is true nobody knows."""

from pathlib import Path

from PIL import Image
from transformers import PreTrainedModel

from ..processing.data.scene_sample import SceneMark, SceneSample, View
from ..processing.drawing import AnswerExample
from ..processing.processing_gap_mllm import GapMllmProcessor
from ..processing.visual_prompt_gap_mllm import to_rgb_image


LONGEST_SIDE = 1024  # pixels; larger ones are made smaller, which no model here sees
NUM_NAMED = 5  # files that are left out, by name


def open_photographs(folder: str | Path, num_views: int = 4) -> tuple[dict[str, Image.Image], list[str]]:
    """Open up to so many photographs, spread over the names in a folder.

    Args:
        folder (`str` or `Path`): folder of pictures, of one place; other files are passed over and told.
        num_views (`int`, defaults to 4): most pictures that are taken.
    Returns:
        `tuple[dict[str, PIL.Image.Image], list[str]]`: upright pictures by file name, at most 1024 pixels long, and
        sentences about what was left out.
    Raises:
        NotADirectoryError: if there is no such folder. FileNotFoundError: if it holds no picture that can be read.

    Example:
        ```python
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from gap_mllm.evaluation import open_photographs
        >>> Path("photographs").mkdir()
        >>> Image.new("RGB", (1600, 1200)).save("photographs/one.jpg")
        >>> open_photographs("photographs")[0]["one.jpg"].size
        (1024, 768)

        ```
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder. Give a folder of photographs of one place.")
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    pictures = [path for path in files if path.suffix.lower() in known]
    told, opened, tried = _about_others([path for path in files if path not in pictures]), {}, set()
    count = min(num_views, len(pictures))
    for start in (round(i * (len(pictures) - 1) / max(count - 1, 1)) for i in range(count)):
        for path in pictures[start:] + pictures[:start]:  # one that is broken gives way to the next
            if path in tried:
                continue
            tried.add(path)
            try:
                picture = to_rgb_image(path).copy()
                picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
                opened[path.name] = picture
                break
            except (ValueError, Image.DecompressionBombError) as error:
                told.append(f"left out: {path.name}: {error}")
    if not opened:
        raise FileNotFoundError(
            f"{folder} holds no pictures that can be read (such as .jpg, .png or .webp). {' '.join(told)}".strip()
        )
    if len(pictures) > len(tried):
        told.append(f"{len(opened)} of {len(pictures)} pictures are taken, spread over the folder")
    return dict(sorted(opened.items())), told


def _about_others(files):
    """What is no picture by its name."""
    if not files:
        return []
    names = ", ".join(path.name for path in files[:NUM_NAMED]) + (", ..." if len(files) > NUM_NAMED else "")
    return [f"left out, no pictures that can be opened: {names}"]


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

    Example:
        ```python
        >>> from PIL import Image
        >>> from gap_mllm import GapMllmForConditionalGeneration
        >>> from gap_mllm.evaluation import answer_photographs
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> model = GapMllmForConditionalGeneration.from_pretrained(folder).eval()
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> len(answer_photographs(model, processor, {"one.jpg": Image.new("RGB", (128, 128), "white")}))
        1

        ```
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


__all__ = ["answer_photographs", "open_photographs"]
