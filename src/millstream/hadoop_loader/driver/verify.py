"""A destination held against its log and its topics: everything the log names is there, and nothing else is.

    every file of the inventory is there, with its length       deep: its bytes have the checksum
    every file below a table is in the inventory                no two files of a directory surely share offsets
    every closed directory has its _SUCCESS                     the last entry is applied
    each position lies within its topic, which is the one that was loaded

Only reads, but for `repair`, which makes marks anew that are gone, and none before what it stands for: as long as the
last entry is not applied, or a file of the directory is missing or another, its mark would lie. A load that commits
meanwhile adds files that this does not know: what looks wrong is looked at again with the log as it is then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from millstream.core.wire import KafkaError
from millstream.hadoop_loader.commit.applying import mark
from millstream.hadoop_loader.commit.names import HOME, SUCCESS
from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.driver.status import Red
from millstream.hadoop_loader.driver.surroundings import Surroundings, look_at_topics
from millstream.hadoop_loader.job import JobError
from millstream.hadoop_loader.source import Severity, reconcile
from millstream.hadoop_loader.splits import FileKind

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import CommitLog, TableFile, TableState
    from millstream.hadoop_loader.filesystem import FileStatus, FileSystem
    from millstream.hadoop_loader.job import LoadJob

CHUNK_BYTES: Final = 8 * 2**20
THREADS: Final = 4
FINDINGS_MAX: Final = 1_000
_REPAIR: Final = "`millstream load verify --repair` makes it anew"
_REPAIR_LATER: Final = "mend its files first: it would say that all rows are there"
_RUN_AGAIN: Final = "run the job again; if it stays, restore the file from a backup, or load its offsets anew"


@dataclass(slots=True)
class Verified:
    """What was looked at, and what was found."""

    destination: str
    number: int
    deep: bool
    files: int = 0
    rows: int = 0
    bytes: int = 0
    directories: int = 0
    # Marks that were made anew.
    repaired: list[str] = field(default_factory=list)
    findings: list[Red] = field(default_factory=list)

    @property
    def headline(self) -> str:
        """One sentence about it."""
        if not self.number:
            return f"{self.destination}: nothing was ever loaded here"
        how = "read whole" if self.deep else "looked at"
        findings = "1 finding" if len(self.findings) == 1 else f"{len(self.findings):,} findings"
        return (
            f"{self.destination}, entry {self.number}: {self.files:,} files with {self.rows:,} rows in "
            f"{self.directories:,} directories {how}, {findings}"
        )

    @property
    def exit_code(self) -> int:
        """0, or 3 where something was found."""
        return Outcome.PARTIAL.exit_code if self.findings else 0

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "destination": self.destination,
            "number": self.number,
            "deep": self.deep,
            "files": self.files,
            "rows": self.rows,
            "bytes": self.bytes,
            "directories": self.directories,
            "repaired": self.repaired,
            "findings": [finding._asdict() for finding in self.findings],
        }


def verify_destination(
    job: LoadJob,
    *,
    deep: bool = False,
    offline: bool = False,
    repair: bool = False,
    surroundings: Surroundings | None = None,
) -> Verified:
    """Verify the job's destination; with `repair` give closed directories back a `_SUCCESS` that is gone.

    Raises CommitError, FileSystemError, JobError.
    """
    world = surroundings or Surroundings()
    with world.open_filesystem(job) as filesystem:
        log = world.commit_log(job, filesystem)
        verified = _verify(filesystem, log, job, deep=deep, repair=repair)
        if verified.findings and log.read().number != verified.number:
            # Somebody committed meanwhile, and what was found may be that.
            repaired = verified.repaired
            verified = _verify(filesystem, log, job, deep=deep, repair=repair)
            verified.repaired[:0] = repaired
        if not offline:
            _look_at_topics(job, log.read(), verified)
    return verified


def _verify(filesystem: FileSystem, log: CommitLog, job: LoadJob, *, deep: bool, repair: bool) -> Verified:
    # In this order: what was applied by the second look is all in its place at each look behind it.
    state, unapplied = log.read(), log.unapplied()
    verified = Verified(job.destination.uri, state.number, deep)
    if not state.number:
        # The root need not be there yet, and what lies in it is somebody else's.
        return verified
    if unapplied is not None:
        verified.findings.append(Red(f"entry {unapplied.number} is not fully applied", "run the job again"))
    marks_due = job.destination.success_files and unapplied is None
    seen: set[str] = set()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="verify") as pool:
        for directory, group in groupby(state.files.under(""), key=lambda file: file.directory):
            files = list(group)
            seen.add(directory)
            verified.directories += 1
            there = _listed(filesystem, directory)
            wrong = _wrong_files(files, there)
            if deep:
                for finding in pool.map(lambda file: _read_whole(filesystem, file), files):
                    wrong += finding
            verified.findings += wrong
            if marks_due and SUCCESS not in there and state.is_closed(directory):
                _miss_mark(filesystem, directory, verified, is_whole=not wrong, repair=repair)
            _look_at_directory(directory, files, there, verified)
            if len(verified.findings) >= FINDINGS_MAX:
                return verified
    emptied = _closed_without_files(state, seen)
    for directory, children in _walk(filesystem):
        if directory in emptied:
            # For its age: a mark that is gone is missed no less. One that was deleted by hand is nobody's.
            verified.directories += 1
            if marks_due and SUCCESS not in {one.name for one in children}:
                _miss_mark(filesystem, directory, verified, is_whole=True, repair=repair)
        for one in children if directory not in seen else ():
            if _is_data(one):
                verified.findings.append(_stray(one.path))
    return verified


def _listed(filesystem: FileSystem, directory: str) -> dict[str, FileStatus]:
    """Return what a directory holds by its names; nothing where there is none."""
    try:
        return {one.name: one for one in filesystem.list(directory)}
    except FileNotFoundError:
        return {}


def _wrong_files(files: Iterable[TableFile], there: Mapping[str, FileStatus]) -> list[Red]:
    """Return what is missing of a directory's files, and what has another length than the log says."""
    wrong = []
    for file in files:
        found = there.get(file.name)
        if found is None:
            wrong.append(Red(f"{file.path} is not there", _RUN_AGAIN))
        elif found.length != file.length:
            wrong.append(Red(f"{file.path} has {found.length} bytes, the log says {file.length}", _RUN_AGAIN))
    return wrong


