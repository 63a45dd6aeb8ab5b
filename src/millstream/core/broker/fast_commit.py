"""OffsetCommit requests that differ from an earlier one of their connection in nothing but partitions and offsets.

A member commits the same topic again and again. The first request is decoded in full (`learn`); then the bytes before
the partitions are the key under which its meaning is found, the partitions are unpacked in one go, and the answer is
packed behind bytes that are known. Whatever is not exactly so is left to the handler in `handlers/offset_commit.py`,
which means the same: several topics, metadata, partitions that are not there, and everything that has to be refused.
Tests hold one against the other.

    request     key, version, correlation id, [client id, (tags), group id, generation, member id, instance id (from 7),
                retention (to 4), 1 topic, name], partitions: index, OFFSET, leader epoch (from 6), no metadata, (tags);
                (tags, tags)
    answer      length, correlation id, [(tags), throttle time (from 3), 1 topic, name], partitions: index, no error,
                (tags); (tags, tags)

The bytes in brackets are kept; what is in round ones is there from version 8 on (KIP-482). What may change between two
requests is looked at for each: that the member may commit, that its coordinator is here, that the metadata is the same.
Owned by the connection's event loop.
"""

from __future__ import annotations

import struct
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from millstream.core.broker.context import AllowAll
from millstream.core.broker.delayed import Delayed
from millstream.core.groups.offset_requests import BROKER_RETENTION, OffsetRow, TopicCommit
from millstream.core.metrics import Counter
from millstream.core.wire import (
    APIS,
    ApiKey,
    ErrorCode,
    KafkaError,
    encode,
    encode_request,
    encode_response_header,
    varint_bytes,
)
from millstream.core.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from millstream.core.broker.broker import Broker
    from millstream.core.broker.broker_metrics import RequestMetrics
    from millstream.core.broker.context import RequestContext
    from millstream.core.broker.shard_host import ShardHost
    from millstream.core.cluster import ClusterImage

# Kinds of requests remembered for a connection, and how long their bytes before the partitions may be; the lengths that
# are tried. Past the counts all are forgotten and learned again.
PLANS_COUNT_MAX: Final = 64
HEAD_SIZE_BYTES_MAX: Final = 1024
HEAD_SIZES_COUNT_MAX: Final = 8

_FLEXIBLE_FROM: Final = APIS[ApiKey.OFFSET_COMMIT].flexible_from
_LEADER_EPOCH_FROM: Final = 6
_NO_LEADER_EPOCH: Final = -1
# Where the client id's length lies in a frame that has its int32 length in front; and in one that has not.
_CLIENT_ID_AT: Final = struct.calcsize(">ihhi")
_HEADER_SIZE: Final = struct.calcsize(">hhi")
_INT32: Final = struct.Struct(">i")
_START: Final = struct.Struct(">ii")  # of an answer: length, correlation id

_monotonic_ns: Final = time.monotonic_ns


class _Layout:
    """How one version writes partitions."""

    __slots__ = ("answer", "count_size", "flexible", "row", "rows", "tail")

    def __init__(self, version: int) -> None:
        self.flexible = version >= _FLEXIBLE_FROM
        self.rows: Callable[[memoryview], list[OffsetRow] | None]
        if self.flexible:
            self.row, self.rows = struct.Struct(">iqibB"), self._flexible_rows
        elif version >= _LEADER_EPOCH_FROM:
            self.row, self.rows = struct.Struct(">iqih"), self._epoch_rows
        else:
            self.row, self.rows = struct.Struct(">iqh"), self._plain_rows
        self.answer = struct.Struct(">ihB" if self.flexible else ">ih")
        # Behind the partitions: the tags of the topic and of the request or the answer.
        self.tail = b"\0\0" if self.flexible else b""
        self.count_size = 1 if self.flexible else _INT32.size

    def count(self, data: memoryview, position: int) -> int:
        """How many partitions there are; of many in the compact form it is less than there are."""
        return data[position] - 1 if self.flexible else _INT32.unpack_from(data, position)[0]

    # Each returns None where a partition has more to say. No metadata is null or empty.

    def _flexible_rows(self, data: memoryview) -> list[OffsetRow] | None:
        rows = []
        for index, offset, epoch, metadata_size, tags in self.row.iter_unpack(data):
            if not 0 <= metadata_size <= 1 or tags:
                return None
            rows.append((index, offset, epoch))
        return rows

    def _epoch_rows(self, data: memoryview) -> list[OffsetRow] | None:
        rows = []
        for index, offset, epoch, metadata_size in self.row.iter_unpack(data):
            if metadata_size not in {0, -1}:
                return None
            rows.append((index, offset, epoch))
        return rows

    def _plain_rows(self, data: memoryview) -> list[OffsetRow] | None:
        rows = []
        for index, offset, metadata_size in self.row.iter_unpack(data):
            if metadata_size not in {0, -1}:
                return None
            rows.append((index, offset, _NO_LEADER_EPOCH))
        return rows

    def size(self, count: int) -> bytes:
        """The length of an array."""
        return varint_bytes(count + 1) if self.flexible else _INT32.pack(count)


