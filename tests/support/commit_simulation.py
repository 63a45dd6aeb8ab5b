"""A small world for the commit log: a topic whose records are numbers, drivers of it, readers.

A driver comes for one task: it loads, compacts, closes directories by hand, expires closed ones, or gives back a mark
that is gone. Each record of partition p is written as one line "p offset"; files hold lines. `World.look` is what
readers see, and runs after every single act of every driver: in plain directories no record twice in one format, no
half file, all rows where a `_SUCCESS` says so; at a number that somebody holds all that it had. At the end,
`World.finish` runs loads and compactions without faults and holds the result to every promise.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from tests.support.commit_ledger import Ledger

from millstream.hadoop_loader.commit import (
    Claim,
    CommitLog,
    CommitSettings,
    CompactDraft,
    CompactedDirectory,
    Entry,
    LoadDraft,
    Position,
    Role,
    Snapshot,
    TableState,
    names,
)
from millstream.hadoop_loader.commit.applying import mark
from millstream.hadoop_loader.commit.encoding import decode_entry
from millstream.hadoop_loader.commit.state import split_directory
from millstream.hadoop_loader.filesystem import FileStatus, FileSystem
from millstream.hadoop_loader.splits import StagedFile
from millstream.testing.faulty_filesystem import Fault, FaultyFileSystem, LateActs
from millstream.testing.memory_filesystem import MemoryFile, MemoryFileSystem

TOPIC = "orders"
TOPIC_ID = "b3JkZXJz"
FORMATS = ("avro", "parquet")
RECORDS_PER_DIRECTORY = 6
# A file of an open directory is left alone from so many on.
RECORDS_PER_LARGE_FILE = 5
SETTINGS = CommitSettings(claim_timeout_s=60, entries_per_checkpoint=5, snapshot_retention_s=3_600, threads=1)

# The acts that can change what readers see: all but those on staging, on files that nobody reads, and on counters.
_SEEN = re.compile(rf"(?:\S+ |.* -> )(?:{TOPIC}|{names.LOG}|{names.TRASH}|{names.DISCARDED})")

Record = tuple[int, int]


class Task(StrEnum):
    """What a process comes for. The first two are called as the roles that they claim."""

    LOAD = "load"
    COMPACT = "compact"
    CLOSE = "close"
    EXPIRE = "expire"
    REPAIR = "repair"

    @property
    def role(self) -> Role | None:
        """What it claims; none to give back a mark."""
        if self is Task.REPAIR:
            return None
        return Role.LOAD if self in {Task.LOAD, Task.CLOSE} else Role.COMPACT


def lines_of(records: Sequence[Record]) -> bytes:
    """A file's bytes."""
    return b"".join(b"%d %d\n" % record for record in records)


def records_of(data: bytes) -> list[Record]:
    """The inverse of lines_of; ValueError for half a file."""
    return _records_of(bytes(data))


@lru_cache(maxsize=10_000)
def _records_of(data: bytes) -> list[Record]:
    if data and not data.endswith(b"\n"):
        raise ValueError(f"{data!r} ends in the middle of a record")
    return [(int(line.split()[0]), int(line.split()[1])) for line in data.splitlines()]


def directory_name(number: int) -> str:
    """What a directory is called below TABLE/FORMAT."""
    return f"part={number}"


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def monotonic(self) -> float:
        """Now, in seconds."""
        return self.now_s

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds

    def now_ms(self) -> int:
        """Now, in milliseconds."""
        return int(self.now_s * 1000)


