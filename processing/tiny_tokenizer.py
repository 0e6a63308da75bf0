"""A small tokenizer and processor made in code, for tests and for models that train in minutes on a CPU.

It is a real `Qwen2Tokenizer` with Qwen's special tokens: bytes, one token a digit, one token for each word of
`tiny_vocabulary`, with its space, and parts of words for all others, so that a question has about as many tokens as
words however it is asked. Only the fixed pieces of answers are longer: that for a marked pixel takes about 18 tokens.
"""

import json
from itertools import chain
from string import ascii_letters

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from .argument_checks import check_counts
from .input_checks_gap_mllm import check_flag
from .processing_gap_mllm import CHAT_TEMPLATE, GapMllmProcessor, default_image_processor
from .tiny_vocabulary import SENTENCE_STARTS, WORDS


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
QUOTED = tuple(f'{space}"{key}"' for space in ("", " ") for key in ("label", "pointmap", "bbox_3d", "box_3d", "frame"))
KEYS = ("bbox_3d", "box_3d", *(f"{axis}_{what}" for axis in "xyz" for what in ("center", "size")), "3D", " 3D")
TURNS = ("system\n", "user\n", "assistant\n", "Frame-", " Frame-", ": ")
# Around words: with the space before them, or the end of the line behind them.
PUNCTUATION = (
    *(".\n", ",\n", ":\n", "?\n", "!\n", ").", "),", "].", "].\n", '".', '",', '"?', '".\n'),
    *(' "', ' ("', " (", " [", '")'),
)
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
NUMBERS = tuple(f"{tenth / 10:.1f}" for tenth in range(-99, 100))


def build_tiny_tokenizer(number_pieces: bool = False) -> Qwen2Tokenizer:
    """Build the tokenizer; the same ids every time, below 6,000, nothing is downloaded.

    Args:
        number_pieces (`bool`, defaults to False): whether each number of one decimal from -9.9 to 9.9 that stands
            alone is one token; otherwise, as with two decimals, a token for each digit, point and sign.
    Returns:
        `Qwen2Tokenizer`: pads left with `<|endoftext|>`, ends turns with `<|im_end|>`, has our chat template.
    Raises:
        ValueError: if `number_pieces` is neither true nor false.

    Example:
        ```python
        >>> from gap_mllm.processing import build_tiny_tokenizer
        >>> tokenizer = build_tiny_tokenizer()
        >>> tokenizer.decode(tokenizer("a bed")["input_ids"]), len(tokenizer("Where is the white sofa?")["input_ids"])
        ('a bed', 6)

        ```
    """
    check_flag("number_pieces", number_pieces)
    vocabulary, merges = _word_pieces()
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=[token for token in SPECIAL_TOKENS if token not in ("<|endoftext|>", "<|im_end|>")],
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )
    pieces = [AddedToken(piece, normalized=False, special=False) for piece in (*ANSWER_PIECES, *TURNS, *QUOTED, *KEYS)]
    if number_pieces:
        pieces += [AddedToken(number, normalized=False, special=False, single_word=True) for number in NUMBERS]
    tokenizer.add_tokens(pieces)
    return tokenizer


def build_tiny_processor(
    max_pixels: int = 160 * 128, min_pixels: int = 32 * 32, number_pieces: bool = False, **image_kwargs
) -> GapMllmProcessor:
    """Build a processor around the tiny tokenizer.

    Args:
        max_pixels (`int`): the largest view; the default gives a 4:3 frame 4 x 5 merged tokens.
        min_pixels (`int`, defaults to `32 * 32`): the smallest view.
        number_pieces (`bool`, defaults to False): argument of `build_tiny_tokenizer`.
        **image_kwargs: further settings of the image processor, such as `patch_size`; videos follow.
    Returns:
        `GapMllmProcessor`: ready for use; a video of up to 16 frames keeps `max_pixels` a frame.
    Raises:
        ValueError: if a bound is no whole number above 0, the smallest view is larger than the largest, or
            `number_pieces` is neither true nor false.

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
    check_counts(max_pixels=max_pixels, min_pixels=min_pixels)
    if min_pixels > max_pixels:
        raise ValueError(f"min_pixels is {min_pixels} and max_pixels {max_pixels}; expected the smaller one first.")
    return GapMllmProcessor(
        image_processor=default_image_processor(min_pixels, max_pixels, **image_kwargs),
        tokenizer=build_tiny_tokenizer(number_pieces),
        video_processor={"size": {"longest_edge": 16 * max_pixels, "shortest_edge": 2 * min_pixels}},
    )


def _word_pieces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges: each word, the parts that it comes from, and last words and short parts with a space."""
    words = [*chain.from_iterable(WORDS.values()), *(word.capitalize() for word in SENTENCE_STARTS), "JSON"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2**16, min_frequency=1, initial_alphabet=sorted(alphabet), show_progress=False
    )  # until every word is one piece
    tokenizer.train_from_iterator([*words, *PUNCTUATION, *CONTRACTIONS], trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    vocabulary, merges = learned["vocab"], [tuple(merge) for merge in learned["merges"]]
    # Spaces join last, so that what is after one splits as at the start of a line.
    short = [piece for piece in vocabulary if len(piece) <= 3 and set(piece) <= {*ascii_letters}]
    for word in dict.fromkeys([*words, *short]):
        vocabulary[f"Ġ{word}"] = len(vocabulary)
        merges.append(("Ġ", word))
    return vocabulary, merges
