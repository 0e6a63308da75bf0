"""Batches, partners, subsets, and the refusal of another plan."""

import pytest

from gap_mllm.evaluation.runner.plan import choose_partners, make_batches, save_or_check_plan, view_set
from gap_mllm.evaluation.runner.questions import QuestionSet, drop_tags, even_subset
from gap_mllm.processing.data.scene_sample import SceneSample, View


def test_batches_hold_each_question_once_in_sorted_order(questions):
    batches = make_batches(questions, 3)
    assert [len(batch) for batch in batches] == [3, 1]
    assert sorted(sum(batches, [])) == sorted(questions.ids)
    assert sum(batches, []) == sorted(questions.ids)  # equal shapes and prompts: by id
    assert make_batches(questions.select(reversed(questions.ids)), 3) == batches


def test_batch_size_must_be_positive(questions):
    with pytest.raises(ValueError, match="batch_size is 0"):
        make_batches(questions, 0)


def test_partners_are_other_scenes_of_equal_shape(questions):
    partners = choose_partners(questions)
    scenes = {row_id: questions.sample(row_id).scene_id for row_id in questions.ids}
    assert all(scenes[row_id] != scenes[partner] for row_id, partner in partners.items())
    assert sorted(partners.values()) == sorted(questions.ids)
    assert choose_partners(questions.select(questions.ids[:1])) is None


def test_an_even_subset_takes_one_of_each_part():
    ids = [f"{number:03d}" for number in range(100)]
    chosen = even_subset(ids, 10, seed=3)
    assert [int(row_id) // 10 for row_id in chosen] == list(range(10))
    assert chosen == even_subset(ids, 10, seed=3) != even_subset(ids, 10, seed=4)
    assert even_subset(ids, 100) == ids


def test_another_plan_in_the_folder_is_refused(tmp_path):
    save_or_check_plan(tmp_path, {"batch_size": 4, "seed": 0, "batches": [["a"]]})
    save_or_check_plan(tmp_path, {"batch_size": 4, "seed": 0, "batches": [["a"]]})
    with pytest.raises(ValueError, match=r"batch_size: 4 there, 8 now\)"):
        save_or_check_plan(tmp_path, {"batch_size": 8, "seed": 0, "batches": [["a"]]})


def test_parts_of_files_of_a_killed_run_go(tmp_path):
    place = tmp_path / "batches" / "model"
    place.mkdir(parents=True)
    for part in (tmp_path / "plan.json.999999999.part", place / "000000.jsonl.999999999.part"):
        part.touch()
    for _ in range(2):
        save_or_check_plan(tmp_path, {"batch_size": 4, "seed": 0, "batches": [["a"]]})
        assert not list(tmp_path.rglob("*.part"))
        (place / "000001.jsonl.999999999.part").touch()


def test_questions_must_be_there_and_unique(questions):
    rows = questions._rows
    with pytest.raises(ValueError, match="has no questions"):
        QuestionSet(rows.select([]))
    with pytest.raises(ValueError, match=f"twice or more: {questions.ids[1]}"):
        QuestionSet(rows.select([0, 1, 1]))


def test_tags_go_with_the_names_of_their_frames():
    question = "Frame-0: <image>Frame-1: <image>\nWhere is <image>it?"
    assert drop_tags(question, 1) == "Frame-0: <image>Where is it?"
    assert drop_tags(question, 0) == "Where is it?"


def test_pictures_are_told_apart_by_file_or_content(questions):
    samples = list(questions)
    assert len({view_set(sample) for sample in samples}) == 4
    assert view_set(samples[0]) == view_set(questions.sample(samples[0].id))
    views = [View(picture={"path": "one.png", "bytes": content}) for content in (b"a", b"b", None)]
    assert len({view_set(SceneSample(views=(view,))) for view in views}) == 3
