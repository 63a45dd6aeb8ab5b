"""The same runs from Apache Kafka, and to a real HDFS by both of its interfaces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer as ConfluentProducer
from pyiceberg.catalog import load_catalog
from tests.support.loads import SCHEMA_2, Events, assert_same, job_for, stored_rows
from tests.support.raw_topics import run_inline

from millstream.cli.child import RegistryProcess
from millstream.hadoop_loader import dataset
from millstream.hadoop_loader.driver import Outcome, run_load
from millstream.hadoop_loader.driver.anew import load_anew
from millstream.hadoop_loader.driver.directories import drop_tables
from millstream.hadoop_loader.driver.status import status_of
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.job import IcebergSettings, LateSettings, LoadJob, Partitioning
from millstream.testing.hdfs import MiniHdfs
from millstream.testing.kafka import ApacheKafka

NewEvents = Callable[..., Events]
DAILY = Partitioning(kind="time", pattern="daily")


@pytest.fixture(scope="module")
def kafka_events(apache_kafka: ApacheKafka, kafka_registry: RegistryProcess) -> Events:
    return Events(apache_kafka.bootstrap_servers, kafka_registry.url, "loaded-from-kafka")


@pytest.mark.java
@pytest.mark.timeout(600)
def test_from_apache_kafka(kafka_events: Events, tmp_path: Path) -> None:
    events = kafka_events
    events.send(1_500, compression_type="zstd")
    _send_transactions(events)
    job = job_for(events, tmp_path, partitioning=DAILY)

    first = run_load(job)

    # A marker for the committed transaction, a record and a marker for the aborted one.
    assert (first.outcome, first.rows, first.errors) == (Outcome.LOADED, 1_501, [])
    assert first.audit["gap_offsets"] == 3
    assert first.topics[0].gaps == {"aborted": 1, "control": 2}
    events.send(100, SCHEMA_2, compression_type="lz4")
    assert run_load(job).rows == 100
    assert run_load(job).outcome is Outcome.NOTHING_NEW
    assert_same(events, tmp_path, "avro", "parquet")
    assert verify_destination(job, deep=True).findings == []


def _send_transactions(events: Events) -> None:
    """One record in a transaction that commits, and one in one that does not."""
    [framed] = events.framed([events.next_id])
    events.next_id += 1
    producer = ConfluentProducer({"bootstrap.servers": events.bootstrap, "transactional.id": f"{events.topic}-tx"})
    producer.init_transactions(60)
    for ends in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        producer.produce(events.topic, framed, partition=0)
        producer.flush(60)
        ends(60)


@pytest.mark.hdfs
@pytest.mark.timeout(600)
@pytest.mark.parametrize("interface", ["hdfs", "webhdfs"])
def test_to_hdfs(new_events: NewEvents, hdfs: MiniHdfs, interface: str) -> None:
    events = new_events()
    events.send(1_000)
    base = hdfs.uri if interface == "hdfs" else hdfs.webhdfs_uri
    job = job_for(events, f"{base}/{events.topic}-{interface}", partitioning=DAILY)

    first = run_load(job)
    assert (first.outcome, first.rows, first.errors) == (Outcome.LOADED, 1_000, [])
    events.send(200, SCHEMA_2)
    second = run_load(job)
    assert (second.outcome, second.rows, second.errors) == (Outcome.LOADED, 200, [])

    expected = events.rows()
    assert stored(job, events) == {"avro": expected, "parquet": expected}
    assert verify_destination(job, deep=True).findings == []
    assert status_of(job).red == []


@pytest.mark.hdfs
@pytest.mark.timeout(600)
def test_a_topic_on_hdfs_is_loaded_anew_beside_iceberg(new_events: NewEvents, hdfs: MiniHdfs, tmp_path: Path) -> None:
    events = new_events(partitions=1)
    events.send(500)
    catalog = {"type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": tmp_path.as_uri()}
    iceberg = IcebergSettings(namespace="lake", properties=catalog)
    late = LateSettings(close_after_s=0)
    root = f"{hdfs.uri}/{events.topic}-anew"
    job = job_for(events, root, partitioning=Partitioning(kind="none"), iceberg=iceberg)
    assert run_inline(job).catalog_problems == []
    table = f"{events.topic}_2"
    job = replace(job, partitioning=DAILY, late=late)

    begun = load_anew(job, events.topic, table)
    assert (begun.errors, begun.notes, begun.former_rows) == ([], [], 500)
    events.send(1_000, SCHEMA_2)
    again = run_inline(job)
    assert (again.errors, again.catalog_problems, again.rows) == ([], [], 1_500)
    expected = events.rows()
    assert {name: stored_rows(job, table, name) for name in ("avro", "parquet")} == dict.fromkeys(
        ("avro", "parquet"), expected
    )
    assert dataset(root, events.topic).count_rows() == 500
    assert rows_in_iceberg(job) == {events.topic: 500, table: 1_500}

    dropped = drop_tables(job, [events.topic])

    assert (dropped.errors, dropped.notes, dropped.rows) == ([], [], 1_000)
    assert dataset(root, events.topic, number=begun.number).count_rows() == 500
    assert stored_rows(job, events.topic, "avro") == Counter()
    assert dataset(root, table).to_table().sort_by("_kafka_offset")["id"].to_pylist() == list(range(1_500))
    assert rows_in_iceberg(job)[table] == 1_500
    assert verify_destination(job, deep=True).findings == []
    assert status_of(job).red == []
    assert run_inline(job).outcome is Outcome.NOTHING_NEW


def rows_in_iceberg(job: LoadJob) -> dict[str, int]:
    """How many rows Iceberg's readers find in each table."""
    assert job.iceberg is not None, job.name
    catalog = load_catalog(job.iceberg.catalog, **{key: str(value) for key, value in job.iceberg.properties.items()})
    try:
        return {
            name: sum(task.file.record_count for task in catalog.load_table((namespace, name)).scan().plan_files())
            for namespace, name in catalog.list_tables(job.iceberg.namespace)
        }
    finally:
        catalog.close()


def stored(job: LoadJob, events: Events) -> dict[str, Counter[tuple[int, int, int, str]]]:
    return {name: stored_rows(job, events.topic, name) for name in ("avro", "parquet")}