def _look_at_directory(
    directory: str, files: list[TableFile], there: Mapping[str, FileStatus], verified: Verified
) -> None:
    """Count a directory's files; see that it holds no others, and that none share offsets."""
    verified.files += len(files)
    verified.rows += sum(file.rows for file in files)
    verified.bytes += sum(file.length for file in files)
    listed = {file.name for file in files}
    for name, found in there.items():
        if name not in listed and _is_data(found):
            verified.findings.append(_stray(f"{directory}/{name}"))
    by_partition: dict[tuple[str, int, str], list[TableFile]] = defaultdict(list)
    for file in files:
        # What was compacted is of many partitions, and letters that were replayed in vain come again.
        if file.partition >= 0 and file.kind is not FileKind.DEAD_LETTERS:
            by_partition[file.topic_id, file.partition, file.name.rpartition(".")[2]].append(file)
    for group in by_partition.values():
        for before, after in files_sharing_offsets(group):
            verified.findings.append(
                Red(f"{before.path} and {after.path} share offsets", "keep both and report it: this must not be")
            )


def files_sharing_offsets(files: Iterable[TableFile]) -> Iterator[tuple[TableFile, TableFile]]:
    """Yield pairs of one partition's files that hold a record both, as far as their offsets and rows prove it.

    Ranges may overlap: tombstones are in files of their own, and a dead letter that is replayed comes from among rows.
    """
    # Those whose range is not over yet, by their first offsets.
    open_: list[TableFile] = []
    for file in sorted(files, key=lambda one: (one.first_offset, one.last_offset)):
        open_ = [one for one in open_ if one.last_offset >= file.first_offset]
        yield from ((one, file) for one in open_ if _must_share(one, file))
        open_.append(file)


