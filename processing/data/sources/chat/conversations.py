"""One question and one answer out of the chat records that this field shares.

`conversations` is [{"from": "human" | "gpt", "value": text}] or [{"role": "user" | "assistant", "content": text}].
"""

from ....prompts_gap_mllm import IMAGE_TAG
from ...record_errors import RecordError


_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def read_conversation(record: dict) -> tuple[str | None, str, str | None]:
    """Return system text, question and answer, verbatim; an empty answer is None (test files have no answers).

    Raises:
        RecordError: if there is not one question followed by at most one answer.
    """
    turns = record.get("conversations", record.get("messages"))
    if not isinstance(turns, list):
        raise RecordError(f"expected a list of turns, got {type(turns).__name__}.", "conversations")
    read = []
    for index, turn in enumerate(turns):
        role = _ROLES.get(turn.get("from", turn.get("role"))) if isinstance(turn, dict) else None
        text = turn.get("value", turn.get("content")) if role else None
        if not isinstance(text, str):
            raise RecordError(f"turn {index} has no known role and text.", "conversations")
        read.append((role, text))
    system = read.pop(0)[1] if read and read[0][0] == "system" else None
    if [role for role, _ in read] not in (["user"], ["user", "assistant"]):
        raise RecordError(
            f"expected one question and one answer, got turns of {[role for role, _ in read]}.", "conversations"
        )
    return system, read[0][1], (read[1][1] or None) if len(read) == 2 else None


def check_tags(question: str, num_views: int, tag: str = IMAGE_TAG) -> None:
    """Raise RecordError if a text has tags of views, but not one for each."""
    count = question.count(tag)
    if count and count != num_views:
        raise RecordError(f"the text holds {count} {tag} tags for {num_views} views.", "conversations")


__all__ = ["check_tags", "read_conversation"]
