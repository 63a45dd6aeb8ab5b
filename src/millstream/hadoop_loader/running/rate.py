"""A job's rate limits, shared out among the splits that run at once. Pure: time is passed in.

A batch is read whole and waited for afterwards, which at a low rate takes longer than a silent worker is left alive: so
the wait is said in pauses of at most PAUSE_S, between which the worker tells that it lives and looks whether to stop.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import SourceSettings

PAUSE_S: Final = 10.0


class RateLimit:
    """Says how long to wait so that bytes and records stay below their rates."""

    def __init__(self, bytes_per_s: float | None, records_per_s: float | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._records_per_s = records_per_s
        # When all that was read so far may have been read at the earliest.
        self._due_at: float | None = None

    @classmethod
    def of(cls, source: SourceSettings, shares: int) -> Self:
        """Return one part in so many of a job's limits."""
        bytes_per_s, records_per_s = source.rate_limit_bytes_per_s, source.rate_limit_records_per_s
        return cls(
            None if bytes_per_s is None else bytes_per_s / shares,
            None if records_per_s is None else records_per_s / shares,
        )

    def pauses(self, records: int, size_bytes: int, now_s: float) -> Iterator[float]:
        """Yield the pauses, in seconds, to be made one after the other after these were read."""
        left = self.delay_s(records, size_bytes, now_s)
        while left > 0:
            yield min(left, PAUSE_S)
            left -= PAUSE_S

    def delay_s(self, records: int, size_bytes: int, now_s: float) -> float:
        """Return how long to wait after these were read."""
        took = 0.0
        if self._bytes_per_s is not None:
            took = size_bytes / self._bytes_per_s
        if self._records_per_s is not None:
            took = max(took, records / self._records_per_s)
        if not took:
            return 0.0
        # Time that was not used is lost: a burst after a pause would be above the rate.
        self._due_at = max(now_s, self._due_at or 0.0) + took
        return self._due_at - now_s
