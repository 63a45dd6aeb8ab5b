"""Dead letters replayed: a letter becomes a row once it can be read, once, or stays a letter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from tests.support.loads import SCHEMA_2, Events, job_for, local_rows

from millstream import Admin, Consumer
from millstream.hadoop_loader.driver import Outcome, run_load
from millstream.hadoop_loader.driver.replay import REPLAYED_FROM, replay_dead_letters
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.job import Partitioning
from millstream.schemas.avro import AvroEncoder
from millstream.schemas.client import RegistryClient

pytestmark = pytest.mark.from_kafka(soak=True)

NewEvents = Callable[..., Events]


def with_letters(events: Events, schema_id: int) -> None:
    """Send records, one of a schema that nobody knows yet, and one that never was a datum."""
    events.send(30)
    row = pa.table({"id": [9_000], "user": ["late schema"], "amount": [1.5], "country": ["c"]})
    [framed] = AvroEncoder(SCHEMA_2, schema_id).encode(row).to_pylist()
    events.send_raw(framed, b"\x00\x00\x00\x00\x01\xff")


def next_schema_id(events: Events) -> int:
    """The id that the registry gives to the next schema it does not know."""
    with RegistryClient(events.registry_url) as registry:
        other = '{"type": "record", "name": "Probe", "fields": [{"name": "p", "type": "string", "doc": "%s"}]}'
        return registry.register(f"probe-{events.topic}", other % events.topic) + 1


@pytest.mark.from_kafka
def test_a_letter_becomes_a_row_once_its_schema_is_known(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=1)
    # Of this topic only, so that its id is the next one.
    schema = SCHEMA_2.replace('"Event"', f'"Event", "doc": "of {events.topic}"')
    events.send(1)
    schema_id = next_schema_id(events)
    with_letters(events, schema_id)
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="none"))
    report = run_load(job)
    assert (report.outcome, report.audit["bad"]) == (Outcome.LOADED, 2)
    assert [one.letters for one in replay_dead_letters(job, dry_run=True).topics] == [2]

    with RegistryClient(events.registry_url) as registry:
        assert registry.register(f"{events.topic}-other", schema) == schema_id
    replay = replay_dead_letters(job)

    assert replay.errors == []
    assert [(one.letters, one.replayed, one.still_bad) for one in replay.topics] == [(2, 1, 1)]
    assert replay.outcome is Outcome.PARTIAL
    for rows in local_rows(tmp_path, events.topic, "avro", "parquet").values():
        assert rows[0, 31, 9_000, "late schema"] == 1
    assert verify_destination(job).findings == []

    again = replay_dead_letters(job)
    assert [(one.letters, one.replayed) for one in again.topics] == [(1, 0)]  # the one that never was a datum


@pytest.mark.from_kafka
def test_letters_go_back_to_a_topic_as_they_came(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=1)
    events.send(5)
    events.send_raw(b"no Avro at all")
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="none"))
    run_load(job)
    retry = f"{events.topic}-retry"
    with Admin(events.bootstrap) as admin:
        admin.create_topic(retry, partitions=1)

    replay = replay_dead_letters(job, to_topic=retry)

    assert (replay.outcome, replay.errors) == (Outcome.LOADED, [])
    with Consumer(events.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([(retry, 0)])
        records = consumer.poll_records(30.0)
    assert [(bytes(record.value or b""), dict(record.headers)) for record in records] == [
        (b"no Avro at all", {REPLAYED_FROM: f"{events.topic}/0/5".encode()})
    ]
    assert replay_dead_letters(job, to_topic=retry).topics == []
