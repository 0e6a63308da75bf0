"""Each benchmark's mapping to its metric: the truth as the answer is right, nothing as the answer is wrong."""

import importlib
import json
import math
import sys

import pytest

from gap_mllm.evaluation.benchmarks import BENCHMARKS, find_benchmark
from gap_mllm.evaluation.metrics.captions import caption_scores
from gap_mllm.evaluation.runner import evaluate_model
from gap_mllm.evaluation.runner.questions import load_questions
from gap_mllm.processing.answers_gap_mllm import format_boxes, format_point


FOLDERS = {name: name for name in ("vsibench", "spar_bench", "scanqa", "sqa3d", "scanrefer", "nr3d", "multi3drefer")}
FOLDERS |= {name: name for name in ("cv_bench", "blink", "mmsi", "vstibench", "ca_vqa")}
FOLDERS |= {name: name.removesuffix("_two_stage") for name in ("scanrefer_two_stage", "nr3d_two_stage")}
SPLITS = {"sqa3d": "val"}  # the fixture has no test questions
ON_SCANNET = ("scanqa", "sqa3d", "scanrefer", "scanrefer_two_stage", "nr3d", "nr3d_two_stage", "multi3drefer")
GROUNDING = [name for name in BENCHMARKS if name.startswith(("gap_mllm_grounding", "scanrefer", "nr3d"))]
NAMES = [name for name in BENCHMARKS if name.startswith("gap_mllm") or name in FOLDERS]


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """METEOR's start takes seconds; it has tests of its own."""
    monkeypatch.setattr("gap_mllm.evaluation.metrics.captions.shutil.which", lambda name: None)


def truth(name, sample):
    if name == "gap_mllm_reconstruction":
        return format_point(sample.points[0].label, sample.point_in_view(sample.points[0]), decimals=6)
    if name == "gap_mllm_detection":
        boxes = [sample.box_in_view(box, 0) for box in sample.boxes]
        return format_boxes([box.label for box in sample.boxes], boxes, decimals=6)
    if name == "multi3drefer":
        boxes = [sample.box_in_view(box, 0) for box in sample.boxes]
        return format_boxes([None] * len(boxes), boxes, decimals=6)
    if name in GROUNDING:
        numbers = [round(float(value), 6) for value in sample.box_in_view(sample.boxes[0], 1)]
        return json.dumps({"frame": 1, "bbox_3d": numbers})
    return sample.references[0]


@pytest.fixture(scope="module")
def ask(formats, cache_dir):
    def load(name):
        benchmark = find_benchmark(name)
        options = {"posed_root": str(formats / "scannet_posed_images"), "num_views": 4} if name in ON_SCANNET else {}
        folder = formats / FOLDERS.get(name, "gap_mllm")
        return benchmark, load_questions(benchmark, folder, SPLITS.get(name), cache_dir=cache_dir, **options)[0]

    return load


@pytest.mark.parametrize("name", NAMES)
def test_the_truth_is_right_and_nothing_is_wrong(name, ask):
    benchmark, asked = ask(name)
    samples = list(asked)
    metrics, records = benchmark.score(samples, [truth(name, sample) for sample in samples])
    nothing, missed = benchmark.score(samples, [""] * len(samples))
    assert len(records) == len(missed) == len(samples)
    assert all(record["rejected"] is None for record in records)
    assert all(record["rejected"] is not None and record["parsed"] is None for record in missed)
    assert all(not math.isnan(record["score"]) for record in records + missed)
    assert all(good["score"] >= bad["score"] for good, bad in zip(records, missed, strict=True))
    if name == "gap_mllm_reconstruction":
        assert metrics["point_error_m"] < 1e-5 and metrics["label_accuracy"] == metrics["coverage"] == 1
        assert nothing["point_error_m"] == math.inf and nothing["parse_rate"] == 0
    elif name == "gap_mllm_detection":
        assert metrics["micro"]["f1"] == 1 and nothing["micro"]["f1"] == 0
        curve = metrics["precision_recall"]
        assert curve["overlap"][-1] == 0.95 and set(curve["precision"]) == set(curve["recall"]) == {1.0}
    elif name == "gap_mllm_captions":
        assert metrics["cider"] > nothing["cider"] == 0 and metrics["num_gated"] == 1
    elif name in GROUNDING:
        assert metrics["miou"] == pytest.approx(1, abs=1e-4) and nothing["miou"] == 0
        assert metrics["acc50"] == 1
    else:
        assert metrics[benchmark.headline] == 1 and nothing[benchmark.headline] == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_constant_answer_can_be_read(name, ask):
    benchmark, asked = ask(name)
    samples = list(asked)
    answer = benchmark.constant(samples)
    _, records = benchmark.score(samples, [answer(sample) for sample in samples])
    assert all(record["rejected"] is None for record in records)


