"""FSDP2 as `Trainer` does it, by the shipped configuration: losses, evaluation, answers, checkpoints, the saved model.

accelerate leaves FSDP out on CPUs, so the script tells its state otherwise; all else is accelerate's and Trainer's.
"""

import json
import os
from pathlib import Path

import pytest
import torch

from gap_mllm import GapMllmForPreTraining
from tests.training.processes import run_here, run_in_two


pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch.distributed is not built in")

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from tests.training.test_sharded_training import run
run(*sys.argv[1:])
"""
KINDS = ("FULL_STATE_DICT", "SHARDED_STATE_DICT")


def allow_fsdp_on_cpus():
    """Let accelerate's state take the plugin that the launcher's variables ask for."""
    from accelerate import PartialState
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    begin = AcceleratorState.__init__

    def begin_with_fsdp(self, *args, fsdp_plugin=None, **kwargs):
        begin(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = begin_with_fsdp


def run(folder, batch):
    """Train four steps; two processes stop after two and go on, with either kind of checkpoint."""
    from transformers import TrainerCallback

    from gap_mllm import GapMllmProcessor
    from gap_mllm.processing.data import render_room
    from gap_mllm.training import GeometryAlignedTrainer, GeometryAlignedTrainingArguments, SceneCollator
    from gap_mllm.training.marked_pixel_scorer import make_marked_pixel_samples, marked_pixel_scorer
    from gap_mllm.training.run_folder import RunFolder
    from gap_mllm.training.sample_pictures import SamplePictures
    from tests.training.test_two_processes import make_rows

    class Stop(TrainerCallback):
        begun_at = []

        def on_train_begin(self, args, state, control, **kwargs):
            self.begun_at.append(state.global_step)

        def on_save(self, args, state, control, **kwargs):
            if state.global_step == 2:
                raise InterruptedError  # goes on with an infinite metric in its state: no answer could be read

    processor = GapMllmProcessor.from_pretrained(folder)
    asked = make_marked_pixel_samples([render_room(0)])
    score = marked_pixel_scorer(processor, [render_room(0)], show_progress=False, max_new_tokens=4)

    def make(kind, callbacks=(), **settings):
        os.environ["FSDP_STATE_DICT_TYPE"] = kind
        args = GeometryAlignedTrainingArguments(
            output_dir=f"{folder}/{kind}",
            per_device_train_batch_size=int(batch),
            per_device_eval_batch_size=int(batch),
            max_steps=4,
            logging_steps=1,
            eval_strategy="steps",
            eval_steps=2,
            save_strategy="steps",
            save_steps=2,
            learning_rate=0.01,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            train_sampling_strategy="sequential",
            **settings,
        )
        rows = make_rows("text")
        return GeometryAlignedTrainer(
            model=GapMllmForPreTraining.from_pretrained(folder, dtype="float32"),
            args=args,
            train_dataset=rows,
            eval_dataset=rows[:3],
            data_collator=SceneCollator(processor, for_pretraining=True),
            scorer=score,
            callbacks=[*callbacks, SamplePictures(RunFolder(args), processor, asked)],
        )

    if int(batch) == 4:
        make("one").train_and_save()
        return
    allow_fsdp_on_cpus()
    for kind in KINDS:
        with pytest.raises(InterruptedError):
            make(kind, [Stop()]).train_and_save()
        trainer = make(kind, [Stop()])
        trainer.train_and_save()
        assert type(trainer.model).__name__ == "FSDPGapMllmForPreTraining" and not trainer.was_finished
    assert Stop.begun_at == [0, 2, 0, 2]
    trainer = make(kind)
    trainer.train_and_save()
    saved = GapMllmForPreTraining.from_pretrained(f"{folder}/{kind}").state_dict()
    assert trainer.was_finished
    assert all(torch.equal(saved[name], value) for name, value in trainer.model.state_dict().items())
    with pytest.raises(ValueError, match="save_on_each_node=True does not go with FSDP"):
        make(kind, save_on_each_node=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_pretraining_model, tiny_processor, read_launch_settings):
    """The output folder of one process and of two with either kind of checkpoint, all in one."""
    folder = tmp_path_factory.mktemp("sharded")
    make_pretraining_model().save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    (folder / "run.py").write_text(SCRIPT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        run_here(folder / "run.py", folder, 4, monkeypatch=patch)
        for name, value in read_launch_settings("fsdp2", patch).items():
            if name.startswith("FSDP_") or name == "ACCELERATE_USE_FSDP":
                patch.setenv(name, value)
        run_in_two(folder / "run.py", folder, 2)
    return folder


def history(folder):
    """What a run logged of losses and answers."""
    names = ("loss", "loss_text", "grad_norm", "eval_loss", "eval_loss_text", "eval_parse_rate", "eval_n")
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [{name: entry[name] for name in names if name in entry} for entry in log]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_split_over_two_processes_and_resumed_it_equals_one(kind, folder):
    one, two = history(folder / "one"), history(folder / kind)
    assert len(one) == len(two) == 7 and sum("eval_loss" in entry for entry in two) == 2
    for mine, theirs in zip(one[:-1], two[:-1], strict=True):
        assert theirs == pytest.approx(mine, rel=1e-4)
    saved, other = (GapMllmForPreTraining.from_pretrained(folder / name).state_dict() for name in (kind, "one"))
    for name, value in other.items():
        # AdamW divides by what is noise in a tiny gradient
        torch.testing.assert_close(saved[name], value, atol=5e-3, rtol=1e-3, msg=name)
    assert (folder / kind / "samples.png").is_file()
    is_whole = kind == "FULL_STATE_DICT"
    checkpoint = folder / kind / "checkpoint-4"
    assert (checkpoint / "model.safetensors").is_file() == is_whole
    assert (checkpoint / "pytorch_model_fsdp_0").is_dir() != is_whole
    assert (checkpoint / "provenance.json").is_file() and (folder / kind / "tokenizer.json").is_file()
