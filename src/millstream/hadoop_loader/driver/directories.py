"""Whole directories, closed by hand or emptied for their age: what operators do, and a job's `destination.retention_s`.

Closing is an entry of a load without a file: the directory gets its `_SUCCESS`, and what still comes for it is late.
Expiring is an entry of a compaction that leaves nothing: the directory goes to trash as a whole, where readers that
hold a number of the log find it for `snapshot_retention_s`, and an empty one takes its place. So both are as safe
against crashes, and beside other runs, as loads and compactions are. Positions are never touched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from millstream.hadoop_loader.commit import (
    ClaimedError,
    CommitError,
    CommitLog,
    CompactDraft,
    CompactedDirectory,
    CompactionConflictError,
    LoadDraft,
    Role,
    table_directory,
)
from millstream.hadoop_loader.commit.state import split_directory
from millstream.hadoop_loader.driver.claim_keeper import claimed
from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.filesystem import FileSystem, FileSystemError
from millstream.hadoop_loader.tables.ownership import tables_of

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import Claim, TableFile, TableState
    from millstream.hadoop_loader.job import LoadJob

# An entry lists the files it removes: so many directories, and about so many files, are one.
DIRECTORIES_PER_ENTRY: Final = 500
FILES_PER_ENTRY: Final = 50_000
_NAMED_MAX: Final = 5

CLOSED: Final = "closed"
EXPIRED: Final = "expired"


@dataclass(slots=True)
class DirectoryRun:
    """What became of directories. Outcome LOADED: they were closed or expired; NOTHING_NEW: there were none."""

    run_id: str
    job: str
    destination: str
    act: str  # CLOSED or EXPIRED
    outcome: Outcome = Outcome.FAILED
    # Of the last entry that was committed.
    number: int | None = None
    # Relative to the root; of a dry run, those that it would be.
    directories: list[str] = field(default_factory=list)
    files: int = 0
    rows: int = 0
    bytes: int = 0
    errors: list[str] = field(default_factory=list)

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
        }


class _StoppedError(Exception):
    """It was told to stop while it waited for the claim."""


class _WrongError(Exception):
    """What was asked for cannot be; the message says why, and what to do."""


class _Expiring(NamedTuple):
    """A directory that is to be emptied, and what it holds."""

    directory: str
    files: tuple[TableFile, ...]


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

    Without it those that the job's `destination.retention_s` is over for, counted from now or from the newest record
    loaded of the topic, whichever is earlier: a clock that runs ahead expires nothing. Never raises, as `run_load`.
    """

    def act(world: Surroundings, filesystem: FileSystem, log: CommitLog, run: DirectoryRun) -> None:
        now_ms = round(world.wall_clock() * 1000)

        def wanted(state: TableState) -> list[_Expiring]:
            limits = _limits(job, state, before_ms, now_ms)
            return list(_expiring(job, state, limits, tables))

        found = wanted(log.read())
        if dry_run:
            for one in found:
                _count(run, one)
        if dry_run or (not found and log.unapplied() is None):
            return
        with claimed(world, job, log, Role.COMPACT, run.run_id) as claim:
            log.clean(claim)
            for number, some in enumerate(_batches(wanted(claim.state))):
                _expire(filesystem, log, claim, number, some, run)
            if run.number is not None:
                _tell_catalogs(job, filesystem, claim.state, run)

    return _run(job, EXPIRED, act, stop, surroundings)


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
    for key in sorted(state.closed):
        table, _, format_ = key.rpartition("/")
        limit = limits.get(ours[table]) if table in ours and (tables is None or table in tables) else None
        if limit is None:
            continue
        for below in sorted(state.closed[key]):
            end = end_ms(below)
            if end is None or end > limit:
                continue
            directory = table_directory(table, format_, below)
            if files := tuple(state.files.in_directory(directory)):
                yield _Expiring(directory, files)


def _expire(
    filesystem: FileSystem, log: CommitLog, claim: Claim, number: int, some: list[_Expiring], run: DirectoryRun
) -> None:
    """Commit the emptying of some directories."""
    staging = claim.staging(number, 0)
    emptied: list[CompactedDirectory] = []
    for index, one in enumerate(some):
        # What takes the place of the directory: nothing, but for a _SUCCESS.
        staged = f"{staging}/{index}"
        filesystem.make_directory(staged)
        replaced = tuple(file.name for file in one.files)
        emptied.append(CompactedDirectory(directory=one.directory, staged=staged, files=(), replaced=replaced))
    try:
        entry = log.commit(claim, CompactDraft(directories=tuple(emptied), report={"outcome": EXPIRED}))
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
    run.directories.append(one.directory)
    run.files += len(one.files)
    run.rows += sum(file.rows for file in one.files)
    run.bytes += sum(file.length for file in one.files)


def _batches(expiring: Iterable[_Expiring]) -> Iterator[list[_Expiring]]:
    batch: list[_Expiring] = []
    files = 0
    for one in expiring:
        batch.append(one)
        files += len(one.files)
        if len(batch) >= DIRECTORIES_PER_ENTRY or files >= FILES_PER_ENTRY:
            yield batch
            batch, files = [], 0
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

    def wait(seconds: float) -> None:
        if stop.wait(seconds):
            raise _StoppedError

    try:
        with world.open_filesystem(job) as filesystem:
            function(world, filesystem, world.commit_log(job, filesystem, wait=wait), run)
        done = Outcome.LOADED if run.directories else Outcome.NOTHING_NEW
        run.outcome = (Outcome.PARTIAL if run.directories else Outcome.FAILED) if run.errors else done
    except ClaimedError as error:
        run.outcome = Outcome.CLAIMED
        run.errors.append(str(error))
    except _StoppedError:
        run.outcome = Outcome.STOPPED
    except (_WrongError, FileSystemError, CommitError, OSError) as error:
        if isinstance(error, CommitError) and error.published is not None:
            # It counts, and the next run applies it.
            run.number = error.published.number
        run.outcome = Outcome.FAILED if run.number is None else Outcome.PARTIAL
        run.errors.append(str(error) or type(error).__name__)
    return run


def _tell_catalogs(job: LoadJob, filesystem: FileSystem, state: TableState, run: DirectoryRun) -> None:
    if job.hive is None and job.iceberg is None:
        return
    from millstream.hadoop_loader.catalogs import CatalogError, tell_catalogs

    try:
        run.errors += tell_catalogs(job, filesystem, state)
    except CatalogError as error:
        run.errors.append(str(error))


def _tables_text(tables: Collection[str] | None) -> str:
    return "this job" if tables is None else ", ".join(sorted(tables))


def _some(names: Collection[str]) -> str:
    """Say which there are, as many as are of use."""
    if not names:
        return "there is none"
    shown = [name or '""' for name in sorted(names)[:_NAMED_MAX]]
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    return f"there are {', '.join(shown)}{more}" if len(names) > 1 else f"there is {shown[0]}"
