"""The model: what the encoder sees, scenes, videos, switching geometry off, freezing, dtypes, saving, bad input."""

import copy
import inspect
import logging
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForPreTraining,
    DynamicCache,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    pipeline,
)

from gap_mllm import (
    GapMllmConfig,
    GapMllmForConditionalGeneration,
    GapMllmForPreTraining,
    GapMllmModel,
)
from gap_mllm.configuration_gap_mllm import FUSION_METHODS


NOISE = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order
ENCODER, FUSION = "model.geometry.", "model.fusion."
VISION = ("pixel_values", "image_grid_thw")
LEVELS = 4


@contextmanager
def recorded(module):
    """Collect the arguments and the output of each call of `module`."""
    calls = []
    handle = module.register_forward_hook(lambda _, arguments, output: calls.append((*arguments, output)))
    try:
        yield calls
    finally:
        handle.remove()


def to_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def features(model, inputs, **kwargs):
    """Levels of visual features, one list of tensors per image each."""
    pixels = {"pixel_values": inputs["pixel_values"], "image_grid_thw": inputs["image_grid_thw"], **kwargs}
    with torch.no_grad():
        output = model.model.get_image_features(**pixels, return_dict=True)
    return [list(level) for level in (*output.deepstack_features, output.pooler_output)]


def assert_same_features(got, expected, **tolerance):
    for got_level, expected_level in zip(got, expected, strict=True):
        for one, other in zip(got_level, expected_level, strict=True):
            torch.testing.assert_close(one, other, **(tolerance or NOISE))


def make_plain(model):
    """Qwen3-VL of transformers with the same weights."""
    config = model.config
    plain = Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            text_config=config.text_config.to_dict(),
            vision_config=config.vision_config.to_dict(),
            tie_word_embeddings=True,
            **{name: value for name, value in config.to_dict().items() if name.endswith("_token_id")},
        )
    ).eval()
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith((ENCODER, FUSION))}
    plain.load_state_dict(weights)
    plain.generation_config = copy.deepcopy(model.generation_config)
    return plain


@pytest.fixture(scope="module")
def two_views(make_inputs):
    return make_inputs([(64, 64), (64, 64)])


@pytest.fixture(scope="module")
def batch(make_inputs):
    """Rows of two views of unlike sizes, of no view, and of one view."""
    return make_inputs([(64, 64), (64, 96)], [], [(96, 32)])


