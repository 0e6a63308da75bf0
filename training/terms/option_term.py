"""The option term: a letter that is the answer looks at the right option. Ours, optional; see ../readout.py."""

from dataclasses import dataclass

from .attention_term import AttentionTerm


@dataclass
class OptionTerm(AttentionTerm):
    """Negative log-probability that what answers with a letter attends to the end of the right option.

    A letter stands for what its option says, and for something else in the next question: a small model learns to look
    it up only when it is shown where. The position is that which predicts the letter, the target the last token of the
    option. Give layers behind those that find the objects of the question (`ReadoutTerm`). Items: layers and heads of
    each question with options whose answer is a letter alone.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        layers (`list[int]`): language layers whose attention is supervised, from 0; [1, 2] by default.
        heads (`list[int]`): heads of these layers, from 0; [0] by default.
    """

    name = "option"
    targets = "option_targets"


__all__ = ["OptionTerm"]
