"""Views without depth, pose or intrinsics have no dense targets; everything else keeps its own, in any process."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from gap_mllm.processing.data import complete_row, make_question, render_room
from gap_mllm.processing.data.rooms.room_scenes import scene_row, scene_views
from gap_mllm.training.collation_events import COLLATION_EVENTS
from gap_mllm.training.scene_collator import SceneCollator
from tests.training.processes import run_here, run_in_two


def make_row(seed, num_views, height=64, width=96):
    scene = render_room(seed, num_views=num_views, height=height, width=width)
    row = scene_row(scene, make_question(scene, "reconstruction"), scene_views(scene), "train", f"room-{seed}")
    return complete_row(**row)


@pytest.fixture(scope="module")
def rows():
    """Rooms in 3, 2 and 2 views of 6, 4 and 6 tokens."""
    return [make_row(0, 3), make_row(1, 2, 64, 64), make_row(2, 2)]


def without(row, view, *names):
    views = [{**part, **dict.fromkeys(names)} if index == view else part for index, part in enumerate(row["views"])]
    return {**row, "views": views}


def collate(processor, rows):
    collator = SceneCollator(processor, for_pretraining=True, point_map_side=2)
    return collator(rows), collator.counts


CAMERA = ("intrinsics", "depth_intrinsics")


@pytest.mark.parametrize("missing", [("depth",), ("camera_to_world",), CAMERA])
def test_only_the_view_that_lacks_something_loses_its_targets(rows, tiny_processor, missing, caplog):
    whole, none_lost = collate(tiny_processor, rows)
    batch, counts = collate(tiny_processor, [without(rows[0], 1, *missing), *rows[1:]])
    targets, expected = batch["point_map_targets"], whole["point_map_targets"].clone()
    assert len(targets) == 3 * 6 + 2 * 4 + 2 * 6 and expected.isfinite().all()
    expected[6:12] = float("nan")
    torch.testing.assert_close(targets, expected, equal_nan=True)
    assert counts == {"views_without_depth": 1} and not none_lost
    assert dict(zip(COLLATION_EVENTS, batch["collation_counts"].tolist(), strict=True)) == {
        event: int(event == "views_without_depth") for event in COLLATION_EVENTS
    }
    assert not whole["collation_counts"].any()
    assert "views_without_depth: 1 so far; the last row, 'room-0', has 1 of 3 views without depth" in caplog.text


def test_without_the_first_pose_only_the_first_view_has_a_place(rows, tiny_processor):
    whole, _ = collate(tiny_processor, rows[:1])
    batch, counts = collate(tiny_processor, [without(rows[0], 0, "camera_to_world")])
    assert batch["point_map_targets"][6:].isnan().all() and counts == {"views_without_depth": 2}
    torch.testing.assert_close(batch["point_map_targets"][:6], whole["point_map_targets"][:6])


def test_rows_without_depth_stand_beside_rows_with_it(rows, tiny_processor):
    bare = {**rows[2], "views": [{**view, "depth": None} for view in rows[2]["views"]]}
    text = complete_row(id="text", question="How many legs has a chair?", answer="Four.")
    whole, _ = collate(tiny_processor, rows[:2])
    batch, counts = collate(tiny_processor, [rows[0], text, bare, rows[1]])
    targets = batch["point_map_targets"]
    assert torch.equal(targets[:18], whole["point_map_targets"][:18]) and targets[18:30].isnan().all()
    assert torch.equal(targets[30:], whole["point_map_targets"][18:]) and counts == {"views_without_depth": 2}


def test_depth_maps_of_mixed_sizes_serve(rows, tiny_processor):
    """A depth map of half the size, without intrinsics of its own, is that of the resized picture."""
    whole, _ = collate(tiny_processor, rows[:1])
    view = rows[0]["views"][1]
    depth = np.asarray(view["depth"] if not isinstance(view["depth"], dict) else decode(view["depth"]))
    half = {**view, "depth": depth[::2, ::2].copy(), "depth_intrinsics": None}
    batch, counts = collate(tiny_processor, [{**rows[0], "views": [rows[0]["views"][0], half, rows[0]["views"][2]]}])
    targets, expected = batch["point_map_targets"], whole["point_map_targets"]
    assert torch.equal(targets[:6], expected[:6]) and torch.equal(targets[12:], expected[12:]) and not counts
    distance = (targets[6:12] - expected[6:12]).norm(dim=-1)
    assert distance.isfinite().all() and distance.median() < 0.05  # neighbouring depth pixels


def decode(stored):
    return Image.open(io.BytesIO(stored["bytes"]))


def test_rows_without_depth_add_no_count_and_no_nan(rows, tiny_processor, make_pretraining_model, make_trainer):
    model = make_pretraining_model()
    side = model.config.point_map_side
    trainer = make_trainer(model, point_map_weight=1.0, readout_weight=1.0)
    bare = {**rows[2], "views": [{**view, "depth": None} for view in rows[2]["views"]]}
    collator = SceneCollator(tiny_processor, for_pretraining=True, point_map_side=side)
    alone, both, none = collator(rows[:1]), collator([rows[0], bare]), collator([bare])
    with torch.no_grad():
        terms = [trainer.compute_terms(model, batch)[0]["point_map"] for batch in (alone, both, none)]
    counts = [int(trainer.count_items(batch)["point_map"]) for batch in (alone, both, none)]
    assert counts == [2 * 18 * side**2] * 2 + [0]
    assert terms[1].item() == pytest.approx(terms[0].item(), rel=1e-4) and terms[2].item() == 0.0


def test_counts_have_the_same_keys_whatever_the_batch(rows, tiny_processor, make_pretraining_model, make_trainer):
    trainer = make_trainer(make_pretraining_model(), point_map_weight=1.0, readout_weight=1.0)
    bare = {**rows[2], "views": [{**view, "depth": None} for view in rows[2]["views"]]}
    collator = SceneCollator(tiny_processor, for_pretraining=True, point_map_side=2)
    no_targets = SceneCollator(tiny_processor, for_pretraining=True)
    for batches in (
        [],
        [collator(rows)],
        [collator([bare])],
        [no_targets(rows)],
        [no_targets([bare]), collator(rows)],
    ):
        counts = trainer._get_num_items_in_batch(batches, torch.device("cpu"))
        assert list(counts) == ["text", "point_map", "readout"]
        assert all(isinstance(count, torch.Tensor) and count.isfinite() for count in counts.values())
    assert not any(trainer._get_num_items_in_batch([], torch.device("cpu")).values())
    assert COLLATION_EVENTS == (
        "views_dropped",
        "pixels_reduced",
        "views_without_depth",
        "rooms_redrawn",
        "encoded_apart",
        "scenes_from_cache",
        "scenes_encoded",
        "terms_without_items",
    )


def test_what_is_missing_is_in_the_log(rows, tiny_processor, make_pretraining_model, make_trainer):
    bare = [{**row, "views": [{**view, "depth": None} for view in row["views"]]} for row in (rows[2], rows[1])]
    model = make_pretraining_model()
    collator = SceneCollator(
        tiny_processor, for_pretraining=True, point_map_side=model.config.point_map_side, max_views=2
    )
    options = {"per_device_train_batch_size": 2, "max_steps": 2, "logging_steps": 1, "point_map_weight": 1.0}
    # made in a worker, whose own counts are never seen
    trainer = make_trainer(model, [rows[0], bare[0], *bare], collator, dataloader_num_workers=1, **options)
    trainer.train()
    first, second = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert first["views_without_depth"] == 2 and second["views_without_depth"] == 4
    assert first["views_dropped"] == 1 and "views_dropped" not in second
    assert first["loss_point_map"] > 0 and "loss_point_map" not in second and second["loss_text"] > 0


SCRIPT = """
import json, sys, torch
from dataclasses import replace
torch.set_num_threads(1)
from gap_mllm import GapMllmForPreTraining, GapMllmProcessor
from gap_mllm.training import GeometryAlignedTrainer, GeometryAlignedTrainingArguments, SceneCollator
from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions

