"""Heads of the terms of a training, and their teachers, which are asked about the views of each scene of a batch."""

import json
from collections.abc import Mapping, Sequence

from ..pretraining_gap_mllm import GapMllmForPreTraining
from ..processing.argument_checks import nearest_name
from ..processing.data.scene_sample import SceneSample, View
from ..training_heads_gap_mllm import token_kinds
from .geometry_aligned_trainer import GeometryAlignedTrainingArguments, bare_model
from .object_targets import find_objects
from .teachers import TEACHERS, SceneTeacher, make_teacher
from .terms import LossTerm, make_terms
from .terms.head_term import OWN_ENCODER, HeadTerm
from .terms.token_term import ObjectTerm


class Teaching:
    """Asks the teachers of terms about the views of a scene, each once; for `SceneCollator(teaching=...)`.

    Args:
        terms (`Mapping[str, LossTerm]`): terms by name; those without a teacher are left aside.
        head_settings (`dict[str, dict]`): settings of the model's heads, by the name of the head.
        teachers (`Mapping[str, SceneTeacher]`, *optional*): teachers by their names in the terms, in place of those
            that `make_teacher` makes.
    Raises:
        ValueError: for a teacher that is not known, and as `make_teacher`.

    Example:
        ```python
        >>> from gap_mllm.processing.data import render_room
        >>> from gap_mllm.training import Teaching
        >>> from gap_mllm.training.terms import DepthTerm
        >>> teaching = Teaching({"depth": DepthTerm(weight=1.0)}, {"depth": {"side": 4}})
        >>> targets = teaching(render_room(0).as_sample().views, [(4, 4)] * 4)  # visual tokens of each view
        >>> [tuple(depth.shape) for depth in targets["depth"]["depth"]]
        [(16, 16), (16, 16), (16, 16), (16, 16)]

        ```
    """

    def __init__(
        self,
        terms: Mapping[str, LossTerm],
        head_settings: dict[str, dict],
        teachers: Mapping[str, SceneTeacher] | None = None,
    ):
        self.terms = {name: term for name, term in terms.items() if isinstance(term, HeadTerm) and term.weight}
        self.head_settings, self.teachers = head_settings, {}
        for name, teacher in ((name, each) for name, term in self.terms.items() for each in term.teachers):
            key = _key(teacher)
            if key in self.teachers or teacher == OWN_ENCODER:
                continue
            told = _read(name, teacher)
            self.teachers[key] = (teachers or {}).get(told["name"])
            if self.teachers[key] is None:
                try:
                    self.teachers[key] = make_teacher(**told)
                except ValueError as error:
                    raise type(error)(f"terms.{name}.teacher: {error}") from None

    @property
    def token_kinds(self) -> list[str]:
        """Tokens of their own that the heads read: "camera", "scale"."""
        return token_kinds(self.head_settings)

    @property
    def reads_boxes(self) -> bool:
        """Whether targets are also made of the boxes of the questions."""
        return any(isinstance(term, ObjectTerm) for term in self.terms.values())

    def __call__(
        self,
        views: Sequence[View],
        grids: list[tuple[int, int]],
        samples: Sequence[SceneSample] = (),
        tokenizer: object = None,
    ) -> dict[str, dict[str, list]]:
        """Targets of each term for the views of one scene, lists with an entry for each view or for the scene.

        Args:
            views (`Sequence[View]`): views of a scene.
            grids (`list[tuple[int, int]]`): height and width of each in visual tokens.
            samples (`Sequence[SceneSample]`): questions about the views, whose boxes are objects; none by default.
            tokenizer (`PreTrainedTokenizerBase`, *optional*): tokenizer of the model; terms of objects need it.
        Returns:
            `dict[str, dict[str, list]]`.
        Raises:
            ValueError: if a teacher does not tell what a term needs, or on another grid.
        """
        said, objects, targets = {}, {}, {}
        for name, term in self.terms.items():
            if term.teacher == OWN_ENCODER:
                targets[name] = term.own_targets(grids)
                continue
            for teacher in term.teachers:
                if _key(teacher) not in said:
                    said[_key(teacher)] = self.teachers[_key(teacher)](views)
            key, *others = map(_key, term.teachers)
            if isinstance(term, ObjectTerm):
                if key not in objects:
                    objects[key] = find_objects(said[key], views, grids, samples)
                targets[name] = term.scene_targets(objects[key], tokenizer)
                continue
            others = [said[each] for each in others]
            targets[name] = term.targets(said[key], views, grids, self.head_settings[term.head], *others)
        return targets


def set_training_heads(
    model: GapMllmForPreTraining,
    args: GeometryAlignedTrainingArguments,
    teachers: Mapping[str, SceneTeacher] | None = None,
    teach: bool = True,
) -> Teaching | None:
    """Give a model the heads that the terms of a training need, and no others.

    Args:
        model (`GapMllmForPreTraining`): model, changed; a head that fits stays as it is.
        args (`GeometryAlignedTrainingArguments`): arguments with the terms.
        teachers (`Mapping[str, SceneTeacher]`, *optional*): argument of `Teaching`.
        teach (`bool`, defaults to True): whether teachers are made, too.
    Returns:
        `Teaching`: for `SceneCollator(teaching=...)`; without `teach` one that tells no targets. None where no term
            has a head.
    Raises:
        ValueError: for a layer, teacher or setting that is not known, or a term that reads the head of another
            which has no weight.

    Example:
        ```python
        >>> from gap_mllm import GapMllmForPreTraining
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> from gap_mllm.training import GeometryAlignedTrainingArguments, SceneCollator, set_training_heads
        >>> model = GapMllmForPreTraining.from_pretrained(folder)
        >>> terms = {"distillation": {"weight": 1.0, "layers": [-1]}}  # of the model's own encoder
        >>> args = GeometryAlignedTrainingArguments("run", terms=terms, report_to="none")
        >>> teaching = set_training_heads(model, args)
        >>> list(model.training_heads)
        ['distillation']
        >>> processor = GapMllmProcessor.from_pretrained(folder)
        >>> collate = SceneCollator(processor, "block_mask", for_pretraining=True, teaching=teaching)

        ```
    """
    terms = {name: term for name, term in make_terms(args, args.terms).items() if isinstance(term, HeadTerm)}
    terms, settings = {name: term for name, term in terms.items() if term.weight}, {}
    model = bare_model(model)
    for name, term in terms.items():
        for teacher in term.teachers:
            _read(name, teacher)
        if term.head == name:
            settings[name] = term.head_settings(model.config)
        elif term.head not in terms:
            raise ValueError(
                f"terms.{name} reads the head of {term.head!r}, which has no weight. Give terms.{term.head} one, too."
            )
    if settings or model.config.training_heads:
        model.set_training_heads(settings)
    return Teaching(terms if teach else {}, settings, teachers) if terms else None


def _read(name, teacher):
    """Name and settings of a teacher of a term."""
    told = {"name": teacher} if isinstance(teacher, str) else dict(teacher)
    known = [*TEACHERS, *([OWN_ENCODER] if name == "distillation" else [])]
    if told.get("name") not in known:
        near = nearest_name(str(told.get("name")), known)
        raise ValueError(
            f"terms.{name}.teacher is {teacher!r}{near}; expected one of {', '.join(known)}, or a mapping of "
            "name and settings."
        )
    return told


def _key(teacher):
    return json.dumps(teacher, sort_keys=True)
