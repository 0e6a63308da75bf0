"""The processor: Qwen3-VL's inputs and nothing more, from any usual kind of picture, with or without torchvision.

The model rebuilds its geometry image from `pixel_values`, so there is no second image input. Texts and answers are in
`prompts_gap_mllm.py` and `answers_gap_mllm.py`, pictures and marks in `visual_prompt_gap_mllm.py`.
"""

import json
from collections.abc import Sequence
from importlib import import_module

import numpy as np
import torch
from transformers import BaseImageProcessor, PreTrainedModel, Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from transformers.processing_utils import ProcessorMixin
from transformers.utils import cached_file, is_torchvision_available, logging
from transformers.video_utils import VideoMetadata, make_batched_videos

from .answers_gap_mllm import ParsedAnswer, parse_boxes, parse_choice, parse_frame, parse_points
from .asking_gap_mllm import ANSWER_FORMS, VIDEO_OPTIONS, AnswerForm, Asker
from .input_checks_gap_mllm import mend_chat, mend_text, warn_of_unread_keys
from .prompts_gap_mllm import build_messages, focal_lengths, focal_text, name_marks, number_marks
from .scene_session_gap_mllm import SceneSession
from .video_processing_gap_mllm import GapMllmVideoProcessor, read_clips
from .visual_prompt_gap_mllm import CrossSize, apply_visual_prompt, as_marks, check_whole, to_rgb_image


logger = logging.get_logger(__name__)

MAX_PIXELS = 518 * 392  # 4:3 frames get 24 x 32 patches, the grid of the released training
MIN_PIXELS = 176 * 32 * 32  # so do small 4:3 frames, which are enlarged
MAX_ASPECT_RATIO = 200  # Qwen's limit

_TRAINING_VIEWS = ("training_view_size", "mark_arm", "mark_half_thickness", "intrinsics_in_prompt")
_SHARED_WITH_VIDEO = ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std")

