"""The processor: Qwen3-VL's inputs and no others, bad input named, one folder with and without torchvision."""

import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.utils import is_torchvision_available

import gap_mllm.processing.processing_gap_mllm as processing_module
from gap_mllm.processing import (
    GapMllmProcessor,
    LabelledBox,
    LabelledPoint,
    Mark,
    build_messages,
    build_tiny_processor,
    check_image_statistics,
    default_image_processor,
    format_box,
    format_point,
)
from gap_mllm.processing.video_processing_gap_mllm import GapMllmVideoProcessor


IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
TINY_MODEL = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"
KEYS = {"input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_grid_thw"}
CONFIG = SimpleNamespace(image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5])


def encode(processor, messages, **kwargs):
    settings = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    return processor.apply_chat_template(messages, **{**settings, **kwargs})


# Inputs


def test_inputs_are_those_of_qwen3_vl(tiny_processor, make_image):
    views = [make_image(seed=i) for i in range(4)]
    out = encode(tiny_processor, build_messages("reconstruction", views))
    assert set(out) == KEYS
    assert out["image_grid_thw"].tolist() == [[1, 8, 10]] * 4
    assert out["pixel_values"].shape == (4 * 80, 3 * 2 * 16 * 16) and out["pixel_values"].dtype == torch.float32
    assert (out["input_ids"] == tiny_processor.image_token_id).sum() == 4 * 20
    assert torch.equal(out["mm_token_type_ids"] == 1, out["input_ids"] == tiny_processor.image_token_id)
    assert KEYS | {"pixel_values_videos", "video_grid_thw"} == set(tiny_processor.model_input_names)


def test_pixels_are_multiples_of_1_255_after_resizing(tiny_processor, make_image):
    out = tiny_processor(images=make_image(333, 251), text=IMAGE, return_tensors="pt")
    levels = (out["pixel_values"] * 0.5 + 0.5) * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)


@pytest.mark.parametrize(
    "size",
    [(640, 480), (1296, 968), (320, 240), (160, 120), (256, 192), (1920, 1440), (800, 600), (1024, 768), (512, 384)]
    + [(518, 392), (500, 375), (480, 360), (448, 336), (544, 408), (4032, 3024), (648, 484), (2048, 1536)],
)
def test_default_size_gives_the_trained_grid_for_4_to_3(tiny_tokenizer, size):
    processor = GapMllmProcessor(tokenizer=tiny_tokenizer)
    assert dict(processor.image_processor.size) | {} == {"shortest_edge": 176 * 1024, "longest_edge": 518 * 392}
    for width, height, grid in ((*size, [1, 24, 32]), (*size[::-1], [1, 32, 24])):
        out = processor(images=Image.new("RGB", (width, height)), text=IMAGE, return_tensors="pt")
        assert out["image_grid_thw"].tolist() == [grid]


def test_every_kind_of_picture_gives_the_same_input(tiny_processor, make_image, tmp_path):
    image = make_image()
    image.save(tmp_path / "view.png")
    expected = tiny_processor(images=image, text=IMAGE, return_tensors="pt")
    array = np.asarray(image)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    kinds = [array, torch.from_numpy(array.copy()).permute(2, 0, 1), tmp_path / "view.png", str(tmp_path / "view.png")]
    kinds += [image.convert("RGBA"), array / 255, [image], [[image]], (image,), array[None]]
    for kind in kinds:
        out = tiny_processor(images=kind, text=IMAGE, return_tensors="pt")
        assert torch.equal(out["pixel_values"], expected["pixel_values"])
    for part in ({"path": str(tmp_path / "view.png")}, {"url": str(tmp_path / "view.png")}, {"image": array}):
        out = encode(tiny_processor, [{"role": "user", "content": [{"type": "image", **part}]}])
        assert torch.equal(out["pixel_values"], expected["pixel_values"])


