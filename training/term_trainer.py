"""The common base of our trainers: a loss made of named terms, each divided by a count that is global.

Global means over all micro-batches of an optimiser step and over all processes, so that the split of a batch never
changes the loss. Terms are logged by name; a loss that is not finite stops the run and names its cause.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from accelerate.data_loader import prepare_data_loader
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from .collation_events import COLLATION_EVENTS, pop_hit_rate
from .evaluation_batches import EvenBatches, evaluation_rows_of_process
from .resuming import ResumingMixin
from .streams import EndlessRows, rows_of_process
from .time_budget import TimeBudget


@dataclass
class DeviceDefaults:
    """What fits the device, for arguments of any trainer; stands before them among the bases.

    A GPU computes in bfloat16 if it can and nothing else is asked for. No memory is pinned for a run on the CPU,
    which torch would warn of at every epoch, and no workers are kept where there are none.
    """

    bf16: bool | None = field(
        default=None, metadata={"help": "Compute in bfloat16, weights as they are; by default where a GPU can."}
    )

    def __post_init__(self):
        if self.bf16 is None:
            self.bf16 = has_bf16_gpu() and not self.use_cpu and not self.fp16
        self.dataloader_persistent_workers &= self.dataloader_num_workers > 0
        super().__post_init__()
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False


@dataclass
class TermTrainingArguments(DeviceDefaults, TrainingArguments):
    """`TrainingArguments` for batches of views: no column is removed, no batch is cut between processes.

    Raises:
        ValueError: if `max_steps` is 0, which trains nothing, or for `label_smoothing_factor`, which no term reads; if
            `max_seconds` is not above 0, or given for several processes, whose clocks differ.
    """

    max_seconds: float | None = field(
        default=None,
        metadata={
            "help": "Seconds of training, without evaluations and saving, after which it ends, if max_steps does not "
            "end it before; the learning rate follows them."
        },
    )

    def __post_init__(self):
        if self.max_steps == 0:
            raise ValueError("max_steps is 0, which trains nothing; give 1 or more, or -1 for num_train_epochs.")
        if self.label_smoothing_factor:
            raise ValueError(
                f"label_smoothing_factor is {self.label_smoothing_factor}, but the terms of the loss do not smooth "
                "labels. Leave it out."
            )
        if self.max_seconds is not None and not 0 < self.max_seconds < float("inf"):
            raise ValueError(f"max_seconds is {self.max_seconds}; expected seconds above 0, or nothing.")
        self.remove_unused_columns = False
        super().__post_init__()
        if self.max_seconds is not None and self.world_size > 1:
            raise ValueError(
                f"max_seconds is {self.max_seconds}, but there are {self.world_size} processes, whose clocks differ. "
                "Give max_steps instead."
            )
        if self.accelerator_config.dispatch_batches is None:
            self.accelerator_config.dispatch_batches = False

    @property
    def num_train_items(self):
        """Items that `max_steps` steps of all processes take, or None where epochs are counted."""
        per_step = self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size
        return self.max_steps * per_step if self.max_steps > 0 else None


def has_bf16_gpu() -> bool:
    """Whether there is a GPU that computes in bfloat16 by itself."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def autocast_dtype(args: TrainingArguments) -> torch.dtype | None:
    """The dtype that a training computes in; None for that of the weights."""
    return torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None


