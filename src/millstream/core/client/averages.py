"""What clients' metrics are made of: averages with the most there was, and rates over the last minute."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

# As Kafka's clients by default (metrics.sample.window.ms, metrics.num.samples): two windows of half a minute.
WINDOW_MS: Final = 30_000
WINDOWS_COUNT: Final = 2


@dataclass(slots=True)
class Average:
    """A running average and the most there was, since the client started."""

    total: float = 0.0
    count: int = 0
    most: float = 0.0

    def add(self, amount: float) -> None:
        """Take one more in."""
        self.total += amount
        self.count += 1
        if amount > self.most:  # a call of max() costs more than the rest of this
            self.most = amount

    @property
    def mean(self) -> float:
        """The average, 0 of nothing."""
        return self.total / self.count if self.count else 0.0


@dataclass(slots=True)
class Rate:
    """How often something happens: events in the last windows by the time these cover, and all of them."""

    total: int = 0
    # The start of each window and the events in it. Invariant: at most WINDOWS_COUNT, ascending.
    _windows: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=WINDOWS_COUNT))

    def note(self, now_ms: float) -> None:
        """One more."""
        self.total += 1
        if self._windows and now_ms < self._windows[-1][0] + WINDOW_MS:
            start, count = self._windows.pop()
            self._windows.append((start, count + 1))
        else:
            self._windows.append((now_ms, 1))

    def per_s(self, now_ms: float) -> float:
        """Return events a second; of a client that has just begun as if it had run for one window."""
        recent = [(start, count) for start, count in self._windows if now_ms < start + WINDOWS_COUNT * WINDOW_MS]
        if not recent:
            return 0.0
        covered_ms = max(now_ms - recent[0][0], (WINDOWS_COUNT - 1) * WINDOW_MS)
        return sum(count for _, count in recent) / covered_ms * 1000
