"""Spark loses an executor, runs a slow split twice, loses its driver: the files hold each record once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from pyspark import SparkContext
from pyspark.sql import SparkSession
from tests.support.killed_run import QUICK
from tests.support.killed_spark_driver import attempts, kill_driver, watched
from tests.support.raw_topics import RawTopic, assert_held
from tests.support.spark_cluster import HOSTS, SparkCluster

from millstream.hadoop_loader.driver import LoadReport, Outcome, run_load
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.engines.spark import SparkEngine
from millstream.hadoop_loader.job import DestinationSettings, FileLimits, LoadJob, SparkSettings
from millstream.testing import TestBroker

pytestmark = [pytest.mark.java, pytest.mark.timeout(300)]

FORMATS: Final = ("avro", "parquet")
RECORDS: Final = 600
RATE: Final = 200  # records a second, of all splits: they are at work for some seconds
CONFIG: Final = {
    "spark.ui.enabled": "false",
    "spark.driver.host": HOSTS[0],
    "spark.driver.memory": "512m",
    "spark.executor.memory": "512m",
    "spark.executor.cores": "1",
    "spark.cores.max": "2",
    "spark.pyspark.python": sys.executable,
    "spark.python.worker.faulthandler.enabled": "false",
    # A task that is alone in its job is tried a second time after so long, on another host.
    "spark.speculation": "true",
    "spark.speculation.interval": "100ms",
    "spark.speculation.task.duration.threshold": "1s",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkCluster]:
    with SparkCluster(tmp_path_factory.mktemp("spark-cluster")) as running:
        yield running


@pytest.fixture(scope="module")
def session(cluster: SparkCluster) -> Iterator[SparkSession]:
    """The session that this module's runs share."""
    builder = SparkSession.builder.appName("loads").master(cluster.master)
    for name, value in CONFIG.items():
        builder = builder.config(name, value)
    made = builder.getOrCreate()
    yield made
    made.stop()
    # What a JVM was started with is a default of every later session in it.
    assert SparkContext._jvm is not None
    for name in CONFIG:
        SparkContext._jvm.java.lang.System.clearProperty(name)


@pytest.fixture
def topic(millstream_broker_session: TestBroker, tmp_path: Path) -> RawTopic:
    return RawTopic(millstream_broker_session.bootstrap_servers, tmp_path / "lake", partitions=2)


def send(topic: RawTopic, partition: int = 0, size: int = 0) -> None:
    """Send in small batches, so that they are read bit by bit."""
    topic.send(RECORDS, topic.producer(batch_messages=20), partition=partition, size=size)


def job_of(topic: RawTopic, rate: int = RATE, **changes: Any) -> LoadJob:
    """A job whose splits close a file long before they end."""
    return topic.job(
        changes={
            "engine": "spark",
            "destination": DestinationSettings(uri=topic.uri, formats=frozenset(FORMATS)),
            "limits": FileLimits(rows=50),
            **changes,
        },
        rate_limit_records_per_s=rate,
    )


def run(job: LoadJob, session: SparkSession, is_done: Callable[[], bool] = lambda: True) -> LoadReport:
    """Run a load during which `is_done` is called until it is."""

    def open_engine(_: LoadJob) -> SparkEngine:
        return watched(SparkEngine(session), is_done)

    return run_load(job, surroundings=Surroundings(open_engine=open_engine, commit_settings=QUICK))


def readers(cluster: SparkCluster, topic: RawTopic) -> list[tuple[psutil.Process, psutil.Process]]:
    """Executors' Pythons that are connected to the broker, each with its executor."""
    port = int(topic.bootstrap.rpartition(":")[2])
    found = []
    for executor in cluster.executors():
        # Processes come and go meanwhile.
        with suppress(psutil.Error):
            for process in executor.children(recursive=True):
                with suppress(psutil.Error):
                    if any(one.raddr and one.raddr.port == port for one in process.net_connections("tcp")):
                        found.append((process, executor))
    return found


def assert_loaded(report: LoadReport, topic: RawTopic, job: LoadJob) -> None:
    assert (report.outcome, report.rows, report.errors) == (Outcome.LOADED, sum(topic.shown().values()), [])
    assert report.failed_attempts == 0
    assert_held(topic, *FORMATS)
    assert verify_destination(job, deep=True).findings == []


def test_a_killed_executor_costs_an_attempt(topic: RawTopic, cluster: SparkCluster, session: SparkSession) -> None:
    """Spark runs its tasks again elsewhere; its Python may write on for a while, into its own folder."""
    for partition in range(2):
        send(topic, partition, size=1_700)  # a split each
    job = job_of(topic, 2 * RATE)
    killed: list[int] = []

    def kill() -> bool:
        if any(attempts(job).values()):
            for _, executor in readers(cluster, topic)[:1]:
                executor.kill()
                killed.append(executor.pid)
        return bool(killed)

    report = run(job, session, kill)

    assert killed
    assert [name for name in attempts(job) if name.endswith("-1")]
    assert_loaded(report, topic, job)


@pytest.mark.parametrize("wakes", [True, False])
def test_of_two_attempts_at_once_one_counts(
    topic: RawTopic, cluster: SparkCluster, session: SparkSession, wakes: bool
) -> None:
    """One is stopped in the middle, until the other one is at work too, or for good."""
    send(topic)
    job = job_of(topic)
    slow: list[psutil.Process] = []
    both: list[str] = []

    def look() -> bool:
        both[:] = [name for name, files in attempts(job).items() if files]
        if both and not slow:
            # Under load the second may read as well by now: either will do.
            slow[:] = [process for process, _ in readers(cluster, topic)[:1]]
            for process in slow:
                process.suspend()
        if len(both) == 2 and wakes:
            slow[0].resume()
        return len(both) == 2

    try:
        report = run(job, session, look)
    finally:
        for process in slow:
            # Spark may have ended it by now.
            with suppress(psutil.NoSuchProcess):
                process.resume()

    assert len(slow) == 1
    assert len(both) == 2
    assert_loaded(report, topic, job)


def test_a_killed_driver_is_repaired_by_the_next_run(
    topic: RawTopic, cluster: SparkCluster, session: SparkSession, tmp_path: Path
) -> None:
    """Its executors are still at work when the next one begins."""
    send(topic)
    settings = SparkSettings(master=cluster.master, config=CONFIG)

    kill_driver(job_of(topic, spark=settings), tmp_path)

    job = job_of(topic)
    assert any(attempts(job).values())
    assert not topic.rows("parquet", missing_ok=True)
    assert_loaded(run(job, session), topic, job)
