"""How long to wait before trying again: longer each time up to a bound, and never all clients at once (KIP-580)."""

from __future__ import annotations

import random
from typing import Final

JITTER: Final = 0.2
_DOUBLINGS_MAX: Final = 32


class Backoff:
    """Pauses between `first_s` and `longest_s`, each varied by JITTER either way."""

    __slots__ = ("_first_s", "_longest_s", "_random")

    def __init__(self, first_s: float, longest_s: float, *, generator: random.Random | None = None) -> None:
        self._first_s = first_s
        # A first pause over the longest one holds, as Kafka's clients have it.
        self._longest_s = max(first_s, longest_s)
        self._random = generator or random.Random()

    def pause_s(self, failures: int) -> float:
        """Return the pause after `failures` in a row; none after 0."""
        if failures <= 0:
            return 0.0
        pause_s = min(self._longest_s, self._first_s * 2.0 ** min(failures - 1, _DOUBLINGS_MAX))
        return pause_s * self._random.uniform(1 - JITTER, 1 + JITTER)
