"""A worker process of the local engine that is killed at one act on its destination: `python -m ... FD`.

The variable KILLED_WORKER says when, as JSON: {"act": 7, "when": "before", "folder": "/somewhere"}. Only the first
worker that comes there is killed; it leaves the file `killed`, with the name of the act. Act 0 is nobody's. Every act
is a line of the file `acts`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from millstream.hadoop_loader.engines.task_runner import TaskRunner
from millstream.hadoop_loader.engines.worker import serve
from millstream.testing.faulty_filesystem import FaultyFileSystem

if TYPE_CHECKING:
    from millstream.hadoop_loader.job import LoadJob

VARIABLE: Final = "KILLED_WORKER"


class KilledRunner(TaskRunner):
    """Runs splits on a destination that counts."""

    def _open(self, job: LoadJob) -> None:
        super()._open(job)
        if self._filesystem is None or isinstance(self._filesystem, FaultyFileSystem):
            return
        told: dict[str, Any] = json.loads(os.environ[VARIABLE])
        folder, act = Path(told["folder"]), int(told["act"])
        log = (folder / "acts").open("a", buffering=1)

        def die(name: str) -> None:
            if not act:
                return
            try:
                with (folder / "killed").open("x") as file:
                    file.write(name)
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)

        def look_before(name: str) -> None:
            # Acts and reads alike; of an act it is not counted yet. Files are closed by threads, so that several acts
            # may have begun by the time that one of them is looked at.
            if told["when"] == "before" and counted.acts >= act - 1:
                die(name)

        def look_after(name: str) -> None:
            log.write(f"{name}\n")
            if told["when"] == "after" and counted.acts >= act:
                die(name)

        counted = FaultyFileSystem(self._filesystem, before_call=look_before, after_act=look_after)
        self._filesystem = counted


if __name__ == "__main__":
    from millstream.hadoop_loader.running.without_pandas import hide_pandas

    hide_pandas()
    serve(int(sys.argv[1]), KilledRunner())
