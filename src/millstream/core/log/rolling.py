"""When a log's active segment is full: what it can still take, worked out once and compared on every append.

A segment is rolled before a batch that would make it larger than segment.bytes, that lies more than 2**31 - 1 offsets
behind its base, whose timestamp is segment.ms (less a jitter) behind the segment's first, or that would overfill an
index.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from millstream.core.log.config import LogConfig
from millstream.core.log.offset_index import ENTRY_SIZE as OFFSET_ENTRY_SIZE
from millstream.core.log.offset_index import RELATIVE_OFFSET_MAX
from millstream.core.log.segment import Segment
from millstream.core.log.time_index import ENTRY_SIZE as TIME_ENTRY_SIZE

_FOR_EVER: Final = 2**63


class RollLimits(NamedTuple):
    """What `segment` may grow to without being rolled."""

    segment: Segment
    config: LogConfig
    size_bytes: int  # 0 for an empty segment: its first batch is written alone, and sets the time
    end_offset: int
    timestamp: int
    index_has_place: bool
    leader_epoch: (
        int  # the log's latest: a batch of another one changes the checkpoint, so it is not written on the loop
    )

    def allow(self, size_bytes: int, end_offset: int, timestamp: int) -> bool:
        """Whether the segment may grow to this."""
        return size_bytes <= self.size_bytes and end_offset <= self.end_offset and timestamp <= self.timestamp

    def allow_batch(self, size_bytes: int, end_offset: int, timestamp: int) -> bool:
        """Whether the segment may grow to this by one batch, which brings one index entry at most."""
        return (
            self.index_has_place
            and size_bytes <= self.config.segment_bytes
            and end_offset <= self.end_offset
            and timestamp <= self.timestamp
        )


def roll_limits(segment: Segment, config: LogConfig, partition: int, leader_epoch: int, now_ms: int) -> RollLimits:
    """Work out the limits of the active segment as it is now."""
    end_offset = segment.base_offset + RELATIVE_OFFSET_MAX + 1
    if not segment.size_bytes:
        return RollLimits(segment, config, 0, end_offset, _FOR_EVER, True, leader_epoch)
    assert segment.offset_index is not None, f"{segment.stem} is not active"
    assert segment.time_index is not None, f"{segment.stem} is not active"
    # The last place of the time index is for the entry that seals it.
    places = min(
        config.segment_index_bytes // OFFSET_ENTRY_SIZE - len(segment.offset_index),
        config.segment_index_bytes // TIME_ENTRY_SIZE - 1 - len(segment.time_index),
    )
    # So many bytes cannot bring more entries than there are places; worked out again when they are used up.
    size_bytes = segment.size_bytes - segment.bytes_since_index + places * (config.index_interval_bytes + 1)
    open_ms = config.roll_ms - _jitter_ms(segment, config, partition)
    if segment.first_timestamp >= 0:
        timestamp = segment.first_timestamp + open_ms
    else:
        timestamp = _FOR_EVER if now_ms - segment.created_ms <= open_ms else -_FOR_EVER
    size_bytes = min(size_bytes, config.segment_bytes)
    return RollLimits(segment, config, size_bytes, end_offset, timestamp, places > 0, leader_epoch)


def _jitter_ms(segment: Segment, config: LogConfig, partition: int) -> int:
    # Spread over partitions and segments, so that logs created together do not roll together.
    jitter_ms = min(config.segment_jitter_ms, config.roll_ms)
    return hash((partition, segment.base_offset)) % jitter_ms if jitter_ms > 0 else 0
