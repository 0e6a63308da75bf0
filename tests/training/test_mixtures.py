"""Several sources in one training: shares, limits and orders, the same after resuming, and no row in two processes."""

import json
import pickle
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from datasets import IterableDataset as StreamedRows
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from gap_mllm.processing.data import load_multiview
from gap_mllm.training import MixedDataset, MixedStream, SceneQuestionDataset, SceneQuestionStream
from gap_mllm.training.streams import rows_of_process
from tests.training.processes import run_in_two


FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"


def letters(**sizes):
    """Sources of items such as "a3"."""
    return {name: [f"{name}{row}" for row in range(size)] for name, size in sizes.items()}


def share_of(items, name):
    return np.mean([item.startswith(name) for item in items])


def spread(share, number):
    """Four standard deviations of a share of that many draws."""
    return 4 * np.sqrt(share * (1 - share) / number)


# Items with places


def test_shares_are_those_of_the_weights():
    mixed = MixedDataset(letters(a=10, b=1000, c=5), {"a": 3.0, "c": 0.0}, length=4000)
    counts = mixed.count_items()
    assert abs(counts["a"] / 4000 - 0.75) < spread(0.75, 4000) and counts["c"] == 0
    items = [mixed[index] for index in range(4000)]
    assert {name: sum(item[0] == name for item in items) for name in "abc"} == counts


def test_every_row_comes_before_one_comes_again():
    mixed = MixedDataset(letters(a=7, b=50), length=300)
    items = [mixed[index] for index in range(300)]
    for name, size in (("a", 7), ("b", 50)):
        own = [item for item in items if item.startswith(name)]
        rounds = [own[start : start + size] for start in range(0, len(own) - size, size)]
        assert len(rounds) > 1 and all(len(set(each)) == size for each in rounds)
        assert rounds[0] != rounds[1] and rounds[0] != sorted(rounds[0])  # in another order


def test_without_a_length_every_row_is_drawn():
    assert len(MixedDataset(letters(a=40))) == 40 and set(iterate(MixedDataset(letters(a=40)))) == set(
        letters(a=40)["a"]
    )
    assert len(MixedDataset(letters(a=10, b=400), {"a": 1, "b": 1})) == 800
    assert len(MixedDataset(letters(a=100, b=100), {"a": {0: 1.0, 1: 0.0}, "b": {0: 0.0, 1: 1.0}})) == 200
    assert len(MixedDataset(letters(a=100, b=900), {"b": 0.0})) == 100  # never asked for


def iterate(dataset):
    return [dataset[index] for index in range(len(dataset))]


def test_a_limit_keeps_so_many_rows():
    mixed = MixedDataset(letters(a=1000, b=10), limits={"a": 20}, length=500)
    own = [item for item in iterate(mixed) if item.startswith("a")]
    assert len(set(own)) == 20 and len(own) > 200 and set(own) != {f"a{row}" for row in range(20)}
    assert set(own) == set(iterate(MixedDataset(letters(a=1000), limits={"a": 20})))


def test_items_are_always_the_same():
    make = lambda seed: MixedDataset(letters(a=30, b=70), {"a": {0: 1.0, 1: 0.0}}, {"b": 50}, 200, seed)  # noqa: E731
    first, again = make(0), pickle.loads(pickle.dumps(make(0)))
    backwards = [again[index] for index in reversed(range(200))][::-1]
    assert iterate(first) == backwards and iterate(make(1)) != backwards
    loaded = [item for batch in DataLoader(first, batch_size=8, num_workers=2) for item in batch]
    assert loaded == backwards  # resuming skips batches of the same order


def test_two_processes_take_items_of_their_own():
    mixed = MixedDataset(letters(a=100, b=100), {"a": 3.0}, length=80)
    batches = BatchSampler(SequentialSampler(mixed), batch_size=4, drop_last=False)
    shares = [[mixed[index] for batch in BatchSamplerShard(batches, 2, rank) for index in batch] for rank in range(2)]
    assert not set(shares[0]) & set(shares[1]) and sorted(sum(shares, [])) == sorted(iterate(mixed))


