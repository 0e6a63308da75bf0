"""Entry point: reinforcement learning from a recipe (`gap-mllm train-grpo`) with TRL's `GRPOTrainer`, as it is.

Rewards are in rewards.py, the rows that they are given in prompt_rows.py. TRL hands only Qwen3-VL's own inputs to the
passes that give log-probabilities, and the model makes its geometry of those, so that both see it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from accelerate.utils import send_to_device
from trl import GRPOConfig, GRPOTrainer

from ..configuration_gap_mllm import GapMllmConfig
from ..model_loading import check_kind, load_pretrained, load_processor, model_folder
from ..modeling_gap_mllm import GapMllmForConditionalGeneration
from ..pretrained_gap_mllm import set_attention
from ..processing.argument_checks import check_dtype, check_names
from ..processing.data import RoomVariety, load_multiview
from .adapters import lora_config, lora_options, quantized_loading
from .geometry_aligned_trainer import freeze
from .module_groups import MODULE_GROUPS
from .prompt_rows import check_references, make_prompt_rows
from .recipe_data import QuestionArguments, open_recipe, training_rooms
from .recipe_sources import each_set, evaluation_questions, read_sources, training_questions
from .recorded_geometry import needs_known_depth
from .resuming import ResumingMixin
from .rewards import compose_rewards
from .rooms import RoomQuestionDataset, RoomQuestions
from .sample_pictures import SamplePictures
from .term_trainer import DeviceDefaults, autocast_dtype


@dataclass
class GrpoArguments(QuestionArguments):
    """The model to start from, its questions, and what its answers are rewarded for."""

    model_path: str | None = field(
        default=None, metadata={"help": "GAP-MLLM folder to start from, with its processor; one that can answer."}
    )
    rewards: dict = field(
        default_factory=dict,
        metadata={"help": "Names of REWARDS, each with a weight or {weight: .., option: ..}; see compose_rewards."},
    )
    instruction: str | None = field(
        default=None, metadata={"help": "Text behind each question, as one that asks for think and answer tags."}
    )


@dataclass
class GrpoTrainingArguments(DeviceDefaults, GRPOConfig):
    """`GRPOConfig` with the defaults of `DeviceDefaults`.

    Raises:
        ValueError: if a module is unknown, or the answers of a step are not whole groups of `num_generations`; or as
            `GRPOConfig`.
    """

    trained_modules: list[str] = field(
        default_factory=lambda: ["mergers", "fusion", "language"],
        metadata={"help": f"Groups of modules that are trained, of {list(MODULE_GROUPS)}."},
    )

    def __post_init__(self):
        check_names("trained_modules", self.trained_modules, MODULE_GROUPS)
        answers = self.per_device_train_batch_size * self.gradient_accumulation_steps
        answers *= int(os.environ.get("WORLD_SIZE", 1))
        if self.generation_batch_size is None and self.steps_per_generation is None and answers % self.num_generations:
            raise ValueError(
                f"num_generations is {self.num_generations}, which does not divide the {answers} answers of a step "
                "(per_device_train_batch_size x gradient_accumulation_steps x processes). A step takes all answers to "
                "a prompt: change one of them."
            )
        super().__post_init__()

    @property
    def group_learning_rates(self) -> dict[str, float]:
        """The learning rate of each group of modules, 0 for those that are frozen."""
        return {group: self.learning_rate if group in self.trained_modules else 0.0 for group in MODULE_GROUPS}

    @property
    def num_train_items(self) -> int | None:
        """Prompts that `max_steps` steps of all processes take, or None where epochs are counted."""
        steps_per_round = self.steps_per_generation * self.num_iterations
        rounds = -(-self.max_steps * self.gradient_accumulation_steps // steps_per_round)
        return rounds * self.generation_batch_size // self.num_generations if self.max_steps > 0 else None


class _ResumingGRPOTrainer(ResumingMixin, GRPOTrainer):
    """TRL's trainer, with checkpoints that are whole; they hold answers that further steps will learn from."""

    def begin_or_go_on(self):
        self._step, self._buffered_inputs = 0, None
        super().begin_or_go_on()

    def log_totals(self):
        totals, answered_every = super().log_totals(), self.args.steps_per_generation * self.num_iterations
        totals["common"]["metrics"] = {name: list(values) for name, values in self._metrics["train"].items()}
        totals["own"] = {"step": self._step, "answers": None}
        if self._step % answered_every:
            totals["own"]["answers"] = self._buffered_inputs
        return totals

    def take_up(self, totals):
        super().take_up(totals)
        self._metrics["train"].update(totals["common"]["metrics"])
        self._step = totals["own"].get("step", 0)
        answers = totals["own"].get("answers")
        self._buffered_inputs = answers and send_to_device(answers, self.args.device)


