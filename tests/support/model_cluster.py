"""A cluster as a consumer sees it, without sockets: logs with epochs and gaps, leaders that move, sessions, errors.

Everything a broker may do to a consumer can be done to this: leaders change cleanly or by an election that cuts the
log, records are compacted away, logs start later, sessions are forgotten, followers are recommended and lag behind.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.support.batches import RawRecord, raw_batch

from millstream.core.client.cluster import BrokerNode, Cluster, PartitionInfo, TopicInfo, TopicPartition
from millstream.core.net import Address
from millstream.core.records import BatchBuilder, Compression
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.fetch import (
    AbortedTransaction,
    FetchableTopicResponse,
    FetchRequest,
    FetchResponse,
    LeaderIdAndEpoch,
    PartitionData,
)
from millstream.core.wire.messages.list_offsets import (
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)
from millstream.core.wire.messages.offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderTopicResult,
)

TIMESTAMP = 1_790_000_000_000


@dataclass
class ModelBatch:
    """One batch; `values` by offset is what is left of it."""

    base_offset: int
    last_offset: int
    epoch: int
    values: dict[int, bytes]
    data: bytes


@dataclass
class ModelLog:
    """A partition: what is in it is committed, until an unclean election says otherwise."""

    leader: int
    epoch: int = 0
    log_start_offset: int = 0
    end_offset: int = 0
    batches: list[ModelBatch] = field(default_factory=list)
    epoch_starts: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    follower: int = -1
    follower_end_offset: int = 0

    def append(
        self, values: list[bytes], codec: Compression, *, control: bool = False, keep: set[int] | None = None
    ) -> None:
        """Append one batch; with `keep` only these indexes are left of it, as compaction leaves them."""
        base = self.end_offset
        kept = {base + index: value for index, value in enumerate(values) if keep is None or index in keep}
        if keep is not None:
            data = compacted(base, len(values), kept, self.epoch)
        else:
            builder = BatchBuilder(
                compression=codec,
                base_offset=base,
                leader_epoch=self.epoch,
                control=control,
                transactional=control,
                producer_id=1 if control else -1,
                producer_epoch=0 if control else -1,
            )
            for index, value in enumerate(values):
                builder.append(TIMESTAMP + base + index, b"\x00\x00\x00\x01" if control else None, value)
            data = builder.build()
        self.batches.append(ModelBatch(base, base + len(values) - 1, self.epoch, {} if control else kept, data))
        self.end_offset = base + len(values)

    def lead(self, node: int, epoch: int, *, cut_to: int | None = None) -> None:
        """A new leader; with `cut_to` its log ends there, and what was behind is gone."""
        if cut_to is not None and cut_to < self.end_offset:
            self.batches = [batch for batch in self.batches if batch.last_offset < cut_to]
            end_offset = self.batches[-1].last_offset + 1 if self.batches else 0
            self.end_offset = max(end_offset, self.log_start_offset)
            self.epoch_starts = [
                (one, start) for one, start in self.epoch_starts if start < self.end_offset or start == 0
            ]
        self.leader, self.epoch = node, epoch
        self.follower = -1
        self.epoch_starts.append((epoch, self.end_offset))

    def epoch_end(self, epoch: int) -> tuple[int, int]:
        """Where an epoch ends, as OffsetForLeaderEpoch answers."""
        if epoch == self.epoch:
            return epoch, self.end_offset
        found = [index for index, (one, _) in enumerate(self.epoch_starts) if one <= epoch]
        if not found or epoch > self.epoch:
            return -1, -1
        index = found[-1]
        following = self.epoch_starts[index + 1][1] if index + 1 < len(self.epoch_starts) else self.end_offset
        return self.epoch_starts[index][0], following

    def read(self, offset: int, end_offset: int, size_bytes_max: int) -> bytes:
        """Whole batches from the one that holds `offset` or follows it."""
        out = b""
        for batch in self.batches:
            if batch.last_offset < offset or batch.last_offset >= end_offset:
                continue
            if out and len(out) + len(batch.data) > size_bytes_max:
                break
            out += batch.data
        return out

    def values(self) -> dict[int, bytes]:
        """What a reader from the start finds."""
        return {
            offset: value
            for batch in self.batches
            for offset, value in batch.values.items()
            if offset >= self.log_start_offset
        }


def compacted(base: int, count: int, kept: dict[int, bytes], epoch: int) -> bytes:
    """A batch of `count` offsets of which `kept` are left."""
    records = [RawRecord(offset - base, offset, None, value) for offset, value in kept.items()]
    return raw_batch(
        records, base_offset=base, last_offset_delta=count - 1, leader_epoch=epoch, base_timestamp=TIMESTAMP
    )


class ModelCluster:
    """Three brokers and what they answer."""

    def __init__(self, partitions: int, source: random.Random) -> None:
        self.source = source
        self.nodes = (0, 1, 2)
        self.logs = {
            TopicPartition("t", index): ModelLog(leader=source.choice(self.nodes)) for index in range(partitions)
        }
        # Session id -> (node, next epoch, fetch offsets by partition with the leader epoch and size given).
        self.sessions: dict[int, tuple[int, int, dict[TopicPartition, tuple[int, int, int]]]] = {}
        self._next_session = 1
        self.recommends = False

    def metadata(self) -> Cluster:
        """What a Metadata answer says now."""
        infos = tuple(
            PartitionInfo(tp.partition, log.leader, log.epoch, self.nodes, self.nodes, ())
            for tp, log in self.logs.items()
        )
        return Cluster(
            brokers={node: BrokerNode(node, Address("broker", 9092 + node)) for node in self.nodes},
            topics={"t": TopicInfo("t", bytes(16), False, infos)},
        )

    def fetch(self, node: int, request: FetchRequest) -> FetchResponse:
        """Answer a Fetch at version 12."""
        wanted: dict[TopicPartition, tuple[int, int, int]] = {}
        session_id = 0
        is_full = request.session_epoch in (0, -1)
        if request.session_epoch == -1:
            self.sessions.pop(request.session_id, None)
        elif is_full:
            self.sessions.pop(request.session_id, None)
            session_id, self._next_session = self._next_session, self._next_session + 1
            if self.source.random() < 0.1:
                session_id = 0
        else:
            known = self.sessions.get(request.session_id)
            if known is None or known[0] != node:
                return FetchResponse(error_code=ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
            if known[1] != request.session_epoch:
                return FetchResponse(error_code=ErrorCode.INVALID_FETCH_SESSION_EPOCH)
            session_id, wanted = request.session_id, known[2]
        for forgotten in request.forgotten_topics_data:
            for index in forgotten.partitions:
                del wanted[TopicPartition(forgotten.topic, index)]
        for topic in request.topics:
            for one in topic.partitions:
                tp = TopicPartition(topic.topic, one.partition)
                wanted.pop(tp, None)
                wanted[tp] = (one.fetch_offset, one.current_leader_epoch, one.partition_max_bytes)
        left = request.max_bytes
        answers: list[PartitionData] = []
        for tp, (offset, epoch, size_max) in list(wanted.items()):
            data = self._fetch_one(node, tp, offset, epoch, min(size_max, max(left, 1)), request.isolation_level)
            if data.records and left <= 0:
                data.records = b""
            left -= len(data.records or b"")
            if is_full or data.records or data.error_code or data.preferred_read_replica >= 0:
                answers.append(data)
                if data.records:
                    wanted[tp] = wanted.pop(tp)
        if session_id:
            epoch = 1 if is_full else request.session_epoch + 1
            self.sessions[session_id] = (node, epoch, wanted)
        return FetchResponse(
            session_id=session_id,
            responses=[FetchableTopicResponse(topic="t", partitions=answers)] if answers else [],
        )

    def _fetch_one(
        self, node: int, tp: TopicPartition, offset: int, epoch: int, size_max: int, isolation_level: int
    ) -> PartitionData:
        log = self.logs[tp]
        data = PartitionData(partition_index=tp.partition, aborted_transactions=None)
        code = ErrorCode.NONE
        end = log.end_offset
        if node == log.follower:
            end = log.follower_end_offset
        elif node != log.leader:
            code = ErrorCode.NOT_LEADER_OR_FOLLOWER
            if self.source.random() < 0.5:
                data.current_leader = LeaderIdAndEpoch(leader_id=log.leader, leader_epoch=log.epoch)
        if code is ErrorCode.NONE and epoch >= 0:
            if epoch < log.epoch:
                code = ErrorCode.FENCED_LEADER_EPOCH
            elif epoch > log.epoch:
                code = ErrorCode.UNKNOWN_LEADER_EPOCH
        if code is ErrorCode.NONE and self.source.random() < 0.03:
            code = self.source.choice(
                [ErrorCode.UNKNOWN_SERVER_ERROR, ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
            )
        if code is ErrorCode.NONE and not log.log_start_offset <= offset <= end:
            code = ErrorCode.OFFSET_OUT_OF_RANGE
        data.error_code = code
        if code is not ErrorCode.NONE:
            return data
        data.high_watermark = data.last_stable_offset = end
        data.log_start_offset = log.log_start_offset
        if self.recommends and node == log.leader and self.source.random() < 0.1:
            log.follower = self.source.choice([other for other in self.nodes if other != node])
            log.follower_end_offset = self.source.randint(log.log_start_offset, log.end_offset)
            data.preferred_read_replica = log.follower
            return data
        if isolation_level:
            data.aborted_transactions = list[AbortedTransaction]()
        data.records = memoryview(log.read(offset, end, size_max))
        return data

    def list_offsets(self, node: int, request: ListOffsetsRequest) -> ListOffsetsResponse:
        """Answer with either end."""
        answers = []
        for one in request.topics[0].partitions:
            log = self.logs[TopicPartition("t", one.partition_index)]
            answer = ListOffsetsPartitionResponse(partition_index=one.partition_index)
            if log.leader != node:
                answer.error_code = ErrorCode.NOT_LEADER_OR_FOLLOWER
            elif one.current_leader_epoch not in (-1, log.epoch):
                answer.error_code = (
                    ErrorCode.FENCED_LEADER_EPOCH
                    if one.current_leader_epoch < log.epoch
                    else ErrorCode.UNKNOWN_LEADER_EPOCH
                )
            else:
                answer.offset = log.log_start_offset if one.timestamp == -2 else log.end_offset
                answer.leader_epoch = -1
            answers.append(answer)
        return ListOffsetsResponse(topics=[ListOffsetsTopicResponse(name="t", partitions=answers)])

    def epoch_ends(self, node: int, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse:
        """Answer where epochs end."""
        answers = []
        for one in request.topics[0].partitions:
            log = self.logs[TopicPartition("t", one.partition)]
            answer = EpochEndOffset(partition=one.partition)
            if log.leader != node:
                answer.error_code = ErrorCode.NOT_LEADER_OR_FOLLOWER
            elif one.current_leader_epoch not in (-1, log.epoch):
                answer.error_code = ErrorCode.FENCED_LEADER_EPOCH
            else:
                answer.leader_epoch, answer.end_offset = log.epoch_end(one.leader_epoch)
            answers.append(answer)
        return OffsetForLeaderEpochResponse(topics=[OffsetForLeaderTopicResult(topic="t", partitions=answers)])
