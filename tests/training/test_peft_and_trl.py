"""PEFT and TRL with model and processor as they are: a LoRA step, and a step of TRL's SFTTrainer."""

import copy

import pytest
import torch
from datasets import Dataset, Image, List
from peft import LoraConfig, PeftModel, get_peft_model
from trl import SFTConfig, SFTTrainer


LANGUAGE_LAYERS = r".*language_model.*\.(q_proj|v_proj)"  # by place: tower and encoder have layers of like names


@pytest.fixture
def chats(make_image):
    """Rows of two chats, about two views and about one."""
    rows = []
    for answer, seeds in (("a chair", (0, 1)), ("a table", (2,))):
        question = [*[{"type": "image", "text": None}] * len(seeds), {"type": "text", "text": "What is it?"}]
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]
        rows.append({"messages": messages, "images": [make_image(64 + 32 * seed, 64, seed) for seed in seeds]})
    return Dataset.from_list(rows).cast_column("images", List(Image()))


@pytest.fixture
def make_sft_trainer(chats, tiny_processor, tmp_path):
    """A function (model) -> `SFTTrainer` of one step over the chats."""

    def make(model):
        args = SFTConfig(
            output_dir=str(tmp_path / "sft"),
            max_steps=1,
            per_device_train_batch_size=2,
            learning_rate=1e-3,
            max_length=None,  # cutting would tear images apart
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
        )
        return SFTTrainer(model, args, train_dataset=chats, processing_class=tiny_processor)

    return make


def test_a_lora_step_is_saved_and_loaded_again(tiny_model, make_sft_trainer, tmp_path):
    base = tiny_model()
    batch = next(iter(make_sft_trainer(base).get_train_dataloader()))
    weights = copy.deepcopy(base.state_dict())
    model = get_peft_model(base, LoraConfig(r=2, target_modules=LANGUAGE_LAYERS)).train()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 16 and all("language_model" in name for name in trained)  # A and B of q and v in 4 layers
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    before = model(**batch).loss
    before.backward()
    optimizer.step()
    with torch.no_grad():
        after = model.eval()(**batch)
        assert after.loss < before - 1e-3
        model.save_pretrained(tmp_path)
        again = PeftModel.from_pretrained(tiny_model(), tmp_path)
        assert torch.equal(again(**batch).logits, after.logits)
        # W + BA in one matrix: the same sums in another order
        torch.testing.assert_close(again.merge_and_unload()(**batch).logits, after.logits, rtol=1e-4, atol=1e-4)
    plain = model.unload().state_dict()
    assert all(torch.equal(plain[name], value) for name, value in weights.items())


def test_a_step_of_sft_learns_with_geometry(tiny_model, make_sft_trainer):
    model, same = tiny_model(), tiny_model()
    trainer = make_sft_trainer(model)
    batch = next(iter(trainer.get_train_dataloader()))
    assert {"pixel_values", "image_grid_thw", "mm_token_type_ids", "labels"} <= batch.keys()
    expected = same(**batch).loss.item()
    with same.geometry_disabled():
        assert abs(same(**batch).loss.item() - expected) > 1e-3
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-5)
    before = same.state_dict()
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    for part in ("geometry", "fusion", "visual", "language_model"):
        assert any(name.startswith(f"model.{part}.") for name in moved), part
