"""Muon for the matrices of linear layers and AdamW for all else, as the one optimiser that `Trainer` takes."""

from collections.abc import Iterable

import torch
from torch import nn


class MuonAndAdamW(torch.optim.Optimizer):
    """Trains the weights of linear layers by Muon, and biases, norms, convolutions and embeddings by AdamW.

    Both are PyTorch's, and share learning rate and schedule: Muon's updates are scaled to the size of AdamW's. One
    state holds what both keep, so that checkpoints, schedules and `accelerate` see one optimiser.
    Source: Jordan et al. 2024 (Muon); Liu et al., arXiv:2502.16982, section 2.2, for the scale.

    Args:
        model (`nn.Module`): what is trained: its parameters with `requires_grad`.
        lr (`float`): learning rate of both.
        weight_decay (`float`, defaults to 0.0): decay of matrices, and of the parameters named in `decayed`.
        decayed (`Iterable[str]`, defaults to `()`): names of parameters that decay.
        betas (`tuple[float, float]`, defaults to (0.9, 0.999)), eps (`float`, defaults to 1e-8): constants of AdamW.
        momentum (`float`, defaults to 0.95): momentum of Muon.
    Raises:
        ValueError: if no linear layer is trained.

    Example:
        ```python
        >>> import torch
        >>> from torch import nn
        >>> from gap_mllm.training import MuonAndAdamW
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 1))
        >>> optimizer = MuonAndAdamW(model, lr=1e-3, weight_decay=0.05)
        >>> [len(group["params"]) for group in optimizer.param_groups]  # two matrices; two biases and a norm
        [2, 4]
        >>> model(torch.rand(2, 4)).sum().backward()
        >>> optimizer.step()

        ```
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        weight_decay: float = 0.0,
        decayed: Iterable[str] = (),
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        momentum: float = 0.95,
    ):
        linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
        trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
        matrices = [each for _, each in trained if id(each) in linear]
        if not matrices:
            raise ValueError(f"{type(model).__name__} has no linear layer that is trained; Muon trains nothing else.")
        decayed, others = set(decayed), {True: [], False: []}
        for name, each in trained:
            if id(each) not in linear:
                others[name in decayed].append(each)
        groups = [
            {"params": chosen, "weight_decay": weight_decay if is_decayed else 0.0}
            for is_decayed, chosen in others.items()
            if chosen
        ]
        muon = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "adjust_lr_fn": "match_rms_adamw"}
        self._parts = [torch.optim.Muon(matrices, **muon)]
        if groups:
            self._parts.append(torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps))
        super().__init__([group for part in self._parts for group in part.param_groups], {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        """One step of both; what `closure` returns, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Groups and state are those of this optimiser, whose loading replaces both.
        for part, groups in zip(self._parts, (self.param_groups[:1], self.param_groups[1:]), strict=False):
            part.param_groups, part.state = groups, self.state
            part.step()
        return loss


__all__ = ["MuonAndAdamW"]
