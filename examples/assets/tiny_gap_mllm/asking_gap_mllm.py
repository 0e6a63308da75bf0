"""Asking a model: each set of views is encoded once, then all questions about it are answered in one batch.

The one generate loop of the package: `GapMllmProcessor.ask`, the demo, the evaluation runner and lmms-eval go through
it. Only what depends on the batch alone enters a number: a batch gives the same texts whatever ran before it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.utils import ModelOutput

from .answers_gap_mllm import BOX_KEYS, FRAME_KEY, POINT_KEY
from .json_stopping_gap_mllm import JsonStopping, cut_after_json
from .video_processing_gap_mllm import CHOICE_OPTIONS
from .visual_prompt_gap_mllm import to_rgb_image


VIDEO_OPTIONS = (*CHOICE_OPTIONS, "video_metadata", "do_sample_frames")  # of `GapMllmProcessor`
_PADDED = {"padding": True, "padding_side": "left"}


@dataclass(frozen=True)
class AnswerForm:
    """What an answer may look like, and so where it ends.

    Args:
        max_new_tokens (`int`, defaults to 64): bound of generate().
        keys (`tuple[str, ...]`, defaults to none): a JSON value that holds one of these keys ends the answer, see
            `JsonEnd`; none for free text.
        is_list (`bool`, defaults to False): whether only a JSON list ends it.
    """

    max_new_tokens: int = 64
    keys: tuple[str, ...] = ()
    is_list: bool = False


# How the answers of the package's own tasks end; as long as the longest ones of the released data.
ANSWER_FORMS = {
    "reconstruction": AnswerForm(64, (POINT_KEY,)),
    "sparse_points": AnswerForm(640, (POINT_KEY,), is_list=True),
    "reasoning_segmentation": AnswerForm(320, (POINT_KEY,), is_list=True),
    "detection3d": AnswerForm(1280, BOX_KEYS, is_list=True),
    "grounding": AnswerForm(100, BOX_KEYS),
    "grounding_frame": AnswerForm(32, (FRAME_KEY,)),
    "grounding_box": AnswerForm(128, BOX_KEYS),
    "dense_caption": AnswerForm(100),
}


class EncodedScenes:
    """Scenes that the model has seen; made by `Asker.encode`.

    Args:
        features (`ModelOutput`): what `get_image_features` gave for all views.
        grid (`torch.Tensor` of shape `(N, 3)`): temporal patches, rows and columns of each view.
        lengths (`list[int]`): views of each scene.
    """

    def __init__(self, features: ModelOutput, grid: torch.Tensor, lengths: list[int]):
        self.features, self.grid, self.lengths = features, grid, lengths

    def views(self, scene: int) -> list[int]:
        """Return the places of one scene's views among all."""
        start = sum(self.lengths[:scene])
        return list(range(start, start + self.lengths[scene]))


def check_image_statistics(processor: ProcessorMixin, config: PreTrainedConfig) -> None:
    """Check that a processor prepares pixels the way a model's config says, so that geometry can be rebuilt from them.

    Args:
        processor (`GapMllmProcessor`): its image processor, and its video settings, are read.
        config (`GapMllmConfig`): `image_mean` and `image_std` are read.
    Raises:
        ValueError: if mean or std differ, or pixels are not rescaled by 1/255 and normalised; both values are named.

    Example:
        ```python
        >>> from gap_mllm import GapMllmConfig
        >>> from gap_mllm.processing import GapMllmProcessor, check_image_statistics
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> check_image_statistics(processor, GapMllmConfig.from_pretrained(folder))  # nothing comes: they agree

        ```
    """
    video = processor.to_dict()["video_processor"]
    image = processor.image_processor
    expected = {
        "image_mean": config.image_mean,
        "image_std": config.image_std,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
    }
    for part, values in (("image", {name: getattr(image, name) for name in expected}), ("video", video)):
        for name, value in expected.items():
            got, want = np.broadcast_arrays(np.atleast_1d(values[name]), np.atleast_1d(value))
            if not np.allclose(got.astype(float), want.astype(float), atol=1e-6):
                raise ValueError(
                    f"the {part} processor has {name}={got.tolist()}, the model expects {want.tolist()}. GAP-MLLM "
                    "rebuilds the geometry image from pixel_values; use the processor that belongs to these weights."
                )


