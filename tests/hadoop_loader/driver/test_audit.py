"""The audit adds up what a run did, and names whatever does not add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from millstream.hadoop_loader.driver.audit import Audit, audit_run
from millstream.hadoop_loader.splits import (
    FileKind,
    Gap,
    GapReason,
    OffsetRange,
    RangeRead,
    StagedFile,
    TopicPartitionId,
)


def staged(first: int, last: int, rows: int, format_: str = "avro", kind: FileKind = FileKind.DATA) -> StagedFile:
    return StagedFile(
        f"s/{first}.{format_}", "t", "", format_, "t", "id", 0, first, last, rows, 1, "crc32c:00000000", 0, 0, kind
    )


class Run:
    """A run of one partition in two splits: offsets 100 to 120, of which 103 is bad, 104 a tombstone, 110 a marker."""

    def __init__(self) -> None:
        self.planned = [OffsetRange("t", "id", 0, 1, 100, 110), OffsetRange("t", "id", 0, -1, 110, 120)]
        self.reads = [
            RangeRead("t", "id", 0, 100, 110, 1, 8, 1, 1, 1, 80, 5),
            RangeRead("t", "id", 0, 110, 120, 1, 9, 0, 0, 0, 90, 6),
        ]
        self.gaps = [Gap("id", 0, 110, 110, GapReason.CONTROL, 1)]
        self.files = [
            staged(100, 109, 8),
            staged(100, 109, 8, "parquet"),
            staged(111, 119, 5),
            staged(112, 118, 4, kind=FileKind.LATE),
            staged(111, 119, 9, "parquet"),
            staged(103, 103, 1, kind=FileKind.DEAD_LETTERS),
        ]
        self.ends = {TopicPartitionId("id", 0): 125}

    def audit(self) -> Audit:
        return audit_run(self.planned, self.reads, self.gaps, self.files, self.ends, {"avro", "parquet"})


def test_a_run_that_adds_up() -> None:
    audit = Run().audit()

    assert audit.problems == []
    assert (audit.offsets, audit.rows, audit.bad, audit.tombstones_left_out, audit.gap_offsets) == (20, 17, 1, 1, 1)
    assert audit.lag == 5
    assert audit.gaps == {"id": {"control": 1}}
    [partition] = audit.partitions.values()
    assert (partition.start_offset, partition.next_offset, partition.end_offset) == (100, 120, 125)


def test_what_retention_took_is_told_apart() -> None:
    run = Run()
    audit = run.audit()
    audit.add_known_gaps([Gap("id", 0, 90, 99, GapReason.RETENTION, 10)])

    assert audit.lost_offsets == 10
    assert audit.gaps == {"id": {"control": 1, "retention": 10}}


def lose_a_row(run: Run) -> None:
    run.reads[0] = replace(run.reads[0], rows=7)


def read_twice(run: Run) -> None:
    run.reads[1] = replace(run.reads[1], start_offset=109)


def leave_a_hole(run: Run) -> None:
    run.reads[1] = replace(run.reads[1], start_offset=111)


def stop_short(run: Run) -> None:
    run.reads[1] = replace(run.reads[1], next_offset=119, rows=8)


def lose_a_range(run: Run) -> None:
    run.reads.clear()


def lose_a_file(run: Run) -> None:
    del run.files[1]


def write_a_file_twice(run: Run) -> None:
    run.files.append(run.files[0])


def lose_dead_letters(run: Run) -> None:
    run.files.pop()


def stray_file(run: Run) -> None:
    run.files.append(staged(119, 120, 0))


def stray_gap(run: Run) -> None:
    run.gaps.append(Gap("id", 0, 99, 99, GapReason.COMPACTION, 1))


def unexplained_gap(run: Run) -> None:
    run.gaps.clear()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lose_a_row, "together 19"),
        (read_twice, "should meet"),
        (leave_a_hole, "should meet"),
        (stop_short, "100 to 119 were read, 100 to 120 were to be"),
        (lose_a_range, "nothing was told"),
        (lose_a_file, "parquet files hold 9"),
        (write_a_file_twice, "avro files hold 25"),
        (lose_dead_letters, "dead letters hold 0"),
        (stray_file, "outside of what was read"),
        (stray_gap, "outside of what was read"),
        (unexplained_gap, "0 in gaps"),
    ],
)
def test_whatever_does_not_add_up_is_named(damage: Callable[[Run], None], complaint: str) -> None:
    run = Run()
    damage(run)

    assert any(complaint in problem for problem in run.audit().problems), run.audit().problems
