"""Ablations: what is read, which runs are made and not made again, how they are compared, and a real one."""

import json
from pathlib import Path
from types import SimpleNamespace

import ablate
import pytest
from ablations import Ablation, paired_difference, read_ablation, room_scores, run_ablation
from ablations import arms as arm_runs
from ablations.ablation import ABLATION_FOLDER, flags_of, read_flags
from ablations.ablation_curves import draw_arms
from ablations.ablation_report import write_ablation_report
from ablations.room_scores import RoomTest
from ablations.shared_stages import place_stages
from PIL import Image
from transformers import HfArgumentParser

from gap_mllm.training import LOSS_TERMS
from gap_mllm.training.geometry_aligned_trainer import GeometryAlignedTrainingArguments
from gap_mllm.training.recipe_sections import check_sections
from gap_mllm.training.recipes import read_recipe, read_yaml
from gap_mllm.training.terms import make_terms
from gap_mllm.training.train_geometry_aligned import GeometryAlignedModelArguments


ENCODER = Path(__file__).parents[3] / "examples" / "assets" / "tiny_geometry_encoder"
TWO = {"recipe": "quickstart", "arms": {"a": {}, "b": {"point_map_weight": 1.0}}, "seeds": [0, 1]}


def resolved(ablation, arm):
    parser = HfArgumentParser((GeometryAlignedModelArguments, GeometryAlignedTrainingArguments))
    ((recipe, values),) = ablation.stages(arm)
    recipe_args, args = read_recipe(parser, recipe, [*flags_of(values), "--use_cpu", "true", "--output_dir", "x"])
    check_sections(recipe_args)
    return recipe_args, args


def test_the_arms_of_geometry_terms():
    ablation = read_ablation("geometry_terms")
    terms, steps, geometry = {}, set(), {}
    for arm in ablation.arms:
        recipe_args, args = resolved(ablation, arm)
        made = make_terms(args, args.terms)
        terms[arm] = {name for name, term in made.items() if term.weight} - {"text", "readout"}
        steps.add((args.max_steps, args.per_device_train_batch_size))
        geometry[arm] = recipe_args.model_config.get("use_geometry", True)
    dense = {"point_map", "depth", "normals", "camera", "metric_scale"}
    assert list(terms.values()) == [set(), set(), dense, {"distillation"}, dense | {"distillation"}]
    assert len(steps) == 1 and list(geometry.values()) == [False, True, True, True, True]
    assert len(ablation.seeds) == 3 and ablation.references == ["no_geometry", "geometry"]


def test_flags_give_the_values_that_they_came_from():
    values = {"max_steps": 3, "bf16": False, "terms.depth": {"weight": 1.0}, "readout_layers": [1, 2], "data": {}}
    flags = flags_of({**values, "terms.depth.layers": [1]})
    assert flags[:4] == ["--max_steps", "3", "--bf16", "false"] and "--readout_layers 1 2 --data" in " ".join(flags)
    assert flags[-2:] == ["--terms.depth.layers", "[1]"]
    assert read_flags(["--max_steps", "3", "--readout_layers", "1", "2", "--a.b=c=d"]) == {
        "max_steps": "3",
        "readout_layers": ["1", "2"],
        "a.b": "c=d",
    }
    for words, message in (
        (["3"], "'3' stands alone"),
        (["--max_steps", "--bf16", "true"], "--max_steps has no value"),
    ):
        with pytest.raises(ValueError, match=message):
            read_flags(words)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {}}, "needs a recipe, and arms"),
        ({"arms": {"a": 3}}, "The arm 'a' is 3; expected changes"),
        ({"arms": {"a/b": {}}}, "'a/b' names a folder"),
        ({"arms": {"a": {"seed": 3}}}, r"'a' changes \['seed'\], which every run has of its own"),
        ({"seeds": []}, r"seeds is \[\]"),
        ({"seeds": [1, 1]}, "names one twice"),
        ({"seeds": [0.5]}, "whole numbers"),
        ({"compare_to": ["c"]}, "unknown key 'c'"),
        ({"smoke": {"steps": 3}}, "unknown key 'steps'"),
        ({"test": {"num_rooms": 1}}, "num_rooms"),
        ({"test": {"tasks": ["boxes"]}}, "test.tasks has the unknown key 'boxes'"),
        ({"test": {"tasks": []}}, "name what is asked"),
        ({"test": {"num_curve_rooms": 4}}, "num_selection_rooms of the recipe asks"),
        ({"test": {"rooms": 1}}, "unknown key 'rooms' .did you mean 'num_rooms'"),
        ({"arm": {}}, "unknown key 'arm' .did you mean 'arms'"),
        ({"variants": [1]}, r"variants is \[1\]; expected changes by name"),
        ({"variants": {"few": 3}}, "variants is {'few': 3}"),
        ({"variants": {"a/b": {}}}, "'a/b' names a folder"),
        ({"variants": {"few": {"seed": 1}}}, r"'a' changes \['seed'\]"),
    ],
)
def test_bad_ablations(changes, message):
    with pytest.raises(ValueError, match=message):
        read_ablation({**TWO, **changes})


