"""Pictures of what the fusion takes from the views and what from geometry, token by token, level by level."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from ...processing.drawing import new_figure
from ...processing.model_state_gap_mllm import input_device
from ...processing.processing_gap_mllm import GapMllmProcessor
from ...training.fusion_gates import read_gates


MEANINGS = {  # of methods that have a number for each token
    "gated": "gate: weight of the visual tokens, mean over channels",
    "geothinker": "importance of the geometry tokens",
}


def check_gate_maps(model: PreTrainedModel) -> str:
    """Return what the gate maps of a model mean.

    Raises:
        ValueError: if it has no fusion, or one of a method without a gate for each token.
    """
    base = model.model
    if not base.uses_geometry:
        raise ValueError("the model does not use geometry (use_geometry=False), so that it has no gates to draw.")
    method = base.config.gap_fusion_config.method
    if method not in MEANINGS:
        raise ValueError(
            f"the fusion method {method!r} has no gate for each token; {' and '.join(MEANINGS)} have. The log of a "
            "training has the strength of each level of any method."
        )
    return MEANINGS[method]


@torch.no_grad()
def gate_maps(
    model: PreTrainedModel, processor: GapMllmProcessor, images: Sequence[Image.Image]
) -> dict[str, list[np.ndarray]]:
    """Read the gates of the fusion for the views of one scene, a number for each visual token.

    Of "gated" it is the weight of the visual part, averaged over channels: 1 where no geometry is read. Of
    "geothinker" it is the importance of each geometry token.

    Args:
        model (`GapMllmForConditionalGeneration`): model in evaluation mode.
        processor (`GapMllmProcessor`): processor of the model.
        images (list of `PIL.Image.Image`): views of one scene.
    Returns:
        `dict[str, list[numpy.ndarray]]`: for each fused level, "deepstack_1" and so on and "final", a map
        `(rows, columns)` of each view.
    Raises:
        ValueError: if the model does not use geometry, or its fusion has no gate for each token: only "gated" and
            "geothinker" have.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration
        >>> from gap_mllm.evaluation import draw_gate_maps, gate_maps
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> from gap_mllm.processing.data import render_room
        >>> model = GapMllmForConditionalGeneration.from_pretrained(folder).eval()
        >>> views = list(render_room(0).images)
        >>> maps = gate_maps(model, GapMllmProcessor.from_pretrained(folder), views)
        >>> list(maps), len(maps["final"]), maps["final"][0].shape
        (['deepstack_1', 'deepstack_2', 'deepstack_3', 'final'], 4, (4, 4))
        >>> draw_gate_maps(maps, views, "gates.png")

        ```
    """
    check_gate_maps(model)
    pixels = processor.image_processor(images=list(images), return_tensors="pt").to(input_device(model))
    merge = processor.image_processor.merge_size
    with read_gates(model.model.fusion) as reading:
        model.model.get_image_features(
            pixels["pixel_values"], pixels["image_grid_thw"], scene_lengths=[len(images)], return_dict=True
        )
    sizes = [(rows // merge, columns // merge) for _, rows, columns in pixels["image_grid_thw"].tolist()]
    counts = [rows * columns for rows, columns in sizes]
    return {
        level: [
            part.reshape(size).cpu().numpy()
            for part, size in zip(torch.cat(gates).float().mean(-1).split(counts), sizes, strict=True)
        ]
        for level, gates in reading.gates.items()
    }


def draw_gate_maps(
    maps: Mapping[str, Sequence[np.ndarray]],
    images: Sequence[Image.Image],
    path: str | Path,
    title: str = MEANINGS["gated"],
) -> None:
    """Draw gate maps over the views, a row for each level with a scale of its own.

    Args:
        maps (`dict[str, list[numpy.ndarray]]`): maps of `gate_maps`.
        images (list of `PIL.Image.Image`): the views that they are of.
        path (`str` or path): the PNG file to write.
        title (`str`, defaults to that of "gated"): what the numbers mean.
    Raises:
        ValueError: if views and maps differ in number. ImportError: without matplotlib.

    Example:
        ```python
        >>> import numpy as np
        >>> from gap_mllm.evaluation import draw_gate_maps, render_split
        >>> views = next(render_split("test", 1)).images
        >>> draw_gate_maps({"final": list(np.random.rand(len(views), 4, 4))}, views, "gates.png")

        ```
    """
    lacking = [level for level, each in maps.items() if len(each) != len(images)]
    if lacking or not len(images):
        raise ValueError(f"there are {len(images)} views, but level {lacking[:1]} has other maps; give those of both.")
    figure = new_figure(2.4 * len(images) + 1.6, 2.3 * len(maps) + 0.7)
    figure.set_layout_engine("constrained")
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(len(maps), len(images), squeeze=False)
    for row, (level, each) in zip(panels, maps.items(), strict=True):
        low, high = min(part.min() for part in each), max(part.max() for part in each)
        for axes, image, values in zip(row, images, each, strict=True):
            axes.imshow(image.convert("L") if isinstance(image, Image.Image) else image, cmap="gray")
            height, width = axes.images[0].get_size()
            drawn = axes.imshow(
                values, cmap="viridis", vmin=low, vmax=high, alpha=0.6, extent=(-0.5, width - 0.5, height - 0.5, -0.5)
            )
            axes.set_xticks([])
            axes.set_yticks([])
        mean = np.mean([part.mean() for part in each])
        row[0].set_ylabel(f"{level}\nmean {mean:.2f}", fontsize=9)
        figure.colorbar(drawn, ax=list(row), fraction=0.03)
    figure.savefig(path, format="png", bbox_inches="tight")
