"""Cross-attention by image: loops in float64, camera tokens on every way they take, and what is refused."""

from math import erf, exp, log, sqrt

import pytest
import torch

from gap_mllm import GapMllmForConditionalGeneration
from gap_mllm.configuration_gap_mllm import GapMllmFusionConfig
from gap_mllm.fusion_gap_mllm import GapMllmFusion


VISION = ("pixel_values", "image_grid_thw", "mm_token_type_ids")
SIZES = [(4, 6), (2, 4), (4, 2), (4, 2)]
COUNTS = [1, 1, 2]
TOKENS = [6, 2, 2]


def make_fusion(method, **changes):
    sizes = {"hidden_size": 8, "geometry_hidden_size": 6, "num_levels": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = GapMllmFusionConfig(method=method, init="reference", **{**sizes, **changes})
    fusion = GapMllmFusion(config).eval().double()
    with torch.no_grad():
        for name, parameter in fusion.named_parameters():
            parameter.copy_(torch.rand_like(parameter) * 2 - 1 if "norm" not in name else torch.rand_like(parameter))
    return fusion


def linear(layer, rows):
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [[sum(map(float.__mul__, w, row)) + b for w, b in zip(weight, bias, strict=True)] for row in rows]


def layer_norm(norm, rows):
    weight, bias, normed = norm.weight.tolist(), norm.bias.tolist(), []
    for row in rows:
        mean = sum(row) / len(row)
        scale = 1 / sqrt(sum((x - mean) ** 2 for x in row) / len(row) + 1e-5)
        normed.append([(x - mean) * scale * w + b for x, w, b in zip(row, weight, bias, strict=True)])
    return normed


def attend(fuse, queries, keys, values, bias=None):
    """Attention of two heads in Python floats; `bias[i][j]` is added to the logit of query i and key j."""
    queries, keys, values = linear(fuse.query, queries), linear(fuse.key, keys), linear(fuse.value, values)
    size, rows = len(queries[0]) // 2, []
    for i, query in enumerate(queries):
        row = []
        for head in (slice(0, size), slice(size, 2 * size)):
            logits = [sum(map(float.__mul__, query[head], key[head])) / sqrt(size) for key in keys]
            logits = [x + bias[i][j] for j, x in enumerate(logits)] if bias else logits
            weights = [exp(x) for x in logits]
            row += [
                sum(w * value[c] for w, value in zip(weights, values, strict=True)) / sum(weights)
                for c in range(head.start, head.stop)
            ]
        rows.append(row)
    return linear(fuse.output, rows)


@torch.no_grad()
def test_vlm3r_matches_a_loop_in_float64():
    fusion = make_fusion("vlm3r")
    fuse = fusion.levels[0].fuse
    features = torch.randn(sum(1 + h * w for h, w in SIZES), 6, dtype=torch.float64)
    visual = torch.randn(sum(TOKENS), 8, dtype=torch.float64)
    views = [view.tolist() for view in features.split([1 + h * w for h, w in SIZES])]
    both = [[(a + b) / 2 for a, b in zip(*rows, strict=True)] for rows in zip(*views[2:], strict=True)]
    expected = []
    for tokens, view in zip(visual.split(TOKENS), [*views[:2], both], strict=True):  # camera first, then patches
        tokens, view = tokens.tolist(), layer_norm(fuse.geometry_norm, view)
        attended = layer_norm(fuse.output_norm, attend(fuse, layer_norm(fuse.visual_norm, tokens), view, view))
        expected += [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(attended, tokens, strict=True)]
    fused = fusion([visual, visual], (features, features), SIZES, COUNTS)
    assert fused[0] is visual
    torch.testing.assert_close(fused[1], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("importance_from", ["geometry", "visual"])
@torch.no_grad()
def test_geothinker_matches_a_loop_in_float64(importance_from):
    fuse = make_fusion("geothinker", importance_from=importance_from).levels[0].fuse
    sizes, counts = [(2, 3), (1, 2), (1, 2)], [6, 2, 2]
    visual, geometry = torch.randn(2, sum(counts), 8, dtype=torch.float64)
    expected = []
    for tokens, context in zip(visual.split(counts), geometry.split(counts), strict=True):
        queries, keys = layer_norm(fuse.visual_norm, tokens.tolist()), layer_norm(fuse.geometry_norm, context.tolist())
        hidden = linear(fuse.importance_fc1, keys if importance_from == "geometry" else queries)
        hidden = linear(fuse.importance_fc2, [[x * (1 + erf(x / sqrt(2))) / 2 for x in row] for row in hidden])
        bias = [[log(1 / (1 + exp(-x)) + 0.1) for (x,) in hidden]] * len(keys)  # of key j, whatever the query
        attended = attend(fuse, queries, keys, keys, bias)
        expected += [
            [a + b for a, b in zip(*rows, strict=True)] for rows in zip(attended, tokens.tolist(), strict=True)
        ]
    fused, gate = fuse(visual, geometry, sizes)
    assert gate is None
    torch.testing.assert_close(fused, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_geothinker_never_looks_at_another_frame():
    fuse = make_fusion("geothinker").levels[0].fuse
    visual, geometry = torch.randn(2, 8, 8, dtype=torch.float64)
    before, _ = fuse(visual, geometry, [(2, 2), (2, 2)])
    geometry[4:] = 7
    after, _ = fuse(visual, geometry, [(2, 2), (2, 2)])
    assert torch.equal(before[:4], after[:4]) and not torch.equal(before[4:], after[4:])


@pytest.mark.parametrize("num_neighbors", [1, 3, 100])
@torch.no_grad()
def test_bidirectional_matches_a_loop_in_float64(num_neighbors):
    fuse = make_fusion("bidirectional", num_neighbors=num_neighbors).levels[0].fuse
    sizes, counts = [(2, 3), (1, 2), (1, 2)], [6, 2, 2]
    visual, geometry = torch.randn(2, sum(counts), 8, dtype=torch.float64)
    expected = []
    for part, other in zip(visual.split(counts), geometry.split(counts), strict=True):
        tokens, context = part.tolist(), other.tolist()
        queries = layer_norm(fuse.visual_norm, tokens)
        read = attend(fuse.to_geometry, layer_norm(fuse.geometry_norm, context), queries, queries)
        joint = [
            [a + b + c for a, b, c in zip(*rows, strict=True)] for rows in zip(tokens, context, read, strict=True)
        ]
        joint, bias = layer_norm(fuse.context_norm, joint), []
        for i, row in enumerate(context):
            likeness = [
                sum(map(float.__mul__, row, each)) / sqrt(sum(x * x for x in row) * sum(x * x for x in each))
                for each in context
            ]
            nearest = sorted(range(len(context)), key=lambda j: (j != i, -likeness[j]))[:num_neighbors]
            bias.append([0.0 if j in nearest else float("-inf") for j in range(len(context))])
        attended = attend(fuse.to_visual, queries, joint, joint, bias)
        expected += [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(attended, tokens, strict=True)]
    fused, _ = fuse(visual, geometry, sizes)
    torch.testing.assert_close(fused, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_bidirectional_attention_is_bound_to_like_geometry():
    fuse = make_fusion("bidirectional", num_neighbors=2).levels[0].fuse
    directions = torch.eye(8)[:3].repeat_interleave(2, dim=0)[None]  # three pairs of equal geometry
    pairs = torch.arange(6) // 2
    assert torch.equal(fuse._bias(directions)[0] == 0, pairs[:, None] == pairs[None])
    zero = fuse._bias(torch.zeros(1, 6, 8))[0]  # nothing tells tokens apart; each still sees itself
    assert (zero.diagonal() == 0).all() and ((zero == 0).sum(-1) == 2).all()


@pytest.mark.parametrize("reference_frame", ["first", "last"])
@torch.no_grad()
def test_camera_tokens_stand_before_the_patches_of_their_view(tiny_model, make_inputs, reference_frame):
    model = tiny_model(gap_fusion_config={"method": "vlm3r"}, reference_frame=reference_frame)
    plain = tiny_model(reference_frame=reference_frame)
    plain.load_state_dict(model.state_dict(), strict=False)
    inputs = make_inputs([(64, 64), (64, 96)], [], [(96, 32)])
    vision, seen = {name: inputs[name] for name in VISION}, []
    model.model.geometry.register_forward_hook(lambda module, args, output: seen.append(output.camera_tokens))
    features = model.model.get_geometry_features(**vision)
    counts = [16, 24, 12]
    assert features.shape[1] == sum(counts) + 3
    parts = features.split([1 + count for count in counts], dim=1)
    patches = plain.model.get_geometry_features(**vision)
    assert torch.equal(torch.cat([part[:, 1:] for part in parts], dim=1), patches)
    order = [0, 1, 2] if reference_frame == "first" else [1, 0, 2]
    for part, index in zip(parts, order, strict=True):
        assert torch.equal(part[:, 0], seen[0][index].expand(4, -1))
    # Given again, with generate(), after saving and loading.
    expected = model(**inputs).logits
    assert torch.equal(model(**inputs, geometry_features=features).logits, expected)
    with pytest.raises(ValueError, match=r"need \(4, 55, 32\)"):
        model(**inputs, geometry_features=patches)


@torch.no_grad()
def test_the_camera_reaches_the_answer_also_after_loading(tiny_model, make_inputs, tmp_path):
    model = tiny_model(gap_fusion_config={"method": "vlm3r"})
    inputs = make_inputs([(64, 64), (64, 96)])
    vision = {name: inputs[name] for name in VISION}
    features = model.model.get_geometry_features(**vision)
    expected = model(**inputs).logits
    features[:, 0] *= -1
    assert (model(**inputs, geometry_features=features).logits - expected).abs().max() > 1e-4
    model.save_pretrained(tmp_path)
    loaded = GapMllmForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs).logits, expected)
    tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(loaded.generate(**inputs, max_new_tokens=4, do_sample=False), tokens)


def test_an_encoder_without_camera_tokens_is_refused(tiny_model, make_inputs):
    model = tiny_model(gap_fusion_config={"method": "vlm3r"})

    def drop(module, args, output):
        output.camera_tokens = None

    model.model.geometry.register_forward_hook(drop)
    with pytest.raises(ValueError, match="GapMllmVggtModel gives no camera tokens.*gap_fusion_config.method"):
        model(**make_inputs([(64, 64)]))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="vlm3r needs hidden_size=8 divisible by 4 and by num_attention_heads=3"):
        make_fusion("vlm3r", num_attention_heads=3)


def test_an_unknown_source_of_importance_is_refused():
    with pytest.raises(ValueError, match="gap_fusion_config.importance_from='keys'.*'geometry', 'visual'"):
        make_fusion("geothinker", importance_from="keys")


def test_a_neighborhood_of_nothing_is_refused():
    with pytest.raises(ValueError, match="gap_fusion_config.num_neighbors=0 must be at least 1"):
        make_fusion("bidirectional", num_neighbors=0)
