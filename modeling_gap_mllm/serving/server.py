"""`transformers serve` with one GAP-MLLM in it.

It finds a model's class in tables of its own that know no other packages, answers what is wrong with a request by
"Internal Server Error", and lists the models of the cache rather than the one that it serves. The three are put right
here; requests, answers, streaming and sampling are transformers'.
"""

import importlib
import time
from pathlib import Path

from transformers.models.auto import modeling_auto
from transformers.utils.import_utils import is_serve_available

from ..model_loading import check_kind, check_weight_files, load_processor, model_folder
from ..modeling_gap_mllm import GapMllmForConditionalGeneration
from ..publishing_gap_mllm import needed_from_transformers


class _CheckedChats:
    """transformers' handler of chats, which takes for granted that a body holds messages."""

    def __init__(self, handler):
        self.handler = handler

    async def handle_request(self, body, request_id):
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise ValueError("messages is missing or empty; expected a list of {'role': ..., 'content': ...}.")
        for index, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                raise ValueError(f"message {index} is {message!r}; expected {{'role': ..., 'content': ...}}.")
            content = message.get("content")
            for part in content if isinstance(content, list) else []:
                kind = part.get("type") if isinstance(part, dict) else None
                if kind not in ("text", "image_url", "video_url"):
                    raise ValueError(
                        f"message {index} holds a part of type {kind!r}; expected text, image_url or video_url."
                    )
                value = part.get(kind)
                named = value.get("url") if kind != "text" and isinstance(value, dict) else value
                if not isinstance(named, str):
                    raise ValueError(f"message {index} holds a part of type {kind!r} without its {kind!r}.")
        return await self.handler.handle_request(body, request_id)


def serve(
    model: str | Path,
    host: str = "localhost",
    port: int = 8000,
    device: str = "auto",
    dtype: str = "auto",
    attn_implementation: str | None = None,
    log_level: str = "warning",
) -> None:
    """Serve a model by OpenAI's API (`/v1/chat/completions`, streamed or whole, and `/v1/models`) until Ctrl-C.

    All pictures of a request (`image_url` with a data or http URL) are the views of one scene, in their order.
    Requests take turns. What is wrong with one is told in its answer, with status 400, and the server goes on. There
    is no authentication: a host other than localhost is for networks where everyone may ask, and have the server read
    any URL or picture file that it can reach.

    Args:
        model (`str` or `Path`): a folder, or a repository of the Hub; requests name it so, or leave `model` out.
        host (`str`, defaults to "localhost"): address to listen at.
        port (`int`, defaults to 8000): port to listen at.
        device (`str`, defaults to "auto"): such as "cuda:0" or "cpu".
        dtype (`str`, defaults to "auto"): such as "bfloat16"; "auto" is the checkpoint's.
        attn_implementation (`str`, *optional*): such as "sdpa"; the best for device and dtype by default.
        log_level (`str`, defaults to "warning"): level of transformers' log, "debug" to "error".
    Raises:
        ImportError: without the packages of the extra "serving".
        FileNotFoundError, ValueError: if the model cannot be read; the message names what is wrong.

    Example:
        ```python
        >>> from gap_mllm.serving import serve
        >>> serve(folder, port=8000)  # doctest: +SKIP

        ```
    """
    if not is_serve_available():
        raise ImportError('gap-mllm serve needs the packages of an extra: pip install "gap-mllm[serving]"')
    folder = model_folder(model)
    check_kind(GapMllmForConditionalGeneration, folder)
    check_weight_files(folder)
    load_processor(folder)
    with needed_from_transformers():
        from transformers.cli.serve import Serve

        server = importlib.import_module("transformers.cli.serving.server")
    from fastapi.responses import JSONResponse

    build_server, started = server.build_server, int(time.time())

    def build(manager, chat_handler, **parts):
        served = {"id": str(model), "object": "model", "created": started, "owned_by": "gap-mllm"}
        manager.get_gen_models = lambda: [served]
        app = build_server(manager, _CheckedChats(chat_handler), **parts)

        @app.exception_handler(ValueError)
        async def tell(request, error):
            message = {"message": " ".join(str(error).split()), "type": "invalid_request_error"}
            return JSONResponse({"error": message}, status_code=400)

        return app

    modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES["gap_mllm"] = GapMllmForConditionalGeneration.__name__
    server.build_server = build
    try:
        Serve(
            force_model=str(model), host=host, port=port, device=device, dtype=dtype,
            attn_implementation=attn_implementation, log_level=log_level,
        )  # fmt: skip
    finally:
        server.build_server = build_server
