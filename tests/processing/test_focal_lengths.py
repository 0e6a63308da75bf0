"""Focal lengths in prompts: the number after resizing, where the sentence stands, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gap_mllm.processing import GapMllmProcessor, focal_lengths, focal_text
from gap_mllm.processing.data import make_question, render_room
from gap_mllm.processing.data.record_errors import RecordError
from gap_mllm.processing.prompts_gap_mllm import as_trained, insert_focal_text
from gap_mllm.training import SceneCollator, dry_run_recipe


CAMERA = np.array([[500.0, 0, 319.5], [0, 500.0, 239.5], [0, 0, 1]])
VIEWS = [Image.new("RGB", (640, 480)), Image.new("RGB", (320, 320))]


def resized_widths(processor, views):
    patches = processor.image_processor(images=views, return_tensors="pt")["image_grid_thw"][:, 2]
    return [int(count) * processor.image_processor.patch_size for count in patches]


def text_of(messages):
    return messages[-1]["content"][-1]["text"]


def test_the_number_is_that_of_the_view_as_the_model_sees_it(tiny_processor):
    cameras = np.stack([CAMERA, CAMERA / [[1.25], [1], [1]]])
    widths = resized_widths(tiny_processor, VIEWS)
    expected = [round(500 * widths[0] / 640), round(400 * widths[1] / 320)]
    assert focal_lengths(tiny_processor.image_processor, [view.size for view in VIEWS], cameras) == expected
    messages = tiny_processor.build_messages("detection3d", VIEWS, intrinsics=cameras)
    plain = tiny_processor.build_messages("detection3d", VIEWS)
    assert text_of(messages) == focal_text(expected) + text_of(plain)
    assert f"focal lengths of the frames are {expected[0]}, {expected[1]} pixels." in text_of(messages)
    one = tiny_processor.build_messages("reconstruction", VIEWS[:1], marks=[0, 5, 5], intrinsics=CAMERA)
    assert text_of(one).startswith(f"The focal length of the frames is {expected[0]} pixels.\nA red cross marks")


def test_the_sentence_stands_behind_the_views():
    assert insert_focal_text("What?", [7]) == "The focal length of the frames is 7 pixels.\nWhat?"
    text = insert_focal_text("Frame-0: <image>Frame-1: <image>\nWhat?", [7, 7])
    assert text == "Frame-0: <image>Frame-1: <image>\nThe focal length of the frames is 7 pixels.\nWhat?"
    assert insert_focal_text("<image>What?", [7]) == "<image>The focal length of the frames is 7 pixels.\nWhat?"


@pytest.mark.parametrize(
    ("intrinsics", "message"),
    [
        (np.eye(4), r"intrinsics has shape \(4, 4\); expected \(3, 3\), or \(2, 3, 3\)"),
        (np.stack([CAMERA] * 3), r"shape \(3, 3, 3\)"),
        (np.stack([CAMERA, 0 * CAMERA]), "the focal length of view 1 is 0.0; expected pixels above 0"),
        (np.nan * CAMERA, "the focal length of view 0 is nan"),
    ],
)
def test_bad_cameras_are_named(intrinsics, message, tiny_processor):
    with pytest.raises(ValueError, match=message):
        tiny_processor.build_messages("detection3d", VIEWS, intrinsics=intrinsics)
    with pytest.raises(ValueError, match="give the views, not their number"):
        tiny_processor.build_messages("detection3d", 2, intrinsics=CAMERA)


@pytest.fixture
def processor(tiny_processor, tmp_path):
    tiny_processor.save_pretrained(tmp_path / "processor")
    return GapMllmProcessor.from_pretrained(tmp_path / "processor")


def decoded(processor, batch):
    return processor.tokenizer.decode(batch["input_ids"][0])


def test_training_tells_them_where_it_is_said_and_the_processor_remembers(processor, tmp_path):
    question = make_question(render_room(0), "reconstruction")
    silent = SceneCollator(processor)([question])
    assert "focal" not in decoded(processor, silent) and as_trained(question, processor) is question
    told = SceneCollator(processor, intrinsics_in_prompt=True)([question])
    width = resized_widths(processor, [question.views[0].image])[0]
    expected = focal_text([round(float(question.views[0].intrinsics[0, 0]) * width / 128)] * len(question.views))
    assert expected in decoded(processor, told)
    assert as_trained(question, processor).question == expected + question.question
    processor.save_pretrained(tmp_path / "told")
    again = GapMllmProcessor.from_pretrained(tmp_path / "told")
    assert again.intrinsics_in_prompt is True and expected in decoded(again, SceneCollator(again)([question]))
    small = SceneCollator(again, max_view_pixels=64 * 64)([question])
    cells = int(small["image_grid_thw"][0, 2]) * again.image_processor.patch_size
    focal_px = round(float(question.views[0].intrinsics[0, 0]) * cells / 128)
    assert f"is {focal_px} pixels." in decoded(again, small) and cells < width


def test_a_view_without_intrinsics_is_named(processor):
    question = make_question(render_room(0), "reconstruction")
    views = (question.views[0], replace(question.views[1], intrinsics=None), *question.views[2:])
    with pytest.raises(RecordError, match="view 1 has no intrinsics, which intrinsics_in_prompt writes"):
        SceneCollator(processor, intrinsics_in_prompt=True)([replace(question, views=views)])
    with pytest.raises(TypeError, match="intrinsics_in_prompt is 'yes'"):
        SceneCollator(processor, intrinsics_in_prompt="yes")


@pytest.mark.slow
def test_a_recipe_turns_it_on():
    run = ["tiny_object_finetuning", "--collation.intrinsics_in_prompt"]
    assert dry_run_recipe(run[0], [run[1], "true"])
    with pytest.raises(TypeError, match="collation.intrinsics_in_prompt is 2; expected True or False"):
        dry_run_recipe(run[0], [run[1], "2"])
