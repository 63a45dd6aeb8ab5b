"""The Spark engine on a cluster of its own processes: the same contents as the local one, the package sent along.

`local-cluster` starts a master, workers and executors on this machine, each a process, as on a real cluster: what a
task needs has to reach it.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pyarrow as pa
import pyspark
import pytest
from pyspark.sql import SparkSession
from tests.support.loads import FIRST_MS, SCHEMA_2, STEP_MS, Events, assert_same, job_for, local_rows, stored_rows
from tests.support.registry import registry

from millstream import Producer
from millstream.hadoop_loader import dataset
from millstream.hadoop_loader.driver import Outcome, run_load
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.engines import AttemptFailed, AttemptFinished
from millstream.hadoop_loader.engines.spark import SparkEngine
from millstream.hadoop_loader.engines.spark_session import ship_package
from millstream.hadoop_loader.job import LoadJob, Partitioning, RegistrySettings, Secret, SparkSettings
from millstream.hadoop_loader.splits import Split, SplitTask
from millstream.testing import broker
from millstream.testing.hdfs import MiniHdfs

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
def session() -> Iterator[SparkSession]:
    builder = SparkSession.builder.appName("loads").master(MASTER)
    for name, value in SPARK.config.items():
        builder = builder.config(name, value)
    made = builder.getOrCreate()
    left_behind = Path(pyspark.__file__).parent / "work" / made.sparkContext.applicationId
    yield made
    made.stop()
    shutil.rmtree(left_behind, ignore_errors=True)


@pytest.mark.hdfs
def test_spark_writes_to_hdfs_what_local_workers_write_here(
    events: Events, session: object, hdfs: MiniHdfs, tmp_path: Path
) -> None:
    assert session is not None  # the engine finds it: it is the active one
    settings = {"partitioning": Partitioning(kind="time", pattern="daily"), "split_bytes": 2**20}
    uri = f"{hdfs.uri}/{'-'.join(tmp_path.parts[-2:])}"
    on_spark = job_for(events, uri, engine="spark", spark=SPARK, **settings)
    on_this = job_for(events, tmp_path, **settings)

    reports = [run_load(on_spark), run_load(on_this)]
    events.send(300, SCHEMA_2)
    reports += [run_load(on_spark), run_load(on_this)]

    assert [(one.outcome, one.rows, one.errors) for one in reports] == [
        (Outcome.LOADED, rows, []) for rows in (2_000, 2_000, 300, 300)
    ]
    assert reports[0].workers == 2
    assert_same(events, tmp_path, "avro", "parquet")
    for name, rows in local_rows(tmp_path, events.topic, "avro", "parquet").items():
        assert stored_rows(on_spark, events.topic, name) == rows
    assert verify_destination(on_spark, deep=True).findings == []


def kind_of(type_: pa.DataType) -> Any:
    """What readers have to agree about; not how each of them holds it in memory."""
    if pa.types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return [kind_of(type_.value_type)]
    if pa.types.is_struct(type_):
        return {field.name: kind_of(field.type) for field in type_}
    if pa.types.is_timestamp(type_):
        return "timestamp", type_.tz is not None
    return str(type_).removeprefix("large_")


def test_spark_reads_what_the_loader_wrote(events: Events, session: SparkSession, tmp_path: Path) -> None:
    """One table of files with an older and a newer schema, and with tombstones, to Spark, DuckDB and us."""
    topic = Events(events.bootstrap, events.registry_url, "evolved")
    columns = ("partition", "offset", "timestamp", "key", "headers")
    job = job_for(topic, tmp_path, partitioning=Partitioning(kind="time", pattern="daily"), metadata_columns=columns)
    topic.send(2_000)
    reports = [run_load(job)]
    topic.send(200, SCHEMA_2)
    with Producer(topic.bootstrap) as producer:
        last_ms = FIRST_MS + (topic.next_id - 1) * STEP_MS
        producer.send(topic.topic, None, key=b"k", partition=1, timestamp_ms=last_ms, headers=[("h", b"1")]).result(60)
    reports.append(run_load(job))
    assert [(one.outcome, one.rows) for one in reports] == [(Outcome.LOADED, 2_000), (Outcome.LOADED, 201)]

    ours = dataset(tmp_path.as_uri(), topic.topic).to_table()
    folder = tmp_path / topic.topic / "parquet"
    merged = session.read.option("mergeSchema", "true").parquet(folder.as_uri()).select(*ours.column_names)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        files = connection.read_parquet(f"{folder}/**/*.parquet", union_by_name=True, hive_partitioning=False)
        ducks = files.select(", ".join(ours.column_names)).to_arrow_table()
    sparks = merged.toArrow()

    assert ours.num_rows == 2_201
    order = [("_kafka_partition", "ascending"), ("_kafka_offset", "ascending")]
    rows = ours.sort_by(order).to_pylist()
    assert [row["_kafka_key"] for row in rows if row["id"] is None] == [b"k"]
    for reader in (sparks, ducks):
        assert [kind_of(field.type) for field in reader.schema] == [kind_of(field.type) for field in ours.schema]
        assert reader.sort_by(order).to_pylist() == rows


def test_executors_run_the_package_that_was_sent(session: object, tmp_path: Path) -> None:
    engine = SparkEngine(session)  # type: ignore[arg-type]
    context = engine._context
    ship_package(context)

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
    users = tmp_path / "users.properties"
    users.write_text("ann:s3cret\n")
    guarded = {
        "kafkastore.topic": "_guarded_schemas",
        "authentication.method": "BASIC",
        "authentication.users.location": str(users),
    }
    with registry(events.bootstrap, guarded) as schemas:
        topic = Events(events.bootstrap, schemas.url.replace("://", "://ann:s3cret@"), "guarded", partitions=1)
        # The driver looks up the latest schema; for an earlier one an executor has to ask.
        topic.send(10)
        topic.send(10, SCHEMA_2)
        job = job_for(
            topic,
            tmp_path / "lake",
            engine="spark",
            spark=SPARK,
            partitioning=Partitioning(kind="none"),
            registry=RegistrySettings(urls=(schemas.url,), user="ann", password=Secret(env="ONLY_THE_DRIVER_HAS_IT")),
        ).resolved({"ONLY_THE_DRIVER_HAS_IT": "s3cret"})

        report = run_load(job)

        assert (report.outcome, report.rows, report.errors) == (Outcome.LOADED, 20, [])
        assert_same(topic, tmp_path / "lake", "avro", "parquet")
    assert "s3cret" not in repr(job)


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


class Deadly(SplitTask):
    """A task that ends the Python of whatever executor looks at it."""

    def __reduce__(self) -> Any:
        return os._exit, (3,)


class Slow(SplitTask):
    """A task that takes its time before it comes to anything."""

    def __reduce__(self) -> Any:
        return time.sleep, (600,)


def test_only_the_task_that_spark_names_has_failed(events: Events, session: object, tmp_path: Path) -> None:
    """Spark ends a whole job for one task that it has lost four times."""
    job = job_for(events, tmp_path, engine="spark")

    def task(kind: type[SplitTask], number: int, attempt: int = 0) -> SplitTask:
        return kind(job, Split(number, ()), attempt, "staging", "run", {})

    def ends(count: int) -> dict[int, AttemptFailed | AttemptFinished]:
        found: dict[int, AttemptFailed | AttemptFinished] = {}
        deadline = time.monotonic() + 180
        while len(found) < count:
            assert time.monotonic() < deadline, found
            for event in engine.events(0.5):
                if isinstance(event, AttemptFailed):
                    found[event.split] = event
                elif isinstance(event, AttemptFinished):
                    found[event.result.split] = event
        return found

    engine = SparkEngine(session)  # type: ignore[arg-type]
    try:
        engine.submit([task(Slow, 0), task(Deadly, 1)])
        together = ends(2)
        # What was tried before is a job of its own: another's failure is not its.
        engine.submit([task(Deadly, 1, attempt=1), task(SplitTask, 0, attempt=1)])
        alone = ends(2)
    finally:
        engine.stop()

    assert {split: isinstance(end, AttemptFailed) and end.is_own for split, end in together.items()} == {
        0: False,
        1: True,
    }
    assert isinstance(alone[0], AttemptFinished)
    assert isinstance(alone[1], AttemptFailed)
    assert "Task 0 in stage" in alone[1].error
