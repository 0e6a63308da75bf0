"""The label-map term: what each place of the visual tokens shows is near to the text of its label. Ours, optional."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ...configuration_gap_mllm import GapMllmConfig
from ..losses import LossSum, label_map_loss
from ..object_targets import CELLS, ObjectTargets
from .token_term import ObjectTerm


@dataclass
class LabelMapTerm(ObjectTerm):
    """Which of the labels of a scene each of `side` x `side` places of every visual token shows. Items: labels seen.

    A text is the mean of its embeddings in the language model, as in `RegionTextTerm`, which tells the objects of a
    scene apart where this term names every place, walls and floors too. Names come from instance maps, else from boxes
    and depth. A label counts the same in a scene however little of it is seen. A cross that a question draws is a
    "red cross", so that marks are seen before answers follow them. Source: `label_map_loss`.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        teacher (`str` or `dict`): teacher of depth and poses, as in `HeadTerm`; "recorded" by default.
        layers (`list[int | str]`): hidden states that the head reads, one, or "tower": visual tokens before
            geometry joins them; [-1] by default.
        head_size (`int`, *optional*): hidden width of the head, twice that of the language model by default.
        side (`int`, defaults to 4): places along each side of a token, 1, 2, 4 or 8.
        negatives (`list[str]`): labels that every place is held against, beside those of its scene; none by default.
        temperature (`float`, defaults to 0.07): divisor of the cosines.
    Raises:
        ValueError: for another side.
    """

    side: int = 4
    negatives: list[str] = field(default_factory=list)
    temperature: float = 0.07

    name = "label_map"
    head = "label_map"

    def __post_init__(self):
        if self.side not in (1, 2, 4, 8):
            raise ValueError(f"terms.label_map.side is {self.side}; expected 1, 2, 4 or 8.")

    def width(self, config: GapMllmConfig) -> int:
        return self.side**2 * config.text_config.hidden_size

    def object_targets(self, objects: ObjectTargets) -> dict[str, object]:
        step = CELLS // self.side
        crosses = {}  # the name of each, by its place
        for color, token, row, column in objects.crosses:
            crosses[token, row // step, column // step] = f"{color} cross"
        names = sorted({*objects.names, *self.negatives, *crosses.values()})
        numbers = torch.tensor([*(names.index(name) for name in objects.names), -1])
        labels = numbers[objects.places[:, step // 2 :: step, step // 2 :: step]]  # -1 is the last
        for place, name in crosses.items():
            labels[place] = names.index(name)
        return {"count": len(labels[labels >= 0].unique()), "texts": names, "labels": labels}

    def scene_loss(self, features: torch.Tensor, scene: Mapping[str, object]) -> LossSum:
        places = features.unflatten(1, (self.side**2, -1)).flatten(0, 1)
        return label_map_loss(places, scene["texts"], scene["labels"].flatten(), temperature=self.temperature)
