"""The producer on bytes: `producer` has the journey of a record, `sender` the rules, `partition` the order.

async with Producer("127.0.0.1:9092", compression_type="zstd") as producer:
    handle = await producer.send_soon("flights", b"value", key=b"key")
    metadata = await handle
"""

from millstream.core._kernels.record_accumulator import RecordHandle, partition_of_key
from millstream.core.client.producer.batch import RecordMetadata
from millstream.core.client.producer.errors import BufferFullError, DeliveryTimeoutError, ProducerClosedError
from millstream.core.client.producer.handles import BatchHandle
from millstream.core.client.producer.ids import init_producer_id
from millstream.core.client.producer.interceptors import OutgoingRecord, ProducerInterceptor
from millstream.core.client.producer.producer import Partitioner, Producer, ProducerState

__all__ = [
    "BatchHandle",
    "BufferFullError",
    "DeliveryTimeoutError",
    "OutgoingRecord",
    "Partitioner",
    "Producer",
    "ProducerClosedError",
    "ProducerInterceptor",
    "ProducerState",
    "RecordHandle",
    "RecordMetadata",
    "init_producer_id",
    "partition_of_key",
]
