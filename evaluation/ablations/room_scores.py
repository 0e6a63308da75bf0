"""Scores of a trained model on rooms that it was never trained on, beside blind baselines."""

from dataclasses import dataclass, replace
from functools import cached_property

from torch.utils.data import Subset

from ...processing.argument_checks import check_counts
from ...processing.data import load_multiview
from ...processing.data.rooms.renderer import render_split
from ...processing.processing_gap_mllm import GapMllmProcessor
from ...training.geometry_aligned_trainer import GeometryAlignedTrainer
from ...training.rooms import RoomQuestionDataset
from ..baselines import fit_baselines
from ..dense_points import evaluate_point_maps
from ..marked_pixel import answer_marked_pixels, make_marked_pixel_samples, score_marked_pixels


@dataclass
class RoomTest:
    """Rooms of the test split, always the same ones, and what a model is asked about them.

    Args:
        num_rooms (`int`, defaults to 128): rooms, 2 or more.
        first_room (`int`, defaults to 8000): number of the first one in the split.
        questions_per_room (`int`, defaults to 2): marked pixels of each.
        num_baseline_rooms (`int`, defaults to 256): training rooms that blind baselines are fitted on.
        view_size (`list[int]`, defaults to `[96, 96]`): height and width of views, in pixels.
        seed (`int`, defaults to 0): seed of the intervals.
    Raises:
        ValueError: for fewer.
    """

    num_rooms: int = 128
    first_room: int = 8000
    questions_per_room: int = 2
    num_baseline_rooms: int = 256
    view_size: tuple = (96, 96)
    seed: int = 0

    def __post_init__(self):
        check_counts(2, num_rooms=self.num_rooms)
        check_counts(questions_per_room=self.questions_per_room, num_baseline_rooms=self.num_baseline_rooms)

    @cached_property
    def rooms(self):
        return list(render_split("test", self.num_rooms, self.first_room, *self.view_size))

    @cached_property
    def baselines(self):
        return fit_baselines(render_split("train", self.num_baseline_rooms, 0, *self.view_size))

    def __call__(self, trainer: GeometryAlignedTrainer, processor: GapMllmProcessor) -> dict:
        """Measure a trained model.

        Args:
            trainer (`GeometryAlignedTrainer`): trainer after its training.
            processor (`GapMllmProcessor`): processor of the model.
        Returns:
            `dict`: as `score_marked_pixels`; with a weight of `point_map` also as `evaluate_point_maps`; and the mean
            of each term of the loss over these rooms, `loss_<name>`.
        """
        model = trainer.model
        samples = make_marked_pixel_samples(self.rooms, self.questions_per_room)
        texts = answer_marked_pixels(model, processor, samples, show_progress=False)
        metrics, _ = score_marked_pixels(texts, samples, self.baselines, self.seed)
        if trainer.terms["point_map"].weight:
            shown = {"with_shuffled_geometry": model.config.use_geometry, "show_progress": False}
            dense = evaluate_point_maps(model, processor, self.rooms, self.baselines, **shown)
            metrics |= {name: value for name, value in dense.items() if name != "n"}
        return metrics | self._term_losses(trainer)

    def _term_losses(self, trainer):
        """Mean of each term over questions about the same rooms, as training asks them."""
        asked = trainer.train_dataset
        if not isinstance(asked, RoomQuestionDataset):
            return {}
        end = self.first_room + self.num_rooms
        rooms = load_multiview("rendered_rooms", split="test", num_rooms=end, variety=asked.rooms.variety)
        questions = RoomQuestionDataset(rooms, replace(asked.questions, visits=1))
        told = trainer.predict(Subset(questions, range(self.first_room, end))).metrics  # logs nothing
        return {key.removeprefix("test_"): value for key, value in told.items() if key.startswith("test_loss_")}
