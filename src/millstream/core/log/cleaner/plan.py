"""Which part of a log may be cleaned, how much it needs it, and which segments become one: decisions, as Kafka's.

    clean part      before first_dirty_offset: one record per key, left by the cleaning before
    dirty part      up to first_uncleanable_offset: whole sealed segments below the last stable offset (and so below
                    the high watermark), older than min.compaction.lag.ms
    the rest        is not looked at

The log with the largest share of dirty bytes is cleaned first; at all only above min.cleanable.dirty.ratio, or when a
record has waited for max.compaction.lag.ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from millstream.core.log.config import UNLIMITED
from millstream.core.log.offset_index import RELATIVE_OFFSET_MAX
from millstream.core.log.segment import Segment

if TYPE_CHECKING:
    from millstream.core.log.log import Log


class LogToClean(NamedTuple):
    """One log as the cleaner found it."""

    log: Log
    first_dirty_offset: int
    first_uncleanable_offset: int  # the base offset of a segment
    clean_bytes: int
    cleanable_bytes: int
    compaction_delay_ms: int  # how long max.compaction.lag.ms has been exceeded; 0: it has not

    @property
    def cleanable_ratio(self) -> float:
        """The dirty share of what could be clean."""
        total = self.clean_bytes + self.cleanable_bytes
        return self.cleanable_bytes / total if total else 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is to be cleaned now."""
        if not self.cleanable_bytes:
            return False
        return self.compaction_delay_ms > 0 or self.cleanable_ratio > self.log.config.min_cleanable_dirty_ratio


def examine(log: Log, last_stable_offset: int, now_ms: int) -> LogToClean:
    """Look at a compacted log. May read the first batch and the last time index entry of dirty segments."""
    segments = log.segments.items
    first_dirty = log.first_dirty_offset
    if first_dirty is None or not log.log_start_offset <= first_dirty <= log.log_end_offset:
        first_dirty = log.log_start_offset  # never cleaned; or truncated, or trimmed, past what was cleaned
    # The sealed segments, each with where the next one begins.
    sealed = [(segment, following.base_offset) for segment, following in pairwise(segments)]
    dirty = [each for each in sealed if each[1] > first_dirty]
    limit = min(last_stable_offset, segments[-1].base_offset)
    lag_ms = log.config.min_compaction_lag_ms
    end, cleanable_bytes = first_dirty, 0
    for segment, following in dirty:
        if following > limit or (lag_ms > 0 and _largest_timestamp(log, segment) > now_ms - lag_ms):
            break
        end = following
        cleanable_bytes += segment.size_bytes
    return LogToClean(
        log,
        first_dirty,
        end,
        sum(segment.size_bytes for segment, following in sealed if following <= first_dirty),
        cleanable_bytes,
        _compaction_delay_ms(log, [segment for segment, _ in dirty], now_ms),
    )


def uncleaned_bytes(log: Log) -> int:
    """Return the bytes of the segments behind what has been cleaned."""
    first_dirty = log.first_dirty_offset or 0
    segments = log.segments.items
    ends = [segment.base_offset for segment in segments[1:]] + [log.log_end_offset]
    return sum(segment.size_bytes for segment, end in zip(segments, ends, strict=True) if end > first_dirty)


def group_segments(
    segments: Sequence[Segment], end_offset: int, *, segment_bytes: int, index_bytes: int
) -> list[list[Segment]]:
    """Return the segments, in order, in groups that fit one segment each; `end_offset` follows the last one."""
    ends = [segment.base_offset for segment in segments[1:]] + [end_offset]
    groups: list[list[Segment]] = []
    sizes = (0, 0, 0)
    for segment, end in zip(segments, ends, strict=True):
        own = (segment.size_bytes, segment.index_bytes, segment.time_index_bytes)
        if groups:
            together = (sizes[0] + own[0], sizes[1] + own[1], sizes[2] + own[2])
            if (
                together[0] <= segment_bytes
                and max(together[1:]) <= index_bytes
                and end - 1 - groups[-1][0].base_offset <= RELATIVE_OFFSET_MAX
            ):
                groups[-1].append(segment)
                sizes = together
                continue
        groups.append([segment])
        sizes = own
    return groups


def _largest_timestamp(log: Log, segment: Segment) -> int:
    log.load_max_timestamp(segment)
    return segment.max_timestamp if segment.max_timestamp >= 0 else segment.modified_ms


def _compaction_delay_ms(log: Log, dirty: Sequence[Segment], now_ms: int) -> int:
    lag_ms = log.config.max_compaction_lag_ms
    if lag_ms >= UNLIMITED:
        return 0
    for segment in dirty:
        segment.load_first_timestamp()
    oldest_ms = min((each.first_timestamp for each in dirty if each.first_timestamp > 0), default=now_ms)
    return max(now_ms - lag_ms - oldest_ms, 0)