# ChatML as Qwen3-VL writes it, tools included, and `generation` blocks around what the assistant says (for
# assistant_only_loss).
CHAT_TEMPLATE = """\
{%- macro render(content) -%}
{%- if content is string -%}
{{ content }}
{%- else -%}
{%- for part in content -%}
{%- if part.type == 'text' -%}
{{ part.text }}
{%- elif part.type in ('image', 'image_url') -%}
{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part.type == 'video' -%}
{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- else -%}
{{ raise_exception('content parts must be of type text, image or video, got ' ~ part.type) }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- if tools -%}
{{ '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' -%}
{{ render(messages[0].content) ~ '\\n\\n' }}
{%- endif -%}
{{ '# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n' }}
{{- 'You are provided with function signatures within <tools></tools> XML tags:\\n<tools>' }}
{%- for tool in tools -%}
{{ '\\n' ~ tool | tojson }}
{%- endfor -%}
{{ '\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within ' }}
{{- '<tool_call></tool_call> XML tags:\\n<tool_call>\\n{"name": <function-name>, "arguments": <args-json-object>}' }}
{{- '\\n</tool_call><|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{ '<|im_start|>assistant\\n' }}
{%- generation -%}
{%- set said = render(message.content or '') -%}
{{ said }}
{%- for call in message.tool_calls or [] -%}
{%- set call = call.function or call -%}
{%- set arguments = call.arguments if call.arguments is string else call.arguments | tojson -%}
{{ '\\n' if said or not loop.first }}
{{- '<tool_call>\\n{"name": "' ~ call.name ~ '", "arguments": ' ~ arguments ~ '}\\n</tool_call>' }}
{%- endfor -%}
{{ '<|im_end|>' }}
{%- endgeneration -%}
{{ '\\n' }}
{%- elif message.role == 'tool' -%}
{{ '<|im_start|>user' if loop.first or loop.previtem.role != 'tool' }}
{{- '\\n<tool_response>\\n' ~ render(message.content) ~ '\\n</tool_response>' }}
{{- '<|im_end|>\\n' if loop.last or loop.nextitem.role != 'tool' }}
{%- elif message.role in ('system', 'user') -%}
{%- if not (tools and loop.first and message.role == 'system') -%}
{{ '<|im_start|>' ~ message.role ~ '\\n' ~ render(message.content) ~ '<|im_end|>\\n' }}
{%- endif -%}
{%- else -%}
{{ raise_exception('roles must be system, user, assistant or tool, got ' ~ message.role) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


def default_image_processor(min_pixels: int = MIN_PIXELS, max_pixels: int = MAX_PIXELS, **kwargs):
    """Build the image processor that published GAP-MLLM weights expect (patch 16, merge 2, mean and std 0.5).

    Differs: the reference's scripts disagree about pixel bounds; these give its training grid for 4:3 frames.

    Args:
        min_pixels, max_pixels (`int`, defaults to `MIN_PIXELS` and `MAX_PIXELS`): bounds of a resized view, in pixels.
        **kwargs: further settings of `Qwen2VLImageProcessor`.
    Returns:
        `Qwen2VLImageProcessor`, or its PIL form where torchvision is not installed.

    Example:
        ```python
        >>> from gap_mllm.processing import GapMllmProcessor, build_tiny_tokenizer, default_image_processor
        >>> image_processor = default_image_processor(max_pixels=640 * 480)
        >>> GapMllmProcessor(image_processor, build_tiny_tokenizer()).image_processor.size["longest_edge"]
        307200

        ```
    """
    settings = {
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    settings["size"] = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    if is_torchvision_available():
        from transformers import Qwen2VLImageProcessor

        return Qwen2VLImageProcessor(**{**settings, **kwargs})
    from transformers import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(**{**settings, **kwargs})


class GapMllmProcessor(Qwen3VLProcessor):
    """Turns texts, views and videos into the inputs of GAP-MLLM, which are exactly those of Qwen3-VL.

    All pictures are first made upright 8-bit RGB (see `to_rgb_image`). Files of videos need PyAV
    (`pip install gap-mllm[video]`); torchvision is not needed, and changes neither inputs nor the saved folder.

    Args:
        image_processor (*optional*): a `Qwen2VLImageProcessor`; default `default_image_processor()`.
        tokenizer: a Qwen tokenizer.
        video_processor (*optional*): a `Qwen3VLVideoProcessor`, or its saved form as a dict, whose settings are
            taken; default as Qwen3-VL, with the patches and statistics of the image processor.
        chat_template (`str`, *optional*): default `CHAT_TEMPLATE`.
        training_view_size (`dict`, *optional*): "height" and "width" in pixels of the pictures that the model was
            trained on, before the image processor's resizing. Crosses on wider or narrower pictures are scaled with
            the width; None draws them with the same number of pixels on all.
        mark_arm, mark_half_thickness (`int`, *optional*): size of the crosses that the model was trained on, in pixels
            of such a picture, as for `draw_cross`; default: 10 and 2, as in the published training.
        intrinsics_in_prompt (`bool`, *optional*): whether its questions told focal lengths; those of evaluations then
            do as well.
    Raises:
        ValueError: if there is no tokenizer, or the size of views or crosses is none. TypeError: if the video
            processor is neither.

    Example:
        ```python
        >>> from PIL import Image
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> views = [Image.new("RGB", (128, 128)) for _ in range(2)]  # two views of one scene
        >>> views = processor.apply_visual_prompt(views, [0, 64, 32])  # red cross on view 0, x = 64, y = 32
        >>> messages = processor.build_messages("reconstruction", views)
        >>> inputs = processor.apply_chat_template(
        ...     messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ... )
        >>> inputs["image_grid_thw"].tolist()
        [[1, 8, 8], [1, 8, 8]]
        >>> processor.post_process_points(['{"label": "bed", "pointmap": [0.5, 0.1, 2.0]}'])[0].first.label
        'bed'

        ```
    """

    _auto_class = "AutoProcessor"  # transformers then saves the code with it, and names the class in the folder

    def __init__(
        self,
        image_processor: BaseImageProcessor | None = None,
        tokenizer=None,
        video_processor=None,
        chat_template: str | None = None,
        training_view_size: dict | None = None,
        mark_arm: int | None = None,
        mark_half_thickness: int | None = None,
        intrinsics_in_prompt: bool | None = None,
        **kwargs,
    ):
        if tokenizer is None:
            raise ValueError("GapMllmProcessor needs a tokenizer, for example AutoTokenizer.from_pretrained(...).")
        for name, default in (
            ("image", "<|image_pad|>"),
            ("video", "<|video_pad|>"),
            ("vision_start", "<|vision_start|>"),
            ("vision_end", "<|vision_end|>"),
        ):
            token = getattr(tokenizer, f"{name}_token", None) or default
            setattr(self, f"{name}_token", token)
            setattr(self, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
        # Not super(): it insists on a video processor that says to transformers that it needs torchvision.
        ProcessorMixin.__init__(
            self,
            image_processor=default_image_processor() if image_processor is None else image_processor,
            tokenizer=tokenizer,
            chat_template=CHAT_TEMPLATE if chat_template is None else chat_template,
        )
        self.video_processor = self._own_video_processor(video_processor)
        self.set_training_views(training_view_size, mark_arm, mark_half_thickness)
        self.intrinsics_in_prompt = intrinsics_in_prompt

    def set_training_views(
        self,
        training_view_size: dict[str, int] | None = None,
        mark_arm: int | None = None,
        mark_half_thickness: int | None = None,
    ) -> None:
        """Say how the model was trained; the arguments are those of the class, and are saved with it.

        Raises:
            ValueError: if a size is none.
        """
        size = training_view_size
        if size is not None and not (isinstance(size, dict) and set(size) == {"height", "width"}):
            raise ValueError(
                f"training_view_size is {size!r}; expected {{'height': pixels, 'width': pixels}} or None."
            )
        for name, value in (size or {}).items():
            check_whole(f"{name} of training_view_size", value, 1)
        for name, value, least in (("mark_arm", mark_arm, 1), ("mark_half_thickness", mark_half_thickness, 0)):
            if value is not None:
                check_whole(name, value, least)
        self.training_view_size, self.mark_arm, self.mark_half_thickness = size, mark_arm, mark_half_thickness

    @property
    def cross_size(self) -> CrossSize:
        """The crosses that the model knows, drawn where the caller says nothing."""
        size = self.training_view_size or {}
        known = {"arm": self.mark_arm, "half_thickness": self.mark_half_thickness, "view_width": size.get("width")}
        return CrossSize(**{name: value for name, value in known.items() if value is not None})

    def _own_video_processor(self, given) -> GapMllmVideoProcessor:
        """Ours with the settings of what is given, and by default the patches and statistics of the images."""
        if isinstance(given, Qwen3VLVideoProcessor):
            given = given.to_dict()
        elif given is not None and not isinstance(given, dict):
            raise TypeError(
                f"video_processor is a {type(given).__name__}; expected a Qwen3VLVideoProcessor or a dict."
            )
        shared = {name: getattr(self.image_processor, name) for name in _SHARED_WITH_VIDEO}
        settings = {**shared, **(given or {})}
        return GapMllmVideoProcessor(**{name: settings[name] for name in settings if not name.endswith("_type")})

    # Saving and loading

    @classmethod
    def get_attributes(cls):
        # The base class loads and counts these; the video processor is handled by this class alone.
        return ["image_processor", "tokenizer"]

    def to_dict(self) -> dict:
        saved = super().to_dict()
        saved["video_processor"] = json.loads(self.video_processor.to_json_string())
        said_nothing = [name for name in _TRAINING_VIEWS if saved.get(name) is None]
        return {name: value for name, value in saved.items() if name not in said_nothing}

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path, processor_dict=None, **kwargs):
        """Also picks up the separate file in which Qwen3-VL's own folders keep the video settings."""
        if processor_dict is not None and processor_dict.get("video_processor") is None:
            names = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
            path = cached_file(
                pretrained_model_name_or_path,
                "video_preprocessor_config.json",
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                **{name: kwargs[name] for name in names if kwargs.get(name) is not None},
            )
            if path is not None:
                with open(path, encoding="utf-8") as file:
                    processor_dict["video_processor"] = json.load(file)
        return super()._get_arguments_from_pretrained(pretrained_model_name_or_path, processor_dict, **kwargs)

    # Inputs

    @property
    def model_input_names(self) -> list[str]:
        return [*super().model_input_names, "pixel_values_videos", "video_grid_thw"]

    def __call__(self, images=None, text=None, videos=None, audio=None, **kwargs):
        """As `Qwen3VLProcessor`, with videos also by their paths, and more ways to choose their frames.

        Args:
            images, text, audio, **kwargs: arguments of `Qwen3VLProcessor`.
            videos (*optional*): paths of files, or frames as lists or arrays. Frames need `video_metadata`, one for
                each video: a `VideoMetadata` or a dict with "fps", and "frames_indices" where they are a choice.
            num_frames, fps, sampling, points_from, num_candidates (*optional*): fields of `FrameChoice`. Without
                `sampling` Qwen3-VL's own rule chooses: evenly spaced, `num_frames` of them, or `fps` (2) a second.
                Frames that are a choice already stay where none is asked for.
            do_sample_frames (`bool`, *optional*): False takes all frames.
        Returns:
            `BatchFeature`.
        Raises:
            ValueError, TypeError, ImportError, FileNotFoundError: as `read_clips`. ValueError: for intrinsics, poses
                or depth, which go into the model.

        Example:
            ```python
            >>> import numpy as np
            >>> from gap_mllm.processing import GapMllmProcessor
            >>> processor = GapMllmProcessor.from_pretrained(folder)
            >>> frames = np.zeros((8, 64, 64, 3), dtype=np.uint8)  # or the path of a video, without metadata
            >>> content = [{"type": "video", "video": frames}, {"type": "text", "text": "What is there?"}]
            >>> choice = {"sampling": "uniform", "num_frames": 4, "video_metadata": [{"fps": 2}]}
            >>> inputs = processor.apply_chat_template(
            ...     [{"role": "user", "content": content}], tokenize=True, return_dict=True, processor_kwargs=choice
            ... )
            >>> text = processor.decode(inputs["input_ids"][0])  # frames 0, 2, 4 and 7, in pairs
            >>> [part.split("<")[-1] for part in text.split(" seconds>")[:-1]]
            ['0.5', '2.8']

            ```
        """
        _refuse_known_geometry(kwargs)
        text = _mended(text)
        nested = dict(kwargs.pop("videos_kwargs", None) or {})
        # Taken out here: a model among them would be copied on the way to the video processor.
        options = {name: part.pop(name) for part in (nested, kwargs) for name in VIDEO_OPTIONS if name in part}
        if videos is not None:
            videos, metadata = read_clips(videos, self.video_processor, options.pop("video_metadata", None), **options)
            nested |= {"video_metadata": metadata, "do_sample_frames": False}
        return super().__call__(images=images, text=text, videos=videos, audio=audio, videos_kwargs=nested, **kwargs)

    def apply_chat_template(self, conversation, *args, **kwargs):
        """As in transformers; warns where a part of a chat asks for frames or sizes, which other arguments have to do.

        Halves of characters, as in texts that were cut in UTF-16, become U+FFFD, with a warning.
        """
        _refuse_known_geometry(kwargs)
        conversation = mend_chat(conversation)
        if kwargs.get("tokenize"):
            chats = [conversation] if isinstance(conversation[0], dict) else conversation
            turns = [turn for chat in chats for turn in chat]
            parts = [part for turn in turns for part in turn.get("content") or () if isinstance(part, dict)]
            warn_of_unread_keys(parts)
        return super().apply_chat_template(conversation, *args, **kwargs)

    def prepare_inputs_layout(self, images: Sequence | None = None, text=None, videos=None, audio=None, **kwargs):
        """Decode and flatten the pictures, and check them against the texts, row by row where they are nested."""
        _, text, videos, audio = super().prepare_inputs_layout(
            images=None, text=text, videos=videos, audio=audio, **kwargs
        )
        if images is None:
            return None, text, videos, audio
        rows = _as_rows(images)
        is_nested = isinstance(images, list | tuple) and any(isinstance(row, list | tuple) for row in images)
        if text is not None and is_nested and not kwargs.get("sanitize_control_tokens"):
            self._check_rows(text, rows)
        views = []
        for row_index, row in enumerate(rows):
            for image_index, image in enumerate(row):
                name = f"image {image_index} of row {row_index}" if is_nested else f"image {image_index}"
                views.append(_check_size(to_rgb_image(image, name), name))
        return views or None, text, videos, audio

    def validate_inputs(self, images=None, text=None, videos=None, audio=None, **kwargs):
        """Also counts the places in the texts, as transformers does itself from 5.23 on."""
        super().validate_inputs(images=images, text=text, videos=videos, audio=audio, **kwargs)
        if text is None:
            return
        videos = () if videos is None else make_batched_videos(videos)
        for name, token, given in (("images", self.image_token, images or ()), ("videos", self.video_token, videos)):
            found = sum(sample.count(token) for sample in text)
            if found != len(given):
                raise ValueError(
                    f"Found {found} {token} tokens in the text but {len(given) or 'no'} {name} were passed; give one "
                    "for each."
                )

    def _check_rows(self, text: list[str], rows: list[list]) -> None:
        if len(text) != len(rows):
            raise ValueError(f"{len(text)} texts were given with {len(rows)} rows of images; give one row per text.")
        for index, (sample, row) in enumerate(zip(text, rows, strict=True)):
            count = sample.count(self.image_token)
            if count != len(row):
                raise ValueError(
                    f"text {index} holds {count} {self.image_token} tokens, but {len(row)} images were given for it."
                )

    def _process_images(self, images, **kwargs):
        """As in transformers; a picture that is given several times, as for several answers, is processed once."""
        _check_unchanged("image", self.image_processor, kwargs)
        distinct = {id(image): image for image in images}
        inputs, texts = super()._process_images(list(distinct.values()), **kwargs)
        if len(distinct) < len(images):
            place = {key: index for index, key in enumerate(distinct)}
            shown = [place[id(image)] for image in images]
            ends = np.cumsum([int(t * h * w) for t, h, w in inputs["image_grid_thw"]])
            patches = np.split(np.arange(ends[-1]), ends[:-1])
            inputs["pixel_values"] = inputs["pixel_values"][np.concatenate([patches[index] for index in shown])]
            inputs["image_grid_thw"], texts = inputs["image_grid_thw"][shown], [texts[index] for index in shown]
        return inputs, texts

    def _process_videos(self, videos, **kwargs):
        _check_unchanged("video", self.video_processor, kwargs)
        return super()._process_videos(videos, **kwargs)

    def replace_video_token(self, video_inputs: dict, video_idx: int, **kwargs) -> str:
        """As in Qwen3-VL, with the exact times of the frames where the rate of a video changes."""
        seconds = video_inputs["video_metadata"][video_idx].seconds
        timed = VideoMetadata(total_num_frames=len(seconds), fps=1, frames_indices=list(seconds))
        return super().replace_video_token({**video_inputs, "video_metadata": {video_idx: timed}}, video_idx, **kwargs)

    # Prompts and answers

    def build_messages(
        self,
        task: str,
        images: int | Sequence,
        marks: Sequence | None = None,
        intrinsics: Sequence | None = None,
        **kwargs,
    ) -> list[dict]:
        """Build the chat messages of one question; see `build_messages` in `prompts_gap_mllm.py`.

        With `marks`, as for `apply_visual_prompt`, crosses of the size that the model knows are drawn on the views;
        where all have one colour, the text names it. "reconstruction" asks about one mark, "sparse_points" about any
        number of them, on any views: they are numbered and coloured by `number_marks`, and answered in that order.

        With `intrinsics`, `(3, 3)` or `(V, 3, 3)` in pixels of the given views, a sentence tells the focal length of
        each view in pixels of what the model sees, after the image processor's resizing (`focal_lengths`). That is
        for models that were trained so.

        Raises:
            ValueError: also if the number of marks does not fit the task, or as `number_marks` and `focal_lengths`;
                for intrinsics without views.
        """
        if intrinsics is not None:
            if isinstance(images, int):
                raise ValueError("intrinsics are told in pixels of the views: give the views, not their number.")
            sizes = [to_rgb_image(image, f"image {index}").size for index, image in enumerate(images)]
            kwargs["preface"] = focal_text(focal_lengths(self.image_processor, sizes, intrinsics))
        if marks is not None and task == "sparse_points":
            marks = number_marks(marks, None if isinstance(images, int) else len(images))
            images = self.apply_visual_prompt(images, marks)
            kwargs.setdefault("crosses", name_marks(marks))
        elif marks is not None:
            if task == "reconstruction" and len(as_marks(marks)) != 1:
                raise ValueError(
                    f"task 'reconstruction' asks about one mark, got {len(as_marks(marks))}; ask about several by the "
                    "task 'sparse_points'."
                )
            images = self.apply_visual_prompt(images, marks)
            colors = [mark.color for mark in as_marks(marks)]
            if colors and isinstance(colors[0], str) and colors.count(colors[0]) == len(colors):
                kwargs.setdefault("color", colors[0])
        return build_messages(task, images, **kwargs)

    def apply_visual_prompt(
        self, images: Sequence, marks: Sequence, arm: int | None = None, half_thickness: int | None = None
    ) -> list:
        """Draw crosses on marked pixels of a scene; see `apply_visual_prompt` in `visual_prompt_gap_mllm.py`.

        Args:
            images (list), marks (list): views and their marks, as there.
            arm, half_thickness (`int`, *optional*): size of the cross in pixels of each view. Default: what the model
                was trained with (`cross_size`), scaled from the width of its training views to that of the view, if
                that is saved.
        Returns:
            `list`: marked views.
        Raises:
            TypeError, ValueError: as there.
        """
        return apply_visual_prompt(images, marks, arm, half_thickness, self.cross_size)

    def ask(self, model: PreTrainedModel, chats: list[list[dict]], task: str | None = None, **options) -> list[str]:
        """Answer chats in one batch, greedily; views that several chats share are encoded once.

        Args:
            model (`GapMllmForConditionalGeneration`): the model, in evaluation mode.
            chats (`list[list[dict]]`): one conversation each, as `build_messages` gives them.
            task (`str`, *optional*): key of `ANSWER_FORMS`; generation then stops where the JSON answer is complete,
                and text behind it is cut off. Free text by default.
            **options: further arguments of generate(), as `max_new_tokens` (64 for free text) or `do_sample`; for
                videos also those by which the processor chooses frames, as `num_frames`. `constrained=True` allows
                only tokens with which the answer to a task stays valid (the extra "grammar").
        Returns:
            `list[str]`: one answer each, for `post_process_points` and its like.
        Raises:
            TypeError: if `chats` is one conversation. ValueError: if the task is unknown, an image part holds no
                picture, some chats show pictures and others none (but beside videos), or the model expects pixels that
                are normalised otherwise. ImportError, FileNotFoundError, ValueError: for videos as when called, and
                ImportError for constrained answers without xgrammar.

        Example:
            ```python
            >>> from gap_mllm import GapMllmForConditionalGeneration
            >>> from gap_mllm.processing import GapMllmProcessor
            >>> from gap_mllm.processing.data import render_room
            >>> model = GapMllmForConditionalGeneration.from_pretrained(folder).eval()
            >>> processor = GapMllmProcessor.from_pretrained(folder)
            >>> views = processor.apply_visual_prompt(list(render_room(0).images), [0, 64, 96])
            >>> messages = processor.build_messages("reconstruction", views)
            >>> text = processor.ask(model, [messages], task="reconstruction")[0]
            >>> len(processor.post_process_points([text])[0].first.point)
            3

            ```
        """
        if not isinstance(chats, list | tuple) or any(isinstance(chat, dict) for chat in chats):
            raise TypeError("chats must be a list of conversations; for a single one write [messages].")
        if task is not None and task not in ANSWER_FORMS:
            raise ValueError(f"unknown task {task!r}; known are {', '.join(ANSWER_FORMS)}, or None for free text.")
        return Asker(model, self).answer(chats, ANSWER_FORMS[task] if task else AnswerForm(), **options)

    def open_scene(self, model: PreTrainedModel, views, **options) -> SceneSession:
        """Open a scene that is encoded once and can be asked many things.

        Args:
            model (`GapMllmForConditionalGeneration`), views (list, `str` or `Path`): arguments of `SceneSession`.
            **options: its further arguments, as `intrinsics` and `poses`.
        Returns:
            `SceneSession`.
        Raises:
            ValueError, FileNotFoundError, TypeError: as there.
        """
        return SceneSession(model, self, views, **options)

    def post_process_points(
        self, texts: list[str], convention: str = "ours", **pictures: object
    ) -> list[ParsedAnswer]:
        """Read labelled 3D points from answers; see `parse_points`.

        Args:
            texts (`list[str]`): decoded answers.
            convention (`str`, defaults to "ours"), **pictures: arguments of `parse_points`, for answers of others.
        Returns:
            `list[ParsedAnswer]`: per text, `LabelledPoint` (or `ImagePoint`) items and what was rejected; of an answer
            about several marks, `entries` are both in the order of the marks.
        Raises:
            TypeError: if `texts` is one string, or holds anything but strings. ValueError: as `parse_points`.
        """
        return [parse_points(text, convention, **pictures) for text in _as_texts(texts)]

    def post_process_boxes(
        self,
        texts: list[str],
        require_label: bool = False,
        convention: str = "ours",
        duplicates_iou: float | None = None,
        **pictures: object,
    ) -> list[ParsedAnswer]:
        """Read 9-DoF boxes from answers; see `parse_boxes`.

        Args:
            texts (`list[str]`): decoded answers.
            require_label (`bool`, defaults to False): refuse boxes without a label, as detection does.
            convention (`str`, defaults to "ours"), **pictures: arguments of `parse_boxes`, for answers of others.
            duplicates_iou (`float`, *optional*): overlap from which a box is a duplicate of an earlier one of its
                label, and rejected as such; see `remove_duplicates`. By default all are kept.
        Returns:
            `list[ParsedAnswer]`: per text, `LabelledBox` items and what was rejected.
        Raises:
            TypeError: if `texts` is one string, or holds anything but strings. ValueError: as `parse_boxes`.
            ImportError: for duplicates where this package is not installed.
        """
        answers = [parse_boxes(text, require_label, convention, **pictures) for text in _as_texts(texts)]
        if duplicates_iou is None:
            return answers
        try:
            boxes = import_module("gap_mllm.processing.boxes")  # exact overlaps are not part of the remote code
        except ImportError as error:
            raise ImportError(f"duplicates_iou needs the package: pip install gap-mllm ({error}).") from error
        return [boxes.remove_duplicates(answer, duplicates_iou) for answer in answers]

    def post_process_frame(self, texts: list[str], num_frames: int | None = None) -> list[ParsedAnswer]:
        """Read the chosen frame from answers; see `parse_frame`.

        Args:
            texts (`list[str]`): decoded answers.
            num_frames (`int`, *optional*): number of views shown.
        Returns:
            `list[ParsedAnswer]`: per text, `.first` is the frame index or None.
        Raises:
            TypeError: if `texts` is one string, or holds anything but strings.
        """
        return [parse_frame(text, num_frames) for text in _as_texts(texts)]

    def post_process_choice(self, texts: list[str], letters: str = "ABCDEF") -> list[ParsedAnswer]:
        """Read the letters of multiple-choice answers; see `parse_choice`.

        Args:
            texts (`list[str]`): decoded answers.
            letters (`str`, defaults to "ABCDEF"): the capitals that are offered.
        Returns:
            `list[ParsedAnswer]`: per text, `.first` is the letter or None.
        Raises:
            TypeError: if `texts` is one string, or holds anything but strings.
            ValueError: if `letters` is not made of capitals.
        """
        return [parse_choice(text, letters) for text in _as_texts(texts)]


