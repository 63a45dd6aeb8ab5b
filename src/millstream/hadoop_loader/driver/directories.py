"""Whole directories, closed by hand or emptied for their age: what operators do, and a job's `destination.retention_s`.

Closing is an entry of a load without a file: the directory gets its `_SUCCESS`, and what still comes for it is late.
Expiring is an entry of a compaction that leaves nothing. What is too old goes to trash, where readers that hold a
number of the log find it for `snapshot_retention_s`:

    closed directories   as a whole, and an empty one with its `_SUCCESS` takes their place
    late records         all files of a directory that ends as early; more may come to it at any time
    dead letters         the files whose newest record is as old, be they replayed or not

So go, whatever their age, all files of a table that a topic had before it was loaded anew, once it is dropped.

So both are as safe against crashes, and beside other runs, as loads and compactions are. Positions are never touched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from millstream.hadoop_loader.commit import (
    CommitLog,
    CompactDraft,
    CompactedDirectory,
    CompactionConflictError,
    LoadDraft,
    Role,
)
from millstream.hadoop_loader.commit.names import LATE_SUFFIX, dead_letters_directory
from millstream.hadoop_loader.commit.state import split_directory
from millstream.hadoop_loader.driver.claim_keeper import claimed
from millstream.hadoop_loader.driver.problems import outcome_in
from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.telling import bring_catalogs_up_to_date
from millstream.hadoop_loader.filesystem import FileSystem
from millstream.hadoop_loader.source.topics import loads_topic
from millstream.hadoop_loader.tables.naming import former_tables
from millstream.hadoop_loader.tables.ownership import tables_of

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import Claim, TableFile, TableState
    from millstream.hadoop_loader.job import LoadJob

# An entry lists the files it removes: so many directories, and about so many files, are one. Files that go one by one
# are each a rename, for which whoever comes next waits.
DIRECTORIES_PER_ENTRY: Final = 500
FILES_PER_ENTRY: Final = 50_000
RENAMES_PER_ENTRY: Final = 2_000
_NAMED_MAX: Final = 5

CLOSED: Final = "closed"
EXPIRED: Final = "expired"
DROPPED: Final = "dropped"


@dataclass(slots=True)
class DirectoryRun:
    """What became of directories. Outcome LOADED: they were closed or expired; NOTHING_NEW: there were none."""

    run_id: str
    job: str
    destination: str
    act: str  # CLOSED, EXPIRED or DROPPED
    outcome: Outcome = Outcome.FAILED
    # Of the last entry that was committed.
    number: int | None = None
    # Relative to the root; of a dry run, those that it would be.
    directories: list[str] = field(default_factory=list)
    files: int = 0
    rows: int = 0
    bytes: int = 0
    errors: list[str] = field(default_factory=list)
    # Nothing to be done at once.
    notes: list[str] = field(default_factory=list)
    # Whether it was told to stop before it came to its end.
    is_stopped: bool = False

    @property
    def exit_code(self) -> int:
        """What a command that made this run ends with."""
        return self.outcome.exit_code

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "run_id": self.run_id,
            "job": self.job,
            "destination": self.destination,
            "act": self.act,
            "outcome": self.outcome.value,
            "exit_code": self.exit_code,
            "number": self.number,
            "directories": self.directories,
            "files": self.files,
            "rows": self.rows,
            "bytes": self.bytes,
            "errors": self.errors,
            "notes": self.notes,
        }


class _WrongError(Exception):
    """What was asked for cannot be; the message says why, and what to do."""


class _Expiring(NamedTuple):
    """A directory that is to be emptied, as a whole or of some of its files."""

    directory: str
    files: tuple[TableFile, ...]
    is_whole: bool


def close_directories(
    job: LoadJob,
    *,
    tables: Collection[str] | None = None,
    directories: Collection[str] | None = None,
    dry_run: bool = False,
    stop: threading.Event | None = None,
    surroundings: Surroundings | None = None,
) -> DirectoryRun:
    """Close open directories of the job's tables, in all formats, and return how it went; never raises, as `run_load`.

    Only those of `tables`, and only `directories` (relative to the root, or below TABLE/FORMAT), where they are given.
    """

    def act(world: Surroundings, _filesystem: FileSystem, log: CommitLog, run: DirectoryRun) -> None:
        def wanted(state: TableState) -> list[str]:
            found = open_directories(job, state, tables)
            if directories is None:
                return found
            known = {split_directory(one)[2] for one in found}
            chosen: set[str] = set()
            for given in directories:
                directory = given.strip("/")
                if directory in found:
                    # As it was listed, with TABLE/FORMAT: in each format of that table.
                    table, _, below = split_directory(directory)
                    chosen.update(one for one in found if split_directory(one)[0::2] == (table, below))
                elif directory in known:
                    chosen.update(one for one in found if split_directory(one)[2] == directory)
                elif not _is_closed(job, state, directory):
                    raise _WrongError(f"{given} is no open directory of {_tables_text(tables)}; {_some(known)}")
            return sorted(chosen)

        found = wanted(log.read())
        if dry_run:
            run.directories = found
        if dry_run or (not found and log.unapplied() is None):
            return
        with claimed(world, job, log, Role.LOAD, run.run_id) as claim:
            found = wanted(claim.state)
            draft = LoadDraft(
                closed=tuple(found),
                marks_success=job.destination.success_files,
                report={"job": job.name, "outcome": CLOSED, "directories": len(found)},
            )
            if found:
                run.number = log.commit(claim, draft).number
                run.directories = found

    return _run(job, CLOSED, act, stop, surroundings)


def expire_directories(
    job: LoadJob,
    *,
    before_ms: int | None = None,
    tables: Collection[str] | None = None,
    dry_run: bool = False,
    stop: threading.Event | None = None,
    surroundings: Surroundings | None = None,
) -> DirectoryRun:
    """Empty closed time directories of the job's tables that end before `before_ms`, and return how it went.

    With them go the late records of such directories, and dead letters that old. Without `before_ms` those that the
    job's `destination.retention_s` is over for, counted from now or from the newest record loaded of the topic,
    whichever is earlier: a clock that runs ahead expires nothing. Setting `stop` ends it between two entries. Never
    raises, as `run_load`.
    """

    def wanted(state: TableState, now_ms: int) -> Iterator[_Expiring]:
        return _expiring(job, state, _limits(job, state, before_ms, now_ms), tables)

    return _empty(job, EXPIRED, wanted, dry_run=dry_run, stop=stop, surroundings=surroundings)


def drop_tables(
    job: LoadJob,
    tables: Collection[str],
    *,
    dry_run: bool = False,
    stop: threading.Event | None = None,
    surroundings: Surroundings | None = None,
) -> DirectoryRun:
    """Empty tables that topics of the job had before they were loaded anew, and return how it went.

    With a table go its late records. Setting `stop` ends it between two entries. Never raises, as `run_load`.
    """

    def wanted(state: TableState, _now_ms: int) -> Iterator[_Expiring]:
        ours = {topic for topic in state.topics.values() if loads_topic(job.source, topic)}
        former = {name for topic in ours for name in former_tables(state.schemas, topic)}
        if unknown := sorted(set(tables) - former):
            raise _WrongError(
                f"{unknown[0]!r} is no table that a topic of this job had before `millstream load anew`;"
                f" {_some(former)}"
            )
        outer = state.outer_directories()
        for key in sorted(state.totals):
            table = key.rpartition("/")[0]
            # A topic may be called as late records of another's former table are, and have a table of that name.
            if table in former and (table in tables or table.removesuffix(LATE_SUFFIX) in tables):
                for directory, group in groupby(state.files.under(key), key=lambda file: file.directory):
                    is_whole = state.is_closed(directory) and directory not in outer
                    yield from _of_directory(directory, group, is_whole=is_whole)

    return _empty(job, DROPPED, wanted, dry_run=dry_run, stop=stop, surroundings=surroundings)


def _empty(
    job: LoadJob,
    act_name: str,
    wanted_at: Callable[[TableState, int], Iterable[_Expiring]],
    *,
    dry_run: bool,
    stop: threading.Event | None,
    surroundings: Surroundings | None,
) -> DirectoryRun:
    """Empty what is wanted of a state at a time."""
    stop = stop or threading.Event()

    def act(world: Surroundings, filesystem: FileSystem, log: CommitLog, run: DirectoryRun) -> None:
        now_ms = round(world.wall_clock() * 1000)

        def wanted(state: TableState) -> list[_Expiring]:
            return list(wanted_at(state, now_ms))

        state = log.read()
        found = wanted(state)
        if dry_run:
            for one in found:
                _count(run, one)
        if dry_run or (not found and log.unapplied() is None):
            return
        with claimed(world, job, log, Role.COMPACT, run.run_id) as claim:
            told = log.clean(claim)
            if claim.state.number != state.number + 1:
                # The claim is not all that has happened since.
                found = wanted(claim.state)
            for number, some in enumerate(_batches(found)):
                if stop.is_set():
                    run.is_stopped = True
                    break
                _expire(job, filesystem, log, claim, number, some, run)
            run.notes += [f"cleaning: {sentence}" for sentence in told]
            if run.number is not None:
                problems, fails = bring_catalogs_up_to_date(job, filesystem, claim.state, run.run_id)
                (run.errors if fails else run.notes).extend(problems)

    return _run(job, act_name, act, stop, surroundings)


def _is_closed(job: LoadJob, state: TableState, directory: str) -> bool:
    """Whether one of the job's tables has it closed, as it was given: with TABLE/FORMAT or without."""
    ours = tables_of(job, state)
    closed = {key: below for key, below in state.closed.items() if key.rpartition("/")[0] in ours}
    return any(directory in below or any(f"{key}/{one}" == directory for one in below) for key, below in closed.items())


