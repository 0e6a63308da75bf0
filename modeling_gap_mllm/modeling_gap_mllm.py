"""GAP-MLLM: Qwen3-VL whose visual tokens are joined by the features of a geometry encoder.

Nothing of Qwen3-VL is copied: this file overrides how images and videos are encoded. All fusion happens in
`GapMllmModel.get_image_features` and `get_video_features`, which generate() and TRL call on the base model. The
images of the geometry encoder come from geometry_views_gap_mllm.py, the fusion from fusion_gap_mllm.py; loading
and modes of training are in pretrained_gap_mllm.py, what generate() needs in modeling_gap_mllm.py.

Also the cross-entropy of answers, the same for every split of a batch, and what generate() does otherwise than for
Qwen3-VL: pixels beside a cache, prompts in chunks, assistants.
"""

from contextlib import contextmanager
from copy import copy
from functools import partial

import torch
from torch import distributed, nn
from torch.nn import functional as F

from .configuration_gap_mllm import GapMllmConfig
from .fusion_gap_mllm import GapMllmFusion
from .geometry_views_gap_mllm import (
    encode_images,
    encode_scenes,
    group_scenes,
    is_sharded,
    is_trainable,
    video_views,
    without_repeats,
)
from .known_geometry_gap_mllm import GapMllmGeometryMapsModel, KnownGeometry, refuse_known_geometry
from .pretrained_gap_mllm import GapMllmPreTrainedModel
from .publishing_gap_mllm import CHUNKS_TAKE_IMAGES, needed_from_transformers
from .vggt_gap_mllm import GapMllmVggtModel
from .vggt_heads_gap_mllm import GapMllmVggtPointsModel


def document_starts(position_ids):
    """Where the text positions of a row start again, `(B, S - 1)`; None where nothing tells."""
    if position_ids is None or (position_ids.ndim == 3 and len(position_ids) != 4):
        return None
    positions = position_ids if position_ids.ndim == 2 else position_ids[0]
    return positions[:, 1:] <= positions[:, :-1]


def answer_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    position_ids: torch.Tensor | None,
    num_items_in_batch: torch.Tensor | int | None,
    is_training: bool,
):
    """Cross-entropy of the supervised tokens: their sum over `num_items_in_batch`, or their mean without it.

    An evaluation with `num_items_in_batch` is one of `Trainer`, which weighs the loss of a batch by its rows. Only a
    mean in which all documents count alike, however long, is then the same for every batch size. Of several processes
    `Trainer` multiplies by their number where the items are those of all, so that the mean is divided by it.

    Args:
        logits (`torch.Tensor` of shape `(N, vocabulary)`): logits at the positions before the supervised tokens only.
        labels (`torch.Tensor` of shape `(B, S)`): -100 where a token is not supervised.
        position_ids (`torch.Tensor`, *optional*): positions, which tell the documents of a row; else each row is one.
        num_items_in_batch (`torch.Tensor` or `int`, *optional*): supervised tokens of all micro-batches and processes.
        is_training (`bool`): whether the loss is one to train on.
    Returns:
        `torch.Tensor`, scalar.
    """
    is_supervised = labels[:, 1:] != -100
    losses = F.cross_entropy(logits.float(), labels[:, 1:][is_supervised].to(logits.device), reduction="none")
    if num_items_in_batch is None:
        return losses.mean()
    if is_training:
        return losses.sum() / num_items_in_batch
    starts = document_starts(position_ids)
    starts = torch.zeros_like(is_supervised) if starts is None else starts.expand_as(is_supervised).clone()
    starts[:, 0] = True
    documents = starts.flatten().cumsum(0)[is_supervised.flatten()].unique(return_inverse=True)[1].to(losses.device)
    counts = documents.bincount()
    mean = (torch.zeros_like(counts, dtype=losses.dtype).index_add(0, documents, losses) / counts).mean()
    is_of_all = torch.as_tensor(num_items_in_batch, device=mean.device) > (labels != -100).sum().to(mean.device)
    return torch.where(is_of_all, mean / _num_processes(), mean)


def _num_processes():
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