def train_grpo(recipe: str | Path, overrides: Sequence[str] = ()) -> GRPOTrainer:
    """Train a model by the rewards of its answers about rooms or the rows of a source (`data`).

    The model at `model_path` is taken as it is, and again as the frozen reference where `beta` is above 0; a cold
    start (`cold_start` in a recipe of `train_geometry_aligned`) makes one that thinks in tags.

    If the output folder holds a checkpoint, training goes on from the last whole one; see
    `ResumingMixin.train_and_save`, also for what a signal does.

    Args:
        recipe (`str`): name of a file in training/recipes, or a path to a YAML file.
        overrides (`list[str]`, defaults to `()`): command-line flags that replace the recipe's values.
    Returns:
        `trl.GRPOTrainer`: after training; model and processor are saved in its output folder.
    Raises:
        FileNotFoundError: if there is no such recipe, model or processor. ValueError: as `read_recipe`,
            `check_sections`, `check_evaluation`, `compose_rewards`, `check_references`, `load_pretrained` and
            `set_attention`, without `model_path`, for `known_geometry` or a model that needs it, for streamed data,
            for an evaluation without rows, or if an item holds several questions. RecordError: as `load_multiview`.
            ValueError, FileExistsError, SystemExit: as `ResumingMixin.train_and_save`.
    """
    grpo_args, args, run = open_recipe((GrpoArguments, GrpoTrainingArguments), recipe, overrides)
    check_dtype(grpo_args.dtype, ("float32", "bfloat16"))
    functions, args.reward_weights = compose_rewards(grpo_args.rewards)
    if not grpo_args.model_path:
        raise ValueError("model_path is missing: give the folder of a model that was trained to answer.")
    if grpo_args.known_geometry:
        raise ValueError(
            "known_geometry is given, but TRL's trainer hands the model pixels alone. Leave it out (an encoder "
            "gap_mllm_geometry_maps with a teacher derives its maps), or train with gap-mllm train."
        )
    if any(source.get("streaming") for source in read_sources(grpo_args.data).values()):
        raise ValueError("data has streaming=True; a prompt is answered several times, so prepare its rows.")
    has_rows = grpo_args.eval_data or grpo_args.num_selection_rooms
    if (args.eval_on_start or args.eval_strategy != "no") and not has_rows:
        raise ValueError(
            f"eval_on_start is {args.eval_on_start} and eval_strategy is '{args.eval_strategy.value}', but there is "
            "nothing to evaluate on: give eval_data beside data, num_selection_rooms for rooms, or neither evaluation."
        )
    with run.held():
        return _train(grpo_args, args, run, functions)


def _train(grpo_args, args, run, functions):
    """Train in a folder that is held; what is wrong with it was said before anything is loaded."""
    folder = model_folder(grpo_args.model_path)
    check_kind(GapMllmForConditionalGeneration, folder)
    if needs_known_depth(GapMllmConfig.from_pretrained(folder)):
        raise ValueError(
            f"The model in {folder} needs depth that is known, and TRL's trainer hands it pixels alone. Take a model "
            "whose encoder gap_mllm_geometry_maps has a teacher, or train with gap-mllm train."
        )
    processor = load_processor(folder)
    questions, eval_questions = _questions(grpo_args, args)
    check_references(questions, functions)
    options = {"dtype": grpo_args.dtype, **quantized_loading(grpo_args.quantization, args.device)}
    model = load_pretrained(GapMllmForConditionalGeneration, folder, **options)
    freeze(model, args)
    set_attention(model, grpo_args.attn_implementation, args.device, autocast_dtype(args))
    args.shuffle_dataset &= not questions.is_scheduled  # what follows the run comes in its order

    def rows_of(asked):
        return make_prompt_rows(asked, processor, grpo_args.instruction)

    prompts = rows_of(questions), each_set(eval_questions, rows_of)
    pictures = SamplePictures(run, processor, eval_questions or (), grpo_args.instruction, functions)
    options = {"processing_class": processor, "run": run, "callbacks": [pictures]}
    if grpo_args.lora is not None:
        options["peft_config"] = lora_config(model, **lora_options(grpo_args, args))
    trainer = _ResumingGRPOTrainer(model, functions, args, *prompts, **options)
    freeze(trainer.model, args)  # adapters, too
    trainer.train_and_save()
    return trainer


def _questions(grpo_args, args):
    """Questions to train on, and to evaluate on, None without: one a scene."""
    if grpo_args.data:
        return training_questions(grpo_args, args), evaluation_questions(grpo_args, args)
    variety = RoomVariety(**grpo_args.variety)
    ask = RoomQuestions(**{"counts": {"reconstruction": 1}, **grpo_args.questions})
    questions = RoomQuestionDataset(training_rooms(grpo_args, args, variety), ask)
    count = grpo_args.num_selection_rooms
    seen = count and load_multiview("rendered_rooms", split="selection", num_rooms=count, variety=variety)
    return questions, RoomQuestionDataset(seen, ask) if count else None
