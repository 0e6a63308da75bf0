"""The rule by which frames of videos are taken: it reaches them, is in the plan, and is refused without videos."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gap_mllm import GapMllmForConditionalGeneration, GapMllmForPreTraining, GapMllmVggtForReconstruction
from gap_mllm.cli import main
from gap_mllm.evaluation.benchmarks import find_benchmark
from gap_mllm.evaluation.runner import evaluate_model
from gap_mllm.evaluation.runner.questions import load_questions
from gap_mllm.processing import space_aware_sample
from gap_mllm.processing.data.video_frames import read_video_frames
from gap_mllm.processing.frame_sampling_gap_mllm import predict_points


ENCODER = Path(__file__).parents[3] / "examples" / "assets" / "tiny_geometry_encoder"
NUM_VIDEO_FRAMES = 12


@pytest.fixture
def asked(formats, cache_dir):
    """Questions about videos, five frames of each."""
    benchmark = replace(find_benchmark("vsibench"), num_frames=5)
    return load_questions(benchmark, formats / "vsibench", cache_dir=cache_dir)[0]


def frames_of(questions, row_id):
    return [view.frame_id for view in questions.sample(row_id, with_frames=True).views]


def test_frames_are_those_that_the_encoder_sees_most_by(asked):
    row_id = next(sample.id for sample in asked if sample.video)
    assert frames_of(asked, row_id) == [0, 2, 5, 8, 11]  # linspace(0, 11, 5), cut
    encoder = GapMllmVggtForReconstruction.from_pretrained(ENCODER, dtype=torch.float32).eval()
    asked.choose_frames("space_aware", encoder)
    frames = read_video_frames(asked.sample(row_id).video, range(NUM_VIDEO_FRAMES))
    expected = space_aware_sample(*predict_points(encoder, [frame.image for frame in frames]), 5)
    assert frames_of(asked, row_id) == frames_of(asked.select([row_id]), row_id) == expected
    asked.choose_frames("uniform")
    assert frames_of(asked, row_id) == [0, 2, 5, 8, 11]


def test_the_rule_is_part_of_the_plan(model_path, formats, cache_dir, tmp_path, monkeypatch):
    class StoppedError(Exception):
        """The run was killed after its plan was written."""

    def stop(job, *args):
        frames.append(job.questions.frames)
        raise StoppedError

    frames = []
    monkeypatch.setattr("gap_mllm.evaluation.runner.run.answer_all", stop)
    settings = {"data_dir": formats / "vsibench", "output": tmp_path, "cache_dir": cache_dir, "device": "cpu"}
    with pytest.raises(StoppedError):
        evaluate_model(
            model_path, "vsibench", baselines=[], sampling="space_aware", **{**settings, "output": tmp_path / "own"}
        )
    plan = json.loads((tmp_path / "own" / "plan.json").read_text())
    assert isinstance(frames.pop().points_from, GapMllmForPreTraining)
    assert plan["points_from"] == plan["models"]["model"]  # one fingerprint: the model sees for itself
    chosen = {"sampling": "space_aware", "points_from": ENCODER}
    for _ in range(2):
        with pytest.raises(StoppedError):
            evaluate_model(model_path, "vsibench", baselines=[], **settings, **chosen)
    assert isinstance(frames[0].points_from, GapMllmVggtForReconstruction) and frames[0].num_frames == 32
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["sampling"] == "space_aware" and len(plan["points_from"]) == 16
    with pytest.raises(ValueError, match='another run .*points_from: "[0-9a-f]+" there, null now; sampling: "space_a'):
        evaluate_model(model_path, "vsibench", baselines=[], **settings)


def test_a_rule_that_does_not_fit(model_path, rooms, formats, cache_dir, tmp_path):
    with pytest.raises(ValueError, match="sampling is 'uniform', but no question shows a video"):
        evaluate_model(model_path, output=tmp_path, sampling="uniform", **rooms)
    settings = {"data_dir": formats / "vsibench", "output": tmp_path, "cache_dir": cache_dir, "device": "cpu"}
    GapMllmForConditionalGeneration.from_pretrained(model_path).save_pretrained(tmp_path / "inference")
    with pytest.raises(ValueError, match="lacks 12 weights .* as point_map_heads.*give the points_from of another"):
        evaluate_model(tmp_path / "inference", "vsibench", sampling="space_aware", **settings)
    settings["predictions"] = tmp_path / "answers.jsonl"
    with pytest.raises(ValueError, match="sampling is 'space_aware', which needs points_from"):
        evaluate_model(None, "vsibench", sampling="space_aware", **settings)
    del settings["predictions"]
    with pytest.raises(ValueError, match="points_from is given, but sampling is 'uniform'"):
        evaluate_model(model_path, "vsibench", points_from=ENCODER, **settings)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluate_model(model_path, "vsibench", sampling="space_aware", points_from=tmp_path / "nowhere", **settings)


def test_the_command_takes_the_rule(monkeypatch):
    given = {}
    monkeypatch.setattr("gap_mllm.evaluation.runner.evaluate_model", lambda model, **settings: given.update(settings))
    assert main(["evaluate", "--model", "model", "--sampling", "space_aware", "--points-from", "encoder"]) == 0
    assert (given["sampling"], given["points_from"]) == ("space_aware", "encoder")