IMAGE_TOKEN_TYPE, VIDEO_TOKEN_TYPE = 1, 2  # in mm_token_type_ids
VISION_INPUTS = ("pixel_values", "pixel_values_videos", "mm_encoder_outputs")


def cached_length(past_key_values):
    return 0 if past_key_values is None else int(past_key_values.get_seq_length())


def _given_vision(model_kwargs):
    return [key for key in VISION_INPUTS if model_kwargs.get(key) is not None and len(model_kwargs[key])]


class SceneGeneration:
    """Mixin for `generate()` from scenes, whose views are encoded once and together."""

    def _validate_model_kwargs(self, model_kwargs):
        """As in transformers; intrinsics, poses and depth are refused with what to pass in their place."""
        refuse_known_geometry(model_kwargs, "generate()")
        super()._validate_model_kwargs(model_kwargs)

    def _prepare_position_ids_for_generation(self, inputs_tensor, model_kwargs):
        """Also settles what pixels beside the cache of an earlier turn mean, before generate() encodes them.

        Without mm_token_type_ids they follow from the input_ids, where these are at hand.
        """
        input_ids = model_kwargs.get("input_ids", inputs_tensor)
        has_grid = any(model_kwargs.get(name) is not None for name in ("image_grid_thw", "video_grid_thw"))
        if has_grid and model_kwargs.get("mm_token_type_ids") is None and not input_ids.is_floating_point():
            types = IMAGE_TOKEN_TYPE * (input_ids == self.config.image_token_id)
            model_kwargs["mm_token_type_ids"] = types + VIDEO_TOKEN_TYPE * (input_ids == self.config.video_token_id)
        cache, token_types = model_kwargs.get("past_key_values"), model_kwargs.get("mm_token_type_ids")
        past_length = cached_length(cache)
        if past_length and token_types is not None:
            given = _given_vision(model_kwargs)
            mask = model_kwargs.get("attention_mask")
            is_whole = mask is None or mask.shape[1] == token_types.shape[1]  # not only the tokens after the cache
            new_types = token_types[:, past_length:] if is_whole else token_types
            has_new = bool(new_types.any())
            if has_new and not given and self.model.uses_geometry:
                self.model._check_vision_tokens(None, new_types)
            if has_new and given and (not is_whole or token_types[:, :past_length].any()):
                raise ValueError(
                    f"{given} came with new image or video tokens, but past_key_values already holds {past_length} "
                    "tokens of a conversation with views. The views of a scene are encoded together, so a cache "
                    "cannot take in more of them: generate from the whole conversation without past_key_values."
                )
            if given and not has_new:  # the cache has these views
                for key in given:
                    del model_kwargs[key]
            if given and is_whole:
                self.model.rope_deltas = None  # positions follow from input_ids, whatever ran in between
        return super()._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)

    def _prefill(self, input_ids, generation_config, model_kwargs, *args, **kwargs):
        """As in transformers, but refuses chunks where its release would put images into the wrong ones.

        An assistant of assisted generation gets the views as the model that it assists has encoded them, if they have
        its width; else it proposes from the text alone, as plain Qwen3-VL does.
        """
        if generation_config.prefill_chunk_size is not None and not CHUNKS_TAKE_IMAGES:
            is_vision = (input_ids == self.config.image_token_id) | (input_ids == self.config.video_token_id)
            if _given_vision(model_kwargs) or is_vision.any() or cached_length(model_kwargs.get("past_key_values")):
                raise ValueError(
                    "prefill_chunk_size with images, videos or the cache of an earlier turn needs transformers >= "
                    "5.23.0: before, chunks get the wrong visual tokens. Leave prefill_chunk_size out, or run: "
                    "pip install 'transformers>=5.23.0'"
                )
        if generation_config.is_assistant and not cached_length(model_kwargs.get("past_key_values")):
            outputs = (model_kwargs.get("mm_encoder_outputs") or {}).values()
            widths = {tokens.shape[-1] for output in outputs for tokens in output.pooler_output}
            if widths == {self.config.text_config.hidden_size}:
                kwargs["is_first_iteration"] = True  # transformers would drop them
            elif widths:
                with self.geometry_disabled():
                    return super()._prefill(input_ids, generation_config, model_kwargs, *args, **kwargs)
        return super()._prefill(input_ids, generation_config, model_kwargs, *args, **kwargs)