def test_weights_follow_the_run():
    mixed = MixedDataset(letters(a=10, b=10), {"a": {0: 1.0, 0.5: 0.0}, "b": {0: 0.0, 0.5: 1.0}}, length=2000)
    assert mixed.is_scheduled and mixed.count_items(start=1000) == {"a": 0, "b": 1000}
    assert abs(mixed.count_items(0, 1000)["a"] / 1000 - 0.5) < spread(0.5, 1000)
    assert mixed.count_items(0, 200)["a"] > mixed.count_items(800, 1000)["a"] + 100
    weights = {"a": {0: 1, 0.25: 0, "kind": "step"}, "b": {0: 0, 0.25: 1, "kind": "step"}}
    steps = MixedDataset(letters(a=10, b=10), weights, length=400)
    assert [steps.count_items(*part)["a"] for part in ((0, 100), (100, 400))] == [100, 0]


def test_rounds_ask_about_scenes_otherwise():
    rooms = load_multiview("rendered_rooms", split="train", num_rooms=2)
    questions = SceneQuestionDataset(rooms, tasks=("reconstruction",), num_views=2)
    mixed = MixedDataset({"rooms": questions}, length=4)
    asked = iterate(mixed)
    scenes = [sample.scene_id for sample in asked]
    assert set(scenes[:2]) == set(scenes[2:]) and len(set(scenes)) == 2
    assert len({sample.answer for sample in asked}) == 4
    longer = SceneQuestionDataset(rooms, 4, tasks=("reconstruction",), num_views=2)
    assert {sample.id for sample in asked} == {longer[index].id for index in range(4)}


def test_tasks_have_weights_that_follow_the_run():
    rooms = load_multiview("rendered_rooms", split="train", num_rooms=1)
    tasks = {"camera_path": {0: 1.0, 0.5: 0.0, "kind": "step"}, "reconstruction": {0: 0.0, 0.5: 3.0, "kind": "step"}}
    alone = SceneQuestionDataset(rooms, 20, tasks)
    mixed = MixedDataset({"rooms": SceneQuestionDataset(rooms, None, tasks)}, length=20)
    for dataset in (alone, mixed):
        assert dataset.is_scheduled
        made = [dataset[index].metadata["maker"] for index in range(20)]
        assert made == ["camera_path"] * 10 + ["reconstruction"] * 10
    weighted = SceneQuestionDataset(rooms, 400, {"camera_path": 3.0, "marked_pixel": 1.0})
    drawn = weighted._draw_tasks(np.random.default_rng(0), 4000, 0.0)
    assert abs((drawn == 0).mean() - 0.75) < spread(0.75, 4000) and not weighted.is_scheduled


# Streams


class Numbers(IterableDataset):
    def __init__(self, size, name):
        self.size, self.name = size, name

    def __iter__(self):
        return iter([f"{self.name}{row}" for row in range(self.size)])


def files(name, num_files, size):
    def rows(files):
        for file in files:
            yield from ({"id": f"{name}{file}-{row}"} for row in range(size))

    return StreamedRows.from_generator(rows, gen_kwargs={"files": list(range(num_files))})


def test_streams_are_drawn_by_weights_and_begun_again():
    mixed = MixedStream({"a": Numbers(5, "a"), "b": Numbers(100, "b")}, {"a": 3.0})
    items = list(islice(mixed, 400))
    assert abs(share_of(items, "a") - 0.75) < spread(0.75, 400)
    assert [item for item in items if item[0] == "a"][:10] == 2 * [f"a{row}" for row in range(5)]
    assert items == list(islice(mixed, 400)) and items[200:] == list(islice(mixed, 200, 400))


