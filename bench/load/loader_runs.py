"""Loads by each program that `bench.loader` measures, in processes of their own.

`run_job` is ours as users have it, `millstream load run JOB.toml --json`: what its workers did from their first fetch
to their last close is in its report. `run_script` is one of `loader_works.py`, in one process, and `Spark` a session of
`loader_spark.py`. What their processes take beside that (start, driver, commit) is told beside it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.load.loader_places import Source
from bench.load.loader_topic import TEXT, TOPIC
from bench.load.turns import last_line

RATE = "records/CPU-s"
RUN_TIMEOUT_S = 600.0
SAME_BYTES = 0.01

JOB = """\
name = "bench"
workers = {workers}

[source]
bootstrap_servers = "{bootstrap}"
topics = ["{topic}"]

[registry]
urls = "{registry}"

[destination]
uri = "{uri}"
formats = {formats}

[partitioning]
kind = "none"

[encoding.parquet]
codec = "zstd"
level = {level}
statistics = true

[encoding.avro]
codec = "zstandard"
level = {level}
"""


def run_apart(command: Sequence[str], what: str, work: Path) -> dict[str, Any]:
    """Run a program, and return what it tells with the seconds and CPU seconds of all of its processes.

    Modules are compiled once, below `work`, as they are where packages are installed.
    """
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": str(work / "compiled")}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    before, began = _reaped_cpu_s(), time.monotonic()
    found = last_line(command, what, RUN_TIMEOUT_S, environ)
    return {**found, "process_wall_s": time.monotonic() - began, "process_cpu_s": _reaped_cpu_s() - before}


def write_job(
    path: Path, source: Source, topic: str, uri: str, formats: Sequence[str], workers: int, level: int = 1
) -> None:
    """Write a job file."""
    text = JOB.format(
        workers=workers,
        level=level,
        bootstrap=source.bootstrap,
        topic=topic,
        registry=source.registry.url,
        uri=uri,
        formats=json.dumps(list(formats)),
    )
    path.write_text(text)


def run_job(path: Path, work: Path) -> dict[str, Any]:
    """Run `millstream load run`, and return its report with the seconds and CPU seconds of all of its processes."""
    program = str(Path(sys.executable).with_name("millstream"))
    return run_apart([program, "load", "run", str(path), "--json"], "millstream load run", work)


def job_figures(report: Mapping[str, Any]) -> dict[str, float]:
    """Return what a run's report says of the load itself, and what its processes took beside it."""
    return load_figures(
        {
            **report,
            "records": report["rows"],
            "wall_s": report["splits_s"],
            "bytes": sum(sum(topic["file_bytes"].values()) for topic in report["topics"]),
            "peak_mb": report["peak_memory_bytes"] / 1e6,
        }
    )


def load_figures(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a load: rates from the first fetch to the last close, and what was beside that."""
    records = found["records"]
    return {
        RATE: records / found["cpu_s"],
        "records/s": records / found["wall_s"],
        "B/record": found["bytes"] / records,
        "s beside": found["process_wall_s"] - found["wall_s"],
        "CPU-s beside": found["process_cpu_s"] - found["cpu_s"],
        "MB peak": found["peak_mb"],
    }


def _reaped_cpu_s() -> float:
    """CPU seconds of processes that were started here and have ended, with those that they started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_script(
    name: str, source: Source, folder: str, formats: Sequence[str], partitions: int, work: Path
) -> dict[str, Any]:
    """Run a script of `loader_works.py` over the first partitions of the topic."""
    words = ["--bootstrap", source.bootstrap, "--to", folder, "--formats", ",".join(formats)]
    words += ["--partitions", ",".join(map(str, range(partitions)))]
    return run_apart([sys.executable, "-m", "bench.load.loader_works", name, *words], name, work)


class Spark:
    """A session of Spark, which does one load after the other.

    The first load of each format is not told: what a JVM has to warm up is behind it then. Its rows are counted, and as
    many bytes are as many rows.
    """

    def __init__(self, environment: Path, jars: Path, work: Path) -> None:
        script = Path(__file__).with_name("loader_spark.py")
        words = ["--jars", str(jars), "--topic", TOPIC, "--schema", TEXT]
        self._output = (work / "spark.txt").open("w+")
        self._process = subprocess.Popen(
            [str(environment / "bin" / "python"), str(script), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._output,
            text=True,
        )
        # What the first load of each format came to.
        self._first: dict[str, dict[str, Any]] = {}
        self._started = self._answer()

    def load(self, source: Source, uri: str, format_: str) -> dict[str, Any]:
        """Load the topic to a folder that is empty."""
        if format_ not in self._first:
            self._first[format_] = self._ask(source, f"{uri}/warm-up", format_, is_counted=True)
        first = self._first[format_]
        found = self._ask(source, f"{uri}/measured", format_, is_counted=False)
        if abs(found["bytes"] / first["bytes"] - 1) > SAME_BYTES:
            raise RuntimeError(f"Spark wrote {found['bytes']:,} bytes where it had written {first['bytes']:,}")
        return {
            **found,
            "records": first["records"],
            "process_wall_s": self._started["startup_s"] + found["wall_s"],
            "process_cpu_s": self._started["startup_cpu_s"] + found["cpu_s"],
        }

    def stop(self) -> None:
        """End the session, its JVM with it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._output.close()

    def _ask(self, source: Source, uri: str, format_: str, *, is_counted: bool) -> dict[str, Any]:
        assert self._process.stdin is not None
        asked = {"bootstrap": source.bootstrap, "to": uri, "formats": format_, "is_counted": is_counted}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._output.seek(0)
            raise RuntimeError(f"Spark ended: {self._output.read()[-2000:]}")
        found: dict[str, Any] = json.loads(line)
        return found
