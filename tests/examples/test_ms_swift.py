"""The plug-in for ms-swift: tokens and pixels are those of our processor; trainings. Run by `make test-ms-swift`."""

import importlib.util
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.processing import GapMllmProcessor
from gap_mllm.processing.data import render_room


pytestmark = pytest.mark.skipif(find_spec("swift") is None, reason="ms-swift is not installed: make test-ms-swift")

ROOT = Path(__file__).parents[2]
PLUGIN, MODEL = ROOT / "examples" / "ms_swift" / "gap_mllm_swift.py", ROOT / "examples" / "assets" / "tiny_gap_mllm"
QUESTION, ANSWER = "What is here?", "a bed and a lamp"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Six conversations about one to three views, in the form of ms-swift's data."""
    folder, rows = tmp_path_factory.mktemp("rows"), []
    for seed in range(6):
        paths = []
        for number, view in enumerate(render_room(seed).images[: 1 + seed % 3]):
            paths.append(str(folder / f"{seed}_{number}.png"))
            Image.fromarray(view).resize((160 - 20 * number, 120)).save(paths[-1])
        asked = {"role": "user", "content": "<image>" * len(paths) + QUESTION}
        rows.append({"messages": [asked, {"role": "assistant", "content": ANSWER}], "images": paths})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl", rows


@pytest.fixture(scope="module")
def template():
    spec = importlib.util.spec_from_file_location("gap_mllm_swift", PLUGIN)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    from swift.model import get_processor
    from swift.template import get_template

    made = get_template(get_processor(str(MODEL), model_type="gap_mllm"))
    made.set_mode("train")
    return made


def ours(row):
    """The same conversation by our processor; labels are the answer and its end."""
    processor = GapMllmProcessor.from_pretrained(MODEL)
    views = [{"type": "image", "image": Image.open(path)} for path in row["images"]]
    chat = [{"role": "system", "content": [{"type": "text", "text": "You are a helpful assistant."}]}]
    chat.append({"role": "user", "content": [*views, {"type": "text", "text": QUESTION}]})
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    asked = processor.apply_chat_template(chat, add_generation_prompt=True, **options)
    chat.append({"role": "assistant", "content": [{"type": "text", "text": ANSWER}]})
    whole = processor.apply_chat_template(chat, **options)
    labels = whole["input_ids"].clone()
    labels[:, : asked["input_ids"].shape[1]] = -100
    return whole, labels


def test_tokens_and_pixels_are_those_of_our_processor(template, rows):
    for row in rows[1][:3]:
        encoded, (expected, labels) = template.encode(row), ours(row)
        length = len(encoded["input_ids"])
        assert encoded["input_ids"] == expected["input_ids"][0, :length].tolist()
        assert expected["input_ids"].shape[1] - length <= 1  # the line's end after the last turn is not learned
        assert encoded["labels"] == labels[0, :length].tolist() and ANSWER.split()[0] in template.processor.decode(
            [each for each in encoded["labels"] if each >= 0]
        )
        for name in ("pixel_values", "image_grid_thw"):
            assert torch.equal(encoded[name], expected[name])
        assert torch.equal(encoded["mm_token_type_ids"].flatten(), expected["mm_token_type_ids"][0, :length])


def test_the_loss_of_a_batch_is_that_of_its_scenes(template, rows):
    model = GapMllmForConditionalGeneration.from_pretrained(MODEL).eval()
    names = ("input_ids", "attention_mask", "labels", "pixel_values", "image_grid_thw", "mm_token_type_ids")
    batch = template.data_collator([template.encode(row) for row in rows[1][:3]])
    with torch.no_grad():
        together = model(**{name: batch[name] for name in names}).loss
        alone = []
        for row in rows[1][:3]:
            single = template.data_collator([template.encode(row)])
            alone.append(model(**{name: single[name] for name in names}).loss)
    assert together.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-5)  # answers of one length


def test_what_is_wrong_is_named(template, rows):
    row = rows[1][1]
    with pytest.raises(ValueError, match="give the frames as images"):
        template.encode(
            {"messages": [{"role": "user", "content": "<video>What?"}, row["messages"][1]], "videos": ["a.mp4"]}
        )
    asked = {"role": "user", "content": "<image>What? <|image_pad|>"}
    with pytest.raises(ValueError, match="1 images came, but the conversation has 2"):
        template.encode({"messages": [asked, row["messages"][1]], "images": row["images"][:1]})


def train(rows, folder, *flags):
    command = [sys.executable, "-m", "swift.cli.sft", "--external_plugins", str(PLUGIN), "--model", str(MODEL)]
    command += ["--model_type", "gap_mllm", "--dataset", str(rows[0]), "--torch_dtype", "float32", "--max_steps", "2"]
    command += ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "1", "--logging_steps", "1"]
    command += [
        "--learning_rate",
        "1e-3",
        "--output_dir",
        str(folder),
        "--split_dataset_ratio",
        "0",
        "--report_to",
        "none",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*command, *flags], env=environment, capture_output=True, text=True, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (log,) = folder.glob("*/logging.jsonl")
    assert json.loads(log.read_text().splitlines()[0])["loss"] > 0
    (checkpoint,) = folder.glob("*/checkpoint-2")
    return checkpoint


def test_lora_leaves_the_fusion_and_can_be_loaded(rows, tmp_path):
    from peft import PeftModel

    checkpoint = train(rows, tmp_path, "--tuner_type", "lora")
    base = GapMllmForConditionalGeneration.from_pretrained(MODEL)
    model = PeftModel.from_pretrained(base, checkpoint)
    learned = {
        name.split("base_model.model.")[1].split(".")[1] for name, _ in model.named_parameters() if "lora_" in name
    }
    assert learned == {"language_model"}


@pytest.mark.parametrize(
    ("flag", "moved"), [("true", {"language_model"}), ("false", {"language_model", "fusion", "visual"})]
)
def test_full_training_moves_what_is_not_frozen(rows, tmp_path, flag, moved):
    checkpoint = train(rows, tmp_path, "--tuner_type", "full", "--freeze_aligner", flag)
    before = GapMllmForConditionalGeneration.from_pretrained(MODEL).state_dict()
    after = GapMllmForConditionalGeneration.from_pretrained(checkpoint).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[1] for name in changed if name.startswith("model.")} == moved
    assert all("merger" in name for name in changed if ".visual." in name)
