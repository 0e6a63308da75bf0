"""What generate() does otherwise than for Qwen3-VL: pixels beside a cache, prompts in chunks, assistants."""

from .compatibility_gap_mllm import CHUNKS_TAKE_IMAGES
from .known_geometry_gap_mllm import refuse_known_geometry


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


__all__ = ["IMAGE_TOKEN_TYPE", "VIDEO_TOKEN_TYPE", "SceneGeneration", "cached_length"]
