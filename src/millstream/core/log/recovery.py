"""What to do with a log that was not closed in good order: pure decisions over what a scan found.

Where a crash or a lost page can have left its mark is only behind the recovery point. From the segment that holds it
on (or from the newest usable snapshot of the producers' state, where that is older) every segment is scanned. Then:

- What follows the last valid batch of the whole log is a torn tail: it is cut off, and segments without any valid batch
  behind it are dropped, but for an empty one that continues the log (it had just been rolled).
- Damage with a valid batch anywhere behind it is no torn tail: it stays, is reported and not served, and nothing is
  dropped. Nor is a whole batch whose base offset lies, wherever it stands: no torn write looks like that.
- Checkpoints bound nothing: a recovery point or a log start behind the log's end is stale or torn itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from millstream.core.log.damage import CorruptRange
from millstream.core.log.segment_scan import SegmentScan


class SegmentVerdict(NamedTuple):
    """What becomes of one scanned segment."""

    base_offset: int
    size_bytes: int  # cut to this many bytes (as it is, where that is its size)
    drop: bool


@dataclass(slots=True)
class RecoveryPlan:
    """What becomes of the scanned part of a log."""

    verdicts: list[SegmentVerdict]
    log_end_offset: int
    corrupt_ranges: list[CorruptRange] = field(default_factory=list)
    truncated_bytes: int = 0


def first_offset_to_scan(
    base_offsets: Sequence[int],
    snapshot_offsets: Sequence[int],
    recovery_point: int,
    *,
    clean: bool,
    log_end_offset: int,
) -> int | None:
    """Return the base offset of the first segment to scan, None where nothing has to be.

    `base_offsets` ascend and are not empty. After a clean stop the producers' state before log_end_offset must be at
    hand.
    """
    newest = max(snapshot_offsets, default=base_offsets[0])
    if clean and (newest == log_end_offset or log_end_offset == base_offsets[0]):
        return None
    usable = {base_offsets[0], *set(snapshot_offsets).intersection(base_offsets)}
    return max((offset for offset in usable if offset <= recovery_point), default=base_offsets[0])


def plan_recovery(scans: Sequence[SegmentScan]) -> RecoveryPlan:
    """Decide over the scanned end of a log, segments in order; see the module's text."""
    assert scans, "a log has a segment"
    last = max((index for index, scan in enumerate(scans) if scan.batches or scan.damage), default=0)
    plan = RecoveryPlan([], scans[last].next_offset)
    for index, scan in enumerate(scans):
        plan.corrupt_ranges.extend(scan.damage)
        if index < last:
            if scan.valid_bytes < scan.size_bytes:
                end_offset = max(scan.next_offset, scans[index + 1].base_offset)
                plan.corrupt_ranges.append(
                    CorruptRange(scan.base_offset, scan.valid_bytes, scan.size_bytes, scan.next_offset, end_offset)
                )
            plan.verdicts.append(SegmentVerdict(scan.base_offset, scan.size_bytes, drop=False))
            continue
        plan.truncated_bytes += scan.size_bytes - scan.valid_bytes
        continues = index == last or (
            index == last + 1
            and scan.base_offset == scans[last].next_offset
            and scans[last].valid_bytes == scans[last].size_bytes
        )
        plan.verdicts.append(SegmentVerdict(scan.base_offset, scan.valid_bytes, drop=not continues))
    return plan
