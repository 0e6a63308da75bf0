"""What `--engine vllm` gives to vLLM, by a stand-in that writes it down; true answers are in tests/examples."""

import json
import os
from dataclasses import replace

import pytest
import torch

from gap_mllm import GapMllmConfig
from gap_mllm.evaluation.benchmarks import BENCHMARKS, find_benchmark
from gap_mllm.evaluation.runner import evaluate_model, vllm_engine
from gap_mllm.evaluation.runner.questions import load_questions, question_messages
from gap_mllm.evaluation.runner.request_sizes import RequestSizes, measure_requests
from gap_mllm.evaluation.runner.vllm_settings import device_settings, length_settings, model_dtype
from gap_mllm.model_loading import load_processor
from gap_mllm.processing.asking_gap_mllm import Asker
from tests.evaluation.runner.fake_vllm import FakeVllm


@pytest.fixture
def fake(monkeypatch):
    return FakeVllm().install(monkeypatch, vllm_engine)


@pytest.fixture
def run(model_path, rooms, tmp_path):
    """A function (**settings) -> what evaluate_model gives with the engine vllm, on the small rooms."""
    fixed = {
        "output": tmp_path / "run",
        "engine": "vllm",
        "limit": 1,
        "with_report": False,
        "show_progress": False,
        **rooms,
    }
    return lambda **settings: evaluate_model(**{"model_path": model_path, "baselines": [], **fixed, **settings})


@pytest.fixture
def changed_model(model_path, tmp_path):
    """A function (file, **settings) -> a folder of the model with other settings in a file; None takes one out."""

    def change(file, **settings):
        folder = tmp_path / "changed"
        folder.mkdir(exist_ok=True)
        for source in model_path.iterdir():
            if source.is_file() and not (folder / source.name).exists():
                os.link(source, folder / source.name)
        path = folder / file
        values = json.loads(path.read_text()) if path.exists() else {}
        path.unlink(missing_ok=True)
        values = {name: value for name, value in (values | settings).items() if value is not None}
        path.write_text(json.dumps(values))
        return folder

    return change


# One engine at a time


def test_an_engine_is_gone_before_the_next_starts_and_at_the_end(fake, run, changed_model):
    other = changed_model("generation_config.json", repetition_penalty=1.5)
    run(without_geometry=other)
    ended = ["core ended", "renderer ended", "memory freed"]
    assert fake.events == ["started", *ended, "started", *ended]
    assert fake.engines[1]["model"] == str(other)
    assert {settings["repetition_penalty"] for settings in fake.sampling} == {1.0, 1.5}


@pytest.mark.parametrize("number", [1, 2])
def test_an_engine_is_gone_after_an_error(fake, run, changed_model, number):
    fake.stop_at = number
    with pytest.raises(RuntimeError, match="the engine died"):
        run(without_geometry=changed_model("generation_config.json", repetition_penalty=1.5))
    assert fake.events.count("core ended") == fake.events.count("started") == number
    assert fake.events[-1] == "memory freed"


def test_a_run_without_answers_may_be_started_with_other_settings(fake, run, tmp_path):
    fake.stop_at = 1
    with pytest.raises(RuntimeError, match="the engine died"):
        run()
    assert not (tmp_path / "run" / "plan.json").exists()
    assert run(engine_options={"gpu_memory_utilization": 0.5})["n"] == 1


def test_an_engine_that_does_not_start_leaves_nothing(fake, run):
    with pytest.raises(ValueError, match="vllm.LLM does not take .*no_such_option"):
        run(engine_options={"no_such_option": 1})
    assert fake.events == ["memory freed"]


# Devices


def test_the_device_is_checked_against_that_of_vllm(monkeypatch, run, tmp_path):
    fake = FakeVllm("cuda").install(monkeypatch, vllm_engine)
    with pytest.raises(ValueError, match="device is cpu, but the vLLM .* runs on cuda alone"):
        run(device="cpu")
    assert not fake.engines and not (tmp_path / "run").exists()


def test_the_default_device_is_that_of_vllm(monkeypatch, run, tmp_path):
    FakeVllm("xpu").install(monkeypatch, vllm_engine)
    run()
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["device"] == "xpu"


def test_one_of_several_devices_is_named_to_vllm():
    assert device_settings(torch.device("cuda:1"), "cuda", {}) == {"device_ids": [1]}
    assert device_settings(torch.device("cuda"), "cuda", {"tensor_parallel_size": 2}) == {}
    assert device_settings(torch.device("cpu"), "cpu", {}) == device_settings(torch.device("cpu"), None, {}) == {}


