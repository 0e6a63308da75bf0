"""Scores of a trained model on rooms that it was never trained on, beside blind baselines."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from room_measures.geometry_answers import answer_questions
from room_measures.room_tasks import ROOM_TASKS
from torch import nn
from torch.utils.data import Subset

from gap_mllm.evaluation.baselines import fit_baselines
from gap_mllm.evaluation.benchmarks.posed_boxes import constant_box
from gap_mllm.evaluation.dense_points import evaluate_point_maps
from gap_mllm.evaluation.marked_pixel import score_marked_pixels
from gap_mllm.processing.argument_checks import check_counts, check_names
from gap_mllm.processing.asking_gap_mllm import Asker
from gap_mllm.processing.data import load_multiview, make_tasks
from gap_mllm.processing.data.rooms.renderer import render_split
from gap_mllm.processing.processing_gap_mllm import GapMllmProcessor
from gap_mllm.training.geometry_aligned_trainer import GeometryAlignedTrainer
from gap_mllm.training.marked_pixel_scorer import answer_marked_pixels, make_marked_pixel_samples
from gap_mllm.training.rooms import RoomQuestionDataset


_POINTS = "points"  # marked pixels, with baselines of their own
_LEFT_OUT = ("n", "num_", "chance", "by_kind", "scene_f1")  # beginnings of what is no figure to compare


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
        tasks (`list[str]`, defaults to `["points"]`): keys of `ROOM_TASKS`: marked pixels, "grounding", "detection"
            and others.
        num_curve_rooms (`int`, defaults to 0): rooms of the selection split that every evaluation of a training
            (`eval_strategy`) asks the same, for curves; with 0 the recipe's own scorer is asked. Marked pixels are
            left to that.
        max_new_tokens (`int`, defaults to 384): bound of an answer, below that of its task: a model that has learnt
            nothing goes on for ever.
    Raises:
        ValueError: for fewer, and for no task or an unknown one; when called, if no room allows a question of one.
    """

    num_rooms: int = 128
    first_room: int = 8000
    questions_per_room: int = 2
    num_baseline_rooms: int = 256
    view_size: tuple = (96, 96)
    seed: int = 0
    tasks: tuple = (_POINTS,)
    num_curve_rooms: int = 0
    max_new_tokens: int = 384

    def __post_init__(self):
        check_counts(2, num_rooms=self.num_rooms)
        check_counts(questions_per_room=self.questions_per_room, num_baseline_rooms=self.num_baseline_rooms)
        check_counts(0, num_curve_rooms=self.num_curve_rooms)
        check_counts(max_new_tokens=self.max_new_tokens)
        check_names("test.tasks", self.tasks, ROOM_TASKS)
        if not self.tasks or (self.num_curve_rooms and set(self.tasks) == {_POINTS}):
            raise ValueError(
                f"test.tasks is {list(self.tasks)}; name what is asked, with num_curve_rooms more than {_POINTS!r}, "
                "which num_selection_rooms of the recipe asks."
            )

    @cached_property
    def rooms(self):
        return list(render_split("test", self.num_rooms, self.first_room, *self.view_size))

    @cached_property
    def baselines(self):
        return fit_baselines(self._baseline_rooms())

    def _baseline_rooms(self):
        return render_split("train", self.num_baseline_rooms, 0, *self.view_size)

    @cached_property
    def questions(self):
        """By task questions about the rooms, and answers of blind baselines to them by the prefix of their figures."""
        asked, training = self._ask(self.rooms), self._ask(self._baseline_rooms()) if self._others else {}
        blind = {}
        for task, samples in asked.items():
            makers = {"constant_": ROOM_TASKS[task].blind}
            if task == "grounding":
                makers = {"constant_": constant_box, "category_prior_": ROOM_TASKS[task].blind}
            answers = {prefix: make(training[task]) for prefix, make in makers.items()}
            blind[task] = {prefix: [answer(each) for each in samples] for prefix, answer in answers.items()}
        return asked, blind

    @cached_property
    def _curve_questions(self):
        return self._ask(render_split("selection", self.num_curve_rooms, 0, *self.view_size))

    @property
    def _others(self):
        return [task for task in self.tasks if task != _POINTS]

    def _ask(self, rooms):
        asked = {task: [] for task in self._others}
        for room in (each.as_sample() for each in rooms):
            for task, samples in asked.items():
                samples += make_tasks(room, ROOM_TASKS[task].counts, phrasings="first", mark_colors=("red",))
        if empty := [task for task, samples in asked.items() if not samples]:
            raise ValueError(f"no room allows a question of {empty}: ask more rooms of test, or other tasks.")
        return asked

    def __call__(self, trainer: GeometryAlignedTrainer, processor: GapMllmProcessor) -> dict:
        """Measure a trained model.

        Args:
            trainer (`GeometryAlignedTrainer`): trainer after its training.
            processor (`GapMllmProcessor`): processor of the model.
        Returns:
            `dict`: of marked pixels as `score_marked_pixels`; of other tasks figures of `ROOM_TASKS`, behind the name
            of the task; with a weight of `point_map` also as `evaluate_point_maps`; and the mean of each term of the
            loss over these rooms, `loss_<name>`.
        """
        model, metrics = trainer.model, {}
        if _POINTS in self.tasks:
            samples = make_marked_pixel_samples(self.rooms, self.questions_per_room)
            texts = answer_marked_pixels(model, processor, samples, show_progress=False)
            metrics, _ = score_marked_pixels(texts, samples, self.baselines, self.seed)
        asked, blind = self.questions
        metrics |= self._scores(asked, self._answers(Asker(model, processor), asked))
        for task, answers in blind.items():
            for prefix, texts in answers.items():
                told = self._scores({task: asked[task]}, {task: texts})
                metrics |= {prefix + name: value for name, value in told.items() if "parse_rate" not in name}
        if trainer.terms["point_map"].weight:
            shown = {"with_shuffled_geometry": model.config.use_geometry, "show_progress": False}
            dense = evaluate_point_maps(model, processor, self.rooms, self.baselines, **shown)
            metrics |= {name: value for name, value in dense.items() if name != "n"}
        return metrics | self._term_losses(trainer)

    def scorer(self, processor: GapMllmProcessor) -> Callable[[nn.Module], dict[str, float]]:
        """Build the `scorer` of a `GeometryAlignedTrainer`: the same tasks but marked pixels, of selection rooms.

        Args:
            processor (`GapMllmProcessor`): processor of the model.
        Returns:
            `Callable`: takes a model, returns figures without intervals.
        """

        def score(model: nn.Module) -> dict[str, float]:
            asked = self._curve_questions
            told = self._scores(asked, self._answers(Asker(model, processor), asked))
            return {name: value for name, value in told.items() if not name.endswith("_ci95")}

        return score

    def _answers(self, asker, asked):
        forms = {task: ROOM_TASKS[task].form for task in asked}
        bounds = {task: min(form.max_new_tokens, self.max_new_tokens) for task, form in forms.items()}
        forms = {task: replace(form, max_new_tokens=bounds[task]) for task, form in forms.items()}
        return {task: answer_questions(asker, samples, forms[task], batch_size=32) for task, samples in asked.items()}

    def _scores(self, asked, texts):
        return {
            f"{task}_{name}": value
            for task, samples in asked.items()
            for name, value in ROOM_TASKS[task].score(samples, texts[task], self.seed).items()
            if not (name == "n" or name.startswith(_LEFT_OUT[1:]))
        }

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
