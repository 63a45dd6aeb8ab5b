"""Logs with keys, tombstones and transactions, written as segment files by hand, and a dumb model of what they hold."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from millstream.core.log import Log, LogConfig, TopicPartition
from millstream.core.log.cleaner import CleanerConfig, LogCleaner, Tools
from millstream.core.log.manager import LogManager
from millstream.core.log.producer_rebuild import read_marker
from millstream.core.records import (
    BatchBuilder,
    BatchHeader,
    Compression,
    TimestampType,
    iter_batches,
    iter_records,
    set_log_fields,
)

NOW_MS = 1_700_000_000_000
SECRET = bytes(range(16))
TOPIC = TopicPartition("compacted", 0)
_COMMIT, _ABORT = b"\0\0\0\1", b"\0\0\0\0"


class Kept(NamedTuple):
    """One record, and whose transaction it belongs to (-1: none)."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    producer_id: int = -1


class Model:
    """Writes batches, and remembers every record and which of them were aborted."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.segments: list[list[bytes]] = [[]]
        self.bases = [0]
        self.end_offset = 0
        self.records: list[Kept] = []
        self.aborted: set[int] = set()  # offsets
        self._sequences: dict[int, int] = {}
        # Transactional producers with one open: the offsets in it.
        self._open: dict[int, list[int]] = {}

    def roll(self) -> None:
        """Begin another segment."""
        if self.segments[-1]:
            self.segments.append([])
            self.bases.append(self.end_offset)

    def batch(
        self,
        records: Iterable[tuple[bytes | None, bytes | None]],
        *,
        compression: Compression = Compression.NONE,
        producer_id: int = -1,
        transactional: bool = False,
        timestamp: int | None = None,
        log_append_ms: int | None = None,
    ) -> None:
        """Append one batch; with `log_append_ms` its records all have that time (LogAppendTime)."""
        builder = BatchBuilder(
            compression=compression,
            base_offset=self.end_offset,
            leader_epoch=0,
            timestamp_type=TimestampType.CREATE_TIME if log_append_ms is None else TimestampType.LOG_APPEND_TIME,
            producer_id=producer_id,
            producer_epoch=0 if producer_id >= 0 else -1,
            base_sequence=self._sequences.get(producer_id, 0) if producer_id >= 0 else -1,
            transactional=transactional,
        )
        base = NOW_MS + self.end_offset if timestamp is None else timestamp
        for index, (key, value) in enumerate(records):
            offset = builder.append(base + index, key, value)
            at_ms = base + index if log_append_ms is None else log_append_ms
            self.records.append(Kept(offset, key, value, at_ms, producer_id if transactional else -1))
            if transactional:
                self._open.setdefault(producer_id, []).append(offset)
        if producer_id >= 0:
            self._sequences[producer_id] = self._sequences.get(producer_id, 0) + len(builder)
        self._append(builder.build(), len(builder), log_append_ms)

    def end(self, producer_id: int, *, commit: bool) -> None:
        """End a producer's transaction."""
        builder = BatchBuilder(
            base_offset=self.end_offset,
            leader_epoch=0,
            producer_id=producer_id,
            producer_epoch=0,
            transactional=True,
            control=True,
        )
        builder.append(NOW_MS + self.end_offset, _COMMIT if commit else _ABORT, bytes(6))
        offsets = self._open.pop(producer_id, [])
        if not commit:
            self.aborted.update(offsets)
        self._append(builder.build(), 1)

    def random_step(self, *, keys: int, transactions: bool, compress: bool, log_append_time: bool = False) -> None:
        """Append something, or roll; with `log_append_time` every other batch is stamped by the broker."""
        rng = self.random
        choice = rng.random()
        if choice < 0.12:
            self.roll()
            return
        if self._open and choice < 0.25:
            self.end(rng.choice(list(self._open)), commit=rng.random() < 0.6)
            return
        records: list[tuple[bytes | None, bytes | None]] = []
        for _ in range(rng.choice((1, 1, 2, 5, 30))):
            key = b"key%d" % rng.randrange(keys)
            value = None if rng.random() < 0.15 else rng.randbytes(rng.choice((0, 3, 40, 200)))
            records.append((key, value))
        producer_id, transactional = -1, False
        if choice < 0.6:
            producer_id = rng.randrange(3)
        elif transactions and choice < 0.9:
            producer_id, transactional = 10 + rng.randrange(3), True
        self.batch(
            records,
            compression=rng.choice(list(Compression)) if compress else Compression.NONE,
            producer_id=producer_id,
            transactional=transactional,
            # Later than what the producer said, and never before the batch in front.
            log_append_ms=NOW_MS + 50_000 + self.end_offset if log_append_time and rng.random() < 0.5 else None,
        )

    def end_all(self) -> None:
        """End what is open, and roll, so that all of it may be cleaned."""
        for producer_id in list(self._open):
            self.end(producer_id, commit=self.random.random() < 0.6)
        self.roll()

    def write(self, folder: Path) -> None:
        """Make the segment files."""
        folder.mkdir(parents=True)
        for base, batches in zip(self.bases, self.segments, strict=True):
            Path(folder, f"{base:020d}.log").write_bytes(b"".join(batches))

    def latest(self, end_offset: int) -> dict[bytes, Kept]:
        """The newest committed record of each key before `end_offset`."""
        newest = {}
        for record in self.records:
            if record.offset < end_offset and record.key is not None and record.offset not in self.aborted:
                newest[record.key] = record
        return newest

    def _append(self, data: bytes, count: int, log_append_ms: int | None = None) -> None:
        batch = bytearray(data)
        set_log_fields(batch, self.end_offset, 0, log_append_ms)
        self.segments[-1].append(bytes(batch))
        self.end_offset += count


