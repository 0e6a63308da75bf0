"""How rendered rooms vary: sizes and numbers of views, colours, sizes of crosses."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import numpy as np

from ...visual_prompt_gap_mllm import CrossSize
from .styles import RoomStyle


@dataclass
class RoomVariety:
    """How rooms differ from the renderer's defaults. Rooms of one block share size and number of views.

    Args:
        sizes (`tuple`, defaults to `((128, 128), (96, 128), (128, 160))`): heights and widths in pixels, multiples of
            32; `size_shares` says how often each is drawn.
        num_views (`tuple`, defaults to `(4, 3, 2, 1)`): numbers of views; `num_views_shares` says how often each is
            drawn.
        color_strength (`float`, defaults to 1.0): strength up to which `jitter_colors` is applied.
        mark_share (`float`, defaults to 0.5): share of rooms with crosses in the views, where the task itself draws
            none.
        mark_arms (`tuple[int, int]`, defaults to `(2, 7)`): shortest and longest arm of a cross in pixels.
        mark_half_thickness (`int`, *optional*): pixels to each side of the middle line of a cross's bar; by default
            drawn from 0 to a quarter of the arm.
        shuffle_views (`bool`, defaults to True): whether any view may become the first.
        style (`RoomStyle` or `dict`, *optional*): ranges for the rooms of `style_share`.
        style_share (`float` or `Callable`, defaults to 0.0): share of rooms drawn in that style, or a function that
            gives it when a share of the rooms was drawn, from 0 to 1 (a `Schedule` of a training).
    Raises:
        ValueError: if shares are not as many as what they are of, or their sum is not 1; or for `style_share`.
    """

    sizes: tuple = ((128, 128), (96, 128), (128, 160))
    size_shares: tuple = (0.6, 0.2, 0.2)
    num_views: tuple = (4, 3, 2, 1)
    num_views_shares: tuple = (0.75, 0.1, 0.1, 0.05)
    color_strength: float = 1.0
    mark_share: float = 0.5
    mark_arms: tuple = (2, 7)
    mark_half_thickness: int | None = None
    shuffle_views: bool = True
    style: RoomStyle | dict | None = None
    style_share: float | dict | Callable = 0.0  # a dict in recipes, which make a Schedule of it

    def __post_init__(self):
        if isinstance(self.style, dict):
            self.style = RoomStyle(**self.style)
        self._check_style_share()
        for name, shares, kinds in (
            ("size_shares", self.size_shares, self.sizes),
            ("num_views_shares", self.num_views_shares, self.num_views),
        ):
            if len(shares) != len(kinds) or not np.isclose(sum(shares), 1):
                raise ValueError(f"{name} is {shares}; expected a share for each of {kinds}, 1 in all.")

    def _check_style_share(self):
        share = self.style_share
        if not callable(share) and not isinstance(share, Real):
            raise ValueError(
                f"style_share is {share}; expected a number from 0 to 1. Values by shares of the run are for the "
                "variety of train-geometry-encoder."
            )
        shares = np.asarray(share(np.linspace(0, 1, 1001)) if callable(share) else share)
        if not ((shares >= 0) & (shares <= 1)).all() or (self.style is None and shares.any()):
            raise ValueError(f"style_share is {share} with style {self.style}; expected 0 to 1, and a style.")

    def draw_shape(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Draw height, width and number of views of a block."""
        height, width = self.sizes[rng.choice(len(self.sizes), p=self.size_shares)]
        return height, width, int(rng.choice(self.num_views, p=self.num_views_shares))

    def draw_style(self, rng: np.random.Generator, done: float = 0.0) -> RoomStyle | None:
        """Draw whether a room is one of `style_share`; its style, or None.

        Args:
            rng (`numpy.random.Generator`): what draws.
            done (`float`, defaults to 0.0): share of the rooms that come before, from 0 to 1.
        """
        if not self.style_share:
            return None
        share = self.style_share(done) if callable(self.style_share) else self.style_share
        return self.style if rng.random() < share else None

    def draw_cross_size(self, rng: np.random.Generator) -> CrossSize:
        """Draw the size of the crosses of one room."""
        arm = int(rng.integers(self.mark_arms[0], self.mark_arms[1] + 1))
        drawn = int(rng.integers(0, 1 + arm // 4)) if self.mark_half_thickness is None else self.mark_half_thickness
        return CrossSize(arm, drawn)
