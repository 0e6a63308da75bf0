"""Make a shipped folder of examples/assets from a finished training: weights in float16, figures, and its card.

Usage: ship_tiny.py RUN FOLDER [--limit N] [--sets test unseen]. RUN is the output folder of `gap-mllm train` or
`train-geometry-encoder`. What is saved is measured as it lies in FOLDER (RUN/measured_* keeps what was answered, so
that the same command goes on); metrics.json is written there, and from it the tables between two marks of README.md,
and the model-index of its metadata.
"""

import argparse
import json
import sys
from pathlib import Path

import yaml

from gap_mllm import GapMllmForPreTraining, GapMllmProcessor, GapMllmVggtForReconstruction
from gap_mllm.evaluation import save_metrics
from gap_mllm.evaluation.runner import update_card
from gap_mllm.hub import save_for_hub
from gap_mllm.training.recipes import load_recipe


ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "examples" / "experiments"))
from measure_rooms import measure_rooms  # noqa: E402
from room_measures.figures_table import BEGIN, END, write_figures  # noqa: E402


RECIPES = ROOT / "training" / "recipes"
MOST_MB = {"tiny_gap_mllm": 12, "tiny_geometry_encoder": 5}
# What other recipes give is told as it is.
TARGETS = {"tiny_gap_mllm": "make tiny-model", "tiny_geometry_encoder": "make tiny-encoder"}
ENCODER = "gap_mllm_vggt"


def is_encoder(folder: Path) -> bool:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"] == ENCODER


def save_half(run: Path, folder: Path) -> None:
    """Save the weights of a run in float16; they load in float32, as the config says."""
    folder.mkdir(parents=True, exist_ok=True)
    if is_encoder(run):
        encoder = GapMllmVggtForReconstruction.from_pretrained(run)
        halved = {name: weights.half() for name, weights in encoder.state_dict().items()}  # .half() spares heads
        encoder.save_pretrained(folder, state_dict=halved)
    else:
        model = GapMllmForPreTraining.from_pretrained(run).half()
        save_for_hub(model, GapMllmProcessor.from_pretrained(run), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"), object_hook=_in_float32)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _in_float32(part):
    return {name: "float32" if name == "dtype" else value for name, value in part.items()}


def provenance(run: Path) -> dict:
    """Where a finished run comes from, for metrics.json and card. Raises SystemExit for one that is not finished."""
    told = {name: json.loads((run / f"{name}.json").read_text(encoding="utf-8")) for name in ("summary", "provenance")}
    summary, made_by = told["summary"], told["provenance"]
    if summary["state"] != "finished":
        raise SystemExit(f"{run} is not finished ({summary['state']}); run its training again, which goes on.")
    name = made_by["settings"]["recipe"]
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    resolved = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    changed = {key: resolved[key] for key in recipe if resolved.get(key, recipe[key]) != recipe[key]}
    commit = f"{made_by['git_commit'] or 'not recorded'}{' with changes' if made_by['git_is_dirty'] else ''}"
    versions = ", ".join(f"{package} {number}" for package, number in made_by["versions"].items())
    begins_from = made_by["settings"].get("model_path") or made_by["settings"].get("encoder_path")
    return {
        "command": TARGETS.get(name, f"training by {name}, then .ci/ship_tiny.py"),
        "recipe": f"training/recipes/{name}.yaml{f', changed: {json.dumps(changed)}' if changed else ''}",
        "seed": made_by["settings"]["arguments"]["seed"],
        "steps": f"{summary['steps']} of {made_by['settings']['items_per_step']} rooms",
        "minutes": round(summary["minutes"], 1),
        "git commit": commit,
        "settings hash": summary["settings_hash"],
        "versions": versions,
        **({"begins from": _told_of(Path(begins_from))} if begins_from else {}),
    }


def _told_of(start: Path) -> str:
    """Where the model comes from that a run began from: a finished run, or a folder that was shipped."""
    told = start / "metrics.json"  # of a run it has figures alone
    made = json.loads(told.read_text(encoding="utf-8")).get("provenance") if told.is_file() else None
    made = {**made, "weights": "as shipped, in float16"} if made else provenance(start)
    return "; ".join(f"{name}: {made[name]}" for name in made if name not in ("command", "versions"))


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--limit", type=int, help="rooms to measure on, as a check")
    parser.add_argument("--sets", nargs="+", default=["test", "unseen"], metavar="SET", help="rooms; the first leads")
    parser.add_argument("--groups", nargs="+", metavar="NAME", help="what is measured; default: all")
    parser.add_argument("--num-baseline-rooms", type=int, metavar="N", help="training rooms to fit blind answers on")
    args = parser.parse_args(words)
    made = provenance(args.run)
    card = args.folder / "README.md"
    if not card.is_file() or BEGIN not in card.read_text(encoding="utf-8"):
        raise SystemExit(f"{card} needs the lines {BEGIN} and {END}: figures are written between them.")
    save_half(args.run, args.folder)
    size_mb, most = sum(file.stat().st_size for file in args.folder.iterdir()) / 1e6, MOST_MB.get(args.folder.name)
    if most and size_mb > most:
        raise SystemExit(f"{args.folder} takes {size_mb:.1f} MB; expected {most} at most.")
    options = {name: getattr(args, name) for name in ("limit", "groups", "num_baseline_rooms") if getattr(args, name)}
    found = [measure_rooms(args.folder, args.run / f"measured_{name}", name, **options) for name in args.sets]
    metrics = {**found[0], "provenance": made} | dict(zip(args.sets[1:], found[1:], strict=True))
    save_metrics(metrics, args.folder / "metrics.json")
    write_figures(card, metrics)
    update_card(card, args.folder)
    print(f"wrote {args.folder}: {size_mb:.1f} MB, metrics.json, the tables of README.md and its model-index")


if __name__ == "__main__":
    sys.exit(main())
