"""Video files without torchvision: the frames chosen, their times in the prompt, and the inputs of Qwen3-VL."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.utils import is_torchvision_available
from transformers.video_utils import VideoMetadata, load_video

from gap_mllm import GapMllmForPreTraining
from gap_mllm.processing import GapMllmProcessor, space_aware_sample, voxelize_frames, world_points_from_depth
from gap_mllm.processing.data import render_room
from gap_mllm.processing.frame_sampling_gap_mllm import FrameChoice, predict_points
from tests.processing.data.rendered_teacher import random_vggt
from tests.processing.small_videos import NUM_FRAMES, picture, write_video


VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
SHIPPED = Path(__file__).parents[2] / "examples" / "assets" / "tiny_gap_mllm"


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """24 frames, 10 a second."""
    return write_video(tmp_path_factory.mktemp("clips") / "room.mp4")


@pytest.fixture(scope="module")
def frames(video):
    """All frames of it and their metadata, by transformers."""
    return load_video(str(video), backend="pyav")


@pytest.fixture
def encode(tiny_processor):
    def run(part, **options):
        messages = [{"role": "user", "content": [{"type": "video", **part}, {"type": "text", "text": "Where?"}]}]
        return tiny_processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=options
        )

    return run


def times(processor, inputs):
    """The times that the prompt tells, one for two frames."""
    text = processor.decode(inputs["input_ids"][0])
    return [float(part.split("<")[-1]) for part in text.split(" seconds>")[:-1]]


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


CHOICES = {
    "default": ({}, [0, 8, 15, 23]),  # 2 a second of 2.4, by the rule of Qwen3-VL
    "number": ({"num_frames": 6}, [0, 5, 9, 14, 18, 23]),
    "rate": ({"fps": 4}, [0, 3, 6, 9, 12, 14, 17, 20, 23]),
    "uniform": ({"sampling": "uniform", "num_frames": 5}, [0, 5, 11, 17, 23]),
    "on screen": ({"sampling": "fps", "fps": 2}, [0, 5, 10, 15, 20]),
    "on screen, at most": ({"sampling": "fps", "fps": 5, "num_frames": 4}, [0, 7, 15, 23]),
    "all": ({"do_sample_frames": False}, list(range(NUM_FRAMES))),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_file_gives_the_inputs_of_its_frames(choice, video, frames, encode, tiny_processor):
    options, expected = CHOICES[choice]
    out = encode({"path": str(video)}, **options)
    known = VideoMetadata(NUM_FRAMES, fps=10.0, frames_indices=expected)
    chosen = {"video_metadata": [known], "do_sample_frames": False}
    assert equal(out, encode({"video": frames[0][expected]}, **chosen))
    assert equal(out, encode({"video": frames[0]}, video_metadata=[frames[1]], **options))
    assert equal(out, encode({"path": video}, videos_kwargs=options))
    assert equal(out, encode({"url": video.as_uri()}, **options))  # file:///..., as chats for Qwen have it
    pairs = np.array([*expected, *expected[-1:] * (len(expected) % 2)]).reshape(-1, 2)
    assert times(tiny_processor, out) == pytest.approx(pairs.mean(1) / 10, abs=0.051)  # one decimal
    assert len(pairs) == out["video_grid_thw"][0, 0]
    given = tiny_processor(videos=[str(video)], text=VIDEO, return_metadata=True, **options)["video_metadata"][0]
    assert given.frames_indices == expected and given.fps == 10.0 and given.total_num_frames == NUM_FRAMES


def test_several_videos_in_every_nesting(video, frames, tiny_processor):
    one = tiny_processor(videos=str(video), text=VIDEO, return_tensors="pt")
    pixels = one["pixel_values_videos"]
    for videos in ([video, str(video)], [[video], [video]], [[str(video), video]]):
        two = tiny_processor(videos=videos, text=[VIDEO + VIDEO], return_tensors="pt")
        assert torch.equal(two["pixel_values_videos"], torch.cat([pixels, pixels]))
    pictures = [Image.fromarray(frame) for frame in frames[0]]
    forms = [frames[0], torch.tensor(frames[0]), list(frames[0]), [frames[0]], frames[0][None], pictures, [pictures]]
    for videos in forms:
        same = tiny_processor(videos=videos, text=VIDEO, video_metadata=[{"fps": 10}], return_tensors="pt")
        assert equal(same, one)


def test_chats_with_and_without_a_video_in_a_batch(video, tiny_processor):
    shown = [{"type": "video", "path": str(video)}, {"type": "text", "text": "Where?"}]
    chats = [[{"role": "user", "content": content}] for content in (shown, [{"type": "text", "text": "Who?"}], shown)]
    options = {"sampling": "uniform", "num_frames": 4, "padding": True}
    out = tiny_processor.apply_chat_template(chats, tokenize=True, return_dict=True, processor_kwargs=options)
    assert out["video_grid_thw"].tolist() == [[2, 4, 4]] * 2
    assert [(np.array(row) == 2).sum() for row in out["mm_token_type_ids"]] == [8, 0, 8]


def test_frames_may_be_pictures_on_disk(frames, encode, tmp_path):
    for index, frame in enumerate(frames[0]):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    paths = [str(tmp_path / f"{index}.png") for index in range(NUM_FRAMES)]
    assert equal(
        encode({"video": paths}, video_metadata=[{"fps": 10}]),
        encode({"video": frames[0]}, video_metadata=[frames[1]]),
    )


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.h264", "libx264")])
def test_containers_that_state_no_length(name, codec, encode, tiny_processor, tmp_path):
    path = write_video(tmp_path / name, codec)
    out = encode({"path": path}, sampling="uniform", num_frames=4)
    assert out["video_grid_thw"].tolist()[0][0] == 2
    if name != "a.h264":  # a raw stream has no times of its own
        assert times(tiny_processor, out) == pytest.approx([0.35, 1.9], abs=0.051)


def test_times_are_exact_where_the_rate_changes(encode, tiny_processor, tmp_path):
    seconds = [0.0, 0.1, 0.2, 0.3, 4.0, 8.0]
    path = write_video(tmp_path / "slow.mkv", frames=range(6), seconds=seconds)
    out = encode({"path": path}, do_sample_frames=False)
    assert times(tiny_processor, out) == pytest.approx([0.05, 0.25, 6.0], abs=0.051)
    known = tiny_processor(videos=path, text=VIDEO, do_sample_frames=False, return_metadata=True)["video_metadata"]
    pictures, _ = load_video(str(path), backend="pyav", sample_indices_fn=lambda metadata: np.arange(6))
    assert equal(out, encode({"video": pictures}, video_metadata=known))


def test_frames_that_are_a_choice_stay_where_none_is_asked_for(frames, encode, tiny_processor):
    known = {"fps": 10, "frames_indices": [0, 7, 15, 23], "total_num_frames": NUM_FRAMES}
    out = encode({"video": frames[0][[0, 7, 15, 23]]}, video_metadata=[known])
    assert times(tiny_processor, out) == pytest.approx([0.35, 1.9], abs=0.051)
    fewer = encode({"video": frames[0][[0, 7, 15, 23]]}, video_metadata=[known], sampling="uniform", num_frames=2)
    assert times(tiny_processor, fewer) == pytest.approx([1.15], abs=0.051)


@pytest.mark.parametrize("count", [8, 32, 7])
@pytest.mark.parametrize("fps", [0.5, 30, 30.0])
@pytest.mark.parametrize("form", [dict, list, np.array, torch.tensor])
def test_frames_that_come_with_their_indices_are_taken_as_they_are(count, fps, form, encode, tiny_processor):
    """One frame each two seconds, with metadata as the error without a rate advises: no total_num_frames."""
    pictures = np.zeros((count, 64, 64, 3), np.uint8)
    indices = [round(2 * fps * place) for place in range(count)]
    known = {"fps": fps, "frames_indices": indices if form is dict else form(indices)}
    if form is dict:
        known |= {"total_num_frames": None, "duration": None, "width": None}
    expected = np.array([2.0 * place for place in [*range(count), *[count - 1] * (count % 2)]]).reshape(-1, 2).mean(1)
    for options in ({}, {"do_sample_frames": True}, {"do_sample_frames": False}):
        out = encode({"video": pictures}, video_metadata=[known], **options)
        assert times(tiny_processor, out) == expected.tolist()
        assert out["video_grid_thw"][0, 0] == len(expected)
    assert tiny_processor.video_processor.do_sample_frames
    shown = tiny_processor(videos=pictures, text=VIDEO, video_metadata=[known], return_metadata=True)
    shown = shown["video_metadata"][0]
    assert (shown.frames_indices, shown.fps, shown.total_num_frames) == (indices, fps, indices[-1] + 1)
    assert shown.seconds == [2.0 * place for place in range(count)]
    fewer = encode({"video": pictures}, video_metadata=[known], sampling="uniform", num_frames=2)
    assert times(tiny_processor, fewer) == [count - 1]


def test_metadata_of_transformers_with_a_choice_are_taken_as_they_are(encode, tiny_processor):
    pictures, indices = np.zeros((8, 64, 64, 3), np.uint8), list(range(0, 480, 60))
    known = VideoMetadata(480, fps=30.0, duration=16.0, frames_indices=indices)
    for metadata in (known, [known], [[known]], dict(known)):
        assert times(tiny_processor, encode({"video": pictures}, video_metadata=metadata)) == [1, 5, 9, 13]
    whole = VideoMetadata(8, fps=4.0, frames_indices=list(range(8)))  # all of a video, which is still to be sampled
    assert times(tiny_processor, encode({"video": pictures}, video_metadata=[whole])) == pytest.approx(
        [0.25, 1.5], abs=0.051
    )
    given = {"fps": 30, "seconds": np.arange(8) * 2.5}  # of a video whose rate changes
    assert times(tiny_processor, encode({"video": pictures}, video_metadata=[given])) == pytest.approx(
        [1.2, 6.2, 11.2, 16.2], abs=0.051
    )


def test_a_file_that_the_video_processor_reads_itself(video, tiny_processor):
    """As with `GapMllmProcessor`, and not by what transformers decodes with."""
    own = tiny_processor.video_processor(videos=str(video), return_metadata=True)
    expected = tiny_processor(videos=str(video), text=VIDEO, return_tensors="pt", return_metadata=True)
    assert torch.equal(own["pixel_values_videos"], expected["pixel_values_videos"])
    assert own["video_metadata"][0].frames_indices == expected["video_metadata"][0].frames_indices == [0, 8, 15, 23]
    both = tiny_processor.video_processor(videos=[str(video)] * 2, do_sample_frames=False)
    assert both["video_grid_thw"].tolist() == [[12, 4, 4]] * 2
    with pytest.raises(ValueError, match="the video is the URL https://a.b/c.mp4; download it"):
        tiny_processor.video_processor(videos="https://a.b/c.mp4")


def test_frames_that_a_part_asks_for_are_warned_of(video, encode, monkeypatch):
    said = []
    monkeypatch.setattr("gap_mllm.processing.input_checks_gap_mllm.logger.warning_once", said.append)
    out = encode({"path": video, "fps": 5, "nframes": None})
    assert out["video_grid_thw"][0, 0] == 2  # as without it
    assert len(said) == 1 and said[0].startswith("fps in the parts of a chat choose no frames: pass processor_kwargs")
    encode({"path": video}, fps=5)
    assert len(said) == 1


def test_settings_of_the_folder_choose_frames(video, tiny_processor):
    for settings, expected in (
        ({"fps": 4}, CHOICES["rate"][1]),
        ({"do_sample_frames": False}, list(range(NUM_FRAMES))),
        ({"min_frames": 6}, CHOICES["number"][1]),
    ):
        processor = GapMllmProcessor(tokenizer=tiny_processor.tokenizer, video_processor=settings)
        known = processor(videos=video, text=VIDEO, return_metadata=True, return_tensors="pt")["video_metadata"][0]
        assert known.frames_indices == expected


# Where the points decide


class Seeing:
    """A model that sees the same wall in all frames but some, which see one of their own each."""

    def __init__(self, special):
        self.special, self.calls = special, []

    def __call__(self, images):
        self.calls.append(images.shape)
        grid = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, 20)] * 2, indexing="ij"), -1)
        points = torch.cat([grid, torch.zeros(20, 20, 1)], -1).repeat(len(images), 1, 1, 1)
        for place in self.special:
            points[place] += torch.tensor([0.0, 0.0, 1.0 + place])
        return SimpleNamespace(world_points=points[None], world_points_conf=torch.ones(1, len(images), 20, 20))


def test_frames_that_see_most_of_the_space(video, encode, tiny_processor):
    model = Seeing(special=(3, 17))
    options = {"sampling": "space_aware", "points_from": model, "num_frames": 3}
    known = tiny_processor(videos=video, text=VIDEO, return_metadata=True, **options)["video_metadata"][0]
    assert known.frames_indices == [0, 3, 17] and model.calls == [(NUM_FRAMES, 3, 392, 518)]
    out = encode({"path": video}, **options)
    assert times(tiny_processor, out) == pytest.approx([0.15, 1.7], abs=0.051)
    model.special = (2,)  # of six candidates, 0 4 9 13 18 23
    known = tiny_processor(videos=video, text=VIDEO, return_metadata=True, num_candidates=6, **options)
    assert 9 in known["video_metadata"][0].frames_indices and model.calls[-1][0] == 6


def test_points_of_a_geometry_encoder_choose_frames(video, frames, tiny_processor):
    model = random_vggt()
    options = {"sampling": "space_aware", "points_from": model, "num_frames": 4}
    known = tiny_processor(videos=video, text=VIDEO, return_metadata=True, **options)["video_metadata"][0]
    points, confidence = predict_points(model, [Image.fromarray(frame) for frame in frames[0]])
    assert points.shape == (NUM_FRAMES, 42, 56, 3)  # its config says 56 pixels
    assert known.frames_indices == space_aware_sample(points, confidence, 4)
    given = tiny_processor(videos=frames[0], text=VIDEO, return_metadata=True, video_metadata=[frames[1]], **options)
    assert given["video_metadata"][0].frames_indices == known.frames_indices


@pytest.fixture(scope="module")
def shipped():
    return GapMllmForPreTraining.from_pretrained(SHIPPED, dtype=torch.float32).eval()


def test_a_model_sees_what_its_head_says_in_training(shipped):
    images = render_room(0).images
    pixels = GapMllmProcessor.from_pretrained(SHIPPED).image_processor(images=list(images), return_tensors="pt")
    with torch.no_grad():
        features = shipped.model.get_image_features(**pixels, scene_lengths=[4], return_dict=True)
        tokens = torch.stack(features.pooler_output).unflatten(1, (4, 4))  # (view, row, column, D)
        expected = shipped.point_map_heads["visual"](tokens)  # (view, row, column, side, side, 3)
    points, confidence = predict_points(shipped, [Image.fromarray(image) for image in images])
    assert points.shape == (4, 16, 16, 3) and confidence.eq(1).all() and confidence.shape == (4, 16, 16)
    for row, column in ((0, 0), (1, 2), (3, 1)):  # rounding alone: float32, other order of pixels in a batch
        part = points[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        torch.testing.assert_close(part, expected[:, row, column], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=r"images are \(4, 3, 128, 130\); expected multiples of 32 pixels"):
        shipped.predict_points(torch.rand(4, 3, 128, 130))


@pytest.mark.slow
def test_the_model_itself_chooses_frames_where_a_camera_lingers(shipped):
    """Ten of 18 frames show the first view; what a choice covers is counted by the true depth."""
    processor, path, covered = GapMllmProcessor.from_pretrained(SHIPPED), [*[0] * 10, 1, 1, *range(2, 8)], []
    for seed in range(36):
        room = render_room(seed, num_views=8)
        truth = (room.depth_m[path], room.intrinsics[path], room.camera_to_world[path])
        seen = [set(voxels.tolist()) for voxels in voxelize_frames(*world_points_from_depth(*truth)).voxels_per_frame]
        options = {"num_frames": 4, "video_metadata": [{"fps": 2}], "return_metadata": True}
        covered.append([])
        for rule in ({"sampling": "uniform"}, {"sampling": "space_aware", "points_from": shipped}):
            known = processor(videos=room.images[path], text=VIDEO, **options, **rule)["video_metadata"][0]
            covered[-1].append(len(set().union(*[seen[place] for place in known.frames_indices])))
    uniform, chosen = np.array(covered).T
    assert (chosen > uniform).sum() >= 24 and chosen.sum() > 1.03 * uniform.sum()


def test_the_model_is_not_copied(video, tiny_processor, monkeypatch):
    model = Seeing(special=())
    monkeypatch.setattr(Seeing, "__deepcopy__", lambda *_: pytest.fail("a model of many gigabytes"), raising=False)
    options = {"sampling": "space_aware", "points_from": model, "num_frames": 2}
    tiny_processor(videos=video, text=VIDEO, **options)
    tiny_processor(videos=video, text=VIDEO, videos_kwargs=options)
    assert len(model.calls) == 2


# What is refused


def test_frames_without_a_rate(frames, encode, tiny_processor):
    for part, options in (({}, {}), ({"num_frames": 4}, {}), ({}, {"video_metadata": [VideoMetadata(NUM_FRAMES)]})):
        with pytest.raises(ValueError, match=r"^video 0 came as frames without a frame rate.*Pass video_metadata="):
            encode({"video": frames[0]}, **part, **options)
    with pytest.raises(ValueError, match="fps of video_metadata is 0"):
        encode({"video": frames[0]}, video_metadata=[{"fps": 0}])
    with pytest.raises(ValueError, match="video_metadata has 2 entries for 1 videos"):
        encode({"video": frames[0]}, video_metadata=[{"fps": 1}, {"fps": 1}])
    with pytest.raises(ValueError, match="video 0 has 24 frames, but its frames_indices are 2"):
        encode({"video": frames[0]}, video_metadata=[{"fps": 1, "frames_indices": [0, 1]}])


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (
            {"frames_indices": [0, 2, 1]},
            r"frames_indices of video 0 are \[0.0, 2.0, 1.0\]; expected .* ascending, each once",
        ),
        ({"frames_indices": [0, 1, 1]}, "ascending, each once"),
        ({"frames_indices": [-1, 0, 1]}, "expected a number from 0 for each frame"),
        ({"frames_indices": [[0, 1, 2]]}, "expected a number from 0 for each frame"),
        ({"frames_indices": [0, 1, 2.5]}, "frames_indices of video 0 are .*; expected whole numbers"),
        ({"frames_indices": [0, 1]}, "video 0 has 3 frames, but its frames_indices are 2"),
        ({"frames_indices": [0, 60, 120], "total_num_frames": 3}, "up to number 120, but its total_num_frames is 3"),
        ({"frames_indices": [0, 60, 120], "total_num_frames": 120}, "Give there how many frames the whole video has"),
        ({"frames_indices": [0, 60, 120], "duration": 3.0}, r"at 4 s, by 30 frames a second, but its duration is 3 s"),
        ({"total_num_frames": 90}, "came as 3 frames up to number 2, but its total_num_frames is 90"),
        ({"total_num_frames": 2}, "came as 3 frames up to number 2, but its total_num_frames is 2"),
        ({"seconds": [0, 2]}, "video 0 has 3 frames, but its seconds are 2"),
        ({"seconds": [0, 2, float("nan")]}, "seconds of video 0 are"),
        ({"seconds": [0, 2, 2]}, "seconds of video 0 are"),
    ],
)
def test_metadata_that_contradict_the_frames(known, message, encode):
    with pytest.raises(ValueError, match=message):
        encode({"video": np.zeros((3, 64, 64, 3), np.uint8)}, video_metadata=[{"fps": 30, **known}])


def test_what_cannot_be_a_video(video, frames, encode, tmp_path):
    with pytest.raises(ValueError, match=r"video 0 is the URL https://a.b/c.mp4; download it"):
        encode({"url": "https://a.b/c.mp4"})
    with pytest.raises(FileNotFoundError, match="none.mp4 does not exist"):
        encode({"path": str(tmp_path / "none.mp4")})
    with pytest.raises(FileNotFoundError, match="expected a video file, or the paths of its frames as a list"):
        encode({"path": str(tmp_path)})
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:-200])
    with pytest.raises(ValueError, match="cut.mp4: the video cannot be decoded"):
        encode({"path": str(tmp_path / "cut.mp4")})
    whole = tmp_path / "whole.gif"
    frames_of_gif = [Image.fromarray(picture(index)) for index in range(6)]
    frames_of_gif[0].save(whole, save_all=True, append_images=frames_of_gif[1:], duration=100)
    assert encode({"path": whole}, num_frames=4)["video_grid_thw"][0, 0] == 2
    (tmp_path / "cut.gif").write_bytes(whole.read_bytes()[:-400])
    with pytest.raises(ValueError, match="cut.gif: the video cannot be decoded: the end mark of the GIF is missing"):
        encode({"path": tmp_path / "cut.gif"})
    with pytest.raises(TypeError, match="num_frames is '4'; expected an integer"):
        encode({"path": video}, num_frames="4")
    with pytest.raises(ValueError, match="video 0 has 1 frame to show; expected 2 or more"):
        encode({"path": write_video(tmp_path / "one.mp4", frames=range(1))})
    uneven = [Image.fromarray(picture(0)), Image.new("RGB", (32, 32))]
    with pytest.raises(ValueError, match="do_sample_frames is False, .*, but num_frames, sampling came"):
        encode({"path": video}, do_sample_frames=False, num_frames=3, sampling="uniform")
    with pytest.raises(ValueError, match="video 0 has frames of 2 sizes"):
        encode({"video": uneven}, video_metadata=[{"fps": 1}], do_sample_frames=False)


def test_resampling_that_is_not_there(video, tiny_processor):
    processor = GapMllmProcessor(tokenizer=tiny_processor.tokenizer, video_processor={"resample": 1})
    with pytest.raises(ValueError, match="resample of the video processor is 1; expected bilinear"):
        processor(videos=video, text=VIDEO)


def test_without_the_package_the_extra_is_named(video, encode, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"PyAV.*gap-mllm\[video\]"):
        encode({"path": video})


def test_choices_that_say_too_little_or_too_much(tiny_processor):
    for options, message in (
        ({"sampling": "random"}, "sampling is 'random'; expected one of uniform, fps, space_aware"),
        ({"sampling": "uniform"}, "which needs num_frames"),
        ({"sampling": "fps"}, "which needs fps"),
        ({"sampling": "space_aware"}, "which needs num_frames and points_from"),
        ({"sampling": "uniform", "num_frames": 2, "fps": 1}, "fps is 1, but sampling is 'uniform'"),
        ({"num_frames": 2, "num_candidates": 9}, "num_candidates is given, but sampling is 'uniform'"),
        ({"num_frames": 2, "points_from": print}, "points_from is given, but sampling is 'uniform'"),
        ({"num_frames": 0}, "num_frames is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            FrameChoice(**options)


def test_models_that_give_no_points(video, tiny_processor, tiny_model):
    options = {"sampling": "space_aware", "num_frames": 2}
    with pytest.raises(TypeError, match="points_from is a str; expected a model"):
        tiny_processor(videos=video, text=VIDEO, points_from="vggt", **options)
    with pytest.raises(TypeError, match=r"has no heads for points.*load it with AutoModelForPreTraining.*else give a"):
        tiny_processor(videos=video, text=VIDEO, points_from=tiny_model(), **options)
    with pytest.raises(TypeError, match="gives no world_points"):
        tiny_processor(videos=video, text=VIDEO, points_from=lambda images: SimpleNamespace(), **options)


# In the model, as remote code, and beside torchvision


def test_the_model_answers_about_a_file(tiny_model, video, encode):
    out = encode({"path": video}, sampling="uniform", num_frames=4)
    with torch.no_grad():
        answer = tiny_model().eval().generate(**out, max_new_tokens=2, do_sample=False)
    assert answer.shape[1] == out["input_ids"].shape[1] + 2


REMOTE = """
processor = transformers.AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
messages = [{"role": "user", "content": [{"type": "video", "path": sys.argv[2]}, {"type": "text", "text": "?"}]}]
options = {"sampling": "uniform", "num_frames": 4}
out = processor.apply_chat_template(messages, tokenize=True, return_dict=True, processor_kwargs=options)
json.dump([out["input_ids"][0], float(out["pixel_values_videos"].sum())], open(sys.argv[3], "w"))
"""


def test_files_are_read_by_remote_code(video, tiny_processor, run_without_package, tmp_path):
    tiny_processor.save_pretrained(tmp_path)
    tokens, total = run_without_package(REMOTE, tmp_path, video)
    content = [{"type": "video", "path": str(video)}, {"type": "text", "text": "?"}]
    out = tiny_processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        processor_kwargs={"sampling": "uniform", "num_frames": 4},
    )
    assert tokens == out["input_ids"][0] and total == pytest.approx(float(out["pixel_values_videos"].sum()))


@pytest.mark.skipif(not is_torchvision_available(), reason="compares with classes that need torchvision")
def test_inputs_are_those_of_the_classes_of_transformers(video, frames, encode, tiny_processor):
    from transformers import Qwen3VLProcessor, Qwen3VLVideoProcessor

    own = tiny_processor.video_processor
    stock = Qwen3VLVideoProcessor.from_dict(own.to_dict())
    for size in ((48, 64), (37, 91), (200, 120)):
        pixels = np.random.default_rng(0).integers(0, 256, (7, *size, 3), dtype=np.uint8)
        options = {"video_metadata": [VideoMetadata(7, fps=2)], "return_tensors": "pt"}
        assert equal(own(videos=[pixels], **options), stock(videos=[pixels], **options))
    parts = tiny_processor.image_processor, tiny_processor.tokenizer, stock
    processor = Qwen3VLProcessor(*parts, chat_template=tiny_processor.chat_template)
    for options in ({}, {"fps": 4}):  # they refuse `num_frames` beside their own default rate
        messages = [
            {"role": "user", "content": [{"type": "video", "video": frames[0]}, {"type": "text", "text": "?"}]}
        ]
        settings = {"videos_kwargs": {**options, "video_metadata": [frames[1]]}}
        theirs = processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=settings
        )
        messages[0]["content"][0] = {"type": "video", "path": str(video)}
        ours = tiny_processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=options
        )
        assert equal(ours, theirs)
