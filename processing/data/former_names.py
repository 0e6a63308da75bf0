"""Names that tasks had before: read where users and stored rows give them, never written.

Whoever takes tasks from a user (`make_tasks`, recipes, the options of sources, rows of a file) asks `task_name` or
`with_task_names`, so that everything behind knows one name only.
"""

FORMER_NAMES = {"marked_pixel": "reconstruction", "detection": "detection3d", "object_caption": "dense_caption"}


def task_name(name: str) -> str:
    """The name of a task that is given by this or a former name; other names stay."""
    return FORMER_NAMES.get(name, name) if isinstance(name, str) else name


def with_task_names(task: str | None, question_type: str | None, metadata: dict) -> dict:
    """Read what a stored row says of its question; what other sources call by such a word stays.

    Args:
        task (`str`, *optional*), question_type (`str`, *optional*), metadata (`dict`): fields of the row.
    Returns:
        `dict`: the fields that change, "question_type" and "metadata", with the name of the task in both, or "task";
        else empty.
    """
    if (task, question_type) == ("reconstruction", "sparse_points"):  # as rows were stored before it was a task
        return {"task": "sparse_points"}
    if question_type not in FORMER_NAMES or task_name(question_type) != task:
        return {}
    named = {key: str(metadata[key]).replace(question_type, task) for key in ("maker", "template") if key in metadata}
    return {"question_type": task, "metadata": {**metadata, **named}}
