"""One partition of `__consumer_offsets` as a state machine: its groups and their committed offsets.

Sans-I/O: requests, time, replayed records and metadata come in as calls with the time; effects go out (`effects.py`),
answers only once what they show is committed (`outbox.py`).

    load      replay and replay_marker for each of the partition's records, in order, then resume to its end
    unload    close: the partition has another leader, or an append failed; a new shard replays the log

Event-sourced: a request computes records, and `append` both writes them and applies them by the code that a load runs,
so that state in records is changed in one place only. What is not in the log - who waits in a rebalance, sessions -
ends with the shard: members find the new one and join again, as they do when a Kafka broker hands over its coordinator.
Owned by the event loop.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from millstream.core.groups.classic.requests import ClassicRequests
from millstream.core.groups.consumer.requests import ConsumerRequests
from millstream.core.groups.offset_requests import OffsetRequests
from millstream.core.groups.offsets import Offsets
from millstream.core.groups.outbox import Outbox
from millstream.core.groups.records import (
    ConsumerGroupCurrentMemberAssignmentKey,
    ConsumerGroupMemberMetadataKey,
    ConsumerGroupMetadataKey,
    ConsumerGroupPartitionMetadataKey,
    ConsumerGroupRegularExpressionKey,
    ConsumerGroupTargetAssignmentMemberKey,
    ConsumerGroupTargetAssignmentMetadataKey,
    GroupMetadataKey,
    OffsetCommitKey,
    decode_record,
    encode_record,
)
from millstream.core.wire import ErrorCode, KafkaError, WireError

if TYPE_CHECKING:
    from millstream.core.cluster import ClusterImage
    from millstream.core.groups.configs import GroupConfigs
    from millstream.core.groups.effects import Emit, KeyedRecord
    from millstream.core.groups.group import Caller, Group, Record
    from millstream.core.groups.timer_wheel import TimerWheel
    from millstream.core.wire.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest
    from millstream.core.wire.messages.heartbeat import HeartbeatRequest
    from millstream.core.wire.messages.join_group import JoinGroupRequest
    from millstream.core.wire.messages.leave_group import LeaveGroupRequest
    from millstream.core.wire.messages.list_groups import ListGroupsRequest
    from millstream.core.wire.messages.offset_commit import OffsetCommitRequest
    from millstream.core.wire.messages.offset_delete import OffsetDeleteRequest
    from millstream.core.wire.messages.offset_fetch import OffsetFetchRequestGroup
    from millstream.core.wire.messages.sync_group import SyncGroupRequest

CONSUMER: Final = "Consumer"
CLASSIC: Final = "Classic"

# What a batch and its records cost besides keys and values, as far as `append` has to know it.
BATCH_OVERHEAD_BYTES: Final = 61
RECORD_OVERHEAD_BYTES_MAX: Final = 32
# What one request may append, unless the partition's max.message.bytes says otherwise.
APPEND_SIZE_BYTES_MAX: Final = 1024 * 1024

_CONSUMER_KEYS: Final = (
    ConsumerGroupMetadataKey,
    ConsumerGroupPartitionMetadataKey,
    ConsumerGroupMemberMetadataKey,
    ConsumerGroupTargetAssignmentMetadataKey,
    ConsumerGroupTargetAssignmentMemberKey,
    ConsumerGroupCurrentMemberAssignmentKey,
    ConsumerGroupRegularExpressionKey,
)


class ShardState(Enum):
    """See GroupShard."""

    LOADING = "loading"
    ACTIVE = "active"
    CLOSED = "closed"


class GroupShard:
    """States: LOADING -> ACTIVE (resume ends) -> CLOSED (close: resigned, or an append failed).

    Each request is `(request, caller, reply, now_ms) -> None` and ends in `outbox.respond(reply, response)`, at once
    or, where it waits in a rebalance, later. A KafkaError that leaves it is the answer, and nothing was changed.
    Closed, it answers nobody any more: whoever feeds it refuses what is unanswered.
    """

    def __init__(
        self,
        index: int,
        *,
        configs: GroupConfigs,
        image: ClusterImage,
        timers: TimerWheel,
        random_source: random.Random,
        emit: Emit,
        append_size_bytes_max: int = APPEND_SIZE_BYTES_MAX,
    ) -> None:
        # The partition of `__consumer_offsets` that it is kept in.
        self.index = index
        self.state = ShardState.LOADING
        self.configs = configs
        # The cluster's metadata as last told by handle_image: which topics there are, with how many partitions.
        self.image = image
        self.timers = timers
        self.random = random_source
        self.outbox = Outbox(emit)
        # The largest batch that the partition takes.
        self.append_size_bytes_max = append_size_bytes_max
        # Invariant: a group with committed offsets stands here.
        self.groups: dict[str, Group] = {}
        self.offsets = Offsets()
        self.classic = ClassicRequests(self)
        self.consumer = ConsumerRequests(self)
        self.offset_requests = OffsetRequests(self)
        self._replays: dict[type[Any], Callable[[Any, Any], None]] = {
            OffsetCommitKey: self.offset_requests.replay,
            GroupMetadataKey: self.classic.replay,
            **dict.fromkeys(_CONSUMER_KEYS, self.consumer.replay),
        }

    # Load and unload

    def replay(
        self, key: bytes | memoryview | None, value: bytes | memoryview | None, *, producer_id: int = -1
    ) -> None:
        """Apply one record of the log; `producer_id` is that of a transactional batch. Unknown kinds are left alone.

        Raises WireError for bytes that are no record of this topic.
        """
        decoded = None if key is None else decode_record(key, value)
        if decoded is None:
            return
        if producer_id != -1 and type(decoded[0]) is OffsetCommitKey:
            self.offset_requests.replay_pending(*decoded, producer_id)
        else:
            self._replays[type(decoded[0])](*decoded)

    def replay_marker(self, producer_id: int, *, committed: bool) -> None:
        """A transaction ended: its offsets count from here on, or never did."""
        self.offset_requests.end_transaction(producer_id, committed=committed)

    def resume(self, now_ms: int) -> Iterator[None]:
        """Everything in the log was replayed: each member has a session from now on, and then requests may come.

        Yields after each member: thousands of them are no work for one pass of the loop. In between timers may fire,
        and append.
        """
        assert self.state is ShardState.LOADING, f"shard {self.index} is {self.state}"
        for group in list(self.groups.values()):
            if self.groups.get(group.group_id) is group:
                yield from self._members_of(group.group_id).resume_loaded(group, now_ms)
            yield
        self.state = ShardState.ACTIVE

    def handle_loaded(self, now_ms: int) -> None:
        """Resume, all at once."""
        for _ in self.resume(now_ms):
            continue

    def close(self) -> None:
        """Cancel every timer; nothing is emitted from here on."""
        self.state = ShardState.CLOSED
        self.outbox.close()
        for group in self.groups.values():
            group.close()

    # Events

    def append(self, records: list[Record]) -> None:
        """Write records as one batch, and apply each as a load would.

        Raises KafkaError before anything is changed where they are too large for one batch, or a text for a record.
        """
        try:
            encoded = [encode_record(*record) for record in records]
        except WireError as error:
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, str(error)) from error
        self.append_encoded(encoded)
        replays = self._replays
        for key_object, value_object in records:
            replays[type(key_object)](key_object, value_object)

    def append_encoded(self, encoded: list[KeyedRecord]) -> None:
        """Write records as one batch, which the caller then applies by what a load applies them by.

        Raises KafkaError where they are too large for one batch.
        """
        size_bytes = RECORD_OVERHEAD_BYTES_MAX * len(encoded)
        for key, value in encoded:
            size_bytes += len(key) if value is None else len(key) + len(value)
        size_bytes_max = self.append_size_bytes_max - BATCH_OVERHEAD_BYTES
        if size_bytes > size_bytes_max:
            raise KafkaError(
                ErrorCode.UNKNOWN_SERVER_ERROR,  # Kafka's answer
                f"{size_bytes} bytes of records are more than the {size_bytes_max} that a batch of "
                f"__consumer_offsets-{self.index} may have",
            )
        self.outbox.append(encoded, size_bytes)

    def handle_committed(self, number: int) -> None:
        """Every append up to this one is committed."""
        self.outbox.handle_committed(number)

    def handle_image(self, image: ClusterImage, now_ms: int) -> None:
        """Topics came, went or grew."""
        old, self.image = self.image, image
        if old.topics is not image.topics and self.state is ShardState.ACTIVE:
            self.offset_requests.handle_topics(old, image)
            self.consumer.handle_image(old, image, now_ms)

    def reconfigure(self, configs: GroupConfigs) -> None:
        """What the operator set has changed."""
        self.configs = configs

    def expire_offsets(self, now_ms: int) -> Iterator[None]:
        """Delete offsets that nobody has used for the retention time, and groups that have nothing else.

        Yields after each group: with thousands of them it is no work for one pass of the loop.
        """
        return self.offset_requests.expire(now_ms)

    # Requests: what a group is says who serves it

    def join_group(self, request: JoinGroupRequest, caller: Caller, reply: object, now_ms: int) -> None:
        self._members_of(request.group_id).join_group(request, caller, reply, now_ms)

    def sync_group(self, request: SyncGroupRequest, caller: Caller, reply: object, now_ms: int) -> None:
        self._members_of(request.group_id).sync_group(request, caller, reply, now_ms)

    def heartbeat(self, request: HeartbeatRequest, caller: Caller, reply: object, now_ms: int) -> None:
        self._members_of(request.group_id).heartbeat(request, caller, reply, now_ms)

    def leave_group(self, request: LeaveGroupRequest, caller: Caller, reply: object, now_ms: int) -> None:
        self._members_of(request.group_id).leave_group(request, caller, reply, now_ms)

    def consumer_group_heartbeat(
        self, request: ConsumerGroupHeartbeatRequest, caller: Caller, reply: object, now_ms: int
    ) -> None:
        self.consumer.consumer_group_heartbeat(request, caller, reply, now_ms)

    def offset_commit(self, request: OffsetCommitRequest, caller: Caller, reply: object, now_ms: int) -> None:
        self.offset_requests.offset_commit(request, caller, reply, now_ms)

    def offset_fetch(
        self, request: tuple[OffsetFetchRequestGroup, bool], _caller: Caller, reply: object, _now_ms: int
    ) -> None:
        """Answer an OffsetFetchResponseGroup; the request is (group, require_stable)."""
        asked, require_stable = request
        self.offset_requests.offset_fetch(asked, reply, require_stable=require_stable)

    def offset_delete(self, request: OffsetDeleteRequest, _caller: Caller, reply: object, _now_ms: int) -> None:
        self.offset_requests.offset_delete(request, reply)

    def describe_group(self, group_id: str, caller: Caller, reply: object, _now_ms: int) -> None:
        """Answer a DescribedGroup of DescribeGroups."""
        self.outbox.respond(reply, self.classic.describe_group(group_id, caller))

    def describe_consumer_group(self, group_id: str, caller: Caller, reply: object, _now_ms: int) -> None:
        """Answer a DescribedGroup of ConsumerGroupDescribe."""
        self.outbox.respond(reply, self.consumer.describe_group(group_id, caller))

    def list_groups(self, request: ListGroupsRequest, _caller: Caller, reply: object, _now_ms: int) -> None:
        """Answer a list of ListedGroup."""
        self.offset_requests.list_groups(request, reply)

    def delete_group(self, group_id: str, _caller: Caller, reply: object, _now_ms: int) -> None:
        """Answer an ErrorCode."""
        self.offset_requests.delete_group(group_id, reply)

    def _members_of(self, group_id: str) -> Any:
        # A member that speaks the classic protocol in a group of the consumer protocol is served by the latter.
        group = self.groups.get(group_id)
        return self.consumer if group is not None and group.group_type == CONSUMER else self.classic
