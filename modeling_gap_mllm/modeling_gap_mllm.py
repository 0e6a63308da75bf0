"""GAP-MLLM: Qwen3-VL whose visual tokens are joined by the features of a geometry encoder.

Nothing of Qwen3-VL is copied: this file overrides how images and videos are encoded. All fusion happens in
`GapMllmModel.get_image_features` and `get_video_features`, which generate() and TRL call on the base model. The
images of the geometry encoder come from geometry_views_gap_mllm.py, the fusion from fusion_gap_mllm.py.
"""

from contextlib import contextmanager

import torch
from torch import nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    Qwen3VLPreTrainedModel,
)
from transformers.utils import can_return_tuple
from transformers.utils.generic import accepts_precomputed_kwargs

from .configuration_gap_mllm import GapMllmConfig
from .fusion_gap_mllm import GapMllmFusion
from .geometry_views_gap_mllm import group_scenes, recover_images, resize_to_grid
from .vggt_gap_mllm import GapMllmVggtModel


# By model_type. An explicit dict: each remote file has its own copy of the config classes, so Auto classes would fail.
GEOMETRY_ENCODERS = {"gap_mllm_vggt": GapMllmVggtModel}

IMAGE_TOKEN_TYPE, VIDEO_TOKEN_TYPE = 1, 2  # in mm_token_type_ids


def _is_trainable(module):
    return any(parameter.requires_grad for parameter in module.parameters())