@pytest.mark.parametrize("kind", ["pt", "np", None])
def test_a_picture_that_is_given_several_times_is_processed_once(tiny_processor, make_image, monkeypatch, kind):
    one, two = make_image(), make_image(100, 90, 1)
    rows, kwargs = [[one, two], [two], [one, two]], {} if kind is None else {"return_tensors": kind}
    texts, given, image_processor = [IMAGE * len(row) for row in rows], [], type(tiny_processor.image_processor)
    preprocess = image_processor.preprocess
    monkeypatch.setattr(
        image_processor,
        "preprocess",
        lambda self, images, **rest: given.append(len(images)) or preprocess(self, images, **rest),
    )
    shared = tiny_processor(images=rows, text=texts, padding=True, **kwargs)
    apart = tiny_processor(
        images=[[image.copy() for image in row] for row in rows], text=texts, padding=True, **kwargs
    )
    assert given == [2, 5] and set(shared) == KEYS
    for name in KEYS:
        assert type(shared[name]) is type(apart[name])
        assert np.array_equal(np.asarray(shared[name]), np.asarray(apart[name]))


def test_unusual_pictures_work(tiny_processor, make_image):
    grey = make_image().convert("L")
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    outs = [tiny_processor(images=i, text=IMAGE, return_tensors="pt")["pixel_values"] for i in (grey, wide)]
    assert torch.equal(*outs)
    for mode in ("RGBA", "CMYK", "P", "1", "LAB"):
        out = tiny_processor(images=Image.new(mode, (50, 40)), text=IMAGE, return_tensors="pt")
        assert out["image_grid_thw"].shape == (1, 3)
    turned = make_image()
    turned.getexif()[0x0112] = 8
    upright = turned.transpose(Image.Transpose.ROTATE_90)
    outs = [tiny_processor(images=i, text=IMAGE, return_tensors="pt")["pixel_values"] for i in (turned, upright)]
    assert torch.equal(*outs)


def test_a_single_pixel_is_enlarged(tiny_processor, tiny_tokenizer):
    out = tiny_processor(images=Image.new("RGB", (1, 1), "red"), text=IMAGE, return_tensors="pt")
    assert out["image_grid_thw"].tolist() == [[1, 2, 2]]
    assert out["pixel_values"].reshape(4, 3, -1)[:, 0].unique().tolist() == [1.0]
    out = GapMllmProcessor(tokenizer=tiny_tokenizer)(images=Image.new("RGB", (1, 1)), text=IMAGE, return_tensors="pt")
    assert out["image_grid_thw"].tolist() == [[1, 28, 28]]


def test_no_images_and_one_image(tiny_processor, make_image):
    for images in (None, [], [[]]):
        out = tiny_processor(images=images, text="hello", return_tensors="pt")
        assert set(out) == {"input_ids", "attention_mask", "mm_token_type_ids"} and not out["mm_token_type_ids"].any()
    assert encode(tiny_processor, build_messages("detection3d", [make_image()]))["image_grid_thw"].shape == (1, 3)
    assert set(tiny_processor(images=make_image(), return_tensors="pt")) == {"pixel_values", "image_grid_thw"}


def test_ragged_batches_are_padded_left_and_equal_their_rows(tiny_processor, make_image):
    rows = [
        build_messages("reconstruction", [make_image(), make_image(100, 100, 1)]),
        [{"role": "user", "content": [{"type": "text", "text": "no views here"}]}],
        build_messages("detection3d", [make_image(64, 64, 2)]),
    ]
    batch = encode(tiny_processor, rows, processor_kwargs={"padding": True})
    singles = [encode(tiny_processor, row) for row in rows]
    for index, single in enumerate(singles):
        length = single["input_ids"].shape[1]
        assert torch.equal(batch["input_ids"][index, -length:], single["input_ids"][0])
        assert torch.equal(batch["mm_token_type_ids"][index, -length:], single["mm_token_type_ids"][0])
        assert batch["attention_mask"][index].sum() == length and batch["attention_mask"][index, -length:].all()
    with_views = [single for single in singles if "pixel_values" in single]
    assert torch.equal(batch["pixel_values"], torch.cat([single["pixel_values"] for single in with_views]))
    assert torch.equal(batch["image_grid_thw"], torch.cat([single["image_grid_thw"] for single in with_views]))


