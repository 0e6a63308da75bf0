"""Rows that are streamed: each process trains on its own, none on another's; questions about them; what is refused."""

import json
from pathlib import Path

import pytest
import torch
from datasets import IterableDataset as StreamedRows
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer, TrainingArguments

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.processing.data import load_multiview
from gap_mllm.training import SceneCollator, SceneQuestionDataset, SceneQuestionStream
from gap_mllm.training.streams import EndlessRows, rows_of_process
from tests.training.processes import run_in_two


FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"
POSED = {"name": "scannet_posed", "data_dir": str(FORMATS / "scannet_posed_images"), "split": "train"}
QUESTIONS = {"name": "gap_mllm", "data_dir": str(FORMATS / "gap_mllm"), "split": "train"}
OPTIONS = {"per_device_train_batch_size": 2, "max_steps": 3, "logging_steps": 1}


@pytest.fixture
def stream():
    return load_multiview(**QUESTIONS, tasks=["reconstruction"], streaming=True)


def collator(processor, **options):
    return SceneCollator(processor, max_views=3, max_view_pixels=64 * 96, **options)


class _Seen:
    """A collator that notes the ids of its rows."""

    def __init__(self, collate):
        self.collate, self.ids = collate, []

    def __call__(self, rows):
        self.ids += [row["id"] if isinstance(row, dict) else row.id for row in rows]
        return self.collate(rows)


def test_streamed_rows_train(stream, tiny_processor, make_pretraining_model, make_trainer):
    ids = [row["id"] for row in stream]
    seen = _Seen(collator(tiny_processor, for_pretraining=True))
    trainer = make_trainer(make_pretraining_model(), stream, seen, **OPTIONS | {"max_steps": len(ids)})
    trainer.train()
    losses = [entry["loss_text"] for entry in trainer.state.log_history if "loss_text" in entry]
    assert len(losses) == len(ids) and losses[-1] < losses[0]
    assert seen.ids[: 2 * len(ids)] == 2 * ids  # begun again, no row left out


@pytest.mark.slow
def test_a_plain_trainer_learns_from_streamed_rows(stream, tiny_processor, make_pretraining_model, tmp_path):
    """As the documentation of `SceneCollator` says; without it accelerate cuts `pixel_values` by rows."""
    model = GapMllmForConditionalGeneration(make_pretraining_model().config)
    options = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True}
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=2,
        remove_unused_columns=False,
        accelerator_config={"dispatch_batches": False},
        **options,
    )
    trainer = Trainer(model, arguments, train_dataset=stream, data_collator=collator(tiny_processor))
    assert 0 < trainer.train().training_loss < 20


