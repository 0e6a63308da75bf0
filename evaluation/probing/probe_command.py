"""`gap-mllm probe`: a model and a source, and a folder with a table, a plot and whatever else was asked for."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers.utils import logging

from ...configuration_gap_mllm import GapMllmConfig
from ...model_loading import model_folder
from ...modeling_gap_mllm import GapMllmForConditionalGeneration
from ...pretraining_gap_mllm import GapMllmForPreTraining
from ...processing.argument_checks import check_device, check_dtype, check_output_folder
from ...processing.data.folder_writing import write_atomically
from ...processing.data.loading import load_multiview
from ...processing.data.scene_sample import SceneSample
from ...processing.input_checks_gap_mllm import check_count
from ...processing.metrics_file import save_metrics, strict_json
from ..runner.files import write_jsonl
from ..runner.models import load_model, model_fingerprint
from .gate_maps import check_gate_maps, draw_gate_maps, gate_maps
from .probe_model import probe_model
from .probe_report import plot_probes, probe_csv, probe_table
from .run_relation import check_run, relate_run


logger = logging.get_logger(__name__)

ROOMS = "rendered_rooms"


def probe_into_folder(
    model: str | Path,
    output: str | Path,
    data: str = ROOMS,
    data_dir: str | Path | None = None,
    train_split: str = "train",
    split: str | None = None,
    layers: Sequence[str | int] | None = None,
    untrained: bool = False,
    voxel_size: float = 0.1,
    gates: int = 0,
    evaluation: str | Path | None = None,
    run_data_dir: str | Path | None = None,
    batch_size: int = 8,
    seed: int = 0,
    device: str | None = None,
    dtype: str = "auto",
    threads: int | None = None,
    cache_dir: str | Path | None = None,
    source_options: dict | None = None,
    **limits: int,
) -> str:
    """Probe a model of a folder, and write probes.json, probes.csv and probes.png.

    Args:
        model (`str` or path): folder, or repository of the Hub.
        output (`str` or path): folder for the results.
        data (`str`, defaults to `ROOMS`), data_dir (`str` or path, *optional*), cache_dir (`str` or path,
            *optional*), source_options (`dict`, *optional*): arguments of `load_multiview`.
        train_split (`str`, defaults to "train"), split (`str`, *optional*): splits to fit on and to score on, the
            latter by default "test" of rooms, else "val".
        layers (sequence of `int` or of texts of them, *optional*): argument of `probe_model`.
        untrained (`bool`, defaults to False): whether the weights are random ones instead.
        voxel_size (`float`, defaults to 0.1): side of a spot in metres, `voxel_size_m` of `probe_model`.
        gates (`int`, defaults to 0): scenes to score of which gate maps are drawn, see `gate_maps`.
        evaluation (`str` or path, *optional*), run_data_dir (`str` or path, *optional*): run to relate to, and its
            data, see `relate_run`; it writes correspondence.jsonl.
        batch_size (`int`, defaults to 8), seed (`int`, defaults to 0), **limits (`int`): arguments of `probe_model`.
        device (`str`, *optional*), dtype (`str`, defaults to "auto"): where the model runs, and its kind of number.
        threads (`int`, *optional*): CPU threads; by default 1 on the CPU, as in `evaluate_model`.
    Returns:
        `str`: the table, and what was written.
    Raises:
        ValueError: if layers are no numbers, or as `load_multiview`, `load_pretrained`, `probe_model` and
            `relate_run`. FileNotFoundError: if there is no such model, data or run. RecordError: for bad data.
    """
    device, dtype, output = check_device(device), check_dtype(dtype), check_output_folder("--output", output)
    if threads is not None:
        check_count("--threads", threads)
    if threads is not None or device.type == "cpu":
        torch.set_num_threads(threads or 1)
    layers = None if layers is None else [_layer(layer) for layer in layers]
    if evaluation is not None:
        check_run(evaluation)
    folder = model_folder(model)
    split = split or ("test" if data == ROOMS else "val")
    given = {**({} if cache_dir is None else {"cache_dir": cache_dir}), **(source_options or {})}
    rows = [load_multiview(data, data_dir, split=name, **given) for name in (train_split, split)]
    probed, processor = load_model(folder, device, dtype, model_class=_class_of(folder))
    meaning = check_gate_maps(probed) if gates else None
    if untrained:
        torch.manual_seed(seed)
        probed = (
            GapMllmForConditionalGeneration(GapMllmConfig.from_pretrained(folder))
            .to(probed.device, probed.dtype)
            .eval()
        )
    found = {"model": str(model), "fingerprint": model_fingerprint(folder), "is_untrained": untrained}
    found |= {"data": data, "train_split": train_split, "split": split, "options": source_options or {}, "seed": seed}
    shared = {"voxel_size_m": voxel_size, "batch_size": batch_size}
    found |= {"voxel_size_m": voxel_size}
    found |= probe_model(probed, processor, *rows, layers, seed=seed, **shared, **limits)
    lines = [probe_table(found)]
    if evaluation is not None:
        found["task_relation"], records = relate_run(
            probed, processor, evaluation, run_data_dir, layers, cache_dir=cache_dir, **shared
        )
        write_jsonl(output / "correspondence.jsonl", map(strict_json, records))
        lines += _relation_lines(found["task_relation"])
    output.mkdir(parents=True, exist_ok=True)
    save_metrics(found, output / "probes.json")
    write_atomically(output / "probes.csv", probe_csv(found))
    try:
        plot_probes(found, output / "probes.png")
        for index in range(min(gates, len(rows[1]))):
            views = SceneSample.open(rows[1], index).views[: limits.get("num_views", 4)]
            images = [view.image for view in views]
            path = output / f"gates_{index}.png"
            draw_gate_maps(gate_maps(probed, processor, images), images, path, meaning)
    except ImportError as error:
        logger.warning(f"no picture is drawn: {error}")
    return "\n".join([*lines, f"wrote {output}"])


def _class_of(folder):
    """The class of a folder: the heads of pre-training are probed, too, where it holds them."""
    names = GapMllmConfig.from_pretrained(folder).architectures or ()
    return GapMllmForPreTraining if GapMllmForPreTraining.__name__ in names else GapMllmForConditionalGeneration


def _layer(text):
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--layers has {text!r}; expected whole numbers, as 0,2,-1.") from None


def _relation_lines(related):
    """What answers were worth in the quarters of each place, from the least alike tokens to the most."""
    kind = "value_median" if related["value"] == "error_m" else "value"  # a mean of errors is infinite after one miss
    named = f"{'median' if kind == 'value_median' else 'mean'} {related['value']} of {related['benchmark']}"
    lines = [f"{named}, from the least alike tokens of one spot to the most:"]
    for place, found in related["places"].items():
        values = "  ".join(f"{group[kind]:.3f}" for group in found["groups"])
        shown = f"Spearman {found['spearman']:.2f} (p {found['spearman_p']:.2g}, {found['num_samples']} samples)"
        lines.append(f"{place}: {values}; {shown}")
    return lines