class Asker:
    """A model that answers chats.

    Args:
        model (`GapMllmForConditionalGeneration`, or a `PeftModel` of one): model in evaluation mode.
        processor (`GapMllmProcessor`): makes its inputs.
    Raises:
        ValueError: if the processor normalises pixels otherwise than the model's config says.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> from gap_mllm.processing.asking_gap_mllm import AnswerForm, Asker
        >>> from gap_mllm.processing.data import render_room
        >>> model = GapMllmForConditionalGeneration.from_pretrained(folder).eval()
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> views = list(render_room(0).images)
        >>> asker = Asker(model, processor)
        >>> scene = asker.encode([views])  # once, whatever is asked about it
        >>> words = ("the bed", "the chair at the window")
        >>> chats = [processor.build_messages("grounding_box", views, description=text) for text in words]
        >>> len(asker.ask(chats, AnswerForm(16, ("bbox_3d",)), scene, [0] * len(chats)))
        2

        ```
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin):
        check_image_statistics(processor, model.config)
        if hasattr(model, "get_base_model"):  # of PEFT: its attribute `model` is another; the adapters lie in the base
            model = model.get_base_model()
        self.model, self.processor = model, processor

    @torch.no_grad()
    def encode(
        self, view_sets: list[list[Image.Image]], geometry_sets: list[list[Image.Image]] | None = None
    ) -> EncodedScenes:
        """Encode sets of views, each as one scene.

        Args:
            view_sets (`list[list[PIL.Image.Image]]`): pictures of each scene.
            geometry_sets (`list[list[PIL.Image.Image]]`, *optional*): pictures that geometry is taken from instead,
                of equal sizes.
        Returns:
            `EncodedScenes`.
        """
        pixels, lengths = self._pixels(view_sets), [len(views) for views in view_sets]
        base, geometry = self.model.model, None
        if geometry_sets is not None:
            geometry = base.get_geometry_features(**self._pixels(geometry_sets), scene_lengths=lengths)
        features = base.get_image_features(
            **pixels, scene_lengths=lengths, geometry_features=geometry, return_dict=True
        )
        return EncodedScenes(features, pixels["image_grid_thw"].cpu(), lengths)

    def _pixels(self, view_sets):
        images = [image for views in view_sets for image in views]
        pixels = self.processor.image_processor(images=images, return_tensors="pt")
        return {name: pixels[name].to(self.model.device) for name in ("pixel_values", "image_grid_thw")}

    @torch.no_grad()
    def ask(
        self,
        chats: list[list[dict]],
        form: AnswerForm,
        encoded: EncodedScenes | None = None,
        scenes: list[int] | None = None,
        **options,
    ) -> list[str]:
        """Answer chats, left-padded in one batch; greedily unless the options say otherwise.

        Args:
            chats (`list[list[dict]]`): messages, with image placeholders.
            form (`AnswerForm`): when to stop.
            encoded (`EncodedScenes`, *optional*): None for chats without pictures.
            scenes (`list[int]`, *optional*): scene of `encoded` that each chat is about.
            **options: further arguments of generate(), such as `do_sample=True` or `stop_strings=[...]`.
        Returns:
            `list[str]`: one answer each, without special tokens; JSON answers are cut where they end.
        Raises:
            ValueError: if a chat shows another number of pictures than its scene has.
        """
        texts = [
            self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats
        ]
        inputs = {}
        if encoded is not None:
            shown = [encoded.views(scene) for scene in scenes]
            pairs = zip(texts, shown, strict=True)
            texts = [self._with_image_tokens(text, encoded.grid[views]) for text, views in pairs]
            flat = [view for views in shown for view in views]
            features = self.model.model.select_views(encoded.features, flat)
            inputs = {"mm_encoder_outputs": {"image": features}, "image_grid_thw": encoded.grid[flat]}
            inputs["image_grid_thw"] = inputs["image_grid_thw"].to(self.model.device)
        tokens = self.processor.tokenizer(texts, add_special_tokens=False, return_tensors="pt", **_PADDED)
        tokens = tokens.to(self.model.device)
        inputs |= {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
        inputs["mm_token_type_ids"] = (tokens["input_ids"] == self.model.config.image_token_id).int()
        return self._generate(inputs, form, options)

    def _generate(self, inputs, form, options):
        """The answers to a padded batch of inputs."""
        tokenizer, length = self.processor.tokenizer, inputs["input_ids"].shape[1]
        if form.keys:
            inputs["stopping_criteria"] = [JsonStopping(tokenizer, length, form.keys, form.is_list)]
        if "stop_strings" in options:
            inputs["tokenizer"] = tokenizer
        output = self.model.generate(
            **inputs, **{"max_new_tokens": form.max_new_tokens, "do_sample": False, **options}
        )
        answers = self.processor.batch_decode(output[:, length:], skip_special_tokens=True)
        if form.keys:
            answers = [cut_after_json(answer, form.keys, form.is_list) for answer in answers]
        return answers

    def answer(self, chats: list[list[dict]], form: AnswerForm, **options) -> list[str]:
        """Answer chats that hold their pictures or videos; pictures that several chats share are encoded once.

        Args:
            chats (`list[list[dict]]`): messages, as `build_messages` gives them.
            form (`AnswerForm`): when to stop.
            **options: arguments of `ask`, and `VIDEO_OPTIONS`, which choose the frames of videos.
        Returns:
            `list[str]`: one answer each.
        Raises:
            ValueError: if an image part holds no picture, some chats show pictures and others none, or as
                `GapMllmProcessor` for videos. ImportError, FileNotFoundError: as there.
        """
        chosen = {name: options.pop(name) for name in VIDEO_OPTIONS if name in options}
        if any(part["type"] == "video" for chat in chats for part in _parts(chat)):
            inputs = self.processor.apply_chat_template(
                chats,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={**_PADDED, **chosen},
            )
            return self._generate(inputs.to(self.model.device), form, options)
        shown = [_pictures(chat) for chat in chats]
        if not any(shown):
            return self.ask(chats, form, **options)
        if not all(shown):
            raise ValueError("some chats show pictures and others none; ask them in two batches.")
        known, view_sets, scenes = {}, [], []
        for pictures in shown:
            names = tuple(picture if isinstance(picture, str) else id(picture) for picture in pictures)
            scene = known.setdefault(names, len(view_sets))
            if scene == len(view_sets):
                view_sets.append([to_rgb_image(picture, "a picture of a chat") for picture in pictures])
            scenes.append(scene)
        return self.ask(chats, form, self.encode(view_sets), scenes, **options)

    def _with_image_tokens(self, text, grid):
        """The text with as many image tokens as each picture has."""
        token, merge = self.processor.image_token, self.processor.image_processor.merge_size**2
        parts = text.split(token)
        if len(parts) - 1 != len(grid):
            raise ValueError(f"the chat shows {len(parts) - 1} pictures, but its scene has {len(grid)}.")
        counts = (grid.prod(-1) // merge).tolist()
        return parts[0] + "".join(token * count + part for count, part in zip(counts, parts[1:], strict=True))


def _parts(chat):
    return [part for turn in chat if not isinstance(turn["content"], str) for part in turn["content"]]


def _pictures(chat):
    """The pictures of a chat, in their order."""
    pictures = []
    for part in _parts(chat):
        if part["type"] in ("image", "image_url"):
            given = [part[key] for key in ("image", "path", "url", "image_url") if part.get(key) is not None]
            if not given:
                raise ValueError(f"an image part of a chat holds no picture: {part}. Build it with build_messages.")
            pictures.append(given[0])
    return pictures


__all__ = ["ANSWER_FORMS", "VIDEO_OPTIONS", "AnswerForm", "Asker", "EncodedScenes", "check_image_statistics"]