def _must_share(one: TableFile, other: TableFile) -> bool:
    """Whether two files with overlapping ranges have a record in common, wherever their other records lie."""
    first, last = min(one.first_offset, other.first_offset), max(one.last_offset, other.last_offset)
    if one.rows + other.rows > last - first + 1:
        return True
    return _surely_has_an_end_of(one, other) or _surely_has_an_end_of(other, one)


def _surely_has_an_end_of(one: TableFile, other: TableFile) -> bool:
    """Whether a file's first or last offset, which it has, is for certain in `one` too."""
    ends = {other.first_offset, other.last_offset}
    if one.rows >= one.last_offset - one.first_offset + 1:
        return any(one.first_offset <= end <= one.last_offset for end in ends)
    return not ends.isdisjoint((one.first_offset, one.last_offset))


def _closed_without_files(state: TableState, seen: Collection[str]) -> set[str]:
    """Return the closed directories, relative to the root, that the log has no file in."""
    closed = (f"{key}/{below}" if below else key for key, names in state.closed.items() for below in names)
    return {directory for directory in closed if directory not in seen}


def _miss_mark(filesystem: FileSystem, directory: str, verified: Verified, *, is_whole: bool, repair: bool) -> None:
    """Make anew what says that a directory is closed, or tell that it is missing."""
    if repair and is_whole and _has_been_marked(filesystem, f"{directory}/{SUCCESS}"):
        verified.repaired.append(f"{directory}/{SUCCESS}")
    else:
        remedy = _REPAIR if is_whole else _REPAIR_LATER
        verified.findings.append(Red(f"{directory} is closed and has no {SUCCESS}", remedy))


def _stray(path: str) -> Red:
    return Red(f"{path} is in no entry of the log", "move it away: readers take it for data")


def _has_been_marked(filesystem: FileSystem, path: str) -> bool:
    """Make a mark that is gone. Needs no claim: a compaction that replaces the directory meanwhile takes it along."""
    try:
        mark(filesystem, path)
    except FileNotFoundError:
        return False  # just now there is no directory at its place
    return True


def _walk(filesystem: FileSystem) -> Iterator[tuple[str, list[FileStatus]]]:
    """Yield every directory that may be part of a table, and what it holds."""
    pending = [one.path for one in filesystem.list("") if one.is_directory and one.name != HOME]
    while pending:
        directory = pending.pop()
        try:
            children = filesystem.list(directory)
        except FileNotFoundError:
            continue  # a compaction has just taken it away, and puts another in its place
        yield directory, children
        # What begins so is no part of a table for any reader: scripts for Hive, say.
        pending += [one.path for one in children if one.is_directory and not one.name.startswith(("_", "."))]


def _is_data(found: FileStatus) -> bool:
    """Whether readers of plain directories take it for data: not what begins with an underscore or a dot."""
    return not found.is_directory and not found.name.startswith(("_", "."))


def _read_whole(filesystem: FileSystem, file: TableFile) -> Iterable[Red]:
    from millstream.core.records import crc32c

    try:
        with filesystem.open(file.path) as opened:
            crc, position = 0, 0
            while chunk := opened.read_at(position, CHUNK_BYTES):
                crc = crc32c(chunk, crc)
                position += len(chunk)
    except FileNotFoundError:
        return ()  # told already
    if (found := f"crc32c:{crc:08x}") != file.checksum:
        return (Red(f"{file.path} has the checksum {found}, the log says {file.checksum}", _RUN_AGAIN),)
    return ()


def _look_at_topics(job: LoadJob, state: TableState, verified: Verified) -> None:
    try:
        snapshot = look_at_topics(job, state)
    except KafkaError as error:
        verified.findings.append(Red(f"the cluster was not reached: {error.message}", "see that its brokers run"))
        return
    except JobError as error:
        verified.findings.append(Red(str(error), "mend the job"))
        return
    found = reconcile(snapshot, job.source, cluster_id=state.cluster_id, topics=state.topics, positions=state.positions)
    verified.findings += [
        Red(finding.sentence, finding.remedy) for finding in found.findings if finding.severity is not Severity.NOTE
    ]
