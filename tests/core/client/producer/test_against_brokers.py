"""The producer against Millstream and against Apache Kafka: what is read is what was sent, and handles say where."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.support.topic_contents import made_topic, read_topics

from millstream.core.client import (
    Client,
    TopicPartition,
)
from millstream.core.client.producer import (
    BufferFullError,
    DeliveryTimeoutError,
    OutgoingRecord,
    Producer,
    ProducerClosedError,
    ProducerInterceptor,
    ProducerState,
    RecordMetadata,
    partition_of_key,
)
from millstream.core.config import ConfigError
from millstream.core.records import HEADER_SIZE, BatchBuilder, Record
from millstream.core.wire import ErrorCode, KafkaError
from millstream.testing import broker

NOW_MS = 1_790_000_000_000
DEADLINE_S = 60


@pytest.fixture
async def client(bootstrap: str) -> AsyncIterator[Client]:
    async with Client(bootstrap, request_timeout_ms=20_000) as connected:
        yield connected


@pytest.fixture
async def topic(client: Client, topic_name: Callable[[], str]) -> str:
    return await made_topic(client, topic_name())


async def read(client: Client, topic: str, partitions: int = 3) -> list[list[Record]]:
    """Return the records of each partition."""
    found = await read_topics(client, [TopicPartition(topic, index) for index in range(partitions)])
    return list(found.values())


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_records_come_back_where_their_handles_say(
    bootstrap: str, client: Client, topic: str, codec: str
) -> None:
    generator = random.Random(codec)
    sent: list[tuple[Any, Record]] = []
    async with Producer(bootstrap, compression_type=codec, batch_size=2_000) as producer:
        for number in range(500):
            key = None if number % 7 == 0 else b"key %d" % (number % 40)
            value = None if number % 11 == 0 else generator.randbytes(generator.randrange(100))
            headers = () if number % 3 else (("trace", b"%d" % number), ("empty", b""), ("null", None))
            handle = await producer.send_soon(topic, value, key=key, timestamp_ms=NOW_MS + number, headers=headers)
            sent.append((handle, Record(0, NOW_MS + number, key, value, headers)))
        async with asyncio.timeout(DEADLINE_S):
            places = [await handle for handle, _ in sent]
    found = await read(client, topic)
    for (handle, record), place in zip(sent, places, strict=True):
        assert place == RecordMetadata(topic, handle.partition, place.offset, record.timestamp)
        if record.key is not None:
            assert place.partition == partition_of_key(record.key, 3)
        back = found[place.partition][place.offset]
        assert back == record._replace(offset=place.offset)
    assert sum(map(len, found)) == len(sent)
    for partition in range(3):
        offsets = [place.offset for place in places if place.partition == partition]
        assert offsets == list(range(len(offsets)))


@pytest.mark.parametrize(
    "configs",
    [{"acks": "all"}, {"acks": "1"}, {"acks": "0"}, {"enable_idempotence": False}, {"linger_ms": 0}],
    ids=str,
)
async def test_every_promise_of_acknowledgement(
    bootstrap: str, client: Client, topic: str, configs: dict[str, Any]
) -> None:
    async with Producer(bootstrap, batch_size=500, **configs) as producer:
        handles = [await producer.send_soon(topic, b"%d" % number, partition=1) for number in range(300)]
        async with asyncio.timeout(DEADLINE_S):
            offsets = [(await handle).offset for handle in handles]
    assert offsets == ([-1] * 300 if configs.get("acks") == "0" else list(range(300)))
    async with asyncio.timeout(DEADLINE_S):
        while len(found := (await read(client, topic))[1]) < 300:  # noqa: ASYNC110  acks=0: nobody tells
            await asyncio.sleep(0.02)
    assert [record.value for record in found] == [b"%d" % number for number in range(300)]


async def test_timestamps_of_the_broker(bootstrap: str, client: Client, topic_name: Callable[[], str]) -> None:
    topic = await made_topic(client, topic_name(), 1, message_timestamp_type="LogAppendTime")
    async with Producer(bootstrap) as producer:
        place = await (await producer.send_soon(topic, b"v", timestamp_ms=5))
    ((record,),) = await read(client, topic, 1)
    assert place.timestamp_ms == record.timestamp > 1_600_000_000_000


async def test_a_batch_too_large_for_its_topic_is_split(
    bootstrap: str, client: Client, topic_name: Callable[[], str]
) -> None:
    topic = await made_topic(client, topic_name(), 1, max_message_bytes="2000")
    async with Producer(bootstrap, batch_size=16_000, linger_ms=1_000) as producer:
        handles = [await producer.send_soon(topic, b"%04d" % number * 20) for number in range(150)]
        too_large = await producer.send_soon(topic, bytes(3_000))
        handles += [await producer.send_soon(topic, b"%04d" % number * 20) for number in range(150, 300)]
        await producer.flush(DEADLINE_S)
        assert [handle.result().offset for handle in handles] == list(range(300))
        error = too_large.exception()
        assert isinstance(error, KafkaError)
        assert error.code is ErrorCode.MESSAGE_TOO_LARGE
        assert producer.metrics()["batch_split_total"] > 0
        assert producer.metrics()["buffer_available_bytes"] == producer.metrics()["buffer_total_bytes"]
    (found,) = await read(client, topic, 1)
    assert [record.value for record in found] == [b"%04d" % number * 20 for number in range(300)]


async def test_encoded_batches_keep_their_place(bootstrap: str, client: Client, topic: str) -> None:
    builder = BatchBuilder()
    for number in range(100):
        builder.append(NOW_MS + number, None, b"encoded %d" % number)
    buffer = bytearray(HEADER_SIZE) + builder.build()[HEADER_SIZE:]
    async with Producer(bootstrap, compression_type="lz4") as producer:
        first = await producer.send_soon(topic, b"first", partition=2)
        batch = await producer.send_encoded(TopicPartition(topic, 2), buffer, 100, NOW_MS, NOW_MS + 99)
        last = await producer.send_soon(topic, b"last", partition=2)
        async with asyncio.timeout(DEADLINE_S):
            assert [(await handle).offset for handle in (first, batch, last)] == [0, 1, 101]
        assert batch.done()
        assert (batch.count, batch.exception(), batch.result().timestamp_ms) == (100, None, NOW_MS)
    found = (await read(client, topic))[2]
    assert [record.value for record in found[1:-1]] == [b"encoded %d" % number for number in range(100)]
    assert [record.timestamp for record in found[1:-1]] == [NOW_MS + number for number in range(100)]


async def test_a_full_buffer_is_waited_for(bootstrap: str, client: Client, topic: str) -> None:
    async with Producer(bootstrap, buffer_memory=40_000, batch_size=4_000, linger_ms=10_000) as producer:
        await producer.partitions_for(topic)
        for _ in range(30):
            producer.send(topic, bytes(1_000))
        with pytest.raises(BufferFullError, match="bytes of buffer_memory are in use"):
            [producer.send(topic, bytes(1_000)) for _ in range(10)]
        for _ in range(300):
            await producer.send_soon(topic, bytes(1_000))
            assert producer.metrics()["buffer_available_bytes"] >= 0
        await producer.flush(DEADLINE_S)
        assert producer.metrics()["record_error_total"] == 0
    assert sum(map(len, await read(client, topic))) >= 300


async def test_threads_send_and_wait_without_the_loop(bootstrap: str, client: Client, topic: str) -> None:
    errors: list[BaseException] = []
    async with Producer(bootstrap, buffer_memory=100_000, batch_size=4_000) as producer:

        def work(name: int) -> None:
            try:
                handles = [
                    producer.send_blocking(topic, b"%d:%d" % (name, number) + bytes(200), partition=name)
                    for number in range(2_000)
                ]
                offsets = [handle.result(DEADLINE_S).offset for handle in handles]
                assert offsets == sorted(offsets)
            except BaseException as error:
                errors.append(error)
                raise

        threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
        for thread in threads:
            thread.start()
        await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))
        assert not errors
        with pytest.raises(RuntimeError, match="`await` the handle"):
            (await producer.send_soon(topic, b"v")).result()
    for partition, records in enumerate(await read(client, topic)):
        mine = [record.value.split(b":")[1] for record in records if record.value and record.value[:1] != b"v"]
        assert [int(value.rstrip(bytes(1))) for value in mine] == list(range(2_000)), partition


async def test_handles_are_awaited_on_another_loop_and_call_back(bootstrap: str, topic: str) -> None:
    called: list[Any] = []
    async with Producer(bootstrap) as producer:
        handle = await producer.send_soon(topic, b"v")
        assert "pending" in repr(handle)
        handle.add_done_callback(called.append)

        async def elsewhere() -> RecordMetadata:
            place: RecordMetadata = await handle
            return place

        async with asyncio.timeout(DEADLINE_S):
            place = await asyncio.to_thread(asyncio.run, elsewhere())
        assert place == await handle == handle.result()
        assert called == [handle]
        handle.add_done_callback(called.append)
        assert called == [handle, handle]
        assert f"offset {place.offset}" in repr(handle)


async def test_topics_that_are_not_there(bootstrap: str, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Producer(bootstrap) as producer:
        with pytest.raises(KafkaError, match="nothing is known yet"):
            producer.send(topic, b"v")
        with pytest.raises(KafkaError, match="INVALID_TOPIC_EXCEPTION"):
            await producer.send_soon("no/such topic", b"v")
        with pytest.raises(TypeError, match="topic"):
            await producer.send_soon(b"bytes", b"v")  # type: ignore[arg-type]
        # No request could carry it; the producer goes on.
        with pytest.raises(KafkaError, match="INVALID_TOPIC_EXCEPTION"):
            await producer.send_soon("half a pair \ud800", b"v")
        assert [info.partition for info in await producer.partitions_for(topic)] == [0, 1, 2]
        assert (await (await producer.send_soon(topic, b"v", partition=0))).offset == 0
        monkeypatch.setattr(producer, "_settings", replace(producer._settings, max_block_ms=50))
        with pytest.raises(KafkaError, match=r"topic .* has no partition 7: it has 3"):
            await producer.send_soon(topic, b"v", partition=7)


async def test_closing_ends_every_handle(bootstrap: str, topic: str) -> None:
    producer = Producer(bootstrap, linger_ms=60_000, delivery_timeout_ms=120_000)
    assert "new" in repr(producer)
    with pytest.raises(ProducerClosedError, match="not started"):
        producer.send(topic, b"v")
    await producer.start()
    assert "open" in repr(producer)
    flushed = await producer.send_soon(topic, b"v")
    await producer.flush(DEADLINE_S)
    assert flushed.done()
    waiting = await producer.send_soon(topic, b"v")
    await producer.close(0)
    with pytest.raises(ProducerClosedError, match="closed before this was acknowledged"):
        await waiting
    with pytest.raises(ProducerClosedError):
        producer.send(topic, b"v")
    with pytest.raises(ProducerClosedError):
        await producer.send_soon(topic, b"v")
    await producer.close()
    assert producer.state is ProducerState.CLOSED


async def test_closing_sends_what_is_left(bootstrap: str, client: Client, topic: str) -> None:
    async with Producer(bootstrap, linger_ms=60_000, delivery_timeout_ms=120_000) as producer:
        handles = [await producer.send_soon(topic, b"%d" % number) for number in range(100)]
    assert all(handle.done() and handle.exception() is None for handle in handles)
    assert sum(map(len, await read(client, topic))) == 100


class Stamps(ProducerInterceptor):
    """An interceptor that marks records and remembers how they ended."""

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        self.is_closed = False
        self.ended: list[RecordMetadata | KafkaError] = []

    def on_send(self, record: OutgoingRecord) -> OutgoingRecord:
        if record.value == b"hurt":
            raise RuntimeError("an interceptor that fails harms nobody")
        return record._replace(value=bytes(record.value or b"") + self.mark)

    def on_acknowledgement(self, metadata: RecordMetadata | None, error: KafkaError | None) -> None:
        ended = metadata or error
        assert ended is not None
        assert not self.is_closed
        self.ended.append(ended)

    def close(self) -> None:
        self.is_closed = True
        raise RuntimeError("nor one that fails to close")


async def test_interceptors_and_a_partitioner_of_one_s_own(
    bootstrap: str, client: Client, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Stamps(b"1"), Stamps(b"2")

    def partitioner(name: str, key: Any, value: Any, count: int) -> int | None:
        assert (name, count) == (topic, 3)
        return 2 if key == b"last" else None

    async with Producer(bootstrap, interceptors=[first, second], partitioner=partitioner) as producer:
        handle = await producer.send_soon(topic, b"v", key=b"last")
        hurt = await producer.send_soon(topic, b"hurt", key=b"last")
        place, hurt_place = await handle, await hurt
        with pytest.raises(KafkaError):
            producer.send(topic, bytes(2_000_000), key=b"last")
    assert [record.value for record in (await read(client, topic))[2]] == [b"v12", b"hurt"]
    assert first.ended[:2] == second.ended[:2] == [place, hurt_place]
    assert isinstance(first.ended[2], KafkaError)
    assert "an interceptor that fails" in caplog.text
    assert "nor one that fails to close" in caplog.text
    assert first.is_closed
    assert second.is_closed


async def test_metrics_by_kafka_s_names(bootstrap: str, topic: str) -> None:
    async with Producer(bootstrap, linger_ms=5_000) as producer:
        for number in range(100):
            await producer.send_soon(topic, b"%d" % number, partition=0)
        await producer.flush(DEADLINE_S)
        metrics = producer.metrics()
    assert metrics["record_send_total"] == 100
    assert metrics["record_error_total"] == metrics["requests_in_flight"] == metrics["waiting_threads"] == 0
    assert metrics["records_per_request_avg"] > 1
    assert metrics["request_latency_max"] >= metrics["request_latency_avg"] > 0
    assert metrics["batch_size_max"] >= metrics["batch_size_avg"] > HEADER_SIZE


async def test_starting_again_changes_nothing_and_a_closed_one_stays_closed(bootstrap: str) -> None:
    producer = Producer(bootstrap)
    await asyncio.gather(producer.start(), producer.start())
    sender = producer._sender
    await producer.start()
    assert producer._sender is sender
    await producer.close()
    with pytest.raises(ProducerClosedError):
        await producer.start()


async def test_configs_that_do_not_go_together() -> None:
    together: tuple[dict[str, Any], ...] = (
        {"enable_idempotence": True, "acks": "1"},
        {"max_in_flight_requests_per_connection": 6},
        {"delivery_timeout_ms": 100, "request_timeout_ms": 200},
        {"transactional_id": "t"},
        {"linger": 5},
    )
    for configs in together:
        with pytest.raises(ConfigError):
            Producer("127.0.0.1:9", **configs)


async def test_records_run_out_of_time_when_the_broker_is_gone(topic_name: Callable[[], str]) -> None:
    name = topic_name()
    with broker() as running:
        async with Client(running.bootstrap_servers) as client:
            await made_topic(client, name, 1)
        hasty = Producer(running.bootstrap_servers, delivery_timeout_ms=1_000, request_timeout_ms=500, linger_ms=0)
        patient = Producer(running.bootstrap_servers)
        for producer in (hasty, patient):
            await producer.start()
            await producer.partitions_for(name)
    handle = await hasty.send_soon(name, b"v")
    waiting = await patient.send_soon(name, b"v")
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(DeliveryTimeoutError, match="1 records were not acknowledged within 1000 ms"):
            await handle
        with pytest.raises(KafkaError, match="1 of 1 batches have not ended"):
            await patient.flush(0.01)
        await hasty.close()
        await patient.close(0.01)
    with pytest.raises(ProducerClosedError):
        waiting.result()


async def test_what_is_closed_before_it_starts_says_so() -> None:
    producer = Producer("127.0.0.1:9")
    await producer.close()
    with pytest.raises(ProducerClosedError):
        producer.send("t", b"v")
    with pytest.raises(ProducerClosedError):
        await producer.flush()
    with pytest.raises(ProducerClosedError):
        await producer.partitions_for("t")
    assert producer.metrics() == {}


async def test_an_error_of_many_records_keeps_nobody_s_frames(bootstrap: str, topic: str) -> None:
    async with Producer(bootstrap, linger_ms=60_000) as producer:
        handles = [await producer.send_soon(topic, b"v", partition=0) for _ in range(50)]
        await producer.close(0)
    depths = []
    for handle in handles:
        with pytest.raises(ProducerClosedError) as raised:
            handle.result()
        depths.append(len(raised.traceback))
        with pytest.raises(ProducerClosedError) as raised:
            producer.send(topic, b"v")
        depths.append(len(raised.traceback))
    assert max(depths) < 10
