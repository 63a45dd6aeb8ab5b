"""Requests about committed offsets, and the end of those that nobody uses any more (KIP-211)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from millstream.core.groups.offsets import NO_EXPIRY, CommittedOffset
from millstream.core.groups.records import OffsetCommitKey, OffsetCommitValue, encode_offset, offset_key_head
from millstream.core.wire import ZERO_UUID, ErrorCode, KafkaError
from millstream.core.wire.messages.list_groups import ListedGroup, ListGroupsRequest
from millstream.core.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from millstream.core.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)
from millstream.core.wire.messages.offset_fetch import (
    OffsetFetchRequestGroup,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
)

if TYPE_CHECKING:
    from millstream.core.cluster import ClusterImage, TopicImage
    from millstream.core.groups.group import Caller, Group, OffsetExpiry, Record
    from millstream.core.groups.shard import GroupShard

_log = logging.getLogger(__name__)

_NONE: Final = ErrorCode.NONE
NO_OFFSET: Final = -1
BROKER_RETENTION: Final = -1  # a request's retention_time_ms: the broker's own
# From this version of OffsetCommit on an unknown group is told as such.
GROUP_ID_NOT_FOUND_FROM_VERSION: Final = 9

# Records of one append of tombstones: far below what a batch may have.
TOMBSTONES_PER_APPEND: Final = 1_000


# Index, offset, leader epoch.
OffsetRow = tuple[int, int, int]


class TopicCommit:
    """What all OffsetCommits of a member for one topic say, whatever the partitions and their offsets."""

    __slots__ = ("api_version", "generation", "group_id", "instance_id", "key_head", "member_id", "topic")

    def __init__(self, request: OffsetCommitRequest, topic: str, api_version: int) -> None:
        self.group_id = request.group_id
        self.generation = request.generation_id_or_member_epoch
        self.member_id = request.member_id
        self.instance_id = request.group_instance_id
        self.topic = topic
        self.api_version = api_version
        self.key_head = offset_key_head(self.group_id, topic)


class OffsetRequests:
    """Serves what is asked about offsets; see GroupShard for what a request is."""

    def __init__(self, shard: GroupShard) -> None:
        self._shard = shard
        self._offsets = shard.offsets

    # Replay

    def replay(self, key: OffsetCommitKey, value: OffsetCommitValue | None) -> None:
        """Apply one record that is in no transaction."""
        if value is None:
            self._offsets.remove(key.group, key.topic, key.partition)
        else:
            self._ensure_group(key.group)
            self._offsets.put(key.group, key.topic, self._committed(key, value))

    def _replay_row(self, asked: TopicCommit, row: OffsetRow, now_ms: int) -> None:
        """Apply a record as `encode_offset` makes it, of a group that is there: `replay` of it without objects."""
        offsets = self._offsets
        offsets.sequence += 1
        index, offset, leader_epoch = row
        offsets.put(
            asked.group_id,
            asked.topic,
            CommittedOffset(index, offset, leader_epoch, "", now_ms, NO_EXPIRY, ZERO_UUID, offsets.sequence),
        )

    def replay_pending(self, key: OffsetCommitKey, value: OffsetCommitValue | None, producer_id: int) -> None:
        """Apply one record of an open transaction."""
        if value is None:
            self._offsets.remove(key.group, key.topic, key.partition)
        else:
            self._ensure_group(key.group)
            self._offsets.put_pending(producer_id, key.group, key.topic, self._committed(key, value))

    def end_transaction(self, producer_id: int, *, committed: bool) -> None:
        """Apply a transaction's marker."""
        self._offsets.end_transaction(producer_id, committed=committed)

    def handle_group_deleted(self, group_id: str) -> None:
        """A group's tombstone was replayed: where it leaves offsets behind they have a group without members.

        So it is with a consumer group that became a classic one by a member that never came to a generation.
        """
        if self._offsets.of_group(group_id) or self._offsets.pending_of_group(group_id):
            self._ensure_group(group_id)

    def _committed(self, key: OffsetCommitKey, value: OffsetCommitValue) -> CommittedOffset:
        self._offsets.sequence += 1
        return CommittedOffset(
            key.partition,
            value.offset,
            value.leader_epoch,
            value.metadata,
            value.commit_timestamp,
            value.expire_timestamp,
            value.topic_id,
            self._offsets.sequence,
        )

    def _ensure_group(self, group_id: str) -> None:
        # Who commits and never joins has a group without members all the same.
        if group_id not in self._shard.groups:
            self._shard.classic.get_or_create(group_id)

    # Commit

    def offset_commit(self, request: OffsetCommitRequest, caller: Caller, reply: object, now_ms: int) -> None:
        """Store offsets; partitions with too much metadata are refused for themselves, all else as a whole."""
        shard = self._shard
        group_id = request.group_id
        generation = request.generation_id_or_member_epoch
        group = shard.groups.get(group_id)
        check = None
        if group is not None:
            check = group.check_offset_commit(
                request.member_id,
                request.group_instance_id,
                generation,
                api_version=caller.api_version,
                transactional=False,
            )
            self._shard.classic.extend_session(group, request.member_id, now_ms)
        elif generation >= 0:
            if caller.api_version >= GROUP_ID_NOT_FOUND_FROM_VERSION:
                raise _unknown_group(group_id)
            raise KafkaError(ErrorCode.ILLEGAL_GENERATION, f"group {group_id} has no generation {generation}")
        retention_ms = request.retention_time_ms
        expire_timestamp = NO_EXPIRY if retention_ms == BROKER_RETENTION else now_ms + retention_ms
        metadata_size_max = shard.configs.offset_metadata_size_bytes_max
        records: list[Record] = []
        answers = []
        for topic in request.topics:
            name = topic.name
            partitions = []
            for partition in topic.partitions:
                index = partition.partition_index
                metadata = partition.committed_metadata or ""
                code = _NONE
                if len(metadata) * 2 > metadata_size_max and _utf16_length(metadata) > metadata_size_max:
                    code = ErrorCode.OFFSET_METADATA_TOO_LARGE
                else:
                    if check is not None:
                        check(name, index)
                    value = OffsetCommitValue(
                        offset=partition.committed_offset,
                        leader_epoch=partition.committed_leader_epoch,
                        metadata=metadata,
                        commit_timestamp=now_ms,
                        expire_timestamp=expire_timestamp,
                    )
                    records.append((OffsetCommitKey(group=group_id, topic=name, partition=index), value))
                partitions.append(OffsetCommitResponsePartition(partition_index=index, error_code=code))
            answers.append(OffsetCommitResponseTopic(name=name, partitions=partitions))
        shard.append(records)
        shard.outbox.respond(reply, OffsetCommitResponse(topics=answers))

    def commit_rows(
        self, asked: TopicCommit, rows: Sequence[OffsetRow], reply: object, response: object, now_ms: int
    ) -> bool:
        """Store offsets of one topic's partitions that are there, and answer `response`.

        False, with nothing changed, where `offset_commit` has to look at the request: it may have to be refused.
        Raises KafkaError as it does.
        """
        shard = self._shard
        group = shard.groups.get(asked.group_id)
        if group is None:
            return False
        check = group.check_offset_commit(
            asked.member_id, asked.instance_id, asked.generation, api_version=asked.api_version, transactional=False
        )
        if check is not None:
            return False
        head = asked.key_head
        shard.append_encoded([encode_offset(head, *row, now_ms) for row in rows])
        shard.classic.extend_session(group, asked.member_id, now_ms)
        for row in rows:
            self._replay_row(asked, row, now_ms)
        shard.outbox.respond(reply, response)
        return True

    # Fetch

    def offset_fetch(self, asked: OffsetFetchRequestGroup, reply: object, *, require_stable: bool) -> None:
        """Answer what is committed, of all topics where none are named; nothing for a group that is not there."""
        group_id = asked.group_id
        group = self._shard.groups.get(group_id)
        if group is not None:
            group.check_offset_fetch(asked.member_id, asked.member_epoch)
        committed = {} if group is None else self._offsets.of_group(group_id)
        pending = self._offsets.pending_of_group(group_id) if require_stable else {}
        topics = []
        if asked.topics is None:
            for name, offsets in committed.items():
                partitions: list[Any] = list(offsets.values())
                topics.append(OffsetFetchResponseTopics(name=name, partitions=partitions))
        else:
            for topic in asked.topics:
                offsets = committed.get(topic.name, {})
                partitions = [offsets.get(index) or _nothing(index) for index in topic.partition_indexes]
                topics.append(OffsetFetchResponseTopics(name=topic.name, partitions=partitions))
        if pending:
            for answer in topics:
                answer.partitions = [
                    _unstable(item.partition_index) if (answer.name, item.partition_index) in pending else item
                    for item in answer.partitions
                ]
        self._shard.outbox.respond(reply, OffsetFetchResponseGroup(group_id=group_id, topics=topics))

    # Delete

    def offset_delete(self, request: OffsetDeleteRequest, reply: object) -> None:
        """Forget offsets of topics that no member reads."""
        group_id = request.group_id
        group = self._shard.groups.get(group_id)
        if group is None:
            raise _unknown_group(group_id)
        group.check_offset_delete()
        records: list[Record] = []
        answers = []
        for topic in request.topics:
            code = ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC if group.is_subscribed(topic.name) else ErrorCode.NONE
            partitions = []
            for partition in topic.partitions:
                index = partition.partition_index
                partitions.append(OffsetDeleteResponsePartition(partition_index=index, error_code=code))
                if code == ErrorCode.NONE and self._is_known(group_id, topic.name, index):
                    records.append(_tombstone(group_id, topic.name, index))
            answers.append(OffsetDeleteResponseTopic(name=topic.name, partitions=partitions))
        self._append(records)
        self._shard.outbox.respond(reply, OffsetDeleteResponse(topics=answers))

    def delete_group(self, group_id: str, reply: object) -> None:
        """Delete a group without members, with all its offsets."""
        group = self._shard.groups.get(group_id)
        if group is None:
            raise _unknown_group(group_id)
        group.check_delete()
        self._append([*self._tombstones(group_id), *group.tombstones()])
        self._shard.outbox.respond(reply, ErrorCode.NONE)

    def handle_topics(self, old: ClusterImage, new: ClusterImage) -> None:
        """Topics were deleted: no group has come anywhere in them."""
        records = {
            (group_id, topic.name, partition): _tombstone(group_id, topic.name, partition)
            for topic in _deleted_topics(_Topics(old.topics), _Topics(new.topics))
            for group_id, partition, topic_id in self._offsets.of_topic(topic.name)
            if topic_id in {ZERO_UUID, topic.topic_id}
        }
        try:
            self._append(list(records.values()))
        except KafkaError as error:
            _log.error("offsets of topics that were deleted are kept: %s", error)

    def expire(self, now_ms: int) -> Iterator[None]:
        """Delete what has been unused for the retention time; see GroupShard.expire_offsets."""
        groups = self._shard.groups
        for group_id, group in list(groups.items()):
            if groups.get(group_id) is group:
                all_expired, records = self._expired(group_id, group, now_ms)
                if all_expired and group.is_empty():
                    records += group.tombstones()
                try:
                    self._append(records)
                except KafkaError as error:
                    # The others' go all the same.
                    _log.error("group %s: its offsets have expired and can't be deleted: %s", group_id, error)
            yield

    def _expired(self, group_id: str, group: Group, now_ms: int) -> tuple[bool, list[Record]]:
        """Return whether the group has no offsets left, and the records that delete those that have expired."""
        committed = self._offsets.of_group(group_id)
        pending = self._offsets.pending_of_group(group_id)
        expiry = group.offset_expiry() if committed else None
        if committed and expiry is None:
            return False, []
        retention_ms = self._shard.configs.offsets_retention_ms
        left = bool(pending)
        records: list[Record] = []
        for topic, offsets in committed.items():
            if group.is_subscribed(topic):
                left = True
                continue
            for partition, offset in offsets.items():
                if (topic, partition) not in pending and _is_expired(offset, expiry, retention_ms, now_ms):
                    records.append(_tombstone(group_id, topic, partition))
                else:
                    left = True
        return not left, records

    def _tombstones(self, group_id: str) -> list[Record]:
        partitions = {
            (topic, partition): None
            for topic, offsets in self._offsets.of_group(group_id).items()
            for partition in offsets
        }
        partitions.update(dict.fromkeys(self._offsets.pending_of_group(group_id)))
        return [_tombstone(group_id, topic, partition) for topic, partition in partitions]

    def _is_known(self, group_id: str, topic: str, partition: int) -> bool:
        offsets = self._offsets
        return offsets.get(group_id, topic, partition) is not None or offsets.is_pending(group_id, topic, partition)

    def _append(self, records: list[Record]) -> None:
        """Append what may be more than a batch holds; each part is right by itself.

        Raises KafkaError where a single record is too large, which what it deletes was not.
        """
        for start in range(0, len(records), TOMBSTONES_PER_APPEND):
            self._append_part(records[start : start + TOMBSTONES_PER_APPEND])

    def _append_part(self, records: list[Record]) -> None:
        # Names of groups may be so long that a batch holds a few of them only.
        try:
            self._shard.append(records)
        except KafkaError:
            if len(records) == 1:
                raise
            middle = len(records) // 2
            self._append_part(records[:middle])
            self._append_part(records[middle:])

    # List

    def list_groups(self, request: ListGroupsRequest, reply: object) -> None:
        """Answer the groups in the states and of the types asked for; all where none are. Case does not matter."""
        states = {state.lower() for state in request.states_filter}
        types = {kind.lower() for kind in request.types_filter}
        self._shard.outbox.respond(
            reply,
            [
                ListedGroup(
                    group_id=group.group_id,
                    protocol_type=group.protocol_type,
                    group_state=group.state_name,
                    group_type=group.group_type.lower(),
                )
                for group in self._shard.groups.values()
                if (not states or group.state_name.lower() in states)
                and (not types or group.group_type.lower() in types)
            ],
        )


