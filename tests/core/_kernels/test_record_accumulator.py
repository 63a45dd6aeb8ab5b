"""The accumulator compiled, interpreted, and against the batch builder: the same records in the same bytes."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from tests.support.kernels import HOWS, load_kernel

from millstream.core.records import HEADER_SIZE, BatchBuilder, BatchHeader, iter_records
from millstream.core.records.builder import seal

TOPIC = "flights"
INT64_MAX = 2**63 - 1


class TooLargeError(Exception):
    pass


class StalledError(Exception):
    pass


class Harness:
    """An accumulator whose batches are taken at once when they are full."""

    def __init__(
        self,
        kernel: Any,
        *,
        partitions: int = 3,
        buffer_memory: int = 1 << 20,
        batch_size: int = 1_000,
        record_size_max: int = 1 << 20,
        ignore_keys: bool = False,
    ) -> None:
        self.told = 0
        self.choices = list(range(partitions)) * 1_000
        self.accumulator = kernel.RecordAccumulator(
            kernel.OpenBatch,
            lambda _topic: self.choices.pop(0),
            self._tell,
            TooLargeError,
            buffer_memory=buffer_memory,
            batch_size=batch_size,
            record_size_max=record_size_max,
            ignore_keys=ignore_keys,
        )
        if partitions:
            self.accumulator.set_partitions(TOPIC, partitions)
        self.send = kernel.Appender(self.accumulator, self._stall).send

    def _tell(self) -> None:
        self.told += 1

    def _stall(self, topic: str, partition: int, lacking_bytes: int) -> None:
        raise StalledError(topic, partition, lacking_bytes)

    def batches(self) -> list[Any]:
        """Return every batch there is, by partition and in order."""
        queues = sorted(self.accumulator.take_listed(), key=lambda queue: queue.partition)
        return [batch for queue in queues for batch in self.accumulator.take_closed(queue, True)]


@pytest.fixture(params=HOWS)
def kernel(request: pytest.FixtureRequest) -> Any:
    return load_kernel("record_accumulator", request.param)


def random_record(generator: random.Random) -> dict[str, Any]:
    def content(size_max: int) -> bytes | None:
        return None if generator.random() < 0.15 else generator.randbytes(generator.randrange(size_max))

    headers = [
        (generator.choice(["", "a", "trace", "schlüssel"]), content(200))
        for _ in range(generator.choice([0, 0, 0, 1, 2, 70]))
    ]
    return {
        "value": content(generator.choice([10, 300])),
        "key": content(40),
        "partition": generator.randrange(3),
        "timestamp_ms": generator.choice([0, 1, 1_790_000_000_000 + generator.randrange(-(10**6), 10**6), 2**53]),
        "headers": headers,
    }


@pytest.mark.parametrize("seed", range(20))
def test_records_are_encoded_as_the_builder_does(kernel: Any, seed: int) -> None:
    generator = random.Random(seed)
    harness = Harness(kernel, batch_size=generator.choice([1, 100, 1_000, 40_000]))
    sent: dict[int, list[dict[str, Any]]] = {0: [], 1: [], 2: []}
    for _ in range(300):
        record = random_record(generator)
        handle = harness.send(TOPIC, record["value"], **{k: v for k, v in record.items() if k != "value"})
        assert (handle.topic, handle.partition) == (TOPIC, record["partition"])
        sent[record["partition"]].append(record)
    for batch in harness.batches():
        builder = BatchBuilder()
        for record in sent[batch.partition][: batch.count]:
            builder.append(record["timestamp_ms"], record["key"], record["value"], record["headers"])
        del sent[batch.partition][: batch.count]
        assert bytes(batch.buffer[HEADER_SIZE : batch.size]) == builder.build()[HEADER_SIZE:]
        assert batch.base_timestamp == builder._base_timestamp
        assert batch.max_timestamp == builder._max_timestamp
    assert not any(sent.values())


def test_timestamps_at_the_limits(kernel: Any) -> None:
    harness = Harness(kernel, partitions=1)
    builder = BatchBuilder()
    for timestamp in (INT64_MAX, 0, INT64_MAX, 1):
        harness.send(TOPIC, b"v", timestamp_ms=timestamp)
        builder.append(timestamp, None, b"v")
    (batch,) = harness.batches()
    assert bytes(batch.buffer[HEADER_SIZE : batch.size]) == builder.build()[HEADER_SIZE:]
    with pytest.raises(ValueError, match="below 0"):
        harness.send(TOPIC, b"v", timestamp_ms=-1)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 8191, 8192, 100_000])
def test_sizes_around_those_of_varints(kernel: Any, size: int) -> None:
    harness = Harness(kernel, partitions=1)
    harness.send(TOPIC, bytes(size), key=bytes(size), timestamp_ms=5)
    builder = BatchBuilder()
    builder.append(5, bytes(size), bytes(size))
    (batch,) = harness.batches()
    assert bytes(batch.buffer[HEADER_SIZE : batch.size]) == builder.build()[HEADER_SIZE:]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda content: memoryview(content)[::2]])
def test_content_of_every_kind(kernel: Any, kind: Any) -> None:
    content = kind(b"abcdef")
    harness = Harness(kernel, partitions=1)
    harness.send(TOPIC, content, key=content, timestamp_ms=5, headers=[("h", content)])
    plain = bytes(content)
    builder = BatchBuilder()
    builder.append(5, plain, plain, [("h", plain)])
    (batch,) = harness.batches()
    assert bytes(batch.buffer[HEADER_SIZE : batch.size]) == builder.build()[HEADER_SIZE:]


def test_what_is_no_bytes_is_refused(kernel: Any) -> None:
    harness = Harness(kernel)
    with pytest.raises(TypeError, match=r"value is bytes.*not str; encode it, as in value\.encode\(\)"):
        harness.send(TOPIC, "text")
    with pytest.raises(TypeError, match=r"key is bytes.*not int"):
        harness.send(TOPIC, b"v", key=5)
    with pytest.raises(TypeError, match="name of a header is a str"):
        harness.send(TOPIC, b"v", headers=[(b"name", b"v")])
    with pytest.raises(ValueError, match="partition -1 is below 0"):
        harness.send(TOPIC, b"v", partition=-1)
    assert not harness.batches()


def test_what_is_not_known_stalls(kernel: Any) -> None:
    harness = Harness(kernel, partitions=0)
    with pytest.raises(StalledError) as stalled:
        harness.send(TOPIC, b"v")
    assert stalled.value.args == (TOPIC, -1, 0)
    harness.accumulator.set_partitions(TOPIC, 2)
    with pytest.raises(StalledError) as stalled:
        harness.send(TOPIC, b"v", partition=2)
    assert stalled.value.args == (TOPIC, 2, 0)
    harness.accumulator.set_partitions(TOPIC, 3)
    assert harness.send(TOPIC, b"v", partition=2).partition == 2


@pytest.mark.parametrize("batch_size", [100, 16_384, 100_000])
def test_memory_is_bounded_and_comes_back(kernel: Any, batch_size: int) -> None:
    harness = Harness(kernel, buffer_memory=200_000, batch_size=batch_size)
    accumulator = harness.accumulator
    lacking = 0
    for number in range(100_000):
        try:
            harness.send(TOPIC, bytes(90), partition=number // 100 % 3)
        except StalledError as stalled:
            lacking = stalled.args[2]
            break
        assert accumulator.used_bytes <= 200_000
    assert lacking > 0
    batches = harness.batches()
    assert sum(batch.charged_bytes for batch in batches) == accumulator.used_bytes
    assert all(len(batch.buffer) >= batch.size for batch in batches)
    for batch in batches:
        accumulator.recharge(batch, 0)
    assert accumulator.used_bytes == 0
    harness.send(TOPIC, bytes(90))


def test_a_record_that_fits_nowhere_is_refused(kernel: Any) -> None:
    harness = Harness(kernel, record_size_max=5_000, buffer_memory=20_000)
    harness.send(TOPIC, bytes(4_900))
    with pytest.raises(TooLargeError):
        harness.send(TOPIC, bytes(5_000))


def test_a_batch_takes_what_fits_and_no_more(kernel: Any) -> None:
    harness = Harness(kernel, partitions=1, batch_size=500)
    for _ in range(10):
        harness.send(TOPIC, bytes(100))
    harness.send(TOPIC, bytes(2_000))
    harness.send(TOPIC, bytes(100))
    batches = harness.batches()
    assert [batch.count for batch in batches] == [4, 4, 2, 1, 1]
    assert all(batch.size <= 500 or batch.count == 1 for batch in batches)


def test_the_sender_is_told_once_until_it_looks(kernel: Any) -> None:
    harness = Harness(kernel, partitions=2)
    harness.send(TOPIC, b"v", partition=0)
    harness.send(TOPIC, b"v", partition=0)
    harness.send(TOPIC, b"v", partition=1)
    assert harness.told == 1
    assert len(harness.batches()) == 2
    harness.send(TOPIC, b"v", partition=0)
    assert harness.told == 2


def test_keyless_records_stay_with_a_partition_for_a_batch(kernel: Any) -> None:
    harness = Harness(kernel, partitions=3, batch_size=500)
    partitions = [harness.send(TOPIC, bytes(100)).partition for _ in range(12)]
    assert partitions == [0] * 4 + [1] * 4 + [2] * 4


def test_keys_go_by_murmur2_unless_they_are_ignored(kernel: Any) -> None:
    assert Harness(kernel, partitions=1000).send(TOPIC, b"v", key=b"21").partition == (-973932308 & 0x7FFFFFFF) % 1000
    assert Harness(kernel, partitions=1000, ignore_keys=True).send(TOPIC, b"v", key=b"21").partition == 0


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        # From the tests of Kafka's own Utils.murmur2.
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_java_s(kernel: Any, key: bytes, hashed: int) -> None:
    assert kernel.murmur2(key) == hashed & 0xFFFFFFFF
    assert kernel.partition_of_key(key, 7) == (hashed & 0x7FFFFFFF) % 7


def test_encoded_batches_wait_their_turn(kernel: Any) -> None:
    harness = Harness(kernel, partitions=1, buffer_memory=3_000)
    harness.send(TOPIC, b"first", timestamp_ms=5)
    taken = harness.accumulator.try_add_encoded(TOPIC, 0, bytearray(HEADER_SIZE + 100), 3, 10, 20)
    assert (taken.count, taken.size, taken.base_timestamp, taken.max_timestamp) == (3, HEADER_SIZE + 100, 10, 20)
    harness.send(TOPIC, b"last", timestamp_ms=5)
    assert harness.accumulator.try_add_encoded(TOPIC, 1, bytearray(100), 1, 0, 0) is None
    assert harness.accumulator.try_add_encoded("unknown", 0, bytearray(100), 1, 0, 0) is None
    assert harness.accumulator.try_add_encoded(TOPIC, 0, bytearray(2_999), 1, 0, 0) is None
    assert [batch.count for batch in harness.batches()] == [1, 3, 1]


def test_an_ended_accumulator_raises_why(kernel: Any) -> None:
    harness = Harness(kernel)
    harness.accumulator.ending = TooLargeError("closed")
    with pytest.raises(TooLargeError, match="closed"):
        harness.send(TOPIC, b"v")


def test_topics_are_forgotten_only_when_empty(kernel: Any) -> None:
    harness = Harness(kernel)
    harness.send(TOPIC, b"v")
    assert not harness.accumulator.forget(TOPIC)
    for batch in harness.batches():
        harness.accumulator.recharge(batch, 0)
    assert harness.accumulator.forget(TOPIC)
    assert harness.accumulator.partition_count(TOPIC) == 0
    assert harness.accumulator.forget(TOPIC)


def test_threads_lose_nothing_and_keep_their_own_order(kernel: Any) -> None:
    harness = Harness(kernel, partitions=1, buffer_memory=64 << 20)
    each = 2_000 if kernel.is_compiled() else 200

    def work(name: int) -> None:
        for number in range(each):
            harness.send(TOPIC, b"%d:%d" % (name, number), timestamp_ms=1)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen: dict[int, list[int]] = {name: [] for name in range(4)}
    for batch in harness.batches():
        header = BatchHeader(0, 0, -1, 2, 0, 0, batch.count - 1, 1, 1, -1, -1, -1, batch.count)
        for record in iter_records(seal(header, bytes(batch.buffer[HEADER_SIZE : batch.size]))):
            assert record.value is not None
            name, number = record.value.split(b":")
            seen[int(name)].append(int(number))
    assert seen == {name: list(range(each)) for name in range(4)}
