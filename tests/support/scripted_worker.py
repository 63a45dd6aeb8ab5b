"""A worker process of the local engine whose tasks do what their run's id says, instead of loading anything.

finish, fail, fail for good     ends in that        die           SIGKILL, in the middle of it
wait for stop                   runs until told     hang          says nothing any more
hang in the middle              of telling its end
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from millstream.hadoop_loader.engines.engine import AttemptFailed, AttemptFinished, AttemptProgressed
from millstream.hadoop_loader.engines.task_runner import TaskRunner, Tell
from millstream.hadoop_loader.engines.worker import serve
from millstream.hadoop_loader.splits import Progress, SplitResult, SplitTask


class ScriptedRunner(TaskRunner):
    """Does what the task's run id says."""

    def run(
        self, task: SplitTask, stop: threading.Event, tell: Tell, *, staging: str | None = None
    ) -> AttemptFinished | AttemptFailed:
        split, attempt, script = task.split.number, task.attempt, task.run_id
        tell(AttemptProgressed(split, attempt, (Progress("t", 0, 1, os.getpid(), 0),)))
        if script == "die" or (script == "die once" and attempt == 0):
            print("on its way out", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if script == "hang in the middle":
            os.write(int(sys.argv[1]), b"\0\0\xff\xffthe beginning of a message")
        if script.startswith("hang"):
            threading.Event().wait()
        if script == "wait for stop":
            stop.wait()
            return AttemptFailed(split, attempt, "it was told to stop", "SplitStoppedError", is_retriable=False)
        if script.startswith("fail"):
            return AttemptFailed(split, attempt, "as it was told", "ValueError", is_retriable=script == "fail")
        return AttemptFinished(SplitResult(split, attempt, (), ()), peak_memory_bytes=1)


if __name__ == "__main__":
    serve(int(sys.argv[1]), ScriptedRunner())
