"""The records of `__consumer_offsets`: what they hold, and their keys and values as bytes.

A key is an int16 that says its kind and the fields of that kind; a value is an int16 version and the fields of that
version. A key without a value deletes. Declared as in Kafka 4.3's group coordinator, so that its tools read what is
written here and a moved data directory is understood.

    kind  record                                     one for each
    0, 1  OffsetCommit                               group, topic, partition
    2     GroupMetadata                              group of the classic protocol
    3     ConsumerGroupMetadata                      group of the consumer protocol (KIP-848): its epoch
    4     ConsumerGroupPartitionMetadata             the same, up to Kafka 4.0; only deleted here
    5     ConsumerGroupMemberMetadata                member: what it subscribes to
    6     ConsumerGroupTargetAssignmentMetadata      group: the epoch of its target assignment
    7     ConsumerGroupTargetAssignmentMember        member: what it is to have
    8     ConsumerGroupCurrentMemberAssignment       member: what it has
    16    ConsumerGroupRegularExpression             group, regular expression: the topics that match
"""

from __future__ import annotations

import struct as layouts
from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

from millstream.core.wire import ZERO_UUID, WireError, decode, encode
from millstream.core.wire.fields import field, int8, int32, int64, message, struct, uuid

# The version that committed offsets are written in, and the one that has a place for when they expire.
_OFFSET_VERSION: Final = 3
_EXPIRING_OFFSET_VERSION: Final = 1
# An OffsetCommitValue as nearly all are: its version, offset, leader epoch, the length of no metadata, timestamp.
_PLAIN_OFFSET: Final = layouts.Struct(">hqihq")
# Keys whose bytes are remembered: who commits an offset commits the next one soon.
OFFSET_KEYS_KEPT_MAX: Final = 10_000
# Keys of longer group ids are not remembered: a client may make them of 32 KiB.
KEPT_GROUP_LENGTH_MAX: Final = 256
_NUMBER: Final = layouts.Struct(">h")
# What the key of a committed offset ends with.
_PARTITION: Final = layouts.Struct(">i")


class RecordKind(IntEnum):
    """The int16 that a key begins with."""

    LEGACY_OFFSET_COMMIT = 0
    OFFSET_COMMIT = 1
    GROUP_METADATA = 2
    CONSUMER_GROUP_METADATA = 3
    CONSUMER_GROUP_PARTITION_METADATA = 4
    CONSUMER_GROUP_MEMBER_METADATA = 5
    CONSUMER_GROUP_TARGET_ASSIGNMENT_METADATA = 6
    CONSUMER_GROUP_TARGET_ASSIGNMENT_MEMBER = 7
    CONSUMER_GROUP_CURRENT_MEMBER_ASSIGNMENT = 8
    CONSUMER_GROUP_REGULAR_EXPRESSION = 16


@message(key=1, versions="0", flexible="none")
class OffsetCommitKey:
    group: str = ""
    topic: str = ""
    partition: int32 = 0


@message(key=1, versions="0-4", flexible="4+")
class OffsetCommitValue:
    offset: int64 = 0
    leader_epoch: int32 = field(versions="3+", default=-1)
    metadata: str = ""
    commit_timestamp: int64 = 0
    expire_timestamp: int64 = field(versions="1", default=-1)
    topic_id: uuid = field(versions="4+", tag=0, default=ZERO_UUID)


@message(key=2, versions="0", flexible="none")
class GroupMetadataKey:
    group: str = ""


@struct
class MemberMetadata:
    member_id: str = ""
    group_instance_id: str | None = field(versions="3+", default=None)
    client_id: str = ""
    client_host: str = ""
    rebalance_timeout: int32 = field(versions="1+", default=-1)
    session_timeout: int32 = 0
    subscription: bytes = b""
    assignment: bytes = b""


@message(key=2, versions="0-4", flexible="4+")
class GroupMetadataValue:
    protocol_type: str = ""
    generation: int32 = 0
    protocol: str | None = ""
    leader: str | None = ""
    current_state_timestamp: int64 = field(versions="2+", default=-1)
    members: list[MemberMetadata] = field(factory=list)


@message(key=3, versions="0", flexible="none")
class ConsumerGroupMetadataKey:
    group_id: str = ""


@message(key=3, versions="0", flexible="0+")
class ConsumerGroupMetadataValue:
    epoch: int32 = 0
    metadata_hash: int64 = field(versions="0+", tag=0, default=0)


