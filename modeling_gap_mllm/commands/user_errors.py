"""Which errors the `gap-mllm` command tells in one line, and what it adds to those of a machine that is full.

They are those of the user's arguments, files and machine; a fault of the program keeps its traceback.
"""

_KINDS = (ValueError, OSError, ImportError, MemoryError, FloatingPointError)
_ADVICE = {  # by what the message holds
    "out of memory": "Use smaller batches, fewer or smaller views, or another device.",
    "allocate memory": "Use smaller batches, fewer or smaller views, or another device.",
    "DataLoader worker (pid": "A process of the data loader was ended, as when memory runs out: use fewer of them.",
    "No space left on device": "Free some space, and run again.",
}


def is_user_error(error: Exception) -> bool:
    """Whether one line says enough."""
    if isinstance(error, _KINDS) or type(error).__name__ == "SafetensorError":
        return True
    return isinstance(error, RuntimeError) and bool(advice(error))


def advice(error: Exception) -> str:
    """What to do where memory or disk is full, or nothing."""
    if isinstance(error, MemoryError):
        return _ADVICE["out of memory"]
    return next((what for sign, what in _ADVICE.items() if sign in str(error)), "")


__all__ = ["advice", "is_user_error"]