folder, batch, rates = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
variety = RoomVariety(sizes=((64, 64),), size_shares=(1.0,), num_views=(2,), num_views_shares=(1.0,))
rooms = RoomQuestionDataset(RenderedRooms("train", 4, variety, 1), RoomQuestions(counts={"reconstruction": 1}))
samples = [rooms[index] for index in range(4)]
for place in (2, 3):  # all that the second process gets
    views = tuple(replace(view, depth_picture=None) for view in samples[place][0].views)
    samples[place] = [replace(sample, views=views) for sample in samples[place]]
model = GapMllmForPreTraining.from_pretrained(folder + "/model", dtype="float32")
args = GeometryAlignedTrainingArguments(
    output_dir=folder + "/out", per_device_train_batch_size=batch, max_steps=1, logging_steps=1, report_to="none",
    save_strategy="no", use_cpu=True, train_sampling_strategy="sequential", point_map_weight=1.0, readout_weight=1.0,
    module_learning_rates=rates, ddp_find_unused_parameters=False,
)
processor = GapMllmProcessor.from_pretrained(folder + "/model")
collator = SceneCollator(
    processor, "block_mask", for_pretraining=True, point_map_side=model.config.point_map_side
)
trainer = GeometryAlignedTrainer(model=model, args=args, train_dataset=samples, data_collator=collator)
trainer.train()
if trainer.is_world_process_zero():
    entry = [entry for entry in trainer.state.log_history if "loss" in entry][0]
    json.dump(entry, open(f"{folder}/entry{batch}.json", "w"))
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch.distributed is not built in")
def test_a_process_without_depth_beside_one_with_it_equals_one_process(
    tmp_path, make_pretraining_model, tiny_processor, monkeypatch
):
    make_pretraining_model().save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    (tmp_path / "run.py").write_text(SCRIPT)
    rates = json.dumps(
        dict.fromkeys(("vision", "mergers", "fusion", "language", "point_maps"), 1e-3) | {"geometry": 0}
    )
    run_here(tmp_path / "run.py", tmp_path, 4, rates, monkeypatch=monkeypatch)
    run_in_two(tmp_path / "run.py", tmp_path, 2, rates)
    one, two = (json.loads((tmp_path / f"entry{batch}.json").read_text()) for batch in ("4", "2"))
    for name in ("loss", "loss_text", "loss_point_map", "loss_readout", "grad_norm"):
        assert two[name] == pytest.approx(one[name], rel=1e-3), name
    assert one["views_without_depth"] == two["views_without_depth"] == 4
