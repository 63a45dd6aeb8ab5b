"""Produce requests and their answers without message objects, where they are of the shape that most have.

That is one batch to one partition, acknowledged without anything more to say. All of a connection's requests of that
shape to one partition have the same bytes around correlation id and records, and so do the answers around correlation
id, base offset and what follows it; those bytes are made once by the codec of `core/wire`. Everything else goes
through that codec each time. Tests hold one against the other in every version.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.producer.batch import Batch
from millstream.core.client.producer.effects import Outcome
from millstream.core.client.producer.requests import outcomes, produce_request
from millstream.core.net.framing import SIZE_BYTES, frame
from millstream.core.wire import (
    APIS,
    ApiKey,
    Buffer,
    decode,
    encode,
    encode_parts,
    encode_request,
    encode_request_header,
    encode_response_header,
    parse_response_header,
    varint_bytes,
)
from millstream.core.wire.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)

# Partitions whose bytes are kept for a connection; past it all are forgotten and made again.
TEMPLATES_COUNT_MAX: Final = 4096
# Records up to this size are copied to what stands around them: one buffer is written faster than three.
JOINED_SIZE_BYTES_MAX: Final = 4096

_FLEXIBLE_FROM: Final = APIS[ApiKey.PRODUCE].flexible_from
_LOG_START_OFFSET_FROM: Final = 5
# Size of the frame, API key, version, correlation id.
_START: Final = struct.Struct(">ihhi")
_CORRELATION_ID: Final = struct.Struct(">i")
_RECORDS_LENGTH: Final = struct.Struct(">i")
# Stands for the base offset in an answer that is encoded to be taken apart.
_MARK_OFFSET: Final = 0x7102030405060708
_MARK: Final = _MARK_OFFSET.to_bytes(8, "big")


class _Template:
    """What all requests to one partition, and the answers that acknowledge them, have in common."""

    __slots__ = ("answer_head", "answer_size", "answer_tail", "head", "size", "tail", "topic_partition")

    def __init__(self, codec: ProduceCodec, topic_partition: TopicPartition) -> None:
        self.topic_partition = topic_partition
        topic, index = topic_partition
        version = codec.version
        data = TopicProduceData(name=topic, partition_data=[PartitionProduceData(index=index, records=b"")])
        request = ProduceRequest(transactional_id=None, acks=codec.acks, timeout_ms=codec.timeout_ms, topic_data=[data])
        whole = encode_request(request, version, 0, codec.client_id)
        # At its end: the length of no records, then the tags of partition, topic and request.
        self.tail = b"\0\0\0" if codec.is_flexible else b""
        end = codec.length(0) + self.tail
        assert whole.endswith(end), whole
        self.head = whole[_START.size - SIZE_BYTES : -len(end)]
        # What the frame announces, less the records and their length.
        self.size = len(whole) - len(end) + len(self.tail)

        partition = PartitionProduceResponse(index=index, base_offset=_MARK_OFFSET)
        answered = ProduceResponse(responses=[TopicProduceResponse(name=topic, partition_responses=[partition])])
        answer = encode(answered, version, encode_response_header(ApiKey.PRODUCE, version, 0))
        position = answer.rindex(_MARK)
        self.answer_head = answer[_CORRELATION_ID.size : position]
        self.answer_tail = answer[position + codec.numbers.size :]
        self.answer_size = len(answer)


class ProduceCodec:
    """The Produce requests of one connection. Owned by its loop."""

    def __init__(self, client_id: str | None, version: int, *, acks: int, timeout_ms: int) -> None:
        self.client_id = client_id
        self.version = version
        self.acks = acks
        self.timeout_ms = timeout_ms
        self.is_flexible = version >= _FLEXIBLE_FROM
        # Base offset, append time, log start offset.
        self.numbers = struct.Struct(">qqq" if version >= _LOG_START_OFFSET_FROM else ">qq")
        # Invariant: len(_templates) <= TEMPLATES_COUNT_MAX.
        self._templates: dict[TopicPartition, _Template] = {}

    def request(self, batches: Sequence[Batch], correlation_id: int) -> list[Buffer]:
        """Return the frame of the request that carries `batches`, one of each partition."""
        if len(batches) > 1:
            message = produce_request(batches, acks=self.acks, timeout_ms=self.timeout_ms)
            header = encode_request_header(ApiKey.PRODUCE, self.version, correlation_id, self.client_id)
            return frame((header, *encode_parts(message, self.version)))
        batch = batches[0]
        template = self._template(batch)
        records = batch.stamped()
        size = len(records)
        length = self.length(size)
        start = _START.pack(template.size + len(length) + size, ApiKey.PRODUCE, self.version, correlation_id)
        if size <= JOINED_SIZE_BYTES_MAX:
            return [b"".join((start, template.head, length, records, template.tail))]
        return [start + template.head + length, records, template.tail]

    def length(self, size: int) -> bytes:
        """Return what stands before records of `size` bytes; compact lengths count from 1."""
        return varint_bytes(size + 1) if self.is_flexible else _RECORDS_LENGTH.pack(size)

    def answer(self, batches: Sequence[Batch], body: memoryview) -> tuple[Mapping[TopicPartition, Outcome], int]:
        """Read the answer to a request: what became of each partition, and its throttle time. Raises WireError."""
        if len(batches) == 1:
            template = self._template(batches[0])
            position = _CORRELATION_ID.size + len(template.answer_head)
            if (
                len(body) == template.answer_size
                and body[_CORRELATION_ID.size : position] == template.answer_head
                and body[position + self.numbers.size :] == template.answer_tail
            ):
                base_offset, log_append_time_ms, *_ = self.numbers.unpack_from(body, position)
                return {template.topic_partition: Outcome(None, base_offset, log_append_time_ms)}, 0
        _, position = parse_response_header(ApiKey.PRODUCE, self.version, body)
        response, _ = decode(ProduceResponse, self.version, body, position)
        return outcomes(response), response.throttle_time_ms

    def _template(self, batch: Batch) -> _Template:
        topic_partition = TopicPartition(batch.topic, batch.partition)
        template = self._templates.get(topic_partition)
        if template is None:
            if len(self._templates) >= TEMPLATES_COUNT_MAX:
                self._templates.clear()
            template = self._templates[topic_partition] = _Template(self, topic_partition)
        return template
