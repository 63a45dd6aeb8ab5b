"""The broker's clock: injected, so that a test can move it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for what is written down, monotonic time for how long something takes; both in milliseconds."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, as they stand in records."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds since some moment; never moves back."""
        ...


class SystemClock:
    """The machine's."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000
