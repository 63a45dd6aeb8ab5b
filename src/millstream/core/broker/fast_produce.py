"""Produce requests that differ from an earlier one of their connection in nothing but their records.

A producer sends thousands of requests whose bytes are the same up to their records: header, acks, timeout, one topic,
one partition. The first is decoded in full (`learn`); then those bytes are the key under which its meaning is found,
and its response is one `struct.pack` between bytes that are known. Whatever is not exactly so, errors included, is
left to the handler in `handlers/produce.py`, which means the same; tests hold one against the other.

What surrounds the records, from the API's version on (KIP-98; flexible from 9, KIP-482):

    key, version, correlation id, [client id, (tags), transactional id, acks, timeout, 1 topic, name, 1 partition,
    index], length of the records, records, (tags, tags, tags)

The bytes in brackets are the key. Owned by the connection's event loop.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, ResourceType
from millstream.core.broker.partitions import INTERNAL_TOPICS
from millstream.core.wire import ApiKey, ErrorCode, KafkaError, encode, encode_request, encode_response_header
from millstream.core.wire.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.broker.broker_metrics import RequestMetrics
    from millstream.core.broker.context import RequestContext
    from millstream.core.broker.memory_pool import FrameBuffer
    from millstream.core.broker.partition import Partition

# (plan, the partition's generation, offset behind the batch, response or None for acks=0, correlation id, frame buffer)
Entry = tuple["_Plan", int, int, bytes | None, int, "FrameBuffer | None"]

# Kinds of requests remembered for a connection; past it all are forgotten and learned again.
PLANS_COUNT_MAX: Final = 256
_FLEXIBLE_FROM: Final = 9
_LOG_START_OFFSET_FROM: Final = 5

# Where the client id's length lies in a frame that has its int32 length in front, and how far behind the client id the
# topic name's length has its low byte: (tags), transactional id, acks, timeout, count of topics.
_CLIENT_ID_LENGTH: Final = struct.calcsize(">ihhi")
_TO_NAME_COMPACT: Final = struct.calcsize(">bbhib")
_TO_NAME: Final = struct.calcsize(">hhii") + 1
# Header bytes before the client id, and what an empty records field and all behind it take: an int32, or a varint and
# tags.
_HEADER_SIZE: Final = struct.calcsize(">hhi")
_EMPTY_RECORDS_SIZE: Final = 4
_TAGS_SIZE: Final = 3  # three empty sections behind the records

# Stand for base offset and what follows it in a response that is encoded to be taken apart.
_MARK_OFFSET: Final = 0x7102030405060708
_MARK: Final = _MARK_OFFSET.to_bytes(8, "big")


class _Plan:
    """What all requests with the same bytes before their records share."""

    __slots__ = ("_pack", "_size", "acks", "head", "partition", "tail", "version", "with_log_start")

    def __init__(self, partition: Partition, version: int, acks: int) -> None:
        self.partition = partition
        self.version = version
        self.acks = acks
        self.with_log_start = version >= _LOG_START_OFFSET_FROM
        # The response's bytes before the base offset and behind the log's start, without length and correlation id.
        whole = self._response(ErrorCode.NONE, _MARK_OFFSET)
        position = whole.index(_MARK)
        self.head = whole[:position]
        numbers = 3 if self.with_log_start else 2
        self.tail = whole[position + 8 * numbers :]
        self._size = 4 + len(whole)
        self._pack = struct.Struct(f">ii{len(self.head)}s{'q' * numbers}{len(self.tail)}s").pack

    def response(self, correlation_id: int, base_offset: int, log_append_time_ms: int, log_start_offset: int) -> bytes:
        """The whole frame that acknowledges a batch."""
        if self.with_log_start:
            return self._pack(
                self._size, correlation_id, self.head, base_offset, log_append_time_ms, log_start_offset, self.tail
            )
        return self._pack(self._size, correlation_id, self.head, base_offset, log_append_time_ms, self.tail)

    def failed_response(self, correlation_id: int) -> bytes:
        """The whole frame that says that an accepted batch was not kept."""
        body = self._response(self.partition.failure, -1)
        return struct.pack(">ii", 4 + len(body), correlation_id) + body

    def _response(self, code: ErrorCode, base_offset: int) -> bytes:
        partition = PartitionProduceResponse(index=self.partition.index, error_code=code, base_offset=base_offset)
        topic = TopicProduceResponse(name=self.partition.topic, partition_responses=[partition])
        header = encode_response_header(ApiKey.PRODUCE, self.version, 0)
        return encode(ProduceResponse(responses=[topic]), self.version, header)[4:]


class FastProduce:
    """The plans of one connection."""

    __slots__ = ("_appends", "_metrics", "_partitions", "_partitions_version", "_plans", "_version")

    def __init__(self, broker: Broker, metrics: RequestMetrics) -> None:
        self._appends = broker.appends
        self._partitions = broker.partitions
        self._partitions_version = broker.partitions.version
        self._metrics = metrics
        self._plans: dict[bytes, _Plan] = {}
        self._version = -1

    def learn(self, frame: memoryview, request: ProduceRequest, context: RequestContext) -> None:
        """Remember a request that was decoded in full, if later ones like it can be recognized and are allowed."""
        if request.transactional_id is not None or request.acks not in {0, 1, -1} or not context.client_id:
            return
        if len(request.topic_data) != 1 or len(request.topic_data[0].partition_data) != 1:
            return
        topic = request.topic_data[0]
        index = topic.partition_data[0].index
        partition = self._partitions.get(topic.name, index)
        if (
            partition is None
            or topic.name in INTERNAL_TOPICS
            or not context.permits(Operation.WRITE, ResourceType.TOPIC, topic.name)
        ):
            return
        version = context.api_version
        # The key as `accept` would find it, made from the message: bytes that say the same otherwise (unknown tags, a
        # longer varint) are not learned, so a key that is found always ends where the records begin.
        like = ProduceRequest(
            acks=request.acks,
            timeout_ms=request.timeout_ms,
            topic_data=[
                TopicProduceData(name=topic.name, partition_data=[PartitionProduceData(index=index, records=b"")])
            ],
        )
        whole = encode_request(like, version, 0, context.client_id)
        key = whole[_HEADER_SIZE:-_EMPTY_RECORDS_SIZE]
        if frame[_HEADER_SIZE : _HEADER_SIZE + len(key)] != key:
            return
        if version != self._version or len(self._plans) >= PLANS_COUNT_MAX:
            self._plans.clear()
            self._version = version
        self._plans[key] = _Plan(partition, version, request.acks)

    def accept(
        self,
        data: memoryview,
        start: int,
        end: int,
        version: int,
        correlation_id: int,
        now_ms: int,
        frame: FrameBuffer | None = None,
    ) -> Entry | None:
        """Append the batch of the request in data[start:end]; None where the handler has to look at it.

        With `frame` the bytes stay valid until the answer has left, and the batch is not copied.
        """
        if version != self._version:
            return None
        if self._partitions.version != self._partitions_version:
            self._plans.clear()
            self._partitions_version = self._partitions.version
            return None
        # The topic's length says where the key ends. A wrong guess finds no plan: all bytes before the records are in
        # it.
        try:
            name = start + _CLIENT_ID_LENGTH + 2 + data[start + _CLIENT_ID_LENGTH + 1]
            if version >= _FLEXIBLE_FROM:
                name += _TO_NAME_COMPACT
                position = name + data[name] + 5
                plan = self._plans.get(data[start + _CLIENT_ID_LENGTH : position].tobytes())
                if plan is None:
                    return None
                size = data[position]
                position += 1
                if size > 127:
                    byte = data[position]
                    size += (byte - 1) << 7
                    position += 1
                    if byte > 127:
                        byte = data[position]
                        size += (byte - 1) << 14
                        position += 1
                        if byte > 127:
                            return None
                batch_end = end - _TAGS_SIZE
                if position + size - 1 != batch_end or data[batch_end] or data[batch_end + 1] or data[batch_end + 2]:
                    return None
            else:
                name += _TO_NAME
                position = name + 1 + data[name] + 8
                plan = self._plans.get(data[start + _CLIENT_ID_LENGTH : position].tobytes())
                batch_end = end
                if plan is None or position + 4 + int.from_bytes(data[position : position + 4], "big") != end:
                    return None
                position += 4
        except IndexError:
            return None
        acks = plan.acks
        if acks == 0 and frame is not None:
            return None
        partition = plan.partition
        batch = data[position:batch_end]
        try:
            reservation = partition.append_now(batch, acks, now_ms, frame is None)
        except KafkaError:
            # Nothing was appended: the handler meets the same error and says it in full.
            return None
        if reservation is None:
            return None
        partition.metrics.produce_requests += 1
        if acks == 0:
            return plan, 0, reservation.last_offset + 1, None, 0, None
        response = plan.response(
            correlation_id, reservation.first_offset, reservation.log_append_time_ms, reservation.log_start_offset
        )
        return plan, partition.generation, reservation.last_offset + 1, response, correlation_id, frame

    def count(self, requests_count: int, time_us: int) -> None:
        """Count requests that were accepted together, in this time."""
        self._metrics.version(self._version).value += requests_count
        self._metrics.error(ErrorCode.NONE).value += requests_count
        self._metrics.total_time_us.observe(time_us)
