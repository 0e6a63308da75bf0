"""Two tiny models trained for equal seconds, one without geometry and one with it; `make demo` runs it.

It is an ordinary ablation (`run_ablation`), so it goes on where it was stopped. With one seed it shows curves and
gives no verdict: intervals are over rooms, and say nothing of what chance does in training.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ablations.ablation import flags_of
from ablations.ablation_curves import draw_arms
from ablations.arms import read_run, run_ablation
from torch import nn

from gap_mllm.evaluation.baselines import fit_baselines
from gap_mllm.evaluation.dense_points import evaluate_point_maps
from gap_mllm.evaluation.marked_pixel import score_marked_pixels
from gap_mllm.processing.argument_checks import check_counts
from gap_mllm.processing.data.rooms.renderer import render_split
from gap_mllm.processing.metrics_file import save_metrics
from gap_mllm.processing.processing_gap_mllm import GapMllmProcessor
from gap_mllm.training.geometry_aligned_trainer import GeometryAlignedTrainer
from gap_mllm.training.marked_pixel_scorer import answer_marked_pixels, make_marked_pixel_samples, marked_pixel_scorer


ARMS = {"without_geometry": {"model_config.use_geometry": False, "frozen_geometry": {}}, "with_geometry": {}}
DENSE = "dense_point_error_m"
LONGEST_ANSWER = 48  # tokens; of a model that has hardly learnt, all of them


@dataclass(frozen=True)
class TrialRooms:
    """Rooms that a time trial asks about while it trains and at the end; none is trained on.

    Args:
        num_rooms (`int`, defaults to 96): rooms of the test split, two marked pixels each, asked at the end.
        num_curve_rooms (`int`, defaults to 32): rooms of the selection split that curves are about.
        num_baseline_rooms (`int`, defaults to 192): training rooms that blind baselines are fitted on.
        first_room (`int`, defaults to 5000): number of the first test room; those before it were looked at while the
            recipe was made.
        side (`int`, defaults to 96): height and width of views, in pixels.
    Raises:
        ValueError: for fewer than 2 rooms, or no baseline room.
    """

    num_rooms: int = 96
    num_curve_rooms: int = 32
    num_baseline_rooms: int = 192
    first_room: int = 5000
    side: int = 96

    def __post_init__(self):
        check_counts(2, num_rooms=self.num_rooms, num_curve_rooms=self.num_curve_rooms)
        check_counts(num_baseline_rooms=self.num_baseline_rooms)

    def _render(self, split, count, first=0):
        return list(render_split(split, count, first, self.side, self.side))

    @cached_property
    def baselines(self):
        return fit_baselines(self._render("train", self.num_baseline_rooms))

    @cached_property
    def test_rooms(self):
        return self._render("test", self.num_rooms, self.first_room)

    @cached_property
    def curve_rooms(self):
        return self._render("selection", self.num_curve_rooms)

    def scorer(self, processor: GapMllmProcessor) -> Callable[[nn.Module], dict[str, float]]:
        """Build the scorer of a training: answers about marked pixels, and dense points, of the selection rooms."""
        options = {"batch_size": 2 * self.num_curve_rooms, "max_new_tokens": LONGEST_ANSWER, "show_progress": False}
        ask = marked_pixel_scorer(processor, self.curve_rooms, **options)
        shown = {"with_shuffled_geometry": False, "show_progress": False}

        def score(model: nn.Module) -> dict[str, float]:
            told = {name: value for name, value in ask(model).items() if name.endswith(("_rate", "_m", "_accuracy"))}
            return told | {DENSE: evaluate_point_maps(model, processor, self.curve_rooms, **shown)[DENSE]}

        return score

    def __call__(self, trainer: GeometryAlignedTrainer, processor: GapMllmProcessor) -> dict:
        """Figures of a trained model on the test rooms, with intervals and blind baselines, and "curve_blind"."""
        rooms, model = self.test_rooms, trainer.model
        samples = make_marked_pixel_samples(rooms, 2)
        options = {"batch_size": 32, "max_new_tokens": LONGEST_ANSWER, "show_progress": False}
        told, _ = score_marked_pixels(
            answer_marked_pixels(model, processor, samples, **options), samples, self.baselines
        )
        shown = {"with_shuffled_geometry": model.config.use_geometry, "show_progress": False}
        dense = evaluate_point_maps(model, processor, rooms, self.baselines, **shown)
        shown["with_shuffled_geometry"] = False
        asked = make_marked_pixel_samples(self.curve_rooms)
        blind, _ = score_marked_pixels([sample.answer for sample in asked], asked, self.baselines)
        blind |= evaluate_point_maps(model, processor, self.curve_rooms, self.baselines, **shown)
        curve_blind = {f"curve_{name}": value for name, value in blind.items() if _is_blind(name)}
        return told | {name: value for name, value in dense.items() if name != "n"} | curve_blind


def _is_blind(name):
    return name.startswith(("constant_", "pixel_prior_", "majority_")) and not name.endswith("_ci95")


def run_time_trial(
    output: str | Path,
    geometry_encoder_path: str | Path,
    seconds: float = 90.0,
    rooms: TrialRooms | None = None,
    recipe: str = "quickstart",
    **overrides,
) -> dict:
    """Train a tiny model for so many seconds without geometry and one with it, measure both, and draw their curves.

    Seed and rooms are the same; seconds of evaluations are not counted, and a faster arm makes more steps. What was
    trained in the folder with the same settings is not trained again.

    Args:
        output (`str` or `Path`): folder of the runs, `runs/<arm>/seed_0`; curves_by_seconds.png and metrics.json
            are beside them.
        geometry_encoder_path (`str` or `Path`): folder of a trained encoder.
        seconds (`float`, defaults to 90.0): seconds of training of each arm.
        rooms (`TrialRooms`, *optional*): rooms that are asked about.
        recipe (`str`, defaults to "quickstart"): name or path of the recipe.
        **overrides: further changes of the recipe, for both.
    Returns:
        `dict`: "arms" with the figures of each arm and its "steps", "command" and "folder", and "curve_blind".
    Raises:
        FileNotFoundError, ValueError, SystemExit: as `run_ablation`.
    """
    output, rooms = Path(output), rooms or TrialRooms()
    shared = {"geometry_encoder_path": str(geometry_encoder_path), "max_seconds": float(seconds)}
    shared |= {"eval_strategy": "steps", "eval_steps": 1 / 6, "logging_steps": 200, **overrides}
    trial = {"recipe": recipe, "arms": ARMS, "seeds": [0], "overrides": shared}
    run_ablation(trial, output, measure=rooms)
    arms, logs, blind = {}, {}, {}
    for arm, changes in ARMS.items():
        folder = output / "runs" / arm / "seed_0"
        told, logs[arm, 0] = read_run(folder)
        blind = {name.removeprefix("curve_"): value for name, value in told.items() if name.startswith("curve_")}
        command = ["gap-mllm", "train", recipe, *flags_of({**shared, **changes}), "--seed", "0"]
        steps = max(entry.get("step", 0) for entry in logs[arm, 0])
        arms[arm] = {name: value for name, value in told.items() if not name.startswith("curve_")}
        arms[arm] |= {"steps": steps, "command": " ".join(map(str, command)), "folder": str(folder)}
    draw_arms({None: logs}, output / "curves_by_seconds.png", over="seconds", blind=blind)
    figures = {"arms": arms, "curve_blind": blind, "curve_rooms": rooms.num_curve_rooms}
    save_metrics(figures, output / "metrics.json")
    return figures
