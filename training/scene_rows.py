"""How many rows of a batch ask about each of its scenes.

A scene that several rows ask about is encoded once, and counts in every term as often as rows ask about it: the loss
is that of batches in which they stand apart.
"""

from collections.abc import Callable, Mapping, Sequence

import torch

from .losses import LossSum


def rows_of_scenes(inputs: Mapping[str, object]) -> list[int]:
    """Rows that ask about each scene.

    Args:
        inputs (`Mapping[str, object]`): batch with `image_grid_thw` `(V, 3)`, and perhaps `scene_lengths` `(S,)` and
            `scene_rows` `(S,)`, without which each scene has one row.
    Returns:
        `list[int]`: S numbers.
    """
    if "scene_rows" in inputs:
        return inputs["scene_rows"].tolist()
    return [1] * len(inputs.get("scene_lengths", [1]))


def rows_of_views(inputs: Mapping[str, object]) -> list[int]:
    """Rows that ask about the scene of each view; argument as of `rows_of_scenes`.

    Returns:
        `list[int]`: V numbers.
    """
    rows = rows_of_scenes(inputs)
    if len(set(rows)) == 1:
        return rows[:1] * len(inputs["image_grid_thw"])
    return _repeated(rows, inputs["scene_lengths"].tolist())


def rows_of_tokens(inputs: Mapping[str, object], num_tokens: int) -> list[int]:
    """Rows that ask about the scene of each visual token; `inputs` as of `rows_of_scenes`.

    Args:
        num_tokens (`int`): visual tokens T of all views.
    Returns:
        `list[int]`: T numbers.
    """
    rows, patches = rows_of_views(inputs), inputs["image_grid_thw"].prod(-1)
    if len(set(rows)) == 1:
        return rows[:1] * num_tokens
    patches_of_token = int(patches.sum()) // num_tokens
    return _repeated(rows, (patches // patches_of_token).tolist())


def sum_by_rows(loss: Callable[[torch.Tensor], LossSum], valid: torch.Tensor, rows: Sequence[int]) -> LossSum:
    """A loss of entries that count as often as rows ask about them.

    Args:
        loss (`Callable`): loss of the items that a mask like `valid` chooses.
        valid (`torch.Tensor` of shape `(N, ...)`, bool): items that count, of N entries.
        rows (`Sequence[int]`): rows of each of the N entries.
    Returns:
        `LossSum`.
    """
    numbers = sorted(set(rows))
    if len(numbers) == 1:
        return loss(valid) * numbers[0]
    rows_of_items = torch.tensor(rows, device=valid.device).reshape(-1, *[1] * (valid.ndim - 1))
    first, *others = (loss(valid & (rows_of_items == number)) * number for number in numbers)
    return sum(others, first)


def _repeated(rows, counts):
    return [each for each, count in zip(rows, counts, strict=True) for _ in range(count)]
