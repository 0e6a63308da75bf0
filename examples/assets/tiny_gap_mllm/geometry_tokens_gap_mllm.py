"""Tokens of pre-training that heads read: one behind each view for its camera, one behind each scene for its scale.

They stand in the text as further image (or video) tokens right behind the patches of a view, at the position of its
last patch, so that the text behind keeps its positions. Their embeddings are learnt, and DeepStack adds nothing to
them. Source: GeoVR (arXiv:2606.05833).
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch.nn import functional as F


TOKENS_OF_HEADS = {"camera": "camera", "metric_scale": "scale"}  # what a head reads, if it reads tokens of its own


def token_kinds(training_heads: dict[str, dict] | None) -> list[str]:
    """Return which tokens the heads of a config read: "camera", "scale", both or none."""
    heads = training_heads or {}
    return [kind for head, kind in TOKENS_OF_HEADS.items() if heads.get(head, {}).get("tokens")]


@dataclass(frozen=True)
class ViewTokens:
    """Which tokens views have: patches, behind them that of the camera, and behind the last view that of the scale.

    Args:
        sizes (`list[int]`): patches of each view, in tokens.
        scene_lengths (`list[int]`): views of each scene.
        kinds (`Sequence[str]`, defaults to none): those of `token_kinds` that there are.
    """

    sizes: list[int]
    scene_lengths: list[int]
    kinds: Sequence[str] = ()

    @property
    def first_views(self) -> list[int]:
        """Index of the first view of each scene."""
        return [last + 1 - length for last, length in zip(self.last_views, self.scene_lengths, strict=True)]

    @property
    def last_views(self) -> list[int]:
        """Index of the last view of each scene."""
        return [end - 1 for end in accumulate(self.scene_lengths)]

    @property
    def whole_sizes(self) -> list[int]:
        """Tokens of each view, with those behind its patches."""
        lasts = self.last_views if "scale" in self.kinds else ()
        return [size + ("camera" in self.kinds) + (view in lasts) for view, size in enumerate(self.sizes)]

    def repeats(self, is_patch: torch.Tensor) -> torch.Tensor:
        """How often each token of a text is to be repeated, so that the new tokens stand behind the last patches.

        Args:
            is_patch (`torch.Tensor`, bool): whether a token of the text, without new ones, is a patch of a view.
        Returns:
            `torch.Tensor`: of the same shape, for `repeat_interleave`.
        Raises:
            ValueError: if the text has another number of patches.
        """
        if (count := int(is_patch.sum())) != sum(self.sizes):
            raise ValueError(f"The text has {count} visual tokens, but its views have {sum(self.sizes)}.")
        repeats = torch.ones(is_patch.numel(), dtype=torch.long, device=is_patch.device)
        ends = is_patch.flatten().nonzero()[:, 0][[end - 1 for end in accumulate(self.sizes)]]
        repeats[ends] += torch.tensor(self.whole_sizes, device=ends.device) - torch.tensor(self.sizes).to(ends)
        return repeats.view(is_patch.shape)

    def join(self, features: object, rows: dict[str, torch.Tensor], num_steps: Sequence[int]) -> object:
        """Put the embeddings of the new tokens behind the patches of each view.

        Args:
            features (`BaseModelOutputWithDeepstackFeatures`): output of `get_image_features`; left as it is.
            rows (`dict[str, torch.Tensor]`): embeddings by kind: of the camera of a first view and of others `(2, D)`,
                of the scale `(1, D)`.
            num_steps (`Sequence[int]`): views of each image or video of `features`: 1, or its steps in time.
        Returns:
            `BaseModelOutputWithDeepstackFeatures`.
        """
        new = [[] for _ in self.sizes]
        if "camera" in self.kinds:
            for view, found in enumerate(new):
                found.append(rows["camera"][0 if view in self.first_views else 1])
        if "scale" in self.kinds:
            for view in self.last_views:
                new[view].append(rows["scale"][0])

        def joined(level, factor):
            views = iter(new)
            parts = [
                [
                    part
                    for patches in tokens.chunk(steps)
                    for part in (patches, *_stacked(next(views), patches, factor))
                ]
                for tokens, steps in zip(level, num_steps, strict=True)
            ]
            return tuple(torch.cat(each) for each in parts)

        whole = copy(features)
        whole.pooler_output = joined(features.pooler_output, 1)
        whole.deepstack_features = [joined(level, 0) for level in features.deepstack_features]
        return whole

    def split(self, views: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """States of the new tokens, apart from those of the patches.

        Args:
            views (`Sequence[torch.Tensor]` of shape `(tokens, D)`): states of all tokens of each view.
        Returns:
            `dict[str, torch.Tensor]`: "patches" `(T, D)`, and by kind "camera" `(V, D)` and "scale" `(scenes, D)`.
        """
        pairs = list(zip(views, self.sizes, strict=True))
        found = {"patches": torch.cat([view[:size] for view, size in pairs])}
        if "camera" in self.kinds:
            found["camera"] = torch.stack([view[size] for view, size in pairs])
        if "scale" in self.kinds:
            found["scale"] = torch.stack([views[last][-1] for last in self.last_views])
        return found


def repeat_tokens(values: torch.Tensor, repeats: torch.Tensor, fill: int, pads_left: bool = False) -> torch.Tensor:
    """Repeat tokens of each row, and fill up the rows that are shorter then.

    Args:
        values (`torch.Tensor` of shape `(..., B, S)`): a value for each token.
        repeats (`torch.Tensor` of shape `(B, S)`): how often each is there.
        fill (`int`): value of padding.
        pads_left (`bool`, defaults to False): whether it goes before a row.
    Returns:
        `torch.Tensor` of shape `(..., B, longest)`.
    """
    longest, found = int(repeats.sum(1).max()), []
    for row, counts in enumerate(repeats):
        repeated = values[..., row, :].repeat_interleave(counts, dim=-1)
        missing = longest - repeated.shape[-1]
        found.append(F.pad(repeated, (missing, 0) if pads_left else (0, missing), value=fill))
    return torch.stack(found, dim=-2)


def _stacked(rows, patches, factor):
    return [factor * torch.stack(rows).to(patches)] if rows else []


__all__ = ["TOKENS_OF_HEADS", "ViewTokens", "repeat_tokens", "token_kinds"]