def test_chat_template(tiny_processor):
    messages = build_messages("detection3d", 1, prompt="Where?", answer="There.")
    text = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{IMAGE}Where?<|im_end|>\n"
        "<|im_start|>assistant\nThere.<|im_end|>\n"
    )
    assert tiny_processor.apply_chat_template(messages) == text
    generation = tiny_processor.apply_chat_template(messages[:2], add_generation_prompt=True)
    assert generation == text[: text.index("There.")]
    plain = [{"role": "user", "content": "a\nb"}]
    assert tiny_processor.apply_chat_template(plain) == "<|im_start|>user\na\nb<|im_end|>\n"
    video = [{"role": "user", "content": [{"type": "video"}]}]
    assert "<|vision_start|><|video_pad|><|vision_end|>" in tiny_processor.apply_chat_template(video)
    with pytest.raises(Exception, match="type text, image or video, got audio"):
        tiny_processor.apply_chat_template([{"role": "user", "content": [{"type": "audio"}]}])
    with pytest.raises(Exception, match="system, user, assistant or tool, got judge"):
        tiny_processor.apply_chat_template([{"role": "judge", "content": "x"}])


def test_tools_are_rendered_as_qwen3_vl_was_trained_with_them(tiny_processor):
    tools = [{"type": "function", "function": {"name": "measure", "parameters": {"type": "object"}}}]
    asked = [{"role": "user", "content": "How far?"}]
    head = (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with "
        "function signatures within <tools></tools> XML tags:\n<tools>\n"
        '{"type": "function", "function": {"name": "measure", "parameters": {"type": "object"}}}\n</tools>\n\n'
        "For each function call, return a json object with function name and arguments within <tool_call></tool_call> "
        'XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
    )
    user = "<|im_start|>user\nHow far?<|im_end|>\n"
    apply = tiny_processor.apply_chat_template
    assert apply(asked, tools=tools) == f"<|im_start|>system\n{head}{user}"
    asked = [{"role": "system", "content": "Be brief."}, *asked]
    assert apply(asked, tools=tools) == f"<|im_start|>system\nBe brief.\n\n{head}{user}"

    calls = [{"function": {"name": "measure", "arguments": {"to": 1}}}, {"name": "measure", "arguments": '{"to": 2}'}]
    called = "\n".join(
        f'<tool_call>\n{{"name": "measure", "arguments": {{"to": {to}}}}}\n</tool_call>' for to in (1, 2)
    )
    replies = [{"role": "tool", "content": "1.2"}, {"role": "tool", "content": [{"type": "text", "text": "0.8"}]}]
    said = "".join(f"\n<tool_response>\n{answer}\n</tool_response>" for answer in ("1.2", "0.8"))
    before = f"<|im_start|>system\nBe brief.<|im_end|>\n{user}<|im_start|>assistant\n"
    for content, text in ((None, ""), ("", ""), ("Wait.", "Wait.\n")):
        messages = [*asked, {"role": "assistant", "content": content, "tool_calls": calls}, *replies]
        expected = f"{before}{text}{called}<|im_end|>\n<|im_start|>user{said}<|im_end|>\n"
        assert apply(messages) == expected


def test_the_assistant_mask_covers_the_answer(tiny_processor, make_image):
    answer = format_point("table", [1.41, 0.37, -1.43])
    messages = build_messages("reconstruction", [make_image()], answer=answer)
    out = encode(tiny_processor, messages, add_generation_prompt=False, return_assistant_tokens_mask=True)
    mask = torch.as_tensor(out["assistant_masks"]).bool()
    assert tiny_processor.tokenizer.decode(out["input_ids"][mask]) == answer + "<|im_end|>"


# Bad input


def test_a_cut_file_is_named_in_a_batch(tiny_processor, make_image, tmp_path):
    whole = io.BytesIO()
    make_image().save(whole, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[:-400])
    with pytest.raises(ValueError, match=r"^image 1 of row 0 \('.*cut.jpg'\) cannot be decoded"):
        encode(tiny_processor, build_messages("detection3d", [make_image(), str(tmp_path / "cut.jpg")]))
    with pytest.raises(ValueError, match=r"^image 1 \('.*cut.jpg'\) cannot be decoded"):
        tiny_processor(images=[make_image(), tmp_path / "cut.jpg"], text=IMAGE * 2)
    with pytest.raises(FileNotFoundError, match=r"^image 0 \('.*gone.jpg'\) does not exist"):
        tiny_processor(images=str(tmp_path / "gone.jpg"), text=IMAGE)


