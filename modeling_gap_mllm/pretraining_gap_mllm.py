"""GAP-MLLM with the heads of geometry-aligned pre-training. The heads are dropped for inference."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers import Cache
from transformers.utils import ModelOutput, logging

from .configuration_gap_mllm import GapMllmConfig
from .geometry_views_gap_mllm import group_scenes, is_trainable
from .modeling_gap_mllm import GapMllmForConditionalGeneration, answer_loss
from .training_heads_gap_mllm import (
    TOKENS_OF_HEADS,
    TOWER_INDEX,
    ViewTokens,
    layer_index,
    make_training_head,
    read_hidden_states,
    read_tower,
    repeat_tokens,
    token_kinds,
)
from .vggt_heads_gap_mllm import GapMllmVggtReconstruction


logger = logging.get_logger(__name__)

POINT_MAP_SOURCES = ("visual", "language")


@dataclass
class GapMllmPreTrainingOutput(ModelOutput):
    """What the loss terms need.

    Args:
        loss (`torch.Tensor`, *optional*): cross-entropy of the supervised tokens, see `answer_loss`.
        answer_logits (`torch.Tensor` of shape `(N, vocabulary)`, *optional*): logits at the supervised positions only.
        answer_targets (`torch.Tensor` of shape `(N,)`, *optional*): the token that follows each.
        answer_positions (`torch.Tensor` of shape `(N, 2)`, *optional*): row of the batch, and position of the target.
        point_maps (`dict[str, torch.Tensor]`, each of shape `(T, side, side, 3)`, *optional*): points seen from the
            fused visual tokens ("visual") and from the language model's last states at these tokens ("language"), for
            all visual tokens of the batch. Frame: camera of the scene's first view, OpenCV axes. Units: metres. None
            for a plain `Trainer`.
        head_outputs (`dict`, *optional*): what each of the `training_heads` gives for the views of the batch, each
            view once. None for a plain `Trainer`, and without views.
        encoder_features (`dict[str, torch.Tensor]`, each of shape `(T, C)`, *optional*): features of the model's own
            geometry encoder by the name of the layer, averaged over each visual token, where a head is taught by them.
    """

    loss: torch.Tensor | None = None
    answer_logits: torch.Tensor | None = None
    answer_targets: torch.Tensor | None = None
    answer_positions: torch.Tensor | None = None
    point_maps: dict | None = None
    head_outputs: dict | None = None
    encoder_features: dict | None = None


@dataclass(frozen=True)
class _SeenViews:
    """The views of all images or videos of a batch: their tokens, grids, order in the text, and places there."""

    tokens: ViewTokens
    grids: list[tuple[int, int]]
    shown: list[int]
    is_seen: torch.Tensor

    def states(self, states):
        """States of the tokens of each view once, by their kind, of `states` (B, S, D).

        Of several documents about a scene the first stands for it: its visual tokens see nothing but the views.
        """
        sizes = self.tokens.whole_sizes
        parts = states[self.is_seen].split([sizes[view] for view in self.shown])
        return self.tokens.split([parts[self.shown.index(view)] for view in range(len(sizes))])


class GapMllmPointMapHead(nn.Module):
    """Points of a small grid inside each visual token, as sign(y) * expm1(|y|) of a two-layer MLP's output y."""

    def __init__(self, hidden_size: int, side: int):
        super().__init__()
        self.side = side
        self.norm = nn.LayerNorm(hidden_size)
        self.fc1 = nn.Linear(hidden_size, hidden_size)
        self.fc2 = nn.Linear(hidden_size, 3 * side * side)

    def forward(self, tokens: torch.Tensor):
        raw = self.fc2(nn.functional.gelu(self.fc1(self.norm(tokens)))).float()
        raw = raw.unflatten(-1, (self.side, self.side, 3))
        return raw.sign() * raw.abs().expm1()


