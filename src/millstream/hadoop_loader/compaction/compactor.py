"""Compaction at work: directories encoded or copied to staging by some threads, and committed one by one.

Whoever runs it holds the claim for compaction and renews it. What was staged for a directory that is left as it was
goes at once, and what a process that died had staged with the next claim. A directory that got another file meanwhile
is done the next time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from millstream.hadoop_loader.commit import CompactDraft, CompactedDirectory, CompactionConflictError
from millstream.hadoop_loader.commit.names import SUCCESS
from millstream.hadoop_loader.compaction.outputs import CompactionError, Outputs, StoppedError
from millstream.hadoop_loader.compaction.planning import DirectoryPlan
from millstream.hadoop_loader.filesystem import FileSystemError

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import Claim, Entry, TableState
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.job import CompactionSettings, EncodingSettings


WORKER_MEMORY_BYTES: Final = 256 << 20
"""Memory below which another directory at once would only make them all spill."""


class Committer(Protocol):
    """What is needed of a CommitLog."""

    def read(self) -> TableState:
        """The state now."""
        ...

    def commit(self, claim: Claim, draft: CompactDraft) -> Entry:
        """Publish and apply a draft."""
        ...


@dataclass(slots=True)
class DirectoryResult:
    """What became of one directory.

    `refused` says why it cannot be compacted until somebody sees to it, `left` why it was not this time, as the log has
    moved on; "" where that is not so.
    """

    directory: str
    files_before: int
    bytes_before: int
    files_after: int = 0
    bytes_after: int = 0
    rows: int = 0
    rows_replaced: int = 0
    seconds: float = 0.0
    refused: str = ""
    left: str = ""
    # The number of the commit log's entry.
    number: int = 0

    @property
    def is_done(self) -> bool:
        """Whether it was compacted."""
        return not self.refused and not self.left


@dataclass(slots=True)
class CompactionReport:
    """What a compaction came to."""

    directories: list[DirectoryResult] = field(default_factory=list)
    is_stopped: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it for a report."""
        done = [one for one in self.directories if one.is_done]
        return {
            "directories": len(done),
            "files_before": sum(one.files_before for one in done),
            "files_after": sum(one.files_after for one in done),
            "bytes_before": sum(one.bytes_before for one in done),
            "bytes_after": sum(one.bytes_after for one in done),
            "rows": sum(one.rows for one in done),
            "rows_replaced": sum(one.rows_replaced for one in done),
            "refused": {one.directory: one.refused for one in self.directories if one.refused},
            "left": {one.directory: one.left for one in self.directories if one.left},
            "stopped": self.is_stopped,
        }