def test_letters_are_read_by_each_rule(ask):
    benchmark, asked = ask("cv_bench")  # the right answers are C, A, B; A, B
    texts = ["(C)", "The answer is A", "Answer: B", "a", "B or A"]
    metrics, records = benchmark.score(list(asked), texts)
    assert [record["score"] for record in records] == [1, 1, 1, 1, 0]
    assert (metrics["ADE20K"], metrics["COCO"], metrics["Omni3D"]) == (1, 1, 0.5)
    assert (metrics["accuracy_2d"], metrics["accuracy_3d"], metrics["overall"]) == (1, 0.5, 0.75)
    assert (metrics["Count"], metrics["Distance"], metrics["mean_score"], metrics["missing"]) == (1, 0, 0.8, [])
    assert [record["vgllm_score"] for record in records] == [1, 1, 0, 0, 1]  # the A of "Answer"
    assert [record["lmms_score"] for record in records] == [1, 0, 0, 1, 1]  # the letter it begins with
    assert [record["parsed"] for record in records] == ["C", "A", "B", "A", None]
    assert "several letters" in records[4]["rejected"] and metrics["mean_score_ci95"][0] < 0.8
    assert metrics["vgllm_overall"] == (0.5 * (1 + 0) + 0.5) / 2


def test_scanqa_has_the_caption_scores(ask, monkeypatch):
    benchmark, asked = ask("scanqa")
    samples = list(asked)
    texts = [sample.references[0] for sample in samples]
    metrics, _ = benchmark.score(samples, texts)
    references = [list(sample.references) for sample in samples]
    expected = caption_scores(texts, references, mode="scanqa", meteor=False)
    names = ("cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l")
    assert {name: metrics[name] for name in names} == {name: expected[name] for name in names}
    assert metrics["rouge_l"] == 1 and metrics["bleu_1"] == pytest.approx(1)  # every answer is a true one
    assert metrics["meteor"] is None and "no command java" in metrics["meteor_missing"]
    monkeypatch.setitem(sys.modules, "pycocoevalcap.bleu.bleu", None)
    without, _ = benchmark.score(samples, texts)
    assert without["em"] == 1 and "gap-mllm[caption]" in without["captions_missing"] and "cider" not in without


def test_mmsi_and_blink_by_type(ask):
    benchmark, asked = ask("mmsi")  # A, D, B
    metrics, records = benchmark.score(list(asked), ["``A``", "D", "the letter"])
    assert metrics["by_type"] == {"Motion (Cam.)": 1, "MSR": 1, "Positional Relationship (Cam.\u2013Obj.)": 0}
    assert metrics["overall"] == metrics["mmsi_overall"] == pytest.approx(2 / 3)
    assert [record["mmsi_score"] for record in records] == [1, 1, 0] and records[2]["rejected"] is not None
    benchmark, asked = ask("blink")  # jigsaw A, views B, depth A and B
    metrics, _ = benchmark.score(list(asked), ["A", "A", "A", "A"])
    assert (metrics["jigsaw"], metrics["multi_view_reasoning"], metrics["relative_depth"]) == (1, 0, 0.5)
    assert metrics["overall"] == 0.5 and metrics["spatial"] == 0.25 and len(metrics["missing"]) == 11


def test_a_split_without_answers_is_refused_before_it_is_asked(formats, cache_dir):
    with pytest.raises(ValueError, match="'test_Relative_Depth_1' of split 'test' has no answer"):
        load_questions(find_benchmark("blink"), formats / "blink", "test", cache_dir=cache_dir)
    with pytest.raises(ValueError, match="no views|no answer"):
        load_questions(find_benchmark("scanqa"), formats / "scanqa", "test_wo_obj", cache_dir=cache_dir)


