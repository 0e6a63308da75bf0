"""Scenes as embeddings, for engines that know Qwen3-VL but not this model.

What the language model gets from a scene is one table of numbers: for each visual token the fused output of the
tower and, beside it, the fused DeepStack levels. Stock vLLM and SGLang take such a table in the place of pictures. So
a model can be taken apart: `to_serving` writes a plain Qwen3-VL for the engine, and the rest for a `SceneEncoder`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from ..hub import save_stock_processor
from ..model_loading import load_pretrained, load_processor, model_folder
from ..modeling_gap_mllm import GapMllmForConditionalGeneration, GapMllmModel
from ..processing import GapMllmProcessor, check_image_statistics
from ..processing.visual_prompt_gap_mllm import to_rgb_image
from ..publishing_gap_mllm import needed_from_transformers


with needed_from_transformers():
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

LANGUAGE_MODEL, SCENE_ENCODER = "qwen3_vl", "scene_encoder"


@dataclass(frozen=True)
class SceneEmbeds:
    """A scene as its embeddings; made by `SceneEncoder`, and checked, since a wrong shape can end an engine.

    Args:
        image_embeds (`torch.Tensor` of shape `(tokens, (1 + L) * D)`): fused visual tokens of all views in their
            order, the L DeepStack levels beside them; D is the width of the language model.
        image_grid_thw (`torch.Tensor` of shape `(N, 3)`): temporal patches, rows and columns of patches of each view.
        merge_size (`int`): patches that a token joins, in each direction.
        width (`int`): the second size that `image_embeds` must have.
    Raises:
        ValueError: if shapes, kinds of numbers or counts do not fit, or a number is not finite.
    """

    image_embeds: torch.Tensor
    image_grid_thw: torch.Tensor
    merge_size: int
    width: int

    def __post_init__(self):
        embeds, grid = self.image_embeds, self.image_grid_thw
        if grid.ndim != 2 or grid.shape[1] != 3 or grid.is_floating_point() or grid.min() < 1:
            raise ValueError(
                f"image_grid_thw has shape {tuple(grid.shape)} of {grid.dtype}; expected (views, 3) positive integers."
            )
        if (grid[:, 1:] % self.merge_size).any():
            raise ValueError(f"image_grid_thw is {grid.tolist()}; rows and columns must divide by {self.merge_size}.")
        expected = (int(grid.prod(-1).sum()) // self.merge_size**2, self.width)
        if tuple(embeds.shape) != expected or not embeds.is_floating_point():
            raise ValueError(
                f"image_embeds has shape {tuple(embeds.shape)} of {embeds.dtype}; image_grid_thw and the model ask "
                f"for {expected} floating-point numbers."
            )
        if not torch.isfinite(embeds).all():
            raise ValueError("image_embeds holds numbers that are not finite.")

    def for_vllm(self) -> dict:
        """What stock vLLM takes, with `enable_mm_embeds=True`, as `multi_modal_data` of a prompt."""
        return {"image": {"image_embeds": self.image_embeds, "image_grid_thw": self.image_grid_thw}}

    def for_sglang(self) -> list[dict]:
        """What SGLang takes as `image_data`, beside `input_ids` with as many image tokens; not run here."""
        item = {"feature": self.image_embeds, "image_grid_thw": self.image_grid_thw}
        return [{"format": "precomputed_embedding", **item}]


class SceneEncoder:
    """Vision tower, geometry encoder and fusion: pictures of a scene in, the embeddings of its visual tokens out.

    Args:
        model (`GapMllmModel` or `GapMllmForConditionalGeneration`): model whose scenes are encoded; its
            language model is not used.
        processor (`GapMllmProcessor`): the processor of the model.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration, GapMllmProcessor
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.serving import SceneEncoder
        >>> model = GapMllmForConditionalGeneration.from_pretrained(folder).eval()
        >>> encoder = SceneEncoder(model, GapMllmProcessor.from_pretrained(folder))
        >>> scene = encoder(list(render_room(0).images))
        >>> scene.image_embeds.shape, scene.image_grid_thw.shape
        (torch.Size([64, 512]), torch.Size([4, 3]))

        ```
    """

    def __init__(self, model: GapMllmModel | GapMllmForConditionalGeneration, processor: GapMllmProcessor):
        check_image_statistics(processor, model.config)
        self.model = model.model if hasattr(model, "lm_head") else model
        self.processor = processor

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "cpu", dtype: str = "auto") -> "SceneEncoder":
        """Load the folder "scene_encoder" that `to_serving` wrote.

        Args:
            folder (`str` or `Path`): folder of model and processor.
            device (`str`, defaults to "cpu"): where it runs.
            dtype (`str`, defaults to "auto"): kind of its numbers, by default that of the weights.
        Raises:
            FileNotFoundError, ValueError: if the folder cannot be read; the message names what is wrong.
        """
        folder = model_folder(folder)
        model = load_pretrained(GapMllmModel, folder, dtype=dtype).to(device).eval()
        return cls(model, load_processor(folder))

    @torch.no_grad()
    def __call__(self, views: Sequence[Image.Image]) -> SceneEmbeds:
        """Encode a scene.

        Args:
            views (`list[PIL.Image.Image]`): pictures of the scene, in the order of its prompt.
        Returns:
            `SceneEmbeds`: on the CPU.
        Raises:
            ValueError: if there are no views, or one cannot be read.
        """
        if not views:
            raise ValueError("there are no views; give one picture or more.")
        images = [to_rgb_image(view, f"view {index}") for index, view in enumerate(views)]
        made = self.processor.image_processor(images=images, return_tensors="pt")
        pixels, grid = made["pixel_values"], made["image_grid_thw"]
        device = self.model.device
        seen = self.model.get_image_features(
            pixels.to(device), grid.to(device), scene_lengths=[len(images)], return_dict=True
        )
        levels = [seen.pooler_output, *seen.deepstack_features]  # each of them by view
        table = torch.cat([level if torch.is_tensor(level) else torch.cat(tuple(level)) for level in levels], dim=-1)
        width = self.model.config.text_config.hidden_size * len(levels)
        return SceneEmbeds(table.cpu(), grid, self.processor.image_processor.merge_size, width)


def to_serving(
    model: GapMllmForConditionalGeneration, folder: str | Path, processor: GapMllmProcessor | None = None
) -> Path:
    """Take a model apart for engines that know Qwen3-VL: a plain Qwen3-VL, and what encodes scenes.

    Args:
        model (`GapMllmForConditionalGeneration`): whole and not quantised; adapters merged.
        folder (`str` or `Path`): where to write; made if need be.
        processor (`GapMllmProcessor`, *optional*): the processor of the model, by default that of the folder which
            the model was loaded from.
    Returns:
        `Path`: the folder. In it "qwen3_vl" loads with transformers' `Qwen3VLForConditionalGeneration` and in engines,
        and "scene_encoder" with `SceneEncoder.from_pretrained`.
    Raises:
        TypeError: if the model is of another class, or has adapters. ValueError: if it is quantised, or the processor
            is not that of the model. FileNotFoundError: if there is no processor.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration
        >>> from gap_mllm.serving import SceneEncoder, to_serving
        >>> written = to_serving(GapMllmForConditionalGeneration.from_pretrained(folder), "serving")
        >>> sorted(path.name for path in written.iterdir())
        ['qwen3_vl', 'scene_encoder']
        >>> encoder = SceneEncoder.from_pretrained(written / "scene_encoder")

        ```
    """
    if not isinstance(model, GapMllmForConditionalGeneration):
        advice = " Merge the adapters first, with merge_and_unload()." if hasattr(model, "merge_and_unload") else ""
        raise TypeError(f"model is a {type(model).__name__}; expected a GapMllmForConditionalGeneration.{advice}")
    if getattr(model.config, "quantization_config", None) is not None:
        raise ValueError("the model is quantised; load it without quantization_config, and quantise in the engine.")
    processor = processor or load_processor(model_folder(model.name_or_path))
    check_image_statistics(processor, model.config)
    folder, config = Path(folder), model.config
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id", "tie_word_embeddings")
    plain_config = Qwen3VLConfig(
        text_config=config.text_config.to_dict(),
        vision_config=config.vision_config.to_dict(),
        **{name: getattr(config, name) for name in names},
    )
    with torch.device("meta"):
        plain = Qwen3VLForConditionalGeneration._from_config(plain_config, dtype=model.dtype)
    weights = model.state_dict()
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()}, assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    plain.save_pretrained(folder / LANGUAGE_MODEL)
    save_stock_processor(processor, folder / LANGUAGE_MODEL)
    for file in (folder / LANGUAGE_MODEL).glob("*_gap_mllm.py"):
        file.unlink()  # nothing in this folder runs it

    base, language_model = model.model, model.model.language_model
    base.language_model = nn.Module()  # nothing of it is saved
    own, base.config = base.config, type(config).from_dict(config.to_dict())
    base.config.text_config.update({"num_hidden_layers": 0, "vocab_size": 1, "pad_token_id": None})
    base.config.training_heads = None
    try:
        weights = base.state_dict() | {
            "language_model.embed_tokens.weight": torch.zeros(1, config.text_config.hidden_size, dtype=model.dtype),
            "language_model.norm.weight": language_model.norm.weight,
        }
        base.save_pretrained(folder / SCENE_ENCODER, state_dict=weights)
    finally:
        base.language_model, base.config = language_model, own
    processor.save_pretrained(folder / SCENE_ENCODER)
    return folder
