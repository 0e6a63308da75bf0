"""Prompt texts against the released wording, letter by letter, and views in the right places."""

from pathlib import Path

import pytest

from gap_mllm.processing.prompts_gap_mllm import TASKS, build_messages, prompt_text, split_image_tags


BOX_FORMAT = "[x_center, y_center, z_center, x_size, y_size, z_size, yaw, pitch, roll]"


def flat(messages, role="user"):
    """The text of one turn as the released records write it."""
    parts = next(message for message in messages if message["role"] == role)["content"]
    return "".join("<image>" if part["type"] == "image" else part["text"] for part in parts)


def test_detection_is_word_for_word():
    assert flat(build_messages("detection3d", 4)) == "<image>" * 4 + (
        "Detect the 3D bounding boxes in the camera coordinate system of the first frame.\n"
        'Output a json list where each entry contains the object name in "label" '
        'and its 3D bounding box in "box_3d".\n'
        f"The 3D bounding box format should be {BOX_FORMAT}."
    )


def test_grounding_is_word_for_word():
    text = "This is a blue chair. it is to the left of the table."
    assert flat(build_messages("grounding_frame", 3, description=text)) == (
        "Frame-0: <image>Frame-1: <image>Frame-2: <image>\nLocalize the first clear frame in the video showing the "
        f'object described in the text.\nText: {text}\nOutput a JSON dictionary with the frame index in "frame".\n'
    )
    assert flat(build_messages("grounding_box", 2, description=text)) == (
        f"<image><image>Localize the object described in the text.\nText: {text}\nOutput a JSON dictionary with the "
        'matched object\'s 3D bounding box in "bbox_3d" in the camera coordinate system of the first frame.\n'
        f"The 3D bounding box format should be {BOX_FORMAT}.\n"
    )


def test_templates_of_our_own():
    text = flat(build_messages("reconstruction", 2, color="blue"))
    assert text.startswith("<image><image>A blue cross marks one pixel") and '"label"' in text and '"pointmap"' in text
    assert "A red cross" in prompt_text("reconstruction")
    assert flat(build_messages("dense_caption", 1, location=[-0.001, 0.4, 1.616])) == (
        "<image>\nCarefully watch the video and describe the object located at [0.0, 0.4, 1.62] in detail."
    )


def test_the_records_own_text_wins():
    assert flat(build_messages("reconstruction", 2, prompt="Where is it?")) == "<image><image>Where is it?"
    tagged = "Frame-0: <image>Frame-1: <image>\nWhich?"
    assert flat(build_messages("grounding_frame", 2, prompt=tagged)) == tagged
    assert flat(build_messages("grounding_frame", 1, prompt="\nWhich?")) == "Frame-0: <image>\nWhich?"
    # a description is text, whatever it holds
    assert flat(build_messages("grounding_box", 1, description="<image> {x}")).count("<image> {x}") == 1


def test_turns_and_views(make_image):
    views = [make_image(seed=0), "b.jpg"]
    messages = build_messages("detection3d", views, answer="[]")
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert messages[0]["content"] == [{"type": "text", "text": "You are a helpful assistant."}]
    assert [part.get("image") for part in messages[1]["content"]] == [*views, None]
    assert messages[2]["content"] == [{"type": "text", "text": "[]"}]
    assert [message["role"] for message in build_messages("detection3d", 1, system=None)] == ["user"]


def test_tags_are_split_in_order():
    assert split_image_tags("a<image><image>b", ["x", "y"]) == [
        {"type": "text", "text": "a"},
        {"type": "image", "image": "x"},
        {"type": "image", "image": "y"},
        {"type": "text", "text": "b"},
    ]
    with pytest.raises(ValueError, match="holds 1 <image> tags, but there are 2 views"):
        split_image_tags("<image>", 2)
    with pytest.raises(ValueError, match="holds 3 <image> tags, but there are 2 views"):
        build_messages("detection3d", 2, prompt="<image><image><image>x")


def test_wrong_questions(make_image):
    for build in (lambda: build_messages("detect", 1), lambda: prompt_text("detect")):
        with pytest.raises(ValueError, match="unknown task 'detect'; known are reconstruction, detection3d"):
            build()
    for task in ("grounding_frame", "grounding_box"):
        with pytest.raises(ValueError, match="needs `description`"):
            build_messages(task, 1)
    with pytest.raises(ValueError, match="needs `location`"):
        build_messages("dense_caption", 1)
    for location in ([1, 2], [1, 2, float("nan")], [1, 2, 3, 4]):
        with pytest.raises(ValueError, match="location must be 3 finite numbers"):
            build_messages("dense_caption", 1, location=location)
    for single in ("view.jpg", Path("view.jpg"), make_image(), True):
        with pytest.raises(TypeError, match="images must be a list of views or their number"):
            build_messages("detection3d", single)
    for views in (0, []):
        with pytest.raises(ValueError, match="needs at least one view, got 0"):
            build_messages("detection3d", views)
    assert len(TASKS) == 7
