"""Written thoughts: what they say, which answers are left out, and a step of TRL's SFTTrainer on them."""

import pytest
import torch
from trl import SFTConfig, SFTTrainer

from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.training import SceneQuestionDataset, format_reward, make_cold_start_rows, write_thought


REWARDS = {"format": 1.0, "choice": 1.0, "relative_accuracy": 1.0}
VARIETY = RoomVariety(sizes=((64, 64),), size_shares=(1.0,), num_views=(2,), num_views_shares=(1.0,))


@pytest.fixture(scope="module")
def questions():
    return SceneQuestionDataset(RenderedRooms("train", 6, VARIETY), tasks=("object_count", "object_distance"))


def test_a_thought_says_where_the_objects_are(questions):
    sample = next(sample for sample in map(questions.__getitem__, range(6)) if len(sample.boxes) == 2)
    text = write_thought(sample)
    assert format_reward([text]) == [1.0] and text.endswith(f"<answer>{sample.answer}</answer>")
    first, second = (sample.box_in_view(box, 0) for box in sample.boxes)
    shown = f"{sample.boxes[1].label} at {[round(float(number), 1) + 0.0 for number in second[:3]]}, size "
    assert text.index(f"{sample.boxes[0].label} at ") < text.index(shown)
    assert f"size {[round(float(number), 1) for number in first[3:6]]}; " in text
    about_cameras = SceneQuestionDataset(RenderedRooms("train", 1, VARIETY), tasks=("camera_distance",))[0]
    assert write_thought(about_cameras) is None


def test_answers_that_earn_too_little_are_left_out(questions, tiny_processor):
    written = []

    def write(sample):
        """In turn right, right without tags, wrong, none."""
        written.append(sample)
        right = write_thought(sample)
        return [right, sample.answer, right.replace("<answer>", "<answer>9"), None][(len(written) - 1) % 4]

    rows = make_cold_start_rows(questions, tiny_processor, REWARDS, "\nIn tags.", write)
    assert rows.column_names == ["prompt", "completion", "images"]
    kept = [row["completion"][0]["content"][0]["text"] for row in rows]
    assert kept == [write_thought(written[0]), write_thought(written[4])]
    assert [len(images) for images in rows["images"]] == [2, 2]
    assert [part["type"] for part in rows[0]["prompt"][-1]["content"]] == ["image", "image", "text", "text"]
    without_format = {"relative_accuracy": 1.0, "length": {"max_tokens": 1000}}
    assert len(make_cold_start_rows(questions, tiny_processor, without_format, write=lambda s: s.answer)) == 6
    with pytest.raises(ValueError, match="of 6 answers none earns 0.9 of every reward"):
        make_cold_start_rows(questions, tiny_processor, REWARDS, write=lambda sample: "B")
    captions = SceneQuestionDataset(RenderedRooms("train", 2, VARIETY), tasks=("dense_caption",))
    with pytest.raises(ValueError, match="of 2 answers none earns"):  # nothing to hold a caption to
        make_cold_start_rows(captions, tiny_processor, REWARDS)


def test_a_step_of_sft_on_thoughts(questions, tiny_model, tiny_processor, tmp_path):
    rows, model = make_cold_start_rows(questions, tiny_processor, REWARDS), tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fixed = {"max_steps": 1, "per_device_train_batch_size": 2, "max_length": None, "learning_rate": 1e-3}
    quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "bf16": False}
    args = SFTConfig(str(tmp_path), logging_steps=1, **fixed, **quiet)
    trainer = SFTTrainer(model, args, train_dataset=rows, processing_class=tiny_processor)
    labels = next(iter(trainer.get_train_dataloader()))["labels"]
    text = tiny_processor.tokenizer.decode(labels[0][labels[0] != -100])
    assert text.startswith("<think>") and "</answer>" in text  # the prompt is not learnt
    trainer.train()
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    for part in ("geometry", "fusion", "visual", "language_model"):
        assert any(name.startswith(f"model.{part}.") for name in moved), part