def test_a_stream_mixes_with_items_that_have_places():
    mixed = MixedStream({"a": Numbers(5, "a"), **letters(b=100)}, limits={"b": 10})
    own = [item for item in islice(mixed, 100) if item[0] == "b"]
    assert len(set(own[:10])) == 10 == len(set(own)) and own[10:20] != own[:10]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_no_row_of_a_mixed_stream_goes_to_two_processes(num_workers):
    """Within a round of its source, of which each ends with some rows left."""
    mixed = MixedStream(
        {"a": files("a", 4, 50), "b": files("b", 3 + num_workers // 2, 80), **letters(c=400)}, {"c": 2.0}
    )
    shares = []
    for rank in range(2):
        loader = DataLoader(rows_of_process(mixed, rank, 2), batch_size=None, num_workers=num_workers)
        shares.append([row if isinstance(row, str) else row["id"] for row in islice(loader, 200)])
        assert abs(share_of(shares[rank], "c") - 0.5) < spread(0.5, 200)
    assert len(set(shares[0] + shares[1])) == 400


def test_no_row_of_a_mixed_stream_is_lost():
    mixed, every = MixedStream({"a": files("a", 4, 6), "b": files("b", 3, 5), **letters(c=30)}), set()
    for rank in range(2):
        rows = [row if isinstance(row, str) else row["id"] for row in islice(rows_of_process(mixed, rank, 2), 200)]
        for name, size in (("a", 12), ("b", 8 - rank), ("c", 15)):
            every.update([row for row in rows if row[0] == name][:size])  # its first round
    assert len(every) == 24 + 15 + 30


@pytest.mark.parametrize("num_workers", [0, 2])
def test_weights_of_a_stream_follow_the_run_of_all_processes(num_workers):
    weights = {"a": {0: 1.0, 0.5: 0.0, "kind": "step"}, "b": {0: 0.0, 0.5: 1.0, "kind": "step"}}
    mixed = MixedStream(letters(a=40, b=40), weights, length=160)
    for rank in range(2):
        loader = DataLoader(rows_of_process(mixed, rank, 2), batch_size=None, num_workers=num_workers)
        assert [item[0] for item in islice(loader, 80)] == ["a"] * 40 + ["b"] * 40


def test_questions_of_a_stream_follow_the_run():
    rows = list(iterate(load_multiview("rendered_rooms", split="train", num_rooms=2)))
    tasks = {"camera_path": {0: 1.0, 0.5: 0.0, "kind": "step"}, "reconstruction": {0: 0.0, 0.5: 1.0, "kind": "step"}}
    stream = SceneQuestionStream(rows, tasks, num_views=3)
    with pytest.raises(ValueError, match="tasks has weights that follow the run: put the stream into a MixedStream"):
        next(iter(stream))
    mixed = MixedStream({"rooms": stream}, length=8)
    assert [sample.metadata["maker"] for sample in islice(mixed, 8)] == ["camera_path"] * 4 + ["reconstruction"] * 4
    shared = rows_of_process(mixed, 1, 2)
    assert [sample.metadata["maker"] for sample in islice(shared, 4)] == ["camera_path"] * 2 + ["reconstruction"] * 2


def test_a_worker_without_rows_is_named():
    mixed = MixedStream({"a": files("a", 1, 6), **letters(b=10)})
    with pytest.raises(ValueError, match="the source 'a' streams no rows .* and worker; where files are few"):
        list(islice(DataLoader(mixed, batch_size=None, num_workers=2), 50))


# What is refused


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((letters(a=3), {"b": 1.0}), "weights has the unknown key 'b'.*it takes a"),
        ((letters(scans=3), None, {"scan": 1}), "limits has the unknown key 'scan' .did you mean 'scans'"),
        ((letters(a=3), {"a": -1.0}), "weights.a is -1.0; expected a finite number of at least 0"),
        ((letters(a=3, b=3), {"a": 0, "b": {0: 1, 0.5: 0}}), "weights has no weight above 0 when 0.5 of the run"),
        ((letters(a=3, b=0),), "the source 'b' has no rows"),
        ((letters(a=3), None, {"a": 0}), "the limit of 'a' is 0; expected 1 or more"),
        ((letters(a=3), None, None, 0), "length is 0"),
        (({},), "sources is {}; expected one or more datasets"),
        ((["a"],), r"sources is \['a'\]; expected one or more datasets, each by a name"),
        (({"a": Numbers(3, "a")},), "the source 'a' is a Numbers, without number and places.*MixedStream"),
    ],
)
def test_what_cannot_be_mixed_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MixedDataset(*arguments)