def stored(log: Log) -> tuple[list[Kept], list[BatchHeader]]:
    """Every data record of the log as it lies there, and every batch's header."""
    records: list[Kept] = []
    headers: list[BatchHeader] = []
    at = log.log_start_offset
    while at < log.log_end_offset:
        read = log.read(at, 1 << 20)
        assert read.next_offset > at, f"nothing at {at}, the end is {log.log_end_offset}"
        for header, data in iter_batches(read.data):
            assert not headers or header.base_offset > headers[-1].last_offset, (headers[-1], header)
            headers.append(header)
            if not header.is_control:
                producer_id = header.producer_id if header.is_transactional else -1
                records.extend(
                    Kept(each.offset, each.key, each.value, each.timestamp, producer_id) for each in iter_records(data)
                )
        at = read.next_offset
    return records, headers


def read_committed(log: Log) -> list[Kept]:
    """What a read_committed consumer would be given."""
    records: list[Kept] = []
    aborted = sorted(log.aborted_transactions(log.log_start_offset, log.log_end_offset), key=lambda each: each[1])
    aborting: set[int] = set()
    at = log.log_start_offset
    while at < log.log_end_offset:
        read = log.read(at, 1 << 20)
        assert read.next_offset > at, f"nothing at {at}, the end is {log.log_end_offset}"
        for header, data in iter_batches(read.data):
            while aborted and aborted[0].first_offset <= header.last_offset:
                aborting.add(aborted.pop(0).producer_id)
            if header.is_control:
                marker = read_marker(data)
                if marker is not None and not marker[0]:
                    aborting.discard(header.producer_id)
            elif not (header.is_transactional and header.producer_id in aborting):
                records.extend(Kept(each.offset, each.key, each.value, each.timestamp) for each in iter_records(data))
        at = read.next_offset
    return records


class Sweep:
    """A cleaner without threads, whose time is set by hand."""

    def __init__(
        self, manager: LogManager, *, map_bytes: int = 1 << 20, io_bytes: int = 1 << 16, now_ms: int = NOW_MS
    ) -> None:
        self.now_ms = now_ms
        self.cleaner = LogCleaner(
            manager,
            CleanerConfig(backoff_ms=0),
            last_stable_offset=_last_stable_offset,
            now_ms=lambda: self.now_ms,
            secret=SECRET,
        )
        self.tools = Tools(map_bytes=map_bytes, load_factor=0.9, io_buffer_bytes=io_bytes, secret=SECRET)

    def run(self, rounds_max: int = 1000) -> int:
        """Clean until nothing is due; return how many cleanings that took."""
        for done in range(rounds_max):
            if not self.cleaner.clean_next(self.tools):
                return done
        raise AssertionError(f"still dirty after {rounds_max} cleanings")


def _last_stable_offset(log: Log) -> int:
    unstable = log.first_unstable_offset
    return log.log_end_offset if unstable is None else unstable


def compacted(**options: object) -> LogConfig:
    """A config of a compacted topic that is cleaned whenever a byte is dirty."""
    return LogConfig(
        **{"cleanup_policy": frozenset({"compact"}), "min_cleanable_dirty_ratio": 0.0, **options}  # type: ignore[arg-type]
    )


Make = Callable[[Model], Log]
