"""Stock vLLM, without the plugin, answers from a scene's embeddings as transformers does. Run by `make test-vllm`."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from gap_mllm import GapMllmForConditionalGeneration, GapMllmProcessor
from gap_mllm.processing.data import render_room
from gap_mllm.serving import SceneEncoder, to_serving


pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm")

MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"


def test_stock_vllm_answers_from_embeddings(tmp_path, monkeypatch):
    for name, value in {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_PLUGINS": "",
    }.items():
        monkeypatch.setenv(name, value)
    model = GapMllmForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32).eval()
    processor = GapMllmProcessor.from_pretrained(MODEL)
    folder = to_serving(model, tmp_path, processor)
    encoder = SceneEncoder.from_pretrained(folder / "scene_encoder")
    from vllm import LLM, SamplingParams

    engine = LLM(
        str(folder / "qwen3_vl"), dtype="float32", max_model_len=2048, max_num_seqs=4, enforce_eager=True, seed=0,
        enable_mm_embeds=True, limit_mm_per_prompt={"image": 4, "video": 0}, distributed_executor_backend="uni",
        disable_log_stats=True,
    )  # fmt: skip
    for seed, num_views in ((0, 1), (1, 4), (2, 3)):
        views = list(render_room(seed).images)[:num_views]
        chat = processor.build_messages("detection3d", views)
        inputs = processor.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        expected = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        prompt = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        asked = {"prompt": prompt, "multi_modal_data": encoder(views).for_vllm()}
        (output,) = engine.generate([asked], SamplingParams(temperature=0, max_tokens=24), use_tqdm=False)
        assert list(output.outputs[0].token_ids) == expected.tolist()
