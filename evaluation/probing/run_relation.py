"""Whether the samples of an evaluation are answered better where a model's tokens know which spots are the same."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm
from transformers import PreTrainedModel

from ...processing.data.source_files import iter_jsonl, read_json
from ...processing.processing_gap_mllm import GapMllmProcessor
from ..benchmarks import find_benchmark, on_rooms
from ..runner.plan import PLAN_FILE
from ..runner.questions import load_questions, question_messages
from ..runner.results import METRICS_FILE
from .correspondence import correspondence_score
from .probed_scenes import has_depth
from .task_relation import relate_to_task
from .token_targets import token_targets_of
from .visual_states import VisualStates


def relate_run(
    model: PreTrainedModel,
    processor: GapMllmProcessor,
    run: str | Path,
    data_dir: str | Path | None = None,
    layers: Sequence[int] | None = None,
    voxel_size_m: float = 0.1,
    batch_size: int = 8,
    cache_dir: str | Path | None = None,
    show_progress: bool = True,
) -> tuple[dict, list[dict]]:
    """Relate the correspondence score of each sample of a run to what its answer was worth, at each place of a model.

    The samples are read again as they were asked, with their marks. Those whose views have no depth or poses, or show
    no spot twice, have no score and are left out. Source: 3DRS (arXiv:2506.01946).

    Args:
        model (`GapMllmForConditionalGeneration`): model in evaluation mode, the one that answered.
        processor (`GapMllmProcessor`): processor of the model.
        run (`str` or path): folder of `evaluate_model` or `gap-mllm evaluate`.
        data_dir (`str` or path, *optional*): folder of the benchmark's data.
        layers (sequence of `int`, *optional*): indices of hidden states; by default the last.
        voxel_size_m (`float`, defaults to 0.1): side of a spot in metres, see `correspondence_score`.
        batch_size (`int`, defaults to 8): samples at once.
        cache_dir (`str` or path, *optional*): cache of `datasets`.
        show_progress (`bool`, defaults to True): whether to show a bar.
    Returns:
        `tuple[dict, list[dict]]`: "benchmark", "value" (field of the answers' records that is related, "error_m",
        "iou" or "score"), "places", for each what `relate_to_task` gives; and a record for each sample: its id,
        value, and the score at each place.
    Raises:
        FileNotFoundError: if the folder holds no finished run. ValueError: if questions, pictures or geometry are
            not those of the run, or as `relate_to_task`.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration
        >>> from gap_mllm.evaluation import relate_run
        >>> from gap_mllm.evaluation.runner import evaluate_model
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> options = {"num_train": 0, "num_test": 4, "show_progress": False}
        >>> _ = evaluate_model(folder, "synthetic_rooms", output="run", baselines=[], with_report=False, **options)
        >>> model = GapMllmForConditionalGeneration.from_pretrained(folder).eval()
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> related, records = relate_run(model, processor, "run", voxel_size_m=0.5, show_progress=False)
        >>> related["value"], len(records), len(related["places"]["layer_6"]["groups"])
        ('error_m', 8, 4)

        ```
    """
    run = check_run(run)
    metrics, options = read_json(run / METRICS_FILE), read_json(run / PLAN_FILE)["options"]
    bench = find_benchmark(metrics["benchmark"])
    bench = on_rooms(bench) if metrics.get("data") else bench
    asked, _ = load_questions(
        bench, data_dir, metrics["split"], metrics["limit"], metrics["seed"], cache_dir, **options
    )
    changed = [name for name, value in asked.fingerprints().items() if metrics.get(name) != value]
    if changed:
        raise ValueError(f"{', '.join(changed)} are not those of the run in {run}; give the data that it was about.")
    answers = {record["id"]: float(record[bench.shown]) for _, record in iter_jsonl(run / "predictions.jsonl")}
    states, records = VisualStates(model, processor, [-1] if layers is None else layers), []
    for start in tqdm(range(0, len(asked), batch_size), desc="samples", disable=not show_progress):
        samples = [asked.sample(row_id) for row_id in asked.ids[start : start + batch_size]]
        nothing = dict.fromkeys(states.places, float("nan"))
        batch = {sample.id: {"id": sample.id, "value": answers[sample.id], **nothing} for sample in samples}
        shown = [sample for sample in samples if sum(map(has_depth, sample.views)) > 1]
        images = [sample.marked_images(processor.cross_size) for sample in shown]
        chats = [question_messages(sample, each) for sample, each in zip(shown, images, strict=True)]
        read, grids = states(images, chats) if shown else ({}, [])
        for number, sample in enumerate(shown):
            targets = token_targets_of(sample.views, grids[number])
            for place, tokens in read.items():
                points, views = (each.to(tokens[number].device) for each in (targets.points, targets.views))
                score = correspondence_score(tokens[number], points, views, voxel_size_m=voxel_size_m)
                batch[sample.id][place] = score.voxel_mean
        records += batch.values()
    values = [record["value"] for record in records]
    places = {place: relate_to_task([record[place] for record in records], values) for place in states.places}
    return {"benchmark": metrics["benchmark"], "value": bench.shown, "places": places}, records


def check_run(run: str | Path) -> Path:
    """Return the folder of a run. Raises FileNotFoundError if it holds no finished one."""
    for name in (METRICS_FILE, PLAN_FILE, "predictions.jsonl"):
        if not (Path(run) / name).is_file():
            raise FileNotFoundError(f"{run} holds no {name}; expected the folder of a finished gap-mllm evaluate.")
    return Path(run)