@pytest.fixture
def make_video_inputs(tiny_tokenizer, to_patches):
    """A function (*videos, images=()) -> one row of inputs; a video is frames (T, 3, H, W) in 0..1, images likewise.

    A timestamp, here one token of text, stands before the visual tokens of each temporal patch.
    """
    ids = {name: tiny_tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad")}
    start, end = (tiny_tokenizer.convert_tokens_to_ids(f"<|vision_{name}|>") for name in ("start", "end"))

    def make(*videos, images=()):
        row, inputs = [70, 71], {}
        for items, kind, suffix in ((images, "image", ""), (videos, "video", "_videos")):
            made = [to_patches(item) for item in items]
            for _, grid in made:
                steps, height, width = grid[0].tolist()
                for _ in range(steps):
                    row += [72, start, *[ids[f"{kind}_pad"]] * (height * width // 4), end]
            if made:
                inputs[f"pixel_values{suffix}"] = torch.cat([patches for patches, _ in made])
                inputs[f"{kind}_grid_thw"] = torch.cat([grid for _, grid in made])
        row = torch.tensor([[*row, 73, 74]])
        inputs["input_ids"] = row
        inputs["attention_mask"] = torch.ones_like(row)
        inputs["mm_token_type_ids"] = (row == ids["image_pad"]).int() + 2 * (row == ids["video_pad"]).int()
        return inputs

    return make


def make_frames(count, height=64, width=64, seed=0):
    """8-bit frames, so that half precision brings them back."""
    pixels = torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(seed))
    return pixels / 255


def video_features(model, inputs):
    with torch.no_grad():
        output = model.model.get_video_features(
            inputs["pixel_values_videos"], inputs["video_grid_thw"], return_dict=True
        )
    return [list(level) for level in (*output.deepstack_features, output.pooler_output)]


# What the encoder sees


def test_the_encoder_sees_the_pictures_on_qwens_grid(model, make_inputs, picture):
    inputs = make_inputs([(64, 64), (64, 96)], [(96, 32)])
    with recorded(model.model.geometry) as calls, torch.no_grad():
        model(**inputs)
    ((views, scene_lengths, output),) = calls
    assert scene_lengths == [2, 1]
    assert output.grid == [tuple(grid) for grid in inputs["image_grid_thw"][:, 1:].tolist()]
    for seed, (view, (height, width)) in enumerate(zip(views, [(64, 64), (64, 96), (96, 32)], strict=True)):
        image = to_tensor(picture(height, width, seed))[None]
        expected = F.interpolate(
            image, (height // 16 * 14, width // 16 * 14), mode="bilinear", align_corners=False, antialias=False
        )
        torch.testing.assert_close(view, expected[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_pixels_give_the_encoder_the_same_picture(model, two_views, picture, dtype):
    with recorded(model.model.geometry) as calls:
        features(model, two_views, pixel_values=two_views["pixel_values"].to(dtype), scene_lengths=[2])
    ((views, *_),) = calls
    for seed, view in enumerate(views):
        image = to_tensor(picture(64, 64, seed))[None]
        assert torch.equal(view, F.interpolate(image, (56, 56), mode="bilinear", align_corners=False)[0])


# Scenes


def test_getters_name_few_arguments_more_than_qwens():
    # generate() pops from its inputs whatever these name.
    extra = {"mm_token_type_ids", "scene_lengths"}
    image = set(inspect.signature(GapMllmModel.get_image_features).parameters)
    assert image == {"self", "pixel_values", "image_grid_thw", "kwargs", "geometry_features"} | extra
    video = set(inspect.signature(GapMllmModel.get_video_features).parameters)
    assert video == {"self", "pixel_values_videos", "video_grid_thw", "kwargs"} | extra


def test_views_of_a_row_meet_and_views_of_two_rows_do_not(model, make_inputs):
    both = make_inputs([(64, 64), (64, 64)])
    singles = [make_inputs([(64, 64)], seed=seed) for seed in (0, 1)]
    alone = [features(model, single) for single in singles]
    alone = [[*levels[0], *levels[1]] for levels in zip(*alone, strict=True)]
    apart = features(model, both, scene_lengths=[1, 1])
    assert_same_features(apart, alone)
    together = features(model, both, mm_token_type_ids=both["mm_token_type_ids"])
    assert_same_features(together, features(model, both, scene_lengths=torch.tensor([2])), rtol=0, atol=0)
    for level, other in zip(together, apart, strict=True):
        for one, two in zip(level, other, strict=True):
            assert (one - two).abs().max() > 0.01


@torch.no_grad()
def test_a_batch_of_rows_equals_its_rows_alone(model, make_inputs, batch):
    logits = model(**batch).logits
    for row in range(3):
        mask = batch["attention_mask"][row].bool()
        single = {name: batch[name][row : row + 1, mask] for name in ("input_ids", "mm_token_type_ids")}
        if row != 1:
            patches, images = {0: (slice(0, 40), slice(0, 2)), 2: (slice(40, None), slice(2, 3))}[row]
            single["pixel_values"] = batch["pixel_values"][patches]
            single["image_grid_thw"] = batch["image_grid_thw"][images]
        torch.testing.assert_close(model(**single).logits[0], logits[row, mask], **NOISE)


@torch.no_grad()
def test_scene_lengths_override_the_rows_in_forward(model, two_views):
    together, apart = (model(**two_views, scene_lengths=lengths).logits for lengths in (None, [1, 1]))
    assert (together - apart).abs().max() > 0.01
    assert torch.equal(model(**two_views, scene_lengths=[2]).logits, together)


def test_several_images_without_scene_information_raise_and_one_works(model, two_views, make_inputs):
    with pytest.raises(ValueError, match="2 images came without anything"):
        features(model, two_views)
    single = make_inputs([(64, 64)])
    got = features(model, single)
    assert_same_features(got, features(model, single, scene_lengths=[1]), rtol=0, atol=0)


def pack(model, make_inputs):
    """Two documents in one row, with the positions of each as it has them alone; and their separate logits."""
    documents = [make_inputs([(64, 64)], seed=seed) for seed in (0, 1)]
    positions = []
    for document in documents:
        ids = document["input_ids"]
        rope, _ = model.model.get_rope_index(ids, document["mm_token_type_ids"], document["image_grid_thw"])
        positions.append(torch.cat([torch.arange(ids.shape[1]).view(1, 1, -1), rope]))
    row = {
        name: torch.cat([document[name] for document in documents], dim=dim)
        for name, dim in (
            ("input_ids", 1),
            ("mm_token_type_ids", 1),
            ("pixel_values", 0),
            ("image_grid_thw", 0),
        )
    }
    row["position_ids"] = torch.cat(positions, dim=2)
    return row, [model(**document).logits for document in documents]


@torch.no_grad()
def test_a_packed_row_needs_scene_lengths(model, make_inputs):
    row, separate = pack(model, make_inputs)
    with pytest.raises(ValueError, match="row 0 start again.*scene_lengths is missing"):
        model(**row)
    # A cache would hide from the causal mask that the positions start again.
    packed = model(**row, scene_lengths=[1, 1], use_cache=False).logits
    torch.testing.assert_close(packed, torch.cat(separate, dim=1), **NOISE)
    flat = {**row, "position_ids": row["position_ids"][0]}
    with pytest.raises(ValueError, match="scene_lengths is missing"):
        model(**flat)
    ends = {"cu_seq_lens_q": torch.tensor([0, 5, 9], dtype=torch.int32)}
    with pytest.raises(ValueError, match="scene_lengths is missing"):
        model(**{name: value for name, value in row.items() if name != "position_ids"}, **ends)


@torch.no_grad()
def test_padding_is_no_packing(model, batch):
    positions, _ = model.model.get_rope_index(
        batch["input_ids"], batch["mm_token_type_ids"], batch["image_grid_thw"], attention_mask=batch["attention_mask"]
    )
    text = batch["attention_mask"].cumsum(-1).sub(1).clamp(min=0)  # starts with zeros where padded
    expected = model(**batch).logits
    got = model(**batch, position_ids=torch.cat([text[None], positions])).logits
    mask = batch["attention_mask"].bool()
    torch.testing.assert_close(got[mask], expected[mask], **NOISE)


@pytest.mark.parametrize(
    ("lengths", "images", "message"),
    [
        ([1], 2, "sum to 1 views, but pixel_values hold 2 images"),
        ([2, 1], 2, "sum to 3 views, but pixel_values hold 2 images"),
        (None, 1, "Row 0 has 8 image tokens, but its images make 4"),
    ],
)
def test_numbers_that_disagree_are_refused(model, two_views, lengths, images, message):
    inputs = dict(two_views)
    inputs.update(pixel_values=inputs["pixel_values"][: 16 * images], image_grid_thw=inputs["image_grid_thw"][:images])
    with pytest.raises(ValueError, match=message):
        model(**inputs, scene_lengths=lengths)


# Videos


@pytest.mark.parametrize("count", [4, 5])
def test_every_frame_of_a_video_is_a_view(model, make_video_inputs, count):
    frames = make_frames(count, 64, 96)
    inputs = make_video_inputs(frames)
    with recorded(model.model.geometry) as calls, torch.no_grad():
        model(**inputs)
    ((views, scene_lengths, _),) = calls
    assert scene_lengths == [count]  # the repeated last frame of an odd number is no view of its own
    expected = F.interpolate(frames, (56, 84), mode="bilinear", align_corners=False)
    torch.testing.assert_close(torch.stack(list(views)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("video_frames", ["mean", "first"])
@pytest.mark.parametrize("count", [4, 3])
@torch.no_grad()
def test_frames_of_a_temporal_patch_are_merged(tiny_model, make_video_inputs, video_frames, count):
    model = tiny_model(gap_fusion_config={"video_frames": video_frames})
    inputs = make_video_inputs(make_frames(count))
    with recorded(model.model.geometry) as calls:
        got = video_features(model, inputs)
    ((_, _, output),) = calls
    with model.geometry_disabled():
        visual = video_features(model, inputs)
    fusion = model.model.fusion
    for level in range(LEVELS):
        merged = fusion.mergers[level](output.tap_features[level], output.grid).view(count, 4, -1)
        pairs = [merged[start : start + 2] for start in range(0, count, 2)]
        slices = [pair.mean(0) if video_frames == "mean" else pair[0] for pair in pairs]
        expected, _ = fusion.levels[level](visual[level][0], torch.cat(slices), [(2, 2)] * 2)
        torch.testing.assert_close(got[level][0], expected, **NOISE)


@pytest.mark.parametrize("method", FUSION_METHODS)
@torch.no_grad()
def test_every_method_takes_images_and_an_odd_video_and_generates(tiny_model, make_video_inputs, method):
    model = tiny_model(gap_fusion_config={"method": method})
    inputs = make_video_inputs(make_frames(3, seed=1), images=(make_frames(1, seed=2), make_frames(1, 32, 64, seed=3)))
    logits = model(**inputs).logits
    with model.geometry_disabled():
        assert not torch.equal(model(**inputs).logits, logits)
    output = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert torch.equal(output[:, inputs["input_ids"].shape[1]], logits[:, -1].argmax(-1))


def test_each_video_is_a_scene_of_its_own(model, make_video_inputs):
    videos = make_frames(4, seed=1), make_frames(2, 32, 64, seed=2)
    both = video_features(model, make_video_inputs(*videos))
    alone = [video_features(model, make_video_inputs(video)) for video in videos]
    assert_same_features(both, [[one[0], two[0]] for one, two in zip(*alone, strict=True)])


@torch.no_grad()
def test_images_and_a_video_in_one_row(model, make_video_inputs):
    video, images = make_frames(3, seed=1), (make_frames(1, seed=2), make_frames(1, 32, 64, seed=3))
    inputs = make_video_inputs(video, images=images)
    with recorded(model.model.geometry) as calls:
        logits = model(**inputs).logits
    assert [call[1] for call in calls] == [[2], [3]]
    encoded = {
        "image": model.model.get_image_features(
            inputs["pixel_values"], inputs["image_grid_thw"], scene_lengths=[2], return_dict=True
        ),
        "video": model.model.get_video_features(
            inputs["pixel_values_videos"], inputs["video_grid_thw"], return_dict=True
        ),
    }
    rest = {name: value for name, value in inputs.items() if "pixel" not in name}
    assert torch.equal(model(**rest, mm_encoder_outputs=encoded).logits, logits)
    with model.geometry_disabled():
        assert (model(**inputs).logits - logits).abs().max() > 0.01


def test_a_video_of_another_length_than_its_tokens_is_refused(model, make_video_inputs):
    inputs = make_video_inputs(make_frames(4))
    inputs["pixel_values_videos"], inputs["video_grid_thw"] = (
        inputs["pixel_values_videos"][:16],
        torch.tensor([[1, 4, 4]]),
    )
    with pytest.raises(ValueError, match="8 .* tokens, but its .* make 4"):
        model(**inputs)


# Geometry switched off


@torch.no_grad()
def test_geometry_disabled_is_plain_qwen_bit_for_bit(model, batch, make_video_inputs):
    plain = make_plain(model)
    video = make_video_inputs(make_frames(3), images=(make_frames(1),))
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    with recorded(model.model.geometry) as calls:
        with model.geometry_disabled():
            off = model(**batch, labels=labels)
            assert torch.equal(model(**video).logits, plain(**video).logits)
            generated = model.generate(**batch, max_new_tokens=5, do_sample=False)
        assert not calls
    expected = plain(**batch, labels=labels)
    assert torch.equal(off.logits, expected.logits) and torch.equal(off.loss, expected.loss)
    assert torch.equal(generated, plain.generate(**batch, max_new_tokens=5, do_sample=False))
    assert (model(**batch).logits[0] - expected.logits[0]).abs().max() > 0.01


@torch.no_grad()
def test_use_geometry_false_is_saved_and_is_plain_qwen_bit_for_bit(tiny_model, batch, tmp_path):
    model = tiny_model(use_geometry=False)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.config.use_geometry is False and not loaded.model.uses_geometry
    assert loaded.model.geometry is None and loaded.model.fusion is None
    assert torch.equal(loaded(**batch).logits, make_plain(model)(**batch).logits)


def test_geometry_comes_back_after_an_error(model):
    with pytest.raises(RuntimeError), model.geometry_disabled():
        raise RuntimeError
    assert model.model.uses_geometry


@pytest.mark.parametrize("method", FUSION_METHODS)
@torch.no_grad()
def test_identity_starts_as_plain_qwen_bit_for_bit_and_reference_does_not(tiny_model, batch, method):
    fusion = {"method": method}
    model = tiny_model(gap_fusion_config={**fusion, "init": "identity"})
    plain = make_plain(model)
    with recorded(model.model.geometry) as calls:
        assert torch.equal(model(**batch).logits, plain(**batch).logits)
    assert len(calls) == 1
    reference = tiny_model(gap_fusion_config=fusion)
    difference = (reference(**batch).logits - make_plain(reference)(**batch).logits).abs().amax(dim=(1, 2))
    assert difference[[0, 2]].min() > 0.01 and difference[1] == 0  # row 1 has no view


# Freezing and training


def train_three_steps(model, inputs):
    """Three steps without weight decay, so that what moves has a gradient; returns what was there before."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0)
    for _ in range(3):
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return before


# By softmax's invariance a bias on all keys has no gradient but rounding noise.
NO_GRADIENT = {
    "cross_attention": [f"{FUSION}levels.{level}.fuse.blocks.0.key.bias" for level in range(LEVELS)],
    "vlm3r": [f"{FUSION}levels.0.fuse.key.bias"],
    "geothinker": [f"{FUSION}levels.{level}.fuse.key.bias" for level in range(LEVELS)],
    "bidirectional": [
        f"{FUSION}levels.{level}.fuse.to_{side}.key.bias" for level in range(LEVELS) for side in ("geometry", "visual")
    ],
}


@pytest.mark.parametrize("method", FUSION_METHODS)
def test_frozen_stays_and_trainable_moves_in_three_steps(tiny_model, two_views, method):
    # From identity: in step 1 only `strength` has a gradient, the rest follows.
    model = tiny_model(gap_fusion_config={"method": method, "init": "identity"})
    model.model.geometry.requires_grad_(False)
    before = train_three_steps(model, two_views)
    for name, parameter in model.named_parameters():
        if name.startswith(ENCODER):
            assert torch.equal(parameter, before[name]) and parameter.grad is None, name
        elif name not in NO_GRADIENT.get(method, ()):
            assert not torch.equal(parameter, before[name]), name


def test_an_encoder_that_is_not_frozen_moves_too(tiny_model, two_views):
    model = tiny_model(gap_fusion_config={"init": "identity"})
    before = train_three_steps(model, two_views)
    still = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    # DINOv2 masks patches in its own training only; the parameter is there for the checkpoint's sake, and frozen.
    assert still == {f"{ENCODER}patch_embed.mask_token"}


def test_a_frozen_encoder_builds_no_graph_and_one_parameter_brings_it_back(tiny_model, two_views):
    model = tiny_model()
    model.model.geometry.requires_grad_(False)
    last = model.model.geometry.global_blocks[0].mlp.fc2.weight
    modes = []
    model.model.geometry.register_forward_pre_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    for is_trained in (False, True):
        last.requires_grad_(is_trained)
        with recorded(model.model.geometry) as calls:
            model(**two_views, labels=two_views["input_ids"]).loss.backward()
        assert modes.pop() is is_trained
        taps = calls[0][-1].tap_features
        assert [tap.requires_grad for tap in taps] == [is_trained] * LEVELS
        assert all(tap.grad_fn is None for tap in taps) is not is_trained
        assert (last.grad is not None and bool(last.grad.any())) is is_trained
        assert model.model.fusion.mergers[0].linear_fc1.weight.grad.abs().max() > 0


def test_train_leaves_frozen_modules_in_evaluation_mode(tiny_model):
    model = tiny_model()
    model.model.geometry.requires_grad_(False)
    model.train()
    # All of it, down to modules without parameters, where a dropout could hide.
    assert not any(module.training for module in model.model.geometry.modules())
    assert model.training and model.model.visual.training
    assert all(module.training for module in model.model.fusion.modules())
    model.model.geometry.frame_blocks[1].mlp.requires_grad_(True)
    model.train()
    geometry = model.model.geometry
    assert geometry.training and geometry.frame_blocks[1].mlp.fc1.training and not geometry.frame_blocks[0].training
    assert not any(module.training for module in model.eval().modules())
    model.requires_grad_(False).train()
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("is_frozen", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(tiny_model, enable_checkpointing, two_views, is_frozen):
    gradients = []
    for is_checkpointed in (False, True):
        model = tiny_model()
        model.model.geometry.requires_grad_(not is_frozen)
        if is_checkpointed:
            enable_checkpointing(model)
        model.train()
        model(**two_views, labels=two_views["input_ids"], use_cache=False).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        got = gradients[1][name]
        assert (got is None) == (expected is None), name
        if expected is not None:
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-8)


def test_a_frozen_language_model_is_still_checkpointed(tiny_model, enable_checkpointing, two_views):
    gradients = []
    for is_checkpointed in (False, True):
        model = tiny_model()
        language_model = model.model.language_model
        for module in (language_model, model.model.geometry, model.lm_head):
            module.requires_grad_(False)
        if is_checkpointed:
            enable_checkpointing(model)
        model.train()
        runs = []
        language_model.layers[1].mlp.register_forward_pre_hook(lambda module, _, runs=runs: runs.append(module))
        model(**two_views, labels=two_views["input_ids"], use_cache=False).loss.backward()
        assert len(runs) == 1 + is_checkpointed  # again in the backward pass
        assert not any(module.training for module in language_model.layers[1].mlp.modules())
        assert not any(module.training for module in model.model.geometry.modules())
        gradients.append(model.model.fusion.mergers[0].linear_fc1.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", FUSION_METHODS)
def test_a_text_batch_gives_the_vision_modules_zero_gradients(tiny_model, make_inputs, method):
    model = tiny_model(gap_fusion_config={"method": method, "init": "identity"})
    inputs = make_inputs([])
    labels = inputs["input_ids"]
    expected = model(**inputs, labels=labels).loss
    model.train()
    loss = model(**inputs, labels=labels).loss
    assert torch.equal(loss, expected)
    loss.backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("model.visual.", ENCODER, FUSION)) and parameter.requires_grad:
            assert parameter.grad is not None and not parameter.grad.any(), name


@pytest.mark.parametrize("trained", ["fusion", "geometry", "visual"])
def test_a_text_batch_runs_only_what_is_trained(tiny_model, make_inputs, trained):
    model = tiny_model()
    modules = {name: getattr(model.model, name) for name in ("fusion", "geometry", "visual")}
    for name, module in modules.items():
        if name != trained:
            module.requires_grad_(False)
    inputs = make_inputs([])
    model.train()
    with recorded(modules["geometry"]) as geometry_calls, recorded(modules["visual"]) as visual_calls:
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        with torch.no_grad():  # generating during training
            model(**inputs)
    assert (len(geometry_calls), len(visual_calls)) == (trained == "geometry", trained == "visual")
    for name, module in modules.items():
        has_gradient = {parameter.grad is not None for parameter in module.parameters() if parameter.requires_grad}
        assert has_gradient == ({True} if name == trained else set())


def test_data_parallel_is_refused(tiny_model, two_views):
    model = tiny_model()
    model.model._is_replica = True  # set by torch.nn.parallel.replicate
    with pytest.raises(ValueError, match="nn.DataParallel.*accelerate launch your_script.py"):
        model(**two_views)


# Dtypes


def test_a_bf16_model_sees_the_same_pictures_and_answers_in_bf16(tiny_model, two_views):
    model = tiny_model().to(torch.bfloat16)
    seen = []
    with torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            with recorded(model.model.geometry) as calls:
                logits = model(**{**two_views, "pixel_values": two_views["pixel_values"].to(dtype)}).logits
            assert logits.dtype == torch.bfloat16 and logits.isfinite().all()
            ((views, _, output),) = calls
            assert {tap.dtype for tap in output.tap_features} == {torch.bfloat16}
            assert {view.dtype for view in views} == {torch.float32}
            seen.append(torch.stack(list(views)))
    # float32 pixels are undone to 1e-6, bf16 pixels exactly.
    torch.testing.assert_close(*seen, rtol=0, atol=1e-6)


def test_autocast_does_not_reach_into_the_encoder(tiny_model, two_views):
    model = tiny_model()
    taps = []
    for is_enabled in (False, True):
        with (
            recorded(model.model.geometry) as calls,
            torch.no_grad(),
            torch.autocast("cpu", torch.bfloat16, enabled=is_enabled),
        ):
            logits = model(**two_views).logits
        assert logits.dtype == (torch.bfloat16 if is_enabled else torch.float32)
        taps.append(calls[0][-1].tap_features)
    for plain, cast in zip(*taps, strict=True):
        assert cast.dtype == torch.float32 and torch.equal(plain, cast)


def test_training_under_autocast_reaches_every_vision_module(tiny_model, two_views):
    model = tiny_model().train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**two_views, labels=two_views["input_ids"]).loss
    loss.backward()
    for module in (model.model.geometry.patch_embed.norm, model.model.fusion.mergers[3].linear_fc1, model.lm_head):
        assert module.weight.grad.dtype == torch.float32 and module.weight.grad.abs().max() > 0


@torch.no_grad()
def test_a_float32_encoder_works_inside_a_bf16_model(tiny_model, two_views):
    model = tiny_model()
    taps = []
    for dtype in (torch.float32, torch.bfloat16):
        model.to(dtype)
        model.model.geometry = tiny_model().model.geometry  # in float32, with weights that never were bf16
        with recorded(model.model.geometry) as calls:
            logits = model(**two_views).logits
        assert logits.dtype == dtype and logits.isfinite().all()
        taps.append(calls[0][-1].tap_features)
    for expected, got in zip(*taps, strict=True):
        assert got.dtype == torch.float32 and torch.equal(got, expected)


# Saving and loading


@pytest.mark.parametrize(
    ("auto_class", "model_class"),
    [
        (AutoModel, GapMllmForConditionalGeneration),
        (AutoModelForImageTextToText, GapMllmForConditionalGeneration),
        (AutoModelForMultimodalLM, GapMllmForConditionalGeneration),
        (AutoModelForPreTraining, GapMllmForPreTraining),
    ],
)
@torch.no_grad()
def test_save_and_load_bit_exact_by_the_auto_classes(model, batch, tmp_path, auto_class, model_class):
    model.save_pretrained(tmp_path)
    loaded, info = auto_class.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is model_class and not loaded.training
    assert not any(info[kind] for kind in ("unexpected_keys", "mismatched_keys"))
    # Heads that an inference checkpoint lacks start afresh, and the load report names each.
    heads = {name for name in loaded.state_dict() if name.startswith("point_map_heads.")}
    assert set(info["missing_keys"]) == heads
    expected = model.state_dict()
    for name, value in loaded.state_dict().items():
        assert name.startswith("point_map_heads.") or torch.equal(value, expected[name]), name
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    assert loaded.lm_head.weight is loaded.model.language_model.embed_tokens.weight
    for name, parameter in loaded.named_parameters():
        still = name.endswith((".strength", ".mask_token"))  # init="reference" does not train strength
        assert parameter.requires_grad is not still, name


def test_untied_embeddings_stay_untied(tiny_model, tmp_path):
    model = tiny_model(tie_word_embeddings=False, text_config={"tie_word_embeddings": False})
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is not loaded.model.language_model.embed_tokens.weight
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_a_config_alone_rebuilds_the_model(model, tmp_path):
    model.config.save_pretrained(tmp_path)
    config = GapMllmConfig.from_pretrained(tmp_path)
    rebuilt = AutoModel.from_config(config)
    assert type(rebuilt) is GapMllmForConditionalGeneration
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in rebuilt.state_dict().items()} == shapes
    assert config.to_dict() == GapMllmConfig(**config.to_dict()).to_dict()


@contextmanager
def captured_warnings(caplog):
    logger = logging.getLogger("transformers")
    was, logger.propagate = logger.propagate, True
    try:
        with caplog.at_level(logging.WARNING):
            yield
    finally:
        logger.propagate = was


def test_inference_weights_give_fresh_pretraining_heads_and_say_so(model, tmp_path, caplog):
    model.save_pretrained(tmp_path)
    with captured_warnings(caplog):
        loaded = GapMllmForPreTraining.from_pretrained(tmp_path)
    assert "point_map_heads" in caplog.text and "MISSING" in caplog.text.upper()
    for head in loaded.point_map_heads.values():
        assert torch.equal(head.norm.weight, torch.ones(32)) and not head.fc1.bias.any()
        assert 0.1 < head.fc1.weight.std() < 0.3  # initializer_range 0.2


@torch.no_grad()
def test_pretraining_weights_give_the_inference_model_quietly(tiny_model, batch, tmp_path, caplog):
    model = tiny_model(model_class=GapMllmForPreTraining)
    model.save_pretrained(tmp_path)
    with captured_warnings(caplog):
        loaded = AutoModel.from_pretrained(tmp_path)
    assert "point_map_heads" not in caplog.text and not hasattr(loaded, "point_map_heads")
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    again = AutoModelForPreTraining.from_pretrained(tmp_path)
    for name, value in model.point_map_heads.state_dict().items():
        assert torch.equal(again.point_map_heads.state_dict()[name], value)


# Reference frame


@torch.no_grad()
def test_reference_frame_last_is_first_with_views_and_features_reversed(tiny_model, make_inputs):
    sizes = [(64, 64), (64, 96), (32, 64)], [(64, 64), (96, 32)]
    inputs = make_inputs(*sizes)
    first, last = tiny_model(), tiny_model(reference_frame="last")
    got = features(last, inputs, mm_token_type_ids=inputs["mm_token_type_ids"])

    counts = inputs["image_grid_thw"].prod(-1).tolist()
    order = [2, 1, 0, 4, 3]
    parts = inputs["pixel_values"].split(counts)
    reversed_inputs = {
        "pixel_values": torch.cat([parts[i] for i in order]),
        "image_grid_thw": inputs["image_grid_thw"][order],
    }
    flipped = features(first, reversed_inputs, scene_lengths=[3, 2])
    expected = [[level[order.index(i)] for i in range(5)] for level in flipped]
    assert_same_features(got, expected)
    straight = features(first, inputs, scene_lengths=[3, 2])
    assert max((one - two).abs().max() for one, two in zip(got[3], straight[3], strict=True)) > 0.01


# Bad input


def test_image_tokens_without_pixels_are_refused(model, two_views, make_inputs):
    text = {name: two_views[name] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
    with pytest.raises(ValueError, match="8 image or video tokens, but neither pixel_values"):
        model(**text)
    with pytest.raises(ValueError, match="8 image or video tokens"):
        model(input_ids=text["input_ids"])
    with pytest.raises(ValueError, match="8 image or video tokens"):
        model.generate(**text, max_new_tokens=1)
    assert model(**make_inputs([])).logits.isfinite().all()


@pytest.mark.parametrize("has_geometry", [True, False])
def test_more_image_tokens_than_images_are_refused(model, two_views, has_geometry):
    half = len(two_views["pixel_values"]) // 2
    inputs = {**two_views, "image_grid_thw": two_views["image_grid_thw"][:1]}
    inputs["pixel_values"] = two_views["pixel_values"][:half]
    with nullcontext() if has_geometry else model.geometry_disabled():
        with pytest.raises(ValueError, match="more image or video tokens than image_grid_thw"):
            model.generate(**inputs, max_new_tokens=1)
        if has_geometry:
            with pytest.raises(ValueError, match="Row 0 has 8 image tokens, but its images make 4"):
                model(**inputs)


def test_fewer_image_tokens_than_images_are_refused_by_generate(model, two_views, make_inputs):
    text = {name: value for name, value in make_inputs([(64, 64)]).items() if name not in VISION}
    vision = {name: two_views[name] for name in VISION}
    with pytest.raises(ValueError, match="4 image tokens for 1 images, but pixel_values hold 2 images"):
        model.generate(**text, **vision, max_new_tokens=1)


def test_pixels_without_a_grid_are_refused(model, two_views):
    pixels = two_views["pixel_values"]
    with pytest.raises(ValueError, match="pixel_values came without image_grid_thw"):
        model.generate(**{**two_views, "image_grid_thw": None}, max_new_tokens=1)
    with pytest.raises(ValueError, match="pixel_values_videos came without video_grid_thw"):
        model.model.get_video_features(pixels)


def test_pixels_and_their_features_together_are_refused(model, two_views):
    encoded = model.model.get_image_features(
        two_views["pixel_values"], two_views["image_grid_thw"], scene_lengths=[2], return_dict=True
    )
    with pytest.raises(ValueError, match="mm_encoder_outputs both came"):
        model(**two_views, mm_encoder_outputs={"image": encoded})


def test_labels_need_the_ids_and_scenes_of_their_views(make_inputs, tiny_model):
    model = tiny_model(model_class=GapMllmForPreTraining)
    inputs = make_inputs([(64, 64)])
    ids = inputs.pop("input_ids")
    with pytest.raises(ValueError, match="Labels and views came without input_ids"):
        model(inputs_embeds=model.get_input_embeddings()(ids), labels=ids, **inputs)
    with pytest.raises(ValueError, match="scene_repeats came without scene_lengths"):
        model(input_ids=ids, labels=ids, scene_repeats=torch.tensor([1]), **inputs)


def test_pixels_that_are_no_numbers_name_the_image(model, two_views):
    pixels = two_views["pixel_values"].clone()
    pixels[20, 3] = float("nan")
    with pytest.raises(ValueError, match=r"image or video \[1\].*NaN"):
        model(**{**two_views, "pixel_values": pixels})


@torch.no_grad()
def test_a_picture_of_one_pixel_works(model, make_inputs):
    inputs = make_inputs([(1, 1)])
    assert inputs["image_grid_thw"].tolist() == [[1, 2, 2]]
    assert model(**inputs).logits.isfinite().all()


@torch.no_grad()
def test_pixels_beside_a_cache_need_positions(model, two_views, make_inputs):
    cache = DynamicCache(config=model.config.text_config)
    start = make_inputs([])["input_ids"]
    model(input_ids=start, past_key_values=cache, use_cache=True)
    inputs = {name: value for name, value in two_views.items() if name != "attention_mask"}
    with pytest.raises(ValueError, match=f"past_key_values of {start.shape[1]} tokens and without position_ids"):
        model(**inputs, past_key_values=cache)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"geometry_config": {"model_type": "pi4"}}, "geometry_config.model_type='pi4'.*'gap_mllm_vggt'"),
        ({"gap_fusion_config": {"model_type": "bert"}}, "gap_fusion_config.model_type='bert'"),
        ({"gap_fusion_config": {"method": "sum"}}, "gap_fusion_config.method='sum'.*'gated', 'add'"),
        ({"gap_fusion_config": {"init": "zero"}}, "gap_fusion_config.init='zero'"),
        ({"gap_fusion_config": {"metod": "add"}}, r"GapMllmFusionConfig does not know the keys \['metod'\]"),
        ({"geometry_config": {"num_layers": 2}}, r"GapMllmVggtConfig does not know the keys \['num_layers'\]"),
        ({"geometry_config": {"tap_layers": [0, 1, 2, 4]}}, r"\[0, 1, 2, 4\] lie outside the 4 layers"),
        ({"geometry_config": {"tap_layers": [0, 1, 3]}}, "taps 3 layers .* there are 4 levels"),
        ({"geometry_config": {"tap_layers": [0, 2, 1, 3]}}, "rising order"),
        ({"reference_frame": "middle"}, "reference_frame='middle'.*'first', 'last'"),
        ({"image_std": [0.5, 0.5, 0.0]}, "image_std"),
        ({"use_geometri": False}, "does not know the key 'use_geometri'. Did you mean 'use_geometry'"),
        ({"fusion_config": {"method": "add"}}, "'fusion_config'. Did you mean 'gap_fusion_config'"),
    ],
)
def test_a_wrong_config_is_refused(tiny_config, changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"geometry_config": {"tap_layers": [0, 1]}}, "taps 2 layers .* there are 4 levels"),
        ({"geometry_config": {"model_type": "pi4"}}, "geometry_config.model_type='pi4' is not known"),
        ({"gap_fusion_config": {"model_type": "bert"}}, "gap_fusion_config.model_type='bert' is not known"),
        ({"gap_fusion_config": {"num_levels": 3}}, r"= \(32, 32, 3, 2\), but .* need \(32, 32, 4, 2\)"),
        ({"vision_config": {"deepstack_visual_indexes": [0]}}, "there are 2 levels"),
        ({"reference_frame": "middle"}, "reference_frame='middle' is not known"),
        ({"image_std": [0.5, 0.5, 0.0]}, "image_std"),
    ],
)
def test_what_replaces_a_config_at_load_is_checked_like_it(model, changes, message, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        GapMllmForConditionalGeneration.from_pretrained(tmp_path, **changes)


def test_keys_that_other_tools_leave_in_a_config_load_again(tiny_config):
    # Trainer writes the first two, a quantiser the third.
    left = {
        "use_cache": False,
        "pad_token_id": 0,
        "quantization_config": {"quant_method": "gptq"},
        "_commit_hash": "a",
    }
    assert tiny_config(**left).quantization_config == left["quantization_config"]


def test_an_encoder_without_a_model_is_refused(tiny_config):
    config = tiny_config()
    config.geometry_config.model_type = "pi4"
    with pytest.raises(ValueError, match="'pi4' is not known. Choose one of .*'gap_mllm_vggt'"):
        GapMllmModel(config)


@pytest.mark.parametrize("model_class", [GapMllmForConditionalGeneration, GapMllmForPreTraining])
def test_a_pipeline_of_a_model_lists_no_classes(model_class, tiny_model, tiny_processor, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    pipe = pipeline("image-text-to-text", model=tiny_model(model_class=model_class), processor=tiny_processor)
    assert pipe.task == "image-text-to-text" and "Supported models" not in caplog.text
    any_to_any = AutoModelForMultimodalLM._model_mapping  # read by a pipeline that needs torchvision
    assert (model_class,) in any_to_any.values() and any_to_any[GapMllmConfig] is GapMllmForConditionalGeneration
    assert AutoModelForImageTextToText._model_mapping[GapMllmConfig] is GapMllmForConditionalGeneration


def test_training_mode_follows_what_changed_since_the_last_time(tiny_model):
    model = tiny_model().train()
    tower, fusion = model.model.visual, model.model.fusion
    fusion.eval()
    assert model.train() is model and all(each.training for each in fusion.modules())
    tower.requires_grad_(False)
    model.train()
    assert not any(each.training for each in tower.modules())
    tower.requires_grad_(True)
    model.train()
    assert all(each.training for each in tower.modules())
    assert not any(each.training for each in model.eval().modules()) and model.train().training
