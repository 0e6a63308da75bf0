"""What making a batch left out or changed: counted, said, and carried by the batch to the trainer's log.

Batches are often made in other processes than the one that trains; what is only counted there is never seen.
"""

from collections import Counter

import torch
from transformers.utils import logging


logger = logging.get_logger(__name__)

# In the order of `collation_counts`: rows that lost views, rows that lost pixels, views that have no dense target,
# rooms in whose place another was drawn, further encodings of views that questions of one item could not share, and of
# scenes whose geometry features are kept, those that were found and those that were not; terms for which a scene
# has nothing.
COLLATION_EVENTS = ("views_dropped", "pixels_reduced", "views_without_depth", "rooms_redrawn", "encoded_apart")
COLLATION_EVENTS += ("scenes_from_cache", "scenes_encoded", "terms_without_items")


class CollationEvents:
    """Counts of `COLLATION_EVENTS` in this process: in all (`totals`), and since the last batch."""

    def __init__(self):
        self.totals, self._since = Counter(), Counter()

    def add(self, event: str, sample_id: str, text: str, number: int = 1):
        """Count an event of a row, and log the first and each count of more digits: tenth, hundredth, ..."""
        before = self.totals[event]
        after = self.count(event, number)
        if before == 0 or len(str(after)) > len(str(before)):
            logger.warning(f"{event}: {after} so far; the last row, {sample_id!r}, has {text}.")

    def count(self, event: str, number: int) -> int:
        """Count an event without a word about it; returns the count so far."""
        self._since[event] += number
        self.totals[event] += number
        return self.totals[event]

    def take(self):
        """Return what was counted since the last call, `torch.Tensor` of shape `(len(COLLATION_EVENTS),)`, int64."""
        taken = torch.tensor([self._since[event] for event in COLLATION_EVENTS])
        self._since.clear()
        return taken


def pop_hit_rate(events: Counter) -> float | None:
    """Take both counts of scenes out of `events`; returns the share that came from the cache, None without one."""
    found, encoded = (events.pop(event, 0) for event in ("scenes_from_cache", "scenes_encoded"))
    return found / (found + encoded) if found + encoded else None