@pytest.mark.parametrize("options", [{"tensor_parallel_size": 2}, {"pipeline_parallel_size": 2}, {"device_ids": [0]}])
def test_one_device_does_not_go_with_several(options):
    with pytest.raises(ValueError, match=f"cuda:1, one device.*{next(iter(options))}"):
        device_settings(torch.device("cuda:1"), "cuda", options)


# Room


def exact_lengths(questions, loaded):
    """Tokens of each prompt as the processor makes it of its pictures."""
    lengths = []
    for row_id in questions.ids:
        sample = questions.sample(row_id, with_frames=True)
        pictures = sample.marked_images(loaded[1].cross_size)
        inputs = loaded[1].apply_chat_template(
            question_messages(sample, pictures), add_generation_prompt=True, tokenize=True, return_dict=True
        )
        lengths.append(len(inputs["input_ids"][0]))
    return lengths


def test_room_is_made_for_the_longest_request_and_no_more(fake, run, questions, loaded):
    run(limit=None)
    benchmark, (engine,) = find_benchmark("synthetic_rooms"), fake.engines
    longest = max(exact_lengths(questions, loaded))
    assert engine["max_model_len"] == longest + benchmark.forms[0].max_new_tokens
    views = {"count": 4, "width": 128, "height": 128}  # 96 x 96 pixels, enlarged
    assert engine["limit_mm_per_prompt"] == {"image": views, "video": 0}


@pytest.mark.parametrize("name", ["vsibench", "vstibench", "spar_bench", "cv_bench", "blink", "mmsi"])
def test_lengths_of_other_benchmarks_are_exact(name, formats, cache_dir, loaded):
    benchmark = replace(find_benchmark(name), num_frames=5)  # videos, folders, and pictures of several sizes
    questions = load_questions(benchmark, formats / name, cache_dir=cache_dir)[0]
    requests, lengths = measure_requests(benchmark, questions, loaded[1]), exact_lengths(questions, loaded)
    assert requests.prompt_tokens == max(lengths)
    assert lengths[questions.ids.index(requests.longest_id)] == max(lengths)


def test_the_second_stage_is_counted_whichever_frame_is_answered(formats, cache_dir, loaded):
    benchmark = find_benchmark("gap_mllm_grounding_two_stage")
    questions = load_questions(benchmark, formats / "gap_mllm", cache_dir=cache_dir)[0]
    requests = measure_requests(benchmark, questions, loaded[1])
    shown, lengths = [], []

    class Recording(Asker):
        def encode(self, view_sets, geometry_sets=None):
            shown.extend(len(views) for views in view_sets)
            return view_sets

        def ask(self, chats, form, encoded=None, scenes=None):
            for chat in chats:
                inputs = self.processor.apply_chat_template(
                    chat, add_generation_prompt=True, tokenize=True, return_dict=True
                )
                lengths.append((len(inputs["input_ids"][0]), form.max_new_tokens))
            return [f'{{"frame": {frame}}}' for _ in chats]

    for frame in range(6):  # noqa: B007, which `ask` reads
        benchmark.ask("model", Recording(*loaded), benchmark.forms, list(questions), None, 16)
    assert requests.num_views == max(shown) > 6
    assert requests.prompt_tokens == max(length for length, _ in lengths)
    assert requests.total_tokens == max(map(sum, lengths))


def test_every_benchmark_tells_what_it_asks():
    assert [name for name, each in BENCHMARKS.items() if each.ask is not None and each.requests is None] == []


def test_a_flow_that_does_not_tell_is_refused(questions, loaded):
    benchmark = replace(find_benchmark("synthetic_rooms"), name="own", ask=print)
    with pytest.raises(ValueError, match="'own' asks in a flow of its own"):
        measure_requests(benchmark, questions, loaded[1])


def test_a_view_that_cannot_be_resized_is_named(questions, loaded, monkeypatch):
    monkeypatch.setattr("gap_mllm.processing.data.scene_sample.View.size", (4000, 10))
    with pytest.raises(ValueError, match=f"question '{questions.ids[0]}' shows a view.*aspect ratio"):
        measure_requests(find_benchmark("synthetic_rooms"), questions, loaded[1])


def sizes(prompt, total, num_views=2):
    return RequestSizes(prompt, "scene7", total, num_views, (128, 96))


