"""Questions from any scene with depth, poses and boxes: `make_tasks` asks what is clear, `TASK_MAKERS` names how."""

from .held_out_phrasings import HELD_OUT
from .making import REPEATED, TASK_MAKERS, MadeTasks, make_tasks
from .margins import TaskMargins
from .task_scene import CannotAskError, Draft, TaskScene
from .templates import TEMPLATES, choice_answer, count_answer, number_answer


__all__ = [
    "HELD_OUT",
    "REPEATED",
    "TASK_MAKERS",
    "TEMPLATES",
    "CannotAskError",
    "Draft",
    "MadeTasks",
    "TaskMargins",
    "TaskScene",
    "choice_answer",
    "count_answer",
    "make_tasks",
    "number_answer",
]
