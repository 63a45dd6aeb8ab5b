"""SplitReader: every offset of every range once, whatever pieces the client hands over in one go."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.raw_topics import RawTopic

from millstream.hadoop_loader.running.range_state import RangeState
from millstream.hadoop_loader.running.reading import SplitReader
from millstream.hadoop_loader.splits import OffsetRange
from millstream.testing import TestBroker

SMALL_MEMORY_BYTES = 1024 * 1024  # so little that a poll hands over many pieces


@pytest.mark.parametrize("second_start", [200, 211, 300])
def test_two_ranges_of_one_partition(millstream_broker_session: TestBroker, tmp_path: Path, second_start: int) -> None:
    topic = RawTopic(millstream_broker_session.bootstrap_servers, tmp_path / "lake")
    topic.send(500, topic.producer(batch_messages=10), size=1_000)
    job = topic.job()
    wanted = [(0, 200), (second_start, 450)]
    states = [RangeState(OffsetRange(topic.name, "", 0, -1, start, end)) for start, end in wanted]

    found: dict[int, list[int]] = {}
    with SplitReader(job.source, states, memory_bytes=SMALL_MEMORY_BYTES) as reader:
        while not reader.is_done:
            for state, rows in reader.poll():
                found.setdefault(states.index(state), []).extend(rows.offsets.to_pylist())
                state.rows += rows.length

    assert found == {number: list(range(*ends)) for number, ends in enumerate(wanted)}
    assert [state.result().rows for state in states] == [200, 450 - second_start]
