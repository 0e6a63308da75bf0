"""What terms have in common whose head gives features of visual tokens, and whose losses are of whole scenes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch.nn.utils.rnn import pad_sequence

from ...configuration_gap_mllm import GapMllmConfig
from ...pretraining_gap_mllm import GapMllmForPreTraining, GapMllmPreTrainingOutput
from ..losses import LossSum
from ..object_targets import ObjectTargets
from .head_term import HeadTerm


@dataclass
class TokenTerm(HeadTerm):
    """A term on the features that a `GapMllmTokenHead` gives of each visual token of one layer.

    Targets are lists with an entry for each scene: "tokens" `(T,)`, what each visual token sees, "count", the items,
    and what `scene_loss` takes; but for "views", True for each view of which the teacher tells, else None. Texts are
    token ids `(L, n)`, -1 behind shorter ones; `scene_loss` gets the mean of their embeddings in the language model,
    which have no gradient; those of the last forward pass stay in `text_features`, `(L, C)` for each scene.

    Args:
        weight (`float` or `Schedule`): factor of the term in the loss, 0 by default.
        teacher (`str` or `dict`): teacher of the targets, as in `HeadTerm`; "recorded" by default.
        layers (`list[int | str]`): hidden states that the head reads, one, or "tower": visual tokens before
            geometry joins them; [-1] by default.
        head_size (`int`, *optional*): hidden width of the head, twice that of the language model by default.
    """

    layers: list[int | str] = field(default_factory=lambda: [-1])
    head_size: int | None = None

    is_of_scenes = True

    def width(self, config: GapMllmConfig) -> int:
        """Width of the features; that of the language model, in which texts are embedded, by default."""
        return config.text_config.hidden_size

    def scene_loss(self, features: torch.Tensor, scene: Mapping[str, object]) -> LossSum:
        """Loss of one scene with items, from the features `(T, C)` of its tokens and its entries of the targets."""
        raise TypeError(f"{type(self).__name__} must define scene_loss.")

    def head_settings(self, config: GapMllmConfig) -> dict:
        if len(self.layers) != 1:
            raise ValueError(f"terms.{self.name}.layers is {self.layers}; its head reads one layer.")
        return {"layers": list(self.layers), "feature_size": self.width(config), "head_size": self.head_size}

    def count(self, inputs: Mapping[str, torch.Tensor]) -> float:
        return float(sum(count * rows for count, rows in self.known(inputs, "count")))

    def loss(
        self,
        prediction: torch.Tensor,
        targets: dict[str, list],
        outputs: GapMllmPreTrainingOutput,
        rows: list[int],
    ) -> LossSum:
        total = LossSum(0.0 * prediction.sum(), torch.tensor(0))
        parts = prediction.split([len(tokens) for tokens in targets["tokens"]])
        for index, features in enumerate(parts):
            scene = {name: values[index] for name, values in targets.items() if name != "views"}
            if "texts" in scene:
                scene["texts"] = self.text_features[index].to(features)
            if scene["count"]:
                total = total + rows[index] * self.scene_loss(features, scene)
        return total

    @contextmanager
    def watch(self, model: GapMllmForPreTraining, inputs: Mapping[str, torch.Tensor] | None = None) -> Iterator[None]:
        texts = ((inputs or {}).get("teacher_targets", {}).get(self.name) or {}).get("texts")
        if texts is None:
            yield
            return

        language = model.model.language_model

        def embed(visual, args, kwargs):  # here, since the embeddings of a sharded model are whole while it runs
            with torch.no_grad():
                self.text_features = [_mean_embeddings(language.embed_tokens, scene) for scene in texts]

        handle = model.model.visual.register_forward_pre_hook(embed, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


def _token_ids(texts, tokenizer):
    """Tokens `(L, n)` of words, -1 behind shorter ones; `(0, 1)` where nothing is named."""
    if not texts:
        return torch.zeros(0, 1, dtype=torch.int64)
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return pad_sequence([torch.tensor(text) for text in ids], batch_first=True, padding_value=-1)


def _mean_embeddings(embed, texts):
    """Mean embedding `(L, C)` of the tokens `(L, n)` of each text, -1 being none."""
    is_token = (texts >= 0)[..., None]
    return (embed(texts.clamp_min(0)).float() * is_token).sum(1) / is_token.sum(1)


@dataclass
class ObjectTerm(TokenTerm):
    """A `TokenTerm` about the objects of scenes, which `find_objects` finds; arguments are those of `TokenTerm`."""

    def object_targets(self, objects: ObjectTargets) -> dict[str, object]:
        """Entries of the targets for one scene, as `TokenTerm` has them, texts as words.

        Args:
            objects (`ObjectTargets`): what the views of the scene show.
        Returns:
            `dict[str, object]`.
        """
        raise TypeError(f"{type(self).__name__} must define object_targets.")

    def scene_targets(self, objects: ObjectTargets, tokenizer: object) -> dict[str, list]:
        """Targets of one scene.

        Args:
            objects (`ObjectTargets`): what its views show.
            tokenizer (`PreTrainedTokenizerBase`): tokenizer of texts.
        Returns:
            `dict[str, list]`: as `targets`.
        """
        scene = {"tokens": objects.tokens, **self.object_targets(objects)}
        if "texts" in scene:
            scene["texts"] = _token_ids(scene["texts"], tokenizer)
        views = [True if is_known else None for is_known in objects.is_known]
        return {"views": views, **{name: [value] for name, value in scene.items()}}