_layout = lru_cache(maxsize=None)(_Layout)


class _Plan:
    """What all requests with the same bytes before their partitions share."""

    __slots__ = ("_head", "_layout", "commit", "host", "partitions_count")

    def __init__(self, commit: TopicCommit, host: ShardHost, partitions_count: int) -> None:
        self.commit = commit
        self.host = host
        self.partitions_count = partitions_count
        self._layout = layout = _layout(commit.api_version)
        # The answer's bytes between correlation id and partitions.
        whole = self._encoded([])
        self._head = whole[_INT32.size : len(whole) - layout.count_size - len(layout.tail)]

    def response(self, correlation_id: int, rows: list[OffsetRow]) -> bytes:
        """The whole frame that says that all is stored."""
        layout = self._layout
        pack = layout.answer.pack
        if layout.flexible:
            answers = b"".join([pack(row[0], 0, 0) for row in rows])
        else:
            answers = b"".join([pack(row[0], 0) for row in rows])
        count = layout.size(len(rows))
        size = _INT32.size + len(self._head) + len(count) + len(answers) + len(layout.tail)
        return b"".join((_START.pack(size, correlation_id), self._head, count, answers, layout.tail))

    def refusal(self, correlation_id: int, rows: list[OffsetRow], code: ErrorCode) -> bytes:
        """The whole frame that says that nothing is, for this reason."""
        body = self._encoded([OffsetCommitResponsePartition(partition_index=row[0], error_code=code) for row in rows])
        return _START.pack(len(body), correlation_id) + body[_INT32.size :]

    def _encoded(self, partitions: list[OffsetCommitResponsePartition]) -> bytes:
        version = self.commit.api_version
        topic = OffsetCommitResponseTopic(name=self.commit.topic, partitions=partitions)
        header = encode_response_header(ApiKey.OFFSET_COMMIT, version, 0)
        return encode(OffsetCommitResponse(topics=[topic]), version, header)


class FastAnswer(Delayed[bytes]):
    """A commit in work: its connection's next answer, and what its shard gives the answer to."""

    __slots__ = ("_correlation_id", "_plan", "_rows", "code", "parts", "started_ns")

    # As the connection asks of what it has in work: none of these came in a buffer of its own.
    frame: Final = None

    def __init__(self, plan: _Plan, correlation_id: int, rows: list[OffsetRow]) -> None:
        super().__init__()
        self._plan = plan
        self._correlation_id = correlation_id
        self._rows = rows
        # The whole answer; None until it is there.
        self.parts: list[bytes] | None = None
        # What it says of each partition.
        self.code = ErrorCode.NONE
        self.started_ns = _monotonic_ns()

    @property
    def delayed(self) -> FastAnswer:
        """Itself, to be cancelled with its connection."""
        return self

    def complete(self, response: bytes) -> None:
        """Give the answer, the whole frame."""
        self.parts = [response]
        super().complete(response)

    def fail(self, error: BaseException) -> None:
        """Answer the error instead."""
        self.code = error.code if isinstance(error, KafkaError) else ErrorCode.UNKNOWN_SERVER_ERROR
        self.complete(self._plan.refusal(self._correlation_id, self._rows, self.code))

    def cancel(self) -> None:
        """Nobody wants it any more: its connection has gone."""
        self._plan.host.forget_answer(self)
        super().cancel()