with needed_from_transformers():
    from transformers import AutoModelForImageTextToText, AutoModelForMultimodalLM, Cache
    from transformers.integrations import is_deepspeed_zero3_enabled
    from transformers.models.qwen3_vl.modeling_qwen3_vl import (
        BaseModelOutputWithDeepstackFeatures,
        Qwen3VLForConditionalGeneration,
        Qwen3VLModel,
        Qwen3VLPreTrainedModel,
    )
    from transformers.utils import can_return_tuple, torch_compilable_check
    from transformers.utils.generic import accepts_precomputed_kwargs

# By model_type. An explicit dict: each remote file has its own copy of the config classes, so Auto classes would fail.
GEOMETRY_ENCODERS = {
    "gap_mllm_vggt": GapMllmVggtModel,
    "gap_mllm_vggt_points": GapMllmVggtPointsModel,
    "gap_mllm_geometry_maps": GapMllmGeometryMapsModel,
}

TOWER_INPUTS = {"cu_seqlens", "max_seqlen", "position_ids", "interp_indices", "interp_weights"}  # made for all images


class GapMllmModel(GapMllmPreTrainedModel, Qwen3VLModel):
    """Qwen3-VL's base model with a geometry encoder (`geometry`) and the multi-level fusion (`fusion`).

    Source: GAP-MLLM (arXiv:2603.16461).

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> from gap_mllm.processing.data import render_room
        >>> model = GapMllmForConditionalGeneration.from_pretrained(folder).model
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> messages = processor.build_messages("detection3d", list(render_room(0).images))
        >>> inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
        >>> names = ("pixel_values", "image_grid_thw", "mm_token_type_ids")
        >>> model.get_geometry_features(**{name: inputs[name] for name in names}).shape  # levels, patches, width
        torch.Size([4, 256, 224])

        ```
    """

    def __init__(self, config: GapMllmConfig):
        config.check_attn_implementation(config.text_config._attn_implementation)  # where vLLM sets its own
        super().__init__(config)
        encoder = GEOMETRY_ENCODERS.get(config.geometry_config.model_type)
        if encoder is None:
            raise ValueError(
                f"geometry_config.model_type={config.geometry_config.model_type!r} is not known. Choose one of "
                f"{sorted(GEOMETRY_ENCODERS)}."
            )
        self.geometry = self.fusion = None
        if config.use_geometry:
            # The dtype that this model is being built in, not the one in which the encoder's folder was saved.
            dtype = torch.get_default_dtype()
            self.geometry = encoder._from_config(config.geometry_config, dtype=dtype)
            self.fusion = GapMllmFusion._from_config(config.gap_fusion_config, dtype=dtype)
            self._no_split_modules = [*self._no_split_modules, type(self.geometry).__name__]
        else:
            self._keys_to_ignore_on_load_unexpected = [r"(^|\.)(geometry|fusion)\."]
        self._geometry_disabled = 0
        self.post_init()

    def read_geometry_weights(self, source: str, dtype: torch.dtype):
        """Read the geometry encoder's weights from a folder or repository of its own (safetensors).

        Args:
            source (`str`): VGGT's, or one that `model.geometry.save_pretrained` wrote.
            dtype (`torch.dtype`): what they are cast to.
        Returns:
            `dict[str, torch.Tensor]`: by their names in the encoder, on the CPU.
        Raises:
            OSError: if the source cannot be read.
            ValueError: if weights are missing in it, or under DeepSpeed's ZeRO-3, which splits models before they are
                read.
        """
        if is_deepspeed_zero3_enabled():
            raise ValueError(
                f"The weights of the geometry encoder stand apart, in {source!r}; under DeepSpeed's ZeRO-3 they "
                "cannot join. Load the model once without it, and train from what save_pretrained(FOLDER) writes."
            )
        try:
            encoder, info = type(self.geometry).from_pretrained(
                source, config=self.config.geometry_config, dtype=dtype, output_loading_info=True
            )
        except OSError as error:
            raise OSError(
                "The weights of the geometry encoder are not part of this checkpoint, and they cannot be read from "
                f"{source!r}. Pass geometry_weights=FOLDER (VGGT's, with its safetensors) to from_pretrained, or "
                "use_geometry=False for plain Qwen3-VL."
            ) from error
        return {name: value for name, value in encoder.state_dict().items() if name not in info["missing_keys"]}

    @property
    def uses_geometry(self):
        """Whether images pass the geometry encoder now: by the config, and outside of `geometry_disabled`.

        Raises:
            ValueError: if the config was changed to use an encoder that was not built.
        """
        if self.config.use_geometry:
            self._require_geometry()
        return self.config.use_geometry and not self._geometry_disabled

    def _require_geometry(self):
        if self.geometry is None:
            raise ValueError(
                "The model was built with use_geometry=False and holds no geometry encoder. Load it again with "
                "use_geometry=True, from a folder that holds the weights of encoder and fusion."
            )

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
        self,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        scene_lengths: torch.Tensor | list[int] | None = None,
        geometry_features: torch.Tensor | None = None,
        **kwargs,
    ):
        """Encode images, geometry included. A scene that a batch holds several times is encoded once.

        Args:
            pixel_values (`torch.Tensor` of shape `(N, C)`), image_grid_thw (`torch.Tensor` of shape `(images, 3)`,
                *optional*): pictures as Qwen3-VL's processor returns them.
            mm_token_type_ids (`torch.Tensor` of shape `(B, S)`, *optional*): says which images share a row, and so a
                scene.
            scene_lengths (`torch.Tensor` or `list[int]`, *optional*): views of each scene; overrides the above.
            geometry_features (`torch.Tensor` of shape `(levels, P, C)`, *optional*): what the geometry encoder made
                of the same images, as `get_geometry_features` returns it; it is not run again then. Or a function of
                this model, pixels, grid and scene lengths that returns it, as `KnownGeometry` is.
        Returns:
            Qwen3-VL's output: `pooler_output`, a tuple of `(tokens, D)` for each image, and `deepstack_features`.
        Raises:
            ValueError: if counts do not agree, pixels are not finite, the grid is missing, nothing says which
                images form a scene, or `geometry_features` has another shape or comes while the encoder is trained.
        """
        refuse_known_geometry(kwargs, type(self).__name__)
        if image_grid_thw is None:
            raise ValueError("pixel_values came without image_grid_thw. Pass both as the processor returned them.")
        shown = None
        if self.uses_geometry and geometry_features is None and not TOWER_INPUTS & kwargs.keys():
            grid = image_grid_thw.tolist()
            scenes = group_scenes(len(grid), self._tokens(grid), mm_token_type_ids, scene_lengths, IMAGE_TOKEN_TYPE)
            pixel_values, image_grid_thw, scene_lengths, shown = without_repeats(pixel_values, image_grid_thw, scenes)
        output = Qwen3VLModel.get_image_features(self, pixel_values, image_grid_thw, return_dict=True, **kwargs)
        if not self.uses_geometry:
            return output
        if callable(geometry_features):
            grid = image_grid_thw.tolist()
            lengths = group_scenes(len(grid), self._tokens(grid), mm_token_type_ids, scene_lengths, IMAGE_TOKEN_TYPE)
            geometry_features = geometry_features(self, pixel_values, image_grid_thw, torch.tensor(lengths))
        if geometry_features is None:
            taps, grid = self._encode_images(pixel_values, image_grid_thw, mm_token_type_ids, scene_lengths)
        else:
            taps, grid = self._given_geometry(geometry_features, image_grid_thw)
        output = self._fuse(output, taps, grid, [1] * len(grid))
        return output if shown is None else self.select_views(output, shown)

    @torch.no_grad()
    def get_geometry_features(
        self,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor,
        mm_token_type_ids: torch.Tensor | None = None,
        scene_lengths: torch.Tensor | list[int] | None = None,
        intrinsics: torch.Tensor | list[torch.Tensor | None] | None = None,
        poses: torch.Tensor | list[torch.Tensor | None] | None = None,
        depth: torch.Tensor | list[torch.Tensor | None] | None = None,
    ):
        """Encode the geometry of images alone, to be passed to `get_image_features` or `forward` any number of times.

        What is known of the views beside their pixels enters here, and nowhere else but in a `KnownGeometry`: an entry
        for each view, None where it is not known. Frame: OpenCV cameras. Units: metres; pixels with integer centres of
        the views as the model gets them, `image_grid_thw` times the patch size of the vision tower.

        Args:
            pixel_values (`torch.Tensor`), image_grid_thw (`torch.Tensor`), mm_token_type_ids (`torch.Tensor`,
                *optional*), scene_lengths (`torch.Tensor` or `list[int]`, *optional*): arguments of
                `get_image_features`.
            intrinsics (`torch.Tensor` of shape `(V, 3, 3)` or `list`, *optional*): intrinsics of each view.
            poses (`torch.Tensor` of shape `(V, 4, 4)` or `list`, *optional*): camera to world, one world for each
                scene.
            depth (`torch.Tensor` of shape `(V, H, W)` or `list`, *optional*): z-depth of each pixel; 0 where unknown.
        Returns:
            `torch.Tensor` of shape `(levels, P, C)`: the tapped features of all P patches, in the order of the images
            and row by row within each; with the fusion method "vlm3r" the camera token of each view comes before its
            patches, and counts; with a position encoding one more level. No gradient.
        Raises:
            ValueError: as `get_image_features` and `KnownGeometry.checked`; if there is no encoder
                (`use_geometry=False`), or neither encoder nor fusion reads what is known.
        """
        self._require_geometry()
        known = KnownGeometry(intrinsics, poses, depth)
        if intrinsics is None and poses is None and depth is None:
            known = None
        taps, _ = self._encode_images(pixel_values, image_grid_thw, mm_token_type_ids, scene_lengths, known)
        return torch.stack(taps)

    def encode_known_geometry(
        self,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor,
        scene_lengths: torch.Tensor,
        known: KnownGeometry,
    ):
        """As `get_geometry_features` with what is known, and with the gradient of an encoder that is trained."""
        self._require_geometry()
        return torch.stack(self._encode_images(pixel_values, image_grid_thw, None, scene_lengths, known)[0])

    @staticmethod
    def select_views(features: BaseModelOutputWithDeepstackFeatures, shown: list[int]):
        """Return the output of `get_image_features` for some of its views.

        Args:
            features (`BaseModelOutputWithDeepstackFeatures`): left as it is.
            shown (`list[int]`): indices of views, in the wanted order; they may repeat.
        Returns:
            `BaseModelOutputWithDeepstackFeatures`: shares the tensors.
        """
        selected = copy(features)
        selected.pooler_output = tuple(features.pooler_output[view] for view in shown)
        selected.deepstack_features = [tuple(level[view] for view in shown) for level in features.deepstack_features]
        return selected

    @accepts_precomputed_kwargs(modality="video")
    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        video_grid_thw: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        scene_lengths: torch.Tensor | list[int] | None = None,
        **kwargs,
    ):
        """Encode videos, geometry included. Each video is a scene of its own; `scene_lengths` concerns images only.

        Both frames of a temporal patch are views; the frame that the processor repeats to fill up an odd number is
        one view. `gap_fusion_config.video_frames` says how the frames of a patch are merged.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(N, C)`), video_grid_thw (`torch.Tensor` of shape
                `(videos, 3)`, *optional*): videos as Qwen3-VL's processor returns them.
            mm_token_type_ids (`torch.Tensor` of shape `(B, S)`, *optional*): checked against the videos.
        Returns:
            as `get_image_features`, with one entry for each video.
        Raises:
            ValueError: if counts do not agree, pixels are not finite, or the grid is missing.
        """
        if video_grid_thw is None:
            raise ValueError(
                "pixel_values_videos came without video_grid_thw. Pass both as the processor returned them."
            )
        output = Qwen3VLModel.get_image_features(self, pixel_values_videos, video_grid_thw, return_dict=True, **kwargs)
        if not self.uses_geometry:
            return output
        grid = video_grid_thw.tolist()
        if mm_token_type_ids is not None:
            group_scenes(len(grid), self._tokens(grid), mm_token_type_ids, None, VIDEO_TOKEN_TYPE)
        views, lengths, views_per_slice = video_views(self.config, pixel_values_videos, grid)
        return self._fuse(output, *encode_scenes(self.config, self.geometry, views, lengths), views_per_slice)

    def get_rope_index(self, *args, **kwargs):
        """As in Qwen3-VL; generate() asks for it before anything is encoded.

        Raises:
            ValueError: if the text has image or video tokens that no entry of the grids is left for.
        """
        try:
            return super().get_rope_index(*args, **kwargs)
        except StopIteration:
            raise ValueError(
                "The text has more image or video tokens than image_grid_thw and video_grid_thw have entries. Pass "
                "the pixels and grids of all of them, as the processor returned them."
            ) from None

    def _tokens(self, grid):
        """Visual tokens of each image or video."""
        merge = self.config.vision_config.spatial_merge_size**2
        return [t * h * w // merge for t, h, w in grid]

    def _encode_images(self, pixel_values, image_grid_thw, mm_token_type_ids, scene_lengths, known=None):
        """As `encode_scenes`, for images as the processor returned them."""
        grid = image_grid_thw.tolist()
        lengths = group_scenes(len(grid), self._tokens(grid), mm_token_type_ids, scene_lengths, IMAGE_TOKEN_TYPE)
        return encode_images(self.config, self.geometry, pixel_values, grid, lengths, known)

    def _given_geometry(self, features, image_grid_thw):
        """As `encode_scenes`, from features that were made before."""
        is_trained = self.training and torch.is_grad_enabled() and is_trainable(self.geometry)
        if is_trained and not features.requires_grad:
            raise ValueError(
                "geometry_features came although the geometry encoder is trained, which would get no gradient. Freeze "
                "it with model.model.geometry.requires_grad_(False), or pass the pixels alone."
            )
        grid = [(height, width) for _, height, width in image_grid_thw.tolist()]
        encoder = self.config.geometry_config
        rows = sum(height * width + self.config.gap_fusion_config.camera_tokens for height, width in grid)
        levels = len(encoder.tap_layers) + self.config.gap_fusion_config.position_levels
        expected = (levels, rows, encoder.feature_size)
        if tuple(features.shape) != expected:
            raise ValueError(
                f"geometry_features has shape {tuple(features.shape)}, but these {len(grid)} images need {expected}: "
                "levels, patches of all images, features. Pass what get_geometry_features made of the same images."
            )
        return tuple(features), grid

    def _fuse(self, output, taps, grid, views_per_slice):
        """Put geometry into the tower's output, level by level."""
        sizes = [len(tokens) for tokens in output.pooler_output]
        levels = [torch.cat(level) for level in (*output.deepstack_features, output.pooler_output)]
        taps = tuple(features.to(levels[-1].dtype) for features in taps)
        fused = self.fusion(levels, taps, grid, views_per_slice)
        output.deepstack_features = [torch.split(level, sizes) for level in fused[:-1]]
        output.pooler_output = torch.split(fused[-1], sizes)
        return output

    def _meets_others(self, part):
        """Whether other processes wait for this one at a vision module: for gradients, or for its part of weights."""
        return is_sharded(part) or (self.training and torch.is_grad_enabled() and is_trainable(part))

    def _idle_vision(self, device):
        """Features of no image, with the trained parameters of all vision modules in their graph.

        So all processes reduce the same gradients, and gather sharded weights in the same order. A module that is
        frozen and whole is not run.
        """
        vision, encoder = self.config.vision_config, self.config.geometry_config
        fusion = self.config.gap_fusion_config
        merge, zeros = vision.spatial_merge_size, partial(torch.zeros, device=device)
        if self._meets_others(self.visual):
            size = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
            grid = torch.tensor([[1, merge, merge]], device=device)
            output = Qwen3VLModel.get_image_features(self, zeros(merge**2, size), grid, return_dict=True)
            levels = [torch.cat(level) for level in (*output.deepstack_features, output.pooler_output)]
        else:
            levels = [zeros(1, vision.out_hidden_size) for _ in encoder.tap_layers]
        if self._meets_others(self.geometry):
            size = merge * encoder.patch_size
            known = KnownGeometry(
                [torch.eye(3, device=device)], [torch.eye(4, device=device)], [1 + zeros(size, size)]
            )
            is_read = getattr(self.geometry, "reads_known_geometry", False) or fusion.position_levels
            taps, _ = encode_scenes(
                self.config, self.geometry, [zeros(3, size, size)], [1], known if is_read else None
            )
        else:
            rows, num_taps = merge**2 + fusion.camera_tokens, len(encoder.tap_layers) + fusion.position_levels
            taps = [zeros(rows, encoder.feature_size) for _ in range(num_taps)]
        *levels, last = (level[:0] for level in self.fusion(levels, taps, [(merge, merge)]))
        return BaseModelOutputWithDeepstackFeatures(
            pooler_output=(last,), deepstack_features=[(level,) for level in levels]
        )

    @staticmethod
    def _check_packing(position_ids, attention_mask, scene_lengths, cu_seq_lens=None):
        """Refuse rows that hold several documents and do not say which views belong together."""
        if scene_lengths is not None:
            return
        row = None
        if cu_seq_lens is not None and len(cu_seq_lens) > 2:
            row = 0
        elif (restarts := document_starts(position_ids)) is not None:
            if attention_mask is not None and attention_mask.ndim == 2:
                seen = attention_mask[:, -restarts.shape[1] - 1 :].bool()
                restarts = restarts & seen[:, 1:] & seen[:, :-1]
            if restarts.any():
                row = int(restarts.any(-1).nonzero()[0])
        if row is not None:
            raise ValueError(
                f"The text positions of row {row} start again, so it packs several documents, but scene_lengths is "
                "missing: which views form a scene cannot be told. Pass the number of views of each scene."
            )

    def _check_vision_tokens(self, input_ids, mm_token_type_ids):
        """Refuse image and video tokens that nothing was given for: they would be read as text, in silence."""
        if mm_token_type_ids is None:
            is_vision = (input_ids == self.config.image_token_id) | (input_ids == self.config.video_token_id)
        else:
            is_vision = mm_token_type_ids != 0
        torch_compilable_check(
            ~is_vision.any(),
            lambda: (
                f"The text has {int(is_vision.sum())} image or video tokens, but neither pixel_values nor "
                "pixel_values_videos came. Pass them as the processor returns them."
            ),
        )

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        scene_lengths: torch.Tensor | list[int] | None = None,
        geometry_features: torch.Tensor | None = None,
        mm_encoder_outputs: dict | None = None,
        **kwargs,
    ):
        """As `Qwen3VLModel.forward`, with `scene_lengths` and `geometry_features` as in `get_image_features`.

        Raises:
            ValueError: as `get_image_features`; if pixels and `mm_encoder_outputs` both come, or neither comes for
                image tokens; if `geometry_features` come without pixels, or a packed row without `scene_lengths`; if
                pixels come with a cache that is not empty and without `position_ids`; under `nn.DataParallel`.
        """
        if getattr(self, "_is_replica", False):
            raise ValueError(
                "nn.DataParallel cannot split multi-view batches. Start one process for each GPU instead: "
                "accelerate launch your_script.py"
            )
        refuse_known_geometry(kwargs, "The model")
        has_pixels = pixel_values is not None or pixel_values_videos is not None
        if has_pixels and mm_encoder_outputs:
            raise ValueError(
                "pixel_values (or pixel_values_videos) and mm_encoder_outputs both came. Pass the pixels, or what "
                "get_image_features made of them."
            )
        if geometry_features is not None and pixel_values is None:
            raise ValueError(
                "geometry_features came without pixel_values: the vision tower needs the pixels of the same images. "
                "Pass both."
            )
        mm_encoder_outputs = dict(mm_encoder_outputs or {})
        if has_pixels and position_ids is None and cached_length(past_key_values):
            raise ValueError(
                f"Pixels came with past_key_values of {cached_length(past_key_values)} tokens and without "
                "position_ids, so the positions of the visual tokens cannot be told. Call generate() with the "
                "input_ids of the whole conversation, or pass position_ids."
            )
        text = inputs_embeds if input_ids is None else input_ids
        # One token is a decoding step; its cache is not asked, which may cost a synchronisation.
        if self.uses_geometry and not has_pixels and not mm_encoder_outputs and text is not None and text.shape[1] > 1:
            if not cached_length(past_key_values):
                if input_ids is not None:
                    self._check_vision_tokens(input_ids, mm_token_type_ids)
                if any(self._meets_others(part) for part in (self.visual, self.geometry, self.fusion)):
                    mm_encoder_outputs["image"] = self._idle_vision(text.device)
        shared = {"mm_token_type_ids": mm_token_type_ids, "return_dict": True, **kwargs}
        if pixel_values is not None:
            if self.uses_geometry:
                self._check_packing(position_ids, attention_mask, scene_lengths, kwargs.get("cu_seq_lens_q"))
            mm_encoder_outputs["image"] = self.get_image_features(
                pixel_values,
                image_grid_thw,
                scene_lengths=scene_lengths,
                geometry_features=geometry_features,
                **shared,
            )
        if pixel_values_videos is not None:
            mm_encoder_outputs["video"] = self.get_video_features(pixel_values_videos, video_grid_thw, **shared)
        return super().forward(
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


class GapMllmForConditionalGeneration(GapMllmPreTrainedModel, SceneGeneration, Qwen3VLForConditionalGeneration):
    """GAP-MLLM with its language-modelling head: what notebooks, pipelines and generate() use.

    Example:
        ```python
        >>> from transformers import AutoModel, AutoProcessor
        >>> from gap_mllm.processing.data import render_room
        >>> model = AutoModel.from_pretrained(folder, trust_remote_code=True)  # or the name of a repository
        >>> processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        >>> views = list(render_room(0).images)  # pictures of one scene
        >>> messages = processor.build_messages("reconstruction", processor.apply_visual_prompt(views, [0, 64, 96]))
        >>> inputs = processor.apply_chat_template(
        ...     messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ... )
        >>> output = model.generate(**inputs, max_new_tokens=64)
        >>> text = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        >>> len(processor.post_process_points([text])[0].first.point)
        3

        ```
    """

    _keys_to_ignore_on_load_unexpected = [r"^(point_map|training)_heads\."]  # of pre-training
    accepts_loss_kwargs = True  # Differs: Qwen3-VL says False, and its loss changes with the split of a batch

    def __init__(self, config: GapMllmConfig):
        Qwen3VLPreTrainedModel.__init__(self, config)  # not super(): it would build a plain Qwen3VLModel first
        self.model = GapMllmModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        # Else pipeline(model=...) prints every class that there is. The key is no config, so that nothing is loaded by
        # this entry.
        for auto_class in (AutoModelForImageTextToText, AutoModelForMultimodalLM):
            auto_class.register(type(self), (type(self),), exist_ok=True)
        self.post_init()

    def geometry_disabled(self):
        """Run plain Qwen3-VL inside a `with` block, bit for bit."""
        return self.model.geometry_disabled()

    @can_return_tuple
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
        geometry_features: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        mm_encoder_outputs: dict | None = None,
        **kwargs,
    ):
        """As `Qwen3VLForConditionalGeneration.forward`; `scene_lengths`, `geometry_features` as for `GapMllmModel`.

        With `num_items_in_batch`, as `Trainer` gives it, the loss is a sum over it, and in evaluation mode the mean
        over documents; see `answer_loss`.

        Raises:
            ValueError: as `GapMllmModel.forward`.
        """
        if labels is not None:  # with a cache, SDPA would not tell the documents of a packed row apart
            kwargs.setdefault("use_cache", False)
        num_items = kwargs.get("num_items_in_batch")
        by_document = labels is not None and num_items is not None and not self.training
        outputs = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=None if by_document else labels,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            image_grid_thw=image_grid_thw,
            video_grid_thw=video_grid_thw,
            mm_token_type_ids=mm_token_type_ids,
            logits_to_keep=logits_to_keep,
            mm_encoder_outputs=mm_encoder_outputs,
            scene_lengths=scene_lengths,
            geometry_features=geometry_features,
            return_dict=True,
            **kwargs,
        )
        if not by_document:
            return outputs
        logits = outputs.logits[:, :-1][labels[:, 1:] != -100]
        return type(outputs)(loss=answer_loss(logits, labels, position_ids, num_items, False), **outputs)
