"""A topic that is loaded anew: what readers of its former table and of the new one see, and what history says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.hadoop_loader.driver.conftest import Cluster
from tests.support.inline_engine import InlineEngine
from tests.support.loads import STEP_MS, Events, assert_same, job_for, local_rows

from millstream import Admin, TopicPartition
from millstream.hadoop_loader import dataset
from millstream.hadoop_loader.driver.anew import load_anew
from millstream.hadoop_loader.driver.directories import close_directories, drop_tables
from millstream.hadoop_loader.driver.letters import waiting_letters
from millstream.hadoop_loader.driver.load import run_load
from millstream.hadoop_loader.driver.replay import replay_dead_letters
from millstream.hadoop_loader.driver.report import Outcome
from millstream.hadoop_loader.driver.status import status_of
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.filesystem import open_filesystem
from millstream.hadoop_loader.job import HiveSettings, LateSettings, LoadJob, Partitioning
from millstream.hadoop_loader.tables.naming import TableNames

NewEvents = Callable[..., Events]


def inline(job: LoadJob) -> InlineEngine:
    return InlineEngine(job, open_filesystem(job.destination.uri, job.destination.filesystem))


# Splits run in this process: nothing here is about workers.
WORLD = Surroundings(open_engine=inline)


def letters_of(job: LoadJob) -> dict[str, int]:
    with WORLD.open_filesystem(job) as lake:
        return waiting_letters(WORLD.commit_log(job, lake).read())


def test_each_table_holds_each_record_once_while_a_topic_is_loaded_anew(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=2)
    topic, table = events.topic, f"{events.topic}_2"
    events.send(300)
    job = job_for(events, tmp_path, late=LateSettings(close_after_s=0))
    first = run_load(job, surroundings=WORLD)
    assert first.number is not None
    assert len(first.closed_directories) == 8

    foreseen = load_anew(job, topic, table, dry_run=True)
    assert (foreseen.outcome, foreseen.number, foreseen.offsets) == (Outcome.NOTHING_NEW, None, 300)
    begun = load_anew(job, topic, table)

    assert (begun.outcome, begun.errors, begun.start_offsets) == (Outcome.LOADED, [], {0: 0, 1: 0})
    assert (begun.former_tables, begun.former_rows) == ([topic], 300)
    assert_same(events, tmp_path, "avro", "parquet")  # nobody is in the way of the former table's readers
    status = status_of(job)
    assert [line.lag for line in status.topics] == [300]
    assert any(f"{topic} is a former table of topic {topic}, which is loaded anew" in note for note in status.notes)

    # Round by round: what earlier runs knew of record time neither closes directories too soon nor makes records late.
    rounds = job_for(
        events, tmp_path, late=LateSettings(close_after_s=0), source={"run_bytes_max": 4_000}, limits=job.limits
    )
    rows, late, closed, count = 0, 0, set[str](), 0
    while (report := run_load(rounds, surroundings=WORLD)).rows:
        rows, late, count = rows + report.rows, late + report.topics[0].late_rows, count + 1
        assert closed.isdisjoint(report.closed_directories)
        closed.update(report.closed_directories)
    assert (rows, late) == (300, 0)
    assert count > 1, count
    assert closed == {one.replace(topic, table, 1) for one in first.closed_directories}
    for format_ in ("avro", "parquet"):
        assert local_rows(tmp_path, table, format_) == local_rows(tmp_path, topic, format_)
    events.send(10)
    assert run_load(job, surroundings=WORLD).topics[0].table == table
    assert dataset(tmp_path.as_uri(), topic).count_rows() == 300
    assert verify_destination(job, deep=True).findings == []

    assert "is no table that a topic of this job had before" in drop_tables(job, [table]).errors[0]
    dropped = drop_tables(job, [topic])

    assert (dropped.outcome, dropped.errors, dropped.rows) == (Outcome.LOADED, [], 600)
    assert not list((tmp_path / topic).rglob(f"*{topic}*"))
    assert dataset(tmp_path.as_uri(), topic, number=begun.number).count_rows() == 300
    assert_same(events, tmp_path, "avro", "parquet", tables=[table])
    assert verify_destination(job, deep=True).findings == []
    status = status_of(job)
    assert {"begun anew", "dropped"} < {line.outcome for line in status.runs}
    assert (status.red, status.notes) == ([], [])
    assert drop_tables(job, [topic]).outcome is Outcome.NOTHING_NEW
    # Its name is nobody's: a reader that comes back late finds nothing in it.
    assert f"table {topic}: {topic} is there already" in load_anew(job, topic, topic).errors[0]


def test_letters_of_records_that_come_again_are_done_with(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events(partitions=2)
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="none"))
    events.send_raw(b"lost", partition=0)
    events.send_raw(b"there", partition=1)
    run_load(job, surroundings=WORLD)
    events.send(20)
    run_load(job, surroundings=WORLD)
    assert letters_of(job) == {events.topic: 2}
    with Admin(events.bootstrap) as admin:
        admin.delete_records({TopicPartition(events.topic, 0): 1})

    begun = load_anew(job, events.topic, "anew")

    assert (begun.start_offsets, begun.letters, begun.offsets) == ({0: 1, 1: 0}, 1, 21)
    assert letters_of(job) == {events.topic: 1}  # the record that is only there
    run_load(job, surroundings=WORLD)
    assert letters_of(job) == {events.topic: 2}
    assert local_rows(tmp_path, "anew", "avro") == local_rows(tmp_path, events.topic, "avro")


def test_of_a_file_of_letters_those_wait_on_whose_records_do_not_come_again(
    new_events: NewEvents, tmp_path: Path
) -> None:
    events = new_events(partitions=1)
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="none"))
    events.send_raw(b"lost", b"lost too")
    events.send(1)
    events.send_raw(b"there")
    run_load(job, surroundings=WORLD)
    assert letters_of(job) == {events.topic: 3}
    with Admin(events.bootstrap) as admin:
        admin.delete_records({TopicPartition(events.topic, 0): 2})

    assert load_anew(job, events.topic, "anew", dry_run=True).letters == 1
    assert load_anew(job, events.topic, "anew").letters == 1

    assert letters_of(job) == {events.topic: 2}
    run_load(job, surroundings=WORLD)
    assert letters_of(job) == {events.topic: 3}
    assert load_anew(job, events.topic, "again").letters == 1
    assert letters_of(job) == {events.topic: 2}
    sent = replay_dead_letters(job, to_topic=new_events(partitions=1).topic, surroundings=WORLD)
    assert [(one.letters, one.replayed) for one in sent.topics] == [(2, 2)], sent.errors
    assert letters_of(job) == {events.topic: 0}


def test_what_cannot_be_loaded_anew_changes_nothing(new_events: NewEvents, tmp_path: Path) -> None:
    events, other = new_events(), new_events()
    events.send(9)
    job = job_for([events, other], tmp_path)
    never = load_anew(job, other.topic, "b")
    assert "was never loaded here: `millstream load run` begins with it" in never.errors[0]
    number = run_load(job, surroundings=WORLD).number

    for topic, table, said in (
        ("nobody's", "b", "is no topic of job events"),
        (events.topic, events.topic, f"is there already; give another name, such as {events.topic}_2"),
        (events.topic, f"{events.topic}.v2", "is there already"),
        (events.topic, other.topic, f"{other.topic} is there already"),
        (events.topic, "a/b", "is no name of a table"),
        (events.topic, "_b", "hidden from readers"),
        (events.topic, "b" * 246, "up to 245 of them"),
        ("", "b", "'' is no topic of job events"),
    ):
        refused = load_anew(job, topic, table)
        assert (refused.outcome, refused.exit_code, refused.number) == (Outcome.FAILED, 1, None)
        assert said in refused.errors[0]
    away = job_for([events, other], tmp_path, source={"bootstrap_servers": "127.0.0.1:1"})
    assert "nothing listens there" in load_anew(away, events.topic, "b").errors[0]
    with WORLD.open_filesystem(job) as lake:
        state = WORLD.commit_log(job, lake).read()
    # The claim of the one that could not ask the brokers is all that there is.
    assert (state.number, state.reports[-1]["number"]) == (number + 1 if number else 0, number)
    assert run_load(job, surroundings=WORLD).outcome is Outcome.NOTHING_NEW
    # It would begin where it ends: the group has what the job itself committed.
    own = job_for(events, tmp_path, source={"group": "loads", "start_group": "loads"})
    assert "to which this job commits how far it has come" in load_anew(own, events.topic, "b").errors[0]
    # The statements for the one would be carried out on the other.
    hive, alike = replace(job, hive=HiveSettings()), events.topic.replace("-", ".")
    assert f"would call it as they do {events.topic}" in load_anew(hive, events.topic, alike).errors[0]


def test_a_topic_that_is_gone_is_not_loaded_anew(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events()
    events.send(3)
    job = job_for(events, tmp_path, source={"topics": (), "topics_pattern": events.topic})
    run_load(job, surroundings=WORLD)
    with Admin(events.bootstrap) as admin:
        admin.delete_topic(events.topic)

    refused = load_anew(job, events.topic, "b")

    assert (refused.outcome, refused.number) == (Outcome.FAILED, None)
    assert "is not there any more" in refused.errors[0]


def test_a_table_called_as_late_records_of_a_former_one_is_not_dropped_with_it(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, other = (Events(cluster.bootstrap, cluster.registry_url, name) for name in ("orders", "orders.late"))
    events.send(9)
    other.send(9)
    job = job_for([events, other], tmp_path)
    assert "orders.late is also where records of topic orders go" in run_load(job, surroundings=WORLD).errors[0]
    assert load_anew(job, "orders", "bills").outcome is Outcome.LOADED

    beside = run_load(job, surroundings=WORLD)

    assert "beside orders, which is of a topic that was loaded anew" in beside.errors[0]
    assert [(one.topic, one.rows) for one in beside.topics if one.rows] == [("orders", 9)]
    # A build that knows nothing of former tables loads it all the same.
    with monkeypatch.context() as older:
        older.setattr(TableNames, "former_at", lambda *_: None)
        assert run_load(job, surroundings=WORLD).errors == []
    assert drop_tables(job, ["orders"]).rows == 18
    assert_same(other, tmp_path, "avro", "parquet")


def test_a_dropped_table_is_empty_however_its_directories_lie(new_events: NewEvents, tmp_path: Path) -> None:
    events, day = new_events(partitions=1), 86_400_000 // STEP_MS
    late = LateSettings(close_after_s=0)
    job = job_for(events, tmp_path, late=late, partitioning=Partitioning(kind="time", pattern="%Y/%m/%d"))
    finer = replace(job, partitioning=Partitioning(kind="time", pattern="%Y/%m/%d/%H"))
    events.send(day + 100)
    assert len(run_load(job, surroundings=WORLD).closed_directories) == 2
    events.send(100)
    run_load(finer, surroundings=WORLD)
    closed = close_directories(finer).directories
    assert {f"{events.topic}/avro/2026/01/02", f"{events.topic}/avro/2026/01/02/03"} <= set(closed)
    load_anew(finer, events.topic, "anew")

    dropped = drop_tables(finer, [events.topic])

    assert (dropped.outcome, dropped.errors, dropped.rows) == (Outcome.LOADED, [], 2 * (day + 200))
    assert not list((tmp_path / events.topic).rglob(f"*{events.topic}*"))
    assert verify_destination(finer, deep=True).findings == []


def test_catalogs_know_all_of_a_table_that_they_are_told_of_no_more(new_events: NewEvents, tmp_path: Path) -> None:
    events = new_events()
    events.send(9)
    job = job_for(events, tmp_path, partitioning=Partitioning(kind="none"))
    run_load(job, surroundings=WORLD)

    begun = load_anew(replace(job, hive=HiveSettings()), events.topic, "anew")

    assert (begun.outcome, begun.notes) == (Outcome.LOADED, [])
    assert list((tmp_path / events.topic / "_hive").glob("*.sql"))


def test_a_former_table_s_name_is_no_other_topic_s(new_events: NewEvents, tmp_path: Path) -> None:
    events, other = new_events(), new_events()
    events.send(9)
    other.send(9)
    assert run_load(job_for(events, tmp_path), surroundings=WORLD).outcome is Outcome.LOADED
    assert load_anew(job_for(events, tmp_path), events.topic, "anew").outcome is Outcome.LOADED

    job = job_for(other, tmp_path, destination={"table_names": {other.topic: events.topic}})
    refused = run_load(job, surroundings=WORLD)

    assert refused.outcome is Outcome.FAILED
    assert "which is of a topic that was loaded anew: mend destination.table_names" in refused.errors[0]
