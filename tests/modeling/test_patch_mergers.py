"""Spatial-MLLM's connector: parity with the release's golden, a float64 loop, images and odd videos, its start."""

from math import erf, sqrt
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gap_mllm.configuration_gap_mllm import GapMllmFusionConfig
from gap_mllm.fusion_gap_mllm import GapMllmFusion


GOLDEN = Path(__file__).parents[1] / "fixtures" / "spatial" / "connector.safetensors"
SIZES = [(4, 6), (4, 6), (2, 4), (4, 2), (4, 2)]
COUNTS = [2, 1, 2]  # a video of three frames would end like the slice in the middle
TOKENS = 6 + 2 + 2


def make_connector(init="reference", **changes):
    sizes = {"hidden_size": 5, "geometry_hidden_size": 6, "num_levels": 2}
    return GapMllmFusion(GapMllmFusionConfig(method="spatial_mllm", init=init, **{**sizes, **changes})).eval()


def loop_reference(merger, patches, sizes, counts):
    """The connector in Python floats, one number after the other."""
    weights = {name: parameter.tolist() for name, parameter in merger.named_parameters()}
    views, start = [], 0
    for h, w in sizes:
        views.append((h, w, patches[start : start + h * w].tolist()))
        start += h * w

    def linear(name, x):
        rows, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return [sum(a * b for a, b in zip(row, x, strict=True)) + c for row, c in zip(rows, bias, strict=True)]

    tokens, view = [], 0
    for count in counts:
        h, w, first = views[view]
        last = views[view + count - 1][2]
        view += count
        for row in range(0, h, 2):
            for column in range(0, w, 2):
                x = [
                    frame[(row + mh) * w + column + mw][channel]
                    for mh in range(2)
                    for mw in range(2)
                    for channel in range(len(first[0]))
                    for frame in (first, last)
                ]
                scale = 1 / sqrt(sum(a * a for a in x) / len(x) + 1e-6)
                x = linear("linear_fc1", [a * scale * b for a, b in zip(x, weights["norm.weight"], strict=True)])
                tokens.append(linear("linear_fc2", [a * (1 + erf(a / sqrt(2))) / 2 for a in x]))
    return torch.tensor(tokens, dtype=torch.float64)


@torch.no_grad()
def test_the_connector_matches_the_release():
    golden = load_file(GOLDEN)
    fusion = make_connector()
    merger = fusion.mergers[0]
    names = {"norm": "ln_q", "linear_fc1": "mlp.0", "linear_fc2": "mlp.2"}
    merger.load_state_dict(
        {
            f"{ours}.{leaf}": golden[f"weight.{theirs}.{leaf}"]
            for ours, theirs in names.items()
            for leaf in ("weight", "bias")
            if f"weight.{theirs}.{leaf}" in golden
        }
    )
    grid = [(h, w) for t, h, w in golden["grid_thw"].tolist() for _ in range(2 * t)]
    taps = torch.cat([golden[f"video{k}_last_layer"][:, 5:].flatten(0, 1) for k in range(2)])  # 5 special tokens
    seen = []
    merger.norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    first = torch.rand(14, 5)
    fused = fusion([first, golden["visual_embeds"]], (taps, taps), grid, [2] * (len(grid) // 2))
    assert torch.equal(seen[0], golden["merged_before_norm"])  # order of tokens and channels
    assert fused[0] is first  # DeepStack is not the release's
    torch.testing.assert_close(fused[1], golden["fused"], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_images_and_odd_videos_match_a_loop_in_float64():
    torch.manual_seed(0)
    fusion = make_connector(initializer_range=0.3).double()
    fusion.mergers[0].norm.weight.uniform_(0.5, 2)
    for name in ("linear_fc1", "linear_fc2"):
        getattr(fusion.mergers[0], name).bias.uniform_(-1, 1)
    patches = torch.randn(sum(h * w for h, w in SIZES), 6, dtype=torch.float64)
    # The norm of transformers computes in float32.
    sizes, counts = [(4, 6), (4, 6), (2, 4), (4, 2), (4, 2)], COUNTS
    expected = loop_reference(fusion.mergers[0], patches, sizes, counts)
    visual = torch.randn(TOKENS, 5, dtype=torch.float64)
    fused = fusion([visual, visual], (patches, patches), sizes, counts)[-1]
    assert expected.std() > 0.3
    torch.testing.assert_close(fused, visual + expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_it_starts_as_the_identity_or_as_published(tmp_path):
    torch.manual_seed(0)
    patches = torch.randn(24, 64)
    visual = [torch.randn(6, 48) for _ in range(2)]
    sizes = {"hidden_size": 48, "geometry_hidden_size": 64}
    identity = make_connector("identity", **sizes)
    assert all(torch.equal(a, b) for a, b in zip(visual, identity(visual, (patches, patches), [(4, 6)]), strict=True))
    assert identity.levels[0].strength.requires_grad
    published = make_connector(**sizes)
    weight = published.mergers[0].linear_fc1.weight
    assert weight.shape == (512, 512) and 0.019 < weight.std() < 0.021
    assert not torch.equal(published(visual, (patches, patches), [(4, 6)])[-1], visual[-1])
    published.save_pretrained(tmp_path)
    again = GapMllmFusion.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), published.parameters(), strict=True))


def test_more_than_two_frames_of_a_slice_are_refused():
    patches = torch.zeros(24, 6)
    with pytest.raises(ValueError, match=r"views_per_slice=\[3\], but the connector .* one or two"):
        make_connector()([torch.zeros(2, 5)] * 2, (patches, patches), [(2, 4)] * 3, [3])
