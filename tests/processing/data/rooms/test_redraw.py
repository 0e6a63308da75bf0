"""Rooms that stand in for others: which ones, how long they are drawn, and the test rooms, which need none."""

import pickle
from collections import Counter

import pytest

from gap_mllm.processing.data import ROOM_TASKS, SPLIT_SEEDS, CannotAskError, make_question, render_room, room_seed
from gap_mllm.processing.data.rooms import first_askable
from gap_mllm.processing.data.rooms.redraw import MAX_DRAWS
from gap_mllm.processing.data.rooms.room_scenes import make_questions
from tests.processing.data.room_samples import check_stream


def refuse(attempt):
    raise CannotAskError(f"room {attempt} is bare.", reason="bare")


def test_stand_ins_are_other_rooms_of_the_split_and_always_the_same():
    for split, seeds in SPLIT_SEEDS.items():
        drawn = [room_seed(split, index, attempt) for index in range(40) for attempt in range(1, 6)]
        assert set(drawn) <= set(seeds) and len(set(drawn)) > 195
        assert drawn == [room_seed(split, index, attempt) for index in range(40) for attempt in range(1, 6)]
        assert room_seed(split, 7, 0) == room_seed(split, 7) == seeds[7]
        assert max(drawn) - min(drawn) > 0.8 * len(seeds)
    with pytest.raises(ValueError, match="index is 100000"):
        room_seed("test", 100_000, 1)


def test_the_first_askable_is_taken_and_the_others_are_told():
    told = []
    assert first_askable(lambda attempt: attempt if attempt == 3 else refuse(attempt), told.append) == 3
    assert [(str(error), error.reason) for error in told] == [(f"room {n} is bare.", "bare") for n in range(3)]
    assert first_askable(lambda attempt: attempt) == 0


def test_other_errors_are_no_reason_to_draw_again():
    with pytest.raises(ValueError, match="tasks names 'segmentation'"):
        first_askable(lambda attempt: make_question(render_room(attempt, 1, 8, 8), "segmentation"))


def test_where_no_room_can_be_asked_about_the_last_reason_is_given():
    told = []
    with pytest.raises(
        CannotAskError, match="32 rooms in a row cannot be asked about; the last: room 31 is bare. Ask"
    ) as caught:
        first_askable(refuse, told.append)
    assert len(told) == MAX_DRAWS and caught.value.reason == "bare"


def test_the_error_crosses_processes_with_its_reason():
    error = pickle.loads(pickle.dumps(CannotAskError("room 3 is bare", reason="bare")))
    assert (str(error), error.reason) == ("room 3 is bare", "bare")
    assert CannotAskError("bare").reason == "bare" and isinstance(error, ValueError)


@pytest.mark.slow
def test_test_rooms_can_be_asked_nearly_everything():
    """128 rooms of the quickstart's test: two marks each; what little else cannot be asked is said why."""
    refused, asked = Counter(), []
    for index in range(5000, 5128):
        scene = render_room(room_seed("test", index), height=96, width=96, use_colors=False)
        asked.append(make_questions(scene, "reconstruction", 2))
        assert len(asked[-1]) == 2
        for task in ROOM_TASKS[1:]:
            try:
                asked.append([make_question(scene, task)])
            except CannotAskError as error:
                assert str(error).startswith(
                    f"room {scene.seed} cannot be asked a question of {task!r} in its 4 views"
                )
                refused[task] += 1
    assert refused["detection3d"] == refused["grounding_box"] == 0 and refused.total() <= 6
    check_stream(sum(asked, []), "816378a8f32e28ec")
