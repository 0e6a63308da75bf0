"""Changes of a scene's views that keep its geometry and its answers true: colours, crops, sizes, order, mirroring.

Colours are changed here; what the others do is in crops.py, view_order.py and mirror.py. A change
that would make a sample untrue is refused. `SceneAugmentation` draws them all from a seed.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, fields, replace

import numpy as np
from PIL import Image

from ..scene_sample import SceneSample
from .crops import random_crop, resize_views
from .mirror import flip_horizontally
from .texts import VIEW_WORDS, AugmentationRefused, refuse
from .view_order import drop_views, droppable_views, random_order, reorder_views


def jitter_colors(images: np.ndarray, rng: np.random.Generator, strength: float = 1.0):
    """Change brightness, contrast, gamma, tint and saturation of a whole scene alike, and add noise.

    Args:
        images (`numpy.ndarray` of shape `(V, H, W, 3)`, uint8, or a list of `(H, W, 3)`): views of one scene.
        rng (`numpy.random.Generator`)
        strength (`float`, defaults to 1.0): 0 leaves the pictures as they are, 1 is the strongest.
    Returns:
        `numpy.ndarray` of shape `(V, H, W, 3)`, uint8, or a list as given.
    Raises:
        ValueError: if the strength is not in 0..1.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.processing.data.augmentation import jitter_colors
        >>> jitter_colors(render_room(0).images, np.random.default_rng(0), strength=0.5).shape
        (4, 128, 128, 3)

        ```
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength} must be in 0..1.")
    if strength == 0:
        return images.copy()
    gamma = np.float32(np.exp(strength * rng.uniform(-0.35, 0.35)))
    saturation = np.float32(1 + strength * rng.uniform(-0.8, 0.3))
    gain = (1 + strength * rng.uniform(-0.12, 0.12, size=3)) * (1 + strength * rng.uniform(-0.25, 0.25))
    contrast = np.float32(1 + strength * rng.uniform(-0.25, 0.25))
    noise = np.float32(strength * rng.uniform(0.0, 0.03))
    changed = []
    for image in images:  # view by view: a scene of many large views need not be in memory as floats
        values = (image.astype(np.float32) / 255) ** gamma
        grey = values.mean(-1, keepdims=True)
        values = grey + (values - grey) * saturation
        values = ((values - 0.5) * contrast + 0.5) * gain.astype(np.float32)
        values = values + rng.standard_normal(values.shape, dtype=np.float32) * noise
        changed.append((values.clip(0, 1) * 255).round().astype(np.uint8))
    return np.stack(changed) if isinstance(images, np.ndarray) else changed


def jitter_views(sample: SceneSample, rng: np.random.Generator, strength: float = 1.0, is_per_view: bool = False):
    """Change the colours of a sample's pictures, see `jitter_colors`; nothing else changes.

    Colours that texts name stay what they are only roughly: at full strength a picture may lose most of its colour.

    Args:
        sample (`SceneSample`), rng (`numpy.random.Generator`)
        strength (`float`, defaults to 1.0): strength in 0..1, see `jitter_colors`.
        is_per_view (`bool`, defaults to False): draw anew for every view, as if each had its own exposure.
    Returns:
        `SceneSample`.
    Raises:
        ValueError: if the strength is not in 0..1.
        AugmentationRefused: if the sample has no views yet, but a video.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.processing.data import make_question, render_room
        >>> from gap_mllm.processing.data.augmentation import jitter_views
        >>> sample = make_question(render_room(0), "reconstruction")
        >>> jitter_views(sample, np.random.default_rng(0)).answer == sample.answer
        True

        ```
    """
    if not sample.views:
        raise refuse("jitter_views", sample, "it has no views yet; a video has to be sampled first.")
    images = [np.asarray(view.image) for view in sample.views]
    if is_per_view:
        images = [jitter_colors([image], rng, strength)[0] for image in images]
    else:
        images = jitter_colors(images, rng, strength)
    views = [replace(view, picture=Image.fromarray(image)) for view, image in zip(sample.views, images, strict=True)]
    return replace(sample, views=tuple(views))


@dataclass(frozen=True)
class AugmentationConfig:
    """Which changes are made how often and how strongly. A probability of 0 leaves a change out.

    Args:
        seed (`int`, defaults to 0): seed of all draws, together with the sample's id and the epoch.
        drop_probability (`float`, defaults to 0.3): probability of leaving views out.
        max_drop_share (`float`, defaults to 0.5): largest share of the views that is left out; view 0 never is.
        reorder_probability (`float`, defaults to 0.5): probability of another order of the views, the first included.
        view_words (`str`, defaults to "refuse"): "refuse" or "keep", see `reorder_views`. Where another first view is
            refused, the order of the others changes.
        flip_probability (`float`, defaults to 0.5): probability of mirroring.
        crop_probability (`float`, defaults to 0.5), min_crop_share (`float`, defaults to 0.8), is_crop_shared (`bool`,
            defaults to False): see `random_crop`.
        resize_probability (`float`, defaults to 0.0), resize_range (`tuple[float, float]`, defaults to
            `(0.75, 1.25)`): factor of both sides of all pictures.
        color_probability (`float`, defaults to 0.8), color_strength (`float`, defaults to 0.5), is_color_per_view
            (`bool`, defaults to False): see `jitter_views`; the strength is drawn from 0 to this.
        check_visibility (`bool`, defaults to True): see `drop_views` and `crop_views`.
    Raises:
        ValueError: if a probability or share is not in 0..1, `view_words` is another one, the resize range is not two
            ascending positive numbers, or the seed is negative.
    """

    seed: int = 0
    drop_probability: float = 0.3
    max_drop_share: float = 0.5
    reorder_probability: float = 0.5
    view_words: str = "refuse"
    flip_probability: float = 0.5
    crop_probability: float = 0.5
    min_crop_share: float = 0.8
    is_crop_shared: bool = False
    resize_probability: float = 0.0
    resize_range: tuple[float, float] = (0.75, 1.25)
    color_probability: float = 0.8
    color_strength: float = 0.5
    is_color_per_view: bool = False
    check_visibility: bool = True

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is float and not 0 <= value <= 1:
                raise ValueError(f"{field.name} is {value}; expected a number in 0..1.")
        if self.min_crop_share == 0:
            raise ValueError("min_crop_share is 0; expected more.")
        if self.view_words not in VIEW_WORDS:
            raise ValueError(f"view_words is {self.view_words!r}; expected one of {', '.join(VIEW_WORDS)}.")
        if len(self.resize_range) != 2 or not 0 < self.resize_range[0] <= self.resize_range[1]:
            raise ValueError(f"resize_range is {self.resize_range}; expected a smallest and a largest factor above 0.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; expected 0 or more.")


class SceneAugmentation:
    """Draws changes for a sample: the same for the same config, sample id and epoch, in whatever order samples come.

    A step that is refused is left out and counted, in `counts` (of this process) and in the sample's own
    metadata["augmentation"], which also says what was done.


    Args:
        config (`AugmentationConfig`, *optional*)

    Example:
        ```python
        >>> from gap_mllm.processing.data import AugmentationConfig, SceneAugmentation, make_question, render_room
        >>> augment = SceneAugmentation(AugmentationConfig(seed=1, flip_probability=0.0))
        >>> sample = augment(make_question(render_room(0), "reconstruction"), epoch=2)
        >>> {outcome for step, outcome in augment.counts} <= {"done", "refused"}  # with the number of samples each
        True

        ```
    """

    def __init__(self, config: AugmentationConfig | None = None):
        self.config = config or AugmentationConfig()
        self.counts: Counter = Counter()

    def __call__(self, sample, epoch: int = 0):
        """Return the changed sample.

        Args:
            sample (`SceneSample`): sample with an id; not changed.
            epoch (`int`, defaults to 0): another one gives other draws.
        Returns:
            `SceneSample`.
        Raises:
            ValueError: if the sample has no id.
            RecordError: if a picture or depth map cannot be decoded.
        """
        if sample.id is None:
            raise ValueError("the sample has no id, from which its changes are drawn; give it one.")
        done, refused = [], {}
        for name, probability, step in self._steps():
            rng = self._generator(name, sample, epoch)
            if rng.random() >= probability:
                continue
            try:
                changed = step(sample, rng)
            except AugmentationRefused as error:
                refused[name] = error.reason
                self.counts[name, "refused"] += 1
                continue
            if changed is not sample:
                sample = changed
                done.append(name)
                self.counts[name, "done"] += 1
        log = {"done": done, "refused": refused}
        return replace(sample, metadata={**sample.metadata, "augmentation": log})

    def _generator(self, name, sample, epoch):
        """Each step has its own draws, so that a refusal does not change those of the others."""
        key = "\n".join([str(self.config.seed), str(epoch), name, str(sample.source), str(sample.id)])
        return np.random.default_rng(list(hashlib.sha256(key.encode()).digest()))

    def _steps(self):
        config = self.config
        return (
            ("drop_views", config.drop_probability, self._drop),
            ("reorder_views", config.reorder_probability, self._reorder),
            ("flip_horizontally", config.flip_probability, lambda sample, rng: flip_horizontally(sample)),
            ("crop_views", config.crop_probability, self._crop),
            ("resize_views", config.resize_probability, self._resize),
            ("jitter_views", config.color_probability, self._jitter),
        )

    def _drop(self, sample, rng):
        candidates = droppable_views(sample)
        most = min(int(self.config.max_drop_share * len(sample.views)), len(candidates))
        if most == 0:
            return sample
        dropped = rng.choice(candidates, size=int(rng.integers(1, most + 1)), replace=False)
        return drop_views(sample, sorted(map(int, dropped)), self.config.check_visibility, self.config.view_words)

    def _reorder(self, sample, rng):
        order = random_order(sample, rng)
        try:
            return reorder_views(sample, order, self.config.view_words)
        except AugmentationRefused:
            if order[:1] in ([], [0]):
                raise
            order = [0, *(view for view in order if view != 0)]
            return reorder_views(sample, order, self.config.view_words)

    def _crop(self, sample, rng):
        config = self.config
        return random_crop(sample, rng, config.min_crop_share, config.is_crop_shared, config.check_visibility)

    def _resize(self, sample, rng):
        factor = rng.uniform(*self.config.resize_range)
        sizes = [[max(round(factor * side), 1) for side in view.image.size] for view in sample.views]
        return resize_views(sample, sizes)

    def _jitter(self, sample, rng):
        strength = self.config.color_strength * rng.random()
        return jitter_views(sample, rng, strength, self.config.is_color_per_view)
