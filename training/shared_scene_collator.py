"""Collation of scenes with several questions each: the views are encoded once, whatever the number of questions.

Three equal layouts. "block_mask" (SDPA, eager): prefix, question 1, question 2, ... in one row; a mask lets each
question see the prefix and itself. "packed" (FlashAttention): prefix + question 1, prefix + question 2, ... one after
the other as documents of one padding-free row, the image features repeated. "padded" (any kernel): each document is a
row of its own, padded at the end. Positions are the same in all.
"""

import numpy as np
import torch

from ..processing.answers_gap_mllm import ANSWER_PARTS, answer_parts
from ..processing.camera_geometry_gap_mllm import view_to_first_view
from ..processing.visual_prompt_gap_mllm import marks_to_tokens, to_rgb_image
from .collation_events import CollationEvents
from .losses import IGNORE_INDEX
from .rooms import point_targets
from .view_sizes import fit_views


LAYOUTS = ("block_mask", "packed", "padded")
# Fields of a batch that the loss needs and the model does not take.
LOSS_FIELDS = (
    "sample_ids",
    "document_ids",
    "readout_targets",
    "label_weights",
    "point_map_targets",
    "collation_counts",
)
GEOMETRY_FIELDS = ("depth_m", "intrinsics", "camera_to_world")
TOKEN_FIELDS = ("input_ids", "labels", "label_weights", "document_ids", "readout_targets", "mm_token_type_ids")
SHARED, PADDING = 0, -1  # document ids of the prefix that every question sees, and of padding


