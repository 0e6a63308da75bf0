"""All that is measured of a tiny model on one set of rooms, in one metrics.json: `measure_rooms`.

    python examples/experiments/measure_rooms.py examples/assets/tiny_gap_mllm --output outputs/rooms

Parts are asked one after the other, while a second process renders the rooms of the next. Answers are kept as they
come, so that the same call goes on where it was stopped.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from room_measures.encoder_measure import NUM_ENCODER_ROOMS, measure_encoder
from room_measures.figures_table import figures_table
from room_measures.geometry_answers import OFF, OWN, answer_questions
from room_measures.room_parts import GROUPS, TASKS, AskedPart, plan_parts
from room_measures.room_sets import RoomKind, find_room_set
from room_measures.room_tasks import ROOM_TASKS
from tqdm import tqdm
from transformers import PreTrainedConfig

from gap_mllm.configuration_gap_mllm import GapMllmConfig, GapMllmVggtConfig
from gap_mllm.evaluation.baselines import BlindBaselines
from gap_mllm.evaluation.dense_points import evaluate_point_maps
from gap_mllm.evaluation.intervals import with_interval
from gap_mllm.evaluation.marked_pixel import score_marked_pixels
from gap_mllm.evaluation.runner.files import read_predictions, write_jsonl
from gap_mllm.evaluation.runner.models import load_model, model_fingerprint
from gap_mllm.evaluation.runner.plan import save_or_check_plan
from gap_mllm.model_loading import load_pretrained, model_folder
from gap_mllm.modeling_gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.pretraining_gap_mllm import GapMllmForPreTraining
from gap_mllm.processing.argument_checks import check_counts, check_device, check_names, check_output_folder
from gap_mllm.processing.asking_gap_mllm import Asker
from gap_mllm.processing.data.rooms.renderer import RoomScene
from gap_mllm.processing.metrics_file import load_metrics, save_metrics
from gap_mllm.vggt_heads_gap_mllm import GapMllmVggtForReconstruction


METRICS_FILE, BLIND = "metrics.json", "blind"


def measure_rooms(
    model_path: str | Path,
    output: str | Path = "outputs/rooms",
    rooms: str = "selection",
    limit: int | None = None,
    groups: Sequence[str] = GROUPS,
    batch_size: int = 16,
    seed: int = 0,
    device: str | None = None,
    num_baseline_rooms: int | None = None,
    in_second_process: bool = True,
) -> dict:
    """Measure a model on rendered rooms: every task, other wordings, sizes, numbers of views, styles.

    Of a geometry encoder with its heads points and poses are measured, see `evaluate_geometry_encoder`, on 256 rooms,
    and again, on one of four, in other sizes, numbers of views and styles.

    Blind baselines stand beside every figure. They are fitted on training rooms of the same kind, and see the
    question, of marked pixels their place, and no picture. Each part about sizes, views and styles asks about one room
    of four.
    Frame: camera of the first view, OpenCV axes. Units: metres.

    Args:
        model_path (`str` or path): folder, or repository of the Hub.
        output (`str` or path, defaults to "outputs/rooms"): folder for plan.json, answers/ and metrics.json; the same
            call again goes on, or reads what it found.
        rooms (`str`, defaults to "selection"): key of `ROOM_SETS`: "selection" to choose by, "test" with its frozen
            marks, "unseen" for last figures alone.
        limit (`int`, *optional*): the first rooms of the set, 2 or more; all by default.
        groups (`list[str]`, defaults to `GROUPS`): what is measured.
        batch_size (`int`, defaults to 16): questions of one call of generate().
        seed (`int`, defaults to 0): seed of the intervals.
        device (`str`, *optional*): where the model runs; CUDA where it is there.
        num_baseline_rooms (`int`, *optional*): training rooms that blind baselines are fitted on, 2 or more; by
            default 256, and 512 for an encoder.
        in_second_process (`bool`, defaults to True): whether rooms are rendered in a process of their own.
    Returns:
        `dict`: what metrics.json holds: by group and task or part the figures of "model", "other_geometry",
        "geometry_off" and "blind", each with its interval under "_ci95". Those of marked pixels are of
        `score_marked_pixels`, with the baselines in them; those of "dense" of `evaluate_point_maps`. `num_refused`
        counts questions that a room did not allow. Of an encoder the figures of `evaluate_geometry_encoder`, and
        those of the other groups' parts by their names.
    Raises:
        ValueError: for an unknown set or group, a number out of range, or a folder of another measurement.
            FileNotFoundError: if there is no such model.
    """
    room_set, output = find_room_set(rooms), check_output_folder("output", output)
    check_counts(2, limit=2 if limit is None else limit, num_baseline_rooms=num_baseline_rooms or 2)
    check_counts(batch_size=batch_size)
    check_names("groups", groups, GROUPS)
    device, folder = check_device(device), model_folder(model_path)
    is_encoder = PreTrainedConfig.get_config_dict(folder)[0].get("model_type") == GapMllmVggtConfig.model_type
    first, most, num_fitted = room_set.first, room_set.num_rooms, 256
    if is_encoder:
        first, most, num_fitted = room_set.first_of_encoder, NUM_ENCODER_ROOMS, 512
    num_rooms, num_baseline_rooms = min(limit or most, most), num_baseline_rooms or num_fitted
    told = {"model": model_fingerprint(folder), "rooms": rooms, "split": room_set.split, "first_room": first}
    told |= {"num_rooms": num_rooms, "num_baseline_rooms": num_baseline_rooms, "seed": seed, "batch_size": batch_size}
    output.mkdir(parents=True, exist_ok=True)
    save_or_check_plan(output, told)
    chosen = "" if limit is None else f" --limit {limit}"
    chosen += "" if tuple(groups) == GROUPS else f" --groups {' '.join(groups)}"
    told |= {"command": f"python examples/experiments/measure_rooms.py MODEL --rooms {rooms}{chosen}"}
    if (output / METRICS_FILE).is_file():
        finished = load_metrics(output / METRICS_FILE)
        if told.items() <= finished.items():
            return finished
    if device.type == "cpu":
        torch.set_num_threads(1)
    if is_encoder:
        encoder = load_pretrained(GapMllmVggtForReconstruction, folder, dtype="float32").to(device).eval()
        metrics = told | measure_encoder(encoder, output, room_set, num_rooms, groups, num_baseline_rooms, seed)
        save_metrics(metrics, output / METRICS_FILE)
        return metrics
    names = GapMllmConfig.from_pretrained(folder).architectures or ()
    kind = GapMllmForPreTraining if GapMllmForPreTraining.__name__ in names else GapMllmForConditionalGeneration
    measure = RoomMeasure(Asker(*load_model(folder, device, "float32", model_class=kind)), output, batch_size, seed)
    metrics, parts, fitted = dict(told), plan_parts(num_rooms, groups), {}
    pool = ProcessPoolExecutor(1, get_context("spawn")) if in_second_process else ThreadPoolExecutor(1)
    try:
        coming = (AskedPart.submit(pool, part, room_set, num_baseline_rooms, fitted) for part in parts)
        asked, bar = next(coming, None), tqdm(total=len(parts), desc="parts", disable=None)  # quiet in a pipe
        while asked is not None:
            following = next(coming, None)  # rendered while the model answers
            metrics.setdefault(asked.part.group, {}).update(measure.part(asked))
            bar.update()
            asked = following
        for group in measure.answers:
            metrics[group] |= measure.sum_up(group)
        if "dense" in groups:
            known, usual = fitted.get(RoomKind()), RoomKind().rooms(room_set.split)
            baselines = known.result() if known else RoomKind().fit_baselines(num_baseline_rooms)
            scenes = [usual.render(index)[0] for index in range(room_set.first, room_set.first + num_rooms)]
            metrics["dense"] = measure.dense(scenes, baselines)
    finally:
        pool.shutdown(cancel_futures=True)
    save_metrics(metrics, output / METRICS_FILE)
    return metrics


class RoomMeasure:
    """A model that is measured on parts; `answers` keeps, by group and part, one record a marked pixel.

    Args:
        asker (`Asker`): model and processor.
        output (`Path`): folder, under which answers/ keeps what was answered.
        batch_size (`int`), seed (`int`): see `measure_rooms`.
    """

    def __init__(self, asker: Asker, output: Path, batch_size: int, seed: int):
        self.asker, self.output, self.batch_size, self.seed = asker, output, batch_size, seed
        self.answers: dict[str, dict[str, list[dict]]] = {}

    def part(self, asked: AskedPart) -> dict:
        """Figures of a part: by task and geometry, or of its marked pixels by its name."""
        part, found = asked.part, {}
        for task in part.tasks:
            samples, num_refused = asked.questions(task)
            given = {}
            for geometry in part.geometries if samples else ():
                texts = self._answers(f"{part.group}-{part.name}-{task}-{geometry}", samples, task, geometry)
                given[geometry] = self._score(asked, task, samples, texts, geometry)
            if samples and ROOM_TASKS[task].blind:
                blind = ROOM_TASKS[task].blind(asked.questions(task, of_training=True)[0])
                given[BLIND] = ROOM_TASKS[task].score(samples, [blind(sample) for sample in samples], self.seed)
            found[task] = {"num_refused": num_refused, **given}
        return found if part.group == TASKS else {part.name: {"num_refused": num_refused, **given.get(OWN, {})}}

    def _answers(self, name, samples, task, geometry):
        """Answers to questions, kept in a file of their own."""
        path = self.output / "answers" / f"{name}.jsonl"
        if not path.is_file():
            texts = answer_questions(self.asker, samples, ROOM_TASKS[task].form, geometry, self.batch_size)
            write_jsonl(path, [{"id": each.id, "text": text} for each, text in zip(samples, texts, strict=True)])
        kept = read_predictions(path, [sample.id for sample in samples])
        return [kept[sample.id]["text"] for sample in samples]

    def _score(self, asked, task, samples, texts, geometry):
        if ROOM_TASKS[task].score:
            return ROOM_TASKS[task].score(samples, texts, self.seed)
        baselines = asked.baselines.result() if geometry == OWN else None
        figures, records = score_marked_pixels(texts, samples, baselines, self.seed)
        if asked.part.group != TASKS:
            self.answers.setdefault(asked.part.group, {})[asked.part.name] = records
        return figures

    def sum_up(self, group: str) -> dict:
        """Parse rate over all parts of a group; of wordings also their median error over that of each before."""
        by_part = self.answers[group]
        records = [record for part in by_part.values() for record in part]
        scenes, is_read = ([record[key] for record in records] for key in ("scene_id", "rejected"))
        figures = with_interval("parse_rate", [why is None for why in is_read], np.mean, scenes, self.seed)
        figures = {"together": {"n": len(records), **figures}}
        for name, part in by_part.items() if group == "wordings" else ():
            for before in list(by_part)[: list(by_part).index(name)]:
                errors = np.array([[each["error_m"] for each in by_part[which]] for which in (name, before)])

                def ratio(places: np.ndarray, errors: np.ndarray = errors):
                    above, below = np.median(errors[:, places.astype(int)], axis=1)
                    return above / below if np.isfinite(below) else np.inf  # no answer could be read before, either

                scenes = [record["scene_id"] for record in part]
                places = np.arange(len(part))
                figures["together"] |= with_interval(f"{name}_error_over_{before}", places, ratio, scenes, self.seed)
        return figures

    def dense(self, scenes: list[RoomScene], baselines: BlindBaselines) -> dict:
        """Points of the dense heads, with the right geometry, that of another room and none; empty without heads."""
        model, processor = self.asker.model, self.asker.processor
        if not isinstance(model, GapMllmForPreTraining):
            return {}
        options = {"seed": self.seed, "show_progress": False}
        found = evaluate_point_maps(model, processor, scenes, baselines, **options)
        with model.geometry_disabled():
            off = evaluate_point_maps(model, processor, scenes, with_shuffled_geometry=False, **options)
        return found | {f"{OFF}_{name}": value for name, value in off.items() if name != "n"}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Ask a model about rooms: marked pixels, detection, grounding, multiple choice and captions, with "
        "the right geometry, that of another room and none, and marked pixels in other wordings, sizes, numbers of "
        "views and styles; or measure points and poses of a geometry encoder. Every figure has a 95 %% interval. "
        "Needs no data. The same command again goes on.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder, or repository of the Hub")
    parser.add_argument("--output", default="outputs/rooms", metavar="DIR", help="folder for metrics.json and answers")
    parser.add_argument(
        "--rooms",
        default="selection",
        metavar="SET",
        help="selection (default), to choose by; test, with frozen marks; unseen, for last figures alone",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N rooms only")
    parser.add_argument(
        "--groups", nargs="+", metavar="NAME", help=f"of {', '.join(GROUPS)}; default: all", default=GROUPS
    )
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of the intervals")
    parser.add_argument("--device", help="such as cpu or cuda:0")
    parser.add_argument(
        "--num-baseline-rooms",
        type=int,
        metavar="N",
        help="training rooms to fit blind answers on; default: 256, of an encoder 512",
    )
    args = parser.parse_args(words)
    options = vars(args).copy()
    try:
        metrics = measure_rooms(options.pop("model"), **options)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    print(figures_table(metrics))
    print(f"wrote {args.output}/{METRICS_FILE}")


if __name__ == "__main__":
    main()
