"""What all trainings begin with: a recipe, checked before anything is read, and the rows or rooms that it names."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from transformers import HfArgumentParser, TrainingArguments, set_seed
from transformers.integrations import get_reporting_integration_callbacks

from ..processing.argument_checks import check_counts
from ..processing.data import RoomVariety, load_multiview
from .adapters import check_tuning
from .model_cards import card_metadata
from .recipe_sections import check_sections
from .recipe_sources import follows_run, read_evaluation
from .recipes import resolve_recipe
from .rewards import compose_rewards
from .rooms import ROOMS_PER_EPOCH
from .run_folder import RunFolder


@dataclass
class DataArguments:
    """What to train and evaluate on: rows of a source, or rooms."""

    license: str | None = field(
        default=None,
        metadata={
            "help": "Licence of the weights, as the Hub names it, for the card of the model. By default that of the "
            "folders that weights come from, and apache-2.0 of a model that begins at random."
        },
    )
    license_name: str | None = field(default=None, metadata={"help": "Name of the licence, where it is other."})
    license_link: str | None = field(default=None, metadata={"help": "Its address, where it is other."})
    variety: dict = field(default_factory=dict, metadata={"help": "Fields of RoomVariety."})
    num_rooms: int | None = field(
        default=None,
        metadata={
            "help": "Rooms of an epoch. By default as many as max_steps takes, each once, or "
            f"{ROOMS_PER_EPOCH} with num_train_epochs."
        },
    )
    data: dict = field(
        default_factory=dict,
        metadata={
            "help": "Arguments of load_multiview (name, data_dir, split, ...): train on these rows, not on rooms. Or "
            "several sources, each by a name of yours, also with weight, limit and keys of scene_tasks or scenes."
        },
    )
    eval_data: dict = field(
        default_factory=dict,
        metadata={
            "help": "Arguments of load_multiview: every evaluation (eval_strategy) measures the loss on these rows. "
            "Those of data where no source is named, and the split val where none is. Or several sets by name."
        },
    )


@dataclass
class QuestionArguments(DataArguments):
    """How the model is loaded, and the questions that it is asked about rooms, or about scenes of data."""

    dtype: str = field(
        default="float32",
        metadata={"help": "Of the weights, float32 or bfloat16; a GPU computes in bfloat16 in any case (bf16)."},
    )
    attn_implementation: dict | str | None = field(
        default=None,
        metadata={
            "help": "Attention of the model, as sdpa, or of its parts, as {text_config: sdpa}; by default the best "
            "that device and dtype allow."
        },
    )
    lora: dict | None = field(
        default=None,
        metadata={
            "help": "Fields of peft.LoraConfig, as {r: 16}: adapters of the language model's linear layers learn in "
            "the place of its weights, see add_lora."
        },
    )
    quantization: dict = field(
        default_factory=dict,
        metadata={"help": "Fields of BitsAndBytesConfig, as {load_in_4bit: true}: frozen weights below lora."},
    )
    known_geometry: list[str] = field(
        default_factory=list,
        metadata={
            "help": "What was recorded with the views and the model reads beside their pixels, of intrinsics, poses "
            "and depth; none by default."
        },
    )
    questions: dict = field(default_factory=dict, metadata={"help": "Fields of RoomQuestions."})
    num_selection_rooms: int = field(
        default=0, metadata={"help": "Rooms of the selection split that every evaluation asks about (eval_strategy)."}
    )
    scene_tasks: dict = field(
        default_factory=dict,
        metadata={
            "help": "Arguments of SceneQuestionDataset (tasks, num_views, questions_per_scene, ...): ask about scenes "
            "of data."
        },
    )
    augmentation: dict = field(
        default_factory=dict, metadata={"help": "Fields of AugmentationConfig, for data; none by default."}
    )


def open_recipe(
    kinds: tuple[type[DataArguments], type[TrainingArguments]], recipe: str | Path, overrides: Sequence[str] = ()
) -> tuple:
    """Read and check a recipe, and set its seed; nothing is read or written yet where the run goes.

    Args:
        kinds (`tuple`): dataclasses of the recipe's own arguments and of the trainer's.
        recipe (`str` or `Path`), overrides (`list[str]`): arguments of `read_recipe`.
    Returns:
        `tuple`: one of each kind, and the `RunFolder` to hold while they are worked with.
    Raises:
        FileNotFoundError, ValueError: as `resolve_recipe`, `check_sections`, `check_tuning` and `check_evaluation`.
            ValueError: for batches of nothing. ImportError: if a package that `report_to` names is not there.
    """
    parser = HfArgumentParser(kinds)
    values = resolve_recipe(parser, recipe, overrides)
    recipe_args, args = parser.parse_dict(values)
    check_sections(recipe_args)
    check_tuning(recipe_args)
    check_evaluation(recipe_args, args)
    sizes = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
    check_counts(**{name: getattr(args, name) for name in sizes})
    try:
        for callback in get_reporting_integration_callbacks(args.report_to):
            callback()  # the trainer makes them when all is loaded
    except RuntimeError as error:
        raise ImportError(f"report_to: {error}") from error
    if not recipe_args.data:  # rooms are independent draws; blocks of equal size stay together
        args.train_sampling_strategy = "sequential"
    set_seed(args.seed)
    run = RunFolder(args, {"recipe": str(recipe), **asdict(recipe_args)}, values, card_metadata(recipe_args))
    return recipe_args, args, run


def check_evaluation(recipe_args: object, args: TrainingArguments):
    """Refuse, before anything is read, what would fail late or never be looked at.

    Args:
        recipe_args: arguments of a recipe, with `data`, `eval_data` and `num_rooms`, and maybe `num_selection_rooms`.
        args (`TrainingArguments`)
    Raises:
        ValueError: for `num_selection_rooms` with `data`, `eval_data` without it or streamed, either without
            `eval_strategy`, `eval_rewards` without one set of `eval_data` or as `compose_rewards`, `num_rooms`
            below 1, or weights that follow a run of several epochs.
    """
    num_selection_rooms = getattr(recipe_args, "num_selection_rooms", 0)
    if recipe_args.data and num_selection_rooms:
        raise ValueError("num_selection_rooms asks about rooms; with data, give a scorer of your own.")
    if recipe_args.eval_data and not recipe_args.data:
        raise ValueError("eval_data goes with data; it names rows like those that are trained on.")
    if any(each.get("streaming") for each in read_evaluation(recipe_args.data, recipe_args.eval_data).values()):
        raise ValueError("eval_data has streaming=True; every evaluation reads its rows again, so prepare them.")
    if eval_rewards := getattr(recipe_args, "eval_rewards", {}):
        compose_rewards(eval_rewards)
        if set(read_evaluation(recipe_args.data, recipe_args.eval_data)) != {""}:
            raise ValueError(
                "eval_rewards goes with one set of eval_data, whose questions are answered: eval_data must be neither "
                "empty nor a mapping of named sets."
            )
    check_counts(num_rooms=recipe_args.num_rooms)
    if follows_run(recipe_args) and args.num_train_items is None and args.num_train_epochs != 1:
        raise ValueError(
            f"weights follow the run, but each of its {args.num_train_epochs:g} epochs would begin them again. Give "
            "--max_steps, or --num_train_epochs 1."
        )
    for name, value in {"num_selection_rooms": num_selection_rooms, "eval_data": recipe_args.eval_data}.items():
        if value and args.eval_strategy == "no":
            raise ValueError(
                f"{name} is {value}, but eval_strategy is 'no', so nothing would be evaluated. Say when: for example "
                "--eval_strategy steps --eval_steps 100."
            )


def training_rooms(recipe_args: DataArguments, args: TrainingArguments, variety: RoomVariety):
    """Rooms for every step or epoch of the run, in blocks of one batch.

    Args:
        recipe_args (`DataArguments`), args (`TrainingArguments`): arguments of a recipe.
        variety (`RoomVariety`)
    Returns:
        `RenderedRooms`.
    """
    return load_multiview(
        "rendered_rooms",
        split="train",
        num_rooms=recipe_args.num_rooms or args.num_train_items or ROOMS_PER_EPOCH,
        variety=variety,
        block_size=args.per_device_train_batch_size,
        seed=args.seed,
    )