@message(key=4, versions="0", flexible="none")
class ConsumerGroupPartitionMetadataKey:
    group_id: str = ""


@message(key=5, versions="0", flexible="none")
class ConsumerGroupMemberMetadataKey:
    group_id: str = ""
    member_id: str = ""


@struct
class ClassicProtocol:
    name: str = ""
    metadata: bytes = b""


@struct
class ClassicMemberMetadata:
    session_timeout_ms: int32 = 0
    supported_protocols: list[ClassicProtocol] = field(factory=list)


@message(key=5, versions="0", flexible="0+")
class ConsumerGroupMemberMetadataValue:
    instance_id: str | None = ""
    rack_id: str | None = ""
    client_id: str = ""
    client_host: str = ""
    subscribed_topic_names: list[str] = field(factory=list)
    subscribed_topic_regex: str | None = ""
    rebalance_timeout_ms: int32 = -1
    server_assignor: str | None = ""
    classic_member_metadata: ClassicMemberMetadata | None = field(versions="0+", nullable="0+", tag=0, default=None)


@message(key=6, versions="0", flexible="none")
class ConsumerGroupTargetAssignmentMetadataKey:
    group_id: str = ""


@message(key=6, versions="0", flexible="0+")
class ConsumerGroupTargetAssignmentMetadataValue:
    assignment_epoch: int32 = 0
    assignment_timestamp: int64 = field(versions="0+", tag=0, default=0)


@message(key=7, versions="0", flexible="none")
class ConsumerGroupTargetAssignmentMemberKey:
    group_id: str = ""
    member_id: str = ""


@struct
class TargetTopicPartition:
    topic_id: uuid = ZERO_UUID
    partitions: list[int32] = field(factory=list)


@message(key=7, versions="0", flexible="0+")
class ConsumerGroupTargetAssignmentMemberValue:
    topic_partitions: list[TargetTopicPartition] = field(factory=list)


@message(key=8, versions="0", flexible="none")
class ConsumerGroupCurrentMemberAssignmentKey:
    group_id: str = ""
    member_id: str = ""


@struct
class CurrentTopicPartitions:
    topic_id: uuid = ZERO_UUID
    partitions: list[int32] = field(factory=list)
    # The epoch in which each partition came to the member, to fence commits of a former owner (Kafka 4.2).
    assignment_epochs: list[int32] | None = field(versions="0+", tag=0, default=None)


@message(key=8, versions="0", flexible="0+")
class ConsumerGroupCurrentMemberAssignmentValue:
    member_epoch: int32 = 0
    previous_member_epoch: int32 = 0
    state: int8 = 0
    assigned_partitions: list[CurrentTopicPartitions] = field(factory=list)
    partitions_pending_revocation: list[CurrentTopicPartitions] = field(factory=list)


@message(key=16, versions="0", flexible="none")
class ConsumerGroupRegularExpressionKey:
    group_id: str = ""
    regular_expression: str = ""


@message(key=16, versions="0", flexible="0+")
class ConsumerGroupRegularExpressionValue:
    topics: list[str] = field(factory=list)
    version: int64 = 0
    timestamp: int64 = 0


class _Format(NamedTuple):
    key: type[Any]
    # None where the value is not read: it stays bytes.
    value: type[Any] | None
    # The version that is written; older and newer ones are read.
    version: int


