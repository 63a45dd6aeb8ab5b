"""The small text files beside the segments, in Kafka's formats.

    <name>-offset-checkpoint   "0", the count, then "topic partition offset" a line     (a log directory)
    leader-epoch-checkpoint    "0", the count, then "epoch start_offset" a line         (a partition's folder)
    partition.metadata         "version: 0" and "topic_id: <base64>"                    (a partition's folder)
    .kafka_cleanshutdown       {"version":0,"brokerEpoch":N}                            (a log directory)

This module knows texts; `FileSystem.write_atomically` puts them on disk. Anything unexpected raises
CorruptCheckpointError.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final

from millstream.core.log.errors import CorruptCheckpointError
from millstream.core.log.leader_epochs import EpochEntry
from millstream.core.log.topic_partition import TopicPartition
from millstream.core.wire import uuid_from_text, uuid_text

RECOVERY_POINT: Final = "recovery-point-offset-checkpoint"
LOG_START_OFFSET: Final = "log-start-offset-checkpoint"
REPLICATION_OFFSET: Final = "replication-offset-checkpoint"
CLEANER_OFFSET: Final = "cleaner-offset-checkpoint"
LEADER_EPOCH: Final = "leader-epoch-checkpoint"
PARTITION_METADATA: Final = "partition.metadata"
CLEAN_SHUTDOWN: Final = ".kafka_cleanshutdown"

_VERSION: Final = "0"


def encode_offsets(offsets: Mapping[TopicPartition, int]) -> bytes:
    """Return an offset checkpoint."""
    lines = [_VERSION, str(len(offsets))]
    lines.extend(f"{topic} {partition} {offset}" for (topic, partition), offset in offsets.items())
    lines.append("")
    return "\n".join(lines).encode()


def decode_offsets(data: bytes) -> dict[TopicPartition, int]:
    """Return what an offset checkpoint holds."""
    offsets = {}
    for line in _entry_lines(data):
        fields = line.split(" ")
        if len(fields) != 3:
            raise CorruptCheckpointError(f"{line!r} is no topic, partition and offset")
        offsets[TopicPartition(fields[0], _number(fields[1], line))] = _number(fields[2], line)
    return offsets


def encode_leader_epochs(entries: Iterable[EpochEntry]) -> bytes:
    """Return a leader-epoch checkpoint."""
    lines = [f"{entry.epoch} {entry.start_offset}" for entry in entries]
    return "\n".join([_VERSION, str(len(lines)), *lines, ""]).encode()


def decode_leader_epochs(data: bytes) -> list[EpochEntry]:
    """Return what a leader-epoch checkpoint holds."""
    entries = []
    for line in _entry_lines(data):
        fields = line.split(" ")
        if len(fields) != 2:
            raise CorruptCheckpointError(f"{line!r} is no epoch and offset")
        entries.append(EpochEntry(_number(fields[0], line), _number(fields[1], line)))
    return entries


def encode_partition_metadata(topic_id: bytes) -> bytes:
    """Return a `partition.metadata`."""
    return f"version: 0\ntopic_id: {uuid_text(topic_id)}".encode()


def decode_partition_metadata(data: bytes) -> bytes:
    """Return the topic id of a `partition.metadata`."""
    try:
        fields = dict(line.split(": ", 1) for line in data.decode("ascii").splitlines() if line)
        if int(fields["version"]) != 0:
            raise CorruptCheckpointError(f"version {fields['version']} where 0 is the only one")
        return uuid_from_text(fields["topic_id"])
    except (ValueError, KeyError) as error:
        raise CorruptCheckpointError(f"{data[:200]!r} is no partition metadata: {error}") from error


def encode_clean_shutdown(broker_epoch: int) -> bytes:
    """Return the mark that a log directory was closed in good order."""
    return json.dumps({"version": 0, "brokerEpoch": broker_epoch}, separators=(",", ":")).encode()


def decode_clean_shutdown(data: bytes) -> int:
    """Return the broker epoch in the mark, -1 where it names none: that the mark is there is what counts."""
    try:
        return int(json.loads(data)["brokerEpoch"])
    except (ValueError, KeyError, TypeError):
        return -1


def _entry_lines(data: bytes) -> list[str]:
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise CorruptCheckpointError(f"it is no text: {error}") from error
    if lines[0] != _VERSION:
        raise CorruptCheckpointError(f"version {lines[0][:40]!r} where {_VERSION} is the only one")
    if len(lines) < 2:
        raise CorruptCheckpointError("the count of entries is missing")
    count = _number(lines[1], lines[1])
    entries = [line for line in lines[2:] if line]
    if len(entries) != count:
        raise CorruptCheckpointError(f"{len(entries)} entries where {count} are announced")
    return entries


def _number(text: str, line: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise CorruptCheckpointError(f"{text[:40]!r} is no number in {line[:300]!r}") from None
