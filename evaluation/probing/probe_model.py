"""Linear probes of depth and normals on a model's visual tokens, place by place, beside blind baselines.

Scenes are read in batches; of each batch only sums (linear_probe.py) and errors remain, so that memory does not grow
with their number.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from ...processing.argument_checks import check_counts
from ...processing.processing_gap_mllm import GapMllmProcessor
from ...training.losses import normal_loss, voxel_indices
from ..intervals import with_interval
from .correspondence import correspondence_score
from .linear_probe import LinearProbe
from .probed_scenes import check_rows, unseen_scenes
from .token_targets import TokenTargets, token_targets_of
from .visual_states import VisualStates


CONSTANT, POSITION = "constant", "position"  # probes that see nothing, and where a token lies
SHUFFLED = "shuffled_"  # figures of probes that were fitted on the targets of other tokens
HELD_OUT = 5  # one scene in so many chooses the strength of the penalty
_GROUPS = (1, 3, 1, 3)  # ln depth, normal; the same, shuffled


def probe_model(
    model: PreTrainedModel,
    processor: GapMllmProcessor,
    train_rows: Sequence,
    rows: Sequence,
    layers: Sequence[int] | None = None,
    train_limit: int = 128,
    limit: int = 64,
    num_views: int = 4,
    voxel_size_m: float = 0.1,
    batch_size: int = 8,
    seed: int = 0,
    show_progress: bool = True,
) -> dict:
    """Tell how well depth and normals can be read off visual tokens by a linear map, at each place of the model.

    Places are the tokens after the vision tower ("tower"), after the fusion ("fusion"; not without geometry) and the
    hidden states of language layers ("layer_0", the embeddings, and so on). A probe is fitted on some scenes
    and scored on others; it tells the logarithm of the z-depth at the centre of each token, and the normal there.
    Beside them stand a probe of the token's position in its picture alone ("position") and the best constant
    ("constant"); and for each place one that was fitted on the targets of other tokens, which must be no better than
    the constant. Tokens whose centre has no depth or no normal (an edge of depth, a hole) are left out.
    Frame: normals in the camera of their view, OpenCV axes. Units: metres, degrees.

    Args:
        model (`GapMllmForConditionalGeneration`, or a `PeftModel` of one): put into evaluation mode for the time
            being.
        processor (`GapMllmProcessor`): processor of the model.
        train_rows (sequence of `dict` or `SceneSample`), rows (the same): scenes to fit on and to score on, as
            `load_multiview` gives them without streaming; of each scene one row is taken, and none of those that were
            fitted on is scored.
        layers (sequence of `int`, *optional*): indices of hidden states, 0 for the embeddings and -1 for the last
            layer; by default all.
        train_limit (`int`, defaults to 128), limit (`int`, defaults to 64): most scenes to fit on, and to score on.
        num_views (`int`, defaults to 4): most views of a scene; neighbours, or up to 3 apart.
        voxel_size_m (`float`, defaults to 0.1): side in metres of the spots of `correspondence_score`; wide tokens
            need larger ones, or few scenes show one in two views.
        batch_size (`int`, defaults to 8): scenes at once.
        seed (`int`, defaults to 0): seed of views, shuffling and bootstrap.
        show_progress (`bool`, defaults to True): whether to show bars.
    Returns:
        `dict`: "num_train_scenes", "num_scenes", "num_tokens" (scored), "scenes_without_depth", "scenes_with_pairs"
        (that show a spot in two views), and "probes", for each place a dict of `depth_error_m` (mean of |error|),
        `depth_abs_rel` (of |error| / depth) and `normal_error_deg` (mean angle), the same with "shuffled_" before,
        and, of places in the model, `correspondence` and `any_pair_cosine`, voxel and any-pair mean of
        `correspondence_score`: means over scenes, each with its interval under "_ci95". Correspondence is missing
        where no poses are known.
    Raises:
        ValueError: if a number is below 1 or `voxel_size_m` not above 0, there are fewer than two scenes to fit on or
            none to score on, or as `VisualStates`. TypeError: if rows are streamed. RecordError: for a picture or
            depth map that cannot be read.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForConditionalGeneration
        >>> from gap_mllm.evaluation import probe_model
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> from gap_mllm.processing.data import load_multiview
        >>> model = GapMllmForConditionalGeneration.from_pretrained(folder)
        >>> rooms, unseen = (load_multiview("rendered_rooms", split=split) for split in ("train", "test"))
        >>> processor, sizes = GapMllmProcessor.from_pretrained(folder), {"train_limit": 8, "limit": 4}
        >>> found = probe_model(model, processor, rooms, unseen, layers=[-1], **sizes, show_progress=False)
        >>> list(found["probes"])
        ['constant', 'position', 'tower', 'fusion', 'layer_6']

        ```
    """
    check_counts(train_limit=train_limit, limit=limit, num_views=num_views, batch_size=batch_size)
    check_rows(train_rows=train_rows, rows=rows)
    voxel_indices(torch.zeros(1, 3), voxel_size_m)  # refuses a size before anything is read
    states, was_training = VisualStates(model, processor, layers), model.training
    reader = _SceneReader(states, num_views, batch_size, seed, show_progress)
    probes = {place: LinearProbe(_GROUPS) for place in (CONSTANT, POSITION, *states.places)}
    model.eval()
    try:
        fitted, bounds = _fit(probes, reader, train_rows, train_limit, seed)
        return _score(probes, reader, rows, limit, fitted, bounds, voxel_size_m, seed)
    finally:
        model.train(was_training)


@dataclass(frozen=True)
class _ReadScene:
    """A scene that the model has seen: what its tokens see, and features of all of them at each place."""

    name: str
    targets: TokenTargets
    features: dict[str, torch.Tensor]

    def known(self, place):
        return self.features[place][self.targets.is_known.to(self.features[place].device)]

    @property
    def truth(self):
        """ln depth and normal of the tokens where both are known, `(N, 4)`."""
        is_known = self.targets.is_known
        return torch.cat([self.targets.depth_m[is_known].log()[:, None], self.targets.normals[is_known]], dim=1)


class _SceneReader:
    """Scenes in batches, with their targets and states; those without depth are counted and left out."""

    def __init__(self, states, num_views, batch_size, seed, show_progress):
        self.states, self.num_views, self.batch_size = states, num_views, batch_size
        self.seed, self.show_progress, self.num_without_depth = seed, show_progress, 0

    def batches(
        self, rows: Sequence, limit: int, text: str, without: Iterable[str] = ()
    ) -> Iterator[list[_ReadScene]]:
        """Read up to `limit` scenes, one row of each, and none that `without` names."""
        chosen, bar = [], tqdm(total=min(limit, len(rows)), desc=text, disable=not self.show_progress)
        with bar:
            for name, views in islice(self._scenes(rows, set(without)), limit):
                chosen.append((name, views))
                if len(chosen) == self.batch_size:
                    yield self._read(chosen)
                    bar.update(len(chosen))
                    chosen = []
            if chosen:
                yield self._read(chosen)
                bar.update(len(chosen))

    def _scenes(self, rows, seen):
        """Name and views of each scene that has depth."""
        for name, scene in unseen_scenes(rows, seen, self.num_views, self.seed):
            if scene.views:
                yield name, scene.views
            else:
                self.num_without_depth += 1

    def _read(self, chosen):
        states, grids = self.states([[view.image for view in views] for _, views in chosen])
        scenes = []
        for number, (name, views) in enumerate(chosen):
            targets = token_targets_of(views, grids[number])
            features = {CONSTANT: targets.positions[:, :0], POSITION: targets.positions}
            features |= {place: tokens[number] for place, tokens in states.items()}
            if targets.is_known.any():
                scenes.append(_ReadScene(name, targets, features))
            else:
                self.num_without_depth += 1
        return scenes


def _fit(probes, reader, rows, limit, seed):
    """Fit the probes; returns the names of the scenes that they were fitted on, and the range of ln depth there."""
    names, generator, extremes = [], torch.Generator().manual_seed(seed), []
    for scenes in reader.batches(rows, limit, "scenes to fit on"):
        truth = torch.cat([scene.truth for scene in scenes]) if scenes else torch.zeros(0, 4)
        both = torch.cat([truth, truth[torch.randperm(len(truth), generator=generator)]], dim=1)
        for scene, told in zip(scenes, both.split([len(scene.truth) for scene in scenes]), strict=True):
            for place, probe in probes.items():
                features = scene.known(place)
                is_held_out = len(names) % HELD_OUT == HELD_OUT - 1
                probe.add(features, told.to(features.device), is_held_out)
            names.append(scene.name)
            extremes += [float(told[:, 0].min()), float(told[:, 0].max())]
    if len(names) < 2:
        raise ValueError(
            f"{len(names)} of the scenes to fit on have depth and intrinsics, {reader.num_without_depth} have not; "
            "give a source with two or more that have."
        )
    for probe in probes.values():
        probe.fit()
    return names, (min(extremes), max(extremes))


def _score(probes, reader, rows, limit, fitted, bounds, voxel_size_m, seed):
    """Figures of all probes on scenes that they were not fitted on."""
    values, num_scenes, num_tokens = {place: {} for place in probes}, 0, 0
    for scenes in reader.batches(rows, limit, "scenes to score", fitted):
        for scene in scenes:
            num_scenes, num_tokens = num_scenes + 1, num_tokens + len(scene.truth)
            for place, probe in probes.items():
                told = probe(scene.known(place)).cpu()
                figures = {
                    prefix + name: value
                    for prefix, part in zip(("", SHUFFLED), told.split(4, dim=1), strict=True)
                    for name, value in _errors(part, scene.truth, bounds).items()
                }
                if place not in (CONSTANT, POSITION):
                    figures |= _alikeness(scene, place, voxel_size_m)
                for name, value in figures.items():
                    values[place].setdefault(name, []).append(value)
    if not num_scenes:
        raise ValueError(
            f"no scene to score on has depth and intrinsics and is none of the {len(fitted)} that the probes were "
            "fitted on. Take another split, or fit on fewer (train_limit)."
        )
    found = {"num_train_scenes": len(fitted), "num_scenes": num_scenes, "num_tokens": num_tokens}
    found |= {"scenes_without_depth": reader.num_without_depth, "probes": {}}
    for place, figures in values.items():
        found["probes"][place] = {}
        for name, each in figures.items():
            known = np.array(each)[~np.isnan(each)]
            if name == "correspondence":
                found["scenes_with_pairs"] = len(known)
            if len(known):
                found["probes"][place] |= with_interval(name, known, np.mean, seed=seed)
    return found


def _errors(told, truth, bounds):
    """Mean errors over the tokens of a scene; ln depth is kept within what was seen in fitting."""
    depth, true_depth = told[:, 0].clamp(*bounds).exp(), truth[:, 0].double().exp()
    error = (depth - true_depth).abs()
    angle = normal_loss(told[:, 1:], truth[:, 1:].double(), angle=True).mean
    return {
        "depth_error_m": float(error.mean()),
        "depth_abs_rel": float((error / true_depth).mean()),
        "normal_error_deg": float(angle.rad2deg()),
    }


def _alikeness(scene, place, voxel_size_m):
    points, views = scene.targets.points, scene.targets.views
    features = scene.features[place]
    points, views = points.to(features.device), views.to(features.device)
    score = correspondence_score(features, points, views, voxel_size_m=voxel_size_m)
    return {"correspondence": score.voxel_mean, "any_pair_cosine": score.any_pair_mean}
