"""GAP-MLLM in vLLM's workers: its Qwen3-VL, with geometry fused into what the vision tower gives."""

from dataclasses import replace

import torch
from transformers.initialization import no_init_weights
from vllm.model_executor.models.qwen3_vl import Qwen3VLForConditionalGeneration
from vllm.model_executor.models.utils import WeightsMapper
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import PlaceholderRange

from gap_mllm import GapMllmModel
from gap_mllm.fusion_gap_mllm import GapMllmFusion
from gap_mllm.geometry_views_gap_mllm import encode_images, encode_scenes, video_views
from gap_mllm.modeling_gap_mllm import GEOMETRY_ENCODERS

from .scene_processing import SceneDummyInputsBuilder, SceneMultiModalProcessor, SceneProcessingInfo


GEOMETRY = ("model.geometry.", "model.fusion.")  # beginnings of names of weights, as checkpoints have them


@MULTIMODAL_REGISTRY.register_processor(
    SceneMultiModalProcessor, info=SceneProcessingInfo, dummy_inputs=SceneDummyInputsBuilder
)
class GapMllmForConditionalGeneration(Qwen3VLForConditionalGeneration):
    """vLLM's Qwen3-VL with the geometry encoder and the fusion of gap_mllm, of whatever method and encoder.

    Source: GAP-MLLM (arXiv:2603.16461).

    Raises:
        ValueError: with `cudagraph_mm_encoder`, which runs the tower alone, for an encoder that needs known cameras,
            or if weights are missing.
    """

    supports_mm_device_do_normalize = False  # vLLM would pass raw bytes on, and geometry needs normalised pixels
    supports_multimodal_pruning = False
    supports_encoder_tp_data = False

    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            **Qwen3VLForConditionalGeneration.hf_to_vllm_mapper.orig_to_new_prefix,
            **{prefix: prefix.removeprefix("model.") for prefix in GEOMETRY},
            "point_map_heads.": None,  # of pre-training
            "training_heads.": None,
        }
    )

    def __init__(self, *, vllm_config, prefix="model"):
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        if vllm_config.compilation_config.cudagraph_mm_encoder:
            raise ValueError("cudagraph_mm_encoder runs the vision tower without geometry. Leave it off.")
        self.geometry = self.fusion = None
        if self.config.use_geometry:
            dtype, encoder = vllm_config.model_config.dtype, self.config.geometry_config
            if encoder.model_type == "gap_mllm_geometry_maps":
                raise ValueError(
                    "This model's geometry comes from known cameras and depth, which vLLM has no place for. Serve it "
                    "with transformers, or with --hf-overrides '{\"use_geometry\": false}'."
                )
            with self._mark_tower_model(vllm_config, {"image", "video"}), no_init_weights():
                self.geometry = GEOMETRY_ENCODERS[encoder.model_type]._from_config(encoder, dtype=dtype)
                self.fusion = GapMllmFusion._from_config(self.config.gap_fusion_config, dtype=dtype)
        self.eval().requires_grad_(False)

    def load_weights(self, weights):
        """As in vLLM; an encoder whose weights stand apart is read from `config.geometry_weights`."""
        if self.geometry is None:
            return super().load_weights((name, value) for name, value in weights if not name.startswith(GEOMETRY))
        loaded = set(super().load_weights(weights))
        source = self.config.geometry_weights
        if source is not None:
            dtype = next(self.geometry.parameters()).dtype
            state = GapMllmModel.read_geometry_weights(self, source, dtype)
            self.geometry.load_state_dict(state, strict=False)  # what is missing is named by vLLM
            loaded |= {f"geometry.{name}" for name in state}
        return loaded

    def embed_multimodal(self, **kwargs):
        parts = []
        if kwargs.get("pixel_values") is not None:
            pixels, grid_thw = kwargs["pixel_values"], kwargs["image_grid_thw"]
            lengths, grid = kwargs["scene_lengths"].flatten().tolist(), grid_thw.tolist()
            tokens = self.visual(pixels.type(self.visual.dtype), grid_thw=grid_thw)
            if self.geometry is not None:
                taps, patches = encode_images(self.config, self.geometry, pixels, grid, lengths)
                tokens = self._fuse(tokens, taps, patches, [1] * len(grid))
            parts += tokens.split([int(counts.sum()) for counts in self._tokens(grid_thw).split(lengths)])
        if kwargs.get("pixel_values_videos") is not None:
            pixels, grid_thw = kwargs["pixel_values_videos"], kwargs["video_grid_thw"]
            tokens = self.visual(pixels.type(self.visual.dtype), grid_thw=grid_thw)
            if self.geometry is not None:
                views, lengths, views_per_slice = video_views(self.config, pixels, grid_thw.tolist())
                scenes = encode_scenes(self.config, self.geometry, views, lengths)
                tokens = self._fuse(tokens, *scenes, views_per_slice)
            parts += tokens.split(self._tokens(grid_thw).tolist())
        return tuple(parts)

    def _tokens(self, grid_thw):
        return grid_thw.prod(-1) // self.config.vision_config.spatial_merge_size**2

    def _fuse(self, tokens, taps, grid, views_per_slice):
        """Fuse the tower's tokens `(N, D * (1 + levels))`, whose last level vLLM puts first."""
        last, *levels = tokens.split(self.visual_dim, dim=-1)
        taps = tuple(features.to(tokens.dtype) for features in taps)
        *levels, last = self.fusion([*levels, last], taps, grid, views_per_slice)
        return torch.cat([last, *levels], dim=-1)

    def get_mrope_input_positions(self, input_tokens, mm_features):
        """As Qwen3-VL counts positions: of each view of a scene, not of the one item."""
        views = []
        for feature in mm_features:
            if feature.modality != "image":
                views.append(feature)
                continue
            places = feature.mm_position.is_embed.nonzero()[:, 0].tolist()
            grid, start = feature.data["image_grid_thw"], 0
            for row in grid.data:
                count = int(self._tokens(row))
                place = PlaceholderRange(offset=feature.mm_position.offset + places[start], length=count)
                data = {"image_grid_thw": replace(grid, data=row)}
                views.append(replace(feature, data=data, mm_position=place))
                start += count
        return super().get_mrope_input_positions(input_tokens, views)
