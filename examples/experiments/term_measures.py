"""How good what a term taught is, in natural units, on one room at a time, beside the best constant answer.

A measure reads what the head of a term gives for one room, and the targets of the room as a batch holds them.
Frame: that of each term. Units: those named.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from gap_mllm.training.losses import SHAPE_WORDS, chamfer_loss, normals_from_depth, pool_regions
from gap_mllm.training.terms import LossTerm


Targets = Mapping[str, list]


@dataclass(frozen=True)
class TermMeasure:
    """A number for one room, NaN where it has no items, and what the best constant answer gets.

    Args:
        name (`str`): what is measured, with its unit.
        score (`Callable`): prediction, targets of the room and term to the number.
        constant (`Callable`): targets of the training rooms and term to a function from the targets of a room to the
            number of the best constant answer.
        is_error (`bool`, defaults to True): whether less is better.
    """

    name: str
    score: Callable[[object, Targets, LossTerm], float]
    constant: Callable[[Sequence[Targets], LossTerm], Callable[[Targets], float]]
    is_error: bool = True


def _mean(loss):
    """The mean of a `LossSum`; NaN for a room without items."""
    return loss.mean.item() if loss.count else math.nan


def _answered(score: Callable, fit: Callable) -> Callable:
    """The `constant` of a measure whose constant is a prediction: `fit(train)` gives one for the targets of a room."""

    def constant(train, term):
        predict = fit(train)
        return lambda told: score(predict(told), told, term)

    return constant


def _depth_error(maps, told, term):
    pairs = zip(maps, told["depth"], strict=True)
    return torch.cat([(depth - true).abs()[true > 0] for depth, true in pairs]).mean().item()


def _median_depth(train):
    middle = torch.cat([depth[depth > 0] for told in train for depth in told["depth"]]).median()
    return lambda told: [torch.full_like(depth, middle) for depth in told["depth"]]


def _normal_angle(normals, told):
    """Mean angle in degrees; `normals` like those of the targets."""
    angles = []
    for found, true in zip(normals, told["normals"], strict=True):
        if true is None:  # too rough for normals at so few pixels
            continue
        is_known = true.isfinite().all(-1)
        cosine = F.cosine_similarity(found[is_known], true[is_known], dim=-1)
        angles.append(cosine.clamp(-1, 1).arccos().rad2deg())
    return torch.cat(angles).mean().item()


def _normal_error(maps, told, term):
    cameras = zip(maps, told["intrinsics"], strict=True)
    known = [
        None if camera is None else normals_from_depth(depth, camera, max_jump=None)[0] for depth, camera in cameras
    ]
    return _normal_angle(known, told)


def _mean_normal(train, term):
    maps = [normals for told in train for normals in told["normals"] if normals is not None]
    mean = torch.stack([normals[normals.isfinite().all(-1)].mean(0) for normals in maps]).mean(0)
    return lambda told: _normal_angle(
        [each if each is None else mean.expand_as(each) for each in told["normals"]], told
    )


def _rotation_error(encodings, told, term):
    found, true = encodings[1:, 3:7], torch.stack(told["vectors"])[1:, 3:7]
    cosine = F.cosine_similarity(found, true, dim=-1).abs().clamp(max=1)
    return (2 * cosine.arccos()).rad2deg().mean().item()


def _translation_error(encodings, told, term):
    return (encodings - torch.stack(told["vectors"]))[1:, :3].norm(dim=-1).mean().item()


def _median_camera(train):
    """The median of each view's numbers, which are alike where cameras walk alike."""
    encodings = torch.stack([torch.stack(told["vectors"]) for told in train])
    encodings[..., 3:7] *= torch.where(encodings[..., 6:7] < 0, -1, 1)  # q and -q are one rotation
    middle = encodings.median(0).values
    return lambda told: middle


def _angle_of_view_error(prediction, told, term):
    return (prediction[:, -2:] - torch.stack(told["vectors"])).abs().mean().rad2deg().item()


def _median_vector(train):
    middle = torch.stack([vector for told in train for vector in told["vectors"]]).median(0).values
    return lambda told: middle.expand(len(told["vectors"]), *middle.shape)


def _scale_error(scales, told, term):
    return 100 * (scales / torch.stack(told["vectors"]) - 1).abs().mean().item()


def _feature_error(features, told, term):
    cosines = [
        F.cosine_similarity(a, b, dim=-1) for a, b in zip(features, torch.cat(told["features"], 1), strict=True)
    ]
    return 1 - torch.stack(cosines).mean().item()


def _mean_feature(train):
    mean = torch.stack([F.normalize(torch.cat(told["features"], 1), dim=-1).mean(1) for told in train]).mean(0)
    return lambda told: mean[:, None]


def _point_error(points, told, term):
    true = told["points"]
    return (points - true).norm(dim=-1)[true.isfinite().all(-1)].mean().item()


def _median_point(train):
    points = torch.cat([told["points"].flatten(0, 2) for told in train])
    return lambda told: points[points.isfinite().all(-1)].median(0).values


def _shape_error(features, told, term):
    scene = {name: values[0] for name, values in told.items() if name != "views"}
    return 100 * _mean(chamfer_loss(term.shapes(features, scene), scene["points"]))


