"""A worker process of the local engine that dies of any split with a poisoned topic: `python -m ... FD`.

As by a record that makes compiled code crash: whoever reads that topic's records is gone, and nobody says why.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final

from millstream.hadoop_loader.engines.task_runner import TaskRunner, Tell
from millstream.hadoop_loader.engines.worker import serve

if TYPE_CHECKING:
    from millstream.hadoop_loader.engines import AttemptFailed, AttemptFinished
    from millstream.hadoop_loader.splits import SplitTask

POISON: Final = "poison"


class PoisonedRunner(TaskRunner):
    """Runs splits, until one has a topic with POISON in its name."""

    def run(
        self, task: SplitTask, stop: threading.Event, tell: Tell, *, staging: str | None = None
    ) -> AttemptFinished | AttemptFailed:
        if any(POISON in wanted.topic for wanted in task.split.ranges):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(task, stop, tell, staging=staging)


if __name__ == "__main__":
    from millstream.hadoop_loader.running.without_pandas import hide_pandas

    hide_pandas()
    serve(int(sys.argv[1]), PoisonedRunner())
