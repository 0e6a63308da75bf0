"""Geometry features that do not change: made where batches are made, or kept on disk, or both.

For trainings that leave the encoder as it is. The files are those of geometry_cache.py.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import extract_model_from_parallel

from ..geometry_views_gap_mllm import encode_images, group_scenes, is_sharded, is_trainable
from ..known_geometry_gap_mllm import KNOWN_FIELDS, KnownGeometry
from ..modeling_gap_mllm import GapMllmModel
from ..processing.argument_checks import check_dtype
from .collation_events import CollationEvents
from .encoder_keys import EncoderMark, gathered, whole_tensor
from .geometry_cache import GeometryCache, content_key


PLACES = ("loader", "model")


class MarkedFeatures(torch.Tensor):
    """Features of all scenes of a batch, which tell the model that gets them which encoder they are of.

    A tensor like any other but for its call and its copies on other devices: what is computed with it is plain.

    Raises:
        ValueError: when called, as `EncoderMark.check`.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl
    mark: EncoderMark

    @classmethod
    def of(cls, features: torch.Tensor, mark: EncoderMark) -> "MarkedFeatures":
        """The same features, without a copy."""
        marked = features.detach().as_subclass(cls)
        marked.mark = mark
        return marked

    def __call__(
        self,
        model: GapMllmModel,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor,
        scene_lengths: torch.Tensor,
    ) -> torch.Tensor:
        """As `GapMllmModel.get_geometry_features`, if the model's encoder is the one that they are of."""
        self.mark.check(model)
        return self.as_subclass(torch.Tensor)

    def to(self, *args, **kwargs) -> "MarkedFeatures":
        """The same on another device or in another dtype."""
        return self.of(super().to(*args, **kwargs), self.mark)

    def pin_memory(self, *args, **kwargs) -> "MarkedFeatures":
        """The same in memory from which a GPU copies quickly."""
        return self.of(super().pin_memory(*args, **kwargs), self.mark)

    def __deepcopy__(self, memo):
        return self.of(self.detach().as_subclass(torch.Tensor).clone(), self.mark)


@dataclass
class KnownScenes:
    """What a cache has of the scenes of a batch; the model that gets it as `geometry_features` makes the rest.

    Args:
        scenes (`list[tuple[str, torch.Tensor | None]]`): key and features `(levels, P, C)` of each scene, None where
            it must be encoded.
        cache (`GeometryCache`): place to keep what is encoded.
        dtype (`torch.dtype`): dtype of all features.
        mark (`EncoderMark`): encoder that the keys are of.
        known (`KnownGeometry`, *optional*): what is known of the views of the batch beside their pixels.
    Raises:
        ValueError: when called, as `EncoderMark.check`.
    """

    scenes: list[tuple[str, torch.Tensor | None]]
    cache: GeometryCache
    dtype: torch.dtype
    mark: EncoderMark
    known: KnownGeometry | None = None

    def __call__(
        self,
        model: GapMllmModel,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor,
        scene_lengths: torch.Tensor,
    ) -> torch.Tensor:
        """As `GapMllmModel.get_geometry_features`, for the scenes of the batch."""
        self.mark.check(model)
        return self.complete(model.get_geometry_features, pixel_values, image_grid_thw, scene_lengths)

    def complete(
        self,
        encode: Callable,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor,
        scene_lengths: torch.Tensor,
    ) -> torch.Tensor:
        """Features of all scenes; those that are missing are encoded together, and kept."""
        found = {key: features for key, features in self.scenes if features is not None}
        missing = {key: index for index, (key, features) in enumerate(self.scenes) if features is None}
        if missing:
            parts = _by_scene(pixel_values, image_grid_thw, scene_lengths)
            pixels, grids = zip(*(parts[index] for index in missing.values()), strict=True)
            lengths = torch.tensor([len(grid) for grid in grids])
            known = _known_of(self.known, scene_lengths, list(missing.values()))
            made = encode(torch.cat(pixels), torch.cat(grids), scene_lengths=lengths, **known).to(self.dtype)
            camera_tokens = (made.shape[1] - sum(map(len, pixels))) // sum(map(len, grids))  # 0 or 1 a view
            rows = [len(patches) + camera_tokens * len(grid) for patches, grid in zip(pixels, grids, strict=True)]
            found |= zip(missing, made.split(rows, dim=1), strict=True)
            for key in missing:
                self.cache.write(key, found[key])
        return torch.cat([found[key].to(pixel_values.device) for key, _ in self.scenes], dim=1)


