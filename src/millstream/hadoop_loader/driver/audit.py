"""The audit of a run: every offset it moved over is a row, a dead letter, left out on purpose, or a gap with a reason.

Per partition, of what is about to be committed:

    1  the ranges read follow each other from the position to where the position moves: nothing missed, nothing twice
    2  offsets == rows + bad + tombstones left out + offsets in gaps
    3  rows == rows in the data and late files of the partition, in each format; bad == rows in its dead letters
    4  a file's offsets, and those of a gap, lie within what was read of its partition
    5  after the run the position is the end offset the topic had when the run began, or the lag says how far from it

A run that does not add up is not committed: what comes out of the sum is wrong, or what went into it. Gaps for which
nobody is to blame (transaction markers, aborted records, compaction) are explained; those that retention made are
explained and told beside, because records were lost before they were loaded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from millstream.hadoop_loader.driver.report import PartitionReport
from millstream.hadoop_loader.splits import (
    FileKind,
    Gap,
    GapReason,
    OffsetRange,
    RangeRead,
    StagedFile,
    TopicPartitionId,
)


@dataclass(slots=True)
class Audit:
    """What the sums came to. `problems` is empty for a run that may be committed."""

    partitions: dict[TopicPartitionId, PartitionReport] = field(default_factory=dict)
    # Topic id -> reason -> offsets.
    gaps: dict[str, dict[str, int]] = field(default_factory=dict)
    offsets: int = 0
    rows: int = 0
    bad: int = 0
    tombstones_left_out: int = 0
    gap_offsets: int = 0
    lost_offsets: int = 0  # in gaps of retention: they had been there, and were deleted before they were loaded
    lag: int = 0
    problems: list[str] = field(default_factory=list)

    def add_known_gaps(self, gaps: Iterable[Gap]) -> None:
        """Count gaps that lie before what was to be read: retention was there before the run."""
        for gap in gaps:
            self.count_gap(gap)

    def count_gap(self, gap: Gap) -> None:
        """Count the offsets of a gap by its reason."""
        reasons = self.gaps.setdefault(gap.topic_id, {})
        reasons[gap.reason.value] = reasons.get(gap.reason.value, 0) + gap.offsets
        if gap.reason is GapReason.RETENTION:
            self.lost_offsets += gap.offsets

    def as_json(self) -> dict[str, Any]:
        """Return the totals, as they are kept in the commit log's entry."""
        return {
            "offsets": self.offsets,
            "rows": self.rows,
            "bad": self.bad,
            "tombstones_left_out": self.tombstones_left_out,
            "gap_offsets": self.gap_offsets,
            "lost_offsets": self.lost_offsets,
            "lag": self.lag,
        }


def audit_run(
    planned: Iterable[OffsetRange],
    reads: Iterable[RangeRead],
    gaps: Iterable[Gap],
    files: Sequence[StagedFile],
    end_offsets: Mapping[TopicPartitionId, int],
    formats: Iterable[str],
    *,
    dead_letters_kept: bool = True,
) -> Audit:
    """Add a run up, before it is committed; `end_offsets` are those of its partitions when it began."""
    audit = Audit()
    names: dict[TopicPartitionId, str] = {}
    parts: dict[TopicPartitionId, list[RangeRead]] = defaultdict(list)
    for read in reads:
        parts[read.topic_partition_id].append(read)
        names[read.topic_partition_id] = f"{read.topic}-{read.partition}"
    wanted: dict[TopicPartitionId, tuple[int, int]] = {}
    for one in planned:
        key = TopicPartitionId(one.topic_id, one.partition)
        start, end = wanted.get(key, (one.start_offset, one.end_offset))
        wanted[key] = min(start, one.start_offset), max(end, one.end_offset)
        names[key] = f"{one.topic}-{one.partition}"
    for key, (start, end) in wanted.items():
        if key not in parts:
            audit.problems.append(f"{names[key]}: offsets {start} to {end} were to be read, nothing was told of them")
    for key, of_partition in parts.items():
        audit.partitions[key] = _joined(
            audit, names[key], sorted(of_partition, key=lambda read: read.start_offset), wanted.get(key)
        )
    _add_gaps(audit, names, gaps)
    for key, report in audit.partitions.items():
        report.end_offset = end_offsets.get(key, report.next_offset)
        _add_sums(audit, names[key], report)
    _check_files(audit, names, files, sorted(set(formats)), dead_letters_kept)
    return audit


