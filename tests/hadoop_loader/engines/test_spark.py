"""The Spark engine on a cluster of its own processes: the same contents as the local one, the package sent along.

`local-cluster` starts a master, workers and executors on this machine, each a process, as on a real cluster: what a
task needs has to reach it.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pyspark
import pytest
from pyspark.sql import SparkSession
from tests.support.loads import SCHEMA_2, Events, assert_same, job_for, local_rows
from tests.support.registry import registry

from millstream.hadoop_loader.driver import Outcome, run_load
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.engines.spark import SparkEngine
from millstream.hadoop_loader.job import LoadJob, Partitioning, Secret, SparkSettings
from millstream.testing import broker

pytestmark = [pytest.mark.java, pytest.mark.timeout(600)]

MASTER = "local-cluster[1,2,1024]"
SPARK = SparkSettings(
    master=MASTER,
    config={
        "spark.ui.enabled": "false",
        "spark.driver.memory": "512m",
        "spark.executor.memory": "512m",
        "spark.python.worker.faulthandler.enabled": "false",
    },
)


@pytest.fixture(scope="module")
def events() -> Iterator[Events]:
    with broker() as kafka, registry(kafka.bootstrap_servers) as schemas:
        made = Events(kafka.bootstrap_servers, schemas.url)
        made.send(2_000)
        yield made


@pytest.fixture(scope="module")
def session() -> Iterator[object]:
    builder = SparkSession.builder.appName("loads").master(MASTER)
    for name, value in SPARK.config.items():
        builder = builder.config(name, value)
    made = builder.getOrCreate()
    left_behind = Path(pyspark.__file__).parent / "work" / made.sparkContext.applicationId
    yield made
    made.stop()
    shutil.rmtree(left_behind, ignore_errors=True)


def test_spark_writes_what_local_workers_write(events: Events, session: object, tmp_path: Path) -> None:
    assert session is not None  # the engine finds it: it is the active one
    settings = {"partitioning": Partitioning(kind="time", pattern="daily"), "split_bytes": 2**20}
    on_spark = job_for(events, tmp_path / "spark", engine="spark", spark=SPARK, **settings)
    on_this = job_for(events, tmp_path / "local", **settings)

    reports = [run_load(on_spark), run_load(on_this)]
    events.send(300, SCHEMA_2)
    reports += [run_load(on_spark), run_load(on_this)]

    assert [(one.outcome, one.rows, one.errors) for one in reports] == [
        (Outcome.LOADED, rows, []) for rows in (2_000, 2_000, 300, 300)
    ]
    assert reports[0].workers == 2
    assert_same(events, tmp_path / "spark", "avro", "parquet")
    formats = ("avro", "parquet")
    assert local_rows(tmp_path / "spark", events.topic, *formats) == local_rows(
        tmp_path / "local", events.topic, *formats
    )
    assert verify_destination(on_spark, deep=True).findings == []


def test_executors_run_the_package_that_was_sent(session: object, tmp_path: Path) -> None:
    engine = SparkEngine(session)  # type: ignore[arg-type]
    context = engine._context
    engine._ship()

    def where(_: int) -> tuple[str, str]:
        import sys

        from pyspark import SparkFiles

        sys.path.insert(0, f"{SparkFiles.getRootDirectory()}/millstream_package")
        import millstream.core._kernels.crc32c
        import millstream.hadoop_loader._kernels.datums

        return millstream.__path__[0], millstream.hadoop_loader._kernels.datums.__file__

    found = context.parallelize(range(2), 2).map(where).collect()
    engine.stop()

    for package, kernel in found:
        assert "millstream_package" in package
        assert kernel.startswith(package)
        assert kernel.endswith(".so")


def test_secrets_travel_with_the_tasks(events: Events, session: object, tmp_path: Path) -> None:
    """Executors have neither the variables nor the files that a job's secrets are in."""
    job = job_for(
        events,
        tmp_path,
        engine="spark",
        spark=SPARK,
        partitioning=Partitioning(kind="none"),
        source={"client": {"ssl.key.password": Secret(env="ONLY_THE_DRIVER_HAS_IT")}},
    ).resolved({"ONLY_THE_DRIVER_HAS_IT": "a secret"})

    report = run_load(job)

    assert (report.outcome, report.errors) == (Outcome.LOADED, [])
    assert "a secret" not in repr(job)


def test_an_executor_that_dies_costs_no_record(events: Events, session: object, tmp_path: Path) -> None:
    """Spark runs the task again elsewhere, in a staging folder of its own."""
    killed: list[int] = []

    class KillsAnExecutor(SparkEngine):
        """Kills the Python of an executor once tasks are under way."""

        def events(self, timeout_s: float) -> list[object]:  # type: ignore[override]
            for process in [] if killed else psutil.Process().children(recursive=True):
                # Processes come and go meanwhile.
                with suppress(psutil.Error):
                    if "pyspark.daemon" in " ".join(process.cmdline()) and process.children():
                        os.kill(process.children()[0].pid, signal.SIGKILL)
                        killed.append(process.pid)
                        break
            return super().events(timeout_s)  # type: ignore[return-value]

    def open_engine(job: LoadJob) -> SparkEngine:
        return KillsAnExecutor(session)  # type: ignore[arg-type]

    job = job_for(
        events,
        tmp_path,
        engine="spark",
        partitioning=Partitioning(kind="none"),
        source={"rate_limit_records_per_s": 1_000},
    )

    report = run_load(job, surroundings=Surroundings(open_engine=open_engine))

    assert killed
    assert (report.outcome, report.errors) == (Outcome.LOADED, [])
    assert_same(events, tmp_path, "avro", "parquet")