def compact(
    filesystem: FileSystem,
    log: Committer,
    claim: Claim,
    plans: Iterable[DirectoryPlan],
    settings: CompactionSettings,
    encoding: EncodingSettings,
    *,
    stop: threading.Event,
    on_progress: Callable[[DirectoryPlan, int], None] = lambda _plan, _bytes: None,
    report: CompactionReport | None = None,
    workers: int = 1,
    job: str = "",
) -> CompactionReport:
    """Compact directories and commit each; `on_progress` is told of bytes read, `report` filled, also up to an error.

    The log's entries name `job`.

    Up to `workers` directories are staged at once, by threads that share `settings.memory_bytes`: nearly all of the
    work is Arrow's, which needs no interpreter's lock. What one directory is refused for, or what Arrow or this
    machine's disk says of it, does not keep the others. Raises FencedError, FileSystemError.
    """
    report = report or CompactionReport()
    numbered = list(enumerate(plans))
    _load_writers({plan.format for _, plan in numbered}, settings)
    count = max(1, min(workers, len(numbered), settings.memory_bytes // WORKER_MEMORY_BYTES))
    work = _Staging(
        filesystem, claim, replace(settings, memory_bytes=settings.memory_bytes // count), encoding, stop, on_progress
    )
    results: dict[int, DirectoryResult] = {}
    # In their order, and never much more than what is worked on: what is staged takes room until it is committed.
    coming = iter(numbered)
    under_way: set[Future[_Staged]] = set()
    with ThreadPoolExecutor(count, thread_name_prefix="compact") as threads:
        try:
            while True:
                while len(under_way) < count and (following := next(coming, None)) is not None:
                    under_way.add(threads.submit(work.stage, *following))
                if not under_way:
                    break
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    under_way.remove(future)
                    staged = future.result()
                    _commit(filesystem, log, claim, staged, job)
                    results[staged.number] = staged.result
                    report.directories[:] = [results[number] for number in sorted(results)]
        except StoppedError:
            report.is_stopped = True
            for future in wait(under_way).done:
                if future.exception() is None:
                    _discard(filesystem, future.result().path)
        finally:
            # Those that are still at work, after a stop or an error, see it and clean up behind them.
            work.is_over.set()
    return report


def _load_writers(formats: Collection[str], settings: CompactionSettings) -> None:
    """Load the modules that the threads need, each once and before they are begun.

    Threads that load modules at the same time wait for each other's at best; CPython 3.11 may fail where whoever loads
    them parses them too, as test runners do (gh-106905).
    """
    if "avro" in formats:
        import millstream.hadoop_loader.compaction.avro_blocks
    if "parquet" in formats:
        import millstream.hadoop_loader.compaction.parquet_rows
    if settings.deduplicate_by:
        import millstream.hadoop_loader.compaction.deduplication  # noqa: F401


@dataclass(slots=True)
class _Staged:
    """What a thread made of one directory: nothing to commit where it was refused."""

    number: int
    path: str
    plan: DirectoryPlan
    result: DirectoryResult
    compacted: CompactedDirectory | None = None
    # Whether it was refused as it holds other files than were planned.
    holds_others: bool = False


class _Staging:
    """Stages directories, each on one thread, until there is a stop or the whole is over."""

    def __init__(
        self,
        filesystem: FileSystem,
        claim: Claim,
        settings: CompactionSettings,
        encoding: EncodingSettings,
        stop: threading.Event,
        on_progress: Callable[[DirectoryPlan, int], None],
    ) -> None:
        self._filesystem = filesystem
        self._claim = claim
        self._settings = settings
        self._encoding = encoding
        self._stop = stop
        self._on_progress = on_progress
        self._telling = threading.Lock()
        self.is_over = threading.Event()

    def is_set(self) -> bool:
        """Whether to end."""
        return self._stop.is_set() or self.is_over.is_set()

    def stage(self, number: int, plan: DirectoryPlan) -> _Staged:
        """Stage one directory; what of it is in its result. Raises StoppedError, FencedError, FileSystemError."""
        import pyarrow as pa

        began = time.monotonic()
        result = DirectoryResult(plan.directory, len(plan.files), plan.size_bytes)
        staged = _Staged(number, self._claim.staging(number, 0), plan, result)
        try:
            staged.compacted = compact_directory(
                self._filesystem,
                plan,
                staged.path,
                self._settings,
                self._encoding,
                stop=self,
                on_progress=self._tell,
                result=result,
            )
        except StoppedError:
            _discard(self._filesystem, staged.path)
            raise
        except CompactionError as error:
            result.refused = str(error)
            staged.holds_others = isinstance(error, _OtherFilesError)
        except (pa.ArrowException, OSError) as error:
            found = str(error) or type(error).__name__
            result.refused = f"{found}; the directory is as it was, the next compaction tries again"
        result.seconds = time.monotonic() - began
        return staged

    def _tell(self, plan: DirectoryPlan, size_bytes: int) -> None:
        with self._telling:
            self._on_progress(plan, size_bytes)


def _commit(filesystem: FileSystem, log: Committer, claim: Claim, staged: _Staged, job: str) -> None:
    """Commit a staged directory, or clean up behind it where it is refused or left."""
    result = staged.result
    if staged.compacted is not None:
        report = {"rows_replaced": result.rows_replaced} | ({"job": job} if job else {})
        try:
            result.number = log.commit(claim, CompactDraft(directories=(staged.compacted,), report=report)).number
        except CompactionConflictError as error:
            # Should it be for good, as where somebody took a file away, the next compaction refuses it by a look.
            result.left = str(error)
    elif staged.holds_others:
        plan = staged.plan
        listed = {file.name for file in log.read().files.in_directory(plan.directory)}
        if plan.is_whole and listed != {file.name for file in plan.files}:
            # A load has been there since.
            result.refused, result.left = "", f"{plan.directory}: its files have changed since it was looked at"
    if not result.is_done:
        _discard(filesystem, staged.path)


class _OtherFilesError(CompactionError):
    """The directory holds other files than the plan."""


class _Stop(Protocol):
    """What is asked, while a directory is read, whether to go on."""

    def is_set(self) -> bool:
        """Whether to end."""
        ...


def compact_directory(
    filesystem: FileSystem,
    plan: DirectoryPlan,
    staging: str,
    settings: CompactionSettings,
    encoding: EncodingSettings,
    *,
    stop: _Stop,
    on_progress: Callable[[DirectoryPlan, int], None] = lambda _plan, _bytes: None,
    result: DirectoryResult | None = None,
) -> CompactedDirectory:
    """Stage what replaces a directory's files. Raises CompactionError, StoppedError, FileSystemError."""

    def check(size_bytes: int) -> None:
        on_progress(plan, size_bytes)
        if stop.is_set():
            raise StoppedError

    _check_listed(filesystem, plan)
    outputs = Outputs(filesystem, plan, staging, settings.target_file_size_bytes)
    replaced = 0
    try:
        if plan.format == "avro":
            from millstream.hadoop_loader.compaction.avro_blocks import join_avro

            join_avro(filesystem, plan, outputs, block_bytes_max=settings.memory_bytes // 2, check=check)
        else:
            replaced = _rewrite(filesystem, plan, outputs, settings, encoding, check)
    except BaseException:
        outputs.abandon()
        raise
    files = tuple(outputs.staged)
    rows = sum(file.rows for file in files)
    if rows != plan.rows - replaced:
        # Our mistake, and the last look before what is right goes to trash.
        raise CompactionError(
            f"{plan.directory}: {plan.rows} rows became {rows}, and {replaced} were replaced; this is a defect of"
            " compaction: report it"
        )
    if result is not None:
        result.files_after, result.bytes_after = len(files), sum(file.length for file in files)
        result.rows, result.rows_replaced = rows, replaced
    return CompactedDirectory(
        directory=plan.directory,
        staged=staging,
        files=files,
        replaced=tuple(file.name for file in plan.files),
        is_whole=plan.is_whole,
    )


def _check_listed(filesystem: FileSystem, plan: DirectoryPlan) -> None:
    """Raises CompactionError for a directory that could not be replaced, before any work is done on it."""
    there = {status.name for status in filesystem.list(plan.directory)} - {SUCCESS}
    wanted = {file.name for file in plan.files}
    if wrong := sorted(there ^ wanted if plan.is_whole else wanted - there):
        what = "not in the commit log" if wrong[0] in there else "gone, though the commit log has it"
        raise _OtherFilesError(
            f"{plan.directory}/{wrong[0]} is {what} ({len(wrong)} such); `millstream load verify` tells more"
        )


def _discard(filesystem: FileSystem, staging: str) -> None:
    """Delete what nobody will commit; what cannot be is for the next claim."""
    with suppress(FileSystemError, OSError):
        if staging:
            filesystem.delete(staging, recursive=True)


def _rewrite(
    filesystem: FileSystem,
    plan: DirectoryPlan,
    outputs: Outputs,
    settings: CompactionSettings,
    encoding: EncodingSettings,
    check: Callable[[int], None],
) -> int:
    from millstream.hadoop_loader.compaction.deduplication import find_replaced
    from millstream.hadoop_loader.compaction.parquet_rows import rewrite_parquet

    # What is encoded takes its part: a row group as rows, and as pages.
    memory = max(settings.memory_bytes // 2, settings.memory_bytes - 3 * encoding.parquet.row_group_bytes)
    if not settings.deduplicate_by:
        rewrite_parquet(
            filesystem,
            plan,
            outputs,
            encoding.parquet,
            sort_by=settings.sort_by,
            replaced=None,
            memory_bytes=memory,
            check=check,
        )
        return 0
    with find_replaced(filesystem, plan, settings.deduplicate_by, memory_bytes=memory, check=check) as replaced:
        rewrite_parquet(
            filesystem,
            plan,
            outputs,
            encoding.parquet,
            sort_by=settings.sort_by,
            replaced=replaced,
            memory_bytes=memory // 2,
            check=check,
        )
        return replaced.count
