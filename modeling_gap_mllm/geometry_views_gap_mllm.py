"""The geometry encoder's images, rebuilt from Qwen3-VL's `pixel_values` (no second pixel input exists), and encoded.

Qwen's processor resizes, normalises and cuts an image into patches in the order of its 2x2 merger. All of it can be
undone, so every tool that handles Qwen3-VL handles GAP-MLLM.

`Differs:` the reference feeds VGGT a slightly wider crop of the original file; here both towers see the same pixels
on the same grid, token for token.
"""

from itertools import islice

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from .configuration_gap_mllm import GapMllmConfig
from .known_geometry_gap_mllm import KnownGeometry
from .patch_mergers_gap_mllm import merge_points, position_features


def recover_images(
    pixel_values: torch.Tensor,
    grid: list[tuple[int, int, int]],
    image_mean: list[float],
    image_std: list[float],
    patch_size: int,
    temporal_patch_size: int,
    merge_size: int,
):
    """Undo Qwen's patch order and normalisation.

    Half-precision inputs were rounded: they are brought to the nearest multiple of 1/255, which restores 8-bit images
    exactly (bfloat16 with Qwen's mean and std of 0.5; float16 with any usual ones). All arithmetic is in float32.

    Args:
        pixel_values (`torch.Tensor` of shape `(N, 3 * temporal_patch_size * patch_size**2)`): patches of all images,
            the four of a merger window next to each other.
        grid (`list[tuple[int, int, int]]`): temporal patches, rows and columns of patches of each image or video.
        image_mean (`list[float]`), image_std (`list[float]`): normalisation to undo.
    Returns:
        `list[torch.Tensor]`, each of shape `(t, temporal_patch_size, 3, H, W)` float32 in 0..1: for every image or
        video its temporal patches, and the frames of each (for an image `temporal_patch_size` times the same one).
    Raises:
        ValueError: if the grid does not hold as many patches as given, or pixels are not finite.
    """
    counts = _count_patches(pixel_values, grid)
    mean = torch.tensor(image_mean, device=pixel_values.device).view(3, 1, 1)
    std = torch.tensor(image_std, device=pixel_values.device).view(3, 1, 1)
    is_half = pixel_values.dtype in (torch.float16, torch.bfloat16)
    if not torch.isfinite(pixel_values).all():
        bad = [i for i, patches in enumerate(pixel_values.split(counts)) if not torch.isfinite(patches).all()]
        raise ValueError(
            f"The pixels of image or video {bad} (counted through the batch) hold NaN or infinity. Check the source."
        )
    images = []
    for patches, (t, h, w) in zip(pixel_values.float().split(counts), grid, strict=True):
        rows, columns = h // merge_size, w // merge_size
        cells = patches.view(
            t, rows, columns, merge_size, merge_size, 3, temporal_patch_size, patch_size, patch_size
        )  # time, cell row, cell column, row in cell, column in cell, channel, frame, y, x
        image = cells.permute(0, 6, 5, 1, 3, 7, 2, 4, 8).reshape(t, temporal_patch_size, 3, h * patch_size, -1)
        image = image * std + mean
        images.append((image * 255).round() / 255 if is_half else image)
    return images


def _count_patches(pixel_values, grid):
    """Patches of each image or video; ValueError if there are more or fewer."""
    counts = [t * h * w for t, h, w in grid]
    if sum(counts) != len(pixel_values):
        raise ValueError(
            f"The grid {[list(row) for row in grid]} holds {sum(counts)} patches, but pixel_values has "
            f"{len(pixel_values)} rows. Pass both as the processor returned them."
        )
    return counts


def resize_to_grid(images: list[torch.Tensor] | torch.Tensor, grid: list[tuple[int, int, int]], patch_size: int):
    """Resize images (n, 3, H, W) so that a `patch_size` patch grid equals `grid` (rows, columns), bilinearly."""
    size = tuple(side * patch_size for side in grid)
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=False)


