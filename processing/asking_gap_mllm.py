"""Asking a model: each set of views is encoded once, then all questions about it are answered in one batch.

The one generate loop of the package: `GapMllmProcessor.ask`, the demo, the evaluation runner and lmms-eval go through
it. Only what depends on the batch alone enters a number: a batch gives the same texts whatever ran before it.

Also the key-value caches of the beginnings of prompts, kept for further questions.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import ModelOutput

from .answer_grammar_gap_mllm import GrammarLogits, JsonEnd, JsonStopping, answer_grammar
from .answers_gap_mllm import BOX_KEYS, FRAME_KEY, LABEL_KEY, POINT_KEY
from .input_checks_gap_mllm import warn_of_unread_keys
from .model_state_gap_mllm import input_device, model_lock
from .video_processing_gap_mllm import CHOICE_OPTIONS
from .visual_prompt_gap_mllm import to_rgb_image


# Arguments of generate() that mean the same behind a cache. All others, as static caches, assistants or n-grams (which
# would be told across the padding in the middle), are answered from the whole prompt.
REUSABLE_OPTIONS = {
    *("max_new_tokens", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p", "min_p", "num_beams"),
    *("num_return_sequences", "length_penalty", "early_stopping", "eos_token_id", "pad_token_id", "bos_token_id"),
    *(
        "stop_strings",
        "stopping_criteria",
        "tokenizer",
        "streamer",
        "repetition_penalty",
        "logits_processor",
        "constrained",
    ),
}
_SAYS_NOTHING = {"transformers_version", "_from_model_config", "use_cache", "max_length"}


def can_reuse(model: PreTrainedModel, options: dict) -> bool:
    """Say whether answers of generate() with these options are the same behind a kept beginning.

    Args:
        model (`GapMllmForConditionalGeneration`): model that answers; its own generation config counts, too.
        options (`dict`): arguments of generate().
    """
    config = model.generation_config
    said = {name for name, value in config.to_diff_dict().items() if value not in (None, False)} - _SAYS_NOTHING
    layers = getattr(model.config.text_config, "layer_types", None) or ()
    return (
        not model.training
        and not (said | set(options)) - REUSABLE_OPTIONS
        and config.use_cache is not False
        and not any("sliding" in layer or "linear" in layer for layer in layers)
    )


class PromptPrefixes:
    """The newest few beginnings of prompts about one set of views.

    Args:
        size (`int`, defaults to 2): beginnings that are kept; the one used longest ago goes first.
    """

    def __init__(self, size: int = 2):
        self.size, self._kept = size, OrderedDict()

    def inputs(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        texts: list[str],
        image: dict,
        options: dict,
    ) -> dict | None:
        """Return what generate() needs for prompts behind their common beginning, padded between the two.

        Args:
            model (`GapMllmForConditionalGeneration`): model that answers, and that reads a new beginning.
            tokenizer (`PreTrainedTokenizerBase`): makes tokens of the texts.
            texts (`list[str]`): prompts, with an image token for each visual token.
            image (`dict`): `mm_encoder_outputs` and `image_grid_thw` of the views, which all prompts show.
            options (`dict`): arguments of generate(), of which those count that make several rows of one.
        Returns:
            `dict`: arguments of generate(); None where the prompts begin differently.
        """
        rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
        last = {len(row) - row[::-1].index(model.config.image_token_id) for row in rows}
        if len(last) > 1 or len({tuple(row[: max(last)]) for row in rows}) > 1:
            return None
        length = last.pop()
        prefix, deltas = self._read(model, rows[0][:length], image)
        copies = max(options.get(name) or getattr(model.generation_config, name) or 1 for name in _COPIES)
        width = max(map(len, rows)) - length
        pad = tokenizer.pad_token_id
        padded = [[*row[:length], *[pad] * (width + length - len(row)), *row[length:]] for row in rows]
        seen = [[1] * length + [0] * (width + length - len(row)) + [1] * (len(row) - length) for row in rows]
        model.model.rope_deltas = deltas.expand(len(rows), -1)  # generate() leaves that of another scene
        device = input_device(model)
        tokens = torch.tensor(padded, device=device)
        return {
            "input_ids": tokens,
            "attention_mask": torch.tensor(seen, device=device),
            "mm_token_type_ids": (tokens == model.config.image_token_id).int(),
            "past_key_values": _copies(prefix, len(rows) * copies),
        }

    def _read(self, model, tokens, image):
        """Cache and offset of positions of a beginning, read now or before."""
        key = tuple(tokens)
        if key not in self._kept:
            while len(self._kept) >= self.size:
                self._kept.popitem(last=False)
            ids = torch.tensor([tokens], device=input_device(model))
            cache = DynamicCache(config=model.config.text_config)
            model.model.rope_deltas = None
            types = (ids == model.config.image_token_id).int()
            model.model(input_ids=ids, mm_token_type_ids=types, past_key_values=cache, use_cache=True, **image)
            self._kept[key] = cache, model.model.rope_deltas
        self._kept.move_to_end(key)
        return self._kept[key]


_COPIES = ("num_beams", "num_return_sequences")


def _copies(cache, count):
    """A cache of so many rows that shares the tensors of one row: what is added makes new ones."""
    rows = [(layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1)) for layer in cache.layers]
    copied = DynamicCache()
    for index, (keys, values) in enumerate(rows):
        copied.update(keys, values, index)
    return copied


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
        written (`tuple[str, ...]`, defaults to none): keys of an object in the order in which we write them, for
            constrained answers; see `answer_grammar`.
    """

    max_new_tokens: int = 64
    keys: tuple[str, ...] = ()
    is_list: bool = False
    written: tuple[str, ...] = ()