def _joined(audit: Audit, name: str, parts: Sequence[RangeRead], wanted: tuple[int, int] | None) -> PartitionReport:
    """Join the ranges read of one partition, in order of their offsets."""
    first = parts[0].start_offset
    report = PartitionReport(parts[0].partition, first, first, 0)
    for read in parts:
        if read.start_offset != report.next_offset:
            audit.problems.append(
                f"{name}: offsets {report.next_offset} and {read.start_offset} should meet: a range was read twice, or "
                "not at all"
            )
        report.next_offset = read.next_offset
        report.rows += read.rows
        report.bad += read.bad
        report.tombstones_left_out += read.tombstones_left_out
    if (report.start_offset, report.next_offset) != wanted:
        plan = "none" if wanted is None else f"{wanted[0]} to {wanted[1]}"
        audit.problems.append(
            f"{name}: offsets {report.start_offset} to {report.next_offset} were read, {plan} were to be"
        )
    return report


def _add_gaps(audit: Audit, names: Mapping[TopicPartitionId, str], gaps: Iterable[Gap]) -> None:
    for gap in gaps:
        key = TopicPartitionId(gap.topic_id, gap.partition)
        report = audit.partitions.get(key)
        if report is None or not report.start_offset <= gap.first <= gap.last < report.next_offset:
            audit.problems.append(
                f"{names.get(key, gap.topic_id)}: the gap at {gap.first} lies outside of what was read"
            )
            continue
        report.gap_offsets += gap.offsets
        audit.count_gap(gap)


def _add_sums(audit: Audit, name: str, report: PartitionReport) -> None:
    offsets = report.next_offset - report.start_offset
    explained = report.rows + report.bad + report.tombstones_left_out + report.gap_offsets
    if offsets != explained:
        audit.problems.append(
            f"{name}: {offsets:,} offsets from {report.start_offset} on are {report.rows:,} rows, {report.bad:,} bad "
            f"records, {report.tombstones_left_out:,} tombstones left out and {report.gap_offsets:,} in gaps, "
            f"together {explained:,}"
        )
    audit.offsets += offsets
    audit.rows += report.rows
    audit.bad += report.bad
    audit.tombstones_left_out += report.tombstones_left_out
    audit.gap_offsets += report.gap_offsets
    audit.lag += report.lag


def _check_files(
    audit: Audit,
    names: Mapping[TopicPartitionId, str],
    files: Sequence[StagedFile],
    formats: Sequence[str],
    dead_letters_kept: bool,
) -> None:
    rows: dict[tuple[TopicPartitionId, str], int] = defaultdict(int)
    letters: dict[TopicPartitionId, int] = defaultdict(int)
    for file in files:
        key = TopicPartitionId(file.topic_id, file.partition)
        report = audit.partitions.get(key)
        if report is None or not report.start_offset <= file.first_offset <= file.last_offset < report.next_offset:
            audit.problems.append(f"{file.path}: its offsets lie outside of what was read of its partition")
        elif file.kind is FileKind.DEAD_LETTERS:
            letters[key] += file.rows
        else:
            rows[key, file.format] += file.rows
    for key, report in audit.partitions.items():
        for name in formats:
            if rows[key, name] != report.rows:
                audit.problems.append(
                    f"{names[key]}: {report.rows:,} rows were read, its {name} files hold {rows[key, name]:,}"
                )
        if dead_letters_kept and letters[key] != report.bad:
            audit.problems.append(
                f"{names[key]}: {report.bad:,} records were bad, its dead letters hold {letters[key]:,}"
            )
