"""What OffsetCommit and OffsetFetch say: requests made, answers judged; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.group_offsets import CommittedOffset, commit_topics
from millstream.core.client.membership.errors import CommitFailedError, RebalanceInProgressError
from millstream.core.client.membership.machine import COORDINATOR_GONE, Identity
from millstream.core.wire import ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.offset_commit import OffsetCommitRequest, OffsetCommitResponse
from millstream.core.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
)

Offsets = Mapping[TopicPartition, CommittedOffset]

STABLE_VERSION: Final = 7  # of OffsetFetch, from which on it can wait for transactions
_NO_OFFSET: Final = -1

# Asking again mends it; the coordinator is looked up again for those in LOOK_UP_AGAIN.
ASK_AGAIN: Final = COORDINATOR_GONE | {
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.REQUEST_TIMED_OUT,
    ErrorCode.NETWORK_EXCEPTION,
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ErrorCode.UNSTABLE_OFFSET_COMMIT,
    ErrorCode.STALE_MEMBER_EPOCH,
}
LOOK_UP_AGAIN: Final = COORDINATOR_GONE | {ErrorCode.REQUEST_TIMED_OUT, ErrorCode.NETWORK_EXCEPTION}
# These say something of the member.
MEMBER_ERRORS: Final = frozenset(
    {
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.ILLEGAL_GENERATION,
        ErrorCode.FENCED_INSTANCE_ID,
        ErrorCode.FENCED_MEMBER_EPOCH,
        ErrorCode.REBALANCE_IN_PROGRESS,
    }
)


class Verdict(NamedTuple):
    """What came of a commit, by partition; NONE where it is committed."""

    codes: Mapping[TopicPartition, ErrorCode]

    @property
    def refusal(self) -> ErrorCode | None:
        """What it says of the member, if anything."""
        return next((code for code in self.codes.values() if code in MEMBER_ERRORS), None)

    @property
    def again(self) -> dict[TopicPartition, ErrorCode]:
        """Partitions to commit again."""
        return {tp: code for tp, code in self.codes.items() if code in ASK_AGAIN}


def commit_request(group_id: str, identity: Identity, offsets: Offsets) -> OffsetCommitRequest:
    """Make the request that commits `offsets`."""
    return OffsetCommitRequest(
        group_id=group_id,
        generation_id_or_member_epoch=identity.generation,
        member_id=identity.member_id,
        group_instance_id=identity.instance_id,
        topics=commit_topics(offsets),
    )


def judge_commit(response: OffsetCommitResponse, asked: Iterable[TopicPartition]) -> Verdict:
    """Read the answer; a partition that it leaves out is not committed."""
    codes = dict.fromkeys(asked, ErrorCode.UNKNOWN_SERVER_ERROR)
    for topic in response.topics:
        for partition in topic.partitions:
            codes[TopicPartition(topic.name, partition.partition_index)] = error_code(partition.error_code)
    return Verdict(codes)


def commit_error(code: ErrorCode, tp: TopicPartition, group_id: str) -> KafkaError:
    """Return what a refused commit is raised as."""
    if code is ErrorCode.REBALANCE_IN_PROGRESS:
        return RebalanceInProgressError(
            code, f"offsets were not committed: group {group_id!r} is rebalancing; poll, then commit again"
        )
    if code in MEMBER_ERRORS or code is ErrorCode.STALE_MEMBER_EPOCH:
        return CommitFailedError(
            code,
            f"offsets were not committed: this member is not in group {group_id!r} any more as it was, and others may "
            f"have its partitions ({code.sentence.rstrip('.')})",
        )
    return KafkaError(code, f"the offset of {tp} was not committed in group {group_id!r}: {code.sentence}")


def fetch_request(
    group_id: str, partitions: Iterable[TopicPartition], *, member: Identity | None, require_stable: bool
) -> OffsetFetchRequest:
    """Make the request for what is committed; `member` is that of a group of the consumer protocol."""
    by_topic: dict[str, list[int]] = {}
    for tp in partitions:
        by_topic.setdefault(tp.topic, []).append(tp.partition)
    group = OffsetFetchRequestGroup(
        group_id=group_id,
        topics=[OffsetFetchRequestTopics(name=name, partition_indexes=each) for name, each in by_topic.items()],
    )
    if member is not None:
        group.member_id = member.member_id
        group.member_epoch = member.generation
    return OffsetFetchRequest(
        group_id=group_id,
        topics=[OffsetFetchRequestTopic(name=name, partition_indexes=each) for name, each in by_topic.items()],
        groups=[group],
        require_stable=require_stable,
    )


def read_committed(response: OffsetFetchResponse, group_id: str) -> dict[TopicPartition, CommittedOffset]:
    """Return what is committed. Raises KafkaError for an error of the group, or of the first partition with one."""
    one: Any = response.groups[0] if response.groups else response
    if one.error_code:
        code = error_code(one.error_code)
        raise KafkaError(code, f"offsets of group {group_id!r} can't be read: {code.sentence}")
    found: dict[TopicPartition, CommittedOffset] = {}
    for topic in one.topics:
        for partition in topic.partitions:
            tp = TopicPartition(topic.name, partition.partition_index)
            if partition.error_code:
                code = error_code(partition.error_code)
                raise KafkaError(code, f"the offset of {tp} in group {group_id!r} can't be read: {code.sentence}")
            if partition.committed_offset != _NO_OFFSET:
                found[tp] = CommittedOffset(
                    partition.committed_offset, partition.committed_leader_epoch, partition.metadata or ""
                )
    return found
