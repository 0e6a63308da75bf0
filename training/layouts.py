"""How encoded scenes become one batch: three equal layouts of the questions behind the views that they share.

"block_mask" (SDPA, eager): views, question 1, question 2, ... in one row; a mask lets each question see the views and
itself. "packed" (FlashAttention): views + question 1, views + question 2, ... one after the other as documents of one
padding-free row. "padded" (any kernel): each document is a row of its own, padded at the end. The last two repeat the
features of the views (`scene_repeats`), never their encoding. Positions are the same in all.
"""

import torch

from .losses import IGNORE_INDEX
from .scene_encoding import EncodedScene


SHARED, PADDING = 0, -1  # document ids of the views that every question sees, and of padding
# What a batch says of its tokens, and what is said of padding.
_FILLS = {
    "input_ids": None,
    "labels": IGNORE_INDEX,
    "label_weights": 0.0,
    "document_ids": PADDING,
    "readout_targets": PADDING,
    "mm_token_type_ids": 0,
}


def block_mask(scenes: list[EncodedScene], pad_token_id: int, merge_size: int) -> dict[str, torch.Tensor]:
    """One row for each scene: its views once, then its questions, which do not see each other.

    Args:
        scenes (`list[EncodedScene]`): encoded scenes, one or more.
        pad_token_id (`int`): token that fills up shorter rows.
        merge_size (`int`): patches merged along each side of a visual token.
    Returns:
        `dict[str, torch.Tensor]`: the fields of tokens, `position_ids` `(4, B, S)`, `attention_mask` `(B, 1, S, S)`.
    """
    rows = []
    for scene in scenes:
        positions, after = _positions(scene, merge_size)
        pieces = [_views(scene, SHARED, positions)]
        pieces += [_question(scene, index, after, 0, index + 1) for index in range(len(scene.questions))]
        rows.append(_join(pieces))
    batch = _stack(rows, pad_token_id)
    batch.pop("mm_token_type_ids")  # positions are given
    batch["attention_mask"] = document_mask(batch["document_ids"])
    return batch


def padded(scenes: list[EncodedScene], pad_token_id: int, merge_size: int) -> dict[str, torch.Tensor]:
    """One row for each question, its views before it. Arguments and result as `block_mask`, but a mask `(B, S)`."""
    rows = []
    for scene in scenes:
        positions, after = _positions(scene, merge_size)
        # Every document is row number 1: read-out counts columns within its own row.
        views, indices = _views(scene, 1, positions), range(len(scene.questions))
        rows += [_join([views, _question(scene, index, after, 0, 1)]) for index in indices]
    batch = _stack(rows, pad_token_id)
    batch["attention_mask"] = (batch["document_ids"] != PADDING).long()
    repeats = _repeats(scenes)
    if any(count > 1 for count in repeats):
        batch["scene_repeats"] = torch.tensor(repeats)
    return batch


def packed(scenes: list[EncodedScene], pad_token_id: int, merge_size: int) -> dict[str, torch.Tensor]:
    """All questions in one row, each behind its views, without padding. Arguments as `block_mask`; no mask."""
    pieces, start, document = [], 0, 0
    for scene in scenes:
        positions, after = _positions(scene, merge_size)
        for index in range(len(scene.questions)):
            document += 1
            pieces += [_views(scene, document, positions), _question(scene, index, after, start, document)]
            start += scene.length(index)
    row = _join(pieces)
    positions = row.pop("position_ids")
    row.pop("mm_token_type_ids")
    batch = {name: value[None] for name, value in row.items()} | {"position_ids": positions[:, None]}
    if repeats := _repeats(scenes):
        batch["scene_repeats"] = torch.tensor(repeats)
    return batch


LAYOUTS = {"block_mask": block_mask, "packed": packed, "padded": padded}


