"""How large the requests of a run are, told from headers and texts, for an engine that makes room before it starts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from ...processing.asking_gap_mllm import AnswerForm
from ...processing.data.scene_sample import View
from ...processing.data.video_frames import frame_files, read_video_frames
from ...processing.processing_gap_mllm import GapMllmProcessor
from ...processing.prompts_gap_mllm import as_trained
from ..benchmarks import Benchmark
from .plan import view_set
from .questions import QuestionSet, question_messages


@dataclass(frozen=True)
class RequestSizes:
    """The largest that is asked in a run.

    Args:
        prompt_tokens (`int`): tokens of the longest prompt, its views among them.
        longest_id (`str`): question that it belongs to.
        total_tokens (`int`): tokens of the longest prompt with the bound of its answer.
        num_views (`int`): views of a prompt at most.
        view_size (`tuple[int, int]`): width and height of a view after the processor's resizing, in pixels: of those
            that are shown the smallest of which `num_views` are as many tokens as the views of any prompt.
    """

    prompt_tokens: int
    longest_id: str
    total_tokens: int
    num_views: int
    view_size: tuple[int, int]


def measure_requests(benchmark: Benchmark, questions: QuestionSet, processor: GapMllmProcessor) -> RequestSizes:
    """Measure the requests of a benchmark; no picture is decoded, and of a video its first frame alone.

    Baselines show what the model is shown, or less, so that its requests are the largest. Of a video as many frames
    are counted as are taken of a long one.

    Args:
        benchmark (`Benchmark`), questions (`QuestionSet`): what is asked.
        processor (`GapMllmProcessor`): the model's processor, which resizes views.
    Returns:
        `RequestSizes`.
    Raises:
        ValueError: if a flow of the benchmark's own does not say what it shows, or a view cannot be resized.
    """
    if benchmark.ask is not None and benchmark.requests is None:
        raise ValueError(
            f"the benchmark {benchmark.name!r} asks in a flow of its own, and does not say what that shows "
            "(`requests`), which the engine vllm must know before it starts. Take the engine transformers."
        )
    longest, total, num_views, most, sizes = (0, ""), 0, 0, 0, set()
    for row_id, form, chat, views in _requests(benchmark, questions, processor):
        try:
            resized = [resized_view(processor, size) for size in views]
        except ValueError as error:
            raise ValueError(f"question {row_id!r} shows a view that cannot be resized: {error}") from None
        tokens = [view_tokens(processor, size) for size in resized]
        text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        written = len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        prompt = written - len(views) + sum(tokens)  # of each view one token is written
        longest = max(longest, (prompt, row_id))
        total = max(total, prompt + form.max_new_tokens)
        num_views, most = max(num_views, len(views)), max(most, sum(tokens))
        sizes.update(resized)
    enough = [(view_tokens(processor, size), size) for size in sizes]
    enough = [each for each in enough if each[0] * num_views >= most]
    return RequestSizes(*longest, total, num_views, min(enough)[1] if enough else (0, 0))


def resized_view(processor: GapMllmProcessor, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a view, in pixels, after the processor's resizing."""
    image = processor.image_processor
    bounds, cell = image.size, image.patch_size * image.merge_size
    height, width = smart_resize(size[1], size[0], cell, bounds["shortest_edge"], bounds["longest_edge"])
    return width, height


def view_tokens(processor: GapMllmProcessor, size: tuple[int, int]) -> int:
    """Image tokens of a view of that width and height, after resizing."""
    image = processor.image_processor
    cell = image.patch_size * image.merge_size
    return (size[0] // cell) * (size[1] // cell)


def _requests(benchmark, questions, processor) -> Iterator[tuple[str, AnswerForm, list[dict], list[tuple]]]:
    """Id, form, chat and sizes of the views of all that may be asked."""
    if benchmark.ask is None:
        of_videos = {}
        for sample in questions:
            views = [view.size for view in sample.views]
            if not views and sample.video:
                if sample.video not in of_videos:
                    of_videos[sample.video] = _frame_sizes(sample.video, questions.frames.num_frames)
                views = of_videos[sample.video]
            yield sample.id, benchmark.forms[0], question_messages(as_trained(sample, processor), views), views
        return
    scenes = {}
    for sample in questions:
        scenes.setdefault(view_set(sample), []).append(sample.id)
    for ids in scenes.values():
        samples = [questions.sample(row_id, with_frames=True) for row_id in ids]
        for row_id, form, chat, views in benchmark.requests(benchmark.forms, samples):
            yield row_id, form, chat, [view.size for view in views]


def _frame_sizes(video, num_frames):
    """Sizes of frames of a video, or the largest pictures of a folder, as many as may be taken."""
    if not Path(video).is_dir():
        return [read_video_frames(video, [0])[0].image.size] * num_frames
    sizes = [View(picture=str(file)).size for file in frame_files(video)]
    return sorted(sizes, key=lambda size: size[0] * size[1])[-num_frames:]