def test_streams_that_cannot_be_mixed_are_named():
    with pytest.raises(ValueError, match=r"limit its rows before: rows.take\(3\)"):
        MixedStream({"a": Numbers(5, "a")}, limits={"a": 3})
    with pytest.raises(ValueError, match="weights follow the run; give length"):
        MixedStream(letters(a=5), {"a": {0: 1.0, 1: 0.5}})
    with pytest.raises(IndexError, match="item 5 of 5"):
        MixedDataset(letters(a=5))[5]


SCRIPT = """
import json, sys, torch
torch.set_num_threads(1)
from gap_mllm import GapMllmForPreTraining, GapMllmProcessor
from gap_mllm.processing.data import SceneSample, load_multiview
from gap_mllm.training import GeometryAlignedTrainer, GeometryAlignedTrainingArguments, MixedStream
from gap_mllm.training import SceneCollator, SceneQuestionDataset

folder, source = sys.argv[1], json.loads(sys.argv[2])
model = GapMllmForPreTraining.from_pretrained(folder + "/model", dtype="float32")
collator = SceneCollator(
    GapMllmProcessor.from_pretrained(folder + "/model"), max_views=2, max_view_pixels=64 * 64, for_pretraining=True,
    point_map_side=model.config.point_map_side,
)
seen = []
def collate(rows):
    seen.extend(row.scene_id + row.id if isinstance(row, SceneSample) else row["id"] for row in rows)
    return collator(rows)
args = GeometryAlignedTrainingArguments(
    output_dir=folder + "/out", per_device_train_batch_size=1, max_steps=4, logging_steps=1, report_to="none",
    save_strategy="no", use_cpu=True, terms={"point_map": {"weight": {0: 0.0, 0.5: 0.0, 0.75: 1.0}}},
    gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False},
)
rooms = load_multiview("rendered_rooms", split="train", num_rooms=8)
questions = SceneQuestionDataset(rooms, tasks=("reconstruction",), num_views=2)
rows = load_multiview(**source, streaming=True)
weights = {"rows": {0: 1.0, 0.5: 0.0, "kind": "step"}, "rooms": {0: 0.0, 0.5: 1.0, "kind": "step"}}
mixed = MixedStream({"rows": rows, "rooms": questions}, weights, length=8)
trainer = GeometryAlignedTrainer(model=model, args=args, train_dataset=mixed, data_collator=collate)
trainer.train()
logged = [entry for entry in trainer.state.log_history if "loss" in entry]
json.dump([seen, logged], open(f"{folder}/rank{args.process_index}.json", "w"))
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch.distributed is not built in")
@pytest.mark.slow
def test_two_processes_train_on_a_mixture_by_weights_that_follow_the_run(
    tmp_path, make_pretraining_model, tiny_processor
):
    """Heads whose term weighs nothing at first have gradients all the same, which DDP waits for."""
    make_pretraining_model().save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    (tmp_path / "run.py").write_text(SCRIPT)
    source = {"name": "gap_mllm", "data_dir": str(FORMATS / "gap_mllm"), "split": "train", "tasks": ["reconstruction"]}
    run_in_two(tmp_path / "run.py", tmp_path, json.dumps(source))
    (seen, logged), (others, _) = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert not set(seen) & set(others) and len(set(seen[:4] + others[:4])) == 8
    for items in (seen, others):
        assert ["room" in item for item in items[:4]] == [False, False, True, True]
    assert [entry["weight_point_map"] for entry in logged] == [0.0, 0.0, 0.0, 1.0]
    for entry in logged:
        expected = entry["loss_text"] + entry["weight_point_map"] * entry.get("loss_point_map", 0.0)  # rows: no depth
        assert entry["loss"] == pytest.approx(expected, rel=1e-3)
