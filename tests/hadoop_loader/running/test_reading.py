"""SplitReader: every offset of every range once, whatever pieces the client hands over in one go."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.support.raw_topics import RawTopic

from millstream.core.client.consumer import FetchedRecords
from millstream.core.columns.blocking_consumer import Consumer
from millstream.hadoop_loader.running import reading
from millstream.hadoop_loader.running.range_state import RangeState
from millstream.hadoop_loader.running.reading import SplitReader
from millstream.hadoop_loader.splits import OffsetRange
from millstream.testing import TestBroker

SMALL_MEMORY_BYTES = 16 * 1024 * 1024  # so little that the topic comes in several pieces


def have_many_at_once(consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a poll bring what a slow reader would find: all that was fetched meanwhile."""
    poll = consumer.poll

    def many(timeout_s: float) -> list[FetchedRecords]:
        found: list[FetchedRecords] = []
        while more := poll(timeout_s):
            found += more
        return found

    monkeypatch.setattr(consumer, "poll", many)


@pytest.mark.parametrize("second_start", [100, 111, 300])
def test_two_ranges_of_one_partition(
    millstream_broker_session: TestBroker, tmp_path: Path, second_start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = RawTopic(millstream_broker_session.bootstrap_servers, tmp_path / "lake")
    topic.send(500, topic.producer(batch_messages=10), size=1_000)
    job = topic.job()
    wanted = [(0, 100), (second_start, 450)]
    states = [RangeState(OffsetRange(topic.name, "", 0, -1, start, end)) for start, end in wanted]

    found: dict[int, list[int]] = {}
    with SplitReader(job.source, states, memory_bytes=SMALL_MEMORY_BYTES) as reader:
        have_many_at_once(reader._consumer, monkeypatch)
        while not reader.is_done:
            for state, rows in reader.poll():
                found.setdefault(states.index(state), []).extend(rows.offsets.to_pylist())
                state.rows += rows.length

    assert found == {number: list(range(*ends)) for number, ends in enumerate(wanted)}
    assert [state.result().rows for state in states] == [100, 450 - second_start]


def test_work_that_takes_long_is_no_silence_of_the_brokers(
    millstream_broker_session: TestBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = RawTopic(millstream_broker_session.bootstrap_servers, tmp_path / "lake")
    topic.send(200, topic.producer(batch_messages=10))
    job = topic.job(timeout_s=60.0)
    # Between the two ranges the client throws away what it has fetched: for a moment nothing comes.
    states = [RangeState(OffsetRange(topic.name, "", 0, -1, start, start + 100)) for start in (0, 100)]
    now = 0.0
    monkeypatch.setattr(reading, "time", SimpleNamespace(monotonic=lambda: now))

    found: list[int] = []
    with SplitReader(job.source, states, memory_bytes=SMALL_MEMORY_BYTES) as reader:
        poll = reader._consumer.poll
        silent = 0
        while not reader.is_done:
            for state, rows in reader.poll():
                found += rows.offsets.to_pylist()
                state.rows += rows.length
                now += 100.0
                silent = 1

            def nothing_at_first(timeout_s: float) -> list[FetchedRecords]:
                nonlocal silent
                if silent:
                    silent -= 1
                    return []
                return poll(timeout_s)

            monkeypatch.setattr(reader._consumer, "poll", nothing_at_first)

    assert found == list(range(200))


def test_nothing_is_fetched_behind_a_range(millstream_broker_session: TestBroker, tmp_path: Path) -> None:
    topic = RawTopic(millstream_broker_session.bootstrap_servers, tmp_path / "lake")
    topic.send(3_000, topic.producer(batch_messages=10), size=1_000)
    # What a partition's share of the memory has room for is far more than the first range.
    states = [RangeState(OffsetRange(topic.name, "", 0, -1, start, start + 100)) for start in (0, 2_000)]

    found: list[int] = []
    with SplitReader(topic.job().source, states, memory_bytes=SMALL_MEMORY_BYTES) as reader:
        while not reader.is_done:
            for state, rows in reader.poll():
                found += rows.offsets.to_pylist()
                state.rows += rows.length
                # Work that takes as long as another client needs to read all of it.
                topic.shown()
        fetched_bytes = reader._consumer.metrics()["bytes_consumed_total"]

    assert found == [*range(100), *range(2_000, 2_100)]
    # Each range is in the first answer, or in the second.
    assert fetched_bytes <= 4 * SMALL_MEMORY_BYTES // reading.FETCH_SHARE // 16