_FORMATS: Final[Mapping[int, _Format]] = {
    RecordKind.LEGACY_OFFSET_COMMIT: _Format(OffsetCommitKey, OffsetCommitValue, _OFFSET_VERSION),
    RecordKind.OFFSET_COMMIT: _Format(OffsetCommitKey, OffsetCommitValue, _OFFSET_VERSION),
    RecordKind.GROUP_METADATA: _Format(GroupMetadataKey, GroupMetadataValue, 3),
    RecordKind.CONSUMER_GROUP_METADATA: _Format(ConsumerGroupMetadataKey, ConsumerGroupMetadataValue, 0),
    RecordKind.CONSUMER_GROUP_PARTITION_METADATA: _Format(ConsumerGroupPartitionMetadataKey, None, 0),
    RecordKind.CONSUMER_GROUP_MEMBER_METADATA: _Format(
        ConsumerGroupMemberMetadataKey, ConsumerGroupMemberMetadataValue, 0
    ),
    RecordKind.CONSUMER_GROUP_TARGET_ASSIGNMENT_METADATA: _Format(
        ConsumerGroupTargetAssignmentMetadataKey, ConsumerGroupTargetAssignmentMetadataValue, 0
    ),
    RecordKind.CONSUMER_GROUP_TARGET_ASSIGNMENT_MEMBER: _Format(
        ConsumerGroupTargetAssignmentMemberKey, ConsumerGroupTargetAssignmentMemberValue, 0
    ),
    RecordKind.CONSUMER_GROUP_CURRENT_MEMBER_ASSIGNMENT: _Format(
        ConsumerGroupCurrentMemberAssignmentKey, ConsumerGroupCurrentMemberAssignmentValue, 0
    ),
    RecordKind.CONSUMER_GROUP_REGULAR_EXPRESSION: _Format(
        ConsumerGroupRegularExpressionKey, ConsumerGroupRegularExpressionValue, 0
    ),
}
# The kind that a key of each class is written as.
_KINDS: Final[Mapping[type[Any], int]] = {
    form.key: kind for kind, form in _FORMATS.items() if kind != RecordKind.LEGACY_OFFSET_COMMIT
}


def encode_key(key: object) -> bytes:
    """Return a key of one of this module's key classes as bytes."""
    return encode(key, 0, _NUMBER.pack(_KINDS[type(key)]))


def encode_value(key: object, value: object) -> bytes:
    """Return the value that belongs to `key` as bytes, in the version that is written."""
    version = _FORMATS[_KINDS[type(key)]].version
    if type(value) is OffsetCommitValue and value.expire_timestamp != -1:
        # What a client of before KIP-211 asks for; later versions have no place for it.
        version = _EXPIRING_OFFSET_VERSION
    return encode(value, version, _NUMBER.pack(version))


def encode_record(key: object, value: object | None) -> tuple[bytes, bytes | None]:
    """Return a record's bytes; without a value it deletes what the key stands for."""
    if type(key) is OffsetCommitKey:
        make_key = _kept_offset_commit_key if len(key.group) <= KEPT_GROUP_LENGTH_MAX else _offset_commit_key
        encoded = make_key(key.group, key.topic, key.partition)
        if type(value) is OffsetCommitValue and not value.metadata and value.expire_timestamp == -1:
            return encoded, _PLAIN_OFFSET.pack(
                _OFFSET_VERSION, value.offset, value.leader_epoch, 0, value.commit_timestamp
            )
    else:
        encoded = encode_key(key)
    return encoded, None if value is None else encode_value(key, value)


def offset_key_head(group: str, topic: str) -> bytes:
    """Return what the keys of all committed offsets of a topic begin with; the partition's int32 follows."""
    return _offset_commit_key(group, topic, 0)[: -_PARTITION.size]


def encode_offset(key_head: bytes, partition: int, offset: int, leader_epoch: int, now_ms: int) -> tuple[bytes, bytes]:
    """Return the record of an offset that comes without metadata, as `encode_record` would."""
    return key_head + _PARTITION.pack(partition), _PLAIN_OFFSET.pack(_OFFSET_VERSION, offset, leader_epoch, 0, now_ms)


def _offset_commit_key(group: str, topic: str, partition: int) -> bytes:
    return encode_key(OffsetCommitKey(group=group, topic=topic, partition=partition))


_kept_offset_commit_key = lru_cache(OFFSET_KEYS_KEPT_MAX)(_offset_commit_key)


def decode_record(key: bytes | memoryview, value: bytes | memoryview | None) -> tuple[Any, Any] | None:
    """Return (key, value or None for a deletion) as objects of this module; None for a kind that is not known here.

    Raises WireError for bytes that are not what their kind and version say.
    """
    if len(key) < _NUMBER.size:
        raise WireError(f"a key of {len(key)} bytes; it begins with an int16 that says its kind")
    (kind,) = _NUMBER.unpack_from(key)
    form = _FORMATS.get(kind)
    if form is None:
        return None
    decoded, _ = decode(form.key, 0, key, _NUMBER.size)
    if value is None:
        return decoded, None
    if form.value is None:
        return decoded, bytes(value)
    if len(value) < _NUMBER.size:
        raise WireError(f"a value of {len(value)} bytes; it begins with an int16 that says its version")
    (version,) = _NUMBER.unpack_from(value)
    return decoded, decode(form.value, version, value, _NUMBER.size)[0]
