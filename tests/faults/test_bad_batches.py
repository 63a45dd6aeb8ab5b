"""Batches that must be refused: with Kafka's code, and nothing of them in the log.

The codes stand here as Apache Kafka 4.3 answers them, and the same tests run against it.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from millstream.core.records import BatchBuilder, Compression, crc32c
from millstream.core.wire import ErrorCode, error_code
from millstream.testing import broker
from millstream.testing.raw import RawConnection

NOW = 1_700_000_000_000


def good(codec: Compression = Compression.NONE, **producer: int) -> bytearray:
    """Five records, with keys; `producer` may give producer_id, producer_epoch and base_sequence."""
    settings: dict[str, Any] = dict(producer)
    builder = BatchBuilder(compression=codec, **settings)
    for i in range(5):
        builder.append(NOW + i, b"key %d" % i, b"value %d" % i)
    return bytearray(builder.build())


def sealed(batch: bytearray) -> bytearray:
    """With a right length and a right checksum again."""
    struct.pack_into(">i", batch, 8, len(batch) - 12)
    struct.pack_into(">I", batch, 17, crc32c(memoryview(batch)[21:]))
    return batch


def patched(form: str, position: int, value: int, codec: Compression = Compression.NONE) -> bytearray:
    """One field of a good batch overwritten, and the checksum made right for it."""
    batch = good(codec)
    struct.pack_into(form, batch, position, value)
    return sealed(batch)


def flipped(position: int) -> bytearray:
    """One bit of a good batch turned over, under the old checksum."""
    batch = good()
    batch[position] ^= 0x10
    return batch


def with_length(change: int) -> bytearray:
    """A length that says more or less than is there, under a checksum of what is there."""
    batch = sealed(good())
    struct.pack_into(">i", batch, 8, len(batch) - 12 + change)
    return batch


def keyless() -> bytearray:
    """A record without key among others, for a compacted topic."""
    builder = BatchBuilder()
    for key in (b"a", None, b"c"):
        builder.append(NOW, key, b"value")
    return bytearray(builder.build())


# A record's first byte is its length (a zigzag varint), its fourth the offset delta: 61 length, 62 attributes,
# 63 timestamp delta, 64 offset delta, 65 key length.
CASES: dict[str, tuple[Callable[[], bytearray], str, ErrorCode]] = {
    "checksum": (lambda: flipped(18), "plain", ErrorCode.CORRUPT_MESSAGE),
    "header bit": (lambda: flipped(30), "plain", ErrorCode.CORRUPT_MESSAGE),
    "payload bit": (lambda: flipped(100), "plain", ErrorCode.CORRUPT_MESSAGE),
    "magic 1": (lambda: patched(">b", 16, 1), "plain", ErrorCode.INVALID_RECORD),
    "magic 3": (lambda: patched(">b", 16, 3), "plain", ErrorCode.CORRUPT_MESSAGE),
    "one byte short": (lambda: good()[:-1], "plain", ErrorCode.INVALID_RECORD),
    "only a header": (lambda: good()[:61], "plain", ErrorCode.INVALID_RECORD),
    "half a header": (lambda: good()[:30], "plain", ErrorCode.INVALID_RECORD),
    "no bytes": (bytearray, "plain", ErrorCode.INVALID_RECORD),
    "length one more": (lambda: with_length(1), "plain", ErrorCode.INVALID_RECORD),
    "length one less": (lambda: with_length(-1), "plain", ErrorCode.CORRUPT_MESSAGE),
    "length negative": (lambda: with_length(-100_000), "plain", ErrorCode.CORRUPT_MESSAGE),
    "two batches": (lambda: good() + good(), "plain", ErrorCode.INVALID_RECORD),
    "bytes behind": (lambda: good() + b"\0" * 10, "plain", ErrorCode.INVALID_RECORD),
    "count one more": (lambda: patched(">i", 57, 6), "plain", ErrorCode.INVALID_RECORD),
    "count one less": (lambda: patched(">i", 57, 4), "plain", ErrorCode.INVALID_RECORD),
    "count zero": (lambda: patched(">i", 57, 0), "plain", ErrorCode.INVALID_RECORD),
    "count negative": (lambda: patched(">i", 57, -1), "plain", ErrorCode.INVALID_RECORD),
    "count huge": (lambda: patched(">i", 57, 2**31 - 1), "plain", ErrorCode.INVALID_RECORD),
    "last offset delta": (lambda: patched(">i", 23, 7), "plain", ErrorCode.INVALID_RECORD),
    "control batch": (lambda: patched(">h", 21, 0x20), "plain", ErrorCode.INVALID_RECORD),
    "unknown codec": (lambda: patched(">h", 21, 7), "plain", ErrorCode.UNSUPPORTED_COMPRESSION_TYPE),
    "record length": (lambda: patched(">B", 61, 0x7E), "plain", ErrorCode.INVALID_RECORD),
    "record offset": (lambda: patched(">B", 64, 0x08), "plain", ErrorCode.INVALID_RECORD),
    "key length": (lambda: patched(">B", 65, 0x7E), "plain", ErrorCode.INVALID_RECORD),
    "keyless on a compacted topic": (keyless, "compacted", ErrorCode.INVALID_RECORD),
    "too large": (lambda: good() * 1, "small", ErrorCode.MESSAGE_TOO_LARGE),
    "too old": (good, "timely", ErrorCode.INVALID_TIMESTAMP),
    "garbage as gzip": (lambda: patched(">h", 21, 1), "compacted", ErrorCode.CORRUPT_MESSAGE),
}

# Kafka lets these in: it cuts off what follows a whole batch, and does not look inside uncompressed records.
KAFKA_ACCEPTS = {"bytes behind", "record offset"}
# For these a decoder of Kafka's fails with an exception it has no code for.
KAFKA_FAILS = {"unknown codec", "garbage as gzip"}

TOPICS: dict[str, dict[str, Any]] = {
    "plain": {},
    "compacted": {"cleanup_policy": "compact"},
    "small": {"max_message_bytes": 100},
    "timely": {"message_timestamp_before_max_ms": 1000},
}


@pytest.fixture(scope="module", params=["millstream", pytest.param("kafka", marks=pytest.mark.java)])
def raw(request: pytest.FixtureRequest) -> Iterator[RawConnection]:
    """A connection to a broker that has the topics."""
    if request.param == "kafka":
        kafka = request.getfixturevalue("apache_kafka")
        with RawConnection(kafka.bootstrap_servers) as connection:
            yield _prepared(connection)
        return
    with broker() as running, RawConnection(running.bootstrap_servers) as connection:
        yield _prepared(connection)


def _prepared(connection: RawConnection) -> RawConnection:
    for name, configs in TOPICS.items():
        connection.create_topic(f"bad-{name}", 1, **configs)
    return connection


def kafka_is_served(request: pytest.FixtureRequest) -> bool:
    """Whether this run of a test is the one against Apache Kafka."""
    return "kafka" in request.node.callspec.id.split("-")


@pytest.mark.parametrize("case", CASES)
def test_a_bad_batch_is_refused_and_leaves_nothing(
    raw: RawConnection, case: str, request: pytest.FixtureRequest
) -> None:
    make, topic, code = CASES[case]
    if kafka_is_served(request):
        if case in KAFKA_ACCEPTS:
            code = ErrorCode.NONE
        elif case in KAFKA_FAILS:
            code = ErrorCode.UNKNOWN_SERVER_ERROR
    name = f"bad-{topic}"
    before = raw.offset(name, 0)
    answer = raw.produce(name, 0, bytes(make()))
    assert error_code(answer.error_code) is code, answer.error_message
    if code is not ErrorCode.NONE:
        assert answer.base_offset == -1
        assert raw.offset(name, 0) == before


def test_good_batches_still_go_in_afterwards(raw: RawConnection) -> None:
    before = raw.offset("bad-plain", 0)
    for codec in Compression:
        answer = raw.produce("bad-plain", 0, bytes(good(codec)))
        assert (answer.error_code, answer.base_offset) == (0, before)
        before += 5


def test_records_at_fault_are_named(raw: RawConnection) -> None:
    answer = raw.produce("bad-compacted", 0, bytes(keyless()))
    assert [error.batch_index for error in answer.record_errors] == [1]


def test_sequences_out_of_order_and_stale_epochs_are_refused(raw: RawConnection) -> None:
    producer_id = raw.new_producer_id()

    def send(sequence: int, epoch: int = 0) -> tuple[int, int]:
        batch = good(producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)
        answer = raw.produce("bad-plain", 0, bytes(batch))
        return answer.error_code, answer.base_offset

    start = raw.offset("bad-plain", 0)
    assert send(0) == (0, start)
    assert send(5) == (0, start + 5)
    assert send(0) == (0, start), "a duplicate is answered with the offset it has"
    assert send(15) == (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
    assert send(10) == (0, start + 10)
    assert send(0, epoch=1) == (0, start + 15)
    assert send(15, epoch=0) == (ErrorCode.INVALID_PRODUCER_EPOCH, -1)
    assert raw.offset("bad-plain", 0) == start + 20
