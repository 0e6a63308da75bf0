"""Cases of a parametrised test of which only some are run every time; the others are marked slow."""

from collections.abc import Iterable

import pytest


def slow_but(core: tuple, cases: Iterable) -> list:
    """The cases, those that are not in `core` marked slow."""
    return [case if case in core else pytest.param(case, marks=pytest.mark.slow) for case in cases]
