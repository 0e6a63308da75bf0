"""Answers of a model about rooms that it has never seen, one of each kind of question, beside blind baselines."""

from collections.abc import Sequence

from room_measures.geometry_answers import answer_questions
from room_measures.room_tasks import ROOM_TASKS
from transformers import PreTrainedModel

from gap_mllm.evaluation.baselines import fit_baselines
from gap_mllm.processing.answers_gap_mllm import format_point
from gap_mllm.processing.asking_gap_mllm import Asker
from gap_mllm.processing.data import CannotAskError, make_question
from gap_mllm.processing.data.rooms.renderer import RoomScene
from gap_mllm.processing.drawing import AnswerExample
from gap_mllm.processing.processing_gap_mllm import GapMllmProcessor


SHOWN = (  # question, and the task of `ROOM_TASKS` that it belongs to
    ("reconstruction", "points"),
    ("reconstruction", "points"),
    ("reconstruction", "points"),
    ("grounding_box", "grounding"),
    ("left_right", "choices"),
    ("detection3d", "detection"),
)


def answer_rooms(
    model: PreTrainedModel,
    processor: GapMllmProcessor,
    rooms: Sequence[RoomScene],
    training_rooms: Sequence[RoomScene],
    shown: Sequence[tuple[str, str]] = SHOWN,
) -> list[AnswerExample]:
    """Ask one question of each room: about marked pixels, a described object, left and right, and all furniture.

    A room that does not allow its question is passed over, so give some more. Blind baselines are fitted on training
    rooms: of a marked pixel the median at that pixel and the commonest name, of a box that of its label.

    Args:
        model (`GapMllmForConditionalGeneration`): model in evaluation mode.
        processor (`GapMllmProcessor`): its processor.
        rooms (`list[RoomScene]`): rooms that the model has never seen.
        training_rooms (`list[RoomScene]`): rooms of the split "train".
        shown (`list[tuple[str, str]]`, defaults to `SHOWN`): questions, by task maker, and their keys of `ROOM_TASKS`.
    Returns:
        `list[AnswerExample]`: for `draw_answers`.
    """
    baselines, waiting = fit_baselines(training_rooms), list(rooms)
    asker, examples = Asker(model, processor), []
    for maker, task in shown:
        room, question = _first_askable(waiting, maker)
        if question is None:
            continue
        text = answer_questions(asker, [question], ROOM_TASKS[task].form)[0]
        if task == "points":
            mark, size = question.marks[0], question.views[question.marks[0].view].size
            point = baselines.points_at([mark.view], [mark.xy], size)[0]
            blind = format_point(baselines.labels_at([mark.xy], size)[0], point)
        else:
            known = [asked for each in training_rooms if (asked := _first_askable([each], maker)[1]) is not None]
            blind = ROOM_TASKS[task].blind(known)(question) if known else None
        examples.append(AnswerExample(room, question, text, blind))
    return examples


def _first_askable(rooms, maker):
    """Take rooms off a list until one allows the question; neither where none does."""
    while rooms:
        room = rooms.pop(0)
        try:
            return room, make_question(room, maker)
        except CannotAskError:
            continue
    return None, None