class FastCommit:
    """The plans of one connection."""

    __slots__ = (
        "_broker",
        "_image",
        "_metrics",
        "_plans",
        "_requests",
        "_sizes",
        "_successes",
        "_time_us",
        "_version",
    )

    def __init__(self, broker: Broker, metrics: RequestMetrics) -> None:
        self._broker = broker
        self._metrics = metrics
        # By the request's bytes from the client id up to the partitions; the lengths that these have.
        self._plans: dict[bytes, _Plan] = {}
        self._sizes: tuple[int, ...] = ()
        # What they were made for.
        self._version = -1
        self._image: ClusterImage | None = None
        # Counters, of that version and of any.
        self._requests = Counter()
        self._successes = metrics.error(ErrorCode.NONE)
        self._time_us = metrics.total_time_us

    def learn(self, frame: memoryview, request: OffsetCommitRequest, context: RequestContext) -> None:
        """Remember a request that was decoded in full, if later ones like it can be recognized and are allowed."""
        broker = self._broker
        if (
            len(request.topics) != 1
            or request.retention_time_ms != BROKER_RETENTION
            or type(context.authorizer) is not AllowAll
        ):
            return
        name = request.topics[0].name
        image = broker.metadata.image
        topic = image.topics.get(name)
        if topic is None:
            return
        version = context.api_version
        layout = _layout(version)
        # The key as `accept` would find it, made from the message: bytes that say the same otherwise (unknown tags, a
        # longer varint) are not learned, so a key that is found always ends where the partitions begin.
        like = OffsetCommitRequest(
            group_id=request.group_id,
            generation_id_or_member_epoch=request.generation_id_or_member_epoch,
            member_id=request.member_id,
            group_instance_id=request.group_instance_id,
            topics=[OffsetCommitRequestTopic(name=name)],
        )
        whole = encode_request(like, version, 0, context.client_id)
        key = whole[_HEADER_SIZE : len(whole) - layout.count_size - len(layout.tail)]
        if len(key) > HEAD_SIZE_BYTES_MAX or frame[_HEADER_SIZE : _HEADER_SIZE + len(key)] != key:
            return
        try:
            host = broker.coordinators.host_of(request.group_id)
        except KafkaError:
            return
        if version != self._version or image is not self._image or len(self._plans) >= PLANS_COUNT_MAX:
            self._forget(version, image)
        if len(key) not in self._sizes:
            if len(self._sizes) >= HEAD_SIZES_COUNT_MAX:
                self._forget(version, image)
            self._sizes += (len(key),)
        self._plans[key] = _Plan(TopicCommit(request, name, version), host, len(topic.partitions))

    def _forget(self, version: int, image: ClusterImage | None) -> None:
        self._plans.clear()
        self._sizes = ()
        self._version = version
        self._image = image
        self._requests = self._metrics.version(version)

    def accept(self, data: memoryview, start: int, end: int, version: int, correlation_id: int) -> FastAnswer | None:
        """Commit what the request in data[start:end] says; None where the handler has to look at it."""
        broker = self._broker
        if version != self._version:
            return None
        if broker.metadata.image is not self._image or type(broker.authorizer) is not AllowAll:
            self._forget(version, None)
            return None
        start += _CLIENT_ID_AT
        for size in self._sizes:
            plan = self._plans.get(data[start : start + size].tobytes())
            if plan is not None:
                break
        else:
            return None
        layout = _layout(version)
        position = start + size
        rows_at = position + layout.count_size
        rows_end = end - len(layout.tail)
        if rows_at >= rows_end or rows_at + layout.count(data, position) * layout.row.size != rows_end:
            return None
        if data[rows_end:end] != layout.tail:
            return None
        rows = layout.rows(data[rows_at:rows_end])
        if rows is None:
            return None
        partitions_count = plan.partitions_count
        for row in rows:
            if not 0 <= row[0] < partitions_count:
                return None
        coordinators = broker.coordinators
        answer = FastAnswer(plan, correlation_id, rows)
        response = plan.response(correlation_id, rows)
        if not plan.host.commit_rows(plan.commit, rows, answer, response, coordinators.now_ms()):
            return None
        coordinators.turn_timers()
        return answer

    def count(self, answer: FastAnswer) -> None:
        """Count a request as answered."""
        self._requests.value += 1
        if answer.code is ErrorCode.NONE:
            self._successes.value += 1
        else:
            self._metrics.error(answer.code).value += 1
        self._time_us.observe((_monotonic_ns() - answer.started_ns) // 1000)
