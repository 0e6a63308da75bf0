"""Geometry-aligned pre-training: text answers about marked pixels, dense point maps, and read-out supervision.

Source: GAP-MLLM (arXiv:2603.16461) for the text task; the dense and read-out terms are optional and ours. All terms
come from one forward pass of `GapMllmForPreTraining` on batches of `SharedSceneCollator`.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field

from tqdm import tqdm
from transformers.utils import logging

from .losses import point_loss, text_loss
from .module_groups import MODULE_GROUPS, freeze_groups, parameter_groups
from .patch_embedding import linear_patch_embedding
from .readout import record_readout
from .shared_scene_collator import PADDING
from .term_trainer import TermTrainer, TermTrainingArguments


logger = logging.get_logger(__name__)

# The published run: vision tower and geometry encoder frozen, mergers and fusion at twice the base learning rate.
PUBLISHED_LEARNING_RATES = {
    "geometry": 0.0,
    "vision": 0.0,
    "mergers": 1e-5,
    "fusion": 1e-5,
    "language": 5e-6,
    "point_maps": 1e-5,
}


@dataclass
class GeometryAlignedTrainingArguments(TermTrainingArguments):
    """`TermTrainingArguments` with weights of the terms and a learning rate for each group of modules."""

    text_weight: float = field(default=1.0, metadata={"help": "Weight of the answers' cross-entropy."})
    point_map_weight: float = field(default=0.0, metadata={"help": "Weight of the dense point error in metres."})
    readout_weight: float = field(default=0.0, metadata={"help": "Weight of the read-out supervision."})
    readout_layers: list[int] = field(
        default_factory=lambda: [1, 2], metadata={"help": "Language layers whose attention is supervised."}
    )
    readout_heads: list[int] = field(default_factory=lambda: [0], metadata={"help": "Heads that are supervised."})
    module_learning_rates: dict | None = field(
        default=None,
        metadata={
            "help": f"Learning rate of each of {list(MODULE_GROUPS)}; 0 freezes. By default the published ones."
        },
    )

    def __post_init__(self):
        if self.module_learning_rates is None:
            self.module_learning_rates = dict(PUBLISHED_LEARNING_RATES)
        super().__post_init__()


class GeometryAlignedTrainer(TermTrainer):
    """Trains `GapMllmForPreTraining`.

    Args:
        scorer (`Callable`, *optional*): `scorer(model) -> dict[str, float]` generates answers and scores them; called
            by every evaluation, its results are logged with the prefix "eval_". Other arguments are `Trainer`'s.
    Raises:
        ValueError: if a parameter is in no module group or in two, or a group has no learning rate.
    """

    def __init__(self, *args, scorer=None, **kwargs):
        self.scorer = scorer
        model = kwargs.get("model", args[0] if args else None)
        arguments = kwargs.get("args", args[1] if len(args) > 1 else None)
        freeze_groups(model, arguments.module_learning_rates)
        if scorer is not None and kwargs.get("eval_dataset") is None:
            kwargs["eval_dataset"] = []  # the scorer alone evaluates; Trainer insists on a dataset
        super().__init__(*args, **kwargs)

    def create_optimizer(self, model=None):
        """Build the optimiser, with the learning rate of each module group; the main process prints their table."""
        if self.optimizer is None:
            model = self.model if model is None else model
            groups = parameter_groups(
                model,
                self.args.module_learning_rates,
                self.args.weight_decay,
                self.get_decay_parameter_names(model),
                show=tqdm.write if self.is_world_process_zero() else logger.debug,
            )
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    @property
    def term_weights(self):
        args = self.args
        return {"text": args.text_weight, "point_map": args.point_map_weight, "readout": args.readout_weight}

    def count_items(self, inputs):
        counts = {"text": inputs["label_weights"][:, 1:].sum()}
        if self.args.point_map_weight:
            targets = inputs.get("point_map_targets")
            counts["point_map"] = 0 if targets is None else targets.isfinite().all(-1).sum() * 2  # two heads
        if self.args.readout_weight:
            watched = len(self.args.readout_layers) * len(self.args.readout_heads)
            counts["readout"] = (inputs["readout_targets"] != PADDING).sum() * watched
        return counts

    def compute_terms(self, model, inputs):
        inputs = dict(inputs)
        for name in ("sample_ids", "collation_counts"):
            inputs.pop(name, None)
        targets = inputs.pop("point_map_targets", None)
        label_weights = inputs.pop("label_weights")
        document_ids, readout_targets = inputs.pop("document_ids"), inputs.pop("readout_targets")
        with self._watched(model) as recording:
            if recording is not None:
                recording.watch(document_ids, readout_targets)
            output = model(**inputs)
        weights = label_weights[tuple(output.answer_positions.T)]
        terms = {"text": text_loss(output.answer_logits, output.answer_targets, weights)}
        if targets is not None and output.point_maps is not None:
            valid = targets.isfinite().all(-1)
            terms["point_map"] = sum(point_loss(points, targets, valid) for points in output.point_maps.values())
        if recording is not None:
            terms["readout"] = recording.loss + 0.0 * terms["text"]  # a tensor even if no row is watched
        return terms, output

    def training_step(self, model, inputs, num_items_in_batch=None):
        visual = self.accelerator.unwrap_model(model).model.visual
        with self._watched(model), linear_patch_embedding(visual):  # the backward pass included
            return super().training_step(model, inputs, num_items_in_batch)

    def _watched(self, model):
        if not self.args.readout_weight:
            return nullcontext()
        language_model = self.accelerator.unwrap_model(model).model.language_model
        return record_readout(language_model, self.args.readout_layers, self.args.readout_heads)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Loss on the evaluation set if there is one, and the scorer's metrics of generated answers."""
        metrics = {}
        if eval_dataset or self.eval_dataset:
            metrics.update(super().evaluate(eval_dataset, ignore_keys, metric_key_prefix))
        if self.scorer is not None:
            model = self.accelerator.unwrap_model(self.model)
            was_training = model.training
            model.eval()
            scores = self.scorer(model)
            model.train(was_training)
            scores = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
            self.log(dict(scores))
            metrics.update(scores)
        return metrics


__all__ = ["PUBLISHED_LEARNING_RATES", "GeometryAlignedTrainer", "GeometryAlignedTrainingArguments"]
