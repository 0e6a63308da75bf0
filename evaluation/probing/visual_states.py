"""What a model makes of its visual tokens on the way: after the tower, after the fusion, and by language layer."""

from collections.abc import Sequence

import torch
from PIL import Image
from transformers import PreTrainedModel

from ...processing.asking_gap_mllm import check_image_statistics
from ...processing.model_state_gap_mllm import input_device
from ...processing.processing_gap_mllm import GapMllmProcessor
from ...training_heads_gap_mllm import TOWER, TOWER_INDEX, layer_index, read_hidden_states, read_tower


FUSION = "fusion"


class VisualStates:
    """Reads the states of visual tokens in one forward pass; those of other layers are not kept.

    Text behind the views changes nothing about them, so that it is left out: a chat is read up to its last view.

    Args:
        model (`GapMllmForConditionalGeneration`, or a `PeftModel` of one): model in evaluation mode.
        processor (`GapMllmProcessor`): processor of the model.
        layers (sequence of `int`, *optional*): indices of hidden states, 0 for the embeddings and -1 for the last
            layer, after its norm; by default all.
    Raises:
        ValueError: for a layer that is none of the model's, or as `check_image_statistics`.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration
        >>> from gap_mllm.evaluation.probing.visual_states import VisualStates
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> from gap_mllm.processing.data import render_room
        >>> model = GapMllmForConditionalGeneration.from_pretrained(folder).eval()
        >>> states = VisualStates(model, GapMllmProcessor.from_pretrained(folder), layers=[0, -1])
        >>> views = list(render_room(0).images)
        >>> read, grids = states([views])
        >>> {place: tuple(tokens[0].shape) for place, tokens in read.items()}
        {'tower': (64, 128), 'fusion': (64, 128), 'layer_0': (64, 128), 'layer_6': (64, 128)}
        >>> grids[0]
        [(4, 4), (4, 4), (4, 4), (4, 4)]

        ```
    """

    def __init__(self, model: PreTrainedModel, processor: GapMllmProcessor, layers: Sequence[int] | None = None):
        check_image_statistics(processor, model.config)
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.processor = processor
        self.num_layers = model.config.text_config.num_hidden_layers
        wanted = range(self.num_layers + 1) if layers is None else layers
        self.layers = sorted({layer_index(layer, self.num_layers) for layer in wanted} - {TOWER_INDEX})

    @property
    def places(self) -> list[str]:
        """Names of the places that are read, in the order of the forward pass."""
        fusion = [FUSION] if self.model.model.uses_geometry else []
        return [TOWER, *fusion, *(f"layer_{layer}" for layer in self.layers)]

    @torch.no_grad()
    def __call__(
        self, view_sets: Sequence[Sequence[Image.Image]], chats: Sequence[list[dict]] | None = None
    ) -> tuple[dict[str, list[torch.Tensor]], list[list[tuple[int, int]]]]:
        """Read the states of some scenes.

        Args:
            view_sets (list of lists of `PIL.Image.Image`): pictures of each scene.
            chats (list of messages, *optional*): chat in which each scene's pictures are shown; by default the
                pictures come first, after the usual system turn.
        Returns:
            `tuple`: for each place, states `(T, D)` of each scene, view after view and row by row; and for each scene
            rows and columns of each view.
        """
        processor, base = self.processor, self.model.model
        if chats is None:
            chats = [processor.build_messages("detection3d", list(views)) for views in view_sets]
        texts = [processor.apply_chat_template(chat, tokenize=False) for chat in chats]
        texts = ["".join(text.rpartition(processor.vision_end_token)[:2]) for text in texts]
        inputs = processor(
            images=[list(views) for views in view_sets],
            text=texts,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(input_device(self.model))
        pixels, grid = inputs.pop("pixel_values"), inputs["image_grid_thw"]
        scenes = {"image_grid_thw": grid, "scene_lengths": [len(views) for views in view_sets], "return_dict": True}
        with read_tower(base.visual) as tower:
            features = base.get_image_features(pixels, **scenes)
        found = {TOWER: torch.cat(tower), FUSION: torch.cat(features.pooler_output)}
        with read_hidden_states(base.language_model, self.layers) as kept:
            base(**inputs, mm_encoder_outputs={"image": features}, use_cache=False)
        is_visual = inputs["input_ids"] == self.model.config.image_token_id
        found |= {f"layer_{layer}": kept[layer][is_visual] for layer in self.layers}
        merge, grids = processor.image_processor.merge_size, iter(grid.tolist())
        sizes = [[tuple(side // merge for side in next(grids)[1:]) for _ in views] for views in view_sets]
        counts = [sum(rows * columns for rows, columns in each) for each in sizes]
        return {place: list(found[place].split(counts)) for place in self.places}, sizes