class FrozenGeometry:
    """Makes the geometry features of a `SceneCollator`'s batches once, so that the model need not.

    In the "loader", a copy of the encoder works in the processes that make batches, in float32 on the CPU: for small
    encoders beside spare cores. In the "model", it stays where it is, on its device; the loader then only looks in
    the cache for what was encoded before. What the cache lacks is kept for the next time that the same views come
    with the same marks and sizes, in this run or another. Features from the cache are those that were made, bit for
    bit; against a run without it only the other scenes of a batch differ that were encoded along, which changes them
    by rounding.

    Features are those of the weights and settings that the model has: before a training and an evaluation
    `GeometryAlignedTrainer` calls `follow`, which looks at all of them, and a plain `Trainer` does with the callback
    `GeometryFollower`. What was made of others is refused by the model at the step.

    Args:
        model (`GapMllmForPreTraining`, or another around `GapMllmModel`): model that is trained, whose encoder is
            frozen.
        where (`str`, *optional*): "loader" or "model", which encodes what is not in the cache. By default the
            model with `cache_dir`, and the loader without.
        cache_dir (`str` or `Path`, *optional*): folder of the cache, for any number of processes and encoders; by
            default nothing is kept.
        max_gb (`float`, *optional*): bound on the cache in gigabytes, 100 by default; see `GeometryCache`.
        dtype (`str`, *optional*): "float32" or "bfloat16", in which features are kept, and then used the first time,
            too; by default the encoder's own.
    Raises:
        ValueError: if the encoder is trained, or the model does not use one; for an unknown place or dtype, the place
            "model" without a cache, or with an encoder that is split over processes; for `max_gb` or `dtype` without
            a cache. When the model runs: as `EncoderMark.check`. NotADirectoryError: if `cache_dir` is a file.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForPreTraining
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> from gap_mllm.processing.data import make_question, render_room
        >>> from gap_mllm.training import FrozenGeometry, SceneCollator
        >>> model = GapMllmForPreTraining.from_pretrained(folder)
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> model = model.requires_grad_(False)  # or learning rate 0 for its group, which the trainer freezes
        >>> collate = SceneCollator(processor, geometry=FrozenGeometry(model, "loader", cache_dir="geometry"))
        >>> for _ in range(2):  # encodes, and finds
        ...     batch = collate([make_question(render_room(0), "reconstruction")])
        >>> batch["geometry_features"].shape, collate.counts["scenes_encoded"], collate.counts["scenes_from_cache"]
        (torch.Size([4, 256, 224]), 1, 1)

        ```
    """

    def __init__(
        self,
        model: GapMllmModel,
        where: str | None = None,
        cache_dir: str | Path | None = None,
        max_gb: float | None = None,
        dtype: str | None = None,
    ):
        if where not in (None, *PLACES):
            raise ValueError(f"where is {where!r}; expected one of {', '.join(PLACES)}.")
        if cache_dir is None and (where == "model" or max_gb is not None or dtype is not None):
            raise ValueError("cache_dir is missing: where='model', max_gb and dtype are about a cache.")
        base = _base_model(model)
        if not base.uses_geometry:
            raise ValueError("The model does not use its geometry encoder (use_geometry=False): nothing to encode.")
        if is_trainable(base.geometry):
            raise ValueError(
                "The geometry encoder is trained, so its features change with every step. Freeze it (learning rate "
                "0), or let the model encode the views."
            )
        self.where = where or ("loader" if cache_dir is None else "model")
        if self.where == "model" and is_sharded(base.geometry):
            raise ValueError(
                "The geometry encoder is split over processes, which must then all run it at once. Take "
                "where='loader', or keep it whole (FSDP2's ignored_modules)."
            )
        self.kept_dtype = None if dtype is None else getattr(torch, check_dtype(dtype, ("float32", "bfloat16")))
        self.cache = None if cache_dir is None else GeometryCache(cache_dir, 100.0 if max_gb is None else max_gb)
        self.encoder, self.mark = None, None
        self.follow(model)

    @property
    def key(self) -> str:
        """Name of the encoder in the cache, see `encoder_key`."""
        return self.mark.key

    @property
    def dtype(self) -> torch.dtype:
        """`torch.dtype` of the features."""
        return self.kept_dtype or (torch.float32 if self.where == "loader" else self.mark.encoder_dtype)

    def follow(self, model: GapMllmModel) -> bool:
        """Take over the weights and settings that the model has now; what was kept of others is not found any more.

        All weights are read. Processes of a loader that were started before, and their batches, are not reached: the
        model refuses these.

        Args:
            model (`GapMllmForPreTraining`, or another around `GapMllmModel`): the model that is trained. If its
                encoder is split over processes, all of them must call.
        Returns:
            `bool`: whether anything was changed.
        """
        base, before = _base_model(model), self.mark
        self.mark = EncoderMark.of(base, self.where, self.kept_dtype)
        is_changed = before is None or before.key != self.mark.key
        if is_changed:
            self.config = deepcopy(base.config)  # what is made with other settings must not get this key
        if is_changed and self.where == "loader":
            self.encoder = _float_copy(base.geometry, self.encoder)
        return is_changed and before is not None

    @torch.no_grad()
    def __call__(self, pixel_values, image_grid_thw, scene_lengths, intrinsics=None, poses=None, depth=None):
        """As `GapMllmModel.get_geometry_features`, here and whatever the cache has; for the place "loader".

        Args:
            pixel_values (`torch.Tensor` of shape `(N, C)`), image_grid_thw (`torch.Tensor` of shape `(images, 3)`),
                scene_lengths (`torch.Tensor` of shape `(scenes,)`): views of each scene of a batch.
            intrinsics, poses, depth (sequences, *optional*): what is known of the views, see `KnownGeometry`.
        Returns:
            `torch.Tensor` of shape `(levels, P, C)`, float32.
        """
        grid = image_grid_thw.tolist()
        lengths = group_scenes(len(grid), None, scene_lengths=scene_lengths)
        known = None if intrinsics is poses is depth is None else KnownGeometry(intrinsics, poses, depth)
        return torch.stack(encode_images(self.config, self.encoder, pixel_values, grid, lengths, known)[0])

    def look_up(
        self,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor,
        scene_lengths: torch.Tensor,
        events: CollationEvents,
        known: KnownGeometry | None = None,
    ) -> MarkedFeatures | KnownScenes:
        """What a batch carries as `geometry_features`: those of all scenes, or what the model begins with.

        Args:
            pixel_values (`torch.Tensor`), image_grid_thw (`torch.Tensor`), scene_lengths (`torch.Tensor`): views of
                each scene of the batch.
            events (`CollationEvents`): counts of scenes that were found, and that were not.
            known (`KnownGeometry`, *optional*): what is known of the views beside their pixels; part of their key.
        Returns:
            `MarkedFeatures` of shape `(levels, P, C)` or `KnownScenes`.
        """
        views = {"pixel_values": pixel_values, "image_grid_thw": image_grid_thw, "scene_lengths": scene_lengths}
        if self.cache is None:
            return MarkedFeatures.of(self(**views, **_known_of(known)), self.mark)
        keys = [f"{self.key}/{content_key(*scene)}" for scene in _by_scene(**views, known=known)]
        found = [self.cache.read(key) for key in keys]
        scenes = KnownScenes(list(zip(keys, found, strict=True)), self.cache, self.dtype, self.mark, known)
        num_missing = len({key for key, features in scenes.scenes if features is None})
        events.count("scenes_from_cache", len(found) - num_missing)
        events.count("scenes_encoded", num_missing)
        if num_missing and self.where == "model":
            return scenes
        return MarkedFeatures.of(scenes.complete(self, **views), self.mark)


