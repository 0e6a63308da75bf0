"""Geometry-aligned pre-training: arguments and trainer of a loss whose terms stand in `terms/`, each in a file.

Source: GAP-MLLM (arXiv:2603.16461) for the text task; the other terms are optional and ours. All terms come from one
forward pass of `GapMllmForPreTraining` on batches of `SceneCollator`.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers.utils import logging

from ..geometry_views_gap_mllm import is_trainable
from ..processing import check_image_statistics
from ..processing.argument_checks import check_names
from .evaluation_batches import gathered_model
from .fusion_gates import GateWatch
from .geometry_follower import GeometryFollower, follow_model
from .module_groups import HEAD_GROUP, MODULE_GROUPS, freeze_groups, groups_of, parameter_groups
from .patch_embedding import linear_patch_embedding
from .scene_collator import LOSS_FIELDS
from .schedule import Schedule, value_at
from .term_trainer import TermTrainer, TermTrainingArguments
from .terms import HeadTerm, make_terms


logger = logging.get_logger(__name__)

# The published run: vision tower and geometry encoder frozen, mergers and fusion at twice the base learning rate.
PUBLISHED_LEARNING_RATE = 5e-6
LEARNING_RATE_FACTORS = {
    "geometry": 0.0,
    "vision": 0.0,
    "mergers": 2.0,
    "fusion": 2.0,
    "language": 1.0,
    "point_maps": 2.0,
}
HEADS_FACTOR = 5.0  # of heads on hidden states, as published for GeoVR


@dataclass
class GeometryAlignedTrainingArguments(TermTrainingArguments):
    """`TermTrainingArguments` with settings of the terms and a learning rate for each group of modules.

    `readout_layers: [1]` and `terms: {readout: {layers: [1]}}` say the same; `terms` also reaches terms that have no
    field here, and beats the fields. `learning_rate` is that of the language model; mergers, fusion and point maps
    learn at twice that rate, heads on hidden states at five times, and vision tower and geometry encoder are frozen,
    unless `module_learning_rates` says otherwise of a group. The heads of point maps are frozen in any case if their
    term has weight 0 throughout.
    A weight in `terms` may follow the run: `terms: {readout: {weight: {0: 1.0, 0.5: 0.0}}}`, see `Schedule`; the log
    then has `weight_readout`, the weight of the last step.

    Raises:
        ValueError: if `terms` names a term or setting that is not known, or `module_learning_rates` such a group; if
            the latter names every group and `learning_rate` is given, which nothing would follow; or as
            `TermTrainingArguments`.
    """

    learning_rate: float = field(
        default=PUBLISHED_LEARNING_RATE,
        metadata={"help": "Learning rate of the language model, which the groups of modules follow."},
    )
    text_weight: float = field(default=1.0, metadata={"help": "Weight of the answers' cross-entropy."})
    point_map_weight: float = field(default=0.0, metadata={"help": "Weight of the dense point error in metres."})
    readout_weight: float = field(default=0.0, metadata={"help": "Weight of the read-out supervision."})
    readout_layers: list[int] = field(
        default_factory=lambda: [1, 2], metadata={"help": "Language layers whose attention is supervised."}
    )
    readout_heads: list[int] = field(default_factory=lambda: [0], metadata={"help": "Heads that are supervised."})
    terms: dict = field(
        default_factory=dict,
        metadata={"help": "Settings of any term of LOSS_TERMS by its name, as {readout: {weight: 1.0}}."},
    )
    module_learning_rates: dict | None = field(
        default=None,
        metadata={
            "help": f"Learning rate of any of {list(MODULE_GROUPS)}; 0 freezes. The others are learning_rate times "
            f"{LEARNING_RATE_FACTORS}."
        },
    )

    def __post_init__(self):
        given = self.module_learning_rates or {}
        check_names("module_learning_rates", given, MODULE_GROUPS | HEAD_GROUP)
        if {*MODULE_GROUPS} <= {*given} and self.learning_rate != PUBLISHED_LEARNING_RATE:
            raise ValueError(
                f"learning_rate is {self.learning_rate}, but module_learning_rates names every group, so that nothing "
                "would follow it. Leave out learning_rate, or the groups that shall follow it."
            )
        make_terms(self, self.terms)  # misspelt ones are refused before anything is loaded
        for settings in self.terms.values():  # as JSON takes it
            if isinstance(settings.get("weight"), Schedule):
                settings["weight"] = settings["weight"].as_dict()
        super().__post_init__()

    @property
    def group_learning_rates(self):
        """Learning rate of every group of modules, `dict[str, float]`."""
        followed = {group: factor * self.learning_rate for group, factor in LEARNING_RATE_FACTORS.items()}
        if any(isinstance(term, HeadTerm) and term.weight for term in make_terms(self, self.terms).values()):
            followed |= dict.fromkeys(HEAD_GROUP, HEADS_FACTOR * self.learning_rate)
        return {**followed, **(self.module_learning_rates or {})}


class GeometryAlignedTrainer(TermTrainer):
    """Trains `GapMllmForPreTraining`, also within PEFT's adapters.

    Args:
        scorer (`Callable`, *optional*): `scorer(model) -> dict[str, float]` generates answers and scores them; called
            by every evaluation, its results are metrics with the prefix "eval_", as `metric_for_best_model` and
            `EarlyStoppingCallback` take them. Other arguments are `Trainer`'s;
            `args` is a `GeometryAlignedTrainingArguments`, `data_collator` a
            `SceneCollator(..., for_pretraining=True)`.
    Raises:
        TypeError: if `model` is no `GapMllmForPreTraining`, or `args` no `GeometryAlignedTrainingArguments`.
        ValueError: if a parameter is in no module group or in two, or the collator's processor normalises pixels
            otherwise than the model's config says, or its layout is "block_mask" and attention is FlashAttention; when
            training, for batches of a collator without `for_pretraining=True`.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForPreTraining
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.training import GeometryAlignedTrainer, GeometryAlignedTrainingArguments
        >>> from gap_mllm.training import SceneCollator, SceneQuestionDataset
        >>> model = GapMllmForPreTraining.from_pretrained(folder, dtype="float32")
        >>> collator = SceneCollator(GapMllmProcessor.from_pretrained(folder), "block_mask", for_pretraining=True)
        >>> rooms = load_multiview("rendered_rooms", split="train", num_rooms=2)  # or rows of any source
        >>> questions = SceneQuestionDataset(rooms, tasks=("object_count",))
        >>> args = GeometryAlignedTrainingArguments("run", max_steps=1, save_strategy="no", report_to="none")
        >>> trainer = GeometryAlignedTrainer(model, args, train_dataset=questions, data_collator=collator)
        >>> output = trainer.train()
        group            parameters      trainable  learning rate
        ...
        {'train_runtime': ...}
        >>> output.global_step, sorted(key for key in trainer.state.log_history[0] if "loss" in key)
        (1, ['loss', 'loss_text'])

        ```
    """

    def __init__(self, *args, scorer: Callable | None = None, **kwargs):
        self.scorer = scorer
        model = kwargs.get("model", args[0] if args else None)
        arguments = kwargs.get("args", args[1] if len(args) > 1 else None)
        _check_kinds(model, arguments)
        freeze(model, arguments)
        if scorer is not None and kwargs.get("eval_dataset") is None:
            kwargs["eval_dataset"] = []  # the scorer alone evaluates; Trainer insists on a dataset
        super().__init__(*args, **kwargs)
        if hasattr(self.data_collator, "processor"):
            check_image_statistics(self.data_collator.processor, self.model.config)
        kernel = bare_model(model).config.text_config._attn_implementation
        if getattr(self.data_collator, "layout", None) == "block_mask" and "flash" in kernel:
            raise ValueError(
                f"The collator's layout 'block_mask' needs a mask that {kernel} cannot take, so that questions would "
                "see each other. Give SceneCollator(processor, 'packed') or 'padded', or attn_implementation='sdpa'."
            )
        self._follow_encoder()  # which may be in bfloat16 now
        self.add_callback(GeometryFollower(self.data_collator))
        self._gates = GateWatch(bare_model(self.model).model.fusion)
        self.add_callback(self._gates)
        self.terms = make_terms(self.args, self.args.terms)
        own_fields = {field for term in self.terms.values() for field in term.batch_fields}
        self._not_for_model = own_fields.union(LOSS_FIELDS)
        for name in self.term_names:
            self.terms[name].check(bare_model(self.model))
            self.terms[name].prepare(getattr(self.data_collator, "processor", None))
        heads = [name for name in self.term_names if isinstance(self.terms[name], HeadTerm)]
        if heads and getattr(self.data_collator, "teaching", self) is None:
            raise ValueError(
                f"The terms {heads} have a weight, but the collator asks no teacher. Give SceneCollator the teaching "
                "that set_training_heads(model, args) returns."
            )

    def evaluate(self, *args, **kwargs):
        """As `Trainer`'s; frozen geometry is that of the weights of now."""
        self._follow_encoder()
        return super().evaluate(*args, **kwargs)

    def predict(self, *args, **kwargs):
        """As `Trainer`'s; frozen geometry is that of the weights of now."""
        self._follow_encoder()
        return super().predict(*args, **kwargs)

    def _follow_encoder(self):
        if follow_model(self.data_collator, self.model):
            self._eval_dataloaders = {}  # whose processes hold what was before

    def create_optimizer(self, model: nn.Module | None = None):
        """Build the optimiser, with the learning rate of each module group; the main process prints their table.

        Raises:
            ValueError: if FSDP leaves a trained module out, so that processes would not share its gradients.
        """
        if self.optimizer is None:
            model = self.model if model is None else model
            ignored = getattr(getattr(self.accelerator.state, "fsdp_plugin", None), "ignored_modules", None)
            for name, module in model.named_modules() if isinstance(ignored, str) else ():
                if re.fullmatch(ignored, name) and is_trainable(module):
                    raise ValueError(
                        f"fsdp_ignored_modules={ignored!r} leaves out {name!r}, which is trained: processes would not "
                        "share its gradients. Freeze it, or take the setting out of accelerate's configuration."
                    )
            groups = parameter_groups(
                model,
                self.args.group_learning_rates,
                self.args.weight_decay,
                self.get_decay_parameter_names(model),
                show=tqdm.write if self.is_world_process_zero() else logger.debug,
            )
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    @property
    def term_weights(self):
        return self._weights_at(self.state.global_step)

    def _weights_at(self, step):
        done = step / max(self.state.max_steps, 1)
        return {name: value_at(term.weight, done) for name, term in self.terms.items()}

    @property
    def term_names(self):
        return tuple(name for name, term in self.terms.items() if term.weight)

    def count_items(self, inputs: Mapping[str, torch.Tensor]):
        if "label_weights" not in inputs:
            raise ValueError(
                "The batch has no label_weights: it was made for another trainer. Give "
                "data_collator=SceneCollator(processor, for_pretraining=True)."
            )
        return {name: self.terms[name].count(inputs) for name in self.term_names}

    def compute_terms(self, model: nn.Module, inputs: Mapping[str, torch.Tensor]):
        self._gates.has_views = "pixel_values" in inputs
        with self._watched(inputs):
            outputs = model(**{name: value for name, value in inputs.items() if name not in self._not_for_model})
        sums = {name: self.terms[name].sum(outputs, inputs) for name in self.term_names}
        return {name: value for name, value in sums.items() if value is not None}, outputs

    def log(self, logs: dict[str, float], *args, **kwargs):
        """As `TermTrainer`'s; with a training loss also gates (`GateWatch`) and the weights that follow the run."""
        if "loss" in logs:
            logs.update(self._gates.take(self._over_processes))
            weights = self._weights_at(self.state.global_step - 1)
            following = [name for name, term in self.terms.items() if isinstance(term.weight, Schedule)]
            logs.update({f"weight_{name}": round(weights[name], 6) for name in following})
        super().log(logs, *args, **kwargs)

    def training_step(
        self,
        model: nn.Module,
        inputs: Mapping[str, torch.Tensor],
        num_items_in_batch: dict[str, torch.Tensor] | None = None,
    ):
        visual = bare_model(self.model).model.visual
        with self._watched(), linear_patch_embedding(visual):  # the backward pass included
            return super().training_step(model, inputs, num_items_in_batch)

    @contextmanager
    def _watched(self, inputs=None):
        """The contexts of all terms that are computed; see `LossTerm.watch`."""
        with ExitStack() as contexts:
            for name in self.term_names:
                contexts.enter_context(self.terms[name].watch(bare_model(self.model), inputs))
            yield

    def evaluation_loop(
        self, dataloader: DataLoader, description: str, *args, metric_key_prefix: str = "eval", **kwargs
    ):
        """Loss on the evaluation set if there is one, and the scorer's metrics of generated answers.

        Of several sets the scorer is asked once, with the first, and its metrics keep their names.
        """
        output = super().evaluation_loop(dataloader, description, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        sets = [f"eval_{name}" for name in self.eval_dataset] if isinstance(self.eval_dataset, dict) else []
        is_due = metric_key_prefix not in sets[1:] and description == "Evaluation"  # and not a prediction
        if self.scorer is not None and is_due:
            with gathered_model(self.accelerator.unwrap_model(self.model).eval()) as model:
                scores = self.scorer(model)
            prefix = "eval" if metric_key_prefix in sets else metric_key_prefix
            output.metrics.update({f"{prefix}_{name}": value for name, value in scores.items()})
        return output


def freeze(model: nn.Module, args: GeometryAlignedTrainingArguments):
    """Freeze what has no learning rate, and heads that no term trains.

    A frozen geometry encoder takes half the memory in a run in bfloat16.

    Args:
        model (`GapMllmForPreTraining`, or adapters around one): whose encoder then is, and is saved, in bfloat16.
        args (`GeometryAlignedTrainingArguments`)
    Raises:
        ValueError: as `freeze_groups`.
    """
    trained = trained_groups(args)
    freeze_groups(model, {group: float(group in trained) for group in groups_of(model)})
    geometry = bare_model(model).model.geometry
    if args.bf16 and geometry is not None and not is_trainable(geometry):
        geometry.to(torch.bfloat16)
        parts = dict(geometry.named_modules())
        for name in {*(type(geometry)._keep_in_fp32_modules_strict or ())} & parts.keys():  # heads that tell points
            parts[name].float()


def trained_groups(args: GeometryAlignedTrainingArguments) -> list[str]:
    """Name the groups of modules that have a learning rate, but for heads that no term trains."""
    terms = make_terms(args, getattr(args, "terms", None)).values()  # GRPO has none
    unused = {group for term in terms for group in term.module_groups}
    unused.difference_update(*(term.module_groups for term in terms if term.weight))
    return [group for group, rate in args.group_learning_rates.items() if rate and group not in unused]


def bare_model(model):
    """The model within adapters, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _check_kinds(model, arguments):
    """Refuse a model or arguments of another kind before anything is done with them."""
    if not isinstance(arguments, GeometryAlignedTrainingArguments):
        raise TypeError(
            f"args is a {type(arguments).__name__}; expected GeometryAlignedTrainingArguments, which weigh the terms "
            "and give each group of modules its learning rate."
        )
    kind = type(bare_model(model))
    if not any(each.__name__ == "GapMllmForPreTraining" for each in kind.__mro__):  # remote code has its own
        raise TypeError(
            f"model is a {kind.__name__}; expected a GapMllmForPreTraining, as AutoModelForPreTraining loads it."
        )
