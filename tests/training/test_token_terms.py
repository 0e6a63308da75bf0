"""Terms on features of visual tokens: what tokens see, what is taught, and that no split of a batch changes it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from gap_mllm.processing.data import RenderedRooms, RoomVariety
from gap_mllm.processing.data.augmentation import flip_horizontally
from gap_mllm.processing.data.scene_sample import Box
from gap_mllm.processing.data.view_selection import select_views
from gap_mllm.training import SceneQuestionDataset
from gap_mllm.training.losses import SHAPE_WORDS, SPATIAL_RELATIONS, chamfer_loss
from gap_mllm.training.object_targets import CELLS, find_objects, spread_points
from gap_mllm.training.rooms import RoomQuestionDataset, RoomQuestions
from gap_mllm.training.teachers import RecordedTeacher
from gap_mllm.training.terms import ConsistencyTerm, CorrespondenceTerm, RegionTextTerm, make_terms
from gap_mllm.training.terms.shape_term import occupied_cells


VIEWS = RoomVariety(sizes=((128, 128),), size_shares=(1.0,), num_views=(3, 2), num_views_shares=(0.5, 0.5))
GRID = (4, 4)  # of a view of 128 x 128 pixels
TERMS = {
    "correspondence": {"weight": 1.0, "voxel_size_m": 0.5, "feature_size": 8},
    "consistency": {"weight": 0.5, "voxel_size_m": 0.5, "feature_size": 8},
    "shape": {"weight": 2.0, "layers": [1]},
    "region_text": {"weight": 0.3, "negatives": ["bed", "bin", "sofa"]},
    "relations": {"weight": 1.0, "head_size": 16},
    "label_map": {"weight": 0.5, "side": 2, "negatives": ["bed", "lamp"]},
}


@pytest.fixture(scope="module")
def rooms():
    dataset = RoomQuestionDataset(RenderedRooms("train", 2, VIEWS, 1), RoomQuestions(counts={"reconstruction": 2}))
    return [dataset[index] for index in range(2)]


@pytest.fixture
def prepare(make_teaching_trainer, rooms):
    """`make_teaching_trainer` on these rooms."""

    def make(model, terms, items=None, **options):
        return make_teaching_trainer(model, terms, items or rooms, **options)

    return make


def logged(trainer):
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def objects_of(sample, views=None, samples=()):
    views = sample.views if views is None else views
    return find_objects(RecordedTeacher()(views), views, [GRID] * len(views), samples)


def without_maps(sample):
    return replace(sample, views=tuple(replace(view, instances=None) for view in sample.views))


def test_tokens_see_the_object_with_most_of_their_pixels(rooms):
    sample = rooms[0][0]
    found, ids = objects_of(sample), sample.views[1].instances.ids
    tokens = found.tokens.view(-1, *GRID)[1]
    assert len(found.labels) > 1 and (tokens >= 0).any() and found.is_known == [True] * len(sample.views)
    for row, column in (tokens >= 0).nonzero().tolist():
        cell = ids[32 * row : 32 * row + 32, 32 * column : 32 * column + 32][2::4, 2::4]  # the places that are asked
        numbers, counts = np.unique(cell[cell > 0], return_counts=True)
        label = sample.views[1].instances.label_of(numbers[counts.argmax()])
        assert found.labels[tokens[row, column]] == label and counts.max() >= CELLS**2 / 4


def test_surface_points_lie_in_the_box_of_their_object(rooms):
    scene = RenderedRooms("train", 2, VIEWS, 1)[0]
    found = objects_of(scene)
    by_label = {}
    for box in scene.boxes:
        by_label.setdefault(box.label, []).append(scene.box_in_view(box, 0))
    for label, points in zip(found.labels, found.points.numpy(), strict=True):
        reach = [np.linalg.norm(points - numbers[:3], axis=1).max() for numbers in by_label[label]]
        half = [np.linalg.norm(numbers[3:6]) / 2 for numbers in by_label[label]]
        assert any(far <= most + 0.02 for far, most in zip(reach, half, strict=True)), label
    assert torch.allclose(found.centers, found.points.mean(1))


def test_boxes_find_the_objects_of_views_without_maps():
    scene = RenderedRooms("train", 2, VIEWS, 1)[1]
    bare = without_maps(scene)
    by_map, by_box = objects_of(scene), objects_of(bare, samples=[bare])
    assert sorted(by_box.labels) == sorted(by_map.labels)
    agree = [
        (by_box.labels[box] if box >= 0 else "") == (by_map.labels[seen] if seen >= 0 else "")
        for box, seen in zip(by_box.tokens.tolist(), by_map.tokens.tolist(), strict=True)
    ]
    assert np.mean(agree) > 0.9  # a box holds some of the floor and walls around its object
    nothing = objects_of(bare)
    assert not nothing.labels and nothing.is_known == [False] * len(bare.views) and (nothing.tokens == -1).all()


def test_a_question_made_from_a_scene_knows_all_its_boxes():
    bare = without_maps(RenderedRooms("train", 2, VIEWS, 1)[1])
    asked = SceneQuestionDataset([bare], tasks=("object_count",))[0]
    assert len(asked.boxes) < len(bare.boxes) and "scene_boxes" not in asked.to_row()
    assert objects_of(asked, samples=[asked]).labels == objects_of(bare, samples=[bare]).labels
    flipped = flip_horizontally(replace(asked, question="How many are there?"))
    found = objects_of(flipped, samples=[flipped])
    assert sorted(found.labels) == sorted(objects_of(bare, samples=[bare]).labels)
    marked = SceneQuestionDataset([bare], tasks=("reconstruction",))[0]
    fewer = select_views(marked, sorted({0, marked.marks[0].view}))
    assert len(fewer.scene_boxes) == len(bare.boxes) and objects_of(fewer, samples=[fewer]).labels


def test_a_smaller_box_takes_what_lies_in_a_larger_one(rooms):
    bare = without_maps(rooms[0][0])
    points = RecordedTeacher()(bare.views).points()[0].numpy()
    middle = points[64, 64]
    large = Box(np.array([*middle, 9.0, 9.0, 9.0, 0, 0, 0]), "zxy", "camera", 0, "cabinet", "1")
    small = Box(np.array([*middle, 1.0, 1.0, 1.0, 0, 0, 0]), "zxy", "camera", 0, "box", "2")
    found = objects_of(bare, samples=[replace(bare, boxes=(small, large), scene_boxes=())])
    seen = found.tokens[: GRID[0] * GRID[1]].view(GRID)[2, 2]
    assert found.labels[seen] == "box" and "cabinet" in found.labels


def test_spread_points_are_far_apart_and_repeat_where_there_are_few():
    line = np.stack([np.linspace(0, 1, 101), np.zeros(101), np.zeros(101)], 1)
    assert sorted(spread_points(line, 3)[:, 0]) == [0.0, 0.5, 1.0]
    assert spread_points(line[:2], 5).shape == (5, 3)
    assert len(spread_points(np.random.default_rng(0).random((9000, 3)), 64)) == 64


@pytest.mark.slow
def test_token_terms_train_and_are_the_same_for_every_split(make_pretraining_model, prepare):
    entries = []
    for batch in (2, 1):
        options = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 2 // batch}
        entries.append(logged(prepare(make_pretraining_model(), TERMS, **options))[0])
    whole, split = entries
    weighted = sum(TERMS[name]["weight"] * whole[f"loss_{name}"] for name in TERMS)
    assert whole["loss"] == pytest.approx(whole["loss_text"] + weighted, rel=1e-4)
    for name in ("loss", "grad_norm", *(f"loss_{name}" for name in TERMS)):
        assert whole[name] > 0 and split[name] == pytest.approx(whole[name], rel=1e-4), name


def test_counts_are_those_of_the_losses(make_pretraining_model, prepare, rooms):
    trainer = prepare(make_pretraining_model(), TERMS)
    batch = trainer.data_collator(copy.deepcopy(rooms))
    _, outputs = trainer.compute_terms(trainer.model, batch)
    for name in TERMS:
        term, targets = trainer.terms[name], batch["teacher_targets"][name]
        count = term.loss(outputs.head_outputs[name], targets, outputs, batch["scene_rows"].tolist()).count
        assert int(count) == trainer.count_items(batch)[name] > 0, name
    shapes = sum(len(objects_of(room[0]).labels) * len(room) for room in rooms)
    assert trainer.count_items(batch)["shape"] == shapes


def test_a_head_that_tells_the_targets_has_no_loss(make_pretraining_model, prepare, rooms):
    trainer = prepare(make_pretraining_model(), TERMS)
    batch = trainer.data_collator(copy.deepcopy(rooms))
    targets = batch["teacher_targets"]
    _, outputs = trainer.compute_terms(trainer.model, batch)

    def told(name, features_of_scene):
        per_scene = [features_of_scene(index, ids) for index, ids in enumerate(targets[name]["tokens"])]
        outputs.head_outputs[name] = torch.cat(per_scene)
        return float(trainer.terms[name].sum(outputs, batch)) / trainer.count_items(batch)[name]

    def of_object(table, ids):
        return torch.where(ids[:, None] >= 0, table[ids.clamp_min(0)], 0.0)

    assert told("shape", lambda scene, ids: of_object(targets["shape"]["points"][scene].flatten(1), ids)) < 1e-6
    embed = trainer.model.model.language_model.embed_tokens

    def label_text(scene, ids):
        texts = [embed(text[text >= 0]).mean(0).detach() for text in targets["region_text"]["texts"][scene]]
        return of_object(torch.stack(texts)[targets["region_text"]["labels"][scene]], ids)

    told_text = told("region_text", label_text)
    wrong = told("region_text", lambda scene, ids: -label_text(scene, ids))
    assert told_text < 0.5 * wrong  # shapes have texts of their own

    def label_places(scene, ids):
        texts = torch.stack([embed(text[text >= 0]).mean(0).detach() for text in targets["label_map"]["texts"][scene]])
        return texts[targets["label_map"]["labels"][scene]].flatten(1)  # -1, the last, where it does not matter

    wrong = told("label_map", lambda scene, ids: label_places(scene, ids).roll(3, 0))
    assert told("label_map", label_places) < 0.1 * wrong
    voxels = torch.randn(400, 8)
    assert told("consistency", lambda scene, ids: of_object(voxels, ids)) < 1e-5
    assert told("consistency", lambda scene, ids: torch.ones(len(ids), 8)) == 1.0  # one for all is no solution
    apart = told("correspondence", lambda scene, ids: of_object(100 * torch.eye(400), ids))
    partners = [(ids[:, None] == ids)[ids >= 0].sum(1) - 1 for ids in targets["correspondence"]["tokens"]]
    partners = torch.cat(partners)[torch.cat(partners) > 0]
    least = partners.log().mean().item()  # each of several partners is as likely as the others
    assert apart == pytest.approx(least, abs=0.02)
    assert told("correspondence", lambda scene, ids: torch.randn(len(ids), 400)) > apart + 0.5


def test_texts_are_told_as_words(make_pretraining_model, prepare, rooms, tiny_processor):
    trainer = prepare(make_pretraining_model(), TERMS)
    batch = trainer.data_collator(copy.deepcopy(rooms))
    words = [
        tiny_processor.tokenizer.decode(text[text >= 0])
        for text in batch["teacher_targets"]["region_text"]["texts"][0]
    ]
    labels = objects_of(rooms[0][0]).labels
    assert words == [*sorted({*labels, "bed", "bin", "sofa"}), *SHAPE_WORDS]
    found = batch["teacher_targets"]["region_text"]["labels"][0].tolist()
    assert [words[label] for label in found] == labels
    told = [
        tiny_processor.tokenizer.decode(text[text >= 0]) for text in batch["teacher_targets"]["relations"]["texts"][1]
    ]
    assert tuple(told) == SPATIAL_RELATIONS


def test_where_nothing_is_known_there_are_no_texts(make_pretraining_model, prepare, rooms):
    """Views without objects, and no negatives: nothing is counted, and the others are what they were."""
    trainer = prepare(make_pretraining_model().eval(), {"label_map": {"weight": 1.0}})
    known = rooms[:1]
    views = tuple(replace(view, instances=None, depth_picture=None) for view in rooms[1][0].views)
    bare = [replace(sample, views=views, boxes=(), scene_boxes=()) for sample in rooms[1]]
    batch = trainer.data_collator(copy.deepcopy([*known, bare]))
    assert [len(texts) for texts in batch["teacher_targets"]["label_map"]["texts"]][1] == 0
    alone = trainer.data_collator(copy.deepcopy(known))
    sums = [trainer.compute_terms(trainer.model, each)[0]["label_map"].item() for each in (batch, alone)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)  # rows are padded otherwise


def test_places_are_named_walls_and_floors_too(make_pretraining_model, prepare, rooms, tiny_processor):
    trainer = prepare(make_pretraining_model(), TERMS)
    told, view = trainer.data_collator(copy.deepcopy(rooms))["teacher_targets"]["label_map"], rooms[0][0].views[1]
    names = [tiny_processor.tokenizer.decode(text[text >= 0]) for text in told["texts"][0]]
    assert names == sorted(names) and {"bed", "lamp", "wall", "floor"} <= set(names)
    first = 16  # tokens of the view before
    for token in range(16):
        for row in range(2):
            for column in range(2):
                y, x = 32 * (token // 4) + 16 * row + 8, 32 * (token % 4) + 16 * column + 8
                name = names[told["labels"][0][first + token, row, column]]
                near = view.instances.ids[y - 2 : y + 3, x - 2 : x + 3]
                assert name.endswith(" cross") or name in {
                    view.instances.label_of(number) for number in np.unique(near)
                }
    for mark in (mark for sample in rooms[0] for mark in sample.marks):
        x, y = mark.xy
        token = 16 * mark.view + y // 32 * 4 + x // 32
        assert names[told["labels"][0][token, y % 32 // 16, x % 32 // 16]] == f"{mark.color} cross"
    shown = told["labels"][0].unique()
    assert told["count"][0] == len(shown[shown >= 0])


def test_places_of_boxes_are_named_and_others_are_not():
    bare = without_maps(RenderedRooms("train", 2, VIEWS, 1)[1])
    by_box = objects_of(bare, samples=[bare])
    assert set(by_box.names) == set(by_box.labels) and (by_box.places == -1).any() and (by_box.places >= 0).any()
    tokens = by_box.tokens.repeat_interleave(CELLS**2).view(by_box.places.shape)
    both = (tokens >= 0) & (by_box.places >= 0)
    agree = [
        by_box.labels[object] == by_box.names[name]
        for object, name in zip(tokens[both].tolist(), by_box.places[both].tolist(), strict=True)
    ]
    assert np.mean(agree) > 0.6  # of a token the object with most of it, of a place its own


def test_the_text_is_not_moved_by_the_term(make_pretraining_model, prepare, rooms):
    model = make_pretraining_model()
    trainer = prepare(model, {"region_text": {"weight": 1.0}}, text_weight=0.0)
    batch = trainer.data_collator(copy.deepcopy(rooms))
    sums, _ = trainer.compute_terms(model, batch)
    embeddings, texts = model.get_input_embeddings().weight, batch["teacher_targets"]["region_text"]["texts"][0]
    gradient = torch.autograd.grad(sums["region_text"], embeddings, allow_unused=True)[0]
    shown = set(batch["input_ids"].flatten().tolist())
    unseen = [token for text in texts for token in text.tolist() if token not in {-1, *shown}]
    assert unseen and (gradient is None or not gradient[unseen].any())


def test_what_views_lack_is_counted_and_not_made_up(make_pretraining_model, prepare, rooms):
    bare = [
        [
            replace(
                sample,
                boxes=(),
                views=tuple(replace(view, instances=None, depth_picture=None) for view in sample.views),
            )
            for sample in room
        ]
        for room in rooms
    ]
    trainer = prepare(make_pretraining_model(), TERMS)
    alone, both = trainer.data_collator(copy.deepcopy(rooms[:1])), trainer.data_collator([rooms[0], bare[1]])
    assert trainer.data_collator.counts["views_without_depth"] == len(TERMS) * len(bare[1][0].views) * len(bare[1])
    counts = trainer.count_items(alone)
    assert trainer.count_items(both) == counts | {"text": trainer.count_items(both)["text"]}
    first, second = (trainer.compute_terms(trainer.model, batch)[0] for batch in (alone, both))
    for name in TERMS:
        assert second[name].item() == pytest.approx(first[name].item(), rel=1e-4), name
    none = trainer.data_collator(bare[:1])
    sums, _ = trainer.compute_terms(trainer.model, none)
    assert all(trainer.count_items(none)[name] == 0 and sums[name].item() == 0 for name in TERMS)
    assert all(sums[name].requires_grad for name in TERMS)


def test_points_are_one_for_each_voxel_and_view(rooms):
    views = rooms[0][0].views
    told, size = RecordedTeacher()(views), 0.5
    for term in (CorrespondenceTerm(voxel_size_m=size), ConsistencyTerm(voxel_size_m=size)):
        targets = term.targets(told, views, [GRID] * len(views), {})
        tokens, number = targets["tokens"][0], targets["number"][0]
        both = [(int(token), int(view)) for token, view in zip(tokens, number, strict=True) if token >= 0]
        assert len(both) == len(set(both)) > 4
        # The mean of what a token sees lies in its voxel
        cells = told.resized([(4 * CELLS, 4 * CELLS)] * len(views)).points()
        middles = torch.cat(
            [each.unflatten(0, (4, CELLS)).unflatten(2, (4, CELLS)).mean((1, 3)).flatten(0, 1) for each in cells]
        )
        pairs = [(i, j) for i in range(len(tokens)) for j in range(i) if tokens[i] == tokens[j] >= 0]
        assert pairs and all((middles[i] - middles[j]).abs().max() <= size + 1e-4 for i, j in pairs)


@pytest.mark.parametrize("name", ["shape", "correspondence", "relations"])
def test_a_token_head_reads_one_layer(make_pretraining_model, prepare, name):
    with pytest.raises(ValueError, match=rf"terms.{name}.layers is \[1, 2\]; its head reads one layer"):
        prepare(make_pretraining_model(), {name: {"weight": 1.0, "layers": [1, 2]}})


def test_a_shape_that_is_no_word_is_refused_with_the_nearest(make_trainer):
    with pytest.raises(ValueError, match="cylindre.*did you mean 'cylinder'"):
        make_terms(None, {"region_text": {"weight": 1.0, "shapes": {"bin": "cylindre"}}})
    assert RegionTextTerm().shapes["bin"] == "cylinder"


def test_cells_that_hold_points():
    points = torch.tensor([[[-0.9, -0.9, 0.9], [0.1, 0.1, 0.1], [3.0, 0.0, 0.0]]])
    assert occupied_cells(points, 2, 2.0).nonzero()[:, 1].tolist() == [1, 7]  # the third lies outside


def test_a_shape_as_occupied_cells(make_pretraining_model, prepare, rooms):
    terms = {"shape": {"weight": 1.0, "occupancy_side": 4, "extent_m": 3.0}}
    trainer = prepare(make_pretraining_model(), terms)
    assert trainer.model.config.training_heads["shape"]["feature_size"] == 64
    batch = trainer.data_collator(copy.deepcopy(rooms))
    _, outputs = trainer.compute_terms(trainer.model, batch)
    targets = batch["teacher_targets"]["shape"]
    cells = [occupied_cells(points, 4, 3.0) for points in targets["points"]]
    told = [
        torch.where(ids[:, None] >= 0, 40.0 * scene[ids.clamp_min(0)] - 20, 0.0)
        for ids, scene in zip(targets["tokens"], cells, strict=True)
    ]
    outputs.head_outputs["shape"] = torch.cat(told)
    assert float(trainer.terms["shape"].sum(outputs, batch)) == pytest.approx(0, abs=1e-4)
    assert logged(trainer)[0]["loss_shape"] == pytest.approx(0.7, abs=0.3)  # of a head that knows nothing: ln 2


def test_chamfer_of_the_shapes_does_not_know_the_place(make_pretraining_model, prepare, rooms):
    trainer = prepare(make_pretraining_model(), TERMS)
    points = trainer.data_collator(copy.deepcopy(rooms))["teacher_targets"]["shape"]["points"][0]
    assert points.mean(1).abs().max() < 1e-5
    assert torch.allclose(points, (lambda found: found.points - found.centers[:, None])(objects_of(rooms[0][0])))
    assert float(chamfer_loss(points, points).mean) == 0