def test_tokens_and_images_that_differ_in_number(tiny_processor, make_image):
    image = make_image()
    with pytest.raises(ValueError, match=r"3 <\|image_pad\|> tokens (and|in the text but) 2 images"):
        tiny_processor(images=[image, image], text=IMAGE * 3)
    with pytest.raises(ValueError, match="Found 2 .*image_pad.* tokens in the text but no images"):
        tiny_processor(text=IMAGE * 2)
    with pytest.raises(ValueError, match=r"1 <\|image_pad\|> tokens (and|in the text but) 2 images"):
        tiny_processor(images=[image, image], text=[IMAGE, "none"])
    with pytest.raises(ValueError, match="Found 1 .*video_pad.* tokens in the text but no videos"):
        tiny_processor(images=[image], text=IMAGE + "<|video_pad|>")
    with pytest.raises(ValueError, match=r"text 0 holds 1 <\|image_pad\|> tokens, but 2 images were given for it"):
        tiny_processor(images=[[image, image], [image]], text=[IMAGE, IMAGE * 2])
    with pytest.raises(ValueError, match="1 texts were given with 2 rows of images"):
        tiny_processor(images=[[image], [image]], text=[IMAGE * 2])


def test_extreme_shapes_are_named(tiny_processor, make_image):
    with pytest.raises(ValueError, match=r"^image 1 is 201 x 1 pixels .*at most 200 times"):
        tiny_processor(images=[make_image(), Image.new("RGB", (201, 1))], text=IMAGE * 2)
    out = tiny_processor(images=Image.new("RGB", (200, 1)), text=IMAGE, return_tensors="pt")
    assert out["image_grid_thw"].tolist() == [[1, 2, 30]]


def test_pixels_cannot_be_prepared_differently_for_one_call(tiny_processor, make_image):
    changes = {"image_mean": [0.4, 0.5, 0.6], "image_std": 0.2, "do_normalize": False, "do_rescale": False}
    changes |= {"patch_size": 8, "merge_size": 1, "temporal_patch_size": 1}
    for name, value in changes.items():
        with pytest.raises(ValueError, match=f"^{name}=.* differs from the image processor's"):
            tiny_processor(images=make_image(), text=IMAGE, images_kwargs={name: value})
    size = {"shortest_edge": 1024, "longest_edge": 4096}
    out = tiny_processor(images=make_image(), text=IMAGE, images_kwargs={"size": size}, return_tensors="pt")
    assert out["image_grid_thw"].tolist() == [[1, 2, 4]]


def test_video_pixels_cannot_be_prepared_differently_for_one_call(tiny_processor):
    frames, settings = [np.zeros((4, 64, 64, 3), np.uint8)], {"image_mean": 0.4, "video_metadata": [{"fps": 2}]}
    with pytest.raises(ValueError, match="^image_mean=0.4 differs from the video processor's"):
        tiny_processor(videos=frames, text="<|video_pad|>", videos_kwargs=settings)


def test_image_statistics_are_compared_with_the_config(tiny_processor):
    check_image_statistics(tiny_processor, CONFIG)
    wrong = SimpleNamespace(image_mean=[0.48, 0.45, 0.4], image_std=[0.5, 0.5, 0.5])
    message = r"the image processor has image_mean=\[0.5, 0.5, 0.5\], the model expects \[0.48"
    with pytest.raises(ValueError, match=message):
        check_image_statistics(tiny_processor, wrong)
    with pytest.raises(ValueError, match="the image processor has image_std="):
        check_image_statistics(build_tiny_processor(image_std=[0.2, 0.2, 0.2]), CONFIG)
    with pytest.raises(ValueError, match=r"do_normalize=\[False\], the model expects \[True\]"):
        check_image_statistics(build_tiny_processor(do_normalize=False), CONFIG)
    with pytest.raises(ValueError, match=r"the image processor has rescale_factor=\[1.0\]"):
        check_image_statistics(build_tiny_processor(rescale_factor=1.0), CONFIG)
    video = GapMllmProcessor(tokenizer=tiny_processor.tokenizer, video_processor={"image_mean": [0.1, 0.1, 0.1]})
    with pytest.raises(ValueError, match="the video processor has image_mean="):
        check_image_statistics(video, CONFIG)