def _base_model(model):
    """The `GapMllmModel` of a model, also within adapters and what trainers wrap around it."""
    model = extract_model_from_parallel(model, keep_torch_compile=False)
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model


def _float_copy(encoder, copied):
    """A copy of an encoder in float32 on the CPU; of one that is split, in place of a copy of before."""
    if is_sharded(encoder) and copied is not None:
        with gathered(encoder):
            copied.load_state_dict({name: whole_tensor(each) for name, each in encoder.state_dict().items()})
        return copied
    copied = deepcopy(encoder).float().cpu().eval()
    if "flash" in copied.config._attn_implementation:  # which needs a GPU
        copied.set_attn_implementation("sdpa")
    return copied


def _by_scene(pixel_values, image_grid_thw, scene_lengths, known=None):
    """Patches and grid of each scene, and all that is known of it."""
    grids = image_grid_thw.split(scene_lengths.tolist())
    parts = list(zip(pixel_values.split([int(grid.prod(-1).sum()) for grid in grids]), grids, strict=True))
    if known is None:
        return parts
    return [
        (*part, *known.select(views).tensors()) for part, views in zip(parts, _views_of(scene_lengths), strict=True)
    ]


def _views_of(scene_lengths):
    """Indices of the views of each scene."""
    return torch.arange(int(scene_lengths.sum())).split(scene_lengths.tolist())


def _known_of(known, scene_lengths=None, scenes=()):
    """What is known, as arguments by name; of all views, or those of some scenes."""
    if known is None:
        return {}
    if scene_lengths is not None:
        views = _views_of(scene_lengths)
        known = known.select(torch.cat([views[scene] for scene in scenes]))
    return {name: getattr(known, name) for name in KNOWN_FIELDS}