def rope_positions(
    token_types: list[int], grids: list[tuple[int, int, int]] | torch.Tensor, merge_size: int
) -> torch.Tensor:
    """Positions of Qwen3-VL's interleaved M-RoPE for one document.

    Image tokens behind the patches of an image (see `with_geometry_tokens`) have the place of its last patch.

    Args:
        token_types (`list[int]`): 0 for text, 1 for image tokens.
        grids (`list[tuple[int, int, int]]`): (t, h, w) in patches of each image, in order.
        merge_size (`int`): patches merged along each side.
    Returns:
        `torch.Tensor` of shape `(4, S)`: text order, then time, row and column.
    """
    positions = torch.zeros(4, len(token_types), dtype=torch.long)
    positions[0] = torch.arange(len(token_types))
    grids, index, current = iter(grids), 0, 0
    while index < len(token_types):
        if token_types[index] == 0:
            positions[1:, index] = current
            index, current = index + 1, current + 1
            continue
        t, height, width = next(grids)
        height, width = height // merge_size, width // merge_size
        cell = torch.arange(t * height * width)
        place = torch.stack([cell // (height * width), cell // width % height, cell % width])
        end = next((each for each in range(index, len(token_types)) if token_types[each] == 0), len(token_types))
        positions[1:, index:end] = current + place[:, [-1]]
        positions[1:, index : index + len(cell)] = current + place
        index, current = end, current + max(height, width)
    return positions


def document_mask(document_ids: torch.Tensor) -> torch.Tensor:
    """Which position may look at which: causal, within the own document and the shared views.

    Args:
        document_ids (`torch.Tensor` of shape `(B, S)`): 0 for the shared views, -1 for padding.
    Returns:
        `torch.Tensor` of shape `(B, 1, S, S)`, bool, True where attention is allowed; a padding row sees itself.
    """
    query, key = document_ids[:, :, None], document_ids[:, None]
    size = document_ids.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool, device=document_ids.device).tril()
    is_real = (query != PADDING) & (key != PADDING)
    allowed = causal & is_real & ((query == key) | (key == SHARED))
    allowed |= torch.eye(size, dtype=torch.bool, device=document_ids.device)
    return allowed[:, None]


def _positions(scene, merge_size):
    """Positions of the views, `(4, S)`, and the first ones after them, `(4, 1)`."""
    if not scene.prefix:
        return torch.zeros(4, 0, dtype=torch.long), torch.zeros(4, 1, dtype=torch.long)
    positions = rope_positions(scene.token_types, scene.image_grid_thw.tolist(), merge_size)
    return positions, positions.amax(1, keepdim=True) + 1


def _views(scene, document, positions):
    """The fields of the tokens up to the last view."""
    length = len(scene.prefix)
    return {
        "input_ids": scene.prefix,
        "labels": [IGNORE_INDEX] * length,
        "label_weights": [0.0] * length,
        "document_ids": [document] * length,
        "readout_targets": [PADDING] * length,
        "position_ids": positions,
        "mm_token_type_ids": scene.token_types,
    }


def _question(scene, index, first_position, views_start, document):
    """The fields of a question and its answer; positions go on from the views, which begin at `views_start`."""
    question, answer = scene.questions[index], scene.answers[index]
    length = len(question) + len(answer)
    readout = [PADDING] * length
    if scene.targets[index] is not None:
        # The rows that predict the answer are those before each of its tokens.
        readout[len(question) - 1 : length - 1] = [views_start + column for column in scene.targets[index]]
    return {
        "input_ids": question + answer,
        "labels": [IGNORE_INDEX] * len(question) + answer,
        "label_weights": [0.0] * len(question) + scene.weights[index],
        "document_ids": [document] * length,
        "readout_targets": readout,
        "position_ids": first_position + torch.arange(length),
        "mm_token_type_ids": [0] * length,
    }


def _repeats(scenes):
    return [len(scene.questions) for scene in scenes if len(scene.image_grid_thw)]


def _join(pieces):
    row = {name: torch.tensor([value for piece in pieces for value in piece[name]]) for name in _FILLS}
    row["position_ids"] = torch.cat([piece["position_ids"].expand(4, -1) for piece in pieces], dim=1)
    return row


def _stack(rows, pad_token_id):
    """Rows of different lengths as one batch, padded at the end."""
    longest = max(len(row["input_ids"]) for row in rows)
    fills = _FILLS | {"input_ids": pad_token_id}
    batch = {name: torch.stack([_pad(row[name], longest, fill) for row in rows]) for name, fill in fills.items()}
    batch["position_ids"] = torch.stack([_pad(row["position_ids"], longest, 0) for row in rows], dim=1)
    return batch


def _pad(values, length, fill):
    return torch.nn.functional.pad(values, (0, length - values.shape[-1]), value=fill)