def _check_unchanged(kind: str, processor, kwargs: dict) -> None:
    for name in ("do_rescale", "rescale_factor", "do_normalize", *_SHARED_WITH_VIDEO):
        default = getattr(processor, name)
        if kwargs.get(name) is not None and not np.allclose(kwargs[name], default):
            raise ValueError(
                f"{name}={kwargs[name]} differs from the {kind} processor's {default}. GAP-MLLM rebuilds the geometry "
                "image from pixel_values and must know how they were made; do not change it for one call."
            )


def _as_rows(images) -> list[list]:
    """One flat list of pictures per row of the batch; an array with four dimensions is a list of pictures."""
    if _is_stack(images):
        return [list(images)]
    if not isinstance(images, list | tuple):
        return [[images]]
    if any(isinstance(entry, list | tuple) for entry in images):
        return [_flat(entry) for entry in images]
    return [_flat(images)]


def _flat(images) -> list:
    if _is_stack(images) or isinstance(images, list | tuple):
        return [picture for entry in images for picture in _flat(entry)]
    return [images]


def _mended(text):
    """A text, or lists of texts, without halves of characters."""
    if isinstance(text, list | tuple):
        return [_mended(each) for each in text]
    return mend_text(text) if isinstance(text, str) else text


def _is_stack(images) -> bool:
    return isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4


def _refuse_known_geometry(given):
    """transformers would leave it aside, with a line in the log."""
    names = [name for name in ("intrinsics", "poses", "depth") if given.get(name) is not None]
    if names:
        raise ValueError(
            f"The processor got {', '.join(names)}, but hands on pixels and text alone: it would be lost. Give it to "
            "the model, as geometry_features=model.model.get_geometry_features(...)."
        )


def _check_size(image, name: str):
    width, height = image.size
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ValueError(
            f"{name} is {width} x {height} pixels (width x height); the longer side may be at most "
            f"{MAX_ASPECT_RATIO} times the shorter."
        )
    return image


def _as_texts(texts) -> list[str]:
    if isinstance(texts, str):
        raise TypeError("texts must be a list of decoded answers, got one string; wrap it in a list.")
    return list(texts)
