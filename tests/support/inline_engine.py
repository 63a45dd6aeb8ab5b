"""An engine that runs splits in the test's own process, as soon as it is asked for events."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from millstream.hadoop_loader.engines import AttemptFinished, EngineEvent
from millstream.hadoop_loader.engines.task_runner import failure
from millstream.hadoop_loader.filesystem import FileSystem
from millstream.hadoop_loader.job import LoadJob
from millstream.hadoop_loader.running import run_split
from millstream.hadoop_loader.splits import Progress, SplitTask


class InlineEngine:
    """Runs one split for each call of `events`, on `filesystem`; `on_progress` is called in the middle of splits."""

    def __init__(
        self, job: LoadJob, filesystem: FileSystem, on_progress: Callable[[Progress], None] | None = None
    ) -> None:
        self._job = job
        self._filesystem = filesystem
        self._on_progress = on_progress
        self._waiting: deque[SplitTask] = deque()

    @property
    def workers(self) -> int:
        return 2

    def submit(self, tasks: Sequence[SplitTask]) -> None:
        self._waiting.extend(tasks)

    def events(self, timeout_s: float) -> list[EngineEvent]:
        if not self._waiting:
            return []
        task = self._waiting.popleft()
        with ExitStack() as stack:
            registry = None if self._job.registry is None else stack.enter_context(self._job.registry.client())
            try:
                result = run_split(
                    task,
                    self._filesystem,
                    registry=registry,
                    stop=threading.Event(),
                    on_progress=self._on_progress,
                )
            except Exception as error:
                return [failure(task, error)]
        return [AttemptFinished(result)]

    def stop(self) -> None:
        self._waiting.clear()
