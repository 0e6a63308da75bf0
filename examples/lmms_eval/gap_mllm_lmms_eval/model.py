"""GAP-MLLM as a chat model of lmms-eval: `lmms-eval --model gap_mllm --model_args pretrained=FOLDER`.

Questions go through the `Asker` of `gap-mllm evaluate`, in batches of the same make: pictures of one document are one
scene, scenes of equal shape share a batch, and a scene that several questions of a batch share is encoded once.
"""

import hashlib
from itertools import groupby

import torch
from accelerate import Accelerator
from lmms_eval.api.model import lmms
from tqdm import tqdm
from transformers import AutoModel, AutoProcessor
from transformers.utils import logging

import gap_mllm  # noqa: F401  makes the Auto classes know the model
from gap_mllm.processing.asking_gap_mllm import AnswerForm, Asker
from gap_mllm.processing.prompts_gap_mllm import SYSTEM_PROMPT

from .chats import chat_shape, num_characters, read_chat, show_views
from .settings import KNOWN, GenerationSettings


logger = logging.get_logger(__name__)


class GapMllm(lmms):
    """GAP-MLLM for lmms-eval.

    Args:
        pretrained (`str`): folder of `save_for_hub` or `gap-mllm convert`, or repository of the Hub.
        batch_size (`int` or `str`): questions of one call of generate().
        device (`str`, *optional*): such as "cuda:0" or "cpu"; CUDA where it is there. Under `accelerate launch` each
            process takes its own.
        dtype (`str`): of the weights, such as "bfloat16"; that of the checkpoint by default.
        attn_implementation (`str`, *optional*): of `from_pretrained`.
        max_num_frames (`int`): evenly spaced frames to take of a video.
        max_new_tokens (`int`): for tasks that name none.
        system_prompt (`str`): the system turn that the model was trained with; "" for none.
        max_batch_size (`int`, *optional*): what lmms-eval passes along for "auto"; must be left out.
    Raises:
        ValueError: if `batch_size` is not a positive number, or `max_num_frames` or `max_new_tokens` is below 1.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str = "auto",
        attn_implementation: str | None = None,
        max_num_frames: int = 32,
        max_new_tokens: int = 64,
        system_prompt: str = SYSTEM_PROMPT,
        max_batch_size: int | None = None,
    ):
        super().__init__()
        self._batch_size = _positive("batch_size", batch_size)
        self.max_num_frames = _positive("max_num_frames", max_num_frames)
        self.max_new_tokens = _positive("max_new_tokens", max_new_tokens)
        if max_batch_size is not None:
            raise ValueError(f"max_batch_size is {max_batch_size}, but no size is searched for; give --batch_size N.")
        self.system_prompt = system_prompt
        wanted = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.accelerator = Accelerator(cpu=wanted.type == "cpu")
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self._device = self.accelerator.device if self._world_size > 1 else wanted
        more = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
        # Not .to(device) afterwards: from_pretrained chooses attention for where it loads to.
        model = AutoModel.from_pretrained(str(pretrained), dtype=dtype, device_map=self._device, **more)
        self._model = model.eval()
        self.processor = AutoProcessor.from_pretrained(str(pretrained))

    @property
    def batch_size(self) -> int:
        return self._batch_size

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def model(self):
        return self._model

    @property
    def tokenizer(self):
        return self.processor.tokenizer

    def generate_until(self, requests) -> list[str]:
        """Answer the requests of a task.

        Args:
            requests (`list[lmms_eval.api.instance.Instance]`)
        Returns:
            `list[str]`: an answer each, in their order.
        Raises:
            ValueError, TypeError: of `GenerationSettings.read` and `read_chat`, with the task and document named.
        """
        answers = [None] * len(requests)
        batches = self._make_batches(requests)
        for settings, places in tqdm(batches, desc="gap_mllm", unit="batch", disable=self.rank != 0):
            texts = self._answer([requests[place] for place in places], settings)
            for place, text in zip(places, texts, strict=True):
                answers[place] = text
        return answers

    def loglikelihood(self, requests):
        """Not offered: tasks that compare likelihoods cannot be run."""
        raise NotImplementedError("GAP-MLLM answers in text; choose a task whose output_type is generate_until.")

    def generate_until_multi_round(self, requests):
        """Not offered: tasks of several rounds cannot be run."""
        raise NotImplementedError("GAP-MLLM answers in one round; choose a task whose output_type is generate_until.")

    def _make_batches(self, requests):
        """Places of the requests that are answered together, as `gap_mllm.evaluation.runner.plan` groups them."""
        keyed, left_out = [], set()
        for place, request in enumerate(requests):
            _, _, given, doc_id, task, _ = request.args
            with _naming(task, doc_id):
                chat, settings = self._chat(request), GenerationSettings.read(given, self.max_new_tokens)
                group = repr(settings), repr(chat_shape(chat))
            left_out |= {key for key in given if key not in KNOWN}
            keyed.append((group, num_characters(chat), _name(self._doc(request), doc_id), place, settings))
        if left_out:
            logger.warning_once(f"generation_kwargs without effect on GAP-MLLM: {', '.join(sorted(left_out))}.")
        batches = []
        for _, members in groupby(sorted(keyed, key=lambda entry: entry[:4]), key=lambda entry: entry[0]):
            members = list(members)
            places, settings = [member[3] for member in members], members[0][4]
            for start in range(0, len(places), self.batch_size):
                batches.append((settings, places[start : start + self.batch_size]))
        return batches

    def _answer(self, requests, settings):
        """Texts of the answers of one batch."""
        chats, scenes, view_sets, known = [], [], [], {}
        for request in requests:
            with _naming(request.args[4], request.args[3]):
                messages, views = show_views(self._chat(request), self.max_num_frames)
            chats.append(messages)
            scenes.append(known.setdefault(_digest(views), len(view_sets)))
            if scenes[-1] == len(view_sets):
                view_sets.append(views)
        options = dict(settings.options)
        if settings.stop_strings:
            options["stop_strings"] = list(settings.stop_strings)
        asker = Asker(self._model, self.processor)
        encoded = asker.encode(view_sets) if view_sets[0] else None  # of equal shape: all show pictures, or none
        texts = asker.ask(chats, AnswerForm(settings.max_new_tokens), encoded, scenes, **options)
        return [settings.cut(text) for text in texts]

    def _doc(self, request):
        _, _, _, doc_id, task, split = request.args
        return self.task_dict[task][split][doc_id]

    def _chat(self, request):
        return read_chat(request.args[1](self._doc(request)), self.system_prompt)


class _naming:  # noqa: N801  used as a statement
    """Puts task and document before the message of an error about them."""

    def __init__(self, task, doc_id):
        self.where = f"{task}, document {doc_id}"

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if isinstance(error, ValueError | TypeError):
            raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{self.where}: {error}") from error


def _digest(views):
    """Equal for equal pictures in equal order."""
    digest = hashlib.sha256()
    for view in views:
        digest.update(repr(view.size).encode())
        digest.update(view.tobytes())
    return digest.digest()


def _name(doc, doc_id):
    """What settles the order of questions of equal length: the document's id, or its place."""
    name = doc.get("id")
    return f"{doc_id:07d}" if name is None else str(name)


def _positive(name, value):
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} is {value!r}; expected a number of at least 1.")
    return number