def test_a_tokenizer_is_needed():
    with pytest.raises(ValueError, match="needs a tokenizer"):
        GapMllmProcessor()


# Prompts and answers


def test_methods_for_prompts_and_answers(tiny_processor, make_image):
    views = [make_image(), make_image(seed=1)]
    assert tiny_processor.build_messages("reconstruction", views, color="blue") == build_messages(
        "reconstruction", views, color="blue"
    )
    marked = tiny_processor.apply_visual_prompt(views, Mark(1, (5, 6), "blue"))
    assert marked[0] is views[0] and marked[1].getpixel((5, 6)) == (0, 0, 255)
    point, box = format_point("table", [1, 2, 3]), format_box([0, 0, 1, 1, 1, 1, 0, 0, 0])
    answers = tiny_processor.post_process_points([point, "nothing"])
    assert [answer.first for answer in answers] == [LabelledPoint("table", (1.0, 2.0, 3.0)), None]
    assert tiny_processor.post_process_boxes([box])[0].first == LabelledBox(None, (0, 0, 1, 1, 1, 1, 0, 0, 0))
    assert tiny_processor.post_process_boxes([box], require_label=True)[0].rejected[0].reason == "label is missing"
    assert [a.first for a in tiny_processor.post_process_frame(['{"frame": 3}', '{"frame": 9}'], 5)] == [3, None]
    assert [a.first for a in tiny_processor.post_process_choice(["B", "D"], "ABC")] == ["B", None]
    for method in ("points", "boxes", "frame", "choice"):
        with pytest.raises(TypeError, match="wrap it in a list"):
            getattr(tiny_processor, f"post_process_{method}")(point)


# Saving and loading


def contents(folder):
    """What a saved folder holds, less two notes that transformers writes into any tokenizer it has loaded."""
    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())}
    notes = ("is_local", "local_files_only")
    settings = json.loads(files["tokenizer_config.json"])
    files["tokenizer_config.json"] = {key: value for key, value in settings.items() if key not in notes}
    return files


def test_round_trip(tiny_processor, make_image, tmp_path):
    tiny_processor.save_pretrained(tmp_path / "a")
    loaded = GapMllmProcessor.from_pretrained(tmp_path / "a")
    loaded.save_pretrained(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert loaded.to_dict() == tiny_processor.to_dict() and loaded.chat_template == tiny_processor.chat_template
    assert loaded.tokenizer.padding_side == "left"
    messages = build_messages("reconstruction", [make_image(), make_image(99, 55, 1)])
    first, second = encode(tiny_processor, messages), encode(loaded, messages)
    assert set(first) == set(second) and all(torch.equal(first[key], second[key]) for key in first)


def test_the_folder_is_the_same_with_and_without_torchvision(monkeypatch, tmp_path):
    for is_there in (True, False):
        monkeypatch.setattr(processing_module, "is_torchvision_available", lambda is_there=is_there: is_there)
        build_tiny_processor().save_pretrained(tmp_path / f"made_{is_there}")
        for there_again in (True, False):  # loaded on the other kind of machine, and saved once more
            monkeypatch.setattr(processing_module, "is_torchvision_available", lambda is_there=there_again: is_there)
            loaded = GapMllmProcessor.from_pretrained(tmp_path / f"made_{is_there}")
            assert isinstance(loaded.video_processor, GapMllmVideoProcessor)
            loaded.save_pretrained(tmp_path / f"again_{is_there}_{there_again}")
    first, *others = [contents(folder) for folder in sorted(tmp_path.iterdir())]
    assert len(others) == 5 and all(other == first for other in others)


def test_video_settings_survive_or_get_defaults(tmp_path):
    build_tiny_processor().save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    saved = json.loads(path.read_text())
    saved["video_processor"]["fps"] = 7
    path.write_text(json.dumps(saved))
    assert GapMllmProcessor.from_pretrained(tmp_path).to_dict()["video_processor"]["fps"] == 7
    # as plain Qwen3-VL folders have it: an extra file, or nothing at all
    del saved["video_processor"]
    path.write_text(json.dumps(saved))
    loaded = GapMllmProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict()["video_processor"]["fps"] == 2 and loaded.video_processor.fps == 2
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps({"fps": 5}))
    assert GapMllmProcessor.from_pretrained(tmp_path).video_processor.fps == 5


