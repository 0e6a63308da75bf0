"""GAP-MLLM as a model of VLMEvalKit: all pictures of a message are the views of one scene."""

from collections.abc import Callable, Sequence

import torch
from transformers import AutoModel, AutoProcessor
from vlmeval.vlm.base import BaseModel  # pyright: ignore[reportMissingImports]

import gap_mllm  # noqa: F401  makes the Auto classes know the model
from gap_mllm.processing.asking_gap_mllm import AnswerForm, Asker
from gap_mllm.processing.data.scene_sample import View
from gap_mllm.processing.data.video_frames import read_video_views
from gap_mllm.processing.prompts_gap_mllm import SYSTEM_PROMPT
from gap_mllm.processing.visual_prompt_gap_mllm import to_rgb_image


class GapMllm(BaseModel):
    """GAP-MLLM for VLMEvalKit, by the code that `gap-mllm evaluate` answers with.

    Args:
        model_path (`str`): folder of `save_for_hub` or `gap-mllm convert`, or repository of the Hub.
        max_new_tokens (`int`, defaults to 64): bound of an answer.
        num_frames (`int`, defaults to 32): evenly spaced frames to take of a video that comes whole.
        dtype (`str`, defaults to "auto"): dtype of the weights, by default that of the checkpoint.
        device (`str`, *optional*): such as "cpu"; CUDA where it is there.
        system_prompt (`str`, defaults to the one of training): the system turn; "" for none.
    Raises:
        ValueError: if `max_new_tokens` or `num_frames` is below 1, or as `Asker`.
    """

    INTERLEAVE = True
    VIDEO_LLM = False  # the kit's datasets choose the frames of their videos, and send pictures
    allowed_types = ["text", "image", "video"]

    def __init__(
        self,
        model_path: str,
        max_new_tokens: int = 64,
        num_frames: int = 32,
        dtype: str = "auto",
        device: str | None = None,
        system_prompt: str = SYSTEM_PROMPT,
    ):
        super().__init__()
        for name, number in (("max_new_tokens", max_new_tokens), ("num_frames", num_frames)):
            if number < 1:
                raise ValueError(f"{name} is {number}; expected at least 1.")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        model = AutoModel.from_pretrained(model_path, dtype=dtype, device_map=device).eval()
        self.asker = Asker(model, AutoProcessor.from_pretrained(model_path))
        self.form, self.num_frames, self.system_prompt = AnswerForm(max_new_tokens), num_frames, system_prompt

    def set_dump_image(self, dump_image_func: Callable) -> None:
        """Take the kit's function that writes pictures of a row; prompts are the datasets' own, so nothing asks it."""
        self.dump_image_func = dump_image_func

    def generate_inner(self, message: Sequence[dict], dataset: str | None = None) -> str:
        """Answer one question greedily.

        Args:
            message (list of `dict`): parts in order, with "type" (text, image or video) and "value", the text or a
                path.
            dataset (`str`, *optional*): name of the benchmark, which is not looked at.
        Returns:
            `str`: the answer.
        Raises:
            ValueError: on another type of part. FileNotFoundError: on a path that is not there.
        """
        content = []
        for part in message:
            if part["type"] == "text":
                content.append({"type": "text", "text": part["value"]})
            else:
                content += [{"type": "image", "image": view} for view in self._views(part)]
        views = [part["image"] for part in content if part["type"] == "image"]
        chat = [{"role": "user", "content": content}]
        if self.system_prompt:
            chat.insert(0, {"role": "system", "content": [{"type": "text", "text": self.system_prompt}]})
        encoded = self.asker.encode([views]) if views else None
        return self.asker.ask([chat], self.form, encoded, [0])[0]

    def _views(self, part):
        if part["type"] == "image":
            return [to_rgb_image(part["value"])]
        if part["type"] == "video":
            return [View(picture=view["image"]).image for view in read_video_views(part["value"], self.num_frames)]
        raise ValueError(f"a message holds a part of type {part['type']!r}; expected text, image or video.")
