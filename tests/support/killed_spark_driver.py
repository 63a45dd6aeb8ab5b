"""A driver on Spark in a process of its own, killed in the middle of its splits: `python -m ... JOB`.

JOB is a pickled job with a destination on this disk. The process and its JVM are killed, with SIGKILL, as soon as an
attempt has made a file; executors are others' children and learn of it when their driver does not answer.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from tests.support.killed_run import CHECKOUT, QUICK

from millstream.hadoop_loader.driver import run_load
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.engines import EngineEvent
from millstream.hadoop_loader.engines.spark import SparkEngine
from millstream.hadoop_loader.job import LoadJob

LOOK_S = 0.05


def kill_driver(job: LoadJob, folder: Path) -> None:
    """Run a load that is killed."""
    path = folder / "job"
    path.write_bytes(pickle.dumps(job))
    ended = subprocess.run(
        [sys.executable, "-m", __name__, str(path)],
        cwd=CHECKOUT,
        # Whoever is killed leaves what it put there.
        env={**os.environ, "TMPDIR": str(folder), "JDK_JAVA_OPTIONS": f"-Djava.io.tmpdir={folder}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr[-4000:]


def watched(engine: SparkEngine, is_done: Callable[[], bool]) -> SparkEngine:
    """Have the engine's driver call `is_done` all the time, until it is."""
    events, left = engine.events, [is_done]

    def look_and_tell(timeout_s: float) -> list[EngineEvent]:
        if left and left[0]():
            left.clear()
        return events(min(timeout_s, LOOK_S))

    engine.events = look_and_tell  # type: ignore[method-assign]
    return engine


def attempts(job: LoadJob) -> dict[str, list[Path]]:
    """The folders that attempts have in staging, and the files in each."""
    staging = Path(urlsplit(job.destination.uri).path) / "_millstream" / "staging"
    return {
        folder.name: [file for file in folder.rglob("*") if file.is_file()]
        for folder in staging.glob("*/*")
        if folder.is_dir()
    }


def main(path: str) -> None:
    job: LoadJob = pickle.loads(Path(path).read_bytes())

    def die() -> bool:
        if not any(attempts(job).values()):
            return False
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        os.kill(os.getpid(), signal.SIGKILL)
        return True

    world = Surroundings(open_engine=lambda job: watched(SparkEngine.for_job(job), die), commit_settings=QUICK)
    print(run_load(job, surroundings=world), file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1])
