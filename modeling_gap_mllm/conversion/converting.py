"""Conversion of released weights to GAP-MLLM folders that the Auto classes read, with this package or without.

`convert_checkpoint` takes a checkpoint of the reference release, `convert_base_models` a Qwen3-VL and a VGGT folder.
Both work from the names that our model expects, keep every tensor's dtype, and list what is missing or left over.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import AutoTokenizer
from transformers.utils import logging

from ..configuration_gap_mllm import GapMllmConfig, GapMllmFusionConfig
from ..fusion_gap_mllm import GapMllmFusion
from ..processing import GapMllmProcessor, check_image_statistics, default_image_processor
from .source_configs import REFERENCE_KEYS, build_config, read_qwen_config, reference_config, vggt_config
from .weight_files import ConversionError, WeightFiles, write_shards
from .weight_names import (
    EMBEDDING,
    FUSION_PREFIX,
    GEOMETRY_PREFIX,
    expected_shapes,
    is_geometry,
    is_ours,
    match_weights,
    read_weights,
    reference_names,
    vggt_names,
)


logger = logging.get_logger(__name__)


_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json")


def convert_checkpoint(
    source: str | Path, output: str | Path, geometry_config: dict | str | Path | None = None
) -> Path:
    """Convert a checkpoint folder of the reference release.

    The fusion gets `strength` 1, frozen, so that the converted model computes what the checkpoint computes.

    Args:
        source (`str` or `Path`): folder with config.json and weights. The names of mergers, fusion and encoder may
            stand at top level, under `model.`, or both, if equal; a copy of a tied `lm_head.weight` must be equal.
        output (`str` or `Path`): folder to write; must not exist, or be empty.
        geometry_config (`dict`, `str` or `Path`, *optional*): sizes of the VGGT, or a JSON file of them, in VGGT's
            own form or ours. By default they are read off the shapes of the weights.
    Returns:
        `Path`: the output folder.
    Raises:
        ConversionError: on config keys or values that are not supported, and on missing, unknown, misshapen or
            contradicting weights; all are listed.
        FileNotFoundError: if the folder, its config.json or weights are not there.
        FileExistsError: if the output folder is not empty.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration
        >>> from gap_mllm.conversion import convert_checkpoint
        >>> output = convert_checkpoint(checkpoint_folder, "gap-mllm")  # as the reference release trains and saves it
        >>> GapMllmForConditionalGeneration.from_pretrained(output).config.gap_fusion_config.method
        'gated'

        ```
    """
    source, output = Path(source), _check_output(output)
    qwen = read_qwen_config(source)
    weights = WeightFiles(source)
    config = reference_config(qwen, weights.shapes, geometry_config, source)
    expected = expected_shapes(config)
    if not config.use_geometry and not any(is_geometry(name) for name in weights.shapes):
        expected = {name: shape for name, shape in expected.items() if not is_ours(name)}
    strengths = {name: expected.pop(name) for name in list(expected) if name.endswith(".strength")}
    last_level = config.gap_fusion_config.num_levels - 1
    entries = match_weights(weights, expected, lambda target: reference_names(target, last_level), config)
    dtype = _set_dtype(config, weights)

    def tensors():
        yield from read_weights(weights, entries)
        yield from ((name, torch.ones(shape, dtype=dtype)) for name, shape in strengths.items())

    return _write(tensors(), config, source, output)


def convert_base_models(
    qwen: str | Path, vggt: str | Path, output: str | Path, fusion_config: dict | None = None
) -> Path:
    """Join a Qwen3-VL and a VGGT folder to a GAP-MLLM that starts as plain Qwen3-VL.

    Mergers and fusion are new (seed 0), with `init="identity"` unless `fusion_config` says otherwise. VGGT's heads and
    tracker are left out. A VGGT folder without config.json has its sizes read off the shapes of the weights.

    Args:
        qwen (`str` or `Path`): folder of Qwen3-VL, with config.json.
        vggt (`str` or `Path`): folder or file of VGGT's weights, safetensors or .pt.
        output (`str` or `Path`): folder to write; must not exist, or be empty.
        fusion_config (`dict`, *optional*): fields of `GapMllmFusionConfig` that differ from the defaults.
    Returns:
        `Path`: the output folder.
    Raises:
        ConversionError: as `convert_checkpoint`.
        FileNotFoundError: if a folder, the config.json of Qwen3-VL or weights are not there.
        FileExistsError: if the output folder is not empty.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration
        >>> from gap_mllm.conversion import convert_base_models
        >>> output = convert_base_models(qwen_folder, encoder_folder, "gap-mllm")  # folders of Qwen3-VL and of VGGT
        >>> GapMllmForConditionalGeneration.from_pretrained(output).config.gap_fusion_config.init
        'identity'

        ```
    """
    qwen, vggt, output = Path(qwen), Path(vggt), _check_output(output)
    data = read_qwen_config(qwen)
    if REFERENCE_KEYS & set(data):
        raise ConversionError(f"{qwen} is a GAP-MLLM reference checkpoint, not plain Qwen3-VL. Convert it by itself.")
    qwen_weights, vggt_weights = WeightFiles(qwen), WeightFiles(vggt)
    config = build_config(data, vggt_config(vggt, vggt_weights.shapes), fusion_config or {}, qwen)
    expected = expected_shapes(config)
    plain = {name: shape for name, shape in expected.items() if not is_ours(name)}
    geometry = {name: shape for name, shape in expected.items() if name.startswith(GEOMETRY_PREFIX)}
    qwen_entries = match_weights(qwen_weights, plain, lambda target: ((target,), None), config)
    vggt_entries = match_weights(vggt_weights, geometry, vggt_names, config)
    fusion = _new_fusion(config.gap_fusion_config, _set_dtype(config, qwen_weights))

    def tensors():
        yield from read_weights(qwen_weights, qwen_entries)
        yield from read_weights(vggt_weights, vggt_entries)
        yield from ((FUSION_PREFIX + name, tensor) for name, tensor in fusion.state_dict().items())

    return _write(tensors(), config, qwen, output)


def _check_output(output):
    output = Path(output).absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} already exists and is not an empty folder. Name a new one.")
    return output


def _set_dtype(config, weights):
    """Return the dtype of the language model, and name it in the config where the source does not.

    A float32 encoder beside a half-precision language model would else decide what `from_pretrained` loads.
    """
    dtype = weights[EMBEDDING].dtype
    if config.dtype is None:
        config.dtype = str(dtype).removeprefix("torch.")
    return dtype


def _new_fusion(config: GapMllmFusionConfig, dtype) -> GapMllmFusion:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GapMllmFusion(config).to(dtype)


def _write(tensors: Iterable, config: GapMllmConfig, source: Path, output: Path) -> Path:
    """Write weights, config, tokenizer, processor and code beside the output, then move all into place at once."""
    partial = output.with_name(output.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        write_shards(tensors, partial)
        config.save_pretrained(partial)
        if (source / "generation_config.json").exists():
            shutil.copyfile(source / "generation_config.json", partial / "generation_config.json")
        if any((source / name).exists() for name in _TOKENIZER_FILES):
            _write_processor(source, partial, config)
    except BaseException:
        shutil.rmtree(partial)
        raise
    if output.exists():
        output.rmdir()
    partial.rename(output)
    logger.info(f"Wrote {output}.")
    return output


def _write_processor(source, folder, config):
    """Save a `GapMllmProcessor` with the source's tokenizer.

    `Differs:` pixel bounds and chat template are the processor's own defaults, since the release's scripts set theirs
    by hand and Qwen's allow views far larger than geometry was trained on.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise ConversionError(f"The tokenizer in {source} cannot be loaded: {error}") from error
    statistics = {"image_mean": list(config.image_mean), "image_std": list(config.image_std)}
    processor = GapMllmProcessor(
        image_processor=default_image_processor(**statistics), tokenizer=tokenizer, video_processor=statistics
    )
    check_image_statistics(processor, config)
    processor.save_pretrained(folder)
