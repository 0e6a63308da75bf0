"""What is lost between the tokens and the answer: linear probes of point and name at the marked token, place by place.

Beside them stand the heads of pre-training at the same token, the decoded answer, and the blind baseline.

    python examples/experiments/probe_marks.py examples/assets/tiny_gap_mllm
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from gap_mllm import GapMllmConfig, GapMllmForConditionalGeneration, GapMllmForPreTraining
from gap_mllm.evaluation.baselines import BlindBaselines, fit_baselines
from gap_mllm.evaluation.intervals import with_interval
from gap_mllm.evaluation.marked_pixel import score_marked_pixels
from gap_mllm.evaluation.probing.linear_probe import LinearProbe
from gap_mllm.evaluation.probing.probe_model import CONSTANT, HELD_OUT, POSITION
from gap_mllm.evaluation.probing.probe_report import ANSWER, PIXEL_PRIOR, plot_probes, probe_csv, probe_table
from gap_mllm.evaluation.probing.probed_scenes import check_rows, unseen_scenes
from gap_mllm.evaluation.probing.token_targets import position_waves
from gap_mllm.evaluation.probing.visual_states import FUSION, VisualStates
from gap_mllm.evaluation.runner.models import load_model
from gap_mllm.model_loading import model_folder
from gap_mllm.processing.argument_checks import check_counts, check_device, check_output_folder
from gap_mllm.processing.data import CannotAskError
from gap_mllm.processing.data.folder_writing import write_atomically
from gap_mllm.processing.data.loading import load_multiview
from gap_mllm.processing.data.rooms.renderer import render_split
from gap_mllm.processing.metrics_file import save_metrics
from gap_mllm.processing.processing_gap_mllm import GapMllmProcessor
from gap_mllm.processing.visual_prompt_gap_mllm import Mark, marks_to_tokens
from gap_mllm.training.marked_pixel_scorer import answer_marked_pixels, make_marked_pixel_samples


ROOMS = "rendered_rooms"
NUM_BASELINE_ROOMS = 512  # of the training split, for the blind baseline of marked pixels


def probe_marks(
    model: PreTrainedModel,
    processor: GapMllmProcessor,
    train_rows: Sequence,
    rows: Sequence,
    layers: Sequence[int] | None = None,
    train_limit: int = 128,
    limit: int = 64,
    num_views: int = 4,
    marks_per_scene: int = 4,
    batch_size: int = 8,
    seed: int = 0,
    baselines: BlindBaselines | None = None,
    show_progress: bool = True,
) -> dict:
    """Tell how well the point and the name of a marked pixel can be read off its visual token, at each place.

    Each mark is a question of its own, with a red cross in its view, as in `make_marked_pixel_samples`. A linear probe
    tells the point, another the name (of those that were fitted on, that with the largest value). "position" knows
    view and pixel of the mark, "constant" nothing. The heads of a `GapMllmForPreTraining` tell the point, too: that on
    fused tokens at "fusion", that on the last states at the last layer. "answer" is the decoded text.
    Frame: camera of the first view, OpenCV axes. Units: metres.

    Args:
        model (`GapMllmForConditionalGeneration`): put into evaluation mode for the time being.
        processor (`GapMllmProcessor`): processor of the model.
        train_rows (sequence of `dict` or `SceneSample`), rows (the same): scenes to fit on and to score on, see
            `probe_model`; with labels, depth and poses.
        layers (sequence of `int`, *optional*), train_limit (`int`, defaults to 128), limit (`int`, defaults to 64),
            num_views (`int`, defaults to 4): layers, numbers of scenes and of views, see `probe_model`.
        marks_per_scene (`int`, defaults to 4): questions about each scene.
        batch_size (`int`, defaults to 8), seed (`int`, defaults to 0): questions at once, and seed of views and of
            the bootstrap.
        baselines (`BlindBaselines`, *optional*): baseline "pixel_prior", fitted on other rooms than are scored.
        show_progress (`bool`, defaults to True): whether to show bars.
    Returns:
        `dict`: "num_train_scenes", "num_scenes", "num_train_marks", "num_marks", "scenes_without_marks", and
        "probes", for each place, "answer" and "pixel_prior" a dict of `point_error_m` (median; of an answer that
        cannot be read infinite), `label_accuracy` and `head_point_error_m` (median), as far as they are there, each
        with its interval over scenes under "_ci95".
    Raises:
        ValueError: if a number is below 1, fewer than two scenes to fit on or none to score on can be asked about, or
            as `VisualStates` and `score_marked_pixels`. TypeError: if rows are streamed.
    """
    check_counts(train_limit=train_limit, limit=limit, num_views=num_views, marks_per_scene=marks_per_scene)
    check_counts(batch_size=batch_size)
    check_rows(train_rows=train_rows, rows=rows)
    states, was_training, seen = VisualStates(model, processor, layers), model.training, set()
    chosen = [
        _ask(part, seen, most, num_views, marks_per_scene, seed)
        for part, most in ((train_rows, train_limit), (rows, limit))
    ]
    (train, test), without = (each for each, _ in chosen), sum(lacking for _, lacking in chosen)
    train_scenes, scenes = ([sample.scene_id for sample in each] for each in (train, test))
    if len(set(train_scenes)) < 2 or not test:
        raise ValueError(
            f"{len(set(train_scenes))} scenes to fit on and {len(set(scenes))} others to score on can be asked about "
            f"a marked pixel, {without} cannot; give two or more and one or more, with labels, depth and poses."
        )
    options = {"batch_size": batch_size, "show_progress": show_progress}
    model.eval()
    try:
        probes, labels = _fit(_read(states, train, num_views, **options)[0], train)
        features, heads = _read(states, test, num_views, **options)
        scores, _ = score_marked_pixels(answer_marked_pixels(model, processor, test, **options), test, baselines, seed)
    finally:
        model.train(was_training)
    found = {"num_train_scenes": len(set(train_scenes)), "num_scenes": len(set(scenes))}
    found |= {"num_train_marks": len(train), "num_marks": len(test), "scenes_without_marks": without, "probes": {}}
    points, names = _truth(test)

    def distance(name: str, told: np.ndarray) -> dict:
        return with_interval(name, np.linalg.norm(told - points, axis=1), np.median, scenes, seed)

    for place, probe in probes.items():
        told = probe(features[place]).cpu().numpy()
        right = np.array([labels[best] for best in told[:, 3:].argmax(1)]) == names
        found["probes"][place] = distance("point_error_m", told[:, :3])
        found["probes"][place] |= with_interval("label_accuracy", right.astype(float), np.mean, scenes, seed)
        if place in heads:
            found["probes"][place] |= distance("head_point_error_m", heads[place].numpy())
    for place, prefix in ((ANSWER, ""), (PIXEL_PRIOR, "pixel_prior_")):
        figures = [name + end for name in ("point_error_m", "label_accuracy") for end in ("", "_ci95")]
        if prefix + figures[0] in scores:
            found["probes"][place] = {name: scores[prefix + name] for name in figures}
    return found


def _ask(rows, seen, limit, num_views, marks_per_scene, seed):
    """Questions about marked pixels of up to `limit` scenes, and how many could not be asked about."""
    samples, num_scenes, without = [], 0, 0
    for name, scene in unseen_scenes(rows, seen, num_views, seed):
        try:
            made = make_marked_pixel_samples([scene], marks_per_scene) if scene.views else []
        except CannotAskError:
            made = []
        num_scenes, without = num_scenes + bool(made), without + (not made)
        samples += [replace(sample, scene_id=name) for sample in made]
        if num_scenes == limit:
            break
    return samples, without


def _truth(samples):
    """Points `(N, 3)` and names `(N,)`."""
    items = [sample.truth.items[0] for sample in samples]
    return np.array([item.numbers for item in items]), np.array([item.label for item in items], dtype=object)


def _read(states, samples, num_views, batch_size, show_progress):
    """States at the marked tokens by place, `(N, C)`, and what heads of pre-training tell there, `(N, 3)`."""
    size, read, told = states.processor.cross_size, {}, {}
    heads, last = getattr(states.model, "point_map_heads", {}), f"layer_{states.num_layers}"
    for start in tqdm(range(0, len(samples), batch_size), desc="marks", disable=not show_progress):
        batch = samples[start : start + batch_size]
        images = [sample.marked_images(size) for sample in batch]
        chats = [sample.messages(shown, with_answer=False) for sample, shown in zip(batch, images, strict=True)]
        found, grids = states(images, chats)
        for number, (sample, shown, grid) in enumerate(zip(batch, images, grids, strict=True)):
            mark, sizes = sample.marks[0], [image.size for image in shown]
            (token,) = marks_to_tokens([Mark(mark.view, mark.xy)], sizes, [(1, *each) for each in grid], merge_size=1)
            place = [(pixel + 0.5) / side for pixel, side in zip(mark.xy, sizes[mark.view], strict=True)]
            where = position_waves(torch.tensor(place[1:]), torch.tensor(place[:1]))[0]
            position = torch.zeros(num_views, len(where))
            position[mark.view] = where
            states_here = {name: tokens[number][token] for name, tokens in found.items()}
            for name, values in {CONSTANT: where[:0], POSITION: position.flatten(), **states_here}.items():
                read.setdefault(name, []).append(values.cpu())
            for name, source in ((FUSION, "visual"), (last, "language")):
                if name in states_here and source in heads:
                    told.setdefault(name, []).append(
                        _of_head(heads[source], states_here[name], place, grid[mark.view])
                    )
    return {name: torch.stack(each) for name, each in read.items()}, {
        name: torch.stack(each) for name, each in told.items()
    }


@torch.no_grad()
def _of_head(head, state, place, grid):
    """The point that a point-map head tells of the cell that holds a mark, `(3,)`; `place` is x and y in 0..1."""
    points = head(state[None])[0].cpu()  # (side, side, 3), rows first
    column, row = (int(share * tokens % 1 * head.side) for share, tokens in zip(place, grid[::-1], strict=True))
    return points[row, column]


def _fit(features, samples):
    """Probes of point and name by place, and the names that they tell."""
    points, names = _truth(samples)
    labels = sorted(set(names))
    targets = torch.tensor(
        np.concatenate([points, names[:, None] == np.array(labels, dtype=object)], axis=1).astype(float)
    )
    scenes = {name: number for number, name in enumerate(dict.fromkeys(sample.scene_id for sample in samples))}
    is_held_out = torch.tensor([scenes[sample.scene_id] % HELD_OUT == HELD_OUT - 1 for sample in samples])
    probes = {}
    for place, values in features.items():
        probes[place] = LinearProbe((3, len(labels)))
        for part in (is_held_out, ~is_held_out):
            if part.any():
                probes[place].add(values[part], targets[part], held_out=part is is_held_out)
        probes[place].fit()
    return probes, labels


def main(words: Sequence[str] | None = None) -> None:
    """Probe a model of a folder at marked tokens; write probes.json, probes.csv and probes.png, print the table."""
    parser = argparse.ArgumentParser(
        description="Fit linear probes of point and name at marked tokens, beside the decoded answer."
    )
    parser.add_argument("model", metavar="MODEL", help="folder, or repository of the Hub")
    parser.add_argument("--data", default=ROOMS, metavar="NAME", help="a source with labels, depth and poses")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the source; rendered rooms need none")
    parser.add_argument("--train-split", default="train", help="scenes to fit on; default: train")
    parser.add_argument("--split", help="scenes to score on; default: test of rooms, else val")
    parser.add_argument("--train-limit", type=int, default=128, metavar="N", help="scenes to fit on")
    parser.add_argument("--limit", type=int, default=64, metavar="N", help="scenes to score on")
    parser.add_argument("--num-views", type=int, default=4, metavar="N", help="views of a scene")
    parser.add_argument("--layers", type=read_layers, metavar="A,B", help="--layers=-1 is the last; default: all")
    parser.add_argument("--output", default="outputs/probes", metavar="DIR", help="folder for the results")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of views and intervals")
    parser.add_argument("--device", help="such as cpu or cuda:0")
    args = parser.parse_args(words)
    device, output = check_device(args.device), check_output_folder("--output", args.output)
    if device.type == "cpu":
        torch.set_num_threads(1)
    splits = args.train_split, args.split or ("test" if args.data == ROOMS else "val")
    rows = [load_multiview(args.data, args.data_dir, split=name) for name in splits]
    folder = model_folder(args.model)
    has_heads = GapMllmForPreTraining.__name__ in (GapMllmConfig.from_pretrained(folder).architectures or ())
    kind = GapMllmForPreTraining if has_heads else GapMllmForConditionalGeneration
    baselines = fit_baselines(render_split(splits[0], NUM_BASELINE_ROOMS)) if args.data == ROOMS else None
    names = ("layers", "train_limit", "limit", "num_views", "batch_size", "seed")
    limits = {name: getattr(args, name) for name in names}
    found = {"model": str(args.model), "data": args.data, "train_split": splits[0], "split": splits[1]}
    found |= probe_marks(*load_model(folder, device, model_class=kind), *rows, baselines=baselines, **limits)
    output.mkdir(parents=True, exist_ok=True)
    save_metrics(found, Path(output) / "probes.json")
    write_atomically(output / "probes.csv", probe_csv(found))
    plot_probes(found, output / "probes.png")
    print(probe_table(found))
    print(f"wrote {output}")


def read_layers(text: str) -> list[int]:
    """ "0,-1" as numbers."""
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    main()