@dataclass
class World:
    """One destination, its source of records, and what must hold of them."""

    seed: int = 0
    partitions: int = 2
    formats: Sequence[str] = FORMATS
    # Whether some records come when the directory they belong to has been closed.
    late_records: bool = True
    # Whether directories are closed once the next has records, and whether those that are not closed are compacted too.
    closes: bool = True
    compacts_open: bool = False
    # How many records each partition has by now.
    produced: int = 0
    settings: CommitSettings = SETTINGS
    clock: Clock = field(default_factory=Clock)
    # Where it all lies; memory if nothing is given.
    destination: FileSystem | None = None
    # Every driver that ever ran.
    drivers: list[Driver] = field(default_factory=list)
    # Every entry that was ever seen at a number.
    entries: dict[int, bytes] = field(default_factory=dict)
    # What those say of directories.
    ledger: Ledger = field(default_factory=Ledger)
    # Whether somebody deleted a closed directory's mark, which no run gives back.
    has_lost_marks: bool = False
    # A reader that holds a number of the log: its files by their paths, and until when they are to be had.
    pinned: Snapshot | None = None
    pinned_files: dict[str, list[Record]] = field(default_factory=dict)
    pinned_until_s: float = 0.0
    # Files of a disk or of HDFS that were read.
    read: dict[FileStatus, MemoryFile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.disk = self.destination or MemoryFileSystem(now_ms=self.clock.now_ms)
        self.late = LateActs(self.seed)
        self._runs = 0
        # Late acts that had arrived by the last look.
        self._arrived = 0

    def driver(
        self, faults: Mapping[int, Fault] | None = None, *, before_call: Callable[[str], None] | None = None
    ) -> Driver:
        """A new process, with faults at its acts."""
        self._runs += 1
        filesystem = FaultyFileSystem(self.disk, faults, late=self.late, before_call=before_call, after_act=self.look)
        driver = Driver(self, filesystem, f"run-{self._runs}", random.Random(self.seed * 1000 + self._runs))
        self.drivers.append(driver)
        return driver

    def directory_of(self, offset: int) -> int:
        """A record's directory: by its offset."""
        directory = offset // RECORDS_PER_DIRECTORY
        return max(directory - 1, 0) if offset % 5 == 4 and self.late_records else directory

    def look(self, act: str = "") -> None:
        """What a direct reader sees now is whole and nothing twice; no number has another entry than it once had.

        A reader that holds a number still finds all of it. Nothing is looked at behind acts that no reader notices.
        """
        if act and self.late.arrived == self._arrived and not _SEEN.match(act):
            return
        self._arrived = self.late.arrived
        for file in self.files_below(names.LOG):
            number = names.parse_number(file.name)
            assert number is not None, f"{file.path} is no entry"
            assert file.is_whole, f"after {act}: {file.path} is half an entry"
            if number not in self.entries:
                self.entries[number] = file.data
                self.ledger.take(number, file.data)
            assert self.entries[number] == file.data, f"after {act}: {number} was used again"
        for format_ in self.formats:
            directories: dict[str, set[str]] = {}
            counts: Counter[Record] = Counter()
            for file in self.files_below(f"{TOPIC}/{format_}"):
                directories.setdefault(file.path[: -len(file.name) - 1], set()).add(file.name)
                counts.update(self._records_in(file))
            twice = [record for record, count in counts.items() if count > 1]
            assert not twice, f"after {act}: {twice[:3]} are seen twice in {format_}"
            for directory, present in directories.items():
                if names.SUCCESS in present:
                    reason = self.ledger.why_not_whole(directory, present)
                    assert reason is None, f"after {act}: {directory} has its {names.SUCCESS}, and {reason}"
        if self.pinned is not None and self.clock.now_s < self.pinned_until_s:
            for path, records in self.pinned_files.items():
                assert self._pinned_records(self.pinned, path) == records, f"after {act}: {path}"

    def files_below(self, path: str) -> Iterator[MemoryFile]:
        """All files in and below a directory; those of a disk or of HDFS pass as whole, as their bytes must bear out.

        They are not read again while name, length and time are what they were.
        """
        if isinstance(self.disk, MemoryFileSystem):
            yield from self.disk.files(path)
            return
        try:
            statuses = self.disk.list(path)
        except FileNotFoundError:
            return
        for status in statuses:
            if status.is_directory:
                yield from self.files_below(status.path)
                continue
            if status not in self.read:
                with self.disk.open(status.path) as file:
                    self.read[status] = MemoryFile(status.path, file.read_at(0, file.size), True)
            yield self.read[status]

    def pin(self) -> None:
        """Have a reader begin to hold what is there now."""
        snapshot = self.pinned = Snapshot(self.disk)
        self.pinned_until_s = self.clock.now_s + self.settings.snapshot_retention_s
        paths = [file.path for format_ in self.formats for file in snapshot.files(TOPIC, format_)]
        self.pinned_files = {path: self._pinned_records(snapshot, path) for path in paths}

    @staticmethod
    def _pinned_records(snapshot: Snapshot, path: str) -> list[Record]:
        try:
            with snapshot.open(path) as file:
                return records_of(file.read_at(0, file.size))
        except FileNotFoundError as error:
            raise AssertionError(f"number {snapshot.number} lacks {path}") from error

    def visible(self, format_: str) -> list[Record]:
        """The records in the files of one format that readers of plain directories see."""
        files = self.files_below(f"{TOPIC}/{format_}")
        return [record for file in files for record in self._records_in(file)]

    @staticmethod
    def _records_in(file: MemoryFile) -> list[Record]:
        if file.name.startswith(("_", ".")):
            return []
        assert file.is_whole, f"{file.path} is seen before it is whole"
        return records_of(file.data)

    def days_pass(self, runs: int, first: Role = Role.LOAD) -> None:
        """Loads and compactions of other processes, without faults, each a snapshot_retention after the last."""
        for run in range(runs):
            self.clock.wait(self.settings.snapshot_retention_s + 1)
            self.produced += 3
            self.driver().run(list(Role)[(run + list(Role).index(first)) % 2])

    def finish(self, *, runs_before_late: int = 0) -> None:
        """Let everything late arrive, after some runs; run without faults; hold what is there to what was loaded."""
        self.late.is_held = True
        self.days_pass(runs_before_late)
        self.late.flush()
        self.look()
        self.days_pass(3)
        if self.has_lost_marks:
            self.driver().run(Task.REPAIR)
        state = self.driver().log.read()
        self.check_exactly_once(state)
        self.check_nothing_leaks()

    def check_exactly_once(self, state: TableState) -> None:
        """The visible records are exactly those below the committed offsets, and the log says so too."""
        committed = {
            (partition, offset)
            for partition, position in state.positions.get(TOPIC_ID, {}).items()
            for offset in range(position.offset)
        }
        assert len(committed) == self.partitions * self.produced, state.positions
        listed = {file.path: file for file in state.files.under()}
        expired = self.expired()
        for format_ in self.formats:
            kept = committed - expired[format_]
            assert Counter(self.visible(format_)) == Counter(dict.fromkeys(kept, 1)), format_
            found = self.files_below(f"{TOPIC}/{format_}")
            seen = {file.path for file in found if not file.name.startswith("_")}
            assert seen == {path for path in listed if path.startswith(f"{TOPIC}/{format_}/")}
            total = state.totals[f"{TOPIC}/{format_}"]
            assert total.rows == len(kept)
            assert total.files == len(seen)
            assert total.bytes == sum(listed[path].length for path in seen)
        for format_ in self.formats:
            for below in state.closed.get(f"{TOPIC}/{format_}", ()):
                assert self.disk.status(f"{TOPIC}/{format_}/{below}/{names.SUCCESS}") is not None, below

    def lose_marks(self) -> None:
        """Delete by hand what says of a directory that it is closed."""
        self.has_lost_marks = True
        for format_ in self.formats:
            for file in list(self.files_below(f"{TOPIC}/{format_}")):
                if file.name == names.SUCCESS:
                    self.disk.delete(file.path)

    def expired(self) -> dict[str, set[Record]]:
        """By format, the records that expiries have taken: those of files that nothing came in the place of."""
        gone: dict[str, set[Record]] = {format_: set() for format_ in self.formats}
        held: dict[str, set[Record]] = {}
        for number in sorted(self.entries):
            entry = decode_entry(self.entries[number], f"entry {number}", number)
            for added, _ in entry.added:
                offsets = range(added.first_offset, added.last_offset + 1)
                below = split_directory(added.directory)[2]
                held[added.path] = {
                    (added.partition, offset)
                    for offset in offsets
                    if directory_name(self.directory_of(offset)) == below
                }
            for swap in entry.swaps:
                records = set[Record]().union(*(held.pop(file.path) for file in swap.removed))
                if swap.files:
                    held[swap.files[0].path] = records
                else:
                    gone[split_directory(swap.directory)[1]] |= records
        return gone

    def check_nothing_leaks(self) -> None:
        """After runs without faults nothing is left of those that died, but for what the last ones still hold."""
        last = {Role.LOAD: 0, Role.COMPACT: 0}
        for status in self.disk.list(names.STAGING):
            epoch, _, role = status.name.partition("-")
            assert not last[Role(role)], f"{status.path} is left"
            last[Role(role)] = int(epoch)
        for directory in (names.PUBLISHING, names.RENEWALS, names.DISCARDED, names.TRASH):
            assert [status.name for status in self.disk.list(directory)] == [], directory


class Driver:
    """One process that comes for a task, through a file system with faults."""

    def __init__(self, world: World, filesystem: FaultyFileSystem, run_id: str, rng: random.Random) -> None:
        self.world = world
        self.filesystem = filesystem
        self.run_id = run_id
        self.log = CommitLog(
            filesystem,
            world.settings,
            monotonic=world.clock.monotonic,
            wait=world.clock.wait,
            now_ms=world.clock.now_ms,
            random=rng,
        )

    def run(self, task: Task | Role) -> Entry | None:
        """One run from claim to release; None if there was nothing to do."""
        task = Task(task)
        if task.role is None:
            self.repair()
            return None
        claim = self.log.claim(task.role, owner=f"host/{self.run_id}", run_id=self.run_id)
        self.log.clean(claim)
        claim.renew()
        entry = self.work(claim, task)
        self.log.clean(claim)
        claim.release()
        return entry

    def work(self, claim: Claim, task: Task | None = None) -> Entry | None:
        """What it came for, or what the claim's role is there for."""
        works = {Task.LOAD: self.load, Task.COMPACT: self.compact, Task.CLOSE: self.close, Task.EXPIRE: self.expire}
        return works[task or Task(claim.role)](claim)

    def close(self, claim: Claim) -> Entry | None:
        """Close the first directory of each format that is open, as an operator does."""
        found = [claim.state.open.get(f"{TOPIC}/{format_}", set()) for format_ in self.world.formats]
        closed = tuple(
            names.table_directory(TOPIC, format_, min(below))
            for format_, below in zip(self.world.formats, found, strict=True)
            if below
        )
        return self.log.commit(claim, LoadDraft(closed=closed)) if closed else None

    def expire(self, claim: Claim) -> Entry | None:
        """Empty every closed directory that holds something; of open ones, file by file, the first."""
        staging = claim.staging(0, 0)
        emptied: list[CompactedDirectory] = []
        for format_ in self.world.formats:
            closed = claim.state.closed.get(f"{TOPIC}/{format_}", set())
            still_open = claim.state.open.get(f"{TOPIC}/{format_}", set()) if self.world.compacts_open else set()
            for below in sorted(closed) + sorted(still_open)[:1]:
                directory = names.table_directory(TOPIC, format_, below)
                replaced = tuple(file.name for file in claim.state.files.in_directory(directory))
                if not replaced:
                    continue
                staged, is_whole = f"{staging}/{len(emptied)}", below in closed
                if is_whole:
                    self.filesystem.make_directory(staged)
                emptied.append(
                    CompactedDirectory(
                        directory=directory, staged=staged, files=(), replaced=replaced, is_whole=is_whole
                    )
                )
        return self.log.commit(claim, CompactDraft(directories=tuple(emptied))) if emptied else None

    def repair(self) -> None:
        """Give closed directories their marks back, without any claim, as `verify` does."""
        # In this order, as `verify` does.
        state, unapplied = self.log.read(), self.log.unapplied()
        if unapplied is not None:
            return
        for format_ in self.world.formats:
            for below in sorted(state.closed.get(f"{TOPIC}/{format_}", ())):
                directory = names.table_directory(TOPIC, format_, below)
                listed = {file.name for file in state.files.in_directory(directory)}
                with suppress(FileNotFoundError):
                    if listed <= {status.name for status in self.filesystem.list(directory)}:
                        mark(self.filesystem, f"{directory}/{names.SUCCESS}")

    def load(self, claim: Claim) -> Entry | None:
        """Load all that was produced: each partition is a split, each directory a file for each format."""
        produced = self.world.produced
        files: list[StagedFile] = []
        positions: dict[int, Position] = {}
        for partition in range(self.world.partitions):
            position = claim.state.position(TOPIC_ID, partition) or Position(0)
            if position.offset == produced:
                continue
            staging = claim.staging(partition, 0)
            files += self._stage(staging, partition, range(position.offset, produced))
            positions[partition] = Position(produced, 7)
        if not positions:
            return None
        last_open = max(produced - 1, 0) // RECORDS_PER_DIRECTORY
        closed = [
            directory
            for format_ in self.world.formats
            for directory in (names.table_directory(TOPIC, format_, directory_name(n)) for n in range(last_open))
            if self.world.closes and not claim.state.is_closed(directory)
        ]
        draft = LoadDraft(
            cluster_id="cluster",
            topics={TOPIC_ID: TOPIC},
            positions={TOPIC_ID: positions},
            watermarks={TOPIC_ID: dict.fromkeys(positions, produced)},
            files=tuple(files),
            closed=tuple(closed),
            schemas={TOPIC: {"produced": produced}},
            report={"rows": len(files)},
        )
        return self.log.commit(claim, draft)

    def compact(self, claim: Claim) -> Entry | None:
        """Replace every closed directory of several files by one file; of open ones the small files."""
        directories: list[CompactedDirectory] = []
        for format_ in self.world.formats:
            closed = claim.state.closed.get(f"{TOPIC}/{format_}", set())
            still_open = claim.state.open.get(f"{TOPIC}/{format_}", set()) if self.world.compacts_open else set()
            for below in sorted(closed | still_open):
                directory = names.table_directory(TOPIC, format_, below)
                is_whole = below in closed
                files = [
                    file
                    for file in claim.state.files.in_directory(directory)
                    if is_whole or file.rows < RECORDS_PER_LARGE_FILE
                ]
                if len(files) < 2:
                    continue
                records: list[Record] = []
                for file in files:
                    with self.filesystem.open(file.path) as opened:
                        records += records_of(opened.read_at(0, opened.size))
                staging = claim.staging(len(directories), 0)
                staged = self._write(staging, format_, below, sorted(records), partition=-1)
                directories.append(
                    CompactedDirectory(
                        directory=directory,
                        staged=staging,
                        files=(staged,),
                        replaced=tuple(file.name for file in files),
                        is_whole=is_whole,
                    )
                )
        if not directories:
            return None
        return self.log.commit(claim, CompactDraft(directories=tuple(directories)))

    def _stage(self, staging: str, partition: int, offsets: range) -> list[StagedFile]:
        by_directory: dict[int, list[Record]] = {}
        for offset in offsets:
            by_directory.setdefault(self.world.directory_of(offset), []).append((partition, offset))
        return [
            self._write(staging, format_, directory_name(below), records, partition)
            for format_ in self.world.formats
            for below, records in by_directory.items()
        ]

    def _write(self, staging: str, format_: str, directory: str, records: list[Record], partition: int) -> StagedFile:
        path = f"{staging}/{directory}.{format_}"
        data = lines_of(records)
        with self.filesystem.create(path) as file:
            file.write(data[: len(data) // 2])
            file.write(data[len(data) // 2 :])
            file.sync()
        offsets = [offset for _, offset in records]
        return StagedFile(
            path=path,
            table=TOPIC,
            directory=directory,
            format=format_,
            topic=TOPIC,
            topic_id=TOPIC_ID,
            partition=partition,
            first_offset=min(offsets),
            last_offset=max(offsets),
            rows=len(records),
            length=len(data),
            checksum="crc32c:00000000",
            min_timestamp_ms=-1,
            max_timestamp_ms=-1,
        )