def test_a_report_has_tables_plots_and_samples(formats, cache_dir, tmp_path, ask):
    benchmark, asked = ask("gap_mllm_detection")
    path = tmp_path / "given.jsonl"
    texts = [truth("gap_mllm_detection", asked.sample(row_id)) for row_id in asked.ids]
    texts[1] = "nothing here"
    records = [{"id": row_id, "text": text} for row_id, text in zip(asked.ids, texts, strict=True)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    folder, output = formats / "gap_mllm", tmp_path / "run"
    metrics = evaluate_model(None, benchmark.name, folder, output, predictions=path, cache_dir=cache_dir)
    report = (output / "report.md").read_text()
    assert f"| **f1** | {metrics['scores']['model']['f1']:.3f} |" in report
    assert "| num_unreadable | 1 | 0 |" in report
    assert "damage, not benefit" in report and "Not run: blind (answers were read from a file)." in report
    for name in ("histogram", "precision_recall", "worst", "best"):
        assert f"]({name}.png)" in report and (output / f"{name}.png").stat().st_size > 1000
    assert "](categories.png)" not in report  # detection has no kinds of questions


def test_questions_without_views_are_refused(formats, cache_dir):
    with pytest.raises(ValueError, match="2 of 2 questions have no views .*source 'scanqa' found no pictures"):
        load_questions(find_benchmark("scanqa"), formats / "scanqa", cache_dir=cache_dir)


def test_vsibench_by_three_evaluators(ask):
    benchmark, asked = ask("vsibench")
    samples = list(asked)
    spaced = [f" {truth('vsibench', sample)}\n" for sample in samples]  # the official evaluator splits at spaces
    told = [f"The answer is {truth('vsibench', sample)}." for sample in samples]
    by_space, in_words = (benchmark.score(samples, texts)[0] for texts in (spaced, told))
    assert by_space["overall"] == 0 and by_space["lmms_eval_overall"] == by_space["lenient_overall"] == 1
    assert in_words["lenient_overall"] == 1 > in_words["lmms_eval_overall"] > in_words["overall"]


READERS = {  # what reads an answer by our rule, and how often an answer needs it: view and box are two objects
    "gap_mllm_reconstruction": ("gap_mllm.processing.answers_gap_mllm.read_objects", 1),
    "gap_mllm_detection": ("gap_mllm.processing.answers_gap_mllm.read_objects", 1),
    "gap_mllm_grounding": ("gap_mllm.processing.answers_gap_mllm.read_objects", 2),
    "scanrefer": ("gap_mllm.processing.answers_gap_mllm.read_objects", 2),
    "multi3drefer": ("gap_mllm.processing.answers_gap_mllm.read_objects", 1),
    "blink": ("gap_mllm.processing.scores.letters.parse_choice", 1),
    "vsibench": ("gap_mllm.evaluation.metrics.vsibench._first_word", 2),  # of the official and the lenient rule
    "spar_bench": ("gap_mllm.evaluation.metrics.spar_bench.last_answer_tag", 1),
    "scanqa": ("gap_mllm.evaluation.metrics.scanqa.clean_answer", 1),
    "sqa3d": ("gap_mllm.evaluation.metrics.scanqa.clean_answer", 1),
}


@pytest.mark.parametrize("name", READERS)
def test_an_answer_is_read_once(name, ask, monkeypatch):
    benchmark, asked = ask(name)
    target, times = READERS[name]
    module, _, function = target.rpartition(".")
    read, seen, counts = getattr(importlib.import_module(module), function), [], []

    def counting(text, *rest, **more):
        seen.append(text)
        return read(text, *rest, **more)

    for place in [place for name, place in sys.modules.items() if name.startswith("gap_mllm.")]:
        if getattr(place, function, None) is read:
            monkeypatch.setattr(place, function, counting)
    for sample in asked:
        seen.clear()
        answer = f"{truth(name, sample)} "  # told from the truth by its blank
        benchmark.score([sample], [answer])
        counts.append(seen.count(answer))
    assert 0 < max(counts) <= times
