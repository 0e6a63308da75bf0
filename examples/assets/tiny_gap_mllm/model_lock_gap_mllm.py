"""One lock for each model: generate() leaves state on it (positions of the last scene), so calls must not overlap."""

import threading

from transformers import PreTrainedModel


LOCK_NAME = "_generation_lock"


class ModelLock:
    """A re-entrant lock that a model carries; copies of the model, also in other processes, get one of their own."""

    def __init__(self):
        self._lock = threading.RLock()

    def __enter__(self):
        self._lock.acquire()
        return self

    def __exit__(self, *error):
        self._lock.release()

    def __reduce__(self):
        return ModelLock, ()


def model_lock(model: PreTrainedModel) -> ModelLock:
    """Return the lock of a model, for a `with` block, the same whichever copy of this code asks for it."""
    return vars(model).setdefault(LOCK_NAME, ModelLock())


__all__ = ["ModelLock", "model_lock"]
