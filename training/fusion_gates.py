"""Gates of the fusion while a model runs: what they are at each token, and their statistics in the log of a training.

A gate is the weight of the visual part ("gated": of each token and channel; "weighted": one number a level).
"geothinker" has an importance of each geometry token instead. Other methods have neither, only `strength`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy
from transformers.utils import logging

from ..fusion_gap_mllm import GapMllmFusion


logger = logging.get_logger(__name__)

NEAR = 0.05  # of 0 or 1
COLLAPSED_SHARE = 0.95  # of a level's gates at one end, from which on they have collapsed
ENDS = {"near_0": "near 0", "near_1": "near 1"}


@dataclass
class GateReading:
    """What `read_gates` keeps, by the name of the level ("deepstack_1" and so on, and "final"); without gradient.

    Args:
        gates (`dict[str, list[torch.Tensor]]`): gates of each pass: `(N, D)`, of "weighted" a scalar, of "geothinker"
            importances `(N, 1)`; nothing of methods without.
        strengths (`dict[str, torch.Tensor]`): root mean square of `strength` over channels: 0 where nothing is fused.
    """

    gates: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    strengths: dict[str, torch.Tensor] = field(default_factory=dict)


def level_names(fusion: GapMllmFusion) -> list[str]:
    """Name the levels that are fused: "deepstack_1" and so on, and "final"."""
    names = [*(f"deepstack_{number}" for number in range(1, fusion.config.num_levels)), "final"]
    return names[-len(fusion.levels) :]


@contextmanager
def read_gates(fusion: GapMllmFusion, keep: Callable = torch.clone) -> Iterator[GateReading]:
    """Keep the gates, or importances, of what the fusion does inside a `with` block.

    Args:
        fusion (`GapMllmFusion`): fusion of a model.
        keep (`Callable`, *optional*): function from gates to what is kept of them; all by default.
    Yields:
        `GateReading`: filled by each pass.
    """
    reading, handles = GateReading(), []

    def read_level(name):
        def read(level: nn.Module, args, output):
            reading.strengths[name] = level.strength.detach().float().square().mean().sqrt()
            if output[1] is not None:
                reading.gates.setdefault(name, []).append(keep(output[1].detach()))

        return read

    def read_importance(name):
        def read(module: nn.Module, args, output):  # (images, tokens, 1), of images of one size after the other
            reading.gates.setdefault(name, []).append(keep(output.detach().sigmoid().flatten(0, 1)))

        return read

    try:
        for name, level in zip(level_names(fusion), fusion.levels, strict=True):
            handles.append(level.register_forward_hook(read_level(name)))
            if hasattr(level.fuse, "importance_fc2"):
                handles.append(level.fuse.importance_fc2.register_forward_hook(read_importance(name)))
        yield reading
    finally:
        for handle in handles:
            handle.remove()


def gate_sums(gates: torch.Tensor) -> torch.Tensor:
    """Number of gates, their sum and sum of squares, and how many are near 0 and near 1 (within `NEAR`), `(5,)`."""
    gates = gates.float()
    count = torch.full_like(gates.flatten()[0], gates.numel())
    near = ((gates < NEAR).sum(), (gates > 1 - NEAR).sum())
    return torch.stack([count, gates.sum(), gates.square().sum(), *(each.float() for each in near)])


def gate_statistics(sums: torch.Tensor) -> dict[str, float]:
    """Mean, standard deviation and shares near 0 and 1 from added `gate_sums`; nothing where there were no gates."""
    count, total, squares, low, high = sums.tolist()
    if not count:
        return {}
    mean = total / count
    std = max(squares / count - mean**2, 0.0) ** 0.5
    return {"mean": mean, "std": std, "near_0": low / count, "near_1": high / count}


class GateWatch(TrainerCallback):
    """Statistics of gates at the steps that are logged, and a warning, once a level, where its gates have collapsed.

    They are those of the steps' own batches, over all processes: `gate_mean_final`, `gate_std_final`,
    `gate_near_0_final`, `gate_near_1_final` (shares within `NEAR` of 0 and 1) and `gate_strength_final`, likewise of
    other levels. Gates of which `COLLAPSED_SHARE` are at one end have collapsed: no token chooses any more. Nothing is
    read at other steps, nor with another `logging_strategy` than "steps".

    Args:
        fusion (`GapMllmFusion`, *optional*): fusion of the model that is trained; None without geometry.
    """

    def __init__(self, fusion: GapMllmFusion | None):
        self.fusion = fusion
        self.has_views = True  # the trainer says so of each batch: without, the fusion may run on idle tokens
        self._open, self._reading, self._warned = ExitStack(), None, set()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self._open.close()
        self._reading, step = None, state.global_step + 1
        is_logged = step % state.logging_steps == 0 or (step == 1 and args.logging_first_step)
        is_logged = (is_logged or step >= state.max_steps) and args.logging_strategy == IntervalStrategy.STEPS
        if self.fusion is not None and is_logged:
            self._reading = self._open.enter_context(read_gates(self.fusion, self._sums))

    def _sums(self, gates):
        return gate_sums(gates) * self.has_views

    def take(self, over_processes: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """What the log gets of the step that has ended; all processes call it.

        Args:
            over_processes (`Callable`): function that adds a tensor up over processes.
        Returns:
            `dict[str, float]`: empty after a step that was not read, and without views.
        """
        self._open.close()
        reading, self._reading = self._reading, None
        if reading is None:
            return {}
        logs, names = {}, level_names(self.fusion)
        none = torch.zeros(7, device=self.fusion.device)  # sums, strength, and whether this process has one
        rows = []
        for name in names:
            sums = sum(reading.gates.get(name, ()), none[:5])
            strength = reading.strengths.get(name)
            rows.append(torch.cat([sums, none[5:] if strength is None else torch.stack([strength, none[0] + 1])]))
        for name, row in zip(names, over_processes(torch.stack(rows)), strict=True):
            found = gate_statistics(row[:5])
            if row[6]:
                found["strength"] = float(row[5] / row[6])
            logs |= {f"gate_{key}_{name}": round(value, 6) for key, value in found.items()}
            self._warn(name, found)
        return logs

    def _warn(self, name, found):
        for key, end in ENDS.items():
            if found.get(key, 0) >= COLLAPSED_SHARE and name not in self._warned:
                self._warned.add(name)
                logger.warning(
                    f"The gates of level {name!r} of the fusion have collapsed: {found[key]:.0%} are {end} (within "
                    f"{NEAR}), so that they choose nothing and hardly learn. Lower the learning rate of the fusion "
                    "(module_learning_rates), or begin again with init: identity."
                )
