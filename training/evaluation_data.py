"""What recipes say about rows and rooms, checked before anything is read; and the rows that evaluations look at."""

from transformers import TrainingArguments

from ..processing.data import load_multiview


def check_evaluation(recipe_args: object, args: TrainingArguments):
    """Refuse, before anything is read, what would fail late or never be looked at.

    Args:
        recipe_args: arguments of a recipe, with `data`, `eval_data` and `num_rooms`, and maybe `num_selection_rooms`.
        args (`TrainingArguments`)
    Raises:
        ValueError: for `num_selection_rooms` with `data`, `eval_data` without it or streamed, either without
            `eval_strategy`, or `num_rooms` below 1.
    """
    num_selection_rooms = getattr(recipe_args, "num_selection_rooms", 0)
    if recipe_args.data and num_selection_rooms:
        raise ValueError("num_selection_rooms asks about rooms; with data, give a scorer of your own.")
    if recipe_args.eval_data and not recipe_args.data:
        raise ValueError("eval_data goes with data; it names rows like those that are trained on.")
    if recipe_args.eval_data.get("streaming"):
        raise ValueError("eval_data has streaming=True; every evaluation reads its rows again, so prepare them.")
    if recipe_args.num_rooms is not None and recipe_args.num_rooms < 1:
        raise ValueError(f"num_rooms is {recipe_args.num_rooms}; expected 1 or more.")
    for name, value in {"num_selection_rooms": num_selection_rooms, "eval_data": recipe_args.eval_data}.items():
        if value and args.eval_strategy == "no":
            raise ValueError(
                f"{name} is {value}, but eval_strategy is 'no', so nothing would be evaluated. Say when: for example "
                "--eval_strategy steps --eval_steps 100."
            )


def evaluation_rows(data: dict, eval_data: dict):
    """Load the rows of `eval_data`: of the source of `data` where it names none, the split "val" where it names none.

    Args:
        data (`dict`), eval_data (`dict`): arguments of `load_multiview`.
    Returns:
        `datasets.Dataset`.
    Raises:
        as `load_multiview`.
    """
    base = {} if "name" in eval_data else {**data, "streaming": False}
    return load_multiview(**{**base, "split": "val", **eval_data})


__all__ = ["check_evaluation", "evaluation_rows"]
