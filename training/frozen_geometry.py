"""Geometry features that do not change: made where batches are made, or kept on disk, or both.

For trainings that leave the encoder as it is. The files are those of geometry_cache.py.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash
from transformers import PreTrainedConfig, PreTrainedModel

from ..configuration_gap_mllm import GapMllmConfig
from ..geometry_views_gap_mllm import encode_images, group_scenes, is_sharded, is_trainable
from ..known_geometry_gap_mllm import KNOWN_FIELDS, KnownGeometry
from ..modeling_gap_mllm import GapMllmModel
from ..processing.argument_checks import check_dtype
from .collation_events import CollationEvents
from .geometry_cache import GeometryCache, content_key


PLACES = ("loader", "model")
_GENERIC = set(PreTrainedConfig().to_dict())  # fields of any config, which change nothing or are the weights'


@dataclass
class KnownScenes:
    """What a cache has of the scenes of a batch; the model that gets it as `geometry_features` makes the rest.

    Args:
        scenes (`list[tuple[str, torch.Tensor | None]]`): key and features `(levels, P, C)` of each scene, None where
            it must be encoded.
        cache (`GeometryCache`): place to keep what is encoded.
        dtype (`torch.dtype`): dtype of all features.
        encoder_dtype (`torch.dtype`): dtype of the encoder that the keys are of.
        known (`KnownGeometry`, *optional*): what is known of the views of the batch beside their pixels.
    Raises:
        ValueError: when called, if the encoder was cast meanwhile.
    """

    scenes: list[tuple[str, torch.Tensor | None]]
    cache: GeometryCache
    dtype: torch.dtype
    encoder_dtype: torch.dtype
    known: KnownGeometry | None = None

    def __call__(
        self,
        model: GapMllmModel,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor,
        scene_lengths: torch.Tensor,
    ) -> torch.Tensor:
        """As `GapMllmModel.get_geometry_features`, for the scenes of the batch."""
        if model.geometry.dtype != self.encoder_dtype:
            raise ValueError(
                f"The geometry encoder is {model.geometry.dtype} now, but was {self.encoder_dtype} when the cache was "
                "opened. Make FrozenGeometry after the encoder is cast, or call its method follow(model) then."
            )
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
            a cache. When the model runs: as `KnownScenes`. NotADirectoryError: if `cache_dir` is a file.

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
        self.config, self.encoder, self.cache, self.encoder_dtype = base.config, None, None, None
        if self.where == "loader":
            self.encoder = deepcopy(base.geometry).float().cpu().eval()
            if "flash" in self.encoder.config._attn_implementation:  # which needs a GPU
                self.encoder.set_attn_implementation("sdpa")
        elif is_sharded(base.geometry):
            raise ValueError(
                "The geometry encoder is split over processes, which must then all run it at once. Take "
                "where='loader', or keep it whole (FSDP2's ignored_modules)."
            )
        if cache_dir is not None:
            self.cache = GeometryCache(cache_dir, 100.0 if max_gb is None else max_gb)
            self.kept_dtype = None if dtype is None else getattr(torch, check_dtype(dtype, ("float32", "bfloat16")))
            self.follow(model)

    def follow(self, model: GapMllmModel) -> None:
        """Note that the model's encoder may have been cast; what was kept of it is found by its weights and dtype."""
        encoder = self.encoder or _base_model(model).geometry
        if self.cache is not None and encoder.dtype != self.encoder_dtype:
            self.encoder_dtype, self.dtype = encoder.dtype, self.kept_dtype or encoder.dtype
            self.key = _encoder_key(encoder, self.config, self.dtype)

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
    ) -> torch.Tensor | KnownScenes:
        """What a batch carries as `geometry_features`: those of all scenes, or what the model begins with.

        Args:
            pixel_values (`torch.Tensor`), image_grid_thw (`torch.Tensor`), scene_lengths (`torch.Tensor`): views of
                each scene of the batch.
            events (`CollationEvents`): counts of scenes that were found, and that were not.
            known (`KnownGeometry`, *optional*): what is known of the views beside their pixels; part of their key.
        Returns:
            `torch.Tensor` of shape `(levels, P, C)` or `KnownScenes`.
        """
        views = {"pixel_values": pixel_values, "image_grid_thw": image_grid_thw, "scene_lengths": scene_lengths}
        if self.cache is None:
            return self(**views, **_known_of(known))
        keys = [f"{self.key}/{content_key(*scene)}" for scene in _by_scene(**views, known=known)]
        found = [self.cache.read(key) for key in keys]
        scenes = KnownScenes(list(zip(keys, found, strict=True)), self.cache, self.dtype, self.encoder_dtype, known)
        num_missing = len({key for key, features in scenes.scenes if features is None})
        events.count("scenes_from_cache", len(found) - num_missing)
        events.count("scenes_encoded", num_missing)
        is_left_to_the_model = num_missing and self.where == "model"
        return scenes if is_left_to_the_model else scenes.complete(self, **views)


def _base_model(model):
    """The `GapMllmModel` of a model, also within adapters."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model


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


def _encoder_key(encoder: PreTrainedModel, config: GapMllmConfig, dtype: torch.dtype) -> str:
    """Tells encoders apart: their weights, their config, and what becomes of pixels before and of features after."""
    vision = config.vision_config
    told = {name: value for name, value in encoder.config.to_dict().items() if name not in _GENERIC}
    told["views"] = [config.image_mean, config.image_std, vision.patch_size, vision.temporal_patch_size]
    told["views"] += [vision.spatial_merge_size, config.reference_frame, encoder.config.model_type, str(dtype)]
    if config.gap_fusion_config.camera_tokens:
        told["camera_tokens"] = config.gap_fusion_config.camera_tokens
    weights = encoder.state_dict()
    told = json.dumps([told, list(weights)], sort_keys=True, default=str) + content_key(*weights.values())
    return xxhash.xxh3_64_hexdigest(told.encode())


__all__ = ["FrozenGeometry", "KnownScenes"]
