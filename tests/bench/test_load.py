"""The benchmark's own programs: what they count is what is there."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.load import consume, latency, produce
from bench.load.fill import write_log
from bench.load.frames import ProduceResponses, RefusedError, make_batch

from millstream.core.records import iter_batches
from millstream.testing import TestBroker, broker
from millstream.testing.raw import RawConnection


@pytest.fixture(scope="module")
def running() -> Iterator[TestBroker]:
    with broker() as started, RawConnection(started.bootstrap_servers) as raw:
        for topic, partitions in (("load-a", 4), ("load-b", 4), ("load-c", 1)):
            raw.create_topic(topic, partitions, max_message_bytes=2_000_000)
        yield started


@pytest.mark.parametrize(("topic", "records", "requests"), [("load-a", 100, 40), ("load-b", 1, 2000)])
def test_what_is_produced_is_consumed(running: TestBroker, topic: str, records: int, requests: int) -> None:
    batch = make_batch(records, 100)
    found = produce.run(running.bootstrap_servers, topic, 4, batch, in_flight=200, requests=requests, seconds=60)
    assert found["requests"] >= requests
    assert found["records"] == found["requests"] * records
    with RawConnection(running.bootstrap_servers) as raw:
        assert sum(raw.offset(topic, partition) for partition in range(4)) == found["records"]
    read = consume.run(running.bootstrap_servers, topic, 4, size_bytes_max=50_000, records=1 << 60, seconds=60)
    assert (read["records"], read["bytes"]) == (found["records"], found["bytes"])


def test_latency_is_measured_record_by_record(running: TestBroker) -> None:
    found = latency.run(running.bootstrap_servers, "load-c", count=20, warmup=5, pause_s=0)
    assert len(found) == 20
    assert latency.percentiles(found)["p50"] <= latency.percentiles(found)["max"]


def test_a_refusal_is_not_counted_as_an_acknowledgement(running: TestBroker) -> None:
    batch = bytearray(make_batch(1, 100))
    batch[-1] ^= 1
    with pytest.raises(RefusedError, match="CORRUPT_MESSAGE"):
        produce.run(running.bootstrap_servers, "load-a", 4, bytes(batch), in_flight=5, requests=1, seconds=60)


def test_responses_of_another_size_are_refused() -> None:
    responses = ProduceResponses("topic")
    whole = bytearray(responses.size * 3)
    for at in range(0, len(whole), responses.size):
        struct.pack_into(">i", whole, at, responses.size - 4)
    assert responses.check(memoryview(whole)) == 3
    whole[3] += 1
    with pytest.raises(RefusedError, match="expected"):
        responses.check(memoryview(whole))


def test_a_written_log_is_batches_back_to_back(tmp_path: Path) -> None:
    batch = make_batch(10, 50)
    end = write_log(tmp_path, batch, len(batch) * 25, segment_bytes=len(batch) * 10)
    files = sorted(tmp_path.glob("*.log"))
    assert [int(file.stem) for file in files] == [0, 100, 200]
    headers = [header for file in files for header, _ in iter_batches(file.read_bytes())]
    assert [header.base_offset for header in headers] == list(range(0, end, 10))
    assert end == 250