def rope_positions(token_types, grids, merge_size):
    """Positions of Qwen3-VL's interleaved M-RoPE for one document.

    Args:
        token_types (`list[int]`): 0 for text, 1 for image tokens.
        grids (`list[tuple[int, int, int]]`): (t, h, w) in patches of each image, in order.
        merge_size (`int`): patches merged along each side.
    Returns:
        `torch.Tensor` of shape `(4, S)`: text order, then time, row and column.
    """
    positions = torch.zeros(4, len(token_types), dtype=torch.long)
    positions[0] = torch.arange(len(token_types))
    grids, index, current = iter(grids), 0, 0
    while index < len(token_types):
        if token_types[index] == 0:
            positions[1:, index] = current
            index, current = index + 1, current + 1
            continue
        t, height, width = next(grids)
        height, width = height // merge_size, width // merge_size
        cell = torch.arange(t * height * width)
        place = torch.stack([cell // (height * width), cell // width % height, cell % width])
        positions[1:, index : index + len(cell)] = current + place
        index, current = index + len(cell), current + max(height, width)
    return positions


def document_mask(document_ids):
    """Which position may look at which: causal, within the own document and the shared prefix.

    Args:
        document_ids (`torch.Tensor` of shape `(B, S)`): 0 for the shared prefix, -1 for padding.
    Returns:
        `torch.Tensor` of shape `(B, 1, S, S)`, bool, True where attention is allowed; a padding row sees itself.
    """
    query, key = document_ids[:, :, None], document_ids[:, None]
    size = document_ids.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool, device=document_ids.device).tril()
    is_real = (query != PADDING) & (key != PADDING)
    allowed = causal & is_real & ((query == key) | (key == SHARED))
    allowed |= torch.eye(size, dtype=torch.bool, device=document_ids.device)
    return allowed[:, None]


class SharedSceneCollator:
    """Makes batches from scenes that carry several questions.

    A sample is a dict with `images` (views of the scene), `conversations` (a list of chat messages for each question;
    all with the same system turn and views, and the answer as last turn), and optionally `marks` (a `Mark` or None
    for each question: what the answer is about), `depth_m`, `intrinsics` and `camera_to_world` (one for each view,
    the intrinsics in pixels of its depth map: targets of the point maps) and `sample_id`. A view whose entry is None
    has no targets, the others keep theirs; `counts` and the batch's `collation_counts` say how many there were, and
    add up the samples' `rooms_redrawn`.

    Args:
        processor (`GapMllmProcessor`)
        layout (`str`): "block_mask", "packed" or "padded".
        point_map_side (`int`, *optional*): points per visual token along each side, to make point-map targets.
        answer_weights (`dict[str, float]`, *optional*): weight of the answer tokens of each part (see `answer_parts`;
            1 where none is given). Late decimals are noise as long as the metres are wrong: less weight on them lets
            a small model find the metres sooner.
        max_view_pixels (`int`, *optional*): most pixels of a resized view, instead of the image processor's bound.
        max_sample_pixels (`int`, *optional*): most pixels of all resized views of a sample; they shrink alike.
        geometry (`FrozenGeometry`, *optional*): encodes the views here, in the process that makes the batch, so that
            the model need not (`geometry_features` of the batch).
    Raises:
        ValueError: on an unknown layout or part, a sample without questions, questions whose views or system turn
            differ, or geometry of another number of views. RecordError: if the views of a sample cannot be made as
            small as they must be.
    """

    def __init__(
        self,
        processor,
        layout="block_mask",
        point_map_side=None,
        answer_weights=None,
        max_view_pixels=None,
        geometry=None,
        max_sample_pixels=None,
    ):
        if layout not in LAYOUTS:
            raise ValueError(f"layout={layout!r} is not known. Choose one of {list(LAYOUTS)}.")
        self.processor, self.layout, self.point_map_side = processor, layout, point_map_side
        unknown = sorted(set(answer_weights or ()) - set(ANSWER_PARTS))
        if unknown:
            raise ValueError(f"answer_weights names the unknown parts {unknown}; known are {list(ANSWER_PARTS)}.")
        self.answer_weights = answer_weights or {}
        self.max_view_pixels, self.max_sample_pixels = max_view_pixels, max_sample_pixels
        self.geometry, self.events = geometry, CollationEvents()
        self.merge_size = processor.image_processor.merge_size

    @property
    def counts(self):
        """`Counter` of what was left out or changed, in this process; see `COLLATION_EVENTS`."""
        return self.events.totals

    def __call__(self, samples):
        scenes = [self._encode(sample) for sample in samples]
        join = {"block_mask": self._in_blocks, "packed": self._packed, "padded": self._padded}[self.layout]
        batch = join(scenes)
        shown = [scene for scene in scenes if len(scene["image_grid_thw"])]
        if shown:
            batch["pixel_values"] = torch.cat([scene["pixel_values"] for scene in shown])
            batch["image_grid_thw"] = torch.cat([scene["image_grid_thw"] for scene in shown])
            batch["scene_lengths"] = torch.tensor([len(scene["image_grid_thw"]) for scene in shown])
            if self.geometry is not None:
                names = ("pixel_values", "image_grid_thw", "scene_lengths")
                batch["geometry_features"] = self.geometry(**{name: batch[name] for name in names})
        batch["sample_ids"] = [sample.get("sample_id") for sample in samples]
        if self.point_map_side is not None and shown:
            targets = [
                self._point_maps(s, scene)
                for s, scene in zip(samples, scenes, strict=True)
                if len(scene["image_grid_thw"])
            ]
            batch["point_map_targets"] = torch.cat(targets)
        batch["collation_counts"] = self.events.take()
        return batch

    def _encode(self, sample):
        """Token ids of the shared prefix and of each question, and the vision inputs, of one scene."""
        name = sample.get("sample_id")
        if redrawn := sample.get("rooms_redrawn"):
            self.events.add("rooms_redrawn", name, "stood in for one that could not be asked about", redrawn)
        if not sample["conversations"]:
            raise ValueError(f"Sample {name!r} has no questions.")
        images = [
            to_rgb_image(image, f"view {index} of sample {name!r}") for index, image in enumerate(sample["images"])
        ]
        end = self.processor.vision_end_token
        prefixes, questions, answers = set(), [], []
        for messages in sample["conversations"]:
            if messages[-1]["role"] != "assistant":
                raise ValueError(
                    f"A question of sample {name!r} has no answer: its last turn must be the assistant's."
                )
            asked = self.processor.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
            told = self.processor.apply_chat_template(messages, tokenize=False)
            prefix, found, question = asked.rpartition(end)  # without views all of it is the question
            prefixes.add(prefix + found)
            questions.append(question)
            answers.append(told[len(asked) :].removesuffix("\n"))
        if len(prefixes) > 1:
            raise ValueError(f"The questions of sample {name!r} must share the system turn and the views before them.")
        inputs = self._process(images, prefixes.pop(), name)
        tokenize = self.processor.tokenizer
        scene = {
            "pixel_values": inputs["pixel_values"],
            "image_grid_thw": inputs["image_grid_thw"],
            "prefix": inputs["input_ids"][0].tolist(),
            "types": inputs["mm_token_type_ids"][0].tolist(),
            "questions": [tokenize(text, add_special_tokens=False)["input_ids"] for text in questions],
            "answers": [tokenize(text, add_special_tokens=False)["input_ids"] for text in answers],
            "weights": [],
            "targets": [None] * len(questions),
        }
        for text, ids in zip(answers, scene["answers"], strict=True):
            scene["weights"].append(self._weigh(text, ids))
        scene["image_tokens"] = [index for index, kind in enumerate(scene["types"]) if kind == 1]
        for index, mark in enumerate(sample.get("marks") or ()):
            if mark is not None:
                sizes = [image.size for image in images]
                token = marks_to_tokens([mark], sizes, scene["image_grid_thw"], self.merge_size)[0]
                scene["targets"][index] = scene["image_tokens"][token]
        return scene

    def _process(self, images, prefix, name):
        """The processor's output for the shared prefix; empty where a sample is text only."""
        if not images:
            empty = torch.zeros(1, 0, dtype=torch.long)
            return {"pixel_values": None, "image_grid_thw": empty[:, :0].view(0, 3)} | dict.fromkeys(
                ("input_ids", "mm_token_type_ids"), empty
            )
        options = {}
        if self.max_view_pixels is not None or self.max_sample_pixels is not None:
            sizes, limits = [image.size for image in images], (self.max_view_pixels, self.max_sample_pixels)
            options["size"], wanted, pixels = fit_views(self.processor.image_processor, sizes, *limits, name)
            if pixels < wanted:
                self.events.add("pixels_reduced", name, f"{wanted} pixels, more than {self.max_sample_pixels}")
        return self.processor(images=[images], text=[prefix], return_tensors="pt", **options)

    def _weigh(self, text, ids):
        """Weight of each token of an answer; that of the end of the turn is 1."""
        if not self.answer_weights:
            return [1.0] * len(ids)
        parts, weights, start = answer_parts(text.removesuffix(self.processor.tokenizer.eos_token)), [], 0
        for index in range(len(ids)):
            end = len(self.processor.tokenizer.decode(ids[: index + 1]))
            covered = [self.answer_weights.get(part, 1.0) for part in parts[start:end]]
            weights.append(max(covered, default=1.0))
            start = end
        return weights

    def _document(self, scene, index, first_position, prefix_start, document):
        """The fields of question `index` after its prefix; positions go on from the prefix."""
        question, answer = scene["questions"][index], scene["answers"][index]
        length = len(question) + len(answer)
        readout = [PADDING] * length
        if scene["targets"][index] is not None:
            # The rows that predict the answer are those before each of its tokens.
            rows = range(len(question) - 1, length - 1)
            for row in rows:
                readout[row] = prefix_start + scene["targets"][index]
        return {
            "input_ids": question + answer,
            "labels": [IGNORE_INDEX] * len(question) + answer,
            "label_weights": [0.0] * len(question) + scene["weights"][index],
            "document_ids": [document] * length,
            "readout_targets": readout,
            "position_ids": first_position + torch.arange(length),
            "mm_token_type_ids": [0] * length,
        }

    @staticmethod
    def _prefix(scene, document, positions):
        length = len(scene["prefix"])
        return {
            "input_ids": scene["prefix"],
            "labels": [IGNORE_INDEX] * length,
            "label_weights": [0.0] * length,
            "document_ids": [document] * length,
            "readout_targets": [PADDING] * length,
            "position_ids": positions,
            "mm_token_type_ids": scene["types"],
        }

    def _rope(self, scene):
        if not scene["types"]:
            return torch.zeros(4, 0, dtype=torch.long), torch.zeros(4, 1, dtype=torch.long)
        positions = rope_positions(scene["types"], scene["image_grid_thw"].tolist(), self.merge_size)
        return positions, positions.amax(1, keepdim=True) + 1

    @staticmethod
    def _join(pieces):
        row = {name: torch.tensor([value for piece in pieces for value in piece[name]]) for name in TOKEN_FIELDS}
        row["position_ids"] = torch.cat([piece["position_ids"].expand(4, -1) for piece in pieces], dim=1)
        return row

    def _in_blocks(self, scenes):
        rows = []
        for scene in scenes:
            positions, after = self._rope(scene)
            pieces = [self._prefix(scene, SHARED, positions)]
            for index in range(len(scene["questions"])):
                pieces.append(self._document(scene, index, after, 0, index + 1))
            rows.append(self._join(pieces))
        batch = self._stack(rows)
        batch.pop("mm_token_type_ids")  # positions are given
        batch["attention_mask"] = document_mask(batch["document_ids"])
        return batch

    def _padded(self, scenes):
        rows, repeats = [], []
        for scene in scenes:
            positions, after = self._rope(scene)
            for index in range(len(scene["questions"])):
                # Every document is row number 1: readout counts columns within its own row.
                document = self._document(scene, index, after, 0, 1)
                rows.append(self._join([self._prefix(scene, 1, positions), document]))
            if len(scene["image_grid_thw"]):
                repeats.append(len(scene["questions"]))
        batch = self._stack(rows)
        batch["attention_mask"] = (batch["document_ids"] != PADDING).long()
        if any(count > 1 for count in repeats):
            batch["scene_repeats"] = torch.tensor(repeats)
        return batch

    def _stack(self, rows):
        """Rows of different lengths as one batch, padded at the end."""
        fills = {
            "input_ids": self.processor.tokenizer.pad_token_id,
            "labels": IGNORE_INDEX,
            "label_weights": 0.0,
            "document_ids": PADDING,
            "readout_targets": PADDING,
            "mm_token_type_ids": 0,
        }
        longest = max(len(row["input_ids"]) for row in rows)
        batch = {name: torch.stack([_pad(row[name], longest, fill) for row in rows]) for name, fill in fills.items()}
        batch["position_ids"] = torch.stack([_pad(row["position_ids"], longest, 0) for row in rows], dim=1)
        return batch

    def _packed(self, scenes):
        pieces, start, document = [], 0, 0
        for scene in scenes:
            positions, after = self._rope(scene)
            for index in range(len(scene["questions"])):
                document += 1
                pieces.append(self._prefix(scene, document, positions))
                pieces.append(self._document(scene, index, after, start, document))
                start += len(pieces[-1]["input_ids"]) + len(scene["prefix"])
        row = self._join(pieces)
        batch = {name: value[None] for name, value in row.items() if name not in ("position_ids", "mm_token_type_ids")}
        batch["position_ids"] = row["position_ids"][:, None]
        repeats = [len(scene["questions"]) for scene in scenes if len(scene["image_grid_thw"])]
        if repeats:
            batch["scene_repeats"] = torch.tensor(repeats)
        return batch

    def _point_maps(self, sample, scene):
        """Target points (T, side, side, 3) of the visual tokens; NaN where there is none."""
        side, maps, lacking = self.point_map_side, [], 0
        sizes = [tuple(int(patches) // self.merge_size for patches in grid[1:]) for grid in scene["image_grid_thw"]]
        for view, (rows, columns) in zip(_known_views(sample, len(sizes)), sizes, strict=True):
            points = np.full((rows * side, columns * side, 3), np.nan)
            if view is not None:
                points = point_targets(*view, points.shape[:2])[1][0]
            lacking += not np.isfinite(points).any()
            cells = points.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
            maps.append(cells.reshape(rows * columns, side, side, 3))
        if lacking:
            text = f"{lacking} of {len(sizes)} views without depth, intrinsics or pose"
            self.events.add("views_without_depth", sample.get("sample_id"), text, lacking)
        return torch.as_tensor(np.concatenate(maps), dtype=torch.float32)


def _known_views(sample, num_views):
    """Depth (1, H, W), intrinsics (1, 3, 3) and pose in the first camera (1, 4, 4) of each view; None without one.

    The first view needs no pose; without it no other view has a place in its camera.
    """
    depth_m, intrinsics, poses = (_per_view(sample, name, num_views) for name in GEOMETRY_FIELDS)
    known = []
    for view in range(num_views):
        pair = (poses[0], poses[view])
        if any(matrix is None for matrix in pair):
            to_first = np.eye(4) if view == 0 else None
        else:
            to_first = view_to_first_view(np.stack([np.asarray(pose) for pose in pair]))[1]
        parts = (depth_m[view], intrinsics[view], to_first)
        known.append(None if any(part is None for part in parts) else tuple(np.asarray(part)[None] for part in parts))
    return known


def _per_view(sample, name, num_views):
    """What a sample says of each view; None where it says nothing."""
    values = sample.get(name)
    if values is None:
        return [None] * num_views
    if len(values) != num_views:
        raise ValueError(
            f"{name} of sample {sample.get('sample_id')!r} has {len(values)} entries for {num_views} views; give one "
            "for each, None where there is none."
        )
    return list(values)


def _pad(values, length, fill):
    return torch.nn.functional.pad(values, (0, length - values.shape[-1]), value=fill)


__all__ = ["SharedSceneCollator", "document_mask", "rope_positions"]
