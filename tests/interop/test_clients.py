"""Every client's records, in every codec, plain and idempotent, read back by every client byte for byte.

Each producer fills one topic: a partition for each codec, without and with idempotence. Each reader then reads all of
it by assignment.
"""

import random
import time
from collections.abc import Callable, Mapping

import confluent_kafka
import pytest
from tests.interop.conftest import MakeTopic
from tests.support.clients import CODECS, KafkaClient, Row, by_assignment

pytestmark = [pytest.mark.java, pytest.mark.timeout(600)]

NAMES = ("confluent-kafka", "kafka-python", "aiokafka", "java", "millstream")
VARIANTS = [(codec, idempotent) for codec in CODECS for idempotent in (False, True)]


def awkward_rows(client: KafkaClient) -> list[Row]:
    """What a record can hold at its edges, then plain ones enough for several batches."""
    random_bytes = random.Random(client.name).randbytes
    now = int(time.time() * 1000)
    null = None if client.null_header_values else b""
    rows = [
        Row(now, b"key", b"value"),
        Row(now, None, b"no key"),
        Row(now, b"", b"empty key"),
        Row(now, b"tombstone", None),
        Row(now, b"empty value", b""),
        Row(now, None, None if client.null_records else b""),
        Row(1, b"the oldest time there is", b"x"),
        Row(now - 86_400_000, b"out of order", b"y"),
        Row(now, bytes(range(256)), bytes(range(256)) * 3),
        Row(now, b"headers", b"h", (("name", b"value"), ("name", b"again"), ("", b"no name"), ("null", null))),
        Row(now, b"unicode", "Mühlbach \N{FACE WITH TEARS OF JOY}".encode(), (("größe", b"\x00\xff"),)),
        Row(now, b"many headers", b"m", tuple((f"h{i}", bytes([i])) for i in range(130))),
        Row(now, b"large, compressible", b"abcd" * 25_000),
        Row(now, b"large, random", random_bytes(100_000)),
    ]
    return rows + [Row(now + i, b"%d" % i, random_bytes(i % 120)) for i in range(600)]


@pytest.fixture(scope="module")
def produced(
    bootstrap: str, clients: Mapping[str, KafkaClient], make_topic: MakeTopic
) -> Callable[[str], tuple[str, list[Row]]]:
    """produced(client name) -> the topic that this client filled, once, and the rows in each of its partitions."""
    done: dict[str, tuple[str, list[Row]]] = {}

    def fill(name: str) -> tuple[str, list[Row]]:
        if name not in done:
            client = clients[name]
            rows = awkward_rows(client)
            topic = make_topic(f"from-{name}", len(VARIANTS), retention_ms=-1)
            for partition, (codec, idempotent) in enumerate(VARIANTS):
                offsets = client.produce(bootstrap, topic, partition, rows, codec=codec, idempotent=idempotent)
                assert offsets == list(range(len(rows))), f"{name} {codec} idempotent={idempotent}"
            done[name] = topic, rows
        return done[name]

    return fill


@pytest.mark.parametrize("reader", NAMES)
@pytest.mark.parametrize("writer", NAMES)
def test_records_come_back_byte_for_byte(
    bootstrap: str,
    clients: Mapping[str, KafkaClient],
    produced: Callable[[str], tuple[str, list[Row]]],
    writer: str,
    reader: str,
) -> None:
    topic, rows = produced(writer)
    found = clients[reader].read(bootstrap, topic, dict.fromkeys(range(len(VARIANTS)), len(rows)))
    for partition, (codec, idempotent) in enumerate(VARIANTS):
        read = found[partition]
        where = f"{codec} idempotent={idempotent}"
        assert [r.offset for r in read] == list(range(len(rows))), where
        for got, sent in zip(read, rows, strict=True):
            assert got.row == sent, f"{where} offset {got.offset}"


@pytest.mark.parametrize("codec", CODECS)
def test_a_read_may_start_inside_a_batch(
    bootstrap: str, clients: Mapping[str, KafkaClient], make_topic: MakeTopic, codec: str
) -> None:
    topic = make_topic(f"inside-{codec}")
    rows = [Row(1_700_000_000_000 + i, None, b"%d" % i) for i in range(500)]
    clients["java"].produce(bootstrap, topic, 0, rows, codec=codec, idempotent=True)
    consumer = by_assignment(bootstrap)
    try:
        for start in (1, 137, 499):
            consumer.assign([confluent_kafka.TopicPartition(topic, 0, start)])
            message = consumer.poll(90)
            assert message is not None
            assert (message.offset(), message.value()) == (start, b"%d" % start)
        at = confluent_kafka.TopicPartition(topic, 0, 1_700_000_000_000 + 250)
        assert consumer.offsets_for_times([at], timeout=90)[0].offset == 250
        assert consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, 0), timeout=90) == (0, 500)
    finally:
        consumer.close()
