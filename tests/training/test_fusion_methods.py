"""Every fusion method through adapters: trained whole, saved and read again."""

import pytest
import torch

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.configuration_gap_mllm import FUSION_METHODS
from gap_mllm.processing.data import render_room
from gap_mllm.training import add_lora
from tests.slow_cases import slow_but


peft = pytest.importorskip("peft")


@pytest.fixture(scope="module")
def inputs(tiny_processor):
    views = list(render_room(0, num_views=2, height=64, width=64).images)
    messages = tiny_processor.build_messages("detection3d", views)
    return tiny_processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")


@pytest.mark.parametrize("method", slow_but(("gated",), FUSION_METHODS))
def test_adapters_train_save_and_load_the_whole_fusion(tiny_model, inputs, tmp_path, method):
    model = add_lora(tiny_model(gap_fusion_config={"method": method, "init": "identity"}), r=2)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    for _ in range(3):
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(tmp_path)
    plain = tiny_model(gap_fusion_config={"method": method, "init": "identity"})
    with torch.no_grad():
        expected, before = model(**inputs).logits, plain(**inputs).logits
        loaded = peft.PeftModel.from_pretrained(plain, tmp_path).eval()
        assert torch.equal(loaded(**inputs).logits, expected) and not torch.equal(expected, before)
        merged = loaded.merge_and_unload()
        merged.save_pretrained(tmp_path / "merged")
        again = GapMllmForConditionalGeneration.from_pretrained(tmp_path / "merged")
        torch.testing.assert_close(again(**inputs).logits, expected, rtol=1e-3, atol=1e-4)
    assert again.config.gap_fusion_config.method == method
    strengths = [value for name, value in again.state_dict().items() if name.endswith("strength")]
    assert strengths and all(value.any() for value in strengths)