def test_names_of_files_and_arms(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no ablation 'geometry_term'.*\['geometry_terms', 'pretraining'\]"):
        read_ablation("geometry_term")
    file = tmp_path / "mine.yaml"
    file.write_text("recipe: quickstart\narms: {a: {}, b: {max_steps: 1}}\ncompare_to: [a]\n")
    ablation = read_ablation(file, {"max_steps": 5}, arms=["b"], seeds=[7])
    assert (ablation.name, ablation.seeds, ablation.references) == ("mine", [7], ["b"])
    assert ablation.stages("b") == [("quickstart", {"max_steps": 1})]  # an arm beats what is said of all
    with pytest.raises(ValueError, match="arms has the unknown key 'c'"):
        read_ablation(file, arms=["c"])
    file.write_text("- a")
    with pytest.raises(ValueError, match="must hold a mapping"):
        read_ablation(file)


@pytest.fixture
def trainings(monkeypatch):
    """Calls of the training, which leaves a log instead of a model."""
    calls = []

    def train(recipe, flags, make_scorer=None):
        told = read_flags(flags)
        calls.append((recipe, told))
        folder = Path(told["output_dir"])
        folder.mkdir(parents=True, exist_ok=True)
        terms = [key.split(".")[1] for key in told if key.startswith("terms.")]
        lines = [
            {"step": step, "loss_text": 4.0 / step, **{f"loss_{t}": 1.0 / step for t in terms}} for step in (1, 2)
        ]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        run = SimpleNamespace(settings_hash=json.dumps(told))
        model = SimpleNamespace(eval=lambda: None)
        return SimpleNamespace(run=run, model=model, told=told), None

    monkeypatch.setattr(arm_runs, "train_geometry_aligned", train)
    return calls


def test_runs_go_by_seed_and_are_scored_once(trainings, tmp_path):
    scored = []

    def measure(trainer, processor):
        scored.append(trainer.told["output_dir"])
        seed = int(trainer.told["seed"])
        error = float("inf") if seed else 2.0 + float(trainer.told.get("point_map_weight", 0))
        return {"n": 4, "error_m": error, "error_m_ci95": [0, 1], "hit_rate": 0.5, "constant_error_m": 9.0}

    told = run_ablation(TWO, tmp_path, {"max_steps": 2}, measure)
    places = [Path(told["output_dir"]).relative_to(tmp_path).as_posix() for _, told in trainings]
    assert places == ["runs/a/seed_0", "runs/b/seed_0", "runs/a/seed_1", "runs/b/seed_1"]
    assert all(flags["max_steps"] == "2" for _, flags in trainings)
    assert told["arms"]["b"] == {"error_m": [3.0, float("inf")], "hit_rate": [0.5, 0.5]}
    assert told["steps"] == {"a": 2, "b": 2} and told["blind"] == {"constant_error_m": 9.0}
    assert told["differences"]["a"]["b"]["hit_rate"] == {"mean": 0.0, "interval": [0.0, 0.0]}
    assert json.loads((tmp_path / "ablation.json").read_text())["arms"]["b"]["error_m"] == [3.0, "Infinity"]
    report = (tmp_path / "report.md").read_text()
    assert "2 arms of 2 steps, seeds 0, 1" in report and "constant 9.000" in report
    assert run_ablation(TWO, tmp_path, {"max_steps": 2}, measure)["arms"]["a"]["hit_rate"] == [0.5, 0.5]
    assert len(scored) == 4 and len(trainings) == 8  # a finished training ends at once, of itself
    run_ablation(TWO, tmp_path, {"max_steps": 3}, measure, seeds=[0], arms=["b"])
    assert scored[4:] == [str(tmp_path / "runs/b/seed_0")]  # weights of other settings are scored anew


def test_an_arm_of_stages_goes_on_from_the_one_before(trainings, tmp_path):
    stages = [{"recipe": "geometry_pretraining"}, {"model_path": "{previous}", "max_steps": 3}]
    told = run_ablation({**TWO, "arms": {"plain": {}, "chain": stages}, "seeds": [4]}, tmp_path, None, lambda *_: {})
    (_, plain), (first, _), (second, flags) = trainings
    assert (first, second) == ("geometry_pretraining", "quickstart") and "model_path" not in plain
    assert flags["model_path"] == str(tmp_path / "runs/chain/seed_4/stage_1")
    assert flags["output_dir"].endswith("stage_2") and told["spread"] == {"plain": {}, "chain": {}}
    with pytest.raises(ValueError, match="names {previous}, but there is none"):
        run_ablation({**TWO, "arms": {"chain": stages[1:]}}, tmp_path, None, lambda *_: {})


def test_stages_that_are_alike_are_trained_once(trainings, tmp_path):
    marks = {"recipe": "tiny_geometry_pretraining", "num_rooms": 8}
    arms = {
        "pretrained": [marks, {"model_path": "{previous}"}],
        "direct": {},
        "longer": [{"max_steps": 900}, {"model_path": "{previous}"}],  # quickstart's own number of steps
    }
    variants = {"few": {"num_rooms": 2}, "many": {"num_rooms": 4}}
    scored = []

    def measure(trainer, _):
        scored.append(Path(trainer.told["output_dir"]).relative_to(tmp_path).as_posix())
        return {"hit_rate": float(trainer.told["num_rooms"])}

    ablation = {**TWO, "arms": arms, "variants": variants, "seeds": [5], "compare_to": ["direct"]}
    told = run_ablation(ablation, tmp_path, None, measure)
    trained = {Path(flags["output_dir"]).relative_to(tmp_path).as_posix(): flags for _, flags in trainings}
    assert len(trained) == len(trainings) == 1 + 3 * 2
    first = "runs/pretrained/few/seed_5/stage_1"
    assert trained[first]["num_rooms"] == "8" and not any(
        "pretrained/many/seed_5/stage_1" in place for place in trained
    )
    assert trained["runs/pretrained/many/seed_5/stage_2"]["model_path"] == str(tmp_path / first)
    assert trained["runs/longer/few/seed_5/stage_2"]["model_path"] == str(tmp_path / "runs/direct/few/seed_5")
    assert scored[:3] == [
        f"runs/{name}" for name in ("pretrained/few/seed_5/stage_2", "direct/few/seed_5", "longer/few/seed_5/stage_2")
    ]
    many = told["variants"]["many"]
    assert many["arms"]["longer"] == {"hit_rate": [4.0]} and many["steps"] == {
        "pretrained": 4,
        "direct": 2,
        "longer": 4,
    }
    assert set(many["differences"]["direct"]) == {"pretrained", "longer"} and "arms" not in told
    report = (tmp_path / "report.md").read_text()
    assert "## few" in report and "### Differences to direct" in report and "`pretrained` 4, `direct` 2" in report
    assert Image.open(tmp_path / "by_variant.png").size == (520, 360)
    assert Image.open(tmp_path / "curves.png").size == (1040, 360)  # loss_text, a column for each variant
    trainings.clear()
    run_ablation(ablation, tmp_path, None, measure, arms=["longer"])  # finds the other's folder
    assert [Path(flags["output_dir"]).parts[-3:] for _, flags in trainings][0] == ("direct", "few", "seed_5")
    assert len(scored) == 6


@pytest.mark.parametrize(
    ("arms", "variants", "names"),
    [
        ({"a": {}, "b": {"max_steps": 900}}, {}, "'a' and 'b'"),
        ({"a": {"num_rooms": 3}}, {"few": {"num_rooms": 1}, "many": {}}, "'a' with 'few' and 'a' with 'many'"),
        ({"a": [{}, {"model_path": "{previous}"}], "b": [{}, {"model_path": "{previous}"}]}, {}, "'a' and 'b'"),
    ],
)
def test_arms_that_are_the_same_training_are_refused(trainings, tmp_path, arms, variants, names):
    ablation = {**TWO, "arms": arms, "variants": variants}
    with pytest.raises(ValueError, match=f"The arms {names} resolve to the same settings"):
        run_ablation(ablation, tmp_path / "out", None, lambda *_: {})
    assert not trainings and not (tmp_path / "out").exists()
    if not variants:
        run_ablation(ablation, tmp_path, None, lambda *_: {}, arms=["b"])


def test_a_key_that_a_late_arm_misspells_is_told_before_anything_is_trained(trainings, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'max_steps'"):
        run_ablation({**TWO, "arms": {"a": {}, "b": {"max_stepz": 3}}}, tmp_path, None, lambda *_: {})
    assert not trainings


def test_every_term_that_no_arm_weighs_is_run_once(trainings, tmp_path):
    arms = {"plain": {}, "dense": {"terms.depth": {"weight": 1.0}}}
    smoke = {"arm": "plain", "overrides": {"max_steps": 2}, "terms": {"shape": {"weight": 0.5}}}
    told = run_ablation({**TWO, "arms": arms, "smoke": smoke}, tmp_path, None, lambda *_: {})
    assert set(told["smoke"]) == set(LOSS_TERMS) - {"text", "depth"}
    assert told["smoke"]["shape"] == {"steps": 2, "first": 1.0, "last": 0.5, "fell": True}
    flags = {Path(flags["output_dir"]).name: flags for _, flags in trainings}
    assert json.loads(flags["shape"]["terms.shape"]) == {"weight": 0.5} and flags["shape"]["max_steps"] == "2"
    assert json.loads(flags["normals"]["terms.depth"]) == {"weight": 1.0}  # whose head the normals read
    assert "| shape | 2 | 1 | 0.5 | yes |" in (tmp_path / "report.md").read_text()


def test_paired_differences():
    # Differences 1, 2, 3: mean 2, deviation 1; Student's 97.5 % point for 2 degrees of freedom is 4.302653.
    told = paired_difference([2, 4, 6], [1, 2, 3])
    assert told["mean"] == 2 and told["interval"] == pytest.approx([2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5])
    assert paired_difference([2], [1]) == {"mean": 1.0, "interval": None}
    assert paired_difference([1, float("inf")], [1, 1])["interval"] is None
    with pytest.raises(ValueError, match="2 and 1 values"):
        paired_difference([1, 2], [1])


def test_spread_and_curves(tmp_path):
    arms = {("a", 0): 1.0, ("a", 1): 3.0, ("b", 0): 5.0, ("b", 1): float("nan")}
    scores = {key: {"error_m": value} for key, value in arms.items()}
    logs = {
        key: [{"step": step, "eval_error_m": 1.0 / step, "loss": 1.0, "minutes": 1} for step in (1, 2)] for key in arms
    }
    ablation = Ablation("x", "quickstart", {"a": {}, "b": {}}, seeds=[0, 1])
    told = write_ablation_report(ablation, tmp_path, {None: scores}, {None: logs}, {})
    assert told["spread"]["a"]["error_m"] == {"mean": 2.0, "std": pytest.approx(2**0.5)}
    report = (tmp_path / "report.md").read_text()
    assert "| error_m (less is better) | 2.000 ± 1.414 | - | - |" in report and "curves.png" in report
    assert Image.open(tmp_path / "curves.png").size == (520, 360)
    assert not draw_arms({None: {("a", 0): [{"step": 1, "loss": 2.0}]}}, tmp_path / "none.png")


@pytest.mark.slow
def test_a_model_without_geometry_and_one_with_it(tmp_path, capsys):
    """By the command: two arms of one step each, measured on rooms that neither was trained on."""
    file = tmp_path / "two.yaml"
    file.write_text(
        "recipe: quickstart\nseeds: [3]\narms:\n"
        "  no_geometry: {model_config.use_geometry: false, frozen_geometry: {}}\n  geometry: {point_map_weight: 1.0}\n"
        "overrides: {max_steps: 1, point_map_weight: 0.0, save_strategy: 'no', per_device_train_batch_size: 1}\n"
        "test: {num_rooms: 2, questions_per_room: 1, num_baseline_rooms: 2}\n"
    )
    words = [str(file), "--output_dir", str(tmp_path / "out"), "--geometry_encoder_path", str(ENCODER)]
    words += ["--dataloader_num_workers", "0", "--dataloader_persistent_workers", "false", "--use_cpu", "true"]
    ablate.main(words)
    told = json.loads((tmp_path / "out" / "ablation.json").read_text())
    config = json.loads((tmp_path / "out/runs/no_geometry/seed_3/config.json").read_text())
    plain, fused = told["arms"]["no_geometry"], told["arms"]["geometry"]
    assert config["use_geometry"] is False and "loss_text" in plain and "dense_point_error_m" not in plain
    assert fused["shuffled_geometry_dense_point_error_m"] and fused["loss_point_map"][0] > 0
    assert told["blind"].keys() >= {"constant_point_error_m", "pixel_prior_dense_point_error_m"}
    assert capsys.readouterr().out.endswith(f"wrote {tmp_path / 'out'}/report.md\n")
    words[words.index("--use_cpu")] = "--use_cpus"
    with pytest.raises(SystemExit, match="2"):
        ablate.main(words)
    assert "did you mean 'use_cpu'" in capsys.readouterr().err


def test_pretraining_is_shared_and_held_to_equal_steps():
    ablation = read_ablation("pretraining")
    placed, counts, rooms = place_stages(ablation), {}, {}
    parser = HfArgumentParser((GeometryAlignedModelArguments, GeometryAlignedTrainingArguments))
    for (_, arm), stages in placed.items():
        steps = []
        for recipe, values, place in stages:
            recipe_args, args = read_recipe(
                parser, recipe, [*flags_of(values), "--use_cpu", "true", "--output_dir", "x"]
            )
            check_sections(recipe_args)
            steps.append((args.max_steps * args.per_device_train_batch_size, *recipe_args.questions["counts"]))
            rooms.setdefault(place, set()).add(recipe_args.num_rooms)
        counts.setdefault(arm, set()).add(tuple(steps))
    boxes, marks = (480, "grounding_box", "detection3d"), (480, "reconstruction")
    arms = {"direct": (boxes,), "direct_longer": (boxes, boxes), "pretrained": (marks, boxes)}
    arms |= {arm.replace("direct", "no_geometry"): told for arm, told in arms.items() if arm != "pretrained"}
    assert counts == {arm: {told} for arm, told in {**arms, "no_geometry_pretrained": (marks, boxes)}.items()}
    assert all(len(numbers) == 1 for numbers in rooms.values()) and len(rooms) == 2 + 2 * 3 * 3
    assert placed["30_percent", "pretrained"][0] == placed["10_percent", "pretrained"][0]
    assert placed["30_percent", "direct_longer"][0][2] == placed["30_percent", "direct"][0][2]
    assert ablation.variants["100_percent"]["num_rooms"] == 10 * ablation.variants["10_percent"]["num_rooms"]
    assert len(ablation.seeds) == 3


@pytest.mark.slow
def test_boxes_are_scored_beside_blind_answers_and_asked_for_curves(monkeypatch):
    def answer(asker, samples, form, batch_size):
        assert form.max_new_tokens <= 100
        return [sample.answer for sample in samples]

    monkeypatch.setattr(room_scores, "answer_questions", answer)
    monkeypatch.setattr(room_scores, "Asker", lambda model, processor: None)
    settings = {"num_rooms": 3, "num_baseline_rooms": 9, "num_curve_rooms": 2, "max_new_tokens": 100}
    test = RoomTest(**settings, tasks=["grounding", "detection"])
    trainer = SimpleNamespace(model=None, terms={"point_map": SimpleNamespace(weight=0)}, train_dataset=None)
    told = test(trainer, None)
    right = {
        "grounding_iou25_share": 1.0,
        "grounding_parse_rate": 1.0,
        "detection_f1": 1.0,
        "detection_parse_rate": 1.0,
    }
    assert right.items() <= told.items() and told["grounding_center_error_m"] < 0.02  # two decimals
    assert told["constant_grounding_mean_iou"] != told["category_prior_grounding_mean_iou"] < 0.9
    assert told["constant_grounding_center_error_m"] > 0.1
    assert told["constant_detection_f1"] < 1 and "category_prior_detection_f1" not in told
    curves = test.scorer(None)(None)
    assert right.items() <= curves.items() and not any("ci95" in name or "constant" in name for name in curves)
    assert {sample.scene_id for sample in test._curve_questions["detection"]}.isdisjoint(
        room.scene_id for room in test.rooms
    )


def test_tasks_that_no_room_allows_are_told(monkeypatch):
    monkeypatch.setattr(room_scores, "make_tasks", lambda *args, **options: [])
    with pytest.raises(ValueError, match=r"no room allows a question of \['choices'\]"):
        RoomTest(num_rooms=2, num_baseline_rooms=2, tasks=["choices"])(SimpleNamespace(model=None), None)


@pytest.mark.slow
def test_boxes_after_one_step(tmp_path):
    """An arm whose first stage is another's, with boxes asked at every evaluation; nothing is learnt in a step."""
    told = read_yaml((ABLATION_FOLDER / "pretraining.yaml").read_bytes(), "pretraining")
    told["variants"] = {"few": {"num_rooms": 2}}
    told["test"] |= {"num_rooms": 2, "num_baseline_rooms": 2, "num_curve_rooms": 2, "max_new_tokens": 4}
    overrides = {"max_steps": 1, "eval_steps": 1, "geometry_encoder_path": str(ENCODER), "use_cpu": True}
    report = run_ablation(told, tmp_path, overrides, seeds=[1], arms=["direct_longer"])
    logs = (tmp_path / "runs/direct_longer/few/seed_1/stage_2/log.jsonl").read_text()
    assert "eval_grounding_iou25_share" in logs and report["variants"]["few"]["steps"] == {"direct_longer": 2}
    assert "category_prior_grounding_center_error_m" in report["variants"]["few"]["blind"]
    assert (tmp_path / "runs/direct/few/seed_1/model.safetensors").is_file()


def test_rooms_of_the_test_are_always_the_same():
    test = RoomTest(num_rooms=2, num_baseline_rooms=2)
    assert [room.scene_id for room in test.rooms] == ["room_1108000", "room_1108001"]
    assert not {room.scene_id for room in test.rooms} & test.baselines.scene_ids
