"""What stops a split is told to whoever runs the job: where it is, and what a job can do about it."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.raw_topics import RawTopic

from millstream import Admin
from millstream.core.client import TopicPartition
from millstream.core.client.consumer import CorruptBatchError, LogTruncationError
from millstream.hadoop_loader.running import RangeGoneError, SplitError, TopicUnreadableError, reading
from millstream.hadoop_loader.running.errors import StalledError, TopicRecreatedError
from millstream.hadoop_loader.running.range_state import RangeState
from millstream.hadoop_loader.running.reading import SplitReader
from millstream.hadoop_loader.source import read_source
from millstream.hadoop_loader.splits import OffsetRange
from millstream.testing import TestBroker
from millstream.testing.kafka import wait_until

TP = TopicPartition("orders", 3)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            CorruptBatchError(TP, 70, 80, "a batch fails its CRC or is no batch"),
            TopicUnreadableError,
            ["orders-3 is damaged at offset 70", "--partition 3 --offset 80", 'source.gaps = "continue"'],
        ),
        (CorruptBatchError(TP, 70, None, "found by the broker"), TopicUnreadableError, ["--offset OFFSET"]),
        (LogTruncationError(TP, 70, 55), RangeGoneError, ["orders-3", "from offset 55 on", "source.truncated"]),
    ],
)
def test_what_a_consumer_says_becomes_what_a_job_can_do(error: Any, kind: type[SplitError], words: list[str]) -> None:
    class Reader:
        def poll(self, timeout_s: float) -> list[Any]:
            raise error

    reader = SplitReader.__new__(SplitReader)
    reader._consumer = Reader()  # type: ignore[assignment]

    with pytest.raises(kind) as raised:
        list(reader.poll())

    told = pickle.loads(pickle.dumps(raised.value))
    for one in (raised.value, told):
        assert getattr(one, "topic", None) == "orders"
        assert all(word in str(one) for word in words), str(one)
        assert not any(word in str(one) for word in ("step_over", "seek")), str(one)


def test_a_stall_names_its_topic_where_there_is_only_one() -> None:
    of_one = StalledError([TP, TopicPartition("orders", 1)], 60.0)
    of_two = StalledError([TP, TopicPartition("clicks", 0)], 60.0)

    for error, topic in ((of_one, "orders"), (of_two, None)):
        told = pickle.loads(pickle.dumps(error))
        assert (told.topic, str(told)) == (error.topic, str(error)) == (topic, str(error))
    assert "orders-1, orders-3 for 60 s" in str(of_one)
    assert "source.timeout_s" in str(of_one)


def test_a_topic_that_is_deleted_while_it_is_waited_for_is_named(
    millstream_broker_session: TestBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = RawTopic(millstream_broker_session.bootstrap_servers, tmp_path / "lake")
    topic.send(10)
    job = topic.job()
    (now,) = read_source(job.source, {}, {}).topics.values()
    away = OffsetRange("never-there", "id of another", 0, -1, 0, 10)
    there = OffsetRange(topic.name, now.topic_id, 0, -1, 10, 20)
    clock = iter([0.0])
    monkeypatch.setattr(reading, "time", SimpleNamespace(monotonic=lambda: next(clock, 100.0)))
    reader = SplitReader(job.source, [RangeState(there), RangeState(away)], memory_bytes=16 * 1024 * 1024)

    with reader, pytest.raises(TopicRecreatedError, match="'never-there'"):
        list(itertools.chain.from_iterable(iter(reader.poll, None)))


def test_a_topic_that_was_deleted_is_not_made_anew(
    millstream_broker_session: TestBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = RawTopic(millstream_broker_session.bootstrap_servers, tmp_path / "lake")
    clock = iter([0.0])
    monkeypatch.setattr(reading, "time", SimpleNamespace(monotonic=lambda: next(clock, 100.0)))
    waiting = RangeState(OffsetRange(topic.name, "the id it had", 0, -1, 0, 10))

    with Admin(topic.bootstrap) as admin:
        admin.delete_topic(topic.name)
        wait_until(lambda: topic.name not in admin.list_topics(), 60.0, "the broker to have forgotten the topic")
        reader = SplitReader(topic.job().source, [waiting], memory_bytes=16 * 1024 * 1024)
        with reader, pytest.raises(TopicRecreatedError, match=topic.name):
            list(itertools.chain.from_iterable(iter(reader.poll, None)))
        assert topic.name not in admin.list_topics()
