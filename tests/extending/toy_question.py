"""A question: a maker that gives a `Draft`, its wording, and two lines of registration."""

from gap_mllm.processing.data.task_makers import TASK_MAKERS, TEMPLATES, CannotAskError, Draft, count_answer


def ask_object_kinds(scene, rng):
    """How many kinds of objects the scene has."""
    kinds = {box.label for box in scene.sample.boxes}
    if not kinds:
        raise CannotAskError("the scene lists no objects")
    facts = {"value": len(kinds)}
    return Draft("spatial_qa", "object_kinds", "object_kinds", {}, **count_answer(len(kinds), rng), facts=facts)


def register():
    TEMPLATES["object_kinds"] = ("How many kinds of objects stand in this room?", "Count the kinds of objects here.")
    TASK_MAKERS["object_kinds"] = ask_object_kinds
