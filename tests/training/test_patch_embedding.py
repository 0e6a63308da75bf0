"""The patch embedding as a matrix product: the convolution's outputs and gradients, and nothing left behind."""

import copy

import pytest
import torch
from torch import nn

from gap_mllm.training.patch_embedding import linear_patch_embedding


@pytest.fixture
def visual(pretraining_model):
    return copy.deepcopy(pretraining_model.model.visual).double()


@pytest.fixture
def patches(visual):
    projection = visual.patch_embed.proj
    size = projection.weight[0].numel()
    return torch.randn(12, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def embed(visual, patches):
    visual.zero_grad()
    output = visual.patch_embed(patches)
    output.square().sum().backward()
    projection = visual.patch_embed.proj
    return output.detach(), projection.weight.grad.clone(), projection.bias.grad.clone()


def test_outputs_and_gradients_are_those_of_the_convolution(visual, patches):
    expected = embed(visual, patches)
    with linear_patch_embedding(visual):
        found = embed(visual, patches)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)  # float64: rounding is far below the tolerance


def test_no_convolution_runs_inside_and_one_runs_after(visual, patches, monkeypatch):
    calls, convolve = [], nn.Conv3d.forward
    monkeypatch.setattr(nn.Conv3d, "forward", lambda self, x: calls.append(1) or convolve(self, x))
    with linear_patch_embedding(visual):
        visual.patch_embed(patches)
        assert not calls
    visual.patch_embed(patches)
    assert len(calls) == 1
    assert "forward" not in vars(visual.patch_embed.proj)


def test_hooks_of_the_projection_run(visual, patches):
    calls = []
    visual.patch_embed.proj.register_forward_hook(lambda *_: calls.append(1))
    with linear_patch_embedding(visual):
        visual.patch_embed(patches)
    assert len(calls) == 1


def test_an_error_inside_leaves_nothing_behind(visual):
    with pytest.raises(RuntimeError, match="stop"), linear_patch_embedding(visual):
        raise RuntimeError("stop")
    assert "forward" not in vars(visual.patch_embed.proj)


def test_a_wrapped_projection_is_left_alone(visual, patches):
    class Adapter(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base, self.weight = base, base.weight

        def forward(self, x):
            return 2 * self.base(x)

    expected = 2 * visual.patch_embed(patches)
    visual.patch_embed.proj = Adapter(visual.patch_embed.proj)
    with linear_patch_embedding(visual):
        assert torch.equal(visual.patch_embed(patches), expected)
