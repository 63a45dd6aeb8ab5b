"""The cluster changes while a load reads it: retention, a topic made anew, brokers and connections that go away.

From Millstream's broker and from Apache Kafka, but for what only one of them can be put through here. Splits run in the
test's process, with so little memory that most of a topic is not fetched yet when it changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.raw_topics import RawTopic, assert_held, run_inline

from millstream import Admin, TopicPartition
from millstream.hadoop_loader.driver import Outcome
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.job import EncodingSettings, LoadJob, SourceSettings
from millstream.hadoop_loader.job.files import ParquetSettings
from millstream.testing import TestBroker, broker
from millstream.testing.fault_proxy import Cut, Delay, Drop, FaultProxy, RandomFaults
from millstream.testing.kafka import ApacheKafka

pytestmark = pytest.mark.timeout(600)

RECORDS = 8_000
RECORD_BYTES = 1_000
LITTLE: dict[str, Any] = {
    "worker_memory_bytes": 32 * 1024 * 1024,
    "encoding": EncodingSettings(parquet=ParquetSettings(row_group_bytes=8 * 1024 * 1024)),
}


@pytest.fixture(params=["millstream", pytest.param("kafka", marks=pytest.mark.java)])
def topic(request: pytest.FixtureRequest, tmp_path: Path) -> RawTopic:
    kind = "millstream_broker_session" if request.param == "millstream" else "apache_kafka"
    return RawTopic(request.getfixturevalue(kind).bootstrap_servers, tmp_path / "lake")


@pytest.mark.parametrize("policy", ["fail", "continue"])
def test_retention_overtakes_a_run(topic: RawTopic, policy: str) -> None:
    topic.send(RECORDS, size=RECORD_BYTES)
    before = topic.shown()
    job = topic.job(gaps=policy, changes=LITTLE)

    def delete() -> None:
        with Admin(topic.bootstrap) as admin:
            admin.delete_records({TopicPartition(topic.name, 0): RECORDS - 100})

    report = run_inline(job, in_the_middle=delete)

    held = topic.rows()
    if policy == "fail":
        assert (report.outcome, report.number, len(held)) == (Outcome.FAILED, None, 0)
        assert "retention has deleted offsets" in report.errors[0]
        assert 'source.gaps = "continue"' in report.errors[0]
        return
    assert (report.outcome, report.errors) == (Outcome.LOADED, [])
    assert not held - before
    assert set(topic.shown()) <= set(held)
    lost = RECORDS - held.total()
    assert 0 < lost < RECORDS
    assert report.audit["lost_offsets"] == lost
    assert report.topics[0].gaps == {"retention": lost}
    topic.send(10)
    assert run_inline(job).rows == 10
    assert verify_destination(job).findings == []


def test_a_topic_made_anew_in_the_middle_is_not_mixed_with_the_old_one(topic: RawTopic) -> None:
    topic.send(RECORDS, size=RECORD_BYTES)
    job = topic.job(recreated="continue", timeout_s=5.0, changes={**LITTLE, "split_attempts": 1})

    def make_anew() -> None:
        topic.make_anew()
        topic.send(RECORDS, size=RECORD_BYTES)

    report = run_inline(job, in_the_middle=make_anew)

    # What was read may be of either, so none of it counts; the next run knows only the new one.
    assert (report.outcome, report.number) == (Outcome.FAILED, None)
    assert topic.name in report.errors[0]
    report = run_inline(topic.job(recreated="continue"))
    assert (report.outcome, report.errors, report.rows) == (Outcome.LOADED, [], RECORDS)
    assert_held(topic)


@pytest.mark.parametrize("kind", ["millstream", pytest.param("kafka", marks=pytest.mark.java)])
def test_a_broker_that_restarts_in_the_middle_costs_time(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, soak: bool
) -> None:
    if kind == "millstream":
        fresh: TestBroker | ApacheKafka = broker()
    else:
        fresh = ApacheKafka(tmp_path / "kafka", jars=request.getfixturevalue("jars"))
    # A start of Apache Kafka takes its time: one is enough where there is little.
    ends = ["kill", "stop"] if soak or kind == "millstream" else ["kill"]
    with fresh as restarted:
        topic = RawTopic(restarted.bootstrap_servers, tmp_path / "lake")
        topic.send(RECORDS, size=RECORD_BYTES)
        for end in ends:

            def restart(end: str = end) -> None:
                getattr(restarted, end)()
                restarted.start()

            report = run_inline(topic.job(changes=LITTLE), in_the_middle=restart)

            assert (report.outcome, report.errors, report.rows) == (Outcome.LOADED, [], RECORDS), end
            topic.send(RECORDS, size=RECORD_BYTES)
        assert run_inline(topic.job()).rows == RECORDS
        assert_held(topic)


def test_connections_that_break_cost_time(topic: RawTopic) -> None:
    faults = RandomFaults(29, rate=0.1, connection_rate=0, weights={Drop: 1.0, Cut: 1.0, Delay: 1.0})
    with FaultProxy(topic.bootstrap, faults) as proxy:
        job: LoadJob = topic.job(changes=LITTLE)
        through = SourceSettings(bootstrap_servers=proxy.bootstrap_servers, topics=(topic.name,))
        for _ in range(3):
            topic.send(1_000, size=RECORD_BYTES)
            # A run that was told of a fault tells of it in turn, and leaves nothing; the next one goes on.
            report = run_inline(topic.job(changes={**LITTLE, "source": through}))
            assert report.outcome in (Outcome.LOADED, Outcome.PARTIAL, Outcome.FAILED, Outcome.NOTHING_NEW)
            assert not topic.rows() - topic.shown()
        assert proxy.counts
    assert run_inline(job).outcome in (Outcome.LOADED, Outcome.NOTHING_NEW)
    assert_held(topic)