_POINT = (LABEL_KEY, POINT_KEY)
# How the answers of the package's own tasks end; as long as the longest ones of the released data.
ANSWER_FORMS = {
    "reconstruction": AnswerForm(64, (POINT_KEY,), written=_POINT),
    "sparse_points": AnswerForm(640, (POINT_KEY,), True, _POINT),
    "reasoning_segmentation": AnswerForm(320, (POINT_KEY,), True, _POINT),
    "detection3d": AnswerForm(1280, BOX_KEYS, True, (LABEL_KEY, BOX_KEYS[0])),
    "grounding": AnswerForm(100, BOX_KEYS, written=(FRAME_KEY, BOX_KEYS[0])),
    "grounding_frame": AnswerForm(32, (FRAME_KEY,), written=(FRAME_KEY,)),
    "grounding_box": AnswerForm(128, BOX_KEYS, written=(BOX_KEYS[0],)),
    "dense_caption": AnswerForm(100),
}


@dataclass(frozen=True)
class GeneratedAnswer:
    """The text of an answer, and whether generation was cut off before its end (`truncated`)."""

    text: str
    truncated: bool = False


class EncodedScenes:
    """Scenes that the model has seen; made by `Asker.encode`.

    Args:
        features (`ModelOutput`): what `get_image_features` gave for all views.
        grid (`torch.Tensor` of shape `(N, 3)`): temporal patches, rows and columns of each view.
        lengths (`list[int]`): views of each scene.
        prefixes (`PromptPrefixes`, *optional*): keeps what the language model made of the prompts' beginnings; None
            reads each prompt anew.
    """

    def __init__(
        self,
        features: ModelOutput,
        grid: torch.Tensor,
        lengths: list[int],
        prefixes: PromptPrefixes | None = None,
    ):
        self.features, self.grid, self.lengths, self.prefixes = features, grid, lengths, prefixes

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
        constrained (`bool`, defaults to False): whether answers of a known form are constrained to it, where a call
            says nothing; free text never is.
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

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, constrained: bool = False):
        check_image_statistics(processor, model.config)
        if hasattr(model, "get_base_model"):  # of PEFT: its attribute `model` is another; the adapters lie in the base
            model = model.get_base_model()
        self.model, self.processor, self.constrained = model, processor, constrained

    @torch.no_grad()
    def encode(
        self,
        view_sets: list[list[Image.Image]],
        geometry_sets: list[list[Image.Image]] | None = None,
        known: Callable[[torch.Tensor], dict] | None = None,
    ) -> EncodedScenes:
        """Encode sets of views, each as one scene.

        Args:
            view_sets (`list[list[PIL.Image.Image]]`): pictures of each scene.
            geometry_sets (`list[list[PIL.Image.Image]]`, *optional*): pictures that geometry is taken from instead,
                of equal sizes.
            known (`Callable`, *optional*): function of the grid `(N, 3)` that tells what is known of the views,
                `intrinsics`, `poses` and `depth` of `get_geometry_features` by name.
        Returns:
            `EncodedScenes`.
        """
        with model_lock(self.model):
            pixels, lengths = self._pixels(view_sets), [len(views) for views in view_sets]
            base, geometry = self.model.model, None
            if geometry_sets is not None or known is not None:
                seen = pixels if geometry_sets is None else self._pixels(geometry_sets)
                told = {} if known is None else known(pixels["image_grid_thw"].cpu())
                geometry = base.get_geometry_features(**seen, scene_lengths=lengths, **told)
            features = base.get_image_features(
                **pixels, scene_lengths=lengths, geometry_features=geometry, return_dict=True
            )
        return EncodedScenes(features, pixels["image_grid_thw"].cpu(), lengths)

    def _pixels(self, view_sets):
        images = [image for views in view_sets for image in views]
        pixels = self.processor.image_processor(images=images, return_tensors="pt")
        device = input_device(self.model)
        return {name: pixels[name].to(device) for name in ("pixel_values", "image_grid_thw")}

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
            **options: further arguments of generate(), such as `do_sample=True` or `stop_strings=[...]`; and
                `constrained=True`, which allows only tokens of a valid answer (the extra "grammar").
        Returns:
            `list[str]`: one answer each, without special tokens; JSON answers are cut where they end.
        Raises:
            ValueError: if a chat shows another number of pictures than its scene has, or free text is to be
                constrained. ImportError: for constrained answers without xgrammar.
        """
        return [answer.text for answer in self.generate_answers(chats, form, encoded, scenes, **options)]

    @torch.no_grad()
    def generate_answers(
        self,
        chats: list[list[dict]],
        form: AnswerForm,
        encoded: EncodedScenes | None = None,
        scenes: list[int] | None = None,
        **options,
    ) -> list[GeneratedAnswer]:
        """As `ask`, and tells which answers were cut off.

        With `encoded.prefixes` the part of the prompts up to the last view is read once, where all chats begin alike
        and the options allow it (`can_reuse`); the answers are the same.
        """
        texts = [
            self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats
        ]
        with model_lock(self.model):
            if encoded is None:
                return self._generate(self._padded(texts), form, options)
            shown = [encoded.views(scene) for scene in scenes]
            pairs = zip(texts, shown, strict=True)
            texts = [self._with_image_tokens(text, encoded.grid[views]) for text, views in pairs]
            if encoded.prefixes is not None and len(set(scenes)) == 1 and can_reuse(self.model, options):
                image = self._image_inputs(encoded, shown[0])
                inputs = encoded.prefixes.inputs(self.model, self.processor.tokenizer, texts, image, options)
                if inputs is not None:
                    return self._generate(inputs, form, options)
            flat = [view for views in shown for view in views]
            return self._generate(self._padded(texts) | self._image_inputs(encoded, flat), form, options)

    def _image_inputs(self, encoded, views):
        features = self.model.model.select_views(encoded.features, views)
        grid = encoded.grid[views].to(input_device(self.model))
        return {"mm_encoder_outputs": {"image": features}, "image_grid_thw": grid}

    def _padded(self, texts):
        tokens = self.processor.tokenizer(texts, add_special_tokens=False, return_tensors="pt", **_PADDED)
        tokens = tokens.to(input_device(self.model))
        types = (tokens["input_ids"] == self.model.config.image_token_id).int()
        return {
            "input_ids": tokens["input_ids"],
            "attention_mask": tokens["attention_mask"],
            "mm_token_type_ids": types,
        }

    def _generate(self, inputs, form, options):
        """The answers to a padded batch of inputs."""
        tokenizer, length = self.processor.tokenizer, inputs["input_ids"].shape[1]
        options = {"max_new_tokens": form.max_new_tokens, "do_sample": False, **options}
        criteria = [*(options.pop("stopping_criteria", None) or ())]
        if self._is_constrained(form, options.pop("constrained", None)):
            grammar = answer_grammar(form.written, form.is_list)
            config = self.model.generation_config
            ends = options.get("eos_token_id", config.eos_token_id)
            ends = {*(ends if isinstance(ends, list | tuple) else [ends]), tokenizer.eos_token_id} - {None}
            masked = GrammarLogits(tokenizer, grammar, length, options["max_new_tokens"], sorted(ends))
            # What the grammar takes for an end must be one for generate() too, or text follows a whole answer.
            options |= {"eos_token_id": sorted(ends), "pad_token_id": tokenizer.pad_token_id}
            options["logits_processor"] = [*(options.get("logits_processor") or ()), masked]
        if form.keys:
            criteria.append(JsonStopping(tokenizer, length, form.keys, form.is_list))
        if options.get("stop_strings", self.model.generation_config.stop_strings):
            options["tokenizer"] = tokenizer
        output = self.model.generate(**inputs, stopping_criteria=criteria, **options)[:, length:]
        texts = self.processor.batch_decode(output, skip_special_tokens=True)
        return [self._answer(text, row, form, options) for text, row in zip(texts, output.tolist(), strict=True)]

    def _is_constrained(self, form, wanted):
        if wanted and not form.written:
            raise ValueError(
                "constrained=True needs an answer of a known form: one of the tasks "
                f"{', '.join(task for task, known in ANSWER_FORMS.items() if known.written)}, not free text."
            )
        return wanted or (wanted is None and self.constrained and bool(form.written))

    def _answer(self, text, tokens, form, options):
        """The answer up to where it ends, and whether that end came."""
        config = self.model.generation_config
        eos, pad = (options.get(name, getattr(config, name)) for name in ("eos_token_id", "pad_token_id"))
        ends = {*(eos if isinstance(eos, list | tuple) else [eos]), self.processor.tokenizer.eos_token_id}
        stops = options.get("stop_strings", config.stop_strings) or []
        stops = [stops] if isinstance(stops, str) else stops
        is_ended = not tokens or tokens[-1] == pad or any(token in ends for token in tokens)
        is_ended = is_ended or any(stop in text for stop in stops)
        if form.keys:
            reader = JsonEnd(form.keys, form.is_list)
            reader.read(text)
            is_ended, text = is_ended or reader.end is not None, text[: reader.end]
        return GeneratedAnswer(text, not is_ended)

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
        if any(part["type"] == "video" for chat in chats for part in chat_parts(chat)):
            inputs = self.processor.apply_chat_template(
                chats,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={**_PADDED, **chosen},
            )
            with model_lock(self.model), torch.no_grad():
                return [answer.text for answer in self._generate(inputs.to(input_device(self.model)), form, options)]
        for chat in chats:
            warn_of_unread_keys(chat_parts(chat))
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


def chat_parts(chat: list[dict]) -> list[dict]:
    """All parts of the turns of a chat, in their order; turns of plain text have none."""
    return [part for turn in chat if not isinstance(turn["content"], str) for part in turn["content"]]


def _pictures(chat):
    """The pictures of a chat, in their order."""
    pictures = []
    for part in chat_parts(chat):
        if part["type"] in ("image", "image_url"):
            picture = picture_of(part)
            if picture is None:
                raise ValueError(f"an image part of a chat holds no picture: {part}. Build it with build_messages.")
            pictures.append(picture)
    return pictures


def picture_of(part: dict):
    """The picture of an image part of a chat, None of a placeholder."""
    return next((part[key] for key in ("image", "path", "url", "image_url") if part.get(key) is not None), None)