def image_views(config: GapMllmConfig, pixel_values: torch.Tensor, grid: list[tuple[int, int, int]]):
    """The encoder's image of each of Qwen's images.

    Args:
        config (`GapMllmConfig`), pixel_values (`torch.Tensor`), grid (`list[tuple[int, int, int]]`): inputs as the
            processor returned them.
    Returns:
        `list[torch.Tensor]`, each of shape `(3, h, w)` float32 in 0..1.
    Raises:
        ValueError: as `recover_images`.
    """
    images, patch = _recover(config, pixel_values, grid), config.geometry_config.patch_size
    # The processor repeats an image to fill the temporal patch: one of the frames is the view.
    return [resize_to_grid(image[:, 0], row[1:], patch)[0] for image, row in zip(images, grid, strict=True)]


def video_views(config: GapMllmConfig, pixel_values: torch.Tensor, grid: list[tuple[int, int, int]]):
    """The encoder's images of videos. The frame that the processor repeats to fill up an odd number is one view.

    Args:
        config (`GapMllmConfig`), pixel_values (`torch.Tensor`), grid (`list[tuple[int, int, int]]`): inputs as the
            processor returned them.
    Returns:
        `tuple`: the images `(3, h, w)` of all videos, the number of each video, and the number of each temporal patch.
    Raises:
        ValueError: as `recover_images`.
    """
    views, lengths, views_per_slice = [], [], []
    for video, (_, height, width) in zip(_recover(config, pixel_values, grid), grid, strict=True):
        frames = video.flatten(0, 1)
        counts = [video.shape[1]] * len(video)
        if (video[-1] == video[-1, :1]).all():
            counts[-1] = 1
        frames = frames[: sum(counts)]
        views.extend(resize_to_grid(frames, (height, width), config.geometry_config.patch_size))
        views_per_slice.extend(counts)
        lengths.append(len(frames))
    return views, lengths, views_per_slice


def _recover(config, pixel_values, grid):
    vision = config.vision_config
    return recover_images(
        pixel_values,
        grid,
        config.image_mean,
        config.image_std,
        vision.patch_size,
        vision.temporal_patch_size,
        vision.spatial_merge_size,
    )


def is_trainable(module: nn.Module):
    """Whether any parameter of a module takes part in training."""
    return any(parameter.requires_grad for parameter in module.parameters())


def is_sharded(module: nn.Module):
    """Whether each process holds but a part of some parameter of a module, as in FSDP2 and DeepSpeed's ZeRO-3."""
    return any(hasattr(each, "device_mesh") or hasattr(each, "ds_id") for each in module.parameters())


def encode_images(
    config: GapMllmConfig,
    encoder: PreTrainedModel,
    pixel_values: torch.Tensor,
    grid: list[tuple[int, int, int]],
    scene_lengths: list[int],
    known: KnownGeometry | None = None,
):
    """Encode images as the processor returned them.

    Args:
        config (`GapMllmConfig`): config of the model around the encoder.
        encoder (`GapMllmVggtModel`): or another of `GEOMETRY_ENCODERS`.
        pixel_values (`torch.Tensor`), grid (`list[tuple[int, int, int]]`): inputs as the processor returned them.
        scene_lengths (`list[int]`): views of each scene.
        known (`KnownGeometry`, *optional*): what is known of the views, as the user gave it.
    Returns:
        `tuple`: as `encode_scenes`.
    Raises:
        ValueError: as `recover_images`, `KnownGeometry.checked` and `encode_scenes`.
    """
    views, patch = image_views(config, pixel_values, grid), config.vision_config.patch_size
    if known is not None:
        sizes = [(rows * patch, columns * patch) for _, rows, columns in grid]
        known = known.checked(sizes, scene_lengths, config.reference_frame, views[0].device)
        known = known.resized(sizes, [tuple(view.shape[-2:]) for view in views])
    return encode_scenes(config, encoder, views, scene_lengths, known)