class GapMllmPreTrainedModel(Qwen3VLPreTrainedModel):
    config: GapMllmConfig
    config_class = GapMllmConfig
    _no_split_modules = [
        "Qwen3VLTextDecoderLayer",
        "Qwen3VLVisionBlock",
        "GapMllmVggtBlock",
        "GapMllmFusion",
    ]

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As in transformers, and reads the encoder's weights from `geometry_weights` where a checkpoint has none.

        `geometry_weights=FOLDER` replaces the source that the checkpoint's config names.

        Raises:
            OSError: if the encoder's weights are not part of the checkpoint and their source cannot be read.
            ValueError: if they are there but incomplete.
        """
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if model.config.geometry_weights is not None and model.config.use_geometry:
            getattr(model, "model", model).load_geometry_weights(model.config.geometry_weights)
            model.config.geometry_weights = None  # the model is whole now, and so is what it saves
        return loaded

    def train(self, mode=True):
        """Set training mode; modules without a trainable parameter (a frozen encoder) stay in evaluation mode."""
        super().train(mode)
        if mode:
            for module in self.modules():
                parameters = list(module.parameters())
                if parameters and not any(parameter.requires_grad for parameter in parameters):
                    module.training = False
        return self


class GapMllmModel(GapMllmPreTrainedModel, Qwen3VLModel):
    """Qwen3-VL's base model with a geometry encoder (`geometry`) and the multi-level fusion (`fusion`).

    Source: GAP-MLLM (arXiv:2603.16461).
    """

    def __init__(self, config):
        super().__init__(config)
        encoder = GEOMETRY_ENCODERS.get(config.geometry_config.model_type)
        if encoder is None:
            raise ValueError(
                f"geometry_config.model_type={config.geometry_config.model_type!r} is not known. Choose one of "
                f"{sorted(GEOMETRY_ENCODERS)}."
            )
        self.geometry = encoder._from_config(config.geometry_config)
        self.fusion = GapMllmFusion._from_config(config.gap_fusion_config)
        self._geometry_disabled = 0
        if not config.use_geometry:
            self._keys_to_ignore_on_load_missing = [r"(^|\.)(geometry|fusion)\."]
        elif config.geometry_weights is not None:
            self._keys_to_ignore_on_load_missing = [r"(^|\.)geometry\."]
        self.post_init()

    def load_geometry_weights(self, source):
        """Read the geometry encoder's weights from a folder or repository of its own (safetensors).

        Args:
            source (`str`): VGGT's, or one that `model.geometry.save_pretrained` wrote.
        Raises:
            OSError: if the source cannot be read.
            ValueError: if weights are missing in it.
        """
        try:
            encoder, info = type(self.geometry).from_pretrained(
                source, config=self.config.geometry_config, dtype=self.geometry.dtype, output_loading_info=True
            )
        except OSError as error:
            raise OSError(
                "The weights of the geometry encoder are not part of this checkpoint, and they cannot be read from "
                f"{source!r}. Pass geometry_weights=FOLDER (VGGT's, with its safetensors) to from_pretrained, or "
                "use_geometry=False for plain Qwen3-VL."
            ) from error
        if info["missing_keys"]:
            raise ValueError(f"geometry_weights={source!r} lacks weights: {sorted(info['missing_keys'])}.")
        self.geometry.load_state_dict(encoder.state_dict())

    @property
    def uses_geometry(self):
        """Whether images pass the geometry encoder now: by the config, and outside of `geometry_disabled`."""
        return self.config.use_geometry and not self._geometry_disabled

    @contextmanager
    def geometry_disabled(self):
        """Run plain Qwen3-VL inside a `with` block, bit for bit."""
        self._geometry_disabled += 1
        try:
            yield self
        finally:
            self._geometry_disabled -= 1

    @accepts_precomputed_kwargs(modality="image")
    @can_return_tuple
    def get_image_features(
        self, pixel_values, image_grid_thw=None, mm_token_type_ids=None, scene_lengths=None, **kwargs
    ):
        """Encode images, geometry included.

        Args:
            pixel_values (`torch.Tensor` of shape `(N, C)`), image_grid_thw (`torch.Tensor` of shape `(images, 3)`):
                as Qwen3-VL's processor returns them.
            mm_token_type_ids (`torch.Tensor` of shape `(B, S)`, *optional*): says which images share a row, and so a
                scene.
            scene_lengths (`torch.Tensor` or `list[int]`, *optional*): views of each scene; overrides the above.
        Returns:
            Qwen3-VL's output: `pooler_output`, a tuple of `(tokens, D)` for each image, and `deepstack_features`.
        Raises:
            ValueError: if counts do not agree, pixels are not finite, or nothing says which images form a scene.
        """
        output = Qwen3VLModel.get_image_features(self, pixel_values, image_grid_thw, return_dict=True, **kwargs)
        if not self.uses_geometry:
            return output
        grid = image_grid_thw.tolist()
        images = self._recover(pixel_values, grid)
        merge = self.config.vision_config.spatial_merge_size**2
        tokens = [t * h * w // merge for t, h, w in grid]
        lengths = group_scenes(len(grid), tokens, mm_token_type_ids, scene_lengths, IMAGE_TOKEN_TYPE)
        # The processor repeats an image to fill the temporal patch: one of the frames is the view.
        views = [
            resize_to_grid(image[:, 0], row[1:], self._geometry_patch)[0]
            for image, row in zip(images, grid, strict=True)
        ]
        return self._fuse(output, views, lengths, [1] * len(views))

    @accepts_precomputed_kwargs(modality="video")
    @can_return_tuple
    def get_video_features(
        self, pixel_values_videos, video_grid_thw=None, mm_token_type_ids=None, scene_lengths=None, **kwargs
    ):
        """Encode videos, geometry included. Each video is a scene of its own; `scene_lengths` concerns images only.

        Both frames of a temporal patch are views; the frame that the processor repeats to fill up an odd number is
        one view. `gap_fusion_config.video_frames` says how the frames of a patch are merged.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(N, C)`), video_grid_thw (`torch.Tensor` of shape
                `(videos, 3)`): as Qwen3-VL's processor returns them.
            mm_token_type_ids (`torch.Tensor` of shape `(B, S)`, *optional*): checked against the videos.
        Returns:
            as `get_image_features`, with one entry for each video.
        Raises:
            ValueError: if counts do not agree or pixels are not finite.
        """
        output = Qwen3VLModel.get_image_features(self, pixel_values_videos, video_grid_thw, return_dict=True, **kwargs)
        if not self.uses_geometry:
            return output
        grid = video_grid_thw.tolist()
        videos = self._recover(pixel_values_videos, grid)
        merge = self.config.vision_config.spatial_merge_size**2
        if mm_token_type_ids is not None:
            tokens = [t * h * w // merge for t, h, w in grid]
            group_scenes(len(grid), tokens, mm_token_type_ids, None, VIDEO_TOKEN_TYPE)
        views, lengths, views_per_slice = [], [], []
        for video, (_, height, width) in zip(videos, grid, strict=True):
            start = len(views)
            for frames in video:
                frames = frames[:1] if (frames == frames[:1]).all() else frames
                views.extend(resize_to_grid(frames, (height, width), self._geometry_patch))
                views_per_slice.append(len(frames))
            lengths.append(len(views) - start)
        return self._fuse(output, views, lengths, views_per_slice)

    @property
    def _geometry_patch(self):
        return self.config.geometry_config.patch_size

    def _recover(self, pixel_values, grid):
        vision = self.config.vision_config
        return recover_images(
            pixel_values,
            grid,
            self.config.image_mean,
            self.config.image_std,
            vision.patch_size,
            vision.temporal_patch_size,
            vision.spatial_merge_size,
        )

    def _encode_geometry(self, views, scene_lengths):
        """Tapped features (P, C) of each level and the patch grid of each view, in the order of `views`."""
        order = list(range(len(views)))
        if self.config.reference_frame == "last":
            # The encoder's world is its first view: every scene goes in backwards, and its features come back.
            order, start = [], 0
            for length in scene_lengths:
                order += range(start + length - 1, start - 1, -1)
                start += length
        with (
            torch.autocast(views[0].device.type, enabled=False),
            torch.set_grad_enabled(torch.is_grad_enabled() and _is_trainable(self.geometry)),
        ):
            geometry = self.geometry([views[index] for index in order], scene_lengths)
        if self.config.reference_frame == "first":
            return geometry.tap_features, geometry.grid
        counts = [height * width for height, width in geometry.grid]
        back = sorted(range(len(order)), key=order.__getitem__)
        taps = []
        for features in geometry.tap_features:
            parts = features.split(counts)
            taps.append(torch.cat([parts[index] for index in back]))
        return tuple(taps), [geometry.grid[index] for index in back]

    def _fuse(self, output, views, scene_lengths, views_per_slice):
        """Put geometry into the tower's output, level by level."""
        taps, grid = self._encode_geometry(views, scene_lengths)
        sizes = [len(tokens) for tokens in output.pooler_output]
        levels = [torch.cat(level) for level in (*output.deepstack_features, output.pooler_output)]
        taps = tuple(features.to(levels[-1].dtype) for features in taps)
        fused = self.fusion(levels, taps, grid, views_per_slice)
        output.deepstack_features = [torch.split(level, sizes) for level in fused[:-1]]
        output.pooler_output = torch.split(fused[-1], sizes)
        return output

    def _idle_fusion(self):
        """Zero, with every mergers' and fusion's parameter in its graph, so that all ranks reduce the same set."""
        merge = self.config.vision_config.spatial_merge_size
        grid = [(merge, merge)]
        parameter = next(self.fusion.parameters())
        if _is_trainable(self.geometry):
            size = merge * self._geometry_patch
            taps = self.geometry([parameter.new_zeros(3, size, size)], [1]).tap_features
        else:
            width = self.config.geometry_config.feature_size
            taps = [parameter.new_zeros(merge * merge, width) for _ in self.config.geometry_config.tap_layers]
        levels = [parameter.new_zeros(1, self.config.vision_config.out_hidden_size) for _ in taps]
        return (
            sum(level.sum() for level in self.fusion(levels, tuple(tap.to(parameter.dtype) for tap in taps), grid)) * 0
        )

    @staticmethod
    def _check_packing(position_ids, attention_mask, scene_lengths):
        """Refuse rows that hold several documents and do not say which views belong together."""
        if scene_lengths is not None or position_ids is None or position_ids.ndim != 3 or len(position_ids) != 4:
            return
        positions = position_ids[0]
        restarts = positions[:, 1:] <= positions[:, :-1]
        if attention_mask is not None and attention_mask.ndim == 2:
            seen = attention_mask[:, -positions.shape[1] :].bool()
            restarts = restarts & seen[:, 1:] & seen[:, :-1]
        if restarts.any():
            row = int(restarts.any(-1).nonzero()[0])
            raise ValueError(
                f"The text positions of row {row} start again, so it packs several documents, but scene_lengths is "
                "missing: which views form a scene cannot be told. Pass the number of views of each scene."
            )

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        pixel_values=None,
        pixel_values_videos=None,
        image_grid_thw=None,
        video_grid_thw=None,
        mm_token_type_ids=None,
        scene_lengths=None,
        mm_encoder_outputs=None,
        **kwargs,
    ):
        """As `Qwen3VLModel.forward`, with `scene_lengths` as in `get_image_features`.

        Raises:
            ValueError: as `get_image_features`; if pixels and `mm_encoder_outputs` both come; if a packed row comes
                without `scene_lengths`; under `nn.DataParallel`.
        """
        if getattr(self, "_is_replica", False):
            raise ValueError(
                "nn.DataParallel cannot split multi-view batches. Start one process for each GPU instead: "
                "accelerate launch your_script.py"
            )
        has_pixels = pixel_values is not None or pixel_values_videos is not None
        if has_pixels and mm_encoder_outputs:
            raise ValueError(
                "pixel_values (or pixel_values_videos) and mm_encoder_outputs both came. Pass the pixels, or what "
                "get_image_features made of them."
            )
        mm_encoder_outputs = dict(mm_encoder_outputs or {})
        shared = {"mm_token_type_ids": mm_token_type_ids, "return_dict": True, **kwargs}
        if pixel_values is not None:
            if self.uses_geometry:
                self._check_packing(position_ids, attention_mask, scene_lengths)
            mm_encoder_outputs["image"] = self.get_image_features(
                pixel_values, image_grid_thw, scene_lengths=scene_lengths, **shared
            )
        if pixel_values_videos is not None:
            mm_encoder_outputs["video"] = self.get_video_features(pixel_values_videos, video_grid_thw, **shared)
        outputs = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            image_grid_thw=image_grid_thw,
            video_grid_thw=video_grid_thw,
            mm_token_type_ids=mm_token_type_ids,
            mm_encoder_outputs=mm_encoder_outputs or None,
            return_dict=True,
            **kwargs,
        )
        if self.training and self.uses_geometry and not mm_encoder_outputs and _is_trainable(self.fusion):
            outputs.last_hidden_state = outputs.last_hidden_state + self._idle_fusion()
        return outputs


class GapMllmForConditionalGeneration(GapMllmPreTrainedModel, Qwen3VLForConditionalGeneration):
    """GAP-MLLM with its language-modelling head: what notebooks, pipelines and generate() use.

    Example:

    ```python
    >>> from transformers import AutoModel, AutoProcessor

    >>> model = AutoModel.from_pretrained("path/to/gap-mllm", trust_remote_code=True)
    >>> processor = AutoProcessor.from_pretrained("path/to/gap-mllm", trust_remote_code=True)
    >>> messages = processor.build_messages("detection3d", images=views)
    >>> inputs = processor.apply_chat_template(
    ...     messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    ... )
    >>> output = model.generate(**inputs, max_new_tokens=256)
    ```
    """

    def __init__(self, config):
        Qwen3VLPreTrainedModel.__init__(self, config)  # not super(): it would build a plain Qwen3VLModel first
        self.model = GapMllmModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def geometry_disabled(self):
        """Run plain Qwen3-VL inside a `with` block, bit for bit."""
        return self.model.geometry_disabled()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        pixel_values=None,
        pixel_values_videos=None,
        image_grid_thw=None,
        video_grid_thw=None,
        mm_token_type_ids=None,
        scene_lengths=None,
        logits_to_keep=0,
        mm_encoder_outputs=None,
        **kwargs,
    ):
        """As `Qwen3VLForConditionalGeneration.forward`, with `scene_lengths` as in `GapMllmModel`.

        Raises:
            ValueError: as `GapMllmModel.forward`.
        """
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            image_grid_thw=image_grid_thw,
            video_grid_thw=video_grid_thw,
            mm_token_type_ids=mm_token_type_ids,
            logits_to_keep=logits_to_keep,
            mm_encoder_outputs=mm_encoder_outputs,
            scene_lengths=scene_lengths,
            return_dict=True,
            **kwargs,
        )


__all__ = ["GapMllmForConditionalGeneration", "GapMllmModel", "GapMllmPreTrainedModel"]
