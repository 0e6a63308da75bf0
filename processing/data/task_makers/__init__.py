"""Questions from any scene with depth, poses and boxes: `make_tasks` asks what is clear, `TASK_MAKERS` names how."""

from .making import TASK_MAKERS, MadeTasks, make_tasks
from .margins import TaskMargins
from .task_scene import CannotAskError, TaskScene
from .templates import TEMPLATES


__all__ = ["TASK_MAKERS", "TEMPLATES", "CannotAskError", "MadeTasks", "TaskMargins", "TaskScene", "make_tasks"]