def encode_scenes(
    config: GapMllmConfig,
    encoder: PreTrainedModel,
    views: list[torch.Tensor],
    scene_lengths: torch.Tensor | list[int],
    known: KnownGeometry | None = None,
):
    """Run a geometry encoder over scenes, outside of any autocast; without a graph if nothing of it is trained.

    The world of the encoder is the first view of a scene, or the last by `config.reference_frame`. What the fusion
    wants beside features stands among them, as the rows and levels of `geometry_features`: with its method "vlm3r" the
    camera token of each view before its patches, with its position encoding a last level of `position_features`.

    Args:
        config (`GapMllmConfig`): config of the model around the encoder.
        encoder (`GapMllmVggtModel`): or another of `GEOMETRY_ENCODERS`.
        views (`list[torch.Tensor]`, each of shape `(3, h, w)`): views of all scenes, in order.
        scene_lengths (`list[int]`): views of each scene.
        known (`KnownGeometry`, *optional*): what is known of the views, checked, at their size.
    Returns:
        `tuple`: the tapped features `(P, C)` of each level, and the patch grid of each view; in the order of `views`.
    Raises:
        ValueError: if camera tokens or points are asked of an encoder that gives none, or something is known that
            neither encoder nor fusion reads.
    """
    fusion, order = config.gap_fusion_config, list(range(len(views)))
    if config.reference_frame == "last":
        # The encoder's world is its first view: every scene goes in backwards, and its features come back.
        order, start = [], 0
        for length in scene_lengths:
            order += range(start + length - 1, start - 1, -1)
            start += length
    reads_known, options = getattr(encoder, "reads_known_geometry", False), {}
    if known is not None and not reads_known and fusion.position_encoding is None:
        raise ValueError(
            f"{type(encoder).__name__} reads pixels alone, and so does this fusion: intrinsics, poses and depth would "
            "be lost. Leave them out, take geometry_config.model_type='gap_mllm_geometry_maps', or "
            "gap_fusion_config.position_encoding='position_3d'."
        )
    if known is not None and reads_known:
        options["known_geometry"] = known.select(order)
    with (
        torch.autocast(views[0].device.type, enabled=False),
        torch.set_grad_enabled(torch.is_grad_enabled() and is_trainable(encoder)),
    ):
        geometry = encoder([views[index] for index in order], scene_lengths, **options)
    if fusion.camera_tokens and geometry.camera_tokens is None:
        raise ValueError(
            f"{type(encoder).__name__} gives no camera tokens, which the fusion attends to. Choose another "
            "gap_fusion_config.method, or an encoder that gives them."
        )
    counts = [height * width for height, width in geometry.grid]
    back = sorted(range(len(order)), key=order.__getitem__)
    grid, taps = [geometry.grid[index] for index in back], []
    for features in geometry.tap_features:
        if config.reference_frame == "first" and not fusion.camera_tokens:
            taps.append(features)
            continue
        parts = features.split(counts)
        if fusion.camera_tokens:
            parts = [
                torch.cat([camera[None], part]) for camera, part in zip(geometry.camera_tokens, parts, strict=True)
            ]
        taps.append(torch.cat([parts[index] for index in back]))
    if fusion.position_encoding is not None:
        points = None if geometry.points is None else [geometry.points[index] for index in back]
        if known is not None and not reads_known:
            points = merge_points(known.points(), points, scene_lengths)
        if points is None:
            raise ValueError(
                f"gap_fusion_config.position_encoding={fusion.position_encoding!r} needs the points that pixels see, "
                f"and {type(encoder).__name__} gives none. Pass intrinsics, poses and depth to get_geometry_features, "
                "and what it returns as geometry_features; or take geometry_config.model_type='gap_mllm_vggt_points', "
                "or 'gap_mllm_geometry_maps' with a teacher_config."
            )
        taps.append(position_features(points, grid, taps[0].shape[-1], fusion.camera_tokens).to(taps[0]))
    return tuple(taps), grid


