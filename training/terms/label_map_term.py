"""The label-map term: what each place of the visual tokens shows is near to the text of its label. Ours, optional."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ...configuration_gap_mllm import GapMllmConfig
from ...processing.data.task_makers.margins import STRUCTURE_NAMES
from ..losses import LossSum, label_map_loss
from ..object_targets import CELLS, ObjectTargets
from .token_term import ObjectTerm


@dataclass
class LabelMapTerm(ObjectTerm):
    """Which of the labels of a scene each of `side` x `side` places of every visual token shows. Items: labels seen.

    A text is the mean of its embeddings in the language model, as in `RegionTextTerm`, which tells the objects of a
    scene apart where this term names every place, walls and floors too. Names come from instance maps, else from boxes
    and depth. A label counts the same in a scene however little of it is seen, unless `structure_weight` is given. A
    cross that a question draws is a "red cross", so that marks are seen before answers follow them. Source:
    `label_map_loss`.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        teacher (`str` or `dict`): teacher of depth and poses, as in `HeadTerm`; "recorded" by default.
        layers (`list[int | str]`): hidden states that the head reads, one, or "tower": visual tokens before
            geometry joins them; [-1] by default.
        head_size (`int`, *optional*): hidden width of the head, twice that of the language model by default.
        side (`int`, defaults to 4): places along each side of a token, 1, 2, 4 or 8.
        negatives (`list[str]`): labels that every place is held against, beside those of its scene; none by default.
        temperature (`float`, defaults to 0.07): divisor of the cosines.
        structure_weight (`float`, *optional*): weight of a place of a wall, a floor or the like where every place of
            an object weighs 1, and a cross as many as a token has. By default labels weigh the same.
        names_crosses (`bool`, defaults to False): whether a cross is a "red cross bed", told from those on all other
            labels of the list, so that what is marked is known, too.
    Raises:
        ValueError: for another side, or a weight that is not above 0.
    """

    side: int = 4
    negatives: list[str] = field(default_factory=list)
    temperature: float = 0.07
    structure_weight: float | None = None
    names_crosses: bool = False

    name = "label_map"
    head = "label_map"

    def __post_init__(self):
        if self.side not in (1, 2, 4, 8):
            raise ValueError(f"terms.label_map.side is {self.side}; expected 1, 2, 4 or 8.")
        if self.structure_weight is not None and not self.structure_weight > 0:
            raise ValueError(f"terms.label_map.structure_weight is {self.structure_weight}; expected more than 0.")

    def width(self, config: GapMllmConfig) -> int:
        return self.side**2 * config.text_config.hidden_size

    def object_targets(self, objects: ObjectTargets) -> dict[str, object]:
        step, seen = CELLS // self.side, {*objects.names, *self.negatives}
        shown = objects.places[:, step // 2 :: step, step // 2 :: step]
        crosses = {}  # what each is called, by its place
        for color, token, row, column in objects.crosses:
            place = token, row // step, column // step
            beneath = int(shown[place])
            named = self.names_crosses and beneath >= 0
            crosses[place] = f"{color} cross {objects.names[beneath]}" if named else f"{color} cross"
        colors = {color for color, *_ in objects.crosses} if self.names_crosses else ()
        names = sorted({*seen, *crosses.values(), *(f"{color} cross {name}" for color in colors for name in seen)})
        numbers = torch.tensor([*(names.index(name) for name in objects.names), -1])
        labels = numbers[shown]  # -1 is the last
        for place, name in crosses.items():
            labels[place] = names.index(name)
        if self.structure_weight is None:  # labels weigh the same
            return {"count": len(labels[labels >= 0].unique()), "texts": names, "labels": labels}
        kinds = [self.structure_weight if name in STRUCTURE_NAMES else 1.0 for name in names]
        weights = torch.tensor([*kinds, 0.0])[labels]
        for place in crosses:
            weights[place] = self.side**2
        return {"count": round(float(weights.sum()), 4), "texts": names, "labels": labels, "weights": weights}

    def scene_loss(self, features: torch.Tensor, scene: Mapping[str, object]) -> LossSum:
        places = features.unflatten(1, (self.side**2, -1)).flatten(0, 1)
        weights = scene["weights"].flatten() if "weights" in scene else None
        return label_map_loss(places, scene["texts"], scene["labels"].flatten(), weights, temperature=self.temperature)


__all__ = ["LabelMapTerm"]
