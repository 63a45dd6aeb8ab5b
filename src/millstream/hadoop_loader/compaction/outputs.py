"""The files that a directory becomes: staged one behind the other, each closed when it has the wanted size."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol, cast

from millstream.hadoop_loader.splits import StagedFile
from millstream.hadoop_loader.writing.closing import close_file

if TYPE_CHECKING:
    from millstream.hadoop_loader.commit import TableFile
    from millstream.hadoop_loader.compaction.planning import DirectoryPlan
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.filesystem.interface import OutputFile
    from millstream.hadoop_loader.writing import AvroFile
    from millstream.hadoop_loader.writing.checked_output import CheckedOutput


SEVERAL_TOPICS: Final = ""
"""The topic id of a file with rows of a topic before and after it was created anew."""


class StoppedError(Exception):
    """Somebody asked for the end; nothing was committed of the directory at work."""


class CompactionError(ValueError):
    """A directory that cannot be compacted as the job wants it; the message says why, and what to do."""

    is_retriable = False


class Writer(Protocol):
    """A file of rows being written, as `writing.closing` closes it."""

    rows: int
    output: CheckedOutput

    @property
    def size_bytes(self) -> int:
        """Of the file if it were closed now, about."""
        ...

    def finish(self) -> None:
        """Write what is left."""
        ...


class Outputs:
    """Files staged for one directory; owned by one thread."""

    def __init__(self, filesystem: FileSystem, plan: DirectoryPlan, staging: str, target_bytes: int) -> None:
        self._filesystem = filesystem
        self._plan = plan
        self._staging = staging
        self._target_bytes = target_bytes
        self._open: Writer | None = None
        # Inputs with rows in the open file.
        self._sources: dict[str, TableFile] = {}
        self.staged: list[StagedFile] = []

    @property
    def path(self) -> str:
        """Of the open file, or of the next one."""
        return f"{self._staging}/{len(self.staged)}.{self._plan.format}"

    def create(self) -> OutputFile:
        """Make the open file."""
        return self._filesystem.create(self.path)

    def writer(self, make: Callable[[], Writer], sources: Iterable[TableFile], coming_bytes: int = 0) -> Writer:
        """Return the file for the next rows, which are of `sources`: a new one where the last one is full."""
        if self._open is not None and self._open.rows and self._open.size_bytes + coming_bytes > self._target_bytes:
            self.end()
        if self._open is None:
            self._open = make()
        self._sources.update((source.name, source) for source in sources)
        return self._open

    def end(self) -> None:
        """Close the open file, and check it."""
        if self._open is None:
            return
        file, sources = self._open, list(self._sources.values())
        close_file(self._filesystem, self.path, cast("AvroFile", file))
        first = self._plan.files[0]
        topic_ids = {source.topic_id for source in sources}
        times = [source.min_timestamp_ms for source in sources if source.min_timestamp_ms >= 0]
        self.staged.append(
            StagedFile(
                path=self.path,
                table=self._plan.table,
                directory=self._plan.below,
                format=self._plan.format,
                topic=first.topic,
                topic_id=first.topic_id if topic_ids == {first.topic_id} else SEVERAL_TOPICS,
                partition=-1,
                first_offset=min(source.first_offset for source in sources),
                last_offset=max(source.last_offset for source in sources),
                rows=file.rows,
                length=file.output.size_bytes,
                checksum=file.output.checksum,
                min_timestamp_ms=min(times, default=-1),
                max_timestamp_ms=max(source.max_timestamp_ms for source in sources),
                kind=first.kind,
            )
        )
        self._open = None
        self._sources = {}

    def abandon(self) -> None:
        """Give the open file up."""
        if self._open is not None:
            self._open.output.abandon()
            self._open = None
