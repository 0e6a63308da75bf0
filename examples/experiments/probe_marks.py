"""What is lost between the tokens and the answer: linear probes of point and name at the marked token, place by place.

Beside them stand the heads of pre-training at the same token, the decoded answer, and the blind baseline.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from ...processing.argument_checks import check_counts
from ...processing.data import CannotAskError
from ...processing.processing_gap_mllm import GapMllmProcessor
from ...processing.visual_prompt_gap_mllm import Mark, marks_to_tokens
from ..baselines import BlindBaselines
from ..intervals import with_interval
from ..marked_pixel import answer_marked_pixels, make_marked_pixel_samples, score_marked_pixels
from .linear_probe import LinearProbe
from .probe_model import CONSTANT, HELD_OUT, POSITION
from .probed_scenes import check_rows, unseen_scenes
from .token_targets import position_waves
from .visual_states import FUSION, VisualStates


ANSWER, PIXEL_PRIOR = "answer", "pixel_prior"  # the decoded text, and the blind baseline of marked pixels


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

    Example:
        ```python
        >>> from gap_mllm import GapMllmForPreTraining
        >>> from gap_mllm.evaluation import probe_marks
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> from gap_mllm.processing.data import load_multiview
        >>> model = GapMllmForPreTraining.from_pretrained(folder)
        >>> rooms, unseen = (load_multiview("rendered_rooms", split=split) for split in ("train", "test"))
        >>> processor, sizes = GapMllmProcessor.from_pretrained(folder), {"train_limit": 4, "limit": 2}
        >>> found = probe_marks(model, processor, rooms, unseen, layers=[-1], **sizes, show_progress=False)
        >>> list(found["probes"])
        ['constant', 'position', 'tower', 'fusion', 'layer_6', 'answer']

        ```
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


__all__ = ["ANSWER", "PIXEL_PRIOR", "probe_marks"]
