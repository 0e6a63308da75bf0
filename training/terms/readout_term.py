"""The read-out term: named attention heads learn to look at the marked place. Ours, optional; see ../readout.py."""

from dataclasses import dataclass

from .attention_term import AttentionTerm


@dataclass
class ReadoutTerm(AttentionTerm):
    """Negative log-probability that an answer's tokens attend to the marked place, for each layer and head.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        layers (`list[int]`): language layers whose attention is supervised, from 0; [1, 2] by default.
        heads (`list[int]`): heads of these layers, from 0; [0] by default.
        boxes (`bool`, defaults to False): whether answers with boxes look at their objects, too; what a recipe gives
            `SceneCollator(readout_boxes=...)`, which makes the targets.
        mentions (`bool`, defaults to False): whether words of a question that name an object look at it, too; what a
            recipe gives `SceneCollator(readout_mentions=...)`.
    """

    boxes: bool = False
    mentions: bool = False

    name = "readout"
    targets = "readout_targets"


__all__ = ["ReadoutTerm"]
