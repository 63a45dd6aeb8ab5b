"""How far a run is: what its attempts told, added up per partition; a display reads it, Prometheus too.

What a failed attempt, or one that has to run again for schemas, had read is taken back: the counts never pass what
there is. Owned by the run's thread; others may read its properties, whose sums then are those of about now.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from millstream.hadoop_loader.driver.observer import Observer, Phase
from millstream.hadoop_loader.engines.engine import AttemptFailed, AttemptFinished, AttemptProgressed
from millstream.hadoop_loader.splits import Split


@dataclass(slots=True)
class PartitionProgress:
    """One partition: offsets to read in this run, and those read so far."""

    topic: str
    partition: int
    offsets: int = 0
    offsets_read: int = 0
    rows: int = 0
    bytes: int = 0


@dataclass(slots=True)
class _RangeProgress:
    """One range of a split; `next_offset` goes back to `start_offset` when the attempt comes to nothing."""

    partition: PartitionProgress
    start_offset: int
    next_offset: int
    rows: int = 0
    bytes: int = 0


@dataclass(slots=True)
class RunProgress(Observer):
    """Adds up what a run tells; see the module."""

    monotonic: Callable[[], float] = time.monotonic
    phase: Phase = Phase.OPENING
    partitions: dict[tuple[str, int], PartitionProgress] = field(default_factory=dict)
    splits: int = 0
    splits_done: int = 0
    workers: int = 0
    notes: list[str] = field(default_factory=list)
    # When the first split was given out, by `monotonic`; None before.
    loading_since: float | None = None
    _ranges: dict[int, dict[tuple[str, int], _RangeProgress]] = field(default_factory=dict)

    @property
    def offsets(self) -> int:
        """Offsets to read in this run."""
        return sum(one.offsets for one in tuple(self.partitions.values()))

    @property
    def offsets_read(self) -> int:
        """Those read so far."""
        return sum(one.offsets_read for one in tuple(self.partitions.values()))

    @property
    def rows(self) -> int:
        """Records read so far."""
        return sum(one.rows for one in tuple(self.partitions.values()))

    @property
    def bytes(self) -> int:
        """Bytes of keys and values read so far."""
        return sum(one.bytes for one in tuple(self.partitions.values()))

    @property
    def seconds(self) -> float:
        """Seconds since the first split was given out."""
        return 0.0 if self.loading_since is None else self.monotonic() - self.loading_since

    @property
    def remaining_s(self) -> float | None:
        """Seconds until all is read, at the mean rate so far; None while there is none."""
        read = self.offsets_read
        return None if not read else self.seconds * (self.offsets - read) / read

    def as_json(self) -> dict[str, Any]:
        """Return what a page shows of the run."""
        remaining_s = self.remaining_s
        return {
            "phase": self.phase.value,
            "offsets": self.offsets,
            "offsets_read": self.offsets_read,
            "rows": self.rows,
            "bytes": self.bytes,
            "splits": self.splits,
            "splits_done": self.splits_done,
            "workers": self.workers,
            "seconds": round(self.seconds, 3),
            "remaining_s": None if remaining_s is None else round(remaining_s, 3),
        }

    def handle_phase(self, phase: Phase) -> None:
        self.phase = phase

    def handle_planned(self, splits: Sequence[Split], workers: int) -> None:
        self.splits, self.workers = len(splits), workers
        self.loading_since = self.monotonic()
        for split in splits:
            ranges = self._ranges[split.number] = {}
            for wanted in split.ranges:
                key = wanted.topic, wanted.partition
                partition = self.partitions.setdefault(key, PartitionProgress(*key))
                partition.offsets += wanted.end_offset - wanted.start_offset
                ranges[key] = _RangeProgress(partition, wanted.start_offset, wanted.start_offset)

    def handle_progressed(self, event: AttemptProgressed) -> None:
        for told in event.progress:
            one = self._ranges[event.split][told.topic, told.partition]
            self._move(one, max(one.next_offset, told.next_offset), told.rows, told.bytes)

    def handle_finished(self, event: AttemptFinished) -> None:
        if event.result.unknown_schemas:
            self._take_back(event.result.split)
        else:
            self.splits_done += 1

    def handle_failed(self, event: AttemptFailed) -> None:
        self._take_back(event.split)

    def handle_divided(self, split: int, parts: Sequence[Split]) -> None:
        ranges = self._ranges[split]
        self.splits += len(parts) - 1
        for part in parts:
            keys = [(wanted.topic, wanted.partition) for wanted in part.ranges]
            self._ranges[part.number] = {key: ranges[key] for key in keys}

    def handle_note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def _take_back(self, split: int) -> None:
        for one in self._ranges[split].values():
            self._move(one, one.start_offset, -one.rows, -one.bytes)

    @staticmethod
    def _move(one: _RangeProgress, next_offset: int, rows: int, size_bytes: int) -> None:
        one.partition.offsets_read += next_offset - one.next_offset
        one.partition.rows += rows
        one.partition.bytes += size_bytes
        one.next_offset = next_offset
        one.rows += rows
        one.bytes += size_bytes