class _Topics:
    """The topics of an image, the same as those of another one only where they are the same object."""

    def __init__(self, by_name: Mapping[str, TopicImage]) -> None:
        self.by_name = by_name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Topics) and self.by_name is other.by_name

    def __hash__(self) -> int:
        return id(self.by_name)


# Every shard of a broker asks the same of each change, and looking over 20,000 topics takes milliseconds.
@lru_cache(1)
def _deleted_topics(old: _Topics, new: _Topics) -> list[TopicImage]:
    now = new.by_name
    return [
        topic
        for name, topic in old.by_name.items()
        if (found := now.get(name)) is not topic and (found is None or found.topic_id != topic.topic_id)
    ]


def _tombstone(group_id: str, topic: str, partition: int) -> Record:
    return OffsetCommitKey(group=group_id, topic=topic, partition=partition), None


def _is_expired(offset: CommittedOffset, expiry: OffsetExpiry | None, retention_ms: int, now_ms: int) -> bool:
    if offset.expire_timestamp_ms != NO_EXPIRY:
        return now_ms >= offset.expire_timestamp_ms
    assert expiry is not None, "a group whose offsets are in use"
    return now_ms - expiry.base_timestamp_ms(offset.commit_timestamp_ms) >= retention_ms


def _nothing(partition: int) -> OffsetFetchResponsePartitions:
    return OffsetFetchResponsePartitions(partition_index=partition, committed_offset=NO_OFFSET)


def _unstable(partition: int) -> OffsetFetchResponsePartitions:
    return OffsetFetchResponsePartitions(
        partition_index=partition, committed_offset=NO_OFFSET, error_code=ErrorCode.UNSTABLE_OFFSET_COMMIT
    )


def _utf16_length(text: str) -> int:
    # offset.metadata.max.bytes counts Java's chars.
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _unknown_group(group_id: str) -> KafkaError:
    return KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {group_id} not found.")