def test_the_model_bounds_the_room(model_path):
    config = GapMllmConfig.from_pretrained(model_path)
    bound = config.text_config.max_position_embeddings
    assert length_settings(config, sizes(100, 164), {})["max_model_len"] == 164
    assert length_settings(config, sizes(bound - 1, bound + 63), {})["max_model_len"] == bound
    with pytest.raises(ValueError, match=f"'scene7' is a prompt of {bound} tokens.*max_position_embeddings"):
        length_settings(config, sizes(bound, bound + 64), {})
    assert length_settings(config, sizes(100, 164), {"max_model_len": 120})["max_model_len"] == 120
    with pytest.raises(ValueError, match="'scene7' .*the engine option max_model_len"):
        length_settings(config, sizes(100, 164), {"max_model_len": 100})
    assert length_settings(config, sizes(100, 164, 0), {})["limit_mm_per_prompt"] == {"image": 0, "video": 0}


def test_an_answer_that_ran_out_of_room_is_refused(fake, run):
    fake.finish_reason, fake.token_ids = "length", [88] * 5
    with pytest.raises(ValueError, match="cut off after 5 of 64 tokens.*max_model_len"):
        run()
    fake.token_ids = [88] * 64  # as long as its form allows
    run()


# Numbers, and what else the engine reads otherwise


def test_the_kind_of_number_is_that_of_the_checkpoint(fake, run, model_path, changed_model):
    run()
    assert fake.engines[0]["dtype"] == "float32"  # vLLM's "auto" would take half precision
    assert model_dtype(model_path, "bfloat16") == "bfloat16"
    assert model_dtype(changed_model("config.json", dtype="bfloat16"), "auto") == "bfloat16"


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("dtype", "--dtype"),
        ("max_num_seqs", "--batch-size"),
        ("device", "--device"),
        ("limit_mm_per_prompt", "views of the questions"),
        ("override_generation_config", "folder"),
        ("generation-config", "folder"),
        ("mm_processor_kwargs", "folder"),
        ("chat_template", "folder"),
        ("enable_lora", "merge"),
    ],
)
def test_engine_options_that_would_be_ignored(fake, run, tmp_path, option, instead):
    with pytest.raises(ValueError, match=f"engine option {option} is not taken.*{instead}"):
        run(engine_options={option: 1})
    assert not fake.engines and not (tmp_path / "run").exists()


def test_engine_options_that_vllm_follows_reach_it(fake, run):
    run(engine_options={"gpu_memory_utilization": 0.5, "max_model_len": 4096}, batch_size=3)
    assert fake.engines[0]["gpu_memory_utilization"] == 0.5
    assert fake.engines[0]["max_model_len"] == 4096 and fake.engines[0]["max_num_seqs"] == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 2}, "threads is 2, .*transformers"),
        ({"baselines": ["other_geometry"]}, "other_geometry is of the engine transformers"),
    ],
)
def test_settings_of_transformers_alone(fake, run, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        run(**settings)
    assert not fake.engines and not (tmp_path / "run").exists()


def test_predictions_need_no_engine(fake, rooms, tmp_path):
    with pytest.raises(ValueError, match="leave the engine out"):
        evaluate_model(predictions=tmp_path / "none", output=tmp_path / "run", engine="vllm", **rooms)


def test_a_folder_with_adapters_is_refused(fake, run, changed_model):
    with pytest.raises(ValueError, match="adapters.*gap-mllm merge"):
        run(model_path=changed_model("adapter_config.json", peft_type="LORA"))
    assert not fake.engines


def test_a_processor_of_another_model_is_refused(fake, run, changed_model):
    with pytest.raises(ValueError, match="image_mean"):
        run(model_path=changed_model("config.json", image_mean=[0.1, 0.1, 0.1]))
    assert not fake.engines


def test_another_kind_of_model_is_refused(fake, run, changed_model):
    with pytest.raises(ValueError, match="model_type 'qwen3_vl'"):
        run(model_path=changed_model("config.json", model_type="qwen3_vl"))
    assert not fake.engines


def test_what_the_second_model_lacks_is_said_before_the_first_starts(fake, run, changed_model):
    with pytest.raises(ValueError, match="num_beams=4"):
        run(without_geometry=changed_model("generation_config.json", num_beams=4))
    assert not fake.engines


def test_generation_settings_reach_vllm(fake, run, changed_model):
    folder = changed_model("generation_config.json", repetition_penalty=1.2, do_sample=True, temperature=0.7)
    run(model_path=folder)
    end = load_processor(folder).tokenizer.eos_token_id
    assert fake.sampling[0] == {
        "temperature": 0.0,
        "ignore_eos": True,
        "stop_token_ids": [end],
        "detokenize": False,
        "repetition_penalty": 1.2,
        "max_tokens": 64,
    }


def test_a_folder_without_generation_settings_is_asked(fake, run, changed_model):
    folder = changed_model("generation_config.json")
    (folder / "generation_config.json").unlink()
    run(model_path=folder)
    assert fake.sampling[0]["stop_token_ids"] == [load_processor(folder).tokenizer.eos_token_id]