class GapMllmForPreTraining(GapMllmForConditionalGeneration):
    """`GapMllmForConditionalGeneration` with a point-map head on the visual tokens and one on the language states.

    With `labels` it returns the parts of the loss, with logits formed at supervised positions only; without, it is
    the plain model, so generate() works. Its own `loss` is that of the text: the heads and the other terms are trained
    by `GeometryAlignedTrainer` only, not by a plain `Trainer`. Loaded from an inference checkpoint its heads start
    afresh, and transformers says so. Source: geometry-aligned pre-training of GAP-MLLM (arXiv:2603.16461); the
    dense point maps are ours, after the dense alignment of 3DRS (arXiv:2506.01946) and GeoVR (arXiv:2606.05833).

    Example:
        ```python
        >>> from gap_mllm import GapMllmForPreTraining
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> from gap_mllm.processing.data import make_question, render_room
        >>> from gap_mllm.training import SceneCollator
        >>> model = GapMllmForPreTraining.from_pretrained(folder, dtype="float32")
        >>> collate = SceneCollator(GapMllmProcessor.from_pretrained(folder), "block_mask", for_pretraining=True)
        >>> batch = collate([make_question(render_room(0), "reconstruction")])
        >>> names = ["input_ids", "labels", "position_ids", "attention_mask"]
        >>> names += ["pixel_values", "image_grid_thw", "scene_lengths"]  # what the trainer hands on
        >>> output = model(**{name: batch[name] for name in names})
        >>> output.point_maps["visual"].shape  # visual tokens, points along both sides, x y z in metres
        torch.Size([64, 4, 4, 3])

        ```
    """

    _may_start_afresh = ("point_map_heads.", "training_heads.")  # which inference folders lack

    def __init__(self, config: GapMllmConfig):
        super().__init__(config)
        self.loss_type = "ForCausalLM"  # so that Trainer counts the tokens that the loss sums
        size = config.text_config.hidden_size
        self.point_map_heads = nn.ModuleDict(
            {source: GapMllmPointMapHead(size, config.point_map_side) for source in POINT_MAP_SOURCES}
        )
        heads = {name: make_training_head(name, config) for name in config.training_heads or ()}
        self.training_heads = nn.ModuleDict(heads)
        self._check_training_heads()
        self.post_init()

    def set_training_heads(self, settings: dict[str, dict] | None) -> None:
        """Give the model these heads and no others; a head that it has with the same settings stays as it is.

        Args:
            settings (`dict[str, dict]`, *optional*): what `config.training_heads` is from now on, as
                `{"distillation": {"layers": [-1], "feature_size": 2048}}`.
        Raises:
            ValueError: for a head, layer or setting that is not known, or a head that is taught by the model's own
                encoder while there is none, or it is trained.
        """
        before, kept = self.config.training_heads or {}, self.training_heads
        self.config.training_heads = settings or None
        self.config._check()
        self._check_training_heads()
        self.training_heads, weight = nn.ModuleDict(), self.lm_head.weight
        for name, values in (settings or {}).items():
            if before.get(name) == values:
                self.training_heads[name] = kept[name]
                continue
            with torch.device(weight.device):
                head = make_training_head(name, self.config).to(self.point_map_heads["visual"].fc1.weight.dtype)
            head.apply(self._init_weights)
            self.training_heads[name] = head

    def _check_training_heads(self):
        for name, settings in (self.config.training_heads or {}).items():
            for layer in settings["layers"]:
                try:
                    layer_index(layer, self.config.text_config.num_hidden_layers)
                except ValueError as error:
                    raise ValueError(f"training_heads.{name}.layers: {error}") from None
            taps = [f"layer_{layer}" for layer in self.config.geometry_config.tap_layers]
            wanted = settings.get("encoder_layers") or []
            if wanted and self.model.geometry is None:
                raise ValueError("The model has no geometry encoder (use_geometry=False) that could teach it.")
            if unknown := [layer for layer in wanted if layer not in taps]:
                raise ValueError(f"The geometry encoder has no features {unknown}; it has {taps}.")

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        scene_lengths: torch.Tensor | list[int] | None = None,
        scene_repeats: torch.Tensor | None = None,
        geometry_features: torch.Tensor | None = None,
        head_grids: dict[str, torch.Tensor] | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        mm_encoder_outputs: dict | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ):
        """As `GapMllmForConditionalGeneration.forward` without labels; else the parts of the pre-training loss.

        Args:
            labels (`torch.Tensor` of shape `(B, S)`, *optional*): -100 where a token is not supervised.
            scene_repeats (`torch.Tensor` of shape `(scenes,)`, *optional*): how many documents of a packed row show
                each scene; it is encoded once and its features are repeated. With labels only.
            geometry_features (`torch.Tensor`, *optional*): features as in `GapMllmModel.get_image_features`.
            head_grids (`dict[str, torch.Tensor]`, each of shape `(V, 2)`, *optional*): height and width of the grid on
                which a head of that name tells of each view, in tokens; by default that of the view.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*): supervised tokens by which a plain `Trainer`
                divides; no point maps are made then.
        Returns:
            `CausalLMOutputWithPast` without labels, `GapMllmPreTrainingOutput` with them.
        Raises:
            ValueError: as `GapMllmModel.forward`; with labels also if views come without `input_ids`, which say where
                their tokens are, `scene_repeats` without `scene_lengths`, or the text has no tokens for heads that
                read some of their own (see `insert_geometry_tokens`).
        """
        # All named, since generate() refuses inputs that forward does not name.
        kwargs.update(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            video_grid_thw=video_grid_thw,
            mm_token_type_ids=mm_token_type_ids,
        )
        if labels is None:
            return super().forward(
                pixel_values=pixel_values,
                pixel_values_videos=pixel_values_videos,
                image_grid_thw=image_grid_thw,
                scene_lengths=scene_lengths,
                geometry_features=geometry_features,
                logits_to_keep=logits_to_keep,
                mm_encoder_outputs=mm_encoder_outputs,
                **kwargs,
            )
        has_views = pixel_values is not None or pixel_values_videos is not None or bool(mm_encoder_outputs)
        if has_views and input_ids is None:
            raise ValueError("Labels and views came without input_ids, so the tokens of the views cannot be found.")
        if scene_repeats is not None and scene_lengths is None:
            raise ValueError("scene_repeats came without scene_lengths. Pass the number of views of each scene too.")
        encoded, grids = dict(mm_encoder_outputs or {}), {"image": image_grid_thw, "video": video_grid_thw}
        is_plain_trainer = num_items_in_batch is not None
        reads_heads = len(self.training_heads) > 0 and not is_plain_trainer
        shared = {"mm_token_type_ids": mm_token_type_ids, "scene_lengths": scene_lengths, "return_dict": True}
        layers = self._head_layers if reads_heads else []
        reads_tower = read_tower(self.model.visual) if TOWER_INDEX in layers else nullcontext([])
        with reads_tower as tower:
            if pixel_values is not None:
                if self.model.uses_geometry:
                    self.model._check_packing(position_ids, attention_mask, scene_lengths, kwargs.get("cu_seq_lens_q"))
                if reads_heads and self._encoder_layers:
                    geometry_features = self._own_features(pixel_values, image_grid_thw, geometry_features, shared)
                encoded["image"] = self.model.get_image_features(
                    pixel_values, image_grid_thw, geometry_features=geometry_features, **shared
                )
            if pixel_values_videos is not None:
                types = None if token_kinds(self.config.training_heads) else mm_token_type_ids  # they are no patches
                encoded["video"] = self.model.get_video_features(
                    pixel_values_videos, video_grid_thw, mm_token_type_ids=types, return_dict=True
                )
        features, seen = encoded.get("image"), {}
        for kind in [kind for kind in encoded if grids[kind] is not None]:
            seen[kind] = self._seen_views(
                kind, encoded, grids[kind], input_ids, scene_lengths, scene_repeats, reads_heads
            )
        if features is not None:
            image_grid_thw = image_grid_thw[seen["image"].shown]
        kwargs.update(use_cache=False, return_dict=True)  # whatever PEFT and TRL say of them
        with read_hidden_states(self.model.language_model, [layer for layer in layers if layer >= 0]) as kept:
            states = self.model(image_grid_thw=image_grid_thw, mm_encoder_outputs=encoded, **kwargs).last_hidden_state
        is_supervised = labels[:, 1:] != -100
        logits = self.lm_head(states[:, :-1][is_supervised])
        if self.training and (is_plain_trainer or features is None):  # so that all ranks reduce the same parameters
            logits = logits + 0 * sum(head(states[:1, :1]).sum() for head in self.point_map_heads.values())
        if self.training and (is_plain_trainer or not seen):
            logits = logits + 0 * self._idle_heads(states[0, :1])
        if is_plain_trainer and self.training:
            logger.warning_once(
                "A plain Trainer trains GapMllmForPreTraining on text alone: its point-map heads learn nothing. Use "
                "GeometryAlignedTrainer (gap_mllm.training) for the other terms, or train "
                "GapMllmForConditionalGeneration."
            )
        output = GapMllmPreTrainingOutput(
            loss=answer_loss(logits, labels, position_ids, num_items_in_batch, self.training),
            answer_logits=logits,
            answer_targets=labels[:, 1:][is_supervised],
            answer_positions=is_supervised.nonzero() + torch.tensor([0, 1], device=labels.device),
        )
        if features is not None and not is_plain_trainer:
            sources = {"visual": torch.cat(features.pooler_output)}
            sources["language"] = seen["image"].states(states)["patches"]
            output.point_maps = {name: head(sources[name]) for name, head in self.point_map_heads.items()}
        if reads_heads and seen:
            kept = {layer: [views.states(value) for views in seen.values()] for layer, value in kept.items()}
            kept = {
                layer: {kind: torch.cat([each[kind] for each in found]) for kind in found[0]}
                for layer, found in kept.items()
            }
            if TOWER_INDEX in layers:
                kept[TOWER_INDEX] = {"patches": torch.cat(tower)}
            lengths = [length for views in seen.values() for length in views.tokens.scene_lengths]
            found = self._run_heads(
                kept, [grid for views in seen.values() for grid in views.grids], lengths, head_grids
            )
            output.head_outputs = dict(zip(self.training_heads, found, strict=True))
            if self._encoder_layers and geometry_features is not None:
                output.encoder_features = self._over_tokens(geometry_features, seen["image"].grids)
        return output

    def insert_geometry_tokens(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Put the tokens that the heads read into a batch as the processor gives it.

        `SceneCollator(teaching=...)` does so by itself. They repeat the last patch of a view: its id, type, attention
        and position; none is supervised. Shorter rows are filled up on the side where there is padding.
        Source: GeoVR (arXiv:2606.05833). `Differs:` there left padding is not kept.

        Args:
            inputs (`Mapping[str, torch.Tensor]`): `input_ids`, `mm_token_type_ids` and grids; perhaps `labels`,
                `attention_mask`, `scene_lengths` and others, which stay.
        Returns:
            `dict[str, torch.Tensor]`: the batch, with `position_ids` `(3, B, S)`, and `scene_lengths` of images. As it
            was, where no head reads tokens.
        Raises:
            ValueError: if `position_ids` are given already, or counts of visual tokens do not agree.
        """
        batch, kinds = dict(inputs), token_kinds(self.config.training_heads)
        if not kinds:
            return batch
        if batch.get("position_ids") is not None:
            raise ValueError(
                "position_ids came already. Leave them out: they follow from the text without new tokens."
            )
        ids, types, mask = batch["input_ids"], batch["mm_token_type_ids"], batch.get("attention_mask")
        images, videos = batch.get("image_grid_thw"), batch.get("video_grid_thw")
        positions, _ = self.model.get_rope_index(ids, types, images, videos, mask)
        repeats = torch.ones_like(ids)
        if images is not None:
            sizes = self.model._tokens(images.tolist())
            lengths = group_scenes(len(sizes), sizes, types, batch.get("scene_lengths"))
            batch["scene_lengths"] = torch.tensor(lengths)
            repeats += ViewTokens(sizes, lengths, kinds).repeats(types == 1) - 1
        if videos is not None:
            steps = videos[:, 0].tolist()
            sizes = [
                size // step
                for size, step in zip(self.model._tokens(videos.tolist()), steps, strict=True)
                for _ in range(step)
            ]
            repeats += ViewTokens(sizes, steps, kinds).repeats(types == 2) - 1
        fills = {"input_ids": self.config.text_config.pad_token_id or 0, "labels": -100, "position_ids": 0}
        fills |= {"mm_token_type_ids": 0, "attention_mask": 0}
        batch |= {"position_ids": positions, "attention_mask": torch.ones_like(ids) if mask is None else mask}
        pads_left = mask is not None and not bool(mask[:, 0].all())
        for name in fills.keys() & batch.keys():
            batch[name] = repeat_tokens(batch[name], repeats, fills[name], pads_left)
        return batch

    def _seen_views(self, kind, encoded, grid, input_ids, scene_lengths, scene_repeats, reads_heads):
        """The views of images or videos, whose features in `encoded` get the tokens that the heads read."""
        features, merge = encoded[kind], self.config.vision_config.spatial_merge_size
        steps = [1] * len(grid) if kind == "image" else grid[:, 0].tolist()
        grids = [
            (h // merge, w // merge)
            for (_, h, w), count in zip(grid.tolist(), steps, strict=True)
            for _ in range(count)
        ]
        lengths = steps
        if kind == "image":
            lengths = [len(steps)] if scene_lengths is None else [int(length) for length in scene_lengths]
        shown = list(range(len(grids)))
        if kind == "image" and scene_repeats is not None:
            shown = self._repeated_views(scene_lengths, scene_repeats)
        tokens = ViewTokens(
            [rows * columns for rows, columns in grids], lengths, token_kinds(self.config.training_heads)
        )
        is_seen = input_ids == (self.config.image_token_id if kind == "image" else self.config.video_token_id)
        if tokens.kinds and int(is_seen.sum()) == sum(tokens.sizes[view] for view in shown):
            if reads_heads:
                raise ValueError(
                    f"Heads read tokens of their own ({', '.join(tokens.kinds)}), but the text has none. Give "
                    "SceneCollator the teaching that set_training_heads returns, or pass the batch through "
                    "model.insert_geometry_tokens."
                )
            tokens = replace(tokens, kinds=())
        if tokens.kinds:
            features = tokens.join(features, self._token_rows(), steps)
        encoded[kind] = self.model.select_views(features, shown) if kind == "image" else features
        return _SeenViews(tokens, grids, shown, is_seen)

    def _token_rows(self):
        """Embeddings of the tokens that the heads read, by kind."""
        heads = {
            kind: self.training_heads[head] for head, kind in TOKENS_OF_HEADS.items() if head in self.training_heads
        }
        asked = {kind: heads[kind].tokens for kind in token_kinds(self.config.training_heads)}
        device = self.lm_head.weight.device
        return {kind: table(torch.arange(table.num_embeddings, device=device)) for kind, table in asked.items()}

    def _idle_heads(self, states):
        """A sum of what all heads and their tokens give, for a batch without views."""
        kinds = ["patches", *token_kinds(self.config.training_heads)]
        found = self._run_heads({layer: dict.fromkeys(kinds, states) for layer in self._head_layers}, [(1, 1)], [1])
        parts = [part for each in found for part in each]
        return sum(part.sum() for part in [*parts, *self._token_rows().values()])

    @property
    def _head_layers(self):
        """Hidden states that the heads read, by index from 0."""
        num_layers = self.config.text_config.num_hidden_layers
        wanted = (self.config.training_heads or {}).values()
        return sorted({layer_index(layer, num_layers) for settings in wanted for layer in settings["layers"]})

    @property
    def _encoder_layers(self):
        """Tapped layers of the encoder that teach a head."""
        wanted = (self.config.training_heads or {}).values()
        return list(dict.fromkeys(layer for each in wanted for layer in each.get("encoder_layers") or ()))

    def _run_heads(self, states, grids, scene_lengths, head_grids=None):
        """What each head gives, from the states by index of the layer and by kind of the tokens."""
        num_layers, found = self.config.text_config.num_hidden_layers, []
        for name, head in self.training_heads.items():
            settings = self.config.training_heads[name]
            kind = TOKENS_OF_HEADS[name] if settings.get("tokens") else "patches"
            read = [states[layer_index(layer, num_layers)][kind] for layer in settings["layers"]]
            wanted = (head_grids or {}).get(name)
            others = [] if wanted is None else [[tuple(grid) for grid in wanted.tolist()]]
            found.append(head(read, grids, scene_lengths, *others))
        return found

    def _own_features(self, pixel_values, image_grid_thw, given, shared):
        """Features of the encoder as `get_image_features` takes them, made here, so that they can teach, too."""
        if is_trainable(self.model.geometry):
            raise ValueError(
                "The geometry encoder is trained and teaches a head, which would follow it. Freeze it (learning rate "
                "0 for geometry), or take another teacher."
            )
        if given is None:
            names = ("mm_token_type_ids", "scene_lengths")
            return self.model.get_geometry_features(
                pixel_values, image_grid_thw, **{name: shared[name] for name in names}
            )
        if callable(given):
            return given(self.model, pixel_values, image_grid_thw, shared["scene_lengths"])
        return given

    def _over_tokens(self, features, sizes_in_tokens):
        """Mean of each window of patches (T, C), by the name of the layer."""
        merge, taps = self.config.vision_config.spatial_merge_size, self.config.geometry_config.tap_layers
        camera_tokens = self.config.gap_fusion_config.camera_tokens  # of each view, before its patches
        counts, pooled = [rows * columns * merge**2 + camera_tokens for rows, columns in sizes_in_tokens], {}
        for name in self._encoder_layers:
            parts = features[list(taps).index(int(name.removeprefix("layer_")))].float().split(counts)
            windows = [
                part[camera_tokens:].reshape(rows, merge, columns, merge, -1).mean((1, 3)).flatten(0, 1)
                for part, (rows, columns) in zip(parts, sizes_in_tokens, strict=True)
            ]
            pooled[name] = torch.cat(windows)
        return pooled

    @property
    def picture_sizes(self) -> tuple[int, int]:
        """Longer side of the pictures that `predict_points` takes, and of what both sides are multiples; in pixels.

        The longer side has as many patches as in the encoder's own pictures, else as the vision tower has positions.
        """
        vision, encoder = self.config.vision_config, self.config.geometry_config
        patches = getattr(encoder, "image_size", 0) // encoder.patch_size or int(vision.num_position_embeddings**0.5)
        return patches * vision.patch_size, vision.patch_size * vision.spatial_merge_size

    @torch.no_grad()
    def predict_points(self, images: torch.Tensor) -> GapMllmVggtReconstruction:
        """Tell what the views of one scene see, by the head on the fused visual tokens; no question is needed.

        Frame: camera of the first view, OpenCV axes. Units: metres.

        Args:
            images (`torch.Tensor` of shape `(V, 3, H, W)`): RGB in 0..1; H and W multiples of `picture_sizes[1]`.
        Returns:
            `GapMllmVggtReconstruction`: `world_points` `(V, h, w, 3)`, `point_map_side` points along both sides of
            each token, and `world_points_conf` `(V, h, w)`, which is 1: the head has none.
        Raises:
            ValueError: if H or W are no such multiples.
        """
        vision = self.config.vision_config
        patch, merge, side = vision.patch_size, vision.spatial_merge_size, self.config.point_map_side
        if any(size % (patch * merge) for size in images.shape[-2:]):
            raise ValueError(f"images are {tuple(images.shape)}; expected multiples of {patch * merge} pixels.")
        rows, columns = (size // (patch * merge) for size in images.shape[-2:])
        mean, std = (
            images.new_tensor(value)[:, None, None] for value in (self.config.image_mean, self.config.image_std)
        )
        pixels = ((images - mean) / std).reshape(-1, 3, rows, merge, patch, columns, merge, patch)
        pixels = pixels.permute(0, 2, 5, 3, 6, 1, 4, 7)[..., None, :, :]  # (V, r, c, merge, merge, 3, 1, p, p)
        pixels = pixels.expand(*[-1] * 6, vision.temporal_patch_size, -1, -1).flatten(0, 4).flatten(1)
        grid = torch.tensor([[1, rows * merge, columns * merge]] * len(images), device=images.device)
        features = self.model.get_image_features(pixels, grid, scene_lengths=[len(images)], return_dict=True)
        points = self.point_map_heads["visual"](torch.cat(features.pooler_output))  # (tokens, side, side, 3)
        points = points.unflatten(0, (-1, rows, columns)).permute(0, 1, 3, 2, 4, 5)
        points = points.reshape(-1, rows * side, columns * side, 3)
        return GapMllmVggtReconstruction(world_points=points, world_points_conf=torch.ones_like(points[..., 0]))

    @staticmethod
    def _repeated_views(scene_lengths, scene_repeats):
        """Indices of the views in the order in which the documents show them."""
        shown, start = [], 0
        for length, repeats in zip(scene_lengths.tolist(), scene_repeats.tolist(), strict=True):
            shown += list(range(start, start + length)) * repeats
            start += length
        return shown
