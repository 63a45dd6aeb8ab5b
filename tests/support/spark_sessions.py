"""Spark engines in a process of its own, which no Spark was in before: `python -m tests.support.spark_sessions JOB`.

JOB is a pickled job with a secret in its Spark settings. Prints as JSON what became of two engines for it that share a
session, and what others could see of the secret meanwhile.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from millstream.hadoop_loader.driver import run_load
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.engines import EngineError
from millstream.hadoop_loader.engines.spark import IDLE_TIMEOUT, SparkEngine
from millstream.hadoop_loader.job import LoadJob, Secret

MARK = "RESULT "
LEFT_OUT = "spark.millstream.of.one.job"


def run_sessions(job: LoadJob, folder: Path) -> dict[str, Any]:
    """Run this file on the job; return what it found."""
    path = folder / "job"
    path.write_bytes(pickle.dumps(job))
    done = subprocess.run([sys.executable, "-m", __name__, str(path)], capture_output=True, text=True, timeout=300)
    found = [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)]
    assert len(found) == 1, done.stdout[-2000:] + done.stderr[-4000:]
    result: dict[str, Any] = json.loads(found[0])
    return result


class Sessions:
    """The acts, one after the other."""

    def __init__(self, job: LoadJob) -> None:
        self._job = job
        self.found: dict[str, Any] = {"refused": []}

    def share(self) -> None:
        """Two engines at once; the first is stopped before the second has done anything."""
        first, second = SparkEngine.for_job(self._job), SparkEngine.for_job(self._job)
        other = {**self._job.spark.config, "spark.task.maxFailures": "7"}
        self._refuse(replace(self._job, spark=replace(self._job.spark, config=other)))
        first.stop()

        def look() -> None:
            context = second._context
            self.found["application"] = context.applicationId
            self.found["commands"] = []
            for process in psutil.Process().children(recursive=True):
                # One that has just ended has no command line any more.
                with suppress(psutil.NoSuchProcess):
                    self.found["commands"] += process.cmdline()
            pool = context.parallelize([0], 1).map(lambda _: os.environ.get("ARROW_DEFAULT_MEMORY_POOL"))
            self.found["pool"] = pool.first()
            hadoop = context._jsc.hadoopConfiguration()
            self.found["known"] = [
                hadoop.get(name.removeprefix("spark.hadoop."))
                for name, value in self._job.spark.config.items()
                if isinstance(value, Secret)
            ]
            port = str(context.uiWebUrl).rpartition(":")[2]
            page = f"http://127.0.0.1:{port}/api/v1/applications/{context.applicationId}/environment"
            with urllib.request.urlopen(page, timeout=60) as answer:
                self.found["ui"] = answer.read().decode()

        self._load("shared", _Looked(second, look))

    def show(self) -> None:
        """A secret that Spark would put on a command line."""
        config = {**self._job.spark.config, "spark.executor.extraJavaOptions": Secret("-Dpassword=1")}
        self._refuse(replace(self._job, spark=replace(self._job.spark, config=config)))

    def starve(self) -> None:
        """No executor of so many cores is ever granted. One setting that the JVM was started with it leaves out."""
        config = {**self._job.spark.config, "spark.executor.cores": "2", IDLE_TIMEOUT: "2"}
        del config[LEFT_OUT]
        job = replace(self._job, spark=replace(self._job.spark, config=config))
        engine = SparkEngine.for_job(job)
        self.found["left out"] = engine._context.getConf().get(LEFT_OUT, None)
        self._load("starved", engine)

    def _load(self, name: str, engine: Any) -> None:
        def open_engine(_: LoadJob) -> Any:
            return engine

        job = replace(self._job, destination=replace(self._job.destination, uri=f"{self._job.destination.uri}/{name}"))
        report = run_load(job, surroundings=Surroundings(open_engine=open_engine))
        self.found[name] = {"outcome": str(report.outcome), "rows": report.rows, "errors": report.errors}

    def _refuse(self, job: LoadJob) -> None:
        try:
            SparkEngine.for_job(job).stop()
        except EngineError as error:
            self.found["refused"].append(str(error))


class _Looked:
    """An engine with a look before its end."""

    def __init__(self, engine: SparkEngine, look: Callable[[], None]) -> None:
        self._engine = engine
        self._look = look

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def stop(self) -> None:
        self._look()
        self._engine.stop()


def _main() -> None:
    sessions = Sessions(pickle.loads(Path(sys.argv[1]).read_bytes()))
    sessions.share()
    sessions.show()
    sessions.starve()
    print(MARK + json.dumps(sessions.found), flush=True)


if __name__ == "__main__":
    _main()
