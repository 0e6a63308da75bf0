"""Ask a model a batch of questions: each set of views is encoded once, then all its questions are answered.

Only what depends on the batch alone enters a number: a batch gives the same texts whatever ran before it.
"""

from dataclasses import dataclass

import torch

from ...pretraining_gap_mllm import select_views
from .json_stopping import JsonStopping, cut_after_json


@dataclass(frozen=True)
class AnswerForm:
    """What an answer may look like.

    Args:
        max_new_tokens (`int`): of generate(), which is greedy.
        keys (`tuple[str, ...]`), is_list (`bool`): of a JSON answer, which ends generation; see `JsonEnd`. No keys:
            free text.
    """

    max_new_tokens: int = 64
    keys: tuple[str, ...] = ()
    is_list: bool = False


class Asker:
    """A model that answers chats.

    Args:
        model (`GapMllmForConditionalGeneration`): in evaluation mode.
        processor (`GapMllmProcessor`)
    """

    def __init__(self, model, processor):
        self.model, self.processor = model, processor

    @torch.no_grad()
    def encode(self, view_sets, geometry_sets=None):
        """Encode sets of views, each as one scene.

        Args:
            view_sets (`list[list[PIL.Image.Image]]`): pictures of each scene.
            geometry_sets (the same, *optional*): pictures that geometry is taken from instead, of equal sizes.
        Returns:
            `tuple`: what `get_image_features` gives, the grid of each picture `(N, 3)`, and pictures of each scene.
        """
        pixels, lengths = self._pixels(view_sets), [len(views) for views in view_sets]
        base, geometry = self.model.model, None
        if geometry_sets is not None:
            geometry = base.get_geometry_features(**self._pixels(geometry_sets), scene_lengths=lengths)
        features = base.get_image_features(
            **pixels, scene_lengths=lengths, geometry_features=geometry, return_dict=True
        )
        return features, pixels["image_grid_thw"].cpu(), lengths

    def _pixels(self, view_sets):
        images = [image for views in view_sets for image in views]
        pixels = self.processor.image_processor(images=images, return_tensors="pt")
        return {name: pixels[name].to(self.model.device) for name in ("pixel_values", "image_grid_thw")}

    @torch.no_grad()
    def ask(self, chats, form: AnswerForm, encoded=None, scenes=None) -> list[str]:
        """Answer chats, left-padded in one batch.

        Args:
            chats (`list`): messages, with image placeholders.
            form (`AnswerForm`): when to stop.
            encoded (*optional*): from `encode`; None for chats without pictures.
            scenes (`list[int]`, *optional*): for each chat, the scene of `encoded` that it is about.
        Returns:
            `list[str]`: JSON answers are cut where they end.
        """
        texts = [
            self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats
        ]
        inputs = {}
        if encoded is not None:
            features, grid, lengths = encoded
            starts = [sum(lengths[:scene]) for scene in range(len(lengths))]
            shown = [list(range(starts[scene], starts[scene] + lengths[scene])) for scene in scenes]
            texts = [self._with_image_tokens(text, grid[views]) for text, views in zip(texts, shown, strict=True)]
            flat = [view for views in shown for view in views]
            inputs = {"image_grid_thw": grid[flat], "mm_encoder_outputs": {"image": select_views(features, flat)}}
            inputs["image_grid_thw"] = inputs["image_grid_thw"].to(self.model.device)
        tokens = self.processor.tokenizer(
            texts, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt"
        ).to(self.model.device)
        inputs |= {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
        inputs["mm_token_type_ids"] = (tokens["input_ids"] == self.model.config.image_token_id).int()
        length = tokens["input_ids"].shape[1]
        if form.keys:
            inputs["stopping_criteria"] = [JsonStopping(self.processor.tokenizer, length, form.keys, form.is_list)]
        output = self.model.generate(**inputs, max_new_tokens=form.max_new_tokens, do_sample=False)
        answers = self.processor.batch_decode(output[:, length:], skip_special_tokens=True)
        if form.keys:
            answers = [cut_after_json(answer, form.keys, form.is_list) for answer in answers]
        return answers

    def _with_image_tokens(self, text, grid):
        """The text with as many image tokens as each picture has."""
        token, merge = self.processor.image_token, self.processor.image_processor.merge_size**2
        parts = text.split(token)
        if len(parts) - 1 != len(grid):
            raise ValueError(f"the chat shows {len(parts) - 1} pictures, but its scene has {len(grid)}.")
        counts = (grid.prod(-1) // merge).tolist()
        return parts[0] + "".join(token * count + part for count, part in zip(counts, parts[1:], strict=True))


__all__ = ["AnswerForm", "Asker"]