def test_resuming_goes_on_in_the_stream(stream, tiny_processor, make_pretraining_model, make_trainer, tmp_path):
    options = OPTIONS | {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    histories = []
    for seed, checkpoint in ((0, None), (1, str(tmp_path / "run" / "checkpoint-2"))):
        collate = collator(tiny_processor, for_pretraining=True)
        trainer = make_trainer(make_pretraining_model(seed), stream, collate, **options)
        trainer.train(resume_from_checkpoint=checkpoint)
        histories.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert histories[1][2:] == histories[0][2:] and len(histories[0]) == 4


@pytest.mark.parametrize("num_files", [1, 2, 3])
def test_processes_share_a_stream_and_no_row_goes_to_two(num_files):
    def rows(files):
        for file in files:
            yield from ({"id": f"{file}-{number}"} for number in range(5))

    stream = StreamedRows.from_generator(rows, gen_kwargs={"files": list(range(num_files))})
    every = [row["id"] for row in stream]
    for num_workers in (0, 2):
        shares = []
        for rank in range(2):
            shared = rows_of_process(stream, rank, 2)
            shares.append([row["id"] for row in DataLoader(shared, batch_size=None, num_workers=num_workers)])
        assert sorted(shares[0] + shares[1]) == sorted(every), (num_files, num_workers)
        assert all(shares)


def test_other_streams_are_shared_too(stream):
    class Numbers(IterableDataset):
        def __iter__(self):
            return iter(range(7))

    assert [list(rows_of_process(Numbers(), rank, 3)) for rank in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]
    whole = [sample.id for sample in SceneQuestionStream(stream)]
    shares = [[sample.id for sample in rows_of_process(SceneQuestionStream(stream), rank, 2)] for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == sorted(whole) and all(shares)


def test_a_stream_without_rows_is_named():
    with pytest.raises(ValueError, match="train_dataset streams no rows"):
        next(iter(EndlessRows([])))


@pytest.mark.parametrize("problem", ["dispatch_batches", "split_batches"])
def test_cut_batches_are_refused(stream, make_pretraining_model, make_trainer, problem):
    with pytest.raises(ValueError, match=f"accelerator_config has {problem}=True, which cuts batches"):
        make_trainer(make_pretraining_model(), stream, accelerator_config={problem: True}, **OPTIONS)


def test_our_arguments_do_not_dispatch(make_pretraining_model, make_trainer, stream):
    for config in (None, {}, {"even_batches": False}):
        config = make_trainer(make_pretraining_model(), stream, accelerator_config=config, **OPTIONS).args
        assert config.accelerator_config.dispatch_batches is False
        assert config.accelerator_config.split_batches is False


# Questions about streamed scenes


def test_streamed_scenes_are_asked_about():
    stream = SceneQuestionStream(load_multiview(**POSED, streaming=True), ("reconstruction",), num_views=3)
    first, again = ([(sample.id, sample.answer) for sample in stream] for _ in range(2))
    assert first and first == again
    stream.set_epoch(1)
    later = [(sample.id, sample.answer) for sample in stream]
    assert len(later) == len(first) and not {answer for _, answer in later} & {answer for _, answer in first}
    assert all(len(sample.views) == 3 and sample.points for sample in stream)


def test_workers_ask_about_each_row_once():
    rows = list(load_multiview(**POSED, streaming=True))
    rows = [{**row, "id": f"{row['id']}-{copy}"} for row in rows for copy in range(3)]
    stream = SceneQuestionStream(rows, ("reconstruction",), num_views=2)
    asked = sorted(sample.id for sample in DataLoader(stream, batch_size=None, num_workers=2))
    assert asked == sorted(sample.id for sample in stream) and len(set(asked)) == len(rows)


def test_a_stream_where_places_are_needed_is_named(stream):
    with pytest.raises(TypeError, match="rows is a IterableDataset, .*SceneQuestionStream"):
        SceneQuestionDataset(stream)
    with pytest.raises(TypeError, match="rows is a generator.*SceneQuestionStream"):
        SceneQuestionDataset(row for row in ())
    with pytest.raises(TypeError, match="rows is a int; expected an iterable"):
        SceneQuestionStream(3)
    with pytest.raises(ValueError, match=r"tasks is \['cooking'\]"):
        SceneQuestionStream(stream, ("cooking",))


SCRIPT = """
import json, sys, torch
torch.set_num_threads(1)
from gap_mllm import GapMllmForPreTraining, GapMllmProcessor
from gap_mllm.processing.data import load_multiview
from gap_mllm.training import GeometryAlignedTrainer, GeometryAlignedTrainingArguments, SceneCollator

folder, source = sys.argv[1], json.loads(sys.argv[2])
model = GapMllmForPreTraining.from_pretrained(folder + "/model", dtype="float32")
collator = SceneCollator(
    GapMllmProcessor.from_pretrained(folder + "/model"), max_views=2, max_view_pixels=64 * 64, for_pretraining=True
)
seen = []
def collate(rows):
    seen.extend(row["id"] for row in rows)
    return collator(rows)
rates = dict.fromkeys(("vision", "mergers", "fusion", "language", "point_maps"), 1e-3) | {"geometry": 0}
args = GeometryAlignedTrainingArguments(
    output_dir=folder + "/out", per_device_train_batch_size=1, max_steps=3, logging_steps=1, report_to="none",
    save_strategy="no", use_cpu=True, module_learning_rates=rates, ddp_find_unused_parameters=True,
)
rows = load_multiview(**source, streaming=True)
trainer = GeometryAlignedTrainer(model=model, args=args, train_dataset=rows, data_collator=collate)
trainer.train()
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
json.dump([seen, losses], open(f"{folder}/rank{args.process_index}.json", "w"))
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch.distributed is not built in")
def test_two_processes_train_on_different_rows(stream, tmp_path, make_pretraining_model, tiny_processor):
    """More steps than either has rows: neither waits for the other, and none sees the other's rows."""
    make_pretraining_model().save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    (tmp_path / "run.py").write_text(SCRIPT)
    run_in_two(tmp_path / "run.py", tmp_path, json.dumps({**QUESTIONS, "tasks": ["reconstruction"]}))
    (seen, losses), (others, _) = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    every = {row["id"] for row in stream}
    assert not set(seen) & set(others) and set(seen) | set(others) == every
    assert len(losses) == 3 and all(loss > 0 for loss in losses)