def test_video_settings_follow_the_image_processor():
    video = build_tiny_processor(patch_size=14).to_dict()["video_processor"]
    assert video["patch_size"] == 14 and video["size"] == {"longest_edge": 16 * 20480, "shortest_edge": 2048}


def test_settings_of_a_video_processor_that_is_given_are_taken(tiny_processor):
    with pytest.raises(TypeError, match="video_processor is a str; expected a Qwen3VLVideoProcessor or a dict"):
        GapMllmProcessor(tokenizer=tiny_processor.tokenizer, video_processor="fast")
    given = GapMllmVideoProcessor(fps=3)
    taken = GapMllmProcessor(tokenizer=tiny_processor.tokenizer, video_processor=given).video_processor
    assert taken is not given and taken.to_dict() == given.to_dict() and taken.fps == 3


def test_the_saved_form_is_that_of_qwen3_vl():
    """Literally, as a folder by Qwen3VLVideoProcessor has it; that class itself needs torchvision."""
    assert json.loads(GapMllmVideoProcessor().to_json_string()) == {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "do_sample_frames": True,
        "fps": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "max_frames": 768,
        "max_video_tokens": 768,
        "merge_size": 2,
        "min_frames": 4,
        "patch_size": 16,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "return_metadata": False,
        "size": {"longest_edge": 768 * 32 * 32, "shortest_edge": 128 * 32 * 32},
        "temporal_patch_size": 2,
        "video_processor_type": "Qwen3VLVideoProcessor",
    }


def test_that_form_is_what_the_class_of_transformers_says():
    if not is_torchvision_available():
        pytest.skip("the class needs torchvision")
    from transformers import Qwen3VLVideoProcessor

    assert Qwen3VLVideoProcessor().to_json_string() == GapMllmVideoProcessor().to_json_string()


def test_default_image_processor_takes_settings():
    image_processor = default_image_processor(max_pixels=4096, patch_size=14)
    assert image_processor.size["longest_edge"] == 4096 and image_processor.patch_size == 14


REMOTE = """
processor = transformers.AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
images = processor.apply_chat_template(processor.build_messages("detection3d", 2)).count("<|image_pad|>")
frame = processor.post_process_frame(['{"frame": 3}'])[0].first
json.dump([type(processor).__module__.split(".")[0], images, frame], open(sys.argv[2], "w"))
"""


@pytest.mark.slow
def test_remote_code_loads_without_the_package(tmp_path, run_without_package):
    build_tiny_processor().save_pretrained(tmp_path)
    own = Path(processing_module.__file__).parent.glob("*_gap_mllm.py")  # all of them are needed
    assert {path.name for path in tmp_path.glob("*.py")} == {path.name for path in own}
    assert run_without_package(REMOTE, tmp_path) == ["transformers_modules", 2, 3]


def test_the_package_imports_without_datasets():
    code = "import gap_mllm.processing, sys; print('datasets' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stderr


# How the model was trained


def red_columns(picture, y):
    """How far the red of a row reaches: first and last column."""
    columns = np.flatnonzero((np.asarray(picture)[y] == (255, 0, 0)).all(-1))
    return int(columns[0]), int(columns[-1])


@pytest.fixture
def trained_processor():
    processor = build_tiny_processor()
    processor.set_training_views({"height": 128, "width": 128}, mark_arm=8, mark_half_thickness=1)
    return processor


