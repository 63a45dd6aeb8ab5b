"""Dead letters replayed: a letter becomes a row once it can be read, once, or stays a letter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from tests.support.commit_commands import job_of
from tests.support.loads import SCHEMA_2, Events, job_for, local_rows
from tests.support.table_roots import TableRoot

from millstream import Admin, Consumer
from millstream.cli.load_output import print_replay
from millstream.hadoop_loader.driver import Outcome, run_load
from millstream.hadoop_loader.driver import replay as replaying
from millstream.hadoop_loader.driver.letters import REPLAYED, letter_files, read_letters, waiting_letters
from millstream.hadoop_loader.driver.replay import REPLAYED_FROM, replay_dead_letters
from millstream.hadoop_loader.driver.status import status_of
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.filesystem import AccessDeniedError
from millstream.hadoop_loader.job import BadRecords, Partitioning
from millstream.hadoop_loader.splits import FileKind
from millstream.schemas.avro import AvroEncoder
from millstream.schemas.client import RegistryClient
from millstream.testing.faulty_filesystem import FaultyFileSystem
from millstream.testing.memory_filesystem import MemoryFileSystem

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
def test_a_letter_becomes_a_row_once_its_schema_is_known(
    new_events: NewEvents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = new_events(partitions=1)
    # Of this topic only, so that its id is the next one.
    schema = SCHEMA_2.replace('"Event"', f'"Event", "doc": "of {events.topic}"')
    events.send(1)
    schema_id = next_schema_id(events)
    with_letters(events, schema_id)
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="none"))
    report = run_load(job)
    assert (report.outcome, report.audit["bad"]) == (Outcome.LOADED, 2)
    monkeypatch.setattr(replaying, "LOOKED_AT", 1)
    (few,) = replay_dead_letters(job, dry_run=True).topics
    assert (few.letters, list(few.errors.values())) == (2, [1])
    monkeypatch.undo()
    (waiting,) = replay_dead_letters(job, dry_run=True).topics
    assert (waiting.letters, list(waiting.errors.values())) == (2, [1, 1])
    assert list(waiting.places.values()) == ["partition 0, offset 31", "partition 0, offset 32"]
    assert f"{schema_id}" in next(iter(waiting.errors))

    with RegistryClient(events.registry_url) as registry:
        assert registry.register(f"{events.topic}-other", schema) == schema_id
    # Letters are kept, be it that runs would skip such records now; and read in pieces.
    skipping = replace(job, bad_records=BadRecords(policy="skip"))
    monkeypatch.setattr(replaying, "_PIECE_LETTERS", 1)
    replay = replay_dead_letters(skipping)

    assert replay.errors == []
    assert [(one.letters, one.replayed, one.still_bad) for one in replay.topics] == [(2, 1, 1)]
    assert replay.outcome is Outcome.PARTIAL
    for rows in local_rows(tmp_path, events.topic, "avro", "parquet").values():
        assert rows[0, 31, 9_000, "late schema"] == 1
    assert verify_destination(job).findings == []

    again = replay_dead_letters(job)
    assert [(one.letters, one.replayed) for one in again.topics] == [(1, 0)]  # the one that never was a datum
    with Surroundings().open_filesystem(job) as lake:
        state = Surroundings().commit_log(job, lake).read()
    assert waiting_letters(state) == {events.topic: 1}
    # What the log keeps of them does not grow with those that were replayed.
    assert state.schemas[f"{REPLAYED}{events.topic}"]["waiting"] == []
    # A replay is no run: what the last one said still holds.
    assert [line.outcome for line in status_of(job, offline=True).runs] == ["loaded", "replayed"]


def test_letters_of_many_runs_become_few_files(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=1)
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="none"))
    for number in range(3):
        events.send(2)
        events.send_raw(b"no Avro at all %d" % number)
        assert run_load(job).outcome is Outcome.LOADED

    for _ in range(2):
        replay = replay_dead_letters(job)
        assert [(one.letters, one.replayed, one.still_bad) for one in replay.topics] == [(3, 0, 3)]

    with Surroundings().open_filesystem(job) as lake:
        state = Surroundings().commit_log(job, lake).read()
        [kept] = letter_files(state, events.topic)
        assert [letter.offset for letter in read_letters(lake, kept.path)] == [2, 5, 8]


def test_letters_that_were_never_replayed_are_counted_without_a_look_at_their_files(tmp_path: Path) -> None:
    root = TableRoot(tmp_path, MemoryFileSystem())
    for _ in range(3):
        root.load([(0, "avro", b"letters", 4)], closed=False, kind=FileKind.DEAD_LETTERS)
    state = root.log.read()
    assert waiting_letters(state) == {"orders": 12}
    state.schemas[f"{REPLAYED}orders"] = {"up_to": state.number, "waiting": [letter_files(state, "orders")[0].name]}
    assert waiting_letters(state) == {"orders": 4}
    del state.schemas[f"{REPLAYED}orders"]

    state.files.entries.clear()

    assert waiting_letters(state) == {"orders": 12}


def test_what_could_not_be_cleaned_is_told_also_by_a_replay_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = TableRoot(tmp_path, MemoryFileSystem())
    root.load([(0, "avro", b"no letters", 4)], closed=False, kind=FileKind.DEAD_LETTERS)
    root.filesystem.make_child("_millstream/discarded/old")

    def refuse(name: str) -> None:
        if name.startswith("delete _millstream/discarded/old"):
            raise AccessDeniedError("Permission denied: user=loader", uri=root.filesystem.uri, path="old")

    filesystem = FaultyFileSystem(root.filesystem, before_call=refuse)
    replay = replay_dead_letters(job_of(tmp_path), surroundings=Surroundings(open_filesystem=lambda _job: filesystem))
    print_replay(replay, dry_run=False)

    assert replay.outcome is Outcome.FAILED
    assert replay.as_json()["notes"] == [
        f"cleaning: {AccessDeniedError('Permission denied: user=loader', uri='memory://test', path='old')}"
    ]
    assert "cleaning: memory://test/old: Permission denied" in " ".join(capsys.readouterr().err.split())


def test_a_replay_that_does_not_add_up_is_not_committed(
    new_events: NewEvents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = new_events(partitions=1)
    events.send(2)
    events.send_raw(b"no Avro at all", b"nor this")
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="none"))
    run_load(job)
    number = status_of(job, offline=True).number

    monkeypatch.setattr(replaying, "_as_fetched", lambda _letters: ())
    replay = replay_dead_letters(job)

    assert (replay.outcome, replay.number) == (Outcome.FAILED, None)
    assert "does not add up" in replay.errors[0]
    assert [line.number for line in status_of(job, offline=True).runs] == [number]


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
