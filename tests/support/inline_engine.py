"""An engine that runs splits in the test's own process, as soon as it is asked for events."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from millstream.hadoop_loader.engines import AttemptFinished, EngineEvent
from millstream.hadoop_loader.engines.task_runner import failure
from millstream.hadoop_loader.filesystem import FileSystem
from millstream.hadoop_loader.job import LoadJob
from millstream.hadoop_loader.running import run_split
from millstream.hadoop_loader.splits import SplitTask


class InlineEngine:
    """Runs one split for each call of `events`, on `filesystem`."""

    def __init__(self, job: LoadJob, filesystem: FileSystem) -> None:
        self._job = job
        self._filesystem = filesystem
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
        assert self._job.registry is not None
        with self._job.registry.client() as registry:
            try:
                result = run_split(task, self._filesystem, registry=registry, stop=threading.Event())
            except Exception as error:
                return [failure(task, error)]
        return [AttemptFinished(result)]

    def stop(self) -> None:
        self._waiting.clear()
