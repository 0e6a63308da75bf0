"""GAP-MLLM in ms-swift: `swift sft --external_plugins examples/ms_swift/gap_mllm_swift.py --model_type gap_mllm ...`.

Registers the parts of the model, its loader and its template. All `<image>` of one conversation are views of one
scene; pictures are prepared by the model's own processor, so that geometry can be rebuilt from them.
"""

from typing import Any

import torch
from swift.model import (  # pyright: ignore[reportMissingImports]
    ModelGroup,
    ModelLoader,
    ModelMeta,
    MultiModelKeys,
    register_model,
    register_model_arch,
)
from swift.template import Template, TemplateMeta, register_template  # pyright: ignore[reportMissingImports]

import gap_mllm  # noqa: F401  makes the Auto classes know the model
from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.processing import GapMllmProcessor
from gap_mllm.processing.asking_gap_mllm import check_image_statistics
from gap_mllm.processing.prompts_gap_mllm import SYSTEM_PROMPT


NAME = "gap_mllm"
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


class GapMllmTemplate(Template):
    """The chats of Qwen3-VL, with pictures as the model's processor prepares them."""

    placeholder_tokens = ["<|image_pad|>", "<|video_pad|>"]
    use_model = True

    def replace_tag(self, media_type: str, index: int, inputs: Any) -> list[str]:
        """Return what stands for a picture; a video is a ValueError."""
        if media_type != "image":
            raise ValueError(f"a {media_type} was given; GAP-MLLM takes pictures here: give the frames as images.")
        return [IMAGE]

    def _encode(self, inputs: Any) -> dict[str, Any]:
        encoded = super()._encode(inputs)
        if not inputs.images:
            return encoded
        processor, token = self.processor, self.processor.image_token_id
        seen = processor.image_processor(images=inputs.images, return_tensors="pt")
        ids, merge = encoded["input_ids"], processor.image_processor.merge_size**2
        places = [place for place, each in enumerate(ids) if each == token]
        if len(places) != len(inputs.images):
            raise ValueError(f"{len(inputs.images)} images came, but the conversation has {len(places)} <image>.")
        counts = [int(grid.prod()) // merge for grid in seen["image_grid_thw"]]
        ids, labels, scale = self._extend_tokens(
            ids, encoded["labels"], encoded.get("loss_scale"), places, lambda number: [token] * counts[number]
        )
        encoded |= {"input_ids": ids, "labels": labels, "loss_scale": scale, **seen}
        encoded["mm_token_type_ids"] = self.create_mm_token_type_ids(ids)
        return encoded

    def _post_encode(self, model: torch.nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs


class GapMllmLoader(ModelLoader):
    """Loads the model by its own class, and checks that its processor belongs to it."""

    default_trust_remote_code = False  # the installed package is the code

    def get_processor(self, model_dir: str, config: Any) -> GapMllmProcessor:
        return GapMllmProcessor.from_pretrained(model_dir)

    def get_model(
        self, model_dir: str, config: Any, processor: Any, model_kwargs: dict
    ) -> GapMllmForConditionalGeneration:
        self.auto_model_cls = self.auto_model_cls or GapMllmForConditionalGeneration
        check_image_statistics(processor, config)
        return super().get_model(model_dir, config, processor, model_kwargs)


register_model_arch(
    MultiModelKeys(
        NAME,
        language_model=["model.language_model", "lm_head"],
        aligner=["model.visual.merger", "model.visual.deepstack_merger_list", "model.fusion"],
        vision_tower=["model.visual", "model.geometry"],
    )
)
register_template(
    TemplateMeta(
        NAME,
        prefix=[],
        prompt=["<|im_start|>user\n{{QUERY}}<|im_end|>\n<|im_start|>assistant\n"],
        chat_sep=["<|im_end|>\n"],
        suffix=["<|im_end|>\n"],
        system_prefix=["<|im_start|>system\n{{SYSTEM}}<|im_end|>\n"],
        default_system=SYSTEM_PROMPT,
        template_cls=GapMllmTemplate,
    )
)
register_model(
    ModelMeta(
        NAME,
        [ModelGroup([], template=NAME)],
        GapMllmLoader,
        template=NAME,
        model_arch=NAME,
        architectures=["GapMllmForConditionalGeneration"],
        is_multimodal=True,
    )
)
