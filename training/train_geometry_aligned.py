"""Entry point: geometry-aligned pre-training from a recipe (`gap-mllm train`), on synthetic rooms or any data source.

For more freedom build a `GeometryAlignedTrainer` with a `SceneCollator`; this file shows how in thirty lines.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedConfig, TrainerCallback

from ..configuration_gap_mllm import GapMllmConfig
from ..model_loading import load_pretrained, load_processor, model_folder
from ..pretrained_gap_mllm import set_attention
from ..pretraining_gap_mllm import GapMllmForPreTraining
from ..processing.argument_checks import check_dtype
from ..processing.data import RoomVariety, load_multiview
from ..processing.processing_gap_mllm import GapMllmProcessor
from ..processing.tiny_tokenizer import build_tiny_processor
from .adapters import add_lora, lora_options, quantized_loading
from .answer_scorer import answer_scorer
from .cold_start import ColdStartQuestions
from .frozen_geometry import FrozenGeometry
from .geometry_aligned_trainer import GeometryAlignedTrainer, GeometryAlignedTrainingArguments, freeze
from .layouts import LAYOUTS
from .marked_pixel_scorer import make_marked_pixel_samples, marked_pixel_scorer
from .new_encoder import start_encoder, starts_afresh
from .recipe_data import QuestionArguments, open_recipe, training_rooms
from .recipe_sources import each_set, evaluation_questions, training_questions
from .recorded_geometry import check_known_geometry, needs_known_depth
from .rooms import RoomQuestionDataset, RoomQuestions
from .sample_pictures import NUM_SHOWN, SamplePictures
from .scene_collator import SceneCollator
from .teaching import set_training_heads
from .term_trainer import autocast_dtype
from .terms import make_terms


@dataclass
class GeometryAlignedModelArguments(QuestionArguments):
    """The model to start from, and the questions to ask about rooms."""

    model_path: str | None = field(
        default=None, metadata={"help": "GAP-MLLM folder to start from, with its processor; else model_config."}
    )
    model_config: dict = field(
        default_factory=dict,
        metadata={
            "help": "text_config, vision_config and gap_fusion_config of a new model; geometry_config for an encoder "
            "of depth and normal maps. With model_path {use_geometry: false} leaves encoder and fusion away."
        },
    )
    geometry_encoder_path: str | None = field(
        default=None, metadata={"help": "Folder of a trained geometry encoder for a new model."}
    )
    tiny_processor: dict = field(
        default_factory=dict,
        metadata={
            "help": "Arguments of build_tiny_processor (number_pieces, max_pixels, ...), for a new model; model_path "
            "brings its processor, as it brings the sizes of model_config."
        },
    )
    layout: str | None = field(
        default=None,
        metadata={
            "help": f"How questions are laid out, of {list(LAYOUTS)}; by default packed with FlashAttention, else "
            "block_mask."
        },
    )
    frozen_geometry: dict = field(
        default_factory=dict,
        metadata={
            "help": "Arguments of FrozenGeometry: where the frozen encoder runs ({where: loader}), and a cache of "
            "what it made ({cache_dir: DIR, max_gb: 100}); by default it runs in the model at every step."
        },
    )
    answer_weights: dict = field(
        default_factory=dict, metadata={"help": "Weights of the parts of answers; see SceneCollator."}
    )
    eval_rewards: dict = field(
        default_factory=dict,
        metadata={
            "help": "Names of REWARDS, see compose_rewards: every evaluation also has the questions of eval_data "
            "answered, and says what the answers earn."
        },
    )
    collation: dict = field(
        default_factory=dict,
        metadata={"help": "Bounds of SceneCollator (max_views, max_sample_pixels, ...)."},
    )
    cold_start: dict = field(
        default_factory=dict,
        metadata={
            "help": "Arguments of ColdStartQuestions (rewards, instruction, least): learn written thoughts, with the "
            "answers in tags."
        },
    )


def build_model(
    model_config: dict,
    geometry_encoder_path: str | Path | None,
    processor: GapMllmProcessor,
    dtype: str = "float32",
):
    """Build a model with random language, vision and fusion weights around a trained geometry encoder.

    Args:
        model_config (`dict`): `text_config`, `vision_config`, `gap_fusion_config` and other fields of `GapMllmConfig`;
            token ids, vocabulary size and image statistics follow from the processor.
        geometry_encoder_path (`str` or `Path`, *optional*): folder of a trained encoder, see `start_encoder`; None for
            a new one of depth and normal maps without a teacher.
        processor (`GapMllmProcessor`)
        dtype (`str`, defaults to "float32"): dtype of the weights, "float32" or "bfloat16".
    Returns:
        `GapMllmForPreTraining`.
    Raises:
        FileNotFoundError, ValueError: as `start_encoder`.
    """
    encoder_config, weights = start_encoder(model_config.get("geometry_config"), geometry_encoder_path)
    config = new_config(model_config, processor, encoder_config)
    # Not .to(dtype) afterwards, which would round the frequencies of rotary positions as well.
    model = GapMllmForPreTraining._from_config(config, dtype=dtype)
    if config.use_geometry:
        model.model.geometry.load_state_dict({**model.model.geometry.state_dict(), **weights})
    tokenizer = processor.tokenizer
    for target in (model.generation_config, model.config.text_config):
        target.pad_token_id, target.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    return model


def new_config(
    model_config: dict, processor: GapMllmProcessor, encoder_config: PreTrainedConfig | None = None
) -> GapMllmConfig:
    """Config of a new model: sizes of `model_config`, published ones where it says nothing; ids of the processor."""
    sizes = dict(model_config)
    if encoder_config is not None:
        sizes["geometry_config"] = encoder_config
    if "text_config" in sizes:
        sizes["text_config"] = {**sizes["text_config"], "vocab_size": len(processor.tokenizer)}
    return GapMllmConfig(
        **sizes,
        image_mean=list(processor.image_processor.image_mean),
        image_std=list(processor.image_processor.image_std),
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        vision_start_token_id=processor.vision_start_token_id,
        vision_end_token_id=processor.vision_end_token_id,
    )


def check_fusion(model_config: dict, folder: str | Path):
    """Refuse a model whose geometry joins otherwise than its recipe says.

    Args:
        model_config (`dict`): key of a recipe.
        folder (`str` or `Path`): folder of the model.
    Raises:
        ValueError: if `gap_fusion_config.method` differs.
    """
    wanted = model_config.get("gap_fusion_config", {}).get("method")
    method = GapMllmConfig.from_pretrained(folder).gap_fusion_config.method
    if wanted not in (None, method):
        raise ValueError(
            f"model_config.gap_fusion_config.method is {wanted!r}, but {folder} joins geometry by {method!r}. Convert "
            f"base models with --fusion {wanted}, or give --model_config.gap_fusion_config.method {method}."
        )


def train_geometry_aligned(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    scorer: Callable | None = None,
    callbacks: list[TrainerCallback] | None = None,
    make_scorer: Callable | None = None,
):
    """Pre-train on rooms or on the rows of a source (`data`).

    If the output folder holds a checkpoint, training goes on from the last whole one; see
    `ResumingMixin.train_and_save`, also for what a signal does.

    Args:
        recipe (`str`): name of a file in training/recipes, or a path to a YAML file.
        overrides (`list[str]`, defaults to `()`): command-line flags that replace the recipe's values.
        scorer (`Callable`, *optional*): see `GeometryAlignedTrainer`; by default, with `num_selection_rooms`, marked
            pixels of that many rooms.
        callbacks (`list[TrainerCallback]`, *optional*): further callbacks of the trainer.
        make_scorer (`Callable`, *optional*): takes the processor and returns `scorer`, where that needs one; not asked
            without `eval_strategy`.
    Returns:
        `tuple[GeometryAlignedTrainer, GapMllmProcessor]`: after training; both are saved in the output folder.
    Raises:
        FileNotFoundError: if there is no such recipe, model or encoder. ValueError: as `read_recipe`, `check_sections`
            and `check_evaluation`, without an encoder, as `FrozenGeometry`, for weights, dtype, attention or layout
            that do not fit (`load_pretrained`, `set_attention`, `GeometryAlignedTrainer`), or for an output folder of
            other settings. ImportError: for attention that is not installed. FileExistsError: if another process
            trains in the folder. RecordError: as `load_multiview` and `SceneCollator`. SystemExit: after SIGTERM or
            SIGINT, once a checkpoint is saved.
    """
    kinds = GeometryAlignedModelArguments, GeometryAlignedTrainingArguments
    model_args, args, run = open_recipe(kinds, recipe, overrides)
    check_dtype(model_args.dtype, ("float32", "bfloat16"))
    with run.held():
        return _train(model_args, args, run, scorer, callbacks, make_scorer)


def _train(model_args, args, run, scorer, callbacks, make_scorer):
    """Train in a folder that is held; what is wrong with it was said before anything is loaded."""
    if model_args.model_path:
        folder = model_folder(model_args.model_path)
        check_fusion(model_args.model_config, folder)
        processor = load_processor(folder)
        afresh = ("point_map_heads.", "training_heads.")  # inference needs none
        options = {"dtype": model_args.dtype, **quantized_loading(model_args.quantization, args.device)}
        if "use_geometry" in model_args.model_config:
            options["use_geometry"] = model_args.model_config["use_geometry"]
        model = load_pretrained(GapMllmForPreTraining, folder, may_lack=afresh, **options)
    elif (model_args.geometry_encoder_path or starts_afresh(model_args.model_config)) and model_args.lora is None:
        processor = new_processor(model_args)
        start = model_args.model_config, model_args.geometry_encoder_path
        model = build_model(*start, processor, model_args.dtype)
    else:
        raise ValueError(
            "Give model_path to go on from a model, as lora must, or geometry_encoder_path for a new one."
        )
    if make_scorer is not None and args.eval_strategy != "no":
        scorer = make_scorer(processor)
    answers, config = bool(model_args.num_selection_rooms or model_args.eval_rewards), model.config
    check_known_geometry(config, model_args.known_geometry, answers)
    teaching = set_training_heads(model, args)
    freeze(model, args)
    set_attention(model, model_args.attn_implementation, args.device, autocast_dtype(args))
    is_flash = "flash" in model.config.text_config._attn_implementation
    layout = model_args.layout or ("packed" if is_flash else "block_mask")
    shared = {"point_map_side": model.config.point_map_side, "answer_weights": model_args.answer_weights}
    shared["readout_boxes"] = make_terms(args, args.terms)["readout"].boxes
    shared |= {"teaching": teaching, "known_geometry": model_args.known_geometry}
    if model_args.frozen_geometry:
        shared["geometry"] = FrozenGeometry(model, **model_args.frozen_geometry)
    eval_dataset, shown = None, ()
    if model_args.data:
        dataset = training_questions(model_args, args)
        eval_dataset = evaluation_questions(model_args, args)
        if model_args.eval_rewards and scorer is None:
            scorer = answer_scorer(processor, eval_dataset, model_args.eval_rewards)
    else:
        dataset, scorer, shown = _rooms(model_args, args, processor, scorer)
    if model_args.cold_start:

        def taught(asked):
            return ColdStartQuestions(asked, processor, **model_args.cold_start)

        dataset, eval_dataset = taught(dataset), each_set(eval_dataset, taught)
    collator = SceneCollator(processor, layout, for_pretraining=True, **shared, **model_args.collation)
    if model_args.lora is not None:
        model = add_lora(model, **lora_options(model_args, args))
    shown = () if needs_known_depth(config) else eval_dataset or shown  # it could not be asked from pixels alone
    trainer = GeometryAlignedTrainer(
        model=model,
        args=args,
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        data_collator=collator,
        scorer=scorer,
        callbacks=[*(callbacks or ()), SamplePictures(run, processor, shown)],
        run=run,
    )
    trainer.train_and_save()  # with the processor, and so ready for the Hub
    return trainer, processor


def _rooms(model_args, args, processor, scorer):
    """Training rooms for every step or epoch, the scorer that asks about selection rooms, and questions to draw."""
    rooms = training_rooms(model_args, args, RoomVariety(**model_args.variety))
    processor.set_training_views(*training_views(rooms.variety))
    seen = []
    if model_args.num_selection_rooms:
        seen = load_multiview("rendered_rooms", split="selection", num_rooms=model_args.num_selection_rooms)
        scorer = scorer or marked_pixel_scorer(processor, seen, show_progress=False)
    shown = make_marked_pixel_samples(seen[index] for index in range(min(len(seen), NUM_SHOWN)))
    return RoomQuestionDataset(rooms, RoomQuestions(**model_args.questions)), scorer, shown


def training_views(variety: RoomVariety):
    """What a processor says of a model that was trained on such rooms: the commonest size and its largest cross.

    Args:
        variety (`RoomVariety`)
    Returns:
        `tuple`: `training_view_size`, `mark_arm` and `mark_half_thickness` of `GapMllmProcessor`.
    """
    height, width = variety.sizes[max(range(len(variety.sizes)), key=lambda i: variety.size_shares[i])]
    arm, half_thickness = variety.mark_arms[1], variety.mark_half_thickness
    half_thickness = arm // 4 if half_thickness is None else half_thickness
    return {"height": height, "width": width}, arm, half_thickness


def new_processor(model_args):
    """The tiny processor for the patches of the model; views of rooms have no more pixels than their largest.

    What the recipe says of it beats both.
    """
    vision = model_args.model_config.get("vision_config", {})
    names = {"patch_size": "patch_size", "spatial_merge_size": "merge_size"}
    options = {ours: vision[name] for name, ours in names.items() if name in vision}
    if not model_args.data:
        options["max_pixels"] = max(height * width for height, width in RoomVariety(**model_args.variety).sizes)
    return build_tiny_processor(**{**options, **model_args.tiny_processor})
