"""A destination held against its log and its topics: everything the log names is there, and nothing else is.

    every file of the inventory is there, with its length       deep: its bytes have the checksum
    every file below a table is in the inventory                no two files of a directory surely share offsets, but
                                                                for those of two histories of a log that was cut
    every closed directory has its _SUCCESS                     the last entry is applied
    the inventory has as many files and rows of each table as all entries together brought and took
    each position lies within its topic, which is the one that was loaded

Only reads, but for `repair`, which makes marks anew that are gone, and none before what it stands for: as long as the
last entry is not applied, or a file of the directory is missing or another, its mark would lie. Others may commit
meanwhile, and all of a large destination takes hours: so the directories where something looks wrong, and they alone,
are looked at again with the log as it is then, until nobody has committed during such a look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from millstream.core.wire import KafkaError
from millstream.hadoop_loader.commit import Totals
from millstream.hadoop_loader.commit.applying import mark
from millstream.hadoop_loader.commit.names import HOME, SUCCESS
from millstream.hadoop_loader.commit.state import split_directory, totals_key
from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.driver.sharing import cut_offset, files_sharing_offsets
from millstream.hadoop_loader.driver.status import Red
from millstream.hadoop_loader.driver.surroundings import Surroundings, look_at_topics
from millstream.hadoop_loader.filesystem import FileSystemError
from millstream.hadoop_loader.job import JobError
from millstream.hadoop_loader.source import Severity, reconcile
from millstream.hadoop_loader.source.topics import loads_topic
from millstream.hadoop_loader.splits import FileKind
from millstream.hadoop_loader.tables.ownership import tables_of

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import CommitLog, TableFile, TableState
    from millstream.hadoop_loader.filesystem import FileStatus, FileSystem
    from millstream.hadoop_loader.job import LoadJob

CHUNK_BYTES: Final = 8 * 2**20
THREADS: Final = 4
FINDINGS_MAX: Final = 1_000
# Of what looked wrong, while others commit during each.
LOOKS_AGAIN_MAX: Final = 10
_REPAIR: Final = "`millstream load verify --repair` makes it anew"
_REPAIR_LATER: Final = "mend its files first: it would say that all rows are there"
_SHARED: Final = "no cut of their partition is in the log: keep both and report it, this must not be"
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
        with ThreadPoolExecutor(THREADS, thread_name_prefix="verify") as pool:
            look = _Look(filesystem, log, job, pool, deep=deep, repair=repair)
            verified = _verify(look)
        if not offline:
            _look_at_topics(job, log.read(), verified)
    return verified


class _Look:
    """A look at directories, as of one number of the log."""

    def __init__(
        self,
        filesystem: FileSystem,
        log: CommitLog,
        job: LoadJob,
        pool: ThreadPoolExecutor,
        *,
        deep: bool,
        repair: bool,
    ) -> None:
        self.filesystem = filesystem
        self.job = job
        self.deep = deep
        self._log = log
        self._pool = pool
        self._repair = repair
        self.repaired: list[str] = []
        # Directories whose marks may still come with the last entry.
        self.doubtful: set[str] = set()
        self.begin()

    def begin(self) -> None:
        """Take the log as it is now."""
        # In this order: what was applied by the second look is all in its place at each look behind it.
        self.state, self.unapplied = self._log.read(), self._log.unapplied()
        # The job's tables, once they are asked for.
        self._own: Mapping[str, str] | None = None

    @property
    def is_of_now(self) -> bool:
        """Whether nobody has committed, or applied an entry, since it began."""
        if self._log.read().number != self.state.number:
            return False
        return self.unapplied is None or self._log.unapplied() is not None

    def at_the_end_of_the_log(self) -> list[Red]:
        """What is wrong with the last entry."""
        if self.unapplied is None:
            return []
        return [Red(f"entry {self.unapplied.number} is not fully applied", "run the job again")]

    def at(self, directory: str, files: list[TableFile], there: Mapping[str, FileStatus]) -> list[Red]:
        """What is wrong in a directory: `files` are what the log has in it, `there` what it holds."""
        wrong = _wrong_files(files, there)
        if self.deep:
            for finding in self._pool.map(self._read_whole, (file for file in files if file.name in there)):
                wrong += finding
        found = list(wrong)
        if SUCCESS not in there and self.state.is_closed(directory) and self._marks(directory, files):
            if self.unapplied is None:
                found += self._miss_mark(directory, is_whole=not wrong)
            else:
                self.doubtful.add(directory)
        listed = {file.name for file in files}
        found += [
            Red(f"{directory}/{name} is in no entry of the log", "move it away: readers take it for data")
            for name, status in there.items()
            if name not in listed and _is_data(status)
        ]
        found += _sharing(self.state, files)
        return found

    def _marks(self, directory: str, files: list[TableFile]) -> bool:
        """Whether the job marks the directory when it is closed: other jobs at the root may have none marked."""
        if not self.job.destination.success_files:
            return False
        if files:
            return loads_topic(self.job.source, files[0].topic)
        if self._own is None:
            self._own = tables_of(self.job, self.state)
        return split_directory(directory)[0] in self._own

    def _miss_mark(self, directory: str, *, is_whole: bool) -> list[Red]:
        """Make anew what says that a directory is closed, or tell that it is missing."""
        path = f"{directory}/{SUCCESS}"
        if self._repair and is_whole and _has_been_marked(self.filesystem, path):
            self.repaired.append(path)
            return []
        return [Red(f"{directory} is closed and has no {SUCCESS}", _REPAIR if is_whole else _REPAIR_LATER)]

    def _read_whole(self, file: TableFile) -> Iterable[Red]:
        from millstream.core.records import crc32c

        try:
            with self.filesystem.open(file.path) as opened:
                crc, position = 0, 0
                while chunk := opened.read_at(position, CHUNK_BYTES):
                    crc = crc32c(chunk, crc)
                    position += len(chunk)
        except FileNotFoundError:
            return (Red(f"{file.path} is not there", _RUN_AGAIN),)  # no more, as it was listed
        except (FileSystemError, OSError) as error:
            # Raises where it is not this file that gives no answer, but all of the file system.
            self.filesystem.status(file.path)
            return (Red(f"{file.path} cannot be read: {error}", _RUN_AGAIN),)
        if (found := f"crc32c:{crc:08x}") != file.checksum:
            return (Red(f"{file.path} has the checksum {found}, the log says {file.checksum}", _RUN_AGAIN),)
        return ()


def _verify(look: _Look) -> Verified:
    state = look.state
    verified = Verified(look.job.destination.uri, state.number, look.deep)
    if not state.number:
        # The root need not be there yet, and what lies in it is somebody else's.
        return verified
    # By directory, "" for what is of none.
    found: dict[str, list[Red]] = {"": look.at_the_end_of_the_log()}
    held: dict[str, Totals] = {}
    for directory, files, there in _directories(look.filesystem, state):
        for file in files:
            key = totals_key(directory)
            held[key] = held.get(key, Totals()).plus(Totals(1, file.rows, file.length))
        if files or state.is_closed(directory):
            verified.directories += 1
        if findings := look.at(directory, files, there):
            found[directory] = findings
            if sum(map(len, found.values())) >= FINDINGS_MAX:
                break
    # Where there are too many findings to go on it is not all that the log has.
    miscounted = [] if sum(map(len, found.values())) >= FINDINGS_MAX else _miscounted(state.totals, held)
    verified.files, verified.rows, verified.bytes = map(sum, zip(*held.values(), strict=True)) if held else (0, 0, 0)
    for _ in range(LOOKS_AGAIN_MAX):
        if look.is_of_now or not any(found.values()):
            break
        look.begin()
        for directory in sorted({*found, *look.doubtful} - {""}):
            found[directory] = look.at(
                directory, look.state.files.in_directory(directory), _listed(look.filesystem, directory)
            )
        found[""] = look.at_the_end_of_the_log()
    verified.repaired = look.repaired
    verified.findings = [finding for findings in found.values() for finding in findings] + miscounted
    return verified


def _directories(
    filesystem: FileSystem, state: TableState
) -> Iterator[tuple[str, list[TableFile], Mapping[str, FileStatus]]]:
    """Yield each directory that the log has files in or that is there, with these files and what it holds."""
    seen: set[str] = set()
    for directory, group in groupby(state.files.under(""), key=lambda file: file.directory):
        seen.add(directory)
        yield directory, list(group), _listed(filesystem, directory)
    # Those that were emptied for their age, whose marks are missed no less; one that was deleted by hand is nobody's.
    for directory, children in _walk(filesystem):
        if directory not in seen:
            yield directory, [], {one.name: one for one in children}


def _miscounted(counted: Mapping[str, Totals], held: Mapping[str, Totals]) -> list[Red]:
    """Say where the inventory has not what the entries brought and took: records would be missing, or twice."""
    return [
        Red(
            f"{key}: the entries of the log come to {log.files:,} files with {log.rows:,} rows and {log.bytes:,} bytes,"
            f" its inventory has {has.files:,} with {has.rows:,} and {has.bytes:,}",
            "leave the destination as it is and report it: this must not be",
        )
        for key in sorted({*counted, *held})
        if (log := counted.get(key, Totals())) != (has := held.get(key, Totals()))
    ]


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


def _sharing(state: TableState, files: Iterable[TableFile]) -> list[Red]:
    """Say which files of a directory share offsets that no cut of their partition explains."""
    by_partition: dict[tuple[str, str, int, str], list[TableFile]] = defaultdict(list)
    for file in files:
        # What was compacted is of many partitions, and letters that were replayed in vain come again.
        if file.partition >= 0 and file.kind is not FileKind.DEAD_LETTERS:
            format_ = file.name.rpartition(".")[2]
            by_partition[file.topic, file.topic_id, file.partition, format_].append(file)
    return [
        Red(f"{before.path} and {after.path} share offsets", _SHARED)
        for (topic, topic_id, partition, _), group in by_partition.items()
        for before, after in files_sharing_offsets(group, cut_offset(state, topic, topic_id, partition))
    ]


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
