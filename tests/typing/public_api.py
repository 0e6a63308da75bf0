# pyright: basic
"""The public names in use, for pyright alone: `make lint` checks the types written here; nothing runs them."""

from typing import assert_type

from datasets import Dataset
from PIL import Image

from gap_mllm import GapMllmConfig, GapMllmProcessor
from gap_mllm.evaluation import box_iou_9dof, with_interval
from gap_mllm.processing import LabelledBox, build_messages, parse_boxes
from gap_mllm.processing.data import SceneSample, load_multiview, make_tasks, render_room
from gap_mllm.training import (
    LOSS_TERMS,
    GeometryAlignedTrainingArguments,
    LossTerm,
    SceneCollator,
    SceneQuestionDataset,
)


def ask(processor: GapMllmProcessor, images: list[Image.Image]) -> tuple[LabelledBox, ...]:
    messages = build_messages("detection3d", images)
    assert_type(messages, list[dict])
    return parse_boxes(str(messages)).items


def make_rows(folder: str, processor: GapMllmProcessor) -> SceneCollator:
    rows = load_multiview("scannet", folder, split="train", max_views=4)
    if not isinstance(rows, Dataset):
        raise TypeError("a split that is not streamed is a Dataset")
    sample = SceneSample.open(rows, 0)
    assert_type(sample, SceneSample)
    for made in make_tasks(sample, ("camera_distance",), seed=1):
        print(made.question, made.answer)
    SceneQuestionDataset(rows, tasks=("camera_distance",), num_views=4)
    return SceneCollator(processor)


def configure() -> tuple[GapMllmConfig, GeometryAlignedTrainingArguments, type[LossTerm]]:
    arguments = GeometryAlignedTrainingArguments(output_dir="run", text_weight=1.0, readout_layers=[1])
    return GapMllmConfig(use_geometry=True, reference_frame="first"), arguments, LOSS_TERMS["text"]


def measure() -> None:
    room = render_room(0, num_views=2, height=48, width=64)
    iou = box_iou_9dof([[0, 0, 2, 1, 1, 1, 0, 0, 0]], [[0, 0, 2, 1, 1, 1, 0, 0, 0]], "zxy")
    print(iou.shape, room.seed, with_interval)