def open_directories(job: LoadJob, state: TableState, tables: Collection[str] | None = None) -> list[str]:
    """Return the open directories of the job's tables, relative to the root."""
    ours = tables_of(job, state)
    if tables is not None and (unknown := sorted(set(tables) - ours.keys())):
        raise _WrongError(f"{unknown[0]} is no table of this job; {_some(ours)}")
    chosen = ours.keys() if tables is None else set(tables)
    return sorted(one for one in state.open_directories() if split_directory(one)[0] in chosen)


def _limits(job: LoadJob, state: TableState, before_ms: int | None, now_ms: int) -> dict[str, int]:
    """Up to where directories may end to be expired, by topic; a topic without record times has none."""
    if before_ms is not None:
        return dict.fromkeys(state.topics.values(), before_ms)
    retention_s = job.destination.retention_s
    assert retention_s is not None, f"job {job.name} has no retention"
    newest: dict[str, int] = {}
    for topic_id, watermarks in state.watermarks.items():
        topic = state.topics.get(topic_id, "")
        newest[topic] = max([newest.get(topic, -1), *watermarks.values()])
    return {topic: min(now_ms, time) - round(retention_s * 1000) for topic, time in newest.items() if time >= 0}


def _expiring(
    job: LoadJob, state: TableState, limits: Mapping[str, int], tables: Collection[str] | None
) -> Iterator[_Expiring]:
    if job.partitioning.kind != "time":
        raise _WrongError(
            f'partitioning.kind = "{job.partitioning.kind}" makes no directories of time, so none of them has an age'
        )
    from millstream.hadoop_loader.partitioning import partitioner

    ours = tables_of(job, state)
    if tables is not None and (unknown := sorted(set(tables) - ours.keys())):
        raise _WrongError(f"{unknown[0]} is no table of this job; {_some(ours)}")
    end_ms = partitioner(job.partitioning).end_ms
    chosen = {name: topic for name, topic in ours.items() if tables is None or name in tables}
    for key in sorted(state.totals):
        table, _, _format = key.rpartition("/")
        is_late = table.endswith(LATE_SUFFIX) and table not in ours
        limit = limits.get(chosen.get(table.removesuffix(LATE_SUFFIX) if is_late else table, ""))
        if limit is None:
            continue
        for directory, group in groupby(state.files.under(key), key=lambda file: file.directory):
            end = end_ms(split_directory(directory)[2])
            if end is not None and end <= limit and (is_late or state.is_closed(directory)):
                yield from _of_directory(directory, group, is_whole=not is_late)
    for topic in sorted(set(chosen.values())):
        if (limit := limits.get(topic)) is not None:
            directory = dead_letters_directory(topic)
            old = (file for file in state.files.under(directory) if 0 <= file.max_timestamp_ms < limit)
            yield from _of_directory(directory, old, is_whole=False)


