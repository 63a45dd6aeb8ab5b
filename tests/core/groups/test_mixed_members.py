"""Groups whose members speak both protocols, on a log that delays, fails and is compacted: see `group_simulation`."""

from __future__ import annotations

import os

import pytest
from tests.support.group_simulation import simulate

SEEDS_PER_TEST = 10
TESTS = 200 if os.environ.get("MILLSTREAM_SOAK") == "1" else 1


@pytest.mark.parametrize("first", range(0, TESTS * SEEDS_PER_TEST, SEEDS_PER_TEST))
def test_whatever_happens(first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        simulate(seed)
