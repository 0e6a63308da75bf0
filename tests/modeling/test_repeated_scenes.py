"""Scenes that a batch holds several times: encoded once, with the features, answers and gradients of each alone."""

import pytest
import torch


NOISE = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order


@pytest.fixture(scope="module")
def scene(make_inputs):
    """Two views of unlike sizes."""
    return make_inputs([(64, 64), (64, 96)])


def stack(*rows, **changes):
    """A batch of rows of inputs that have the same tokens."""
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]} | changes


@pytest.fixture
def seen(model):
    """What the geometry encoder is called with: the scene lengths, and the number of views."""
    calls = []
    handle = model.model.geometry.register_forward_hook(
        lambda _, arguments, output: calls.append((output.scene_lengths, len(arguments[0])))
    )
    yield calls
    handle.remove()


@torch.no_grad()
def test_copies_of_a_scene_are_encoded_once(model, scene, make_inputs, seen):
    other = make_inputs([(64, 64), (64, 96)], seed=2)
    together = model(**stack(scene, other, scene, scene, other)).logits
    assert seen == [([2, 2], 4)]
    for row, alone in enumerate((scene, other, scene, scene, other)):
        torch.testing.assert_close(together[row], model(**alone).logits[0], **NOISE)


@torch.no_grad()
def test_answers_of_copies_are_those_of_each_alone(model, scene, make_inputs, seen):
    other = make_inputs([(64, 64), (64, 96)], seed=2)
    together = model.generate(**stack(other, scene, other), max_new_tokens=4, do_sample=False)
    assert seen == [([2, 2], 4)]
    for row, alone in enumerate((other, scene, other)):
        assert torch.equal(together[row], model.generate(**alone, max_new_tokens=4, do_sample=False)[0])


def test_gradients_are_the_sum_over_the_copies(tiny_model, scene):
    model, gradients = tiny_model().train(), []
    for count, weight in ((3, 1 / 3), (1, 1.0)):
        model.zero_grad()
        batch = stack(*[scene] * count)
        (weight * model(**batch, labels=batch["input_ids"], num_items_in_batch=1).loss).backward()
        gradients.append({name: each.grad for name, each in model.named_parameters() if each.grad is not None})
    several, once = gradients
    assert {name.split(".")[1] for name in once} >= {"visual", "geometry", "fusion", "language_model"}
    for name, gradient in once.items():
        torch.testing.assert_close(several[name], gradient, rtol=1e-3, atol=1e-4, msg=name)


@torch.no_grad()
def test_scenes_that_only_look_alike_stay_apart(model, make_inputs, seen):
    scene = make_inputs([(64, 64), (64, 64)])
    patches = scene["pixel_values"]
    moved = patches.clone()
    moved[0] = patches[0].flip(-1)  # the same numbers at other places, and so the same sum
    views_swapped = torch.cat([patches[16:], patches[:16]])
    pixels = torch.cat([patches, moved, views_swapped])
    model(**stack(scene, scene, scene, pixel_values=pixels))
    wide = make_inputs([(64, 96)])
    model(**stack(wide, wide, image_grid_thw=torch.tensor([[1, 4, 6], [1, 6, 4]])))  # as many patches
    assert seen == [([2, 2, 2], 6), ([1, 1], 2)]
    one = {"pixel_values": patches[:16].repeat(3, 1), "image_grid_thw": scene["image_grid_thw"][[0, 0, 0]]}
    model.model.get_image_features(**one, scene_lengths=[2, 1])
    assert seen[-1] == ([2, 1], 3)  # as many views tell scenes apart


@torch.no_grad()
def test_all_images_of_the_batch_come_back(model, scene):
    batch = stack(scene, scene)
    names = ("pixel_values", "image_grid_thw")
    output = model.model.get_image_features(**{name: batch[name] for name in names}, scene_lengths=[2, 2])
    assert [len(tokens) for tokens in output.pooler_output] == [4, 6, 4, 6]
    assert all([len(tokens) for tokens in level] == [4, 6, 4, 6] for level in output.deepstack_features)
    with model.geometry_disabled():  # Qwen3-VL's own, patch by patch
        plain = model.model.get_image_features(**{name: batch[name] for name in names})
    assert len(plain.last_hidden_state) == 80


def test_a_number_of_patches_that_does_not_fit_is_named(model, scene):
    batch = stack(scene, scene)
    with pytest.raises(ValueError, match="holds 80 patches, but pixel_values has 79 rows"):
        model.model.get_image_features(batch["pixel_values"][1:], batch["image_grid_thw"], scene_lengths=[2, 2])