def _of_directory(directory: str, files: Iterable[TableFile], *, is_whole: bool) -> Iterator[_Expiring]:
    """What of a directory goes at a time: all of it, or as many files as an entry is to have."""
    if is_whole:
        yield _Expiring(directory, tuple(files), is_whole=True)
    else:
        coming = iter(files)
        while some := tuple(islice(coming, RENAMES_PER_ENTRY)):
            yield _Expiring(directory, some, is_whole=False)


def _expire(
    job: LoadJob,
    filesystem: FileSystem,
    log: CommitLog,
    claim: Claim,
    number: int,
    some: list[_Expiring],
    run: DirectoryRun,
) -> None:
    """Commit the emptying of some directories."""
    staging = claim.staging(number, 0)
    emptied: list[CompactedDirectory] = []
    for index, one in enumerate(some):
        # What takes the place of a whole directory: nothing, but for a _SUCCESS.
        staged = f"{staging}/{index}"
        if one.is_whole:
            filesystem.make_directory(staged)
        replaced = tuple(file.name for file in one.files)
        emptied.append(
            CompactedDirectory(
                directory=one.directory, staged=staged, files=(), replaced=replaced, is_whole=one.is_whole
            )
        )
    report = {"job": job.name, "outcome": run.act}
    try:
        entry = log.commit(claim, CompactDraft(directories=tuple(emptied), report=report))
    except CompactionConflictError as error:
        run.errors.append(str(error))
        return
    run.number = entry.number
    left_out: Mapping[str, str] = entry.report.get("left_out", {})
    run.errors += [f"{directory} stays: {reason}" for directory, reason in left_out.items()]
    for one in some:
        if one.directory not in left_out:
            _count(run, one)


