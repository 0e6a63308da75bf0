"""Maps of gates over the views of a scene."""

import numpy as np
import pytest
import torch
from PIL import Image

from gap_mllm.evaluation import draw_gate_maps, gate_maps
from gap_mllm.processing.data import render_room


VIEWS = [Image.fromarray(image) for image in render_room(0, num_views=2, height=64, width=96).images]


def test_maps_follow_the_gates_of_each_token(tiny_model, tiny_processor, tmp_path):
    model = tiny_model(gap_fusion_config={"method": "gated", "init": "reference"}).eval()
    level = model.model.fusion.levels[-1]
    with torch.no_grad():
        level.fuse.gate.weight.zero_()
        level.fuse.gate.bias.fill_(1.0)
    maps = gate_maps(model, tiny_processor, VIEWS)
    assert list(maps) == ["deepstack_1", "deepstack_2", "deepstack_3", "final"]
    assert [each.shape for each in maps["final"]] == [(2, 3), (2, 3)]
    assert np.allclose(maps["final"], 1 / (1 + np.exp(-1.0)))
    draw_gate_maps(maps, VIEWS, tmp_path / "gates.png")
    with Image.open(tmp_path / "gates.png") as picture:
        assert picture.width > 400 and len(picture.convert("RGB").getcolors(1 << 20)) > 500
    with pytest.raises(ValueError, match="there are 1 views, but level .'deepstack_1'. has other maps"):
        draw_gate_maps(maps, VIEWS[:1], tmp_path / "gates.png")


def test_a_token_keeps_its_place(tiny_model, tiny_processor):
    """The gate of the level, taken from the fusion itself, row by row of each view."""
    model = tiny_model(gap_fusion_config={"method": "gated", "init": "reference"}).eval()
    seen = []
    handle = model.model.fusion.levels[0].register_forward_hook(lambda module, args, output: seen.append(output[1]))
    maps = gate_maps(model, tiny_processor, VIEWS)
    handle.remove()
    assert np.allclose(np.concatenate([each.flatten() for each in maps["deepstack_1"]]), seen[0].mean(-1))


def test_methods_without_gates_are_refused_by_name(tiny_model, tiny_processor):
    importance = gate_maps(tiny_model(gap_fusion_config={"method": "geothinker"}).eval(), tiny_processor, VIEWS)
    assert [each.shape for each in importance["final"]] == [(2, 3), (2, 3)]
    for method in ("add", "weighted", "vlm3r"):
        model = tiny_model(gap_fusion_config={"method": method}).eval()
        with pytest.raises(ValueError, match=f"the fusion method '{method}' has no gate for each token; gated and"):
            gate_maps(model, tiny_processor, VIEWS)
    with pytest.raises(ValueError, match="the model does not use geometry"):
        gate_maps(tiny_model(use_geometry=False).eval(), tiny_processor, VIEWS)
