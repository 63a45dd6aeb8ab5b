"""The segments of one log, in the order of their base offsets.

Replaced as a whole on every change (a roll, a deletion, a truncation are rare), so that a reader on any thread sees a
list that was true at one moment. Changed by the holder of the log's write lock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from millstream.core.log.errors import SegmentReplacedError
from millstream.core.log.segment import Segment


class Segments:
    """A sorted list of segments; the last one is active. A log always has one."""

    __slots__ = ("_view",)

    def __init__(self, segments: Iterable[Segment]) -> None:
        self.replace(segments)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._view[1])

    def __len__(self) -> int:
        return len(self._view[1])

    @property
    def items(self) -> tuple[Segment, ...]:
        """All of them; another object after each change."""
        return self._view[1]

    @property
    def active(self) -> Segment:
        return self._view[1][-1]

    @property
    def first(self) -> Segment:
        return self._view[1][0]

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self._view[1])

    def replace(self, segments: Iterable[Segment]) -> None:
        """Put these in place of all."""
        items = tuple(sorted(segments, key=lambda segment: segment.base_offset))
        self._view = ([segment.base_offset for segment in items], items)

    def add(self, segment: Segment) -> None:
        """Append a new active segment."""
        self.replace((*self._view[1], segment))

    def holding(self, offset: int) -> Segment | None:
        """Return the segment in whose range `offset` lies, None before the first."""
        bases, items = self._view
        found = bisect_right(bases, offset) - 1
        return items[found] if found >= 0 else None

    def after(self, segment: Segment) -> Segment | None:
        """Return the segment behind this one, None for the active one.

        Raises SegmentReplacedError where it is none of these any more: what follows by its base offset need not be
        what followed it, since one that was cleaned may have taken the places of many.
        """
        bases, items = self._view
        found = bisect_right(bases, segment.base_offset)
        if not found or items[found - 1] is not segment:
            raise SegmentReplacedError(segment.stem)
        return items[found] if found < len(items) else None

    def from_offset(self, offset: int) -> list[Segment]:
        """Return the segments that may hold offsets at or behind `offset`."""
        bases, items = self._view
        return list(items[max(bisect_right(bases, offset) - 1, 0) :])