def _count(run: DirectoryRun, one: _Expiring) -> None:
    if run.directories[-1:] != [one.directory]:
        run.directories.append(one.directory)
    run.files += len(one.files)
    run.rows += sum(file.rows for file in one.files)
    run.bytes += sum(file.length for file in one.files)


def _batches(expiring: Iterable[_Expiring]) -> Iterator[list[_Expiring]]:
    batch: list[_Expiring] = []
    files = renames = 0
    for one in expiring:
        batch.append(one)
        files += len(one.files)
        renames += 1 if one.is_whole else len(one.files)
        if len(batch) >= DIRECTORIES_PER_ENTRY or files >= FILES_PER_ENTRY or renames >= RENAMES_PER_ENTRY:
            yield batch
            batch, files, renames = [], 0, 0
    if batch:
        yield batch


def _run(
    job: LoadJob,
    act: str,
    function: Callable[[Surroundings, FileSystem, CommitLog, DirectoryRun], None],
    stop: threading.Event | None,
    surroundings: Surroundings | None,
) -> DirectoryRun:
    """Do it on the job's destination, and make an outcome of what it meets."""
    world, stop = surroundings or Surroundings(), stop or threading.Event()
    run = DirectoryRun(world.run_id(), job.name, job.destination.uri, act)
    with outcome_in(run, _WrongError):
        with world.open_filesystem(job) as filesystem:
            function(world, filesystem, world.commit_log(job, filesystem, stop=stop), run)
        run.outcome = _outcome(run)
    return run


def _outcome(run: DirectoryRun) -> Outcome:
    """How a run ends that met nothing that ended it."""
    if run.is_stopped:
        run.notes.append("stopped; what is left is for the next time")
        return Outcome.PARTIAL if run.directories else Outcome.STOPPED
    if run.errors:
        return Outcome.PARTIAL if run.directories else Outcome.FAILED
    return Outcome.LOADED if run.directories else Outcome.NOTHING_NEW


def _tables_text(tables: Collection[str] | None) -> str:
    return "this job" if tables is None else ", ".join(sorted(tables))


def _some(names: Collection[str]) -> str:
    """Say which there are, as many as are of use."""
    if not names:
        return "there is none"
    shown = [name or '""' for name in sorted(names)[:_NAMED_MAX]]
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    return f"there are {', '.join(shown)}{more}" if len(names) > 1 else f"there is {shown[0]}"
