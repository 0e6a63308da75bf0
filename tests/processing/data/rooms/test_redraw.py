"""Rooms that stand in for others: which ones, how long they are drawn, and the test rooms, which need none."""

import hashlib
import pickle

import pytest

from gap_mllm.processing.data import ROOM_TASKS, SPLIT_SEEDS, CannotAskError, make_question, render_room, room_seed
from gap_mllm.processing.data.rooms import first_askable
from gap_mllm.processing.data.rooms.redraw import MAX_DRAWS


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
    with pytest.raises(ValueError, match="task is 'segmentation'"):
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


def test_test_rooms_are_asked_what_they_always_were():
    """128 rooms of the quickstart's test; the hash was made before rooms could stand in for others."""
    digest = hashlib.sha256()
    for index in range(5000, 5128):
        scene = render_room(room_seed("test", index), height=96, width=96, use_colors=False)
        for task in ROOM_TASKS:
            for number in range(2):
                q = make_question(scene, task, number)
                marks = [(mark.view, tuple(mark.pixel), mark.color) for mark in q.marks]
                truth = (q.instances, q.labels, q.target_frame, q.description, q.references, marks)
                digest.update(repr((q.task, q.question, q.answer, *truth)).encode())
    assert digest.hexdigest() == "257bb2b94ce6f08c1ad861e121d1fd5fcd2ee21b397a762ab7bc13297a736204"