def without_repeats(pixel_values: torch.Tensor, image_grid_thw: torch.Tensor, scene_lengths: list[int]):
    """Leave out scenes that came before in the batch, pixel for pixel, as the copies of a prompt do.

    Args:
        pixel_values (`torch.Tensor` of shape `(N, C)`), image_grid_thw (`torch.Tensor` of shape `(images, 3)`): images
            as the processor returned them.
        scene_lengths (`list[int]`): images of each scene.
    Returns:
        `tuple`: pixels, grid and lengths of the distinct scenes, and the place among their images of each image of
        the batch; None there, and the rest as it came, where nothing repeats.
    Raises:
        ValueError: if the grid does not hold as many patches as given.
    """
    grid = image_grid_thw.tolist()
    counts, numbers = _count_patches(pixel_values, grid), iter(range(len(grid)))
    images = [list(islice(numbers, length)) for length in scene_lengths]
    scenes = pixel_values.split([sum(counts[image] for image in scene) for scene in images])
    # The sums tell most scenes apart at once; those that have the same are compared.
    sums = torch.stack([scene.sum(dtype=torch.float32) for scene in scenes]).tolist() if len(scenes) > 1 else [0.0]
    seen, kept, shown, num_kept = {}, [], [], 0
    for scene, pixels in enumerate(scenes):
        alike = seen.setdefault((sums[scene], *(tuple(grid[image]) for image in images[scene])), [])
        start = next((start for start, before in alike if torch.equal(before, pixels)), num_kept)
        if start == num_kept:
            alike.append((start, pixels))
            kept.append(scene)
            num_kept += len(images[scene])
        shown += range(start, start + len(images[scene]))
    if len(kept) == len(scenes):
        return pixel_values, image_grid_thw, scene_lengths, None
    rows = [image for scene in kept for image in images[scene]]
    lengths = [scene_lengths[scene] for scene in kept]
    return torch.cat([scenes[scene] for scene in kept]), image_grid_thw[rows], lengths, shown


def group_scenes(
    num_items: int,
    tokens_per_item: list[int],
    mm_token_type_ids: torch.Tensor | None = None,
    scene_lengths: torch.Tensor | list[int] | None = None,
    token_type: int = 1,
):
    """Say which images form one scene.

    All images of a row of the batch are one scene, found by counting its image tokens; `scene_lengths` overrides this.
    With neither, a single image is a scene, and several raise, since guessing would mix rooms.

    Args:
        num_items (`int`): images in the batch, in order.
        tokens_per_item (`list[int]`): visual tokens of each.
        mm_token_type_ids (`torch.Tensor` of shape `(B, S)`, *optional*): 1 at image tokens, 2 at video tokens.
        scene_lengths (`torch.Tensor` or `list[int]`, *optional*): images of each scene.
        token_type (`int`, defaults to 1): which tokens to count.
    Returns:
        `list[int]`: images of each scene, in order, without empty scenes.
    Raises:
        ValueError: if the counts do not agree with the images, or nothing says what belongs together.
    """
    if scene_lengths is not None:
        if isinstance(scene_lengths, torch.Tensor):
            scene_lengths = scene_lengths.flatten().tolist()
        lengths = [int(length) for length in scene_lengths if length]
        if sum(lengths) != num_items or min(lengths, default=1) < 0:
            raise ValueError(
                f"scene_lengths={lengths} sum to {sum(lengths)} views, but pixel_values hold {num_items} images."
            )
        return lengths
    if mm_token_type_ids is None:
        if num_items > 1:
            raise ValueError(
                f"{num_items} images came without anything that says which belong to one scene. Pass "
                "mm_token_type_ids as the processor returns them, or scene_lengths, the number of views per scene."
            )
        return [1] * num_items
    counts = (mm_token_type_ids == token_type).sum(-1).tolist()
    lengths, item = [], 0
    for row, count in enumerate(counts):
        length, seen = 0, 0
        while seen < count and item < num_items:
            seen += tokens_per_item[item]
            item += 1
            length += 1
        if seen != count:
            raise ValueError(
                f"Row {row} has {count} image tokens, but its images make {seen} "
                f"({length} images of {tokens_per_item[item - length : item]} tokens)."
            )
        if length:
            lengths.append(length)
    if item != num_items:
        raise ValueError(
            f"The text has {sum(counts)} image tokens for {item} images, but pixel_values hold {num_items} images "
            f"of {sum(tokens_per_item)} tokens."
        )
    return lengths