def _best_shape(train, term, steps: int = 200):
    """64 points that learn to be near to all objects of the training rooms."""
    objects = torch.cat([told["points"][0] for told in train])
    places = objects.flatten(0, 1)
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))
    points = places[order[: objects.shape[1]]].clone()
    optimizer = torch.optim.Adam([points.requires_grad_()], lr=0.02)
    for step in range(steps):
        some = objects[step * 64 % len(objects) :][:64]
        optimizer.zero_grad()
        chamfer_loss(points.expand(len(some), -1, -1), some).mean.backward()
        optimizer.step()

    def error(told):
        true = told["points"][0]
        return 100 * _mean(chamfer_loss(points.detach().expand(len(true), -1, -1), true))

    return error


def _partners(told):
    """Places of a room with a partner: voxels `(P,)` of all known places, candidates and partners `(P, P)`."""
    voxels, number = told["tokens"][0], told["number"][0]
    is_known = voxels >= 0
    voxels, number = voxels[is_known], number[is_known]
    candidates = number[:, None] != number
    return is_known, candidates, candidates & (voxels[:, None] == voxels)


def _matching(features, told, term):
    is_known, candidates, partners = _partners(told)
    if not partners.any():
        return math.nan
    units = F.normalize(features[is_known], dim=-1)
    nearest = (units @ units.T).where(candidates, -torch.inf).argmax(1)
    found = partners.gather(1, nearest[:, None])[:, 0]
    return 100 * found[partners.any(1)].float().mean().item()


def _matching_by_chance(train, term):
    def chance(told):
        _, candidates, partners = _partners(told)
        return 100 * (partners.sum(1) / candidates.sum(1))[partners.any(1)].mean().item()

    return chance


def _inconsistency(features, told, term):
    return _mean(term.scene_loss(features, {name: told[name][0] for name in ("tokens", "number")}))


def _naming(features, told, term):
    regions = pool_regions(features, told["tokens"][0], told["count"][0])
    texts = term.text_features[0][: -len(SHAPE_WORDS)]
    named = (F.normalize(regions, dim=-1) @ F.normalize(texts, dim=-1).T).argmax(1)
    return 100 * (named == told["labels"][0]).float().mean().item()


def _commonest(train, term):
    counts = Counter(tuple(text.tolist()) for told in train for text in _own_texts(told))
    (commonest, _), *_ = counts.most_common(1)

    def share(told):
        own = _own_texts(told)
        return 100 * sum(tuple(text.tolist()) == commonest for text in own) / len(own) if own else math.nan

    return share


def _own_texts(told):
    texts = [told["texts"][0][label] for label in told["labels"][0]]
    return [text[text >= 0] for text in texts]


def _naming_places(features, told, term):
    labels = told["labels"][0].flatten()
    places = features.unflatten(1, (term.side**2, -1)).flatten(0, 1)
    named = (F.normalize(places, dim=-1) @ F.normalize(term.text_features[0], dim=-1).T).argmax(1)
    right = [(named[labels == label] == label).float().mean() for label in labels[labels >= 0].unique()]
    return 100 * torch.stack(right).mean().item()


def _one_label(train, term):
    return lambda told: 100 / told["count"][0]  # of the labels that are seen one is right, wherever it is


def _relating(features, told, term):
    regions = pool_regions(features, told["tokens"][0], int(told["tokens"][0].max()) + 1)
    pairs, holds, known = (told[name][0] for name in ("pairs", "holds", "known"))
    said = (regions[pairs[:, 1]] - regions[pairs[:, 0]]) @ term.text_features[0].T > 0
    return 100 * (said == holds)[known].float().mean().item()


def _one_of_two(train, term):
    """Of left and right always one holds."""
    return lambda told: 50.0


MEASURES: dict[str, tuple[TermMeasure, ...]] = {
    "point_map": (TermMeasure("distance, m", _point_error, _answered(_point_error, _median_point)),),
    "distillation": (TermMeasure("1 - cosine", _feature_error, _answered(_feature_error, _mean_feature)),),
    "depth": (TermMeasure("error, m", _depth_error, _answered(_depth_error, _median_depth)),),
    "normals": (TermMeasure("angle, degrees", _normal_error, _mean_normal),),
    "camera": (
        TermMeasure("rotation, degrees", _rotation_error, _answered(_rotation_error, _median_camera)),
        TermMeasure("translation, m", _translation_error, _answered(_translation_error, _median_camera)),
    ),
    "field_of_view": (
        TermMeasure("angle, degrees", _angle_of_view_error, _answered(_angle_of_view_error, _median_vector)),
    ),
    "metric_scale": (TermMeasure("error, %", _scale_error, _answered(_scale_error, _median_vector)),),
    "correspondence": (TermMeasure("matched in another view, %", _matching, _matching_by_chance, False),),
    "consistency": (TermMeasure("1 - cosine", _inconsistency, lambda train, term: lambda told: 1.0),),
    "shape": (TermMeasure("Chamfer, cm", _shape_error, _best_shape),),
    "region_text": (TermMeasure("named of ten, %", _naming, _commonest, False),),
    "label_map": (TermMeasure("places named, mean over labels, %", _naming_places, _one_label, False),),
    "relations": (TermMeasure("right, %", _relating, _one_of_two, False),),
}
