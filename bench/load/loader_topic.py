"""The topic that loaders read: Avro records in Confluent's framing, the same on every broker.

Ten fields, about 120 bytes with the prefix: 601,000 distinct records, 6,000,000 in all, in 6 partitions, lz4.
"""

from __future__ import annotations

import json
import random
from typing import Any

import pyarrow as pa

from millstream import Admin, Producer
from millstream.core.client.admin import NewTopic
from millstream.schemas.avro import AvroEncoder

TOPIC = "events"
PARTITIONS = 6
RECORDS = 6_000_000
DISTINCT = 601_000
# The first one that a registry gives.
SCHEMA_ID = 1
FIRST_MS = 1_790_000_000_000
_SENT_ROWS = 20_000

KINDS = ["VIEW", "CLICK", "CART", "BUY", "RETURN"]
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Event",
    "namespace": "bench",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "user", "type": "string"},
        {"name": "url", "type": "string"},
        {"name": "amount", "type": "double"},
        {"name": "referrer", "type": ["null", "string"], "default": None},
        {
            "name": "kind",
            "type": {"type": "enum", "name": "Kind", "symbols": KINDS},
        },
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "quantity", "type": "int"},
        {"name": "is_new", "type": "boolean"},
        {"name": "scores", "type": {"type": "array", "items": "int"}},
    ],
}
TEXT = json.dumps(SCHEMA)
_SECTIONS = ["products", "search", "basket", "account", "offers"]


def record(number: int, draw: random.Random) -> dict[str, Any]:
    """One of the distinct records."""
    section = _SECTIONS[draw.randrange(5)]
    return {
        "id": 10_000_000 + number,
        "user": f"user-{draw.randrange(10**6, 10**8)}",
        "url": f"https://www.shop.example.org/en/{section}/{draw.randrange(10**6)}?campaign={draw.randrange(1000)}",
        "amount": round(draw.random() * 500, 2),
        "referrer": None if draw.random() < 0.5 else f"https://www.example.com/{draw.randrange(5000)}",
        "kind": KINDS[draw.randrange(5)],
        "at": FIRST_MS + number * 7,
        "quantity": draw.randrange(1, 100),
        "is_new": draw.random() < 0.1,
        "scores": [draw.randrange(1000) for _ in range(draw.randrange(4))],
    }


def values(count: int = DISTINCT) -> pa.BinaryArray:
    """Return the distinct records as Kafka's values."""
    draw = random.Random(1)
    encoder = AvroEncoder(TEXT, SCHEMA_ID)
    rows = [record(number, draw) for number in range(count)]
    return encoder.encode(pa.RecordBatch.from_pylist(rows, schema=encoder.schema))


def fill(bootstrap: str, topic: str, partitions: int, records: int, distinct: pa.BinaryArray) -> None:
    """Create a topic, and put so many records into it, the distinct ones over and over, as many into each partition."""
    with Admin(bootstrap) as admin:
        admin.create_topics([NewTopic(topic, partitions, 1, {"retention.ms": "-1"})])
    per_partition = records // partitions
    with Producer(bootstrap, compression_type="lz4", batch_size=131_072, linger_ms=50) as producer:
        for partition in range(partitions):
            sent = 0
            while sent < per_partition:
                start = (partition * per_partition + sent) % len(distinct)
                rows = distinct.slice(start, min(_SENT_ROWS, per_partition - sent))
                producer.send_batch(topic, pa.table({"value": rows}), partition=partition)
                sent += len(rows)
        producer.flush()
