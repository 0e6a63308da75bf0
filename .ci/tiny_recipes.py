"""Train every tiny recipe by the command in its head, and see that it improves.

Usage: tiny_recipes.py FOLDER [NAME ..]. A tiny recipe is one in training/recipes that begins with "tiny_" and
evaluates before its first step and after its last (eval_on_start); its metric is `metric_for_best_model`, by default
the reward where there are rewards, else the loss. Writes recipes.json into FOLDER, and a run folder each.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from gap_mllm.processing.metrics_file import strict_json
from gap_mllm.training.recipes import load_recipe


RECIPES = Path(__file__).parents[1] / "training" / "recipes"


def tiny_recipes() -> dict[str, dict]:
    """Recipes that are run here, by name."""
    files = sorted(RECIPES.glob("tiny_*.yaml"))
    recipes = {file.stem: load_recipe(file) for file in files}
    return {name: recipe for name, recipe in recipes.items() if recipe.get("eval_on_start")}


def command_of(name: str) -> list[str]:
    """The words of the command in the head of a recipe, which stands behind "Run:" and may take several lines."""
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    (command,) = re.findall(r"^# Run: ((?:.*\\\n#)*.*)", text, re.MULTILINE)
    return shlex.split(command.replace("\\\n#", " "))


def train(name: str, recipe: dict, folder: Path) -> dict:
    """Train a recipe anew; returns its row of the table."""
    words = command_of(name)
    has_rewards = "rewards" in recipe
    metric = recipe.get("metric_for_best_model", "reward" if has_rewards else "loss")
    words[words.index("--output_dir") + 1] = str(folder / name)
    words[0] = str(Path(sys.executable).with_name(words[0]))
    shutil.rmtree(folder / name, ignore_errors=True)
    began = time.monotonic()
    with open(folder / f"{name}.log", "w", encoding="utf-8") as log:
        ended = subprocess.run(words, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    minutes = round((time.monotonic() - began) / 60, 2)
    row = {"recipe": name, "metric": metric, "minutes": minutes, "command": shlex.join(words)}
    if ended != 0:
        return {**row, "start": None, "end": None, "improved": False, "error": f"ended with {ended}"}
    summary = json.loads((folder / name / "summary.json").read_text(encoding="utf-8"))
    key = f"eval_{row['metric'].removeprefix('eval_')}"
    row["start"], row["end"] = (float(summary[f"{which}_evaluation"][key]) for which in ("first", "last"))
    more_is_better = recipe.get("greater_is_better", has_rewards)
    row["improved"] = row["end"] > row["start"] if more_is_better else row["end"] < row["start"]
    return row


def table(rows: list[dict]) -> str:
    """The rows in words, the whole time below."""
    lines = ["| recipe | metric | start | end | minutes |", "|---|---|---|---|---|"]
    for row in rows:
        start, end = ("-" if row[which] is None else f"{row[which]:.3f}" for which in ("start", "end"))
        lines.append(f"| {row['recipe']} | {row['metric']} | {start} | {end} | {row['minutes']:.1f} |")
    return "\n".join([*lines, f"| all | | | | {sum(row['minutes'] for row in rows):.1f} |"])


def main(folder: Path, names: list[str]) -> str | int:
    recipes, rows = tiny_recipes(), []
    if unknown := sorted(set(names) - set(recipes)):
        return f"{unknown} are no tiny recipes; there are {list(recipes)}."
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or recipes:
        print(f"{name}: {shlex.join(command_of(name))}", flush=True)
        rows.append(train(name, recipes[name], folder))
        (folder / "recipes.json").write_text(json.dumps(strict_json(rows), indent=2) + "\n", encoding="utf-8")
    print(table(rows))
    failed = [row["recipe"] for row in rows if not row["improved"]]
    return f"{failed} did not improve; see their .log files in {folder}." if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
