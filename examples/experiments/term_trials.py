"""Each term of the loss alone: trained, beside its head on a frozen random model, and beside a constant answer.

`python examples/experiments/term_trials.py --output outputs/term_trials` trains a tiny model without a geometry
encoder (with `--geometry` around the trained one, frozen in both arms) on rendered rooms, by one term at a time and
not by text, and measures what its head says of rooms never trained on. It writes one table, as JSON and markdown; a
term that is in it is not trained again, `--terms` names some.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from term_measures import MEASURES, TermMeasure
from transformers import set_seed

from gap_mllm.configuration_gap_mllm import GapMllmVggtConfig
from gap_mllm.evaluation.intervals import bootstrap_interval
from gap_mllm.pretraining_gap_mllm import GapMllmForPreTraining
from gap_mllm.processing.argument_checks import check_names
from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.processing.data.rooms.furniture import FURNITURE
from gap_mllm.processing.tiny_tokenizer import build_tiny_processor
from gap_mllm.training import (
    GeometryAlignedTrainer,
    GeometryAlignedTrainingArguments,
    SceneCollator,
    set_training_heads,
)
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from gap_mllm.training.terms import make_terms
from gap_mllm.training.train_geometry_aligned import build_model, new_config


MODEL = {
    "use_geometry": False,
    "text_config": {
        **{"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 3},
        **{"num_key_value_heads": 3, "head_dim": 32, "initializer_range": 0.08, "tie_word_embeddings": True},
        "rope_parameters": {
            **{"rope_type": "default", "rope_theta": 10000},
            **{"mrope_section": [6, 5, 5], "mrope_interleaved": True},
        },
    },
    "vision_config": {
        **{"depth": 3, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 96},
        **{"deepstack_visual_indexes": [0, 1, 2], "num_position_embeddings": 64, "initializer_range": 0.08},
    },
}
VARIETY = RoomVariety(((128, 128),), (1.0,), (4,), (1.0,), color_strength=0.0, shuffle_views=False)
FUSION = {"gap_fusion_config": {"merger_hidden_size": 96, "init": "reference", "initializer_range": 0.08}}
RATES = {"vision": 0.002, "mergers": 0.002, "language": 0.001, "heads": 0.002, "point_maps": 0.002, "fusion": 0.002}
OWNERS = {"normals": "depth", "field_of_view": "camera"}  # of the heads that these terms read
ALMOST_NONE = 1e-6  # weight of a term that is there for its head alone
NUM_FOR_CONSTANTS = 128  # training rooms


@dataclass(frozen=True)
class Rooms:
    """Batches of rooms, made once for all trials.

    Args:
        train (`list[dict]`): batches of several rooms, to train on.
        single (`list[dict]`): batches of one of them, from which constants are made.
        test (`list[dict]`): batches of one room never trained on.
    """

    train: list[dict]
    single: list[dict]
    test: list[dict]


def trial_terms(encoder: str) -> dict[str, dict]:
    """Settings of each term that is tried.

    Voxels are of 0.5 m, as views have 4 x 4 tokens. The scale to be told is that of lengths over the mean distance of
    the room's points, as the recorded unit is always the metre.

    Args:
        encoder (`str`): folder of the teacher that distils.
    Returns:
        `dict[str, dict]`.
    """
    size = GapMllmVggtConfig.from_pretrained(encoder).feature_size
    return {
        "point_map": {},
        "distillation": {"teacher": {"name": "vggt", "path": encoder}, "feature_size": size},
        "depth": {"side": 4, "features": 16},
        "normals": {},
        "camera": {"head_size": 256},
        "field_of_view": {},
        "metric_scale": {"head_size": 256, "teacher": {"name": "recorded", "normalise": True}},
        "correspondence": {"voxel_size_m": 0.5},
        "consistency": {"voxel_size_m": 0.5},
        "shape": {},
        "region_text": {"negatives": sorted(FURNITURE)},
        "relations": {},
        "label_map": {"negatives": sorted(FURNITURE)},
    }


def terms_alone(name: str, settings: Mapping[str, dict]) -> dict[str, dict]:
    """A term with weight 1, after the one whose head it reads."""
    owner = OWNERS.get(name)
    needed = {} if owner is None else {owner: {**settings[owner], "weight": ALMOST_NONE}}
    return {**needed, name: {**settings[name], "weight": 1.0}}


def make_model(args: argparse.Namespace) -> GapMllmForPreTraining:
    """The tiny model at random, with `geometry` around the trained encoder."""
    set_seed(args.seed)
    if args.geometry:
        return build_model({**MODEL, **FUSION, "use_geometry": True}, args.encoder, build_tiny_processor())
    return GapMllmForPreTraining._from_config(new_config(MODEL, build_tiny_processor()), dtype="float32")


def make_arguments(output: Path, terms: dict[str, dict], steps: int, seed: int) -> GeometryAlignedTrainingArguments:
    """Arguments of a training by terms alone."""
    return GeometryAlignedTrainingArguments(
        str(output / "trainer"),
        terms=terms,
        text_weight=0.0,
        module_learning_rates=RATES,
        max_steps=steps,
        per_device_train_batch_size=1,  # an item is a batch
        lr_scheduler_type="cosine",
        warmup_steps=20,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=seed,
    )


def make_rooms(args: argparse.Namespace, settings: Mapping[str, dict]) -> Rooms:
    """Rooms of the splits "train" and "test" with the targets of all terms."""
    terms = {name: {**told, "weight": 1.0} for name, told in settings.items()}
    model = make_model(args)
    teaching = set_training_heads(model, make_arguments(args.output, terms, args.steps, args.seed))
    side = model.config.point_map_side
    collate = SceneCollator(
        build_tiny_processor(), "block_mask", for_pretraining=True, point_map_side=side, teaching=teaching
    )
    train, test = (_draw(split, count) for split, count in (("train", args.rooms), ("test", args.test_rooms)))
    batches = [collate(train[start : start + args.batch_size]) for start in range(0, len(train), args.batch_size)]
    return Rooms(batches, [collate([room]) for room in train[:NUM_FOR_CONSTANTS]], [collate([room]) for room in test])


def _draw(split, count):
    questions = RoomQuestionDataset(RenderedRooms(split, count, VARIETY), RoomQuestions({"reconstruction": 1}))
    return [questions[index] for index in range(count)]


def train_term(
    name: str, settings: Mapping[str, dict], rooms: Rooms, args: argparse.Namespace, is_frozen: bool
) -> np.ndarray:
    """Train by one term, and measure the test rooms.

    Args:
        name (`str`): name of the term.
        settings (`Mapping[str, dict]`): settings of all terms.
        rooms (`Rooms`): batches.
        args (`argparse.Namespace`): steps, seed and output.
        is_frozen (`bool`): whether the head alone is trained, and the model stays as it was drawn.
    Returns:
        `np.ndarray` of shape `(measures, rooms)`.
    """
    model = make_model(args)
    arguments = make_arguments(args.output, terms_alone(name, settings), args.steps, args.seed)
    set_training_heads(model, arguments, teach=False)
    trainer = GeometryAlignedTrainer(
        model, arguments, train_dataset=rooms.train, data_collator=lambda items: dict(items[0])
    )
    for parameter_name, parameter in model.named_parameters() if is_frozen else ():
        parameter.requires_grad_(parameter_name.startswith(("training_heads.", "point_map_heads.")))
    trainer.train()
    term = trainer.terms[name]
    model.eval()
    found = []
    for batch in rooms.test:
        with torch.no_grad():
            _, outputs = trainer.compute_terms(model, dict(batch))
        prediction = outputs.point_maps["language"] if name == "point_map" else outputs.head_outputs[term.head]
        found.append([measure.score(prediction, _told(batch, name), term) for measure in MEASURES[name]])
    return np.array(found).T


def constant_answers(name: str, settings: Mapping[str, dict], rooms: Rooms, args: argparse.Namespace) -> np.ndarray:
    """What the best constant of training rooms gets on the test rooms, `(measures, rooms)`."""
    terms = terms_alone(name, settings)
    term = make_terms(make_arguments(args.output, terms, args.steps, args.seed), terms)[name]
    train = [_told(batch, name) for batch in rooms.single]
    answers = [measure.constant(train, term) for measure in MEASURES[name]]
    return np.array([[answer(_told(batch, name)) for batch in rooms.test] for answer in answers])


def _told(batch, name):
    return {"points": batch["point_map_targets"]} if name == "point_map" else batch["teacher_targets"][name]


def make_row(measure: TermMeasure, trained: np.ndarray, frozen: np.ndarray, constant: np.ndarray) -> dict[str, object]:
    """One line of the table: means over rooms, and by how much the trained model is better, with intervals of 95 %."""
    sign, told = 1 if measure.is_error else -1, {"trained": trained, "frozen": frozen, "constant": constant}
    has_items = np.isfinite([*told.values()]).all(0)  # rooms whose views show no two objects have no pairs
    told = {name: values[has_items] for name, values in told.items()}
    row = {"measure": measure.name, "rooms": int(has_items.sum())}
    row |= {name: float(values.mean()) for name, values in told.items()}
    for other in ("frozen", "constant"):
        low, high = bootstrap_interval(sign * (told[other] - told["trained"]), np.mean)
        row |= {f"gain_over_{other}_ci95": [float(low), float(high)], f"beats_{other}": bool(low > 0)}
    return row


def write_table(rows: Mapping[str, list[dict]], settings: Mapping[str, object], output: Path) -> str:
    """Write terms.json and terms.md, in the order of the terms; returns the latter."""
    rows = {name: rows[name] for name in MEASURES if name in rows}
    (output / "terms.json").write_text(json.dumps({"settings": settings, "terms": rows}, indent=2))
    lines = ["| term | measure | trained | head on frozen random model | constant |", "|---|---|---|---|---|"]
    for name, parts in rows.items():
        for row in parts:
            told = [f"{row['trained']:.3g}"]
            told += [f"{row[other]:.3g}{'' if row[f'beats_{other}'] else ' *'}" for other in ("frozen", "constant")]
            lines.append(f"| `{name}` | {row['measure']} | {' | '.join(told)} |")
    text = "\n".join([*lines, "", "\\* not beaten: the 95 % interval over rooms holds 0.", ""])
    (output / "terms.md").write_text(text)
    return text


def trial_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the table")
    parser.add_argument("--terms", nargs="+", default=list(MEASURES), help="terms to try, all by default")
    parser.add_argument(
        "--encoder", default="examples/assets/tiny_geometry_encoder", help="encoder that teaches distillation"
    )
    parser.add_argument("--geometry", action="store_true", help="whether the model has that encoder, too")
    parser.add_argument("--rooms", type=int, default=600, help="rooms of the split train")
    parser.add_argument("--test-rooms", type=int, default=64, help="rooms of the split test")
    parser.add_argument("--batch-size", type=int, default=4, help="rooms of a step")
    parser.add_argument("--steps", type=int, default=300, help="steps of each training")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and order")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    args = trial_arguments(words)
    check_names("--terms", args.terms, MEASURES)
    args.output.mkdir(parents=True, exist_ok=True)
    settings = trial_terms(args.encoder)
    of_run = {
        name: getattr(args, name)
        for name in ("rooms", "test_rooms", "batch_size", "steps", "seed", "encoder", "geometry")
    }
    rows, before = {}, args.output / "terms.json"
    if before.is_file() and (told := json.loads(before.read_text()))["settings"] == of_run:
        rows = told["terms"]
    if missing := [name for name in args.terms if name not in rows]:
        needed = {other: settings[other] for name in missing for other in terms_alone(name, settings)}
        rooms = make_rooms(args, needed)
    for name in missing:
        start = time.perf_counter()
        trained, frozen = (train_term(name, settings, rooms, args, is_frozen) for is_frozen in (False, True))
        constant = constant_answers(name, settings, rooms, args)
        rows[name] = [make_row(*each) for each in zip(MEASURES[name], trained, frozen, constant, strict=True)]
        write_table(rows, of_run, args.output)
        print(f"{name}: {rows[name]} in {time.perf_counter() - start:.0f} s", flush=True)
    print(write_table(rows, of_run, args.output))


if __name__ == "__main__":
    main()
