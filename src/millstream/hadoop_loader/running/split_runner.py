"""run_split: ranges of offsets in, staged files out.

    SplitReader   fetches, several partitions at a time     Sorter      rows of tables, directories, late, bad
    OpenFiles     files within their limits and memory      RangeState  what the audit will add up

An eighth of a worker's memory is for what was fetched, and as much for the buffers that the next fetches go into, half
for open files; the rest is what one batch takes on its way. The interpreter with its libraries comes on top.

Of a split that fails nothing counts; what it has staged is left for the driver, which clears its staging folders.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING, Final

from millstream.hadoop_loader.running.errors import SplitStoppedError
from millstream.hadoop_loader.running.range_state import RangeState
from millstream.hadoop_loader.running.rate import RateLimit
from millstream.hadoop_loader.running.reading import ReadingBuffers, SplitReader
from millstream.hadoop_loader.running.sorting_out import Sorter
from millstream.hadoop_loader.splits import Progress, SplitResult, SplitTask, UnknownSchema
from millstream.hadoop_loader.values import UnknownSchemaError
from millstream.hadoop_loader.writing import OpenFiles

if TYPE_CHECKING:
    from millstream.hadoop_loader.filesystem import FileSystem
    from millstream.hadoop_loader.values.fetched import Fetched
    from millstream.schemas.client import RegistryClient

WRITTEN_SHARE: Final = 2  # of a worker's memory, open files may take one part in so many


def run_split(
    task: SplitTask,
    filesystem: FileSystem,
    *,
    registry: RegistryClient | None = None,
    stop: Event | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    buffers: ReadingBuffers | None = None,
) -> SplitResult:
    """Read a split's ranges into files in its staging folder, in the calling thread and some of its own.

    `buffers` are those of an earlier split of the same job, or new ones for it and the next. A result with
    `unknown_schemas` has no files. Raises SplitError, KafkaError, FileSystemError, RegistryError.
    """
    began, began_cpu = time.monotonic(), time.process_time()
    run = _Run(task, filesystem, registry, stop or Event(), on_progress or (lambda _: None), buffers)
    unknown: tuple[UnknownSchema, ...] = ()
    try:
        run.read()
        files = tuple(run.files.finish())
    except UnknownSchemaError as error:
        files, unknown = (), (UnknownSchema(error.topic, error.schema_id, error.schema, error.field),)
    finally:
        run.files.abandon(run.tell_alive)
    return SplitResult(
        split=task.split.number,
        attempt=task.attempt,
        files=files,
        read=() if unknown else tuple(state.result() for state in run.counted()),
        gaps=() if unknown else tuple(gap for state in run.counted() for gap in state.gaps.result()),
        unknown_schemas=unknown,
        refused_topics=run.refused,
        cpu_s=time.process_time() - began_cpu,
        wall_s=time.monotonic() - began,
    )


class _Run:
    def __init__(
        self,
        task: SplitTask,
        filesystem: FileSystem,
        registry: RegistryClient | None,
        stop: Event,
        on_progress: Callable[[Progress], None],
        buffers: ReadingBuffers | None,
    ) -> None:
        job = task.job
        self._task = task
        self._job = job
        self._stop = stop
        self._on_progress = on_progress
        self._buffers = buffers
        self._states = [RangeState(wanted) for wanted in task.split.ranges]
        # Topics with too many bad records, and how many those are.
        self.refused: dict[str, int] = {}
        self.files = OpenFiles(
            filesystem,
            task.staging,
            limits=job.limits,
            encoding=job.encoding,
            memory_bytes_max=job.worker_memory_bytes // WRITTEN_SHARE,
            on_closed=self._handle_closed,
        )
        self._sorter = Sorter(job, task.tables, task.closed_directories, registry, self.files)
        self._rate = RateLimit.of(job.source, task.rate_shares)
        # How far the partition is read that was read last; None in a split of nothing.
        self._reached = next(((one.topic, one.partition, one.start_offset) for one in task.split.ranges), None)

    def counted(self) -> list[RangeState]:
        """Return the ranges of topics that were not refused."""
        return [state for state in self._states if state.wanted.topic not in self.refused]

    def read(self) -> None:
        """Read every range to its end."""
        memory_bytes = self._job.worker_memory_bytes
        with SplitReader(self._job.source, self._states, memory_bytes=memory_bytes, buffers=self._buffers) as reader:
            while not reader.is_done:
                self._check_stop()
                for state, fetched in reader.poll():
                    self._sort(reader, state, fetched)
            reader.check_topics(self.counted())

    def _sort(self, reader: SplitReader, state: RangeState, fetched: Fetched) -> None:
        rows, size = state.rows, state.bytes
        self._sorter.sort(state, fetched)
        wanted = state.wanted
        self._refuse_if_bad(reader, wanted.topic)
        rows, size = state.rows - rows, state.bytes - size
        self._reached = wanted.topic, wanted.partition, fetched.offsets[-1].as_py() + 1
        self._on_progress(Progress(*self._reached, rows, size))
        for pause_s in self._rate.pauses(rows, size, time.monotonic()):
            self._stop.wait(pause_s)
            self._check_stop()
            self.tell_alive()

    def tell_alive(self) -> None:
        """Tell that nothing was read, and something done: a worker that tells nothing is taken for one that hangs."""
        if self._reached is not None:
            self._on_progress(Progress(*self._reached, 0, 0))

    def _handle_closed(self) -> None:
        self._check_stop()
        self.tell_alive()

    def _refuse_if_bad(self, reader: SplitReader, topic: str) -> None:
        most = self._job.bad_records.max_bad_records
        if most is None:
            return
        bad = sum(state.bad for state in self._states if state.wanted.topic == topic)
        if bad > most:
            self.refused[topic] = bad
            reader.drop_topic(topic)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise SplitStoppedError(f"split {self._task.split.number} was told to stop")
