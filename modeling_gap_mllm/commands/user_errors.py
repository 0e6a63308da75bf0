"""Which errors the `gap-mllm` command tells in one line, and what it adds to those of a machine that is full.

They are those of the user's arguments, files and machine; a fault of the program keeps its traceback.
"""

import errno
import re


_MEMORY = (
    "Use smaller batches (in training, with as many more gradient_accumulation_steps, or gradient_checkpointing), "
    "fewer or smaller views, or another device."
)
_DISK = "Free some space (in training, save_total_limit keeps few checkpoints), and run again."
_KINDS = (ValueError, OSError, ImportError, MemoryError, FloatingPointError)
_ADVICE = {  # by what the message holds
    "out of memory": _MEMORY,
    "allocate memory": _MEMORY,
    "DataLoader worker (pid": "A process of the data loader was ended, as when memory runs out: use fewer of them.",
    "No space left on device": _DISK,
    "inline_container": _DISK,  # how torch says that a file could not be written to its end
}


def is_user_error(error: Exception) -> bool:
    """Whether one line says enough."""
    if isinstance(error, _KINDS) or type(error).__name__ == "SafetensorError":
        return True
    return isinstance(error, RuntimeError) and bool(advice(error))


def advice(error: Exception) -> str:
    """What to do where memory or disk is full, or nothing."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return _MEMORY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _DISK
    return next((what for sign, what in _ADVICE.items() if sign in str(error)), "")


def error_line(error: Exception) -> str:
    """Return what an error says, in one line.

    A data loader's worker wraps its error's message in its traceback, behind "Caught .. in DataLoader worker process";
    what comes back is the message that the error had there.
    """
    text = str(error)
    wrapped = re.match(r"Caught (\w+) in .*\nOriginal ", text)
    if wrapped:
        # The traceback ends with the error's name, after the package's name where it is not built in, and message.
        name = rf"(?m)^(?:Original )?(?:\w+\.)*{wrapped[1]}(?:: |$)"
        text = re.split(name, text)[-1].strip() or f"{wrapped[1]} in a process of the data loader"
    return " ".join(text.split())
