"""Loads of topics with transactions: markers at the ends of ranges, aborted records, one that is open, a new leader.

From Apache Kafka: Millstream's broker serves no transactions.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.support.raw_topics import RawTopic, assert_held, run_inline

from millstream.hadoop_loader.driver import Outcome
from millstream.hadoop_loader.job import Partitioning
from millstream.testing.kafka import ApacheKafka

pytestmark = [pytest.mark.java, pytest.mark.timeout(600)]


@pytest.fixture
def topic(apache_kafka: ApacheKafka, tmp_path: Path) -> RawTopic:
    return RawTopic(apache_kafka.bootstrap_servers, tmp_path / "lake")


def test_only_what_was_committed_is_loaded_and_every_offset_is_explained(topic: RawTopic) -> None:
    chance = random.Random(11)
    producer = topic.producer("writer")
    aborted = 0
    for _ in range(4):
        for _ in range(5):
            size = chance.randint(1, 30)
            producer.begin_transaction()
            topic.send(size, producer)
            if chance.random() < 0.4:
                producer.abort_transaction()
                aborted += size
            else:
                producer.commit_transaction()
        if chance.random() < 0.5:
            topic.send(3)
        topic.wait_for_markers()
        # Each run ends behind a marker, or behind plain records.
        report = run_inline(topic.job())
        assert (report.outcome, report.errors) == (Outcome.LOADED, []), report
        assert report.audit["lag"] == 0
    assert aborted
    assert_held(topic)
    assert run_inline(topic.job()).outcome is Outcome.NOTHING_NEW


def test_a_run_that_brings_nothing_but_aborted_records_moves_on(topic: RawTopic) -> None:
    producer = topic.producer("writer")
    producer.begin_transaction()
    topic.send(20, producer)
    producer.abort_transaction()
    topic.wait_for_markers()

    report = run_inline(topic.job())

    assert (report.errors, report.rows, report.audit["gap_offsets"]) == ([], 0, 21)
    assert run_inline(topic.job()).number is None
    topic.send(5)
    assert run_inline(topic.job()).rows == 5
    assert_held(topic)


def test_a_marker_that_a_later_leader_wrote_is_no_cut_log(jars: Path, tmp_path: Path) -> None:
    with ApacheKafka(tmp_path / "kafka", jars=jars) as kafka:
        topic = RawTopic(kafka.bootstrap_servers, tmp_path / "lake")
        topic.send(5)
        producer = topic.producer("writer")
        producer.begin_transaction()
        topic.send(10, producer)
        kafka.stop()
        kafka.start()
        # The next of its name has the transaction aborted: behind records of one leader lies the marker of another.
        topic.producer("writer")
        topic.wait_for_markers()
        first = run_inline(topic.job())
        assert (first.errors, first.rows) == ([], 5)

        topic.send(7)
        second = run_inline(topic.job())

        assert (second.errors, second.rows) == ([], 7)
        assert_held(topic)


def test_an_open_transaction_holds_back_the_closing_of_directories(topic: RawTopic, tmp_path: Path) -> None:
    wide = RawTopic(topic.bootstrap, topic.uri, partitions=2)
    job = wide.job(changes={"partitioning": Partitioning(kind="time", pattern="hourly")})
    producer = wide.producer("writer")
    producer.begin_transaction()
    wide.send(30, producer, partition=0)
    wide.send(300, partition=1)

    # Partition 1 has come hours further; what partition 0 holds is of the first hour, and not to be read yet.
    report = run_inline(job)
    assert (report.errors, report.rows, report.closed_directories) == ([], 300, [])

    producer.commit_transaction()
    wide.wait_for_markers()
    assert run_inline(job).rows == 30
    assert not (tmp_path / f"lake/{wide.name}.late").exists()
    assert_held(wide)
