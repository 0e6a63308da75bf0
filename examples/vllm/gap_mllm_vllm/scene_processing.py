"""From pictures and a prompt to the inputs of the engine, all views of the prompt as one item."""

from dataclasses import replace

import torch
from vllm.model_executor.models.qwen3_vl import (
    Qwen3VLDummyInputsBuilder,
    Qwen3VLMultiModalProcessor,
    Qwen3VLProcessingInfo,
)
from vllm.multimodal.hasher import MultiModalHasher
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import ImageProcessorItems
from vllm.multimodal.processing import PromptReplacement
from vllm.multimodal.processing.processor import PlaceholderFeaturesInfo

from .scene_items import SceneDataParser, SceneItems


class SceneProcessingInfo(Qwen3VLProcessingInfo):
    """Sizes of a scene: views up to what `--limit-mm-per-prompt` allows and the context holds.

    Its "width" and "height" are those of the largest views that are sent, as `{"image": {"count": 8, "width": 640,
    "height": 480}}`; without them the largest that the processor makes are counted with.
    """

    def get_data_parser(self):
        return SceneDataParser(
            self.get_hf_config().vision_config.spatial_merge_size,
            video_needs_metadata=True,
            expected_hidden_size=self._get_expected_hidden_size(),
        )

    def view_size(self):
        """Width and height of a view that memory is measured with, in pixels."""
        options = self.ctx.get_mm_config().limit_per_prompt.get("image")
        if options is not None and options.width and options.height:
            return options.width, options.height
        size = self.get_image_size_with_most_features()
        return size.width, size.height

    def view_tokens(self):
        """Image tokens of such a view."""
        width, height = self.view_size()
        processor = self.get_image_processor()
        return self.get_num_image_tokens(
            image_width=width, image_height=height, image_processor=processor, mm_kwargs={}
        )

    def max_views(self, seq_len):
        return max(1, min(self.allowed_mm_limits["image"], seq_len // (self.view_tokens() + 2)))

    def get_mm_max_tokens_per_item(self, seq_len, mm_counts):
        tokens = dict(super().get_mm_max_tokens_per_item(seq_len, mm_counts))
        of_view = self.view_tokens()  # views of other sizes may fill what is left of the context
        tokens["image"] = max(of_view, min(of_view * self.allowed_mm_limits["image"], seq_len))
        return tokens


class SceneDummyInputsBuilder(Qwen3VLDummyInputsBuilder):
    """What vLLM measures its memory with: it asks for one item, whose largest form is a whole scene."""

    def _views(self, mm_counts):
        views = self.info.max_views(self.info.ctx.model_config.max_model_len)
        return {**mm_counts, "image": views if mm_counts.get("image", 0) else 0}

    def get_dummy_text(self, mm_counts):
        return super().get_dummy_text(self._views(mm_counts))

    def get_dummy_mm_data(self, seq_len, mm_counts, mm_options):
        seq_len, counts = self.info.ctx.model_config.max_model_len, self._views(mm_counts)
        data = super().get_dummy_mm_data(seq_len, {**counts, "image": 0}, mm_options)
        width, height = self.info.view_size()
        return {**data, "image": self._get_dummy_images(width=width, height=height, num_images=counts["image"])}


class SceneMultiModalProcessor(Qwen3VLMultiModalProcessor):
    """Qwen3-VL's processing, in which the pictures of a prompt become one scene.

    Up to `apply` vLLM counts views (limits, uuids, chat templates); from there on there is one item, whose place runs
    from the first to the last visual token, the text between its views left out.

    Raises:
        ValueError: for embeddings in the place of pictures, pictures in other numbers than image tokens, a video
            between the views of a scene, or settings that change what pixels mean.
    """

    def apply(self, inputs, timing_ctx):
        self._check_pixels(inputs.hf_processor_mm_kwargs)
        images = inputs.mm_data_items.get("image")
        if isinstance(images, ImageProcessorItems):
            inputs = self._as_scene(inputs, list(images.data))
        elif images is not None and not isinstance(images, SceneItems):
            raise ValueError(
                "Embeddings came in the place of pictures, but geometry is made from pixels. Send the pictures."
            )
        return super().apply(inputs, timing_ctx)

    def _check_pixels(self, asked):
        """Refuse other pixels than those that the geometry encoder gets back from the processor's patches."""
        config, merged = self.info.get_hf_config(), self.info.ctx.get_merged_mm_kwargs(asked)
        fixed = {"image_mean": config.image_mean, "image_std": config.image_std, "rescale_factor": 1 / 255}
        fixed |= dict.fromkeys(("do_normalize", "do_rescale", "do_resize", "do_convert_rgb"), True)
        changed = [name for name, value in fixed.items() if name in merged and not _same(merged[name], value)]
        if changed:
            raise ValueError(
                f"mm_processor_kwargs change {', '.join(changed)}, but the geometry encoder needs the pixels that the "
                "model was trained on. Leave them out; min_pixels, max_pixels and size may be given."
            )

    def _as_scene(self, inputs, views):
        uuids = dict(inputs.mm_uuid_items or {})
        items = {name: value for name, value in inputs.mm_data_items.items() if name != "image"}
        of_views = uuids.pop("image", None) or [None] * len(views)
        if views:
            algorithm = self.info.ctx.get_mm_config().mm_hasher_algorithm
            is_named = None not in of_views
            uuids["image"] = [MultiModalHasher.hash_kwargs(algorithm, scene=list(of_views)) if is_named else None]
            items["image"] = SceneItems(views)
        return replace(inputs, mm_data_items=type(inputs.mm_data_items)(items), mm_uuid_items=uuids)

    def _apply_hf_processor_main(self, mm_items, hf_kwargs):
        try:
            return super()._apply_hf_processor_main(mm_items, hf_kwargs)
        except ValueError as error:  # whose text lists the inputs, and whose cause no client would see
            reason = error if error.__cause__ is None else error.__cause__
            raise ValueError(f"The pictures cannot be used: {reason}") from error

    def _get_hf_mm_inputs(self, mm_items, hf_kwargs):
        inputs = super()._get_hf_mm_inputs(mm_items, hf_kwargs)
        if "text" in inputs.hf_data:  # the processor wants a placeholder for each view, not for each item
            scene = mm_items.get("image")
            counts = {**mm_items.get_all_counts(), "image": 0 if scene is None else len(scene.data)}
            inputs.hf_data["text"] = Qwen3VLDummyInputsBuilder.get_dummy_text(self.dummy_inputs, counts)
        return inputs

    def _postprocess_hf_mm_data(self, mm_inputs, hf_processor_mm_kwargs, processed_data):
        processed_data = super()._postprocess_hf_mm_data(mm_inputs, hf_processor_mm_kwargs, processed_data)
        if "image_grid_thw" in processed_data:
            processed_data["scene_lengths"] = torch.tensor([len(processed_data["image_grid_thw"])])
        return processed_data

    def _get_mm_fields_config(self, hf_inputs, hf_processor_mm_kwargs):
        fields = dict(super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs))
        if "image_grid_thw" in hf_inputs:
            patches, lengths = hf_inputs["image_grid_thw"].prod(-1).sum()[None], hf_inputs["scene_lengths"]
            fields["pixel_values"] = MultiModalFieldConfig.flat_from_sizes("image", patches)
            fields["image_grid_thw"] = MultiModalFieldConfig.flat_from_sizes("image", lengths, keep_on_cpu=True)
            fields["scene_lengths"] = MultiModalFieldConfig.batched("image", keep_on_cpu=True)
        return fields

    def _get_prompt_updates(self, mm_items, hf_processor_mm_kwargs, out_mm_kwargs):
        updates = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        updates = [update for update in updates if update.modality != "image"]
        if not out_mm_kwargs.get("image"):
            return updates
        processor = self.info.get_hf_processor(**hf_processor_mm_kwargs)
        grid, token = out_mm_kwargs["image"][0]["image_grid_thw"].data, processor.image_token_id
        counts = grid.prod(-1) // processor.image_processor.merge_size**2
        # One for each view. vLLM takes them for alternatives of the one item; _apply_prompt_updates, for its parts.
        return updates + [PromptReplacement("image", [token], [token] * count) for count in counts.tolist()]

    def _apply_prompt_updates(self, token_ids, mm_prompt_updates):
        if "image" not in mm_prompt_updates:
            return super()._apply_prompt_updates(token_ids, mm_prompt_updates)
        (scene,) = mm_prompt_updates["image"]
        found = token_ids.count(scene[0].target[0])
        if found != len(scene):
            raise ValueError(
                f"{len(scene)} pictures came, but the prompt has {found} image tokens. Write one <|image_pad|> for "
                "each picture, or send messages, from which the chat template writes them."
            )
        views = [[replace(update, item_idx=index)] for index, update in enumerate(scene)]
        token_ids, placeholders = super()._apply_prompt_updates(token_ids, {**mm_prompt_updates, "image": views})
        parts = placeholders["image"]
        start, stop = parts[0].start_idx, parts[-1].start_idx + parts[-1].length
        others = [each for modality, places in placeholders.items() if modality != "image" for each in places]
        if any(start <= other.start_idx < stop for other in others):
            raise ValueError(
                "A video stands between the pictures of a scene, which are encoded together. Put it before the first "
                "or after the last picture."
            )
        is_embed = torch.zeros(stop - start, dtype=torch.bool)
        for view in parts:
            is_embed[view.start_idx - start : view.start_idx - start + view.length] = True
        whole = PlaceholderFeaturesInfo("image", 0, start, token_ids[start:stop], is_embed)
        return token_ids, {**placeholders, "image": [whole]}


def _same(given, expected):
    if isinstance(expected, bool):
        return given is None or bool(given) == expected
    given = torch.as_tensor(given, dtype=torch.float64)
    expected = torch.as_tensor(expected, dtype=torch.float64)
    return bool((given - expected).abs().max() < 1e-6)
