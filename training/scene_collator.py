"""Questions about scenes to training batches: views decoded, marks drawn, everything but the answers masked.

Which views and how many pixels a sample may have is decided here and said when it bites. Which questions share their
pictures is in scene_groups.py, tokens are made in scene_encoding.py and laid out in layouts.py.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from ..known_geometry_gap_mllm import KNOWN_FIELDS
from ..processing.answers_gap_mllm import ANSWER_PARTS
from ..processing.argument_checks import check_names
from ..processing.data.record_errors import RecordError, names_record
from ..processing.data.scene_sample import SceneSample
from ..processing.data.view_selection import select_views, spread_views
from ..processing.input_checks_gap_mllm import WrongKindError, check_flag
from ..processing.processing_gap_mllm import GapMllmProcessor
from ..processing.prompts_gap_mllm import tell_focal_lengths
from .answered_places import answered_places
from .collation_events import CollationEvents
from .frozen_geometry import FrozenGeometry
from .layouts import LAYOUTS
from .point_targets import token_targets
from .recorded_geometry import join_known, recorded_geometry
from .scene_encoding import EncodedScene, encode_scene, with_geometry_tokens, write_texts
from .scene_groups import SceneGroup, are_same_views, group_item, join_items
from .teachers.teacher_targets import join_targets
from .view_sizes import fit_views


# Fields of a batch that the loss needs and the model does not take.
LOSS_FIELDS = (
    "sample_ids",
    "document_ids",
    "readout_targets",
    "label_weights",
    "point_map_targets",
    "teacher_targets",
    "scene_rows",
    "collation_counts",
)
# Fields that only `GeometryAlignedTrainer` takes.
PRETRAINING_FIELDS = (*LOSS_FIELDS, "scene_repeats", "head_grids")


class SceneCollator:
    """Makes batches of questions about scenes; the views of a scene are encoded once, whatever is asked about it.

    An item is a `SceneSample`, a row of the schema (`load_multiview`), or a list of either: several questions about
    the same views of one scene. The marks of all of them are drawn in the pictures that they share (`group_item`);
    questions of a list that cannot share are encoded apart and counted. Items of a batch that show the very same
    pictures, marks included, share their encoding too (`join_items`). So no row depends on the others of its batch,
    and a scene counts in each term as often as rows ask about it (`scene_rows` of a batch). Sharing needs
    `for_pretraining` or the layout "block_mask": no other model repeats the features of views.

    Rows whose video has not been turned into views must be loaded with `max_views`. The depth map of a view that has
    pose and intrinsics, too, becomes point-map targets; a view without has none, the others keep theirs.

    What is left out or changed is counted in `counts` (in this process) and said, see `COLLATION_EVENTS`;
    `GeometryAlignedTrainer` logs it. `sample_ids` of a batch names all questions, those of one scene together.

    Streamed rows (`load_multiview(..., streaming=True)`) train with `GeometryAlignedTrainer` as they are. A plain
    `Trainer` must be told not to cut batches, whose tensors have no common first dimension:
    `TrainingArguments(accelerator_config={"dispatch_batches": False}, remove_unused_columns=False, max_steps=...)`.

    Args:
        processor (`GapMllmProcessor`): processor of the model; says how large crosses are drawn, too.
        layout (`str`, defaults to "padded"): "padded" (any attention kernel), "packed" (FlashAttention: one
            padding-free row) or "block_mask" (SDPA).
        max_views (`int`, *optional*): rows with more views are thinned evenly; view 0 and the views that the question
            or the answer speak of stay.
        max_view_pixels (`int`, *optional*): most pixels of a resized view, instead of the image processor's bound.
        max_sample_pixels (`int`, *optional*): most pixels of all resized views of a row together; its views shrink
            alike, other rows keep their size.
        max_length (`int`, *optional*): tokens of a question with its views and answer. A longer one is an error,
            never cut.
        for_pretraining (`bool`, defaults to False): whether batches hold what `GeometryAlignedTrainer` needs, too
            (weights, read-out and point-map targets); without it they hold what
            `GapMllmForConditionalGeneration.forward` takes, for any `Trainer`.
        point_map_side (`int`, *optional*): points per visual token along each side, to make point-map targets; for
            pre-training.
        answer_weights (`dict[str, float]`, *optional*): weight of the answer tokens of each part (see `answer_parts`;
            1 where none is given, but for "opening", which then has that of "frame_of_json"), for pre-training. Late
            decimals are noise as long as the metres are wrong: less weight on them lets a small model find the metres
            sooner. With the opening of JSON the form of an answer is chosen: where it weighs less than a number or a
            word, questions in unknown words are answered with these.
        geometry (`FrozenGeometry`, *optional*): encodes the views here, in the process that makes the batch, or finds
            them in its cache, so that the model need not (`geometry_features` of the batch).
        known_geometry (`Sequence[str]`, defaults to `()`): what was recorded with the views and the model reads beside
            their pixels, of "intrinsics", "poses" and "depth" (`geometry_features` of the batch, a `KnownGeometry`, or
            what `geometry` makes of it).
        teaching (`Teaching`, *optional*): asks the teachers of the loss terms about the views; what
            `set_training_heads` returns, for pre-training.
        readout_boxes (`bool`, defaults to False): whether read-out targets are also made of answers with boxes
            (`answered_places`), not of marked pixels alone; for pre-training.
        intrinsics_in_prompt (`bool`, *optional*): whether questions tell the focal lengths of their views
            (`focal_lengths`), which the processor then remembers; by default what it remembers, else no.
    Raises:
        ValueError: on an unknown layout, part of answers or name of known geometry, a bound below 1, or pre-training
            arguments without `for_pretraining`; when called, for a list without questions, or with questions about
            different views.
        TypeError: when called, for an item of another kind.
        RecordError: when called, for a row without answer, with an undecoded video, with views that cannot be made
            as small as they must be, or longer than `max_length`.

    Example:
        ```python
        >>> from gap_mllm.processing import GapMllmProcessor
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.training import SceneCollator, SceneQuestionDataset
        >>> rooms = load_multiview("rendered_rooms", split="train", num_rooms=2)  # or rows of any source
        >>> questions = SceneQuestionDataset(rooms, tasks=("object_count",), num_views=3)
        >>> collate = SceneCollator(GapMllmProcessor.from_pretrained(folder), max_sample_pixels=3 * 96 * 96)
        >>> batch = collate(list(questions))  # data_collator of any Trainer, with remove_unused_columns=False
        >>> batch["scene_lengths"].tolist(), batch["image_grid_thw"][0].tolist(), len(batch["labels"])
        ([3, 3], [1, 6, 6], 2)

        ```
    """

    def __init__(
        self,
        processor: GapMllmProcessor,
        layout: str = "padded",
        max_views: int | None = None,
        max_view_pixels: int | None = None,
        max_sample_pixels: int | None = None,
        max_length: int | None = None,
        for_pretraining: bool = False,
        point_map_side: int | None = None,
        answer_weights: dict[str, float] | None = None,
        geometry: FrozenGeometry | None = None,
        known_geometry: Sequence[str] = (),
        teaching: Callable | None = None,
        readout_boxes: bool = False,
        intrinsics_in_prompt: bool | None = None,
    ):
        if layout not in LAYOUTS:
            raise ValueError(f"layout={layout!r} is not known. Choose one of {list(LAYOUTS)}.")
        bounds = {"max_views": max_views, "max_view_pixels": max_view_pixels}
        bounds |= {"max_sample_pixels": max_sample_pixels, "max_length": max_length}
        for name, value in bounds.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected 1 or more, or None for no bound.")
        own = point_map_side is not None or answer_weights or teaching is not None or readout_boxes
        if own and not for_pretraining:
            raise ValueError(
                "point_map_side, answer_weights, teaching and readout_boxes are for pre-training: pass "
                "for_pretraining=True."
            )
        unknown = sorted(set(answer_weights or ()) - set(ANSWER_PARTS))
        if unknown:
            raise ValueError(f"answer_weights names the unknown parts {unknown}; known are {list(ANSWER_PARTS)}.")
        self.processor, self.layout, self.for_pretraining = processor, layout, for_pretraining
        self.max_views, self.max_length = max_views, max_length
        self.max_view_pixels, self.max_sample_pixels = max_view_pixels, max_sample_pixels
        self.point_map_side, self.answer_weights, self.geometry = point_map_side, answer_weights, geometry
        check_names("known_geometry", known_geometry, KNOWN_FIELDS)
        self.known_geometry, self.teaching = known_geometry, teaching
        self.readout_boxes = check_flag("readout_boxes", readout_boxes)
        if intrinsics_in_prompt is not None:
            processor.intrinsics_in_prompt = check_flag("intrinsics_in_prompt", intrinsics_in_prompt)
        self.events = CollationEvents()

    @property
    def counts(self) -> Counter:
        """`Counter` of what was left out or changed, in this process; see `COLLATION_EVENTS`."""
        return self.events.totals

    @property
    def tokenizer(self) -> GapMllmProcessor:
        """The processor, by the name under which `Trainer` looks for what to save beside a checkpoint's weights."""
        return self.processor

    def __call__(self, items: list) -> dict:
        groups = self._groups([self._samples(item) for item in items])
        scenes = [self._encode(group) for group in groups]
        tokenizer, merge_size = self.processor.tokenizer, self.processor.image_processor.merge_size
        batch = LAYOUTS[self.layout](scenes, tokenizer.pad_token_id, merge_size)
        shown = [(group, scene) for group, scene in zip(groups, scenes, strict=True) if scene.pixel_values is not None]
        if shown:
            batch["pixel_values"] = torch.cat([scene.pixel_values for _, scene in shown])
            batch["image_grid_thw"] = torch.cat([scene.image_grid_thw for _, scene in shown])
            batch["scene_lengths"] = torch.tensor([len(scene.image_grid_thw) for _, scene in shown])
            batch["scene_rows"] = torch.tensor([len(group.samples) for group, _ in shown])
            known = None
            if self.known_geometry:
                known = join_known([self._known(*pair) for pair in shown], self.known_geometry)
                batch["geometry_features"] = known
            if self.geometry is not None:
                names = ("pixel_values", "image_grid_thw", "scene_lengths")
                views = {name: batch[name] for name in names}
                batch["geometry_features"] = self.geometry.look_up(**views, events=self.events, known=known)
            if self.point_map_side is not None:
                batch["point_map_targets"] = torch.cat([self._point_maps(*pair) for pair in shown])
            if self.teaching is not None:
                targets = join_targets([self._teacher_targets(*pair) for pair in shown])
                grids = {name: told.pop("grid") for name, told in targets.items() if "grid" in told}
                if grids:
                    batch["head_grids"] = {name: torch.stack(each) for name, each in grids.items()}
                batch["teacher_targets"] = targets
        if not self.for_pretraining:
            return {name: value for name, value in batch.items() if name not in PRETRAINING_FIELDS}
        sample_ids = [sample.id for group in groups for sample in group.samples]
        return batch | {"sample_ids": sample_ids, "collation_counts": self.events.take()}

    def _samples(self, item) -> list[SceneSample]:
        """The questions of an item, with the views that they may have."""
        rows = item if isinstance(item, list | tuple) else [item]
        if not rows:
            raise ValueError("a list of questions is empty; an item of a batch asks one or more.")
        samples = [row if isinstance(row, SceneSample) else _from_row(row) for row in rows]
        for sample in samples:
            if sample.video and not sample.views:
                problem = "the video has not been turned into views. Load it with max_views."
                raise RecordError(problem, "video", record_id=sample.id)
            if sample.answer is None:
                raise RecordError("there is no answer to learn from.", "answer", record_id=sample.id)
            if not are_same_views(samples[0].views, sample.views):
                raise ValueError(
                    f"the questions {samples[0].id!r} and {sample.id!r} of a list are about different views; give "
                    "them as two items."
                )
            if redrawn := sample.metadata.get("rooms_redrawn"):
                self.events.add("rooms_redrawn", sample.id, "stood in for one that could not be asked about", redrawn)
        samples = [self._thinned(sample) for sample in samples]
        return [self._with_cameras(sample) for sample in samples] if self.processor.intrinsics_in_prompt else samples

    @names_record("views")
    def _thinned(self, sample):
        if self.max_views is None or len(sample.views) <= self.max_views:
            return sample
        text = f"{len(sample.views)} views, more than max_views={self.max_views}"
        self.events.add("views_dropped", sample.id, text)
        return select_views(sample, spread_views(sample, self.max_views))

    @names_record("intrinsics")
    def _with_cameras(self, sample):
        """The question with its focal lengths, in pixels of the views as the bounds let the model see them."""
        limits, bounds = (self.max_view_pixels, self.max_sample_pixels), None
        try:
            if sample.views and any(limits):
                bounds, _, _ = fit_views(self.processor.image_processor, [view.size for view in sample.views], *limits)
            return tell_focal_lengths(sample, self.processor, bounds)
        except ValueError as error:
            raise RecordError(str(error), "intrinsics", record_id=sample.id) from None

    @names_record()
    def _texts(self, sample):
        return write_texts(self.processor, sample)

    def _groups(self, items) -> list[SceneGroup]:
        """The questions of a batch by the pictures that they are shown."""
        texts = [[self._texts(sample) for sample in item] for item in items]
        asked = list(zip(items, texts, strict=True))
        if self.for_pretraining or self.layout == "block_mask":
            reads_boxes = getattr(self.teaching, "reads_boxes", False)
            of_items = [group_item(*item) for item in asked]
            groups = join_items(of_items, reads_boxes)
        else:
            of_items = [[SceneGroup([sample], [text]) for sample, text in zip(*item, strict=True)] for item in asked]
            groups = [group for own in of_items for group in own]
        for item, own in zip(items, of_items, strict=True):
            if apart := len(own) - 1:
                text = f"{apart + 1} encodings of its views for {len(item)} questions"
                self.events.add("encoded_apart", item[0].id, text, apart)
        return groups

    @names_record()
    def _encode(self, group: SceneGroup) -> EncodedScene:
        """Pictures and tokens of a group of questions."""
        together, size = replace(group.samples[0], marks=group.marks), None
        images = together.marked_images(self.processor.cross_size)
        if images and (self.max_view_pixels is not None or self.max_sample_pixels is not None):
            sizes, limits = [image.size for image in images], (self.max_view_pixels, self.max_sample_pixels)
            size, wanted, pixels = fit_views(self.processor.image_processor, sizes, *limits, together.id)
            if pixels < wanted:
                text = f"{wanted} pixels, more than {self.max_sample_pixels}"
                self.events.add("pixels_reduced", together.id, text, len(group.samples))
        marks = [answered_places(sample, self.readout_boxes) for sample in group.samples]
        scene = encode_scene(self.processor, images, group.texts, marks, self.answer_weights, size)
        kinds = getattr(self.teaching, "token_kinds", ())
        scene = with_geometry_tokens(scene, self.processor.image_processor.merge_size, kinds)
        for index, sample in enumerate(group.samples):
            length = scene.length(index)
            if self.max_length is not None and length > self.max_length:
                raise RecordError(
                    f"the row has {length} tokens, more than max_length={self.max_length}. Bound its views or pixels "
                    "(max_views, max_sample_pixels), or leave it out.",
                    record_id=sample.id,
                )
        return scene

    @names_record("views")
    def _known(self, group, scene):
        patch_size = self.processor.image_processor.patch_size
        sizes = [(rows * patch_size, columns * patch_size) for _, rows, columns in scene.image_grid_thw.tolist()]
        known = recorded_geometry(group.samples[0].views, sizes, self.known_geometry)
        if lacking := sum(depth is None for depth in known.depth or ()):
            text = f"{lacking} of {len(sizes)} views without depth that is known"
            self.events.add("views_without_depth", group.samples[0].id, text, lacking * len(group.samples))
        return known

    @names_record("views")
    def _teacher_targets(self, group, scene):
        merge_size = self.processor.image_processor.merge_size
        grids = [(height // merge_size, width // merge_size) for _, height, width in scene.image_grid_thw.tolist()]
        try:
            targets = self.teaching(group.samples[0].views, grids, group.samples, self.processor.tokenizer)
        except RecordError as error:
            raise error.locate(group.samples[0].source, None, group.samples[0].id) from None
        except ValueError as error:
            raise RecordError(str(error), "views", record_id=group.samples[0].id) from error
        for name, told in targets.items():
            if lacking := max(sum(each is None for each in values) for values in told.values()):
                text = f"{lacking} of {len(grids)} views that the teacher of {name!r} does not know"
                self.events.add("views_without_depth", group.samples[0].id, text, lacking * len(group.samples))
            if "count" in told and not sum(told["count"]):
                text = f"nothing that {name!r} could learn from"
                self.events.add("terms_without_items", group.samples[0].id, text, len(group.samples))
        return targets

    @names_record("views")
    def _point_maps(self, group, scene):
        views, merge_size = group.samples[0].views, self.processor.image_processor.merge_size
        targets, lacking = token_targets(views, scene.image_grid_thw.tolist(), merge_size, self.point_map_side)
        if lacking:
            text = f"{lacking} of {len(views)} views without depth, intrinsics or pose"
            self.events.add("views_without_depth", group.samples[0].id, text, lacking * len(group.samples))
        return targets


def _from_row(row):
    if not isinstance(row, Mapping):
        raise WrongKindError(
            f"an item of the batch holds a {type(row).__name__}; expected a SceneSample or a row of the schema."
        )
    return SceneSample.from_row(row)
