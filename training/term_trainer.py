"""The common base of our trainers: a loss made of named terms, each divided by a count that is global.

Global means over all micro-batches of an optimiser step and over all processes, so that the split of a batch never
changes the loss. Terms are logged by name; a loss that is not finite stops the run and names its cause.
"""

import torch
from torch import nn
from transformers import Trainer

from .provenance import write_provenance


class TermTrainer(Trainer):
    """`Trainer` for losses of several named terms.

    Subclasses say what to count (`count_items`), what to sum (`compute_terms`) and how to weigh (`term_weights`).
    Every checkpoint says how it was made: provenance.json holds the arguments, package versions and git commit.

    Args:
        settings (`dict`, *optional*): further settings of the run for provenance.json, as the resolved recipe. Other
            arguments are `Trainer`'s.
    Raises:
        ValueError: under `nn.DataParallel`, which cuts inputs along their first dimension; ours have no common one.
    """

    loss_is_scaled_for_ga = True  # by the global counts

    def __init__(self, *args, settings=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.settings = settings or {}
        if self.args.n_gpu > 1 or isinstance(self.model_wrapped, nn.DataParallel):
            raise ValueError(
                "nn.DataParallel cannot split multi-view batches. Start one process for each GPU instead: "
                f"accelerate launch --num_processes {max(self.args.n_gpu, 2)} your_script.py"
            )
        self._term_totals = {}
        self._term_steps = 0

    def count_items(self, inputs):
        """Number (or total weight) of the items of each term in one micro-batch, `dict[str, float]` or tensors."""
        raise TypeError(f"{type(self).__name__} must define count_items.")

    def compute_terms(self, model, inputs):
        """Sum of each term over one micro-batch, `dict[str, torch.Tensor]`, and the model's outputs."""
        raise TypeError(f"{type(self).__name__} must define compute_terms.")

    @property
    def term_weights(self):
        """Weight of each term, `dict[str, float]`; a term of weight 0 is not computed."""
        raise TypeError(f"{type(self).__name__} must define term_weights.")

    def _get_num_items_in_batch(self, batch_samples, device):
        if not batch_samples:
            return None
        totals = {}
        for inputs in batch_samples:
            for name, count in self.count_items(inputs).items():
                totals[name] = totals.get(name, 0) + float(count)
        counts = torch.tensor(list(totals.values()), dtype=torch.float64).to(device, torch.float32)
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts[None]).sum(0)
        self._term_steps += 1
        return dict(zip(totals, counts, strict=True))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Weighted sum of the terms, each over its global count.

        Raises:
            FloatingPointError: if a term is NaN or infinite, with step, term and sample ids.
        """
        counts = num_items_in_batch
        if counts is None:
            counts = {name: torch.tensor(float(count)) for name, count in self.count_items(inputs).items()}
        sample_ids = inputs.get("sample_ids")
        sums, outputs = self.compute_terms(model, inputs)
        loss = 0.0
        for name, weight in self.term_weights.items():
            if name not in sums or weight == 0:
                continue
            count = counts[name].to(sums[name].device)
            term = sums[name] / torch.where(count > 0, count, 1.0)
            if not torch.isfinite(term):
                raise FloatingPointError(
                    f"The loss term {name!r} is {term.item()} at step {self.state.global_step}, for the samples "
                    f"{sample_ids}. Look at these samples, or lower the learning rate."
                )
            if model.training:
                self._term_totals[name] = self._term_totals.get(name, 0.0) + term.detach()
            loss = loss + weight * term
        if model.training and self.args.world_size > 1:
            loss = loss * self.args.world_size  # DDP averages the gradients of the processes
        return (loss, outputs) if return_outputs else loss

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        write_provenance(
            output_dir or self.args.output_dir, {**self.settings, "arguments": self.args.to_sanitized_dict()}
        )

    def log(self, logs, *args, **kwargs):
        if "loss" in logs and self._term_steps:
            for name, total in self._term_totals.items():
                total = total / self._term_steps
                if self.args.world_size > 1:
                    total = self.accelerator.gather(total[None]).sum()
                logs[f"loss_{name}"] = round(float(total), 6)
            self._term_totals, self._term_steps = {}, 0
        super().log(logs, *args, **kwargs)


__all__ = ["TermTrainer"]