class _LogLastStep(TrainerCallback):
    """What came after the last logged step is logged, too: of a run shorter than `logging_steps`, all of it."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps and args.logging_strategy != IntervalStrategy.NO:
            control.should_log = True


class TermTrainer(ResumingMixin, Trainer):
    """`Trainer` for losses of several named terms.

    Subclasses say what to count (`count_items`), what to sum (`compute_terms`) and how to weigh (`term_weights`).
    Checkpoints are whole and say how they were made, see `ResumingMixin`, whose argument `settings` is.
    A streamed `train_dataset` is split by process, none of its rows going to two, and begun again when it ends.

    Raises:
        ValueError: under `nn.DataParallel` and for `dispatch_batches`, which cut inputs along their first dimension;
            ours have no common one. For `split_batches` with a streamed `train_dataset`.
    """

    loss_is_scaled_for_ga = True  # by the global counts

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1 or isinstance(self.model_wrapped, nn.DataParallel):
            raise ValueError(
                "nn.DataParallel cannot split multi-view batches. Start one process for each GPU instead: "
                f"accelerate launch --num_processes {max(self.args.n_gpu, 2)} your_script.py"
            )
        self._refuse_cut_batches()
        if getattr(self.train_dataset, "is_scheduled", False):
            self.args.train_sampling_strategy = "sequential"  # what follows the run comes in its order
        self._clear_log()
        self._measured, self._all_events = {}, Counter()
        self._budget = None if self.args.max_seconds is None else TimeBudget(self.args.max_seconds)
        self.add_callback(_LogLastStep())
        if self._budget is not None:
            self.add_callback(self._budget)

    def _refuse_cut_batches(self):
        config, is_streamed = self.args.accelerator_config, isinstance(self.train_dataset, IterableDataset)
        problem = "dispatch_batches" if config.dispatch_batches else None
        if config.split_batches and is_streamed:
            problem = "split_batches"
        if problem is not None:
            raise ValueError(
                f"accelerator_config has {problem}=True, which cuts batches along their first dimension; tensors of "
                "multi-view batches have no common one. Leave it out: each process then reads its own rows."
            )

    def _over_processes(self, sums):
        return self.accelerator.gather(sums[None]).sum(0) if self.args.world_size > 1 else sums

    def _clear_log(self):
        self._term_totals, self._term_steps, self._events = {}, Counter(), Counter()

    def begin_or_go_on(self):
        self._clear_log()
        self._all_events = Counter()
        super().begin_or_go_on()

    def log_totals(self):
        totals = super().log_totals()
        totals["summed"] |= {name: total.detach().cpu() for name, total in self._term_totals.items()}
        counts = {"term_steps": self._term_steps, "events": self._events, "all_events": self._all_events}
        totals["common"] |= {name: dict(count) for name, count in counts.items()}
        totals["common"]["budget"] = 0.0 if self._budget is None else self._budget.seconds
        return totals

    def take_up(self, totals):
        super().take_up(totals)
        self._term_totals = {name: total.to(self.args.device) for name, total in totals["summed"].items()}
        counts = (Counter(totals["common"][name]) for name in ("term_steps", "events", "all_events"))
        self._term_steps, self._events, self._all_events = counts
        if self._budget is not None:
            self._budget.seconds_before = totals["common"]["budget"]

    def count_items(self, inputs: Mapping[str, torch.Tensor]):
        """Number (or total weight) of the items of each term in one micro-batch, `dict[str, float]` or tensors."""
        raise TypeError(f"{type(self).__name__} must define count_items.")

    def compute_terms(self, model: nn.Module, inputs: Mapping[str, torch.Tensor]):
        """Sum of each term over one micro-batch, `dict[str, torch.Tensor]`, and the model's outputs."""
        raise TypeError(f"{type(self).__name__} must define compute_terms.")

    @property
    def term_weights(self):
        """Weight of each term at the present step, `dict[str, float]`; a term of weight 0 is not computed."""
        raise TypeError(f"{type(self).__name__} must define term_weights.")

    @property
    def term_names(self):
        """The terms that are computed: the same in the same order in every process, whatever its batch holds."""
        return tuple(name for name, weight in self.term_weights.items() if weight)

    def get_train_dataloader(self):
        """As `Trainer`'s; of streamed rows each process reads its own, again and again."""
        if not isinstance(self.train_dataset, IterableDataset):
            return super().get_train_dataloader()
        rows = EndlessRows(rows_of_process(self.train_dataset, self.args.process_index, self.args.world_size))
        return self._load(rows, self._train_batch_size, self.args.dataloader_persistent_workers)

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None):
        """As `Trainer`'s; of several processes each reads its own rows, none twice to fill up a batch."""
        if self.args.world_size == 1:
            return super().get_eval_dataloader(eval_dataset)
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        return self.get_test_dataloader(self.eval_dataset[rows] if isinstance(rows, str) else rows)

    def get_test_dataloader(self, test_dataset: Dataset):
        """As `Trainer`'s; rows of several processes as in `get_eval_dataloader`."""
        args = self.args
        if args.world_size == 1:
            return super().get_test_dataloader(test_dataset)
        own = test_dataset, args.eval_batch_size, args.process_index, args.world_size
        loader = self._load(evaluation_rows_of_process(*own), args.eval_batch_size)
        return EvenBatches(loader, test_dataset, self.data_collator, self._in_any_process)

    def _in_any_process(self, flag):
        return self._over_processes(torch.tensor(float(flag), device=self.args.device)).item() > 0

    def _load(self, rows, batch_size, is_persistent=False):
        """Batches of rows that all belong to this process."""
        args = self.args
        loader = DataLoader(
            rows,
            batch_size=batch_size,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=is_persistent,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            prefetch_factor=args.dataloader_prefetch_factor,
        )
        # Not accelerator.prepare, which would split the rows of this process once more.
        return prepare_data_loader(
            loader, args.device, num_processes=1, process_index=0, put_on_device=True, dispatch_batches=False
        )

    def _get_num_items_in_batch(self, batch_samples, device):
        """Items of each term over all micro-batches and processes; gathered in one fixed form, also without any."""
        names, counts = self.term_names, torch.zeros(len(self.term_names) + len(COLLATION_EVENTS), dtype=torch.float64)
        for inputs in batch_samples:
            items, events = self.count_items(inputs), inputs.get("collation_counts")
            counts += torch.tensor(
                [float(items.get(name, 0)) for name in names]
                + ([0.0] * len(COLLATION_EVENTS) if events is None else events.tolist()),
                dtype=torch.float64,
            )
        counts = self._over_processes(counts.to(device, torch.float32))
        totals = dict(zip(names, counts, strict=False))
        self._term_steps.update(name for name, count in totals.items() if count > 0)
        self._events.update(dict(zip(COLLATION_EVENTS, counts[len(names) :].long().tolist(), strict=True)))
        return totals

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: dict[str, torch.Tensor] | None = None,
    ):
        """Weighted sum of the terms, each over its global count.

        Raises:
            FloatingPointError: if a term is NaN or infinite, with step, term and sample ids. ValueError: in training,
                if a term has no gradient, so that nothing would learn from it.
        """
        counts = num_items_in_batch
        if counts is None:
            items = self.count_items(inputs)
            counts = {name: torch.tensor(float(items.get(name, 0))) for name in self.term_names}
        sample_ids = inputs.get("sample_ids")
        sums, outputs = self.compute_terms(model, inputs)
        loss = 0.0
        for name in self.term_names:
            if name not in sums:
                continue
            count = counts[name].to(sums[name].device)
            term = sums[name] / torch.where(count > 0, count, 1.0)
            if not torch.isfinite(term):
                raise FloatingPointError(
                    f"The loss term {name!r} is {term.item()} at step {self.state.global_step}, for the samples "
                    f"{sample_ids}. Look at these samples, or lower the learning rate."
                )
            if torch.is_grad_enabled() and not term.requires_grad:
                raise ValueError(
                    f"The loss term {name!r} has no gradient, so that nothing would learn from it. With gradient "
                    "checkpointing give gradient_checkpointing_kwargs: {use_reentrant: false}; if all that it reaches "
                    "is frozen, set its weight to 0."
                )
            if model.training:
                self._term_totals[name] = self._term_totals.get(name, 0.0) + term.detach()
            elif not getattr(self.callback_handler.eval_dataloader, "is_filling", False):
                measured = self._measured.get(name, 0.0)
                self._measured[name] = measured + torch.stack([sums[name].detach().float(), count.float()])
            loss = loss + self.term_weights[name] * term
        if model.training and self.args.world_size > 1:
            loss = loss * self.args.world_size  # DDP averages the gradients of the processes
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Mapping[str, torch.Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ):
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
        return loss.detach(), None, None

    def evaluation_loop(
        self, dataloader: DataLoader, description: str, *args, metric_key_prefix: str = "eval", **kwargs
    ):
        """As `Trainer`'s; the loss, and each term by name, is over all items of the set, each once, however they are
        batched and shared by processes.
        """
        self._measured = {}
        output = super().evaluation_loop(dataloader, description, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        self._forget_evaluation_model()
        none = torch.zeros(2, device=self.args.device)
        measured = self._over_processes(torch.stack([self._measured.get(name, none) for name in self.term_names]))
        self._measured, loss = {}, 0.0
        for name, (total, count) in zip(self.term_names, measured.tolist(), strict=True):
            if count > 0:
                output.metrics[f"{metric_key_prefix}_loss_{name}"] = total / count
                loss += self.term_weights[name] * total / count
        if f"{metric_key_prefix}_loss" in output.metrics:
            output.metrics[f"{metric_key_prefix}_loss"] = loss
        return output

    def _forget_evaluation_model(self):
        """Let a training that follows an evaluation wrap the model for several processes.

        Differs: transformers 5.23 takes it for wrapped then, and processes would not share their gradients.
        """
        is_alone = self.args.world_size == 1 or self.is_in_train
        if not is_alone and self.model_wrapped is self.model and self.model in self.accelerator._models:
            self.accelerator._models.remove(self.model)
            vars(self.model).pop("_is_accelerate_prepared", None)

    def log(self, logs: dict[str, float], *args, **kwargs):
        """As `Trainer`'s; with a training loss also its terms, and what the batches since then had to leave out.

        `cache_hit_rate` is the share of scenes since then whose geometry features were found (see `FrozenGeometry`),
        and `train_cache_hit_rate`, at the end, that of the whole training.
        """
        if "loss" in logs and self._term_steps:
            none = torch.zeros((), device=self.args.device)
            totals = torch.stack([self._term_totals.get(name, none).float() for name in self.term_names])
            totals = self._over_processes(totals)
            for name, total in zip(self.term_names, totals.tolist(), strict=True):
                if self._term_steps[name]:  # a step without items of a term says nothing about it
                    logs[f"loss_{name}"] = round(total / self._term_steps[name], 6)
            self._all_events.update(self._events)
            hit_rate = pop_hit_rate(self._events)
            logs.update({event: number for event, number in self._events.items() if number})
            if hit_rate is not None:
                logs["cache_hit_rate"] = round(hit_rate, 4)
            self._clear_log()
        if "train_loss" in logs and (hit_rate := pop_hit_rate(self._all_events)) is not None:
            logs["train_cache_hit_rate"] = round(hit_rate, 4)
        super().log(logs, *args, **kwargs)
