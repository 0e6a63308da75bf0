"""The region-text term: what the tokens of an object say together is near to the text of its label."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ...processing.argument_checks import check_names
from ..losses import SHAPE_WORDS, LossSum, pool_regions, region_text_contrast_loss
from ..object_targets import ObjectTargets
from .token_term import ObjectTerm


SHAPE_OF_LABEL = {
    **dict.fromkeys(("ball", "globe", "apple", "orange"), "sphere"),
    **dict.fromkeys(("bin", "trash can", "bucket", "bottle", "cup", "lamp", "vase", "paper towel roll"), "cylinder"),
    **dict.fromkeys(("bed", "cabinet", "desk", "shelf", "sofa", "table", "refrigerator", "bookshelf", "box"), "box"),
    **dict.fromkeys(("dresser", "nightstand", "microwave", "washing machine", "suitcase", "pillow"), "box"),
}


@dataclass
class RegionTextTerm(ObjectTerm):
    """Contrast of the tokens of each object with the text of its label, and with words for its shape. Items: objects.

    A text is the mean of its embeddings in the language model. Those of a scene are the labels of its objects and
    `negatives`; `SHAPE_WORDS` are a list of their own, for objects whose label has a shape.
    Source: `region_text_contrast_loss`.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        teacher (`str` or `dict`): teacher of depth and poses, as in `HeadTerm`; "recorded" by default.
        layers (`list[int | str]`): hidden states that the head reads, one, as in `TokenTerm`; [-1] by default.
        head_size (`int`, *optional*): hidden width of the head, twice that of the language model by default.
        negatives (`list[str]`): labels that every object is held against, beside those of its scene; none by default.
        temperature (`float`, defaults to 0.07): divisor of the cosines.
        shape_weight (`float`, defaults to 0.5): factor of the words for shapes within the term.
        shapes (`dict[str, str]`): one of `SHAPE_WORDS` for each label that has one; by default for common furniture
            and things.
    Raises:
        ValueError: for a shape that is none of the words.
    """

    negatives: list[str] = field(default_factory=list)
    temperature: float = 0.07
    shape_weight: float = 0.5
    shapes: dict[str, str] = field(default_factory=lambda: dict(SHAPE_OF_LABEL))

    name = "region_text"
    head = "region_text"

    def __post_init__(self):
        check_names("terms.region_text.shapes", self.shapes.values(), SHAPE_WORDS)

    def object_targets(self, objects: ObjectTargets) -> dict[str, object]:
        labels = sorted({*objects.labels, *self.negatives})
        shapes = [self.shapes.get(label) for label in objects.labels]
        return {
            "count": len(objects.labels),
            "texts": [*labels, *SHAPE_WORDS],
            "labels": torch.tensor([labels.index(label) for label in objects.labels], dtype=torch.int64),
            "shapes": torch.tensor([-1 if shape is None else SHAPE_WORDS.index(shape) for shape in shapes]),
        }

    def scene_loss(self, features: torch.Tensor, scene: Mapping[str, object]) -> LossSum:
        regions = pool_regions(features, scene["tokens"], len(scene["labels"]))
        labels, shapes = scene["texts"][: -len(SHAPE_WORDS)], scene["texts"][-len(SHAPE_WORDS) :]
        loss = region_text_contrast_loss(regions, labels, scene["labels"], temperature=self.temperature)
        told = {"temperature": self.temperature, "symmetric": False}
        of_shapes = region_text_contrast_loss(regions, shapes, scene["shapes"], **told)
        return LossSum(loss.sum + self.shape_weight * of_shapes.sum, loss.count)
