"""Millstream carries data from any Kafka client into Hadoop: a Kafka-compatible broker, a loader, stream processing.

    from millstream import Admin, Consumer, Producer

    with Producer("127.0.0.1:9092") as producer:
        producer.send("flights", b"value", key=b"key").result(10)

`millstream.aio` has the same three for asyncio. Public names are loaded on first use, so that the broker's path never
pays for what it does not need.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

__version__: Final = "0.1.0"

# Where each public name is; `__init__.pyi` says the same to type checkers.
_HOMES: Final = {
    "Admin": "millstream.core.client.blocking.admin",
    "BufferFullError": "millstream.core.client.producer.errors",
    "BufferPool": "millstream.core.net.buffer_pool",
    "CommittedOffset": "millstream.core.client.group_offsets",
    "ConcurrentUseError": "millstream.core.columns.caller",
    "ConfigError": "millstream.core.config",
    "Consumer": "millstream.core.columns.blocking_consumer",
    "ConsumerInterceptor": "millstream.core.client.consumer",
    "ConsumerRecord": "millstream.core._kernels.consumer_records",
    "CorruptBatchError": "millstream.core.client.consumer",
    "ErrorCode": "millstream.core.wire",
    "ForkedError": "millstream.core.client.blocking",
    "KafkaError": "millstream.core.wire",
    "Producer": "millstream.core.columns.blocking_producer",
    "ProducerInterceptor": "millstream.core.client.producer",
    "RebalanceListener": "millstream.core.client.consumer",
    "RecordHandle": "millstream.core._kernels.record_accumulator",
    "RecordMetadata": "millstream.core.client.producer.batch",
    "TableHandle": "millstream.core.columns.sent_table",
    "TableMetadata": "millstream.core.columns.sent_table",
    "TopicPartition": "millstream.core.client.cluster",
    "TopicPattern": "millstream.core.client.consumer",
}


__all__ = [*_HOMES]  # noqa: PLE0604  the stub has the same names


def __getattr__(name: str) -> Any:
    if name == "aio":
        return import_module("millstream.aio")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*_HOMES, "__version__", "aio"})
