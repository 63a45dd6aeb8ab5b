"""Produce over a socket: what is appended, what is refused with which code, and when the answer comes."""

import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.broker import Broker
from millstream.core.records import BatchBuilder, Compression, iter_batches, iter_records
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from millstream.testing.raw import ClosedError, RawConnection


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def batch(
    count: int = 1,
    *,
    compression: Compression = Compression.NONE,
    producer: tuple[int, int, int] | None = None,
    transactional: bool = False,
    control: bool = False,
    key: bytes | None = b"k",
    timestamp: int | None = None,
    value: bytes = b"value",
) -> bytes:
    producer_id, producer_epoch, base_sequence = producer or (-1, -1, -1)
    builder = BatchBuilder(
        compression=compression,
        transactional=transactional,
        control=control,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
    )
    for _ in range(count):
        builder.append(now_ms() if timestamp is None else timestamp, key, value)
    return bytes(builder.build())


def produce(
    raw: RawConnection,
    partitions: dict[str, dict[int, bytes]],
    *,
    acks: int = -1,
    version: int = 11,
    transactional_id: str | None = None,
) -> ProduceResponse:
    request = ProduceRequest(
        acks=acks,
        timeout_ms=1000,
        transactional_id=transactional_id,
        topic_data=[
            TopicProduceData(
                name=topic,
                partition_data=[PartitionProduceData(index=index, records=data) for index, data in batches.items()],
            )
            for topic, batches in partitions.items()
        ],
    )
    response: ProduceResponse = raw.call(request, version)
    return response


def values(raw: RawConnection, topic: str, partition: int = 0) -> list[bytes | None]:
    data = raw.fetch(topic, partition, 0, size_bytes_max=10 << 20).records
    return [
        None if record.value is None else bytes(record.value)
        for _, batch_data in iter_batches(data)
        for record in iter_records(batch_data)
    ]


@pytest.mark.parametrize("acks", [1, -1])
def test_offsets_are_counted_up(raw: RawConnection, new_name: Callable[[], str], acks: int) -> None:
    topic = new_name()
    raw.create_topic(topic)
    offsets = [raw.produce(topic, 0, batch(count), acks=acks).base_offset for count in (1, 10, 3, 1)]
    assert offsets == [0, 1, 11, 14]
    assert raw.offset(topic, 0) == 15


def test_each_partition_is_answered_for_itself(raw: RawConnection, new_name: Callable[[], str]) -> None:
    topic, other, missing = new_name(), new_name(), new_name()
    raw.create_topic(topic, 2)
    raw.create_topic(other, 1)
    broken = bytearray(batch())
    broken[-1] ^= 1
    answer = produce(
        raw, {topic: {0: batch(2), 1: bytes(broken), 7: batch()}, missing: {0: batch()}, other: {0: batch()}}
    )
    codes = {(t.name, p.index): (p.error_code, p.base_offset) for t in answer.responses for p in t.partition_responses}
    assert codes == {
        (topic, 0): (ErrorCode.NONE, 0),
        (topic, 1): (ErrorCode.CORRUPT_MESSAGE, -1),
        (topic, 7): (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1),
        (missing, 0): (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1),
        (other, 0): (ErrorCode.NONE, 0),
    }
    assert raw.offset(topic, 1) == 0


def _truncated() -> bytes:
    return batch(3)[:-5]


def _wrong_magic() -> bytes:
    data = bytearray(batch())
    data[16] = 1
    return bytes(data)


def _wrong_count() -> bytes:
    data = bytearray(batch(3))
    struct.pack_into(">i", data, 57, 2)
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (_truncated, ErrorCode.INVALID_RECORD),
        (_wrong_magic, ErrorCode.INVALID_RECORD),
        (_wrong_count, ErrorCode.CORRUPT_MESSAGE),
        (lambda: b"", ErrorCode.INVALID_RECORD),
        (lambda: batch() + batch(), ErrorCode.INVALID_RECORD),
        (lambda: batch(value=b"x" * 2_000_000), ErrorCode.MESSAGE_TOO_LARGE),
        (lambda: batch(control=True, producer=(1, 0, 0)), ErrorCode.INVALID_RECORD),
        (lambda: batch(transactional=True, producer=(1, 0, 0)), ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
        (lambda: batch(timestamp=now_ms() + 7_200_000), ErrorCode.INVALID_TIMESTAMP),
    ],
    ids=["truncated", "magic", "count", "empty", "two", "large", "control", "transactional", "future"],
)
def test_a_bad_batch_is_refused_and_nothing_is_appended(
    raw: RawConnection, new_name: Callable[[], str], make: Callable[[], bytes], code: ErrorCode
) -> None:
    topic = new_name()
    raw.create_topic(topic)
    answer = raw.produce(topic, 0, make())
    assert answer.error_code == code, answer
    assert answer.error_message
    assert raw.offset(topic, 0) == 0
    assert raw.produce(topic, 0, batch()).base_offset == 0


