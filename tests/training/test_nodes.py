"""Two nodes, each with a disk of its own: both save and go on from one checkpoint, or hear what is missing."""

import json
from pathlib import Path

import pytest
import torch

from tests.training.processes import run_in_two


pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch.distributed is not built in")

SCRIPT = """
import json, os, sys, torch
torch.set_num_threads(1)
from pathlib import Path
from transformers import TrainerCallback
from gap_mllm.training import GeometryAlignedTrainer, GeometryAlignedTrainingArguments, SceneCollator
from gap_mllm import GapMllmForPreTraining, GapMllmProcessor
from tests.training.test_two_processes import make_rows

folder, rank = sys.argv[1], os.environ["RANK"]
node, told = Path(folder, f"node{rank}"), {"losses": [], "was_locked": []}

class IsLocked(TrainerCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        told["was_locked"].append(Path(node, ".each.lock").exists())

def train(name, each):
    model = GapMllmForPreTraining.from_pretrained(folder, dtype="float32")
    args = GeometryAlignedTrainingArguments(
        output_dir=str(node / name), save_on_each_node=each, max_steps=4, save_strategy="steps", save_steps=1,
        save_total_limit=2, logging_steps=1, learning_rate=0.01, per_device_train_batch_size=1, report_to="none",
        use_cpu=True, disable_tqdm=True, train_sampling_strategy="sequential",
    )
    data = {"train_dataset": make_rows("whole"), "data_collator": SceneCollator(processor, for_pretraining=True)}
    trainer = GeometryAlignedTrainer(model=model, args=args, callbacks=[IsLocked()], **data)
    trainer.train_and_save()
    told["losses"].append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])

processor = GapMllmProcessor.from_pretrained(folder)
train("each", True)
told["checkpoint"] = (node / "each" / "checkpoint-3").stat().st_ino
for name in ("trainer_state.json", "provenance.json"):
    (node / "each" / name).unlink()
if rank == "1":  # as if it was killed before the last checkpoint got its place there
    (node / "each" / "checkpoint-4").rename(node / "checkpoint-4")
train("each", True)
train("apart", False)
try:
    train("apart", False)
except ValueError as error:
    told["error"] = str(error)
(node / "told.json").write_text(json.dumps(told))
"""


@pytest.mark.slow
def test_nodes_save_and_go_on_each_on_its_own_disk(tmp_path, make_pretraining_model, tiny_processor, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    make_pretraining_model().save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    (tmp_path / "run.py").write_text(SCRIPT)
    run_in_two(tmp_path / "run.py", tmp_path, on_two_nodes=True)
    nodes = [tmp_path / f"node{rank}" for rank in range(2)]
    told = [json.loads((node / "told.json").read_text()) for node in nodes]
    for rank, (node, values) in enumerate(zip(nodes, told, strict=True)):
        names = {path.name for path in (node / "each").iterdir()}
        assert {"model.safetensors", "provenance.json", "trainer_state.json", "checkpoint-3", "checkpoint-4"} <= names
        assert (node / "each" / "checkpoint-4" / f"rng_state_{rank}.pth").is_file()
        assert (node / "each" / "checkpoint-3").stat().st_ino == values["checkpoint"]  # gone on from, not made anew
        whole, again, _ = values["losses"]
        assert len(whole) == 4 and again == whole == told[0]["losses"][0]
        assert values["was_locked"][:2] == [True, True]
        assert f"Process 1 of 2 finds no whole checkpoint in {node / 'apart'}, others do. " in values["error"]
        assert "save_on_each_node=True" in values["error"]
    weights = [(node / "each" / "model.safetensors").read_bytes() for node in nodes]
    assert weights[0] == weights[1]
