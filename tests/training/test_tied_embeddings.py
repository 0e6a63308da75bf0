"""Adapters on embeddings that input and output share: what is merged answers as before."""

import peft
import pytest
import torch

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.hub import save_for_hub
from gap_mllm.training import add_lora, merge_adapter, untie_embeddings
from gap_mllm.training.tied_embeddings import is_tied


QUERIES = r".*language_model.*q_proj"
CASES = {
    "head": ({"target_modules": ["lm_head"]}, False),
    "input": ({"target_modules": ["embed_tokens"]}, False),
    "both": ({"target_modules": ["lm_head", "embed_tokens"]}, False),
    "one for both": ({"target_modules": ["embed_tokens"], "ensure_weight_tying": True}, True),
    "DoRA": ({"target_modules": ["lm_head"], "use_dora": True}, False),
    "head whole": ({"target_modules": QUERIES, "modules_to_save": ["lm_head"]}, False),
    "tokens": ({"target_modules": QUERIES, "trainable_token_indices": {"embed_tokens": [6, 7]}}, True),
    "neither": ({"target_modules": QUERIES}, True),
}


@pytest.fixture(scope="module")
def folder(tiny_model, tiny_processor, tmp_path_factory):
    model = tiny_model(model_class=GapMllmForConditionalGeneration)
    return save_for_hub(model, tiny_processor, tmp_path_factory.mktemp("tied"))


@pytest.fixture
def load(folder):
    """A function () -> the tiny model of that folder, whose embeddings are tied."""
    return lambda: GapMllmForConditionalGeneration.from_pretrained(folder, dtype="float32").eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 25)[None]).logits


def change_adapters(model):
    """Adapters and copies that do something."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("lora_", ".modules_to_save.", "trainable_tokens_delta")):
                parameter.add_(torch.randn_like(parameter) * 0.3)


@pytest.mark.parametrize("case", CASES)
def test_a_merged_folder_answers_as_its_adapter_did(case, folder, load, tmp_path):
    options, stays_tied = CASES[case]
    base = load()
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=4, base_model_name_or_path=str(folder), **options)).eval()
    plain = logits(adapted)
    change_adapters(adapted)
    expected = logits(adapted)
    assert (expected - plain).abs().max() > 0.01
    adapted.save_pretrained(tmp_path / "adapter")
    merged = merge_adapter(tmp_path / "adapter", tmp_path / "merged", folder)
    merged = GapMllmForConditionalGeneration.from_pretrained(merged, dtype="float32").eval()
    torch.testing.assert_close(logits(merged), expected, rtol=1e-3, atol=1e-3)  # sums in another order
    assert is_tied(merged) is merged.config.tie_word_embeddings is stays_tied


@pytest.mark.parametrize("targets", [["lm_head"], ["embed_tokens"], r".*(lm_head|q_proj)"], ids=str)
def test_adapters_of_ours_can_be_merged_in_memory(targets, load, tmp_path):
    model = add_lora(load(), target_modules=targets, modules_to_save=[], r=4).eval()
    change_adapters(model)
    expected = logits(model)
    merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, rtol=1e-3, atol=1e-3)
    merged.save_pretrained(tmp_path)
    again = GapMllmForConditionalGeneration.from_pretrained(tmp_path, dtype="float32").eval()
    torch.testing.assert_close(logits(again), expected, rtol=1e-3, atol=1e-3)


def test_other_adapters_leave_the_embeddings_tied(load):
    model = add_lora(load(), r=2)
    assert is_tied(model) and model.config.tie_word_embeddings


def test_untied_embeddings_are_equal_and_apart(load):
    model, expected = load(), None
    expected = logits(model)
    assert untie_embeddings(model) and not untie_embeddings(model)
    assert not model.config.tie_word_embeddings and not model.config.text_config.tie_word_embeddings
    assert torch.equal(logits(model), expected)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert not logits(model).any() and model.get_input_embeddings().weight.any()