def test_acks_other_than_0_1_and_all_are_invalid(raw: RawConnection, new_name: Callable[[], str]) -> None:
    topic = new_name()
    raw.create_topic(topic)
    assert raw.produce(topic, 0, batch(), acks=2).error_code == ErrorCode.INVALID_REQUIRED_ACKS
    assert raw.offset(topic, 0) == 0


def test_a_transactional_id_is_refused_for_good(raw: RawConnection, new_name: Callable[[], str]) -> None:
    topic = new_name()
    raw.create_topic(topic)
    answer = produce(raw, {topic: {0: batch()}}, transactional_id="tx").responses[0].partition_responses[0]
    assert answer.error_code == ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    assert raw.offset(topic, 0) == 0


def test_acks_0_is_not_answered(raw: RawConnection, new_name: Callable[[], str]) -> None:
    topic = new_name()
    raw.create_topic(topic)
    request = ProduceRequest(
        acks=0,
        topic_data=[TopicProduceData(name=topic, partition_data=[PartitionProduceData(index=0, records=batch(2))])],
    )
    for _ in range(3):
        raw.send(raw.encode(request))
    # The next answer is that of the next request: nothing was sent for the three before it.
    assert raw.produce(topic, 0, batch()).base_offset == 6


def test_a_failed_acks_0_ends_the_connection(served: BrokerThread, new_name: Callable[[], str]) -> None:
    request = ProduceRequest(
        acks=0,
        topic_data=[TopicProduceData(name=new_name(), partition_data=[PartitionProduceData(index=0, records=batch())])],
    )
    with RawConnection(served.bootstrap_servers) as connection:
        connection.send(connection.encode(request))
        with pytest.raises(ClosedError):
            connection.receive()


def test_min_insync_replicas_is_held_for_acks_all_only(
    served: BrokerThread, raw: RawConnection, new_name: Callable[[], str]
) -> None:
    topic = new_name()
    raw.create_topic(topic, min_insync_replicas=2)
    # One of one replica is all there can be (KIP-966).
    assert raw.produce(topic, 0, batch(), acks=-1).error_code == ErrorCode.NONE

    def set_isr(broker: Broker, isr: tuple[int, ...]) -> None:
        broker.partitions.leader(topic, 0).isr = isr

    served.call(lambda broker: set_isr(broker, ()))
    assert raw.produce(topic, 0, batch(), acks=-1).error_code == ErrorCode.NOT_ENOUGH_REPLICAS
    assert raw.produce(topic, 0, batch(), acks=1).error_code == ErrorCode.NONE


def test_a_batch_sent_again_gets_its_first_offset(raw: RawConnection, new_name: Callable[[], str]) -> None:
    topic = new_name()
    raw.create_topic(topic)
    first = batch(5, producer=(1000, 0, 0))
    second = batch(5, producer=(1000, 0, 5))
    assert raw.produce(topic, 0, first).base_offset == 0
    assert raw.produce(topic, 0, second).base_offset == 5
    again = raw.produce(topic, 0, first)
    assert (again.error_code, again.base_offset) == (ErrorCode.NONE, 0)
    gap = raw.produce(topic, 0, batch(1, producer=(1000, 0, 20)))
    assert gap.error_code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert raw.produce(topic, 0, batch(1, producer=(1000, 1, 0))).base_offset == 10
    fenced = raw.produce(topic, 0, batch(1, producer=(1000, 0, 10)))
    assert fenced.error_code == ErrorCode.INVALID_PRODUCER_EPOCH
    assert raw.offset(topic, 0) == 11


def test_pipelined_duplicates_get_the_same_offset(raw: RawConnection, new_name: Callable[[], str]) -> None:
    topic = new_name()
    raw.create_topic(topic)
    data = batch(2, producer=(2000, 0, 0))
    request = ProduceRequest(
        acks=-1, topic_data=[TopicProduceData(name=topic, partition_data=[PartitionProduceData(index=0, records=data)])]
    )
    raw.produce(topic, 0, batch())
    raw.send(b"".join(raw.encode(request) for _ in range(4)))
    answers = [raw.receive() for _ in range(4)]
    assert len({answer[4:] for answer in answers}) == 1
    assert raw.offset(topic, 0) == 3


