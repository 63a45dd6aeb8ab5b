"""What travels between planner, engines, workers and driver: ranges of offsets in, staged files out.

Plain data, frozen and picklable, so that a split runs the same in this process, in another, or on a Spark executor.
Nothing here opens anything. A topic's id is Kafka's text for it (url-safe base64 without padding) everywhere.

    OffsetRange   one partition's offsets [start_offset, end_offset) that are to be loaded
    Split         the ranges one worker reads in one go
    SplitTask     a split with all that running it takes
    StagedFile    a whole, synced file below the staging folder, with what the commit log says of it
    RangeRead     how far a range was read, and what was in it
    SplitResult   what a split came to: files, ranges read, gaps, schemas nobody had seen
"""

from __future__ import annotations

import zlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob
    from millstream.hadoop_loader.tables import TableVersion


class FileKind(StrEnum):
    """What a staged file holds, which says where it goes."""

    DATA = "data"  # ROOT/{table}/{format}/{directory}/
    LATE = "late"  # ROOT/{table}.late/{format}/{directory}/: its directory was closed before it came
    DEAD_LETTERS = "dead_letters"  # ROOT/_dead_letters/{topic}/


class GapReason(StrEnum):
    """Why offsets of a range brought no row and no dead letter."""

    CONTROL = "control"  # transaction markers
    ABORTED = "aborted"  # records of aborted transactions, under read_committed
    COMPACTION = "compaction"  # the cleaner took them: the next record has a later offset
    RETENTION = "retention"  # deleted before they were read: the log now starts behind them


class TopicPartitionId(NamedTuple):
    """A partition by its topic's id: a topic that was deleted and created again is another one."""

    topic_id: str
    partition: int


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """The offsets [start_offset, end_offset) of one partition, to be loaded by one split."""

    topic: str
    topic_id: str
    partition: int
    leader_epoch: int  # of the batch before start_offset, -1 if not known: a truncated log is noticed by it
    start_offset: int
    end_offset: int
    estimated_bytes: int = 0

    def __post_init__(self) -> None:
        assert 0 <= self.start_offset <= self.end_offset, (
            f"{self.topic}-{self.partition}: {self.start_offset}, {self.end_offset}"
        )


@dataclass(frozen=True, slots=True)
class Split:
    """Ranges that one worker reads in one go; `number` is unique within its run."""

    number: int
    ranges: tuple[OffsetRange, ...]

    @property
    def estimated_bytes(self) -> int:
        """What the planner reckoned the ranges to be."""
        return sum(wanted.estimated_bytes for wanted in self.ranges)


class DirectoryNames:
    """Names of directories, to be looked for among: they travel with every task of a run, and may be half a million.

    So they travel compressed, which makes a tenth of names as alike as those of times, and a process that gets the same
    ones with another task has them already.
    """

    __slots__ = ("_names", "_packed")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset(names)
        self._packed: bytes | None = None

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __len__(self) -> int:
        return len(self._names)

    def __reduce__(self) -> tuple[object, ...]:
        if self._packed is None:
            # No file system takes a name with a zero in it, which ends each here: "" is a name, too.
            self._packed = zlib.compress("".join(f"{name}\0" for name in sorted(self._names)).encode())
        return _unpacked, (self._packed,)


@lru_cache(maxsize=16)
def _unpacked(packed: bytes) -> DirectoryNames:
    return DirectoryNames(zlib.decompress(packed).decode().split("\0")[:-1])


@dataclass(frozen=True, slots=True)
class SplitTask:
    """A split, and everything a worker needs to run it; only `filesystem` and the registry come from outside.

    `staging` is relative to the destination's root and exists: the driver made it under its claim, and a worker
    whose claim was taken over fails because it is gone. `tables` says per topic name into which table its records
    go; `closed_directories` per table name which directories (relative, below table/format) were closed, so that what
    still comes for them is late.
    """

    job: LoadJob
    split: Split
    attempt: int
    staging: str
    run_id: str
    tables: Mapping[str, TableVersion]
    closed_directories: Mapping[str, Container[str]] = field(default_factory=dict)
    # Of the job's rate limits the split has one part in so many.
    rate_shares: int = 1


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file that was written, synced, closed, and whose length and footer were checked."""

    path: str  # where it lies now, relative to the root
    table: str  # "orders", "orders.v2"; without ".late"
    directory: str  # relative, below table/format; "" where nothing is partitioned
    format: str  # "avro" | "parquet"
    topic: str
    topic_id: str
    partition: int
    first_offset: int
    last_offset: int
    rows: int
    length: int
    checksum: str  # "crc32c:%08x" of the file's bytes
    min_timestamp_ms: int  # of the records in it, -1 where none has a timestamp
    max_timestamp_ms: int
    kind: FileKind = FileKind.DATA
    # Of the table's schema that it was written by (`TableVersion.version`): splits of one run may differ in it.
    schema_version: int = 0


class Gap(NamedTuple):
    """Offsets from `first` to `last`, both included, of a partition that brought no row, and why.

    A range has one for each reason: on a compacted topic there would be more gaps than records.
    """

    topic_id: str
    partition: int
    first: int
    last: int
    reason: GapReason
    offsets: int  # how many of first..last it is about


@dataclass(frozen=True, slots=True)
class RangeRead:
    """How far one range was read and what it held.

    Invariant, which the audit adds up: next_offset - start_offset == rows + bad + tombstones_left_out + offsets in gaps
    (tombstones left out are not listed as gaps: on a compacted topic they would be most of the list).
    """

    topic: str
    topic_id: str
    partition: int
    start_offset: int
    next_offset: int  # == end_offset of the range when all went well: it moves also over what only was a gap
    leader_epoch: int  # of the batch before next_offset, be it a marker of a transaction; -1 where it was not seen
    rows: int  # in data and late files, each counted once however many formats hold it
    bad: int  # in dead letters
    tombstones: int  # records with a null value, also those written as rows
    tombstones_left_out: int
    bytes: int  # of keys and values
    max_timestamp_ms: int  # the latest of the time that names directories, of a field or Kafka's; -1 if there was none
    late: int = 0  # of the rows: their directory was closed before they came, wherever they are put

    @property
    def topic_partition_id(self) -> TopicPartitionId:
        """The key the driver merges ranges of one partition under."""
        return TopicPartitionId(self.topic_id, self.partition)


class UnknownSchema(NamedTuple):
    """A writer's schema that brings what the table's lacks: the driver merges it, and the split is run again."""

    topic: str
    schema_id: int  # of Protobuf with the message, as tables/writers.py numbers them
    schema: str  # Avro JSON, references put in; of other types the registered text, and the registry has the rest
    field: Literal["value", "key"] = "value"  # what names it


@dataclass(frozen=True, slots=True)
class SplitResult:
    """What running a split came to. With `unknown_schemas` nothing of it may be committed: it has to run again."""

    split: int
    attempt: int
    files: tuple[StagedFile, ...]
    read: tuple[RangeRead, ...]
    gaps: tuple[Gap, ...] = ()
    unknown_schemas: tuple[UnknownSchema, ...] = ()
    # Topics with more bad records than the job allows: the driver commits nothing of theirs. Topic -> bad records seen.
    refused_topics: Mapping[str, int] = field(default_factory=dict)
    cpu_s: float = 0.0
    wall_s: float = 0.0

    @property
    def rows(self) -> int:
        """Rows in the files, each counted once."""
        return sum(read.rows for read in self.read)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a running split tells now and then, about one partition, counted since it was last told."""

    topic: str
    partition: int
    next_offset: int
    rows: int
    bytes: int