def test_a_cross_is_as_large_as_training_showed_it(trained_processor, tiny_processor, make_image):
    """8 pixels of 128 are 40 of 640; a processor that says nothing draws the published 10 on any picture."""
    photo, room = make_image(640, 480), make_image(128, 128)
    marked = trained_processor.apply_visual_prompt([photo, room], [[0, 320, 240], [1, 64, 64]])
    assert red_columns(marked[0], 240) == (280, 360) and red_columns(marked[1], 64) == (56, 72)
    assert red_columns(marked[0], 240 + 9) == (313, 327)  # only the upright bar, three pixels of 128 are 15 of 640
    published = tiny_processor.apply_visual_prompt([photo, room], [[0, 320, 240], [1, 64, 64]])
    assert red_columns(published[0], 240) == (310, 330) and red_columns(published[1], 64) == (54, 74)
    narrow = trained_processor.apply_visual_prompt([make_image(8, 8)], [0, 4, 4])  # half a pixel is one
    assert red_columns(narrow[0], 4) == (3, 5)


def test_a_size_in_pixels_wins(trained_processor, make_image):
    views = [make_image(640, 480)]
    marked = trained_processor.apply_visual_prompt(views, [0, 320, 240], arm=3, half_thickness=0)[0]
    assert red_columns(marked, 240) == (317, 323) and red_columns(marked, 242) == (320, 320)
    thick = trained_processor.apply_visual_prompt(views, [0, 320, 240], half_thickness=0)[0]
    assert red_columns(thick, 240) == (280, 360) and red_columns(thick, 245) == (320, 320)


def test_messages_draw_the_marks(trained_processor, make_image):
    views, mark = [make_image(640, 480)], Mark(0, (320, 240), "green")
    messages = trained_processor.build_messages("reconstruction", views, marks=[mark])
    shown, text = messages[-1]["content"]
    assert np.array_equal(shown["image"], trained_processor.apply_visual_prompt(views, [mark])[0])
    assert text["text"].startswith("A green cross marks one pixel")
    said = trained_processor.build_messages("reconstruction", views, marks=[mark], color="blue")
    assert said[-1]["content"][-1]["text"].startswith("A blue cross")


def test_the_folder_says_how_the_model_was_trained(trained_processor, tiny_processor, make_image, tmp_path):
    trained_processor.save_pretrained(tmp_path / "trained")
    saved = json.loads((tmp_path / "trained" / "processor_config.json").read_text())
    assert saved["training_view_size"] == {"height": 128, "width": 128}
    assert (saved["mark_arm"], saved["mark_half_thickness"]) == (8, 1)
    loaded = GapMllmProcessor.from_pretrained(tmp_path / "trained")
    assert loaded.cross_size.on_width(640) == (40, 7)
    tiny_processor.save_pretrained(tmp_path / "silent")
    saved = json.loads((tmp_path / "silent" / "processor_config.json").read_text())
    assert not {"training_view_size", "mark_arm", "mark_half_thickness"} & set(saved)
    assert GapMllmProcessor.from_pretrained(tmp_path / "silent").cross_size.on_width(640) == (10, 2)


def test_the_shipped_model_knows_its_rooms(make_image):
    """Rooms of 128 pixels, arms of 4; larger pictures become views of at most that many pixels and a quarter."""
    shipped = GapMllmProcessor.from_pretrained(TINY_MODEL)
    assert shipped.cross_size.on_width(128) == (4, 0) and shipped.cross_size.on_width(640) == (20, 2)
    out = encode(shipped, shipped.build_messages("reconstruction", [make_image(640, 480)], marks=[0, 320, 240]))
    assert out["image_grid_thw"].tolist() == [[1, 8, 10]]  # 160 x 128


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"training_view_size": 128}, r"training_view_size is 128; expected \{'height': pixels, 'width': pixels\}"),
        ({"training_view_size": {"width": 128}}, "training_view_size is .*; expected"),
        ({"training_view_size": {"height": 128, "width": 0}}, "width of training_view_size is 0; expected a whole"),
        ({"mark_arm": 0}, "mark_arm is 0; expected a whole number of pixels, 1 or more"),
        ({"mark_arm": True}, "mark_arm is True; expected"),
        ({"mark_half_thickness": 1.5}, "mark_half_thickness is 1.5; expected a whole number"),
    ],
)
def test_sizes_that_are_none_are_refused(arguments, message, tiny_tokenizer):
    with pytest.raises(ValueError, match=message):
        GapMllmProcessor(tokenizer=tiny_tokenizer, **arguments)
