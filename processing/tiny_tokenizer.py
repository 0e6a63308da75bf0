"""A small tokenizer and processor made in code, for tests and for models that train in minutes on a CPU.

It is a real `Qwen2Tokenizer` with Qwen's special tokens: bytes, one token a digit, and one token for each fixed piece
of our prompts and answers. The answer for a marked pixel takes about 18 tokens, and any text can still be written.
"""

import re

from tokenizers import AddedToken, pre_tokenizers
from transformers import Qwen2Tokenizer

from .processing_gap_mllm import CHAT_TEMPLATE, GapMllmProcessor, default_image_processor
from .prompts_gap_mllm import (
    CAPTION_PROMPT,
    DETECTION_PROMPT,
    GROUNDING_BOX_PROMPT,
    GROUNDING_FRAME_PROMPT,
    RECONSTRUCTION_PROMPT,
    SYSTEM_PROMPT,
)
from .visual_prompt_gap_mllm import MARK_COLORS


SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
ANSWER_PIECES = (
    '```json\n{"label": "',
    '```json\n{"pointmap": [',
    '", "pointmap": [',
    "]}\n```",
    '```json\n[\n\t{"label": "',
    '", "bbox_3d": [',
    ']},\n\t{"label": "',
    "]}\n]```",
    "```json\n[\n\t\n]```",
    '```json\n\t{"bbox_3d": [',
    '```json\n\t{"frame": ',
    "}\n```",
    ", ",
)
LABELS = tuple(
    "wall floor ceiling table chair cabinet bed sofa couch desk shelf bookshelf lamp door window box ball sphere "
    "cylinder cone pillar plant picture curtain sink toilet bathtub towel refrigerator oven stove microwave counter "
    "dresser nightstand stool bench pillow blanket mirror television monitor computer keyboard printer backpack bag "
    "bin book clock rug piano stairs stand ottoman object".split()
)
COLORS = (*MARK_COLORS, "black", "grey", "brown", "purple", "pink", "teal", "beige", "light", "dark")
WORDS = tuple(
    "the is of to in on it and that this there at by with for from near behind between above below under front back "
    "left right side next closest farthest room corner middle center wooden small large tall short round square first "
    "second last frame view camera image which where what how many far away facing standing leaning against other "
    "another cross marked pixel point meters describe".split()
)


def build_tiny_tokenizer() -> Qwen2Tokenizer:
    """Build the tokenizer; the same ids every time, below 600, nothing is downloaded.

    Returns:
        `Qwen2Tokenizer`: pads left with `<|endoftext|>`, ends turns with `<|im_end|>`, has our chat template.

    Example:
        ```python
        >>> from gap_mllm.processing import build_tiny_tokenizer
        >>> tokenizer = build_tiny_tokenizer()
        >>> tokenizer.decode(tokenizer("a bed")["input_ids"]), len(tokenizer) < 600
        ('a bed', True)

        ```
    """
    vocabulary = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=[token for token in SPECIAL_TOKENS if token not in ("<|endoftext|>", "<|im_end|>")],
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )
    tokenizer.add_tokens([AddedToken(piece, normalized=False, special=False) for piece in _pieces()])
    return tokenizer


def build_tiny_processor(max_pixels: int = 160 * 128, min_pixels: int = 32 * 32, **image_kwargs) -> GapMllmProcessor:
    """Build a processor around the tiny tokenizer.

    Args:
        max_pixels (`int`): the largest view; the default gives a 4:3 frame 4 x 5 merged tokens.
        min_pixels (`int`, defaults to `32 * 32`): the smallest view.
        **image_kwargs: further settings of the image processor, such as `patch_size`; videos follow.
    Returns:
        `GapMllmProcessor`: ready for use; a video of up to 16 frames keeps `max_pixels` a frame.

    Example:
        ```python
        >>> from PIL import Image
        >>> from gap_mllm.processing import build_tiny_processor
        >>> processor = build_tiny_processor()
        >>> image = Image.new("RGB", (160, 128))
        >>> processor(images=[image], text=["<|image_pad|>"], return_tensors="pt")["image_grid_thw"].tolist()
        [[1, 8, 10]]

        ```
    """
    return GapMllmProcessor(
        image_processor=default_image_processor(min_pixels, max_pixels, **image_kwargs),
        tokenizer=build_tiny_tokenizer(),
        video_processor={"size": {"longest_edge": 16 * max_pixels, "shortest_edge": 2 * min_pixels}},
    )


def _pieces() -> list[str]:
    """The pieces in a fixed order, each once. Where several fit, the tokenizer takes the longest."""
    prompts = (RECONSTRUCTION_PROMPT, DETECTION_PROMPT, GROUNDING_FRAME_PROMPT, GROUNDING_BOX_PROMPT, CAPTION_PROMPT)
    fixed = [part for prompt in prompts for part in re.split(r"\{\w+\}", prompt) if len(part) > 1]
    turns = [SYSTEM_PROMPT, "system\n", "user\n", "assistant\n", "Frame-", ": "]
    spaced = [f" {word}" for word in (*LABELS, *COLORS, *WORDS)]
    return list(dict.fromkeys([*ANSWER_PIECES, *turns, *fixed, *LABELS, *COLORS, *spaced]))
