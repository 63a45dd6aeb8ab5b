"""Fetch requests of the usual form, answered without messages.

A consumer of one partition sends requests that differ in correlation id and offset alone. The first is decoded in full
(`learn`); then the bytes around these two are the key under which its meaning is found, and the answer is one
`struct.pack` before the records and a constant behind them. Where there is nothing to read yet the request waits here
as well. Whatever is not exactly so, sessions and errors included, is left to the handler in `handlers/fetch.py`, which
means the same; tests hold one against the other.

    key, version, correlation id, [client id, ... 1 topic, 1 partition, ...], offset, [... forgotten topics, rack]

The bytes in brackets are the key. Owned by the connection's event loop.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import Operation, ResourceType
from millstream.core.broker.fetch_sessions import TOPIC_IDS_FROM_VERSION
from millstream.core.broker.handlers.fetch import RESERVED_SIZE_BYTES
from millstream.core.wire import (
    ZERO_UUID,
    ApiKey,
    ErrorCode,
    KafkaError,
    encode,
    encode_request,
    encode_response_header,
    varint_bytes,
)
from millstream.core.wire.messages.fetch import (
    FetchableTopicResponse,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    PartitionData,
)

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.broker.broker_metrics import RequestMetrics
    from millstream.core.broker.connection import Connection
    from millstream.core.broker.context import RequestContext
    from millstream.core.broker.direct_send import Part
    from millstream.core.broker.partition import Partition
    from millstream.core.broker.purgatory import Watch
    from millstream.core.log import Log

# Kinds of requests remembered for a connection; past it all are forgotten and learned again.
PLANS_COUNT_MAX: Final = 256
_FLEXIBLE_FROM: Final = 12
_LOG_START_OFFSET_FROM: Final = 5
NO_SESSION_EPOCH: Final = -1

# From a frame's length to what follows the correlation id, and the same without the length.
_KEY_AT: Final = struct.calcsize(">ihhi")
_HEADER_SIZE: Final = struct.calcsize(">hhi")
_OFFSET: Final = struct.Struct(">q")
_OFFSET_SIZE: Final = _OFFSET.size

# Stand for the high watermark and for the records in a response that is encoded to be taken apart.
_MARK_OFFSET: Final = 0x7102030405060708
_MARK: Final = _OFFSET.pack(_MARK_OFFSET)

_monotonic_ns: Final = time.monotonic_ns


class _Plan:
    """What all requests with the same bytes around their offset share."""

    __slots__ = (
        "_between",
        "_compact",
        "_head",
        "_pack",
        "_tail",
        "_with_log_start",
        "leader_epoch",
        "max_bytes",
        "max_wait_ms",
        "partition",
        "partition_max_bytes",
    )

    def __init__(self, partition: Partition, request: FetchRequest, version: int) -> None:
        asked = request.topics[0].partitions[0]
        self.partition = partition
        self.leader_epoch = asked.current_leader_epoch
        self.max_bytes = request.max_bytes
        self.max_wait_ms = request.max_wait_ms
        self.partition_max_bytes = asked.partition_max_bytes
        self._with_log_start = version >= _LOG_START_OFFSET_FROM
        self._compact = version >= _FLEXIBLE_FROM
        # The response's bytes before the high watermark, between the last offset and the records' length, and behind
        # the records; without length and correlation id.
        by_topic_id = version >= TOPIC_IDS_FROM_VERSION
        data = PartitionData(
            partition_index=partition.index,
            high_watermark=_MARK_OFFSET,
            last_stable_offset=0,
            log_start_offset=0,
            aborted_transactions=None,
            records=_MARK,
        )
        topic = FetchableTopicResponse(
            topic="" if by_topic_id else partition.topic,
            topic_id=partition.topic_id if by_topic_id else ZERO_UUID,
            partitions=[data],
        )
        header = encode_response_header(ApiKey.FETCH, version, 0)
        whole = encode(FetchResponse(session_id=0, responses=[topic]), version, header)[4:]
        offsets_at = whole.index(_MARK)
        numbers = 3 if self._with_log_start else 2
        records_at = whole.index(_MARK, offsets_at + 1)
        self._head = whole[:offsets_at]
        self._between = whole[offsets_at + 8 * numbers : records_at - (1 if self._compact else 4)]
        self._tail = whole[records_at + len(_MARK) :]
        self._pack = struct.Struct(f">ii{len(self._head)}s{'q' * numbers}{len(self._between)}s").pack

    def response(self, correlation_id: int, log_start_offset: int, records: Part) -> list[Part]:
        """The whole frame that gives `records`, in parts."""
        partition = self.partition
        size = len(records)
        length = varint_bytes(size + 1) if self._compact else size.to_bytes(4, "big")
        offsets = [partition.high_watermark, partition.last_stable_offset]
        if self._with_log_start:
            offsets.append(log_start_offset)
        around = 4 + len(self._head) + 8 * len(offsets) + len(self._between) + len(length) + len(self._tail)
        head = self._pack(around + size, correlation_id, self._head, *offsets, self._between) + length
        return [head, records, self._tail] if size else [head + self._tail]


class FastFetch:
    """The plans of one connection."""

    __slots__ = (
        "_behind_offset",
        "_broker",
        "_connection",
        "_image",
        "_metrics",
        "_partitions_version",
        "_plans",
        "_version",
    )

    def __init__(self, connection: Connection, broker: Broker, metrics: RequestMetrics) -> None:
        self._connection = connection
        self._broker = broker
        self._metrics = metrics
        self._plans: dict[bytes, _Plan] = {}
        # What the plans were made from: any change of it and they are forgotten.
        self._image = broker.metadata.image
        self._partitions_version = broker.partitions.version
        self._version = -1
        # Bytes from a request's offset to its end.
        self._behind_offset = 0

    def learn(self, frame: memoryview, request: FetchRequest, context: RequestContext) -> None:
        """Remember a request that was decoded in full, if later ones like it can be recognized and are allowed."""
        if len(request.topics) != 1 or len(request.topics[0].partitions) != 1 or request.min_bytes != 1:
            return
        version = context.api_version
        topic, asked = request.topics[0], request.topics[0].partitions[0]
        name = topic.topic
        if version >= TOPIC_IDS_FROM_VERSION:
            image = self._broker.metadata.image.topic_by_id(topic.topic_id)
            if image is None:
                return
            name = image.name
        partition = self._broker.partitions.get(name, asked.partition)
        if partition is None or not context.permits(Operation.READ, ResourceType.TOPIC, name):
            return
        if version >= TOPIC_IDS_FROM_VERSION and partition.topic_id != topic.topic_id:
            return
        # The request as `accept` understands it: one that has more to say, a session, an isolation level, what a
        # replica tells, or says the same in other bytes, is not learned.
        like = FetchRequest(
            max_wait_ms=request.max_wait_ms,
            min_bytes=request.min_bytes,
            max_bytes=request.max_bytes,
            session_epoch=NO_SESSION_EPOCH,
            rack_id=request.rack_id,
            topics=[
                FetchTopic(
                    topic=topic.topic,
                    topic_id=topic.topic_id,
                    partitions=[
                        FetchPartition(
                            partition=asked.partition,
                            current_leader_epoch=asked.current_leader_epoch,
                            fetch_offset=_MARK_OFFSET,
                            log_start_offset=asked.log_start_offset,
                            partition_max_bytes=asked.partition_max_bytes,
                        )
                    ],
                )
            ],
        )
        whole = encode_request(like, version, 0, context.client_id)[_HEADER_SIZE:]
        before, _, behind = whole.partition(_MARK)
        if bytes(frame[_HEADER_SIZE:]) != before + _OFFSET.pack(asked.fetch_offset) + behind:
            return
        if not self._is_current(version) or len(behind) != self._behind_offset or len(self._plans) >= PLANS_COUNT_MAX:
            self._plans.clear()
            self._version = version
            self._behind_offset = len(behind)
            self._image = self._broker.metadata.image
            self._partitions_version = self._broker.partitions.version
        self._plans[before + behind] = _Plan(partition, request, version)

    def accept(
        self, data: memoryview, start: int, end: int, version: int, correlation_id: int
    ) -> list[Part] | WaitingFetch | None:
        """Answer the request in data[start:end], or let it wait; None where the handler has to look at it."""
        if not self._is_current(version):
            return None
        offset_at = end - self._behind_offset - _OFFSET_SIZE
        if offset_at < start + _KEY_AT:
            return None
        behind = offset_at + _OFFSET_SIZE
        plan = self._plans.get(data[start + _KEY_AT : offset_at].tobytes() + data[behind:end].tobytes())
        if plan is None:
            return None
        (offset,) = _OFFSET.unpack_from(data, offset_at)
        started_ns = _monotonic_ns()
        if offset == plan.partition.high_watermark and plan.max_wait_ms > 0 and self._log(plan) is not None:
            request = data[start + 4 : end].tobytes()
            waiting = WaitingFetch(self, plan, offset, correlation_id, request, started_ns)
            return waiting if waiting.watch(self._broker) else None
        return self._answer(plan, offset, correlation_id, started_ns)

    def _is_current(self, version: int) -> bool:
        broker = self._broker
        return (
            version == self._version
            and self._image is broker.metadata.image
            and self._partitions_version == broker.partitions.version
        )

    def _log(self, plan: _Plan) -> Log | None:
        """The log to read, where this broker leads in the epoch that the client knows."""
        partition = plan.partition
        if not partition.is_leader or plan.leader_epoch not in {-1, partition.leader_epoch}:
            return None
        return partition.log

    def _answer(self, plan: _Plan, offset: int, correlation_id: int, started_ns: int) -> list[Part] | None:
        """Read, and return the answer; None where there is something else to say than records."""
        log = self._log(plan)
        partition = plan.partition
        end_offset = partition.high_watermark
        if log is None or not log.log_start_offset <= offset < end_offset:
            return None
        broker = self._broker
        memory = broker.connections.read_memory
        size_max = max(0, min(plan.max_bytes, broker.fetch_size_bytes_max))
        free_bytes = memory.free_bytes
        if free_bytes < min(size_max, RESERVED_SIZE_BYTES):
            return None
        size_max = max(0, min(size_max, free_bytes, plan.partition_max_bytes))
        try:
            read = log.read(offset, size_max, end_offset=end_offset, wait=False, buffer=broker.connections.read_buffer)
        except (BlockingIOError, KafkaError):
            return None
        # The buffer is the next read's; what is large goes to the socket from the file.
        records: Part = bytes(read.data) if read.region is None else read.region
        size = len(records)
        if not size:
            return None
        memory.charge(size)
        self._connection.hold_read_memory(size)
        partition.metrics.bytes_out += size
        self._count(started_ns)
        return plan.response(correlation_id, log.log_start_offset, records)

    def answer_waiting(self, waiting: WaitingFetch) -> None:
        """There is more to read, or the time has come, or something else has changed."""
        plan = waiting.plan
        parts = None
        log = self._log(plan)
        if log is not None and waiting.offset == plan.partition.high_watermark:
            if waiting.watch(self._broker):
                return
            self._count(waiting.started_ns)
            parts = plan.response(waiting.correlation_id, log.log_start_offset, b"")
        elif log is not None:
            parts = self._answer(plan, waiting.offset, waiting.correlation_id, waiting.started_ns)
        self._connection.finish_waiting(waiting, parts)

    def _count(self, started_ns: int) -> None:
        metrics = self._metrics
        metrics.version(self._version).value += 1
        metrics.error(ErrorCode.NONE).value += 1
        metrics.total_time_us.observe((_monotonic_ns() - started_ns) // 1000)


class WaitingFetch:
    """A request that found nothing, in purgatory; the connection holds it among its requests in work.

    States: WAITING -> ENDED (answered, or handed to the handler by `Connection.finish_waiting`; cancel).
    """

    __slots__ = (
        "_deadline_ms",
        "_fast_fetch",
        "_watch",
        "correlation_id",
        "frame",
        "offset",
        "parts",
        "plan",
        "request",
        "started_ns",
    )

    def __init__(
        self,
        fast_fetch: FastFetch,
        plan: _Plan,
        offset: int,
        correlation_id: int,
        request: bytes,
        started_ns: int,
    ) -> None:
        self._fast_fetch = fast_fetch
        self._watch: Watch | None = None
        self.plan = plan
        self.offset = offset
        self.correlation_id = correlation_id
        # The whole request, should the handler have to look at it after all.
        self.request = request
        self.started_ns = started_ns
        self._deadline_ms = 0
        # As those of a request that was decoded: the answer once it is there, and no frame buffer.
        self.parts: list[Part] | None = None
        self.frame: None = None

    @property
    def delayed(self) -> WaitingFetch:
        """What is to be cancelled when the connection ends."""
        return self

    def watch(self, broker: Broker) -> bool:
        """Wait for as long as the client would; False where that has passed, or the purgatory is full."""
        now_ms = broker.clock.monotonic_ms()
        if self._watch is None:
            self._deadline_ms = now_ms + self.plan.max_wait_ms
        wait_ms = self._deadline_ms - now_ms
        if wait_ms <= 0:
            return False
        self._watch = broker.purgatory.watch(
            [self.plan.partition], wait_ms, self._handle_progress, self._handle_expired
        )
        return self._watch is not None

    def cancel(self) -> None:
        """Leave nothing behind: the connection has gone."""
        if self._watch is not None:
            self._watch.end()

    def _handle_progress(self, _size_bytes: int) -> None:
        assert self._watch is not None, "progress without a watch"
        self._watch.end()
        self._fast_fetch.answer_waiting(self)

    def _handle_expired(self) -> None:
        self._deadline_ms = 0
        self._fast_fetch.answer_waiting(self)