def test_records_without_keys_are_named_on_a_compacted_topic(raw: RawConnection, new_name: Callable[[], str]) -> None:
    topic = new_name()
    raw.create_topic(topic, cleanup_policy="compact")
    for compression in (Compression.NONE, Compression.ZSTD):
        answer = raw.produce(topic, 0, batch(3, key=None, compression=compression))
        assert answer.error_code == ErrorCode.INVALID_RECORD
        assert [error.batch_index for error in answer.record_errors] == [0, 1, 2]
        assert answer.record_errors[0].batch_index_error_message
    assert raw.produce(topic, 0, batch(3, compression=Compression.LZ4)).base_offset == 0


def test_log_append_time_is_stamped_and_answered(raw: RawConnection, new_name: Callable[[], str]) -> None:
    topic = new_name()
    raw.create_topic(topic, message_timestamp_type="LogAppendTime")
    before = now_ms()
    answers = [raw.produce(topic, 0, batch(2, timestamp=5)) for _ in range(2)]
    for answer in answers:
        assert before <= answer.log_append_time_ms <= now_ms()
    stamped = [
        record.timestamp for _, data in iter_batches(raw.fetch(topic, 0, 0).records) for record in iter_records(data)
    ]
    assert stamped == [answer.log_append_time_ms for answer in answers for _ in range(2)]


def test_a_topic_compresses_what_comes(raw: RawConnection, new_name: Callable[[], str]) -> None:
    topic = new_name()
    raw.create_topic(topic, compression_type="zstd")
    sent = []
    for number, compression in enumerate((Compression.NONE, Compression.GZIP, Compression.ZSTD, Compression.NONE)):
        value = b"%d" % number
        assert raw.produce(topic, 0, batch(3, compression=compression, value=value)).base_offset == 3 * number
        sent += [value] * 3
    headers = [header for header, _ in iter_batches(raw.fetch(topic, 0, 0).records)]
    assert {header.compression for header in headers} == {Compression.ZSTD}
    assert values(raw, topic) == sent


def test_pipelined_batches_keep_their_order_through_the_worker_threads(
    raw: RawConnection, new_name: Callable[[], str]
) -> None:
    topic = new_name()
    raw.create_topic(topic, compression_type="gzip")
    sent = [b"%03d" % number for number in range(60)]
    frames = []
    for number, value in enumerate(sent):
        # Some are large and slow to compress, some need no opening at all.
        compression = Compression.GZIP if number % 3 == 0 else Compression.NONE
        data = batch(500 if number % 7 == 0 else 1, compression=compression, value=value)
        request = ProduceRequest(
            acks=-1,
            topic_data=[TopicProduceData(name=topic, partition_data=[PartitionProduceData(index=0, records=data)])],
        )
        frames.append(raw.encode(request))
    raw.send(b"".join(frames))
    correlation_ids = [struct.unpack(">i", raw.receive()[:4])[0] for _ in frames]
    assert correlation_ids == sorted(correlation_ids)
    assert list(dict.fromkeys(values(raw, topic))) == sent


def test_flush_messages_makes_the_answer_wait_for_the_disk(
    served: BrokerThread, raw: RawConnection, new_name: Callable[[], str]
) -> None:
    topic = new_name()
    raw.create_topic(topic, flush_messages=1)
    for expected in range(5):
        assert raw.produce(topic, 0, batch()).base_offset == expected

        def flushed(broker: object) -> int:
            partition = served.broker.partitions.get(topic, 0)
            assert partition is not None
            assert partition.log is not None
            return partition.log.flushed_offset

        assert served.call(flushed) == expected + 1


def test_large_batches_are_received_apart_and_written_from_there(
    raw: RawConnection, new_name: Callable[[], str]
) -> None:
    topic = new_name()
    raw.create_topic(topic, 2)
    sent = [bytes([number]) * (300_000 + 7 * number) for number in range(12)]
    frames = [
        raw.encode(
            ProduceRequest(
                acks=1,
                topic_data=[
                    TopicProduceData(
                        name=topic, partition_data=[PartitionProduceData(index=number % 2, records=batch(value=value))]
                    )
                ],
            )
        )
        for number, value in enumerate(sent)
    ]
    raw.send(b"".join(frames))
    for _ in frames:
        raw.receive()
    assert values(raw, topic, 0) == sent[0::2]
    assert values(raw, topic, 1) == sent[1::2]


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    with BrokerThread(tmp_path) as served, RawConnection(served.bootstrap_servers) as raw:
        raw.create_topic("kept", 3)
        for partition in range(3):
            raw.produce("kept", partition, batch(partition + 1, value=b"%d" % partition))
    with BrokerThread(tmp_path) as served, RawConnection(served.bootstrap_servers) as raw:
        assert [raw.offset("kept", partition) for partition in range(3)] == [1, 2, 3]
        assert values(raw, "kept", 2) == [b"2"] * 3
        assert raw.produce("kept", 2, batch()).base_offset == 3
