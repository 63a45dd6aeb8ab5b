"""What a run did, for people, for programs, and for the log it is kept beside.

A run always ends in a LoadReport: what it met on its way is an outcome and a sentence, never an exception. Times of
day are for display only; what the loader decides by is record time and the numbers of the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a run ended; `exit_code` is what a command ends with."""

    LOADED = "loaded"
    NOTHING_NEW = "nothing new"
    PARTIAL = "partial"  # as far as can be, but for topics that were given up, or with something else that is red
    FAILED = "failed"  # nothing was committed
    CLAIMED = "claimed"  # another driver works on the destination
    STOPPED = "stopped"  # it was told to stop; nothing was committed

    @property
    def exit_code(self) -> int:
        """0 done, 1 failed, 3 partly done, 4 another driver is at it, 130 stopped."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Outcome.LOADED: 0,
    Outcome.NOTHING_NEW: 0,
    Outcome.FAILED: 1,
    Outcome.PARTIAL: 3,
    Outcome.CLAIMED: 4,
    Outcome.STOPPED: 130,
}


@dataclass(slots=True)
class PartitionReport:
    """One partition: which offsets were loaded, and what they were. Invariant: see `audit.py`."""

    partition: int
    start_offset: int
    next_offset: int
    end_offset: int  # of the topic when the run began: what a consumer of the same isolation could read up to
    rows: int = 0
    bad: int = 0
    tombstones_left_out: int = 0
    gap_offsets: int = 0

    @property
    def lag(self) -> int:
        """Offsets that were there when the run began and are not loaded yet."""
        return max(0, self.end_offset - self.next_offset)


def lag_age_s(newest_ms: Iterable[int], now_s: float) -> float | None:
    """How long ago the newest record was written that is loaded of the partition farthest behind; None if unknown.

    `newest_ms` are the times of the newest records loaded, of each partition with something left; -1 where none is.
    """
    known = [time for time in newest_ms if time >= 0]
    return round(max(0.0, now_s - min(known) / 1000), 3) if known else None


@dataclass(slots=True)
class TopicReport:
    """One topic. With a `reason` nothing of it was committed."""

    topic: str
    topic_id: str
    table: str = ""
    reason: str = ""
    rows: int = 0
    late_rows: int = 0
    bad: int = 0
    size_bytes: int = 0
    lag: int = 0
    # How long ago the newest record was written that is loaded of the partition farthest behind; None without lag.
    lag_age_s: float | None = None
    gaps: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    file_bytes: dict[str, int] = field(default_factory=dict)
    partitions: list[PartitionReport] = field(default_factory=list)


@dataclass(slots=True)
class LoadReport:
    """One run. `errors` say what has to be done about them; `announcements` what readers of the tables should know."""

    run_id: str
    job: str
    destination: str
    outcome: Outcome = Outcome.FAILED
    started: str = ""  # ISO 8601, UTC
    wall_s: float = 0.0
    phases_s: dict[str, float] = field(default_factory=dict)
    number: int | None = None  # of the entry in the commit log, where one was published
    is_unapplied: bool = False  # it counts, and some of its files are not in their places: the next run goes on with it
    engine: str = "local"
    workers: int = 0
    splits: int = 0
    attempts: int = 0
    failed_attempts: int = 0
    splits_s: float = 0.0  # from the first split's first fetch to the last one's last close
    cpu_s: float = 0.0  # of the workers, while they ran splits
    peak_memory_bytes: int = 0  # of the largest worker
    topics: list[TopicReport] = field(default_factory=list)
    closed_directories: list[str] = field(default_factory=list)
    announcements: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    # What Hive or Iceberg could not be told; the next run tells them.
    catalog_problems: list[str] = field(default_factory=list)
    # Dead letters that wait to be replayed, by topic, whichever run brought them.
    dead_letters: dict[str, int] = field(default_factory=dict)
    # What a compaction after the run came to, where there was one.
    compaction: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows loaded, each counted once however many formats hold it."""
        return sum(topic.rows for topic in self.topics if not topic.reason)

    @property
    def size_bytes(self) -> int:
        """Bytes of keys and values loaded."""
        return sum(topic.size_bytes for topic in self.topics if not topic.reason)

    @property
    def file_count(self) -> int:
        """Files committed, dead letters included."""
        return sum(sum(topic.files.values()) for topic in self.topics if not topic.reason)

    @property
    def file_bytes(self) -> int:
        """Their bytes."""
        return sum(sum(topic.file_bytes.values()) for topic in self.topics if not topic.reason)

    @property
    def exit_code(self) -> int:
        """What a command that made this run ends with."""
        return self.outcome.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values; the names are part of the interface."""
        document = asdict(self)
        document["outcome"] = self.outcome.value
        document["exit_code"] = self.exit_code
        document["rows"] = self.rows
        document["size_bytes"] = self.size_bytes
        return document

    def encoded(self) -> bytes:
        """Return the report as a file's bytes."""
        return json.dumps(self.as_json(), ensure_ascii=False, indent=1).encode() + b"\n"
